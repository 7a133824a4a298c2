//! One file of the simulated disk: what a reader sees, what is durable, and what is between.

use std::collections::BTreeSet;

use super::disk::DiskCounts;
use super::rng::Rng;

/// What a disk writes in one piece.
pub(super) const BLOCK: usize = 512;

/// The bytes of one file.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// What a reader sees.
    pub(super) cached: Vec<u8>,
    /// What is on the disk.
    pub(super) durable: Vec<u8>,
    /// Blocks that the next sync writes.
    pub(super) dirty: BTreeSet<usize>,
    /// Blocks that a failed sync gave up: on the disk or not, and no sync will write them.
    pub(super) given_up: BTreeSet<usize>,
}

impl Content {
    /// Writes one block of the cache to the disk; what lies before it and was never written is zeros.
    pub(super) fn copy_block(&mut self, block: usize) {
        let start = block * BLOCK;
        let end = (start + BLOCK).min(self.cached.len());
        if start >= end {
            return;
        }
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.cached[start..end]);
    }

    /// What a process writes.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[offset..end].copy_from_slice(bytes);
        for block in offset / BLOCK..=(end - 1) / BLOCK {
            self.dirty.insert(block);
            self.given_up.remove(&block);
        }
    }

    /// The power goes: of what was not synced some is kept, some torn, some lost.
    pub(super) fn tear(&mut self, rng: &mut Rng, counts: &mut DiskCounts) {
        let mut open: BTreeSet<usize> = std::mem::take(&mut self.dirty);
        open.append(&mut self.given_up);
        let longer = self.cached.len() > self.durable.len();
        if open.is_empty() && self.cached.len() == self.durable.len() {
            return;
        }
        match rng.below(4) {
            0 => counts.bytes_lost += 1,
            1 => self.durable = self.cached.clone(),
            2 if longer => {
                let from = self.durable.len();
                let room = self.cached.len() - from;
                let kept = from + rng.index(room + 1);
                self.durable.extend_from_slice(&self.cached[from..kept]);
                counts.torn_at_byte += 1;
            }
            _ => self.keep_some_blocks(&open, rng, counts),
        }
        self.cached = self.durable.clone();
    }

    fn keep_some_blocks(&mut self, open: &BTreeSet<usize>, rng: &mut Rng, counts: &mut DiskCounts) {
        let mut lost_one = false;
        for block in open {
            if rng.chance(500) {
                self.copy_block(*block);
                counts.torn_in_blocks += u64::from(lost_one);
            } else {
                lost_one = true;
            }
        }
        if self.cached.len() < self.durable.len() && rng.chance(500) {
            self.durable.truncate(self.cached.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use supervisor::store::{Disk, OpenAs};

    use super::super::disk::SimDisk;
    use super::super::rng::Rng;

    const ROOT: &str = "/state";
    const FILE: &str = "/state/file";

    fn disk(seed: u64) -> SimDisk {
        SimDisk::new(Rng::new(seed), Path::new(ROOT))
    }

    fn written(disk: &SimDisk, text: &[u8], folder: bool) {
        let mut file = disk.open(Path::new(FILE), OpenAs::Write).unwrap();
        file.write_at(0, text).unwrap();
        file.sync().unwrap();
        if folder {
            disk.sync_dir(Path::new(ROOT)).unwrap();
        }
    }

    #[test]
    fn what_was_synced_with_its_name_survives_every_power_cut() {
        for seed in 0..200 {
            let disk = disk(seed);
            written(&disk, &[7; 2000], true);
            let mut file = disk.open(Path::new(FILE), OpenAs::Write).unwrap();
            file.write_at(2000, &[8; 3000]).unwrap();
            disk.cut_power();
            assert_eq!(
                disk.files()[Path::new(FILE)][..2000],
                [7; 2000],
                "seed {seed}"
            );
        }
    }

    #[test]
    fn without_a_sync_of_the_folder_the_name_is_lost_in_some_power_cuts() {
        let lost = (0..200).filter(|seed| {
            let disk = disk(*seed);
            written(&disk, b"x", false);
            disk.cut_power();
            disk.files().is_empty()
        });
        assert!((50..150).contains(&lost.count()));
    }

    #[test]
    fn a_sync_after_a_failed_one_goes_well_and_proves_nothing() {
        let disk = disk(1);
        written(&disk, b"first", true);
        let mut file = disk.open(Path::new(FILE), OpenAs::Write).unwrap();
        file.write_at(0, b"other").unwrap();
        disk.fail_next_sync();
        assert!(file.sync().is_err());
        assert!(file.sync().is_ok());
        assert_eq!(
            disk.files()[Path::new(FILE)],
            b"other",
            "the cache still shows it"
        );
        assert_eq!(disk.worst_case().files()[Path::new(FILE)], b"first");
        file.write_at(0, b"again").unwrap();
        file.sync().unwrap();
        assert_eq!(disk.worst_case().files()[Path::new(FILE)], b"again");
    }

    #[test]
    fn a_full_disk_takes_a_part_and_a_removed_file_makes_room() {
        let disk = disk(1);
        written(&disk, &[1; 100], true);
        disk.set_full(true);
        let other = Path::new("/state/other");
        assert!(disk.open(other, OpenAs::New).is_err());
        disk.remove(Path::new(FILE)).unwrap();
        let mut file = disk.open(other, OpenAs::New).unwrap();
        file.write_at(0, &[2; 100]).unwrap();
        assert!(file.write_at(100, &[2]).is_err());
    }

    #[test]
    fn a_process_dies_in_a_call_and_its_file_keeps_what_was_written() {
        let disk = disk(3);
        written(&disk, b"whole", true);
        disk.light_fuse(1);
        let mut file = disk.open(Path::new(FILE), OpenAs::Write).unwrap();
        assert!(file.write_at(5, &[9; 1000]).is_err());
        assert!(disk.has_killed() && file.sync().is_err());
        disk.new_process();
        let bytes = &disk.files()[Path::new(FILE)];
        assert!(bytes.starts_with(b"whole") && bytes.len() <= 1005);
    }
}
