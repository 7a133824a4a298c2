//! Commands read a batch while its supervisor writes it, on the disk of this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use supervisor_core::time::Wall;

use super::sample::{entries, facts};
use super::seqs;
use crate::store::{Check, Loaded, RealDisk, StateDir, checkpoint, load, open_for_append};

const GROUPS: u64 = 400;

/// Writes groups of growing size over many segments, and a checkpoint now and then.
fn write_all(dir: &StateDir) {
    let (journal, _) = open_for_append(Arc::new(RealDisk), dir, Wall(1)).unwrap();
    let mut journal = journal.with_segment_max(20_000);
    for group in 0..GROUPS {
        let next = journal.durable().seq + 1;
        journal.append(&entries(next, group % 7 + 1)).unwrap();
        let at = journal.sync().unwrap();
        if group % 20 == 0 {
            let bytes = checkpoint::encode(&facts(at.seq), at).unwrap();
            checkpoint::write(&RealDisk, dir, &bytes).unwrap();
        }
    }
}

/// The last record that a reader saw; checks that there is no gap before it.
fn last_seen(loaded: &Loaded) -> u64 {
    let start = loaded
        .checkpoint
        .as_ref()
        .map_or(0, |facts| facts.batch.seq);
    let end = loaded.end.seq;
    assert_eq!(seqs(&loaded.entries), (start + 1..=end).collect::<Vec<_>>());
    end
}

#[test]
fn a_reader_sees_a_whole_batch_that_only_grows() {
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::at(folder.path().join("b"));
    dir.create(&RealDisk).unwrap();
    let done = AtomicBool::new(false);
    let reads = std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            write_all(&dir);
            done.store(true, Ordering::Release);
        });
        let (mut reads, mut last) = (0, 0);
        while !done.load(Ordering::Acquire) && !writer.is_finished() {
            for check in [Check::Whole, Check::Tail, Check::Quick] {
                let seen = last_seen(&load(&RealDisk, &dir, check).unwrap());
                assert!(seen >= last, "{seen} after {last}");
                last = seen;
                reads += 1;
            }
        }
        writer.join().unwrap();
        reads
    });
    assert!(reads > 0);
    let sizes: u64 = (0..GROUPS).map(|group| group % 7 + 1).sum();
    assert_eq!(
        last_seen(&load(&RealDisk, &dir, Check::Whole).unwrap()),
        sizes
    );
}
