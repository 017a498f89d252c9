#!/usr/bin/env bash
# Plants each bug of tests/it/sim/bugs in a scratch copy of the last commit, one by one, and looks whether the simulation
# catches it. Prints a table; fails if one was not caught, does not apply or does not build.
#
#   tests/planted.sh [BUG...]     all, or those whose file name holds one of the words
#
# Environment: CARGO_TARGET_DIR (else target/), PLANTED_SEEDS (1000). The scratch copy is target/planted, and is taken away.
set -euo pipefail
exec </dev/null

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
scratch=$target/planted
export CARGO_TARGET_DIR=$target
seeds=${PLANTED_SEEDS:-1000}

clean() {
    git -C "$root" worktree remove --force "$scratch" 2>/dev/null || true
    git -C "$root" worktree prune
}
trap clean EXIT
clean
mkdir -p "$target"
git -C "$root" worktree add --quiet --detach "$scratch" HEAD

wanted() { # wanted NAME WORD...
    local name=$1 word
    shift
    (($#)) || return 0
    for word in "$@"; do [[ $name == *"$word"* ]] && return 0; done
    return 1
}

# One line: what became of the bug that is planted.
verdict() {
    local log=$target/planted.log
    if ! cargo build --quiet --manifest-path "$scratch/Cargo.toml" --package cofferdam-tests --bin cofferdam-sim >"$log" 2>&1; then
        echo "does not build: $(grep -m1 '^error' "$log")"
        return 1
    fi
    "$target/debug/cofferdam-sim" --seeds "$seeds" >"$log" 2>&1 || true
    if grep -q '^seed [0-9]*: ' "$log"; then
        echo "caught: $(grep -m1 '^seed [0-9]*: ' "$log" | cut -c1-110)"
    else
        echo "NOT caught by $seeds seeds"
        return 1
    fi
}

failed=0
for patch in "$root"/tests/it/sim/bugs/*.patch; do
    name=$(basename "$patch" .patch)
    wanted "$name" "$@" || continue
    if git -C "$scratch" apply "$patch"; then
        told=$(verdict) || failed=$((failed + 1))
        git -C "$scratch" checkout --quiet -- .
    else
        told="does not apply"
        failed=$((failed + 1))
    fi
    printf '%-26s %s\n' "$name" "$told"
done
if ((failed)); then
    echo "$failed not caught"
    exit 1
fi
echo "all caught"
