//! `supervisor status`: where a batch and its tasks are, and why.

use std::collections::BTreeMap;

use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser;
use supervisor_core::machine::TaskState;

use crate::cli::error::{CliError, Code};
use crate::cli::open::Shelf;
use crate::cli::target::Target;
use crate::cli::{Io, act, base_moved, integrate};
use crate::store::integrated;
use crate::view::status::{Beside, Filter, write_json};
use crate::view::status_text::write_text;

const EXAMPLES: &str = "Examples:
  supervisor status                      the unfinished batch of this repository
  supervisor status nightly --needs-me   only what waits for you
  supervisor status --state failed --state blocked
  supervisor status --json | jq -r '.tasks[] | select(.state==\"failed\") | .id'

It reads files only, so it is true without a supervisor too: a batch whose supervisor is gone is
shown as interrupted. Exit code 0 whatever the state.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The batch, or one task of it
    target: Option<Target>,
    /// Only tasks that wait for a person
    #[arg(long)]
    needs_me: bool,
    /// Only tasks in this state; may be given again
    #[arg(long, value_name = "STATE", value_parser = states())]
    state: Vec<TaskState>,
    /// Every task, not only those that matter now
    #[arg(long)]
    all: bool,
    /// For scripts: one JSON object
    #[arg(long)]
    json: bool,
}

fn states() -> impl TypedValueParser<Value = TaskState> {
    PossibleValuesParser::new(TaskState::ALL.iter().map(|state| state.word()))
        .try_map(|word| TaskState::from_word(&word).ok_or("no such state"))
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let meant = Shelf::open()?.find(args.target.as_ref())?;
    let opened = meant.batch.read()?;
    let mut filter = Filter {
        needs_me: args.needs_me,
        states: args.state.clone(),
        tasks: Vec::new(),
    };
    if let Some(word) = &meant.task {
        let task = opened.task(word)?;
        filter
            .tasks
            .push(opened.facts().tasks[task.0 as usize].id.to_string());
    }
    let activity = if opened.presence.alive {
        act::activity(&meant.batch)
    } else {
        BTreeMap::new()
    };
    let view = opened.view(activity);
    let moved = base_moved::moved(opened.facts());
    if args.json {
        let notes = integrated::read(&meant.batch.dir).unwrap_or_default();
        let beside = Beside {
            integrated: notes.last(),
            moved: &moved,
        };
        write_json(&view, &beside, &filter, io.out).map_err(CliError::output)?;
    } else {
        write_text(&view, &filter, args.all, io.out).map_err(CliError::output)?;
        base_moved::tell(&moved, io)?;
        integrate::tell_before(&meant.batch, io)?;
    }
    Ok(Code::Ok)
}
