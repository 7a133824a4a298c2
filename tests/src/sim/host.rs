//! A host as the world knows it: a process with a script, which may be honest or not.

use std::collections::VecDeque;

use protocol::class::Class;
use protocol::command::{Pong, RunKind};
use protocol::ids::{Generation, MessageId, QuestionId};
use protocol::report::{
    Capabilities, Context, Event, Progress, RateLimited, Receipt, ResultStatus, RunResult, Said,
    Started, SteerReach, Tool, Usage,
};
use supervisor_core::facts::Run;
use supervisor_core::identity::Exit;
use supervisor_core::input::WireFault;
use supervisor_core::plan::{RepoIx, TaskIx};
use supervisor_core::step::Purpose;

use super::jobs::Job;
use super::rng::Rng;
use super::swarm::{Fault, Swarm};

/// How long git work and hooks may take: their own hosts end them then, ms.
const OWN_LIMIT: u64 = 1_800_000;

/// Names a process of the story; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pid(pub(super) u32);

/// What a host does next.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Reports.
    Say(Event),
    /// Reports, naming another generation.
    Claim(Generation, Event),
    /// Says something that is not the protocol, so often.
    Break(WireFault, u32),
    /// Asks the operator and waits for the answer.
    Ask,
    /// Takes a message: makes it durable as injected, hands it to the agent, says so.
    Inject(MessageId),
    /// Changes something in the worktree of its task.
    Change,
    /// Does its job, or half of it, and goes on like this.
    Perform(After),
    /// Makes its result durable.
    Write(Box<RunResult>),
    /// Does nothing any more, but for answering pings.
    FallSilent,
    /// Does nothing any more and answers no ping.
    Hang,
    /// Does nothing new any more, but lives.
    Stand,
    /// Ends.
    End(Exit),
}

/// What a host does once it has done its job.
#[derive(Debug, Clone, Copy)]
pub(super) enum After {
    /// Writes its result, says it and ends; or says another one as well.
    Says { twice: bool },
    /// Writes its result, says it and does not end.
    Lingers,
    /// Writes its result and ends.
    Unsaid(Exit),
    /// Ends.
    Unwritten(Exit),
    /// Ends in the middle of the job.
    Half(Exit),
    /// Says that it failed.
    SaysFailed,
}

/// How far a host answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Works: each pong shows more output.
    Works,
    /// Each pong shows more CPU time, nothing else.
    Burns,
    /// Each pong shows the same.
    Silent,
    /// No pong.
    Hung,
}

impl Pulse {
    /// Whether the agent does anything at all.
    pub(super) fn is_dead(self) -> bool {
        match self {
            Pulse::Silent | Pulse::Hung => true,
            Pulse::Works | Pulse::Burns => false,
        }
    }
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) generation: Generation,
    pub(super) task: TaskIx,
    pub(super) kind: RunKind,
    /// Where it works: one host at a time.
    pub(super) place: Place,
    /// What it does, once it is started.
    pub(super) job: Job,
    /// It has been at its job, whatever came of it: no host does it a second time.
    pub(super) did_job: bool,
    /// The supervisor at the other end of its pipes.
    pub(super) owner: u64,
    /// Its process exists.
    pub(super) alive: bool,
    /// `start` has come.
    pub(super) started: bool,
    /// Nothing but a kill ends it.
    pub(super) deaf: bool,
    /// It was told to stop.
    pub(super) stopping: bool,
    pub(super) pulse: Pulse,
    pub(super) pong: Pong,
    pub(super) usage: Usage,
    /// What it will do, with the wait before each.
    pub(super) script: VecDeque<(u64, Step)>,
    /// A step is on its way.
    pub(super) stepping: bool,
    /// It waits for the answer to this question; `None` inside: for the question's id.
    pub(super) asks: Option<Option<QuestionId>>,
    /// When the last thing it said arrives: its pipe keeps the order.
    pub(super) pipe: u64,
}

impl Host {
    /// Whether there is something to be done besides saying a result.
    pub(super) fn has_job(&self) -> bool {
        !matches!(self.job, Job::None | Job::Work)
    }
}

/// Where a host works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// On a task.
    Task(TaskIx),
    /// On the merges of a repository.
    Merges(RepoIx),
    /// On the comments of a task.
    Comments(TaskIx),
}

impl Place {
    pub(super) fn of(run: &Run) -> Place {
        match run.purpose {
            Purpose::Merge(repo, _) => Place::Merges(repo),
            Purpose::Step(_) | Purpose::Clean(_) => Place::Task(run.task),
            Purpose::Comment(_) => Place::Comments(run.task),
        }
    }
}

/// The result of an agent or of verify commands.
pub(super) fn result(rng: &mut Rng, class: Option<Class>, wall: i64, usage: Usage) -> RunResult {
    let limited = class == Some(Class::UsageLimit) && rng.chance(600);
    let reset = wall + i64::try_from(rng.range(1000, 7_200_000)).unwrap_or(0);
    RunResult {
        status: if class.is_some() {
            ResultStatus::Failed
        } else {
            ResultStatus::Ok
        },
        class,
        summary: if rng.chance(300) {
            "as asked".to_owned()
        } else {
            String::new()
        },
        exit_code: class.is_none().then_some(0),
        signal: None,
        reset_at_ms: limited.then_some(reset),
        session: rng.chance(500).then(|| format!("s{}", rng.below(100))),
        usage,
        family: None,
        evidence: String::new(),
        artifacts: Vec::new(),
        verdict: None,
        git: None,
    }
}

pub(super) fn started(rng: &mut Rng) -> Event {
    Event::Started(Started {
        capabilities: Capabilities {
            steer: rng.pick(&[
                SteerReach::None,
                SteerReach::Boundary,
                SteerReach::Interrupt,
            ]),
            receipt: rng.pick(&[Receipt::Injected, Receipt::Seen]),
            interrupt: rng.chance(500),
            resume: rng.chance(500),
            questions: true,
            usage: true,
            cost: rng.chance(500),
        },
        session: rng.chance(600).then(|| format!("s{}", rng.below(100))),
    })
}

fn said(text: &str) -> Said {
    Said {
        text: text.to_owned(),
    }
}

/// Something that an agent reports while it works.
pub(super) fn activity(rng: &mut Rng, usage: &mut Usage) -> Event {
    let tool = Tool {
        name: "edit".to_owned(),
        detail: "src/a.rs".to_owned(),
        ok: None,
    };
    match rng.below(16) {
        0 | 1 => Event::AssistantMessage(said("thinking about it")),
        2 | 3 => Event::ToolCall(tool),
        4 => Event::ToolResult(Tool {
            ok: Some(rng.chance(800)),
            ..tool
        }),
        5..=7 => {
            usage.turns += 1;
            usage.tokens += rng.range(10, 2000);
            usage.cost_micros += rng.range(0, 5000);
            Event::Usage(*usage)
        }
        8 => Event::Context(Context {
            used: rng.below(200_000),
            window: 200_000,
        }),
        9 => Event::RateLimited(RateLimited {
            reset_at_ms: None,
            detail: "slow down".to_owned(),
        }),
        10 => Event::Retry(said("again")),
        11 => Event::Compaction(said("compacting")),
        12 => Event::Progress(Progress {
            text: "half".to_owned(),
            percent: Some(50),
        }),
        13 => Event::Escalation(said("look at this")),
        14 => Event::Notice(said("odd")),
        _ => Event::TurnEnded {},
    }
}

/// Classes that an agent's result may name.
const SAID: &[Class] = &[
    Class::AgentFailed,
    Class::AgentFailed,
    Class::Crash,
    Class::Oom,
    Class::NoResult,
    Class::Leftover,
    Class::NoChange,
    Class::Rejected,
    Class::Overflow,
    Class::UsageLimit,
    Class::UsageLimit,
    Class::Overload,
    Class::Network,
    Class::Auth,
    Class::Billing,
    Class::ModelMissing,
    Class::Refused,
    Class::SetupFailed,
    Class::Environment,
    Class::Disk,
    // Not for an agent to say; what the operator alone does must not be believed of it.
    Class::Cancelled,
];

/// Those of them that are the account's.
const ACCOUNTS: &[Class] = &[
    Class::UsageLimit,
    Class::UsageLimit,
    Class::Overload,
    Class::Network,
    Class::Auth,
    Class::Billing,
];

/// What a run's script is drawn from.
pub(super) struct Draw<'a> {
    pub(super) rng: &'a mut Rng,
    pub(super) swarm: &'a Swarm,
    pub(super) wall: i64,
    pub(super) generation: Generation,
    pub(super) purpose: Purpose,
    pub(super) job: Job,
    /// Faults that the script holds.
    pub(super) faults: Vec<Fault>,
    usage: Usage,
    script: VecDeque<(u64, Step)>,
}

impl<'a> Draw<'a> {
    pub(super) fn new(
        rng: &'a mut Rng,
        swarm: &'a Swarm,
        wall: i64,
        generation: Generation,
        purpose: Purpose,
        job: Job,
    ) -> Draw<'a> {
        let (faults, script) = (Vec::new(), VecDeque::new());
        Draw {
            rng,
            swarm,
            wall,
            generation,
            purpose,
            job,
            faults,
            usage: Usage::default(),
            script,
        }
    }

    fn then(&mut self, step: Step) {
        let wait = self.rng.skewed(self.swarm.pace * 4);
        self.script.push_back((wait, step));
    }

    fn say(&mut self, event: Event) {
        self.then(Step::Say(event));
    }

    fn fault(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// The script of a run that was started with these messages.
    pub(super) fn script(mut self, messages: &[MessageId]) -> (VecDeque<(u64, Step)>, Vec<Fault>) {
        if !self.rng.chance(20) {
            let started = started(self.rng);
            self.say(started);
        }
        for id in messages {
            self.message(*id);
        }
        let works = self.purpose.kind() == RunKind::Agent;
        if works {
            self.say(Event::PromptSent {});
        }
        let chatty = if self.rng.chance(self.swarm.accounts) {
            1
        } else {
            7
        };
        // Git work and hooks are quick and say little.
        let chatty = if self.is_talker() { chatty } else { 1 };
        for _ in 0..self.rng.below(chatty) {
            let event = activity(self.rng, &mut self.usage);
            self.say(event);
            self.maybe_lie();
            self.change(300);
        }
        self.change(700);
        if works && self.rng.chance(150) {
            self.then(Step::Ask);
        }
        if self.rng.chance(self.swarm.bad_runs) {
            self.bad_end()
        } else {
            self.good_end()
        }
        (self.script, self.faults)
    }

    fn is_talker(&self) -> bool {
        self.purpose.is_agent() || self.purpose.kind() == RunKind::Verify
    }

    fn change(&mut self, permille: u64) {
        if matches!(self.job, Job::Work) && self.rng.chance(permille) {
            self.then(Step::Change);
        }
    }

    /// Whether there is something to be done besides saying a result.
    fn has_job(&self) -> bool {
        !matches!(self.job, Job::None | Job::Work)
    }

    fn message(&mut self, id: MessageId) {
        if self.rng.chance(self.swarm.lies / 4) {
            self.fault(Fault::MessageIgnored);
            return;
        }
        self.then(Step::Inject(id));
    }

    fn maybe_lie(&mut self) {
        if !self.rng.chance(self.swarm.lies / 3) {
            return;
        }
        match self.rng.below(8) {
            0..=2 => {
                self.fault(Fault::OldGeneration);
                let lie = result(self.rng, None, self.wall, self.usage);
                let older = Generation(self.rng.below(self.generation.0));
                self.then(Step::Claim(older, Event::Result(Box::new(lie))));
            }
            3 => {
                self.fault(Fault::Garbage);
                let times = self.times();
                self.then(Step::Break(WireFault::Garbage, times));
            }
            4 => {
                self.fault(Fault::Blank);
                let times = self.times();
                self.then(Step::Break(WireFault::Blank, times));
            }
            5 => {
                self.fault(Fault::TooLong);
                self.then(Step::Break(WireFault::TooLong, 1));
            }
            6 => {
                let again = started(self.rng);
                self.say(again);
            }
            _ => {
                self.fault(Fault::SeenUnread);
                let id = MessageId(self.rng.range(1, 20));
                self.say(Event::MessageSeen { id });
            }
        }
    }

    /// Mostly below what a wire may be broken by, sometimes above.
    fn times(&mut self) -> u32 {
        u32::try_from(self.rng.skewed(200)).unwrap_or(1)
    }

    fn good_end(&mut self) {
        let lies = self.rng.chance(self.swarm.lies / 3);
        if self.has_job() {
            if lies {
                self.fault(Fault::SecondResult);
            }
            return self.then(Step::Perform(After::Says { twice: lies }));
        }
        let done = result(self.rng, None, self.wall, self.usage);
        self.write(done.clone());
        self.say(Event::Result(Box::new(done)));
        if lies {
            self.fault(Fault::SecondResult);
            let other = result(self.rng, Some(Class::AgentFailed), self.wall, self.usage);
            self.say(Event::Result(Box::new(other)));
        }
        self.then(Step::End(Exit::Code(0)));
    }

    fn write(&mut self, result: RunResult) {
        self.then(Step::Write(Box::new(result)));
    }

    fn failed_end(&mut self) {
        let class = if self.purpose.is_agent() {
            let account = self.rng.chance(self.swarm.accounts);
            self.rng.pick(if account { ACCOUNTS } else { SAID })
        } else {
            self.rng.pick(match self.purpose.kind() {
                RunKind::Verify => &[Class::VerifyFailed, Class::VerifyFailed, Class::Environment],
                RunKind::Agent
                | RunKind::Review
                | RunKind::Merge
                | RunKind::Hook
                | RunKind::Git => &[Class::SetupFailed, Class::Environment, Class::Network],
            })
        };
        let failed = result(self.rng, Some(class), self.wall, self.usage);
        self.write(failed.clone());
        self.say(Event::Result(Box::new(failed)));
        self.then(Step::End(Exit::Code(0)));
    }

    fn bad_end(&mut self) {
        let accounts = self.rng.chance(self.swarm.accounts / 2);
        if self.has_job() && self.rng.chance(500) {
            return self.bad_job();
        }
        match if accounts { 0 } else { self.rng.below(13) } {
            0..=4 => self.failed_end(),
            5 => self.end(Fault::EndsWithoutResult, Exit::Code(0)),
            6 => {
                let exit = self
                    .rng
                    .pick(&[Exit::Signal(11), Exit::Signal(15), Exit::Code(2)]);
                self.end(Fault::Crashes, exit);
            }
            7 => self.end(Fault::KilledHost, Exit::Signal(9)),
            8 if self.has_job() => {
                self.fault(Fault::DiesBeforeReport);
                let exit = self.rng.pick(&[Exit::Signal(9), Exit::Code(0)]);
                self.then(Step::Perform(After::Unsaid(exit)));
            }
            8 => {
                let done = result(self.rng, None, self.wall, self.usage);
                self.write(done);
                let exit = self.rng.pick(&[Exit::Signal(9), Exit::Code(0)]);
                self.end(Fault::DiesBeforeReport, exit);
            }
            9 | 10 | 12 if !self.is_talker() => self.own_limit(),
            9 => {
                let hangs = self.rng.chance(400);
                self.fault(if hangs { Fault::Hangs } else { Fault::Silent });
                self.then(if hangs { Step::Hang } else { Step::FallSilent });
            }
            10 => {
                self.fault(Fault::Stands);
                self.then(Step::Stand);
            }
            11 if self.has_job() => {
                self.fault(Fault::Lingers);
                self.then(Step::Perform(After::Lingers));
            }
            11 => {
                let done = result(self.rng, None, self.wall, self.usage);
                self.write(done.clone());
                self.say(Event::Result(Box::new(done)));
                self.end(Fault::Lingers, Exit::Code(0));
                if let Some((wait, _)) = self.script.back_mut() {
                    *wait += 600_000;
                }
            }
            _ => {
                self.fault(Fault::NeverEnds);
                for _ in 0..200 {
                    let event = activity(self.rng, &mut self.usage);
                    let wait = self.rng.range(30_000, 60_000);
                    self.script.push_back((wait, Step::Say(event)));
                }
                self.then(Step::FallSilent);
            }
        }
    }

    /// Where no agent works the host itself keeps a limit of time, if it still does anything.
    fn own_limit(&mut self) {
        if self.rng.chance(400) {
            self.fault(Fault::Hangs);
            return self.then(Step::Hang);
        }
        self.failed_end();
        if let Some((wait, _)) = self.script.front_mut() {
            *wait += OWN_LIMIT;
        }
    }

    /// It goes wrong where something is done.
    fn bad_job(&mut self) {
        let exit = self
            .rng
            .pick(&[Exit::Signal(9), Exit::Signal(11), Exit::Code(2)]);
        let (fault, after) = match self.rng.below(4) {
            0 => (Fault::HalfDone, After::Half(exit)),
            1 => (Fault::DoneUnheard, After::Unwritten(exit)),
            2 => (Fault::DoneSaidFailed, After::SaysFailed),
            // Of commands and agents that all is well is all there is to say.
            _ if self.is_talker() => return self.failed_end(),
            _ => {
                self.fault(Fault::NothingSaid);
                let done = result(self.rng, None, self.wall, self.usage);
                self.write(done.clone());
                self.say(Event::Result(Box::new(done)));
                return self.then(Step::End(Exit::Code(0)));
            }
        };
        self.fault(fault);
        self.then(Step::Perform(after));
    }

    fn end(&mut self, fault: Fault, exit: Exit) {
        self.fault(fault);
        self.then(Step::End(exit));
    }
}
