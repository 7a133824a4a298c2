#!/usr/bin/env bash
# Plays every escape of the zoo in every case and prints the table: scripts/zoo.sh [CASE...], cases:
# end kill timeout cancel hosts supervisor hosts+supervisor everything (all of them).
# `.` nothing survived in any run, k/n something did in k of n, r reported as a residual that can not
# be excluded; the last line is the median time from the act to the product's word.
# ZOO_RUNS (15) runs a cell; ZOO_WITHOUT=cgroup (root only) has the portable layers alone do it, also
# subreaper, lock-limit, signals; ZOO_ESCAPES names escapes. Exit 0: every promise was kept.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --locked --quiet -p supervisor -p agent-host
cargo build --locked --quiet -p supervisor-tests --bin nasty_agent --bin zoo
exec "${CARGO_TARGET_DIR:-target}/debug/zoo" "$@" </dev/null
