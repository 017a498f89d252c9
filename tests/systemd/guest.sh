#!/usr/bin/env bash
# The proofs of tests/systemd.sh: runs as a unit inside the systemd that it tests, prints one line a step, and at the end
# `END N failed`. Not to be run by hand: it starts, kills and stops cofferdam.service of the machine that it is on.
#
# Beside it in /test: mode (namespace or qemu), only (steps to run beside the first ones; empty for all). The real Codex is in /opt/codex; the model is the stand-in's.
set -uo pipefail
mode=$(cat /test/mode) only=$(cat /test/only)
if [[ $mode == qemu ]]; then exec >/dev/ttyS0 2>&1 </dev/null; else exec >>/test/proof.log 2>&1 </dev/null; fi

readonly UNIT=cofferdam.service MODEL=28080 AGENTS=(app exec)
# Emulation is a factor slower; the limits are there to end what hangs, not to measure.
patience=60 watchdog=10 drain=5 look=0.1
[[ $mode == qemu ]] && patience=300 watchdog=20 drain=40 look=1
cg=/sys/fs/cgroup/system.slice/$UNIT
failed=0

say() { printf '%s\n' "$*"; }
die() {
    say "    $*"
    exit 1
}

# step NAME FUNCTION: the function runs in a shell of its own that ends at its first failure.
step() {
    local name=$1 code began=$SECONDS
    shift
    [[ -z $only || " folders shorten start $only " == *" $1 "* ]] || return 0
    (
        set -e
        "$@"
    ) >/run/step.log 2>&1
    code=$?
    if ((code == 0)); then
        say "ok      $((SECONDS - began)) s  $name"
    else
        failed=$((failed + 1))
        say "FAILED  $((SECONDS - began)) s  $name"
        sed 's/^/    /' /run/step.log
        systemctl status --no-pager -n 15 "$UNIT" | sed 's/^/    /'
    fi
}

# within WHAT COMMAND...: waits until the command succeeds.
within() {
    local what=$1 end=$((SECONDS + patience))
    shift
    until "$@" >/run/within.log 2>&1; do
        ((SECONDS < end)) || {
            cat /run/within.log
            die "in $patience s not seen: $what"
        }
        sleep "$look"
    done
}

equal() { [[ $2 == "$3" ]] || die "$1: expected '$3', found '$2'"; }
holds() { [[ $2 == *"$3"* ]] || die "$1: '$3' is not in '$2'"; }

cofferdam() { /usr/local/bin/cofferdam --config /etc/cofferdam/cofferdam.toml "$@"; }
property() { systemctl show --value --property="$1" "$UNIT"; }
is() { [[ $(property "$1") == "$2" ]]; }
main() { property MainPID; }
row() { cofferdam ps --json | jq -r --arg agent "$1" --arg key "$2" '.[] | select(.agent == $agent) | .[$key]'; }
row_is() { [[ $(row "$1" "$2") == "$3" ]]; }
worker() { row "$1" pid; }
turn() { cofferdam turns show "$1" --json | jq -r "$2"; }
turn_is() { [[ $(turn "$1" .row.state) == "$2" ]]; }
log_of() { journalctl --unit="$UNIT" --no-pager --output=cat --since="@$1"; }
# A zombie is no process any more: whoever has to reap it is busy.
nobody() { ! ps -o stat=,pid=,args= --user cofferdam | grep -v '^Z'; }

# door METHOD PATH: the stand-in model's side door.
door() {
    exec 9<>"/dev/tcp/127.0.0.1/$MODEL"
    printf '%s /_standin/%s HTTP/1.0\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n' "$1" "$2" >&9
    sed '1,/^\r$/d' <&9
    exec 9>&-
}
asked() { door GET "count?text=$1" | jq .count; }
is_asked() { [[ $(asked "$1") == "$2" ]]; }

# begin WORD: a turn of each agent that waits in the model until WORD is released; their numbers go to /run/turn.AGENT.
begin() {
    local agent
    for agent in "${AGENTS[@]}"; do
        cofferdam send "$agent" "[[hold $1]] $1-$agent" --conversation "$1" --no-wait --json |
            jq -r 'select(.event == "accepted").turn' >"/run/turn.$agent"
        [[ -s /run/turn.$agent ]] || die "$agent did not take a message"
        within "the model asked by $agent" is_asked "$1-$agent" 1
        worker "$agent" >"/run/worker.$agent"
    done
}

# finish WORD: the same workers go on, each turn is answered, by one attempt, the model asked once.
finish() {
    local agent id
    for agent in "${AGENTS[@]}"; do
        within "$agent taken over" row_is "$agent" state busy
        equal "worker of $agent" "$(worker "$agent")" "$(cat "/run/worker.$agent")"
    done
    door POST "release/$1"
    for agent in "${AGENTS[@]}"; do
        id=$(cat "/run/turn.$agent")
        within "turn $id completed" turn_is "$id" completed
        equal "answer of $id" "$(turn "$id" .answer)" "echo: $1-$agent"
        equal "attempts of $id" "$(turn "$id" '.attempts | length')" 1
        equal "requests of $id" "$(asked "$1-$agent")" 1
        equal "restarts of $agent" "$(row "$agent" restarts)" 0
    done
}

# ---- the steps

folders() {
    systemd-sysusers /usr/lib/sysusers.d/cofferdam.conf
    systemd-tmpfiles --create /usr/lib/tmpfiles.d/cofferdam.conf
    equal state "$(stat -c '%U %a' /var/lib/cofferdam)" "cofferdam 700"
    equal configuration "$(stat -c '%G %a' /etc/cofferdam)" "cofferdam 750"
    cofferdam check
}

verify() {
    export HOME
    HOME=$(getent passwd 0 | cut -d: -f6)
    mkdir -p "$HOME/.local/bin" /run/user/0
    ln -sf /usr/local/bin/cofferdam "$HOME/.local/bin/cofferdam"
    equal "what systemd-analyze says" "$(systemd-analyze verify --man=no "/etc/systemd/system/$UNIT" 2>&1)" ""
    equal "what it says of the user's unit" \
        "$(XDG_RUNTIME_DIR=/run/user/0 systemd-analyze --user verify --man=no /etc/systemd/user/cofferdam.service 2>&1)" ""
}

security() {
    local stated found
    stated=$(sed -n 's/^# systemd-analyze security (.*): //p' "/etc/systemd/system/$UNIT")
    found=$(systemd-analyze security --no-pager "$UNIT" | sed -n 's/.*exposure level for .*: \([0-9.]*\) .*/\1/p')
    say "exposure level $found, stated $stated"
    awk -v found="$found" -v stated="$stated" 'BEGIN { exit !(found != "" && stated != "" && found <= stated) }' ||
        die "the exposure level has risen: $found; lower it, or state it in deploy/cofferdam.service with a reason"
}

# A shorter watchdog and drain than the shipped ones, so that the test does not wait for half a minute each; else as shipped.
shorten() {
    mkdir -p "/etc/systemd/system/$UNIT.d"
    {
        printf '[Service]\nWatchdogSec=%s\nExecStop=\n' "$watchdog"
        sed -n "s/^\(ExecStop=.*\)--within 60s/\1--within ${drain}s/p" "/etc/systemd/system/$UNIT"
    } >"/etc/systemd/system/$UNIT.d/test.conf"
    grep "within ${drain}s" "/etc/systemd/system/$UNIT.d/test.conf"
    systemctl daemon-reload
}

start() {
    systemctl start "$UNIT"
    # Type=notify: systemctl has waited for READY=1, so the socket answers at once.
    cofferdam health
    # A namespace need not have the right to lower it.
    [[ $mode == namespace ]] || equal "score" "$(cat "/proc/$(main)/oom_score_adj")" -500
    equal "privileges" "$(grep NoNewPrivs "/proc/$(main)/status" | tr -dc 0-9)" 1
    equal "the sockets' folder" "$(stat -c '%U %a' /run/cofferdam)" "cofferdam 700"
}

turns() {
    local agent
    for agent in "${AGENTS[@]}"; do
        equal "answer of $agent" "$(cofferdam send "$agent" "hello $agent")" "echo: hello $agent"
        holds "tool of $agent" "$(cofferdam send "$agent" '[[tool echo written > proof; cat proof]] tools')" "tool exit 0: written"
        holds "isolation of $agent" "$(row "$agent" isolation)" namespace
    done
}

restart() {
    local before
    before=$(main)
    begin restart
    systemctl restart "$UNIT"
    [[ $(main) != "$before" ]] || die "the same main process"
    finish restart
}

crash() {
    local before
    before=$(main)
    begin crash
    kill -KILL "$before"
    within "a new main process" replaced "$before"
    finish crash
}
replaced() { is SubState running && [[ $(main) != "$1" && $(main) != 0 ]]; }

frozen() {
    local before since
    before=$(main) since=$(date +%s)
    begin frozen
    kill -STOP "$before"
    within "a new main process after the watchdog" replaced "$before"
    holds journal "$(log_of "$since")" "Watchdog timeout"
    finish frozen
}

fed() {
    local before=$((SECONDS + watchdog + 4)) pid
    pid=$(main)
    while ((SECONDS < before)); do sleep 0.5; done
    equal "main process after the limit of the watchdog" "$(main)" "$pid"
}

reload() {
    local pid
    pid=$(main)
    systemctl reload "$UNIT"
    cofferdam health
    equal "main process" "$(main)" "$pid"
}

# Controllers below the unit and living workers: the start fails with 219/CGROUP unless ExecStopPost turns them off. The next
# supervisor turns them on again, and the limits are back.
controllers() {
    local limit
    within "hog ready" row_is hog state ready
    holds "controllers below the unit" "$(cat "$cg/cgroup.subtree_control")" memory
    limit=$(cat "$cg"/cofferdam-*/hog/memory.max)
    equal "limit of hog" "$limit" $((600 << 20))
    begin controllers
    systemctl restart "$UNIT"
    finish controllers
    within "hog taken over" row_is hog state ready
    holds "controllers below the unit" "$(cat "$cg/cgroup.subtree_control")" memory
    equal "limit of hog after the restart" "$(cat "$cg"/cofferdam-*/hog/memory.max)" "$limit"
}

# An agent beyond its memory: the kernel ends its turn, and its neighbours' turns go on.
out_of_memory() {
    local ended
    begin memory
    # `send` tells of a failed turn by its exit code too.
    { cofferdam send hog '[[tool head -c 900M /dev/zero | tail]] eat' --json || true; } >/run/eaten
    ended=$(jq -r 'select(.event == "finished") | "\(.outcome) \(.class)"' /run/eaten)
    equal "end of hog" "$ended" "failed out_of_memory"
    grep -h '^oom_kill [1-9]' "$cg"/cofferdam-*/hog/memory.events
    equal "isolation of hog" "$(row hog isolation)" namespace+cgroup
    finish memory
    equal "answer of hog" "$(cofferdam send hog "well again?" --conversation after)" "echo: well again?"
    cofferdam doctor
}

# The same service for one person, under a manager of their own.
person() {
    local home=/home/person
    useradd --create-home --home-dir "$home" --shell /bin/bash person
    loginctl enable-linger person
    as() { runuser -u person -- env HOME="$home" PATH=/usr/bin:/bin XDG_RUNTIME_DIR="/run/user/$(id -u person)" "$@"; }
    cofferdam() { as "$home/.local/bin/cofferdam" "$@"; }
    as mkdir -p "$home/.local/bin" "$home/.config/cofferdam"
    install -o person -m 0755 /usr/local/bin/cofferdam /usr/local/bin/cofferdam-worker "$home/.local/bin/"
    grep -v _dir /etc/cofferdam/cofferdam.toml | as tee "$home/.config/cofferdam/cofferdam.toml" >/dev/null
    within "the person's manager" as systemctl --user show-environment
    as systemctl --user start cofferdam
    holds "the sockets' folder" "$(stat -c '%U %a' "$home/.local/state/cofferdam/run")" "person 700"
    begin person
    as systemctl --user restart cofferdam
    finish person
    as systemctl --user stop cofferdam
    if ps -o stat=,pid=,args= --user person | grep -v '^Z' | grep -E 'cofferdam|codex|bwrap'; then die "these are left"; fi
    loginctl disable-linger person
}

stop() {
    local agent since
    since=$(date +%s)
    begin stop
    systemctl stop --no-block "$UNIT"
    for agent in "${AGENTS[@]}"; do within "$agent drains" row_is "$agent" state draining; done
    door POST release/stop
    within "the unit stopped" is ActiveState inactive
    equal result "$(property Result)" success
    nobody || die "these are left"
    [[ ! -e $cg ]] || die "the cgroup is left"
    log_of "$since" >/run/journal
    grep "Stopped cofferdam.service" /run/journal
    if grep "were left and have been ended" /run/journal; then die "the drain left processes"; fi
    systemctl start "$UNIT"
    for agent in "${AGENTS[@]}"; do
        within "turn $(cat "/run/turn.$agent")" turn_is "$(cat "/run/turn.$agent")" completed
        equal "requests of $agent" "$(asked "stop-$agent")" 1
    done
}

# What does not finish is ended after the time of ExecStop.
stop_hung() {
    local agent
    begin hung
    systemctl stop "$UNIT"
    equal result "$(property Result)" success
    nobody || die "these are left"
    systemctl start "$UNIT"
    for agent in "${AGENTS[@]}"; do
        equal "end of $(cat "/run/turn.$agent")" "$(turn "$(cat "/run/turn.$agent")" '.row | "\(.state) \(.class)"')" "failed shutdown"
    done
}

# Even a supervisor that answers nobody leaves nothing behind.
stop_frozen() {
    begin stopped
    kill -STOP "$(main)"
    # The watchdog would end it first.
    systemctl service-watchdogs no
    systemctl stop "$UNIT"
    systemctl service-watchdogs yes
    nobody || die "these are left"
    systemctl start "$UNIT"
    equal "answer of app" "$(cofferdam send app "well again?")" "echo: well again?"
}

# Said once, not ten times a second.
wrong() {
    local file=/etc/cofferdam/cofferdam.toml
    systemctl stop "$UNIT"
    cp "$file" /run/right.toml
    echo 'no_such_key = 1' >>"$file"
    if systemctl start "$UNIT"; then die "it starts with a wrong configuration"; fi
    equal state "$(property ActiveState) $(property ExecMainStatus) $(property NRestarts)" "failed 78 0"
    cp /run/right.toml "$file"
    systemctl start "$UNIT"
    cofferdam health
}

journal() {
    journalctl --unit="$UNIT" --no-pager --output=cat >/run/journal
    grep "ready; SIGTERM leaves and workers stay" /run/journal
    grep "the unit is to start again: workers stay" /run/journal
    grep "Watchdog timeout" /run/journal
    if grep -E "219/CGROUP|226/NAMESPACE|panicked" /run/journal; then die "such a line in the journal"; fi
}

# The firmware of a machine leaves half a line.
say ""
say "BEGIN $mode, $(systemctl --version | head -1), Linux $(uname -r), up $(cut -d. -f1 /proc/uptime) s"
say "        controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
systemd-run --quiet --unit=standin --property=Restart=no /usr/local/bin/cofferdam-standin --quiet --model-port "$MODEL" --telegram-port 28081
step "sysusers and tmpfiles make the user and the folders" folders
step "systemd-analyze verify finds nothing, in both units" verify
step "systemd-analyze security is at most what the unit states" security
step "a shorter watchdog for this test" shorten
step "start: systemctl waits for READY=1" start
step "turns on both runtimes, in namespaces, under the unit's hardening" turns
step "restart with turns in flight: same workers, one answer, asked once" restart
step "reload: the same process" reload
step "SIGKILL: systemd starts it again, workers and turns live" crash
step "SIGSTOP: the watchdog ends it, workers and turns live" frozen
step "the watchdog is fed while all is well" fed
if [[ $mode == qemu ]]; then
    step "restart with controllers on and turns in flight: same workers, limits back" controllers
    step "an agent beyond its memory is ended by the kernel, its neighbours answer" out_of_memory
    step "the user's unit, with a turn in flight" person
fi
step "stop: drains, answers, leaves no process and no cgroup" stop
step "stop with turns that hang: ended after the time of ExecStop" stop_hung
step "stop of a frozen supervisor: nothing is left" stop_frozen
step "a wrong configuration is said once" wrong
step "the journal tells of it" journal
systemctl stop "$UNIT"
say "END $failed failed"
sync
if [[ $mode == qemu ]]; then systemctl poweroff --force --force; fi
