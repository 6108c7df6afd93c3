/* no_app.c - nobody named an application: say what one looks like, and what lies around here. */
#include "cmdline.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>

#define FILES_COUNT_MAX 200
#define LINES_COUNT_MAX 2000
#define CANDIDATES_COUNT_MAX 4

/* Does this line, at the left margin, bind one of the names applications usually have? */
static const char *name_on_line(const char *line)
{
    static const char *const names[] = {"app", "application", "create_app"};

    for (size_t i = 0; i < CTS_COUNT(names); i++) {
        size_t count = strlen(names[i]);
        const char *at = line;
        bool is_def = strncmp(at, "def ", 4) == 0;

        at += is_def ? 4 : 0;
        if (strncmp(at, names[i], count) != 0)
            continue;
        at += count;
        at += strspn(at, " ");
        if ((is_def && *at == '(') || (!is_def && (*at == ':' || (*at == '=' && at[1] != '='))))
            return names[i];
    }
    return NULL;
}

static const char *name_in_file(const char *path)
{
    FILE *file = fopen(path, "re");
    const char *name = NULL;
    char line[512];

    if (file == NULL)
        return NULL;
    for (int i = 0; name == NULL && i < LINES_COUNT_MAX && fgets(line, sizeof(line), file); i++)
        name = name_on_line(line);
    (void)fclose(file);
    return name;
}

static bool is_module(const char *file_name)
{
    size_t count = strlen(file_name);

    if (count <= 3 || count > 100 || strcmp(file_name + count - 3, ".py") != 0 ||
        strchr(file_name, '-') != NULL)
        return false;
    for (size_t i = 0; i < count - 3; i++) {
        if (!isalnum((unsigned char)file_name[i]) && file_name[i] != '_')
            return false;
    }
    return true;
}

static void find_candidates(char *text, size_t text_bytes)
{
    DIR *here = opendir(".");
    struct dirent *entry;
    size_t used = 0;
    int found_count = 0;

    text[0] = '\0';
    if (here == NULL)
        return;
    for (int i = 0; i < FILES_COUNT_MAX && found_count < CANDIDATES_COUNT_MAX &&
                    (entry = readdir(here)) != NULL;
         i++) {
        const char *name = is_module(entry->d_name) ? name_in_file(entry->d_name) : NULL;

        if (name == NULL)
            continue;
        used += (size_t)snprintf(text + used, text_bytes - used, "%s%.*s:%s%s",
                                 found_count++ > 0 ? ", " : "", (int)strlen(entry->d_name) - 3,
                                 entry->d_name, name, strcmp(name, "create_app") == 0 ? "()" : "");
    }
    (void)closedir(here);
}

int cmdline_no_app(struct cts_error *error)
{
    char candidates[600];

    find_candidates(candidates, sizeof(candidates));
    return cts_error_set(error, CTS_EXIT_FAILURE,
                         "no application was named.\n"
                         "Say MODULE:NAME, for example: ctserve shop:app --workers 4\n"
                         "%s%s",
                         candidates[0] != '\0' ? "Found in this directory: "
                                               : "Nothing in this directory looks like one.",
                         candidates);
}
