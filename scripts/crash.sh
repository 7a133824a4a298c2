#!/usr/bin/env bash
# Kills with -9 at random moments of one batch and judges what is left: scripts/crash.sh [KILLS]
# (default 200). `supervisor run` follows at once wherever its process was killed.
# CRASH_VICTIMS says who is killed:
#   any         the guardian, the supervisor below it, or one after the other; drawn for each kill
#   guardian    the process of `run`; the supervisor goes on, and the next `run` watches it
#   guarded     the supervisor; its guardian starts it again
#   both        guardian and supervisor at once
#   supervisor  a supervisor without a guardian
# CRASH_SEED repeats the moments, CRASH_TASKS (200) and CRASH_CONCURRENCY (8) size the batch.
# Exit 0: every rule held. See tests/src/crash/ for the rules and the evidence.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --quiet -p supervisor -p agent-host
cargo build --locked --quiet -p supervisor-tests --bin crash_story
exec "${CARGO_TARGET_DIR:-target}/debug/crash_story" "$@" </dev/null
