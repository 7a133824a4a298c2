//! Measures how messages climb with the real programs that are named in the environment and prints a
//! table: `ladder [--write FILE] [PROGRAM...]`. With `--write` the table also replaces what is between
//! the two marks of that file.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use supervisor_tests::real::Real;
use supervisor_tests::real::ladder::{HEAD, climb};

/// Before the table in a file.
const BEGIN: &str = "<!-- ladder: written by scripts/ladder.sh --write -->\n";
/// Behind it.
const END: &str = "<!-- ladder: end -->\n";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (file, named) = match args.as_slice() {
        [option, file, rest @ ..] if option == "--write" => (Some(file), rest),
        rest => (None, rest),
    };
    let is_known = |name: &&String| Real::ALL.iter().any(|real| real.name() == *name);
    if let Some(unknown) = named.iter().find(|name| !is_known(name)) {
        say(&format!("`{unknown}` is no program\n"));
        return ExitCode::from(2);
    }
    let messages = std::env::var("LADDER_MESSAGES");
    let messages = messages
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(5);
    let is_meant = |real: &Real| named.is_empty() || named.iter().any(|name| name == real.name());
    let mut table = format!("{}\n\n{HEAD}", machine(messages));
    say(&table);
    for real in Real::ALL.into_iter().filter(is_meant) {
        if real.installed().is_none() {
            say(&format!("{} is not installed: no row\n", real.name()));
            continue;
        }
        let row = climb(real, messages).to_string();
        say(&row);
        table.push_str(&row);
    }
    if table.ends_with(HEAD) {
        say("nothing was measured\n");
        return ExitCode::FAILURE;
    }
    match file.map(|file| write(Path::new(file), &table)) {
        None | Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(error)) => {
            say(&format!("{error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// What the numbers are, and where they were measured.
fn machine(messages: usize) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let model = lines.find(|(key, _)| key.trim() == "model name");
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.split('-').next().unwrap_or_default();
    let build = if cfg!(debug_assertions) {
        "a build without optimization"
    } else {
        "a release build"
    };
    format!(
        "Median (largest) of {messages} messages to each; {build}; {model}, {cores} cores, Linux {}.",
        release.trim()
    )
}

/// Puts the table between the marks of a file.
fn write(path: &Path, table: &str) -> Result<(), String> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(named)?;
    let parts = text.split_once(BEGIN).and_then(|(head, rest)| {
        let (_, tail) = rest.split_once(END)?;
        Some((head, tail))
    });
    let (head, tail) =
        parts.ok_or_else(|| format!("{}: no marks for the table", path.display()))?;
    std::fs::write(path, format!("{head}{BEGIN}{table}{END}{tail}")).map_err(named)
}

/// A reader that went away changes nothing about the result.
fn say(text: &str) {
    drop(std::io::stdout().write_all(text.as_bytes()));
}
