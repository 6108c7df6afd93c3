"""`python -m ctserve`: the server inside the python that is already running.

_core is taken from beside this package (an installation), else from the build folder named by
CTSERVE_BUILD, else from `build` of the checkout this package lies in.
"""

from __future__ import annotations

import os
import sys


def _core_candidates(suffix: str) -> list[str]:
    here = os.path.dirname(os.path.abspath(__file__))
    folders = [here]
    told = os.environ.get("CTSERVE_BUILD")
    if told:
        folders += [os.path.join(told, "src", "core"), told]
    folders.append(os.path.join(here, "..", "..", "build", "src", "core"))
    return [os.path.abspath(os.path.join(folder, "_core" + suffix)) for folder in folders]


def _agent_of(core: str) -> str:
    """Beside _core, or at the top of the build folder, or in the bin folder of an environment."""
    folder = os.path.dirname(core)
    places = [folder, os.path.join(folder, "..", ".."), os.path.join(sys.prefix, "bin")]
    if "site-packages" not in folder:
        # PREFIX/LIBDIR/ctserve/ctserve; LIBDIR has one part or two.
        places += [os.path.join(folder, "..", "..", "..", "bin"),
                   os.path.join(folder, "..", "..", "..", "..", "bin")]
    for place in places:
        agent = os.path.abspath(os.path.join(place, "ctserve-agent"))
        if os.access(agent, os.X_OK):
            return agent
    return os.path.abspath(os.path.join(places[0], "ctserve-agent"))


def main() -> int:
    """Run until the server ends. Returns its exit code; 1 when there is no _core for this python.

    Runs in: main thread. Source: `python -m gunicorn`.
    """
    import _imp

    suffix = _imp.extension_suffixes()[0]
    candidates = _core_candidates(suffix)
    for path in candidates:
        if os.path.exists(path):
            break
    else:
        print("ctserve: no _core%s for CPython %s (%s)\nlooked for: %s\n"
              "build one, or say where it is: CTSERVE_BUILD=/path/to/build"
              % (suffix, sys.version.split()[0], sys.executable, ", ".join(candidates)),
              file=sys.stderr)
        return 1
    from importlib.machinery import ExtensionFileLoader, ModuleSpec
    from importlib.util import module_from_spec

    import ctserve

    spec = ModuleSpec("ctserve._core", ExtensionFileLoader("ctserve._core", path), origin=path)
    spec.has_location = True
    core = module_from_spec(spec)
    sys.modules["ctserve._core"] = core
    spec.loader.exec_module(core)  # type: ignore[union-attr]
    ctserve._core = core  # type: ignore[attr-defined]
    return core.main(["ctserve"] + sys.argv[1:], "hosted", _agent_of(path), "")


if __name__ == "__main__":
    sys.exit(main())
