# Clean chroots of Debian's suites, for packaging/build and .ci/packaging; to be sourced by bash, as root.
#
# In: a suite and what it is to have. Out: a folder with a fresh copy. What was made once is kept below
# $WGNET_PACKAGING_CACHE (else ~/.cache/wgnet-packaging) under the hash of its recipe, beside the packages that apt
# fetched. It starts no daemon, and mounts nothing outside of a mount namespace of its own.
# shellcheck shell=bash

cache=${WGNET_PACKAGING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/wgnet-packaging}
mirror=http://deb.debian.org
suites=(bookworm trixie)
# Whom builds run as.
builder=1000

fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    exit "${2:-6}"
}

# need TOOL=PACKAGE...: all must be there, and this must be root.
need() {
    local each missing=()
    for each; do
        command -v "${each%%=*}" > /dev/null || missing+=("${each%%=*} (Debian's package ${each#*=})")
    done
    if ((${#missing[@]})); then fail "not found: $(IFS=,; printf '%s' "${missing[*]}")"; fi
    ((EUID == 0)) || fail 'run as root: it makes chroots and namespaces'
    unshare --mount --net --pid --fork true 2> /dev/null || fail 'this machine lets root make no namespaces'
}

need_suite() {
    [[ " ${suites[*]} " == *" $1 "* ]] || fail "unknown suite '$1': one of ${suites[*]}" 2
}

# enter ROOT online|offline USER COMMAND...: run a command there, in namespaces of its own; offline has no network but lo.
enter() {
    local root=$1 network=$2 user=$3 how=(unshare --mount --pid --fork --kill-child --uts --ipc)
    shift 3
    # Who is online fetches packages, and apt does not wait for another that does.
    if [[ $network == offline ]]; then how+=(--net); else how=(flock "$cache/archives/.lock" "${how[@]}"); fi
    # shellcheck disable=SC2016 # expanded inside
    "${how[@]}" bash -c '
        set -eu
        root=$1 user=$2 archives=$3
        shift 3
        mount --make-rprivate /
        mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
        mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
        if [[ -d $archives ]]; then mount --bind "$archives" "$root/var/cache/apt/archives"; fi
        hostname builder
        if [[ $user == 0 ]]; then home=/root; else home=/build; fi
        cd "$root"
        exec chroot --userspec="$user:$user" "$root" /usr/bin/env -i HOME="$home" LC_ALL=C.UTF-8 \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
            DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes "$@"
    ' enter "$root" "$user" "$cache/archives" "$@"
}

# prepare SUITE NAME FUNCTION RECIPE...: the folder of a chroot, made by FUNCTION (which gets its path) unless it stands.
# The recipe is all that it depends on besides the suite. Sets `prepared`.
prepare() {
    local suite=$1 name=$2 make=$3 hash lock new status
    shift 3
    hash=$(printf '%s\n' "$suite" "$name" "$mirror" "$(declare -f "$make" debootstrapped)" "$@" | sha256sum | cut -c 1-12)
    prepared=$cache/$suite-$name-$hash
    mkdir -p -- "$cache/archives/partial"
    exec {lock}> "$cache/.lock-$suite-$name"
    flock "$lock"
    if [[ ! -d $prepared ]]; then
        new=$(mktemp -d -- "$cache/.new-XXXXXX")
        chmod 755 "$new"
        printf '%s: making the chroot %s of %s\n' "${0##*/}" "$name" "$suite" >&2
        # As a condition, the function would go on after what fails in it.
        set +e
        (set -e; "$make" "$suite" "$new" "$@") > "$new.log" 2>&1
        status=$?
        set -e
        if ((status)); then
            tail -n 60 "$new.log" >&2
            rm -rf -- "$new" "$new.log"
            fail "the chroot $name of $suite could not be made"
        fi
        # What an older recipe made is of no use any more.
        rm -rf -- "$cache/$suite-$name-"*
        mv -- "$new" "$prepared"
        rm -f -- "$new.log"
    fi
    exec {lock}>&-
}

# debootstrapped SUITE ROOT VARIANT: a suite with its updates, and no daemon that could start.
debootstrapped() {
    local suite=$1 root=$2
    debootstrap --variant="$3" --keyring=/usr/share/keyrings/debian-archive-keyring.gpg \
        --cache-dir="$(realpath "$cache/archives")" "$suite" "$root" "$mirror/debian"
    printf 'deb %s/%s main\n' "$mirror" "debian $suite" "$mirror" "debian $suite-updates" \
        "$mirror" "debian-security $suite-security" > "$root/etc/apt/sources.list"
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    # Kept for the next chroot, and not trusted less than the mirror: apt compares what it has with the suite's sums.
    printf 'APT::Install-Recommends "false";\nAcquire::Retries "3";\nBinary::apt::APT::Keep-Downloaded-Packages "true";\n' \
        > "$root/etc/apt/apt.conf.d/90packaging"
    cat /etc/resolv.conf > "$root/etc/resolv.conf"
    enter "$root" online 0 apt-get -q update
    enter "$root" online 0 apt-get -q -y upgrade
}

# copy ROOT: a fresh copy of a chroot below $work; prints its path.
copy() {
    local to
    to=$(mktemp -d -- "$work/root-XXXXXX")
    cp -a --reflink=auto -- "$1/." "$to"
    # Names are looked up as on this machine today.
    cat /etc/resolv.conf > "$to/etc/resolv.conf"
    printf '%s\n' "$to"
}
