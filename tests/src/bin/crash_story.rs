//! Kills the supervisor, its guardian or both again and again and judges what was left: `crash_story [KILLS]`. As
//! `crash_story task RECORD LOCKS PERMITS ID` it is one task of that batch.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use supervisor_tests::clock::wall_ns;
use supervisor_tests::crash::{
    Script, Victims, play,
    record::{Part, play_task},
};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        [_, "task", record, locks, permits, task] => {
            let [record, locks, permits] = [record, locks, permits].map(Path::new);
            match play_task(Part {
                record,
                locks,
                permits,
                task,
            }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => say(&format!("{task}: {error}\n"), ExitCode::FAILURE),
            }
        }
        [_] => story(200),
        [_, kills] => match kills.parse() {
            Ok(kills) => story(kills),
            Err(error) => say(
                &format!("`{kills}` is no number of kills: {error}\n"),
                2.into(),
            ),
        },
        _ => say("usage: crash_story [KILLS]\n", 2.into()),
    }
}

fn story(kills: usize) -> ExitCode {
    let named = std::env::var("CRASH_VICTIMS");
    let named = named.as_deref().unwrap_or("any");
    let Some(victims) = Victims::named(named) else {
        let text = "CRASH_VICTIMS is supervisor, both, guardian, guarded or any";
        return say(&format!("{text}, not `{named}`\n"), 2.into());
    };
    let script = Script {
        victims,
        kills,
        tasks: number("CRASH_TASKS", 200),
        concurrency: number("CRASH_CONCURRENCY", 8),
        seed: number(
            "CRASH_SEED",
            u64::try_from(wall_ns() / 1000).unwrap_or_default(),
        ),
        task_program: std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe")),
    };
    let (tasks, concurrency, seed) = (script.tasks, script.concurrency, script.seed);
    let head = format!(
        "{kills} kills ({named}), {tasks} tasks, concurrency {concurrency}; again with CRASH_SEED={seed} \
         CRASH_VICTIMS={named}\n"
    );
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
