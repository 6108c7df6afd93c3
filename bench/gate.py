"""The gate: instruction counts that ./test holds.

`bench/run --store-instructions` measures ctserve alone, without the peers' venv, on Debian's
python3, and writes bench/instructions.json with the versions of the packages that decide the
counts. tests/speed measures the same rows again. With other packages the figures say nothing.
"""
import json
import re
import subprocess

import loads
import measures
import places
from loads import Load, get
from servers import ctserve

STORE = places.BENCH / "instructions.json"
PYTHON = "/usr/bin/python3"
ALLOWED = 1.03


class Options:
    """What contenders need to know, for the gate: hosted in Debian's python3."""

    def __init__(self, build):
        self.build, self.interpreter = build, "host"


def rows():
    """{row: (application, load)}"""
    import hello
    return {"hello": ("hello:app", Load(get())),
            "browser": ("hello:app", Load(loads.BROWSER)),
            "json": ("hello:routes", Load(get("/json"), body=hello.JSON_1K))}


def measure(build, name):
    """User instructions per request of one row, no tracing; measures.Failed when there is none."""
    app, load = rows()[name]
    return round(measures.instructions(ctserve(Options(build), python=PYTHON), app, load))


def packages():
    """Versions of everything that decides the counts: interpreter, compiler, valgrind, libc."""
    version = subprocess.run([PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
                             capture_output=True, text=True).stdout.strip()
    compiler = subprocess.run(["gcc", "-dumpversion"], capture_output=True, text=True).stdout
    number = re.match(r"\d*", compiler)[0]
    names = ["python3", f"python{version}-minimal", "gcc", f"gcc-{number}", "valgrind", "libc6", "libev4"]
    return {name: places.package_version(name) for name in names}


def stored():
    """{"packages": {...}, "instructions": {row: figure}}, or None when nothing was stored yet."""
    return json.loads(STORE.read_text()) if STORE.exists() else None


def store(build):
    figures = {name: measure(build, name) for name in rows()}
    STORE.write_text(json.dumps({"packages": packages(), "instructions": figures}, indent=4) + "\n")
    return figures


def verdict(name, now, before):
    """A sentence when `now` is more than 3 % above `before`, else None."""
    if now <= before * ALLOWED:
        return None
    return (f"row {name}: {now} instructions per request, stored are {before} "
            f"({100 * (now / before - 1):+.1f} %, allowed +3 %)")
