/* settings_default.c - what a setting is when nobody says anything: the text of its row, or for
 * a few rows what this process and its environment are. */
#include "settings_value.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES_MAX (PATH_MAX + 64)

static int give_text(struct cts_value *ret_value, const char *text, struct cts_error *error)
{
    if (value_set_text(ret_value, text, strlen(text)) < 0)
        return cts_error_set(error, CTS_EXIT_FAILURE, "out of memory");
    return 0;
}

/* Where this process stood when it first read settings: $PWD where it names that directory (it
 * keeps symlinks as the user typed them), else what the kernel says. Remembered, because a reload
 * reads settings again after `chdir` moved us, and a relative path must mean the same then. */
static const char *start_directory(void)
{
    static char directory[PATH_MAX];
    const char *pwd = getenv("PWD");
    struct stat told, here;

    if (directory[0] != '\0')
        return directory;
    if (pwd != NULL && pwd[0] == '/' && strlen(pwd) < sizeof(directory) && stat(pwd, &told) == 0 &&
        stat(".", &here) == 0 && told.st_dev == here.st_dev && told.st_ino == here.st_ino) {
        memcpy(directory, pwd, strlen(pwd) + 1);
    } else if (getcwd(directory, sizeof(directory)) == NULL) {
        directory[0] = '\0';
        return NULL;
    }
    return directory;
}

static int default_chdir(struct cts_value *ret_value, struct cts_error *error)
{
    const char *directory = start_directory();

    if (directory == NULL)
        return cts_error_set(error, CTS_EXIT_FAILURE,
                             "the working directory cannot be read (%s): is it still there?",
                             strerror(errno));
    return give_text(ret_value, directory, error);
}

static int default_control_socket(struct cts_value *ret_value, struct cts_error *error)
{
    const char *runtime_dir = getenv("XDG_RUNTIME_DIR");
    const char *home = getenv("HOME");
    char path[PATH_BYTES_MAX];

    if (runtime_dir != NULL && runtime_dir[0] != '\0')
        (void)snprintf(path, sizeof(path), "%s/gunicorn.ctl", runtime_dir);
    else
        (void)snprintf(path, sizeof(path), "%s/.gunicorn/gunicorn.ctl", home != NULL ? home : "~");
    return give_text(ret_value, path, error);
}

static int from_row(enum cts_setting_id id, struct cts_value *ret_value, struct cts_error *error)
{
    const struct cts_setting_row *row = &cts_setting_rows[id];
    struct cts_value raw = {.kind = CTS_VALUE_TEXT};

    *ret_value = (struct cts_value){.kind = CTS_VALUE_NONE};
    if (id == CTS_SETTING_chdir)
        return default_chdir(ret_value, error);
    if (id == CTS_SETTING_control_socket)
        return default_control_socket(ret_value, error);
    if (id == CTS_SETTING_user || id == CTS_SETTING_group) {
        int64_t number = id == CTS_SETTING_user ? (int64_t)geteuid() : (int64_t)getegid();
        *ret_value = (struct cts_value){.kind = CTS_VALUE_INT, .number = number};
        return 0;
    }
    /* What only Python understands starts empty; the python room knows what that means. */
    if (row->kind == CTS_KIND_DICT || row->kind == CTS_KIND_HOOK)
        return 0;
    if (row->kind == CTS_KIND_LIST && row->default_text != NULL && row->default_text[0] == '\0') {
        ret_value->kind = CTS_VALUE_LIST;
        return 0;
    }
    if (row->default_text == NULL)
        return 0;
    raw.text = (char *)(uintptr_t)row->default_text; /* only read */
    return value_read(id, CTS_SOURCE_DEFAULT, &raw, ret_value, error);
}

static bool says_yes(const char *text)
{
    static const char *const words[] = {"y", "1", "yes", "true"};

    for (size_t i = 0; i < CTS_COUNT(words); i++) {
        if (strcasecmp(text, words[i]) == 0)
            return true;
    }
    return false;
}

static int from_env(enum cts_setting_id id, const char *text, struct cts_value *ret_value,
                    struct cts_error *error)
{
    const char *name = cts_setting_rows[id].env;
    struct cts_value raw = {.kind = CTS_VALUE_TEXT};
    char bind[64];
    struct cts_error inner;

    if (id == CTS_SETTING_sendfile) {
        *ret_value = (struct cts_value){.kind = CTS_VALUE_BOOL, .number = says_yes(text)};
        return 0;
    }
    raw.text = (char *)(uintptr_t)text; /* only read */
    if (id == CTS_SETTING_bind) {
        if (strlen(text) > 20)
            return cts_error_set(error, CTS_EXIT_FAILURE,
                                 "the environment variable PORT is not a port number (0 to 65535)");
        (void)snprintf(bind, sizeof(bind), "0.0.0.0:%s", text);
        raw.text = bind;
    }
    if (value_read(id, CTS_SOURCE_ENV_DEFAULT, &raw, ret_value, &inner) < 0)
        return cts_error_set(error, inner.exit_code, "the environment variable %s is wrong: %.3900s",
                             name, inner.text);
    return 0;
}

int value_default(enum cts_setting_id id, bool with_env, struct cts_value *ret_value,
                  bool *ret_from_env, struct cts_error *error)
{
    const char *name = cts_setting_rows[id].env;
    const char *text = name[0] != '\0' && with_env ? getenv(name) : NULL;

    *ret_from_env = false;
    if (text == NULL || id == CTS_SETTING_control_socket)
        return from_row(id, ret_value, error);
    /* An empty PORT counts as none, as it does in gunicorn. */
    if (id == CTS_SETTING_bind && text[0] == '\0')
        return from_row(id, ret_value, error);
    *ret_from_env = true;
    return from_env(id, text, ret_value, error);
}
