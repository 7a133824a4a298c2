//! `sim N [FIRST]` tells N stories; `sim --seed X [--story]` tells one, in full if asked to.

use std::io::{self, Write};
use std::process::ExitCode;

use supervisor_tests::sim::{Bug, Telling, report, run, run_range};

/// Seeds per progress line.
const CHUNK: u64 = 1_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}

fn dispatch(args: &[String], out: &mut impl Write) -> io::Result<bool> {
    let number = |at: usize| args.get(at).and_then(|text| text.parse::<u64>().ok());
    if args.first().is_some_and(|first| first == "--seed") {
        let Some(seed) = number(1) else {
            return usage(out);
        };
        let whole = args.get(2).is_some_and(|word| word == "--story");
        return one(seed, whole, out);
    }
    let Some(count) = number(0) else {
        return usage(out);
    };
    many(count, number(1).unwrap_or(1), out)
}

fn usage(out: &mut impl Write) -> io::Result<bool> {
    writeln!(out, "usage: sim N [FIRST-SEED] | sim --seed X [--story]")?;
    Ok(false)
}

fn one(seed: u64, whole: bool, out: &mut impl Write) -> io::Result<bool> {
    let ended = run(
        seed,
        Bug::None,
        if whole {
            Telling::Everything
        } else {
            Telling::End
        },
    );
    write!(out, "{}", ended.story)?;
    let (steps, hours) = (ended.steps, ended.lasted / 3_600_000);
    writeln!(
        out,
        "seed {seed}: {steps} steps, {hours} virtual hours, hash {:016x}",
        ended.hash
    )?;
    match &ended.broken {
        None => writeln!(out, "no rule broken")?,
        Some(violation) => writeln!(out, "rule broken: {}\n  {}", violation.rule, violation.text)?,
    }
    Ok(ended.broken.is_none())
}

fn many(count: u64, first: u64, out: &mut impl Write) -> io::Result<bool> {
    let mut failed = Vec::new();
    let (mut steps, mut lasted, mut told) = (0, 0, 0);
    let mut reached = supervisor_tests::sim::Reached::default();
    while told < count && failed.len() < supervisor_tests::sim::FAILED_MAX {
        let summary = run_range(first + told, CHUNK.min(count - told), Bug::None);
        told += summary.seeds;
        steps += summary.steps;
        lasted += summary.lasted;
        reached.merge(&summary.reached);
        failed.extend(summary.failed);
        let days = lasted / 86_400_000;
        writeln!(
            out,
            "{told} seeds, {steps} steps, {days} virtual days, {} failed",
            failed.len()
        )?;
    }
    write!(out, "{}", reached.table())?;
    for name in reached.missing() {
        writeln!(out, "not reached: {name}")?;
    }
    for (seed, violation) in &failed {
        writeln!(out, "seed {seed}: {}: {}", violation.rule, violation.text)?;
    }
    if let Some((seed, _)) = failed.first() {
        write!(out, "{}", report(*seed, Bug::None))?;
    }
    Ok(failed.is_empty())
}
