/* listener_test.c - addresses as `bind` takes them, and the inheritance list. */
#include "../../../src/server/fork.h"
#include "../../../src/server/listener.h"
#include "../../../src/server/signals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <stdlib.h>

#include <cmocka.h>

static void an_address_is_read_as_gunicorn_reads_it(void **state)
{
    static const struct {
        const char *text;
        int kind;
        const char *host;
        int port;
        bool is_v6;
    } cases[] = {
        {"127.0.0.1:8000", LISTENER_TCP, "127.0.0.1", 8000, false},
        {":9000", LISTENER_TCP, "0.0.0.0", 9000, false},
        {"localhost", LISTENER_TCP, "localhost", 8000, false},
        {"tcp://10.0.0.1:80", LISTENER_TCP, "10.0.0.1", 80, false},
        {"[::1]:8001", LISTENER_TCP, "::1", 8001, true},
        {"[::]", LISTENER_TCP, "::", 8000, true},
        {"unix:/run/x.sock", LISTENER_UNIX, "/run/x.sock", 0, false},
        {"unix:///run/x.sock", LISTENER_UNIX, "/run/x.sock", 0, false},
        {"fd://7", LISTENER_FD, "", 0, false},
    };
    for (size_t i = 0; i < CTS_COUNT(cases); i++) {
        struct listener_address address;
        struct cts_error error = {0};
        assert_int_equal(listener_read_address(cases[i].text, &address, &error), 0);
        assert_int_equal(address.kind, cases[i].kind);
        assert_string_equal(address.host, cases[i].host);
        assert_int_equal(address.port, cases[i].port);
        assert_int_equal(address.is_v6, cases[i].is_v6);
    }
}

static void a_bad_address_is_refused_with_a_sentence(void **state)
{
    static const char *const texts[] = {"127.0.0.1:port", "127.0.0.1:65536", ":-1", "[::1]x",
                                        "unix:", "fd://x", "127.0.0.1:"};
    for (size_t i = 0; i < CTS_COUNT(texts); i++) {
        struct listener_address address;
        struct cts_error error = {0};
        assert_int_equal(listener_read_address(texts[i], &address, &error), -1);
        assert_int_equal(error.exit_code, CTS_EXIT_FAILURE);
        assert_true(error.text[0] != '\0');
    }
}

static void the_inheritance_list_forgets_what_was_taken_out(void **state)
{
    size_t before = fork_list_count();
    assert_int_equal(fork_list_put(1000, FORK_LISTENER, NULL), 0);
    assert_int_equal(fork_list_put(1001, FORK_AGENT, NULL), 0);
    fork_list_take(1000);
    fork_list_take(1000);
    fork_list_take(-1);
    assert_int_equal(fork_list_count(), before + 1);
    fork_list_take(1001);
    assert_int_equal(fork_list_count(), before);
}

static void signals_keep_their_order_and_none_is_lost_when_too_many_come(void **state)
{
    signals_put(SIGTTIN);
    signals_put(SIGHUP);
    assert_int_equal(signals_take(), SIGTTIN);
    assert_int_equal(signals_take(), SIGHUP);
    assert_int_equal(signals_take(), 0);
    for (int i = 0; i < 200; i++)
        signals_put(SIGTTOU);
    signals_put(SIGTERM);
    int last = 0, count = 0;
    for (int signo = signals_take(); signo != 0; signo = signals_take(), count++)
        last = signo == SIGTERM ? signo : last;
    assert_int_equal(last, SIGTERM);
    assert_int_equal(count, 64 + 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_is_read_as_gunicorn_reads_it),
        cmocka_unit_test(a_bad_address_is_refused_with_a_sentence),
        cmocka_unit_test(the_inheritance_list_forgets_what_was_taken_out),
        cmocka_unit_test(signals_keep_their_order_and_none_is_lost_when_too_many_come),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
