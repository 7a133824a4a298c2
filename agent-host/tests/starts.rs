//! The program starts and says which release it is.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that can not go on has failed, and it starts the program itself"
)]

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_agent-host"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn it_prints_its_version() {
    let output = run(&["--version"]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let release = protocol::version::BUILD;
    assert_eq!(text, format!("agent-host {release} (protocol 1 to 1)\n"));
}

#[test]
fn it_explains_itself() {
    let output = run(&["--help"]);
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("JSON-RPC on stdin and stdout")
    );
}

#[test]
fn other_arguments_are_a_usage_error() {
    let output = run(&["--verbose"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("--verbose")
    );
}
