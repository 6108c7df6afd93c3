"""What other servers once let through, as data: every case bears the number of its CVE.

The numbers point at the class of the bug, the bytes are our own. CVEs that need more than bytes and
statuses (a log, a hostile application, a client that leaves) have tests of their own, named in
ELSEWHERE. A case is (CVE and what it is, bytes, answers, end or None, what the application sees).
"""
GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
REFUSED = (400, 501)

#: CVE -> the test that bears its number
ELSEWHERE = {
    "CVE-2024-49769": "tests/wire/test_attacks.py",
    "CVE-2020-7694": "tests/wire/test_attacks.py",
    "CVE-2020-7695": "tests/wire/test_attacks.py",
    "CVE-2023-27522": "tests/wire/test_attacks.py",
    "CVE-2025-47287": "tests/wire/test_attacks.py",
}
#: Every CVE that has to have a case or a test.
WANTED = (
    "CVE-2024-1135 CVE-2024-6827 CVE-2022-24761 CVE-2024-49768 CVE-2024-49769 CVE-2020-7694 "
    "CVE-2020-7695 CVE-2023-27522 CVE-2021-32714 CVE-2021-32715 CVE-2025-43859 CVE-2022-32213 "
    "CVE-2022-32214 CVE-2022-32215 CVE-2022-35256 CVE-2023-30589 CVE-2024-27982 CVE-2025-23167 "
    "CVE-2023-47627 CVE-2024-52304 CVE-2025-53643 CVE-2024-21647 CVE-2024-45614 CVE-2023-41419 "
    "CVE-2025-47287 CVE-2025-58068").split()

CASES = []


def attack(name, raw, answers, end=None, sees=()):
    CASES.append((name, raw, answers, end, sees))


def post(*fields, body=b""):
    return b"\r\n".join((b"POST /p HTTP/1.1", b"Host: a") + fields) + b"\r\n\r\n" + body


def chunked(body):
    return post(b"Transfer-Encoding: chunked", body=body)


# gunicorn: codings were not looked at, and the length won
for coding in (b"chunked, identity", b"identity, chunked", b"chunked, chunked", b"chunked, gzip",
               b"chunked\r\nTransfer-Encoding: identity"):
    shown = coding.decode().replace("\r\n", ", then ")
    attack(f"CVE-2024-1135 Transfer-Encoding {shown}",
           post(b"Transfer-Encoding: " + coding, body=b"0\r\n\r\n" + SMUGGLED), REFUSED)
for fields in ((b"Content-Length: 6", b"Transfer-Encoding: chunked"),
               (b"Transfer-Encoding: chunked", b"Content-Length: 6")):
    attack(f"CVE-2024-1135 {fields[0].decode()} first, and the other",
           post(*fields, body=b"0\r\n\r\n" + SMUGGLED), 400)
# gunicorn: an unknown coding was passed over in favour of the length
for coding in (b"xchunked", b"chunked1", b"\x0bchunked", b"chunked;", b"Chunked\xa0", b"none"):
    shown = ascii(coding.decode("latin-1"))[1:-1]
    attack(f"CVE-2024-6827 Content-Length and Transfer-Encoding {shown}",
           post(b"Content-Length: %d" % len(SMUGGLED), b"Transfer-Encoding: " + coding,
                body=SMUGGLED), REFUSED)
# waitress: int() of Python read sizes and lengths, and extensions were not looked at
for size in (b"+5", b"0x5", b"0X5", b"5_0", b"-5", b" 5", b"5 "):
    attack(f"CVE-2022-24761 chunk size '{size.decode()}'",
           chunked(size + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED), 400)
for length in (b"+5", b"-5", b"0x5", b"5_0"):
    attack(f"CVE-2022-24761 Content-Length {length.decode()}",
           post(b"Content-Length: " + length, body=b"hello" + SMUGGLED), 400)
attack("CVE-2022-24761 a chunk extension with a byte that has no place there",
       chunked(b"5;a=\x01\r\nhello\r\n0\r\n\r\n" + SMUGGLED), 400)
# waitress: after an error the next request of the same read was served
attack("CVE-2024-49768 a good request behind a refused one in the same segment",
       b"GET /bad HTTP/1.1\r\nHost: a\r\nbad field: 1\r\n\r\n" + SMUGGLED, 400)
attack("CVE-2024-49768 a good request behind a head that is too long",
       b"GET /bad HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 8190 + b"\r\n\r\n" + SMUGGLED, 431)
attack("CVE-2024-49768 good, refused, good",
       GOOD + post(b"Content-Length: x") + SMUGGLED, [200, 400], None, ({"raw": "/good"},))
# hyper: chunk sizes that overflow, a length with a sign
for size in (b"10000000000000005", b"f0000000000000003", b"ffffffffffffffff",
             b"8000000000000005", b"1" + b"0" * 32):
    attack(f"CVE-2021-32714 chunk size {size.decode()}",
           chunked(size + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED), (400, 413))
attack("CVE-2021-32715 Content-Length with a plus sign",
       post(b"Content-Length: +3", body=b"abc" + SMUGGLED), 400)
attack("CVE-2021-32715 Content-Length with a plus sign and zeros",
       post(b"Content-Length: +003", body=b"abc" + SMUGGLED), 400)
# h11: the two bytes behind a chunk were skipped unseen
for behind in (b"XY", b"\r\r", b"\n\n", b"0\r", b"\rX"):
    attack(f"CVE-2025-43859 {ascii(behind.decode())} behind the data of a chunk",
           chunked(b"5\r\nhello" + behind + b"0\r\n\r\n" + SMUGGLED), 400)
attack("CVE-2025-43859 another line behind the last chunk",
       chunked(b"0\r\nXY" + SMUGGLED), 400)
# llhttp
for coding in (b"chunkedchunked", b"chunked, cow", b"cow, chunked", b"\"chunked\""):
    attack(f"CVE-2022-32213 Transfer-Encoding {coding.decode()}",
           post(b"Transfer-Encoding: " + coding, body=b"0\r\n\r\n" + SMUGGLED), REFUSED)
attack("CVE-2022-32214 a field ended by LF hides the next one",
       b"GET / HTTP/1.1\r\nHost: a\r\nX: x\nContent-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
       400)
attack("CVE-2022-32214 a field without a value ended by LF hides the coding",
       post(b"X:\nTransfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED), 400)
attack("CVE-2022-32215 a coding on a line of its own",
       post(b"Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n" + SMUGGLED), 400)
attack("CVE-2022-32215 a coding that goes on in the next line",
       post(b"Transfer-Encoding: chunked\r\n , identity", body=b"0\r\n\r\n" + SMUGGLED), 400)
attack("CVE-2022-35256 a field ended by CR hides the coding",
       post(b"X:\rTransfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED), 400)
attack("CVE-2022-35256 a coding ended by CR",
       post(b"Transfer-Encoding: chunked\rX: 1", body=b"0\r\n\r\n" + SMUGGLED), 400)
attack("CVE-2023-30589 CR alone between two fields", post(b"X: 1\rContent-Length: 5"), 400)
attack("CVE-2023-30589 CR alone behind an empty value", post(b"X:\rContent-Length: 5"), 400)
attack("CVE-2024-27982 SP before Content-Length",
       post(b"X: 1", b" Content-Length: %d" % len(SMUGGLED), body=SMUGGLED), 400)
attack("CVE-2024-27982 SP before Content-Length in the first field line",
       b"POST / HTTP/1.1\r\n Content-Length: 5\r\nHost: a\r\n\r\n" + SMUGGLED, 400)
attack("CVE-2024-27982 HTAB before Transfer-Encoding",
       post(b"X: 1", b"\tTransfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED), 400)
attack("CVE-2025-23167 CR and another byte for the empty line",
       b"GET / HTTP/1.1\r\nHost: a\r\n\rXGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", 400)
attack("CVE-2025-23167 CR, another byte and a colon for the empty line",
       b"GET / HTTP/1.1\r\nHost: a\r\n\rZGET /smuggled: HTTP/1.1\r\nX: y\r\n\r\n", 400)
# aiohttp: numbers and names as Python takes them
for length in (b"1_0", b"+10", b"\xb2", b"10 ,10", b"0xa"):
    shown = ascii(length.decode("latin-1"))[1:-1]
    attack(f"CVE-2023-47627 Content-Length {shown}",
           post(b"Content-Length: " + length, body=b"0123456789" + SMUGGLED), 400)
for name in (b"Transfer-Encoding ", b"Transfer-Encoding\0", b"Content-Length\x0b", b"X\xff", b"X("):
    shown = ascii(name.decode("latin-1"))[1:-1]
    attack(f"CVE-2023-47627 the name '{shown}'", post(name + b": chunked"), 400)
for version in (b"HTTP/1.1 ", b"HTTP/+1.1", b"HTTP/1.\xb2", b"HTTP/1_1.1"):
    shown = ascii(version.decode("latin-1"))[1:-1]
    attack(f"CVE-2023-47627 the version '{shown}'",
           b"GET / " + version + b"\r\nHost: a\r\n\r\n" + SMUGGLED, 400)
for ext in (b";a\nb", b";\n", b";a=\"\n\"", b"\n"):
    attack(f"CVE-2024-52304 {ascii(ext.decode())} behind a chunk size",
           chunked(b"5" + ext + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED), 400)
for trailer in (b"no colon", b"X: 1\nY: 2", b" X: 1", b"X : 1", b"X: \0"):
    attack(f"CVE-2025-53643 the trailer {ascii(trailer.decode())}",
           chunked(b"0\r\n" + trailer + b"\r\n\r\n" + SMUGGLED), 400)
attack("CVE-2025-53643 trailers are read to their end",
       chunked(b"0\r\nX: 1\r\nY: 2\r\n\r\n") + GOOD, [200, 200], None,
       ({"raw": "/p", "body": ""}, {"raw": "/good"}))
# puma
attack("CVE-2024-21647 a chunk extension without end",
       chunked(b"1;" + b"a" * 100000 + b"\r\nx\r\n0\r\n\r\n"), 400)
attack("CVE-2024-21647 many chunks with extensions, little data",
       chunked((b"1;" + b"a" * 250 + b"\r\nx\r\n") * 2000 + b"0\r\n\r\n"), 400)
attack("CVE-2024-45614 an underscore does not overwrite the field of a proxy",
       b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n"
       b"X_Forwarded_For: 203.0.113.9\r\n\r\n", 200, None,
       ({"headers": {"HTTP_HOST": "a", "HTTP_X_FORWARDED_FOR": "192.0.2.1"}},))
attack("CVE-2024-45614 an underscore before the field of a proxy",
       b"GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded-For: 203.0.113.9\r\n"
       b"X-Forwarded-For: 192.0.2.1\r\n\r\n", 200, None,
       ({"headers": {"HTTP_HOST": "a", "HTTP_X_FORWARDED_FOR": "192.0.2.1"}},))
# gevent and eventlet: the trailer section was left for the next request
for cve in ("CVE-2023-41419", "CVE-2025-58068"):
    attack(f"{cve} a request line in the trailer section is no request",
           chunked(b"0\r\n" + SMUGGLED), 400)
    attack(f"{cve} a request as the value of a trailer is no request",
           chunked(b"0\r\nX: GET /smuggled HTTP/1.1\r\nY: a\r\n\r\n") + GOOD, [200, 200], None,
           ({"raw": "/p"}, {"raw": "/good"}))
    attack(f"{cve} a trailer does not become a field",
           chunked(b"3\r\nabc\r\n0\r\nX-User: root\r\n\r\n"), 200, None,
           ({"body": "abc", "headers": {"HTTP_HOST": "a", "HTTP_TRANSFER_ENCODING": "chunked"}},))
    attack(f"{cve} a trailer that would change the framing",
           chunked(b"0\r\nContent-Length: 30\r\n\r\n" + SMUGGLED), 400)
