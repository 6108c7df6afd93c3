/* cmdline_test.c - argparse's habits, the two variables, help. */
#include "test.h"

#include "cmdline.h"
#include "faults.h"
#include "words.h"

#include <errno.h>

static struct cts_settings settings;
static struct cts_error error;
static struct cmdline cmdline;

static int fresh(void **state)
{
    unsetenv("GUNICORN_CMD_ARGS");
    unsetenv("CTSERVE_CMD_ARGS");
    unsetenv("WEB_CONCURRENCY");
    unsetenv("PORT");
    return cts_settings_init(&settings, &error);
}

static int done(void **state)
{
    cmdline_done(&cmdline);
    cts_settings_done(&settings);
    return 0;
}

static int read_line(const char *line)
{
    char text[1024];
    char **words;
    int r;

    (void)snprintf(text, sizeof(text), "ctserve %s", line);
    int count = words_split(text, &words);
    assert_true(count > 0);
    cmdline_done(&cmdline);
    cts_settings_done(&settings);
    if (cts_settings_init(&settings, &error) < 0) {
        free(words);
        return -1;
    }
    r = cmdline_read(count, words, &settings, &cmdline, &error);
    memset(words[0], 'x', 3); /* nothing may point into argv afterwards */
    free(words);
    return r;
}

static void expect_error(const char *line, int exit_code, const char *part)
{
    if (read_line(line) == 0)
        fail_msg("'%s' was taken", line);
    assert_int_equal(error.exit_code, exit_code);
    if (strstr(error.text, part) == NULL)
        fail_msg("'%s' said: %s", line, error.text);
    assert_null(cmdline.text);
}

static void values_stand_behind_beside_or_inside_their_option(void **state)
{
    static const char *const lines[] = {
        "-w 4 a:b",   "-w4 a:b",       "-w=4 a:b",        "--workers 4 a:b", "--workers=4 a:b",
        "a:b -w 4",   "--workers 3 -w4 a:b", "-- a:b",    "-R -w4 a:b",      "-Rw4 a:b",
        "--worker 4 a:b"};

    for (size_t i = 0; i < CTS_COUNT(lines); i++) {
        int r = read_line(lines[i]);

        if (i == 10) { /* not a beginning of one option only */
            assert_int_equal(r, -1);
            assert_int_equal(error.exit_code, 2);
            continue;
        }
        if (r < 0)
            fail_msg("'%s': %s", lines[i], error.text);
        assert_string_equal(settings.app_uri, "a:b");
        assert_int_equal(cts_settings_int(&settings, CTS_SETTING_workers), i == 7 ? 1 : 4);
        assert_int_equal(cmdline.action, CMDLINE_RUN);
    }
}

static void beginnings_of_long_options_count_when_only_one_begins_so(void **state)
{
    assert_int_equal(read_line("--prel --graceful 7 a:b"), 0);
    assert_true(cts_settings_bool(&settings, CTS_SETTING_preload_app));
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_graceful_timeout), 7);
    /* An option that is whole wins over those it begins. */
    assert_int_equal(read_line("--reload a:b --env A=1"), 0);
    expect_error("--work 4", 2, "ambiguous option: --work could be --workers, --worker-class");
    expect_error("--limit-request-field 4", 2, "ambiguous");
}

static void repeated_options_gather(void **state)
{
    char *const *list;

    assert_int_equal(read_line("-b :1 --bind=[::1]:2 -b unix:/x a:b -e A=1 -e B=2"), 0);
    assert_int_equal(cts_settings_list(&settings, CTS_SETTING_bind, &list), 3);
    assert_string_equal(list[2], "unix:/x");
    assert_int_equal(cts_settings_list(&settings, CTS_SETTING_raw_env, &list), 2);
    assert_int_equal(read_line("--forwarded-allow-ips 1.2.3.4 --forwarded-allow-ips '::1,*' a:b"),
                     0);
    assert_int_equal(cts_settings_list(&settings, CTS_SETTING_forwarded_allow_ips, &list), 2);
}

static void flags_say_yes_and_their_opposites_no(void **state)
{
    assert_int_equal(read_line("--no-tracing --no-sendfile --no-control-socket a:b"), 0);
    assert_false(cts_settings_bool(&settings, CTS_SETTING_tracing));
    assert_int_equal(settings.values[CTS_SETTING_sendfile].kind, CTS_VALUE_BOOL);
    assert_false(cts_settings_bool(&settings, CTS_SETTING_sendfile));
    assert_true(cts_settings_bool(&settings, CTS_SETTING_control_socket_disable));
    assert_int_equal(read_line("--no-tracing --tracing a:b"), 0);
    assert_true(cts_settings_bool(&settings, CTS_SETTING_tracing));
    expect_error("--reload=yes", 2, "--reload takes no value");
}

static void proxy_protocol_may_leave_its_value_out(void **state)
{
    assert_int_equal(read_line("--proxy-protocol a:b"), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_proxy_protocol), "auto");
    assert_string_equal(settings.app_uri, "a:b");
    assert_int_equal(read_line("--proxy-protocol v2 a:b"), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_proxy_protocol), "v2");
    assert_int_equal(read_line("a:b --proxy-protocol"), 0);
}

static void a_file_is_an_application_as_good_as_a_module(void **state)
{
    assert_int_equal(read_line("-w 2 web/shop.py"), 0);
    assert_string_equal(settings.app_uri, "web/shop.py");
    assert_int_equal(read_line("./shop.py:app"), 0);
    assert_string_equal(settings.app_uri, "./shop.py:app");
}

static void the_application_gives_the_process_its_name_until_somebody_else_does(void **state)
{
    assert_int_equal(read_line("shop:app"), 0);
    assert_string_equal(cts_settings_text(&settings, CTS_SETTING_default_proc_name), "shop:app");
    assert_string_equal(cts_settings_process_name(&settings), "shop:app");
    assert_true(cts_settings_is_default(&settings, CTS_SETTING_default_proc_name));
    assert_int_equal(read_line("-n till shop:app"), 0);
    assert_string_equal(cts_settings_process_name(&settings), "till");
}

static void mistakes_are_told_with_gunicorns_exit_codes(void **state)
{
    expect_error("--wrokers 4 a:b", 2, "unknown option --wrokers, did you mean --workers?");
    expect_error("--zzz a:b", 2, "unknown option --zzz");
    expect_error("-y a:b", 2, "unknown option -y");
    expect_error("-w four a:b", 2, "workers: 'four' is not a whole number; 0 to 2147483647");
    expect_error("-w -1 a:b", 1, "workers: '-1' is out of range: 0 to 2147483647");
    expect_error("a:b -w", 2, "-w needs a value: -w INT");
    expect_error("-w --reload a:b", 2, "-w needs a value");
    expect_error("-b h:99999 a:b", 1, "bind: 'h:99999'");
}

static void the_two_variables_stand_between_file_and_command_line(void **state)
{
    setenv("GUNICORN_CMD_ARGS", "--workers=3 --threads 3 --timeout 3 other:app", 1);
    setenv("CTSERVE_CMD_ARGS", "-w 4 --threads 4", 1);
    assert_int_equal(read_line("-w 5 a:b"), 0);
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_workers), 5);
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_threads), 4);
    assert_int_equal(cts_settings_int(&settings, CTS_SETTING_timeout), 3);
    assert_string_equal(settings.app_uri, "a:b");
    assert_int_equal(read_line(""), 0);
    assert_null(settings.app_uri);
    setenv("GUNICORN_CMD_ARGS", "--wrokers=3", 1);
    expect_error("a:b", 2, "in GUNICORN_CMD_ARGS: unknown option --wrokers");
    setenv("GUNICORN_CMD_ARGS", "--name 'x", 1);
    expect_error("a:b", 1, "GUNICORN_CMD_ARGS has a quote");
}

static void the_config_file_is_known_before_it_is_read(void **state)
{
    assert_int_equal(read_line("a:b"), 0);
    assert_string_equal(cmdline.config_spec, "./gunicorn.conf.py");
    assert_false(cmdline.config_is_explicit);
    setenv("GUNICORN_CMD_ARGS", "-c env.py", 1);
    assert_int_equal(read_line("a:b"), 0);
    assert_string_equal(cmdline.config_spec, "env.py");
    assert_true(cmdline.config_is_explicit);
    assert_int_equal(read_line("-c python:conf a:b"), 0);
    assert_string_equal(cmdline.config_spec, "python:conf");
}

static void actions_are_told(void **state)
{
    assert_int_equal(read_line("--version"), 0);
    assert_int_equal(cmdline.action, CMDLINE_VERSION);
    assert_string_equal(cmdline.text, "ctserve (version " CTS_VERSION ")\n");
    assert_int_equal(read_line("-v"), 0);
    assert_int_equal(cmdline.action, CMDLINE_VERSION);
    assert_int_equal(read_line("--check-config a:b"), 0);
    assert_int_equal(cmdline.action, CMDLINE_CHECK_CONFIG);
    assert_int_equal(read_line("--print-config --check-config a:b"), 0);
    assert_int_equal(cmdline.action, CMDLINE_PRINT_CONFIG);
    setenv("GUNICORN_CMD_ARGS", "--nonsense", 1);
    assert_int_equal(read_line("--help"), 0); /* who asks for help gets it */
    assert_int_equal(cmdline.action, CMDLINE_HELP);
}

static size_t lines_count(const char *text)
{
    size_t count = 0;

    for (; *text != '\0'; text++)
        count += *text == '\n';
    return count;
}

static void assert_narrow(const char *text)
{
    for (const char *at = text; *at != '\0'; at += strcspn(at, "\n") + 1)
        assert_in_range(strcspn(at, "\n"), 0, 100);
}

static void the_everyday_page_has_at_most_40_lines_and_every_everyday_option(void **state)
{
    assert_int_equal(read_line("--help"), 0);
    assert_in_range(lines_count(cmdline.text), 20, 40);
    assert_narrow(cmdline.text);
    assert_non_null(strstr(cmdline.text, "ctserve shop:app --workers 4"));
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        const char *flag = strstr(cts_setting_rows[id].flags, "--");
        char brief[128];

        if (flag == NULL)
            continue;
        (void)snprintf(brief, sizeof(brief), "%.*s", (int)strcspn(flag, " "), flag);
        if (cts_setting_rows[id].everyday && strstr(cmdline.text, brief) == NULL)
            fail_msg("%s is missing", brief);
        /* One clause stands whole on its line: it was not cut. */
        if (cts_setting_rows[id].everyday) {
            const char *doc = cts_setting_rows[id].doc;
            size_t count = strcspn(doc, ".;");
            assert_in_range(count, 10, 68 + 8);
        }
    }
}

static void help_all_names_every_setting_and_every_flag(void **state)
{
    assert_int_equal(read_line("--help all"), 0);
    assert_narrow(cmdline.text);
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        const struct cts_setting_row *row = &cts_setting_rows[id];

        if (strstr(cmdline.text, row->flags[0] != '\0' ? strstr(row->flags, "--") : row->name) ==
                NULL &&
            strchr(row->flags, ' ') == NULL)
            fail_msg("%s is missing", row->name);
    }
}

static void help_for_one_setting_has_all_its_facts(void **state)
{
    static const char *const topics[] = {"keepalive", "--keep-alive", "keep-alive"};

    for (size_t i = 0; i < CTS_COUNT(topics); i++) {
        char line[64];

        (void)snprintf(line, sizeof(line), "--help %s", topics[i]);
        assert_int_equal(read_line(i == 1 ? "--help=--keep-alive" : line), 0);
        assert_non_null(strstr(cmdline.text, "keepalive   --keep-alive INT\n"));
        assert_non_null(strstr(cmdline.text, "  takes         whole number, 0 to 2147483647\n"));
        assert_non_null(strstr(cmdline.text, "  default       2\n"));
        assert_non_null(strstr(cmdline.text, "  config file   keepalive = ...\n"));
        assert_non_null(strstr(cmdline.text, "  gunicorn      sync honours it"));
    }
    assert_int_equal(read_line("--help workers"), 0);
    assert_non_null(strstr(cmdline.text, "  environment   WEB_CONCURRENCY\n"));
    for (int id = 0; id < CTS_SETTINGS_COUNT; id++) {
        char line[128];

        (void)snprintf(line, sizeof(line), "--help %s", cts_setting_rows[id].name);
        assert_int_equal(read_line(line), 0);
        assert_narrow(cmdline.text);
    }
    expect_error("--help wrokers", 2, "did you mean 'workers'?");
    expect_error("--help zzz", 2, "no setting is called 'zzz'");
}

static void the_configuration_is_printed_sorted_and_padded(void **state)
{
    assert_int_equal(read_line("-w 3 -b :1 -b :2 a:b"), 0);
    char *text = cmdline_config_text(&settings, NULL);
    const char *last = "";

    assert_non_null(text);
    assert_int_equal(lines_count(text), CTS_SETTINGS_COUNT);
    assert_non_null(strstr(text, "\nworkers                            = 3\n"));
    assert_non_null(strstr(text, "\nbind                               = [':1', ':2']\n"));
    for (char *at = text, *end; *at != '\0'; at = end + 1) {
        end = strchr(at, '\n');
        *end = '\0';
        assert_true(strcmp(last, at) < 0);
        last = at;
    }
    free(text);
}

static void words_are_cut_as_a_shell_cuts_them(void **state)
{
    static const struct {
        const char *text;
        int count;
        const char *first;
    } cases[] = {
        {"", 0, NULL},          {"  \t\n", 0, NULL},       {"a b", 2, "a"},
        {"'a b' c", 2, "a b"},  {"\"a \\\" b\"", 1, "a \" b"}, {"a\\ b", 1, "a b"},
        {"''", 1, ""},          {"a'b'\"c\"d", 1, "abcd"}, {"\"a\\b\"", 1, "a\\b"},
        {"'a\\'", 1, "a\\"},    {"'a", -EINVAL, NULL},     {"a\\", -EINVAL, NULL},
        {"\"a\\", -EINVAL, NULL},
    };

    for (size_t i = 0; i < CTS_COUNT(cases); i++) {
        char **words;
        int count = words_split(cases[i].text, &words);

        if (count != cases[i].count)
            fail_msg("<%s> gave %d", cases[i].text, count);
        if (count > 0)
            assert_string_equal(words[0], cases[i].first);
        if (count >= 0)
            free(words);
    }
    char *many = malloc(2 * WORDS_COUNT_MAX + 3);
    char **words;
    for (int i = 0; i <= WORDS_COUNT_MAX; i++)
        memcpy(many + 2 * i, "a ", 3);
    assert_int_equal(words_split(many, &words), -E2BIG);
    many[2 * WORDS_COUNT_MAX] = '\0';
    assert_int_equal(words_split(many, &words), WORDS_COUNT_MAX);
    free(words);
    free(many);
}

static void every_failed_allocation_is_an_error_and_leaves_nothing(void **state)
{
    char *argv[] = {(char[]){"ctserve"}, (char[]){"-b"}, (char[]){":1"}, (char[]){"-b:2"},
                           (char[]){"a:b"}, NULL};
    char *help[] = {(char[]){"ctserve"}, (char[]){"--help"}, (char[]){"all"}, NULL};
    bool more = true;

    setenv("GUNICORN_CMD_ARGS", "-w 3 -e A=1", 1);
    for (long nth = 1; more; nth++) {
        struct cts_settings one;
        struct cmdline line;

        more = false;
        for (int i = 0; i < 2; i++) {
            assert_int_equal(cts_settings_init(&one, &error), 0);
            faults_arm(nth);
            int r = cmdline_read(i == 0 ? 5 : 3, i == 0 ? argv : help, &one, &line, &error);
            char *text = r == 0 && i == 0 ? cmdline_config_text(&one, NULL) : NULL;
            bool failed = faults_seen() >= nth;
            faults_arm(0);
            assert_int_equal(failed, r < 0 || (i == 0 && text == NULL));
            more |= failed;
            free(text);
            cmdline_done(&line);
            cts_settings_done(&one);
        }
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, fresh, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(values_stand_behind_beside_or_inside_their_option),
        CASE(beginnings_of_long_options_count_when_only_one_begins_so),
        CASE(repeated_options_gather),
        CASE(flags_say_yes_and_their_opposites_no),
        CASE(proxy_protocol_may_leave_its_value_out),
        CASE(mistakes_are_told_with_gunicorns_exit_codes),
        CASE(a_file_is_an_application_as_good_as_a_module),
        CASE(the_application_gives_the_process_its_name_until_somebody_else_does),
        CASE(the_two_variables_stand_between_file_and_command_line),
        CASE(the_config_file_is_known_before_it_is_read),
        CASE(actions_are_told),
        CASE(the_everyday_page_has_at_most_40_lines_and_every_everyday_option),
        CASE(help_all_names_every_setting_and_every_flag),
        CASE(help_for_one_setting_has_all_its_facts),
        CASE(the_configuration_is_printed_sorted_and_padded),
        CASE(words_are_cut_as_a_shell_cuts_them),
        CASE(every_failed_allocation_is_an_error_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
