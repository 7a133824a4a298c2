//! Writes what `run` shows, on a thread of its own: a terminal that does not take output (Ctrl-S, a
//! pager) must never hold up the supervisor's loop.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::process::replace;

/// Lines that wait for a slow reader; what comes beyond is counted and said.
const LINES_MAX: usize = 16 * 1024;
/// Live lines on the screen: more would push the rest off a common terminal.
pub const ROWS_MAX: usize = 16;
/// The live lines are redrawn at most this often.
pub const REDRAW: Duration = Duration::from_millis(250);

/// Longest wait for a terminal that takes no output when another program takes our place.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// What a live display shows between two lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Board {
    /// Tasks that are settled.
    pub settled: u64,
    /// All tasks.
    pub all: u64,
    /// Counts, for people.
    pub counts: String,
    /// One line a running task.
    pub rows: Vec<String>,
}

enum Order {
    Line(String),
    Board(Board),
}

/// The loop's end of the thread.
#[derive(Debug)]
pub struct Screen {
    orders: Option<SyncSender<Order>>,
    thread: Option<JoinHandle<()>>,
    /// Closed when the thread has shown everything.
    ended: Receiver<()>,
    dropped: u64,
}

impl Screen {
    /// Starts the thread; `live` draws a board at the bottom of the terminal.
    ///
    /// # Errors
    /// When the system allows no more threads.
    pub fn start(live: bool) -> io::Result<Screen> {
        let (orders, to_show) = sync_channel(LINES_MAX);
        let (ending, ended) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("screen".into())
            .spawn(move || {
                hold_signals();
                if live {
                    draw(&to_show)
                } else {
                    print(&to_show)
                }
                drop::<SyncSender<()>>(ending);
            })?;
        Ok(Screen {
            orders: Some(orders),
            thread: Some(thread),
            ended,
            dropped: 0,
        })
    }

    /// Whether a live board makes sense: a person sees both streams, on a terminal that can move its
    /// cursor. On another one the board would not be drawn, and the lines above it neither.
    pub fn has_person() -> bool {
        let draws = std::env::var_os("TERM").is_some_and(|kind| kind != "dumb");
        draws && io::stdout().is_terminal() && io::stderr().is_terminal()
    }

    /// Shows a line; never waits.
    pub fn line(&mut self, text: String) {
        if self.dropped > 0 {
            let note = format!(
                "({} lines were not shown: the reader is too slow)",
                self.dropped
            );
            if !self.send(Order::Line(note)) {
                self.dropped += 1;
                return;
            }
            self.dropped = 0;
        }
        if !self.send(Order::Line(text)) {
            self.dropped += 1;
        }
    }

    /// Shows a board; one that finds no room is not missed, the next one is newer.
    pub fn board(&mut self, board: Board) {
        self.send(Order::Board(board));
    }

    fn send(&self, order: Order) -> bool {
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Err(TrySendError::Full(_))) => false,
            // A reader that is gone needs nothing more.
            Some(Ok(()) | Err(TrySendError::Disconnected(_))) | None => true,
        }
    }

    /// As [`Screen::close`], but waits no longer than `LEAVE_MAX`: a terminal that takes nothing
    /// must not hold up whoever leaves.
    pub fn leave(&mut self) {
        self.orders = None;
        match self.ended.recv_timeout(LEAVE_MAX) {
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the terminal takes no output: lines are lost");
                // It is stuck in a write, and ends with its program.
                drop(self.thread.take());
            }
            Ok(()) | Err(RecvTimeoutError::Disconnected) => self.close(),
        }
    }

    /// Shows what waits, takes the board away, and ends.
    pub fn close(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A display that panicked has nothing to add.
            let _ended = thread.join();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.close();
    }
}

/// Signals are for the loop's thread. Without it one that comes in the moment of a change of programs
/// could be lost; nothing else depends on it.
fn hold_signals() {
    if let Err(error) = replace::hold_signals() {
        tracing::debug!(%error, "the display's thread may receive signals");
    }
}

/// Plain lines; flushed when nothing more waits, so that a burst is one write.
fn print(orders: &Receiver<Order>) {
    let mut out = io::BufWriter::new(io::stdout());
    while let Ok(order) = orders.recv() {
        let mut next = Some(order);
        while let Some(order) = next {
            if let Order::Line(line) = order
                && writeln!(out, "{line}").is_err()
            {
                return;
            }
            next = orders.try_recv().ok();
        }
        if out.flush().is_err() {
            return;
        }
    }
}

/// Lines above, the board below.
fn draw(orders: &Receiver<Order>) {
    let all = MultiProgress::new();
    let style = |template: &str| {
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
    };
    let total = all.add(ProgressBar::new(0));
    total.set_style(style("{bar:24} {pos}/{len}  {wide_msg}"));
    let mut rows: Vec<ProgressBar> = Vec::new();
    while let Ok(order) = orders.recv() {
        match order {
            // The terminal is gone; the batch goes on, and so does its journal.
            Order::Line(line) => drop(all.println(line)),
            Order::Board(board) => {
                total.set_length(board.all);
                total.set_position(board.settled);
                total.set_message(board.counts);
                while rows.len() > board.rows.len() {
                    if let Some(row) = rows.pop() {
                        all.remove(&row);
                    }
                }
                while rows.len() < board.rows.len() {
                    let row = all.insert_before(&total, ProgressBar::new_spinner());
                    row.set_style(style("  {wide_msg}"));
                    rows.push(row);
                }
                for (row, text) in rows.iter().zip(board.rows) {
                    row.set_message(text);
                }
            }
        }
    }
    drop(all.clear());
}
