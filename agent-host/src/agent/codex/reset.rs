//! When a limit of the account ends, as codex says it in words: a service that tells the time in the body
//! of its failure only leaves no other trace on the wire. The words are in local time, so they are read
//! where that is UTC, as in most containers and servers, and nowhere else.

use std::fs;
use std::path::Path;

use protocol::class::Class;
use protocol::command::Start;
use protocol::report::Event;

use crate::agent::driven::wire::{Out, Step, Verdict};

/// What stands before the time.
const BEFORE: &str = "try again at ";
/// Milliseconds of a minute and of a day.
const MINUTE_MS: i64 = 60_000;
const DAY_MS: i64 = 24 * 60 * MINUTE_MS;
/// Days from the first of March of year 0 to the Unix epoch.
const EPOCH_DAYS: i64 = 719_468;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
/// Names of the zone that is UTC.
const UTC: [&str; 5] = ["UTC", "Etc/UTC", "UTC0", "GMT", "Zulu"];

/// Whether local time is UTC for the program of this run.
pub(super) fn is_utc(start: &Start) -> bool {
    match start.env.get("TZ").map(|zone| zone.trim_start_matches(':')) {
        Some("") => true,
        Some(zone) => UTC.contains(&zone),
        None => match fs::read_link(Path::new("/etc/localtime")) {
            Ok(zone) => UTC.iter().any(|name| zone.ends_with(name)),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        },
    }
}

/// Adds the time to a failure by a limit that has none.
pub(super) fn fill(out: &mut Out, now_ms: i64) {
    let mut found = None;
    for step in &mut out.steps {
        if let Step::TurnEnded(ended) = step
            && ended.verdict == Verdict::Failed(Class::UsageLimit)
            && ended.reset_at_ms.is_none()
        {
            found = said(&ended.text, now_ms);
            ended.reset_at_ms = found;
        }
    }
    for event in &mut out.events {
        if let Event::RateLimited(limited) = event {
            limited.reset_at_ms = limited.reset_at_ms.or(found);
        }
    }
}

/// The end of the minute that a message names: `2:23 PM`, or `Nov 22nd, 2026 2:23 PM` for another day.
fn said(message: &str, now_ms: i64) -> Option<i64> {
    let (_, words) = message.split_once(BEFORE)?;
    let words: Vec<&str> = words.split_whitespace().take(5).collect();
    let at = words.iter().position(|word| word.contains(':'))?;
    let in_day = clock_ms(words[at], words.get(at + 1)?)? + MINUTE_MS;
    let today = now_ms.div_euclid(DAY_MS);
    match words[..at] {
        [] => {
            let end = today * DAY_MS + in_day;
            Some(if end < now_ms { end + DAY_MS } else { end })
        }
        [month, day, year] => {
            let month = MONTHS.iter().position(|name| *name == month)?;
            let digits = |word: &str| word.trim_end_matches(|c: char| !c.is_ascii_digit()).parse();
            let (day, year) = (digits(day).ok()?, digits(year).ok()?);
            Some(days(year, i64::try_from(month).ok()? + 1, day)? * DAY_MS + in_day)
        }
        _ => None,
    }
}

/// Milliseconds since midnight of `2:23 PM`.
fn clock_ms(clock: &str, half: &str) -> Option<i64> {
    let (hour, minute) = clock.split_once(':')?;
    let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
    if !(1..=12).contains(&hour) || !(0..60).contains(&minute) {
        return None;
    }
    let noon = match half.get(..2)? {
        "AM" => 0,
        "PM" => 12,
        _ => return None,
    };
    Some(((hour % 12 + noon) * 60 + minute) * MINUTE_MS)
}

/// Days from the Unix epoch to a date of the Gregorian calendar, for years that a limit may end in.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    // Years that begin in March have their odd day at their end.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    Some(year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - EPOCH_DAYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T13:23:41Z.
    const NOW_MS: i64 = 1_795_267_421_000;

    #[test]
    fn a_time_of_today_and_one_of_another_day_are_read() {
        let begin = "You’ve hit your usage limit. Visit https://x/y or try again at ";
        let cases = [
            ("2:23 PM.", Some(1_795_271_040_000)),
            ("1:23 PM.", Some(1_795_267_440_000)),
            ("1:22 PM.", Some(1_795_267_380_000 + DAY_MS)),
            ("12:05 AM.", Some(1_795_219_560_000 + DAY_MS)),
            ("Nov 22nd, 2026 2:23 PM.", Some(1_795_271_040_000 + DAY_MS)),
            ("Mar 1st, 2028 12:00 AM.", Some(1_835_481_660_000)),
            ("13:00 PM.", None),
            ("2:23", None),
            ("2:60 PM", None),
            ("Foo 22nd, 2026 2:23 PM.", None),
            ("Nov 22nd, 99999 2:23 PM.", None),
            ("tomorrow", None),
            ("", None),
        ];
        for (words, end) in cases {
            assert_eq!(said(&format!("{begin}{words}"), NOW_MS), end, "{words}");
        }
        assert_eq!(said("2:23 PM", NOW_MS), None);
    }
}
