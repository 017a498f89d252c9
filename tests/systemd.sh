#!/usr/bin/env bash
# Starts deploy/cofferdam.service under a real systemd and proves what it promises: start, restart, crash, watchdog, stop.
# The stand-in plays the model, Codex is the real one. Needs root; installs nothing but mmdebstrap on this machine.
#
#   tests/systemd.sh          systemd as PID 1 of a namespace of its own; no resource controllers
#   tests/systemd.sh --qemu   the same in a virtual machine with all cgroup v2 controllers, by emulation: minutes
#   tests/systemd.sh --only 'STEP STEP'   the first steps and these alone; names of functions in tests/systemd/guest.sh
#   tests/systemd.sh --keep   leaves the root file system of the run in place (target/systemd/run-MODE), to look at
#
# Everything lies below target/systemd: rootfs and qemu are Debian systems made by mmdebstrap, kept for the next run;
# run-MODE is the copy that is started. Ends with 0 if all steps were ok, 1 if one FAILED, 77 if this machine cannot run them (SKIPPED).
# Environment: CARGO_TARGET_DIR, COFFERDAM_TEST_CODEX (a codex to test with instead of target/codex).
set -euo pipefail

readonly SKIPPED=77
# In seconds, from the start of systemd to the last step: several times what it takes, to end what hangs.
readonly WITHIN_NAMESPACE=420 WITHIN_QEMU=3000 BOOT_NAMESPACE=60 BOOT_QEMU=600
readonly PACKAGES=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,procps,jq
readonly PACKAGES_QEMU=qemu-system-x86,linux-image-cloud-amd64,busybox-static,kmod

# ---- PID 1 of the namespace: this script again, which becomes systemd

if [[ ${1:-} == --become-systemd ]]; then
    root=$2
    mount --make-rprivate /
    mount --bind "$root" "$root"
    cd "$root"
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in null zero full random urandom tty; do
        : >"dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    mkdir dev/pts dev/shm run/systemd
    mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
    mount -t tmpfs -o mode=1777 tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    : >dev/console
    mkdir -p old
    pivot_root . old
    umount -l /old
    # `container` tells systemd to leave devices and clocks alone.
    exec env -i container=cofferdam-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd systemd.unit=multi-user.target \
        >/dev/null 2>&1 </dev/null
fi

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
readonly LAB=$root/target/systemd

say() { printf '%s\n' "$*"; }
skip() {
    say "systemd: SKIPPED, not passed: $*"
    exit "$SKIPPED"
}
usage() {
    sed -n '2,13s/^# \{0,1\}//p' "$root/tests/systemd.sh"
    exit "$1"
}

mode=namespace keep='' only=''
while (($#)); do
    case $1 in
        --qemu) mode=qemu ;;
        --keep) keep=yes ;;
        --only)
            [[ $# -ge 2 ]] || usage 64 >&2
            only=$2
            shift
            ;;
        -h | --help) usage 0 ;;
        *) usage 64 >&2 ;;
    esac
    shift
done

readonly RUN=$LAB/run-$mode

# ---- what it needs

able() {
    [[ $(uname -sm) == "Linux x86_64" ]] || skip "$(uname -sm) is not Linux x86_64"
    ((EUID == 0)) || skip "only root may start a systemd; run it as root"
    . /etc/os-release
    [[ ${ID:-} == debian ]] || skip "it runs on Debian, whose libraries the binaries are linked to; this is ${ID:-unknown}"
    suite=$VERSION_CODENAME
    if [[ $mode == namespace ]]; then
        unshare --fork --pid --mount --uts --ipc --cgroup --mount-proc true 2>/dev/null || skip "this machine gives no namespaces"
        hierarchy=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
        group=$hierarchy/cofferdam-test.$$
        [[ -n $hierarchy ]] && mkdir "$group" 2>/dev/null || skip "no cgroup v2 hierarchy can be written here"
    fi
}

debian() { # debian NAME PACKAGES: a Debian system in target/systemd/NAME, made once for each list of packages
    local name=$1 packages=$2 stamp
    stamp="$suite $packages"
    [[ $(cat "$LAB/$name.made" 2>/dev/null) != "$stamp" ]] || return 0
    if ! command -v mmdebstrap >/dev/null; then
        say "installing mmdebstrap"
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends mmdebstrap; } \
            >"$LAB/apt.log" 2>&1 || skip "mmdebstrap cannot be installed (target/systemd/apt.log)"
    fi
    say "making target/systemd/$name"
    rm -rf "${LAB:?}/$name" "$LAB/$name.made"
    mmdebstrap --mode=root --variant=minbase --skip=check/qemu --aptopt='APT::Install-Recommends "false"' \
        --include="$packages" "$suite" "$LAB/$name" >"$LAB/$name.log" 2>&1 ||
        skip "Debian's packages cannot be had (target/systemd/$name.log)"
    printf '%s\n' "$stamp" >"$LAB/$name.made"
}

# The native program and what lies beside it: the package's own `codex` is a script that needs Node.
codex_folder() {
    local given folder
    given=$(readlink -f "${COFFERDAM_TEST_CODEX:-target/codex/node_modules/.bin/codex}") || return
    folder=$(dirname "$given")
    [[ ${given##*/} == codex ]] && {
        dirname "$folder"
        return
    }
    folder=$(find "$folder/../node_modules/@openai" "$folder/../../" -path '*/vendor/*/bin/codex' -print -quit 2>/dev/null)
    [[ -n $folder ]] && dirname "$(dirname "$folder")"
}

# ---- the root file system of this run

stage() {
    local run=$RUN built=${CARGO_TARGET_DIR:-$root/target}/debug codex
    cargo build --quiet --bin cofferdam --bin cofferdam-worker --bin cofferdam-standin
    codex=$(codex_folder) && [[ -x $codex/bin/codex ]] || {
        say "systemd: no codex to test with: run tests/run.sh once, or set COFFERDAM_TEST_CODEX"
        exit 1
    }
    rm -rf "$run"
    cp -a "$LAB/rootfs" "$run"
    install -m 0755 "$built/cofferdam" "$built/cofferdam-worker" "$built/cofferdam-standin" "$run/usr/local/bin/"
    mkdir -p "$run/opt/codex"
    cp -RL "$codex/." "$run/opt/codex/"
    install -Dm 0644 -t "$run/etc/systemd/system" deploy/cofferdam.service
    install -Dm 0644 deploy/cofferdam.user.service "$run/etc/systemd/user/cofferdam.service"
    install -Dm 0644 deploy/cofferdam.sysusers.conf "$run/usr/lib/sysusers.d/cofferdam.conf"
    install -Dm 0644 deploy/cofferdam.tmpfiles.conf "$run/usr/lib/tmpfiles.d/cofferdam.conf"
    install -Dm 0755 -t "$run/test" tests/systemd/guest.sh
    install -Dm 0644 tests/systemd/cofferdam.toml "$run/etc/cofferdam/cofferdam.toml"
    printf '%s\n' "$mode" >"$run/test/mode"
    printf '%s\n' "$only" >"$run/test/only"
    : >"$run/test/proof.log"
    : >"$run/etc/machine-id"
    cat >"$run/etc/systemd/system/proof.service" <<'UNIT'
[Unit]
Description=The proofs of tests/systemd.sh
After=multi-user.target
[Service]
Type=exec
ExecStart=/test/guest.sh
UNIT
    # Not wanted by what it comes after: systemd takes the target as reached, and then this.
    mkdir -p "$run/etc/systemd/system/multi-user.target.wants"
    ln -s ../proof.service "$run/etc/systemd/system/multi-user.target.wants/"
    # A terminal that is not there is restarted for ever.
    ln -sf /dev/null "$run/etc/systemd/system/console-getty.service"
}

in_namespace() {
    proof=$RUN/test/proof.log
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        exec unshare --fork --pid --mount --uts --ipc --cgroup --kill-child "$root/tests/systemd.sh" --become-systemd "$RUN"
    ) >"$LAB/systemd.log" 2>&1 </dev/null 8>&- &
    machine=$!
}

# The kernel of target/systemd/qemu with the modules that a disk needs, and the run's root on that disk.
in_qemu() {
    local vm=$LAB/qemu version init=$LAB/init insmod
    version=$(basename "$vm"/boot/vmlinuz-* | sed 's/^vmlinuz-//')
    rm -rf "$init"
    mkdir -p "$init"/{bin,dev,proc,root,modules}
    cp "$vm/bin/busybox" "$init/bin/"
    {
        printf '#!/bin/busybox sh\nb=/bin/busybox\n$b mount -t devtmpfs dev /dev\n$b mount -t proc proc /proc\n'
        for module in virtio_pci virtio_blk ext4; do
            chroot "$vm" modprobe --set-version "$version" --show-depends "$module"
        done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r insmod; do
            cp "$vm$insmod" "$init/modules/"
            [[ $insmod != *.xz ]] || xz -d "$init/modules/${insmod##*/}"
            insmod=${insmod##*/}
            printf '$b insmod /modules/%s\n' "${insmod%.xz}"
        done
        printf 'until [ -e /dev/vda ]; do $b sleep 1; done\n$b mount -t ext4 /dev/vda /root\n$b umount /proc\n'
        printf 'exec $b switch_root /root /lib/systemd/systemd\n'
    } >"$init/init"
    chmod +x "$init/init"
    mkdir -p "$vm/vm" "$vm/dev"
    [[ -e $vm/dev/null ]] || mknod -m 666 "$vm/dev/null" c 1 3
    [[ -e $vm/dev/urandom ]] || mknod -m 666 "$vm/dev/urandom" c 1 9
    (cd "$init" && find . | "$vm/bin/busybox" cpio -o -H newc 2>/dev/null) >"$vm/vm/initramfs"
    rm -f "$vm/vm/disk"
    mke2fs -q -t ext4 -d "$RUN" "$vm/vm/disk" 2560M >"$LAB/mke2fs.log" 2>&1
    proof=$LAB/proof.log
    : >"$proof"
    # Two processors would only make the emulation of locks dear.
    chroot "$vm" /usr/bin/qemu-system-x86_64 -accel tcg,thread=single -cpu max -M q35 -m 2048 -smp 1 -nographic -no-reboot \
        -nic none -drive file=/vm/disk,format=raw,if=virtio,cache=unsafe -kernel "/boot/vmlinuz-$version" -initrd /vm/initramfs \
        -append "console=ttyS0 loglevel=3 panic=1 systemd.show_status=0 systemd.unit=multi-user.target" \
        >"$proof" 2>"$LAB/qemu.err" </dev/null 8>&- &
    machine=$!
}

machine='' group='' proof=''
clean() {
    trap - EXIT
    if [[ -n $machine ]]; then
        kill -KILL "$machine" 2>/dev/null || true
        wait "$machine" 2>/dev/null || true
    fi
    if [[ -n $group && -d $group ]]; then
        # The last processes of a namespace take a moment to go.
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
            [[ -d $group ]] || break
            sleep 0.3
        done
    fi
    [[ -n $keep ]] || rm -rf "$RUN"
    [[ -n $keep || $mode == namespace ]] || rm -rf "$LAB/init" "$LAB/qemu/vm"
}
trap clean EXIT
trap 'exit 130' INT TERM

lines() { tr -d '\r' <"$proof" | grep -aE '^(BEGIN|END|ok  |FAILED|    )' || true; }

mkdir -p "$LAB"
exec 8>"$LAB/lock-$mode"
flock --nonblock 8 || {
    trap - EXIT
    say "systemd ($mode): another one runs in $LAB"
    exit 75
}
able
debian rootfs "$PACKAGES"
[[ $mode == namespace ]] || debian qemu "$PACKAGES_QEMU"
stage
limit=$WITHIN_NAMESPACE boot=$BOOT_NAMESPACE
[[ $mode == namespace ]] || limit=$WITHIN_QEMU boot=$BOOT_QEMU
say "starting systemd (${mode}); $SECONDS s so far"
began=$SECONDS shown=0
"in_$mode"
while sleep 0.5; do
    mapfile -t seen < <(lines)
    for ((; shown < ${#seen[@]}; shown++)); do say "${seen[shown]}"; done
    case ${seen[*]: -1} in
        "END 0 failed")
            say "systemd ($mode): all steps ok, in $SECONDS s"
            exit 0
            ;;
        "END "*)
            say "systemd ($mode): ${seen[*]: -1}"
            exit 1
            ;;
    esac
    if ((shown == 0)) && { ((SECONDS - began > boot)) || ! kill -0 "$machine" 2>/dev/null; }; then
        skip "systemd does not come up here ($(tail -n 1 "$LAB/systemd.log" 2>/dev/null || true))"
    fi
    if ((SECONDS - began > limit)) || ! kill -0 "$machine" 2>/dev/null; then
        say "systemd ($mode): FAILED: no end after $((SECONDS - began)) s"
        tail -n 20 "$proof"
        exit 1
    fi
done
