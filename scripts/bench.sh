#!/usr/bin/env bash
# Prints what the product costs, as ratios to floors measured in the same run, and fails when a
# promise is broken: scripts/bench.sh [SECTION...], sections: worktrees flat cpu latency steer spawn
# kill ps recovery idle memory status resume (all of them take about ten minutes on two cores). Needs a C
# compiler for the floor, and a machine that does nothing else, also no file system that just lost
# many files. Sizes by environment: BENCH_CPU_TASKS (1000), BENCH_REPEATS (3), BENCH_CHAIN_TASKS
# (200), BENCH_STEER_MESSAGES (50), BENCH_SPAWNS (200), BENCH_KILLS (40), BENCH_KILLED_AT_ONCE
# (200), BENCH_PS_BATCHES (50), BENCH_PS_RUNS (19), BENCH_PS_TIMES (11), BENCH_RECOVERIES (3),
# BENCH_IDLE_TASKS (200), BENCH_IDLE_SECONDS (30), BENCH_QUEUED_TASKS (100000), BENCH_STATUS_TASKS
# (10000), BENCH_STATUS_TIMES (11), BENCH_RESUME_SMALL (10000), BENCH_RESUME_LARGE (50000),
# BENCH_WORKTREES (100), BENCH_WORKTREE_FILES (5000), BENCH_FLAT_SMALL (1000), BENCH_FLAT_MIDDLE (10000), BENCH_FLAT_LARGE (50000).
set -euo pipefail
cd "$(dirname "$0")/.."
# In two steps: built together, the tests' switches would be compiled into the programs.
cargo build --locked --quiet --release -p supervisor -p agent-host
cargo build --locked --quiet --release -p supervisor-tests --bin bench --bin nasty_agent
exec "${CARGO_TARGET_DIR:-target}/release/bench" "$@" </dev/null
