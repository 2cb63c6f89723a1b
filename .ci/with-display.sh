#!/usr/bin/env bash
# Runs a command with a screen of its own (Xvfb), so that GUI tests open real windows anywhere and disturb nobody.
#
# usage: with-display.sh COMMAND [ARGUMENT...]
# Without Xvfb the command gets the screen that is there; without either it does not run.
set -euo pipefail

# Outside Linux, Qt needs no X server.
[ "$(uname)" = Linux ] || exec "$@"

export QT_QPA_PLATFORM=xcb
if ! command -v Xvfb >/dev/null; then
    [ -z "${DISPLAY:-}" ] || exec "$@"
    echo "There is no screen and no Xvfb to stand in for one." >&2
    "$(dirname "$0")/system-libs.sh" >&2
    exit 1
fi

folder=$(mktemp -d)
# -displayfd lets the server choose a free number: two runs at a time do not collide.
Xvfb -displayfd 3 -screen 0 1400x900x24 -nolisten tcp 3>"$folder/display" >"$folder/log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server"; rm -rf "$folder"' EXIT

for _ in $(seq 100); do
    [ ! -s "$folder/display" ] || break
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
done
if [ ! -s "$folder/display" ]; then
    echo "Xvfb did not start:" >&2
    cat "$folder/log" >&2
    exit 1
fi

# Mesa's software renderer: a screen without hardware behind it has no other.
export DISPLAY=":$(cat "$folder/display")" LIBGL_ALWAYS_SOFTWARE=1
unset WAYLAND_DISPLAY
"$@"
