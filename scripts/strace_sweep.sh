#!/usr/bin/env bash
# Kills the supervisor at every n-th write, sync, rename, fork and pidfd call of a short batch, lets
# `supervisor run` go on each time, and judges the end: scripts/strace_sweep.sh [STEP] (default 1:
# every call). Needs strace 5.16 or newer; without it, or without permission to trace, it says so and
# ends well. Exit 0: every batch ended with each task done once.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --quiet -p supervisor -p agent-host
cargo build --locked --quiet -p supervisor-tests --bin crash_story --bin strace_sweep
exec "${CARGO_TARGET_DIR:-target}/debug/strace_sweep" "$@" </dev/null
