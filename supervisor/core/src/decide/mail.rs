//! Messages to tasks: the operator's, and those of other tasks' agents.

use std::sync::Arc;

use protocol::command::{RunKind, SteerMode};
use protocol::ids::{Generation, MessageId};
use protocol::report::{Capabilities, Receipt};

use super::{Desk, GRACE};
use crate::effect::{Answer, Refusal};
use crate::input::{ReplyId, WireFault};
use crate::live::{Gate, SENDS_MAX};
use crate::machine::RunState;
use crate::mailbox::{TEXT_MAX, UNSETTLED_MAX};
use crate::plan::{AgentKind, TaskIx};
use crate::record::{Record, StopReason};
use crate::time::Wall;

impl Desk<'_> {
    /// The operator steers tasks.
    pub(super) fn steer(
        &mut self,
        reply: ReplyId,
        tasks: &[TaskIx],
        mode: SteerMode,
        text: Arc<str>,
        expires: Option<Wall>,
        wait: Option<Receipt>,
    ) {
        for ix in tasks {
            if let Err(refusal) = self.may_steer(*ix, mode, &text, wait) {
                self.refuse(reply, refusal);
                return;
            }
        }
        let mut ids = Vec::new();
        for ix in tasks {
            ids.push(self.queue(*ix, mode, text.clone(), expires, None));
        }
        self.reply(reply, Answer::Messages(ids));
    }

    /// An agent writes to another task of the batch: a message like the operator's, at the next
    /// boundary, with the task that it is from.
    pub(super) fn host_sent(
        &mut self,
        generation: Generation,
        to: TaskIx,
        text: Arc<str>,
        reply: ReplyId,
    ) {
        let live = self.live.get_mut(generation);
        let open = live.is_some_and(|live| {
            live.heard = self.now.boot;
            live.gate == Gate::Open
        });
        let sends = self
            .run(generation)
            .filter(|run| open && run.kind() == RunKind::Agent && run.state == RunState::Started);
        let Some(from) = sends.map(|run| run.task) else {
            let text = "only a run that has started may send messages".into();
            return self.refuse(reply, Refusal::WrongState(text));
        };
        if let Some(live) = self.live.get_mut(generation) {
            live.alive = self.now.boot;
            if live.sent >= SENDS_MAX {
                let text = format!("a run may send {SENDS_MAX} messages").into();
                self.refuse(reply, Refusal::Limit(text));
                return self.wire_fault(generation, WireFault::Garbage);
            }
        }
        if let Err(refusal) = self.may_send(from, to, &text) {
            return self.refuse(reply, refusal);
        }
        if let Some(live) = self.live.get_mut(generation) {
            live.sent += 1;
            live.progressed = self.now.boot;
        }
        let id = self.queue(to, SteerMode::Boundary, text, None, Some(from));
        self.reply(reply, Answer::Messages(vec![id]));
    }

    fn may_send(&self, from: TaskIx, to: TaskIx, text: &str) -> Result<(), Refusal> {
        if to.0 as usize >= self.facts().tasks.len() {
            return Err(Refusal::NotFound("the batch has no such task".into()));
        }
        if from == to {
            let text = "a task can not send a message to itself";
            return Err(Refusal::WrongState(text.into()));
        }
        self.may_steer(to, SteerMode::Boundary, text, None)
    }

    /// Records a message, and hands it on where a run can take it.
    fn queue(
        &mut self,
        task: TaskIx,
        mode: SteerMode,
        text: Arc<str>,
        expires: Option<Wall>,
        from: Option<TaskIx>,
    ) -> MessageId {
        let id = self.facts().batch.last_message.next();
        self.record(Record::MessageQueued {
            id,
            task,
            mode,
            text,
            expires,
            from,
        });
        // A run that could not be judged has no wire: the message waits for the next one.
        let wired = self.agent_run(task);
        let Some(generation) = wired.filter(|run| !self.is_unresolved(*run)) else {
            return id;
        };
        if mode == SteerMode::Restart {
            self.stop(generation, StopReason::Superseded, GRACE);
        } else if self
            .run(generation)
            .is_some_and(|run| run.state == RunState::Started)
        {
            self.deliver_queued(generation);
        }
        id
    }

    fn may_steer(
        &self,
        ix: TaskIx,
        mode: SteerMode,
        text: &str,
        wait: Option<Receipt>,
    ) -> Result<(), Refusal> {
        let task = self.task(ix);
        let id = &task.id;
        if task.state.is_terminal() {
            let text = format!("{id} is {}: nobody is there to read a message", task.state);
            return Err(Refusal::WrongState(text.into()));
        }
        check_length(text)?;
        self.check_room(ix)?;
        let kind = self.facts().agents[self.spec(ix).agent.0 as usize].kind;
        // What runs has said what it can; before that its kind says the most.
        let running = self.agent_run(ix).and_then(|run| self.run(run));
        let running = running.and_then(|run| run.capabilities);
        let of = |can: Capabilities| (can.interrupt, can.receipt == Receipt::Seen);
        let (what, (steers, seen)) = match kind {
            AgentKind::Command => ("a plain command", (false, false)),
            AgentKind::Scripted => ("a scripted agent", (true, true)),
            AgentKind::Program(kind) => {
                let can = running.unwrap_or_else(|| kind.capabilities());
                (kind.word(), of(can))
            }
        };
        if mode == SteerMode::Interrupt && !steers {
            let text = format!(
                "{id} is {what}, which can not be interrupted: use --mode after or restart"
            );
            return Err(Refusal::CanNotProve(text.into()));
        }
        if wait == Some(Receipt::Seen) && !seen {
            let text = format!("{id} is {what}: `injected` is the most that can be proven");
            return Err(Refusal::CanNotProve(text.into()));
        }
        Ok(())
    }

    /// Whether a task may be handed one more message.
    fn check_room(&self, ix: TaskIx) -> Result<(), Refusal> {
        let mail = self.index().mail.get(&ix);
        if mail.is_some_and(|mail| mail.len() >= UNSETTLED_MAX) {
            let id = &self.task(ix).id;
            let text = format!("{id} has {UNSETTLED_MAX} messages that it has not taken yet");
            return Err(Refusal::Limit(text.into()));
        }
        Ok(())
    }

    /// Whether a note can go to each of these tasks; it is a message like any other.
    pub(super) fn may_note(&self, tasks: &[TaskIx], note: &str) -> Result<(), Refusal> {
        check_length(note)?;
        let count = self.facts().tasks.len();
        let known = tasks.iter().filter(|ix| (ix.0 as usize) < count);
        known.copied().try_for_each(|ix| self.check_room(ix))
    }
}

/// Whether a text can be a message.
fn check_length(text: &str) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > TEXT_MAX {
        let text = format!(
            "a message has 1 to {TEXT_MAX} bytes, this one {}",
            text.len()
        );
        return Err(Refusal::Limit(text.into()));
    }
    Ok(())
}
