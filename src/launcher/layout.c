/* layout.c - where our own files lie.
 *
 * Three layouts, looked at in this order:
 *   a build folder   ctserve, ctserve-agent, src/core/_core.*.so, and src/launcher/ctserve.package,
 *                    whose one line names the folder of the package in the checkout
 *   an installation  PREFIX/bin/ctserve, PREFIX/LIBDIR/ctserve/ctserve/{*.py,_core.*.so}
 *   pip              VENV/bin/ctserve, site-packages/ctserve/{*.py,_core.*.so}
 * The agent lies beside ctserve or beside _core. */
#include "launcher.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef CTS_LIBDIR
#define CTS_LIBDIR "lib"
#endif

#define PLACES_COUNT_MAX 6
#define LISTED_COUNT_MAX 16

struct place {
    char package[PATH_MAX];
    char core_folder[PATH_MAX];
};

static bool first_line(const char *path, char to[PATH_MAX])
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool got = fgets(to, PATH_MAX, file) != NULL;
    fclose(file);
    if (got)
        to[strcspn(to, "\n")] = '\0';
    return got && to[0] == '/';
}

static bool checkout_place(const char *folder, struct place *place)
{
    char marker[PATH_MAX];
    return path_join(marker, folder, "src/launcher/ctserve.package") && first_line(marker, place->package) &&
           path_join(place->core_folder, folder, "src/core");
}

static bool same_folder_place(const char *prefix, const char *rest, struct place *place)
{
    bool fits = path_join(place->package, prefix, rest);
    memcpy(place->core_folder, place->package, PATH_MAX);
    return fits && access(place->package, F_OK) == 0;
}

static int list_places(const struct python_facts *facts, const char *folder,
                       struct place places[PLACES_COUNT_MAX])
{
    char prefix[PATH_MAX], rest[128], environment[PATH_MAX];
    int count = 0;
    memcpy(prefix, folder, PATH_MAX);
    path_parent(prefix);
    memcpy(environment, facts->executable, PATH_MAX);
    path_parent(environment);
    path_parent(environment);
    count += checkout_place(folder, &places[count]);
    count += same_folder_place(prefix, CTS_LIBDIR "/ctserve/ctserve", &places[count]);
    count += same_folder_place(prefix, "lib/ctserve/ctserve", &places[count]);
    snprintf(rest, sizeof(rest), "lib/python%s/site-packages/ctserve", facts->minor);
    count += same_folder_place(environment, rest, &places[count]);
    count += same_folder_place(facts->base_prefix, rest, &places[count]);
    count += same_folder_place(facts->base_prefix, "lib/python3/dist-packages/ctserve",
                               &places[count]);
    return count;
}

static void find_agent(const char *folder, const char *core, char agent[PATH_MAX])
{
    char core_folder[PATH_MAX];
    memcpy(core_folder, core, PATH_MAX);
    path_parent(core_folder);
    if (path_join(agent, core_folder, "ctserve-agent") && path_is_executable(agent))
        return;
    /* Also the answer when it is nowhere: the server then says which file it missed. */
    path_join(agent, folder, "ctserve-agent");
}

/* Name the ABI tags that can be served, "cpython-311-x86_64-linux-gnu, ...". */
static void list_cores(const struct place *places, int count, char *text, size_t text_bytes)
{
    size_t used = 0;
    int listed = 0;
    text[0] = '\0';
    for (int i = 0; i < count; i++) {
        DIR *folder = opendir(places[i].core_folder);
        struct dirent *entry;
        while (folder != NULL && (entry = readdir(folder)) != NULL && listed < LISTED_COUNT_MAX) {
            size_t name_count = strlen(entry->d_name);
            if (strncmp(entry->d_name, "_core.", 6) != 0 || name_count < 9 ||
                strcmp(entry->d_name + name_count - 3, ".so") != 0)
                continue;
            int r = snprintf(text + used, text_bytes - used, "%s%.*s", listed > 0 ? ", " : "",
                             (int)(name_count - 9), entry->d_name + 6);
            if (r < 0 || (size_t)r >= text_bytes - used)
                break;
            used += (size_t)r;
            listed++;
        }
        if (folder != NULL)
            closedir(folder);
    }
}

static int refuse(const struct python_facts *facts, const struct place *places, int count)
{
    char there[2048];
    list_cores(places, count, there, sizeof(there));
    if (strcmp(facts->implementation, "cpython") != 0) {
        complain("%s is %s; ctserve serves CPython 3.10 to 3.13", facts->executable,
                 facts->implementation);
        return -1;
    }
    complain("no _core%s for CPython %s (%s)\n"
             "there is: %s\n"
             "build one: meson configure BUILD -Dpythons=%s && ninja -C BUILD; or choose another "
             "interpreter with --python", facts->suffix, facts->version, facts->executable,
             there[0] != '\0' ? there : "none", facts->executable);
    return -1;
}

int layout_find(const struct python_facts *facts, struct layout *ret_layout)
{
    static struct place places[PLACES_COUNT_MAX];
    char name[160], folder[PATH_MAX];
    ssize_t bytes = readlink("/proc/self/exe", ret_layout->self, PATH_MAX - 1);
    if (bytes <= 0) {
        complain("/proc/self/exe cannot be read; ctserve needs /proc");
        return -1;
    }
    ret_layout->self[bytes] = '\0';
    memcpy(folder, ret_layout->self, PATH_MAX);
    path_parent(folder);
    snprintf(name, sizeof(name), "_core%s", facts->suffix);
    int count = list_places(facts, folder, places);
    for (int i = 0; i < count; i++) {
        if (!path_join(ret_layout->core, places[i].core_folder, name) ||
            access(ret_layout->core, R_OK) != 0)
            continue;
        memcpy(ret_layout->package, places[i].package, PATH_MAX);
        find_agent(folder, ret_layout->core, ret_layout->agent);
        return 0;
    }
    return refuse(facts, places, count);
}
