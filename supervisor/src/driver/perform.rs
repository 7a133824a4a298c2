//! Acts: one match over the effects, one call for each.

use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::command::{Answer as AnswerCommand, Command, Message, Stop};
use protocol::ids::{Generation, MessageId};
use protocol::report::{Asked, Sent as SentMessage};
use protocol::rpc::{self, ERROR_BAD_PARAMS, RpcError};
use supervisor_core::effect::{Answer, Effect};
use supervisor_core::facts::Facts;
use supervisor_core::input::{Input, ReplyId, WireFault};
use supervisor_core::machine::RunState;

use crate::driver::error::chain;
use crate::driver::host_io::Sent;
use crate::driver::operator::{Waiter, queued_at};
use crate::driver::run::Driver;
use crate::driver::tasks::task_id;
use crate::process::spawn::{Order, SpawnError};

impl Driver<'_> {
    /// Performs one effect; what it leads to joins the inputs.
    pub(super) fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::SpawnHost { generation } => self.spawn_host(generation),
            Effect::StartRun {
                generation,
                messages,
            } => self.start_run(generation, &messages),
            Effect::Deliver {
                generation,
                id,
                mode,
                text,
                from,
            } => {
                let message = Message {
                    id,
                    mode,
                    text: text.to_string(),
                    from: from.and_then(|from| task_id(self.facts()?, from)),
                };
                self.command(generation, &Command::Deliver(message));
            }
            Effect::AnswerHost {
                generation,
                question,
                text,
            } => {
                let text = text.map(|text| text.to_string());
                self.command(
                    generation,
                    &Command::Answer(AnswerCommand { question, text }),
                );
            }
            Effect::StopHost { generation, grace } => self.stop_host(generation, grace),
            Effect::KillHost { generation } => self.hosts.kill(generation),
            Effect::Ping { generation } => {
                let sent = self.hosts.ping(generation);
                self.note_sent(generation, sent);
            }
            Effect::Reply { reply, answer } => self.reply(reply, answer),
            // The first one: an input between it and its record may have led to a vaguer one.
            Effect::Finish { ending } => {
                self.ending.get_or_insert(ending);
            }
        }
    }

    /// A run that was stopped while its record was on its way to the disk is not started at all.
    fn spawn_host(&mut self, generation: Generation) {
        if self.hosts.is_live(generation) {
            return;
        }
        let Some((state, order)) = self.order(generation) else {
            return;
        };
        let spawned = match state {
            RunState::Intended => self
                .hosts
                .spawn(generation, order)
                .map_err(|error| (class_of(&error), chain(&error))),
            RunState::Spawned
            | RunState::Started
            | RunState::Finished
            | RunState::Stopping
            | RunState::Ended => {
                let why = "it was stopped before it was started";
                Err((Class::SpawnFailure, why.to_owned()))
            }
        };
        if let (Ok((identity, _)), Some((task, attempt))) = (&spawned, self.of_run(generation)) {
            let (attempt, run, pid) = (attempt.0, generation.0, identity.pid);
            tracing::debug!(%task, attempt, run, pid, "host started");
        }
        self.inputs.push_back(match spawned {
            Ok((identity, containment)) => Input::HostSpawned {
                generation,
                identity,
                containment,
            },
            Err((class, error)) => Input::SpawnFailed {
                generation,
                class,
                error: error.into(),
            },
        });
    }

    fn order(&self, generation: Generation) -> Option<(RunState, Order)> {
        let facts = self.facts()?;
        let run = facts.runs.get(&generation)?;
        let task = facts.tasks.get(usize::try_from(run.task.0).ok()?)?;
        let spec = facts.specs.get(usize::try_from(task.spec.0).ok()?)?;
        let order = Order {
            token: run.token,
            wish: spec.containment,
            memory: spec.memory_max,
        };
        Some((run.state, order))
    }

    fn start_run(&mut self, generation: Generation, messages: &[MessageId]) {
        let Some(facts) = self.core.facts() else {
            return;
        };
        match self.starter.prepare(&self.dir, facts, generation, messages) {
            Ok(prepared) => {
                self.command(generation, &Command::Start(Box::new(prepared.start)));
                for message in prepared.rest {
                    self.command(generation, &Command::Deliver(message));
                }
            }
            Err(error) => {
                let error: Arc<str> = chain(&error).into();
                self.inputs
                    .push_back(Input::StartFailed { generation, error });
            }
        }
    }

    fn stop_host(&mut self, generation: Generation, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        if !grace.is_zero() {
            self.hosts.asked_to_end(generation);
        }
        self.command(generation, &Command::Stop(Stop { grace_ms }));
    }

    fn command(&mut self, generation: Generation, command: &Command) {
        let sent = self.hosts.command(generation, command);
        self.note_sent(generation, sent);
    }

    /// A host that lets its backlog fill up does not read: its wire is broken. One that has closed
    /// its stdin, or is gone, will be seen by its end.
    fn note_sent(&mut self, generation: Generation, sent: Option<Sent>) {
        match sent {
            Some(Sent::Dropped) => self.inputs.push_back(Input::WireFault {
                generation,
                fault: WireFault::TooLong,
            }),
            Some(Sent::Taken | Sent::Closed) | None => {}
        }
    }

    fn reply(&mut self, reply: ReplyId, answer: Answer) {
        match self.desk.discharge(reply) {
            Waiter::Client { caller, wait } => {
                let now = self.clock.now().wall;
                let queued = queued_at(self.core.facts(), &answer, now);
                self.desk.answer(caller, wait, &answer, queued);
            }
            Waiter::Host { generation, id } => self.answer_host(generation, id, &answer),
            Waiter::Inbox { waiting } => self.settle_inbox(waiting, &answer),
            // A client that is gone needs no answer.
            Waiter::Replaced { caller, told } => _ = caller.tell(told),
            Waiter::Nobody => {}
        }
    }

    fn answer_host(&mut self, generation: Generation, id: u64, answer: &Answer) {
        let line = match answer {
            Answer::Asked(question) => {
                let question = *question;
                rpc::answer(id, Asked { question })
            }
            Answer::Messages(ids) => match ids.first() {
                Some(&message) => rpc::answer(id, SentMessage { message }),
                None => refuse(id, "the message was not taken"),
            },
            Answer::Refused(refusal) => refuse(id, &refusal.to_string()),
            Answer::Done(_) => refuse(id, "the request was not taken"),
        };
        self.line(generation, line);
    }

    /// Sends an answer to a request of a host.
    pub(super) fn line(
        &mut self,
        generation: Generation,
        line: Result<Vec<u8>, serde_json::Error>,
    ) {
        match line {
            Ok(line) => {
                let sent = self.hosts.line(generation, &line);
                self.note_sent(generation, sent);
            }
            Err(error) => tracing::error!(run = generation.0, %error, "an answer is no JSON"),
        }
    }

    pub(super) fn facts(&self) -> Option<&Facts> {
        self.core.facts()
    }
}

/// What this machine lacks is no fault of the start.
fn class_of(error: &SpawnError) -> Class {
    match error {
        SpawnError::NoCgroup(_) | SpawnError::Leaf(_) => Class::Environment,
        SpawnError::Start(_) => Class::SpawnFailure,
    }
}

/// A refusal that is no fault of the wire.
pub(super) fn refuse(id: u64, message: &str) -> Result<Vec<u8>, serde_json::Error> {
    let message = message.to_owned();
    let code = ERROR_BAD_PARAMS;
    rpc::refusal(id, &RpcError { code, message })
}
