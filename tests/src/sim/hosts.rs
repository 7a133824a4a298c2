//! What hosts do: with each effect that reaches them, and by themselves.

use std::collections::VecDeque;

use protocol::class::Class;
use protocol::command::Pong;
use protocol::ids::{Generation, MessageId, QuestionId};
use protocol::report::{Event, RunResult, Usage};
use supervisor_core::effect::{Answer, Effect};
use supervisor_core::identity::Exit;
use supervisor_core::input::{Input, ReplyId};

use super::host::{After, Draw, Host, Pid, Place, Pulse, Step, activity, result, started};
use super::jobs::{self, Job};
use super::swarm::Fault;
use super::world::{Asker, Pending, Told, World, broken};

impl World {
    /// Carries an effect out.
    pub(super) fn act(&mut self, effect: Effect) -> Told {
        match effect {
            Effect::SpawnHost { generation } => self.spawn(generation),
            Effect::StartRun {
                generation,
                messages,
            } => {
                self.start_run(generation, &messages);
                Ok(())
            }
            Effect::Deliver { generation, id, .. } => {
                self.deliver(generation, id);
                Ok(())
            }
            Effect::AnswerHost {
                generation,
                question,
                ..
            } => {
                self.answer(generation, question);
                Ok(())
            }
            Effect::StopHost { generation, grace } => {
                let grace = u64::try_from(grace.as_millis()).unwrap_or(0);
                self.stop(generation, grace);
                Ok(())
            }
            Effect::KillHost { generation } => {
                self.kill(generation);
                Ok(())
            }
            Effect::Ping { generation } => {
                self.ping(generation);
                Ok(())
            }
            Effect::Reply { reply, answer } => self.replied(reply, answer),
            Effect::Finish { ending } => self.finished(ending),
        }
    }

    /// The live host of a run whose pipes this supervisor holds.
    fn host_of(&mut self, generation: Generation) -> Option<Pid> {
        let owner = self.owner;
        let mut hosts = self.hosts.iter();
        let found = hosts
            .find(|(_, host)| host.generation == generation && host.alive && host.owner == owner);
        found.map(|(pid, _)| *pid)
    }

    fn spawn(&mut self, generation: Generation) -> Told {
        let Some(run) = self
            .supervisor
            .as_ref()
            .and_then(|it| it.core.facts()?.runs.get(&generation))
        else {
            // Ruled over while its spawn waited for the disk: the driver finds nothing to spawn.
            return Ok(());
        };
        let (task, kind, place) = (run.task, run.kind(), Place::of(run));
        self.oracle.spawned(generation)?;
        let twin = self
            .hosts
            .values()
            .find(|host| host.alive && host.place == place);
        if let Some(twin) = twin {
            let text = format!(
                "run {generation} of {place:?} beside run {}",
                twin.generation
            );
            return broken("I6 one live host for a task", text);
        }
        let wait = self.rng.range(1, 60);
        if self.rng.chance(self.swarm.spawn / 3) {
            self.met(Fault::SpawnFailed);
            let input = Input::SpawnFailed {
                class: protocol::class::Class::SpawnFailure,
                generation,
                error: "no process left".into(),
            };
            self.later(wait, Pending::Input(self.owner, Box::new(input)));
            return Ok(());
        }
        let number = u32::try_from(self.hosts.len()).unwrap_or(0) + 1;
        let pid = Pid(number);
        self.hosts.insert(
            pid,
            Host {
                generation,
                task,
                kind,
                place,
                job: Job::None,
                did_job: false,
                owner: self.owner,
                alive: true,
                started: false,
                deaf: self.rng.chance(self.swarm.bad_runs / 4),
                stopping: false,
                pulse: Pulse::Works,
                pong: Pong::default(),
                usage: Usage::default(),
                script: VecDeque::new(),
                stepping: false,
                asks: None,
                pipe: 0,
            },
        );
        self.say_hello(pid, generation, wait);
        Ok(())
    }

    fn say_hello(&mut self, pid: Pid, generation: Generation, wait: u64) {
        let identity = self.identity(pid.0 + 100);
        let spawned = Input::HostSpawned {
            generation,
            identity,
            containment: Default::default(),
        };
        let exit = self
            .rng
            .pick(&[Exit::Code(1), Exit::Signal(9), Exit::Code(0)]);
        let bad = self.rng.chance(self.swarm.spawn);
        match if bad { self.rng.below(5) } else { 9 } {
            0 => {
                self.met(Fault::HelloRefused);
                self.arrives(pid, wait, spawned);
                let error = "supervisor speaks 1, agent-host speaks 2".into();
                self.arrives(pid, 10, Input::HelloRefused { generation, error });
            }
            1 => {
                self.met(Fault::NoHello);
                self.arrives(pid, wait, spawned);
            }
            2 => {
                self.met(Fault::EndsBeforeHello);
                self.arrives(pid, wait, spawned);
                self.later(wait + 5, Pending::HostEnds(pid, exit));
            }
            3 => {
                self.met(Fault::EndsBeforeSpawnAnswer);
                self.host_ends(pid, exit);
                self.later(wait * 2, Pending::Input(self.owner, Box::new(spawned)));
            }
            4 => {
                self.met(Fault::TalksAtTheGate);
                self.arrives(pid, wait, spawned);
                let event = started(&mut self.rng);
                self.report(pid, 5, generation, event);
                self.arrives(pid, 10, Input::HostGreeted { generation });
            }
            _ => {
                self.arrives(pid, wait, spawned);
                let hello = self.rng.range(1, 300);
                self.arrives(pid, hello, Input::HostGreeted { generation });
            }
        }
    }

    /// What comes from a host, in the order of its pipe.
    fn arrives(&mut self, pid: Pid, wait: u64, input: Input) {
        let Some(host) = self.hosts.get_mut(&pid) else {
            return;
        };
        host.pipe = host.pipe.max(self.clock.awake) + wait;
        let (at, owner) = (host.pipe, host.owner);
        self.at(at, Pending::Input(owner, Box::new(input)));
    }

    fn report(&mut self, pid: Pid, wait: u64, claimed: Generation, event: Event) {
        let Some(host) = self.hosts.get(&pid) else {
            return;
        };
        let generation = host.generation;
        self.arrives(
            pid,
            wait,
            Input::HostReported {
                generation,
                claimed,
                event,
            },
        );
    }

    fn start_run(&mut self, generation: Generation, messages: &[MessageId]) {
        if self.rng.chance(self.swarm.spawn / 4) {
            self.met(Fault::StartFailed);
            let input = Input::StartFailed {
                generation,
                error: "no such template".into(),
            };
            self.later(2, Pending::Input(self.owner, Box::new(input)));
            return;
        }
        let Some(pid) = self.host_of(generation) else {
            return;
        };
        let facts = self.supervisor.as_ref().and_then(|it| it.core.facts());
        let Some(purpose) = facts.and_then(|it| Some(it.runs.get(&generation)?.purpose)) else {
            return;
        };
        let Some(job) = facts.and_then(|facts| jobs::of(facts, generation)) else {
            let input = Input::StartFailed {
                generation,
                error: "the state does not hold what it needs".into(),
            };
            return self.later(2, Pending::Input(self.owner, Box::new(input)));
        };
        let Some(host) = self.hosts.get_mut(&pid) else {
            return;
        };
        host.started = true;
        host.job = job.clone();
        let wall = self.clock.now().wall.0;
        let draw = Draw::new(&mut self.rng, &self.swarm, wall, generation, purpose, job);
        let (script, faults) = draw.script(messages);
        for fault in faults {
            self.reached.fault(fault);
        }
        if let Some(host) = self.hosts.get_mut(&pid) {
            host.script = script;
        }
        self.next_step(pid);
    }

    fn deliver(&mut self, generation: Generation, id: MessageId) {
        let Some(pid) = self.host_of(generation) else {
            return;
        };
        let ignored = self.rng.chance(self.swarm.lies / 4);
        let wait = self.rng.skewed(self.swarm.pace * 4);
        let Some(host) = self.hosts.get_mut(&pid) else {
            return;
        };
        let done = host
            .script
            .iter()
            .all(|(_, step)| matches!(step, Step::End(_)));
        if ignored || done || !host.started || host.pulse.is_dead() {
            self.met(Fault::MessageIgnored);
            return;
        }
        host.script.push_front((wait, Step::Inject(id)));
        self.next_step(pid);
    }

    fn answer(&mut self, generation: Generation, question: QuestionId) {
        let Some(pid) = self.host_of(generation) else {
            return;
        };
        let Some(host) = self.hosts.get_mut(&pid) else {
            return;
        };
        if host.asks == Some(Some(question)) {
            host.asks = None;
            self.next_step(pid);
        }
    }

    fn stop(&mut self, generation: Generation, grace: u64) {
        let Some(pid) = self.host_of(generation) else {
            return;
        };
        let late = self.rng.chance(300);
        let wait = self.rng.range(0, grace);
        let wall = self.clock.now().wall.0;
        let Some(host) = self.hosts.get_mut(&pid) else {
            return;
        };
        if host.deaf {
            self.met(Fault::IgnoresStop);
            return;
        }
        if std::mem::replace(&mut host.stopping, true) {
            return;
        }
        let has_result = self.files.exits.contains_key(&generation);
        host.script.clear();
        host.asks = None;
        if has_result || !host.started || !late || host.did_job {
            let wait = if host.pulse.is_dead() { grace } else { wait };
            let exit = if has_result {
                Exit::Code(0)
            } else {
                Exit::Signal(15)
            };
            self.later(wait, Pending::HostEnds(pid, exit));
            return;
        }
        let usage = host.usage;
        self.reached.fault(Fault::ResultAfterStop);
        if host.has_job() {
            let says = Step::Perform(After::Says { twice: false });
            host.script.push_back((wait / 2, says));
            return self.next_step(pid);
        }
        let done = result(&mut self.rng, None, wall, usage);
        host.script
            .push_back((wait / 2, Step::Write(Box::new(done.clone()))));
        host.script
            .push_back((5, Step::Say(Event::Result(Box::new(done)))));
        host.script.push_back((5, Step::End(Exit::Code(0))));
        self.next_step(pid);
    }

    fn kill(&mut self, generation: Generation) {
        let Some(pid) = self.host_of(generation) else {
            return;
        };
        if self.rng.chance(self.swarm.bad_runs / 6) {
            // It hangs in the kernel; only a later kill finds it.
            return;
        }
        let wait = self.rng.range(1, 200);
        self.later(wait, Pending::HostEnds(pid, Exit::Signal(9)));
    }

    fn ping(&mut self, generation: Generation) {
        let Some(pid) = self.host_of(generation) else {
            return;
        };
        let Some(host) = self.hosts.get_mut(&pid) else {
            return;
        };
        match host.pulse {
            Pulse::Works => {
                host.pong.output_bytes += 100;
                host.pong.family.cpu_ms += 50;
            }
            Pulse::Burns => host.pong.family.cpu_ms += 900,
            Pulse::Silent => {}
            Pulse::Hung => return,
        }
        let pong = host.pong;
        let wait = self.rng.range(1, 20);
        self.arrives(pid, wait, Input::HostPonged { generation, pong });
    }

    fn replied(&mut self, reply: ReplyId, answer: Answer) -> Told {
        let Some(asker) = self.askers.remove(&reply) else {
            return broken("a reply answers a question once", format!("{reply:?}"));
        };
        match asker {
            Asker::Host(pid) => {
                let Some(host) = self.hosts.get_mut(&pid) else {
                    return Ok(());
                };
                match answer {
                    Answer::Asked(question) if host.asks.is_some() => {
                        host.asks = Some(Some(question))
                    }
                    Answer::Asked(_) => {}
                    Answer::Refused(_) => {
                        host.asks = None;
                        self.next_step(pid);
                    }
                    Answer::Done(_) | Answer::Messages(_) => {
                        return broken("a question is asked or refused", format!("{answer:?}"));
                    }
                }
                Ok(())
            }
            Asker::Operator(command) => self.oracle.told(reply, &command, &answer),
        }
    }

    /// The next step of the script is on its way, unless one is or the host waits for an answer.
    pub(super) fn next_step(&mut self, pid: Pid) {
        let Some(host) = self.hosts.get_mut(&pid) else {
            return;
        };
        if host.stepping || host.asks.is_some() {
            return;
        }
        let Some((wait, _)) = host.script.front() else {
            return;
        };
        host.stepping = true;
        let wait = *wait;
        self.later(wait, Pending::HostStep(pid));
    }

    /// A host takes its next step.
    pub(super) fn host_step(&mut self, pid: Pid) -> Told {
        let Some(host) = self.hosts.get_mut(&pid) else {
            return Ok(());
        };
        host.stepping = false;
        if !host.alive || host.asks.is_some() {
            return Ok(());
        }
        let Some((_, step)) = host.script.pop_front() else {
            return Ok(());
        };
        let generation = host.generation;
        match step {
            Step::Say(event) => {
                if let Event::Usage(usage) = &event {
                    host.usage = *usage;
                }
                self.oracle.said(generation, &event);
                self.report(pid, 1, generation, event);
            }
            Step::Claim(claimed, event) => self.report(pid, 1, claimed, event),
            Step::Break(fault, times) => {
                for _ in 0..times {
                    self.arrives(pid, 0, Input::WireFault { generation, fault });
                }
            }
            Step::Ask => self.host_asks(pid, generation),
            Step::Inject(id) => self.inject(pid, generation, id)?,
            Step::Change => {
                let task = host.task;
                self.git.change(task)?;
            }
            Step::Perform(after) => self.does_job(pid, after)?,
            Step::Write(result) => {
                self.oracle.wrote(generation, &result);
                self.files.exits.entry(generation).or_insert(*result);
            }
            Step::FallSilent => host.pulse = Pulse::Silent,
            Step::Hang => host.pulse = Pulse::Hung,
            Step::Stand => host.pulse = Pulse::Burns,
            Step::End(exit) => self.host_ends(pid, exit),
        }
        self.next_step(pid);
        Ok(())
    }

    /// A host does its job; what it makes of that is the rest of its script.
    fn does_job(&mut self, pid: Pid, after: After) -> Told {
        let wall = self.clock.now().wall.0;
        let Some(host) = self.hosts.get_mut(&pid) else {
            return Ok(());
        };
        host.did_job = true;
        let (job, usage) = (host.job.clone(), host.usage);
        let half = matches!(after, After::Half(_));
        let done = self.git.perform(&job, half, &mut self.rng)?;
        let generation = host.generation;
        self.story.line(self.clock.awake, || {
            format!("run {generation} does {job:?}, half {half}: {done:?}")
        });
        let mut said = result(&mut self.rng, done.class, wall, usage);
        (said.git, said.verdict) = (done.git.map(Box::new), done.verdict);
        let failed = Some(Class::Environment);
        let says = |result: &RunResult| Step::Say(Event::Result(Box::new(result.clone())));
        let other = result(&mut self.rng, failed, wall, usage);
        let writes = Step::Write(Box::new(said.clone()));
        let well = Step::End(Exit::Code(0));
        let steps = match after {
            After::Says { twice: false } => vec![writes, says(&said), well],
            After::Says { twice: true } => vec![writes, says(&said), says(&other), well],
            After::Lingers => vec![writes, says(&said)],
            After::Unsaid(exit) => vec![writes, Step::End(exit)],
            After::Unwritten(exit) | After::Half(exit) => vec![Step::End(exit)],
            After::SaysFailed => {
                let writes = Step::Write(Box::new(other.clone()));
                vec![writes, says(&other), well]
            }
        };
        let waits = |step| (self.rng.skewed(self.swarm.pace), step);
        let mut script: VecDeque<(u64, Step)> = steps.into_iter().map(waits).collect();
        if matches!(after, After::Lingers) {
            script.push_back((600_000, Step::End(Exit::Code(0))));
        }
        if let Some(host) = self.hosts.get_mut(&pid) {
            host.script = script;
        }
        Ok(())
    }

    fn host_asks(&mut self, pid: Pid, generation: Generation) {
        let reply = self.ask(Asker::Host(pid));
        if let Some(host) = self.hosts.get_mut(&pid) {
            host.asks = Some(None);
        }
        let (text, options) = ("may I?".into(), vec!["yes".into(), "no".into()]);
        self.arrives(
            pid,
            1,
            Input::HostAsked {
                generation,
                text,
                options,
                reply,
            },
        );
    }

    fn inject(&mut self, pid: Pid, generation: Generation, id: MessageId) -> Told {
        self.files.injected.entry(generation).or_default().push(id);
        self.oracle.injected(generation, id)?;
        let event = Event::MessageInjected { id };
        self.report(pid, 1, generation, event);
        if self.rng.chance(600) {
            let wait = self.rng.skewed(self.swarm.pace);
            self.report(pid, wait, generation, Event::MessageSeen { id });
        }
        Ok(())
    }

    /// A host's process ends; its supervisor, if it lives, hears of it.
    pub(super) fn host_ends(&mut self, pid: Pid, exit: Exit) {
        let Some(host) = self.hosts.get_mut(&pid) else {
            return;
        };
        if !std::mem::replace(&mut host.alive, false) {
            return;
        }
        let generation = host.generation;
        host.script.clear();
        self.tell(|| format!("host of run {generation} ends: {exit:?}"));
        let durable = self.files.exits.get(&generation).cloned().map(Box::new);
        let injected = self
            .files
            .injected
            .get(&generation)
            .cloned()
            .unwrap_or_default();
        let wait = self.rng.range(0, 30);
        let oom = exit == Exit::Signal(9) && self.rng.chance(300);
        if oom {
            self.met(Fault::OomKilled);
        }
        self.arrives(
            pid,
            wait,
            Input::HostExited {
                generation,
                exit,
                durable,
                injected,
                cleared: supervisor_core::containment::Cleared::CLEAN,
                oom: oom.then(|| "its cgroup counts 1".into()),
            },
        );
        if self.rng.chance(self.swarm.lies / 3) {
            self.met(Fault::WordAfterEnd);
            let mut usage = Usage::default();
            let wait = self.rng.range(1, 120_000);
            let event = activity(&mut self.rng, &mut usage);
            self.report(pid, wait, generation, event);
        }
    }
}
