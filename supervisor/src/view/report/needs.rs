//! What waits for the operator, with the command that lets it go on.

use supervisor_core::facts::Task;
use supervisor_core::machine::{BatchState, MergeState};
use supervisor_core::reason::BatchReason;

use super::part::Need;
use super::plain::sentence;
use crate::view::View;
use crate::view::asked::{Asked, asked};
use crate::view::delivery;
use crate::view::reason::{AccountWhy, outcome_word};

/// The kind of a merge that waits for the operator.
pub const PARKED: &str = "parked_merge";

/// What is needed for the whole batch to go on; `None` where it moves, is over, or waits for tasks.
pub fn of_batch(view: &View<'_>) -> Option<Need> {
    let id = &view.facts.batch.id;
    let run = format!("supervisor run {}", view.file);
    let resume = format!("supervisor resume {id}");
    let (kind, text, command) = match (view.batch_state(), view.facts.batch.reason) {
        (BatchState::Interrupted, _) if view.is_cut_off() => (
            "stopped",
            "its supervisor is gone; the batch is not over",
            run,
        ),
        (BatchState::Interrupted, _) => ("stopped", "it was stopped before its end", run),
        (BatchState::Paused, BatchReason::Operator) => ("held", "you paused it", resume),
        (BatchState::Paused, BatchReason::Limit(_)) => (
            "budget",
            "a limit of the batch file is reached; raise it",
            resume,
        ),
        (BatchState::Paused, BatchReason::NothingStarts) => {
            ("stopped", "no host could be started", run)
        }
        (BatchState::Paused, BatchReason::Disk) => {
            ("stopped", "the disk is full or can not be written", run)
        }
        (
            BatchState::Paused
            | BatchState::Running
            | BatchState::Stopping
            | BatchState::Done
            | BatchState::Failed,
            _,
        ) => return None,
    };
    Some(Need {
        kind,
        task: None,
        text: text.to_owned(),
        command,
    })
}

/// What a task needs; `None` where it needs nothing.
pub fn of_task(view: &View<'_>, task: &Task) -> Option<Need> {
    let target = format!("{}/{}", view.facts.batch.id, task.id);
    let retry = || format!("supervisor retry {target}");
    let resume = || format!("supervisor resume {target}");
    let (kind, text, command) = if delivery::merge_needs_person(task) {
        let merge = delivery::merge(task)?;
        let kind = if merge.state == MergeState::Failed {
            "failed_merge"
        } else {
            PARKED
        };
        (kind, sentence(&merge.detail), retry())
    } else {
        match asked(task.reason)? {
            Asked::Question(id) => {
                let question = view.facts.questions.get(&id);
                let text = question.map_or("it asks", |question| &question.text);
                let command = format!("supervisor answer {id} TEXT");
                ("question", sentence(text), command)
            }
            Asked::AccountStopped => {
                let command = format!("supervisor resume {}", view.facts.batch.id);
                ("auth", account(view, task), command)
            }
            Asked::NeedsOperator => ("auth", last(task), resume()),
            Asked::Held => ("held", "you held it".to_owned(), resume()),
            Asked::Killed => ("held", "you killed its attempt".to_owned(), resume()),
            Asked::Unresolved => {
                let text = "after a crash it is not certain that its run is over".to_owned();
                ("unresolved", text, resume())
            }
            Asked::Failed => ("failed", last(task), retry()),
            Asked::Quarantined => {
                let text = "lost again and again without progress".to_owned();
                ("failed", text, retry())
            }
        }
    };
    Some(Need {
        kind,
        task: Some(task.id.to_string()),
        text,
        command,
    })
}

/// How its last attempt ended.
fn last(task: &Task) -> String {
    let Some(last) = task.last.as_deref() else {
        return "it could not begin".to_owned();
    };
    let class = outcome_word(last);
    match sentence(&last.detail) {
        detail if detail.is_empty() => class.to_owned(),
        detail => format!("{class}: {detail}"),
    }
}

fn account(view: &View<'_>, task: &Task) -> String {
    let account = view
        .agent(task)
        .and_then(|agent| view.facts.accounts.get(agent.account.0 as usize));
    match account {
        Some(account) => {
            let told = AccountWhy { view, account }.to_string();
            let said = told.split_once(';').map_or(&*told, |(said, _)| said);
            sentence(said)
        }
        None => "its account can not be used".to_owned(),
    }
}
