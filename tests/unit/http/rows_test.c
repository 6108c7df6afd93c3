/* rows_test.c - every case of tests/wire/cases.py against the parser: whole, one byte at a time,
 * and in two pieces at every place; the verdict must be the same and come at the same byte. */
#include "drive.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define ANSWERS_MAX 64
#define SPLITS_MAX 600u

struct row {
    char name[200];
    char *raw;
    uint32_t raw_bytes;
    uint32_t is_gunicorn;
    enum { END_OPEN, END_CLOSED, END_WAITS } end;
    uint32_t answers_count;
    uint32_t answers[ANSWERS_MAX][2];
};

static struct row *rows;
static uint32_t rows_count;

static uint32_t read_u32(FILE *file)
{
    uint32_t number;

    if (fread(&number, sizeof(number), 1, file) != 1)
        abort();
    return number;
}

static char *read_text(FILE *file, uint32_t *ret_bytes)
{
    uint32_t bytes = read_u32(file);
    char *text = calloc(1, (size_t)bytes + 1);

    if (text == NULL || fread(text, 1, bytes, file) != bytes)
        abort();
    *ret_bytes = bytes;
    return text;
}

static void read_row(FILE *file, struct row *row)
{
    uint32_t bytes;
    char *name = read_text(file, &bytes);

    snprintf(row->name, sizeof(row->name), "%s", name);
    free(name);
    row->raw = read_text(file, &row->raw_bytes);
    row->is_gunicorn = read_u32(file);
    row->end = read_u32(file);
    row->answers_count = read_u32(file);
    if (row->answers_count > ANSWERS_MAX)
        abort();
    for (uint32_t i = 0; i < row->answers_count; i++) {
        row->answers[i][0] = read_u32(file);
        row->answers[i][1] = read_u32(file);
    }
}

static void init(struct drive *drive, const struct row *row)
{
    drive_init(drive, row->is_gunicorn ? &drive_gunicorn : &drive_strict);
}

/* Feed up to `count` bytes from memory of their own, so that a moved buffer is noticed. */
static void feed(struct drive *drive, const struct row *row, size_t count)
{
    char *copy = malloc(count + 1);

    assert_non_null(copy);
    memcpy(copy, row->raw, count);
    drive_feed(drive, (struct cts_bytes){copy, count});
    free(copy);
}

static void check(const struct drive *drive, const struct row *row)
{
    assert_int_equal(drive->answers_count, row->answers_count);
    for (uint32_t i = 0; i < row->answers_count; i++) {
        if ((uint32_t)drive->answers[i] != row->answers[i][0])
            assert_int_equal(drive->answers[i], row->answers[i][1]);
    }
    if (row->end == END_CLOSED)
        assert_int_equal(drive->phase, DRIVE_CLOSED);
    else
        assert_int_not_equal(drive->phase, DRIVE_CLOSED);
    if (row->end == END_OPEN)
        assert_int_equal(drive->head_start, row->raw_bytes);
    if (row->end == END_WAITS)
        assert_true(drive->head_start < row->raw_bytes);
}

static void check_equal(const struct drive *left, const struct drive *right)
{
    assert_true(left->hash == right->hash);
    if (left->code != NULL)
        assert_string_equal(left->code, right->code);
    else
        assert_null(right->code);
}

static void run_splits(const struct row *row, const struct drive *whole)
{
    size_t step = row->raw_bytes <= SPLITS_MAX ? 1 : row->raw_bytes / 64;

    for (size_t at = 1; at < row->raw_bytes; at += step) {
        struct drive split;
        init(&split, row);
        feed(&split, row, at);
        feed(&split, row, row->raw_bytes);
        check(&split, row);
        check_equal(whole, &split);
        drive_done(&split);
    }
}

/* The byte that decided must be enough, and without it there must be no verdict. */
static void check_place(const struct row *row, size_t verdict_at, const struct drive *bytes)
{
    struct drive just, before;

    init(&just, row);
    init(&before, row);
    feed(&just, row, verdict_at);
    assert_non_null(just.code);
    check_equal(&just, bytes);
    feed(&before, row, verdict_at - 1);
    assert_null(before.code);
    drive_done(&just);
    drive_done(&before);
}

static void row_is_answered_the_same_whole_and_in_pieces(void **state)
{
    const struct row *row = *state;
    struct drive whole, bytes;

    init(&whole, row);
    init(&bytes, row);
    feed(&whole, row, row->raw_bytes);
    check(&whole, row);
    /* One place for all of them: a copy per byte of a megabyte would take its time. */
    for (size_t at = 1; at <= row->raw_bytes; at++)
        drive_feed(&bytes, (struct cts_bytes){row->raw, at});
    check(&bytes, row);
    check_equal(&whole, &bytes);
    if (bytes.code != NULL)
        check_place(row, bytes.verdict_at, &bytes);
    run_splits(row, &whole);
    drive_done(&whole);
    drive_done(&bytes);
}

int main(int argc, char **argv)
{
    struct CMUnitTest *tests;
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;

    if (file == NULL) {
        fprintf(stderr, "usage: rows_test CASES\n");
        return 2;
    }
    rows_count = read_u32(file);
    rows = calloc(rows_count, sizeof(*rows));
    tests = calloc(rows_count, sizeof(*tests));
    if (rows == NULL || tests == NULL)
        return 2;
    for (uint32_t i = 0; i < rows_count; i++) {
        read_row(file, &rows[i]);
        tests[i] = (struct CMUnitTest){rows[i].name,
                                       row_is_answered_the_same_whole_and_in_pieces, NULL, NULL,
                                       &rows[i]};
    }
    fclose(file);
    int failed = _cmocka_run_group_tests("rows", tests, rows_count, NULL, NULL);
    for (uint32_t i = 0; i < rows_count; i++)
        free(rows[i].raw);
    free(rows);
    free(tests);
    return failed;
}
