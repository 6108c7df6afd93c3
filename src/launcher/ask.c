/* ask.c - one question to the chosen python: who are you?
 *
 * It runs isolated and without site (`-I -S`), about 10 ms. What it answers is also how a shim
 * (pyenv's is a shell script) is resolved to the interpreter behind it, once. */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_BYTES_MAX (8 * PATH_MAX)
#define ANSWER_TIMEOUT_MS 20000

extern char **environ;

/* The library is taken from what the process has mapped, because a moved tree's sysconfig names
 * the place where it was built. sysconfig is asked only for a static python that shall be
 * embedded all the same. Every line starts with its key: a sitecustomize or a shim that prints
 * cannot be mistaken for an answer. */
static const char question[] =
    "import sys\n"
    "import _imp\n"
    "v = sys.version_info\n"
    "out = {'version': '%d.%d.%d' % v[:3], 'minor': '%d.%d' % v[:2],\n"
    "       'suffix': _imp.extension_suffixes()[0], 'executable': sys.executable,\n"
    "       'base_prefix': sys.base_prefix, 'implementation': sys.implementation.name}\n"
    "with open('/proc/self/maps', encoding='utf-8', errors='surrogateescape') as maps:\n"
    "    for line in maps:\n"
    "        path = line.rstrip('\\n').partition('/')\n"
    "        if path[2].rpartition('/')[2].startswith('libpython' + out['minor']):\n"
    "            out['library'] = '/' + path[2]\n"
    "            break\n"
    "if 'library' not in out and sys.argv[1:] == ['library']:\n"
    "    import os, sysconfig\n"
    "    get = sysconfig.get_config_var\n"
    "    name = get('INSTSONAME') or ''\n"
    "    if '.so' not in name:\n"
    "        name = 'libpython%s%s.so.1.0' % (out['minor'], getattr(sys, 'abiflags', ''))\n"
    "    places = [sys.base_prefix + '/lib', get('LIBDIR') or '', get('LIBPL') or '']\n"
    "    if get('MULTIARCH'):\n"
    "        places.insert(1, sys.base_prefix + '/lib/' + get('MULTIARCH'))\n"
    "    for place in places:\n"
    "        if place and os.path.exists(place + '/' + name):\n"
    "            out['library_candidate'] = place + '/' + name\n"
    "            break\n"
    "text = ''.join('ctserve-%s=%s\\n' % pair for pair in out.items())\n"
    "sys.stdout.buffer.write(text.encode('utf-8', 'surrogateescape'))\n";

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000L + now.tv_nsec / 1000000L;
}

/* Start `path`, its stdout on a pipe. Returns 0 or a positive errno. */
static int start(const char *path, bool wants_library, pid_t *ret_pid, int *ret_fd)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return errno;
    char *arguments[] = {(char *)path, "-I", "-S", "-c", (char *)question,
                         wants_library ? "library" : NULL, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    int r = posix_spawn(ret_pid, path, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (r != 0)
        close(ends[0]);
    else
        *ret_fd = ends[0];
    return r;
}

/* Everything until the end of the pipe, bounded in bytes and in time. */
static bool read_answer(int fd, char answer[ANSWER_BYTES_MAX])
{
    size_t count = 0;
    long deadline_ms = now_ms() + ANSWER_TIMEOUT_MS;
    for (;;) {
        long left_ms = deadline_ms - now_ms();
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        int r = left_ms > 0 ? poll(&wait, 1, (int)left_ms) : 0;
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0 || count + 1 >= ANSWER_BYTES_MAX)
            return false;
        ssize_t got = read(fd, answer + count, ANSWER_BYTES_MAX - 1 - count);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        if (got == 0)
            break;
        count += (size_t)got;
    }
    answer[count] = '\0';
    return true;
}

/* Copy the value of `key` out of the answer; false if it is not there or does not fit. */
static bool get(const char *answer, const char *key, char *to, size_t to_bytes)
{
    char wanted[64];
    int wanted_count = snprintf(wanted, sizeof(wanted), "ctserve-%s=", key);
    for (const char *line = answer; line != NULL && *line != '\0';) {
        size_t count = strcspn(line, "\n");
        if (strncmp(line, wanted, (size_t)wanted_count) == 0) {
            size_t value_count = count - (size_t)wanted_count;
            if (value_count >= to_bytes)
                return false;
            memcpy(to, line + wanted_count, value_count);
            to[value_count] = '\0';
            return true;
        }
        line += count + (line[count] == '\n');
    }
    return false;
}

static bool read_facts(const char *answer, struct python_facts *facts)
{
    *facts = (struct python_facts){.library = ""};
    get(answer, "library", facts->library, sizeof(facts->library));
    get(answer, "library_candidate", facts->library_candidate, sizeof(facts->library_candidate));
    return get(answer, "version", facts->version, sizeof(facts->version)) &&
           get(answer, "minor", facts->minor, sizeof(facts->minor)) &&
           get(answer, "suffix", facts->suffix, sizeof(facts->suffix)) &&
           get(answer, "executable", facts->executable, sizeof(facts->executable)) &&
           get(answer, "base_prefix", facts->base_prefix, sizeof(facts->base_prefix)) &&
           get(answer, "implementation", facts->implementation, sizeof(facts->implementation)) &&
           facts->executable[0] == '/' && strchr(facts->suffix, '/') == NULL;
}

int ask_python(const char *path, bool wants_library, struct python_facts *ret_facts)
{
    static char answer[ANSWER_BYTES_MAX];
    pid_t pid;
    int fd = -1, status = 0;
    int r = start(path, wants_library, &pid, &fd);
    if (r != 0) {
        complain("%s does not start: %s", path, strerror(r));
        return -1;
    }
    bool whole = read_answer(fd, answer);
    close(fd);
    if (!whole)
        kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (whole && status == 0 && read_facts(answer, ret_facts))
        return 0;
    complain("%s does not answer as a Python does (asked with -I -S -c)\n"
             "say which one: ctserve --python /path/to/python ...", path);
    return -1;
}
