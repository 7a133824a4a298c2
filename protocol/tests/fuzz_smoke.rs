//! Runs the fuzz target's function on the corpus, on every golden file and on mutations of them,
//! so that the gate compiles and tries it without a fuzzer.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

#[path = "../fuzz/wire.rs"]
mod wire;

use std::path::{Path, PathBuf};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files
}

/// A stream behind the two bytes that say how it is cut and which limit holds.
fn stream(cut: u8, limit: u8, bytes: &[u8]) -> Vec<u8> {
    [&[cut, limit], bytes].concat()
}

#[test]
fn the_corpus_breaks_nothing() {
    for file in files("fuzz/corpus/wire") {
        wire::check(&std::fs::read(file).unwrap());
    }
}

#[test]
fn golden_lines_cut_anywhere_break_nothing() {
    for file in files("tests/golden/v1") {
        let bytes = std::fs::read(file).unwrap();
        for cut in [0, 1, 6, 63, 255] {
            for limit in [0, 1, 20, 255] {
                wire::check(&stream(cut, limit, &bytes));
            }
        }
    }
}

#[test]
fn golden_lines_with_any_byte_changed_break_nothing() {
    for file in files("tests/golden/v1") {
        let mut bytes = std::fs::read(file).unwrap();
        for at in 0..bytes.len() {
            let kept = bytes[at];
            for changed in [0, b'\n', b'"', b'}', b'[', 0xff] {
                bytes[at] = changed;
                wire::check(&stream(30, 255, &bytes));
            }
            bytes[at] = kept;
        }
    }
}
