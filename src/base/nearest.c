/* nearest.c - 'did you mean': the word of a list that somebody probably wanted to type. */
#include "ctserve/base.h"

#define WORD_BYTES_MAX 64
#define DISTANCE_MAX 2

/* Edits between two words: insert, remove, replace, or swap two neighbours; each counts one. */
static int distance(const char *left, size_t left_count, const char *right, size_t right_count)
{
    int rows[3][WORD_BYTES_MAX + 1];
    int *before = rows[0];
    int *last = rows[1];
    int *now = rows[2];

    for (size_t j = 0; j <= right_count; j++)
        last[j] = (int)j;
    for (size_t i = 1; i <= left_count; i++) {
        int *spare = before;

        now[0] = (int)i;
        for (size_t j = 1; j <= right_count; j++) {
            int best = last[j - 1] + (left[i - 1] != right[j - 1]);

            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
        before = last;
        last = now;
        now = spare;
    }
    return last[right_count];
}

int cts_nearest_word(const char *word, const char *const *words, size_t count)
{
    size_t word_bytes = strlen(word);
    int nearest = -1;
    int nearest_distance = DISTANCE_MAX + 1;

    if (word_bytes == 0 || word_bytes > WORD_BYTES_MAX)
        return -1;
    for (size_t i = 0; i < count; i++) {
        size_t bytes = strlen(words[i]);
        int d;

        if (bytes > WORD_BYTES_MAX || bytes + DISTANCE_MAX < word_bytes ||
            word_bytes + DISTANCE_MAX < bytes)
            continue;
        d = distance(word, word_bytes, words[i], bytes);
        if (d < nearest_distance && (size_t)d * 2 < word_bytes) {
            nearest = (int)i;
            nearest_distance = d;
        }
    }
    return nearest;
}
