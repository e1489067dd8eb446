#!/usr/bin/env bash
# Run as root on the machine with the card, in the folder of part.NN: unpacks the Windows root and mounts what it needs.
# ROOT gets it, DATA is shown inside as Z:\data, DRIVER is the folder of the card's driver (lib64, share/vulkan/icd.d).
set -euo pipefail
ROOT=${ROOT:-/opt/windows} DATA=${DATA:-/opt/data} DRIVER=${DRIVER:?the folder of the driver}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$ROOT" "$DATA"
[ -x "$ROOT/usr/bin/wine" ] || cat "$here"/part.* | tar --extract --xz --directory="$ROOT"
cd "$ROOT"
mkdir -p proc sys dev data tmp run/user/0 ".$DRIVER"
chmod 700 run/user/0
mountpoint -q proc || {
  mount --rbind /dev dev
  mount -t tmpfs tmpfs dev/shm
  mount -t proc proc proc
  mount -t sysfs sys sys
  mount --bind "$DRIVER" ".$DRIVER"
  mount --bind "$DATA" data
}
