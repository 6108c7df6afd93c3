/* path.c - names of files, in buffers of PATH_MAX bytes. */
#include "launcher.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool path_is_executable(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

bool path_join(char to[PATH_MAX], const char *folder, const char *name)
{
    int count = snprintf(to, PATH_MAX, "%s%s%s", folder, *folder != '\0' ? "/" : "", name);
    if (count >= 0 && count < PATH_MAX)
        return true;
    to[0] = '\0';
    return false;
}

void path_parent(char path[PATH_MAX])
{
    size_t count = strlen(path);
    while (count > 1 && path[count - 1] == '/')
        count--;
    while (count > 0 && path[count - 1] != '/')
        count--;
    while (count > 1 && path[count - 1] == '/')
        count--;
    if (count == 0) {
        memcpy(path, ".", 2);
        return;
    }
    path[count] = '\0';
}
