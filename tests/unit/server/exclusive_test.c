/* exclusive_test.c - what the kernel watches, read from the kernel, while libev believes its own. */
#include "../../../src/server/exclusive.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <netinet/in.h>

#include <cmocka.h>

struct fixture {
    struct ev_loop *ev;
    struct exclusive exclusive;
    struct exclusive_watch watch;
    struct sockaddr_in address;
    int seen_count;
    int client_fds[8];
    int clients_count;
};

static void on_client(struct ev_loop *ev, ev_io *io, int events)
{
    struct fixture *fixture = ev_userdata(ev);
    int fd = accept(io->fd, NULL, NULL);
    assert_true(fd >= 0);
    close(fd);
    fixture->seen_count++;
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    socklen_t bytes = sizeof(fixture->address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    fixture->address.sin_family = AF_INET;
    fixture->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&fixture->address, bytes), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&fixture->address, &bytes), 0);
    assert_int_equal(listen(fd, 16), 0);
    fixture->ev = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV);
    ev_set_userdata(fixture->ev, fixture);
    exclusive_init(&fixture->exclusive, true);
    ev_io_init(&fixture->watch.io, on_client, fd, EV_READ);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < fixture->clients_count; i++)
        close(fixture->client_fds[i]);
    ev_io_stop(fixture->ev, &fixture->watch.io);
    close(fixture->watch.io.fd);
    ev_loop_destroy(fixture->ev);
    free(fixture);
    return 0;
}

static void turn(struct fixture *fixture)
{
    exclusive_turn_begins(&fixture->exclusive, &fixture->watch);
    ev_run(fixture->ev, EVRUN_NOWAIT);
    exclusive_turn_ends(&fixture->exclusive, &fixture->watch);
}

static void come(struct fixture *fixture)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&fixture->address, sizeof(fixture->address)),
                     0);
    fixture->client_fds[fixture->clients_count++] = fd;
}

/* The events under which some epoll set of this process watches the socket; 0: none does. */
static unsigned watched_events(const struct fixture *fixture)
{
    for (int fd = 0; fd < 64; fd++) {
        char path[64], line[160];
        snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        FILE *file = fopen(path, "re");
        unsigned events = 0;
        while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
            int watched_fd;
            unsigned found;
            if (sscanf(line, "tfd: %d events: %x", &watched_fd, &found) == 2 &&
                watched_fd == fixture->watch.io.fd)
                events = found;
        }
        if (file != NULL)
            fclose(file);
        if (events != 0)
            return events;
    }
    return 0;
}

static void watch_exclusively(struct fixture *fixture)
{
    exclusive_watch(&fixture->exclusive, fixture->ev, &fixture->watch);
    turn(fixture);
    assert_true(watched_events(fixture) & EPOLLEXCLUSIVE);
}

static void after_a_turn_the_kernel_watches_exclusively_and_libev_sees_the_client(void **state)
{
    struct fixture *fixture = *state;
    watch_exclusively(fixture);
    come(fixture);
    turn(fixture);
    assert_int_equal(fixture->seen_count, 1);
    assert_true(watched_events(fixture) & EPOLLEXCLUSIVE);
}

static void who_ignores_is_out_of_the_set(void **state)
{
    struct fixture *fixture = *state;
    watch_exclusively(fixture);
    exclusive_ignore(&fixture->exclusive, fixture->ev, &fixture->watch);
    assert_int_equal(watched_events(fixture), 0);
    come(fixture);
    turn(fixture);
    assert_int_equal(fixture->seen_count, 0);
}

static void watching_anew_is_exclusive_again_every_time(void **state)
{
    struct fixture *fixture = *state;
    for (int i = 0; i < 6; i++) {
        watch_exclusively(fixture);
        come(fixture);
        turn(fixture);
        assert_int_equal(fixture->seen_count, i + 1);
        exclusive_ignore(&fixture->exclusive, fixture->ev, &fixture->watch);
        if (i % 2 == 0)
            turn(fixture);
    }
}

static void given_up_and_taken_back_within_a_turn_it_is_read_again(void **state)
{
    struct fixture *fixture = *state;
    watch_exclusively(fixture);
    for (int i = 0; i < 3; i++) {
        exclusive_ignore(&fixture->exclusive, fixture->ev, &fixture->watch);
        exclusive_watch(&fixture->exclusive, fixture->ev, &fixture->watch);
    }
    exclusive_turn_begins(&fixture->exclusive, &fixture->watch);
    ev_run(fixture->ev, EVRUN_NOWAIT);
    exclusive_ignore(&fixture->exclusive, fixture->ev, &fixture->watch);
    exclusive_watch(&fixture->exclusive, fixture->ev, &fixture->watch);
    exclusive_turn_ends(&fixture->exclusive, &fixture->watch);
    turn(fixture);
    assert_true(watched_events(fixture) & EPOLLEXCLUSIVE);
    come(fixture);
    turn(fixture);
    assert_int_equal(fixture->seen_count, 1);
    assert_true(watched_events(fixture) & EPOLLEXCLUSIVE);
}

/* libev hears a word that it does not know and builds its set anew: no client is lost, and the
 * next refresh makes it exclusive again. */
static void a_wrong_word_costs_the_exclusivity_until_the_next_refresh(void **state)
{
    struct fixture *fixture = *state;
    watch_exclusively(fixture);
    exclusive_ignore(&fixture->exclusive, fixture->ev, &fixture->watch);
    fixture->watch.word += 5ull << 32;
    watch_exclusively(fixture);
    come(fixture);
    for (int i = 0; i < 3 && fixture->seen_count == 0; i++)
        turn(fixture);
    assert_int_equal(fixture->seen_count, 1);
    assert_false(watched_events(fixture) & EPOLLEXCLUSIVE);
    exclusive_refresh(&fixture->exclusive, fixture->ev, &fixture->watch);
    turn(fixture);
    assert_true(watched_events(fixture) & EPOLLEXCLUSIVE);
    come(fixture);
    turn(fixture);
    assert_int_equal(fixture->seen_count, 2);
    assert_true(watched_events(fixture) & EPOLLEXCLUSIVE);
}

/* A sibling that is told of a client and does nothing about it. */
struct sleeper {
    int epoll_fd;
    _Atomic int tid;
};

static void *sleep_on(void *argument)
{
    struct sleeper *sleeper = argument;
    struct epoll_event event;
    atomic_store(&sleeper->tid, gettid());
    assert_int_equal(epoll_wait(sleeper->epoll_fd, &event, 1, 20000), 1);
    return NULL;
}

static bool is_asleep(int tid)
{
    char path[64], text[256] = "";
    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    FILE *file = tid != 0 ? fopen(path, "re") : NULL;
    if (file == NULL)
        return false;
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    const char *state = strrchr(text, ')');
    return state != NULL && state[1] == ' ' && state[2] == 'S';
}

static void a_client_that_nobody_came_for_is_found_by_the_refresh(void **state)
{
    struct fixture *fixture = *state;
    struct sleeper sleeper = {.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE};
    pthread_t thread;
    assert_int_equal(
        epoll_ctl(sleeper.epoll_fd, EPOLL_CTL_ADD, fixture->watch.io.fd, &event), 0);
    watch_exclusively(fixture);
    assert_int_equal(pthread_create(&thread, NULL, sleep_on, &sleeper), 0);
    for (int i = 0; i < 10000 && !is_asleep(atomic_load(&sleeper.tid)); i++)
        usleep(1000);
    come(fixture);
    turn(fixture);
    assert_int_equal(fixture->seen_count, 0);
    pthread_join(thread, NULL);
    exclusive_refresh(&fixture->exclusive, fixture->ev, &fixture->watch);
    turn(fixture);
    assert_int_equal(fixture->seen_count, 1);
    close(sleeper.epoll_fd);
}

static void a_refresh_with_nobody_waiting_changes_nothing(void **state)
{
    struct fixture *fixture = *state;
    watch_exclusively(fixture);
    exclusive_refresh(&fixture->exclusive, fixture->ev, &fixture->watch);
    assert_false(fixture->watch.is_due);
    assert_true(watched_events(fixture) & EPOLLEXCLUSIVE);
}

static void unwanted_it_is_libevs_own(void **state)
{
    struct fixture *fixture = *state;
    exclusive_init(&fixture->exclusive, false);
    exclusive_watch(&fixture->exclusive, fixture->ev, &fixture->watch);
    turn(fixture);
    assert_int_equal(watched_events(fixture) & EPOLLEXCLUSIVE, 0);
    assert_true(watched_events(fixture) & EPOLLIN);
    come(fixture);
    turn(fixture);
    assert_int_equal(fixture->seen_count, 1);
}

/* No epoll set at all (another backend): the watcher works as ever, and nobody asks again. */
static void without_an_epoll_set_it_gives_up(void **state)
{
    struct fixture *fixture = *state;
    ev_loop_destroy(fixture->ev);
    fixture->ev = ev_loop_new(EVBACKEND_POLL | EVFLAG_NOENV);
    ev_set_userdata(fixture->ev, fixture);
    exclusive_watch(&fixture->exclusive, fixture->ev, &fixture->watch);
    turn(fixture);
    assert_false(fixture->exclusive.is_wanted);
    come(fixture);
    turn(fixture);
    assert_int_equal(fixture->seen_count, 1);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(after_a_turn_the_kernel_watches_exclusively_and_libev_sees_the_client),
        WITH_FIXTURE(who_ignores_is_out_of_the_set),
        WITH_FIXTURE(watching_anew_is_exclusive_again_every_time),
        WITH_FIXTURE(given_up_and_taken_back_within_a_turn_it_is_read_again),
        WITH_FIXTURE(a_wrong_word_costs_the_exclusivity_until_the_next_refresh),
        WITH_FIXTURE(a_client_that_nobody_came_for_is_found_by_the_refresh),
        WITH_FIXTURE(a_refresh_with_nobody_waiting_changes_nothing),
        WITH_FIXTURE(unwanted_it_is_libevs_own),
        WITH_FIXTURE(without_an_epoll_set_it_gives_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
