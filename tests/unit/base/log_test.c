/* log_test.c - log lines: their shape, their pid, and what happens when nobody reads. */
#include "test.h"

#include "ctserve/log.h"

#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[64];

static const char *path_of(const char *name)
{
    static char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static const char *content(const char *name)
{
    static char text[200000];
    FILE *file = fopen(path_of(name), "r");

    assert_non_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    return text;
}

static bool matches(const char *text, const char *pattern)
{
    regex_t regex;
    bool yes;

    assert_int_equal(regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB), 0);
    yes = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return yes;
}

static void open_fresh(const char *name)
{
    (void)unlink(path_of(name));
    assert_int_equal(cts_log_open(path_of(name)), 0);
    cts_log_set_level(CTS_LOG_INFO);
}

static void a_line_has_gunicorns_shape(void **state)
{
    char pattern[200];

    open_fresh("shape");
    cts_info("Listening at: %s (%d)", "http://127.0.0.1:8000", 812);
    (void)snprintf(pattern, sizeof(pattern),
                   "^\\[[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{4}\\] "
                   "\\[%d\\] \\[INFO\\] Listening at: http://127.0.0.1:8000 \\(812\\)\n$",
                   (int)getpid());
    assert_true(matches(content("shape"), pattern));
}

static void the_pid_is_right_in_a_forked_child(void **state)
{
    char pattern[64];
    int status;

    open_fresh("fork");
    cts_info("before");
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        cts_warning("in the child");
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    (void)snprintf(pattern, sizeof(pattern), "\\] \\[%d\\] \\[WARNING\\] in the child\n", (int)pid);
    assert_true(matches(content("fork"), pattern));
}

static void lines_below_the_level_are_not_written(void **state)
{
    open_fresh("level");
    cts_debug("quiet");
    cts_log_set_level(CTS_LOG_ERROR);
    cts_warning("quiet too");
    cts_error_log("loud");
    cts_critical("louder");
    assert_null(strstr(content("level"), "quiet"));
    assert_non_null(strstr(content("level"), "[ERROR] loud\n"));
    assert_non_null(strstr(content("level"), "[CRITICAL] louder\n"));
    assert_int_equal(cts_log_get_level(), CTS_LOG_ERROR);
}

static void level_words_are_read_in_any_case_and_unknown_ones_mean_info(void **state)
{
    assert_int_equal(cts_log_level_of("Debug"), CTS_LOG_DEBUG);
    assert_int_equal(cts_log_level_of("CRITICAL"), CTS_LOG_CRITICAL);
    assert_int_equal(cts_log_level_of("verbose"), CTS_LOG_INFO);
    assert_int_equal(cts_log_level_of(NULL), CTS_LOG_INFO);
}

static void a_message_of_several_lines_has_one_head_and_ends_once(void **state)
{
    open_fresh("lines");
    cts_error_log("%s", "Exception in worker\nTraceback:\n  File x\n\n");
    assert_true(matches(content("lines"), "^\\[[^\n]*\\[ERROR\\] Exception in worker\n"
                                          "Traceback:\n  File x\n$"));
}

static void a_long_stack_is_written_whole_up_to_64_kilobytes(void **state)
{
    static char stack[100001];

    memset(stack, 's', sizeof(stack) - 1);
    open_fresh("long");
    cts_error_log("%.50000s end", stack);
    assert_true(strlen(content("long")) > 50000);
    assert_non_null(strstr(content("long"), "s end\n"));
    open_fresh("longer");
    cts_error_log("%s", stack);
    assert_int_equal(strlen(content("longer")), 64 * 1024);
    assert_int_equal(content("longer")[64 * 1024 - 1], '\n');
    /* Around the size where the first buffer ends, no byte is lost or doubled. */
    for (int count = 1900; count < 2100; count++) {
        open_fresh("edge");
        cts_info("%.*s|", count, stack);
        const char *text = content("edge");
        assert_int_equal(strspn(strchr(text, 's'), "s"), count);
        assert_string_equal(text + strlen(text) - 2, "|\n");
    }
}

static void a_full_pipe_loses_the_line_counts_it_and_does_not_wait(void **state)
{
    char name[64];
    int fds[2];
    uint64_t before = cts_log_lost_count();

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    (void)snprintf(name, sizeof(name), "/proc/self/fd/%d", fds[1]);
    assert_int_equal(cts_log_open(name), 0);
    cts_log_set_level(CTS_LOG_INFO);
    for (int i = 0; i < 1000; i++)
        cts_info("%0200d", i); /* more than the 64 KiB of a pipe that blocks */
    assert_true(cts_log_lost_count() > before);
    assert_int_equal(cts_log_open("-"), 0);
    close(fds[0]);
    close(fds[1]);
}

static void reopening_follows_a_rotated_file_with_the_same_descriptor(void **state)
{
    char moved[128];

    open_fresh("rotate");
    cts_info("first");
    int fd = cts_log_fd();
    (void)snprintf(moved, sizeof(moved), "%s", path_of("rotate.1"));
    assert_int_equal(rename(path_of("rotate"), moved), 0);
    cts_info("second");
    assert_int_equal(cts_log_reopen(), 0);
    assert_int_equal(cts_log_fd(), fd);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    cts_info("third");
    assert_non_null(strstr(content("rotate.1"), "second"));
    assert_null(strstr(content("rotate.1"), "third"));
    assert_non_null(strstr(content("rotate"), "third"));
}

static void a_file_that_cannot_be_opened_leaves_the_old_target(void **state)
{
    open_fresh("old");
    int fd = cts_log_fd();
    assert_int_equal(cts_log_open(path_of("no/such/directory")), -ENOENT);
    assert_int_equal(cts_log_fd(), fd);
    cts_info("still here");
    assert_non_null(strstr(content("old"), "still here"));
    assert_int_equal(cts_log_open("-"), 0);
    assert_int_equal(cts_log_fd(), 2);
    assert_int_equal(cts_log_reopen(), 0);
}

static void logging_keeps_errno(void **state)
{
    open_fresh("errno");
    errno = EILSEQ;
    cts_info("x");
    assert_int_equal(errno, EILSEQ);
}

static int make_directory(void **state)
{
    (void)snprintf(directory, sizeof(directory), "/tmp/cts-log-test-XXXXXX");
    return mkdtemp(directory) == NULL ? -1 : 0;
}

static int remove_directory(void **state)
{
    static const char *const names[] = {"shape", "fork", "level", "lines", "long", "longer",
                                        "edge", "rotate", "rotate.1", "old", "errno"};
    int r = cts_log_open("-");

    for (size_t i = 0; i < CTS_COUNT(names); i++)
        (void)unlink(path_of(names[i]));
    return r < 0 ? r : rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_has_gunicorns_shape),
        cmocka_unit_test(the_pid_is_right_in_a_forked_child),
        cmocka_unit_test(lines_below_the_level_are_not_written),
        cmocka_unit_test(level_words_are_read_in_any_case_and_unknown_ones_mean_info),
        cmocka_unit_test(a_message_of_several_lines_has_one_head_and_ends_once),
        cmocka_unit_test(a_long_stack_is_written_whole_up_to_64_kilobytes),
        cmocka_unit_test(a_full_pipe_loses_the_line_counts_it_and_does_not_wait),
        cmocka_unit_test(reopening_follows_a_rotated_file_with_the_same_descriptor),
        cmocka_unit_test(a_file_that_cannot_be_opened_leaves_the_old_target),
        cmocka_unit_test(logging_keeps_errno),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
