"""What the build makes: hardened files that need what they should need, and an installation that
serves from where it was put."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from harness import CTSERVE, ROOT, SANITIZED, Running, app_folder

BUILD = pathlib.Path(CTSERVE).absolute().parent
CORES = sorted((BUILD / "src" / "core").glob("_core.*.so"))
PROGRAMS = [pathlib.Path(CTSERVE).absolute(), BUILD / "ctserve-agent"]
FILES = PROGRAMS + CORES

pytestmark = pytest.mark.skipif(SANITIZED, reason="a sanitizer build is linked in another way")


def readelf(path, *options):
    return subprocess.run(["readelf", "-W", *options, str(path)], capture_output=True, text=True,
                          check=True).stdout


def needed(path):
    return re.findall(r"\(NEEDED\).*\[(.*?)\]", readelf(path, "-d"))


def name_of(path):
    return path.name


def test_there_is_a_core_to_look_at():
    assert CORES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_built_file_is_hardened(path):
    segments, dynamic = readelf(path, "-lh"), readelf(path, "-d")
    assert re.search(r"Type:\s+DYN", segments)
    if path in PROGRAMS:
        assert re.search(r"FLAGS_1.*\bPIE\b", dynamic)
    # full RELRO: the table of imported functions is read-only before the first line of ours runs
    assert "GNU_RELRO" in segments
    assert re.search(r"\(FLAGS\).*BIND_NOW|FLAGS_1.*\bNOW\b", dynamic)
    stack = re.search(r"GNU_STACK(?:\s+0x\w+){5}\s+(\S+)", segments)
    assert stack is not None and "E" not in stack[1]
    assert not re.search(r"LOAD(?:\s+0x\w+){5}\s+RWE", segments), "a segment to write and to run"
    assert "__stack_chk_fail" in readelf(path, "--dyn-syms")
    assert "RUNPATH" not in dynamic and "RPATH" not in dynamic
    assert "TEXTREL" not in dynamic


def test_the_launcher_needs_libc_and_nothing_else():
    assert [one for one in needed(PROGRAMS[0]) if not one.startswith("ld-linux")] == ["libc.so.6"]


@pytest.mark.parametrize("path", [PROGRAMS[0], *CORES], ids=name_of)
def test_what_runs_in_a_forking_process_has_no_grpc_no_exporter_and_no_libpython(path):
    for library in needed(path):
        assert not re.match(r"lib(python|grpc|gpr|curl|protobuf|sqlite|stdc\+\+)", library), library
    assert not re.search(r"\b(grpc|gpr|curl|sqlite3)_\w+", readelf(path, "--dyn-syms"))


@pytest.mark.parametrize("path", CORES, ids=name_of)
def test_a_core_shows_the_outside_two_doors_only(path):
    shown = re.findall(r"(?:FUNC|OBJECT)\s+(?:GLOBAL|WEAK)\s+DEFAULT\s+(?!UND)\S+\s+(\w+)",
                       readelf(path, "--dyn-syms"))
    assert sorted(shown) == ["PyInit__core", "ctserve_embed_main"]


APP = '''
import os, sys
def app(environ, start_response):
    body = (sys.modules["ctserve"].__file__ + "\\n").encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """`meson install` of this very build, into a folder of its own."""
    meson = shutil.which("meson")
    if meson is None or not (BUILD / "build.ninja").exists():
        pytest.skip("meson or its build folder is not here")
    stage = tmp_path_factory.mktemp("stage")
    done = subprocess.run([meson, "install", "-C", str(BUILD), "--no-rebuild", "--destdir", str(stage)],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = list(stage.rglob("bin/ctserve"))
    assert len(found) == 1, found
    # Moved away from where it was installed to: nothing in it may remember the place.
    moved = tmp_path_factory.mktemp("moved") / "prefix"
    shutil.move(found[0].parent.parent, moved)
    return moved


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["embed", "host"])
def test_an_installation_serves_with_traces_from_its_own_files(prefix, mode):
    with app_folder(APP) as folder:
        environment = {"CTSERVE_BUILD": "", "PYTHONPATH": ""}
        with Running(["--interpreter", mode, "--trace-api", "127.0.0.1:0", "app:app"], folder,
                     environment=environment, command=[prefix / "bin" / "ctserve"]) as server:
            server.ready()
            served_by = server.get().decode().strip()
            assert served_by.startswith(str(prefix) + os.sep)
            server.line("Traces at: ")
            assert server.agent() is not None
            program = os.readlink(f"/proc/{server.agent()}/exe")
            assert program == str(prefix / "bin" / "ctserve-agent")
            assert server.stop() == 0
    assert str(ROOT) not in served_by
