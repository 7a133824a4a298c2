#!/usr/bin/env bash
# Tells stories with the simulator: scripts/sim.sh N [FIRST-SEED], or scripts/sim.sh --seed X [--story].
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --package supervisor-tests --bin sim
exec "${CARGO_TARGET_DIR:-target}/debug/sim" "$@"
