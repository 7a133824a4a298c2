#!/usr/bin/env bash
# Measures how fast a message climbs its ladder (queued, injected, seen) with each real agent program,
# and prints a table: scripts/ladder.sh [--write] [PROGRAM...], programs: claude codex pi opencode
# claude-agent-acp codex-acp gemini (all that are installed). --write puts it into README.md as well.
# Installs them as scripts/real-agents.sh --all does, unless the variables REAL_* name them already.
# LADDER_MESSAGES (5) messages to each. Wants a machine that does nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."
write=()
if [[ ${1-} == --write ]]; then
    write=(--write README.md)
    shift
fi
named=${REAL_CLAUDE-}${REAL_CODEX-}${REAL_PI-}${REAL_OPENCODE-}${REAL_GEMINI-}
if [[ -z $named${REAL_CLAUDE_AGENT_ACP-}${REAL_CODEX_ACP-} ]]; then
    eval "$(scripts/real-agents.sh --all --env)"
fi
# In two steps: built together, the tests' switches would be compiled into the programs.
cargo build --locked --quiet --release -p supervisor -p agent-host
cargo build --locked --quiet --release -p supervisor-tests --bin ladder
exec "${CARGO_TARGET_DIR:-target}/release/ladder" "${write[@]}" "$@" </dev/null
