//! Times and lengths as scripts and people read them.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Serialize, Serializer};
use supervisor_core::time::Wall;

/// A moment as RFC 3339 in UTC, to the millisecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(pub Wall);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", timestamp(self.0))
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A length for people: two units at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    /// From `earlier` to `later`; zero when the clock went backwards in between.
    pub fn between(earlier: Wall, later: Wall) -> Self {
        let length = later.0.saturating_sub(earlier.0).max(0);
        Self(Duration::from_millis(length.unsigned_abs()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
        let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
        let text = if days > 0 {
            format!("{days}d {hours:02}h")
        } else if hours > 0 {
            format!("{hours}h {minutes:02}m")
        } else if minutes > 0 {
            format!("{minutes}m {rest:02}s")
        } else if seconds >= 10 {
            format!("{seconds}s")
        } else {
            format!("{seconds}.{}s", self.0.subsec_millis() / 100)
        };
        f.pad(&text)
    }
}

/// A reader's time: what is now, and in which zone it is shown.
#[derive(Debug, Clone)]
pub struct LocalTime {
    /// Now.
    pub now: Wall,
    /// The zone of the person's machine.
    pub zone: TimeZone,
}

impl LocalTime {
    /// `14:03:22`, with the date in front when it is not today.
    pub fn time_of_day(&self, at: Wall) -> String {
        let at = timestamp(at).to_zoned(self.zone.clone());
        let now = timestamp(self.now).to_zoned(self.zone.clone());
        if at.date() == now.date() {
            at.strftime("%H:%M:%S").to_string()
        } else {
            at.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
    }

    /// `in 4m 10s (14:07:32)`, or `now` when it is due.
    pub fn ahead(&self, at: Wall) -> String {
        if at <= self.now {
            return "now".to_owned();
        }
        let span = Span::between(self.now, at);
        format!("in {span} ({})", self.time_of_day(at))
    }

    /// How long ago.
    pub fn since(&self, at: Wall) -> Span {
        Span::between(at, self.now)
    }
}

/// Out-of-range times (a corrupt clock) are shown as the end of the range, never as a failure.
fn timestamp(at: Wall) -> Timestamp {
    Timestamp::from_millisecond(at.0).unwrap_or(if at.0 < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(now: i64) -> LocalTime {
        LocalTime {
            now: Wall(now),
            zone: TimeZone::UTC,
        }
    }

    #[test]
    fn a_stamp_is_rfc_3339_in_utc() {
        assert_eq!(Stamp(Wall(0)).to_string(), "1970-01-01T00:00:00.000Z");
        let json = serde_json::to_string(&Stamp(Wall(1_700_000_000_123))).unwrap();
        assert_eq!(json, "\"2023-11-14T22:13:20.123Z\"");
        assert!(Stamp(Wall(i64::MAX)).to_string().starts_with("9999"));
    }

    #[test]
    fn a_span_has_two_units_at_most() {
        let cases = [
            (400, "0.4s"),
            (9_999, "9.9s"),
            (59_000, "59s"),
            (61_000, "1m 01s"),
            (3_720_000, "1h 02m"),
            (180_000_000, "2d 02h"),
        ];
        for (millis, text) in cases {
            assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
        }
        assert_eq!(Span::between(Wall(5), Wall(1)).to_string(), "0.0s");
    }

    #[test]
    fn a_date_is_named_only_when_it_is_not_today() {
        let clock = at(1_700_000_000_000);
        assert_eq!(clock.time_of_day(Wall(1_700_000_060_000)), "22:14:20");
        assert_eq!(
            clock.time_of_day(Wall(1_700_100_000_000)),
            "2023-11-16 02:00:00"
        );
        assert_eq!(clock.ahead(Wall(1_700_000_060_000)), "in 1m 00s (22:14:20)");
        assert_eq!(clock.ahead(Wall(1)), "now");
    }
}
