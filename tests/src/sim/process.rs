//! The supervisor's process: the real core, the real outbox and the real journal, moved by the
//! world instead of by a driver.

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::ids::Generation;
use supervisor::store::{Check, Journal, Loaded, StoreError, checkpoint, load, open_for_append};
use supervisor_core::core::Core;
use supervisor_core::effect::Effect;
use supervisor_core::identity::Identity;
use supervisor_core::input::{Created, Input, ReplyId};
use supervisor_core::outbox::Outbox;
use supervisor_core::reconcile::{ProcessFact, ResultFact, RunFacts};
use supervisor_core::record::Entry;
use supervisor_core::timers::Timers;

use super::swarm::Fault;
use super::world::{Asker, Pending, Told, World, broken};

/// Most starts of a story: a storm has a dozen deaths, each followed by a few failed starts.
const STARTS_MAX: u64 = 400;

/// A live supervisor.
#[derive(Debug)]
pub(super) struct Supervisor {
    pub(super) core: Core,
    /// The same batch by replaying its records: must never differ.
    pub(super) shadow: Core,
    outbox: Outbox,
    /// For each effect in the outbox: the record it must wait for, and whether it ends the
    /// supervisor (such a one is withdrawn by the next turn). Kept apart from the outbox, which is
    /// on trial.
    needed: VecDeque<(u64, bool)>,
    decided: u64,
    journal: Journal,
    waiting: Vec<Entry>,
    group: Vec<Entry>,
    committing: bool,
    disk_failed: bool,
    /// How late the next tick comes, ms.
    pub(super) late: u64,
    /// It dies after this many more effects.
    pub(super) effects_left: Option<u64>,
    /// The tick that opens the batch has come.
    pub(super) ticked: bool,
}

impl Supervisor {
    /// Whether records were decided after those that the effect under way waited for.
    pub(super) fn is_ahead(&self) -> bool {
        !self.group.is_empty() || !self.waiting.is_empty()
    }
}

/// Why a group did not become durable.
enum Trouble {
    /// It may go well later.
    Later(StoreError),
    /// Going on could lose records.
    Broken(StoreError),
}

impl World {
    /// A supervisor starts: reads what is there, waits for hosts, takes the batch over.
    pub(super) fn start(&mut self) -> Told {
        if self.supervisor.is_some() || self.over || self.hosts_hold_up() {
            return Ok(());
        }
        self.starts += 1;
        if self.starts > STARTS_MAX {
            return broken(
                "the story ends",
                format!("{STARTS_MAX} starts: {}", self.standing()),
            );
        }
        self.disk.new_process();
        if self
            .rng
            .chance(if self.swarm.kill_every > 0 { 150 } else { 0 })
        {
            self.disk.light_fuse(self.rng.below(60));
        }
        let opened = self.open();
        if self.disk.has_killed() {
            self.met(Fault::KilledInStart);
            self.after_death();
            return Ok(());
        }
        let (journal, loaded) = match opened {
            Ok(opened) => opened,
            Err(error) if error.is_unreadable() => {
                return broken("I9 what was written can be read", format!("{error}"));
            }
            Err(error) => {
                self.tell(|| format!("can not start: {error}"));
                let wait = self.rng.range(1_000, 60_000);
                self.later(wait, Pending::Start);
                return Ok(());
            }
        };
        let Some(core) = self.recover(&loaded)? else {
            self.met(Fault::KilledInStart);
            self.after_death();
            return Ok(());
        };
        self.begin(core, journal)
    }

    fn open(&mut self) -> Result<(Journal, Loaded), StoreError> {
        self.dir.create(&self.disk)?;
        let wall = self.clock.now().wall;
        let (journal, loaded) = open_for_append(Arc::new(self.disk.clone()), &self.dir, wall)?;
        journal.ensure_reserve()?;
        let segment = 2_000 + self.rng.skewed(200_000);
        Ok((journal.with_segment_max(segment), loaded))
    }

    /// Compares what was read with what is known to be there, and replays it in both ways; `None`
    /// when the process died over it.
    fn recover(&mut self, loaded: &Loaded) -> Told<Option<Core>> {
        let torn = loaded.torn.clone();
        let at = loaded.end.seq;
        let checkpointed = loaded.checkpoint.as_ref().map(|facts| facts.batch.seq);
        self.tell(|| format!("START at record {at}, checkpoint {checkpointed:?}, torn {torn:?}"));
        let mut entries = Vec::new();
        let mut each = |entry| {
            entries.push(entry);
            Ok(())
        };
        if let Err(error) = load::replay(&self.disk, &self.dir, &mut each) {
            if self.disk.has_killed() {
                return Ok(None);
            }
            return broken("I9 what was written can be read", format!("{error}"));
        }
        let whole = self.oracle.recovered(&entries)?;
        let mut short = loaded
            .checkpoint
            .clone()
            .map_or_else(Core::new, Core::restore);
        for entry in &loaded.entries {
            if let Err(error) = short.replay(entry) {
                return broken("a journal replays", format!("{error:?}"));
            }
        }
        let same = short.facts() == whole.facts() && same_index(&short, &whole);
        if !same {
            return broken(
                "checkpoint and tail equal the whole replay",
                difference(&short, &whole),
            );
        }
        self.check_tail_reading()?;
        Ok(Some(if self.rng.chance(500) { short } else { whole }))
    }

    /// The quick way of reading, which status uses, finds the same state.
    fn check_tail_reading(&mut self) -> Told {
        if !self.rng.chance(100) || self.disk.has_killed() {
            return Ok(());
        }
        let read = |check| load(&self.disk, &self.dir, check);
        match (read(Check::Tail), read(Check::Whole)) {
            (Ok(tail), Ok(whole)) if tail.entries == whole.entries && tail.end == whole.end => {
                Ok(())
            }
            (tail, whole) if !self.disk.has_killed() => {
                let ends = (tail.map(|it| it.end), whole.map(|it| it.end));
                broken(
                    "reading the tail finds what reading all finds",
                    format!("{ends:?}"),
                )
            }
            (_, _) => Ok(()),
        }
    }

    fn begin(&mut self, core: Core, journal: Journal) -> Told {
        let seq = core.facts().map_or(0, |facts| facts.batch.seq);
        self.owner += 1;
        self.ending = None;
        let runs = self.found_runs(&core);
        self.supervisor = Some(Supervisor {
            shadow: core.clone(),
            core,
            outbox: Outbox::new(seq),
            needed: VecDeque::new(),
            decided: seq,
            journal,
            waiting: Vec::new(),
            group: Vec::new(),
            committing: false,
            disk_failed: false,
            late: 0,
            effects_left: None,
            ticked: false,
        });
        self.oracle.supervisor_up(self.clock.awake);
        if seq == 0 {
            #[expect(clippy::expect_used, reason = "the text is an id")]
            let id = "sim-1".parse().expect("a batch id");
            let (seed, plan, only) = (self.seed, self.plan.clone(), self.only.clone());
            self.input(Input::Created(Box::new(Created {
                id,
                seed,
                plan,
                only,
            })))?;
        }
        let supervisor = self.identity(1_000_000);
        self.input(Input::Recovered {
            supervisor,
            guardian: None,
            build: "0.1.0".into(),
            runs,
        })?;
        if let Some(command) = self.on_start.take() {
            self.take_revision(command)?;
        }
        self.input(Input::Tick)
    }

    /// What the machine shows of every run that the state holds as live.
    fn found_runs(&mut self, core: &Core) -> Vec<(Generation, RunFacts)> {
        let Some(facts) = core.facts() else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for generation in facts.runs.keys().copied() {
            let lives = self
                .hosts
                .values()
                .any(|it| it.generation == generation && it.alive);
            let odd = self.rng.chance(self.swarm.facts);
            let process = match (lives, odd) {
                (true, true) => ProcessFact::Foreign,
                (true, false) => ProcessFact::Living,
                (false, true) if self.rng.chance(300) => ProcessFact::Foreign,
                (false, _) => ProcessFact::Gone,
            };
            let result = match self.files.exits.get(&generation) {
                Some(_) if odd => ResultFact::Unreadable,
                Some(result) => ResultFact::Durable(Box::new(result.clone())),
                None => ResultFact::Absent,
            };
            match process {
                ProcessFact::Living => self.met(Fault::StillLiving),
                ProcessFact::Foreign => self.met(Fault::Foreign),
                ProcessFact::Gone if result == ResultFact::Unreadable => {
                    self.met(Fault::Unreadable)
                }
                ProcessFact::Gone | ProcessFact::Killed => {}
            }
            let injected = self
                .files
                .injected
                .get(&generation)
                .cloned()
                .unwrap_or_default();
            self.oracle.found(generation, process, &result, &injected);
            found.push((
                generation,
                RunFacts {
                    process,
                    result,
                    injected,
                    cleared: supervisor_core::containment::Cleared::CLEAN,
                },
            ));
        }
        found
    }

    pub(super) fn identity(&self, pid: u32) -> Identity {
        let now = self.clock.now();
        Identity {
            node: "node".into(),
            pid_namespace: 4_026_531_836,
            boot_id: now.boot_id,
            pid,
            start_ticks: now.boot.0 / 10,
            pidfs_inode: None,
            session: None,
        }
    }

    /// One input goes through the core; what follows is recorded and, in time, performed.
    pub(super) fn input(&mut self, input: Input) -> Told {
        let now = self.clock.now();
        self.tell(|| format!("<- {input:?}"));
        let Some(supervisor) = &mut self.supervisor else {
            return Ok(());
        };
        self.oracle
            .before(self.clock.awake, &supervisor.core, &input);
        let tick = input == Input::Tick;
        let mut turn = supervisor.core.handle(now, input);
        supervisor.ticked |= tick;
        for entry in &turn.entries {
            self.story.line(self.clock.awake, || {
                format!("   #{} {:?}", entry.seq, entry.record)
            });
        }
        for change in &turn.changes {
            self.reached.change(change);
        }
        self.oracle
            .turn(supervisor, &turn, now, &mut self.reached, &mut self.git)?;
        if tick {
            self.oracle.ticked(&supervisor.core, now)?;
        }
        supervisor.waiting.append(&mut turn.entries.clone());
        if let Some(last) = turn.entries.last() {
            supervisor.decided = last.seq;
        }
        supervisor.needed.retain(|(_, ends)| !ends);
        let ends = |effect: &Effect| matches!(effect, Effect::Finish { .. });
        let decided = supervisor.decided;
        supervisor
            .needed
            .extend(turn.effects.iter().map(|effect| (decided, ends(effect))));
        let urgent = std::mem::take(&mut turn.urgent);
        let ready = supervisor.outbox.push(&mut turn);
        let waiting = supervisor.outbox.len();
        if waiting > 5_000 {
            return broken(
                "I10 the outbox is bounded",
                format!("{waiting} effects wait"),
            );
        }
        for effect in urgent {
            if !self.perform(effect, false)? {
                return Ok(());
            }
        }
        self.flush();
        self.perform_all(ready)
    }

    fn perform_all(&mut self, effects: Vec<Effect>) -> Told {
        for effect in effects {
            if !self.perform(effect, true)? {
                break;
            }
        }
        Ok(())
    }

    /// Performs one effect; `false` when the supervisor does not live any more.
    fn perform(&mut self, effect: Effect, recorded: bool) -> Told<bool> {
        let Some(supervisor) = &mut self.supervisor else {
            return Ok(false);
        };
        if let Some(left) = &mut supervisor.effects_left {
            if *left == 0 {
                self.met(Fault::KilledInEffects);
                self.supervisor_dies();
                return Ok(false);
            }
            *left -= 1;
        }
        if recorded {
            let needed = supervisor
                .needed
                .pop_front()
                .map_or(u64::MAX, |(needed, _)| needed);
            self.oracle.acts(&self.disk, &self.dir, needed, &effect)?;
        } else if !effect.is_urgent() {
            return broken("I4 only stops and kills are urgent", format!("{effect:?}"));
        }
        self.story
            .line(self.clock.awake, || format!("-> {effect:?}"));
        self.act(effect)?;
        Ok(self.supervisor.is_some())
    }

    /// Sends what has gathered on its way to the disk, unless a group is under way.
    fn flush(&mut self) {
        let Some(supervisor) = &mut self.supervisor else {
            return;
        };
        if supervisor.committing || (supervisor.waiting.is_empty() && supervisor.group.is_empty()) {
            return;
        }
        supervisor.committing = true;
        if supervisor.group.is_empty() {
            supervisor.group = std::mem::take(&mut supervisor.waiting);
        }
        let slow = self.rng.chance(self.swarm.slow_disk);
        if slow {
            self.reached.fault(Fault::SlowDisk);
        }
        let wait = if slow {
            self.rng.range(100, 9_000)
        } else {
            self.rng.range(0, 8)
        };
        self.later(wait, Pending::Commit(self.owner));
    }

    /// The group reaches the disk.
    pub(super) fn commit(&mut self) -> Told {
        let Some(supervisor) = &mut self.supervisor else {
            return Ok(());
        };
        supervisor.committing = false;
        let done = write_group(&mut supervisor.journal, &supervisor.group);
        if self.disk.has_killed() {
            self.met(Fault::KilledInDisk);
            self.supervisor_dies();
            return Ok(());
        }
        match done {
            Ok(seq) => {
                let wrong = supervisor.group.last().is_some_and(|last| last.seq != seq);
                if wrong {
                    return broken(
                        "the journal is durable to the end of a group",
                        format!("{seq}"),
                    );
                }
                supervisor.group.clear();
                self.oracle.synced(seq);
                let failed = std::mem::take(&mut supervisor.disk_failed);
                let ready = supervisor.outbox.durable(seq);
                self.story
                    .line(self.clock.awake, || format!("   durable to #{seq}"));
                self.perform_all(ready)?;
                if failed {
                    self.input(Input::DiskRecovered)?;
                }
                self.maybe_checkpoint()?;
                self.flush();
                Ok(())
            }
            Err(Trouble::Broken(error)) => {
                broken("I9 what was proven is still there", format!("{error}"))
            }
            Err(Trouble::Later(error)) => self.disk_trouble(&error),
        }
    }

    fn disk_trouble(&mut self, error: &StoreError) -> Told {
        self.story
            .line(self.clock.awake, || format!("   disk: {error}"));
        let Some(supervisor) = &mut self.supervisor else {
            return Ok(());
        };
        supervisor.committing = true;
        let first = !std::mem::replace(&mut supervisor.disk_failed, true);
        self.later(2_000, Pending::Commit(self.owner));
        if first {
            self.input(Input::DiskFailed)
        } else {
            Ok(())
        }
    }

    fn maybe_checkpoint(&mut self) -> Told {
        let Some(supervisor) = &mut self.supervisor else {
            return Ok(());
        };
        let Some(facts) = supervisor.core.facts() else {
            return Ok(());
        };
        let place = supervisor.journal.durable();
        if facts.batch.seq != place.seq || !self.rng.chance(30) {
            return Ok(());
        }
        let written = checkpoint::encode(facts, place)
            .and_then(|bytes| checkpoint::write(&self.disk, &self.dir, &bytes));
        self.story.line(self.clock.awake, || {
            format!("   checkpoint at #{}: {written:?}", place.seq)
        });
        if self.disk.has_killed() {
            self.met(Fault::KilledInDisk);
            self.supervisor_dies();
            return Ok(());
        }
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.is_disk() => Ok(()),
            Err(error) => broken(
                "a checkpoint of durable facts can be made",
                format!("{error}"),
            ),
        }
    }

    /// A reply number of its own for each question and command.
    pub(super) fn ask(&mut self, asker: Asker) -> ReplyId {
        self.last_reply += 1;
        let reply = ReplyId(self.last_reply);
        self.askers.insert(reply, asker);
        reply
    }
}

/// Makes a group durable as the driver does: written, synced; after a failure reopened.
fn write_group(journal: &mut Journal, group: &[Entry]) -> Result<u64, Trouble> {
    let done = journal.append(group).and_then(|_| journal.sync());
    let error = match done {
        Ok(place) => return Ok(place.seq),
        Err(error) => error,
    };
    match &error {
        StoreError::Full { .. } => {
            // The reserve makes room for this group and for the record of the pause.
            if journal.release_reserve().is_ok()
                && let Ok(place) = journal.append(group).and_then(|_| journal.sync())
            {
                return Ok(place.seq);
            }
        }
        StoreError::Io { .. } | StoreError::SyncFailed { .. } | StoreError::NeedsReopen { .. } => {
            match journal.reopen() {
                Ok(_) => {}
                Err(again) if again.is_disk() => return Err(Trouble::Later(again)),
                Err(worse) => return Err(Trouble::Broken(worse)),
            }
        }
        StoreError::Unreadable { .. }
        | StoreError::Newer { .. }
        | StoreError::OutOfOrder { .. }
        | StoreError::NotDurable { .. }
        | StoreError::Limit { .. }
        | StoreError::Unsafe { .. }
        | StoreError::NoHome
        | StoreError::Held { .. } => return Err(Trouble::Broken(error)),
    }
    Err(Trouble::Later(error))
}

/// Whether what is computed from two states is the same. The table of timers is not compared: one
/// that fired live and left no record is still armed in a replay, where it means nothing, because
/// every run is over then.
pub(super) fn same_index(one: &Core, other: &Core) -> bool {
    let plain = |core: &Core| {
        let mut index = core.index().cloned().unwrap_or_default();
        index.timers = Timers::default();
        index
    };
    plain(one) == plain(other)
}

/// Where two states differ, for people.
pub(super) fn difference(one: &Core, other: &Core) -> String {
    let (Some(a), Some(b)) = (one.facts(), other.facts()) else {
        return "one has no records".to_owned();
    };
    for (left, right) in a.tasks.iter().zip(&b.tasks) {
        if left != right {
            return format!("task {left:?} is not {right:?}");
        }
    }
    if a.batch != b.batch {
        return format!("batch {:?} is not {:?}", a.batch, b.batch);
    }
    if a.runs != b.runs {
        return format!("runs {:?} are not {:?}", a.runs, b.runs);
    }
    if a.accounts != b.accounts {
        return format!("accounts {:?} are not {:?}", a.accounts, b.accounts);
    }
    if a != b {
        return "messages, questions or rules differ".to_owned();
    }
    format!("index {:?} is not {:?}", one.index(), other.index())
}
