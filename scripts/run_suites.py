"""Run the test suites and print one line each; the last line counts.

Called by ./test inside the test environment. Every pytest suite runs as its own process with a
JUnit file in build-test/, every C unit test through `meson test`. How a run differs (interpreter
mode, another Python, a sanitizer build) is told to the tests by environment variables only:

    CTSERVE           the launcher under test
    CTSERVE_CMD_ARGS  --interpreter embed|host, --python PATH
    CTSERVE_BUILD     the build folder it comes from
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "build-test"

PYTEST_SUITES = ["layers", "settings", "wire", "lifecycle", "trace", "agent", "compat", "refs", "smoke"]
SUITES = ["layers", "unit"] + PYTEST_SUITES[1:]
# What a second interpreter mode or a sanitizer cannot change is run once.
ONCE_ONLY = {"layers", "unit", "agent"}
SUITE_LIMIT_S = 1500


class Result:
    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped
        self.reasons = {}
        self.failures = []


def junit(path):
    """Count one JUnit file. Skips carry their reasons; a broken file counts as one failure."""
    result = Result()
    try:
        cases = xml.etree.ElementTree.parse(path).getroot().iter("testcase")
    except (OSError, xml.etree.ElementTree.ParseError):
        return Result(failed=1)
    for case in cases:
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            result.failed += 1
            result.failures.append(name)
        elif skipped is not None:
            result.skipped += 1
            reason = (skipped.get("message") or "no reason").splitlines()[0]
            result.reasons[reason] = result.reasons.get(reason, 0) + 1
        else:
            result.passed += 1
    return result


def run_pytest(suite, label, environment, options):
    folder = ROOT / "tests" / suite
    if not any(folder.rglob("test_*.py")):
        return None
    junit_file = OUT / f"{label}.xml"
    junit_file.unlink(missing_ok=True)
    marks = []
    if options.quick:
        marks.append("not slow")
    if not options.nightly:
        marks.append("not nightly")
    command = [sys.executable, "-m", "pytest", "-q", "-x" if options.exitfirst else "--tb=short",
               "-p", "no:cacheprovider", "-o", "junit_family=xunit2", f"--junitxml={junit_file}",
               "-m", " and ".join(marks), str(folder)]
    with open(OUT / f"{label}.log", "wb") as log:
        try:
            code = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                  stdout=log, stderr=subprocess.STDOUT,
                                  timeout=SUITE_LIMIT_S).returncode
        except subprocess.TimeoutExpired:
            code = -1
    if code == 5:   # nothing selected
        return Result()
    result = junit(junit_file)
    if code not in (0, 1) and result.failed == 0:
        result.failed = 1
        result.failures.append(f"{suite}: pytest ended with {code}")
    return result


def run_unit(build, label, environment):
    """`meson test --suite unit`; TAP subtests count one each."""
    with open(OUT / f"{label}.log", "wb") as log:
        code = subprocess.run(["meson", "test", "-C", str(build), "--suite", "unit", "--no-rebuild",
                               "--num-processes", "2"], cwd=ROOT, env=environment,
                              stdout=log, stderr=subprocess.STDOUT).returncode
    result = Result()
    seen = False
    try:
        lines = (build / "meson-logs" / "testlog.json").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        seen = True
        test = json.loads(line)
        points = [one for one in (test.get("stdout") or "").splitlines()
                  if one.lstrip().startswith(("ok ", "not ok "))]
        good = sum(1 for one in points if one.lstrip().startswith("ok ") and "# SKIP" not in one)
        skip = sum(1 for one in points if "# SKIP" in one)
        bad = sum(1 for one in points if one.lstrip().startswith("not ok"))
        if test["result"] in ("OK", "EXPECTEDFAIL"):
            result.passed += max(good, 1)
            result.skipped += skip
        elif test["result"] == "SKIP":
            result.skipped += 1
            result.reasons[test["name"]] = 1
        else:
            result.passed += good
            result.failed += max(bad, 1)
            result.failures.append(f"{test['name']} ({test['result']})")
    if code != 0 and result.failed == 0 or not seen:
        result.failed += 1
        result.failures.append("meson test")
    return result


def is_shared(python):
    """Does this executable itself need libpython?"""
    answer = subprocess.run(["readelf", "-d", os.path.realpath(python)], capture_output=True, text=True)
    return "libpython" in answer.stdout


def has_libpython(python):
    """Is there a libpython beside a static executable (apt's libpython3.11)?"""
    code = ("import os, sysconfig as s; v = s.get_config_vars(); import sys\n"
            "n = v.get('INSTSONAME') or ''\n"
            "p = [os.path.join(d, n) for d in (v.get('LIBDIR'), '/usr/lib/' + (v.get('MULTIARCH') or ''))"
            " if d]\n"
            "sys.exit(0 if n.endswith(('.so', '.so.1.0')) and any(map(os.path.exists, p)) else 1)")
    return subprocess.run([python, "-I", "-S", "-c", code]).returncode == 0


def plan(options):
    """The runs: (label, suites, build folder, CTSERVE_CMD_ARGS, extra environment)."""
    pythons = options.pythons.split(",")
    default = pythons[0]
    chosen = [options.only] if options.only else SUITES
    repeated = [suite for suite in chosen if suite not in ONCE_ONLY]
    # The test environment's own python: the default interpreter plus the packages tests need.
    use_default = f"--python {sys.executable}"
    runs = []
    if not options.asan:
        first, second = ("embed", "host") if is_shared(default) else ("host", "embed")
        runs.append((first, chosen, "build", f"--interpreter {first} {use_default}", {}))
        if not options.quick:
            if second == "host" or has_libpython(default):
                runs.append((second, repeated, "build", f"--interpreter {second} {use_default}", {}))
            else:
                print(f"{second:28} skipped: {default} has no libpython beside it")
            for python in pythons[1:]:
                version = subprocess.run([python, "-I", "-S", "-c", "import sys; print(sys.version.split()[0])"],
                                         capture_output=True, text=True).stdout.strip()
                name = "py" + version + ("-debian" if python.startswith("/usr/bin") else "")
                suites = [suite for suite in ("smoke", "refs") if suite in chosen]
                runs.append((name, suites, "build", f"--python {python}", {}))
    if options.asan or not (options.quick or options.only):
        if is_shared(default) or has_libpython(default):
            sanitized = {"PYTHONMALLOC": "malloc",
                         "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:exitcode=99:log_path="
                                         + str(OUT / "asan-report"),
                         "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
                         "CTSERVE_SANITIZED": "1"}
            # Agent and unit tests are worth it here: they are our own C.
            suites = [suite for suite in chosen if suite not in ("layers",)]
            runs.append(("asan", suites, "build-asan", f"--interpreter embed {use_default}", sanitized))
        else:
            print("asan                         skipped: no libpython to embed")
        if (ROOT / "build-tsan" / "build.ninja").exists():
            runs.append(("tsan", ["unit"], "build-tsan", "",
                         {"TSAN_OPTIONS": f"suppressions={ROOT}/tests/tsan.supp:exitcode=99"}))
    return runs


def sanitizer_reports():
    return sorted(str(path.relative_to(ROOT)) for path in OUT.glob("asan-report*"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pythons", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--asan", action="store_true")
    parser.add_argument("--nightly", action="store_true")
    parser.add_argument("--exitfirst", action="store_true")
    parser.add_argument("--only", choices=SUITES)
    options = parser.parse_args()

    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    total = Result()
    for label, suites, build, arguments, extra in plan(options):
        for suite in suites:
            environment = {**os.environ, **extra, "CTSERVE": str(ROOT / build / "ctserve"),
                           "CTSERVE_BUILD": str(ROOT / build), "CTSERVE_CMD_ARGS": arguments.strip(),
                           "PYTHONDONTWRITEBYTECODE": "1"}
            for name in ("GUNICORN_CMD_ARGS", "VIRTUAL_ENV", "PORT", "WEB_CONCURRENCY"):
                environment.pop(name, None)
            started = time.monotonic()
            name = f"{suite}-{label}"
            if suite == "unit":
                result = run_unit(ROOT / build, name, environment)
            else:
                result = run_pytest(suite, name, environment, options)
            if result is None:
                continue
            reports = sanitizer_reports()
            if label == "asan" and reports:
                result.failed += len(reports)
                result.failures += reports
                for report in reports:
                    os.rename(ROOT / report, ROOT / report.replace("asan-report", f"{name}.report"))
            spent = time.monotonic() - started
            print(f"{suite:10} {label:16} {result.passed:5} passed {result.failed:4} failed "
                  f"{result.skipped:4} skipped {spent:7.1f} s", flush=True)
            for reason, count in sorted(result.reasons.items()):
                print(f"    skipped {count}: {reason}")
            for failure in result.failures[:20]:
                print(f"    FAILED {failure}   (build-test/{name}.log)", flush=True)
            total.passed += result.passed
            total.failed += result.failed
            total.skipped += result.skipped
    skipped = f", {total.skipped} skipped" if total.skipped else ""
    print(f"{total.passed} passed, {total.failed} failed{skipped}")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
