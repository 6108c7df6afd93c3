"""settings.def against what is made from it and against gunicorn itself."""
import importlib.machinery
import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/make-settings-docs"
OURS = {"tracing", "request_timeout", "trace_otlp_endpoint", "trace_otlp_protocol",
        "trace_service_name", "trace_ring_bytes", "trace_api", "http_policy", "interpreter",
        "python"}
# Defaults that depend on the machine: the row says in words what they are.
COMPUTED = {"chdir", "user", "group", "control_socket", "ssl_version"}


def load_script():
    loader = importlib.machinery.SourceFileLoader("make_settings_docs", str(SCRIPT))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


MAKER = load_script()
ROWS = {row["name"]: row
        for row in MAKER.read_rows((ROOT / "include/ctserve/settings.def").read_text())}


def test_docs_and_full_configuration_are_not_stale():
    run = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_a_changed_table_makes_them_stale(tmp_path):
    (tmp_path / "include/ctserve").mkdir(parents=True)
    table = (ROOT / "include/ctserve/settings.def").read_text()
    (tmp_path / "include/ctserve/settings.def").write_text(table)
    for name in ("docs/settings.md", "conf/full.conf.py"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text((ROOT / name).read_text())
    check = [sys.executable, SCRIPT, "--check", tmp_path]
    assert subprocess.run(check, capture_output=True).returncode == 0
    (tmp_path / "include/ctserve/settings.def").write_text(table.replace('"2048"', '"2049"'))
    run = subprocess.run(check, capture_output=True, text=True)
    assert run.returncode == 1
    assert "docs/settings.md: stale" in run.stdout
    assert "conf/full.conf.py: stale" in run.stdout


def test_the_full_configuration_is_python_once_its_comments_are_gone():
    text = (ROOT / "conf/full.conf.py").read_text()
    live = re.sub(r"^# (?=\w+ = (?!\.\.\.)|def |    pass$)", "", text, flags=re.M)
    names = {}
    exec(compile(live, "full.conf.py", "exec"), names)
    assert set(ROWS) - set(names) == {"chdir", "user", "group", "control_socket"}
    assert names["workers"] == 1 and names["bind"] == ["127.0.0.1:8000"]
    for name, row in ROWS.items():
        if row["kind"] == "CTS_KIND_HOOK":
            taken = names[name].__code__.co_argcount
            assert row["arity_min"] <= taken <= row["arity_max"], name


def test_no_setting_is_missing_and_ten_are_ours():
    assert len(ROWS) == 130
    assert {name for name, row in ROWS.items() if row["ours"]} == OURS


@pytest.fixture(scope="module")
def gunicorn_settings():
    config = pytest.importorskip("gunicorn.config", reason="gunicorn is not installed here")
    import gunicorn
    if not gunicorn.__version__.startswith("27.0"):
        pytest.skip(f"the promise is 27.0, installed is {gunicorn.__version__}")
    return {setting.name: setting for setting in config.KNOWN_SETTINGS}


def test_names_sections_and_flags_are_gunicorns(gunicorn_settings):
    assert set(gunicorn_settings) == set(ROWS) - OURS
    for name, setting in gunicorn_settings.items():
        assert ROWS[name]["flags"].split() == list(setting.cli or []), name
        assert ROWS[name]["section"] == setting.section, name


def test_defaults_are_gunicorns(gunicorn_settings):
    for name, setting in gunicorn_settings.items():
        if name in COMPUTED or ROWS[name]["kind"] == "CTS_KIND_HOOK":
            continue
        # eval: our own table, written as Python
        assert eval(MAKER.python_default(ROWS[name])) == setting.default, name  # noqa: S307


def test_kinds_are_gunicorns(gunicorn_settings):
    for name, setting in gunicorn_settings.items():
        kind, action = ROWS[name]["kind"], setting.action
        assert (action in ("store_true", "store_const")) == (kind == "CTS_KIND_BOOL"), name
        if action == "append":
            assert kind == "CTS_KIND_LIST", name
        if setting.type is int:
            assert kind == "CTS_KIND_INT", name
