/* settings_test.c - defaults, precedence, gunicorn's validators, refusals. */
#include "test.h"

#include "ctserve/log.h"
#include "ctserve/settings.h"
#include "faults.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static struct cts_settings settings;
static struct cts_error error;

static int fresh(void **state)
{
    static const char *const names[] = {"PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS",
                                        "SENDFILE", "XDG_RUNTIME_DIR"};

    for (size_t i = 0; i < CTS_COUNT(names); i++)
        unsetenv(names[i]);
    return cts_settings_init(&settings, &error);
}

static int done(void **state)
{
    cts_settings_done(&settings);
    return 0;
}

static void again(void)
{
    cts_settings_done(&settings);
    assert_int_equal(cts_settings_init(&settings, &error), 0);
}

static int set_text(enum cts_setting_id id, enum cts_setting_source source, const char *text)
{
    struct cts_value raw = {.kind = CTS_VALUE_TEXT, .text = (char *)(uintptr_t)text};

    return cts_settings_set(&settings, id, source, &raw, &error);
}

static int set_number(enum cts_setting_id id, int64_t number)
{
    struct cts_value raw = {.kind = CTS_VALUE_INT, .number = number};

    return cts_settings_set(&settings, id, CTS_SOURCE_FILE, &raw, &error);
}

static int set_bool(enum cts_setting_id id, bool yes)
{
    struct cts_value raw = {.kind = CTS_VALUE_BOOL, .number = yes};

    return cts_settings_set(&settings, id, CTS_SOURCE_FILE, &raw, &error);
}

static int set_none(enum cts_setting_id id)
{
    struct cts_value raw = {.kind = CTS_VALUE_NONE};

    return cts_settings_set(&settings, id, CTS_SOURCE_FILE, &raw, &error);
}

static void every_row_has_a_default_its_own_reader_takes(void **state)
{
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_workers), 1);
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_control_socket_mode), 0600);
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_user), geteuid());
    assert_true(cts_settings_bool(&settings, CTS_SETTING_tracing));
    assert_true(cts_settings_bool(&settings, CTS_SETTING_suppress_ragged_eofs));
    assert_false(cts_settings_bool(&settings, CTS_SETTING_sendfile));
    assert_null(cts_settings_text(&settings, CTS_SETTING_pidfile));
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_worker_class), "sync");
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        const struct cts_setting_row *row = &cts_setting_rows[id];

        assert_int_equal(settings.sources[id], CTS_SOURCE_DEFAULT);
        assert_true(strlen(row->doc) > 10 && row->doc[strlen(row->doc) - 1] == '.');
        assert_int_equal(cts_settings_find(row->name), id);
        if (row->kind == CTS_KIND_HOOK)
            assert_in_range(row->arity_min, 1, row->arity_max);
        if (row->status != CTS_STATUS_WORKS)
            assert_false(row->everyday);
    }
    assert_int_equal(CTS_SETTINGS_COUNT, 130);
    assert_int_equal(cts_settings_find("wrokers"), -1);
    assert_int_equal(cts_settings_find("Workers"), -1);
}

static void the_environment_moves_five_defaults(void **state)
{
    char *const *list;

    setenv("PORT", "9000", 1);
    setenv("WEB_CONCURRENCY", "7", 1);
    setenv("FORWARDED_ALLOW_IPS", "*", 1);
    setenv("SENDFILE", "Yes", 1);
    setenv("XDG_RUNTIME_DIR", "/run/x", 1);
    again();
    assert_int_equal(cts_settings_list(&settings, CTS_SETTING_bind, &list), 1);
    assert_string_equal(list[0], "0.0.0.0:9000");
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_workers), 7);
    assert_int_equal(cts_settings_list(&settings, CTS_SETTING_forwarded_allow_ips, &list), 1);
    assert_string_equal(list[0], "*");
    assert_true(cts_settings_bool(&settings, CTS_SETTING_sendfile));
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_control_socket),
                        "/run/x/gunicorn.ctl");
    assert_int_equal(settings.sources[CTS_SETTING_workers], CTS_SOURCE_ENV_DEFAULT);
    assert_true(cts_settings_is_default(&settings, CTS_SETTING_workers));
}

static void a_bad_variable_is_named(void **state)
{
    struct cts_settings other;

    setenv("WEB_CONCURRENCY", "many", 1);
    assert_int_equal(cts_settings_init(&other, &error), -1);
    assert_int_equal(error.exit_code, 1);
    assert_non_null(strstr(error.text, "WEB_CONCURRENCY"));
    unsetenv("WEB_CONCURRENCY");
    setenv("PORT", "http", 1);
    assert_int_equal(cts_settings_init(&other, &error), -1);
    assert_non_null(strstr(error.text, "PORT"));
    unsetenv("PORT");
}

static void a_higher_source_wins_whatever_the_order(void **state)
{
    assert_int_equal(set_text(CTS_SETTING_workers, CTS_SOURCE_COMMAND_LINE, "5"), 0);
    assert_int_equal(set_text(CTS_SETTING_workers, CTS_SOURCE_FILE, "2"), 0);
    assert_int_equal(set_text(CTS_SETTING_workers, CTS_SOURCE_GUNICORN_ARGS, "3"), 0);
    assert_int_equal(set_text(CTS_SETTING_workers, CTS_SOURCE_CTSERVE_ARGS, "4"), 0);
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_workers), 5);
    assert_int_equal(set_text(CTS_SETTING_workers, CTS_SOURCE_COMMAND_LINE, "6"), 0);
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_workers), 6);
    assert_false(cts_settings_is_default(&settings, CTS_SETTING_workers));
    /* A value that loses is still checked. */
    assert_int_equal(set_text(CTS_SETTING_workers, CTS_SOURCE_FILE, "x"), -1);
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_workers), 6);
}

static void a_config_file_cannot_name_the_config_file(void **state)
{
    assert_int_equal(set_text(CTS_SETTING_config, CTS_SOURCE_FILE, "other.py"), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_config), "./gunicorn.conf.py");
}

static void numbers_are_read_as_python_reads_them(void **state)
{
    static const struct {
        enum cts_setting_id id;
        enum cts_setting_source source;
        const char *text;
        int64_t number; /* -1: refused */
    } cases[] = {
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "7", 7},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, " 7\n", 7},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "+7", 7},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "0x10", 16},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "0b11", 3},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "0o17", 15},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "1_000", 1000},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "00", 0},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "010", -1},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "1__0", -1},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "_1", -1},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "1_", -1},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "", -1},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "-1", -1},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "0x", -1},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "1.5", -1},
        {CTS_SETTING_workers, CTS_SOURCE_FILE, "99999999999999999999999999", -1},
        {CTS_SETTING_workers, CTS_SOURCE_COMMAND_LINE, "010", 10},
        {CTS_SETTING_workers, CTS_SOURCE_COMMAND_LINE, "0x10", -1},
        {CTS_SETTING_umask, CTS_SOURCE_COMMAND_LINE, "022", 022},
        {CTS_SETTING_umask, CTS_SOURCE_COMMAND_LINE, "0o22", 022},
        {CTS_SETTING_umask, CTS_SOURCE_COMMAND_LINE, "0x12", 0x12},
        {CTS_SETTING_umask, CTS_SOURCE_COMMAND_LINE, "18", 18},
        {CTS_SETTING_umask, CTS_SOURCE_COMMAND_LINE, "089", -1},
        {CTS_SETTING_http2_max_frame_size, CTS_SOURCE_FILE, "16383", -1},
        {CTS_SETTING_http2_max_frame_size, CTS_SOURCE_FILE, "16777215", 16777215},
        {CTS_SETTING_http2_max_concurrent_streams, CTS_SOURCE_FILE, "0", -1},
        {CTS_SETTING_trace_ring_bytes, CTS_SOURCE_FILE, "65536", 65536},
        {CTS_SETTING_trace_ring_bytes, CTS_SOURCE_FILE, "65537", -1},
        {CTS_SETTING_websocket_max_message_size, CTS_SOURCE_FILE, "3000000000", 3000000000},
    };

    for (size_t i = 0; i < CTS_COUNT(cases); i++) {
        again();
        int r = set_text(cases[i].id, cases[i].source, cases[i].text);
        if (r != (cases[i].number < 0 ? -1 : 0))
            fail_msg("'%s' (case %zu) gave %d", cases[i].text, i, r);
        if (r == 0)
            assert_int_equal(cts_settings_int(&settings, cases[i].id), cases[i].number);
    }
    assert_int_equal(set_bool(CTS_SETTING_workers, true), 0);
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_workers), 1);
    assert_int_equal(set_number(CTS_SETTING_workers, -1), -1);
    assert_int_equal(set_none(CTS_SETTING_workers), -1);
}

static void a_word_for_a_number_is_exit_2_on_the_command_line_and_1_in_a_file(void **state)
{
    assert_int_equal(set_text(CTS_SETTING_workers, CTS_SOURCE_COMMAND_LINE, "four"), -1);
    assert_int_equal(error.exit_code, 2);
    assert_string_equal(error.text,
                        "workers: 'four' is not a whole number; 0 to 2147483647 is right");
    assert_int_equal(set_text(CTS_SETTING_workers, CTS_SOURCE_FILE, "four"), -1);
    assert_int_equal(error.exit_code, 1);
    assert_int_equal(set_text(CTS_SETTING_workers, CTS_SOURCE_COMMAND_LINE, "-1"), -1);
    assert_int_equal(error.exit_code, 1);
}

static void booleans_are_true_and_false_and_nothing_else(void **state)
{
    assert_int_equal(set_text(CTS_SETTING_preload_app, CTS_SOURCE_FILE, " TRUE "), 0);
    assert_true(cts_settings_bool(&settings, CTS_SETTING_preload_app));
    assert_int_equal(set_text(CTS_SETTING_preload_app, CTS_SOURCE_FILE, "false"), 0);
    assert_false(cts_settings_bool(&settings, CTS_SETTING_preload_app));
    assert_int_equal(set_none(CTS_SETTING_preload_app), 0);
    assert_false(cts_settings_bool(&settings, CTS_SETTING_preload_app));
    assert_int_equal(set_text(CTS_SETTING_preload_app, CTS_SOURCE_FILE, "yes"), -1);
    assert_int_equal(set_number(CTS_SETTING_preload_app, 1), -1);
}

static void texts_are_trimmed_and_numbers_are_no_texts(void **state)
{
    assert_int_equal(set_text(CTS_SETTING_pidfile, CTS_SOURCE_FILE, "  /run/x.pid\n"), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_pidfile), "/run/x.pid");
    assert_int_equal(set_none(CTS_SETTING_pidfile), 0);
    assert_null(cts_settings_text(&settings, CTS_SETTING_pidfile));
    assert_int_equal(set_number(CTS_SETTING_pidfile, 4), -1);
}

static void a_lone_text_is_a_list_of_one_and_commas_split_only_where_gunicorn_splits(void **state)
{
    char *const *list;
    char *two[] = {(char[]){" a:1 "}, (char[]){"unix:/x y"}};
    struct cts_value raw = {.kind = CTS_VALUE_LIST, .list = two, .list_count = 2};

    assert_int_equal(set_text(CTS_SETTING_bind, CTS_SOURCE_FILE, ":5002"), 0);
    assert_int_equal(cts_settings_list(&settings, CTS_SETTING_bind, &list), 1);
    assert_string_equal(list[0], ":5002");
    assert_int_equal(cts_settings_set(&settings, CTS_SETTING_bind, CTS_SOURCE_FILE, &raw, &error), 0);
    assert_int_equal(cts_settings_list(&settings, CTS_SETTING_bind, &list), 2);
    assert_string_equal(list[0], "a:1");
    assert_string_equal(list[1], "unix:/x y");
    assert_int_equal(set_text(CTS_SETTING_raw_env, CTS_SOURCE_FILE, "A=1,2"), 0);
    assert_int_equal(cts_settings_list(&settings, CTS_SETTING_raw_env, &list), 1);
    assert_int_equal(set_none(CTS_SETTING_raw_env), 0);
    assert_int_equal(cts_settings_list(&settings, CTS_SETTING_raw_env, &list), 0);

    assert_int_equal(set_text(CTS_SETTING_forwarded_allow_ips, CTS_SOURCE_FILE,
                              "10.0.0.0/8, ::1,,2001:db8::/32,*"), 0);
    assert_int_equal(cts_settings_list(&settings, CTS_SETTING_forwarded_allow_ips, &list), 4);
    assert_string_equal(list[1], "::1");
    assert_int_equal(cts_settings_set(&settings, CTS_SETTING_forwarded_allow_ips, CTS_SOURCE_FILE,
                                      &raw, &error), -1);
}

static void addresses_that_no_listener_could_take_are_refused(void **state)
{
    static const char *const good[] = {"h", "h:0", "h:65535", ":80", "[::1]:80", "[::1]",
                                       "unix:/a:b", "fd://3", "tcp://h:80"};
    static const char *const bad[] = {"h:65536", "h:", "h:http", "h:80x", "[::1]:x", "h:-1",
                                      "tcp://h:x", "h:123456", "::1"};

    for (size_t i = 0; i < CTS_COUNT(good); i++)
        assert_int_equal(set_text(CTS_SETTING_bind, CTS_SOURCE_FILE, good[i]), 0);
    for (size_t i = 0; i < CTS_COUNT(bad); i++) {
        if (set_text(CTS_SETTING_bind, CTS_SOURCE_FILE, bad[i]) == 0)
            fail_msg("'%s' was taken", bad[i]);
        assert_non_null(strstr(error.text, "port"));
    }
}

static void networks_with_host_bits_are_refused(void **state)
{
    static const char *const bad[] = {"192.168.1.1/24", "10.0.0.0/33", "host", "::1/127", "1.2.3",
                                      "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8x"};

    for (size_t i = 0; i < CTS_COUNT(bad); i++) {
        if (set_text(CTS_SETTING_forwarded_allow_ips, CTS_SOURCE_FILE, bad[i]) == 0)
            fail_msg("'%s' was taken", bad[i]);
    }
}

static void choices_are_words_in_any_case(void **state)
{
    assert_int_equal(set_text(CTS_SETTING_http_policy, CTS_SOURCE_FILE, " Gunicorn"), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_http_policy), "gunicorn");
    assert_int_equal(set_text(CTS_SETTING_http_policy, CTS_SOURCE_FILE, "lax"), -1);
    assert_non_null(strstr(error.text, "strict|gunicorn"));
    assert_int_equal(set_text(CTS_SETTING_loglevel, CTS_SOURCE_FILE, "chatty"), 0);
    assert_int_equal(set_bool(CTS_SETTING_proxy_protocol, true), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_proxy_protocol), "auto");
    assert_int_equal(set_text(CTS_SETTING_proxy_protocol, CTS_SOURCE_FILE, "None"), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_proxy_protocol), "off");
    assert_int_equal(set_none(CTS_SETTING_http_policy), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_http_policy), "strict");
    assert_int_equal(set_none(CTS_SETTING_trace_otlp_protocol), 0);
    assert_null(cts_settings_text(&settings, CTS_SETTING_trace_otlp_protocol));
}

static void a_directory_is_made_absolute_and_must_exist(void **state)
{
    assert_int_equal(set_text(CTS_SETTING_chdir, CTS_SOURCE_FILE, "/usr/./bin/../lib//"), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_chdir), "/usr/lib");
    assert_int_equal(set_text(CTS_SETTING_chdir, CTS_SOURCE_FILE, "/../.."), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_chdir), "/");
    assert_int_equal(set_text(CTS_SETTING_chdir, CTS_SOURCE_FILE, "/no/such/place"), -1);
    assert_non_null(strstr(error.text, "chdir"));
    /* Relative to where the process started (main stands in /usr), also after it moved: a reload
     * reads the settings again. */
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(set_text(CTS_SETTING_chdir, CTS_SOURCE_FILE, "lib"), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_chdir), "/usr/lib");
    again();
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_chdir), "/usr");
    static char longer[6000];
    memset(longer, 'x', sizeof(longer) - 1);
    assert_int_equal(set_text(CTS_SETTING_chdir, CTS_SOURCE_FILE, longer), -1);
}

static void hooks_and_dictionaries_take_objects_only(void **state)
{
    int thing;
    struct cts_value raw = {.kind = CTS_VALUE_OBJECT, .object = &thing};

    assert_int_equal(cts_settings_set(&settings, CTS_SETTING_on_exit, CTS_SOURCE_FILE, &raw, &error),
                     0);
    assert_ptr_equal(settings.values[CTS_SETTING_on_exit].object, &thing);
    assert_int_equal(set_none(CTS_SETTING_on_exit), -1);
    assert_int_equal(set_text(CTS_SETTING_logconfig_dict, CTS_SOURCE_FILE, "{}"), -1);
    assert_int_equal(cts_settings_set(&settings, CTS_SETTING_pidfile, CTS_SOURCE_FILE, &raw, &error),
                     -1);
    assert_int_equal(cts_settings_set(&settings, CTS_SETTING_worker_class, CTS_SOURCE_FILE, &raw,
                                      &error), 0);
}

static void near_names_are_suggested(void **state)
{
    assert_string_equal(cts_settings_nearest("wrokers"), "workers");
    assert_string_equal(cts_settings_nearest("Timeout"), "timeout");
    assert_string_equal(cts_settings_nearest("preload"), "preload_app");
    assert_string_equal(cts_settings_nearest("access_logfile"), "accesslog");
    assert_string_equal(cts_settings_nearest("log_file"), "errorlog");
    assert_null(cts_settings_nearest("env"));
    assert_null(cts_settings_nearest("os"));
    assert_null(cts_settings_nearest("multiprocessing"));
}

/* What cts_settings_check logs while it returns `expected`. */
static const char *check(int expected)
{
    static char text[8192];
    char path[] = "/tmp/cts-settings-test-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(cts_log_open(path), 0);
    int r = cts_settings_check(&settings, &error);
    assert_int_equal(cts_log_open("-"), 0);
    ssize_t count = read(fd, text, sizeof(text) - 1);
    text[count > 0 ? count : 0] = '\0';
    close(fd);
    unlink(path);
    if (r != expected)
        fail_msg("check gave %d: %s", r, error.text);
    return text;
}

static void defaults_pass_without_a_word(void **state)
{
    assert_string_equal(check(0), "");
}

static void settings_that_decide_who_may_connect_end_the_start(void **state)
{
    static const struct {
        enum cts_setting_id id;
        const char *text;
    } cases[] = {
        {CTS_SETTING_certfile, "x"},        {CTS_SETTING_keyfile, "x"},
        {CTS_SETTING_ca_certs, "x"},        {CTS_SETTING_cert_reqs, "2"},
        {CTS_SETTING_ciphers, "x"},
        {CTS_SETTING_protocol, "uwsgi"},    {CTS_SETTING_initgroups, "true"},
        {CTS_SETTING_user, "4711"},         {CTS_SETTING_group, "4711"},
        {CTS_SETTING_worker_class, "gevent"}, {CTS_SETTING_worker_class, "asgi"},
        {CTS_SETTING_worker_class, "eventlet"},
        {CTS_SETTING_worker_class, "uvicorn.workers.UvicornWorker"},
        {CTS_SETTING_worker_class, "tornado"}, {CTS_SETTING_worker_class, "my.Worker"},
        {CTS_SETTING_raw_env, "NOVALUE"},
    };

    for (size_t i = 0; i < CTS_COUNT(cases); i++) {
        again();
        assert_int_equal(set_text(cases[i].id, CTS_SOURCE_FILE, cases[i].text), 0);
        (void)check(-1);
        assert_int_equal(error.exit_code, 1);
        assert_non_null(strstr(error.text, cts_setting_rows[cases[i].id].name));
    }
    again();
    assert_int_equal(set_text(CTS_SETTING_worker_class, CTS_SOURCE_FILE, "gthraed"), 0);
    (void)check(-1);
    assert_non_null(strstr(error.text, "did you mean 'gthread'"));
}

static void values_that_change_nothing_pass(void **state)
{
    char me[32];

    (void)snprintf(me, sizeof(me), "%d", (int)geteuid());
    assert_int_equal(set_text(CTS_SETTING_user, CTS_SOURCE_COMMAND_LINE, me), 0);
    (void)snprintf(me, sizeof(me), "%d", (int)getegid());
    assert_int_equal(set_text(CTS_SETTING_group, CTS_SOURCE_COMMAND_LINE, me), 0);
    assert_int_equal(set_text(CTS_SETTING_proxy_protocol, CTS_SOURCE_FILE, "off"), 0);
    assert_int_equal(set_none(CTS_SETTING_certfile), 0);
    assert_int_equal(set_bool(CTS_SETTING_initgroups, false), 0);
    assert_int_equal(set_bool(CTS_SETTING_reload, false), 0);
    assert_int_equal(set_bool(CTS_SETTING_control_socket_disable, true), 0);
    assert_int_equal(set_text(CTS_SETTING_forwarded_allow_ips, CTS_SOURCE_FILE, "127.0.0.1,::1"), 0);
    assert_int_equal(set_text(CTS_SETTING_worker_class, CTS_SOURCE_FILE,
                              "gunicorn.workers.gthread.ThreadWorker"), 0);
    assert_string_equal(check(0), "");
    assert_true(cts_settings_is_gthread(&settings));
}

static void unknown_accounts_are_refused_when_read(void **state)
{
    assert_int_equal(set_text(CTS_SETTING_user, CTS_SOURCE_FILE, "root"), 0);
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_user), 0);
    assert_int_equal(set_text(CTS_SETTING_user, CTS_SOURCE_FILE, "no-such-user-here"), -1);
    assert_non_null(strstr(error.text, "no-such-user-here"));
    assert_int_equal(set_text(CTS_SETTING_group, CTS_SOURCE_FILE, "no-such-group-here"), -1);
}

static void settings_without_effect_are_named_in_one_line(void **state)
{
    assert_int_equal(set_bool(CTS_SETTING_reload, true), 0);
    assert_int_equal(set_text(CTS_SETTING_logconfig, CTS_SOURCE_FILE, "x"), 0);
    assert_int_equal(set_text(CTS_SETTING_statsd_host, CTS_SOURCE_COMMAND_LINE, "h:1"), 0);
    const char *text = check(0);
    assert_non_null(strstr(text, "do nothing in ctserve yet: reload, logconfig, statsd_host\n"));
    assert_ptr_equal(strchr(text, '\n'), strrchr(text, '\n'));
}

static void an_unknown_log_level_is_mentioned(void **state)
{
    assert_int_equal(set_text(CTS_SETTING_loglevel, CTS_SOURCE_FILE, "chatty"), 0);
    assert_non_null(strstr(check(0), "'chatty'"));
}

static void gthread_is_a_class_or_more_than_one_thread(void **state)
{
    assert_false(cts_settings_is_gthread(&settings));
    assert_int_equal(set_number(CTS_SETTING_threads, 2), 0);
    assert_true(cts_settings_is_gthread(&settings));
    assert_int_equal(set_number(CTS_SETTING_threads, 0), 0);
    assert_false(cts_settings_is_gthread(&settings));
}

static void values_are_printed_as_python_prints_them(void **state)
{
    struct cts_buffer out = CTS_BUFFER_EMPTY;
    char *two[] = {(char[]){"it's"}, (char[]){"a\\b"}};
    struct cts_value raw = {.kind = CTS_VALUE_LIST, .list = two, .list_count = 2};

    assert_int_equal(cts_settings_set(&settings, CTS_SETTING_raw_env, CTS_SOURCE_FILE, &raw, &error),
                     0);
    assert_int_equal(cts_settings_put_value(&settings, CTS_SETTING_raw_env, &out), 0);
    assert_int_equal(cts_buffer_printf(&out, " "), 0);
    assert_int_equal(cts_settings_put_value(&settings, CTS_SETTING_tracing, &out), 0);
    assert_int_equal(cts_buffer_printf(&out, " "), 0);
    assert_int_equal(cts_settings_put_value(&settings, CTS_SETTING_pidfile, &out), 0);
    assert_int_equal(cts_buffer_put(&out, "", 1), 0);
    assert_string_equal(cts_buffer_view(&out).at, "[\"it's\", 'a\\\\b'] True None");
    cts_buffer_free(&out);
}

static void a_copy_lives_on_its_own(void **state)
{
    struct cts_settings copy;
    char *const *list;

    assert_int_equal(cts_settings_set_app(&settings, "shop:app"), 0);
    assert_int_equal(set_text(CTS_SETTING_bind, CTS_SOURCE_COMMAND_LINE, "h:1"), 0);
    assert_int_equal(cts_settings_copy(&settings, &copy), 0);
    cts_settings_done(&settings);
    assert_string_equal(copy.app_uri, "shop:app");
    assert_int_equal(cts_settings_list(&copy, CTS_SETTING_bind, &list), 1);
    assert_string_equal(list[0], "h:1");
    assert_int_equal(copy.sources[CTS_SETTING_bind], CTS_SOURCE_COMMAND_LINE);
    cts_settings_done(&copy);
}

/* Every allocation of init, of a list set and of a copy fails once; LSan and ASan watch. */
static void every_failed_allocation_is_an_error_and_leaves_nothing(void **state)
{
    long nth, failed_count = 0;

    for (nth = 1;; nth++) {
        struct cts_settings one;
        struct cts_settings copy;

        faults_arm(nth);
        int r = cts_settings_init(&one, &error);
        if (r == 0) {
            struct cts_value raw = {.kind = CTS_VALUE_TEXT, .text = (char[]){"h:1"}};

            r = cts_settings_set(&one, CTS_SETTING_bind, CTS_SOURCE_FILE, &raw, &error);
            raw.text = (char[]){"::1, *"};
            if (r == 0)
                r = cts_settings_set(&one, CTS_SETTING_forwarded_allow_ips, CTS_SOURCE_FILE, &raw,
                                     &error);
            raw.text = (char[]){"/usr"};
            if (r == 0)
                r = cts_settings_set(&one, CTS_SETTING_chdir, CTS_SOURCE_FILE, &raw, &error);
            if (r == 0)
                r = cts_settings_set_app(&one, "a:b");
            if (r == 0) {
                r = cts_settings_copy(&one, &copy);
                if (r == 0)
                    cts_settings_done(&copy);
            }
            cts_settings_done(&one);
        }
        long seen = faults_seen();
        faults_arm(0);
        if (seen < nth) {
            assert_int_equal(r, 0);
            break;
        }
        assert_true(r < 0);
        failed_count++;
    }
    assert_true(failed_count > 100);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fresh, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(every_row_has_a_default_its_own_reader_takes),
        CASE(the_environment_moves_five_defaults),
        CASE(a_bad_variable_is_named),
        CASE(a_higher_source_wins_whatever_the_order),
        CASE(a_config_file_cannot_name_the_config_file),
        CASE(numbers_are_read_as_python_reads_them),
        CASE(a_word_for_a_number_is_exit_2_on_the_command_line_and_1_in_a_file),
        CASE(booleans_are_true_and_false_and_nothing_else),
        CASE(texts_are_trimmed_and_numbers_are_no_texts),
        CASE(a_lone_text_is_a_list_of_one_and_commas_split_only_where_gunicorn_splits),
        CASE(addresses_that_no_listener_could_take_are_refused),
        CASE(networks_with_host_bits_are_refused),
        CASE(choices_are_words_in_any_case),
        CASE(a_directory_is_made_absolute_and_must_exist),
        CASE(hooks_and_dictionaries_take_objects_only),
        CASE(near_names_are_suggested),
        CASE(defaults_pass_without_a_word),
        CASE(settings_that_decide_who_may_connect_end_the_start),
        CASE(values_that_change_nothing_pass),
        CASE(unknown_accounts_are_refused_when_read),
        CASE(settings_without_effect_are_named_in_one_line),
        CASE(an_unknown_log_level_is_mentioned),
        CASE(gthread_is_a_class_or_more_than_one_thread),
        CASE(values_are_printed_as_python_prints_them),
        CASE(a_copy_lives_on_its_own),
        CASE(every_failed_allocation_is_an_error_and_leaves_nothing),
    };
    if (chdir("/usr") != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
