#!/usr/bin/env bash
# run.sh SECONDS ARGUMENTS...: Windows Python with these arguments, SECONDS at most, in Z:\project, DirectML on the card.
# Wine's DXGI finds the card only beside an X server with GLX, and by the card's own Vulkan driver.
set -u
ROOT=${ROOT:-/opt/windows} DRIVER=${DRIVER:?the folder of the driver}
limit=$1
shift
pgrep -x Xvfb >/dev/null || {
  chroot "$ROOT" /usr/bin/env PATH=/usr/bin:/bin Xvfb :77 -nolisten tcp -screen 0 1024x768x24 >/dev/null 2>&1 &
  sleep 2
}
timeout --kill-after=5 "$limit" chroot "$ROOT" /usr/bin/env -i -C /project PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
  LANG=C.UTF-8 XDG_RUNTIME_DIR=/run/user/0 DISPLAY=:77 WINEPREFIX=/opt/wine WINEDEBUG=-all \
  WINEDLLOVERRIDES='mscoree,mshtml,winedbg.exe=' LD_LIBRARY_PATH="$DRIVER/lib:$DRIVER/lib64" \
  VK_DRIVER_FILES="$DRIVER/share/vulkan/icd.d/nvidia_icd.json" __GLX_VENDOR_LIBRARY_NAME=nvidia \
  wine /opt/python/python.exe "$@" 2> >(grep -v Xlib >&2)
