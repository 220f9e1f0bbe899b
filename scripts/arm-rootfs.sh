#!/bin/sh
# Make, or bring up to date, an arm64 root file system with the packages of the extra `edge`, to run under qemu-user.
#
#     scripts/arm-rootfs.sh FOLDER     as root, on Debian
#
# FOLDER/rootfs is the file system; it is made once, and its Python packages anew when their versions change. Nothing of
# the host is changed but this: missing Debian packages are installed, and binfmt_misc gets an entry for arm64.
set -eu
folder=${1:?name a folder}
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
rootfs=$folder/rootfs

if [ "$(id -u)" != 0 ]; then
    echo "arm-rootfs: an arm64 root file system needs root" >&2
    exit 2
fi
for tool in qemu-aarch64-static mmdebstrap arch-test; do
    if ! command -v "$tool" >/dev/null; then
        apt-get update -qq
        apt-get install -qq -y --no-install-recommends qemu-user-static mmdebstrap arch-test >/dev/null
        break
    fi
done
if [ ! -e /proc/sys/fs/binfmt_misc/register ]; then
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
fi
if [ ! -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]; then
    cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
fi

mkdir -p "$folder"
if [ ! -d "$rootfs" ]; then
    rm -rf "$rootfs.new"
    mkdir "$rootfs.new"
    # Extracted, not configured: programs of arm64 would have to run for that, and Python starts without.
    mmdebstrap --quiet --arch=arm64 --variant=extract --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        --include=coreutils,dash,python3,libgomp1,libstdc++6 bookworm "$rootfs.new"
    mkdir -p "$rootfs.new/proc" "$rootfs.new/sys" "$rootfs.new/root"
    mv "$rootfs.new" "$rootfs"
fi

# The wheels for arm64, fetched by this machine's pip: inside it would take minutes. Only wheels, as on a device.
"$python" - "$here/pyproject.toml" >"$folder/requirements.txt" <<'LIST'
import sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["edge"], sep="\n")
LIST
installed=$folder/installed.txt
edge=$rootfs/opt/edge
if ! cat "$folder/requirements.txt" "$here/constraints.txt" | cmp -s - "$installed" || [ ! -d "$edge" ]; then
    rm -rf "$edge"
    "$python" -m pip install --quiet --disable-pip-version-check --no-compile --target "$edge" \
        --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --only-binary=:all: \
        --implementation cp --python-version 3.11 --constraint "$here/constraints.txt" \
        --requirement "$folder/requirements.txt"
    cat "$folder/requirements.txt" "$here/constraints.txt" >"$installed"
fi

# The project itself, as it is here, and the commands of all packages where Debian's Python says that they lie.
own=$rootfs/opt/fedstill
rm -rf "$folder/wheel" "$own"
"$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$folder/wheel" "$here"
"$python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --target "$own" "$folder"/wheel/*.whl
printf '%s\n' /opt/edge /opt/fedstill >"$rootfs/usr/lib/python3/dist-packages/fedstill-test.pth"
# Compiled here, as no board writes into it: of use to a Python of the same version.
if [ "$("$python" -c 'import sys; print(*sys.version_info[:2])')" = "3 11" ]; then
    "$python" -m compileall -q "$rootfs/usr/lib/python3.11" "$edge" "$own" || true
fi
commands=$rootfs/usr/local/bin
mkdir -p "$commands"
for command in "$edge"/bin/* "$own"/bin/*; do
    sed '1s|^#!.*|#!/usr/bin/python3|' "$command" >"$commands/$(basename "$command")"
    chmod 755 "$commands/$(basename "$command")"
done

# As an image for the lab it is named and laid out like the others.
ln -sf /usr/bin/python3 "$commands/python"
mkdir -p "$rootfs/var/lib/fedstill/data"
