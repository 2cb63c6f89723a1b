#!/usr/bin/env bash
# Makes .venv with everything in the order it must go in, pinned; starts in a moment where that is already done.
#
# From the environment, all optional:
#   PYTHON       the Python to use            (default: python3.11, then any python3 that is not older)
#   TORCH        what to install as torch     (default: the pin in constraints.txt, from pip's usual place)
#   TORCH_INDEX  the package index to take torch from, for a build other than the default one
#   QT           pyqt6 or pyside6             (default: pyqt6)
#   CONSTRAINTS  the file of pins             (default: .ci/constraints.txt)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
stamp=$venv/.setup-done
constraints=${CONSTRAINTS:-.ci/constraints.txt}
qt=${QT:-pyqt6}
export PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

pin() {
    sed -n "s/^\($1==[^; ]*\).*/\1/p" "$constraints"
}

# The console scripts in .venv hold its absolute path, so a folder that was moved counts as not set up.
key() {
    {
        cat pyproject.toml "$constraints" .ci/setup.sh
        echo "$PWD ${PYTHON:-} ${TORCH:-} ${TORCH_INDEX:-} $qt"
    } | cksum
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        # A name on the path may be a shim that runs nothing: ask it.
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or later found${PYTHON:+ as '$PYTHON'}." \
        "Install Python 3.11 (Debian: apt-get install python3 python3-venv) or name one: make setup PYTHON=/path/to/python3"
}

# pip names itself in INSTALLER once all files of a package are there: a folder without it was left half way.
is_usable() {
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || return 1
    local info
    for info in "$venv"/lib/python*/site-packages/*.dist-info; do
        [ -f "$info/INSTALLER" ] || return 1
    done
}

make_venv() {
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        fail "$python has no venv module." \
            "On Debian and Ubuntu it is a package of its own: apt-get install python3-venv"
    fi
    "$python" -m venv --clear "$venv"
}

# One at a time; pip inherits the lock, so that what an interrupted run left behind ends first.
exec 9<pyproject.toml
! command -v flock >/dev/null || flock 9

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(key)" ] && "$venv/bin/python" -c '' 2>/dev/null; then
    exit 0
fi

python=$(find_python)
.ci/system-libs.sh "$python"

# The stamp goes first and comes back last: whatever happens in between, the next run goes on from here.
rm -f "$stamp"
if [ -n "${PYTHON:-}" ] || ! is_usable; then
    make_venv
fi

# Twice quiet: only errors, since progress lines of a hundred packages would hide them.
pip=("$venv/bin/python" -m pip install -qq)

echo "Setting up $venv with $("$venv/bin/python" --version); the first time takes some minutes."
"${pip[@]}" -c "$constraints" pip setuptools wheel

torch=${TORCH:-$(pin torch)}
echo "  ${torch:-torch}"
# Only an index that was asked for replaces pip's own.
"${pip[@]}" "${torch:-torch}" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}

# From here on torch is fixed to what was just installed, and torchvision (which sam2 lists) to what fits it.
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
installed_torch=$("$venv/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))')
sed '/^torch==/d' "$constraints" >"$pins"
[ -z "${TORCH:-}" ] || sed -i '/^torchvision==/d' "$pins"
echo "$installed_torch" >>"$pins"

sam2=$(pin sam2)
echo "  ${sam2:-sam2}"
# sam2 comes as source: built in isolation it would fetch a second torch, and its CUDA extension is for post-processing
# that is not used here.
SAM2_BUILD_CUDA=0 "${pip[@]}" -c "$pins" --no-build-isolation ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "${sam2:-sam2}"

echo "  napari-uniultra, napari and the rest"
"${pip[@]}" -c "$pins" --no-build-isolation --editable ".[$qt,test]"

"$venv/bin/python" -m pip check --quiet || fail "the environment does not fit together; try: make clean setup"
key >"$stamp"
echo "Ready: $venv/bin/uniultra --help"
