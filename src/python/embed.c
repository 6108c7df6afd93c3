/* embed.c - the embedded front: an interpreter that believes to be the python it was taken from.
 *
 * With PyConfig.executable set, sys.prefix, sys.path, sys.flags and the rest equal what that
 * python says of itself. The bootstrap then runs as `-c` would, so both modes share it. */
#include "room.h"

#include "ctserve/launch.h"

#include <stdio.h>

CTS_EXPORT int ctserve_embed_main(const struct cts_launch *launch);

static int refuse(const char *why)
{
    fprintf(stderr, "ctserve: %s\n", why);
    return CTS_EXIT_FAILURE;
}

static PyStatus set_config(PyConfig *config, const struct cts_launch *launch)
{
    PyStatus status;
    config->parse_argv = 0;
    config->install_signal_handlers = 0;
    status = PyConfig_SetBytesString(config, &config->executable, launch->python);
    if (PyStatus_Exception(status))
        return status;
    status = PyConfig_SetBytesString(config, &config->run_command, launch->bootstrap);
    if (PyStatus_Exception(status))
        return status;
    return PyConfig_SetBytesArgv(config, launch->argc, launch->argv);
}

/* The header we were compiled with and the library that is running must be of one minor version;
 * anything else would read structures wrongly before it could say so. */
static bool version_matches(void)
{
    char wanted[16];
    int count = snprintf(wanted, sizeof(wanted), "%d.%d.", PY_MAJOR_VERSION, PY_MINOR_VERSION);
    return strncmp(Py_GetVersion(), wanted, (size_t)count) == 0;
}

int ctserve_embed_main(const struct cts_launch *launch)
{
    if (launch->version != CTS_LAUNCH_VERSION)
        return refuse("launcher and _core are of different versions; build both again");
    if (!version_matches())
        return refuse("this _core is for Python " PY_VERSION ", another libpython is loaded");
    /* Before the interpreter starts: see signals.c. What the launcher blocked stays blocked. */
    signals_front(false);
    PyConfig config;
    PyConfig_InitPythonConfig(&config);
    PyStatus status = set_config(&config, launch);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    if (PyStatus_IsExit(status))
        return status.exitcode;
    if (PyStatus_Exception(status))
        return refuse(status.err_msg != NULL ? status.err_msg : "Python does not start");
    return Py_RunMain();
}
