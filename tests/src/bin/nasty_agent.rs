//! The programs of the zoo, all of which are this one: an agent that lets something hostile out, a
//! bystander that must not be touched, and a launcher that takes a layer of the product away.
//!
//! `nasty_agent play ESCAPE FOLDER leaves|stays`, `nasty_agent again|inner ESCAPE FOLDER` (its own
//! descendants), `nasty_agent bystander FOLDER`, `nasty_agent without LAYER... -- PROGRAM ARG...`.

use std::path::Path;
use std::process::ExitCode;

use supervisor_tests::zoo::agent::{self, Then};
use supervisor_tests::zoo::escape::Escape;
use supervisor_tests::zoo::ledger::Ledger;
use supervisor_tests::zoo::{bystander, layer};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["play", escape, folder, then] => match (escape.parse(), *then) {
            (Ok(escape), "leaves") => agent::play(escape, &at(folder), Then::Leaves),
            (Ok(escape), "stays") => agent::play(escape, &at(folder), Then::Stays),
            _ => return ExitCode::from(2),
        },
        ["again", escape, folder] => with(escape, folder, agent::go_on),
        ["inner", escape, folder] => with(escape, folder, agent::play_inside),
        ["bystander", folder] => bystander::stand(Path::new(folder)),
        ["without", rest @ ..] => layer::launch_without(rest),
        _ => return ExitCode::from(2),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("nasty_agent {}: {error}\n", words.join(" "));
            drop(std::io::Write::write_all(
                &mut std::io::stderr(),
                line.as_bytes(),
            ));
            ExitCode::from(3)
        }
    }
}

fn at(folder: &str) -> Ledger {
    Ledger::at(Path::new(folder))
}

fn with(
    escape: &str,
    folder: &str,
    act: fn(Escape, &Ledger) -> std::io::Result<()>,
) -> std::io::Result<()> {
    match escape.parse() {
        Ok(escape) => act(escape, &at(folder)),
        Err(_) => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}
