//! What the operator was answered must hold from then on, over every crash, until they say otherwise.

use std::sync::Arc;

use supervisor_core::effect::Answer;
use supervisor_core::input::{OperatorCommand, ReplyId};
use supervisor_core::plan::TaskIx;

use super::oracle::Oracle;
use super::world::{Told, broken};

impl Oracle {
    /// The operator gives a command.
    pub(super) fn commanded(&mut self, reply: ReplyId, command: &OperatorCommand) {
        match command {
            OperatorCommand::Skip {
                tasks,
                as_done: true,
            } => self.as_done.extend(tasks.iter().copied()),
            OperatorCommand::Stop(_) => {
                // Whoever runs the batch again after this lets it go on.
                self.stop_asked = true;
                self.batch_held = None;
                self.failed_batch = false;
            }
            OperatorCommand::Pause { tasks: None, .. } => {
                self.stop_asked = true;
                self.batch_held = Some((reply, false));
            }
            OperatorCommand::Kill { tasks, .. }
            | OperatorCommand::Cancel { tasks: Some(tasks) } => {
                for task in tasks {
                    let promise = self.held.entry(*task).or_insert((reply, false));
                    if !promise.1 {
                        promise.0 = reply;
                    }
                }
            }
            // To try one task again opens the batch again, with all that its end had skipped.
            OperatorCommand::Resume { tasks: None } | OperatorCommand::Retry { .. } => {
                self.held.clear();
                self.batch_held = None;
                self.failed_batch = false;
            }
            OperatorCommand::Resume { tasks: Some(tasks) } => {
                self.held.retain(|task, _| !tasks.contains(task));
            }
            OperatorCommand::Skip { as_done: false, .. }
            | OperatorCommand::Cancel { tasks: None }
            | OperatorCommand::Clean { .. }
            | OperatorCommand::CleanBuildOutput { .. }
            | OperatorCommand::Steer { .. }
            | OperatorCommand::Answer { .. }
            | OperatorCommand::Pause { tasks: Some(_), .. }
            | OperatorCommand::Revise(_)
            | OperatorCommand::SetConcurrency(_) => {}
        }
    }

    /// The operator gets an answer.
    pub(super) fn told(
        &mut self,
        reply: ReplyId,
        command: &OperatorCommand,
        answer: &Answer,
    ) -> Told {
        match (command, answer) {
            (_, Answer::Refused(_)) => Ok(()),
            (OperatorCommand::Steer { tasks, .. }, Answer::Messages(ids))
                if ids.len() == tasks.len() =>
            {
                let sent = ids.iter().copied().zip(tasks.iter().copied());
                self.accepted.extend(sent);
                Ok(())
            }
            (OperatorCommand::Steer { .. }, _) | (_, Answer::Messages(_) | Answer::Asked(_)) => {
                broken(
                    "an answer fits its command",
                    format!("{command:?}: {answer:?}"),
                )
            }
            (_, Answer::Done(lines)) => {
                self.promised(reply, command, lines);
                Ok(())
            }
        }
    }

    fn promised(&mut self, reply: ReplyId, command: &OperatorCommand, lines: &[Arc<str>]) {
        let says = |words: &str| lines.iter().any(|line| line.contains(words));
        match command {
            OperatorCommand::Pause { tasks: None, .. } if says("is paused until") => {
                self.batch_held = self.batch_held.map(|(by, told)| (by, told || by == reply));
            }
            OperatorCommand::Kill { tasks, .. }
            | OperatorCommand::Cancel { tasks: Some(tasks) } => {
                for (task, line) in tasks.iter().zip(lines) {
                    let kept = line.contains("killed;") || line.contains("cancelled");
                    match self.held.get_mut(task) {
                        Some((by, told)) if *by == reply && kept => *told = true,
                        Some((by, false)) if *by == reply => _ = self.held.remove(task),
                        Some(_) | None => {}
                    }
                }
            }
            _other => {}
        }
    }

    /// The supervisor ended by itself: whoever runs the batch again lets it go on.
    pub(super) fn ran_again(&mut self) {
        self.failed_batch = false;
        self.batch_held = None;
    }

    /// What was not answered before a crash was not promised.
    pub(super) fn forget_unanswered(&mut self) {
        self.held.retain(|_, (_, told)| *told);
        self.batch_held = self.batch_held.filter(|(_, told)| *told);
    }

    /// An attempt starts: nobody was promised that it would not.
    pub(super) fn breaks_no_promise(&self, ix: TaskIx) -> Told {
        if self.held.get(&ix).is_some_and(|(_, told)| *told) {
            return broken(
                "what was killed or cancelled stays so",
                format!("t{}", ix.0),
            );
        }
        if self.batch_held.is_some_and(|(_, told)| told) {
            return broken("a paused batch stays paused", format!("t{} starts", ix.0));
        }
        if self.failed_batch {
            return broken(
                "a batch that stops on failure stays stopped",
                format!("t{}", ix.0),
            );
        }
        Ok(())
    }
}
