#!/usr/bin/env bash
# Kills the supervisor with -9 at random moments of one batch, each time followed at once by
# `supervisor run`, and judges what is left: scripts/crash.sh [KILLS] (default 200).
# CRASH_GUARDED=1 kills guardian and supervisor together, else there is no guardian.
# CRASH_SEED repeats the moments, CRASH_TASKS (200) and CRASH_CONCURRENCY (8) size the batch.
# Exit 0: every rule held. See tests/src/crash/ for the rules and the evidence.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --quiet -p supervisor -p agent-host
cargo build --locked --quiet -p supervisor-tests --bin crash_story
exec "${CARGO_TARGET_DIR:-target}/debug/crash_story" "$@" </dev/null
