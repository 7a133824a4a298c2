//! One signal that comes two ways: what was sent to a whole group reaches a guardian and whoever it
//! guards, and is handed on besides.

use supervisor_core::time::Boot;

/// Longest time between the two arrivals of one signal: a guardian on a busy machine may get its
/// turn late.
const TWIN_MAX_MS: u64 = 2_000;
/// Signals kept to find the second arrival of; beyond it the oldest is taken for a single one.
const TWINS_MAX: usize = 16;

/// Which way a signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From whoever sent it.
    Direct,
    /// From the guardian, to which it was sent.
    HandedOn,
}

/// Signals that have come one way and may come the other way too.
#[derive(Debug)]
pub struct Twins<S> {
    first: Vec<(S, Way, Boot)>,
}

impl<S> Default for Twins<S> {
    fn default() -> Self {
        Twins { first: Vec::new() }
    }
}

impl<S: Copy + PartialEq> Twins<S> {
    /// Whether this is the second arrival of one that has counted.
    pub fn is_second(&mut self, came: S, way: Way, now: Boot) -> bool {
        self.first
            .retain(|(_, _, then)| now.0.saturating_sub(then.0) <= TWIN_MAX_MS);
        let twin = |first: &(S, Way, Boot)| first.0 == came && first.1 != way;
        if let Some(at) = self.first.iter().position(twin) {
            self.first.remove(at);
            return true;
        }
        if self.first.len() == TWINS_MAX {
            self.first.remove(0);
        }
        self.first.push((came, way, now));
        false
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal::{SIGINT, SIGTERM};

    use super::*;

    #[test]
    fn a_signal_to_the_whole_group_counts_once_whichever_way_is_quicker() {
        for (quick, slow) in [(Way::Direct, Way::HandedOn), (Way::HandedOn, Way::Direct)] {
            let mut twins = Twins::default();
            for round in 0..3 {
                let sent = Boot(round * 10_000);
                let late = Boot(sent.0 + 1_500);
                assert!(!twins.is_second(SIGTERM, quick, sent));
                assert!(!twins.is_second(SIGINT, slow, sent), "another signal");
                assert!(twins.is_second(SIGTERM, slow, late));
            }
        }
    }

    #[test]
    fn signals_that_come_one_way_all_count() {
        let mut twins = Twins::default();
        for press in 0..100 {
            assert!(!twins.is_second(SIGINT, Way::Direct, Boot(press)));
        }
        assert_eq!(twins.first.len(), TWINS_MAX);
        let much_later = Boot(1_000_000);
        assert!(!twins.is_second(SIGINT, Way::HandedOn, much_later));
    }
}
