/* main.c - `ctserve`: choose an interpreter, then become the server inside it.
 *
 * This file knows no libpython. Embedded, it loads the very library that the chosen python maps
 * and calls into _core; hosted, it becomes that python. Both run the same bootstrap, which loads
 * our package and _core by their place, so sys.path and the environment stay as the application
 * would see them under its own python. */
#include "ctserve/launch.h"
#include "launcher.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXIT_NOT_STARTED 1

/* Arguments: package folder, _core, mode, agent, launcher; then argv as typed. `-c` put an empty
 * string in front of sys.path (not with PYTHONSAFEPATH); it goes, the server puts the working
 * directory there as gunicorn's chdir does. Nothing of this stays visible in __main__. */
static const char bootstrap[] =
    "def boot():\n"
    "    import sys\n"
    "    from _frozen_importlib import module_from_spec\n"
    "    from _frozen_importlib_external import spec_from_file_location\n"
    "    del sys.modules['__main__'].boot\n"
    "    package, core, mode, agent, launcher = sys.argv[1:6]\n"
    "    sys.argv[:] = sys.argv[6:]\n"
    "    if sys.path and sys.path[0] == '':\n"
    "        del sys.path[0]\n"
    "    def load(name, path, folder=None):\n"
    "        spec = spec_from_file_location(name, path, submodule_search_locations=folder)\n"
    "        module = module_from_spec(spec)\n"
    "        sys.modules[name] = module\n"
    "        spec.loader.exec_module(module)\n"
    "        return module\n"
    "    ours = load('ctserve', package + '/__init__.py', [package])\n"
    "    ours._core = load('ctserve._core', core)\n"
    "    sys.exit(ours._core.main(sys.argv, mode, agent, launcher))\n"
    "boot()\n";

/* A signal between here and the server's own handlers waits: hosted, python would otherwise die
 * of it or raise KeyboardInterrupt in the middle of its start. _core opens the gate. */
static void block_signals(void)
{
    static const int signals[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM,  SIGTTIN,
                                  SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH, SIGCHLD};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaddset(&set, signals[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

/* Load `library` and make sure that it is the python that was asked: same version, same build. */
static bool load_library(const struct python_facts *facts, const char *library)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
    if (handle == NULL) {
        complain("%s cannot be loaded: %s", library, dlerror());
        return false;
    }
    const char *(*get_version)(void);
    *(void **)&get_version = dlsym(handle, "Py_GetVersion");
    const char *version = get_version != NULL ? get_version() : "nothing";
    size_t count = strcspn(version, " ");
    /* "3.11.2+" is how Debian spells a 3.11.2 with patches. */
    while (count > 0 && strchr("+abrc", version[count - 1]) != NULL)
        count--;
    if (count == strlen(facts->version) && strncmp(version, facts->version, count) == 0)
        return true;
    complain("%s is Python %.*s, but %s is Python %s: they do not belong together\n"
             "use --interpreter host, or install the libpython of that interpreter", library,
             (int)count, version, facts->executable, facts->version);
    return false;
}

static int embed(const struct python_facts *facts, const struct layout *layout,
                 struct cts_launch *launch)
{
    const char *library = facts->library[0] != '\0' ? facts->library : facts->library_candidate;
    if (library[0] == '\0') {
        complain("%s has no shared libpython, and none of its version was found\n"
                 "use --interpreter host, or install it (Debian: apt install libpython%s)",
                 facts->executable, facts->minor);
        return EXIT_NOT_STARTED;
    }
    if (!load_library(facts, library))
        return EXIT_NOT_STARTED;
    void *core = dlopen(layout->core, RTLD_NOW | RTLD_LOCAL);
    if (core == NULL) {
        complain("%s cannot be loaded: %s", layout->core, dlerror());
        return EXIT_NOT_STARTED;
    }
    cts_embed_main_function *embed_main;
    *(void **)&embed_main = dlsym(core, CTS_EMBED_MAIN);
    if (embed_main == NULL) {
        complain("%s belongs to another version of ctserve", layout->core);
        return EXIT_NOT_STARTED;
    }
    return embed_main(launch);
}

static int host(const struct python_facts *facts, const struct cts_launch *launch)
{
    /* python -c BOOTSTRAP ...: launch->argv holds all but the first two and the text. */
    char **argv = calloc((size_t)launch->argc + 3, sizeof(*argv));
    if (argv == NULL) {
        complain("no memory");
        return EXIT_NOT_STARTED;
    }
    argv[0] = (char *)facts->executable;
    argv[1] = "-c";
    argv[2] = (char *)launch->bootstrap;
    memcpy(argv + 3, launch->argv + 1, ((size_t)launch->argc - 1) * sizeof(*argv));
    execv(facts->executable, argv);
    complain("%s does not start: %s", facts->executable, strerror(errno));
    free(argv);
    return EXIT_NOT_STARTED;
}

int main(int argc, char **argv)
{
    static struct launch_options options;
    static struct python_facts facts;
    static struct layout layout;
    static char python[PATH_MAX];
    const char *from;

    if (argc < 1)
        return EXIT_NOT_STARTED;
    options_read(argc, argv, &options);
    if (find_python(&options, argv[0], python, &from) < 0)
        return EXIT_NOT_STARTED;
    if (ask_python(python, options.mode == LAUNCH_EMBED, &facts) < 0)
        return EXIT_NOT_STARTED;
    if (layout_find(&facts, &layout) < 0)
        return EXIT_NOT_STARTED;
    bool embeds = options.mode == LAUNCH_EMBED ||
                  (options.mode == LAUNCH_AUTO && facts.library[0] != '\0');

    char **handed = calloc((size_t)argc + 7, sizeof(*handed));
    if (handed == NULL) {
        complain("no memory");
        return EXIT_NOT_STARTED;
    }
    char *first[] = {"-c", layout.package, layout.core, embeds ? "embedded" : "hosted",
                     layout.agent, layout.self};
    memcpy(handed, first, sizeof(first));
    memcpy(handed + 6, argv, (size_t)argc * sizeof(*argv));
    struct cts_launch launch = {.version = CTS_LAUNCH_VERSION,
                                .python = facts.executable,
                                .bootstrap = bootstrap,
                                .argc = argc + 6,
                                .argv = handed};
    block_signals();
    int code = embeds ? embed(&facts, &layout, &launch) : host(&facts, &launch);
    free(handed);
    return code;
}
