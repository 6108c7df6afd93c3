/* find.c - which python a person means who types `ctserve`.
 *
 * The option, else the environment that ctserve was installed into (pyvenv.cfg beside the name it
 * was called by, not resolved: pipx and uv call through links; then beside the file itself), else
 * the environment that is active, else python3 on PATH. */
#include "launcher.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Relative to the working directory; python itself would do the same. */
static bool make_absolute(char path[PATH_MAX])
{
    char here[PATH_MAX], whole[PATH_MAX];
    if (path[0] == '/')
        return true;
    if (getcwd(here, sizeof(here)) == NULL || !path_join(whole, here, path))
        return false;
    memcpy(path, whole, PATH_MAX);
    return true;
}

/* The first executable file called `name` on PATH. An empty part means the working directory. */
static bool search_path(const char *name, char ret_path[PATH_MAX])
{
    const char *part = getenv("PATH");
    if (part == NULL)
        part = "/usr/local/bin:/usr/bin:/bin";
    for (;;) {
        size_t count = strcspn(part, ":");
        char folder[PATH_MAX];
        if (count < sizeof(folder)) {
            memcpy(folder, count > 0 ? part : ".", count > 0 ? count : 1);
            folder[count > 0 ? count : 1] = '\0';
            if (path_join(ret_path, folder, name) && path_is_executable(ret_path))
                return make_absolute(ret_path);
        }
        if (part[count] == '\0')
            return false;
        part += count + 1;
    }
}

static bool python_of_environment(const char *folder, char ret_path[PATH_MAX])
{
    static const char *const names[] = {"bin/python", "bin/python3"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (path_join(ret_path, folder, names[i]) && path_is_executable(ret_path))
            return make_absolute(ret_path);
    }
    return false;
}

/* `file` lies in an environment when pyvenv.cfg is in its folder or in the folder above. */
static bool python_beside(const char *file, char ret_path[PATH_MAX])
{
    char folder[PATH_MAX], marker[PATH_MAX];
    size_t count = strlen(file);
    if (count == 0 || count >= sizeof(folder))
        return false;
    memcpy(folder, file, count + 1);
    if (!make_absolute(folder))
        return false;
    for (int i = 0; i < 2; i++) {
        path_parent(folder);
        if (path_join(marker, folder, "pyvenv.cfg") && access(marker, F_OK) == 0)
            return python_of_environment(folder, ret_path);
    }
    return false;
}

static bool find_by_name(const char *argv0, char ret_path[PATH_MAX])
{
    char file[PATH_MAX];
    if (strchr(argv0, '/') != NULL)
        return python_beside(argv0, ret_path);
    return search_path(argv0, file) && python_beside(file, ret_path);
}

static bool find_by_file(char ret_path[PATH_MAX])
{
    char file[PATH_MAX];
    ssize_t count = readlink("/proc/self/exe", file, sizeof(file) - 1);
    if (count <= 0)
        return false;
    file[count] = '\0';
    return python_beside(file, ret_path);
}

static bool find_by_variable(const char *name, char ret_path[PATH_MAX])
{
    const char *folder = getenv(name);
    return folder != NULL && folder[0] != '\0' && python_of_environment(folder, ret_path);
}

static int find_by_option(const struct launch_options *options, char ret_path[PATH_MAX])
{
    struct stat status;
    memcpy(ret_path, options->python, PATH_MAX);
    if (strchr(ret_path, '/') == NULL) {
        if (search_path(options->python, ret_path))
            return 0;
    } else if (make_absolute(ret_path)) {
        char folder[PATH_MAX];
        memcpy(folder, ret_path, PATH_MAX);
        /* The folder of an environment is as good as its python. */
        if (stat(folder, &status) == 0 && S_ISDIR(status.st_mode)) {
            if (python_of_environment(folder, ret_path))
                return 0;
        } else if (path_is_executable(ret_path)) {
            return 0;
        }
    }
    complain("%s %s: there is no such interpreter", options->python_said_by, options->python);
    return -1;
}

int find_python(const struct launch_options *options, const char *argv0, char path[PATH_MAX],
                const char **ret_from)
{
    if (options->python[0] != '\0') {
        *ret_from = options->python_said_by;
        return find_by_option(options, path);
    }
    *ret_from = "the environment ctserve is installed in";
    if (find_by_name(argv0, path) || find_by_file(path))
        return 0;
    *ret_from = "VIRTUAL_ENV";
    if (find_by_variable("VIRTUAL_ENV", path))
        return 0;
    *ret_from = "CONDA_PREFIX";
    if (find_by_variable("CONDA_PREFIX", path))
        return 0;
    *ret_from = "PATH";
    if (search_path("python3", path))
        return 0;
    complain("no python3 on PATH and no environment is active\n"
             "say which one: ctserve --python /path/to/python ...");
    return -1;
}
