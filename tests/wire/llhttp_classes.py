"""The classes of request that the test documents of llhttp 9 (Node's parser) describe, as bytes of
our own, with what llhttp does in its strict mode and what we do.

Classes that differ only in a lenient flag of llhttp are one class here; pausing is what the byte by
byte runs of these cases test. A case is (name, bytes, llhttp's verdict, our answers, rule or None,
end or None, what the application sees). The verdict is "serves" when every request is taken as one,
"refuses" when an error ends it, "waits" when it wants more bytes, "ends" when it takes the first
request and nothing behind it.
"""
#: Where we differ on purpose. A case whose verdict is not ours names its rule.
RULES = {
    "host": "HTTP/1.1 without Host is refused (RFC 9112 3.2)",
    "method": "any well-formed method goes to the application (RFC 9110 9.1)",
    "tunnel": "no tunnel: CONNECT is refused, Upgrade ignored, what follows is HTTP "
              "(RFC 9110 7.8, 9.3.6)",
    "protocol": "only HTTP: a line of ICE or RTSP is refused (RFC 9112 2.3)",
    "target": "an asterisk belongs to OPTIONS, a fragment to nobody (RFC 9112 3.2)",
    "user_info": "user info in the authority of a target is refused (RFC 9110 4.2.4)",
    "coding": "only chunked is known as transfer coding (RFC 9112 6.1)",
    "folding": "a folded field is refused (RFC 9112 5.2)",
    "tab": "HTAB is optional whitespace as SP is (RFC 9110 5.6.3)",
}
SERVES, REFUSES, WAITS, ENDS = "serves", "refuses", "waits", "ends"
CASES = []


def known(name, raw, llhttp, answers, rule=None, end=None, sees=()):
    CASES.append((name, raw, llhttp, answers, rule, end, sees))


def lines(*all_lines, body=b""):
    return b"\r\n".join(all_lines) + b"\r\n\r\n" + body


def get(*fields, line=b"GET /x HTTP/1.1"):
    return lines(line, b"Host: h", *fields)


def put(*fields, body=b""):
    return lines(b"PUT /u HTTP/1.1", b"Host: h", *fields, body=body)


def chunked(body, *fields):
    return put(b"Transfer-Encoding: chunked", *fields, body=body)


AGAIN = get(line=b"GET /again HTTP/1.1")
BOTH = ({"raw": "/u"}, {"raw": "/again"})

# -- samples --------------------------------------------------------------------------------------
known("a method with spaces and a tab before a value",
      get(b"One: 1", b"Two:\t 2", line=b"OPTIONS /x HTTP/1.1"), SERVES, 200,
      sees=({"method": "OPTIONS", "headers": {"HTTP_HOST": "h", "HTTP_ONE": "1", "HTTP_TWO": "2"}},))
known("a tool's few fields", get(b"User-Agent: tool/1.0 (x) lib/2", b"Accept: */*"), SERVES, 200,
      sees=({"headers": {"HTTP_HOST": "h", "HTTP_USER_AGENT": "tool/1.0 (x) lib/2",
                         "HTTP_ACCEPT": "*/*"}},))
known("a browser's many fields",
      get(b"Accept: text/html,*/*;q=0.8", b"Accept-Language: de,en;q=0.5", b"Keep-Alive: 300",
          b"Accept-Charset: utf-8;q=0.7,*;q=0.7", b"Connection: keep-alive") + AGAIN, SERVES,
      [200, 200])
known("an equals sign in Host", lines(b"GET / HTTP/1.1", b"Host: 0.0.0.0=5000"), SERVES, 200)
known("a name and a value without a space", get(b"aaaa:++++"), SERVES, 200,
      sees=({"headers": {"HTTP_HOST": "h", "HTTP_AAAA": "++++"}},))
known("no field at all", lines(b"GET /x HTTP/1.1"), SERVES, 400, "host")
known("one field that is not Host", lines(b"GET /x HTTP/1.1", b"Accept: */*"), SERVES, 400, "host")
known("HTTP/1.0 with fields", get(b"Accept: */*", line=b"GET /x HTTP/1.0"), SERVES, 200,
      end="closed", sees=({"protocol": "HTTP/1.0"},))
known("HTTP/1.0 without fields", lines(b"GET /x HTTP/1.0"), SERVES, 200, end="closed")
known("an empty line first", b"\r\n" + get(), SERVES, 200)
known("a line without a version", b"GET /\r\n\r\n", REFUSES, 400)
known("values over several lines", get(b"One: a", b"\tb", b" c", b"Two: d"), SERVES, 400, "folding")
known("a value that begins in the next line", get(b"One:", b" a"), SERVES, 400, "folding")
known("a list over two lines", get(b"Connection: a,", b" Keep-Alive"), SERVES, 400, "folding")
known("values over several lines with LF", b"GET / HTTP/1.1\r\nHost: h\r\nOne: a\n\tb\n\r\n\r\n",
      REFUSES, 400)
known("a certificate in a value over many lines",
      get(b"X-Cert: -----BEGIN-----", *[b"\t" + b"A" * 64] * 20, b"\t-----END-----"), SERVES, 400,
      "folding")
known("CR without LF behind the request line", b"GET / HTTP/1.1\rLine: 1\r\n\r\n", REFUSES, 400)
known("UTF-8 in a value", get("X: Düsseldorf".encode()), SERVES, 200,
      sees=({"headers": {"HTTP_HOST": "h", "HTTP_X": "DÃ¼sseldorf"}},))
known("byte 0xFF in a value", get(b"X: \xffv"), SERVES, 200,
      sees=({"headers": {"HTTP_HOST": "h", "HTTP_X": "\xffv"}},))
for what, byte in (("form feed", b"\f"), ("SOH", b"\1"), ("backspace", b"\b")):
    known(f"{what} in a value", get(b"X: a" + byte + b"b"), REFUSES, 400)
known("form feed in a value of the second request", AGAIN + get(b"X: \f"), REFUSES, [200, 400])

# -- Connection -----------------------------------------------------------------------------------
known("keep-alive said", put(b"Connection: keep-alive", b"Content-Length: 0"), SERVES, 200)
known("keep-alive said, and another request",
      put(b"Connection: keep-alive", b"Content-Length: 0") + AGAIN, SERVES, [200, 200], sees=BOTH)
known("HTTP/1.0 does not go on by itself",
      get(line=b"GET /x HTTP/1.0") + AGAIN, ENDS, 200, end="closed")
known("HTTP/1.0 goes on when asked",
      get(b"Connection: keep-alive", line=b"GET /x HTTP/1.0") + AGAIN, SERVES, [200, 200])
known("an empty line between two requests",
      put(b"Content-Length: 4", body=b"q=42") + b"\r\n" + AGAIN, SERVES, [200, 200], sees=BOTH)
known("CR within keep-alive", put(b"Connection: keep\ralive"), REFUSES, 400)
for value, what in ((b"close", "close"), (b"close\t", "close and HTAB"), (b"close ", "close and SP")):
    known(f"{what}, and another request",
          put(b"Content-Length: 4", b"Connection: " + value, body=b"q=42") + b"\r\n" + AGAIN, ENDS,
          200, end="closed", sees=({"body": "q=42"},))
    known(f"{what} alone", put(b"Connection: " + value), SERVES, 200, end="closed")
known("close among many tokens", get(b"Connection: close, token, upgrade, token, keep-alive"), SERVES,
      200, end="closed")
known("SP between Connection and its colon", put(b"Connection : close"), REFUSES, 400)
known("Upgrade without a body, text behind it",
      get(b"Connection: Upgrade", b"Upgrade: WebSocket") + b"hot diggity\r\n\r\n", SERVES, [200, 400],
      "tunnel")
known("Upgrade without a body, a request behind it",
      get(b"Connection: keep-alive, upgrade", b"Upgrade: ws") + AGAIN, SERVES, [200, 200])
known("Upgrade with a body, text behind it",
      put(b"Connection: upgrade", b"Upgrade: HTTP/2.0", b"Content-Length: 4", body=b"abcd")
      + b"efgh\r\n\r\n", SERVES, [200, 400], "tunnel", sees=({"body": "abcd"},))
known("Connection upgrade without Upgrade", get(b"Connection: upgrade") + AGAIN, SERVES, [200, 200])

# -- Content-Length -------------------------------------------------------------------------------
known("a length with zeros", put(b"Content-Length: 003", body=b"abc"), SERVES, 200,
      sees=({"body": "abc"},))
known("a length and a field behind it", put(b"Content-Length: 003", b"X: y", body=b"abc"), SERVES, 200,
      sees=({"body": "abc"},))
known("a length beyond 64 bits", put(b"Content-Length: 1000000000000000000000"), REFUSES,
      (400, 413))
known("two lengths", put(b"Content-Length: 1", b"Content-Length: 2"), REFUSES, 400)
known("a length and the coding identity", put(b"Content-Length: 1", b"Transfer-Encoding: identity"),
      REFUSES, (400, 501))
known("a length and the coding identity, turned",
      put(b"Transfer-Encoding: identity", b"Content-Length: 5", body=b"World"), REFUSES, (400, 501))
known("SP between Content-Length and its colon", put(b"Content-Length : 4", body=b"abcd"), REFUSES,
      400)
known("a name in mixed case, GET with a body",
      get(b"conTENT-Length: 5", line=b"GET /x HTTP/1.0") + b"HELLO", SERVES, 200, end="closed",
      sees=({"body": "HELLO"},))
known("SP around a length", put(b"Content-Length:  5 ", body=b"HELLO"), SERVES, 200,
      sees=({"body": "HELLO"},))
known("HTAB around a length", put(b"Content-Length:\t5\t ", body=b"HELLO"), REFUSES, 200, "tab",
      sees=({"body": "HELLO"},))
known("SP within a length", put(b"Content-Length: 4 2"), REFUSES, 400)
known("two numbers as a length", put(b"Content-Length: 13 37"), REFUSES, 400)
known("an empty length", put(b"Content-Length:"), REFUSES, 400)
known("CR within the name Content-Length", put(b"Content\rLength: 003", body=b"abc"), REFUSES, 400)
known("a body in which a request stands", put(b"Content-Length: %d" % len(AGAIN), body=AGAIN), SERVES,
      200, sees=({"raw": "/u", "body": AGAIN.decode()},))
known("CR for the empty line before a body", b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\rabc",
      REFUSES, 400)
known("a body that is not there yet", put(b"Content-Length: 100"), WAITS, [], end="waits")
known("a head that is not there yet", b"PUT / HTTP/1.1\r\nContent-Len", WAITS, [], end="waits")

# -- Transfer-Encoding ----------------------------------------------------------------------------
known("a size in lower case", chunked(b"a\r\n0123456789\r\n0\r\n\r\n"), SERVES, 200,
      sees=({"body": "0123456789"},))
known("a size in upper case", chunked(b"A\r\n0123456789\r\n0\r\n\r\n"), SERVES, 200,
      sees=({"body": "0123456789"},))
known("a size of two digits", chunked(b"1e\r\n" + b"x" * 30 + b"\r\n0\r\n\r\n"), SERVES, 200,
      sees=({"body": "x" * 30},))
known("two chunks and three zeros at the end",
      chunked(b"5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n") + AGAIN, SERVES, [200, 200],
      sees=({"body": "hello world"}, {"raw": "/again"}))
known("trailers", chunked(b"5\r\nhello\r\n0\r\nVary: *\r\nContent-Type: a/b\r\n\r\n") + AGAIN, SERVES,
      [200, 200], sees=({"body": "hello", "headers": {"HTTP_HOST": "h",
                                                      "HTTP_TRANSFER_ENCODING": "chunked"}},))
known("extensions with and without a value", chunked(b"5;a;b=c;d=e\r\nhello\r\n3;f;g\r\nabc\r\n0\r\n\r\n"),
      SERVES, 200, sees=({"body": "helloabc"},))
known("extensions in quotes", chunked(b'5;a="I \\"b\\"; \\\\c\\\\";d="e";f;g=h\r\nhello\r\n0\r\n\r\n'),
      SERVES, 200, sees=({"body": "hello"},))
known("a quote that does not end", chunked(b'5;a="b";c="d; e\r\nhello\r\n0\r\n\r\n'), REFUSES, 400)
known("an extension without a semicolon", chunked(b"2 abc\r\naa\r\n0\r\n\r\n"), REFUSES, 400)
known("a semicolon without an extension", chunked(b"2;\r\naa\r\n0\r\n\r\n"), REFUSES, 400)
known("an unknown coding", put(b"Transfer-Encoding: pigeons"), REFUSES, (400, 501))
known("an empty coding and a length",
      put(b"Content-Length: 10", b"Transfer-Encoding:", b"Transfer-Encoding:"), REFUSES,
      (400, 501))
known("chunked before another coding", put(b"Transfer-Encoding: chunked, deflate", body=b"World"),
      REFUSES, (400, 501))
known("chunked, then another field with another coding",
      put(b"Transfer-Encoding: chunked", b"Transfer-Encoding: deflate", body=b"World"), REFUSES,
      (400, 501))
known("another coding before chunked",
      put(b"Transfer-Encoding: deflate, chunked", body=b"5\r\nWorld\r\n0\r\n\r\n"), SERVES, 501,
      "coding")
known("another coding before chunked in two fields",
      put(b"Transfer-Encoding: deflate", b"Transfer-Encoding: chunked",
          body=b"5\r\nWorld\r\n0\r\n\r\n"), SERVES, (400, 501), "coding")
known("chunked twice in one word",
      put(b"Transfer-Encoding: chunkedchunked", body=b"5\r\nWorld\r\n0\r\n\r\n"), REFUSES,
      (400, 501))
known("no last chunk", chunked(b"3\r\nfoo\r\n"), WAITS, [], end="waits")
known("LF and spaces behind a size", chunked(b"3 \n  \r\nfoo\r\n"), REFUSES, 400)
known("a folded line behind chunked",
      put(b"Transfer-Encoding: chunked", b"  abc", body=b"0\r\n\r\n"), REFUSES, 400)
known("two CR behind a size", chunked(b"5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n" + AGAIN), REFUSES, 400)
known("no line end behind the data of a chunk", chunked(b"5\r\nABCDE0\r\n\r\n"), REFUSES, 400)
known("SP behind a size", chunked(b"a \r\n0123456789\r\n0\r\n\r\n"), REFUSES, 400)

# -- what is no request ---------------------------------------------------------------------------
for line, what in ((b"GET /m ICE/1.0", "ICE and GET"), (b"GET /m IHTTP/1.0", "IHTTP"),
                   (b"PUT /m RTSP/1.0", "RTSP and PUT")):
    known(f"a line of {what}", get(line=line), REFUSES, 400)
known("a line of ICE and SOURCE", get(line=b"SOURCE /m ICE/1.0"), SERVES, 400, "protocol")
known("a line of RTSP and OPTIONS", get(line=b"OPTIONS /m RTSP/1.0"), SERVES, 400, "protocol")
known("a line of RTSP and ANNOUNCE", get(line=b"ANNOUNCE /m RTSP/1.0"), SERVES, 400, "protocol")
known("a method of RTSP in HTTP", get(line=b"ANNOUNCE /m HTTP/1.1"), REFUSES, 200, "method")
known("a method that only begins like a known one", get(line=b"MKCOLA /m HTTP/1.1"), REFUSES, 200,
      "method", sees=({"method": "MKCOLA"},))
known("CR between two fields", get(b"Foo: 1\rBar: 2"), REFUSES, 400)
known("LF between two fields", put(b"x:x\nTransfer-Encoding: chunked", body=b"0\r\n\r\n"), REFUSES, 400)
known("CR behind an empty value", put(b"x:\rTransfer-Encoding: chunked", body=b"0\r\n\r\n"), REFUSES,
      400)
known("LF behind an empty value", put(b"x:\nTransfer-Encoding: chunked", body=b"0\r\n\r\n"), REFUSES,
      400)
known("CR and another byte between fields and body",
      b"GET / HTTP/1.1\r\nHost: h\r\n\rZGET /evil: HTTP/1.1\r\nHost: h\r\n\r\n", REFUSES, 400)
for name, what in ((b"Fo@", "an at sign"), (b"Fo\1o", "SOH"), (b"", "nothing"), (b"a b", "SP")):
    known(f"{what} as or in a name", get(name + b": v"), REFUSES, 400)
known("a name over two lines", get(b"name\r\n : value"), REFUSES, 400)
known("ESC for the rest of the name Connection", get(b"Connection\r\x1b5\xd5eep-Alive"), REFUSES, 400)
known("ESC for the rest of another name", get(b"X-Some\r\x1b5\xd5eep-Alive"), REFUSES, 400)
known("LF between two fields hides a length", get(b"D: x\nContent-Length: 23") + AGAIN, REFUSES, 400)
known("version 5.6", get(line=b"GET / HTTP/5.6"), REFUSES, (400, 505))
known("SP before the first field", lines(b"GET / HTTP/1.1", b" Host: h"), REFUSES, 400)
known("LF everywhere", b"POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n\n1\nA\n0\n\n", REFUSES,
      400)

# -- methods --------------------------------------------------------------------------------------
for method in (b"REPORT", b"PURGE", b"SEARCH", b"LINK", b"UNLINK", b"SOURCE", b"QUERY", b"PATCH",
               b"M-SEARCH"):
    known(f"method {method.decode()}", get(line=method + b" /x HTTP/1.1"), SERVES, 200,
          sees=({"method": method.decode()},))
known("PATCH with a body",
      lines(b"PATCH /f HTTP/1.1", b"Host: h", b"Content-Type: a/b", b'If-Match: "e"',
            b"Content-Length: 10", body=b"c" * 10), SERVES, 200, sees=({"body": "c" * 10},))
known("two fields of one name",
      get(b'Link: <a>; rel="t"', b'Link: <b>; rel="t"', line=b"LINK /x HTTP/1.1"), SERVES, 200,
      sees=({"headers": {"HTTP_HOST": "h", "HTTP_LINK": '<a>; rel="t",<b>; rel="t"'}},))
known("an asterisk with M-SEARCH", get(line=b"M-SEARCH * HTTP/1.1"), SERVES, 400, "target")
for authority in (b"h-0.example:443", b"H0.EXAMPLE:443", b"h_0.example:443"):
    known(f"CONNECT {authority.decode()}", get(line=b"CONNECT " + authority + b" HTTP/1.0") + b"data",
          SERVES, (405, 501), "tunnel")
known("CONNECT with a length", get(b"Content-Length: 4", line=b"CONNECT h:443 HTTP/1.0") + b"data",
      SERVES, (405, 501), "tunnel")
known("the preface of HTTP/2 in version 1.1", b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n", REFUSES,
      (400, 505))

# -- targets --------------------------------------------------------------------------------------
for target in (b'/a_"b"_c?d="e"', b"/t.cgi?a=b?c", b"/t.cgi?q=|"):
    known(f"target {target.decode()}", get(line=b"GET " + target + b" HTTP/1.1"), SERVES, 200,
          sees=({"raw": target.decode()},))
for target in (b"http://h.example?a=b", b"http://h.example:1234?a=b", b"http://h.example:1234"):
    known(f"target {target.decode()}", get(line=b"GET " + target + b" HTTP/1.1"), SERVES, 200,
          sees=({"raw": target.decode(), "path": "/"},))
known("UTF-8 in a path", get(line="GET /δ/p?q=1 HTTP/1.1".encode()), REFUSES, 400)
known("a fragment in a target", get(line=b"GET /f/1?page=1#posts HTTP/1.1"), SERVES, 400, "target")
known("user info in a target", get(line=b"GET http://a%12:b!&*$@h.example:1/t HTTP/1.1"), SERVES, 400,
      "user_info")
known("SP in a target", get(line=b"GET /foo bar/ HTTP/1.1"), REFUSES, 400)

# -- several at once ------------------------------------------------------------------------------
known("three requests of three framings",
      get() + put(b"Content-Length: 3", body=b"AAA") + chunked(b"3\r\nBBB\r\n0\r\n\r\n"), SERVES,
      [200, 200, 200], sees=({"body": ""}, {"body": "AAA"}, {"body": "BBB"}))


def verdict_of(raw, answers, end):
    """Ours in llhttp's words."""
    if end == "waits":
        return WAITS
    flat = answers if isinstance(answers, (list, tuple)) else [answers]
    if any(one != 200 for one in flat):
        return REFUSES
    return ENDS if raw.endswith(AGAIN) and end == "closed" else SERVES
