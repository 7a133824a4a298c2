//! Facts before acts (I4): effects wait here until every record before them is durable.
//!
//! Pure, so that the simulator drives the very queue that the driver does.

use std::collections::VecDeque;

use crate::core::Turn;
use crate::effect::Effect;
use crate::mutation::{self, Mutation};

/// Effects in the order in which they were decided, each with the record it must wait for.
///
/// Its length needs no limit of its own: the driver takes no more inputs while more records wait
/// for the disk than its limit allows, and an effect waits only as long as its record.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<(u64, Effect)>,
    decided: u64,
    durable: u64,
}

impl Outbox {
    /// An outbox for a journal that is durable up to this record; 0 for an empty one.
    pub fn new(durable: u64) -> Outbox {
        Outbox {
            waiting: VecDeque::new(),
            decided: durable,
            durable,
        }
    }

    /// Takes the effects of a turn; they wait for all records decided so far, its own included.
    /// Urgent effects are not its concern: they are performed at once.
    ///
    /// An end of the supervisor that still waits is withdrawn: since it was decided something has
    /// happened, and the turn says again whether the supervisor ends, and how.
    ///
    /// Returns the effects that need not wait.
    #[must_use = "these effects must be performed now"]
    pub fn push(&mut self, turn: &mut Turn) -> Vec<Effect> {
        if let Some(last) = turn.entries.last() {
            self.decided = last.seq;
        }
        self.waiting
            .retain(|(_, effect)| !matches!(effect, Effect::Finish { .. }));
        let effects = std::mem::take(&mut turn.effects);
        let planted = mutation::on(Mutation::ActBeforeDurable);
        if self.durable >= self.decided || planted {
            return effects;
        }
        let decided = self.decided;
        self.waiting
            .extend(effects.into_iter().map(|effect| (decided, effect)));
        Vec::new()
    }

    /// Notes that every record up to `seq` is durable.
    ///
    /// Returns the effects that waited for no more than that, in order.
    #[must_use = "these effects must be performed now"]
    pub fn durable(&mut self, seq: u64) -> Vec<Effect> {
        self.durable = self.durable.max(seq);
        let ready = self
            .waiting
            .iter()
            .take_while(|(needed, _)| *needed <= self.durable)
            .count();
        self.waiting
            .drain(..ready)
            .map(|(_, effect)| effect)
            .collect()
    }

    /// How many effects wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no effect waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Entry, Record};
    use crate::time::Now;
    use protocol::ids::Generation;

    fn entry(seq: u64) -> Entry {
        Entry {
            seq,
            term: 1,
            now: Now::default(),
            record: Record::PlanClosed,
        }
    }

    fn ping(generation: u64) -> Effect {
        Effect::Ping {
            generation: Generation(generation),
        }
    }

    fn turn(seqs: &[u64], effects: &[Effect]) -> Turn {
        Turn {
            entries: seqs.iter().copied().map(entry).collect(),
            effects: effects.to_vec(),
            ..Turn::default()
        }
    }

    #[test]
    fn an_effect_waits_for_the_last_record_of_its_turn() {
        let mut outbox = Outbox::new(0);
        assert_eq!(outbox.push(&mut turn(&[1, 2], &[ping(1)])), []);
        assert_eq!(outbox.durable(1), []);
        assert_eq!(outbox.durable(2), [ping(1)]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn an_effect_without_records_waits_for_those_of_earlier_turns() {
        let mut outbox = Outbox::new(7);
        assert_eq!(outbox.push(&mut turn(&[8], &[])), []);
        assert_eq!(outbox.push(&mut turn(&[], &[ping(2)])), []);
        assert_eq!(outbox.len(), 1);
        assert_eq!(outbox.durable(8), [ping(2)]);
    }

    #[test]
    fn nothing_waits_when_all_is_durable() {
        let mut outbox = Outbox::new(7);
        assert_eq!(outbox.push(&mut turn(&[], &[ping(1)])), [ping(1)]);
    }

    #[test]
    fn order_is_kept_over_turns_and_groups() {
        let mut outbox = Outbox::new(0);
        assert_eq!(outbox.push(&mut turn(&[1], &[ping(1), ping(2)])), []);
        assert_eq!(outbox.push(&mut turn(&[2, 3], &[ping(3)])), []);
        assert_eq!(outbox.push(&mut turn(&[], &[ping(4)])), []);
        assert_eq!(outbox.durable(2), [ping(1), ping(2)]);
        assert_eq!(outbox.durable(3), [ping(3), ping(4)]);
    }

    #[test]
    fn an_end_that_waits_is_withdrawn_by_the_next_turn() {
        let end = |ending| Effect::Finish { ending };
        let mut outbox = Outbox::new(0);
        let mut turns = [
            turn(&[1], &[end(crate::effect::Ending::NeedsPerson)]),
            turn(&[2], &[ping(1), end(crate::effect::Ending::Done)]),
        ];
        for turn in &mut turns {
            assert_eq!(outbox.push(turn), []);
        }
        let ready = outbox.durable(2);
        assert_eq!(ready, [ping(1), end(crate::effect::Ending::Done)]);
    }

    #[test]
    fn what_was_durable_stays_so() {
        let mut outbox = Outbox::new(0);
        assert_eq!(outbox.push(&mut turn(&[1], &[])), []);
        assert_eq!(outbox.durable(1), []);
        assert_eq!(outbox.durable(0), []);
        assert_eq!(outbox.push(&mut turn(&[], &[ping(1)])), [ping(1)]);
    }

    #[test]
    fn urgent_effects_stay_with_the_turn() {
        let mut outbox = Outbox::new(0);
        let mut stopping = turn(&[1], &[]);
        stopping.urgent = vec![ping(9)];
        assert_eq!(outbox.push(&mut stopping), []);
        assert_eq!(stopping.urgent, [ping(9)]);
        assert_eq!(outbox.durable(1), []);
    }
}
