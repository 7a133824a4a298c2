//! Facts: what hosts, clients and signals say, as inputs of the core.

use std::time::Duration;

use protocol::ids::{AttemptNo, Generation, TaskId};
use protocol::report::Ask;
use protocol::rpc::{self, ERROR_BAD_PARAMS, RpcError};
use supervisor_core::effect::Answer;
use supervisor_core::input::{Input, OperatorCommand, StopStage, WireFault};
use supervisor_core::reconcile::ResultFact;

use tokio::time::sleep;

use crate::control::peer::Insiders;
use crate::control::server::{Asked, Caller, refuse_agent, refused};
use crate::control::wire::Reply;
use crate::driver::error::chain;
use crate::driver::host_io::HostWord;
use crate::driver::hosts::Gone;
use crate::driver::observer::Note;
use crate::driver::operator::{self, Meaning, Waiter};
use crate::driver::run::Driver;
use crate::driver::run_files;
use crate::guardian::channel::Word;
use crate::store::RealDisk;
use crate::store::inbox::{self, Waiting};

/// Longest wait of hosts that ended for others that were killed with them: killed processes are gone
/// within milliseconds, but for those that hang in the kernel.
const HELD_MAX: Duration = Duration::from_millis(50);

impl Driver<'_> {
    /// A host said something.
    pub(super) fn heard(&mut self, generation: Generation, word: HostWord) {
        let input = match word {
            HostWord::Greeted => Input::HostGreeted { generation },
            HostWord::Refused(error) => Input::HelloRefused {
                generation,
                error: error.into(),
            },
            HostWord::Reported(claimed, event) => Input::HostReported {
                generation,
                claimed,
                event,
            },
            HostWord::Asked(id, ask) => return self.host_asked(generation, id, ask),
            HostWord::Sent(id, send) => return self.host_sent(generation, id, send),
            HostWord::TasksWanted(id, of) => return self.tasks_wanted(generation, id, of),
            HostWord::Ponged(pong) => Input::HostPonged { generation, pong },
            HostWord::Fault(fault) => Input::WireFault { generation, fault },
            HostWord::Unanswerable(id, error) => return self.refuse_host(generation, id, &error),
            HostWord::Parked(inlet) => return self.hosts.parked(generation, *inlet),
            HostWord::Ended => {
                self.hosts.has_ended(generation);
                return self.gone.push(generation);
            }
        };
        self.inputs.push_back(input);
    }

    fn host_asked(&mut self, generation: Generation, id: u64, ask: Ask) {
        if !self.is_of(generation, id, ask.generation) {
            return;
        }
        let reply = self.desk.enlist(Waiter::Host { generation, id });
        self.inputs.push_back(Input::HostAsked {
            generation,
            text: ask.text.into(),
            options: ask.options.into_iter().map(Into::into).collect(),
            reply,
        });
    }

    /// Whether a request names the run of its pipe; it is refused otherwise.
    pub(super) fn is_of(&mut self, generation: Generation, id: u64, named: Generation) -> bool {
        if named != generation {
            let message = format!("this pipe is of run {generation}, not of {named}");
            let code = ERROR_BAD_PARAMS;
            self.refuse_host(generation, id, &RpcError { code, message });
        }
        named == generation
    }

    /// A request that can not be met is answered, and counts as a fault of the wire.
    fn refuse_host(&mut self, generation: Generation, id: u64, error: &RpcError) {
        self.line(generation, rpc::refusal(id, error));
        self.inputs.push_back(Input::WireFault {
            generation,
            fault: WireFault::Garbage,
        });
    }

    /// Hosts that ended are collected, swept after, their files read. While others are dying they wait
    /// for these, a moment at most: one search through the machine is then enough for all.
    pub(super) fn collect_gone(&mut self) {
        if self.gone.is_empty() {
            return;
        }
        if self.hosts.are_dying() {
            let held = self.held.get_or_insert_with(|| Box::pin(sleep(HELD_MAX)));
            if !held.is_elapsed() {
                return;
            }
        }
        self.held = None;
        let gone = std::mem::take(&mut self.gone);
        for gone in self.hosts.collect(&gone) {
            let input = self.host_exited(gone);
            self.inputs.push_back(input);
        }
    }

    fn host_exited(&self, gone: Gone) -> Input {
        let Gone {
            generation, exit, ..
        } = gone;
        let mut durable = None;
        let mut injected = Vec::new();
        if let Some((task, attempt)) = self.of_run(generation) {
            tracing::debug!(%task, attempt = attempt.0, run = generation.0, ?exit, "host ended");
            let run_dir = self.dir.run(task, attempt, generation);
            let (result, in_result) = run_files::result(&run_dir, generation);
            if let ResultFact::Durable(result) = result {
                durable = Some(result);
            }
            injected = in_result;
            // Without the file of the run, that of the task says what went in before it died.
            match run_files::injected(&self.dir.task(task)) {
                Ok(earlier) => injected.extend(earlier),
                Err(error) => tracing::error!(%error, "which messages went in is not known"),
            }
            injected.sort_unstable();
            injected.dedup();
        }
        Input::HostExited {
            generation,
            exit,
            durable,
            injected,
            cleared: gone.cleared,
            oom: gone.oom,
        }
    }

    /// Whose run it is.
    pub(super) fn of_run(&self, generation: Generation) -> Option<(&TaskId, AttemptNo)> {
        let facts = self.facts()?;
        let run = facts.runs.get(&generation)?;
        let task = facts.tasks.get(usize::try_from(run.task.0).ok()?)?;
        Some((&task.id, run.attempt))
    }

    /// A client of the control socket asks.
    pub(super) fn asked(&mut self, asked: Asked) {
        let Asked { pid, want, caller } = asked;
        let Some(facts) = self.core.facts() else {
            return;
        };
        // Where the system does not say who asks, the user is all that is known of them.
        let insiders = (!want.only_reads()).then(|| Insiders::of_own(facts));
        if pid
            .zip(insiders)
            .is_some_and(|(pid, insiders)| insiders.has_besides(&mut self.outsiders, pid))
        {
            return hand(&caller, refuse_agent());
        }
        match operator::understand(&mut self.names, facts, want) {
            Err(refusal) => hand(&caller, refusal),
            Ok(Meaning::Noted) => hand(
                &caller,
                refused(8, "this is for a batch without a supervisor"),
            ),
            Ok(Meaning::Watch) => self.desk.watch(caller),
            Ok(Meaning::Activity) => {
                let now = self.clock.now();
                hand(&caller, operator::activity(facts, self.core.live(), now));
            }
            Ok(Meaning::Inbox) => {
                self.read_inbox();
                hand(&caller, Reply::Done { lines: Vec::new() });
            }
            Ok(Meaning::Command(command, wait)) => {
                self.ordered(command, Waiter::Client { caller, wait });
            }
            Ok(Meaning::EndAll { grace }) => self.end_all(grace, caller),
            Ok(Meaning::Replace { program }) => self.replace_by(&program, caller),
        }
    }

    /// Kills what runs; then nothing is left for the supervisor to do but to end.
    fn end_all(&mut self, grace: Duration, caller: Caller) {
        let client = Waiter::Client { caller, wait: None };
        let tasks = self.facts().map(operator::live_tasks).unwrap_or_default();
        let stop = OperatorCommand::Stop(StopStage::Stop);
        if tasks.is_empty() {
            self.ordered(stop, client);
        } else {
            self.ordered(OperatorCommand::Kill { tasks, grace }, client);
            self.ordered(stop, Waiter::Nobody);
        }
        self.note_stop(StopStage::Stop);
    }

    /// An operator's command.
    pub(super) fn ordered(&mut self, command: OperatorCommand, waiter: Waiter) {
        let reply = self.desk.enlist(waiter);
        self.inputs.push_back(Input::Operator { reply, command });
    }

    /// A signal asks to stop.
    pub(super) fn stop(&mut self, stage: StopStage) {
        self.ordered(OperatorCommand::Stop(stage), Waiter::Nobody);
        self.note_stop(stage);
    }

    fn note_stop(&mut self, stage: StopStage) {
        if let Some(guarded) = &self.place.guarded {
            guarded.tell(&Word::Ending);
        }
        self.stopping = self.stopping.max(Some(stage));
        self.note(Note::Stopping(stage));
    }

    /// Somebody found no supervisor, and put a request into the inbox while this one started.
    fn read_inbox(&mut self) {
        match inbox::waiting(&RealDisk, &self.dir) {
            Ok(waiting) => self.take_inbox(waiting),
            Err(error) => {
                let error = chain(&error);
                tracing::error!(%error, "the inbox can not be read");
                self.note(Note::Trouble(&error));
            }
        }
    }

    /// Requests that waited for a supervisor; those that are being carried out are left alone.
    pub(super) fn take_inbox(&mut self, waiting: Vec<Waiting>) {
        for waiting in waiting {
            if !self.desk.take_file(&waiting.file) {
                continue;
            }
            let Some(facts) = self.core.facts() else {
                return;
            };
            let want = waiting.request.want.clone();
            match operator::understand(&mut self.names, facts, want) {
                Ok(Meaning::Command(command, _)) => {
                    self.ordered(command, Waiter::Inbox { waiting });
                }
                // Recorded with what became of each run; forgotten once that is durable.
                Ok(Meaning::Noted) => {
                    let (tasks, grace) = (Vec::new(), Duration::ZERO);
                    let nothing = OperatorCommand::Kill { tasks, grace };
                    self.ordered(nothing, Waiter::Inbox { waiting });
                }
                // Meant for a supervisor that lived then.
                Ok(
                    Meaning::EndAll { .. }
                    | Meaning::Activity
                    | Meaning::Inbox
                    | Meaning::Watch
                    | Meaning::Replace { .. },
                ) => {
                    self.forget_inbox(waiting, "it is too late for this request");
                }
                Err(Reply::Refused { text, .. }) => self.forget_inbox(waiting, &text),
                Err(_) => self.forget_inbox(waiting, "refused"),
            }
        }
    }

    /// What a request from the inbox led to is durable.
    pub(super) fn settle_inbox(&mut self, waiting: Waiting, answer: &Answer) {
        let text = match operator::reply(answer, self.clock.now().wall) {
            Reply::Done { lines } => lines.join("; "),
            Reply::Messages { ids, at_ms: _ } => {
                let ids: Vec<String> = ids.iter().map(|id| format!("{id} queued")).collect();
                ids.join("; ")
            }
            Reply::Refused { text, .. } => text,
            Reply::Moved { .. } | Reply::Activity { .. } | Reply::Changed { .. } => String::new(),
        };
        self.forget_inbox(waiting, &text);
    }

    fn forget_inbox(&mut self, waiting: Waiting, text: &str) {
        tracing::info!(file = %waiting.file.display(), result = text, "a request that waited");
        self.note(Note::Inbox(text));
        let file = waiting.file.clone();
        match inbox::remove(&RealDisk, &self.dir, &[waiting]) {
            Ok(()) => self.desk.forget_file(&file),
            // It stays taken: this supervisor does not carry it out a second time.
            Err(error) => {
                tracing::error!(%error, "a request was carried out but can not be removed");
            }
        }
    }
}

/// Hands a client its only reply; one that is gone already needs none.
fn hand(caller: &Caller, reply: Reply) {
    if !caller.tell(reply) {
        tracing::debug!("a client went away before its reply");
    }
}
