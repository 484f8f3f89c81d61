# shellcheck shell=bash
# The columns of the table in docs/interop.md: the ways in which a peer can reach a device. A test has one function for a
# peer's row, and runs it in every way. A new column is a word in $ways and a case in 'through'.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

ways='plain simple old'

# serve [tcp]: a device of 64 MiB of 'beta' on a sparse file of 'alpha', blocks of 512; data at 1M+1M and 8M+64K, holes
# elsewhere. Its file is $disk, what it should hold $image, its address unix:PATH or tcp:PORT in $device.
serve() {
    disk=$work/disk image=$work/image
    truncate -s 64M "$disk"
    dd if=/dev/urandom of="$disk" bs=64K count=16 seek=16 conv=notrunc status=none
    dd if=/dev/urandom of="$disk" bs=64K count=1 seek=128 conv=notrunc status=none
    cp --sparse=always "$disk" "$image"
    two_hosts
    ctl alpha backend-start -p "$disk" >/dev/null
    device=unix:$work/device.nbd
    [ "${1:-unix}" = unix ] || device=tcp:$(free_port)
    one_line dev-start ctl beta dev-start -b 0 --nbd "${device/tcp:/tcp:127.0.0.1:}"
}

# free_port: a port that nobody has, and that the kernel gives to nobody who asks for any.
free_port() {
    "$python" -c '
import errno, random, socket
with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
    first = int(file.read().split()[0])
ports = list(range(1 << 10, first)) or list(range(1 << 10, 1 << 16))
while True:
    port = random.choice(ports)
    try:
        with socket.socket() as s:
            s.bind(("127.0.0.1", port))
    except OSError as e:
        if e.errno != errno.EADDRINUSE:
            raise
        continue
    print(port)
    break'
}

uri_of() {
    case $1 in
        unix:*) printf 'nbd+unix:///?socket=%s\n' "${1#unix:}" ;;
        tcp:*) printf 'nbd://127.0.0.1:%s\n' "${1#tcp:}" ;;
    esac
}

# listens ADDRESS
listens() {
    case $1 in
        unix:*) [ -S "${1#unix:}" ] ;;
        tcp:*) "$python" -c 'import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()' "${1#tcp:}" ;;
    esac
}

# through WAY: the address by which a peer comes that way in $address, as a URI in $uri.
through() {
    case $1 in
        plain) address=$device ;;
        simple | old)
            address=unix:$work/$1.nbd
            [ "${device%%:*}" = unix ] || address=tcp:$(free_port)
            spawn "$python" "$root/tests/e2e/narrow.py" "$1" "$device" "$address" "$work/$1.options"
            await 30 "that the way '$1' is open" listens "$address"
            ;;
        *) fail "there is no way '$1'" ;;
    esac
    uri=$(uri_of "$address")
}

# came WAY: fails unless the peer really came that way: it asked for structured replies and was refused, or it had no
# other option than EXPORT_NAME.
came() {
    case $1 in
        simple) grep -qx '8 refused' "$work/simple.options" || fail 'the peer did not even ask for structured replies' ;;
        old) equal 'the set of options of the old handshake' "$(sort -u "$work/old.options")" '1 passed' ;;
    esac
}

# start_over: the device again, with its first contents.
start_over() {
    ctl beta dev-stop -d 0 >/dev/null
    ctl alpha backend-stop -b 0 >/dev/null
    rm -f "$disk"
    cp --sparse=always "$image" "$disk"
    ctl alpha backend-start -p "$disk" >/dev/null
    one_line dev-start ctl beta dev-start -b 0 --nbd "${device/tcp:/tcp:127.0.0.1:}"
}

# in_every_way PEER FUNCTION: calls the function with the way, $uri and $address set, for each of $ways; every time on the
# same contents.
in_every_way() {
    local peer=$1 way
    for way in $ways; do
        through "$way"
        "$2" "$way"
        came "$way"
        note "$peer, $way: passed"
        start_over
    done
}

# needs COMMAND PACKAGE
needs() { command -v "$1" >/dev/null 2>&1 || skip "$1 is not installed (apt-get install $2)"; }
