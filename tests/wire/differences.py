"""Where ctserve answers otherwise than gunicorn, case by case of its corpus.

This is the written list: a case that is not here has to give what gunicorn's WSGI workers give.
`answers` are the statuses in wire order. STRICT holds for `http_policy = strict` only.
"""

RULES = {
    "no_host": "HTTP/1.1 without Host is refused (RFC 9112 3.2)",
    "fragment": "a fragment in the target is refused (RFC 9112 3.2)",
    "coding": "only chunked is known as transfer coding (RFC 9112 6.1)",
    "user_info": "user info in the authority of a target is refused (RFC 9110 4.2.4)",
    "connect": "CONNECT asks for a tunnel, which we are not (RFC 9110 9.3.6)",
    "version": "a version above ours is 505 and not 400 (RFC 9110 15.6.6)",
    "short_body": "a body that is shorter than promised is an error (RFC 9112 8)",
}

#: name of the case -> (rule, answers)
STRICT = {
    "valid-004": ("no_host", [400]),
    "valid-005": ("fragment", [400]),
    "valid-006": ("no_host", [400]),
    "valid-007": ("no_host", [400]),
    "valid-010": ("no_host", [400]),
    "valid-011": ("no_host", [400]),
    "valid-012": ("no_host", [400]),
    "valid-013": ("no_host", [400]),
    "valid-014": ("no_host", [400]),
    "valid-018": ("no_host", [400]),
    "valid-021": ("no_host", [400]),
    "valid-022": ("no_host", [200, 400]),
    "valid-023": ("no_host", [400]),
    "valid-025": ("coding", [501]),
    "valid-025_line": ("coding", [501]),
    "valid-029": ("coding", [400]),
    "valid-030": ("coding", [400]),
    "valid-031": ("no_host", [400]),
    "valid-100": ("no_host", [400]),
    "valid-rfc9112_smuggle_gzip_chunked_01": ("coding", [501]),
    "valid-rfc9112_smuggle_te_identity_chunked_01": ("coding", [400]),
    "valid-rfc9112_target_absolute_userinfo_01": ("user_info", [400]),
    "valid-rfc9112_target_authority_connect_01": ("connect", [501]),
    "valid-rfc9112_target_authority_ipv6_01": ("connect", [501]),
    "invalid-rfc9112_te_not_chunked_final_01": ("coding", [501]),
    "invalid-version_02": ("version", [505]),
}

#: Where both policies answer otherwise than gunicorn: name of the case -> (rule, answers). The
#: case promises 17914 bytes of body and sends 8599; gunicorn calls the application with what came,
#: so half an upload looks like a whole one. No policy admits that.
ALWAYS = {
    "valid-099": ("short_body", [400]),
}

#: The connection answers a body that ended early, the parser alone waits for more.
NEEDS_FIN = {"valid-099", "invalid-001", "invalid-rfc9112_chunked_missing_final_crlf_01"}
