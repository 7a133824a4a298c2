//! `supervisor salvage`: what was put aside before something was removed or overwritten.

use std::collections::BTreeMap;
use std::path::PathBuf;

use git2::{ObjectType, Repository};
use protocol::ids::TaskId;
use serde::Serialize;
use supervisor_core::facts::{Facts, Salvage, Task};
use supervisor_core::plan::TaskIx;

use crate::batch_file::work::RepoWork;
use crate::cli::error::{CliError, Code};
use crate::cli::open::{Found, Opened, Shelf};
use crate::cli::target::Target;
use crate::cli::{Io, salvage_restore};
use crate::view::family::size;

const EXAMPLES: &str = "Examples:
  supervisor salvage list                          all of it, and whether it is still there
  supervisor salvage show lexer                    the files of the last one of a task
  supervisor salvage show nightly/lexer/1          the files of its first one

A salvage is named by TASK, BATCH/TASK, TASK/NUMBER, BATCH/TASK/NUMBER or its ref; without a number
the last one of the task is meant.
Exit codes: 0 done, 6 not found, 7 ambiguous, 8 refused, 10 the repository can not be used.";

/// Where refs of salvage are.
const REFS: &str = "refs/supervisor/salvage/";
/// Most files that `show` names; the rest is counted.
const FILES_MAX: usize = 1000;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List what was put aside of a batch or a task
    List {
        /// A batch or a task
        target: Option<Target>,
        /// For scripts: one JSON list
        #[arg(long)]
        json: bool,
    },
    /// Show commit, files and sizes
    Show {
        /// Which one
        #[arg(value_name = "SALVAGE")]
        name: String,
    },
    /// Write all of it to a folder, byte for byte
    #[command(after_help = "Example:\n  supervisor salvage restore lexer/1 --to /tmp/lexer")]
    Restore {
        /// Which one
        #[arg(value_name = "SALVAGE")]
        name: String,
        /// The folder; made where it is missing, and empty
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// What was staged, in place of what was in the worktree
        #[arg(long)]
        staged: bool,
        /// Where the repositories of its submodules go, which hold commits that only they have
        #[arg(long, value_name = "DIR")]
        modules: Option<PathBuf>,
    },
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    match &args.verb {
        Verb::List { target, json } => list(target.as_ref(), *json, io),
        Verb::Show { name } => show(&Kept::find(name)?, io),
        Verb::Restore {
            name,
            to,
            staged,
            modules,
        } => {
            let kept = Kept::find(name)?;
            salvage_restore::restore(&kept, to, *staged, modules.as_deref(), io)
        }
    }
}

#[derive(Debug, Serialize)]
struct Row<'a> {
    batch: &'a str,
    task: &'a str,
    number: usize,
    #[serde(rename = "ref")]
    reference: &'a str,
    commit: &'a str,
    state: &'static str,
}

fn list(target: Option<&Target>, json: bool, io: &mut Io<'_>) -> Result<Code, CliError> {
    let meant = Shelf::open()?.find(target)?;
    let opened = meant.batch.read()?;
    let facts = opened.facts();
    let only = match &meant.task {
        Some(word) => Some(opened.task(word)?),
        None => None,
    };
    let mut repos = Repos::default();
    let mut rows = Vec::new();
    for (number, task) in (0..).zip(&facts.tasks) {
        if only.is_some_and(|only| only != TaskIx(number)) {
            continue;
        }
        for (number, kept) in (1..).zip(&task.salvaged) {
            rows.push(Row {
                batch: facts.batch.id.as_str(),
                task: task.id.as_str(),
                number,
                reference: &kept.reference,
                commit: kept.commit.as_str(),
                state: repos.state(facts, task, kept),
            });
        }
    }
    if json {
        serde_json::to_writer(&mut *io.out, &rows)
            .map_err(|error| CliError::output(error.into()))?;
        io.line("")?;
        return Ok(Code::Ok);
    }
    if rows.is_empty() {
        io.line(format_args!("{}: nothing was put aside", facts.batch.id))?;
    }
    for row in rows {
        let (task, number, commit) = (row.task, row.number, &row.commit[..12]);
        io.line(format_args!(
            "{task}/{number}  {commit}  {}  {}",
            row.state, row.reference
        ))?;
    }
    Ok(Code::Ok)
}

/// Repositories that were opened, by their path; `None`: it can not be.
#[derive(Default)]
struct Repos(BTreeMap<PathBuf, Option<Repository>>);

impl Repos {
    /// Whether the ref is still there and holds what it held.
    fn state(&mut self, facts: &Facts, task: &Task, kept: &Salvage) -> &'static str {
        let Ok(path) = repository(facts, task) else {
            return "unknown";
        };
        let opened = self.0.entry(path);
        let opened = opened.or_insert_with_key(|path| Repository::open(path).ok());
        let Some(repository) = opened else {
            return "unknown";
        };
        match repository.refname_to_id(&kept.reference) {
            Ok(found) if found.to_string() == kept.commit.as_str() => {
                match repository.find_commit(found) {
                    Ok(_) => "there",
                    Err(_) => "broken",
                }
            }
            Ok(_) => "differs",
            Err(_) => "gone",
        }
    }
}

/// The path of the repository in which a task has its worktree.
///
/// # Errors
/// When the plan does not name it.
pub(super) fn repository(facts: &Facts, task: &Task) -> Result<PathBuf, CliError> {
    let unknown = || {
        let message = format!("{}: its repository is not in the plan", task.id);
        CliError::new(Code::NotFound, message)
    };
    let spec = facts.specs.get(task.spec.0 as usize).ok_or_else(unknown)?;
    let repo = spec.worktree.ok_or_else(unknown)?;
    let repo = facts.repos.get(repo.0 as usize).ok_or_else(unknown)?;
    let work: RepoWork = serde_json::from_str(&repo.spec.work).map_err(|error| {
        CliError::new(
            Code::Unreadable,
            format!("{}: its plan can not be read: {error}", task.id),
        )
    })?;
    Ok(work.path)
}

/// One salvage of one task.
#[derive(Debug)]
pub(super) struct Kept {
    /// Its batch.
    pub(super) batch: Found,
    /// Its task.
    pub(super) task: TaskId,
    /// The repository.
    pub(super) repo: PathBuf,
    /// Ref and commit.
    pub(super) salvage: Salvage,
}

impl Kept {
    /// The one of this name: a ref, or task and number.
    fn find(name: &str) -> Result<Kept, CliError> {
        let words: Vec<&str> = name.strip_prefix(REFS).unwrap_or(name).split('/').collect();
        let number = |word: &str| word.parse::<usize>().ok().filter(|number| *number > 0);
        match words[..] {
            [batch, task, last] if number(last).is_some() => {
                Self::of(&format!("{batch}/{task}"), number(last))
            }
            // A task may be called by a number, too.
            [task, last] if number(last).is_some() => Self::of(task, number(last))
                .or_else(|error| Self::of(name, None).map_err(|_| error)),
            [_] | [_, _] => Self::of(name, None),
            _ => Err(CliError::new(
                Code::Usage,
                format!("`{name}` is no ref of a salvage and no [BATCH/]TASK[/NUMBER]"),
            )),
        }
    }

    fn of(target: &str, number: Option<usize>) -> Result<Kept, CliError> {
        let target: Target = target
            .parse()
            .map_err(|error| CliError::from_source(Code::Usage, &error))?;
        let meant = Shelf::open()?.find(Some(&target))?;
        let Some(word) = &meant.task else {
            let message = format!("{} is a whole batch; name a task", meant.batch.id);
            return Err(CliError::new(Code::Usage, message).hint(format!(
                "`supervisor salvage list {}` lists them",
                meant.batch.id
            )));
        };
        let opened = meant.batch.read()?;
        let ix = opened.task(word)?;
        Self::in_batch(&opened, ix, number).map(|(task, repo, salvage)| Kept {
            batch: meant.batch,
            task,
            repo,
            salvage,
        })
    }

    fn in_batch(
        opened: &Opened,
        ix: TaskIx,
        number: Option<usize>,
    ) -> Result<(TaskId, PathBuf, Salvage), CliError> {
        let facts = opened.facts();
        let task = &facts.tasks[ix.0 as usize];
        let found = match number {
            Some(number) => task.salvaged.get(number - 1),
            None => task.salvaged.last(),
        };
        let Some(found) = found else {
            let count = task.salvaged.len();
            let message = format!("{}: {count} salvages, and not this one", task.id);
            return Err(CliError::new(Code::NotFound, message));
        };
        Ok((task.id.clone(), repository(facts, task)?, found.clone()))
    }
}

fn show(kept: &Kept, io: &mut Io<'_>) -> Result<Code, CliError> {
    let failed = |error: git2::Error| {
        let message = format!("{}: {}", kept.repo.display(), error.message());
        CliError::new(Code::Environment, message)
    };
    let repository = Repository::open(&kept.repo).map_err(failed)?;
    let reference = &kept.salvage.reference;
    let is_there = repository.refname_to_id(reference).ok();
    if is_there.map(|id| id.to_string()).as_deref() != Some(kept.salvage.commit.as_str()) {
        io.line(format_args!(
            "the ref {reference} is gone or holds something else"
        ))?;
    }
    let id = git2::Oid::from_str(kept.salvage.commit.as_str()).map_err(failed)?;
    let commit = repository.find_commit(id).map_err(failed)?;
    io.line(format_args!("{}/{}  {reference}", kept.batch.id, kept.task))?;
    io.line(format_args!("commit {id} in {}", kept.repo.display()))?;
    let said = String::from_utf8_lossy(commit.message_bytes()).into_owned();
    for line in said.trim_end().lines() {
        io.line(format_args!("    {line}"))?;
    }
    let (odb, tree) = (
        repository.odb().map_err(failed)?,
        commit.tree().map_err(failed)?,
    );
    let (mut lines, mut files, mut bytes) = (Vec::new(), 0_usize, 0_u64);
    // libgit2's own walk knows only folders whose names are UTF-8.
    let mut open = vec![(String::new(), tree)];
    while let Some((folder, tree)) = open.pop() {
        let mut inner = Vec::new();
        for entry in &tree {
            let name = String::from_utf8_lossy(entry.name_bytes());
            let path = format!("{folder}{name}");
            if entry.kind() == Some(ObjectType::Tree) {
                let below = repository.find_tree(entry.id()).map_err(failed)?;
                inner.push((format!("{path}/"), below));
                continue;
            }
            let length = odb.read_header(entry.id());
            let length = length.map_or(0, |(length, _)| length as u64);
            files += 1;
            bytes = bytes.saturating_add(length);
            if lines.len() < FILES_MAX {
                lines.push(format!("{length:>12}  {path}"));
            }
        }
        open.extend(inner.into_iter().rev());
    }
    let shown = lines.len();
    for line in lines {
        io.line(line)?;
    }
    if files > shown {
        io.line(format_args!("... and {} more", files - shown))?;
    }
    io.line(format_args!("{files} files, {}", size(bytes)))?;
    Ok(Code::Ok)
}
