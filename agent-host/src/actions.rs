//! The file of what an agent asked leave for: each answer is in it before the agent is told.

use std::fs::File;
use std::io::{self, Write};
use std::rc::Rc;

use protocol::action_file::{ACTION_FILE_NAME, ActionLine};

use crate::plain::Folder;
use crate::run_dir::FileError;

/// `actions.jsonl` of a run, written at once: answers are few.
pub(crate) struct Actions {
    folder: Option<Rc<Folder>>,
    file: Option<File>,
    /// Bytes that may still be written.
    room: u64,
}

impl Actions {
    /// Of a run with this folder, at most `max` bytes.
    pub(crate) fn new(folder: Option<&Rc<Folder>>, max: u64) -> Self {
        Self {
            folder: folder.cloned(),
            file: None,
            room: max,
        }
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When it can not be written, or the file is full.
    pub(crate) fn keep(&mut self, line: &ActionLine) -> Result<(), FileError> {
        let Some(folder) = self.folder.clone() else {
            return Ok(());
        };
        let failed = |source| {
            FileError::new(
                "can not write",
                &folder.path().join(ACTION_FILE_NAME),
                source,
            )
        };
        let mut bytes = serde_json::to_vec(line).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        let size = bytes.len() as u64;
        if size > self.room {
            return Err(failed(io::ErrorKind::FileTooLarge.into()));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(folder.open_append(ACTION_FILE_NAME).map_err(failed)?),
        };
        file.write_all(&bytes).map_err(failed)?;
        self.room -= size;
        Ok(())
    }
}
