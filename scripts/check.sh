#!/usr/bin/env bash
# The one gate, the same for people and CI: quick things first, the first failure ends it.
# Needs bash, coreutils, git and cargo; uses cargo-nextest, cargo-deny and shellcheck where they
# are installed and says so where they are not. Needs no terminal, no stdin and no network once
# the dependencies of Cargo.lock are there.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null

timings=()
failed=()
skipped=()

finish() {
    local status=$?
    printf '\n== check: seconds per part\n'
    if ((${#timings[@]})); then printf '%s\n' "${timings[@]}"; fi
    printf '%6d  total\n' "$SECONDS"
    if ((${#skipped[@]})); then printf 'skipped: %s\n' "${skipped[@]}"; fi
    if ((status == 0)); then
        printf '== check: all good\n'
    else
        printf '== check: FAILED in %s (exit %d)\n' "${failed[0]:-a script error}" "$status"
    fi
}
trap finish EXIT

# part NAME COMMAND...: runs the command, notes its seconds, ends the gate when it fails.
part() {
    local name=$1 since=$SECONDS status=0
    shift
    printf '\n== check: %s\n' "$name"
    # Not `if "$@"`: bash ignores set -e inside a condition, also in the functions called there.
    set +e
    (set -e; "$@")
    status=$?
    set -e
    timings+=("$(printf '%6d  %s' $((SECONDS - since)) "$name")")
    if ((status != 0)); then
        failed=("$name")
        exit "$status"
    fi
}

skip() {
    printf '\n== check: %s SKIPPED: %s\n' "$1" "$2"
    skipped+=("$1 ($2)")
}

# tree PACKAGE [ARGUMENT...]: names of the packages that it is built from, one a line.
tree() {
    cargo tree --locked --target all --prefix none --format '{p}' -p "$@" | cut -d' ' -f1 | sort -u
}

# absent PACKAGE FORBIDDEN...: none of the forbidden is in the normal dependencies of PACKAGE.
absent() {
    local package=$1 names name status=0
    shift
    names=$(tree "$package" -e normal)
    for name in "$@"; do
        if grep -qx -- "$name" <<<"$names"; then
            printf '%s must not depend on %s; the way: cargo tree -p %s -e normal -i %s\n' \
                "$package" "$name" "$package" "$name"
            status=1
        fi
    done
    return "$status"
}

dependencies() {
    # The core decides; it can not touch the world because nothing that can is in its tree.
    absent supervisor-core tokio mio nix rustix libc git2 libgit2-sys sysinfo getrandom rand \
        interprocess tempfile agent-host supervisor supervisor-tests
    absent protocol supervisor-core supervisor agent-host supervisor-tests tokio nix rustix libc
    absent agent-host supervisor supervisor-core supervisor-tests
    absent supervisor agent-host supervisor-tests
    local users
    users=$(cargo tree --locked --target all --prefix none --format '{p}' --workspace \
        -e normal,build,dev -i supervisor-tests | cut -d' ' -f1 | sort -u)
    if [[ $users != supervisor-tests ]]; then
        printf 'nothing may depend on supervisor-tests, but these do:\n%s\n' "$users"
        return 1
    fi
    printf 'core, protocol, agent-host, supervisor and tests depend only on what they may\n'
}

scripts() {
    local script
    for script in scripts/*.sh .ci/run; do
        bash -n "$script"
        [[ -x $script ]] || { printf '%s is not executable: chmod +x\n' "$script"; return 1; }
    done
    if command -v shellcheck >/dev/null; then
        shellcheck --severity=style scripts/*.sh .ci/run
    fi
}

# The portable layers can only be compiled here, not run. What C libraries would be built for the
# other system is left out: nothing is linked.
macos() {
    cargo clippy --locked --target aarch64-apple-darwin \
        --config 'target.aarch64-apple-darwin.git2.rustc-link-lib=["git2"]' \
        --config 'target.aarch64-apple-darwin.z.rustc-link-lib=["z"]' \
        --config 'target.aarch64-apple-darwin.ring_core_0_17_14_.rustc-link-lib=["ring"]' \
        -p protocol -p supervisor-core -p process-macos -p agent-host -p supervisor -- -D warnings
}

documentation() {
    RUSTDOCFLAGS="${RUSTDOCFLAGS:-} -D warnings" cargo doc --locked --workspace --no-deps
}

tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        cargo nextest run --locked --workspace
    else
        cargo test --locked --workspace --lib --bins --tests
    fi
}

# Claude Code, Codex and pi against the scripted model: where they can be had within three minutes.
real_agents() {
    REAL_AGENTS_INSTALL_MAX=${REAL_AGENTS_INSTALL_MAX:-180} scripts/real-agents.sh
}

part 'format' cargo fmt --all --check
part 'scripts' scripts
command -v shellcheck >/dev/null || skip 'shellcheck' 'it is not installed; syntax only'
part 'dependencies' dependencies
if cargo deny --version >/dev/null 2>&1; then
    part 'licenses, bans, sources' cargo deny --offline --locked check bans licenses sources
else
    skip 'licenses, bans, sources' 'cargo-deny is not installed'
fi
part 'clippy' cargo clippy --locked --workspace --all-targets -- -D warnings
if [[ -d $(rustc --print target-libdir --target aarch64-apple-darwin) ]]; then
    part 'macOS' macos
else
    skip 'macOS' 'rustup target add aarch64-apple-darwin'
fi
part 'documentation' documentation
part 'build' cargo build --locked --workspace --all-targets
part 'doc tests' cargo test --locked --workspace --doc --quiet
part 'tests' tests
# It says itself when it skips, and why.
part 'real agents' real_agents
