# Runs Windows Python with the given arguments in /project. The first argument is the limit in seconds.
set -eu
limit=$1
shift
quiet() { timeout --kill-after=5 "$@" </dev/null >/dev/null 2>&1; }
mkdir -p -m 700 "$XDG_RUNTIME_DIR"
mkdir -p /tmp /project
# DXGI has no adapters without a display. The X server picks a free number itself and writes it when it is ready.
mkfifo /run/display
Xvfb -displayfd 3 -nolisten tcp -screen 0 1024x768x24 3>/run/display </dev/null >/dev/null 2>&1 &
read -r display </run/display
export DISPLAY=":$display"
quiet 60 wineserver -p
cd /project
status=0
timeout --kill-after=10 "$limit" wine /opt/python/python.exe "$@" || status=$?
[ "$status" != 124 ] || echo "windows: stopped after $limit seconds" >&2
exit "$status"
