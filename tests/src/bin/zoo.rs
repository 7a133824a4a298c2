//! Plays the matrix of escapes and cases and prints it: `zoo [CASE...]`. ZOO_RUNS (15) runs of each
//! case, ZOO_WITHOUT (none) names layers to do without, ZOO_ESCAPES (all) the escapes.

use std::io::Write as _;
use std::process::ExitCode;

use supervisor_tests::zoo::cell::{Case, play};
use supervisor_tests::zoo::escape::Escape;
use supervisor_tests::zoo::layer::Layer;
use supervisor_tests::zoo::table::Table;

fn main() -> ExitCode {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let is_meant = |case: &&Case| named.is_empty() || named.iter().any(|name| name == case.word());
    let runs = number("ZOO_RUNS", 15);
    let without = words("ZOO_WITHOUT");
    let without: Vec<Layer> = Layer::ALL
        .iter()
        .copied()
        .filter(|layer| without.iter().any(|word| word == layer.word()))
        .collect();
    let (mut escapes, not) = Escape::possible();
    for (escape, why) in not {
        say(&format!("{escape} is left out: {why}\n"));
    }
    let only = words("ZOO_ESCAPES");
    escapes.retain(|escape| only.is_empty() || only.iter().any(|word| word == escape.word()));
    let Ok(program) = std::env::current_exe().map(|own| own.with_file_name("nasty_agent")) else {
        return ExitCode::from(10);
    };
    let mut table = Table::default();
    let mut wrong = Vec::new();
    for case in Case::ALL.iter().filter(is_meant) {
        for run in 1..=runs {
            let outcome = play(*case, &escapes, &without, &program);
            let broken = outcome.cells.iter().filter_map(|cell| cell.broken());
            for line in broken.chain(outcome.wrong.iter().cloned()) {
                say(&format!("run {run}: {line}\n"));
                wrong.push(line);
            }
            table.add(outcome.cells);
        }
        say(&format!("{case}: {runs} runs\n"));
    }
    say(&table.text());
    say(&format!("{} rules broken\n", wrong.len()));
    ExitCode::from(u8::from(!wrong.is_empty()))
}

fn words(name: &str) -> Vec<String> {
    let text = std::env::var(name).unwrap_or_default();
    let words = text.split([',', ' ']).filter(|word| !word.is_empty());
    words.map(str::to_owned).collect()
}

fn number(name: &str, otherwise: usize) -> usize {
    let text = std::env::var(name).unwrap_or_default();
    text.parse().unwrap_or(otherwise)
}

/// A reader that went away changes nothing about the result.
fn say(text: &str) {
    drop(std::io::stdout().write_all(text.as_bytes()));
}
