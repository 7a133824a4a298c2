//! How a golden file is compared, for every test of golden files.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::path::PathBuf;

use serde::de::DeserializeOwned;

/// The folder of golden files.
fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// The bytes of a golden file, which must be what is written today.
pub(crate) fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = folder().join(format!("{name}.json"));
    if std::env::var_os("GOLDEN_NEW").is_some() && !path.exists() {
        std::fs::write(&path, written).unwrap();
    }
    let bytes = std::fs::read(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; a new message needs a golden file: see the head of golden.rs",
            path.display()
        )
    });
    assert_eq!(
        String::from_utf8_lossy(&bytes),
        String::from_utf8_lossy(written),
        "{}: what is written today differs from the released bytes",
        path.display()
    );
    bytes
}

/// A value from its JSON.
pub(crate) fn parse<T: DeserializeOwned>(name: &str, json: &[u8]) -> T {
    serde_json::from_slice(json).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Names of all variants of an enum, and a function that gives the name of a value; neither
/// compiles when a variant is missing.
macro_rules! variants {
    ($list:ident, $name_of:ident, $enum:ident, $($pattern:pat => $name:literal),+ $(,)?) => {
        /// Every variant; the match below does not compile when one is missing.
        const $list: &[&str] = &[$($name),+];
        fn $name_of(value: &$enum) -> &'static str {
            match value { $($pattern => $name),+ }
        }
    };
}
