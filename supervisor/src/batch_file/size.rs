//! Sizes of memory in a batch file: `512MiB`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::decode::FromNode;
use super::error::Sink;
use super::scalars::scalar_text;
use super::tree::{Node, shown};

/// Smallest memory of an attempt: its host and a shell need a quarter of it.
const MEMORY_MIN: u64 = 16 << 20;
/// Largest: more than any machine has; beyond it the number is a slip of the pen.
const MEMORY_MAX: u64 = 1 << 50;
const HELP: &str = "write a whole number and a unit: `512MiB`, `4GiB`";

/// Memory of one attempt, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory(pub(super) u64);

impl JsonSchema for Memory {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Memory".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[0-9]+(KiB|MiB|GiB|TiB)$",
            "examples": ["512MiB", "16GiB"]
        })
    }
}

impl FromNode for Memory {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let text = scalar_text(node, "a size", HELP, sink)?;
        let mut refuse = |message: String, help: &str| {
            sink.report(node.place, message, help);
            None
        };
        if cfg!(not(target_os = "linux")) {
            let help = "remove it, or run the batch on Linux";
            return refuse("memory can not be limited on this system".to_owned(), help);
        }
        match parse_size(text) {
            None => refuse(format!("`{}` is not a size", shown(text)), HELP),
            Some(bytes) if bytes < MEMORY_MIN => refuse(
                format!("`{}` is too little to start anything", shown(text)),
                "write `16MiB` or more",
            ),
            Some(bytes) if bytes > MEMORY_MAX => refuse(
                format!("`{}` is more than any machine has", shown(text)),
                "write `1024TiB` or less",
            ),
            Some(bytes) => Some(Self(bytes)),
        }
    }
}

/// Reads `512MiB`; `None` also for what does not fit into 64 bits.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_and_a_binary_unit() {
        assert_eq!(parse_size("512MiB"), Some(512 << 20));
        assert_eq!(parse_size("65536KiB"), Some(64 << 20));
        assert_eq!(parse_size("16GiB"), Some(16 << 30));
        assert_eq!(parse_size("2TiB"), Some(2 << 40));
        for wrong in [
            "512",
            "512MB",
            "512 MiB",
            "0.5GiB",
            "-1MiB",
            "MiB",
            "",
            "20000000000TiB",
        ] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }
}
