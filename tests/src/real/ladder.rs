//! How long a message takes to climb its ladder with a real program: sent in the middle of a command,
//! whose end is known, several times in one turn.
#![expect(clippy::expect_used, reason = "a benchmark: a panic is its failure")]

use std::fmt;

use serde_json::{Value, json};

use super::{Real, Stage, say};
use crate::bench::median;
use crate::clock::wall_ns;
use crate::model::said;
use crate::world::tool;

/// Longest output of a program asked for its version; the version is in its first line.
const VERSION_CHARS_MAX: usize = 40;

/// Milliseconds of a day: moments of two clocks are compared within one.
const DAY_MS: i64 = 86_400_000;

/// Moments of one message, milliseconds of the day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Climb {
    sent: i64,
    queued: Option<i64>,
    injected: Option<i64>,
    seen: Option<i64>,
    /// The model's first request that has it.
    heard: Option<i64>,
    /// The end of the command in whose middle it was sent; none where the message ended it.
    boundary: Option<i64>,
}

impl Climb {
    /// From here on the program itself takes its time: the end of the command, or the message that
    /// ends it.
    fn since(&self) -> Option<i64> {
        self.boundary.or(self.injected)
    }
}

/// What was measured with one program.
#[derive(Debug)]
pub struct Row {
    real: Real,
    version: String,
    /// The mode that was used: `boundary`, or `interrupt` where nothing else reaches a turn.
    mode: &'static str,
    climbs: Vec<Climb>,
    /// Whether the session of a killed agent went on.
    resumed: bool,
}

/// The head of the table.
pub const HEAD: &str = "| program | version | way | queued, ms | injected, ms | \
    seen, ms | in the model's request, ms | goes on after kill -9 |\n|---|---|---|---|---|---|---|---|\n";

/// Plays a turn with this program, in which it is sent so many messages, and a kill -9 at the end.
///
/// # Panics
/// When something does not happen: this is no measurement then.
pub fn climb(real: Real, messages: usize) -> Row {
    let stage = Stage::new(real, &script(real, messages));
    let prompt = "Remember the word ALBATROSS.";
    stage.batch(&json!([{"id": "one", "prompt": prompt}]), &json!({}));
    let run = stage.world.start("run", &["run"]);
    holds(&stage, 0);
    let can = capabilities(&stage);
    // It takes no message in a turn but by the end of it.
    let by_interrupt = real == Real::Gemini;
    let mode = if by_interrupt {
        "interrupt"
    } else {
        "boundary"
    };
    let rung = can["receipt"].as_str().expect("a rung").to_owned();
    let climbs = (0..messages).map(|at| {
        holds(&stage, at);
        one(&stage, at, mode, &rung)
    });
    let mut climbs: Vec<Climb> = climbs.collect();
    holds(&stage, messages);
    stage.strike("agent");
    assert_eq!(
        run.end(&stage.world),
        Some(0),
        "{}",
        stage.world.printed("run")
    );
    for (at, climb) in climbs.iter_mut().enumerate() {
        climb.heard = heard(&stage, &text(at));
    }
    let turns = stage.turns();
    let last = turns.last().map(said).unwrap_or_default();
    let resumed = last.contains("hold-0") && last.contains("ALBATROSS");
    stage.world.assert_nothing_left();
    Row {
        real,
        version: version(real),
        mode,
        climbs,
        resumed,
    }
}

/// Commands that each say that they began, wait for a word and note when they end; one more than there
/// are messages, for the kill.
fn script(real: Real, messages: usize) -> Value {
    let hold = |at: usize| {
        let command = format!(
            "mkfifo hold-{at}; echo > begun-{at}; cat hold-{at} > /dev/null; date +%s%3N > end-{at}"
        );
        real.shell(&command)
    };
    let commands = (0..=messages).map(hold);
    commands.chain([say("Done.")]).collect()
}

/// Waits until that command runs.
fn holds(stage: &Stage, at: usize) {
    stage.world.eventually("the command runs", |world| {
        (world.read(&format!("begun-{at}")) == "\n").then_some(())
    });
}

/// What a message says, and nothing else does.
fn text(at: usize) -> String {
    format!("the word of rung {at}.")
}

/// When the model was first asked with this text in the request.
fn heard(stage: &Stage, text: &str) -> Option<i64> {
    let turns = stage.turns();
    let first = turns.iter().find(|turn| said(turn).contains(text))?;
    first["at_ms"].as_i64().map(i128::from).map(ms_of_day)
}

/// One message, from the command line to the highest rung that is proven.
fn one(stage: &Stage, at: usize, mode: &str, rung: &str) -> Climb {
    let log = format!("steer-{at}");
    let text = text(at);
    let args = [
        "steer",
        "one",
        &text,
        "--mode",
        mode,
        "--wait",
        rung,
        "--timeout",
        "60s",
    ];
    let sent = ms_of_day(wall_ns() / 1_000_000);
    let steer = stage.world.start(&log, &args);
    stage.world.eventually("the message is injected", |world| {
        moment(&world.printed(&log), "injected")
    });
    let boundary = (mode == "boundary").then(|| {
        stage.world.write(&format!("hold-{at}"), "go\n");
        stage.world.eventually("the command has ended", |world| {
            let ended: i128 = world.read(&format!("end-{at}")).trim_end().parse().ok()?;
            Some(ms_of_day(ended))
        })
    });
    let code = steer.end(&stage.world);
    let rungs = stage.world.printed(&log);
    assert_eq!(code, Some(0), "{rungs}");
    let [queued, injected, seen] = ["queued", "injected", "seen"].map(|rung| moment(&rungs, rung));
    Climb {
        sent,
        queued,
        injected,
        seen,
        heard: None,
        boundary,
    }
}

/// What the adapter of this run said that it can prove; its events are written a moment later.
fn capabilities(stage: &Stage) -> Value {
    stage.world.eventually("it tells what it can", |world| {
        let dir = world.batch_dir()?.join("tasks/one/attempts/1/runs");
        let run = std::fs::read_dir(dir).ok()?.flatten().next()?.path();
        let events = std::fs::read_to_string(run.join("events.jsonl")).ok()?;
        let events = events
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut told = events.filter_map(|event| find(&event, "capabilities").cloned());
        told.next_back()
    })
}

/// The value of this key, wherever it is.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map
            .get(key)
            .or_else(|| map.values().find_map(|value| find(value, key))),
        Value::Array(values) => values.iter().find_map(|value| find(value, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

/// What the program calls its version: the first word of its answer that begins with a digit.
fn version(real: Real) -> String {
    let program = real.installed().expect("it is installed");
    let answer = tool(program).arg("--version").output();
    let answer = answer.map(|output| output.stdout).unwrap_or_default();
    let answer = String::from_utf8_lossy(&answer);
    let mut words = answer.split_whitespace();
    let number = words.find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    number
        .unwrap_or("unknown")
        .chars()
        .take(VERSION_CHARS_MAX)
        .collect()
}

/// When a message reached a rung, as `steer --wait` prints it: `m1 seen 2026-01-31T12:00:00.000Z`.
fn moment(printed: &str, rung: &str) -> Option<i64> {
    let mut lines = printed
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    let time = lines.find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some(rung)).then(|| words.next())?
    })?;
    let (_, clock) = time.split_once('T')?;
    let mut parts = clock.trim_end_matches('Z').split([':', '.']);
    let mut next = || parts.next()?.parse::<i64>().ok();
    let [hour, minute, second, ms] = [next()?, next()?, next()?, next()?];
    Some(((hour * 60 + minute) * 60 + second) * 1000 + ms)
}

fn ms_of_day(ms: i128) -> i64 {
    i64::try_from(ms.rem_euclid(i128::from(DAY_MS))).unwrap_or_default()
}

/// From one moment to a later one, also over midnight. Two clocks of one machine are read in whole
/// milliseconds, so what looks like a moment earlier was at the same time.
fn between(from: i64, to: i64) -> f64 {
    let passed = (to - from).rem_euclid(DAY_MS);
    let passed = if passed > DAY_MS / 2 { 0 } else { passed };
    f64::from(i32::try_from(passed).unwrap_or(i32::MAX))
}

/// Median and largest of what was measured, or why there is nothing.
fn spread(lengths: Vec<f64>, nothing: &str) -> String {
    let largest = lengths.iter().copied().fold(0.0, f64::max);
    match lengths.is_empty() {
        true => nothing.to_owned(),
        false => format!("{:.0} ({largest:.0})", median(lengths)),
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = |nothing: &str, of: fn(&Climb) -> Option<(i64, i64)>| {
            let pairs = self.climbs.iter().filter_map(of);
            let lengths = pairs.map(|(from, to)| between(from, to));
            spread(lengths.collect(), nothing)
        };
        let queued = lengths("-", |climb| Some((climb.sent, climb.queued?)));
        let injected = lengths("-", |climb| Some((climb.sent, climb.injected?)));
        let seen = lengths("not proven", |climb| Some((climb.since()?, climb.seen?)));
        let heard = lengths("never", |climb| Some((climb.since()?, climb.heard?)));
        let way = match self.mode {
            "boundary" => "at the next tool",
            _ => "by interrupt",
        };
        let resumed = if self.resumed { "yes" } else { "no" };
        let name = self.real.name();
        let version = &self.version;
        writeln!(
            f,
            "| `{name}` | {version} | {way} | {queued} | {injected} | {seen} | {heard} | {resumed} |"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rung_is_read_from_whole_lines_only() {
        let printed = "m1 queued 2026-01-31T12:00:01.250Z\nm1 seen 2026-01-31T12:00";
        assert_eq!(moment(printed, "queued"), Some(43_201_250));
        assert_eq!(moment(printed, "seen"), None);
        assert_eq!(moment(printed, "injected"), None);
    }

    #[test]
    fn lengths_go_over_midnight_and_never_back() {
        assert_eq!(between(DAY_MS - 10, 5), 15.0);
        assert_eq!(between(5, 4), 0.0);
        assert_eq!(ms_of_day(i128::from(DAY_MS) + 7), 7);
    }

    #[test]
    fn a_row_says_what_is_not_proven() {
        let (queued, injected) = (Some(3), Some(9));
        let climb = Climb {
            sent: 1,
            queued,
            injected,
            ..Climb::default()
        };
        let later = Climb {
            heard: Some(60),
            injected: Some(21),
            ..climb
        };
        let row = Row {
            real: Real::Gemini,
            version: "0.61.0".to_owned(),
            mode: "interrupt",
            climbs: vec![climb, later, later],
            resumed: false,
        };
        let line =
            "| `gemini` | 0.61.0 | by interrupt | 2 (2) | 20 (20) | not proven | 39 (39) | no |\n";
        assert_eq!(row.to_string(), line);
    }
}
