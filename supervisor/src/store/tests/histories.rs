//! Any history of writes, failures, kills and power cuts, against a model of three numbers.

use proptest::prelude::*;

use supervisor_core::record::Entry;

use super::disk::MemDisk;
use super::sample::{entries, facts};
use super::{dir, fresh, open, read, segment};
use crate::store::{Check, Journal, StoreError, checkpoint, load};

/// One step of a history.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Records are appended.
    Append(u64),
    /// The group is made durable, and what it announces may happen.
    Sync,
    /// A checkpoint is written where the state is durable.
    Checkpoint,
    /// The next sync fails.
    SyncFails,
    /// The supervisor will be killed by the next failure, before it can reopen anything.
    Frail,
    /// There is room for this many bytes.
    Room(usize),
    /// There is room again.
    RoomAgain,
    /// The supervisor is killed; the machine lives on.
    Killed,
    /// The power fails; what was not synced lands or not, by this seed.
    PowerCut(u64),
    /// Somebody looks.
    Looked,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_u64..6).prop_map(Step::Append),
        6 => Just(Step::Sync),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::SyncFails),
        1 => Just(Step::Frail),
        1 => (0_usize..3_000).prop_map(Step::Room),
        2 => Just(Step::RoomAgain),
        2 => Just(Step::Killed),
        2 => any::<u64>().prop_map(Step::PowerCut),
        1 => Just(Step::Looked),
    ]
}

/// The supervisor of the history, and what it may rely on.
struct Model {
    disk: MemDisk,
    journal: Journal,
    /// The last record that the journal took.
    written: u64,
    /// The last record that was called durable.
    durable: u64,
    frail: bool,
}

impl Model {
    fn new() -> Self {
        let (disk, _) = fresh();
        let (journal, _) = open(&disk).unwrap();
        Model {
            disk,
            journal: journal.with_segment_max(900),
            written: 0,
            durable: 0,
            frail: false,
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Append(count) => self.append(&entries(self.written + 1, count)),
            Step::Sync => self.sync(),
            Step::Checkpoint => self.checkpoint(),
            Step::SyncFails => self.disk.fail_syncs(1),
            Step::Frail => self.frail = true,
            Step::Room(bytes) => self.disk.limit_room(Some(bytes)),
            Step::RoomAgain => self.disk.limit_room(None),
            Step::Killed => self.start(self.written),
            Step::PowerCut(seed) => self.power_cut(seed),
            Step::Looked => self.look(),
        }
    }

    fn append(&mut self, group: &[Entry]) {
        match self.journal.append(group) {
            Ok(bytes) => {
                assert!(bytes > 0);
                self.written += group.len() as u64;
            }
            Err(StoreError::Full { .. }) => {}
            Err(StoreError::NeedsReopen { .. }) => self.reopen(),
            Err(other) => panic!("{other}"),
        }
    }

    fn sync(&mut self) {
        match self.journal.sync() {
            Ok(at) => {
                assert_eq!(at.seq, self.written);
                self.durable = at.seq;
            }
            Err(StoreError::SyncFailed { .. } | StoreError::NeedsReopen { .. }) => self.reopen(),
            Err(other) => panic!("{other}"),
        }
    }

    fn reopen(&mut self) {
        if self.frail {
            return self.start(self.written);
        }
        match self.journal.reopen() {
            Ok(at) => {
                assert_eq!(at.seq, self.durable);
                self.written = at.seq;
            }
            Err(StoreError::SyncFailed { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn checkpoint(&mut self) {
        let at = self.journal.durable();
        if at.seq == 0 {
            return;
        }
        let bytes = checkpoint::encode(&facts(at.seq), at).unwrap();
        match checkpoint::write(&self.disk, &dir(), &bytes) {
            Ok(()) | Err(StoreError::Full { .. } | StoreError::SyncFailed { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn power_cut(&mut self, seed: u64) {
        let mut state = seed | 1;
        self.disk.restart(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state & 1 == 0
        });
        self.start(self.durable);
    }

    /// A new supervisor; at least `least` must be there.
    fn start(&mut self, least: u64) {
        // Whoever starts while the disk is broken tries again later.
        self.disk.limit_room(None);
        self.disk.fail_syncs(0);
        let (journal, loaded) = open(&self.disk).unwrap_or_else(|error| panic!("{error}"));
        let end = loaded.end.seq;
        assert!(end >= least, "{end} of {least}");
        let from = loaded.checkpoint.map_or(0, |facts| facts.batch.seq);
        assert_eq!(loaded.entries, entries(from + 1, end - from));
        assert_eq!(journal.durable().seq, end);
        self.journal = journal.with_segment_max(900);
        self.frail = false;
        (self.written, self.durable) = (end, end);
    }

    fn look(&self) {
        let before = self.disk.picture();
        for check in [Check::Whole, Check::Tail, Check::Quick] {
            let loaded = load(&self.disk, &dir(), check).unwrap_or_else(|error| panic!("{error}"));
            assert!(loaded.end.seq >= self.durable);
        }
        assert_eq!(self.disk.picture(), before);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn no_history_loses_what_was_durable(steps in prop::collection::vec(step(), 1..40)) {
        let mut model = Model::new();
        for step in steps {
            model.take(step);
        }
        model.power_cut(7);
        let end = read(&model.disk).unwrap().end.seq;
        prop_assert_eq!(end, model.durable);
    }

    #[test]
    fn a_flipped_bit_is_noticed_or_in_the_last_group(
        sizes in prop::collection::vec(1_u64..4, 2..8),
        place in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut model = Model::new();
        let mut last_group = 0;
        for size in sizes {
            last_group = model.durable + 1;
            model.take(Step::Append(size));
            model.take(Step::Sync);
        }
        let number = model.journal.durable().segment;
        let mut bytes = model.disk.bytes(&segment(number));
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        model.disk.set(&segment(number), &bytes);
        match open(&model.disk) {
            Ok((_, loaded)) => {
                prop_assert!(loaded.torn.is_some());
                prop_assert_eq!(loaded.end.seq, last_group - 1);
            }
            Err(error) => prop_assert!(error.is_unreadable()),
        }
    }
}
