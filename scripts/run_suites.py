"""Run the test suites and print one line each; the last line counts.

Called by ./test inside the test environment. Every pytest suite runs as its own process with a
JUnit file in build-test/, every C unit test through `meson test`. How a run differs (interpreter
mode, another Python, a sanitizer build) is told to the tests by environment variables only:

    CTSERVE           the launcher under test
    CTSERVE_CMD_ARGS  --interpreter embed|host, --python PATH
    CTSERVE_BUILD     the build folder it comes from
    CTSERVE_REFS      which interpreters tests/refs measures: chosen, embed, host (the last two
                      mean the debug build that PYDEBUG names)

Most of a process-level suite is waiting, so suites run side by side and pytest-xdist spreads each
over a few processes. Suites that measure times or kill under load have the machine to themselves.
"""
import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "build-test"

PYTEST_SUITES = ["layers", "settings", "wire", "lifecycle", "trace", "agent", "compat", "refs", "smoke",
                 "faults", "differential", "speed"]
SUITES = ["layers", "unit"] + PYTEST_SUITES[1:]
# What a second interpreter mode or a sanitizer cannot change is run once.
ONCE_ONLY = {"layers", "unit", "agent", "faults", "differential", "speed"}
#: Processes per suite; what is not named has one. The longest start first.
WIDTHS = {"lifecycle": 3, "wire": 3, "agent": 2, "settings": 2, "compat": 2, "trace": 2, "refs": 2,
          "differential": 2}
ORDER = ["lifecycle", "agent", "wire", "faults", "differential", "unit", "settings", "compat", "layers", "refs", "smoke"]
QUICK_WIDTHS = {"lifecycle": 2, "wire": 2}
#: Kills under load and measured times: these run when nothing else does.
ALONE = {"trace"}
SLOTS = 8
FUZZ_TARGETS = ["parser", "chunked", "connection", "head-lean", "chunked-lean", "ring",
                "proxy", "switches"]
SUITE_LIMIT_S = 900
NIGHTLY_LIMIT_S = 4 * 3600


class Result:
    def __init__(self, passed=0, failed=0, skipped=0, reasons=None):
        self.passed, self.failed, self.skipped = passed, failed, skipped
        self.reasons = reasons or {}
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


class Groups:
    """The process groups we started and that may still run; all are ended when we are."""

    def __init__(self):
        self.lock = threading.Lock()
        self.running = set()
        self.ended = False

    def run(self, command, log_path, environment, limit_s):
        """Run to its end or the limit; the exit code, or None when it had to be ended."""
        with open(log_path, "wb") as log:
            with self.lock:
                if self.ended:
                    return None
                process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log,
                                           stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT,
                                           start_new_session=True)
                self.running.add(process.pid)
            try:
                return process.wait(limit_s)
            except subprocess.TimeoutExpired:
                log.write(b"\nended: longer than %d s\n" % limit_s)
                return None
            finally:
                # Also what a test left behind; the group is ours, nobody else can be in it.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                with self.lock:
                    self.running.discard(process.pid)

    def end(self):
        with self.lock:
            self.ended = True
            for pid in self.running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)


GROUPS = Groups()


def width_of(suite, options):
    """Few tests are not worth the start of many processes."""
    if options.quick:
        return QUICK_WIDTHS.get(suite, 1)
    return WIDTHS.get(suite, 1)


def run_pytest(suite, label, environment, options):
    folder = ROOT / "tests" / suite
    if not any(folder.rglob("test_*.py")):
        return None
    junit_file = OUT / f"{label}.xml"
    marks = []
    if options.quick:
        marks.append("not slow")
        environment = {**environment, "CTSERVE_QUICK": "1"}   # see tests/quick.py
    if not options.nightly:
        marks.append("not nightly")
    # A test that hangs tells where, before the whole suite is ended.
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--durations=15",
               "-p", "no:cacheprovider", "-o", "faulthandler_timeout=240",
               "-o", "junit_family=xunit2", f"--junitxml={junit_file}"]
    if marks:
        command += ["-m", " and ".join(marks)]
    if width_of(suite, options) > 1:
        command += ["-n", str(width_of(suite, options)), "--dist", "worksteal"]
    limit_s = NIGHTLY_LIMIT_S if options.nightly else SUITE_LIMIT_S
    code = GROUPS.run(command + [str(folder)], OUT / f"{label}.log", environment, limit_s)
    if code == 5:   # nothing selected
        return Result()
    if code is None:
        result = junit(junit_file) if junit_file.exists() else Result()
        result.failed += 1
        result.failures.append(f"{suite}: ended, it took longer than {limit_s} s")
        return result
    result = junit(junit_file)
    if code not in (0, 1) and result.failed == 0:
        result.failed = 1
    if code not in (0, 1):
        result.failures.append(f"{suite}: pytest ended with {code}")
    return result


def run_unit(build, label, environment):
    """`meson test --suite unit`; TAP subtests count one each."""
    told = build / "meson-logs" / "testlog.json"
    told.unlink(missing_ok=True)
    code = GROUPS.run(["meson", "test", "-C", str(build), "--suite", "unit", "--no-rebuild",
                       "--num-processes", "2"], OUT / f"{label}.log", environment, SUITE_LIMIT_S)
    result = Result()
    seen = False
    try:
        lines = told.read_text().splitlines()
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
            if skip:
                result.reasons[f"said by {test['name']}"] = skip
        elif test["result"] == "SKIP":
            result.skipped += 1
            result.reasons[f"{test['name']} as a whole"] = 1
        else:
            result.passed += good
            result.failed += max(bad, 1)
            result.failures.append(f"{test['name']} ({test['result']})")
    if code != 0 and result.failed == 0 or not seen:
        result.failed += 1
        result.failures.append(f"meson test ended with {code}")
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


def run_fuzz(label, environment):
    """Every fuzz target for a while; each counts one."""
    result = Result()
    seconds = int(os.environ.get("CTSERVE_FUZZ_SECONDS", "600"))
    if not shutil.which("clang-14"):
        return Result(skipped=len(FUZZ_TARGETS), reasons={"no clang-14": len(FUZZ_TARGETS)})
    for target in FUZZ_TARGETS:
        code = GROUPS.run([str(ROOT / "fuzz" / "run"), target, str(seconds)],
                          OUT / f"{label}-{target}.log", environment, seconds + 300)
        if code == 0:
            result.passed += 1
        else:
            result.failed += 1
            result.failures.append(f"fuzz {target} ended with {code} (build-test/{label}-{target}.log)")
    return result


def asked(python, code):
    return subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True).stdout.strip()


def is_debug(python):
    return asked(python, "import sys; print(hasattr(sys, 'gettotalrefcount'))") == "True"


class Run:
    """All suites that share a label: one build folder, one interpreter, one environment."""

    def __init__(self, label, suites, build, arguments, extra=None):
        self.label, self.build, self.arguments = label, build, arguments
        self.suites = sorted(suites, key=lambda one: ORDER.index(one) if one in ORDER else 99)
        self.extra = {"CTSERVE_REFS": "chosen", **(extra or {})}

    def environment(self, name):
        extra = {key: value.replace("@NAME@", name) for key, value in self.extra.items()}
        found = {**os.environ, **extra, "CTSERVE": str(ROOT / self.build / "ctserve"),
                 "CTSERVE_BUILD": str(ROOT / self.build), "CTSERVE_CMD_ARGS": self.arguments,
                 "PYTHONDONTWRITEBYTECODE": "1"}
        for variable in ("GUNICORN_CMD_ARGS", "VIRTUAL_ENV", "PORT", "WEB_CONCURRENCY"):
            found.pop(variable, None)
        return found


def plan(options):
    """The runs, and the sentences about what is not run."""
    pythons = options.pythons.split(",")
    default = pythons[0]
    chosen = [options.only] if options.only else SUITES
    repeated = [suite for suite in chosen if suite not in ONCE_ONLY]
    # The test environment's own python: the default interpreter plus the packages tests need.
    use_default = f"--python {sys.executable}"
    embeds = is_shared(default) or has_libpython(default)
    runs, notes = [], []
    if not options.asan:
        first, second = ("embed", "host") if is_shared(default) else ("host", "embed")
        runs.append(Run(first, chosen, "build", f"--interpreter {first} {use_default}"))
        if options.quick:
            notes.append("left to the full run: the other interpreter mode, the other Pythons, the "
                         "debug build of CPython, the sanitizers, the tests marked slow")
        else:
            if second == "host" or embeds:
                runs.append(Run(second, repeated, "build", f"--interpreter {second} {use_default}"))
            else:
                notes.append(f"no {second}: {default} has no libpython beside it")
            others = [one for one in pythons[1:] if not is_debug(one)]
            for python in others:
                version = asked(python, "import sys; print(sys.version.split()[0])")
                name = "py" + version + ("-debian" if python.startswith("/usr/bin") else "")
                runs.append(Run(name, [one for one in ("smoke", "refs") if one in chosen], "build",
                                f"--python {python}"))
            for python in [one for one in pythons[1:] if is_debug(one)][:1]:
                refs = "embed,host" if has_libpython(python) else "host"
                runs.append(Run("pydebug", [one for one in ("smoke", "refs") if one in chosen],
                                "build", f"--python {python}",
                                {"PYDEBUG": python, "CTSERVE_REFS": refs}))
            if not any(is_debug(one) for one in pythons):
                notes.append("no debug build of CPython found: reference counts are not measured "
                             "(Debian: apt install python3-dbg)")
    if options.asan or not (options.quick or options.only):
        if embeds:
            # One report file per suite and process, so that suites can run side by side.
            sanitized = {"PYTHONMALLOC": "malloc",
                         # A worker sets its handlers back to the defaults; ASan keeps these (2).
                         "ASAN_OPTIONS": f"detect_leaks=1:abort_on_error=0:exitcode=99:"
                                         f"handle_segv=2:handle_sigbus=2:handle_sigill=2:"
                                         f"handle_sigfpe=2:log_path={OUT}/@NAME@.report",
                         "CTSERVE_SANITIZED": "1"}
            # The agent and the unit tests are worth it here: they are our own C. The memory blocks
            # that refs counts without a debug Python do not exist under PYTHONMALLOC=malloc.
            suites = [suite for suite in chosen if suite not in ("layers", "refs")]
            runs.append(Run("asan", suites, "build-asan", f"--interpreter embed {use_default}", sanitized))
        else:
            notes.append("no asan: no libpython to embed")
        # Only what needs no interpreter: rings, the agent, a worker whose gateway is written in C.
        suites = [suite for suite in ("unit", "agent", "wire") if suite in chosen]
        if (ROOT / "build-tsan" / "build.ninja").exists() and suites:
            runs.append(Run("tsan", suites, "build-tsan", "",
                            {"TSAN_OPTIONS": f"suppressions={ROOT}/tests/tsan.supp:exitcode=99:"
                                             f"log_path={OUT}/@NAME@.report",
                             "CTSERVE_SANITIZED": "1", "CTSERVE_TSAN": "1"}))
    if options.nightly and not options.only:
        runs.append(Run("nightly", ["fuzz"], "build", ""))
    return runs, notes


class Lanes:
    """At most SLOTS test processes at a time, and one suite alone when it must be."""

    def __init__(self):
        self.free = SLOTS
        self.changed = threading.Condition()

    def take(self, width):
        with self.changed:
            self.changed.wait_for(lambda: self.free >= width)
            self.free -= width

    def give(self, width):
        with self.changed:
            self.free += width
            self.changed.notify_all()


def run_one(run, suite, options):
    """One suite of one run; (Result, seconds), or None when there is no such suite."""
    name = f"{suite}-{run.label}"
    started = time.monotonic()
    if suite == "fuzz":
        result = run_fuzz(name, run.environment(name))
    elif suite == "unit":
        result = run_unit(ROOT / run.build, name, run.environment(name))
    else:
        result = run_pytest(suite, name, run.environment(name), options)
    if result is None:
        return None
    for report in sorted(OUT.glob(f"{name}.report*")):
        result.failed += 1
        result.failures.append(f"a sanitizer wrote {report.relative_to(ROOT)}")
    return result, time.monotonic() - started


def tell(run, suite, result, spent):
    print(f"{suite:10} {run.label:16} {result.passed:5} passed {result.failed:4} failed "
          f"{result.skipped:4} skipped {spent:7.1f} s", flush=True)
    for failure in result.failures[:20]:
        print(f"    FAILED {failure}   (build-test/{suite}-{run.label}.log)", flush=True)
    if len(result.failures) > 20:
        print(f"    and {len(result.failures) - 20} more", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pythons", required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--asan", action="store_true")
    parser.add_argument("--nightly", action="store_true")
    parser.add_argument("--only", choices=SUITES)
    options = parser.parse_args()

    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    started = time.monotonic()
    runs, notes = plan(options)
    total, reasons = Result(), {}
    lanes, said = Lanes(), threading.Lock()

    def job(run, suite, width):
        try:
            try:
                done = run_one(run, suite, options)
            finally:
                lanes.give(width)
        except Exception as error:   # a fault of this script is a failure, not a silence
            done = Result(failed=1), 0.0
            done[0].failures.append(f"{suite}: {error!r}")
        if done is None:
            return
        with said:
            tell(run, suite, *done)
            result = done[0]
            total.passed += result.passed
            total.failed += result.failed
            total.skipped += result.skipped
            for reason, count in result.reasons.items():
                reasons.setdefault(reason, {}).setdefault(suite, 0)
                reasons[reason][suite] += count

    def interrupted(signo, _):
        GROUPS.end()
        sys.exit(128 + signo)

    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)
    alone = set() if options.quick else ALONE
    jobs = [(run, suite, SLOTS if suite in alone else width_of(suite, options))
            for run in runs for suite in run.suites]
    # Two suites of the same build folder and name never meet: a label is one run of each.
    jobs.sort(key=lambda one: one[1] in alone)
    threads = []
    for run, suite, width in jobs:
        lanes.take(width)
        thread = threading.Thread(target=job, args=(run, suite, width), daemon=True)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()
    for reason, suites in sorted(reasons.items()):
        where = ", ".join(f"{suite} {count}" for suite, count in sorted(suites.items()))
        print(f"skipped {sum(suites.values())} ({where}): {reason}")
    for note in notes:
        print(f"note: {note}")
    print(f"took {time.monotonic() - started:.0f} s")
    skipped = f", {total.skipped} skipped" if total.skipped else ""
    print(f"{total.passed} passed, {total.failed} failed{skipped}", flush=True)
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
