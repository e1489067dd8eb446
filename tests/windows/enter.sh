#!/bin/sh
# The first process of private mount and process namespaces: when it ends, however it ends, the kernel ends every
# process in them and takes back every mount. Nothing can leak, and the layers below are never written.
#
# Environment: BOX     an empty folder to mount things in
#              LAYERS  folders to stack, the topmost first, separated by colons
#              UPPER   empty, or a folder that keeps what is written (upper/ and work/ are made in it)
#              DATA    empty, or a folder to show, read-only, as /data
# Arguments:   a shell script's text, and its arguments
set -eu
mount -t tmpfs tmpfs "$BOX"
[ -n "$UPPER" ] || UPPER=$BOX
mkdir -p "$UPPER/upper" "$UPPER/work" "$BOX/root"
mount -t overlay overlay -o "lowerdir=$LAYERS,upperdir=$UPPER/upper,workdir=$UPPER/work" "$BOX/root"
mount --rbind /dev "$BOX/root/dev"
mount -t tmpfs tmpfs "$BOX/root/dev/shm"
mount -t proc proc "$BOX/root/proc"
if [ -n "$DATA" ]; then
    mkdir "$BOX/root/data"
    mount --bind "$DATA" "$BOX/root/data"
    mount -o remount,bind,ro "$BOX/root/data"
fi
script=$1
shift
exec chroot "$BOX/root" /usr/bin/env -i \
    PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG="${WINDOWS_LANG:-C.UTF-8}" XDG_RUNTIME_DIR=/run/user/0 \
    WINEPREFIX=/opt/wine WINEDEBUG=-all WINEDLLOVERRIDES='mscoree,mshtml,winedbg.exe=' \
    VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json \
    /bin/sh -c "$script" sh "$@"
