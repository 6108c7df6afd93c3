"""The rooms, their doors, and who opens which: read from every #include, on every run.

Runs by itself (python3 tests/layers/test_layers.py prints the picture, exit 1 on a breach) and
under pytest. The table is section 2 of docs/architecture.md, written down for a machine.
"""
import functools
import pathlib
import re
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

# A door is a header in include/ctserve/; it belongs to one room.
DOORS = {
    "base": ["base.h", "buffer.h", "error.h", "log.h", "list.h", "json.h", "settings.h",
             "settings.def", "gateway.h", "launch.h"],
    "http": ["http.h"],
    "tracing": ["tracing.h", "slot.h", "slot_read.h", "agent_wire.h"],
    "python": ["python.h"],
    "wsgi": ["wsgi.h"],
    "server": ["entry.h"],
}
OWNER = {door: room for room, doors in DOORS.items() for door in doors}

# Whose doors a room may open; its own always. Arrows point down, never sideways, never up.
OPENS = {
    "base": [],
    "http": ["base"],
    "tracing": ["base"],
    "python": ["base", "tracing"],
    "wsgi": ["base", "http", "tracing", "python"],
    "server": ["base", "http", "tracing"],
    "agent": ["base", "http", "tracing"],
    "launcher": ["base"],
}

# Single steps outside of that: (file or room, door) with the reason.
EXCEPTIONS = {
    ("src/python", "entry.h"): "the fronts of the interpreter begin a process of ours there",
    ("src/server/main.c", "wsgi.h"): "main.c knows every room and decides nothing",
    ("include/ctserve/gateway.h", "http.h"): "the gateway table is neutral ground",
    ("include/ctserve/gateway.h", "tracing.h"): "the gateway table is neutral ground",
}

# System headers and words that only some places may use: pattern, places, why.
FENCES = [
    ("include", r"(Python|structmember|frameobject|pythread|internal/pycore_\w+)\.h",
     ["src/python/", "src/wsgi/", "include/ctserve/python.h"], "only python and wsgi know CPython"),
    ("include", r"ev\.h", ["src/server/", "src/agent/"], "only server and agent turn a loop"),
    ("include", r"grpc/.*", ["src/agent/"], "only the agent knows gRPC"),
    ("include", r"(curl/.*|sqlite3\.h|protobuf-c/.*)", ["src/agent/"], "only the agent exports"),
    ("include", r"(sys/socket|netinet/.*)(\.h)?",
     ["src/base/", "src/tracing/wire.c", "src/tracing/agent_wire.c", "src/server/", "src/agent/",
      "src/python/"], "http and tracing have no sockets"),
    ("word", r"\bgrpc_\w+", ["src/agent/"], "only the agent knows gRPC"),
    ("word", r"\b(v?fork|_Fork|clone3?|daemon)\s*\(", ["src/server/fork.c"],
     "one file forks, and it is src/server/fork.c"),
    ("word", r"\b(SYS|__NR)_(v?fork|clone3?)\b", ["src/server/fork.c"],
     "one file forks, and it is src/server/fork.c"),
]

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]', re.M)
NOISE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'', re.S)


def sources(root):
    for top in ("src", "include"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix in (".c", ".h", ".def") and path.is_file():
                yield path, path.relative_to(root).as_posix()


def room_of(name):
    parts = name.split("/")
    if parts[0] == "src":
        return parts[1]
    return OWNER.get(parts[-1])


def may_open(name, room, door):
    owner = OWNER[door]
    if door == "python.h" and room == "server":
        return False
    if owner == room or owner in OPENS.get(room, []):
        return True
    return any(door == allowed and (name == place or name.startswith(place + "/"))
               for place, allowed in EXCEPTIONS)


def check_door(name, room, target, arrows):
    door = target.removeprefix("ctserve/")
    if door not in OWNER:
        return f"{name}: opens {target}, which no room owns (add it to the table of doors)"
    if not may_open(name, room, door):
        return f"{name}: opens {target}, a door of {OWNER[door]}, which {room} may not open"
    if OWNER[door] != room:
        arrows.setdefault(room, {}).setdefault(OWNER[door], set()).add(door)
    return None


def check_include(root, path, name, room, kind, target, arrows):
    """One #include: the sentence that says what is wrong, or None."""
    if target.startswith("ctserve/"):
        return check_door(name, room, target, arrows)
    if kind == "<":
        return None
    if "/" in target:
        return f"{name}: opens {target}: other rooms are entered through include/ctserve/ only"
    if not (path.parent / target).exists() and not target.endswith(".pb-c.h"):
        return f"{name}: opens {target}, which does not stand in its room"
    return None


@functools.cache   # thirty planted trees differ from ours in one file each
def check_fences(name, text):
    return tuple(breaches_of_fences(name, text))


def breaches_of_fences(name, text):
    includes = [target for _kind, target in INCLUDE.findall(text)]
    words = NOISE.sub(" ", text)
    for kind, pattern, places, why in FENCES:
        if any(name.startswith(place) for place in places):
            continue
        if kind == "include":
            found = next((target for target in includes if re.fullmatch(pattern, target)), None)
        else:
            match = re.search(pattern, words)
            found = match and match.group(0)
        if found:
            yield f"{name}: uses {found}: {why}"


def look(root):
    """(breaches, arrows): sentences that name file and door; room -> room -> doors opened."""
    breaches, arrows = [], {}
    for path, name in sources(root):
        text = path.read_text(encoding="utf-8")
        room = room_of(name)
        if room is None or (name.startswith("src/") and room not in (*OPENS, "core")):
            breaches.append(f"{name}: stands in no room")
            continue
        for kind, target in INCLUDE.findall(text):
            breach = check_include(root, path, name, room, kind, target, arrows)
            if breach:
                breaches.append(breach)
        breaches.extend(check_fences(name, text))
    fork_file = root / "src/server/fork.c"
    if fork_file.exists():
        text = NOISE.sub(" ", fork_file.read_text(encoding="utf-8"))
        if not re.search(r"\bfork\s*\(", text):
            breaches.append("src/server/fork.c: does not fork any more; where does?")
    return breaches, arrows


def picture(root, arrows):
    lines = []
    for room in OPENS:
        files = len(list((root / "src" / room).rglob("*.[ch]")))
        lines.append(f"{room:<9} {files:>3} files")
        for owner in OPENS:
            doors = arrows.get(room, {}).get(owner)
            if doors:
                lines.append(f"          |-> {owner:<8} {' '.join(sorted(doors))}")
    return "\n".join(lines)


# -- tests -------------------------------------------------------------------------------------
def plant(tmp, name, text):
    """A copy of the tree with `text` added to the file `name`; returns what the look finds new."""
    copy = pathlib.Path(tmp) / "tree"
    for top in ("src", "include"):
        shutil.copytree(ROOT / top, copy / top)
    before = look(copy)[0]
    target = copy / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target, "a", encoding="utf-8") as file:
        file.write("\n" + text + "\n")
    return [breach for breach in look(copy)[0] if breach not in before]


PLANTED = [
    ("base opens tracing", "src/base/planted.c", '#include "ctserve/tracing.h"', "ctserve/tracing.h"),
    ("base opens the server's entry", "src/base/planted.c", '#include "ctserve/entry.h"',
     "ctserve/entry.h"),
    ("http opens tracing", "src/http/planted.c", '#include "ctserve/tracing.h"',
     "ctserve/tracing.h"),
    ("http opens sockets", "src/http/planted.c", "#include <sys/socket.h>", "sys/socket.h"),
    ("http turns a loop", "src/http/planted.c", "#include <ev.h>", "ev.h"),
    ("tracing opens http", "src/tracing/planted.c", '#include "ctserve/http.h"', "ctserve/http.h"),
    ("tracing knows CPython", "src/tracing/planted.c", "#include <Python.h>", "Python.h"),
    ("python opens wsgi", "src/python/planted.c", '#include "ctserve/wsgi.h"', "ctserve/wsgi.h"),
    ("python turns a loop", "src/python/planted.c", "#include <ev.h>", "ev.h"),
    ("wsgi opens the server", "src/wsgi/planted.c", '#include "ctserve/entry.h"',
     "ctserve/entry.h"),
    ("server opens python.h", "src/server/planted.c", '#include "ctserve/python.h"',
     "ctserve/python.h"),
    ("main.c opens python.h", "src/server/main.c", '#include "ctserve/python.h"',
     "ctserve/python.h"),
    ("server meets Python.h", "src/server/planted.c", "  #  include <Python.h>", "Python.h"),
    ("server opens wsgi outside of main.c", "src/server/planted.c", '#include "ctserve/wsgi.h"',
     "ctserve/wsgi.h"),
    ("agent opens python.h", "src/agent/planted.c", '#include "ctserve/python.h"',
     "ctserve/python.h"),
    ("launcher opens http", "src/launcher/planted.c", '#include "ctserve/http.h"',
     "ctserve/http.h"),
    ("a door opens upwards", "include/ctserve/base.h", '#include "ctserve/gateway.h"\n'
     '#include "ctserve/tracing.h"', "ctserve/tracing.h"),
    ("a side entrance", "src/wsgi/planted.c", '#include "../server/worker.h"', "../server/worker.h"),
    ("a header of another room", "src/http/planted.c", '#include "control.h"', "control.h"),
    ("a door that nobody owns", "include/ctserve/planted.h", "int planted;", "planted.h"),
    ("a room that nobody knows", "src/cellar/planted.c", "int planted;", "src/cellar/planted.c"),
    ("grpc in the server", "src/server/planted.c", "void f(void) { grpc_init(); }", "grpc_init"),
    ("a grpc header in tracing", "src/tracing/planted.c", "#include <grpc/grpc.h>", "grpc/grpc.h"),
    ("fork in the server", "src/server/planted.c", "int f(void) { return fork (); }", "fork ("),
    ("vfork in the agent", "src/agent/planted.c", "int f(void) { return vfork(); }", "vfork("),
    ("clone in python", "src/python/planted.c", "int f(void) { return clone(0, 0, 0, 0); }",
     "clone("),
    ("a fork by number", "src/base/planted.c", "long f(void) { return syscall(SYS_clone, 0); }",
     "SYS_clone"),
]


def test_every_include_opens_a_door_its_room_may_open():
    breaches, arrows = look(ROOT)
    print(picture(ROOT, arrows))
    assert not breaches, "\n".join(breaches)
    assert "base" in arrows.get("server", {}), "the look saw no arrow from server to base"


def test_a_planted_breach_of_each_kind_is_caught_and_named():
    missed = []
    for what, name, text, door in PLANTED:
        with tempfile.TemporaryDirectory() as tmp:
            found = plant(tmp, name, text)
        if not any(name in breach and door in breach for breach in found):
            missed.append(f"{what}: {found}")
    assert not missed, "\n".join(missed)


def test_words_in_comments_and_strings_and_lawful_neighbours_are_no_breach():
    for name, text in [
        ("src/base/planted.c", '/* fork() and grpc_init() */ const char *t = "fork(";'),
        ("src/server/planted.c", "void f(void) { gateway->before_fork(); PyOS_AfterFork(); }"),
        ("src/server/fork.c", "int again(void) { return fork(); }"),
        ("src/agent/planted.c", "#include <grpc/grpc.h>\n#include <ev.h>"),
        ("src/server/main.c", '#include "ctserve/wsgi.h"'),
        ("src/wsgi/planted.c", '#include "ctserve/python.h"'),
    ]:
        with tempfile.TemporaryDirectory() as tmp:
            assert plant(tmp, name, text) == [], name


def main():
    breaches, arrows = look(ROOT)
    print(picture(ROOT, arrows))
    for breach in breaches:
        print("BREACH", breach)
    test_a_planted_breach_of_each_kind_is_caught_and_named()
    test_words_in_comments_and_strings_and_lawful_neighbours_are_no_breach()
    print(f"{len(breaches)} breaches; {len(PLANTED)} planted ones were caught")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
