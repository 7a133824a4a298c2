//! Kills whoever carries a delivery, again and again, and judges the repository: `delivery_story [KILLS]`.

use std::io::Write as _;
use std::process::ExitCode;

use supervisor_tests::clock::wall_ns;
use supervisor_tests::delivery::kill::{Script, play};

/// Kills where none are asked for.
const KILLS: usize = 200;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let kills = match args.as_slice() {
        [] => Ok(KILLS),
        [kills] => kills
            .parse()
            .map_err(|error| format!("`{kills}` is no number of kills: {error}")),
        _more => Err("usage: delivery_story [KILLS]".to_owned()),
    };
    match kills {
        Ok(kills) => story(kills),
        Err(error) => say(&format!("{error}\n"), 2.into()),
    }
}

fn story(kills: usize) -> ExitCode {
    let script = Script {
        kills,
        concurrency: number("DELIVERY_CONCURRENCY", 4),
        seed: number(
            "DELIVERY_SEED",
            u64::try_from(wall_ns() / 1000).unwrap_or_default(),
        ),
    };
    let seed = script.seed;
    let head = format!("{kills} kills; again with DELIVERY_SEED={seed}\n");
    let evidence = say(&head, play(&script));
    if evidence.is_clean() {
        say(&format!("{evidence}all rules kept\n"), ExitCode::SUCCESS)
    } else {
        say(
            &format!("{evidence}RULES BROKEN; seed {seed}\n"),
            ExitCode::FAILURE,
        )
    }
}

/// A number from the environment.
fn number<N: std::str::FromStr>(name: &str, otherwise: N) -> N {
    let text = std::env::var(name).unwrap_or_default();
    text.parse().unwrap_or(otherwise)
}

/// Prints and passes on. A reader that went away changes nothing about the result.
fn say<T>(text: &str, then: T) -> T {
    drop(std::io::stdout().write_all(text.as_bytes()));
    then
}
