"""One pytest suite for `meson test --suite NAME`: meson_suite.py NAME BUILD_FOLDER.

Uses .venv-test, which ./test makes; without it the suite skips (exit code 77) and says so.
"""
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main():
    suite, build = sys.argv[1:]
    python = ROOT / ".venv-test" / "bin" / "python"
    if not python.exists():
        print("there is no .venv-test yet: run ./test once, it makes it")
        return 77
    os.environ.setdefault("CTSERVE", str(pathlib.Path(build) / "ctserve"))
    os.environ.setdefault("CTSERVE_BUILD", build)
    os.environ.setdefault("CTSERVE_CMD_ARGS", f"--python {python}")
    os.chdir(ROOT)
    os.execv(python, [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m",
                      "not slow and not nightly", f"tests/{suite}"])


if __name__ == "__main__":
    sys.exit(main())
