//! `supervisor integrate`: the batch branch goes into a branch of the operator's.

use std::io::{BufRead, IsTerminal, Read};

use git2::{ErrorCode, Repository};
use protocol::git::{GitOutcome, GitWork};
use protocol::integrate::{Agreed, How, Integrate, IntegratePlan, IntegrateResult, Integrated};
use supervisor_core::facts::{Facts, Repo, Task};
use supervisor_core::machine::MergeState;
use supervisor_core::plan::RepoIx;

use crate::batch_file::render::Renderer;
use crate::batch_file::work::{BatchWork, RepoWork};
use crate::cli::error::{CliError, Code};
use crate::cli::open::{Found, Opened, Shelf, local_time};
use crate::cli::target::{self, Target};
use crate::cli::{Io, git_work, integrate_told as told};
use crate::store::integrated::{self, Note};
use crate::view::time::Stamp;

const EXAMPLES: &str = "Examples:
  supervisor integrate                    the work of the batch, into the branch that it began from
  supervisor integrate nightly --dry-run  only say what would be done
  supervisor integrate --into next --merge
  supervisor integrate --pr               push the batch branch and open a pull request with `gh`
  supervisor integrate --repo web --ff --yes

It first says what it will do: commits, files, conflicts, where the branch is checked out. Then it
asks; where nobody can be asked, `--yes` must have said so. Without --ff, --merge or --pr it is a
fast-forward where that is possible, else a merge. A branch that is checked out moves with its
working tree, by `git merge` and with your hooks and your signature, and only if nothing there can
be lost. A conflict leaves branch, index and working tree as they were.
Exit codes: 0 done or nothing to do, 2 wrong usage, 5 interrupted, 6 not found, 7 ambiguous,
8 conflict or refused, 10 environment (git, disk, no `gh`).";

/// What is before a branch's name in the name of its ref.
const HEADS: &str = "refs/heads/";
/// Longest answer that is read.
const ANSWER_MAX: u64 = 64;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The batch
    target: Option<Target>,
    /// The repository, where the batch has several
    #[arg(long, value_name = "NAME")]
    repo: Option<String>,
    /// The branch that takes the work (default: the one that the batch began from)
    #[arg(long, value_name = "REF")]
    into: Option<String>,
    /// By a fast-forward or not at all
    #[arg(long, conflicts_with_all = ["merge", "pr"])]
    ff: bool,
    /// By a merge commit
    #[arg(long, conflicts_with = "pr")]
    merge: bool,
    /// By a pull request
    #[arg(long)]
    pr: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Also while some of the work is not merged into the batch branch yet
    #[arg(long)]
    partial: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

impl Args {
    fn how(&self) -> How {
        match (self.ff, self.merge, self.pr) {
            (true, _, _) => How::FastForward,
            (_, true, _) => How::Merge,
            (_, _, true) => How::PullRequest,
            (false, false, false) => How::Either,
        }
    }
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let batch = batch(args)?;
    let opened = batch.read()?;
    let chosen = Chosen::new(args, &opened)?;
    chosen.refuse_unmerged(args)?;
    let mut work = chosen.work(args, &opened)?;
    work.dry_run = true;
    let Integrated { plan, result } = carry_out(&batch, work.clone())?;
    told::plan(&chosen, &plan, io)?;
    if result != (IntegrateResult::Planned {}) {
        return told::result(&chosen, &plan, &result, io);
    }
    if args.dry_run || !is_agreed(args, io)? {
        io.line("nothing was done")?;
        return Ok(Code::Ok);
    }
    work.dry_run = false;
    work.agreed = Some(Agreed {
        from: plan.from.clone(),
        into: plan.into.clone(),
    });
    work.how = plan.how;
    let Integrated { plan, result } = carry_out(&batch, work)?;
    note(&batch, &chosen, &plan, &result, io)?;
    told::result(&chosen, &plan, &result, io)
}

fn batch(args: &Args) -> Result<Found, CliError> {
    let meant = Shelf::open()?.find(args.target.as_ref())?;
    match &meant.task {
        None => Ok(meant.batch),
        Some(task) => {
            let text = format!("`{task}` is no batch, and a task alone is not integrated");
            let id = &meant.batch.id;
            Err(CliError::new(Code::NotFound, text).hint(format!(
                "`supervisor integrate {id}` takes what is merged so far"
            )))
        }
    }
}

fn carry_out(batch: &Found, work: Integrate) -> Result<Integrated, CliError> {
    match git_work::carry_out(batch, &GitWork::Integrate(Box::new(work)))? {
        GitOutcome::Integrated(done) => Ok(*done),
        other => {
            let text = format!("integrate: the host answers {other:?}");
            Err(CliError::new(Code::Internal, text))
        }
    }
}

/// Whether the operator wants it, having seen the plan.
fn is_agreed(args: &Args, io: &mut Io<'_>) -> Result<bool, CliError> {
    if args.yes {
        return Ok(true);
    }
    let stdin = std::io::stdin();
    if !(io.is_terminal && stdin.is_terminal()) {
        return Err(
            CliError::new(Code::Refused, "nothing was done: nobody can be asked here")
                .hint("say `--yes` to do it, or `--dry-run` to look only"),
        );
    }
    write!(io.out, "do it? [y/N] ")
        .and_then(|()| io.out.flush())
        .map_err(CliError::output)?;
    let mut answer = String::new();
    let read = stdin.lock().take(ANSWER_MAX).read_line(&mut answer);
    read.map_err(|error| {
        CliError::new(Code::Environment, format!("stdin can not be read: {error}"))
    })?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// What was done is written down beside the journal; that it can not be is no reason to say less.
fn note(
    batch: &Found,
    chosen: &Chosen<'_>,
    plan: &IntegratePlan,
    result: &IntegrateResult,
    io: &mut Io<'_>,
) -> Result<(), CliError> {
    if !told::is_done(result) {
        return Ok(());
    }
    let note = Note {
        time: Stamp(local_time().now).to_string(),
        repo: chosen.repo.spec.name.to_string(),
        commit: plan.from.clone(),
        into: chosen.into.clone(),
        how: plan.how,
        result: result.clone(),
    };
    if let Err(error) = integrated::add(&batch.dir, &note) {
        let path = batch.dir.integrated();
        let text = format!("warning: {} can not be written: {error}", path.display());
        writeln!(io.err, "{text}").map_err(CliError::output)?;
    }
    Ok(())
}

/// What is to be integrated.
pub(super) struct Chosen<'a> {
    pub(super) facts: &'a Facts,
    ix: RepoIx,
    pub(super) repo: &'a Repo,
    work: RepoWork,
    /// The batch branch, a whole ref name.
    pub(super) from: String,
    /// The branch that takes it, a whole ref name.
    pub(super) into: String,
}

impl<'a> Chosen<'a> {
    fn new(args: &Args, opened: &'a Opened) -> Result<Self, CliError> {
        let facts = opened.facts();
        let ix = repository(args, facts)?;
        let repo = &facts.repos[ix.0 as usize];
        let id = &facts.batch.id;
        let unread = |error: &dyn std::error::Error| {
            let text = format!(
                "{id}: what it says of {} can not be read: {error}",
                repo.spec.name
            );
            CliError::new(Code::Unreadable, text)
        };
        let work: RepoWork = serde_json::from_str(&repo.spec.work).map_err(|e| unread(&e))?;
        let settings = &facts.batch.settings;
        let batch: BatchWork = serde_json::from_str(&settings.work).map_err(|e| unread(&e))?;
        let from = Renderer::default().batch_branch(&batch, &work, id, &settings.name);
        let from = from.map_err(|error| CliError::from_source(Code::BatchFile, &error))?;
        let into = into(args, &work)?;
        if into == from {
            let text = format!("{} is the batch branch itself", short(&into));
            return Err(CliError::new(Code::Usage, text));
        }
        let chosen = Self {
            facts,
            ix,
            repo,
            work,
            from,
            into,
        };
        chosen.refuse_missing(args)?;
        Ok(chosen)
    }

    /// The tasks that work in this repository.
    pub(super) fn tasks(&self) -> impl Iterator<Item = &'a Task> + Clone {
        let (facts, ix) = (self.facts, self.ix);
        facts.tasks.iter().filter(move |task| {
            let spec = facts.specs.get(task.spec.0 as usize);
            spec.is_some_and(|spec| spec.worktree == Some(ix))
        })
    }

    fn refuse_missing(&self, args: &Args) -> Result<(), CliError> {
        let path = self.work.path.display();
        let repository = Repository::open(&self.work.path).map_err(|error| {
            let text = format!("{path} can not be opened as a git repository: {error}");
            CliError::new(Code::Environment, text)
        })?;
        let has = |reference: &str| match repository.find_reference(reference) {
            Ok(_) => Ok(true),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(false),
            Err(error) => Err(CliError::new(
                Code::Environment,
                format!("{reference} of {path} can not be read: {error}"),
            )),
        };
        if !has(&self.from)? {
            let text = format!(
                "{path} has no branch {}: nothing is merged yet",
                short(&self.from)
            );
            let id = &self.facts.batch.id;
            return Err(CliError::new(Code::Refused, text)
                .hint(format!("`supervisor status {id} --all` shows each task")));
        }
        // That of a pull request may be at its remote alone.
        if !args.pr && !has(&self.into)? {
            let text = format!("{path} has no branch {}", short(&self.into));
            return Err(CliError::new(Code::NotFound, text)
                .hint("--into names a branch that is there; `git branch NAME` makes one"));
        }
        Ok(())
    }

    /// Work that may still come to the batch branch.
    fn refuse_unmerged(&self, args: &Args) -> Result<(), CliError> {
        let waiting: Vec<String> = self
            .tasks()
            .filter_map(|task| Some(format!("{} ({})", task.id, waits_as(task)?)))
            .collect();
        if waiting.is_empty() || args.partial {
            return Ok(());
        }
        let id = &self.facts.batch.id;
        let text = format!(
            "not all of {id} is merged yet: {}",
            target::names(waiting.iter().map(String::as_str))
        );
        Err(CliError::new(Code::Refused, text)
            .hint(format!(
                "`supervisor wait {id}`, or settle them (`supervisor explain TASK`)"
            ))
            .hint("`--partial` takes what is there"))
    }

    fn work(&self, args: &Args, opened: &Opened) -> Result<Integrate, CliError> {
        let repo = self.work.path.to_str().ok_or_else(|| {
            let text = format!("{} is not UTF-8", self.work.path.display());
            CliError::new(Code::Environment, text)
        })?;
        Ok(Integrate {
            repo: repo.to_owned(),
            from: self.from.clone(),
            into: self.into.clone(),
            how: args.how(),
            dry_run: false,
            agreed: None,
            message: told::message(self),
            title: told::title(self),
            body: told::body(self, opened.facts()),
        })
    }
}

/// Where the work of a task is, if it is not at its end.
fn waits_as(task: &Task) -> Option<&'static str> {
    if !task.state.is_terminal() {
        return Some(task.state.word());
    }
    let merge = task.merge.as_ref()?.state;
    (!merge.is_settled() || merge == MergeState::Parked).then(|| merge.word())
}

fn repository(args: &Args, facts: &Facts) -> Result<RepoIx, CliError> {
    let id = &facts.batch.id;
    let names = facts.repos.iter().map(|repo| &*repo.spec.name);
    let at = match (&args.repo, &facts.repos[..]) {
        (_, []) => {
            let text = format!("no task of {id} has a worktree: there is no batch branch");
            return Err(CliError::new(Code::Refused, text)
                .hint("with `isolation: none` tasks work in the working tree itself"));
        }
        (Some(name), _) => target::unique(name, "repository", names)?,
        (None, [_]) => 0,
        (None, _) => {
            let names = target::names(names);
            let text = format!("{id} works in more than one repository: {names}");
            return Err(CliError::new(Code::Ambiguous, text).hint("name one with --repo"));
        }
    };
    Ok(RepoIx(u32::try_from(at).unwrap_or(u32::MAX)))
}

/// The branch that takes the work, a whole ref name.
fn into(args: &Args, work: &RepoWork) -> Result<String, CliError> {
    let name = match (&args.into, &work.watch) {
        (Some(name), _) => name,
        (None, Some(watch)) => return Ok(watch.clone()),
        (None, None) => {
            let text = format!(
                "the batch began at commit {}, not at a branch",
                work.base.short()
            );
            return Err(CliError::new(Code::Usage, text).hint("name a branch with --into"));
        }
    };
    let plain = name.strip_prefix(HEADS).unwrap_or(name);
    let whole = format!("{HEADS}{plain}");
    let is_name = !plain.starts_with("refs/") && git2::Reference::is_valid_name(&whole);
    if is_name {
        return Ok(whole);
    }
    Err(CliError::new(
        Code::Usage,
        format!("`{name}` is not the name of a branch"),
    ))
}

/// The name of a branch without what is before it.
pub(super) fn short(reference: &str) -> &str {
    reference.strip_prefix(HEADS).unwrap_or(reference)
}

/// What was integrated before, a line each; nothing where that can not be read.
pub(super) fn tell_before(batch: &Found, io: &mut Io<'_>) -> Result<(), CliError> {
    for note in integrated::read(&batch.dir).unwrap_or_default() {
        io.line(format_args!("integrated: {note}"))?;
    }
    Ok(())
}
