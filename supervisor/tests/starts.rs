//! The program starts; also makes cargo build the binary for the tests of other packages.

use std::process::Command;

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the story is about the program itself"
)]
fn it_prints_its_version() {
    let program = env!("CARGO_BIN_EXE_supervisor");
    let output = Command::new(program).arg("--version").output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, format!("supervisor {}\n", env!("CARGO_PKG_VERSION")));
}
