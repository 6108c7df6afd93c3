# lib.sh - what ./demo and ./test share: packages, interpreters, build folders, virtual
# environments. POSIX sh, sourced; `root` is the checkout.

# -- packages ---------------------------------------------------------------------------------
packages_for_build="gcc libc6-dev meson ninja-build pkg-config libev-dev libgrpc-dev \
libprotobuf-c-dev protobuf-c-compiler libcurl4-openssl-dev libsqlite3-dev ca-certificates"

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s\n' "$*" >&2
    exit 1
}

# Which of the named packages are not installed?
packages_missing() {
    for package in "$@"; do
        # A status of "install ok installed" is the only good one.
        status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null) || status=""
        [ "$status" = "install ok installed" ] || printf '%s ' "$package"
    done
}

# Install what is missing of the named packages; the list is printed first. $apt is yes or no.
packages_need() {
    missing=$(packages_missing "$@")
    [ -n "$missing" ] || return 0
    say "missing packages: $missing"
    if [ "$apt" != yes ]; then
        die "Not installing them (--no-apt). Run: apt-get install $missing"
    fi
    command -v apt-get >/dev/null 2>&1 || die "This machine has no apt-get; install them by hand."
    as_root=""
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "Neither root nor sudo: run as root or install them by hand."
        as_root=sudo
    fi
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq >/dev/null ||
        die "apt-get update failed; see above."
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $missing >/dev/null || die "apt-get install failed; see above."
}

# -- interpreters -----------------------------------------------------------------------------
# The real executable behind a name (a pyenv shim is a script), or nothing.
python_real() {
    "$1" -I -S -c 'import sys; print(sys.executable)' 2>/dev/null
}

# Headers there, version 3.10 to 3.13?
python_fits() {
    "$1" -I -S -c '
import os, sys, sysconfig
fits = (3, 10) <= sys.version_info[:2] <= (3, 13)
sys.exit(0 if fits and os.path.exists(sysconfig.get_path("include") + "/Python.h") else 1)
' 2>/dev/null
}

# Every interpreter that a _core can be built for, one a line: the default first.
pythons_found() {
    {
        command -v python3
        ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[0-3].*/bin/python3 2>/dev/null
        [ -x /usr/bin/python3 ] && echo /usr/bin/python3
    } | while read -r candidate; do
        real=$(python_real "$candidate") && [ -n "$real" ] && python_fits "$real" && echo "$real"
    done | awk '!seen[$0]++'
}

# Debian's debug build, if it and its headers are there: an ABI tag of its own, for reference counts.
python_debug_found() {
    [ -x /usr/bin/python3-dbg ] && python_fits /usr/bin/python3-dbg && echo /usr/bin/python3-dbg
}

# Debian's python3 needs its headers and venv from packages of their own.
packages_for_python() {
    case $(python_real "$1") in
    /usr/bin/*) echo "python3-dev python3-venv" ;;
    esac
}

# -- build ------------------------------------------------------------------------------------
# build_in FOLDER "PYTHONS, comma separated" [meson options...]: configure once, compile.
build_in() {
    folder=$1
    pythons_of_build=$2
    shift 2
    log=$root/$folder.log
    if [ ! -f "$root/$folder/build.ninja" ]; then
        meson setup "$root/$folder" "$root" -Dpythons="$pythons_of_build" "$@" >"$log" 2>&1 ||
            { tail -n 30 "$log" >&2; die "meson setup failed; the whole log is in $folder.log"; }
    elif [ "$(cat "$root/$folder/.pythons" 2>/dev/null)" != "$pythons_of_build" ]; then
        meson configure "$root/$folder" -Dpythons="$pythons_of_build" >"$log" 2>&1 ||
            { tail -n 30 "$log" >&2; die "meson configure failed; see $folder.log"; }
    fi
    printf '%s' "$pythons_of_build" >"$root/$folder/.pythons"
    ninja -C "$root/$folder" >"$log" 2>&1 ||
        { tail -n 60 "$log" >&2; die "The build failed; the whole log is in $folder.log"; }
}

# -- virtual environments -----------------------------------------------------------------------
# venv_make FOLDER PYTHON REQUIREMENTS...: made anew when the interpreter or the list changed.
venv_make() {
    folder=$1
    python=$2
    shift 2
    wanted="$("$python" -I -S -c 'import sys; print(sys.executable, sys.version)' | tr '\n' ' ') $*"
    for argument in "$@"; do
        # A list that changed makes it anew as well.
        [ ! -f "$argument" ] || wanted="$wanted $(cksum <"$argument")"
    done
    if [ "$(cat "$root/$folder/.made-for" 2>/dev/null)" != "$wanted" ]; then
        rm -rf "${root:?}/$folder"
        "$python" -m venv "$root/$folder" >"$root/$folder.log" 2>&1 ||
            { cat "$root/$folder.log" >&2; die "$python -m venv failed (on Debian: apt-get install python3-venv)"; }
        "$root/$folder/bin/python" -m pip install -q --disable-pip-version-check "$@" \
            >>"$root/$folder.log" 2>&1 ||
            { tail -n 20 "$root/$folder.log" >&2; die "pip install $* failed"; }
        printf '%s' "$wanted" >"$root/$folder/.made-for"
    fi
}
