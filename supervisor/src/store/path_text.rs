//! Paths in JSON: as text, or as a list of bytes where they are not UTF-8.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserializer, Serialize, Serializer};

/// For `#[serde(with = "path_text")]`.
pub(crate) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    match path.to_str() {
        Some(text) => to.serialize_str(text),
        None => path.as_os_str().as_bytes().serialize(to),
    }
}

/// For `#[serde(with = "path_text")]`.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = OsString;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a path as text or as a list of bytes")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<OsString, E> {
            Ok(OsStr::new(text).to_owned())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<OsString, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = from.next_element()? {
                bytes.push(byte);
            }
            Ok(OsString::from_vec(bytes))
        }
    }
    from.deserialize_any(Text).map(PathBuf::from)
}
