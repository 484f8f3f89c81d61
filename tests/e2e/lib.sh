# shellcheck shell=bash
# What the end-to-end tests share. A test sources this file; when it ends, however it ends, every process that it
# started is gone, and every file and region with it.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cbdd=${CBDD:-$root/out/cbdd}
cbdctrl=${CBDCTRL:-$root/out/cbdctrl}
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C.UTF-8

# Not /tmp: it may be a tmpfs, and disks should be where O_DIRECT works.
work=$(mktemp -d "${TMPDIR:-/var/tmp}/cbd-e2e.XXXXXX")
region=/dev/shm/${work##*/}
# The distribution's package of libnbd is for its own python3, which need not be the first in PATH.
python=/usr/bin/python3
"$python" -c 'import nbd' 2>/dev/null || python=python3
declare -A pids=()
others=()
murdered=()

fail() {
    printf 'FAIL: %s\n' "$*" >&2
    exit 1
}

# skip REASON: ends the test; the runner counts it and shows the reason.
skip() {
    printf 'skip: %s\n' "$*"
    exit 77
}

# note TEXT: shown by the runner also when the test passes.
note() { printf 'note: %s\n' "$*"; }

# The calls that led here, for the log of a failed test.
where() {
    local i
    for ((i = 1; i < ${#FUNCNAME[@]} - 1; i++)); do
        printf '  at %s, line %s\n' "${FUNCNAME[i + 1]}" "${BASH_LINENO[i]}" >&2
    done
}

# Where daemons were killed, nobody else removes their loop devices, nor the links to them.
remove_loops() {
    local file pid link
    for pid in "${others[@]}" "${pids[@]}" "${murdered[@]}"; do
        for file in /sys/block/loop*/loop/backing_file; do
            if [ -n "$pid" ] && grep -q "^/.*\.cbdd-$pid-" "$file" 2>/dev/null; then
                file=${file%/loop/backing_file}
                losetup -d "/dev/${file##*/}"
                for link in /dev/cbd[0-9]* /dev/cbd/*; do [ "$(readlink "$link")" != "/dev/${file##*/}" ] || rm -f "$link"; done
            fi
        done
    done
}

clean_up() {
    local status=$? name pid
    set +e
    trap '' TERM INT
    trap - ERR
    if [ "$status" != 0 ] && [ "$status" != 77 ]; then
        where
        for name in "${!pids[@]}"; do
            printf -- '--- log of %s (pid %s)\n' "$name" "${pids[$name]}" >&2
            tail -n 60 "$work/$name/log" >&2
        done
    fi
    for pid in "${others[@]}" "${pids[@]}"; do
        [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
    done
    for pid in "${others[@]}" "${pids[@]}"; do
        [ -z "$pid" ] || wait "$pid" 2>/dev/null
    done
    if declare -F clean_up_test >/dev/null; then clean_up_test; fi
    remove_loops
    rm -rf "$work" "$region" "$region".*
    exit "$status"
}
# A command that fails where none may, names itself: set -e alone says nothing.
set -E
trap 'printf "FAIL: line %s: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR
trap clean_up EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# await SECONDS WHAT COMMAND...: runs the command until it succeeds; a bound is not a measure, so it is generous.
await() {
    local limit=$((SECONDS + $1)) what=$2
    shift 2
    # Each look may cost a process or two, on CPUs that what is waited for needs.
    local pauses=(0.02 0.05 0.1 0.2) i=0
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$limit" ] || fail "$what did not happen in time"
        sleep "${pauses[i]}"
        i=$((i < 3 ? i + 1 : 3))
    done
}

runs() { kill -0 "$1" 2>/dev/null; }

# launch NAME [OPTION...]: starts a daemon with directories of its own and does not wait.
launch() {
    local name=$1
    shift
    mkdir -p "$work/$name"
    "$cbdd" --run-dir "$work/$name/run" --state-dir "$work/$name/state" --disks-dir "$work/disks" "$@" >>"$work/$name/stdout" 2>>"$work/$name/log" &
    pids[$name]=$!
}

# launch_elsewhere NAME [OPTION...]: as launch, for a daemon that takes itself to run on another machine: it sees another
# boot id, in a mount namespace of its own. Nothing proves its death to the others then, nor theirs to it.
launch_elsewhere() {
    local name=$1
    shift
    mkdir -p "$work/$name"
    [ -e "$work/$name/boot_id" ] || cat /proc/sys/kernel/random/uuid >"$work/$name/boot_id"
    # shellcheck disable=SC2016 # the inner shell's
    unshare -m sh -c 'mount --bind "$1" /proc/sys/kernel/random/boot_id && shift && exec "$@"' sh "$work/$name/boot_id" \
        "$cbdd" --run-dir "$work/$name/run" --state-dir "$work/$name/state" --disks-dir "$work/$name/disks" "$@" >>"$work/$name/stdout" 2>>"$work/$name/log" &
    pids[$name]=$!
}

# needs_elsewhere: skips the test where that cannot be had.
needs_elsewhere() {
    unshare -m sh -c 'mount --bind /proc/version /proc/sys/kernel/random/boot_id' 2>/dev/null ||
        skip 'a mount namespace with another boot id needs root'
}

answers() { "$cbdctrl" --run-dir "$work/$1/run" tp-list; }

# ready NAME: waits until the daemon answers.
ready() {
    local limit=$((SECONDS + 60))
    until answers "$1" >/dev/null 2>&1; do
        runs "${pids[$1]}" || fail "daemon $1 ended at its start: $(tail -n 1 "$work/$1/log")"
        [ "$SECONDS" -lt "$limit" ] || fail "daemon $1 does not answer"
        sleep 0.02
    done
}

# What the record wants comes back while the daemon answers already; what cannot, a test looks for itself.
start() {
    launch "$@"
    ready "$1"
    ctl "$1" wait --timeout 20 >/dev/null 2>&1 || true
}

# ctl NAME VERB...: cbdctrl with that daemon.
ctl() {
    local name=$1
    shift
    "$cbdctrl" --run-dir "$work/$name/run" "$@"
}

# stop NAME: SIGTERM; fails unless the daemon drained and ended with exit code 0.
stop() {
    local pid=${pids[$1]} status=0
    kill -TERM "$pid"
    wait "$pid" || status=$?
    [ "$status" = 0 ] || fail "daemon $1 ended with exit code $status after SIGTERM"
    unset "pids[$1]"
    [ ! -s "$work/$1/stdout" ] || fail "daemon $1 printed on stdout: $(head -n 1 "$work/$1/stdout")"
}

# murder NAME...: SIGKILL, for several at once.
murder() {
    local name
    for name in "$@"; do
        kill -KILL "${pids[$name]}"
        murdered+=("${pids[$name]}")
    done
    for name in "$@"; do
        wait "${pids[$name]}" 2>/dev/null || true
        unset "pids[$name]"
    done
}

# spawn COMMAND...: a background process of the test that ends with it; its pid is in $spawned.
spawn() {
    "$@" &
    spawned=$!
    others+=("$spawned")
}

# finished PID WHAT: waits for a spawned process, which must succeed.
finished() {
    local status=0
    wait "$1" || status=$?
    [ "$status" = 0 ] || fail "$2 ended with exit code $status"
}

equal() { [ "$2" = "$3" ] || fail "$1 is '$2', not '$3'"; }

matches() { [[ $2 =~ $3 ]] || fail "$1 is '$2', which does not match '$3'"; }

# one_line WHAT COMMAND...: the command succeeds, prints exactly one line, which is then in $line, and nothing on stderr.
one_line() {
    local what=$1 status=0
    shift
    "$@" >"$work/.stdout" 2>"$work/.stderr" || status=$?
    [ "$status" = 0 ] || fail "$what failed with exit code $status: $(cat "$work/.stderr")"
    equal "the number of lines that $what prints" "$(wc -l <"$work/.stdout")" 1
    [ ! -s "$work/.stderr" ] || fail "$what printed on stderr: $(cat "$work/.stderr")"
    line=$(cat "$work/.stdout")
}

# silent WHAT COMMAND...: the command succeeds and prints nothing.
silent() {
    local what=$1 status=0
    shift
    "$@" >"$work/.stdout" 2>"$work/.stderr" || status=$?
    [ "$status" = 0 ] || fail "$what failed with exit code $status: $(cat "$work/.stderr")"
    [ ! -s "$work/.stdout" ] || fail "$what printed: $(cat "$work/.stdout")"
    [ ! -s "$work/.stderr" ] || fail "$what printed on stderr: $(cat "$work/.stderr")"
}

# refused CODE PATTERN COMMAND...: the command ends with that exit code, prints nothing on stdout, and exactly one line
# on stderr that matches the extended regular expression.
refused() {
    local code=$1 pattern=$2 status=0
    shift 2
    "$@" >"$work/.stdout" 2>"$work/.stderr" || status=$?
    local said
    said=$(cat "$work/.stderr")
    [ "$status" != 0 ] || fail "'${*: -6}' was not refused; it printed '$(cat "$work/.stdout")'"
    [ "$(wc -l <"$work/.stderr")" = 1 ] || fail "'${*: -6}' printed not one line on stderr but: $said"
    [ "$status" = "$code" ] || fail "'${*: -6}' ended with exit code $status, not $code: $said"
    [ ! -s "$work/.stdout" ] || fail "'${*: -6}' printed on stdout: $(cat "$work/.stdout")"
    [[ $said =~ $pattern ]] || fail "'${*: -6}' said '$said', which does not match '$pattern'"
    printf 'refused: %s\n' "$said"
}

# sum FILE: its SHA-256.
sum() { sha256sum -- "$1" | cut -d ' ' -f 1; }

# Without the files that fio otherwise leaves behind for a later verification.
fio() { command fio --verify_state_save=0 "$@"; }

# fio_says FILTER: jq over fio's report in $work/fio.json; fio may write lines of text before it.
fio_says() { sed -n '/^{/,$p' "$work/fio.json" | jq "$1"; }

# socket_of URI: the path of the Unix socket in an NBD URI.
socket_of() { printf '%s\n' "${1##*socket=}"; }

# needs_attach_fuse: skips the test where no device can be attached by FUSE and a loop device.
needs_attach_fuse() {
    [ "$(id -u)" = 0 ] || skip 'attaching a device needs root'
    { : <>/dev/fuse; } 2>/dev/null || skip '/dev/fuse cannot be opened'
    { : <>/dev/loop-control; } 2>/dev/null || skip '/dev/loop-control cannot be opened'
}

# needs_names NAME...: skips the test where one of these default names of devices is somebody's on this machine.
needs_names() {
    local name
    for name; do
        [ ! -e "/dev/$name" ] && [ ! -L "/dev/$name" ] || skip "/dev/$name is in use on this machine"
    done
}

# What tests call their device: no other program of this machine has it.
# The last letter: no name may end as that of a partition does.
device=${work##*/}x

# attached OPTION...: the device $device of daemon beta on backend 0 of alpha, attached by FUSE; its node is in $node, the
# loop device in $loop, the file that it has in $below.
attached() {
    one_line dev-start ctl beta dev-start -b 0 --attach fuse --name "$device" "$@"
    node=$line
    loop=$(readlink -f "$node")
    [ -b "$node" ] || fail "$node is no block device"
    below=$(cat "/sys/block/${loop##*/}/loop/backing_file")
}

# let_go LOOP: the file that the last attached device had below it is there no more. Somebody else may have the loop device by now.
let_go() {
    [ "$(cat "/sys/block/${1##*/}/loop/backing_file" 2>/dev/null)" != "$below" ] || fail "$1 still has $below below it"
}

# unmounted DIRECTORY: nothing is mounted there any more, and the file system is not in use: a mount namespace that another program made
# meanwhile may have had it for a moment longer, and then it is neither clean nor is its device free.
unmounted() {
    local source
    source=$(findmnt -n -o SOURCE --mountpoint "$1")
    umount "$1"
    await 60 "that the file system on $source has ended" python3 -c 'import os, sys; os.open(sys.argv[1], os.O_RDONLY | os.O_EXCL)' "$source"
}

# tortured MODE OPTION...: a short run of scripts/torture, whose last line is shown.
tortured() {
    TMPDIR=$work "$root/scripts/torture" "$@" >"$work/torture.log" || {
        cat "$work/torture.log" >&2
        fail "torture $* went wrong"
    }
    note "$(tail -n 1 "$work/torture.log" | cut -d ' ' -f 2-)"
}

# two_hosts: alpha and beta on one region.
two_hosts() {
    start alpha
    start beta
    ctl alpha tp-reg -H alpha -p "$region" --format --size 128M >/dev/null
    ctl beta tp-reg -H beta -p "$region" >/dev/null
}

# bytes_of FILE: the space that it takes up.
bytes_of() { echo $(($(stat -c '%b * %B' "$1"))); }

# random_file PATH SIZE
random_file() { head -c "$(numfmt --from=iec "$2")" /dev/urandom >"$1"; }

[ -x "$cbdd" ] && [ -x "$cbdctrl" ] || fail "there are no programs in out/: run scripts/build"
