//! Prints what the product costs, as ratios to floors of the same run: `bench [SECTION...]`. As
//! `bench stamp FILE NAME` it is one task of a batch.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use supervisor_tests::bench::{SECTIONS, latency};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["stamp", file, name] => match latency::stamp(Path::new(file), name) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                say(&format!("{file}: {error}"));
                ExitCode::FAILURE
            }
        },
        chosen => sections(chosen),
    }
}

fn sections(chosen: &[&str]) -> ExitCode {
    let known: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = chosen.iter().find(|word| !known.contains(word)) {
        say(&format!(
            "`{unknown}` is no section; there are: {}",
            known.join(" ")
        ));
        return ExitCode::from(2);
    }
    let mut broken = 0_usize;
    for (name, measure) in SECTIONS {
        if !chosen.is_empty() && !chosen.contains(name) {
            continue;
        }
        for row in measure() {
            broken += usize::from(!row.is_kept());
            say(&row.to_string());
        }
    }
    if broken > 0 {
        say(&format!("{broken} promises broken"));
        return ExitCode::FAILURE;
    }
    say("all promises kept");
    ExitCode::SUCCESS
}

/// Prints a line. A reader that went away changes nothing about the result.
fn say(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
