//! The loop: wait for something to happen, let the core decide, hand records to the disk, act.
//!
//! ```text
//! wait -> take (wake to inputs) -> settle (inputs to turns: urgent acts, records, acts) -> wait
//! ```
//!
//! Everything happens on one thread, so nothing here is shared or locked. Only the disk has a
//! thread of its own ([`commit`](crate::driver::commit)).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use protocol::ids::{BatchId, Generation};
use supervisor_core::core::{Change, Core, Turn};
use supervisor_core::effect::{Effect, Ending};
use supervisor_core::input::{Input, StopStage};
use supervisor_core::outbox::Outbox;
use supervisor_core::record::Record;
use tokio::sync::mpsc;
use tokio::time::{Interval, Sleep};

use crate::control::peer::Outsiders;
use crate::control::server::Asked;
use crate::driver::alarm::Alarm;
use crate::driver::clock::Clock;
use crate::driver::commit::{Answer, Committer, Written};
use crate::driver::error::{DriverError, chain};
use crate::driver::handover::leave::{Replacing, Stepped};
use crate::driver::host_io::HostWord;
use crate::driver::hosts::Hosts;
use crate::driver::observer::{Note, Observer, Picture};
use crate::driver::operator::{Desk, TaskNames};
use crate::driver::signals::{Heard, Signals};
use crate::driver::start::Starter;
use crate::guardian::Guarded;
use crate::store::registry::Registry;
use crate::store::{Lock, Position, StateDir, checkpoint};

/// Records that wait for the disk until no more inputs are taken: hosts and clients then wait in
/// their pipes. A group of this size is some megabytes.
const WAITING_MAX: usize = 10_000;
/// Wakes taken in a row before the core's decisions go to the disk: enough that a burst becomes one
/// group, few enough that the first of them does not wait long.
const BURST_MAX: usize = 64;

/// Longest wait of records that nobody waits for: in it they gather to a larger group, and are not
/// missed after a crash, because what they tell (a run started, its result is in its file) is found
/// again by looking.
const LINGER_MAX: Duration = Duration::from_millis(10);

/// Time between two lists of what lives: one is behind by no more, and a batch of very short tasks
/// does not write one for each.
const LIST_EVERY: Duration = Duration::from_millis(50);

/// Steps that wait to be shown until something else has to wait: a burst is shown at once, and a screen
/// is behind by no more.
const UNSHOWN_MAX: usize = 64;

/// Where inputs come from.
#[derive(Debug)]
pub(super) struct Sources {
    pub(super) words: mpsc::Receiver<(Generation, HostWord)>,
    pub(super) asked: mpsc::Receiver<Asked>,
    pub(super) signals: Signals,
    pub(super) alarm: Alarm,
    pub(super) refresh: Option<Interval>,
}

/// What the loop was woken by.
#[derive(Debug)]
pub(super) enum Wake {
    /// The journal's thread answers.
    Committed(Answer),
    /// A host said something.
    Word(Generation, HostWord),
    /// A client of the control socket asks.
    Asked(Asked),
    /// A signal asks to stop, or the guardian has died.
    Signal(Heard),
    /// A deadline may have come.
    Alarm,
    /// The live view's turn.
    Refresh,
    /// Records have waited long enough for company.
    Lingered,
    /// Hosts that ended have waited long enough for others.
    Held,
    /// The list of what lives may be written again.
    ListDue,
    /// A step towards another program in our place.
    Stepped(Stepped),
    /// Nothing happens: time to show what did.
    Idle,
}

/// Why the loop was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The supervisor ends.
    Ended(Ending),
    /// Everything is at rest, so that another program can take this one's place.
    AtRest,
}

/// Where a supervisor works; the same for the program that takes its place.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) batch: BatchId,
    pub(super) socket: PathBuf,
    pub(super) host: PathBuf,
    /// The lock of the state dir, held until the supervisor has ended.
    pub(super) lock: Lock,
    /// Where the control socket's requests go.
    pub(super) asking: mpsc::Sender<Asked>,
    /// Who starts this supervisor again, while it lives.
    pub(super) guarded: Option<Guarded>,
}

/// When the next checkpoint is due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checkpoints {
    pub(super) journal_bytes_since: u64,
    pub(super) last_bytes: u64,
}

impl Checkpoints {
    fn due(&self) -> bool {
        checkpoint::due(self.journal_bytes_since, self.last_bytes)
    }
}

/// One supervisor at work on one batch.
pub(super) struct Driver<'a> {
    pub(super) core: Core,
    pub(super) clock: Clock,
    pub(super) dir: StateDir,
    pub(super) hosts: Hosts,
    pub(super) starter: Starter,
    pub(super) desk: Desk,
    /// Who asked before, and is no agent.
    pub(super) outsiders: Outsiders,
    pub(super) names: TaskNames,
    pub(super) outbox: Outbox,
    pub(super) commit: Committer,
    pub(super) checkpoints: Checkpoints,
    /// Once this record is durable, the guardian is told that there is a batch to go on with.
    pub(super) begins: Option<u64>,
    /// The end of the last durable record.
    pub(super) durable: Position,
    /// Records that wait change what lives.
    pub(super) live_changed: bool,
    /// The end of the group before: that it was synced is proven by the one that followed.
    pub(super) proven: Option<Position>,
    /// Facts that the core has not been told yet; at most a burst and what acts led to.
    pub(super) inputs: VecDeque<Input>,
    /// Hosts whose end was seen, and that are not collected.
    pub(super) gone: Vec<Generation>,
    /// Runs while the last list of what lives is new.
    pub(super) listed: Option<Pin<Box<Sleep>>>,
    /// Runs while they wait for others that are dying.
    pub(super) held: Option<Pin<Box<Sleep>>>,
    /// Steps that nobody is told before their record, of this number, is durable.
    pub(super) untold: VecDeque<(u64, Vec<Change>)>,
    /// Durable steps that the observer has not been shown: whoever waits for an answer comes first.
    pub(super) unshown: Vec<Change>,
    pub(super) observer: &'a mut dyn Observer,
    /// Runs while records wait that nobody waits for.
    pub(super) linger: Option<Pin<Box<Sleep>>>,
    /// Why the disk fails, while it does.
    pub(super) disk_error: Option<String>,
    /// The hardest stop that was asked for.
    pub(super) stopping: Option<StopStage>,
    pub(super) ending: Option<Ending>,
    pub(super) place: Place,
    /// On the way to another program in our place.
    pub(super) replacing: Option<Replacing>,
}

impl Driver<'_> {
    /// Works until the core says that the batch is settled, or that a person is needed; or until
    /// another program can take this one's place.
    ///
    /// # Errors
    /// [`DriverError`]: the journal broke, the core contradicts itself, or the supervisor was
    /// killed while the disk failed.
    pub(super) async fn work(&mut self, sources: &mut Sources) -> Result<Left, DriverError> {
        let left = self.turns(sources).await;
        self.show();
        left
    }

    async fn turns(&mut self, sources: &mut Sources) -> Result<Left, DriverError> {
        loop {
            self.settle()?;
            if self.unshown.len() >= UNSHOWN_MAX {
                self.show();
            }
            if let Some(ending) = self.ending {
                return Ok(Left::Ended(ending));
            }
            if self.is_resting() && self.is_at_rest() {
                return Ok(Left::AtRest);
            }
            self.check_unrecorded()?;
            sources
                .alarm
                .set(self.core.next_deadline())
                .map_err(DriverError::system("set a timer"))?;
            let wake = self.wait(sources).await;
            self.take(wake)?;
            self.take_burst(sources)?;
        }
    }

    /// Waits for one wake. Every arm is cancel-safe, so what loses the race is not lost. What is
    /// rare and must not starve comes first; hosts, who may talk without end, come last.
    async fn wait(&mut self, sources: &mut Sources) -> Wake {
        let open = self.takes_inputs();
        let asks = open && !self.is_resting();
        let live = !self.hosts.is_empty();
        let shows = !self.unshown.is_empty();
        tokio::select! {
            biased;
            // a signal that is not returned stays pending
            heard = sources.signals.next() => Wake::Signal(heard),
            // an answer is returned or stays in its channel
            answer = self.commit.answer() => Wake::Committed(answer),
            // only readiness is waited for
            () = sources.alarm.fired() => Wake::Alarm,
            // a tick that is not returned comes with the next call
            () = refresh(&mut sources.refresh), if live => Wake::Refresh,
            // a timer that is not returned fires with the next call
            () = over(&mut self.linger) => Wake::Lingered,
            // the same
            () = over(&mut self.held) => Wake::Held,
            // the same
            () = over(&mut self.listed) => Wake::ListDue,
            // cancel-safe by its own contract
            stepped = stepped(&mut self.replacing) => Wake::Stepped(stepped),
            // a request is returned or stays in its channel; the server lives as long as the loop
            Some(asked) = sources.asked.recv(), if asks => Wake::Asked(asked),
            // a word is returned or stays in its channel; the table of hosts keeps a sender
            Some((run, word)) = sources.words.recv(), if open => Wake::Word(run, word),
            // nothing is lost: the next call yields again
            () = tokio::task::yield_now(), if shows => Wake::Idle,
        }
    }

    /// Takes what is there without waiting, so that a burst becomes one group for the disk.
    fn take_burst(&mut self, sources: &mut Sources) -> Result<(), DriverError> {
        for _ in 0..BURST_MAX {
            let wake = if let Some(answer) = self.commit.answered() {
                Wake::Committed(answer)
            } else if !self.takes_inputs() {
                return Ok(());
            } else if let Ok((run, word)) = sources.words.try_recv() {
                Wake::Word(run, word)
            } else if !self.is_resting()
                && let Ok(asked) = sources.asked.try_recv()
            {
                Wake::Asked(asked)
            } else {
                return Ok(());
            };
            self.take(wake)?;
        }
        Ok(())
    }

    /// Not while too many records wait for the disk, and not while a checkpoint waits for the
    /// journal to catch up. Whoever stops by force is let through: what is left to be said then is
    /// bounded by the hosts that still live.
    fn takes_inputs(&self) -> bool {
        let forced = self.stopping >= Some(StopStage::Stop);
        let full = self.commit.waiting() >= WAITING_MAX;
        let catching_up = self.wants_checkpoint() && !self.commit.is_idle();
        forced || !(full || catching_up)
    }

    fn wants_checkpoint(&self) -> bool {
        self.disk_error.is_none() && self.commit.may_save() && self.checkpoints.due()
    }

    fn take(&mut self, wake: Wake) -> Result<(), DriverError> {
        match wake {
            Wake::Committed(answer) => self.committed(answer)?,
            Wake::Word(run, word) => self.heard(run, word),
            Wake::Asked(asked) => self.asked(asked),
            Wake::Signal(Heard::Stop(stage)) => self.stop(stage),
            Wake::Signal(Heard::GuardianGone) => self.guardian_gone(),
            Wake::Stepped(stepped) => self.stepped(stepped),
            Wake::Alarm => self.inputs.push_back(Input::Tick),
            Wake::Lingered => {
                self.linger = None;
                self.send_group();
            }
            // They are collected before the next decision.
            Wake::Held => {}
            // It is written with the next group, or by itself.
            Wake::ListDue => self.listed = None,
            Wake::Idle => self.show(),
            Wake::Refresh => {
                self.show();
                let now = self.clock.now();
                if let Some(facts) = self.core.facts() {
                    let live = self.core.live();
                    self.observer.refresh(Picture { facts, live, now });
                }
            }
        }
        Ok(())
    }

    fn committed(&mut self, answer: Answer) -> Result<(), DriverError> {
        match answer {
            Answer::Durable(written) => self.durable(written),
            Answer::Failing(error) => {
                let error = chain(&error);
                tracing::error!(%error, "the disk fails");
                self.note(Note::DiskFailed(&error));
                self.disk_error = Some(error);
                self.inputs.push_back(Input::DiskFailed);
                self.stay("the journal can not be written");
            }
            Answer::Room => {
                tracing::info!("the disk takes records again");
                self.note(Note::DiskRecovered);
                self.disk_error = None;
                self.inputs.push_back(Input::DiskRecovered);
            }
            Answer::Saved { failed: None } => {}
            Answer::Saved {
                failed: Some(error),
            } => tracing::warn!(error = chain(&error), "a checkpoint was given up"),
            Answer::Broken(error) => return Err(DriverError::Journal(error)),
        }
        Ok(())
    }

    /// Records are durable: first what they allow is done, then whoever watches is told.
    fn durable(&mut self, written: Written) {
        self.proven = Some(self.durable).filter(|before| before.seq > 0);
        self.durable = written.at;
        self.checkpoints.journal_bytes_since += written.bytes;
        self.tell_begun();
        if self.wants_checkpoint() {
            self.save_checkpoint();
        }
        for effect in self.outbox.durable(written.at.seq) {
            self.perform(effect);
        }
        while let Some((_, changes)) = self.untold.pop_front_if(|(seq, _)| *seq <= written.at.seq) {
            self.tell(changes);
        }
    }

    /// Only possible when the state is exactly what is durable; inputs wait until it is.
    fn save_checkpoint(&mut self) {
        let Some(facts) = self.core.facts() else {
            return;
        };
        if facts.batch.seq != self.durable.seq {
            return;
        }
        match checkpoint::encode(facts, self.durable) {
            Ok(bytes) => {
                self.checkpoints = Checkpoints {
                    journal_bytes_since: 0,
                    last_bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
                };
                self.commit.save(bytes);
            }
            Err(error) => tracing::error!(%error, "a checkpoint can not be made"),
        }
    }

    fn tell(&mut self, changes: Vec<Change>) {
        let now = self.clock.now();
        if let Some(facts) = self.core.facts() {
            self.desk.changed(facts, now, &changes);
        }
        self.unshown.extend(changes);
    }

    /// Shows the observer the steps that it has not seen.
    fn show(&mut self) {
        let changes = std::mem::take(&mut self.unshown);
        let now = self.clock.now();
        if let Some(facts) = self.core.facts().filter(|_| !changes.is_empty()) {
            let live = self.core.live();
            let picture = Picture { facts, live, now };
            self.observer.changed(picture, &changes);
        }
    }

    /// Tells the observer something else, after the steps before it.
    pub(super) fn note(&mut self, note: Note) {
        self.show();
        self.observer.noted(note);
    }

    /// Lets the core decide on every input, and does what follows.
    pub(super) fn settle(&mut self) -> Result<(), DriverError> {
        self.collect_gone();
        while let Some(input) = self.inputs.pop_front() {
            let turn = self.core.handle(self.clock.now(), input);
            self.carry_out(turn)?;
        }
        self.flush();
        Ok(())
    }

    /// Sends records to the disk: at once when an act or somebody waits for them, else after a
    /// while.
    fn flush(&mut self) {
        if self.commit.waiting() == 0 {
            self.linger = None;
            if self.commit.is_idle()
                && let Some(registry) = self.due_list()
            {
                self.commit.list_alone(registry);
            }
        } else if !self.outbox.is_empty() || self.is_awaited() {
            self.linger = None;
            self.send_group();
        } else if self.linger.is_none() {
            self.linger = Some(Box::pin(tokio::time::sleep(LINGER_MAX)));
        }
    }

    /// Whether anybody waits for records that no act waits for.
    fn is_awaited(&self) -> bool {
        self.desk.is_watched() || self.wants_checkpoint() || self.is_resting()
    }

    /// Sends the records that wait, and what lives after them.
    fn send_group(&mut self) {
        if self.commit.may_flush()
            && let Some(registry) = self.due_list()
        {
            self.commit.list(registry);
        }
        self.commit.flush();
    }

    /// The list of what lives, if that changed and the last one is old enough: it costs nothing where
    /// nothing begins or ends, and little where much does.
    fn due_list(&mut self) -> Option<Vec<u8>> {
        if !self.live_changed || self.listed.is_some() {
            return None;
        }
        self.live_changed = false;
        self.listed = Some(Box::pin(tokio::time::sleep(LIST_EVERY)));
        Some(Registry::of(self.core.facts()?).encode())
    }

    fn carry_out(&mut self, mut turn: Turn) -> Result<(), DriverError> {
        if let Some((error, record)) = turn.defects.first() {
            let text = format!("{}: {record:?}", chain(error));
            return Err(DriverError::Defect(text));
        }
        for effect in std::mem::take(&mut turn.urgent) {
            self.perform(effect);
        }
        let ready: Vec<Effect> = self.outbox.push(&mut turn);
        if let Some(last) = turn.entries.last()
            && !turn.changes.is_empty()
        {
            self.untold.push_back((last.seq, turn.changes));
        }
        if !turn.entries.is_empty() {
            self.live_changed |= turn.entries.iter().any(|entry| changes_live(&entry.record));
            self.commit.add(turn.entries);
        }
        for effect in ready {
            self.perform(effect);
        }
        Ok(())
    }

    /// A supervisor that is to be killed does not wait for a disk once nothing of it lives.
    fn check_unrecorded(&self) -> Result<(), DriverError> {
        match &self.disk_error {
            Some(error) if self.stopping == Some(StopStage::Kill) && self.hosts.is_empty() => {
                Err(DriverError::Unrecorded(error.clone()))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Whether a process of the batch begins, gets its identity, or is over with this record.
fn changes_live(record: &Record) -> bool {
    matches!(
        record,
        Record::SupervisorStarted { .. } | Record::RunSpawned { .. } | Record::RunEnded { .. }
    )
}

async fn over(sleep: &mut Option<Pin<Box<Sleep>>>) {
    match sleep {
        Some(sleep) => sleep.await,
        None => std::future::pending().await,
    }
}

async fn stepped(replacing: &mut Option<Replacing>) -> Stepped {
    match replacing {
        Some(replacing) => replacing.next().await,
        None => std::future::pending().await,
    }
}

async fn refresh(interval: &mut Option<Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
