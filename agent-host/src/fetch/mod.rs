//! An issue or a pull request is fetched, or commented on, by a process of its own:
//! `agent-host fetch REQUEST OUTCOME`.
//!
//! The host starts its own program for it, so a forge that hangs is killed like everything else, and
//! what speaks TLS is never in the process that answers the supervisor. Where the operator has logged
//! in with the `gh` program, that carries the requests; else they are made here, with a token of the
//! environment or, for what is public, without. Nothing that others wrote is interpreted: it is cut at
//! its limits and handed on as text.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use protocol::class::Class;
use protocol::forge::{CommentWork, Fetch, ForgeItem, ITEM_FILE_MAX, Place};
use serde::{Deserialize, Serialize};

use self::base::Base;
use self::cache::Cache;
use self::error::ForgeError;
use self::forge::Forge;
use crate::host::EXIT_OK;
use crate::run::{complain, read_bounded};
use crate::{EXIT_SYSTEM, EXIT_USAGE, clock};

mod answer;
mod base;
mod cache;
mod comment;
mod error;
mod forge;
mod gh;
mod http;
mod item;

/// The word on the command line.
pub(crate) const WORD: &str = "fetch";
/// Largest outcome.
pub(crate) const FILE_MAX: u64 = ITEM_FILE_MAX;

/// What is to be done, as the host writes it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Something is fetched.
    Fetch(Fetch),
    /// A comment is posted, unless it is there.
    Comment(CommentWork),
}

impl Request {
    /// What it is about.
    fn about(&self) -> &Fetch {
        match self {
            Request::Fetch(fetch) => fetch,
            Request::Comment(comment) => &comment.about,
        }
    }
}

/// What came of it, as the host reads it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It is there.
    Done(Box<ForgeItem>),
    /// The comment is there: a sentence for people.
    Posted(String),
    /// It could not be had.
    Failed {
        /// The class of the run.
        class: Class,
        /// For people.
        message: String,
        /// When the forge takes requests again, milliseconds since the Unix epoch, where it said so.
        reset_at_ms: Option<i64>,
    },
}

/// The whole program in this role; returns its exit status. 0: the outcome is written, whatever it
/// says.
pub(crate) fn run(mut arguments: impl Iterator<Item = OsString>) -> u8 {
    let (Some(request), Some(outcome), None) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        complain(0, "usage: agent-host fetch REQUEST OUTCOME");
        return EXIT_USAGE;
    };
    let ended = match carry_out(Path::new(&request)) {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed {
            class: error.class(),
            message: error.to_string(),
            reset_at_ms: error.reset_at_ms(),
        },
    };
    match write(Path::new(&outcome), &ended) {
        Ok(()) => EXIT_OK,
        Err(why) => {
            complain(0, &why);
            EXIT_SYSTEM
        }
    }
}

fn carry_out(request: &Path) -> Result<Outcome, ForgeError> {
    let text = read_bounded(request, FILE_MAX).map_err(|error| error.to_string());
    let read = text.and_then(|text| serde_json::from_str(&text).map_err(|it| it.to_string()));
    let request: Request =
        read.map_err(|why| ForgeError::Request(format!("{}: {why}", request.display())))?;
    let fetch = request.about();
    let place = match &fetch.reference.place {
        Some(place) => place.clone(),
        None => origin(fetch.repo.as_deref())?,
    };
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let base = Base::of(&place, variable)?;
    let transport = base.transport(variable)?;
    if let Request::Comment(work) = &request {
        // A copy would hide a comment that was made since.
        let forge = Forge::new(base, transport, None, clock::wall_ms(), Vec::new());
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        return comment::post(forge, &place, work, environment).map(Outcome::Posted);
    }
    let mut notes = Vec::new();
    let cache = Cache::open(variable).unwrap_or_else(|error| {
        notes.push(format!("nothing is cached: {error}"));
        None
    });
    let forge = Forge::new(base, transport, cache, clock::wall_ms(), notes);
    let item = item::fetch(forge, &place, fetch.kind, fetch.reference.number)?;
    Ok(Outcome::Done(Box::new(item)))
}

/// The repository that the one in this folder calls `origin`.
fn origin(folder: Option<&str>) -> Result<Place, ForgeError> {
    let Some(folder) = folder else {
        return Err(ForgeError::NoOrigin("the task works in none".to_owned()));
    };
    let said = |error: git2::Error| ForgeError::NoOrigin(format!("{folder}: {}", error.message()));
    let repo = git2::Repository::discover(folder).map_err(said)?;
    let remote = repo.find_remote("origin").map_err(said)?;
    let address = remote.url().map_err(said)?;
    Place::of_remote(address).ok_or_else(|| {
        ForgeError::NoOrigin(format!("`origin` of {folder} is no address of a forge"))
    })
}

/// Writes the outcome aside and puts it in place, so that a half one is never read.
fn write(path: &Path, outcome: &Outcome) -> Result<(), String> {
    let aside = PathBuf::from(format!("{}.new", path.display()));
    let bytes = serde_json::to_vec(outcome).map_err(|error| error.to_string())?;
    fs::write(&aside, bytes)
        .and_then(|()| fs::rename(&aside, path))
        .map_err(|error| format!("can not write {}: {error}", path.display()))
}
