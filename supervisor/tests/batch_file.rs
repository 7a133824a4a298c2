//! Reading batch files: every broken fixture with its exact words, every example, and the limits.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use supervisor::batch_file::{BatchFile, Request, Source, read};

/// Root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

fn read_file(folder: &Path, name: &str) -> Result<BatchFile, String> {
    let request = Request {
        source: Source::File(Path::new(name)),
        current_dir: folder,
        user_config: None,
        set: &[],
    };
    read(&request).map_err(|report| report.to_string())
}

fn files_ending(folder: &Path, end: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(end)).collect();
    names.sort();
    names
}

/// Set `UPDATE_EXPECTED=1` to write the expected texts anew; then read the difference.
#[test]
fn each_broken_file_is_refused_with_place_and_way_out() {
    let folder = root().join("tests/fixtures/broken");
    let names = files_ending(&folder, ".yml");
    assert!(names.len() >= 30, "{} fixtures", names.len());
    let mut differing = Vec::new();
    for name in &names {
        let said = read_file(&folder, name).err();
        let said = said.unwrap_or_else(|| panic!("{name} is accepted"));
        let said = said.replace(root().to_str().unwrap(), "ROOT");
        let expected = folder.join(name.replace(".yml", ".expected"));
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected, &said).unwrap();
        }
        if std::fs::read_to_string(&expected).unwrap_or_default() != said {
            differing.push(format!("{name} now says:\n{said}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn every_example_is_valid() {
    let examples = root().join("examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(&examples).unwrap() {
        let folder = entry.unwrap().path();
        let read = read_file(&folder, "batch.yml");
        assert!(read.is_ok(), "{}: {}", folder.display(), read.unwrap_err());
        seen += 1;
    }
    assert!(seen >= 3, "{seen} examples");
}
