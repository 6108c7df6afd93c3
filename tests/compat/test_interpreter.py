"""The interpreter that serves an application is the one its author tested it with.

For every Python found, bare and in environments made by symlink and by copies, embedded and
hosted: what `sys` says inside ctserve equals what that python says with `-c`. Then the order in
which an interpreter is looked for, the layouts ctserve is started from, and what a person reads
after a common mistake.

CTSERVE names the program (default: build/ctserve). Everything is seen through a config file, which
runs in the master's interpreter before anything is bound.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CTSERVE = Path(os.environ.get("CTSERVE", ROOT / "build" / "ctserve")).absolute()
BUILD = CTSERVE.parent
PACKAGE = ROOT / "python" / "ctserve"
SANITIZED = os.environ.get("CTSERVE_SANITIZED") == "1"
# A sanitized _core cannot be loaded by a python that is not.
MODES = ["embed"] if SANITIZED else ["embed", "host"]
# What the caller chose for all suites; it counts where a test is not about choosing.
CHOSEN = {"CTSERVE_CMD_ARGS": os.environ.get("CTSERVE_CMD_ARGS", "")}
RUN_TIMEOUT_S = 120 if SANITIZED else 40

FACTS = """
def facts():
    import sys
    main = sys.modules["__main__"]
    return {"prefix": sys.prefix, "exec_prefix": sys.exec_prefix,
            "base_prefix": sys.base_prefix, "executable": sys.executable,
            "base_executable": getattr(sys, "_base_executable", None),
            "flags": str(sys.flags), "path": sys.path[1:], "version": sys.version,
            "main_has_file": hasattr(main, "__file__"), "argv0": sys.argv[0]}
"""
COMPARED = ["prefix", "exec_prefix", "base_prefix", "executable", "base_executable", "flags",
            "path", "version"]


def _environment(**changes):
    environ = {name: value for name, value in os.environ.items()
               if name not in ("VIRTUAL_ENV", "CONDA_PREFIX", "CTSERVE_PYTHON", "PYTHONPATH",
                               "GUNICORN_CMD_ARGS", "CTSERVE_CMD_ARGS", "PYENV_VERSION", "PORT",
                               "PYTHONHOME", "CTSERVE_BUILD")}
    if SANITIZED:
        # auto takes a python without a shared libpython as host, where a sanitized _core has no place.
        environ["CTSERVE_CMD_ARGS"] = "--interpreter embed"
    environ.update(changes)
    return environ


def _found_pythons():
    """One per version and installation that this build has a _core for: PATH, pyenv, the system's."""
    candidates = [shutil.which("python3"), "/usr/bin/python3"]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates += [str(path) for path in sorted(pyenv.glob("3.1[0-3].*/bin/python3"))]
    found = {}
    for candidate in candidates:
        if not candidate or not os.access(candidate, os.X_OK):
            continue
        asked = subprocess.run([candidate, "-I", "-S", "-c",
                                "import sys, sysconfig as s; print(sys.executable, "
                                "s.get_config_var('EXT_SUFFIX'), sys.version_info[:2])"],
                               capture_output=True, text=True, env=_environment())
        if asked.returncode != 0:
            continue
        executable, suffix, version = asked.stdout.split(" ", 2)
        has_core = (BUILD / "src" / "core" / ("_core" + suffix)).exists()
        if has_core and (3, 10) <= eval(version) <= (3, 13):
            found.setdefault(os.path.realpath(executable), executable)
    return sorted(found.values())


PYTHONS = _found_pythons()


def _expected(python, **environ):
    """What `python -c` says."""
    out = subprocess.run([python, "-c", FACTS + "import json; print(json.dumps(facts()))"],
                         capture_output=True, text=True, check=True, env=_environment(**environ))
    return json.loads(out.stdout)


def _run(command, cwd, timeout_s=RUN_TIMEOUT_S, **environ):
    """The command to its end. Returns exit code and everything it printed."""
    process = subprocess.Popen([str(part) for part in command], cwd=cwd, env=_environment(**environ),
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               errors="replace", start_new_session=True)
    try:
        out, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate()
        pytest.fail("%s did not end within %d s:\n%s" % (command, timeout_s, out))
    return process.returncode, out


def _seen(command, cwd, **environ):
    """The facts as seen by a config file that `command` executes."""
    told = Path(cwd) / "facts.json"
    told.unlink(missing_ok=True)
    (Path(cwd) / "app.py").write_text("def app(environ, start_response):\n    return []\n")
    config = Path(cwd) / "facts.conf.py"
    config.write_text(FACTS + "import json\njson.dump(facts(), open(%r, 'w'))\n" % str(told))
    _, out = _run([*command, "-c", config, "--check-config", "app:app"], cwd, **environ)
    if "no _core." in out:
        pytest.skip("no _core for this Python in " + str(BUILD))
    if "no shared libpython" in out:
        pytest.skip("this Python is static and no libpython of its version is installed")
    assert told.exists(), out
    return json.loads(told.read_text())


@pytest.fixture(scope="session")
def environments(tmp_path_factory):
    """Environments made once per session: (python, kind) -> folder."""
    made = {}

    def make(python, kind):
        if (python, kind) not in made:
            folder = tmp_path_factory.mktemp("venv") / "env"
            options = {"symlink": [], "copies": ["--copies"],
                       "system": ["--system-site-packages"]}[kind]
            done = subprocess.run([python, "-m", "venv", "--without-pip", *options, str(folder)],
                                  capture_output=True, text=True, env=_environment())
            if done.returncode != 0:
                pytest.skip("%s makes no environments: %s" % (python, done.stdout.strip()[:80]))
            made[python, kind] = folder
        return made[python, kind]

    return make


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["bare", "symlink", "copies", "system"])
@pytest.mark.parametrize("python", PYTHONS)
def test_sys_inside_ctserve_equals_sys_of_that_python(python, kind, mode, environments, tmp_path):
    chosen = python if kind == "bare" else str(environments(python, kind) / "bin" / "python")
    expected = _expected(chosen)
    seen = _seen([CTSERVE, "--interpreter", mode, "--python", chosen], tmp_path)
    assert {name: seen[name] for name in COMPARED} == {name: expected[name] for name in COMPARED}
    assert not seen["main_has_file"]
    assert seen["argv0"] == str(CTSERVE)


@pytest.mark.parametrize("mode", MODES)
def test_python_variables_reach_the_interpreter(mode, tmp_path):
    extra = {"PYTHONPATH": str(tmp_path / "x"), "PYTHONOPTIMIZE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    expected = _expected(PYTHONS[0], **extra)
    seen = _seen([CTSERVE, "--interpreter", mode, "--python", PYTHONS[0]], tmp_path, **extra)
    assert {name: seen[name] for name in COMPARED} == {name: expected[name] for name in COMPARED}


# -- the order of looking -----------------------------------------------------------------------


@pytest.fixture
def three(environments, tmp_path):
    """Three environments to choose between, and the folder to run in."""
    return [environments(PYTHONS[0], kind) for kind in ("symlink", "copies", "system")], tmp_path


def test_the_option_wins_over_everything(three):
    (first, second, third), here = three
    seen = _seen([CTSERVE, "--python=%s" % (first / "bin" / "python")], here,
                 CTSERVE_PYTHON=str(second / "bin" / "python"), VIRTUAL_ENV=str(third))
    assert seen["prefix"] == str(first)


def test_the_variable_wins_over_an_active_environment(three):
    (first, second, _), here = three
    seen = _seen([CTSERVE], here, CTSERVE_PYTHON=str(first / "bin" / "python"),
                 VIRTUAL_ENV=str(second))
    assert seen["prefix"] == str(first)


def test_the_option_in_an_arguments_variable_counts_and_the_command_line_wins(three):
    (first, second, _), here = three
    said = "--python '%s'" % (first / "bin" / "python") + (" --interpreter embed" if SANITIZED else "")
    assert _seen([CTSERVE], here, GUNICORN_CMD_ARGS=said)["prefix"] == str(first)
    assert _seen([CTSERVE], here, CTSERVE_CMD_ARGS=said)["prefix"] == str(first)
    seen = _seen([CTSERVE, "--python", second / "bin" / "python"], here, CTSERVE_CMD_ARGS=said)
    assert seen["prefix"] == str(second)


@pytest.mark.parametrize("through_path", [False, True])
def test_a_link_in_an_environment_serves_that_environment(three, through_path):
    (first, second, _), here = three
    link = first / "bin" / "ctserve"
    if not link.is_symlink():
        link.symlink_to(CTSERVE)
    if through_path:
        seen = _seen(["ctserve"], here, VIRTUAL_ENV=str(second),
                     PATH="%s:%s" % (link.parent, os.environ["PATH"]))
    else:
        seen = _seen([link], here, VIRTUAL_ENV=str(second))
    assert seen["prefix"] == str(first)


def test_an_active_environment_wins_over_conda_and_path(three):
    (first, second, _), here = three
    seen = _seen([CTSERVE], here, VIRTUAL_ENV=str(first), CONDA_PREFIX=str(second))
    assert seen["prefix"] == str(first)
    assert _seen([CTSERVE], here, CONDA_PREFIX=str(second))["prefix"] == str(second)


def test_python3_on_path_is_the_last_resort(three):
    (first, _, _), here = three
    seen = _seen([CTSERVE], here, PATH="%s:%s" % (first / "bin", os.environ["PATH"]))
    assert seen["prefix"] == str(first)


def test_a_shim_is_resolved_to_the_interpreter_behind_it(tmp_path):
    shim = tmp_path / "python3"
    shim.write_text("#!/bin/sh\nexec %s \"$@\"\n" % PYTHONS[0])
    shim.chmod(0o755)
    for mode in MODES:
        seen = _seen([CTSERVE, "--interpreter", mode, "--python", shim], tmp_path)
        assert seen["executable"] == _expected(PYTHONS[0])["executable"]


# -- refusals -----------------------------------------------------------------------------------


def test_an_interpreter_that_is_not_there_is_named(tmp_path):
    code, out = _run([CTSERVE, "--python", "/nowhere/python"], tmp_path)
    assert (code, out) == (1, "ctserve: --python /nowhere/python: there is no such interpreter\n")


def test_a_program_that_is_no_python_is_refused(tmp_path):
    code, out = _run([CTSERVE, "--python", "/bin/true"], tmp_path)
    assert code == 1
    assert "/bin/true does not answer as a Python does" in out


def test_a_python_without_a_core_is_refused_and_told_which_there_are(tmp_path):
    fake = tmp_path / "python"
    fake.write_text("#!%s\nprint('\\n'.join('ctserve-' + line for line in ["
                    "'version=3.99.0', 'minor=3.99', 'suffix=.cpython-399-x.so', "
                    "'executable=/x/python', 'base_prefix=/x', 'implementation=cpython']))\n"
                    % os.path.realpath(PYTHONS[0]))
    fake.chmod(0o755)
    code, out = _run([CTSERVE, "--python", fake], tmp_path)
    assert code == 1
    assert "no _core.cpython-399-x.so for CPython 3.99.0 (/x/python)" in out
    assert "there is: cpython-3" in out
    assert "build one:" in out


@pytest.mark.parametrize("mode", MODES)
def test_a_second_core_from_another_file_is_refused(mode, tmp_path):
    cores = sorted((BUILD / "src" / "core").glob("_core.*.so"))
    for core in cores:
        shutil.copy(core, tmp_path)
    config = tmp_path / "second.conf.py"
    config.write_text(textwrap.dedent("""
        import importlib.util, sys
        suffix = __import__("_imp").extension_suffixes()[0]
        path = %r + "/_core" + suffix
        spec = importlib.util.spec_from_file_location("other._core", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    """ % str(tmp_path)))
    code, out = _run([CTSERVE, "--interpreter", mode, "--python", PYTHONS[0], "-c", config,
                      "--check-config", "app:app"], tmp_path)
    if "no _core." in out or "no shared libpython" in out:
        pytest.skip("this Python cannot be served in this mode by this build")
    assert code == 1
    assert "a second ctserve._core" in out


# -- layouts ------------------------------------------------------------------------------------


def _copy_ours(package_folder, binary_folder):
    shutil.copytree(PACKAGE, package_folder, ignore=shutil.ignore_patterns("__pycache__"))
    for core in (BUILD / "src" / "core").glob("_core.*.so"):
        shutil.copy(core, package_folder)
    binary_folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(CTSERVE, binary_folder / "ctserve")
    return binary_folder / "ctserve"


@pytest.mark.parametrize("mode", MODES)
def test_an_installation_below_a_prefix_serves(mode, environments, tmp_path):
    chosen = str(environments(PYTHONS[0], "symlink") / "bin" / "python")
    program = _copy_ours(tmp_path / "prefix/lib/ctserve/ctserve", tmp_path / "prefix/bin")
    seen = _seen([program, "--interpreter", mode, "--python", chosen], tmp_path)
    expected = _expected(chosen)
    assert {name: seen[name] for name in COMPARED} == {name: expected[name] for name in COMPARED}


@pytest.mark.parametrize("mode", MODES)
def test_an_installation_into_an_environment_serves_it(mode, tmp_path):
    folder = tmp_path / "env"
    subprocess.run([PYTHONS[0], "-m", "venv", "--without-pip", str(folder)], check=True,
                   env=_environment())
    python = folder / "bin" / "python"
    site = _expected(str(python))["path"][-1]
    program = _copy_ours(Path(site) / "ctserve", folder / "bin")
    seen = _seen([program, "--interpreter", mode], tmp_path)
    expected = _expected(str(python))
    assert {name: seen[name] for name in COMPARED} == {name: expected[name] for name in COMPARED}


@pytest.mark.skipif(SANITIZED, reason="a sanitized _core needs a sanitized program around it")
def test_python_m_ctserve_serves_from_a_checkout(tmp_path):
    seen = _seen([PYTHONS[0], "-m", "ctserve"], tmp_path, PYTHONPATH=str(ROOT / "python"),
                 CTSERVE_BUILD=str(BUILD))
    assert seen["prefix"] == _expected(PYTHONS[0])["prefix"]


def test_the_launcher_needs_no_libpython(tmp_path):
    needed = subprocess.run(["readelf", "-d", str(CTSERVE)], capture_output=True, text=True,
                            check=True).stdout
    assert "libc.so" in needed
    assert "libpython" not in needed


# -- common mistakes ----------------------------------------------------------------------------

OK = "def app(environ, start_response):\n    return []\ndef make():\n    return app\n"
MISTAKES = {
    "no application is named": (
        {"store.py": OK}, [], 1,
        ["no application was named", "for example: ctserve ", "store:app"]),
    "the module is missing": (
        {"shop.py": OK}, ["shp:app"], 3,
        ["No module named 'shp'", "asked for: shp:app", "looked in: ", "is here: shop"]),
    "the attribute is missing": (
        {"shop.py": OK}, ["shop:ap"], 4,
        ["module 'shop' has no attribute 'ap'", "callable there: shop:app, shop:make()"]),
    "the attribute is not callable": (
        {"shop.py": OK + "number = 5\n"}, ["shop:number"], 4,
        ["shop:number is not callable: it is an int"]),
    "the factory gets arguments it does not take": (
        {"shop.py": OK}, ["shop:make(1)"], 4, ["does not take these arguments"]),
    "a dependency is missing": (
        {"shop.py": "import not_installed_here\n"}, ["shop:app"], 3,
        ["line 1, in <module>", "import not_installed_here",
         "shop:app could not be imported: ModuleNotFoundError: "
         "No module named 'not_installed_here'"]),
    "the module raises": (
        {"shop.py": "def f():\n    raise ValueError('broken')\nf()\n"}, ["shop:app"], 3,
        ["line 2, in f", "shop:app could not be imported: ValueError: broken"]),
    "the module has a syntax error": (
        {"shop.py": "def f(:\n"}, ["shop:app"], 3, ["shop.py", "SyntaxError"]),
    "the file is missing": ({}, ["shop.py"], 3, ["there is no file", "shop.py"]),
    "a coroutine function is given": (
        {"shop.py": "async def app(scope, receive, send): pass\n"}, ["shop:app"], 4,
        ["shop:app is an ASGI application (it is a coroutine function)"]),
    "an object with an async call is given": (
        {"shop.py": "class A:\n    async def __call__(self, a, b, c): pass\napp = A()\n"},
        ["shop:app"], 4, ["is an ASGI application (its __call__ is a coroutine function)"]),
    "an object that takes scope, receive, send is given": (
        {"shop.py": "class A:\n    def __call__(self, scope, receive, send): pass\napp = A()\n"},
        ["shop:app"], 4, ["is an ASGI application (it takes (scope, receive, send))"]),
    "the config file is missing": (
        {"shop.py": OK}, ["-c", "none.py", "shop:app"], 1, ["'none.py' doesn't exist"]),
    "the config file raises": (
        {"shop.py": OK, "c.py": "def g():\n    1 / 0\ng()\n"}, ["-c", "c.py", "shop:app"], 1,
        ["Failed to read config file: c.py: ZeroDivisionError", "line 2, in g"]),
    "a hook takes another number of arguments": (
        {"shop.py": OK, "c.py": "def post_fork(server): pass\n"}, ["-c", "c.py", "shop:app"], 1,
        ["Invalid value for post_fork", "arity of: 2"]),
    "a hook is not callable": (
        {"shop.py": OK, "c.py": "on_starting = 5\n"}, ["-c", "c.py", "shop:app"], 1,
        ["Invalid value for on_starting", "not callable"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_its_lines_and_its_exit_code(mistake, tmp_path):
    files, arguments, code_wanted, lines = MISTAKES[mistake]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    bind = ["-b", "127.0.0.1:0"] if arguments else []
    code, out = _run([CTSERVE, "--trace-api", "off", *bind, *arguments], tmp_path, **CHOSEN)
    for line in lines:
        assert line in out
    assert code == code_wanted
    # No frame that the user did not write.
    assert "importlib" not in out
    assert str(PACKAGE) not in out


def test_a_misspelt_name_in_the_config_file_is_said_once(tmp_path):
    (tmp_path / "app.py").write_text(OK)
    (tmp_path / "gunicorn.conf.py").write_text("wrokers = 4\n_private = 1\nmy_own_name = 2\n")
    code, out = _run([CTSERVE, "--check-config", "app:app"], tmp_path, **CHOSEN)
    assert out.count("did you mean 'workers'?") == 1
    assert "my_own_name" not in out and "_private" not in out
    assert code == 0


@pytest.mark.parametrize("uri", ["app.py", "./app.py", "app.py:app", "app:make()", "app:app",
                                 "pkg/inner.py:app"])
def test_an_application_can_be_named_as_module_factory_or_file(uri, tmp_path):
    (tmp_path / "app.py").write_text(OK)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "inner.py").write_text("from . import __name__ as parent\n" + OK)
    code, out = _run([CTSERVE, "--check-config", uri], tmp_path, **CHOSEN)
    assert (code, out) == (0, "")


if __name__ == "__main__":
    sys.exit(pytest.main([__file__] + sys.argv[1:]))
