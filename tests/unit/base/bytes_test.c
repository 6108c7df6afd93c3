/* bytes_test.c - views, clocks, random bytes, descriptors, titles, near words, lists. */
#include "test.h"

#include "ctserve/base.h"
#include "ctserve/error.h"
#include "ctserve/list.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void equal_without_case_compares_ascii_letters_only(void **state)
{
    assert_true(cts_bytes_equal_nocase(cts_bytes_of("Content-Length"), cts_bytes_of("cONTENT-lENGTH")));
    assert_false(cts_bytes_equal_nocase(cts_bytes_of("a"), cts_bytes_of("ab")));
    assert_false(cts_bytes_equal_nocase(cts_bytes_of("@["), cts_bytes_of("`{")));
    assert_false(cts_bytes_equal_nocase(cts_bytes_of("\xc4"), cts_bytes_of("\xe4")));
    assert_true(cts_bytes_equal((struct cts_bytes){NULL, 0}, cts_bytes_of("")));
}

static void escaping_leaves_no_byte_that_could_forge_a_line(void **state)
{
    char every[256];
    char out[2048];

    for (int i = 0; i < 256; i++)
        every[i] = (char)i;
    size_t count = cts_bytes_escape((struct cts_bytes){every, 256}, out, sizeof(out));
    assert_int_equal(count, strlen(out));
    assert_int_equal(count, 94 + 162 * 4);
    for (size_t i = 0; i < count; i++)
        assert_in_range((unsigned char)out[i], 0x20, 0x7e);
    (void)cts_bytes_escape(cts_bytes_of("a\n\\b\x7f"), out, sizeof(out));
    assert_string_equal(out, "a\\x0a\\x5cb\\x7f");
}

static void escaping_stops_before_the_room_ends_and_never_halves_an_escape(void **state)
{
    for (size_t room = 0; room <= 12; room++) {
        char out[16];

        memset(out, '#', sizeof(out));
        size_t count = cts_bytes_escape(cts_bytes_of("ab\n\ncd"), out, room);
        assert_true(room == 0 ? count == 0 : count < room);
        assert_int_equal(out[room], '#');
        if (room > 0)
            assert_int_equal(out[count], '\0');
        assert_true(count <= 2 || count == 6 || count >= 10);
    }
}

static void clocks_go_forward_and_the_real_one_knows_the_century(void **state)
{
    uint64_t before = cts_clock_mono_ns();

    while (cts_clock_mono_ns() == before)
        ;
    assert_true(cts_clock_mono_ns() > before);
    assert_true(cts_clock_real_ns() > 1700000000ull * 1000000000ull);
}

static void random_bytes_differ_from_call_to_call(void **state)
{
    char one[64] = {0}, other[64] = {0};

    assert_int_equal(cts_random_fill(one, sizeof(one)), 0);
    assert_int_equal(cts_random_fill(other, sizeof(other)), 0);
    assert_memory_not_equal(one, other, sizeof(one));
}

static void closing_a_descriptor_forgets_it_and_keeps_errno(void **state)
{
    int fds[2];
    int copy;

    assert_int_equal(pipe(fds), 0);
    copy = fds[0];
    errno = EILSEQ;
    cts_fd_close(&fds[0]);
    assert_int_equal(errno, EILSEQ);
    assert_int_equal(fds[0], -1);
    assert_int_equal(fcntl(copy, F_GETFD), -1);
    errno = EILSEQ;
    cts_fd_close(&fds[0]);
    assert_int_equal(errno, EILSEQ);
    cts_fd_close(&fds[1]);
}

static void descriptor_flags_are_set_and_errors_returned(void **state)
{
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    assert_int_equal(cts_fd_set_nonblocking(fds[0]), 0);
    assert_true(fcntl(fds[0], F_GETFL) & O_NONBLOCK);
    assert_int_equal(cts_fd_set_cloexec(fds[0], true), 0);
    assert_int_equal(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
    assert_int_equal(cts_fd_set_cloexec(fds[0], false), 0);
    assert_int_equal(fcntl(fds[0], F_GETFD), 0);
    cts_fd_close(&fds[0]);
    cts_fd_close(&fds[1]);
    assert_int_equal(cts_fd_set_nonblocking(-1), -EBADF);
    assert_int_equal(cts_fd_set_cloexec(-1, true), -EBADF);
}

static size_t read_all(const char *path, char *to, size_t room)
{
    FILE *file = fopen(path, "r");
    size_t count = fread(to, 1, room - 1, file);

    to[count] = '\0';
    fclose(file);
    return count;
}

static void a_title_stands_in_cmdline_and_leaves_the_environment_alone(void **state)
{
    char before[65536], after[65536], shown[4096], name[64];
    size_t before_count = read_all("/proc/self/environ", before, sizeof(before));
    size_t area_count = read_all("/proc/self/cmdline", shown, sizeof(shown));
    char longer[4096];

    cts_title_set("ctserve: x");
    (void)read_all("/proc/self/cmdline", shown, sizeof(shown));
    assert_string_equal(shown, "ctserve: x");
    assert_int_equal(prctl(PR_GET_NAME, name), 0);
    assert_string_equal(name, "ctserve: x");

    memset(longer, 'y', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    cts_title_set(longer);
    assert_int_equal(read_all("/proc/self/cmdline", shown, sizeof(shown)), area_count);
    assert_int_equal(strlen(shown), area_count - 1);
    assert_int_equal(read_all("/proc/self/environ", after, sizeof(after)), before_count);
    assert_memory_equal(before, after, before_count);
}

static void near_words_are_found_and_far_ones_are_not(void **state)
{
    static const char *const words[] = {"workers", "threads", "bind", "worker_class", "user"};

    assert_int_equal(cts_nearest_word("wrokers", words, CTS_COUNT(words)), 0);
    assert_int_equal(cts_nearest_word("worker", words, CTS_COUNT(words)), 0);
    assert_int_equal(cts_nearest_word("thraeds", words, CTS_COUNT(words)), 1);
    assert_int_equal(cts_nearest_word("bidn", words, CTS_COUNT(words)), 2);
    assert_int_equal(cts_nearest_word("workerclass", words, CTS_COUNT(words)), 3);
    assert_int_equal(cts_nearest_word("port", words, CTS_COUNT(words)), -1);
    assert_int_equal(cts_nearest_word("bxxd", words, CTS_COUNT(words)), -1);
    assert_int_equal(cts_nearest_word("", words, CTS_COUNT(words)), -1);
    assert_int_equal(cts_nearest_word("workers", words, 0), -1);
    char longer[300];
    memset(longer, 'w', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(cts_nearest_word(longer, words, CTS_COUNT(words)), -1);
}

struct member {
    int number;
    struct cts_list link;
};

static void a_list_keeps_its_order_and_may_lose_members_while_walked(void **state)
{
    struct cts_list head;
    struct member members[4];
    int sum = 0, order = 0;

    cts_list_init(&head);
    assert_true(cts_list_is_empty(&head));
    for (int i = 0; i < 4; i++) {
        members[i].number = i;
        cts_list_put_last(&head, &members[i].link);
    }
    CTS_LIST_EACH(&head, link) {
        struct member *member = CTS_CONTAINER(link, struct member, link);

        assert_int_equal(member->number, order++);
        sum += member->number;
        cts_list_take(link);
        cts_list_take(link); /* a second time is harmless */
    }
    assert_int_equal(sum, 6);
    assert_true(cts_list_is_empty(&head));
}

static void an_error_is_cut_to_fit_and_loses_its_trailing_newline(void **state)
{
    static struct cts_error error;
    static char longer[5000];

    assert_int_equal(cts_error_set(&error, CTS_EXIT_USAGE, "%s %d\n\n", "no", 4), -1);
    assert_int_equal(error.exit_code, 2);
    assert_string_equal(error.text, "no 4");
    memset(longer, 'x', sizeof(longer) - 1);
    (void)cts_error_set(&error, 1, "%s", longer);
    assert_int_equal(strlen(error.text), sizeof(error.text) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_without_case_compares_ascii_letters_only),
        cmocka_unit_test(escaping_leaves_no_byte_that_could_forge_a_line),
        cmocka_unit_test(escaping_stops_before_the_room_ends_and_never_halves_an_escape),
        cmocka_unit_test(clocks_go_forward_and_the_real_one_knows_the_century),
        cmocka_unit_test(random_bytes_differ_from_call_to_call),
        cmocka_unit_test(closing_a_descriptor_forgets_it_and_keeps_errno),
        cmocka_unit_test(descriptor_flags_are_set_and_errors_returned),
        cmocka_unit_test(a_title_stands_in_cmdline_and_leaves_the_environment_alone),
        cmocka_unit_test(near_words_are_found_and_far_ones_are_not),
        cmocka_unit_test(a_list_keeps_its_order_and_may_lose_members_while_walked),
        cmocka_unit_test(an_error_is_cut_to_fit_and_loses_its_trailing_newline),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
