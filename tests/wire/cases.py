"""Every row of the table of required answers (shared reference "http.md", section 1) as data.

A case is bytes that a client sends on one connection, and the answers that it must get. The unit
test of the parser (tests/unit/http/rows_test.c) and the test of a running server
(tests/wire/test_rows.py) read the same cases, whole and one byte at a time. The application reads
the whole body before it answers 200. The rows "CVE" and "llhttp" are those of attacks.py and
llhttp_classes.py.

Run as a program it writes the cases into a file for the unit test:
    cases.py OUTPUT
"""
import struct
import sys
from dataclasses import dataclass, field

import attacks
import llhttp_classes

#: What the connection is like after the last answer: kept open for another request, closed by the
#: server, or still waiting for the rest of a request.
OPEN, CLOSED, WAITS = "open", "closed", "waits"


@dataclass(frozen=True)
class Case:
    """One connection: `answers` are statuses in order, a tuple where several will do. `sees` says of
    as many requests as it names what the application must have seen."""

    name: str
    row: str
    raw: bytes
    answers: list = field(default_factory=list)
    end: str = CLOSED
    policy: str = "strict"
    sees: tuple = ()


CASES = []
REFUSED = [(400, 501)]


def add(row, name, raw, answers, end=None, policy="strict", sees=()):
    answers = [answers] if isinstance(answers, (int, tuple)) else list(answers)
    if end is None:
        last = answers[-1] if answers else 0
        end = OPEN if last == 200 else CLOSED
    CASES.append(Case(name, row, raw, answers, end, policy, sees))


def get(*fields, line=b"GET /a HTTP/1.1", host=True):
    lines = [line] + ([b"Host: a"] if host else []) + list(fields)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def post(fields, body):
    return get(*fields, line=b"POST /a HTTP/1.1") + body


def chunked(body):
    return post([b"Transfer-Encoding: chunked"], body)


GOOD = get()

# -- 1.1 line ends and head ---------------------------------------------------------------------
add("1.1", "a head with bare LF line ends", b"GET / HTTP/1.1\nHost: a\n\n", 400)
add("1.1", "the first LF of a head decides", b"GET / HTTP/1.1\n", 400)
add("1.1", "a head ended by LF instead of CRLF", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400)
add("1.1", "LF after the request line only", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400)
add("1.1", "LF between two fields", b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400)
add("1.1", "CR inside a value", get(b"X: a\rb"), 400)
add("1.1", "CR as the end of a field line", b"GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n", 400)
add("1.1", "CR as the end of the request line", b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400)
add("1.1", "two CR at the end of a field line", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400)
add("1.1", "CR and another byte where the empty line should be",
    b"GET / HTTP/1.1\r\nHost: a\r\n\rX: 1\r\n\r\n", 400)
add("1.1", "one empty line before the request line", b"\r\n" + GOOD, 200)
add("1.1", "one empty line before the second request", GOOD + b"\r\n" + GOOD, [200, 200])
add("1.1", "two empty lines before the request line", b"\r\n\r\n" + GOOD, 400)
add("1.1", "many empty lines before the request line", b"\r\n" * 1000 + GOOD, 400)
add("1.1", "LF before the request line", b"\n" + GOOD, 400)
add("1.1", "CR and another byte before the request line", b"\rG", 400)
add("1.1", "SP before the first field line", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400)
add("1.1", "HTAB before the first field line", b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", 400)
add("1.1", "SP before the request line", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400)
add("1.1", "a folded field", get(b"X: a\r\n b"), 400)
add("1.1", "a field folded with HTAB", get(b"X: a\r\n\tb"), 400)
add("1.1", "a folded Transfer-Encoding", get(b"Transfer-Encoding:\r\n chunked"), 400)
add("1.1", "a head that is not whole waits", b"GET / HTTP/1.1\r\nHost: a\r\n", [], WAITS)
add("1.1", "a head that ends within a name waits", b"GET / HTTP/1.0\r\nbaz", [], WAITS)

# -- 1.2 field lines ------------------------------------------------------------------------------
add("1.2", "SP between name and colon", get(b"X : 1"), 400)
add("1.2", "HTAB between name and colon", get(b"X\t: 1"), 400)
add("1.2", "SP between Content-Length and colon", get(b"Content-Length : 3") + b"xyz", 400)
for what, byte in (("NUL", b"\0"), ("BEL", b"\a"), ("DEL", b"\x7f"), ("VT", b"\v"),
                   ("ESC", b"\x1b")):
    add("1.2", f"{what} in a value", get(b"X: a" + byte + b"b"), 400)
add("1.2", "NUL in a name", get(b"X\0Y: 1"), 400)
add("1.2", "byte 0xE9 in a value", get(b"X: caf\xe9"), 200)
add("1.2", "HTAB as optional whitespace", get(b"X:\ta\t"), 200)
add("1.2", "HTAB inside a value", get(b"X: a\tb long enough for a word"), 200)
add("1.2", "no whitespace behind the colon", get(b"X:a"), 200)
add("1.2", "an empty value", get(b"X:"), 200)
add("1.2", "a value of whitespace only", get(b"X: \t "), 200)
add("1.2", "a non-ASCII letter in a name", get(b"Content-Length\xc3\x9f: 3"), 400)
add("1.2", "latin-1 sharp s in a name", get(b"X\xdf: 3"), 400)
add("1.2", "0x85 after the name", get(b"X\x85: 1"), 400)
add("1.2", "an empty name", get(b": 1"), 400)
add("1.2", "a line without colon", get(b"nocolon"), 400)
add("1.2", "a first line without colon", get(b"nocolon", host=False), 400)
for what, byte in (("a delimiter", b"("), ("a slash", b"/"), ("a quote", b'"'), ("SP", b" "),
                   ("an at sign", b"@"), ("a bracket", b"[")):
    add("1.2", f"{what} inside a name", get(b"X" + byte + b"Y: 1"), 400)
add("1.2", "every tchar in a name", get(b"X!#$%&'*+-.^_`|~09azAZ: 1"), 200)
add("1.2", "Transfer_Encoding beside Content-Length",
    post([b"Transfer_Encoding: chunked", b"Content-Length: 5"], b"hello") + GOOD, [200, 200])
add("1.2", "Content_Length beside Content-Length",
    post([b"Content_Length: 1", b"Content-Length: 5"], b"hello") + GOOD, [200, 200])
add("1.2", "two Content-Type fields", get(b"Content-Type: a/b", b"Content-Type: c/d"), 400)
add("1.2", "two equal Content-Type fields", get(b"Content-Type: a/b", b"CONTENT-TYPE: a/b"), 400)
add("1.2", "the longest field", get(b"X: " + b"a" * (8190 - 5)), 200)
add("1.2", "a field one byte too long", get(b"X: " + b"a" * (8190 - 4)), 431)
add("1.2", "one field of 9 kB", get(b"X: " + b"a" * 9000), 431)
add("1.2", "one field of 100 kB", get(b"X: " + b"a" * 100000), 431)
add("1.2", "a name of 9 kB", get(b"X" * 9000 + b": a"), 431)
add("1.2", "9 kB of whitespace before a value", get(b"X:" + b" " * 9000), 431)
add("1.2", "100 fields", get(*[b"X%d: 1" % i for i in range(99)]), 200)
add("1.2", "101 fields", get(*[b"X%d: 1" % i for i in range(100)]), 431)
add("1.2", "2,000 fields", get(*[b"X%d: 1" % i for i in range(2000)]), 431)
add("1.2", "1 MB of fields", get(*[b"X%d: " % i + b"a" * 8000 for i in range(130)]), 431)

# -- 1.3 request line -----------------------------------------------------------------------------
add("1.3", "two SP behind the method", get(line=b"GET  / HTTP/1.1"), 400)
add("1.3", "two SP behind the target", get(line=b"GET /  HTTP/1.1"), 400)
add("1.3", "HTAB behind the method", get(line=b"GET\t/ HTTP/1.1"), 400)
add("1.3", "HTAB behind the target", get(line=b"GET /\tHTTP/1.1"), 400)
add("1.3", "SP at the end of the line", get(line=b"GET / HTTP/1.1 "), 400)
add("1.3", "a lower-case method", get(line=b"get / HTTP/1.1"), REFUSED)
add("1.3", "a mixed-case method", get(line=b"Get / HTTP/1.1"), REFUSED)
add("1.3", "a method of 64 bytes", get(line=b"A" * 64 + b" / HTTP/1.1"), REFUSED)
add("1.3", "a method of 21 bytes", get(line=b"A" * 21 + b" / HTTP/1.1"), REFUSED)
add("1.3", "a method of 20 bytes", get(line=b"A" * 20 + b" / HTTP/1.1"), 200)
add("1.3", "a method of 2 bytes", get(line=b"GE / HTTP/1.1"), REFUSED)
add("1.3", "no method", get(line=b" / HTTP/1.1"), 400)
for what, byte in (("a delimiter", b"("), ("a colon", b":"), ("NUL", b"\0"), ("0xC3", b"\xc3"),
                   ("a number sign", b"#")):
    add("1.3", f"{what} inside the method", get(line=b"GET" + byte + b"X / HTTP/1.1"), 400)
add("1.3", "an unknown method", get(line=b"BREW /pot HTTP/1.1"), 200)
add("1.3", "a method with tchars that are no letters", get(line=b"M-SEARCH* /a HTTP/1.1"), 200)
add("1.3", "no version", b"GET /\r\n\r\n", 400)
add("1.3", "no version, but fields", b"GET /\r\nHost: a\r\n\r\n", 400)
add("1.3", "HTTP/0.9", get(line=b"GET / HTTP/0.9"), 400)
add("1.3", "HTTP/1.2", get(line=b"GET / HTTP/1.2"), 200)
add("1.3", "HTTP/2.0 in the line", get(line=b"GET / HTTP/2.0"), 505)
add("1.3", "HTTP/3.0 in the line", get(line=b"GET / HTTP/3.0"), 505)
add("1.3", "HTTP/2.0 in the line, as gunicorn", get(line=b"GET / HTTP/2.0"), 400,
    policy="gunicorn")
add("1.3", "the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)
add("1.3", "PRI with an asterisk in HTTP/1.1", get(line=b"PRI * HTTP/1.1"), 400)
for version in (b"HTTP/1.10", b"http/1.1", b"HTTP/1.1.1", b"HTTP/1,1", b"HTTP/11", b"HTTP/1.",
                b"HTTP/1", b"HTTP 1.1", b"FTP/1.1", b"HTTP/01.1", b"HTTP/1.x", b"HTTP/-1.1"):
    add("1.3", f"version {version.decode()}", get(line=b"GET / " + version), 400)
add("1.3", "an absolute-form target",
    get(line=b"GET http://a/b?c=d HTTP/1.1"), 200)
add("1.3", "an absolute-form target whose authority differs from Host",
    get(line=b"GET http://other:80/b HTTP/1.1"), 200)
add("1.3", "an absolute-form target with IPv6", get(line=b"GET http://[::1]:80/ HTTP/1.1"), 200)
add("1.3", "an absolute-form target without path", get(line=b"GET http://a HTTP/1.1"), 200)
add("1.3", "an absolute-form target with a query and no path",
    get(line=b"GET http://a?b HTTP/1.1"), 200)
add("1.3", "an absolute-form target without authority", get(line=b"GET http:///a HTTP/1.1"), 400)
add("1.3", "an absolute-form target with bad brackets", get(line=b"PUT s://]ufd/: HTTP/1.1"), 400)
add("1.3", "an absolute-form target with bad brackets, as gunicorn",
    get(line=b"PUT s://]ufd/: HTTP/1.1"), 400, policy="gunicorn")
add("1.3", "an absolute-form target with user info", get(line=b"GET http://u:p@a/ HTTP/1.1"), 400)
add("1.3", "an absolute-form target with user info, as gunicorn",
    get(line=b"GET http://u:p@a/ HTTP/1.1"), 200, policy="gunicorn")
add("1.3", "an authority-form target in GET", get(line=b"GET a:443 HTTP/1.1"), 400)
add("1.3", "a path without leading slash", get(line=b"GET a/b HTTP/1.1"), 400)
add("1.3", "a target that is a word", get(line=b"GET a HTTP/1.1"), 400)
add("1.3", "a target that begins with a question mark", get(line=b"GET ?a HTTP/1.1"), 400)
add("1.3", "several leading slashes", get(line=b"GET ///a HTTP/1.1"), 200)
add("1.3", "CONNECT", get(line=b"CONNECT a:443 HTTP/1.1") + GOOD, (405, 501))
add("1.3", "CONNECT, as gunicorn, closes after the answer",
    get(line=b"CONNECT a:443 HTTP/1.1") + GOOD, [200], CLOSED, policy="gunicorn")
add("1.3", "CONNECT to a path, as gunicorn", get(line=b"CONNECT a/b HTTP/1.1"), 400,
    policy="gunicorn")
add("1.3", "GET with an asterisk", get(line=b"GET * HTTP/1.1"), 400)
add("1.3", "OPTIONS with an asterisk", get(line=b"OPTIONS * HTTP/1.1"), 200)
add("1.3", "OPTIONS with an asterisk and more", get(line=b"OPTIONS *a HTTP/1.1"), 400)
for what, byte in (("0xE9", b"\xe9"), ("NUL", b"\0"), ("ESC", b"\x1b"), ("SP", b" "),
                   ("DEL", b"\x7f"), ("CR", b"\r"), ("LF", b"\n"), ("a fragment", b"#")):
    add("1.3", f"{what} in the path", get(line=b"GET /a" + byte + b"b HTTP/1.1"), 400)
    add("1.3", f"{what} in the query", get(line=b"GET /a?b" + byte + b"c HTTP/1.1"), 400)
add("1.3", "a fragment, as gunicorn", get(line=b"GET /a?b#c HTTP/1.1"), 200, policy="gunicorn")
add("1.3", "0xE9 in a fragment, as gunicorn", get(line=b"GET /a#\xe9 HTTP/1.1"), 400,
    policy="gunicorn")
add("1.3", "the longest line", get(line=b"GET /" + b"a" * (4094 - 14) + b" HTTP/1.1"), 200)
add("1.3", "a line one byte too long", get(line=b"GET /" + b"a" * (4095 - 14) + b" HTTP/1.1"), 414)
add("1.3", "a target of 9 kB", get(line=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), 414)
add("1.3", "a target of 100 kB", get(line=b"GET /" + b"a" * 100000 + b" HTTP/1.1"), 414)
add("1.3", "a query of 9 kB", get(line=b"GET /?" + b"a" * 9000 + b" HTTP/1.1"), 414)
add("1.3", "a scheme of 9 kB", get(line=b"GET " + b"a" * 9000 + b" HTTP/1.1"), 414)
add("1.3", "an authority of 9 kB", get(line=b"GET http://" + b"a" * 9000 + b" HTTP/1.1"), 414)
add("1.3", "%zz in the target", get(line=b"GET /%zz HTTP/1.1"), 200)
add("1.3", "%00 in the target", get(line=b"GET /%00 HTTP/1.1"), 200)

# -- 1.4 host ---------------------------------------------------------------------------------------
add("1.4", "HTTP/1.1 without Host", get(host=False), 400)
add("1.4", "HTTP/1.2 without Host", get(line=b"GET / HTTP/1.2", host=False), 400)
add("1.4", "an absolute-form target without Host",
    get(line=b"GET http://a/ HTTP/1.1", host=False), 400)
add("1.4", "HTTP/1.1 without Host, as gunicorn", get(host=False), 200, policy="gunicorn")
add("1.4", "two Host fields", get(b"Host: b"), 400)
add("1.4", "two equal Host fields", get(b"HOST: a"), 400)
add("1.4", "two Host fields, as gunicorn", get(b"Host: b"), 400, policy="gunicorn")
for host in (b"a b", b"a/b", b"u@a", b"u:p@a", b"a:b", b"a:80:80", b"[::1", b"::1]", b"[]",
             b"[::1]a", b"a%", b"a%zz", b"a?b", b"a#b", b"a\\b", b"a\xe9", b"a,b:x", b'"a"',
             b"<a>"):
    name = host.decode("latin-1").encode("ascii", "backslashreplace").decode()
    add("1.4", f"Host {name}", get(b"Host: " + host, host=False), 400)
add("1.4", "a malformed Host, as gunicorn", get(b"Host: u@a/b c", host=False), 200,
    policy="gunicorn")
for host in (b"a", b"a:80", b"a:", b"[::1]", b"[::1]:80", b"[v1.a:b]:1", b"a%20b", b"127.0.0.1",
             b"0.0.0.0=5000", b"a_b.example"):
    add("1.4", f"Host {host.decode()} is fine", get(b"Host: " + host, host=False), 200)
add("1.4", "an empty Host", get(b"Host:", host=False), 200)
add("1.4", "HTTP/1.0 without Host", b"GET / HTTP/1.0\r\n\r\n", [200], CLOSED)

# -- 1.5 Content-Length -------------------------------------------------------------------------------
add("1.5", "Content-Length twice, equal",
    post([b"Content-Length: 5", b"Content-Length: 5"], b"hello"), 400)
add("1.5", "Content-Length twice, different",
    post([b"Content-Length: 5", b"content-length: 6"], b"hello"), 400)
for length in (b"5, 5", b"-1", b"+5", b"0x5", b"0_5", b"5 5", b"", b"5;", b"\xb2", b"5.0",
               b"\xa05", b"5\xa0", b"-0", b"5,", b"V", b"1e1", b"5\t5", b"\xd9\xa5"):
    name = length.decode("latin-1").encode("ascii", "backslashreplace").decode() or "empty"
    name = name.replace("\t", "\\t")
    add("1.5", f"Content-Length {name}", post([b"Content-Length: " + length], b"hello"), 400)
for length in (2**63, 2**64, 2**64 + 5, 10**30, 10**400):
    name = str(length) if length < 10**31 else "of 400 digits"
    add("1.5", f"Content-Length {name}", post([b"Content-Length: %d" % length], b"hello"),
        (400, 413))
add("1.5", "Content-Length 0005", post([b"Content-Length: 0005"], b"hello") + GOOD, [200, 200])
add("1.5", "Content-Length 010 is ten", post([b"Content-Length: 010"], b"0123456789") + GOOD,
    [200, 200])
add("1.5", "many leading zeros", post([b"Content-Length: " + b"0" * 100 + b"5"], b"hello") + GOOD,
    [200, 200])
add("1.5", "POST with body, then a pipelined request",
    post([b"Content-Length: 5"], b"hello") + GOOD, [200, 200])
add("1.5", "GET with body, then a pipelined request",
    get(b"Content-Length: 5") + b"hello" + GOOD, [200, 200])
add("1.5", "Content-Length 0", post([b"Content-Length: 0"], b"") + GOOD, [200, 200])
add("1.5", "a body that looks like a request is a body",
    post([b"Content-Length: %d" % len(GOOD)], GOOD), 200)
add("1.5", "fewer bytes than promised wait", post([b"Content-Length: 9"], b"short"), [], WAITS)

# -- 1.6 Transfer-Encoding ------------------------------------------------------------------------------
END = b"0\r\n\r\n"
add("1.6", "Content-Length, then Transfer-Encoding",
    post([b"Content-Length: 5", b"Transfer-Encoding: chunked"], END), 400)
add("1.6", "Transfer-Encoding, then Content-Length",
    post([b"Transfer-Encoding: chunked", b"Content-Length: 5"], END), 400)
add("1.6", "Content-Length with Transfer-Encoding, as gunicorn",
    post([b"Transfer-Encoding: chunked", b"Content-Length: 5"], END), 400, policy="gunicorn")
add("1.6", "Transfer-Encoding on HTTP/1.0",
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + END, 400)


def coded(value):
    return post([b"Transfer-Encoding: " + value], END)


for coding, answers in (
        (b"gzip", 501), (b"gzip, chunked", 501), (b"chunked, gzip", 400),
        (b"chunked, chunked", 400), (b"identity", REFUSED), (b"identity, chunked", REFUSED),
        (b"xchunked", REFUSED), (b",chunked", REFUSED), (b"chunked,", REFUSED), (b"", REFUSED),
        (b"\vchunked", REFUSED), (b"\xa0chunked", REFUSED), (b'"chunked"', REFUSED),
        (b"chunked;q=1", REFUSED), (b"chunked chunked", REFUSED), (b"chunke", REFUSED),
        (b"chunkedd", REFUSED), (b"deflate, chunked", 501), (b", ,chunked", REFUSED)):
    name = coding.decode("latin-1").encode("ascii", "backslashreplace").decode() or "empty"
    name = name.replace("\v", "VT ")
    add("1.6", f"Transfer-Encoding {name}", coded(coding), answers)
for coding, answers in (
        (b"gzip", 400), (b"identity", 400), (b"gzip, chunked", 200), (b"identity, chunked", 200),
        (b"chunked, gzip", 400), (b"chunked, identity", 400), (b"chunked, chunked", 400),
        (b"xchunked", 501), (b"deflate, chunked", 501), (b",chunked", REFUSED),
        (b"gzip, identity, chunked", 200)):
    add("1.6", f"Transfer-Encoding {coding.decode()}, as gunicorn", coded(coding), answers,
        policy="gunicorn")
add("1.6", "two Transfer-Encoding fields",
    post([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], END), 400)
add("1.6", "Transfer-Encoding gzip and chunked in two fields, as gunicorn",
    post([b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"], END), 200,
    policy="gunicorn")
add("1.6", "chunked in two fields, as gunicorn",
    post([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], END), 400,
    policy="gunicorn")
add("1.6", "xchunked with Content-Length",
    post([b"Content-Length: 5", b"Transfer-Encoding: xchunked"], b"hello"), REFUSED)
add("1.6", "Transfer-Encoding cHuNkEd", coded(b"cHuNkEd") + GOOD, [200, 200])
add("1.6", "whitespace around chunked", coded(b"\t chunked \t") + GOOD, [200, 200])

# -- 1.7 chunked bodies and trailers -----------------------------------------------------------------
add("1.7", "good chunks, then a pipelined request",
    chunked(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n") + GOOD, [200, 200])
add("1.7", "size A", chunked(b"A\r\n0123456789\r\n0\r\n\r\n") + GOOD, [200, 200])
add("1.7", "size a", chunked(b"a\r\n0123456789\r\n0\r\n\r\n") + GOOD, [200, 200])
add("1.7", "size 000005", chunked(b"000005\r\nhello\r\n0\r\n\r\n") + GOOD, [200, 200])
add("1.7", "a last chunk of several zeros", chunked(b"000\r\n\r\n") + GOOD, [200, 200])
add("1.7", "sixteen digits", chunked(b"0000000000000005\r\nhello\r\n0\r\n\r\n") + GOOD, [200, 200])
add("1.7", "seventeen digits", chunked(b"00000000000000005\r\nhello\r\n0\r\n\r\n"), (400, 413))
add("1.7", "forty leading zeros", chunked(b"0" * 40 + b"5\r\nhello\r\n0\r\n\r\n"), (400, 413))
for size in (b"8000000000000000", b"ffffffffffffffff", b"10000000000000005",
             b"1000000000000000000000"):
    add("1.7", f"size {size.decode()}", chunked(size + b"\r\nhello\r\n0\r\n\r\n"), (400, 413))
add("1.7", "two chunks that overflow together",
    chunked(b"5\r\nhello\r\n7fffffffffffffff\r\nx"), (400, 413))
for size in (b"0x5", b"+5", b"-5", b"0_5", b"", b";a=1", b" ;a=1", b" 5", b"5 ", b"\t5", b"5\t",
             b"5 5", b"g", b"5.0", b"\xb2", b"5\0"):
    name = size.decode("latin-1").encode("ascii", "backslashreplace").decode() or "empty"
    name = name.replace("\t", "\\t").replace("\0", "NUL")
    add("1.7", f"chunk size '{name}'", chunked(size + b"\r\nhello\r\n0\r\n\r\n"), 400)
for ext in (b";a=1", b';a="q;x"', b";a", b" ; a = 1", b';a="\\""', b";a=1;b=2", b"; some; b=c",
            b';a="\xe9\t"'):
    name = ext.decode("latin-1").encode("ascii", "backslashreplace").decode().replace("\t", "\\t")
    add("1.7", f"chunk extension {name}", chunked(b"5" + ext + b"\r\nhello\r\n0\r\n\r\n") + GOOD,
        [200, 200])
for ext in (b";", b";a=", b";=1", b";a b", b';a="', b';a="b"c', b";a;", b";a\0", b';a="\x01"',
            b";a=1 ", b";a ", b';a="\\\x01"', b";\xe9"):
    name = ext.decode("latin-1").encode("ascii", "backslashreplace").decode()
    name = name.replace("\0", "NUL").replace("\x01", "SOH")
    add("1.7", f"bad chunk extension '{name}'", chunked(b"5" + ext + b"\r\nhello\r\n0\r\n\r\n"),
        400)
add("1.7", "a bare CR in an extension", chunked(b"5;a=b\rc\r\nhello\r\n0\r\n\r\n"), 400)
add("1.7", "two CR after the size", chunked(b"5\r\r\nhello\r\n0\r\n\r\n"), 400)
add("1.7", "LF inside an extension", chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), 400)
add("1.7", "an extension ended by LF", chunked(b"5;a\nhello\r\n0\r\n\r\n"), 400)
add("1.7", "a size ended by LF", chunked(b"5\nhello\r\n0\r\n\r\n"), 400)
add("1.7", "data ended by LF", chunked(b"5\r\nhello\n0\r\n\r\n"), 400)
add("1.7", "chunk data longer than its size", chunked(b"5\r\nhello!\r\n0\r\n\r\n"), 400)
add("1.7", "chunk data shorter than its size", chunked(b"6\r\nhello\r\n0\r\n\r\n"), 400)
add("1.7", "an extension of 256 bytes", chunked(b"5;" + b"a" * 255 + b"\r\nhello\r\n0\r\n\r\n"),
    200)
add("1.7", "an extension of 257 bytes", chunked(b"5;" + b"a" * 256 + b"\r\nhello\r\n0\r\n\r\n"),
    400)
add("1.7", "an extension of 64 KiB", chunked(b"5;" + b"a" * 65536 + b"\r\nhello\r\n0\r\n\r\n"), 400)
add("1.7", "thousands of one-byte chunks with long extensions",
    chunked((b"1;" + b"a" * 200 + b"\r\nx\r\n") * 3000 + b"0\r\n\r\n"), 400)
add("1.7", "a thousand one-byte chunks", chunked(b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n") + GOOD,
    [200, 200])
add("1.7", "a last chunk that is not followed by CRLF", chunked(b"0\r\nGET / HTTP/1.1\r\n"), 400)
add("1.7", "a last chunk followed by LF", chunked(b"0\r\n\n"), 400)
add("1.7", "a last chunk followed by CR and another byte", chunked(b"0\r\n\rX"), 400)
add("1.7", "a chunk that is not whole waits", chunked(b"5\r\nhel"), [], WAITS)
add("1.7", "a last-chunk line alone waits", chunked(b"0\r\n"), [], WAITS)
add("1.7", "a trailer section", chunked(b"0\r\nVary: *\r\nX-Sum:\t1\xe9 \r\n\r\n") + GOOD,
    [200, 200])
add("1.7", "an empty trailer value", chunked(b"0\r\nX:\r\n\r\n") + GOOD, [200, 200])
for trailer in (b"Content-Length", b"Host", b"Transfer-Encoding", b"hOsT", b"TE", b"Trailer",
                b"Authorization"):
    add("1.7", f"trailer {trailer.decode()}", chunked(b"0\r\n" + trailer + b": 1\r\n\r\n"), 400)
for trailer in (b"Hos", b"Hosts", b"Content-Lengt", b"Content-Lengths", b"Content-Type", b"T"):
    add("1.7", f"trailer {trailer.decode()} is fine",
        chunked(b"0\r\n" + trailer + b": 1\r\n\r\n") + GOOD, [200, 200])
add("1.7", "a forbidden trailer after a good one",
    chunked(b"0\r\nX: 1\r\ncontent-length: 5\r\n\r\n"), 400)
add("1.7", "a trailer without colon", chunked(b"0\r\nnocolon\r\n\r\n"), 400)
add("1.7", "a trailer with SP before the colon", chunked(b"0\r\nX : 1\r\n\r\n"), 400)
add("1.7", "a trailer with an empty name", chunked(b"0\r\n: 1\r\n\r\n"), 400)
add("1.7", "a folded trailer", chunked(b"0\r\nX: 1\r\n 2\r\n\r\n"), 400)
add("1.7", "a trailer ended by LF", chunked(b"0\r\nX: 1\n\r\n"), 400)
add("1.7", "NUL in a trailer", chunked(b"0\r\nX: \0\r\n\r\n"), 400)
add("1.7", "200 kB of trailers",
    chunked(b"0\r\n" + (b"X: " + b"a" * 4000 + b"\r\n") * 50 + b"\r\n"), 431)
add("1.7", "one trailer of 9 kB", chunked(b"0\r\nX: " + b"a" * 9000 + b"\r\n\r\n"), 431)
add("1.7", "101 trailers", chunked(b"0\r\n" + b"X: 1\r\n" * 101 + b"\r\n"), 431)
add("1.7", "100 trailers", chunked(b"0\r\n" + b"X: 1\r\n" * 100 + b"\r\n") + GOOD, [200, 200])
add("1.7", "a bad chunk, then a valid request", chunked(b"z\r\nhello\r\n0\r\n\r\n") + GOOD, 400)

# -- 1.8 connection handling --------------------------------------------------------------------------
add("1.8", "two pipelined", GOOD + GOOD, [200, 200])
add("1.8", "a valid request, then garbage", GOOD + b"\x16\x03\x01\x02\x00", [200, 400])
add("1.8", "a valid request, then a lower-case method", GOOD + b"get / HTTP/1.1\r\n\r\n",
    [200, (400, 501)])
add("1.8", "16 pipelined", b"".join(get(line=b"GET /%d HTTP/1.1" % i) for i in range(16)),
    [200] * 16)
add("1.8", "a refused request, then a valid one", get(host=False) + GOOD, 400)
add("1.8", "three valid, a refused one, and a valid one", GOOD * 3 + get(b"X : 1") + GOOD,
    [200, 200, 200, 400])
for value in (b"100-continue", b"100-CONTINUE", b"100-Continue"):
    add("1.8", f"Expect {value.decode()} with the body there",
        post([b"Expect: " + value, b"Content-Length: 5"], b"hello") + GOOD, [200, 200])
add("1.8", "Expect 100-continue on HTTP/1.0",
    b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", [200], CLOSED)
for value in (b"200-ok", b"", b"100-continue, x", b"100-continuee"):
    add("1.8", f"Expect {value.decode() or 'empty'}", get(b"Expect: " + value), 417)
add("1.8", "Connection close, then a pipelined request", get(b"Connection: close") + GOOD, [200],
    CLOSED)
add("1.8", "Connection Close in another case", get(b"connection: Close") + GOOD, [200], CLOSED)
add("1.8", "Connection keep-alive, close, then a pipelined request",
    get(b"Connection: keep-alive, close") + GOOD, [200], CLOSED)
add("1.8", "Connection close in the second field",
    get(b"Connection: keep-alive", b"Connection: x , close") + GOOD, [200], CLOSED)
add("1.8", "Connection closet is not close", get(b"Connection: closet") + GOOD, [200, 200])
add("1.8", "HTTP/1.0 with keep-alive, pipelined",
    get(b"Connection: Keep-Alive", line=b"GET / HTTP/1.0") * 2, [200, 200])
add("1.8", "HTTP/1.0 without keep-alive, pipelined", get(line=b"GET / HTTP/1.0") * 2, [200],
    CLOSED)
add("1.8", "Upgrade h2c",
    get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AA") + GOOD,
    [200, 200])
add("1.8", "an unknown Upgrade with a body",
    post([b"Connection: upgrade", b"Upgrade: x", b"Content-Length: 5"], b"hello") + GOOD,
    [200, 200])

# -- what others have seen ----------------------------------------------------------------------------
for name, raw, answers, end, sees in attacks.CASES:
    add("CVE", name, raw, answers, end, sees=sees)
for name, raw, _, answers, _, end, sees in llhttp_classes.CASES:
    add("llhttp", name, raw, answers, end, sees=sees)


def _pack(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<I", len(data)) + data


def write(path):
    """Write the cases for the unit test; little endian, lengths before texts."""
    with open(path, "wb") as file:
        file.write(struct.pack("<I", len(CASES)))
        for case in CASES:
            file.write(_pack(f"{case.row} {case.name}") + _pack(case.raw))
            file.write(struct.pack("<III", case.policy == "gunicorn", (OPEN, CLOSED, WAITS).index(
                case.end), len(case.answers)))
            for answer in case.answers:
                first, second = answer if isinstance(answer, tuple) else (answer, answer)
                file.write(struct.pack("<II", first, second))


assert len({case.row + case.name for case in CASES}) == len(CASES), "two cases have one name"

if __name__ == "__main__":
    write(sys.argv[1])
