"""What a handler is given of a request, limits, malformed HTTP."""

from conformance.case import ECHO, FORM, JSON, MULTIPART, Scenario, form, infer, register

REQUESTS = Scenario(
    "requests",
    archives=("echo",),
    cases=[
        register("echo"),
        infer("GET without a body", ECHO, method="GET"),
        infer("POST without a body", ECHO),
        infer("PUT", ECHO, b"put", "text/plain", method="PUT"),
        infer("DELETE", ECHO, method="DELETE"),
        infer("PATCH", ECHO, b"patch", method="PATCH"),
        infer("HEAD", ECHO, method="HEAD"),
        infer("PROPFIND", ECHO, method="PROPFIND"),
        infer(
            "unknown method",
            ECHO,
            method="BREW",
            deliberate="unknown-methods",
            our_status=400,
        ),
        infer("bytes without a type", ECHO, b"\x00\xffraw"),
        infer("octet stream", ECHO, b"\x00\xffraw", "application/octet-stream"),
        infer("json", ECHO, b'{"a": [1, 2.5, null, true, "\xc3\xa4"]}', JSON),
        infer("json with charset", ECHO, b"[1]", "application/json; charset=utf-8"),
        infer("json number", ECHO, b"7", JSON),
        infer("broken json", ECHO, b'{"a": ', JSON),
        infer("empty json", ECHO, b"", JSON),
        infer("json type in capitals", ECHO, b"[1]", "Application/JSON"),
        infer("ld+json", ECHO, b"[1]", "application/ld+json"),
        infer("text", ECHO, "Grüße".encode(), "text/plain"),
        infer("text that is not utf-8", ECHO, b"\xff\xfe", "text/plain; charset=latin-1"),
        infer("text/csv", ECHO, b"1,2", "text/csv"),
        infer("empty text", ECHO, b"", "text/plain"),
        infer("urlencoded", ECHO, b"a=1&b=two+words&a=%C3%A4&c=", FORM),
        infer("urlencoded without =", ECHO, b"just text", FORM),
        infer("urlencoded json", ECHO, b'{"a":1}', FORM),
        infer("empty urlencoded", ECHO, b"", FORM),
        infer(
            "multipart",
            ECHO,
            form(
                ('Content-Disposition: form-data; name="data"; filename="a.bin"', b"\x00\xff"),
                (
                    'Content-Disposition: form-data; name="json"; filename="a.json"\r\n'
                    "Content-Type: application/json; charset=utf-8",
                    b'{"a": 1}',
                ),
                (
                    'Content-Disposition: form-data; name="text"; filename="a.txt"\r\n'
                    "Content-Type: text/plain",
                    "Grüße".encode(),
                ),
                ('Content-Disposition: form-data; name="field"', b"value"),
                (
                    'Content-Disposition: form-data; name="typed"\r\n'
                    "Content-Type: application/json",
                    b'{"a": 1}',
                ),
            ),
            MULTIPART,
        ),
        infer(
            "multipart with one name twice",
            ECHO,
            form(
                ('Content-Disposition: form-data; name="data"', b"first"),
                ('Content-Disposition: form-data; name="data"', b"second"),
            ),
            MULTIPART,
        ),
        infer("multipart that is none", ECHO, b"not a form", MULTIPART),
        infer("multipart without boundary", ECHO, b"not a form", "multipart/form-data"),
        infer("multipart/mixed", ECHO, b"mixed", "multipart/mixed; boundary=frontier"),
        infer("query string", f"{ECHO}?a=1&b=2", b"with a query"),
        infer(
            "headers as spelled",
            ECHO,
            b"h",
            headers=[
                ("X-MiXeD-CaSe", "Value"),
                ("x-lower", "v"),
                ("X-Twice", "1"),
                ("X-Twice", "2"),
            ],
        ),
        infer("two spellings", ECHO, b"h", headers=[("X-One", "1"), ("x-one", "2")]),
        infer(
            "headers the server adds itself",
            ECHO,
            b"h",
            headers=[("explain", "True"), ("url_path", "mine"), ("x-request-id", "mine")],
        ),
        infer("header named body", ECHO, b"h", headers=[("body", "a header")]),
        infer("version", f"{ECHO}/1.0", b"v"),
        infer("url path", f"{ECHO}/1.0/a/b", b"v"),
        infer("url path with empty segments", f"{ECHO}/1.0/a//b//", b"v"),
        infer("url path with escapes", f"{ECHO}/1.0/a%20b%2Fc%C3%A4+d", b"v"),
        infer("url path with a bad escape", f"{ECHO}/1.0/a%ZZ", b"v"),
        infer("url path with half an escape", f"{ECHO}/1.0/a%4", b"v"),
        infer("bad escape in the query", f"{ECHO}?a=%ZZ", b"v"),
        infer("trailing slash", f"{ECHO}/", b"v"),
        infer("context", f"{ECHO}/1.0/context", b"v"),
        infer("explain", "/explanations/echo", b"e"),
        infer("explain with url path", "/explanations/echo/1.0/x", b"e"),
        infer("HTTP/1.0", ECHO, raw=b"GET /predictions/echo HTTP/1.0\r\nHost: localhost\r\n\r\n"),
        infer(
            "connection close",
            ECHO,
            raw=b"GET /predictions/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        ),
        infer(
            "chunked body",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        ),
        infer("malformed request line", ECHO, raw=b"what is this\r\n\r\n"),
    ],
)

LIMITS = Scenario(
    "limits",
    archives=("echo",),
    config={"max_request_size": "1000", "decode_input_request": "false"},
    cases=[
        register("echo"),
        infer("body of the limit", ECHO, b"x" * 1000, headers=[("reply-text", "taken")]),
        infer("body over the limit", ECHO, b"x" * 1001, headers=[("reply-text", "taken")]),
        infer(
            "chunked body over the limit",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
        ),
        infer(
            "expect",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
        ),
        infer(
            "expect in capitals",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: 100-Continue\r\nContent-Length: 1000\r\n\r\n",
        ),
        infer(
            "expect too much",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
            deliberate="expect-and-close",
        ),
        infer(
            "expect something else",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: something\r\nContent-Length: 0\r\n\r\n",
        ),
        infer(
            "expect something else with a body",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: something\r\nContent-Length: 3\r\n\r\nabc",
            deliberate="expect-and-close",
        ),
        infer("json not decoded", ECHO, b"[1]", JSON),
        infer("text not decoded", ECHO, b"text", "text/plain"),
    ],
)

HOST = b"Host: localhost\r\n"
AMBIGUOUS = "ambiguous-requests", 400
MALFORMED = Scenario(
    "malformed requests",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1"},
    cases=[
        infer(title, ECHO, raw=raw, deliberate=on_purpose and on_purpose[0],
              our_status=on_purpose and on_purpose[1])
        for title, raw, on_purpose in (
            ("length that is no number", b"POST /ping HTTP/1.1\r\nContent-Length: x\r\n\r\n", None),
            ("negative length", b"POST /ping HTTP/1.1\r\nContent-Length: -1\r\n\r\n", AMBIGUOUS),
            ("two lengths", b"POST /ping HTTP/1.1\r\n" + HOST +
             b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", None),
            ("one length twice", b"POST /ping HTTP/1.1\r\n" + HOST +
             b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", None),
            ("length and chunks", b"POST /ping HTTP/1.1\r\n" + HOST +
             b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", AMBIGUOUS),
            ("bad chunk", b"POST /ping HTTP/1.1\r\n" + HOST +
             b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", None),
            ("header without a colon", b"GET /ping HTTP/1.1\r\nHost localhost\r\n\r\n", None),
            ("header without a name", b"GET /ping HTTP/1.1\r\n: x\r\n\r\n", None),
            ("blank before a colon", b"GET /ping HTTP/1.1\r\nHost : localhost\r\n\r\n", None),
            ("blank in a name", b"GET /ping HTTP/1.1\r\nX Y: z\r\n\r\n", None),
            ("null in a value", b"GET /ping HTTP/1.1\r\nX: a\0b\r\n\r\n", None),
            ("folded header", b"GET /ping HTTP/1.1\r\nX: a\r\n b\r\n\r\n", AMBIGUOUS),
            ("no version", b"GET /ping\r\n\r\n", None),
            ("version 2", b"GET /ping HTTP/2.0\r\n\r\n", None),
            ("another protocol", b"GET /ping FTP/1.1\r\n\r\n", AMBIGUOUS),
            ("no host", b"GET /ping HTTP/1.1\r\n\r\n", None),
            ("whole url", b"GET http://localhost/ping?a=1 HTTP/1.1\r\n\r\n",
             ("whole-urls", 200)),
            ("path without a slash", b"GET ping HTTP/1.1\r\n\r\n", ("no-path", 400)),
            ("method in small letters", b"get /ping HTTP/1.1\r\n\r\n",
             ("unknown-methods", 400)),
            ("empty lines first", b"\r\n\r\nGET /ping HTTP/1.1\r\n\r\n", None),
            ("line feeds alone", b"GET /ping HTTP/1.1\nHost: localhost\n\n", AMBIGUOUS),
            ("null in the path", b"GET /ping%00 HTTP/1.1\r\n\r\n", None),
            ("bytes in the path", b"GET /p\xc3\xa4 HTTP/1.1\r\n\r\n", AMBIGUOUS),
            ("long path", b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n",
             ("roomy-heads", 404)),
            ("long header", b"GET /ping HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
             ("roomy-heads", 200)),
            ("upgrade",
             b"GET /ping HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", None),
            ("connect", b"CONNECT localhost:80 HTTP/1.1\r\n\r\n",
             ("no-path", 405)),
            ("trace", b"TRACE /ping HTTP/1.1\r\n\r\n", None),
        )
    ],
)  # fmt: skip


SCENARIOS = [REQUESTS, LIMITS, MALFORMED]
