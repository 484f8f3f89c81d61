# shellcheck shell=bash
# For tests with TLS, sourced after lib.sh: certificates of a few minutes' life, and a device that wants them.

pki=$work/pki
mkdir -p "$pki"
serial=100

# key FILE
key() { certtool --generate-privkey --key-type=ecdsa --outfile "$1" 2>/dev/null && chmod 600 "$1"; }

# authority NAME: $pki/NAME/ca-cert.pem and ca-key.pem.
authority() {
    mkdir -p "$pki/$1"
    key "$pki/$1/ca-key.pem"
    printf '%s\n' "cn = \"authority $1\"" ca cert_signing_key crl_signing_key 'expiration_days = 10' >"$pki/$1/template"
    certtool --generate-self-signed --load-privkey "$pki/$1/ca-key.pem" --template "$pki/$1/template" --outfile "$pki/$1/ca-cert.pem" 2>/dev/null
}

# certificate AUTHORITY DIRECTORY server|client CN [LINE...]: a pair of files in $pki/DIRECTORY, beside the authority's
# certificate; the lines are certtool's, and by default it is valid now.
certificate() {
    local authority=$1 directory=$pki/$2 role=$3 name=$4 template
    shift 4
    [ $# -gt 0 ] || set -- 'expiration_days = 5'
    mkdir -p "$directory"
    template=$directory/template-$role
    serial=$((serial + 1))
    printf '%s\n' "cn = \"$name\"" "serial = $serial" "tls_www_$role" signing_key "$@" >"$template"
    key "$directory/$role-key.pem"
    certtool --generate-certificate --load-privkey "$directory/$role-key.pem" --load-ca-certificate "$pki/$authority/ca-cert.pem" \
        --load-ca-privkey "$pki/$authority/ca-key.pem" --template "$template" --outfile "$directory/$role-cert.pem" 2>/dev/null
    [ -e "$directory/ca-cert.pem" ] || cp "$pki/$authority/ca-cert.pem" "$directory/ca-cert.pem"
}

past=('activation_date = "2020-01-01 00:00:00"' 'expiration_date = "2021-01-01 00:00:00"')
local_names=('dns_name = "localhost"' 'ip_address = "127.0.0.1"' 'expiration_days = 5')

# two_hosts_with_tls: alpha has a disk of 16 MiB, beta what a device needs; the client alice of the right authority.
two_hosts_with_tls() {
    authority right
    certificate right server server localhost "${local_names[@]}"
    certificate right alice client alice
    start alpha
    start beta
    ctl alpha tp-reg -H alpha -p "$region" --format --size 64M >/dev/null
    ctl beta tp-reg -H beta -p "$region" >/dev/null
    truncate -s 16M "$work/disk"
    ctl alpha backend-start -p "$work/disk" >/dev/null
}

# tls_device [OPTION...]: a device of beta that requires TLS; its URI is in $uri, that with alice's certificate in $with.
tls_device() {
    one_line dev-start ctl beta dev-start -b 0 --tls-certificates "$pki/server" "$@"
    uri=$line
    with=$(of_client alice)
    socket=$(socket_of "$uri")
}

# of_client DIRECTORY: $uri with the certificates of a client.
of_client() {
    case $uri in
        *\?*) printf '%s&tls-certificates=%s\n' "$uri" "$pki/$1" ;;
        *) printf '%s?tls-certificates=%s\n' "$uri" "$pki/$1" ;;
    esac
}

# stopped: the device can be stopped without force, so nobody is connected any more.
device_stopped() {
    await 60 'that no client is left' ctl beta dev-stop -d 0
    stop beta
    stop alpha
}

# qemu_client DIRECTORY: the options of a QEMU program that name $socket with a client's certificates; in the array qemu.
qemu_client() {
    qemu=(--object "tls-creds-x509,id=tls0,endpoint=client,dir=$pki/$1,verify-peer=yes"
        --image-opts "driver=nbd,server.type=unix,server.path=$socket,tls-creds=tls0,tls-hostname=localhost")
}

# in_own_mounts: begins the test again in a mount namespace of its own; before anything else. It keeps a copy of each mount that is
# there, so the test takes mounts.
in_own_mounts() {
    [ "$(id -u)" = 0 ] || skip 'mounts of its own need root'
    [ -z "${CBD_OWN_MOUNTS:-}" ] || return 0
    unshare -m true 2>/dev/null || skip 'mount namespaces cannot be made'
    rm -rf "$work"
    CBD_OWN_MOUNTS=1 exec unshare -m "$0"
}

# certificates_of_root DIRECTORY: in own mounts, libnbd finds a client's certificates where it looks for those of root:
# a layer without a writable one lies over /etc. Its programs that open a URI without allowing it to name files have no
# other way.
certificates_of_root() {
    mkdir -p "$work/etc/pki"
    cp -r "$pki/$1" "$work/etc/pki/libnbd"
    mount -t overlay overlay -o "lowerdir=$work/etc:/etc" /etc 2>/dev/null || skip 'overlayfs cannot be mounted over /etc'
}

says() { grep -q "$2" "$work/$1/log"; }

# logged PATTERN: beta's log has, or will have, exactly one such line.
logged() {
    await 60 "that beta's log has '$1'" says beta "$1"
    equal "lines of the log with '$1'" "$(grep -c "$1" "$work/beta/log")" 1
}
