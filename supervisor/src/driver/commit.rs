//! The thread that owns the journal: the loop never waits for the disk.
//!
//! One group of records is under way at a time; what is decided meanwhile gathers and becomes the
//! next group, so the disk's slowness makes groups larger instead of the queue longer. A group that
//! can not be written is kept and tried again until it can.

use std::io;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;
use std::time::Duration;

use supervisor_core::record::Entry;

use crate::driver::nudge::{self, Heard, LoopEnd, Nudger, ThreadEnd};
use crate::process::replace;
use crate::store::{Position, StoreError};

/// Time between two tries to write a group for which there was no room.
pub const RETRY: Duration = Duration::from_secs(2);
/// Orders under way at most: one group, or a list in its place, and one checkpoint.
const ORDERS_MAX: usize = 2;

/// Where groups of records become durable. The journal in the state dir; in tests a disk that
/// fails.
pub trait Log: Send + 'static {
    /// Makes these records durable in one group. After a failure the same group is given again.
    ///
    /// # Errors
    /// [`LogError`]: whether it is worth trying again.
    fn commit(&mut self, group: &[Entry]) -> Result<Written, LogError>;

    /// Makes a checkpoint durable.
    ///
    /// # Errors
    /// [`LogError`]; a checkpoint is a shortcut, so nothing depends on it.
    fn save(&mut self, checkpoint: &[u8]) -> Result<(), LogError>;

    /// Replaces the list of live processes. Nothing depends on it, so it may fail unseen.
    fn list(&mut self, registry: &[u8]);

    /// Gives up what is kept back for a full disk, so that the next try may go well.
    fn use_reserve(&mut self);

    /// Whether there is room again, also for what is kept back.
    fn has_room(&mut self) -> bool;
}

/// A group that is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Where it ends.
    pub at: Position,
    /// Its size, bytes.
    pub bytes: u64,
}

/// Why a group is not durable.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No room, read-only, a failed sync: it may go well later.
    #[error("the journal can not be written for now")]
    ForNow(#[source] StoreError),
    /// The journal is not what it was: going on could lose or double records.
    #[error("the journal can not be trusted any more")]
    ForGood(#[source] StoreError),
    /// The thread that writes it is gone.
    #[error("the journal's thread ended")]
    ThreadEnded,
}

/// What became of an order, and of the disk.
#[derive(Debug)]
pub enum Answer {
    /// Every record up to this place is durable.
    Durable(Written),
    /// The disk fails; what is being written is kept and tried again. Followed by `Room`, sooner
    /// or later, and said again only after that.
    Failing(LogError),
    /// The disk takes what is written again.
    Room,
    /// A checkpoint is durable, or was given up; the next may be ordered.
    Saved {
        /// Why it was given up.
        failed: Option<LogError>,
    },
    /// Nothing more will become durable.
    Broken(LogError),
}

#[derive(Debug)]
enum Order {
    /// Records, and the list of live processes where they change it.
    Commit(Vec<Entry>, Option<Vec<u8>>),
    Save(Vec<u8>),
    List(Vec<u8>),
}

/// The loop's end of the commit thread.
#[derive(Debug)]
pub struct Committer {
    /// Dropped to end the thread.
    orders: Option<(blocking::SyncSender<Order>, Nudger)>,
    answers: blocking::Receiver<Answer>,
    answered: LoopEnd,
    thread: Option<JoinHandle<()>>,
    waiting: Vec<Entry>,
    /// The list of live processes as the waiting records leave it.
    registry: Option<Vec<u8>>,
    committing: bool,
    saving: bool,
}

impl Committer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system allows no more threads.
    pub fn start(log: impl Log) -> io::Result<Committer> {
        let (orders, to_do) = blocking::sync_channel(ORDERS_MAX);
        // Each order brings three answers at most: failing, what became of it, room.
        let (done, answers) = blocking::sync_channel(3 * ORDERS_MAX);
        let (order_nudger, ordered) = nudge::to_thread()?;
        let (answer_nudger, answered) = nudge::to_loop()?;
        let writer = Writer {
            log,
            orders: to_do,
            ordered,
            done,
            told: answer_nudger,
            later: None,
            failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                // Signals are for the loop's thread: one that this thread took in the moment of a
                // change of programs would be lost.
                if let Err(error) = replace::hold_signals() {
                    tracing::debug!(%error, "the journal's thread may receive signals");
                }
                // The loop goes first, and then there is nobody to tell.
                if let Err(Gone) = writer.work() {
                    tracing::debug!("the journal's thread ends");
                }
            })?;
        Ok(Committer {
            orders: Some((orders, order_nudger)),
            answers,
            answered,
            thread: Some(thread),
            waiting: Vec::new(),
            registry: None,
            committing: false,
            saving: false,
        })
    }

    /// Takes records; they go to the disk with the next group.
    pub fn add(&mut self, entries: Vec<Entry>) {
        if self.waiting.is_empty() {
            self.waiting = entries;
        } else {
            self.waiting.extend(entries);
        }
    }

    /// Sends what has gathered on its way, unless a group is under way.
    pub fn flush(&mut self) {
        if self.may_flush() {
            let group = std::mem::take(&mut self.waiting);
            let order = Order::Commit(group, self.registry.take());
            self.committing = self.order(order);
        }
    }

    /// Whether the next [`Committer::flush`] sends records on their way.
    pub fn may_flush(&self) -> bool {
        !self.committing && !self.waiting.is_empty()
    }

    /// Takes the list of live processes; it is written once the records that wait are durable.
    pub fn list(&mut self, registry: Vec<u8>) {
        self.registry = Some(registry);
    }

    /// Sends the list of live processes on its way by itself; only when every record is durable
    /// ([`Committer::is_idle`]).
    pub fn list_alone(&mut self, registry: Vec<u8>) {
        // There is room: no group is under way. It is only a list that is older otherwise.
        let _sent = self.order(Order::List(registry));
    }

    /// Sends a checkpoint on its way; only when none is ([`Committer::may_save`]).
    pub fn save(&mut self, checkpoint: Vec<u8>) {
        self.saving = self.order(Order::Save(checkpoint));
    }

    /// Whether no checkpoint is under way.
    pub fn may_save(&self) -> bool {
        !self.saving
    }

    /// Records that wait for the group under way.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether every record taken so far is durable.
    pub fn is_idle(&self) -> bool {
        !self.committing && self.waiting.is_empty()
    }

    /// The next answer. Cancel-safe: an answer is either returned or stays in the channel.
    pub async fn answer(&mut self) -> Answer {
        loop {
            if let Some(answer) = self.answered() {
                return answer;
            }
            if self.answered.nudged().await.is_err() {
                return Answer::Broken(LogError::ThreadEnded); // the loop itself is ending
            }
        }
    }

    /// The next answer if there is one already.
    pub fn answered(&mut self) -> Option<Answer> {
        match self.answers.try_recv() {
            Ok(answer) => Some(self.noted(answer)),
            Err(blocking::TryRecvError::Empty) => None,
            Err(blocking::TryRecvError::Disconnected) => {
                Some(Answer::Broken(LogError::ThreadEnded))
            }
        }
    }

    fn noted(&mut self, answer: Answer) -> Answer {
        match &answer {
            Answer::Durable(_) => self.committing = false,
            Answer::Saved { .. } => self.saving = false,
            Answer::Failing(_) | Answer::Room | Answer::Broken(_) => {}
        }
        answer
    }

    /// The channel holds as many orders as can be under way, so it is never full; it is closed only
    /// after an answer `Broken`, which ends the loop.
    fn order(&mut self, order: Order) -> bool {
        self.orders.as_ref().is_some_and(|(orders, nudger)| {
            let sent = orders.try_send(order).is_ok();
            if sent {
                nudger.nudge();
            }
            sent
        })
    }

    /// Ends the thread: a group under way is finished, one that waits for room is given up.
    pub fn end(mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

/// The loop has gone; there is nobody to work for.
struct Gone;

/// The thread's side.
struct Writer<L> {
    log: L,
    orders: blocking::Receiver<Order>,
    ordered: ThreadEnd,
    /// Dropped before the pipe that tells of it.
    done: blocking::SyncSender<Answer>,
    told: Nudger,
    /// Ordered while a group waited for room.
    later: Option<Order>,
    failing: bool,
}

impl<L: Log> Writer<L> {
    fn work(mut self) -> Result<(), Gone> {
        loop {
            match self.next_order()? {
                Some(Order::Save(checkpoint)) => {
                    let failed = self.log.save(&checkpoint).err();
                    self.tell(Answer::Saved { failed })?;
                }
                Some(Order::List(registry)) => self.log.list(&registry),
                Some(Order::Commit(group, registry)) => match self.commit(&group)? {
                    Ok(written) => {
                        self.tell(Answer::Durable(written))?;
                        if let Some(registry) = registry {
                            self.log.list(&registry);
                        }
                    }
                    Err(error) => return self.tell(Answer::Broken(error)),
                },
                None => {}
            }
            if self.failing && self.log.has_room() {
                self.failing = false;
                self.tell(Answer::Room)?;
            }
        }
    }

    /// Tries until the group is durable, or for good not.
    fn commit(&mut self, group: &[Entry]) -> Result<Result<Written, LogError>, Gone> {
        let mut reserve_used = false;
        loop {
            match self.log.commit(group) {
                Ok(written) => return Ok(Ok(written)),
                Err(error @ LogError::ForNow(_)) => {
                    if !std::mem::replace(&mut self.failing, true) {
                        self.tell(Answer::Failing(error))?;
                    }
                    if !std::mem::replace(&mut reserve_used, true) {
                        self.log.use_reserve();
                    } else if let Some(order) = self.wait()? {
                        self.later = Some(order);
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// The next order; `None` when, with a failing disk, it is time to look at it again.
    fn next_order(&mut self) -> Result<Option<Order>, Gone> {
        if let Some(order) = self.later.take() {
            return Ok(Some(order));
        }
        if self.failing {
            return self.wait();
        }
        let heard = self.ordered.wait(None);
        self.order(heard)
    }

    /// Waits [`RETRY`] at most.
    fn wait(&mut self) -> Result<Option<Order>, Gone> {
        let heard = self.ordered.wait(Some(RETRY));
        self.order(heard)
    }

    /// Each order is sent before its nudge, and each nudge is heard once.
    fn order(&mut self, heard: io::Result<Heard>) -> Result<Option<Order>, Gone> {
        match heard {
            Ok(Heard::Nudge) => self.orders.try_recv().map(Some).map_err(|_| Gone),
            Ok(Heard::Nothing) => Ok(None),
            Ok(Heard::End) | Err(_) => Err(Gone),
        }
    }

    fn tell(&self, answer: Answer) -> Result<(), Gone> {
        let told = self.done.send(answer).map_err(|_| Gone);
        self.told.nudge();
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use std::sync::{Arc, Mutex};
    use supervisor_core::record::Record;
    use supervisor_core::time::Now;

    /// What the disk will do with each write, and what became durable.
    #[derive(Debug, Clone, Default)]
    struct Paper(Arc<Mutex<Script>>);

    #[derive(Debug, Default)]
    struct Script {
        failures: Vec<StoreError>,
        durable: Vec<Vec<u64>>,
        reserve_used: u32,
        room: bool,
        saved: Vec<Vec<u8>>,
        listed: Vec<Vec<u8>>,
    }

    impl Log for Paper {
        fn commit(&mut self, group: &[Entry]) -> Result<Written, LogError> {
            let mut script = self.0.lock().unwrap();
            if let Some(error) = script.failures.pop() {
                return Err(if error.is_disk() {
                    LogError::ForNow(error)
                } else {
                    LogError::ForGood(error)
                });
            }
            let seqs: Vec<u64> = group.iter().map(|entry| entry.seq).collect();
            let seq = *seqs.last().unwrap();
            script.durable.push(seqs);
            let at = Position {
                seq,
                segment: 1,
                offset: seq * 10,
            };
            Ok(Written { at, bytes: 10 })
        }
        fn list(&mut self, registry: &[u8]) {
            self.0.lock().unwrap().listed.push(registry.to_vec());
        }
        fn save(&mut self, checkpoint: &[u8]) -> Result<(), LogError> {
            self.0.lock().unwrap().saved.push(checkpoint.to_vec());
            Ok(())
        }
        fn use_reserve(&mut self) {
            self.0.lock().unwrap().reserve_used += 1;
        }
        fn has_room(&mut self) -> bool {
            self.0.lock().unwrap().room
        }
    }

    fn full() -> StoreError {
        StoreError::Full {
            file: PathBuf::from("journal"),
            source: io::ErrorKind::StorageFull.into(),
        }
    }

    fn damaged() -> StoreError {
        StoreError::Unreadable {
            file: PathBuf::from("journal"),
            offset: 7,
            why: "gone".into(),
        }
    }

    fn entries(seqs: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        seqs.map(|seq| Entry {
            seq,
            term: 1,
            now: Now::default(),
            record: Record::PlanClosed,
        })
        .collect()
    }

    fn start(script: Script) -> (Committer, Paper) {
        let paper = Paper(Arc::new(Mutex::new(script)));
        (Committer::start(paper.clone()).unwrap(), paper)
    }

    async fn durable(committer: &mut Committer) -> u64 {
        match committer.answer().await {
            Answer::Durable(written) => written.at.seq,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn what_is_decided_while_a_group_is_under_way_becomes_one_group() {
        let (mut committer, paper) = start(Script::default());
        committer.add(entries(1..=2));
        committer.flush();
        committer.add(entries(3..=3));
        committer.flush();
        committer.add(entries(4..=5));
        committer.flush();
        assert_eq!(committer.waiting(), 3);
        assert_eq!(durable(&mut committer).await, 2);
        committer.flush();
        assert_eq!(durable(&mut committer).await, 5);
        assert!(committer.is_idle());
        committer.end();
        assert_eq!(paper.0.lock().unwrap().durable, [vec![1, 2], vec![3, 4, 5]]);
    }

    #[tokio::test]
    async fn the_list_of_what_lives_is_never_ahead_of_its_records() {
        let (mut committer, paper) = start(Script::default());
        committer.list(vec![1]);
        committer.add(entries(1..=1));
        committer.flush();
        assert_eq!(durable(&mut committer).await, 1);
        committer.list(vec![2]);
        committer.list(vec![3]);
        assert!(!committer.may_flush(), "a list alone is no reason to write");
        committer.flush();
        committer.add(entries(2..=2));
        committer.flush();
        assert_eq!(durable(&mut committer).await, 2);
        committer.end();
        assert_eq!(paper.0.lock().unwrap().listed, [vec![1], vec![3]]);
    }

    #[tokio::test]
    async fn a_list_of_its_own_is_written_where_nothing_else_is() {
        let (mut committer, paper) = start(Script::default());
        committer.list_alone(vec![7]);
        committer.end();
        let script = paper.0.lock().unwrap();
        assert_eq!(script.listed, [vec![7]]);
        assert!(script.durable.is_empty(), "it is no group");
    }

    #[tokio::test]
    async fn a_full_disk_is_told_once_and_the_reserve_lets_the_group_through() {
        let (mut committer, paper) = start(Script {
            failures: vec![full()],
            ..Script::default()
        });
        committer.add(entries(1..=1));
        committer.flush();
        assert!(matches!(committer.answer().await, Answer::Failing(_)));
        assert_eq!(durable(&mut committer).await, 1);
        committer.add(entries(2..=2));
        committer.flush();
        assert_eq!(durable(&mut committer).await, 2);
        paper.0.lock().unwrap().room = true;
        committer.add(entries(3..=3));
        committer.flush();
        // The thread may find the room before or after the group.
        let (mut written, mut room) = (0, false);
        while written < 3 || !room {
            match committer.answer().await {
                Answer::Durable(group) => written = group.at.seq,
                Answer::Room => room = true,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(paper.0.lock().unwrap().reserve_used, 1);
        committer.end();
    }

    #[tokio::test]
    async fn a_damaged_journal_ends_everything() {
        let (mut committer, paper) = start(Script {
            failures: vec![damaged()],
            ..Script::default()
        });
        committer.add(entries(1..=1));
        committer.flush();
        assert!(matches!(
            committer.answer().await,
            Answer::Broken(LogError::ForGood(_))
        ));
        assert!(matches!(
            committer.answer().await,
            Answer::Broken(LogError::ThreadEnded)
        ));
        committer.end();
        assert!(paper.0.lock().unwrap().durable.is_empty());
    }

    #[tokio::test]
    async fn a_group_that_waits_for_room_does_not_hold_up_the_end() {
        let (mut committer, paper) = start(Script {
            failures: vec![full(), full()],
            ..Script::default()
        });
        committer.add(entries(1..=1));
        committer.flush();
        assert!(matches!(committer.answer().await, Answer::Failing(_)));
        committer.end();
        assert!(paper.0.lock().unwrap().durable.is_empty());
    }

    #[tokio::test]
    async fn a_checkpoint_is_written_after_the_group_before_it() {
        let (mut committer, paper) = start(Script::default());
        committer.add(entries(1..=1));
        committer.flush();
        committer.save(vec![7]);
        assert!(!committer.may_save());
        assert_eq!(durable(&mut committer).await, 1);
        assert!(matches!(
            committer.answer().await,
            Answer::Saved { failed: None }
        ));
        assert!(committer.may_save());
        committer.end();
        assert_eq!(paper.0.lock().unwrap().saved, [[7]]);
    }
}
