#!/usr/bin/env bash
# Builds a release and installs both programs as a pair: scripts/install.sh [BIN_FOLDER]
# (default ~/.local/bin).
#
# Each pair lies in a folder of its own (BIN_FOLDER/../lib/supervisor/<version>-<hash>) and one
# link, `current`, says which one counts. The switch is one rename, so there is never a moment with
# one program of each release; a batch that runs meanwhile keeps the host it was started with.
# SUPERVISOR_BIN=FOLDER installs programs that are already built there.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
bin=${1:-${HOME:?HOME is not set: name the folder for the programs}/.local/bin}

fail() {
    printf 'install: %s\n' "$1" >&2
    exit 1
}

if [[ -n ${SUPERVISOR_BIN:-} ]]; then
    built=$SUPERVISOR_BIN
else
    (cd "$here" && cargo build --locked --release -p supervisor -p agent-host)
    built=${CARGO_TARGET_DIR:-$here/target}/release
fi

# version PROGRAM: the second word of `PROGRAM --version`.
version() {
    local words
    read -r -a words < <("$built/$1" --version) || fail "$built/$1 does not say its version"
    printf '%s' "${words[1]:-}"
}

supervisor=$(version supervisor)
host=$(version agent-host)
[[ -n $supervisor ]] || fail "$built/supervisor does not say its version"
[[ $supervisor == "$host" ]] ||
    fail "supervisor is $supervisor but agent-host is $host: build both from one source"

mkdir -p "$bin"
bin=$(cd "$bin" && pwd)
lib=$(dirname "$bin")/lib/supervisor
hash=$(cat "$built/supervisor" "$built/agent-host" | sha256sum | cut -c1-12)
pair=$lib/$supervisor-$hash
mkdir -p "$lib"
if [[ ! -d $pair ]]; then
    aside=$(mktemp -d "$lib/.aside-XXXXXX")
    trap 'rm -rf "$aside"' EXIT
    install -m 755 "$built/supervisor" "$built/agent-host" "$aside"
    chmod 755 "$aside"
    # On the disk before its name is.
    sync "$aside/supervisor" "$aside/agent-host" "$aside"
    mv -T "$aside" "$pair"
fi

# link TARGET NAME: makes or replaces a symbolic link in one step.
link() {
    [[ ! -e $2 || -L $2 || ! -d $2 ]] || fail "$2 is a folder: move it away first"
    ln -s "$1" "$2.new-$$"
    mv -T "$2.new-$$" "$2"
}
link "$(basename "$pair")" "$lib/current"
for program in supervisor agent-host; do
    link "../lib/supervisor/current/$program" "$bin/$program"
done

printf 'supervisor and agent-host %s are in %s (files in %s)\n' "$supervisor" "$bin" "$pair"
others=$(find "$lib" -mindepth 1 -maxdepth 1 -type d ! -path "$pair" ! -name '.aside-*' | wc -l)
if ((others > 0)); then
    printf '%d older pairs stay in %s: delete them when no batch uses them any more\n' \
        "$others" "$lib"
fi
case ":$PATH:" in
    *":$bin:"*) ;;
    *) printf 'it is not on your PATH yet: add it there\n' ;;
esac
