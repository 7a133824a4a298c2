//! What a comment on an issue or a pull request says, from the state of the batch.

use protocol::ids::AttemptNo;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::step::CommentOn;

use super::start::StartError;
use crate::batch_file::comment::Told;

/// Its text, and the mark by which it is found again.
///
/// # Errors
/// [`StartError`] when the state no longer holds what is to be told.
pub(super) fn text(
    facts: &Facts,
    task: &Task,
    attempt: AttemptNo,
    on: CommentOn,
) -> Result<(String, String), StartError> {
    let (task_id, batch) = (task.id.to_string(), facts.batch.id.to_string());
    let mut told = Told {
        task: &task_id,
        batch: &batch,
        attempt: attempt.0,
        on,
        class: "",
        said: "",
        options: Vec::new(),
    };
    let last = task.last.as_deref();
    match on {
        CommentOn::Question(id) => {
            let question = facts.questions.get(&id);
            let question = question.ok_or(StartError::Missing("question"))?;
            told.said = &question.text;
            told.options = question.options.iter().map(|option| &**option).collect();
        }
        CommentOn::Failed => {
            let last = last.ok_or(StartError::Missing("outcome"))?;
            told.class = last.class.map_or("failed", |class| class.word());
            told.said = &last.detail;
        }
        CommentOn::Done => {
            told.said = last.map_or("", |last| &last.summary);
        }
    }
    let text = told.text()?;
    let mark = format!("<!-- supervisor {batch} {task_id} {} {on} -->", attempt.0);
    Ok((text, mark))
}
