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
use tokio::sync::mpsc;

/// Time between two tries to write a group for which there was no room.
pub const RETRY: Duration = Duration::from_secs(2);
/// Orders under way at most: one group and one checkpoint.
const ORDERS_MAX: usize = 2;

/// Where groups of records become durable. The journal in the state dir; in tests a disk that
/// fails.
pub trait Log: Send + 'static {
    /// Makes these records durable, all in one group, or none of them.
    ///
    /// # Errors
    /// [`LogError`]: whether it is worth trying again.
    fn commit(&mut self, group: &[Entry]) -> Result<(), LogError>;

    /// Makes a checkpoint durable.
    ///
    /// # Errors
    /// [`LogError`]; a checkpoint is a shortcut, so nothing depends on it.
    fn save(&mut self, checkpoint: &[u8]) -> Result<(), LogError>;
}

/// Why a group is not durable.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No room, read-only, out of descriptors: it may go well later.
    #[error("the journal can not be written for now")]
    ForNow(#[source] io::Error),
    /// The journal is not what it was: going on could lose or double records.
    #[error("the journal can not be trusted any more")]
    ForGood(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What became of an order.
#[derive(Debug)]
pub enum Answer {
    /// Every record up to this number is durable.
    Durable {
        /// The number.
        seq: u64,
    },
    /// The group is kept and tried again; said once until one goes well.
    Delayed {
        /// Why, for people.
        error: LogError,
    },
    /// A checkpoint is durable, or was given up; the next may be ordered.
    Saved {
        /// Why it was given up.
        failed: Option<LogError>,
    },
    /// Nothing more will become durable.
    Broken {
        /// Why.
        error: LogError,
    },
}

#[derive(Debug)]
enum Order {
    Commit(Vec<Entry>),
    Save(Vec<u8>),
}

/// The loop's end of the commit thread.
#[derive(Debug)]
pub struct Committer {
    orders: Option<blocking::SyncSender<Order>>,
    answers: mpsc::Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    waiting: Vec<Entry>,
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
        // Two answers for each order at most: delayed, then durable.
        let (done, answers) = mpsc::channel(2 * ORDERS_MAX);
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || work(log, &to_do, &done))?;
        Ok(Committer {
            orders: Some(orders),
            answers,
            thread: Some(thread),
            waiting: Vec::new(),
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
        if !self.committing && !self.waiting.is_empty() {
            let group = std::mem::take(&mut self.waiting);
            self.committing = self.order(Order::Commit(group));
        }
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
        let answer = self.answers.recv().await;
        self.noted(answer)
    }

    /// The next answer if there is one already.
    pub fn answered(&mut self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        Some(self.noted(Some(answer)))
    }

    fn noted(&mut self, answer: Option<Answer>) -> Answer {
        let answer = answer.unwrap_or_else(|| Answer::Broken {
            error: LogError::ForGood("the journal's thread ended".into()),
        });
        match &answer {
            Answer::Durable { .. } => self.committing = false,
            Answer::Saved { .. } => self.saving = false,
            Answer::Delayed { .. } | Answer::Broken { .. } => {}
        }
        answer
    }

    /// The channel holds as many orders as can be under way, so it is never full; it is closed only
    /// after an answer `Broken`, which ends the loop.
    fn order(&mut self, order: Order) -> bool {
        self.orders
            .as_ref()
            .is_some_and(|orders| orders.try_send(order).is_ok())
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

fn work(mut log: impl Log, orders: &blocking::Receiver<Order>, done: &mpsc::Sender<Answer>) {
    let mut later = None;
    while let Some(order) = later.take().or_else(|| orders.recv().ok()) {
        let answer = match order {
            Order::Save(checkpoint) => Answer::Saved {
                failed: log.save(&checkpoint).err(),
            },
            Order::Commit(group) => match commit(&mut log, &group, orders, &mut later, done) {
                Some(answer) => answer,
                None => return,
            },
        };
        let broken = matches!(answer, Answer::Broken { .. });
        if done.blocking_send(answer).is_err() || broken {
            return;
        }
    }
}

/// Tries until the group is durable, or for good not; `None` when the loop has gone.
fn commit(
    log: &mut impl Log,
    group: &[Entry],
    orders: &blocking::Receiver<Order>,
    later: &mut Option<Order>,
    done: &mpsc::Sender<Answer>,
) -> Option<Answer> {
    let mut told = false;
    loop {
        match log.commit(group) {
            Ok(()) => {
                let seq = group.last().map_or(0, |entry| entry.seq);
                return Some(Answer::Durable { seq });
            }
            Err(error @ LogError::ForGood(_)) => return Some(Answer::Broken { error }),
            Err(error @ LogError::ForNow(_)) => {
                if !std::mem::replace(&mut told, true) {
                    done.blocking_send(Answer::Delayed { error }).ok()?;
                }
                wait_for_room(orders, later)?;
            }
        }
    }
}

/// Waits [`RETRY`], or less when the loop goes; a checkpoint ordered meanwhile is kept for later.
fn wait_for_room(orders: &blocking::Receiver<Order>, later: &mut Option<Order>) -> Option<()> {
    match orders.recv_timeout(RETRY) {
        Ok(order) => {
            *later = Some(order);
            Some(())
        }
        Err(blocking::RecvTimeoutError::Timeout) => Some(()),
        Err(blocking::RecvTimeoutError::Disconnected) => None,
    }
}
