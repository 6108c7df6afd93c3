/* upgrade.c - see upgrade.h. */
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define CMDLINE_BYTES_MAX (1u << 20)

extern char **environ;

static void free_words(char **words)
{
    for (char **word = words; word != NULL && *word != NULL; word++)
        free(*word);
    free(words);
}

static char **copy_words(char *const *words, size_t count)
{
    char **copy = calloc(count + 1, sizeof(*copy));
    for (size_t i = 0; copy != NULL && i < count; i++) {
        copy[i] = strdup(words[i]);
        if (copy[i] == NULL) {
            free_words(copy);
            return NULL;
        }
    }
    return copy;
}

/* Hosted, Python was started before us: its own command line is what must be run again. */
static char **words_of_process(void)
{
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    char *text = malloc(CMDLINE_BYTES_MAX + 1);
    char **words = NULL, *pointers[4096];
    ssize_t count = fd >= 0 && text != NULL ? read(fd, text, CMDLINE_BYTES_MAX) : -1;
    cts_fd_close(&fd);
    if (count > 0) {
        text[count] = '\0';
        size_t found = 0;
        for (char *at = text; at < text + count && found < CTS_COUNT(pointers);
             at += strlen(at) + 1)
            pointers[found++] = at;
        words = copy_words(pointers, found);
    }
    free(text);
    return words;
}

int upgrade_remember(struct upgrade *upgrade, const struct cts_entry *entry)
{
    char directory[PATH_MAX], program[PATH_MAX];
    ssize_t count = readlink("/proc/self/exe", program, sizeof(program) - 1);
    if (getcwd(directory, sizeof(directory)) == NULL || count < 0)
        return -errno;
    program[count] = '\0';
    size_t environment_count = 0;
    while (environ != NULL && environ[environment_count] != NULL)
        environment_count++;
    upgrade->directory = strdup(directory);
    upgrade->environment = copy_words(environ, environment_count);
    if (entry->launcher_path != NULL) {
        upgrade->program = realpath(entry->launcher_path, NULL);
        upgrade->arguments = copy_words(entry->argv, (size_t)entry->argc);
    } else {
        upgrade->program = strdup(program);
        upgrade->arguments = words_of_process();
    }
    if (upgrade->directory == NULL || upgrade->environment == NULL || upgrade->program == NULL ||
        upgrade->arguments == NULL) {
        upgrade_free(upgrade);
        return -ENOMEM;
    }
    return 0;
}

void upgrade_free(struct upgrade *upgrade)
{
    free(upgrade->program);
    free(upgrade->directory);
    free_words(upgrade->arguments);
    free_words(upgrade->environment);
    *upgrade = (struct upgrade){0};
}

static void set_number(const char *name, long number)
{
    char text[24];
    snprintf(text, sizeof(text), "%ld", number);
    setenv(name, text, 1);
}

static int set_fds(const struct listeners *listeners, bool is_systemd)
{
    char text[LISTENERS_MAX * 12] = "";
    size_t used = 0;
    for (size_t i = 0; i < listeners->count; i++)
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%d", i > 0 ? "," : "",
                                 listeners->at[i].fd);
    if (!is_systemd)
        return setenv("GUNICORN_FD", text, 1);
    set_number("LISTEN_PID", getpid());
    set_number("LISTEN_FDS", (long)listeners->count);
    return 0;
}

int upgrade_exec(const struct upgrade *upgrade, const struct listeners *listeners,
                 pid_t master_pid, bool is_systemd)
{
    environ = upgrade->environment;
    set_number("GUNICORN_PID", master_pid);
    if (set_fds(listeners, is_systemd) < 0 || chdir(upgrade->directory) < 0)
        return -errno;
    execv(upgrade->program, upgrade->arguments);
    return -errno;
}

pid_t upgrade_parent(int *fds, size_t fds_max, size_t *ret_count)
{
    const char *pid = getenv("GUNICORN_PID");
    const char *text = getenv("GUNICORN_FD");
    *ret_count = 0;
    if (pid == NULL || atol(pid) <= 0)
        return 0;
    for (const char *at = text; at != NULL && *at != '\0' && *ret_count < fds_max;) {
        char *end;
        long fd = strtol(at, &end, 10);
        if (end == at || fd < 0 || fd > INT_MAX)
            break;
        fds[(*ret_count)++] = (int)fd;
        at = *end == ',' ? end + 1 : end;
    }
    unsetenv("GUNICORN_FD");
    return (pid_t)atol(pid);
}
