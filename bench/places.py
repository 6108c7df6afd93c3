"""Where things are, and what the bench is made of: the checkout, the peers and their versions."""
import functools
import os
import pathlib
import platform
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
APPS = BENCH / "apps"
VENV = ROOT / ".venv-bench"
PYTHON = VENV / "bin" / "python"
NGINX_FOLDER = VENV / "nginx"

# fastwsgi imports pkg_resources, which newer setuptools no longer have.
PACKAGES = ["setuptools<80", "wheel", "gunicorn==27.0.1", "granian==2.8.7", "fastwsgi==0.0.9",
            "bjoern==3.2.2", "uWSGI==2.0.31", "waitress==3.0.2", "Flask==3.1.3", "Django==5.2.19",
            "pyramid==2.1"]
TOOLS = {"valgrind": "valgrind", "vgdb": "valgrind", "strace": "strace", "wrk": "wrk",
         "taskset": "util-linux", "dpkg-query": "dpkg"}


def note(line):
    """Something the person should know that is no figure."""
    print(f"          {line}", file=sys.stderr, flush=True)


def prepare(options):
    """Check tools and build, make the venv of the peers. Ends the program with a sentence when
    something that cannot be left out is missing."""
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    if missing:
        sys.exit(f"bench/run needs more tools: apt-get install {' '.join(missing)}")
    if not (options.build / "ctserve").exists():
        sys.exit(f"there is no {options.build}/ctserve yet: run ./demo --build first")
    make_venv(options.python)


def make_venv(python):
    """The peers and frameworks in a venv of `python`; one that cannot be installed is left out
    with a line. A venv made for the same list and interpreter is kept."""
    marker = VENV / ".made-for"
    wanted = python + " " + " ".join(PACKAGES)
    if marker.exists() and marker.read_text() == wanted:
        return
    print(f"making {VENV.name} for {python} (once; uWSGI is compiled)", flush=True)
    shutil.rmtree(VENV, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(VENV)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for package in PACKAGES:
        done = subprocess.run(pip + [package], capture_output=True, text=True, timeout=900)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
            note(f"{package} could not be installed and is left out: {reason}")
    unpack_nginx()
    marker.write_text(wanted)


def unpack_nginx():
    """nginx out of its Debian package, unpacked and not installed: no service starts, no root."""
    if shutil.which("nginx"):
        return
    NGINX_FOLDER.mkdir(exist_ok=True)
    steps = (["apt-get", "-q", "download", "nginx"], ["sh", "-c", "dpkg-deb -x nginx_*.deb ."])
    for step in steps:
        if subprocess.run(step, cwd=NGINX_FOLDER, capture_output=True).returncode != 0:
            note("nginx could not be had from apt and is left out")
            return


def nginx():
    """Path of an nginx that runs, or None."""
    for path in (shutil.which("nginx"), NGINX_FOLDER / "usr" / "sbin" / "nginx"):
        if path and subprocess.run([str(path), "-v"], capture_output=True).returncode == 0:
            return str(path)
    return None


@functools.lru_cache(maxsize=1)
def installed():
    """Versions of what the venv has: {"gunicorn": "27.0.1", ...}, names in lower case."""
    code = ("import importlib.metadata as m\n"
            "for d in m.distributions(): print(d.metadata['Name'].lower(), d.version)")
    out = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in out.splitlines())


def package_version(name):
    """Version of an installed Debian package, or None."""
    out = subprocess.run(["dpkg-query", "-W", "-f=${Version}", name], capture_output=True, text=True)
    return out.stdout.strip() or None


def interpreter(python):
    """What a person calls this interpreter: its version, compiler, and package or place."""
    version = text_of([python, "-c", "import sys; print(sys.version.replace(chr(10), ' '))"])
    package = f", Debian's python3 {package_version('python3')}" if python == "/usr/bin/python3" else ""
    return f"{python}: {version}{package}"


def versions(options):
    """Everything a figure depends on, as (name, version) in a fixed order; no time of day."""
    found = [("interpreter of every server", interpreter(options.python)),
             ("ctserve", f"{text_of([str(options.build / 'ctserve'), '--version'])}, "
                         f"--interpreter {options.interpreter}")]
    peers = [f"{name} {installed()[name]}" for name in
             (package.split("=")[0].split("<")[0].lower() for package in PACKAGES[2:])
             if name in installed()]
    if nginx():
        peers.append("nginx " + text_of([nginx(), "-v"]).rpartition("/")[2])
    found.append(("peers and frameworks", ", ".join(peers)))
    tools = [f"{name} {package_version(name)}" for name in ("gcc", "valgrind", "strace", "wrk")]
    found.append(("tools", ", ".join(tools)))
    found.append(("machine", f"{cpu_name()}, {os.cpu_count()} CPUs, Linux {platform.release()}"))
    return found


def text_of(command):
    out = subprocess.run(command, capture_output=True, text=True)
    return (out.stdout + out.stderr).strip()


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
