//! `supervisor retry`: opens tasks again that have ended.

use protocol::class::Class;
use protocol::ids::TaskId;
use supervisor_core::facts::Task;
use supervisor_core::machine::TaskState;

use crate::cli::error::{CliError, Code};
use crate::cli::open::{Meant, Shelf};
use crate::cli::target::Target;
use crate::cli::{Io, act};
use crate::control::wire::Want;
use crate::view::delivery::merge_needs_person;

const EXAMPLES: &str = "Examples:
  supervisor retry lexer                        go on where its last attempt ended
  supervisor retry lexer --fresh --note 'the port is 8080 now'
  supervisor retry nightly --failed             every failed task
  supervisor retry nightly --class verify_failed

A done task is not done again; a merge of its work that failed or waits for you is made again. What
was skipped because of a task is looked at again with it. Without a live supervisor the order is
queued; `supervisor run FILE` carries it out.
Exit codes: 0 done or queued, 6 not found, 7 ambiguous, 8 its state does not allow it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The tasks; or a batch, with `--failed` or `--class`
    target: Vec<Target>,
    /// Every failed task of the batch, and every merge that failed or waits for the operator
    #[arg(long)]
    failed: bool,
    /// Every failed task of the batch whose last attempt ended so
    #[arg(long, value_name = "CLASS")]
    class: Option<Class>,
    /// A message for the next attempt
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// From the start
    #[arg(long, conflicts_with = "resume")]
    fresh: bool,
    /// Go on where the last attempt ended (the default)
    #[arg(long)]
    resume: bool,
    /// Attempts at most from now on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    attempts: Option<u32>,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let want = |tasks| Want::Retry {
        tasks,
        fresh: args.fresh && !args.resume,
        attempts: args.attempts,
        note: args.note.clone(),
    };
    if !args.failed && args.class.is_none() {
        if args.target.is_empty() {
            return Err(CliError::new(Code::Usage, "no task is named")
                .hint("name tasks, or say `--failed` or `--class CLASS`"));
        }
        return act::send_tasks(&args.target, io, want);
    }
    let shelf = Shelf::open()?;
    let targets: Vec<Option<&Target>> = match &args.target[..] {
        [] => vec![None],
        named => named.iter().map(Some).collect(),
    };
    for target in targets {
        let meant = shelf.find(target)?;
        let tasks = failed(&meant, args.class)?;
        if tasks.is_empty() {
            io.line(format_args!("{}: no task ended so", meant.batch.id))?;
            continue;
        }
        act::send(&meant.batch, want(tasks), None, io)?;
    }
    Ok(Code::Ok)
}

fn failed(meant: &Meant, class: Option<Class>) -> Result<Vec<TaskId>, CliError> {
    let opened = meant.batch.read()?;
    let ended_so = |task: &&Task| {
        let last = task.last.as_ref().and_then(|last| last.class);
        let merge_failed = class.is_none() && merge_needs_person(task);
        merge_failed
            || (task.state == TaskState::Failed && class.is_none_or(|class| last == Some(class)))
    };
    let tasks = opened.facts().tasks.iter().filter(ended_so);
    Ok(tasks.map(|task| task.id.clone()).collect())
}
