"""Connections to try: well-formed ones put together from parts, the corpora, and mutants of both.

Input number INDEX of SEED is always the same bytes, `input_of(seed, index)`, as long as the
corpora are the same; mutants are another row of inputs with the same numbers. One random source
makes BLOCK inputs, since making a source costs more than making an input.
"""
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "wire"))
import cases  # noqa: E402

BLOCK = 64
MUTATED_BYTES_MAX = 1500
FUZZ_PREFIX_BYTES = 3

METHODS = [b"GET"] * 6 + [b"POST"] * 4 + [b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH",
                                          b"TRACE", b"PROPFIND", b"M-SEARCH", b"FOO", b"A_B"]
TARGETS = [b"/", b"/a", b"/a/b?c=d", b"/?", b"/a//b/../c", b"/%2e%2F?x=%00", b"http://a/b",
           b"http://a", b"HTTP://A:80/?q", b"https://[::1]:8/x", b"/a;b=c", b"/" + b"p" * 60,
           b"/?a=b&c=\"d\"", b"/{x}|y", b"/~a^b`c", b"//a/b", b"/a@b:80", b"/a?b?c/d", b"/\\",
           b"a+b://c/", b"http://a_b.c:1/", b"/<a>"]
VERSIONS = [b"HTTP/1.1"] * 10 + [b"HTTP/1.0"] * 2 + [b"HTTP/1.2", b"HTTP/1.9"]
NAMES = [b"X-A", b"Accept", b"User-Agent", b"Cookie", b"x_y", b"X!#$%&'*+.^`|~9", b"Via",
         b"Traceparent", b"Tracestate", b"Content-Type", b"Accept-Encoding", b"X-Forwarded-Proto",
         b"X-Forwarded-For", b"Forwarded", b"Referer", b"Upgrade", b"Proxy-Connection", b"TE",
         b"Trailer", b"Keep-Alive", b"Date", b"If-Match", b"Range", b"Authorization", b"a",
         b"Content-Lengt", b"Content-Length-", b"Transfer-Encodin", b"Hos", b"Host1"]
VALUES = [b"", b"1", b"a b", b"a\tb", b"a  b", b"\"q\\\"x\"", b"a, b;c=d", b"\x80\xff", b"h2c",
          b"caf\xc3\xa9", b"websocket", b"trailers", b"text/html;q=0.5, */*", b"chunked", b"0",
          b"http", b"https", b"'", b"=", b":", b"::", b"v" * 70, b"100-continue", b"close",
          b"\xa0", b"\x85x", b"a:b"]
CONNECTIONS = [b"close", b"keep-alive", b"Keep-Alive", b"CLOSE", b"upgrade", b"x, close", b"",
               b"keep-alive, Upgrade", b"close, keep-alive", b"close, close", b"te", b" close",
               b"keep-alive,", b"clos", b"closed", b"x-a,keep-alive"]
HOSTS = [b"a"] * 6 + [b"example.com:8000", b"[::1]:80", b"a:", b"", b"1.2.3.4", b"A%41", b"a_b"]
SPACES = [b" "] * 8 + [b"", b"\t", b"  ", b" \t "]
EXTENSIONS = [b""] * 6 + [b";a", b";a=b", b";a=\"b;c\"", b" ;a", b"; a = b", b";a;b=1",
                          b";a=\"\\\"\"", b";a=b ;c"]
TRAILERS = [b""] * 6 + [b"T: 1\r\n", b"X-Y:\r\nZ: a b \r\n", b"Content-MD5: \x80\r\n",
                           b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: x\r\n",
                           b"Proxy-Connection: close\r\nExpect: 100-continue\r\n"]
BODIES = [b"", b"a", b"hello", b"0\r\n\r\n", b"\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
          b"\x00\xff\x80", b"x" * 33, b"a\r\n0\r\n\r\nb", b"\n"]
BITS = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"\x00", b"\x0b", b"\x0c", b"\x1f",
        b"\x7f", b"\x80", b"\x85", b"\xa0", b"\xff", b":", b",", b";", b"\"", b"\\", b"#", b"%",
        b"?", b"@", b"*", b"0", b"9", b"F", b"g", b"+", b"-", b"_", b"0x", b"/", b"[", b"]",
        b"chunked", b"Chunked", b"identity", b"gzip, ", b"close", b"HTTP/1.1", b"\r\n ", b"\r\n\t",
        b"Host: b\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"X: 1\r\n",
        b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
        b"0\r\n\r\n", b"00", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"Connection: keep-alive\r\n"]


def field(source, name, value):
    choose = source.choice
    return name + b":" + choose(SPACES) + value + (b"" if source.random() < 0.8
                                                    else choose(SPACES)) + b"\r\n"


def chunked_body(source, body):
    pieces = []
    while body:
        cut = source.randrange(1, len(body) + 1)
        size = source.choice([b"%x", b"%X", b"0%x", b"%04x"]) % cut
        pieces.append(size + source.choice(EXTENSIONS) + b"\r\n" + body[:cut] + b"\r\n")
        body = body[cut:]
    last = source.choice([b"0"] * 5 + [b"00", b"0000"])
    pieces.append(last + source.choice(EXTENSIONS) + b"\r\n" + source.choice(TRAILERS) + b"\r\n")
    return b"".join(pieces)


def request(source):
    """One request, mostly well-formed."""
    choose, chance = source.choice, source.random
    method, version, fields, body = choose(METHODS), choose(VERSIONS), [], b""
    target = choose(TARGETS) if chance() < 0.6 else b"/" + bytes(
        source.randrange(0x21, 0x7F) for _ in range(source.randrange(6)))
    if method == b"OPTIONS" and chance() < 0.3:
        target = b"*"
    if version != b"HTTP/1.0" or chance() < 0.7:
        fields.append(field(source, choose([b"Host", b"host", b"HOST"]), choose(HOSTS)))
    for _ in range(source.randrange(5)):
        fields.append(field(source, choose(NAMES), choose(VALUES)))
    if chance() < 0.3:
        fields.append(field(source, b"Connection", choose(CONNECTIONS)))
    if chance() < 0.05:
        fields.append(field(source, b"Expect", b"100-continue"))
    kind = chance()
    if kind < 0.25:
        body = choose(BODIES)
        length = choose([b"%d"] * 6 + [b"0%d", b"%d "]) % len(body)
        fields.append(field(source, choose([b"Content-Length", b"content-length"]), length))
    elif kind < 0.5:
        body = chunked_body(source, choose(BODIES))
        fields.append(field(source, choose([b"Transfer-Encoding", b"transfer-encoding"]),
                            choose([b"chunked"] * 6 + [b"Chunked", b"CHUNKED"])))
    source.shuffle(fields)
    return b"%s %s %s\r\n%s\r\n%s" % (method, target, version, b"".join(fields), body)


def connection(source):
    """One to three requests."""
    count = 1 if source.random() < 0.6 else source.randrange(2, 4)
    return (b"\r\n" if source.random() < 0.03 else b"").join(
        [b"", *(request(source) for _ in range(count))])


def fuzz_seeds():
    folder = HERE.parents[2] / "fuzz" / "corpus"
    for target, head in (("parser", b""), ("connection", b""), ("switches", b""),
                         ("chunked", b"POST / HTTP/1.1\r\nHost: a\r\n"
                                     b"Transfer-Encoding: chunked\r\n\r\n")):
        for path in sorted((folder / target).glob("*")):
            yield head + path.read_bytes()[FUZZ_PREFIX_BYTES:]


#: Every input of the corpora; those that are not too long are mutated as well.
CORPUS = [case.raw for case in cases.CASES] + list(fuzz_seeds())
SEEDS = [raw for raw in CORPUS if len(raw) <= MUTATED_BYTES_MAX]


def change_line(source, raw):
    """Drop, double or swap lines."""
    lines = raw.split(b"\r\n")
    at, other = source.randrange(len(lines)), source.randrange(len(lines))
    how = source.randrange(3)
    if how == 0:
        lines.insert(other, lines[at])
    elif how == 1:
        del lines[at]
    else:
        lines[at], lines[other] = lines[other], lines[at]
    return b"\r\n".join(lines)


def change(source, raw):
    at = source.randrange(len(raw) + 1)
    how = source.randrange(12)
    if how < 4:
        return raw[:at] + source.choice(BITS) + raw[at:]
    if how < 6:
        return raw[:at] + source.choice(BITS) + raw[at + 1:]
    if how < 7:
        return raw[:at] + raw[at + source.randrange(1, 4):]
    if how < 8:
        return raw[:at] + bytes([source.randrange(256)]) + raw[at + 1:]
    if how < 9:
        return raw[:at] + raw[at:at + 1].swapcase() + raw[at + 1:]
    if how < 10:
        other = source.choice(SEEDS)
        return raw[:at] + other[source.randrange(len(other) + 1):]
    if how < 11:
        return raw + connection(source)
    return change_line(source, raw)


#: How often an input is changed; a mutant always is, and mostly refused for it.
CHANGES = (0, 1, 1, 1, 2, 2, 3, 5)
MUTANT_CHANGES = (1, 2, 3, 4, 5, 6)


def make(source, changes):
    raw = connection(source) if source.random() < 0.6 else source.choice(SEEDS)
    for _ in range(source.choice(changes)):
        raw = change(source, raw)[:2 * MUTATED_BYTES_MAX]
    return raw


def inputs(seed, first, count, mutants=False):
    """Inputs `first` to `first + count`, both multiples of BLOCK."""
    made, changes = [], MUTANT_CHANGES if mutants else CHANGES
    for block in range(first // BLOCK, (first + count) // BLOCK):
        source = random.Random((seed << 40) + block)
        made.extend(make(source, changes) for _ in range(BLOCK))
    return made


def input_of(seed, index, mutants=False):
    return inputs(seed, index - index % BLOCK, BLOCK, mutants)[index % BLOCK]
