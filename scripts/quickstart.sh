#!/usr/bin/env bash
# From nothing to a finished batch: scripts/quickstart.sh [FOLDER] (default: a fresh one).
#
# Builds both programs, makes a small git repository in FOLDER, runs examples/quickstart/batch.yml
# in it, hands a message to the task that waits for one from a second process, and shows where
# everything is. Needs a Rust toolchain and git, no key, and no network beyond cargo's.
# SUPERVISOR_BIN=FOLDER uses programs that are already built there.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
example=$here/examples/quickstart

say() {
    printf '\n== %s\n' "$1"
}

if [[ -n ${SUPERVISOR_BIN:-} ]]; then
    bin=$(cd "$SUPERVISOR_BIN" && pwd)
else
    say 'building supervisor and agent-host'
    (cd "$here" && cargo build --locked -p supervisor -p agent-host)
    bin=$(cd "${CARGO_TARGET_DIR:-$here/target}/debug" && pwd)
fi
export PATH=$bin:$PATH

folder=${1:-$(mktemp -d "${TMPDIR:-/tmp}/supervisor-quickstart-XXXXXX")}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# Nothing that is there already is touched: the second time makes a second repository.
repo=$folder/repo
for ((n = 2; ; n++)); do
    [[ -e $repo ]] || break
    repo=$folder/repo-$n
done

say "a small git repository in $repo"
mkdir "$repo"
cp -R "$example/." "$repo"
cd "$repo"
git init --quiet --initial-branch=main
git add --all
git -c user.name=quickstart -c user.email=quickstart@localhost -c commit.gpgsign=false \
    commit --quiet --message 'A small repository for the quickstart'
git --no-pager log --oneline

# The task whose script waits for a message.
waiting=$(awk '
    $1 == "-" && $2 == "id:" { id = $3 }
    /wait_message/ && !/^[[:space:]]*#/ { print id; exit }
' batch.yml)

# The second process: waits until that task runs, then steers it. No batch is named: in this
# repository there is only one.
steer() {
    local look
    for ((look = 0; look < 600; look++)); do
        if supervisor status --state running --json 2>/dev/null |
            grep -Eq "\"id\": ?\"$waiting\""; then
            supervisor steer "$waiting" 'Greetings from the operator.' --wait seen --timeout 60s
            return
        fi
        sleep 0.1
    done
    printf 'quickstart: %s did not start to wait within a minute\n' "$waiting" >&2
    return 1
}

say 'supervisor run batch.yml'
steered=$(mktemp "$folder/steer-XXXXXX.log")
steer >"$steered" 2>&1 &
steering=$!
status=0
supervisor run batch.yml || status=$?
wait "$steering" || {
    printf 'quickstart: steering failed:\n' >&2
    cat "$steered" >&2
    exit 1
}
say "meanwhile, from a second process: supervisor steer $waiting"
cat "$steered"
((status == 0)) || {
    printf 'quickstart: supervisor run exited with %d\n' "$status" >&2
    exit "$status"
}

say 'supervisor status'
supervisor status

dir=$(supervisor status --json | grep -Eo '"dir": ?"[^"]*"' | head -n 1 | cut -d'"' -f4)
say 'where everything is'
printf '%-12s %s\n' \
    programs "$bin/supervisor  $bin/agent-host" \
    repository "$repo" \
    'batch file' "$repo/batch.yml" \
    state "$dir" \
    journal "$dir/journal/" \
    'task files' "$dir/tasks/<task>/attempts/<n>/runs/<g>/"
printf '\nlook around:\n'
printf '  %s\n' "export PATH=\"$bin:\$PATH\"; cd \"$repo\"" \
    'supervisor status' \
    "supervisor logs $waiting" \
    "supervisor explain $waiting" \
    'supervisor verify'
