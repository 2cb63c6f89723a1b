#!/usr/bin/env bash
# Installs the system libraries that a napari window needs and this machine lacks (Debian, Ubuntu).
#
# usage: system-libs.sh [python]
# As root on Debian or Ubuntu: installs what is missing. Otherwise: prints the command and succeeds, since the demo and
# the command line need none of them; the targets that open a window say so themselves when they cannot.
set -euo pipefail

packages=(
    # what the xcb platform plugin of Qt 6 loads
    libegl1 libgl1 libglx-mesa0 libgl1-mesa-dri libxkbcommon-x11-0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1
    libxcb-randr0 libxcb-render-util0 libxcb-xinerama0 libxcb-shape0 libxcb-cursor0 libdbus-1-3 libfontconfig1
    # a window without a screen, and letters to write in it
    xvfb xauth fonts-dejavu-core
)

command -v dpkg-query >/dev/null || {
    echo "Not a Debian-like system: napari needs the libraries of Qt 6's xcb plugin, and Xvfb for 'make test'."
    exit 0
}

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

# Debian splits ensurepip off its own Python, so that "python3 -m venv" fails until this package is there.
python=${1:-}
if [ -n "$python" ] && ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    base=$("$python" -c 'import sys; print(f"python{sys.version_info.major}.{sys.version_info.minor}")')
    case $(readlink -f "$(command -v "$python")") in
        /usr/bin/*) packages+=("$base-venv") ;;
    esac
fi

missing=()
for package in "${packages[@]}"; do
    is_installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

install=(apt-get install -y --no-install-recommends "${missing[@]}")
if [ "$(id -u)" -ne 0 ]; then
    echo "System libraries are missing. napari and 'make test' need them; please run:"
    echo "    sudo apt-get update && sudo ${install[*]}"
    exit 0
fi

echo "Installing system libraries: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# Lists that are out of date only matter if the installation then fails.
apt-get update -qq || true
if ! "${install[@]}" -qq -o Dpkg::Use-Pty=0 >/dev/null; then
    echo "That failed. The command line works without them; napari and 'make test' need: ${install[*]}" >&2
fi
