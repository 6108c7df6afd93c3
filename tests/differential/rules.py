"""Where a peer reads what we accept otherwise: the written list, each rule with its reason.

A rule names the peer, says what the difference looks like and why we stay different. A difference
that no rule explains fails the test; so does a rule whose `example` no longer differs. The peers
that were looked at: Node 20 (llhttp 9), gunicorn 27.0.1, h11 0.16.
"""
import re
from typing import Callable, NamedTuple


class Difference(NamedTuple):
    """The first place where a peer differs."""

    peer: str
    #: the field of the request that differs, "missing" (the peer has fewer requests), "more", or
    #: "rest" (it has the same ones and found an error behind them)
    what: str
    #: our request at that place and the peer's; None when there is none
    ours: object
    theirs: object
    #: why the peer stopped
    stopped: str
    #: our request before
    before: object
    #: the bytes that the peer got
    sent: bytes


class Rule(NamedTuple):
    name: str
    peer: str
    why: str
    example: bytes
    explains: Callable[[Difference], bool]
    policy: str = "strict"


#: What llhttp knows of HTTP.
NODE_METHODS = frozenset(
    "DELETE GET HEAD POST PUT CONNECT OPTIONS TRACE COPY LOCK MKCOL MOVE PROPFIND PROPPATCH SEARCH "
    "UNLOCK BIND REBIND UNBIND ACL REPORT MKACTIVITY CHECKOUT MERGE M-SEARCH NOTIFY SUBSCRIBE "
    "UNSUBSCRIBE PATCH PURGE MKCALENDAR LINK UNLINK SOURCE QUERY".split())
#: Whitespace around the parts of a chunk extension.
SPACED_EXTENSION = re.compile(rb"\r\n[0-9A-Fa-f]+([ \t]+;|;[^\r]*[ \t])")
NODE_EXTENSION_ERRORS = ("HPE_STRICT: Invalid character in chunk extensions",
                         "HPE_INVALID_CHUNK_SIZE: Invalid character in chunk size", "HIDDEN")
LENGTH_THEN_TAB = re.compile(rb"(?i)\ncontent-length:[ \t]*[0-9]+[ \t]*\t")
CODING_THEN_TAB = re.compile(rb"(?i)\ntransfer-encoding:[ \t]*chunked[ \t]*\t")
KEEP_ALIVE_THEN_TAB = re.compile(rb"(?i)keep-alive[ \t]*\t")
CLOSE_IN_TRAILER = re.compile(
    rb"(?i)\r\n0+([ \t]*;[^\r]*)?\r\n([^\r]+\r\n)*(proxy-)?connection:[^\r]*close")
CONTENT_TYPE = re.compile(rb"(?i)\ncontent-type:")
H11_EXTENSION = re.compile(r"illegal chunk header: bytearray\(b['\"][0-9A-Fa-f]+( |\\t)+;")
BRACKETS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*[\[\]]")
H11_LENGTH_DIGITS_MAX = 20


def values_of(request, name):
    return [value for other, value in request.headers if other == name]


def lower_codings(headers):
    return [(name, value.lower() if name == "transfer-encoding" else value)
            for name, value in headers]


def missing(difference, *stopped):
    return difference.what == "missing" and difference.stopped.startswith(stopped)


def elements_of(request, name):
    return [element.strip(" \t").lower() for value in values_of(request, name)
            for element in value.split(",")]


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
NEXT = b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

RULES = [
    Rule("method", "node", "llhttp knows a fixed list; a server of any method leaves that to the "
         "application (RFC 9110 9.1: 501 or 405 are the answer, and are the application's)",
         b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
         lambda d: missing(d, "HPE_INVALID_METHOD") and d.ours.method not in NODE_METHODS),
    Rule("method of RTSP", "node", "llhttp knows some methods and keeps them to RTSP; to a server of "
         "any method they are as good as others (RFC 9110 9.1)",
         b"ANNOUNCE / HTTP/1.1\r\nHost: a\r\n\r\n",
         lambda d: missing(d, "HPE_INVALID_CONSTANT: Invalid method for HTTP")),
    Rule("minor version", "node", "a minor version above ours is served as 1.1 (RFC 9110 2.5)",
         b"GET / HTTP/1.2\r\nHost: a\r\n\r\n",
         lambda d: missing(d, "HPE_INVALID_VERSION") and d.ours.minor > 1),
    Rule("scheme", "node", "llhttp wants letters only; a scheme may have digits, '+', '-' and '.' "
         "(RFC 3986 3.1)",
         b"GET a+b://c/ HTTP/1.1\r\nHost: a\r\n\r\n",
         lambda d: missing(d, "HPE_INVALID_URL: Unexpected char in url schema")
         and not d.ours.target.split("://")[0].isalpha()),
    Rule("chunk extension blanks", "node", "whitespace around ';' and '=' is bad but allowed "
         "whitespace and must be accepted (RFC 9112 7.1.1)",
         CHUNKED + b"1 ; a = b\r\nx\r\n0\r\n\r\n",
         lambda d: missing(d, *NODE_EXTENSION_ERRORS) and SPACED_EXTENSION.search(d.sent)),
    Rule("tab behind Content-Length", "node", "llhttp takes only spaces there; optional whitespace "
         "has tabs (RFC 9110 5.6.3)",
         POST + b"Content-Length: 1\t\r\n\r\nx",
         lambda d: missing(d, "HPE_INVALID_CONTENT_LENGTH") and LENGTH_THEN_TAB.search(d.sent)),
    Rule("tab behind Transfer-Encoding", "node", "the same for Transfer-Encoding",
         POST + b"Transfer-Encoding: chunked\t\r\n\r\n0\r\n\r\n",
         lambda d: missing(d, "HPE_INVALID_TRANSFER_ENCODING") and CODING_THEN_TAB.search(d.sent)),
    Rule("tab behind Transfer-Encoding, with Upgrade", "node", "the same, but llhttp takes the "
         "request for one without a body and reads the chunks as the next request",
         POST + b"Transfer-Encoding: chunked\t\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
         b"1\r\nx\r\n0\r\n\r\n",
         lambda d: d.what == "body" and d.theirs.body == "" and CODING_THEN_TAB.search(d.sent)
         and values_of(d.ours, "upgrade")),
    Rule("tab behind keep-alive", "node", "the same for Connection: keep-alive of HTTP/1.0",
         b"GET / HTTP/1.0\r\nConnection: keep-alive\t\r\n\r\n" + NEXT,
         lambda d: missing(d, "HPE_CLOSED_CONNECTION") and d.before.minor == 0
         and KEEP_ALIVE_THEN_TAB.search(d.sent)),
    Rule("Connection in a trailer", "node", "llhttp reads trailer fields as fields of the head; "
         "they must not be merged into it (RFC 9110 6.5.1)",
         CHUNKED + b"0\r\nConnection: close\r\n\r\n" + NEXT,
         lambda d: missing(d, "HPE_CLOSED_CONNECTION") and CLOSE_IN_TRAILER.search(d.sent)
         and values_of(d.before, "transfer-encoding")),
    Rule("Proxy-Connection", "node", "llhttp takes it for Connection; no standard knows it, and a "
         "recipient is not to act on it (RFC 9112 C.2.2)",
         b"GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n" + NEXT,
         lambda d: missing(d, "HPE_CLOSED_CONNECTION")
         and "close" in elements_of(d.before, "proxy-connection")),
    Rule("case of a coding", "h11", "h11 hands out Transfer-Encoding in lower case",
         POST + b"Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
         lambda d: d.what == "headers" and lower_codings(d.ours.headers) == d.theirs.headers),
    Rule("chunk extension blanks", "h11", "h11 knows no whitespace before ';' (RFC 9112 7.1.1)",
         CHUNKED + b"1 ;a\r\nx\r\n0\r\n\r\n",
         lambda d: d.what == "missing" and H11_EXTENSION.search(d.stopped)),
    Rule("empty line", "h11", "one empty line before a request line is ignored (RFC 9112 2.2)",
         b"\r\n" + NEXT,
         lambda d: missing(d, "RemoteProtocolError: no request line received")
         and b"\r\n" + d.ours.method.encode() in d.sent),
    Rule("length of Content-Length", "h11", "h11 takes at most 20 digits; ours is bounded by the "
         "field size, the number by 2^63 - 1 (RFC 9110 8.6)",
         POST + b"Content-Length: 000000000000000000001\r\n\r\nx",
         lambda d: missing(d, "RemoteProtocolError: bad Content-Length")
         and len(values_of(d.ours, "content-length")[0]) > H11_LENGTH_DIGITS_MAX),
    Rule("HTTP/1.0 keep-alive", "h11", "h11 ends every HTTP/1.0 connection; with Connection: "
         "keep-alive it goes on (RFC 9112 C.2.2), as in gunicorn and Node",
         b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + NEXT,
         lambda d: missing(d, "close") and d.before.minor == 0),
    Rule("HTTP/1.0 keep-alive in a list", "gunicorn", "gunicorn compares the whole first value, "
         "Connection is a list (RFC 9110 7.6.1); it closes one connection more",
         b"GET / HTTP/1.0\r\nConnection: keep-alive, x\r\n\r\n" + NEXT,
         lambda d: d.what == "missing" and d.stopped == "" and d.before.minor == 0
         and "keep-alive" in elements_of(d.before, "connection")
         and values_of(d.before, "connection")[0].lower() != "keep-alive"),
    Rule("address in brackets", "gunicorn", "gunicorn has Python look into [...] of a target; we "
         "check the characters, in user info (http_policy = gunicorn) not even those: nothing is "
         "routed by it",
         b"GET http://[::1:]/ HTTP/1.1\r\nHost: a\r\n\r\n",
         lambda d: missing(d, "InvalidRequestLine") and BRACKETS.match(d.ours.target)),
    Rule("Content-Type twice in a trailer", "gunicorn", "gunicorn checks trailers as it does "
         "fields and wants a singleton once; we drop them all",
         CHUNKED + b"0\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n",
         lambda d: missing(d, "InvalidHeader: Invalid HTTP Header: 'CONTENT-TYPE'")
         and len(values_of(d.ours, "content-type")) < 2
         and len(CONTENT_TYPE.findall(d.sent)) > 1),
    Rule("another coding before chunked", "gunicorn", "gunicorn closes the connection behind such "
         "a request; the parser does not say so to the server yet (http_policy = gunicorn only)",
         POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + NEXT,
         lambda d: d.what == "missing" and d.stopped == ""
         and "gzip" in elements_of(d.before, "transfer-encoding"), "gunicorn"),
]


def first_rule(difference):
    for rule in RULES:
        if rule.peer == difference.peer and rule.explains(difference):
            return rule
    return None
