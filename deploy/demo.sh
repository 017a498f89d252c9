#!/usr/bin/env bash
# Shows Cofferdam at work on a fresh machine: three agents, one of which never answers, and the others do not notice.
#   deploy/demo.sh          build, run, show, end
#   deploy/demo.sh --keep   leave it running, with instructions
#   deploy/demo.sh --live   your own Codex login and the real model instead of the stand-in
# Needs Rust (cargo) and Node (npm). Everything goes below target/.
set -euo pipefail
cd "$(dirname "$0")/.."
keep=false live=false
for word in "$@"; do
    case "$word" in
        --keep) keep=true ;;
        --live) live=true ;;
        -h | --help) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
        *) echo "demo.sh: unknown argument $word; try --help" >&2; exit 64 ;;
    esac
done
for tool in cargo npm; do
    command -v "$tool" > /dev/null || { echo "demo.sh: $tool is missing; install it first" >&2; exit 69; }
done
step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

step "building (the first time takes some minutes)"
cargo build --release --bin cofferdam --bin cofferdam-worker --bin cofferdam-standin
out=${CARGO_TARGET_DIR:-target}/release

step "getting the pinned Codex into target/codex"
if [ ! -x target/codex/node_modules/.bin/codex ]; then
    mkdir -p target/codex
    cp tests/codex/package.json tests/codex/package-lock.json target/codex/
    npm ci --prefix target/codex --omit=dev --no-audit --no-fund
fi
target/codex/node_modules/.bin/codex --version

mkdir -p target/demo
config=deploy/demo.toml
if $live; then
    config=target/demo/live.toml
    cat > "$config" <<'TOML'
state_dir = "state-live"
[codex]
command = "../codex/node_modules/.bin/codex"
[defaults]
model = "openai/gpt-5.5"
[agents.swift]
runtime = "codex-cli"
[agents.steady]
runtime = "codex"
TOML
fi
cofferdam() { "$out/cofferdam" --config "$config" "$@"; }

standin='' supervisor=''
finish() {
    code=$?
    trap - EXIT
    if [ -n "$supervisor" ] && kill -0 "$supervisor" 2> /dev/null; then cofferdam shutdown --now || true; wait "$supervisor" || true; fi
    if [ -n "$standin" ]; then kill "$standin" 2> /dev/null || true; wait "$standin" 2> /dev/null || true; fi
    exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

if ! $live; then
    step "starting the stand-in model"
    "$out/cofferdam-standin" --quiet --model-port 28080 --telegram-port 28081 > target/demo/standin.log 2>&1 &
    standin=$!
fi

step "starting the supervisor"
cofferdam check
cofferdam run > target/demo/supervisor.log 2>&1 &
supervisor=$!
for _ in $(seq 100); do
    if cofferdam health > /dev/null 2>&1; then break; fi
    kill -0 "$supervisor" 2> /dev/null || { cat target/demo/supervisor.log >&2; exit 1; }
    sleep 0.1
done
cofferdam ps

if $live; then
    for agent in swift steady; do
        step "asking $agent"
        cofferdam send "$agent" "In one short sentence: what are you?" || true
    done
else
    step "stuck: its first turn fills the context, its second has to compact, and the model never finishes that"
    cofferdam send stuck "Remember this. [[tokens 300000]] [[compact-hang]]"
    cofferdam send stuck "And now?" > target/demo/stuck.log 2>&1 &
    stuck=$!
    step "meanwhile the others answer"
    cofferdam send swift "Hello from the demo"
    cofferdam send steady "[[tool echo a tool ran in \$PWD]]"
    cofferdam ps
    step "what became of stuck's second turn"
    wait "$stuck" || true
    cat target/demo/stuck.log
fi
step "the fleet, and the latest turns"
cofferdam ps
cofferdam turns

if $keep; then
    trap - EXIT INT TERM
    cat <<TEXT

It runs on. Try:
  alias cf='$out/cofferdam --config $config'
  cf send steady "hello"     cf ps     cf turns show 1     cf kill swift     cf health
End it with:  cf shutdown${standin:+; kill $standin}
TEXT
    exit 0
fi
step "ending"
