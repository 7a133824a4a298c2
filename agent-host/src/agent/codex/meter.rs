//! What codex used: tokens of this run, how full the context is, and the limits of the account.

use std::collections::BTreeMap;

use protocol::report::{Context, Event, Usage};
use serde_json::Value;

/// Most threads whose totals are remembered: the agent's own and those of agents that it started.
const THREADS_MAX: usize = 64;
/// Milliseconds of a second.
const SECOND_MS: i64 = 1000;
/// A window of the account's limit that is used up, percent.
const USED_UP: f64 = 100.0;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Meter {
    usage: Usage,
    /// The total of each thread, by the program's count. A thread that goes on begins with what it
    /// used in earlier runs.
    totals: BTreeMap<String, Value>,
    /// Ends of the account's windows, by name: milliseconds since the Unix epoch, for those used up.
    windows: BTreeMap<&'static str, Option<i64>>,
}

impl Meter {
    /// What was used in this run so far.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Takes in a `thread/tokenUsage/updated`; whether a request was answered. `counts`: a turn of
    /// this run runs; without, it is what earlier runs used.
    pub(super) fn updated(
        &mut self,
        params: &Value,
        counts: bool,
        events: &mut Vec<Event>,
    ) -> bool {
        let thread = params["threadId"].as_str().unwrap_or_default();
        let (total, last) = (
            &params["tokenUsage"]["total"],
            &params["tokenUsage"]["last"],
        );
        if self.totals.get(thread) == Some(total) {
            return false;
        }
        if self.totals.len() >= THREADS_MAX && !self.totals.contains_key(thread) {
            self.totals.clear();
        }
        self.totals.insert(thread.to_owned(), total.clone());
        let count = |name: &str| last[name].as_u64().unwrap_or(0);
        let read = count("inputTokens");
        // A context that is full is told as a total of its size, with nothing read or answered.
        if !counts || (read == 0 && count("outputTokens") == 0) {
            return false;
        }
        // What comes from the cache is not paid in full, and would count a long session's whole
        // context at every step.
        let fresh = read.saturating_sub(count("cachedInputTokens"));
        let fresh = fresh.saturating_add(count("outputTokens"));
        self.usage.turns += 1;
        self.usage.tokens = self.usage.tokens.saturating_add(fresh);
        events.push(Event::Usage(self.usage));
        true
    }

    /// How full the context of a thread is.
    pub(super) fn context(params: &Value) -> Option<Event> {
        let usage = &params["tokenUsage"];
        let window = usage["modelContextWindow"].as_u64()?;
        let used = usage["last"]["totalTokens"].as_u64()?;
        Some(Event::Context(Context { used, window }))
    }

    /// Takes in an `account/rateLimits/updated`: a window that is not in it is as it was.
    pub(super) fn limits(&mut self, params: &Value) {
        for name in ["primary", "secondary"] {
            let window = &params["rateLimits"][name];
            let Some(used) = window["usedPercent"].as_f64() else {
                continue;
            };
            let end = window["resetsAt"].as_i64();
            let end = end.and_then(|seconds| seconds.checked_mul(SECOND_MS));
            self.windows.insert(name, end.filter(|_| used >= USED_UP));
        }
    }

    /// When the last window that is used up ends.
    pub(super) fn reset_at_ms(&self) -> Option<i64> {
        self.windows.values().flatten().max().copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn used(thread: &str, total: u64, input: u64, cached: u64, output: u64) -> Value {
        json!({"threadId": thread, "tokenUsage": {"total": {"totalTokens": total},
            "last": {"totalTokens": input + output, "inputTokens": input,
                "cachedInputTokens": cached, "outputTokens": output},
            "modelContextWindow": 1000}})
    }

    #[test]
    fn only_answers_of_this_run_count_and_each_once() {
        let (mut meter, mut events) = (Meter::default(), Vec::new());
        let earlier = used("a", 500, 400, 0, 100);
        assert!(!meter.updated(&earlier, false, &mut events));
        assert!(!meter.updated(&earlier, true, &mut events), "it is known");
        assert!(meter.updated(&used("a", 600, 90, 60, 10), true, &mut events));
        assert!(!meter.updated(&used("a", 600, 90, 60, 10), true, &mut events));
        assert!(meter.updated(&used("b", 30, 20, 0, 10), true, &mut events));
        let full = used("a", 1000, 0, 0, 0);
        assert!(!meter.updated(&full, true, &mut events), "no request");
        let usage = Usage {
            turns: 2,
            tokens: 70,
            cost_micros: 0,
        };
        assert_eq!(meter.usage(), usage);
        assert_eq!(events.len(), 2);
    }

    #[test]
    fn a_limit_ends_when_the_last_window_that_is_used_up_does() {
        let mut meter = Meter::default();
        let window = |used: f64, end: i64| json!({"usedPercent": used, "resetsAt": end});
        meter.limits(&json!({"rateLimits": {"primary": window(40.0, 9), "secondary": null}}));
        assert_eq!(meter.reset_at_ms(), None);
        meter.limits(&json!({"rateLimits": {"primary": window(100.0, 7)}}));
        meter.limits(&json!({"rateLimits": {"primary": null, "secondary": window(100.0, 8)}}));
        assert_eq!(meter.reset_at_ms(), Some(8000));
    }
}
