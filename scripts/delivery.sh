#!/usr/bin/env bash
# Kills with -9 at moments of batches of twenty tasks in worktrees and judges the repository that is
# left: scripts/delivery.sh [KILLS] (default 200). The supervisor, its guardian, both, the hosts or
# all of them are killed, half of the time while git works: worktrees are made, work is committed,
# merged, salvaged or removed; it prints how often each was hit.
# DELIVERY_SEED repeats the moments, DELIVERY_CONCURRENCY (4) sizes the batches.
# Exit 0: every rule held. See tests/src/delivery/ for the rules.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --quiet -p supervisor -p agent-host
cargo build --locked --quiet -p supervisor-tests --bin delivery_story
exec "${CARGO_TARGET_DIR:-target}/debug/delivery_story" "$@" </dev/null
