//! What agents used, as far as they say so: what is not reported is unknown, not nothing.

use protocol::report::Usage;
use serde::Serialize;
use supervisor_core::facts::Run;

/// A sum of numbers of which some may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    value: u64,
    /// Something was not reported.
    gap: bool,
}

impl Sum {
    fn of(value: u64, told: bool) -> Self {
        let gap = !told && value == 0;
        Self { value, gap }
    }

    fn add(&mut self, other: Sum) {
        self.value = self.value.saturating_add(other.value);
        self.gap |= other.gap;
    }

    /// `None` where somebody did not say and nobody named a number.
    fn known(self) -> Option<u64> {
        (self.value > 0 || !self.gap).then_some(self.value)
    }

    fn at_least(self) -> bool {
        self.value > 0 && self.gap
    }
}

/// Use of several runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    tokens: Sum,
    cost_micros: Sum,
}

impl Used {
    /// Use of an agent's run; `last` is what its result says, if there is one.
    pub fn of(run: &Run, last: Usage) -> Self {
        let Some(can) = run.capabilities else {
            return Self::default(); // its agent never began
        };
        Self {
            tokens: Sum::of(run.usage.tokens.max(last.tokens), can.usage),
            cost_micros: Sum::of(run.usage.cost_micros.max(last.cost_micros), can.cost),
        }
    }

    /// Use of a run that is not over: what it said so far.
    pub fn of_live(run: &Run) -> Self {
        match run.purpose.is_agent() {
            true => Self::of(run, Usage::default()),
            false => Self::default(),
        }
    }

    /// Together with that of others.
    pub fn add(&mut self, other: Used) {
        self.tokens.add(other.tokens);
        self.cost_micros.add(other.cost_micros);
    }
}

/// Use as scripts and templates read it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct UsedPart {
    /// Tokens in and out together; absent: no agent said.
    pub tokens: Option<u64>,
    /// Some agent did not say, so that it is more.
    pub tokens_at_least: bool,
    /// US dollars; absent: no agent said.
    pub cost_usd: Option<f64>,
    /// Some agent did not say, so that it is more.
    pub cost_at_least: bool,
}

impl UsedPart {
    /// Whether there is a number to show.
    pub fn is_any(&self) -> bool {
        self.tokens.is_some_and(|tokens| tokens > 0) || self.cost_usd.is_some_and(|cost| cost > 0.0)
    }
}

impl From<Used> for UsedPart {
    fn from(used: Used) -> Self {
        // Exact up to 9 billion dollars: a double holds every integer below 2^53.
        #[expect(
            clippy::cast_precision_loss,
            reason = "cost stays far below 2^53 micro-dollars"
        )]
        let dollars = |micros: u64| micros as f64 / 1e6;
        Self {
            tokens: used.tokens.known(),
            tokens_at_least: used.tokens.at_least(),
            cost_usd: used.cost_micros.known().map(dollars),
            cost_at_least: used.cost_micros.at_least(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(tokens: (u64, bool), cost: (u64, bool)) -> Used {
        Used {
            tokens: Sum::of(tokens.0, tokens.1),
            cost_micros: Sum::of(cost.0, cost.1),
        }
    }

    #[test]
    fn what_no_agent_reports_is_unknown_and_not_nothing() {
        let part = UsedPart::from(used((0, false), (0, false)));
        assert_eq!((part.tokens, part.cost_usd), (None, None));
        assert!(!part.tokens_at_least && !part.cost_at_least);
        let part = UsedPart::from(used((0, true), (0, false)));
        assert_eq!((part.tokens, part.cost_usd), (Some(0), None));
    }

    #[test]
    fn a_sum_with_a_gap_is_a_lower_bound() {
        let mut all = used((900, true), (1_500_000, true));
        all.add(used((0, false), (500_000, true)));
        let part = UsedPart::from(all);
        assert_eq!((part.tokens, part.tokens_at_least), (Some(900), true));
        assert_eq!((part.cost_usd, part.cost_at_least), (Some(2.0), false));
    }

    #[test]
    fn where_nobody_worked_nothing_was_used() {
        let part = UsedPart::from(Used::default());
        assert_eq!((part.tokens, part.cost_usd), (Some(0), Some(0.0)));
    }
}
