//! Everything that can happen to a batch, past tense, closed.

use std::sync::Arc;
use std::time::Duration;

use protocol::class::Class;
use protocol::command::{Pong, SteerMode};
use protocol::ids::{Generation, MessageId, QuestionId};
use protocol::report::{Event, RunResult};

use crate::containment::{Cleared, Containment};
use crate::identity::{Exit, Identity};
use crate::plan::{Plan, RetryMode, TaskIx};
use crate::reconcile::RunFacts;
use crate::time::Wall;

/// Names the one who waits for an answer; the driver's own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyId(pub u64);

/// One fact that reached the core.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// A new batch with this plan; only as the first input of a batch without records.
    Created(Box<Created>),
    /// This supervisor took the batch over (also right after `Created`). Hosts of earlier terms
    /// have been waited for; what was found of each run that the state holds as live is in `runs`.
    Recovered {
        /// This supervisor.
        supervisor: Identity,
        /// Its owner, which starts it again; `None`: it runs without one.
        guardian: Option<Identity>,
        /// Its release.
        build: Arc<str>,
        /// One entry for each live run of the state.
        runs: Vec<(Generation, RunFacts)>,
    },
    /// This supervisor goes on in the place of another program of the same process; nothing is lost.
    Replaced {
        /// Its release.
        build: Arc<str>,
        /// Who is told once it is recorded.
        reply: ReplyId,
    },
    /// A host was started for this run and waits behind the gate.
    HostSpawned {
        /// The run.
        generation: Generation,
        /// The host.
        identity: Identity,
        /// What holds its tree together.
        containment: Containment,
    },
    /// A host could not be started.
    SpawnFailed {
        /// The run.
        generation: Generation,
        /// Whether it is this machine that lacks something, or the start that failed.
        class: Class,
        /// Why, for people.
        error: Arc<str>,
    },
    /// The hello went well.
    HostGreeted {
        /// The run.
        generation: Generation,
    },
    /// The hello was refused by one side.
    HelloRefused {
        /// The run.
        generation: Generation,
        /// Both versions, for people.
        error: Arc<str>,
    },
    /// What `start` needs could not be made (template, script, working folder).
    StartFailed {
        /// The run.
        generation: Generation,
        /// Why, for people.
        error: Arc<str>,
    },
    /// A host reported.
    HostReported {
        /// The run whose pipe it came through.
        generation: Generation,
        /// The generation that the report names.
        claimed: Generation,
        /// What happened.
        event: Event,
    },
    /// A host asks the operator.
    HostAsked {
        /// The run.
        generation: Generation,
        /// The question.
        text: Arc<str>,
        /// Answers to choose from.
        options: Vec<Arc<str>>,
        /// Where the question's id goes.
        reply: ReplyId,
    },
    /// A host hands on a message of its agent to another task.
    HostSent {
        /// The run.
        generation: Generation,
        /// For this task.
        to: TaskIx,
        /// The text, at most [`crate::mailbox::TEXT_MAX`] bytes.
        text: Arc<str>,
        /// Where the message's id goes.
        reply: ReplyId,
    },
    /// A host answered a ping.
    HostPonged {
        /// The run.
        generation: Generation,
        /// Signs of life.
        pong: Pong,
    },
    /// A host said something that is not the protocol.
    WireFault {
        /// The run.
        generation: Generation,
        /// What.
        fault: WireFault,
    },
    /// A host is gone and reaped; its files have been read.
    HostExited {
        /// The run.
        generation: Generation,
        /// How.
        exit: Exit,
        /// The durable result in its `exit.json`, where there is one.
        durable: Option<Box<RunResult>>,
        /// Messages that its file names as injected.
        injected: Vec<MessageId>,
        /// What is known of its tree now.
        cleared: Cleared,
        /// What says that the kernel killed it for want of memory, for people.
        oom: Option<Arc<str>>,
    },
    /// Time went by: fire what is due.
    Tick,
    /// The operator wants something.
    Operator {
        /// Where the answer goes.
        reply: ReplyId,
        /// What.
        command: OperatorCommand,
    },
    /// The journal can not be written; nothing was lost yet.
    DiskFailed,
    /// The journal can be written again.
    DiskRecovered,
}

/// A new batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// Its id.
    pub id: protocol::ids::BatchId,
    /// Seed of every random choice.
    pub seed: u64,
    /// Its plan.
    pub plan: Plan,
    /// Only these tasks (and nothing else) are worked on; empty: all.
    pub only: Vec<TaskIx>,
}

/// Something on the wire that is not the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireFault {
    /// A blank line.
    Blank,
    /// A line that is not JSON-RPC, or a message of an unknown kind or with wrong fields.
    Garbage,
    /// A line over the limit.
    TooLong,
}

/// What an operator may want.
#[derive(Debug, Clone, PartialEq)]
pub enum OperatorCommand {
    /// A message to tasks.
    Steer {
        /// The tasks.
        tasks: Vec<TaskIx>,
        /// When it goes in.
        mode: SteerMode,
        /// The text, at most [`crate::mailbox::TEXT_MAX`] bytes.
        text: Arc<str>,
        /// Useless after this.
        expires: Option<Wall>,
        /// The rung that the operator will wait for.
        wait: Option<protocol::report::Receipt>,
    },
    /// An answer to a question.
    Answer {
        /// The question.
        question: QuestionId,
        /// The answer.
        text: Arc<str>,
    },
    /// End the attempts of these tasks by force; the tasks are paused.
    Kill {
        /// The tasks.
        tasks: Vec<TaskIx>,
        /// Time from asking to force.
        grace: Duration,
    },
    /// Hold tasks, or with `None` the whole batch.
    Pause {
        /// The tasks.
        tasks: Option<Vec<TaskIx>>,
        /// Whether what runs is stopped now or may finish.
        now: bool,
    },
    /// Let tasks, or with `None` the whole batch and its stopped accounts, go on.
    Resume {
        /// The tasks.
        tasks: Option<Vec<TaskIx>>,
    },
    /// Rule that tasks, or with `None` all unfinished ones, go no further.
    Cancel {
        /// The tasks.
        tasks: Option<Vec<TaskIx>>,
    },
    /// Try terminal tasks again.
    Retry {
        /// The tasks.
        tasks: Vec<TaskIx>,
        /// How their next attempt begins.
        mode: RetryMode,
        /// Attempts at most from now on.
        attempts: Option<u32>,
        /// A message for the next attempt.
        note: Option<Arc<str>>,
    },
    /// Pass tasks over.
    Skip {
        /// The tasks.
        tasks: Vec<TaskIx>,
        /// Dependents see them as done.
        as_done: bool,
    },
    /// Remove the worktrees of ended tasks, or with `None` of all that are over; what is in them is
    /// put on salvage refs before.
    Clean {
        /// The tasks.
        tasks: Option<Vec<TaskIx>>,
    },
    /// Remove what can be built again from the worktrees of ended tasks; all else in them stays.
    CleanBuildOutput {
        /// The tasks.
        tasks: Vec<TaskIx>,
    },
    /// Take another reading of the batch file: new tasks and those that are not done take it, done
    /// ones stay. What runs keeps what it began with until its attempt ends.
    Revise(Box<Plan>),
    /// End the supervisor.
    Stop(StopStage),
    /// Change the number of lanes, live.
    SetConcurrency(u32),
}

/// How hard the supervisor is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopStage {
    /// Nothing new starts; what runs may finish.
    Drain,
    /// What runs is stopped with grace.
    Stop,
    /// What runs is killed at once.
    Kill,
}
