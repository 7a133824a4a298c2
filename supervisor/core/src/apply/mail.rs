//! Records of messages and questions.

use std::sync::Arc;

use protocol::ids::{Generation, MessageId, QuestionId};

use super::Apply;
use crate::core::{Change, ReplayError};
use crate::facts::{Message, Question};
use crate::machine::{MessageState, QuestionState, TaskState};
use crate::plan::TaskIx;
use crate::reason::TaskReason;
use crate::record::Record;

impl Apply<'_> {
    pub(super) fn message_queued(&mut self) -> Result<(), ReplayError> {
        let Record::MessageQueued {
            id,
            task,
            mode,
            text,
            expires,
            from,
        } = &self.entry.record
        else {
            return Err(self.unknown("message"));
        };
        if *id <= self.state.facts.batch.last_message {
            return Err(self.unknown("new message"));
        }
        self.task(*task)?;
        if let Some(from) = from {
            self.task(*from)?;
        }
        self.state.facts.batch.last_message = *id;
        let state = MessageState::Queued;
        let rungs = vec![(state, self.entry.now.wall)];
        let message = Message {
            task: *task,
            mode: *mode,
            text: text.clone(),
            expires: *expires,
            from: *from,
            state,
            generation: None,
            rungs,
        };
        self.state.facts.messages.insert(*id, message);
        self.state.index.note_message(*id, *task, state, *expires);
        Ok(())
    }

    pub(super) fn message_moved(
        &mut self,
        id: MessageId,
        to: MessageState,
        generation: Option<Generation>,
    ) -> Result<(), ReplayError> {
        let seq = self.entry.seq;
        let Some(message) = self.state.facts.messages.get_mut(&id) else {
            return Err(ReplayError::Unknown {
                seq,
                what: "message",
            });
        };
        let edge = message
            .state
            .become_(to)
            .map_err(|edge| ReplayError::Edge { seq, edge })?;
        self.changes.push(Change::Message(id, edge));
        message.rungs.push((to, self.entry.now.wall));
        message.generation = generation.or(message.generation);
        // The text of an injected message is the agent's now; an uncertain one may be repeated in
        // a hand-off, so it keeps its text.
        let keeps = matches!(
            to,
            MessageState::Queued | MessageState::Sent | MessageState::Uncertain
        );
        if !keeps {
            message.text = "".into();
        }
        let (ix, expires) = (message.task, message.expires);
        self.state.index.note_message(id, ix, to, expires);
        Ok(())
    }

    pub(super) fn question_opened(&mut self) -> Result<(), ReplayError> {
        let Record::QuestionOpened {
            id,
            task,
            generation,
            text,
            options,
            deadline,
        } = &self.entry.record
        else {
            return Err(self.unknown("question"));
        };
        if *id <= self.state.facts.batch.last_question {
            return Err(self.unknown("new question"));
        }
        self.run(*generation)?;
        self.task(*task)?;
        self.state.facts.batch.last_question = *id;
        let question = Question {
            task: *task,
            generation: *generation,
            text: text.clone(),
            options: options.clone(),
            asked: self.entry.now.wall,
            deadline: *deadline,
            state: QuestionState::Open,
            answer: None,
        };
        self.state.facts.questions.insert(*id, question);
        self.state
            .index
            .note_question(*id, *generation, QuestionState::Open, *deadline);
        if self.task(*task)?.state == TaskState::Running {
            let boot = self.entry.now.boot;
            if let Some(attempt) = &mut self.task(*task)?.attempt {
                attempt.waiting_since = Some(boot);
            }
            self.put_task(*task, TaskState::Waiting, TaskReason::Question(*id), None)?;
        }
        Ok(())
    }

    pub(super) fn question_moved(
        &mut self,
        id: QuestionId,
        to: QuestionState,
        answer: Option<&Arc<str>>,
    ) -> Result<(), ReplayError> {
        let seq = self.entry.seq;
        let Some(question) = self.state.facts.questions.get_mut(&id) else {
            return Err(ReplayError::Unknown {
                seq,
                what: "question",
            });
        };
        let edge = question
            .state
            .become_(to)
            .map_err(|edge| ReplayError::Edge { seq, edge })?;
        self.changes.push(Change::Question(id, edge));
        question.answer = answer.cloned();
        let (ix, generation, deadline) = (question.task, question.generation, question.deadline);
        self.state.index.note_question(id, generation, to, deadline);
        self.stop_waiting(ix, generation)
    }

    /// The task works again once its run has no open question; its wall limit moves by the wait.
    fn stop_waiting(&mut self, ix: TaskIx, generation: Generation) -> Result<(), ReplayError> {
        let open = self.state.index.questions.get(&generation);
        let next = open.and_then(|open| open.first().copied());
        let boot = self.entry.now.boot;
        let task = self.task(ix)?;
        if task.state != TaskState::Waiting {
            return Ok(());
        }
        if let Some(next) = next {
            task.reason = TaskReason::Question(next);
            return Ok(());
        }
        if let Some(attempt) = &mut task.attempt {
            attempt.work_again(boot);
        }
        self.put_task(ix, TaskState::Running, TaskReason::Working, None)
    }
}
