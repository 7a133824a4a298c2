//! The host's one loop: the pipe, the agent's program and the deadlines of one run.

use std::io;
use std::time::Instant;

use protocol::command::{Command, Message, Pong, Start};
use protocol::framing::{Frame, LINE_MAX};
use protocol::report::{Event, ResultStatus, RunResult, Started, SteerReach};
use protocol::rpc::{self, ERROR_BAD_PARAMS, ERROR_UNKNOWN_METHOD, Incoming, RpcError};

use crate::agent::{self, Advance, Agent, Prompt};
use crate::bridge::Bridge;
use crate::clock;
use crate::link::{Heard, Link};
use crate::mailbox::Moment;
use crate::process::{self, Sweep};
use crate::run::{Failure, Run, complain};
use crate::scratch::Scratch;
use crate::wait::{Interest, Ready, wait};

/// Everything went in order: a result was handed over, or a stop or the end of stdin was obeyed.
pub(crate) const EXIT_OK: u8 = 0;
/// The result could not be made durable.
pub(crate) const EXIT_NOT_DURABLE: u8 = 4;
/// Processes of the run are still there.
pub(crate) const EXIT_SURVIVORS: u8 = 5;

/// Most notices about bad lines on stdin; more say nothing new.
const BAD_LINES_MAX: u32 = 20;

/// How a run ends.
enum Ending {
    /// With a result.
    Result(Box<RunResult>),
    /// As it was told.
    Stopped,
    /// Without the supervisor: its end of the pipe is closed, or it was silent for too long.
    Abandoned(&'static str),
    /// Without a result, with this status.
    Leaves(u8),
}

const UNREAD: Ending = Ending::Abandoned("nobody reads our reports any more");

impl Ending {
    fn failed(failure: Failure) -> Self {
        Self::Result(Box::new(failure.into_result()))
    }
}

/// One run from `start` to its end.
pub(crate) struct Host {
    run: Run,
    agent: Box<dyn Agent>,
    /// By which the agent calls us, where it is a program.
    bridge: Option<Bridge>,
    /// When the silence of the supervisor has been too long.
    lease_end: Instant,
    /// When the tree is killed, once a stop has come.
    kill_at: Option<Instant>,
    bad_lines: u32,
    /// The agent was ready and `started` was reported.
    is_greeted: bool,
}

/// Carries out a run and returns the status to exit with.
pub(crate) fn carry_out(start: Start, link: Link, scratch: Scratch) -> u8 {
    let lease_end = clock::after(clock::now(), start.lease_ms);
    let (mut run, files) = Run::new(start, link, scratch);
    let bridge = Bridge::open(&mut run);
    let agent = match files.and_then(|()| agent::adapter(&mut run.start)) {
        Ok(agent) => agent,
        Err(failure) => {
            not_started(&mut run);
            return end(
                &mut run,
                lease_end,
                Ending::failed(failure),
                &process::Sweep::default(),
            );
        }
    };
    let mut host = Host {
        run,
        agent,
        bridge,
        lease_end,
        kill_at: None,
        bad_lines: 0,
        is_greeted: false,
    };
    let ending = match host.begin() {
        Ok(()) => host.work(),
        Err(failure) => Ending::failed(failure),
    };
    if let Some(bridge) = host.bridge.take() {
        bridge.close(&mut host.run);
    }
    let sweep = host.clear_away();
    if !host.is_greeted {
        not_started(&mut host.run);
    }
    end(&mut host.run, host.lease_end, ending, &sweep)
}

impl Host {
    fn begin(&mut self) -> Result<(), Failure> {
        let (agent, run) = (&mut self.agent, &mut self.run);
        match run.start.session.clone() {
            Some(session) => agent.resume(run, &session)?,
            None => agent.start(run)?,
        }
        if !agent.is_ready() {
            return Ok(());
        }
        self.greet()
    }

    /// The agent is ready: what it can do, and its prompt.
    fn greet(&mut self) -> Result<(), Failure> {
        let (agent, run) = (&mut self.agent, &mut self.run);
        let session = agent.session().map(str::to_owned);
        self.is_greeted = true;
        run.report(Event::Started(Started {
            capabilities: agent.capabilities(),
            session,
        }));
        let takes_prompts = agent.takes_prompts();
        let text = if takes_prompts { run.prompt()? } else { None };
        if !takes_prompts && run.mailbox.waits(Moment::Prompt) {
            run.notice("messages wait, but this program takes no prompt");
        }
        let messages = messages(run, takes_prompts);
        hand_prompt(agent.as_mut(), run, Prompt { text, messages })
    }

    fn work(&mut self) -> Ending {
        // What came in one read with `start`.
        self.take_frames();
        loop {
            let now = clock::now();
            self.run.do_due(now);
            if let Some(bridge) = &mut self.bridge {
                bridge.do_due(&mut self.run, now);
            }
            if let Some(ending) = self.overdue(now) {
                return ending;
            }
            if let Some(failure) = self.over_limit(now) {
                return self.done(Box::new(failure.into_result()));
            }
            // Before the agent is asked, so that "full" means that the reader is slow, and after
            // it, so that what it said is on its way before we wait.
            if self.run.link.flush().is_err() {
                return UNREAD;
            }
            let mut timeout = self.deadline(now);
            if !self.run.link.is_full() && !self.agent.is_frozen() {
                match self.agent.advance(&mut self.run, now) {
                    Advance::Waits(until) => timeout = timeout.into_iter().chain(until).min(),
                    Advance::Again => timeout = Some(now),
                    Advance::Ready => {
                        if let Err(failure) = self.greet() {
                            return Ending::failed(failure);
                        }
                        continue;
                    }
                    Advance::TurnEnded => {
                        if let Err(failure) = self.turn_ended() {
                            return Ending::failed(failure);
                        }
                        continue;
                    }
                    Advance::Done(result) => {
                        let result = self.run.explained(*result);
                        let result = match &self.bridge {
                            Some(bridge) => bridge.judge(result),
                            None => result,
                        };
                        return self.done(Box::new(result));
                    }
                    Advance::Leaves(code) => return Ending::Leaves(code),
                }
                if self.run.link.flush().is_err() {
                    return UNREAD;
                }
            }
            match self.wait_and_take(timeout) {
                Ok(None) => {}
                Ok(Some(ending)) => return ending,
                Err(error) => {
                    complain(
                        self.run.start.generation.0,
                        &format!("can not wait: {error}"),
                    );
                    return Ending::Abandoned("the pipe failed");
                }
            }
        }
    }

    /// The next moment that the host itself waits for.
    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let lease = (!self.agent.is_frozen()).then_some(self.lease_end);
        let program = self.agent.program().and_then(|program| program.due(now));
        let bridge = self.bridge.as_ref().and_then(Bridge::due);
        [lease, self.kill_at, self.run.due(), program, bridge]
            .into_iter()
            .flatten()
            .min()
    }

    fn overdue(&self, now: Instant) -> Option<Ending> {
        if self.kill_at.is_some_and(|kill_at| now >= kill_at) {
            return Some(Ending::Stopped);
        }
        let silent = now >= self.lease_end && !self.agent.is_frozen();
        silent.then_some(Ending::Abandoned(
            "no command and no ping for longer than the lease",
        ))
    }

    fn over_limit(&mut self, now: Instant) -> Option<Failure> {
        let dead = self.agent.is_frozen();
        (!dead).then(|| self.run.gauge.watch(now)).flatten()
    }

    /// After a turn that ended well: the messages that wait are the next prompt, or it was the last.
    fn turn_ended(&mut self) -> Result<(), Failure> {
        let (agent, run) = (&mut self.agent, &mut self.run);
        run.report(Event::TurnEnded {});
        let stopping = self.kill_at.is_some();
        let messages = if stopping {
            Vec::new()
        } else {
            messages(run, agent.takes_prompts())
        };
        // An answer that no call waits for any more begins a turn, where the agent can be told.
        let told = agent.capabilities().steer != SteerReach::None && !stopping;
        let bridge = self.bridge.as_mut().filter(|_| told);
        let text = bridge.and_then(Bridge::late_answers);
        if messages.is_empty() && text.is_none() {
            agent.drain(run);
            return Ok(());
        }
        hand_prompt(agent.as_mut(), run, Prompt { text, messages })
    }

    /// After a stop only a good result counts: a failure is the stop's doing, not the work's.
    fn done(&self, result: Box<RunResult>) -> Ending {
        match (self.kill_at, result.status) {
            (Some(_), ResultStatus::Failed) => Ending::Stopped,
            (None, _) | (Some(_), ResultStatus::Ok) => Ending::Result(result),
        }
    }

    fn wait_and_take(&mut self, timeout: Option<Instant>) -> io::Result<Option<Ending>> {
        let (link, frozen) = (&self.run.link, self.agent.is_frozen());
        let hold = link.is_full() || frozen;
        let input = if hold { Interest::End } else { Interest::Read };
        let output = link.blocked_output().filter(|_| !frozen);
        let program = self.agent.program().map(|program| program.watched(hold));
        let [out, err, exit, stdin] = program.unwrap_or_default();
        let bridge = self.bridge.as_ref().filter(|_| !hold);
        let watched = [
            Some((link.input(), input)),
            output.map(|fd| (fd, Interest::Write)),
            out.map(|fd| (fd, Interest::Read)),
            err.map(|fd| (fd, Interest::Read)),
            exit.map(|fd| (fd, Interest::Read)),
            stdin.map(|fd| (fd, Interest::Write)),
            bridge.map(|bridge| (bridge.watched(), Interest::Read)),
        ];
        let timeout = timeout.map(|until| until.saturating_duration_since(clock::now()));
        let [input, _output, out, err, exit, stdin, calls] = wait(watched, timeout)?;
        let program = [out, err, exit, stdin];
        if let Some(bridge) = self.bridge.as_mut().filter(|_| calls.usable) {
            bridge.take_in(&mut self.run, clock::now());
        }
        if let Some(program_ready) = self.agent.program() {
            program_ready.take_in(&mut self.run, program, clock::now());
        }
        self.take_input(input, hold)
    }

    fn take_input(&mut self, ready: Ready, hold: bool) -> io::Result<Option<Ending>> {
        const GONE: Ending = Ending::Abandoned("stdin has ended");
        if hold {
            return Ok(ready.ended.then_some(GONE));
        }
        if !ready.usable {
            return Ok(None);
        }
        if self.run.link.read(&mut self.run.scratch)? == Heard::End {
            return Ok(Some(GONE));
        }
        self.take_frames();
        Ok(None)
    }

    fn take_frames(&mut self) {
        while let Some(frame) = self.run.link.next_frame() {
            self.take_frame(frame);
        }
    }

    fn take_frame(&mut self, frame: Frame) {
        match frame {
            Frame::Line(line) => self.take_line(&line),
            Frame::Blank => self.bad_line("a blank line"),
            Frame::TooLong { seen } => {
                self.bad_line(&format!(
                    "a line of more than {seen} bytes (limit {LINE_MAX})"
                ));
            }
        }
    }

    fn bad_line(&mut self, what: &str) {
        self.bad_lines += 1;
        if self.bad_lines <= BAD_LINES_MAX {
            self.run.notice(&format!("stdin brought {what}"));
        }
    }

    fn take_line(&mut self, line: &[u8]) {
        match rpc::read(line) {
            Err(error) => self.bad_line(&format!("no message: {error}")),
            Ok(Incoming::Request { id, method, .. }) => self.take_request(id, &method),
            Ok(Incoming::Answer { id, outcome }) if Bridge::asked(id) => {
                if let Some(bridge) = &mut self.bridge {
                    bridge.answered(&mut self.run, id, outcome);
                }
            }
            Ok(Incoming::Answer { id, outcome }) => {
                let outcome = outcome.and_then(|value| {
                    let asked: Result<protocol::report::Asked, _> =
                        serde_json::from_str(value.get());
                    asked.map(|asked| asked.question).map_err(|error| RpcError {
                        code: ERROR_BAD_PARAMS,
                        message: error.to_string(),
                    })
                });
                self.agent.asked(&mut self.run, id, outcome);
            }
            Ok(Incoming::Notification { method, .. }) => match serde_json::from_slice(line) {
                Ok(command) => self.obey(command),
                Err(error) => self.bad_line(&format!("no command `{method}`: {error}")),
            },
        }
    }

    fn take_request(&mut self, id: u64, method: &str) {
        if method != "ping" {
            return self.run.send(unknown_method(id, method));
        }
        self.renew_lease();
        let program = self.agent.program().and_then(|program| program.unreaped());
        process::reap_strays(program);
        let pong = Pong {
            output_bytes: self.run.logs.printed(),
            family: self.run.gauge.sample(),
        };
        self.run.send(rpc::answer(id, pong));
    }

    fn obey(&mut self, command: Command) {
        self.renew_lease();
        let (agent, run) = (&mut self.agent, &mut self.run);
        match command {
            Command::Start(_) => self.bad_line("a second `start`"),
            // What takes no prompt may still read its mailbox.
            Command::Deliver(message) if !agent.takes_prompts() && self.bridge.is_none() => {
                let id = message.id;
                run.notice(&format!(
                    "message {id} can not go in: the command takes no prompt"
                ));
            }
            Command::Deliver(message) => {
                run.deliver(message);
                agent.steer(run);
            }
            Command::Answer(answer) => {
                let bridge = self.bridge.as_mut();
                if !bridge.is_some_and(|bridge| bridge.takes(run, &answer)) {
                    agent.answer(run, answer);
                }
            }
            Command::Interrupt {} => agent.interrupt(run),
            Command::Stop(stop) => {
                if agent.heeds_stop() {
                    let kill_at = clock::after(clock::now(), stop.grace_ms);
                    // A second stop may only shorten the grace.
                    self.kill_at = Some(self.kill_at.map_or(kill_at, |at| at.min(kill_at)));
                    agent.stop(run);
                }
            }
        }
    }

    /// Kills what is left of the family and takes in what it printed.
    fn clear_away(&mut self) -> Sweep {
        let sweep = process::kill_family();
        if let Some(program) = self.agent.program() {
            program.take_rest(&mut self.run);
        }
        if sweep.killed > 0 && self.kill_at.is_none() {
            self.run.notice(&format!(
                "processes left at the end and killed: {}",
                sweep.killed
            ));
        }
        if !sweep.left.is_empty() {
            let text = format!("processes can not be killed: {:?}", sweep.left);
            complain(self.run.start.generation.0, &text);
            self.run.notice(&text);
        }
        sweep
    }

    fn renew_lease(&mut self) {
        self.lease_end = clock::after(clock::now(), self.run.start.lease_ms);
    }
}

/// The answer to a request that this host does not know.
pub(crate) fn unknown_method(id: u64, method: &str) -> Result<Vec<u8>, serde_json::Error> {
    let method = protocol::report::excerpt(method, 80);
    let message = format!("unknown method `{method}`");
    rpc::refusal(
        id,
        &RpcError {
            code: ERROR_UNKNOWN_METHOD,
            message,
        },
    )
}

/// Said all the same by a run whose agent never was ready, so that every result comes after a
/// `started`.
fn not_started(run: &mut Run) {
    run.report(Event::Started(Started {
        capabilities: agent::NONE,
        session: None,
    }));
}

/// All messages that wait, injected; none for an adapter that takes none.
fn messages(run: &mut Run, takes_prompts: bool) -> Vec<Message> {
    if !takes_prompts {
        return Vec::new();
    }
    std::iter::from_fn(|| run.inject_next(Moment::Prompt)).collect()
}

fn hand_prompt(agent: &mut dyn Agent, run: &mut Run, prompt: Prompt) -> Result<(), Failure> {
    let says_something = prompt.text.is_some() || !prompt.messages.is_empty();
    agent.prompt(run, prompt)?;
    if says_something {
        run.report(Event::PromptSent {});
    }
    Ok(())
}

/// Ends a run whose tree is gone: its result, then the pipe.
fn end(run: &mut Run, lease_end: Instant, ending: Ending, sweep: &Sweep) -> u8 {
    let generation = run.start.generation.0;
    let code = match ending {
        Ending::Result(result) => match run.finish(*result) {
            Ok(()) => EXIT_OK,
            Err(failure) => {
                complain(generation, &failure.text);
                EXIT_NOT_DURABLE
            }
        },
        Ending::Stopped => EXIT_OK,
        Ending::Leaves(code) => code,
        Ending::Abandoned(why) => {
            complain(generation, why);
            run.close();
            return if sweep.left.is_empty() {
                run.mark_cleared();
                EXIT_OK
            } else {
                EXIT_SURVIVORS
            };
        }
    };
    run.close();
    hand_over(&mut run.link, lease_end);
    if sweep.left.is_empty() {
        code
    } else {
        EXIT_SURVIVORS
    }
}

/// Writes what waits for the supervisor, as long as it is there and its lease lasts.
fn hand_over(link: &mut Link, lease_end: Instant) {
    while link.flush().is_ok() && link.pending() > 0 {
        let timeout = lease_end.saturating_duration_since(clock::now());
        let watched = [
            Some((link.input(), Interest::End)),
            link.blocked_output().map(|fd| (fd, Interest::Write)),
        ];
        match wait(watched, Some(timeout)) {
            Ok([input, output]) if !input.ended && output.usable => {}
            Ok(_) | Err(_) => return,
        }
    }
}
