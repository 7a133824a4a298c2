//! The bridge of a run: by it the agent reports, asks and writes to its own host.
//!
//! [`calls`] decides, [`socket`] carries, [`place`] says where; this file does what was decided. An
//! adapter gives its agent [`mcp_server`]; a plain command finds the same tools on its `PATH`.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use protocol::bridge::{BRIDGE_ENV, BRIDGE_FILE_NAME, ERROR_REFUSED, Letter, Reply, TEXT_MAX};
use protocol::command::{Adapter, Answer, RunKind};
use protocol::program::McpServer;
use protocol::report::{Ask, Asked, ListTasks, RunResult, Send, Sent, Tasks};
use protocol::rpc::{self, ERROR_BAD_PARAMS, RpcError};
use serde_json::value::RawValue;

use self::calls::{Act, Answered, Caller, Calls, Claim, Upward};
use self::socket::{Heard, Socket};
use crate::clock;
use crate::mailbox::Moment;
use crate::run::Run;

mod calls;
#[cfg(test)]
mod calls_tests;
mod files;
mod place;
mod socket;

/// Name of the bridge among the MCP servers of an agent.
pub(crate) const SERVER_NAME: &str = "supervisor";

/// How an agent program starts the bridge as an MCP server over stdio; `None` when the run has no
/// bridge. Its arguments name the bridge's file, because some agents clear the environment.
pub(crate) fn mcp_server(run: &Run) -> Option<McpServer> {
    let file = run.start.env.get(BRIDGE_ENV)?;
    let command = std::env::current_exe().ok()?;
    Some(McpServer {
        command: command.display().to_string(),
        args: ["mcp", "--bridge", file].map(str::to_owned).into(),
        env: BTreeMap::new(),
    })
}

/// The bridge of one run.
pub(crate) struct Bridge {
    calls: Calls,
    socket: Socket,
    cwd: PathBuf,
}

impl Bridge {
    /// The bridge of a run whose agent is a program; the run's environment names it from now on. A
    /// run that can not have one goes on without, after a notice.
    pub(crate) fn open(run: &mut Run) -> Option<Self> {
        let has_program = match &run.start.adapter {
            Adapter::Command(_) | Adapter::Program(_) => true,
            Adapter::Scripted(_)
            | Adapter::Verify(_)
            | Adapter::Hook(_)
            | Adapter::Git(_)
            | Adapter::Fetch(_)
            | Adapter::Comment(_) => false,
        };
        run.start.env.remove(BRIDGE_ENV);
        let folder = run.files().filter(|_| has_program)?;
        match run.start.kind {
            RunKind::Agent | RunKind::Review | RunKind::Merge => {}
            RunKind::Verify | RunKind::Hook | RunKind::Git => return None,
        }
        let made = place::make(&folder).and_then(|(listener, token)| Socket::new(listener, token));
        let socket = match made {
            Ok(socket) => socket,
            Err(error) => {
                place::remove(&folder);
                run.notice(&format!("the agent can not call its host: {error}"));
                return None;
            }
        };
        let file = folder.path().join(BRIDGE_FILE_NAME).display().to_string();
        place::tell(&mut run.start.env, &run.start.cwd, file);
        Some(Self {
            calls: Calls::of(run.start.kind),
            socket,
            cwd: Path::new(&run.start.cwd).to_owned(),
        })
    }

    /// Readable when a call came.
    pub(crate) fn watched(&self) -> BorrowedFd<'_> {
        self.socket.watched()
    }

    /// When something here is due.
    pub(crate) fn due(&self) -> Option<Instant> {
        [self.calls.due(), self.socket.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub(crate) fn do_due(&mut self, run: &mut Run, now: Instant) {
        if self.due().is_some_and(|due| due <= now) {
            let acts = self.calls.expire(now);
            self.perform(run, acts, now);
            let heard = self.socket.expire(now);
            self.hear(run, heard, now);
        }
    }

    /// Takes in what came over the socket.
    pub(crate) fn take_in(&mut self, run: &mut Run, now: Instant) {
        let heard = self.socket.take_in(&mut run.scratch, now);
        self.hear(run, heard, now);
    }

    /// Whether this answers a request of the bridge.
    pub(crate) fn asked(request: u64) -> bool {
        Calls::is_ours(request)
    }

    /// The supervisor answered a request of the bridge.
    pub(crate) fn answered(
        &mut self,
        run: &mut Run,
        request: u64,
        outcome: Result<&RawValue, RpcError>,
    ) {
        let outcome = outcome.and_then(|value| self.understand(request, value));
        let now = clock::now();
        let acts = self.calls.answered(request, outcome, now);
        self.perform(run, acts, now);
    }

    fn understand(&self, request: u64, value: &RawValue) -> Result<Answered, RpcError> {
        let text = value.get();
        let read = match self.calls.requested(request) {
            Some(Upward::Ask { .. }) => {
                serde_json::from_str(text).map(|asked: Asked| Answered::Question(asked.question))
            }
            Some(Upward::Send { .. }) => {
                serde_json::from_str(text).map(|sent: Sent| Answered::Message(sent.message))
            }
            Some(Upward::Tasks) | None => {
                serde_json::from_str(text).map(|tasks: Tasks| Answered::Tasks(tasks))
            }
        };
        read.map_err(|error| RpcError {
            code: ERROR_BAD_PARAMS,
            message: error.to_string(),
        })
    }

    /// The operator answered a question, or it is over. Whether it was one of the bridge's.
    pub(crate) fn takes(&mut self, run: &mut Run, answer: &Answer) -> bool {
        let acts = self.calls.settle(answer.question, answer.text.clone());
        let Some(acts) = acts else {
            return false;
        };
        self.perform(run, acts, clock::now());
        true
    }

    /// Answers that nobody waits for, as the beginning of a turn.
    pub(crate) fn late_answers(&mut self) -> Option<String> {
        let late = self.calls.take_late().into_iter().map(|late| {
            format!(
                "The operator answered your question {} ({}): {}",
                late.question_id, late.question, late.answer
            )
        });
        let late: Vec<String> = late.collect();
        (!late.is_empty()).then(|| late.join("\n\n"))
    }

    /// The run's result, with what the agent said of it.
    pub(crate) fn judge(&self, result: RunResult) -> RunResult {
        self.calls.judge(result)
    }

    /// The run ends: whoever waits is told, and nobody is let in any more.
    pub(crate) fn close(mut self, run: &mut Run) {
        let acts = self.calls.end();
        self.perform(run, acts, clock::now());
        // Its files stay: nobody listens any more, and a token of a run that is over opens nothing. A
        // file system that looks for free numbers passes by each one that was freed in the last
        // minutes, so two removals a run made every new file of a long batch dearer than the last.
    }

    fn hear(&mut self, run: &mut Run, heard: Vec<Heard>, now: Instant) {
        for heard in heard {
            match heard {
                Heard::Call(caller, call) => {
                    let acts = self.calls.call(caller, call, now);
                    self.perform(run, acts, now);
                }
                Heard::Gone(connection) => self.calls.gone(connection),
            }
        }
    }

    fn perform(&mut self, run: &mut Run, acts: Vec<Act>, now: Instant) {
        for act in acts {
            match act {
                Act::Answer(caller, reply) => self.answer(caller, &reply, now),
                Act::Refuse(caller, error) => self.refuse(caller, &error, now),
                Act::Report(event) => run.report(event),
                Act::Request(id, request) => ask_upward(run, id, request),
                Act::HandMailbox(caller, answers) => {
                    let mut reply = mailbox(run, answers);
                    if let Reply::Mailbox { more, .. } = &mut reply {
                        *more |= self.calls.has_late();
                    }
                    self.answer(caller, &reply, now);
                }
                Act::CheckFiles(caller, claim) => self.check_files(run, caller, claim, now),
            }
        }
    }

    fn check_files(&mut self, run: &mut Run, caller: Caller, claim: Claim, now: Instant) {
        let acts = match files::check(&self.cwd, &claim.artifacts) {
            Ok(artifacts) => self.calls.claim(caller, Claim { artifacts, ..claim }),
            Err(message) => {
                let code = ERROR_REFUSED;
                vec![Act::Refuse(caller, RpcError { code, message })]
            }
        };
        self.perform(run, acts, now);
    }

    fn answer(&mut self, caller: Caller, reply: &Reply, now: Instant) {
        let answered = match reply {
            Reply::Answered { question_id, .. } => Some(*question_id),
            Reply::Done {}
            | Reply::Sent { .. }
            | Reply::Pending { .. }
            | Reply::Mailbox { .. }
            | Reply::Tasks { .. } => None,
        };
        let line = rpc::answer(caller.id, reply).or_else(|error| {
            let code = ERROR_REFUSED;
            let message = error.to_string();
            rpc::refusal(caller.id, &RpcError { code, message })
        });
        if !self.send(caller, line, now)
            && let Some(question) = answered
        {
            self.calls.not_taken(question);
        }
    }

    fn refuse(&mut self, caller: Caller, error: &RpcError, now: Instant) {
        // A caller that is gone needs no refusal.
        let _ = self.send(caller, rpc::refusal(caller.id, error), now);
    }

    /// Whether the caller is still there.
    fn send(
        &mut self,
        caller: Caller,
        line: Result<Vec<u8>, serde_json::Error>,
        now: Instant,
    ) -> bool {
        let stays = self.socket.send(caller, &line.unwrap_or_default(), now);
        if !stays {
            self.calls.gone(caller.connection);
        }
        stays
    }
}

fn ask_upward(run: &mut Run, id: u64, request: Upward) {
    let generation = run.start.generation;
    let line = match request {
        Upward::Ask { question, options } => {
            let ask = Ask {
                generation,
                text: question,
                options,
            };
            rpc::request(id, "ask", ask.bounded())
        }
        Upward::Send { to, text } => {
            let send = Send {
                generation,
                to,
                text,
            };
            rpc::request(id, "send", send)
        }
        Upward::Tasks => rpc::request(id, "tasks", ListTasks { generation }),
    };
    run.send(line);
}

/// Takes what waits in the mailbox, as much as fits an answer: injected, and seen, because the agent
/// itself reads it.
fn mailbox(run: &mut Run, answers: Vec<protocol::bridge::LateAnswer>) -> Reply {
    let mut messages = Vec::new();
    let mut size: usize = answers.iter().map(|late| late.answer.len()).sum();
    while size < TEXT_MAX
        && let Some(message) = run.inject_next(Moment::Prompt)
    {
        run.seen(message.id);
        size += message.text.len();
        messages.push(Letter {
            id: message.id,
            from: message.from,
            text: message.text,
        });
    }
    Reply::Mailbox {
        messages,
        answers,
        more: run.mailbox.waits(Moment::Prompt),
    }
}
