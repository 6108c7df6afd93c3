"""What a value in a configuration file becomes: ours and gunicorn's answer, side by side."""
import os
import re

import pytest
from harness import sweep
from test_sources import here, pytestmark, run  # noqa: F401  (a fixture and a mark)

# setting, the value as written in the file
CASES = [
    ("workers", "'7'"), ("workers", "' 7 '"), ("workers", "'0x10'"), ("workers", "'1_0'"),
    ("workers", "'010'"), ("workers", "'seven'"), ("workers", "-1"), ("workers", "True"),
    ("workers", "None"), ("workers", "1.5"), ("workers", "''"), ("workers", "0"),
    ("timeout", "'+5'"), ("timeout", "'0b11'"), ("timeout", "'5s'"), ("timeout", "[]"),
    ("umask", "0o22"), ("umask", "'0o22'"), ("umask", "'18'"),
    ("preload_app", "'TRUE'"), ("preload_app", "' false '"), ("preload_app", "1"),
    ("preload_app", "'yes'"), ("preload_app", "None"),
    ("pidfile", "'  x.pid '"), ("pidfile", "5"), ("pidfile", "None"), ("pidfile", "''"),
    ("pidfile", "['a']"),
    ("proc_name", "b'x'"), ("proc_name", "'x'"), ("errorlog", "5"), ("statsd_host", "['a']"),
    ("default_proc_name", "'x'"),
    ("bind", "':5002'"), ("bind", "['a:1', ' b:2 ']"), ("bind", "('a:1',)"), ("bind", "5002"),
    ("bind", "[]"), ("bind", "None"), ("bind", "['a:1', 5]"),
    ("raw_env", "['A=1']"), ("raw_env", "'A=1,B=2'"),
    ("forwarded_allow_ips", "'*'"), ("forwarded_allow_ips", "'10.0.0.0/8, ::1'"),
    ("forwarded_allow_ips", "'10.0.0.1/8'"), ("forwarded_allow_ips", "['*']"),
    ("forwarded_allow_ips", "'localhost'"), ("forwarded_allow_ips", "''"),
    ("forwarder_headers", "'A, B,,C'"), ("forwarder_headers", "['A']"),
    ("http_protocols", "'h1, h2'"), ("http_protocols", "'H1'"), ("http_protocols", "'h3'"),
    ("http_protocols", "'h1,h1'"), ("http_protocols", "None"), ("http_protocols", "['h1']"),
    ("header_map", "'Refuse'"), ("header_map", "'keep'"), ("header_map", "1"),
    ("asgi_loop", "' UVLOOP '"), ("asgi_loop", "'trio'"), ("asgi_loop", "None"),
    ("reload_engine", "'poll'"), ("reload_engine", "'watchdog'"),
    ("http2_cleartext", "True"), ("http2_cleartext", "'both'"), ("http2_cleartext", "'on'"),
    ("http2_max_frame_size", "16383"), ("http2_max_frame_size", "'16384'"),
    ("http2_max_concurrent_streams", "0"), ("http2_initial_window_size", "2147483648"),
    ("loglevel", "'chatty'"), ("loglevel", "5"), ("chdir", "'/no/such/place'"),
    ("chdir", "'/usr/./bin/..'"), ("user", "'no-such-user-here'"), ("user", "None"),
    ("secure_scheme_headers", "{}"), ("secure_scheme_headers", "'x'"),
    ("logconfig_dict", "None"), ("on_exit", "None"), ("on_exit", "'os.getpid'"),
    ("on_exit", "lambda: 1"), ("on_exit", "lambda server: 1"), ("on_exit", "'nodots'"),
    ("post_request", "lambda a, b: 1"), ("post_request", "lambda a: 1"),
    ("post_request", "lambda a, b, c: 1"), ("post_request", "lambda a, b, c, d, e: 1"),
]


def gunicorns(name, written):
    """(taken, text) as gunicorn has it."""
    config = pytest.importorskip("gunicorn.config", reason="gunicorn is not installed here").Config()
    try:
        config.set(name, eval(written, {}))  # noqa: S307: the table above
    except Exception:
        return False, None
    return True, str(config.settings[name].get())


@pytest.mark.parametrize("name, written", sweep(CASES, quick=CASES[::3]),
                         ids=lambda part: re.sub(r"\W+", "_", part))
def test_a_value_becomes_what_gunicorn_makes_of_it(here, name, written, monkeypatch):  # noqa: F811
    monkeypatch.chdir(here)
    taken, text = gunicorns(name, written)
    (here / "gunicorn.conf.py").write_text(f"{name} = {written}\n")
    done = run(here, "--print-config", "shop:app", PWD=os.getcwd())
    said = re.search(rf"^{name} += (.*)$", done.stdout, re.M)
    if not taken:
        assert done.returncode == 1 and name in done.stderr and said is None
        return
    assert done.returncode == 0, done.stderr
    if "lambda" not in written and not written.startswith("'os."):
        assert said.group(1) == text
