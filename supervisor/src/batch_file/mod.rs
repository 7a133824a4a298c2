//! `batch.yml` to a plan.
//!
//! ```text
//! text -> tree (every node knows its place) -> low form (typed, as written) -> plan (as meant)
//! ```
//!
//! Every stage goes on after a mistake, so that one reading shows all of them.

use std::path::{Path, PathBuf};

use supervisor_core::plan::Plan;

mod about;
mod agents;
mod commands;
pub mod comment;
mod decode;
mod delivery;
pub mod error;
mod files;
mod foreach;
mod git_base;
mod graph;
mod layers;
pub mod listed;
mod low;
mod low_repo;
mod names;
mod parse;
pub mod part;
pub mod pinned;
mod preview;
mod program;
mod read;
pub mod render;
pub mod render_repo;
mod repo_read;
mod reports;
mod repos;
mod scalars;
mod schema;
mod script;
mod size;
mod steps;
mod summary;
mod task_spec;
mod tasks;
mod template;
mod told;
mod tree;
mod words;
pub mod work;

pub use read::{read, read_with};
pub use scalars::{parse_length, parse_time};
pub use schema::schema;
pub use summary::{Apart, PlannedLine, PlannedRepo, Summary, summary};

/// Where the batch file comes from.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// A file; relative paths count from [`Request::current_dir`].
    File(&'a Path),
    /// Text that was already read (stdin); paths in it count from [`Request::current_dir`].
    Text {
        /// What it is called in messages, for example `<stdin>`.
        name: &'a str,
        /// Its bytes.
        bytes: &'a [u8],
    },
}

/// What to read, and what it is read with.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The batch file.
    pub source: Source<'a>,
    /// The folder that relative paths count from, absolute.
    pub current_dir: &'a Path,
    /// The user's own file; it need not exist.
    pub user_config: Option<&'a Path>,
    /// `--set NAME=VALUE`: replaces variables of `vars`.
    pub set: &'a [(String, String)],
}

/// A batch file, read and found valid.
#[derive(Debug)]
pub struct BatchFile {
    /// What is to be done.
    pub plan: Plan,
    /// What makes two reads the same batch.
    pub identity: Identity,
    /// Every file that was read, the batch file first: to be kept in the state dir.
    pub inputs: Vec<Input>,
    /// How many `foreach` have no tasks in the plan, because their items are known at the start.
    pub at_start: usize,
}

/// Same batch = same name and same repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The batch's name.
    pub name: String,
    /// Root of the git repository that the working folder is in, else the working folder; absolute,
    /// symbolic links resolved.
    pub root: PathBuf,
}

/// One file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its path, absolute; for text without a file the name it was given.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
}
