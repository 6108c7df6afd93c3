/* switches.c - one request head under gunicorn's loosening switches. Two of them have the parser
 * write into the bytes it is given, so the bytes of the split run are carried from piece to piece
 * as the parser left them; and a whole head parsed again must give the same. */
#include "fuzz.h"
#include "same.h"

static const char *const forwarders[] = {"SCRIPT_NAME", "X_A"};

/* Bits 2 to 6 of the first byte are the switches; the seed bytes say what becomes of names with an
 * underscore. */
static struct cts_http_rules switched_rules(const uint8_t *data)
{
    struct cts_http_rules rules = fuzz_rules(data[0]);

    rules.permit_obsolete_folding = (data[0] & 4) != 0;
    rules.strip_header_spaces = (data[0] & 8) != 0;
    rules.permit_unconventional_http_method = (data[0] & 16) != 0;
    rules.permit_unconventional_http_version = (data[0] & 32) != 0;
    rules.casefold_http_method = (data[0] & 64) != 0;
    rules.header_map = (enum cts_header_map)(data[1] % (CTS_HEADER_MAP_DANGEROUS + 1));
    rules.forwarder_headers = forwarders;
    rules.forwarder_headers_count = (data[0] & 128) != 0 ? CTS_COUNT(forwarders) : 0;
    return rules;
}

/* The bytes as the parser left them and `more` new ones, in memory of their own. */
static char *carry(char *left, size_t left_count, const uint8_t *data, size_t more)
{
    char *bytes = malloc(left_count + more == 0 ? 1 : left_count + more);

    FUZZ_CHECK(bytes != NULL);
    if (left_count != 0)
        memcpy(bytes, left, left_count);
    if (more != 0)
        memcpy(bytes + left_count, data + left_count, more);
    free(left);
    return bytes;
}

static int parse(struct cts_head_parser *parser, char *bytes, size_t count,
                 struct cts_request *request)
{
    return cts_http_parse_head(parser, (struct cts_bytes){bytes, count}, request);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t count)
{
    struct cts_head_parser whole, split;
    struct cts_request first, second, third;
    struct cts_http_rules rules;
    struct fuzz_splits splits;
    char *bytes, *piece = NULL;
    size_t given = 0;
    int r, s = CTS_NEED_MORE;

    if (count < FUZZ_PREFIX_BYTES || count > 20000)
        return 0;
    rules = switched_rules(data);
    splits = fuzz_splits_of(data);
    splits.byte_by_byte = splits.byte_by_byte && count < 600;
    cts_head_parser_init(&whole, &rules);
    cts_head_parser_init(&split, &rules);
    whole.is_trusted = split.is_trusted = (data[2] & 1) != 0;
    data += FUZZ_PREFIX_BYTES;
    count -= FUZZ_PREFIX_BYTES;

    bytes = fuzz_copy(data, count);
    r = parse(&whole, bytes, count, &first);
    while (s == CTS_NEED_MORE && given < count) {
        size_t more = fuzz_next(&splits);
        more = more < count - given ? more : count - given;
        piece = carry(piece, given, data, more);
        given += more;
        s = parse(&split, piece, given, &second);
    }
    FUZZ_CHECK(r == s);
    if (r == 0) {
        FUZZ_CHECK(first.head_bytes <= count && first.head_bytes == second.head_bytes);
        FUZZ_CHECK(first.version_major == second.version_major);
        check_same(&first, &second);
        FUZZ_CHECK(same(first.script_name, second.script_name));
        FUZZ_CHECK(memcmp(bytes, piece, first.head_bytes) == 0);
        /* Behind the head nothing is written. */
        FUZZ_CHECK(memcmp(bytes + first.head_bytes, data + first.head_bytes,
                          count - first.head_bytes) == 0);
        /* With the table at hand the parser may take a shorter way. */
        cts_head_parser_reset(&whole);
        FUZZ_CHECK(parse(&whole, bytes, count, &third) == 0);
        FUZZ_CHECK(third.head_bytes == first.head_bytes);
        check_same(&second, &third);
        for (uint32_t i = 0; i < third.headers_count; i++) {
            FUZZ_CHECK(cts_http_name_ok(third.headers[i].name));
            FUZZ_CHECK(cts_http_value_ok(third.headers[i].value));
        }
    } else if (r != CTS_NEED_MORE) {
        FUZZ_CHECK(strcmp(whole.code, split.code) == 0);
    }
    cts_head_parser_done(&whole);
    cts_head_parser_done(&split);
    free(bytes);
    free(piece);
    return 0;
}
