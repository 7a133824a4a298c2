//! What the whole command line promises: every failure has the exit code of the manual, and no help
//! text names a verb or an option that does not exist.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use clap::CommandFactory;
use supervisor_core::core::ReplayError;

use super::Cli;
use super::error::{CliError, Code};
use crate::control::client::ClientError;
use crate::driver::DriverError;
use crate::driver::commit::LogError;
use crate::store::StoreError;

fn code(error: impl Into<CliError>) -> Code {
    error.into().code()
}

fn file() -> PathBuf {
    PathBuf::from("/state/file")
}

fn denied() -> io::Error {
    io::ErrorKind::PermissionDenied.into()
}

#[test]
fn failures_of_the_store_have_the_exit_codes_of_the_manual() {
    let cases = [
        (
            StoreError::Unreadable {
                file: file(),
                offset: 7,
                why: "bad".to_owned(),
            },
            Code::Unreadable,
        ),
        (
            StoreError::Newer {
                file: file(),
                found: 2,
                known: 1,
            },
            Code::Unreadable,
        ),
        (StoreError::Held { pid: Some(7) }, Code::Refused),
        (
            StoreError::Unsafe {
                path: file(),
                why: "a link",
            },
            Code::Refused,
        ),
        (
            StoreError::Limit {
                what: "requests",
                found: 2,
                max: 1,
            },
            Code::Refused,
        ),
        (
            StoreError::Full {
                file: file(),
                source: denied(),
            },
            Code::Environment,
        ),
        (StoreError::NoHome, Code::Environment),
        (StoreError::NeedsReopen { file: file() }, Code::Internal),
    ];
    for (error, expected) in cases {
        let told = error.to_string();
        assert_eq!(code(error), expected, "{told}");
    }
}

#[test]
fn failures_of_the_socket_have_the_exit_codes_of_the_manual() {
    let path = file;
    let after = std::time::Duration::from_secs(1);
    assert_eq!(code(ClientError::TimedOut { after }), Code::TimedOut);
    assert_eq!(
        code(ClientError::NoSupervisor { path: path() }),
        Code::Environment
    );
    assert_eq!(code(ClientError::Closed), Code::Environment);
    let source = serde_json::from_str::<u8>("x").unwrap_err();
    assert_eq!(code(ClientError::Reply(source)), Code::Internal);
    assert_eq!(super::act::refused(6, String::new()).code(), Code::NotFound);
    assert_eq!(super::act::refused(99, String::new()).code(), Code::Refused);
}

#[test]
fn failures_of_the_driver_have_the_exit_codes_of_the_manual() {
    let dir = file;
    let gap = ReplayError::Gap { last: 1, found: 3 };
    assert_eq!(
        code(DriverError::Replay {
            dir: dir(),
            source: gap
        }),
        Code::Unreadable
    );
    assert_eq!(code(DriverError::Empty { dir: dir() }), Code::Refused);
    assert_eq!(code(DriverError::NotEmpty { dir: dir() }), Code::Refused);
    assert_eq!(
        code(DriverError::HostMissing { path: dir() }),
        Code::Environment
    );
    assert_eq!(
        code(DriverError::Journal(LogError::ForNow(StoreError::NoHome))),
        Code::Environment
    );
    assert_eq!(
        code(DriverError::Unrecorded(String::new())),
        Code::Interrupted
    );
    assert_eq!(code(DriverError::Defect(String::new())), Code::Internal);
    assert_eq!(
        code(DriverError::Store(StoreError::NoHome)),
        Code::Environment
    );
}

/// The letters, digits and hyphens that a text begins with.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    &text[..end.unwrap_or(text.len())]
}

/// Verbs that a help text tells to type: in backticks, or on a line of an example.
fn verbs(text: &str) -> Vec<&str> {
    let quoted = text.split("`supervisor ").skip(1);
    let examples = text.lines().map(str::trim_start);
    let typed = examples.flat_map(|line| line.strip_prefix("supervisor "));
    quoted.chain(typed).map(word).collect()
}

#[test]
fn no_help_text_names_what_does_not_exist() {
    let mut whole = Cli::command();
    whole.build();
    let mut options = BTreeSet::from(["--help".to_owned(), "--version".to_owned()]);
    let mut known = BTreeSet::new();
    let mut texts = vec![whole.render_long_help().to_string()];
    for command in whole.get_subcommands() {
        known.insert(command.get_name().to_owned());
        let longs = command.get_arguments().filter_map(clap::Arg::get_long);
        options.extend(longs.map(|long| format!("--{long}")));
        texts.push(command.clone().render_long_help().to_string());
    }
    let mut verbs_seen = 0;
    for text in &texts {
        for verb in verbs(text) {
            verbs_seen += 1;
            assert!(known.contains(verb), "`supervisor {verb}` in: {text}");
        }
        for (at, _) in text.match_indices(" --") {
            let flag = word(&text[at + 1..]);
            assert!(options.contains(flag), "`{flag}` in: {text}");
        }
    }
    assert!(verbs_seen > 40, "the texts were looked at: {verbs_seen}");
}

#[test]
fn every_command_teaches_by_an_example() {
    let mut whole = Cli::command();
    whole.build();
    // What is hidden is called by programs of ours.
    let shown = whole.get_subcommands().filter(|it| !it.is_hide_set());
    for command in shown {
        let name = command.get_name();
        let example = command.get_after_help().map(ToString::to_string);
        let example = example.unwrap_or_default();
        assert!(example.starts_with("Example"), "{name}");
        assert!(
            example.contains(&format!("supervisor {name}")),
            "{name}: {example}"
        );
    }
}
