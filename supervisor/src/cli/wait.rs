//! `supervisor wait`: comes back when a batch or a task is settled, or needs a person.

use std::time::Duration;

use clap::ValueEnum;
use supervisor_core::machine::{BatchState, MergeState, TaskState};
use supervisor_core::plan::TaskIx;
use supervisor_core::reason::BatchReason;
use supervisor_core::time::Wall;

use crate::cli::error::{CliError, Code};
use crate::cli::open::{Opened, Shelf};
use crate::cli::target::Target;
use crate::cli::{Io, act, pace};
use crate::control::client::{ClientError, Replies};
use crate::control::wire::{Reply, Want};
use crate::view::asked::needs_person;
use crate::view::time::Span;

const EXAMPLES: &str = "Examples:
  supervisor wait && echo all done
  supervisor wait nightly/lexer --timeout 20m
  supervisor wait --for needs-me

Exit codes: 0 done (or, with `--for needs-me`, it needs you), 1 ended but not done, 4 nothing moves
without a person, 5 no supervisor works on it, 11 not in time.";

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Event {
    /// It is settled
    Done,
    /// It needs a person, or is settled
    NeedsMe,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A batch or a task
    target: Option<Target>,
    /// What to wait for
    #[arg(long = "for", value_enum, default_value = "done")]
    event: Event,
    /// Longest wait
    #[arg(long, value_name = "D", value_parser = act::length)]
    timeout: Option<Duration>,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let meant = Shelf::open()?.find(args.target.as_ref())?;
    let task = match &meant.task {
        Some(word) => Some(meant.batch.read()?.task(word)?),
        None => None,
    };
    let started = act::now();
    let mut first = true;
    loop {
        // Watching begins before the look, so that no step falls in between.
        let watched = act::ask(&meant.batch, &Want::Watch)?;
        let opened = meant.batch.read()?;
        if let Some(code) = judge(&opened, task, args.event) {
            return Ok(code);
        }
        if first && io.is_terminal {
            let state = opened
                .view(std::collections::BTreeMap::new())
                .counts()
                .sentence();
            io.line(format_args!("waiting: {state}"))?;
            io.out.flush().map_err(CliError::output)?;
        }
        first = false;
        match watched {
            Some(mut replies) => next_step(&mut replies, &opened, task, args.timeout, started)?,
            None => {
                // It holds the lock but does not listen yet, or has just let go.
                left(args.timeout, started)?;
                pace::before_next_look();
            }
        }
    }
}

/// The exit code of a whole batch on which nobody works any more; `None` while somebody does.
pub(super) fn outcome(opened: &Opened) -> Option<Code> {
    judge(opened, None, Event::Done)
}

/// What the state says; `None`: wait on.
fn judge(opened: &Opened, task: Option<TaskIx>, event: Event) -> Option<Code> {
    let facts = opened.facts();
    let tasks = match task {
        Some(ix) => std::slice::from_ref(facts.tasks.get(ix.0 as usize)?),
        None => &facts.tasks[..],
    };
    if event == Event::NeedsMe && tasks.iter().any(needs_person) {
        return Some(Code::Ok);
    }
    let settled = match task {
        Some(_) => tasks.iter().all(|task| task.state.is_terminal()),
        None => matches!(facts.batch.state, BatchState::Done | BatchState::Failed),
    };
    if settled {
        let done = match task {
            Some(_) => tasks.iter().all(|task| task.state == TaskState::Done),
            None => facts.batch.state == BatchState::Done,
        };
        return Some(if done { Code::Ok } else { Code::Failed });
    }
    if opened.presence.alive {
        return None;
    }
    Some(match facts.batch.reason {
        BatchReason::NeedsPerson | BatchReason::Limit(_) | BatchReason::Operator => {
            Code::NeedsPerson
        }
        BatchReason::Working
        | BatchReason::Disk
        | BatchReason::TaskFailed(_)
        | BatchReason::MergeFailed(_)
        | BatchReason::TooManyFailures
        | BatchReason::NothingStarts
        | BatchReason::Until
        | BatchReason::Drain
        | BatchReason::Stop
        | BatchReason::Settled => Code::Interrupted,
    })
}

/// Waits until a step may change the answer.
fn next_step(
    replies: &mut Replies,
    opened: &Opened,
    task: Option<TaskIx>,
    timeout: Option<Duration>,
    started: Wall,
) -> Result<(), CliError> {
    let name = task.and_then(|ix| opened.facts().tasks.get(ix.0 as usize));
    loop {
        match replies.next(left(timeout, started)?) {
            Ok(Some(Reply::Changed {
                machine, of, to, ..
            })) => {
                let is_ours = match name {
                    Some(task) => {
                        matches!(machine.as_str(), "task" | "merge") && of == task.id.as_str()
                    }
                    None => {
                        machine == "batch"
                            || (machine == "task" && stands_still(&to))
                            || (machine == "merge" && merge_stands_still(&to))
                    }
                };
                if is_ours {
                    return Ok(());
                }
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(ClientError::Closed) => return Ok(()),
            Err(ClientError::TimedOut { .. }) => return Err(timed_out()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// States in which a task may need a person.
fn stands_still(state: &str) -> bool {
    [TaskState::Waiting, TaskState::Paused, TaskState::Failed]
        .map(TaskState::word)
        .contains(&state)
}

/// States in which a merge needs a person.
fn merge_stands_still(state: &str) -> bool {
    [MergeState::Parked, MergeState::Failed]
        .map(MergeState::word)
        .contains(&state)
}

fn left(timeout: Option<Duration>, started: Wall) -> Result<Option<Duration>, CliError> {
    let Some(limit) = timeout else {
        return Ok(None);
    };
    let Span(waited) = Span::between(started, act::now());
    match limit.checked_sub(waited) {
        Some(left) if !left.is_zero() => Ok(Some(left)),
        Some(_) | None => Err(timed_out()),
    }
}

fn timed_out() -> CliError {
    CliError::new(Code::TimedOut, "not settled in time; it goes on")
        .hint("`supervisor status` shows where it is")
}
