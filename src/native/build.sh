#!/bin/sh
# Builds the native shim: build.sh x64|arm64 OUTPUT-DIRECTORY. CC and AR choose other tools.
set -eu
arch=$1
out=$2
here=$(dirname "$0")

case "$arch-$(uname -m)" in
x64-x86_64 | arm64-aarch64) prefix= ;;
x64-*) prefix=x86_64-linux-gnu- ;;
arm64-*) prefix=aarch64-linux-gnu- ;;
*) echo "build.sh : error CBD0001: architecture '$arch' is not x64 or arm64" >&2 && exit 2 ;;
esac
cc=${CC:-${prefix}gcc}
ar=${AR:-${prefix}ar}
if ! command -v "$cc" >/dev/null; then
    echo "build.sh : error CBD0002: the C compiler '$cc' is not installed: apt-get install gcc${prefix:+-${prefix%-}}" >&2
    exit 1
fi

# Two builds may run at once: each works on its own and puts whole files in place.
mkdir -p "$out"
work=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
flags="-std=gnu11 -O2 -g -fPIC -fvisibility=hidden -Wall -Wextra -Werror"
for source in "$here"/*.c; do
    "$cc" $flags -c "$source" -o "$work/$(basename "$source" .c).o"
done
# The first step is for programs, which link the static library.
mkdir "$work/program"
mv "$work/start.o" "$work/program"
"$ar" rcs "$work/libcbdnative.a" "$work"/*.o "$work/program/start.o"
"$cc" -shared -Wl,-soname,libcbdnative.so -Wl,-z,defs -o "$work/libcbdnative.so" "$work"/*.o -lpthread
mv "$work/libcbdnative.a" "$out/"
mv "$work/libcbdnative.so" "$out/"
