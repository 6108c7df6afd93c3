/* launcher.h - the parts of the launcher. It decides which interpreter runs the server and how,
 * and is gone afterwards: embedded it calls into _core and returns its exit code, hosted it is
 * replaced by exec. It allocates nothing and links nothing but libc. */
#ifndef LAUNCHER_LAUNCHER_H
#define LAUNCHER_LAUNCHER_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

/* -- options.c: the two options the launcher needs before anybody else reads them ------------ */
enum launch_mode { LAUNCH_AUTO, LAUNCH_EMBED, LAUNCH_HOST };

struct launch_options {
    enum launch_mode mode;
    char python[PATH_MAX];      /* "" when nobody said */
    const char *python_said_by; /* "--python" or "CTSERVE_PYTHON", for error lines */
};

/* Command line over CTSERVE_CMD_ARGS over GUNICORN_CMD_ARGS; CTSERVE_PYTHON when none of them says
 * --python. What is malformed is left for the server to refuse. */
void options_read(int argc, char **argv, struct launch_options *ret_options);

/* -- find.c: which python -------------------------------------------------------------------- */
/* An executable file to ask. `from` says in a word why it was taken. 0, or -1 after a sentence on
 * stderr. */
int find_python(const struct launch_options *options, const char *argv0, char path[PATH_MAX],
                const char **ret_from);

/* -- ask.c: one question to that python -------------------------------------------------------- */
struct python_facts {
    char version[64];           /* "3.11.7" */
    char minor[16];             /* "3.11" */
    char suffix[128];           /* ".cpython-311-x86_64-linux-gnu.so" */
    char executable[PATH_MAX];  /* sys.executable, shims resolved */
    char base_prefix[PATH_MAX];
    char library[PATH_MAX];     /* the libpython it maps; "" for a static one */
    char library_candidate[PATH_MAX]; /* static, embed asked for: where sysconfig says it is */
    char implementation[32];    /* "cpython" */
};
int ask_python(const char *path, bool wants_library, struct python_facts *ret_facts);

/* -- layout.c: where package, _core and agent lie ----------------------------------------------- */
struct layout {
    char self[PATH_MAX];        /* this file, resolved */
    char package[PATH_MAX];     /* folder of the Python package `ctserve` */
    char core[PATH_MAX];        /* the _core for the ABI tag asked for */
    char agent[PATH_MAX];
};
/* 0, or -1 after sentences that name the _core files that are there and how to build one. */
int layout_find(const struct python_facts *facts, struct layout *ret_layout);

/* -- path.c ------------------------------------------------------------------------------------- */
bool path_is_executable(const char *path);
/* "a/b" of two parts; false when it does not fit (then "" is left). */
bool path_join(char to[PATH_MAX], const char *folder, const char *name);
/* Cut the last part off, "/" stays. */
void path_parent(char path[PATH_MAX]);

/* -- complain.c --------------------------------------------------------------------------------- */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
