//! One core, its time, and everything it ever said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::command::Pong;
use protocol::ids::Generation;
use protocol::report::Family;
use supervisor_core::core::{Change, Core, Turn};
use supervisor_core::effect::{Answer, Effect, Ending};
use supervisor_core::facts::{Attempt, Facts, Task};
use supervisor_core::identity::Identity;
use supervisor_core::input::{Input, OperatorCommand, ReplyId};
use supervisor_core::live::CPU_ALIVE_MS;
use supervisor_core::machine::{AccountState, BatchState, RunState, TaskState};
use supervisor_core::plan::TaskIx;
use supervisor_core::reason::{BatchReason, TaskReason};
use supervisor_core::reconcile::RunFacts;
use supervisor_core::record::{Entry, Record};
use supervisor_core::time::{Boot, BootId, Now, Wall};

use super::check::Checks;
use super::plan::PlanBuilder;

/// What hosts say when they are pinged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// The host says nothing at all.
    Hung,
    /// The host answers; its family does nothing.
    Mute,
    /// The family begins processes.
    Forking,
    /// The family uses CPU time.
    Busy,
    /// The agent prints.
    Printing,
}

/// A core with a clock and a memory.
pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) now: Now,
    /// Every record so far.
    pub(crate) journal: Vec<Entry>,
    /// Every effect so far, urgent ones of a turn first.
    pub(crate) effects: Vec<Effect>,
    /// What the last input led to.
    pub(crate) last: Turn,
    /// Every step of a machine so far.
    pub(crate) changes: Vec<Change>,
    pub(crate) pulse: Pulse,
    pub(crate) pongs: u64,
    replies: BTreeMap<ReplyId, Answer>,
    next_reply: u64,
    next_pid: u32,
    seen_effects: usize,
    seen_records: usize,
    checks: Checks,
}

/// 2026-01-01T00:00:00Z, any date will do.
const FIRST_WALL: Wall = Wall(1_767_225_600_000);

impl World {
    /// A batch that was created and whose supervisor has not said a word yet.
    pub(crate) fn created(plan: PlanBuilder) -> Self {
        Self::seeded(plan, 7)
    }

    pub(crate) fn seeded(plan: PlanBuilder, seed: u64) -> Self {
        let mut world = Self::empty();
        world.handle(Input::Created(Box::new(plan.created(seed))));
        world
    }

    pub(crate) fn empty() -> Self {
        Self {
            core: Core::new(),
            now: Now {
                wall: FIRST_WALL,
                boot: Boot(1_000_000),
                boot_id: BootId(1),
            },
            journal: Vec::new(),
            effects: Vec::new(),
            last: Turn::default(),
            changes: Vec::new(),
            pulse: Pulse::Mute,
            pongs: 0,
            replies: BTreeMap::new(),
            next_reply: 1,
            next_pid: 100,
            seen_effects: 0,
            seen_records: 0,
            checks: Checks::default(),
        }
    }

    /// Created, taken over by a first supervisor, and ticked: everything that may start has.
    pub(crate) fn start(plan: PlanBuilder) -> Self {
        let mut world = Self::created(plan);
        world.recover(Vec::new());
        world.tick();
        world
    }

    /// For batches so large that looking at all of it after each input would be the whole test.
    pub(crate) fn without_checks(mut self) -> Self {
        self.checks.off();
        self
    }

    // What happens.

    pub(crate) fn handle(&mut self, input: Input) {
        let told = input.clone();
        let turn = self.core.handle(self.now, input);
        self.checks.after(&self.core, self.now, &told, &turn);
        self.journal.extend(turn.entries.iter().cloned());
        self.effects.extend(turn.urgent.iter().cloned());
        self.effects.extend(turn.effects.iter().cloned());
        self.changes.extend(turn.changes.iter().copied());
        for effect in &turn.effects {
            if let Effect::Reply { reply, answer } = effect {
                let before = self.replies.insert(*reply, answer.clone());
                assert_eq!(before, None, "a command is answered once");
            }
        }
        self.last = turn;
    }

    /// Ticks, and then again as long as something is due at this very moment: soon nothing is.
    pub(crate) fn tick(&mut self) {
        for _ in 0..3 {
            self.handle(Input::Tick);
            if !self.is_due() {
                return;
            }
        }
        panic!(
            "busy loop: {:?} at {:?}",
            self.core.next_deadline(),
            self.now
        );
    }

    fn is_due(&self) -> bool {
        let next = self.core.next_deadline();
        next.boot.is_some_and(|at| at <= self.now.boot)
            || next.wall.is_some_and(|at| at <= self.now.wall)
    }

    /// Time goes by without anybody looking.
    pub(crate) fn skip(&mut self, length: Duration) {
        self.now.boot = self.now.boot + length;
        self.now.wall = self.now.wall + length;
    }

    /// Time goes by, from deadline to deadline, as a driver lives through it.
    pub(crate) fn pass(&mut self, length: Duration) {
        let end = self.now.boot + length;
        for _ in 0..100_000 {
            let next = self.core.next_deadline();
            let wall = next.wall.map(|at| {
                let ahead = u64::try_from(at.0 - self.now.wall.0).unwrap_or(0);
                Boot(self.now.boot.0 + ahead)
            });
            let at = [next.boot, wall].into_iter().flatten().min();
            let Some(at) = at.filter(|at| *at <= end) else {
                self.skip(Duration::from_millis(end.0 - self.now.boot.0));
                return;
            };
            self.skip(Duration::from_millis(at.0.saturating_sub(self.now.boot.0)));
            let before = self.effects.len();
            self.tick();
            self.answer_pings(before);
        }
        panic!(
            "busy loop: {:?} at {:?}",
            self.core.next_deadline(),
            self.now
        );
    }

    fn answer_pings(&mut self, from: usize) {
        if self.pulse == Pulse::Hung {
            return;
        }
        let pinged: Vec<Generation> = self.effects[from..]
            .iter()
            .filter_map(|effect| match effect {
                Effect::Ping { generation } => Some(*generation),
                _ => None,
            })
            .collect();
        for generation in pinged {
            self.pongs += 1;
            let grown = |pulse| if self.pulse == pulse { self.pongs } else { 0 };
            let pong = Pong {
                output_bytes: grown(Pulse::Printing),
                family: Family {
                    cpu_ms: grown(Pulse::Busy) * CPU_ALIVE_MS,
                    begun: grown(Pulse::Forking),
                    ..Family::default()
                },
            };
            self.handle(Input::HostPonged { generation, pong });
        }
    }

    /// An operator's command; answers what the operator is told.
    pub(crate) fn op(&mut self, command: OperatorCommand) -> Answer {
        let reply = self.reply_id();
        self.handle(Input::Operator { reply, command });
        self.answer_to(reply)
            .expect("every command is answered at once")
    }

    pub(crate) fn reply_id(&mut self) -> ReplyId {
        self.next_reply += 1;
        ReplyId(self.next_reply)
    }

    pub(crate) fn answer_to(&self, reply: ReplyId) -> Option<Answer> {
        self.replies.get(&reply).cloned()
    }

    /// The lines of an answer that is `Done`.
    pub(crate) fn op_lines(&mut self, command: OperatorCommand) -> Vec<String> {
        match self.op(command) {
            Answer::Done(lines) => lines.iter().map(|line| line.to_string()).collect(),
            other => panic!("refused or something else: {other:?}"),
        }
    }

    /// The supervisor dies: what it knew of live runs is gone, the journal stays.
    pub(crate) fn crash(&mut self) {
        let facts = self.facts().clone();
        self.core = Core::restore(facts);
        self.checks.crashed();
    }

    /// The state right after the last record that is like this.
    pub(crate) fn at_record(&self, like: impl Fn(&Record) -> bool) -> Facts {
        let at = self.journal.iter().rposition(|entry| like(&entry.record));
        let mut core = Core::new();
        for entry in &self.journal[..=at.expect("such a record")] {
            core.replay(entry).expect("it was applied before");
        }
        core.facts().expect("a batch").clone()
    }

    /// The supervisor dies right after the last record that is like this: nothing later is durable. The
    /// next one finds no host.
    pub(crate) fn crash_at(&mut self, like: impl Fn(&Record) -> bool) {
        let facts = self.at_record(like);
        self.crash_after(usize::try_from(facts.batch.seq).expect("a short journal"));
    }

    /// A supervisor of before decided this last.
    pub(crate) fn inject(&mut self, record: Record) {
        let last = self.journal.last().expect("a batch").clone();
        let seq = last.seq + 1;
        let entry = Entry {
            seq,
            record,
            now: self.now,
            ..last
        };
        self.core.replay(&entry).expect("it follows");
        self.journal.push(entry);
        self.checks.rewound(&self.journal);
    }

    /// The supervisor dies when so many records are durable.
    pub(crate) fn crash_after(&mut self, seq: usize) {
        self.cut(seq);
        let gone = RunFacts {
            process: supervisor_core::reconcile::ProcessFact::Gone,
            result: supervisor_core::reconcile::ResultFact::Absent,
            injected: Vec::new(),
            cleared: supervisor_core::containment::Cleared::CLEAN,
        };
        let runs = self.facts().runs.keys().map(|run| (*run, gone.clone()));
        let runs = runs.collect();
        self.recover(runs);
        self.tick();
    }

    /// The supervisor is dead, and so many records are durable.
    pub(crate) fn cut(&mut self, seq: usize) {
        let mut core = Core::new();
        for entry in &self.journal[..seq] {
            core.replay(entry).expect("it was applied before");
        }
        let facts = core.facts().expect("a batch").clone();
        self.journal.truncate(seq);
        self.seen_records = self.seen_records.min(seq);
        self.checks.rewound(&self.journal);
        self.core = Core::restore(facts);
    }

    /// Another program goes on in the place of this one, in the middle of everything.
    pub(crate) fn replace(&mut self) {
        let facts = self.facts().clone();
        let unrecorded = self.core.unrecorded();
        let mut next = Core::restore(facts);
        next.take_over(unrecorded.clone());
        assert_eq!(next.unrecorded(), unrecorded);
        self.core = next;
    }

    /// The next supervisor is here for clean-ups alone.
    pub(crate) fn confine(&mut self) {
        self.core.confine_to_clean_ups();
    }

    /// A supervisor takes over.
    pub(crate) fn recover(&mut self, runs: Vec<(Generation, RunFacts)>) {
        let supervisor = self.identity();
        self.handle(Input::Recovered {
            supervisor,
            guardian: None,
            build: "0.1.0".into(),
            runs,
        });
    }

    /// Another boot of the machine, that much later by the wall clock.
    pub(crate) fn reboot(&mut self, away: Duration) {
        self.now = Now {
            wall: self.now.wall + away,
            boot: Boot(5_000),
            boot_id: BootId(self.now.boot_id.0 + 1),
        };
    }

    pub(crate) fn identity(&mut self) -> Identity {
        self.next_pid += 1;
        Identity {
            node: "node".into(),
            pid_namespace: 4_026_531_836,
            boot_id: self.now.boot_id,
            pid: self.next_pid,
            start_ticks: self.now.boot.0 / 10,
            pidfs_inode: None,
            session: None,
        }
    }

    // What is so.

    pub(crate) fn facts(&self) -> &Facts {
        self.core.facts().expect("a batch")
    }

    pub(crate) fn ix(&self, name: &str) -> TaskIx {
        let id = name.parse().expect("a task id");
        self.core.index().expect("a batch").ids[&id]
    }

    pub(crate) fn ixs(&self, names: &[&str]) -> Vec<TaskIx> {
        names.iter().map(|name| self.ix(name)).collect()
    }

    pub(crate) fn name(&self, ix: TaskIx) -> String {
        self.facts().tasks[ix.0 as usize].id.to_string()
    }

    pub(crate) fn task(&self, name: &str) -> &Task {
        &self.facts().tasks[self.ix(name).0 as usize]
    }

    pub(crate) fn state(&self, name: &str) -> TaskState {
        self.task(name).state
    }

    pub(crate) fn reason(&self, name: &str) -> TaskReason {
        self.task(name).reason
    }

    /// State and reason, the two that a status line shows.
    pub(crate) fn at(&self, name: &str) -> (TaskState, TaskReason) {
        (self.state(name), self.reason(name))
    }

    pub(crate) fn states(&self, names: &[&str]) -> Vec<TaskState> {
        names.iter().map(|name| self.state(name)).collect()
    }

    pub(crate) fn attempt(&self, name: &str) -> &Attempt {
        self.task(name).attempt.as_ref().expect("an open attempt")
    }

    /// The run that the task's open attempt is at.
    pub(crate) fn run(&self, name: &str) -> Generation {
        self.attempt(name).run
    }

    pub(crate) fn run_state(&self, name: &str) -> RunState {
        self.facts().runs[&self.run(name)].state
    }

    pub(crate) fn batch_at(&self) -> (BatchState, BatchReason) {
        let batch = &self.facts().batch;
        (batch.state, batch.reason)
    }

    pub(crate) fn account(&self) -> AccountState {
        self.facts().accounts[0].state
    }

    /// Tasks with an open attempt, in the order of the plan.
    pub(crate) fn live(&self) -> Vec<String> {
        let live = self.core.index().expect("a batch").live.keys();
        live.map(|ix| self.name(*ix)).collect()
    }

    /// Effects since the last time this was asked.
    pub(crate) fn news(&mut self) -> Vec<Effect> {
        let news = self.effects[self.seen_effects..].to_vec();
        self.seen_effects = self.effects.len();
        news
    }

    /// Records since the last time this was asked.
    pub(crate) fn decided(&mut self) -> Vec<Record> {
        let news = self.journal[self.seen_records..].iter();
        let news = news.map(|entry| entry.record.clone()).collect();
        self.seen_records = self.journal.len();
        news
    }

    /// The tasks for which a host was asked for since the last look, in order.
    pub(crate) fn spawns(&mut self) -> Vec<String> {
        let news = self.news();
        news.iter()
            .filter_map(|effect| match effect {
                Effect::SpawnHost { generation } => {
                    Some(self.name(self.facts().runs[generation].task))
                }
                _ => None,
            })
            .collect()
    }

    /// How often the host of this run was told to stop so far.
    pub(crate) fn stops_of(&self, run: Generation) -> usize {
        let stops = self.effects.iter().filter(
            |effect| matches!(effect, Effect::StopHost { generation, .. } if *generation == run),
        );
        stops.count()
    }

    /// How the supervisor's work ended with the last input, if it did.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.last.effects.iter().find_map(|effect| match effect {
            Effect::Finish { ending } => Some(*ending),
            _ => None,
        })
    }

    /// The outcome of the task's last ended attempt, as (class, consumed attempts).
    pub(crate) fn outcome(&self, name: &str) -> (Option<protocol::class::Class>, u32) {
        let task = self.task(name);
        let last = task.last.as_ref().expect("an ended attempt");
        (last.class, task.consumed)
    }

    pub(crate) fn texts(&self) -> Vec<Arc<str>> {
        self.facts()
            .messages
            .values()
            .map(|it| it.text.clone())
            .collect()
    }
}
