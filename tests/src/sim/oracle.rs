//! The judge: what the world knows by its own bookkeeping, set against what the core says.
//!
//! Nothing here asks the core whether the core is right. The rules are those of the design, named
//! by their number where they have one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use protocol::class::Class;
use protocol::command::RunKind;
use protocol::ids::{AttemptNo, Generation, MessageId};
use protocol::report::{Event, ResultStatus, RunResult};
use supervisor::store::StateDir;
use supervisor_core::core::{Core, Turn};
use supervisor_core::effect::Effect;
use supervisor_core::facts::Facts;
use supervisor_core::input::{Input, OperatorCommand, ReplyId};
use supervisor_core::live::Gate;
use supervisor_core::machine::{BatchState, QuestionState, TaskState};
use supervisor_core::plan::{Rules, TaskIx};
use supervisor_core::reason::BatchReason;
use supervisor_core::reconcile::{ProcessFact, ResultFact};
use supervisor_core::record::{Entry, StopReason};
use supervisor_core::step::Purpose;
use supervisor_core::time::Now;

use super::disk::SimDisk;
use super::git::Git;
use super::process::{Supervisor, difference, same_index};
use super::reached::Reached;
use super::world::{Told, broken};

/// What counts as time that the machine slept and the core may not have noticed: it notices a sleep
/// by a timer that is late, and the longest time between two timers of a live run is 15 s.
const UNNOTICED: u64 = 20_000;
/// The core calls it sleep when a timer is later than this; less is just lateness.
const LATENESS: u64 = 30_000;

/// What is known of one run.
#[derive(Debug, Clone)]
pub(super) struct RunStory {
    pub(super) task: TaskIx,
    pub(super) attempt: AttemptNo,
    pub(super) purpose: Purpose,
    /// How often its host was spawned.
    spawned: u32,
    /// The host reported or made durable that all went well.
    pub(super) well: bool,
    /// A durable good result was told with the host's end.
    pub(super) told_well: bool,
    /// Why it was told to end, by the journal.
    pub(super) stop: Option<StopReason>,
    /// Its result was recorded before any stop after which it would not count.
    pub(super) first: bool,
    /// Awake time since its last sign of life, ms.
    pub(super) quiet: u64,
    /// Awake time since its last news, ms.
    pub(super) still: u64,
    /// Awake time since its host said anything at all, ms.
    pub(super) unheard: u64,
    /// What the judge may be wrong by, ms.
    pub(super) slack: u64,
}

/// The judge.
#[derive(Debug)]
pub(super) struct Oracle {
    /// Every record that was decided, as long as it is not lost.
    pub(super) history: Vec<Entry>,
    /// The last record that a sync made durable.
    synced: u64,
    /// The last record that something was done or said about.
    told: u64,
    pub(super) runs: BTreeMap<Generation, RunStory>,
    /// Working time of the last attempt of each task, ms, and what the judge may be wrong by.
    pub(super) attempts: BTreeMap<TaskIx, (u64, u64)>,
    up_since: Option<u64>,
    /// Messages that the operator was told of.
    pub(super) accepted: BTreeMap<MessageId, TaskIx>,
    /// Messages that reached an agent.
    pub(super) injections: BTreeMap<MessageId, Generation>,
    /// Tasks that the operator passed over as done.
    pub(super) as_done: BTreeSet<TaskIx>,
    /// The operator asked the batch to stop, or to pause.
    pub(super) stop_asked: bool,
    pub(super) terms: u64,
    /// Tasks that the operator killed or cancelled and did not let go on since, by which command, and
    /// whether that was answered: then it holds over every crash.
    pub(super) held: BTreeMap<TaskIx, (ReplyId, bool)>,
    /// The same of a pause of the whole batch.
    pub(super) batch_held: Option<(ReplyId, bool)>,
    /// A rule of the batch file stopped the batch, and the operator did not let it go on since.
    pub(super) failed_batch: bool,
    /// Messages that a host said to be seen without having taken them.
    pub(super) seen_lies: BTreeSet<MessageId>,
    /// The rules, and the texts of the batch, that each attempt began with.
    pub(super) began: BTreeMap<(TaskIx, AttemptNo), (Rules, Arc<str>)>,
    /// Tasks whose attempts were limited further when they had used them: what was decided stands.
    pub(super) lowered: BTreeSet<TaskIx>,
}

impl Oracle {
    pub(super) fn new() -> Oracle {
        Oracle {
            history: Vec::new(),
            synced: 0,
            told: 0,
            runs: BTreeMap::new(),
            attempts: BTreeMap::new(),
            up_since: None,
            accepted: BTreeMap::new(),
            injections: BTreeMap::new(),
            as_done: BTreeSet::new(),
            stop_asked: false,
            terms: 0,
            held: BTreeMap::new(),
            batch_held: None,
            failed_batch: false,
            seen_lies: BTreeSet::new(),
            began: BTreeMap::new(),
            lowered: BTreeSet::new(),
        }
    }

    pub(super) fn supervisor_up(&mut self, awake: u64) {
        self.up_since = Some(awake);
        self.stop_asked = false;
    }

    pub(super) fn supervisor_down(&mut self) {
        self.up_since = None;
    }

    pub(super) fn suspended(&mut self) {
        for run in self.runs.values_mut() {
            run.slack += UNNOTICED;
        }
        for (_, slack) in self.attempts.values_mut() {
            *slack += UNNOTICED;
        }
    }

    pub(super) fn synced(&mut self, seq: u64) {
        self.synced = self.synced.max(seq);
    }

    /// Before an input: time has passed for what lives, and the input may be a sign of life.
    pub(super) fn before(&mut self, awake: u64, core: &Core, input: &Input) {
        let passed = self.up_since.map_or(0, |since| awake.saturating_sub(since));
        self.up_since = Some(awake);
        let Some(facts) = core.facts() else { return };
        for (generation, run) in &mut self.runs {
            if facts.runs.contains_key(generation) {
                run.quiet += passed;
                run.still += passed;
                run.unheard += passed;
            }
        }
        for (ix, (worked, _)) in &mut self.attempts {
            let task = facts.tasks.get(ix.0 as usize);
            let between = task.and_then(|task| task.attempt.as_ref());
            let between = between.is_some_and(|attempt| !facts.runs.contains_key(&attempt.run));
            let waits = between || task.is_some_and(|task| task.state == TaskState::Waiting);
            if !waits {
                *worked += passed;
            }
        }
        self.sign_of_life(core, input);
    }

    fn sign_of_life(&mut self, core: &Core, input: &Input) {
        if let Some(run) = said_by(input).and_then(|run| self.runs.get_mut(&run)) {
            run.unheard = 0;
        }
        let (generation, new) = match input {
            Input::HostGreeted { generation } => (*generation, true),
            Input::HostReported {
                generation,
                claimed,
                event,
            } if generation == claimed => {
                let gate = core.live().get(*generation).map(|live| live.gate);
                if gate != Some(Gate::Open) {
                    return;
                }
                (*generation, is_news(event))
            }
            Input::HostPonged { generation, pong } => {
                let Some(before) = core.live().get(*generation).map(|live| live.pong) else {
                    return;
                };
                if *pong == before {
                    return;
                }
                (*generation, pong.output_bytes > before.output_bytes)
            }
            Input::Operator {
                command: OperatorCommand::Answer { question, .. },
                ..
            } => {
                let found = core.facts().and_then(|facts| facts.questions.get(question));
                let Some(found) = found.filter(|it| it.state == QuestionState::Open) else {
                    return;
                };
                (found.generation, true)
            }
            _other => return,
        };
        if let Some(run) = self.runs.get_mut(&generation) {
            run.quiet = 0;
            if new {
                run.still = 0;
            }
            if run.still == 0 {
                run.slack = 0;
            }
        }
    }

    /// With a question, and again when it is settled, its run is heard.
    pub(super) fn question_moved(&mut self, generation: Generation) {
        if let Some(run) = self.runs.get_mut(&generation) {
            (run.quiet, run.still) = (0, 0);
        }
    }

    /// What an input led to.
    pub(super) fn turn(
        &mut self,
        supervisor: &mut Supervisor,
        turn: &Turn,
        now: Now,
        reached: &mut Reached,
        git: &mut Git,
    ) -> Told {
        if let Some((error, record)) = turn.defects.first() {
            return broken(
                "I5 only legal records are decided",
                format!("{error:?} for {record:?}"),
            );
        }
        let mut changes = Vec::new();
        for entry in &turn.entries {
            let before = supervisor
                .shadow
                .facts()
                .map(|facts| facts.batch.seq)
                .unwrap_or(0);
            if entry.seq != before + 1 {
                return broken(
                    "records have no gaps",
                    format!("{} after {before}", entry.seq),
                );
            }
            self.history.push(entry.clone());
            let mut core = std::mem::take(&mut supervisor.shadow);
            let judged = self.entry(&mut core, entry, now, (reached, git), &mut changes);
            supervisor.shadow = core;
            judged?;
        }
        if changes != turn.changes {
            return broken(
                "replay takes the same edges",
                format!("{changes:?} {:?}", turn.changes),
            );
        }
        let (live, replayed) = (&supervisor.core, &supervisor.shadow);
        if live.facts() != replayed.facts() || !same_index(live, replayed) {
            return broken("replay equals the live state", difference(live, replayed));
        }
        let Some(facts) = supervisor.core.facts() else {
            return Ok(());
        };
        self.standing_rules(facts)
    }

    /// After a tick at its time the next one lies ahead.
    pub(super) fn ticked(&self, core: &Core, now: Now) -> Told {
        let next = core.next_deadline();
        let past = next.boot.is_some_and(|at| at <= now.boot)
            || next.wall.is_some_and(|at| at <= now.wall);
        if past {
            return broken(
                "no busy loop: the next deadline lies ahead",
                format!("{next:?} at {now:?}"),
            );
        }
        self.overdue(core, now)
    }

    /// Silence and standstill are found in time.
    fn overdue(&self, core: &Core, _now: Now) -> Told {
        let Some(facts) = core.facts() else {
            return Ok(());
        };
        for (generation, run) in &facts.runs {
            let Some(story) = self.runs.get(generation) else {
                continue;
            };
            let open = core
                .live()
                .get(*generation)
                .is_some_and(|live| live.gate == Gate::Open);
            let waits = facts.tasks[run.task.0 as usize].state == TaskState::Waiting;
            // Git work and hooks have limits that their hosts keep.
            let timed = run.purpose.is_agent() || run.kind() == RunKind::Verify;
            if !timed || !open || run.stop.is_some() || run.result.is_some() || waits {
                continue;
            }
            let spec = &facts.specs[facts.tasks[run.task.0 as usize].spec.0 as usize];
            // Once more the whole limit: lateness under `LATENESS` is no sleep, and adds up.
            let most = |limit| 2 * supervisor_core::time::millis(limit) + LATENESS + story.slack;
            if story.quiet > most(spec.silence) || story.still > most(spec.no_progress) {
                let text = format!(
                    "run {generation} quiet for {} ms, still for {} ms",
                    story.quiet, story.still
                );
                return broken("I11 a stall is found", text);
            }
        }
        Ok(())
    }

    /// A host is spawned.
    pub(super) fn spawned(&mut self, generation: Generation) -> Told {
        let Some(run) = self.runs.get_mut(&generation) else {
            return broken(
                "a host is spawned for a run that was decided",
                format!("{generation}"),
            );
        };
        run.spawned += 1;
        if run.spawned > 1 {
            return broken(
                "I6 a run has one host",
                format!("run {generation} spawned again"),
            );
        }
        Ok(())
    }

    /// A host said something with its own generation.
    pub(super) fn said(&mut self, generation: Generation, event: &Event) {
        if let (Event::Result(result), Some(run)) = (event, self.runs.get_mut(&generation)) {
            run.well |= result.status == ResultStatus::Ok;
        }
        if let Event::MessageSeen { id } = event
            && !self.injections.contains_key(id)
        {
            self.seen_lies.insert(*id);
        }
    }

    /// A host made a result durable.
    pub(super) fn wrote(&mut self, generation: Generation, result: &RunResult) {
        if let Some(run) = self.runs.get_mut(&generation) {
            run.well |= result.status == ResultStatus::Ok;
        }
    }

    /// A message reaches an agent.
    pub(super) fn injected(&mut self, generation: Generation, id: MessageId) -> Told {
        if let Some(before) = self.injections.insert(id, generation) {
            let text = format!("{id} by run {before} and by run {generation}");
            return broken("I8 a message is injected once", text);
        }
        Ok(())
    }

    /// What a starting supervisor was shown of a run.
    pub(super) fn found(
        &mut self,
        generation: Generation,
        process: ProcessFact,
        result: &ResultFact,
        _injected: &[MessageId],
    ) {
        if let (ProcessFact::Gone, ResultFact::Durable(result), Some(run)) =
            (process, result, self.runs.get_mut(&generation))
        {
            run.told_well |= result.status == ResultStatus::Ok;
        }
    }

    /// An effect is performed: its records must survive the worst power cut.
    pub(super) fn acts(
        &mut self,
        disk: &SimDisk,
        dir: &StateDir,
        needed: u64,
        effect: &Effect,
    ) -> Told {
        self.told = self.told.max(needed);
        let line = disk.durable_last_line(&dir.journal());
        let durable = line.as_deref().and_then(seq_of).unwrap_or(0);
        if durable < needed {
            let text = format!("{effect:?} needs record {needed}, durable is {durable}");
            return broken("I4 facts before acts", text);
        }
        Ok(())
    }

    /// A journal was read: nothing that was synced or told is missing, nothing is other than it was.
    pub(super) fn recovered(&mut self, entries: &[Entry]) -> Told<Core> {
        let last = entries.last().map_or(0, |entry| entry.seq);
        if last < self.synced || last < self.told {
            let text = format!("ends at {last}, synced {}, told {}", self.synced, self.told);
            return broken("I9 nothing synced is lost", text);
        }
        let known = self.history.get(..entries.len());
        if known != Some(entries) {
            let at = self.history.iter().zip(entries).position(|(a, b)| a != b);
            let text = format!(
                "{} of {} records, first other one {at:?}",
                entries.len(),
                self.history.len()
            );
            return broken("what is read is what was decided", text);
        }
        self.history.truncate(entries.len());
        self.synced = self.synced.max(last);
        let mut core = Core::new();
        for entry in entries {
            if let Err(error) = core.replay(entry) {
                return broken("a journal replays", format!("{error:?}"));
            }
        }
        self.forget_undecided(&core);
        self.forget_unanswered();
        Ok(core)
    }

    /// What was decided and not durable did not happen.
    fn forget_undecided(&mut self, core: &Core) {
        let last = core
            .facts()
            .map_or(Generation(0), |facts| facts.batch.last_generation);
        self.runs.retain(|generation, _| *generation <= last);
        // Where the stop came to its end, whoever runs the batch again lets it go on.
        self.failed_batch &= core.facts().is_some_and(|facts| {
            facts.batch.state == BatchState::Stopping
                && matches!(
                    facts.batch.reason,
                    BatchReason::TaskFailed(_)
                        | BatchReason::MergeFailed(_)
                        | BatchReason::TooManyFailures
                )
        });
        self.terms = core.facts().map_or(0, |facts| facts.batch.term);
        // Stops that the journal does not hold were not decided.
        for (generation, run) in &mut self.runs {
            if let Some(known) = core.facts().and_then(|facts| facts.runs.get(generation)) {
                run.stop = known.stop.map(|(reason, _)| reason);
                run.first &= known.result.is_some();
            }
        }
    }

    pub(super) fn run_decided(
        &mut self,
        generation: Generation,
        task: TaskIx,
        attempt: AttemptNo,
        purpose: Purpose,
    ) {
        let story = RunStory {
            task,
            attempt,
            purpose,
            spawned: 0,
            well: false,
            told_well: false,
            stop: None,
            first: false,
            quiet: 0,
            still: 0,
            unheard: 0,
            slack: 0,
        };
        self.runs.insert(generation, story);
    }

    /// Rules that hold in every state.
    fn standing_rules(&self, facts: &Facts) -> Told {
        for (at, task) in facts.tasks.iter().enumerate() {
            let spec = &facts.specs[task.spec.0 as usize];
            let max = task.attempts_max.unwrap_or(spec.attempts);
            if task.consumed > max.max(1) && !self.lowered.contains(&super::world::task_ix(at)) {
                return broken(
                    "attempts never exceed the limit",
                    format!("t{at}: {} of {max}", task.consumed),
                );
            }
            if task.state.is_live() != task.attempt.is_some() && task.state != TaskState::Paused {
                return broken(
                    "a live task has an attempt",
                    format!("t{at} is {}", task.state),
                );
            }
        }
        for id in self.accepted.keys() {
            if !facts.messages.contains_key(id) {
                return broken("I8 an accepted message is never lost", format!("{id}"));
            }
        }
        Ok(())
    }
}

/// Whether a class counts against the attempts, by the table of the design.
pub(super) fn consumes(class: Class) -> bool {
    match class {
        Class::AgentFailed
        | Class::Crash
        | Class::Oom
        | Class::Protocol
        | Class::NoResult
        | Class::Leftover
        | Class::Silence
        | Class::NoProgress
        | Class::Timeout
        | Class::Budget
        | Class::VerifyFailed
        | Class::NoChange
        | Class::Rejected
        | Class::Overflow => true,
        Class::UsageLimit
        | Class::Overload
        | Class::Network
        | Class::Auth
        | Class::Billing
        | Class::ModelMissing
        | Class::Refused
        | Class::SpawnFailure
        | Class::SetupFailed
        | Class::Environment
        | Class::Disk
        | Class::Lost
        | Class::Superseded
        | Class::Cancelled => false,
    }
}

/// The number of a record, from its line.
fn seq_of(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("\"seq\":")?;
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    rest[..end].parse().ok()
}

fn is_news(event: &Event) -> bool {
    !matches!(
        event,
        Event::Context(_)
            | Event::RateLimited(_)
            | Event::Retry(_)
            | Event::ProcessSpawned(_)
            | Event::Notice(_)
    )
}

/// The run whose host this input is a word of.
fn said_by(input: &Input) -> Option<Generation> {
    match input {
        Input::HostGreeted { generation }
        | Input::HostReported { generation, .. }
        | Input::HostAsked { generation, .. }
        | Input::HostSent { generation, .. }
        | Input::HostPonged { generation, .. }
        | Input::WireFault { generation, .. } => Some(*generation),
        _other => None,
    }
}
