//! After the story: what is on the disk is the whole truth, and damage is not taken for less.

use std::collections::BTreeMap;
use std::path::PathBuf;

use supervisor::store::{Check, load, open_for_append};
use supervisor_core::core::Core;

use super::process::difference;
use super::world::{Told, World, broken};

impl World {
    /// The journal, as it would be after the worst power cut, leads to the state that was reported.
    pub(super) fn last_look(&mut self) -> Told {
        let Some(last) = self.final_core.take() else {
            return Ok(());
        };
        let disk = self.disk.worst_case();
        let mut entries = Vec::new();
        let mut each = |entry| {
            entries.push(entry);
            Ok(())
        };
        if let Err(error) = load::replay(&disk, &self.dir, &mut each) {
            return broken("I9 what was written can be read", format!("{error}"));
        }
        let replayed = self.oracle.recovered(&entries)?;
        let seq = |core: &Core| core.facts().map_or(0, |facts| facts.batch.seq);
        if seq(&replayed) == seq(&last) && replayed.facts() != last.facts() {
            return broken("the journal is the truth", difference(&replayed, &last));
        }
        self.damage()
    }

    /// One byte of an earlier group is flipped: reading stops, and nothing is changed.
    fn damage(&mut self) -> Told {
        let disk = self.disk.worst_case();
        let files: BTreeMap<PathBuf, Vec<u8>> = disk.files();
        let segment = self.dir.segment(1);
        let Some(bytes) = files.get(&segment) else {
            return Ok(());
        };
        let Some(line) = bytes.iter().position(|byte| *byte == b'\n') else {
            return Ok(());
        };
        let later = files.keys().any(|path| *path == self.dir.segment(2));
        // The first line is in the first group; it is an earlier one if another group follows.
        let groups = self.oracle.history.len() > 40 || later;
        if !groups {
            return Ok(());
        }
        let at = self.rng.index(line);
        let flipped = bytes[at] ^ (1 << self.rng.below(7));
        disk.flip(&segment, at, flipped);
        let before = disk.files();
        let wall = self.clock.now().wall;
        let opened = open_for_append(std::sync::Arc::new(disk.clone()), &self.dir, wall);
        let refused = matches!(&opened, Err(error) if error.is_unreadable());
        let shown = load(&disk, &self.dir, Check::Whole).is_err();
        if !refused || !shown || disk.files() != before {
            let text = format!(
                "byte {at} of the first segment: {:?}",
                opened.map(|it| it.1.end)
            );
            return broken("I9 what is unreadable is not overwritten", text);
        }
        Ok(())
    }
}
