#!/usr/bin/env bash
# Every check of the house, on a fresh Debian as on a desk: installs what the tests need, runs all steps, fails if one failed.
#
#   tests/run.sh                          all but systemd
#   tests/run.sh --only STEP [-- ARG...]  one of: fmt clippy doc nextest doctest deny systemd   (ARG goes to that step's command)
#
# What it installs, and where:
#   target/codex   the Codex that tests/codex/package.json pins, and the Bot API emulator (npm ci; nothing outside target/)
#   target/tools   cargo-deny, and cargo-nextest if the machine has none
#   target/systemd a Debian for tests/systemd.sh, only as root on a Debian; where it cannot run the step is SKIPPED
#   the system     a C compiler, Node and mmdebstrap, by apt-get, only if they are missing
#
# Environment: CARGO_TARGET_DIR, COFFERDAM_TEST_CODEX (a codex binary to test with instead of the pinned one), CI.
set -euo pipefail
exec </dev/null

readonly DENY_VERSION=0.20.2
readonly NEXTEST_VERSION=0.9.143
readonly STEPS=(fmt clippy doc nextest doctest deny systemd)
readonly SKIPPED=77

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"

say() { printf '%s\n' "$*"; }
heading() { printf '\n==== %s\n' "$*"; }
die() {
    printf 'run.sh: %s\n' "$*" >&2
    exit 70
}
usage() {
    sed -n '2,15s/^# \{0,1\}//p' "$root/tests/run.sh"
    exit "$1"
}

only=
extra=()
while (($#)); do
    case $1 in
        --only)
            [[ $# -ge 2 && " ${STEPS[*]} " == *" $2 "* ]] || usage 64 >&2
            only=$2
            shift 2
            ;;
        --)
            shift
            extra=("$@")
            break
            ;;
        -h | --help) usage 0 ;;
        *) usage 64 >&2 ;;
    esac
done
[[ -n $only || ${#extra[@]} -eq 0 ]] || die "arguments after -- need --only STEP"

# A Debian is built and booted for systemd, which takes more minutes than its share of every run: only when it is named.
wanted() { [[ $only == "$1" || (-z $only && $1 != systemd) ]]; }

# ---- what the tests need

export PATH="$root/target/tools/bin:$HOME/.cargo/bin:$PATH"
[[ -z ${CI:-} ]] || export CARGO_INCREMENTAL=0
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}

need_debian() { # need_debian COMMAND PACKAGE...: installs the packages if the command is missing
    local command=$1
    shift
    command -v "$command" >/dev/null && return
    command -v apt-get >/dev/null || die "no $command here, and no apt-get to install it with"
    debian+=("$@")
}

install_debian() {
    local debian=() as_root=()
    need_debian cc gcc libc6-dev
    if { wanted nextest || wanted systemd; } && { [[ ! -x ${COFFERDAM_TEST_CODEX:-} ]] || ! emulator_is_pinned; }; then
        need_debian node nodejs
        need_debian npm npm
    fi
    ((${#debian[@]})) || return 0
    ((EUID == 0)) || as_root=(sudo)
    "${as_root[@]}" apt-get update -q
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qy --no-install-recommends "${debian[@]}"
}

cargo_tool() { # cargo_tool CRATE VERSION [FLAG...]: installs a cargo tool below target/tools
    local crate=$1 version=$2
    shift 2
    say "building $crate $version (minutes, once)"
    # A target folder of its own, removed afterwards: the tool's gigabyte of objects is of no further use.
    CARGO_TARGET_DIR="$root/target/tools/build" CARGO_INCREMENTAL=0 \
        cargo install "$crate" --locked --version "$version" --root "$root/target/tools" --quiet "$@" ||
        die "cannot build $crate $version"
    rm -rf "$root/target/tools/build"
}

emulator_is_pinned() {
    cmp -s tests/codex/package-lock.json target/codex/package-lock.json && [[ -e target/codex/complete ]]
}

install_node_packages() {
    emulator_is_pinned && return
    rm -rf target/codex
    mkdir -p target/codex
    cp tests/codex/package.json tests/codex/package-lock.json target/codex/
    (cd target/codex && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error) || die "npm cannot install tests/codex/package.json"
    # Written last: an installation that was cut short is done again.
    touch target/codex/complete
}

install() {
    command -v cargo >/dev/null ||
        die "no cargo here: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or later with rustfmt and clippy"
    install_debian
    mkdir -p target/tools
    if wanted nextest || wanted systemd; then
        install_node_packages
        export COFFERDAM_TEST_CODEX=${COFFERDAM_TEST_CODEX:-$root/target/codex/node_modules/.bin/codex}
        [[ -x $COFFERDAM_TEST_CODEX ]] || die "no codex to test with at $COFFERDAM_TEST_CODEX"
        say "codex: $("$COFFERDAM_TEST_CODEX" --version 2>/dev/null || echo 'does not start')"
        command -v cargo-nextest >/dev/null || cargo_tool cargo-nextest "$NEXTEST_VERSION"
    fi
    if wanted deny && [[ $(cargo-deny --version 2>/dev/null) != "cargo-deny $DENY_VERSION" ]]; then
        # Unoptimised: built in a third of the time, and it runs for a second.
        cargo_tool cargo-deny "$DENY_VERSION" --debug
    fi
}

# ---- the steps

step_fmt() { cargo fmt --all --check "$@"; }
step_clippy() { cargo clippy --workspace --all-targets --keep-going "$@" -- -D warnings; }
step_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --keep-going "$@"; }
step_nextest() { cargo nextest run --workspace "$@"; }
step_systemd() { tests/systemd.sh "$@"; }
step_doctest() { cargo test --workspace --doc "$@"; }

step_deny() {
    cargo deny --config .deny.toml check -D unnecessary-skip "$@" bans licenses sources || return
    advisories
}

# The advisory database lives outside the crate registry. Where it cannot be fetched the check is skipped, and the summary says
# so; where it can, what it finds fails.
advisories() {
    local log="$root/target/tools/advisories.log"
    if timeout 120 cargo deny --config .deny.toml fetch db >"$log" 2>&1; then
        cargo deny --config .deny.toml check --disable-fetch advisories
        return
    fi
    advisories_skipped="SKIPPED, not passed: the advisory database cannot be fetched from here (target/tools/advisories.log)"
    say "advisories: $advisories_skipped"
}

results=()
failed=0
advisories_skipped=

run_step() {
    local step=$1 began=$SECONDS code=0
    shift
    heading "$step"
    "step_$step" "$@" || code=$?
    if ((code == SKIPPED)) && [[ $step == systemd ]]; then
        results+=("$(printf '%-10s %5d s  SKIPPED, not passed (the reason is above)' "$step" $((SECONDS - began)))")
    elif ((code)); then
        failed=$((failed + 1))
        results+=("$(printf '%-10s %5d s  FAILED (exit %d)' "$step" $((SECONDS - began)) "$code")")
    else
        results+=("$(printf '%-10s %5d s  ok' "$step" $((SECONDS - began)))")
    fi
    say "${results[-1]}"
}

heading install
install
results+=("$(printf '%-10s %5d s  ok' install "$SECONDS")")
say "${results[-1]}"

for step in "${STEPS[@]}"; do
    wanted "$step" || continue
    run_step "$step" ${extra[@]+"${extra[@]}"}
done

heading summary
printf '%s\n' "${results[@]}"
[[ -z $advisories_skipped ]] || say "advisories $advisories_skipped"
if ((failed)); then
    say "$failed of ${#results[@]} steps failed, in $SECONDS s"
    exit 1
fi
if [[ ${results[*]} == *SKIPPED* ]]; then
    say "no step failed, not all could run, in $SECONDS s"
else
    say "all ${#results[@]} steps ok, in $SECONDS s"
fi
