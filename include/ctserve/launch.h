/* launch.h - what the launcher hands to the interpreter it chose. Room: base (neutral ground:
 * the launcher fills it, src/python/embed.c reads it; neither opens the other).
 *
 * Both modes run the same few lines of Python, `bootstrap`, with the same arguments: embedded
 * through PyConfig.run_command, hosted through `python -c`. */
#ifndef CTSERVE_LAUNCH_H
#define CTSERVE_LAUNCH_H

#define CTS_LAUNCH_VERSION 1

struct cts_launch {
    int version;             /* CTS_LAUNCH_VERSION; another one is refused */
    const char *python;      /* sys.executable: absolute, unresolved */
    const char *bootstrap;   /* Python source */
    int argc;                /* argv[0] is "-c", then what the bootstrap takes, then as typed */
    char **argv;
};

/* Exported by every _core; the launcher finds it with dlsym. Returns the exit code. */
#define CTS_EMBED_MAIN "ctserve_embed_main"
typedef int cts_embed_main_function(const struct cts_launch *launch);

#endif
