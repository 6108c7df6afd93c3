"""Settings through the whole program: sources, precedence, exit codes, sentences.

CTSERVE names the program; without it build/ctserve of this checkout.
"""
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CTSERVE = os.environ.get("CTSERVE", str(ROOT / "build/ctserve"))
APP = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'x']\n"
CLEAN = ("GUNICORN_CMD_ARGS", "CTSERVE_CMD_ARGS", "WEB_CONCURRENCY", "PORT", "SENDFILE",
         "FORWARDED_ALLOW_IPS")

pytestmark = pytest.mark.skipif(not os.access(CTSERVE, os.X_OK), reason=f"{CTSERVE} is not built")


@pytest.fixture
def here(tmp_path):
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


def run(here, *arguments, **environ):
    env = {name: value for name, value in os.environ.items() if name not in CLEAN}
    env.update(environ)
    # Whoever runs the tests may say which interpreter; that must go on holding.
    chosen = os.environ.get("CTSERVE_CMD_ARGS", "")
    if chosen:
        env["CTSERVE_CMD_ARGS"] = f"{chosen} {environ.get('CTSERVE_CMD_ARGS', '')}"
    # The limit only ends a hang; nothing here starts a server.
    return subprocess.run([CTSERVE, *arguments], cwd=here, env=env, capture_output=True, text=True,
                          timeout=60)


def printed(here, *arguments, **environ):
    """What --print-config says, as {name: text}."""
    done = run(here, "--print-config", *arguments, "shop:app", **environ)
    assert done.returncode == 0, done.stderr
    return {name.strip(): value for name, _, value in
            (line.partition(" = ") for line in done.stdout.splitlines() if " = " in line)}


def test_defaults_are_printed_sorted(here):
    done = run(here, "--print-config", "shop:app")
    names = [line.split()[0] for line in done.stdout.splitlines() if " = " in line]
    assert done.returncode == 0
    assert len(names) == 130 and names == sorted(names)
    assert printed(here)["bind"] == "['127.0.0.1:8000']"


def test_file_then_gunicorn_then_ctserve_then_command_line(here):
    (here / "gunicorn.conf.py").write_text("workers = 2\nthreads = 2\ntimeout = 2\nbacklog = 2\n")
    environ = {"GUNICORN_CMD_ARGS": "--threads 3 --timeout 3 --backlog 3",
               "CTSERVE_CMD_ARGS": "--timeout 4 --backlog 4"}
    values = printed(here, "--backlog", "5", WEB_CONCURRENCY="1", **environ)
    assert (values["workers"], values["threads"], values["timeout"], values["backlog"]) == \
        ("2", "3", "4", "5")


def test_the_environment_moves_defaults_and_loses_to_everything(here):
    values = printed(here, WEB_CONCURRENCY="7", PORT="9001")
    assert values["workers"] == "7" and values["bind"] == "['0.0.0.0:9001']"
    values = printed(here, "-w", "2", "-b", ":1", WEB_CONCURRENCY="7", PORT="9001")
    assert values["workers"] == "2" and values["bind"] == "[':1']"


def test_a_number_in_quotes_is_a_number_and_a_lone_text_a_list(here):
    (here / "gunicorn.conf.py").write_text('workers = "7"\nbind = ":9"\n')
    values = printed(here)
    assert values["workers"] == "7" and values["bind"] == "[':9']"


def test_the_application_may_stand_in_the_file(here):
    (here / "gunicorn.conf.py").write_text('wsgi_app = "shop:app"\n')
    assert run(here, "--check-config").returncode == 0


def test_the_application_in_a_variable_is_ignored(here):
    done = run(here, "--check-config", GUNICORN_CMD_ARGS="shop:app")
    assert done.returncode == 1 and "no application" in done.stderr


def test_the_command_lines_config_beats_that_of_the_variable(here):
    (here / "one.py").write_text("workers = 11\n")
    (here / "two.py").write_text("workers = 12\n")
    assert printed(here, "-c", "one.py", GUNICORN_CMD_ARGS="-c two.py")["workers"] == "11"
    assert printed(here, GUNICORN_CMD_ARGS="-c two.py")["workers"] == "12"


def test_a_missing_config_is_fatal_only_when_asked_for(here):
    assert run(here, "--check-config", "shop:app").returncode == 0
    done = run(here, "--check-config", "-c", "nowhere.py", "shop:app")
    assert done.returncode == 1 and "nowhere.py" in done.stderr


@pytest.mark.parametrize("arguments, code, part", [
    (["--wrokers", "4", "shop:app"], 2, "did you mean --workers?"),
    (["--work", "4", "shop:app"], 2, "ambiguous option"),
    (["-w", "four", "shop:app"], 2, "0 to 2147483647"),
    (["-w", "-1", "shop:app"], 1, "0 to 2147483647"),
    (["--reload=x", "shop:app"], 2, "takes no value"),
    (["-b", "127.0.0.1:99999", "shop:app"], 1, "port"),
    (["--chdir", "/no/such/place", "shop:app"], 1, "chdir"),
    (["--certfile", "x", "shop:app"], 1, "certfile"),
    (["--user", "no-such-user-here", "shop:app"], 1, "user"),
    (["--user", "54321", "shop:app"], 1, "user"),
    (["--initgroups", "shop:app"], 1, "initgroups"),
    (["--protocol", "uwsgi", "shop:app"], 1, "protocol"),
    (["-k", "gevent", "shop:app"], 1, "worker_class"),
    (["-k", "uvicorn.workers.UvicornWorker", "shop:app"], 1, "ASGI"),
    (["-k", "gthraed", "shop:app"], 1, "did you mean 'gthread'"),
    (["--env", "X", "shop:app"], 1, "raw_env"),
    ([], 1, "shop:app"),
    (["--help", "wrokers"], 2, "did you mean 'workers'?"),
])
def test_a_mistake_ends_with_a_sentence_and_gunicorns_code(here, arguments, code, part):
    done = run(here, "--check-config", *arguments)
    assert done.returncode == code, done.stderr
    assert part in done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_a_misspelt_name_in_the_file_is_a_warning(here):
    (here / "gunicorn.conf.py").write_text("wrokers = 4\nmy_own_variable = 1\n")
    done = run(here, "--check-config", "shop:app")
    assert done.returncode == 0
    assert "wrokers" in done.stderr and "did you mean 'workers'?" in done.stderr
    assert "my_own_variable" not in done.stderr


def test_a_misspelt_variable_is_a_warning(here):
    done = run(here, "--check-config", "shop:app", GUNICORN_CMD_ARG="-w 4")
    assert done.returncode == 0
    assert "did you mean GUNICORN_CMD_ARGS?" in done.stderr


def test_settings_that_do_nothing_yet_are_named_in_one_line(here):
    (here / "gunicorn.conf.py").write_text("statsd_host = 'h:1'\nworkers = 2\n")
    done = run(here, "--check-config", "--reload", "shop:app")
    lines = [line for line in done.stderr.splitlines() if "do nothing" in line]
    assert done.returncode == 0 and len(lines) == 1
    assert lines[0].endswith("reload, statsd_host")


def test_values_that_change_nothing_are_taken(here):
    done = run(here, "--check-config", "--user", str(os.geteuid()), "--group",
               str(os.getegid()), "--no-control-socket", "--threads", "2", "shop:app")
    assert done.returncode == 0 and "do nothing" not in done.stderr


def test_version_and_help(here):
    assert run(here, "--version").stdout == "ctserve (version 0.1.0)\n"
    short = run(here, "--help")
    assert short.returncode == 0 and 20 <= len(short.stdout.splitlines()) <= 40
    assert "ctserve shop:app --workers 4" in short.stdout
    assert len(run(here, "--help", "all").stdout.splitlines()) > 150
    assert "WEB_CONCURRENCY" in run(here, "--help", "workers").stdout


def test_the_full_configuration_is_taken_as_it_is(here):
    done = run(here, "--check-config", "-c", str(ROOT / "conf/full.conf.py"), "shop:app")
    assert done.returncode == 0, done.stderr


def test_a_hook_that_takes_the_wrong_number_of_arguments_is_refused(here):
    (here / "gunicorn.conf.py").write_text("def post_fork(server):\n    pass\n")
    done = run(here, "--check-config", "shop:app")
    assert done.returncode == 1 and "post_fork" in done.stderr


def test_the_working_directory_is_named_as_the_user_came_to_it(here):
    (here / "link").symlink_to(here)
    assert printed(here, PWD=str(here / "link"))["chdir"] == str(here / "link")
    assert printed(here, PWD="/nowhere")["chdir"] == str(here)
    (here / "sub").mkdir()
    (here / "sub" / "shop.py").write_text(APP)
    assert printed(here, "--chdir", "sub/../sub/.", PWD=str(here))["chdir"] == str(here / "sub")
