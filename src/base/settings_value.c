/* settings_value.c - one value of a setting: copying it, comparing it, letting it go. */
#include "settings_value.h"

#include <errno.h>
#include <stdlib.h>

static char *copy_bytes(const char *text, size_t count)
{
    char *copy = malloc(count + 1);

    if (copy == NULL)
        return NULL;
    if (count > 0)
        memcpy(copy, text, count);
    copy[count] = '\0';
    return copy;
}

void value_free(struct cts_value *value)
{
    free(value->text);
    for (size_t i = 0; i < value->list_count; i++)
        free(value->list[i]);
    free(value->list);
    *value = (struct cts_value){0};
}

int value_set_text(struct cts_value *value, const char *text, size_t count)
{
    *value = (struct cts_value){.kind = CTS_VALUE_TEXT};
    value->text = copy_bytes(text, count);
    return value->text == NULL ? -ENOMEM : 0;
}

int value_list_add(struct cts_value *value, const char *text, size_t count)
{
    char **list;
    char *copy;

    value->kind = CTS_VALUE_LIST;
    if (value->list_count >= SETTINGS_LIST_COUNT_MAX)
        return -E2BIG;
    list = realloc(value->list, (value->list_count + 1) * sizeof(*list));
    if (list == NULL)
        return -ENOMEM;
    value->list = list;
    copy = copy_bytes(text, count);
    if (copy == NULL)
        return -ENOMEM;
    list[value->list_count++] = copy;
    return 0;
}

int value_copy(const struct cts_value *from, struct cts_value *ret_copy)
{
    struct cts_value copy = {.kind = from->kind, .number = from->number, .object = from->object};

    if (from->text != NULL) {
        copy.text = copy_bytes(from->text, strlen(from->text));
        if (copy.text == NULL)
            return -ENOMEM;
    }
    for (size_t i = 0; i < from->list_count; i++) {
        int r = value_list_add(&copy, from->list[i], strlen(from->list[i]));
        if (r < 0) {
            value_free(&copy);
            return r;
        }
    }
    *ret_copy = copy;
    return 0;
}

static bool text_equal(const char *left, const char *right)
{
    if (left == NULL || right == NULL)
        return left == right;
    return strcmp(left, right) == 0;
}

bool value_equal(const struct cts_value *left, const struct cts_value *right)
{
    if (left->kind != right->kind || left->number != right->number ||
        left->object != right->object || left->list_count != right->list_count ||
        !text_equal(left->text, right->text))
        return false;
    for (size_t i = 0; i < left->list_count; i++) {
        if (strcmp(left->list[i], right->list[i]) != 0)
            return false;
    }
    return true;
}
