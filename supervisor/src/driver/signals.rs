//! Signals to the supervisor become the stages of its stop.
//!
//! | signal | first | second | third |
//! |---|---|---|---|
//! | SIGINT (Ctrl-C) | drain: what runs may finish | stop what runs, with grace | kill |
//! | SIGTERM | stop what runs, with grace | kill | |
//! | SIGHUP (the terminal is gone) | stop what runs, with grace | says nothing new | |
//!
//! Ctrl-C drains first because a person at a terminal most often wants the batch to end without
//! losing what runs now; whoever is in a hurry presses it again. SIGTERM comes from a service
//! manager or a shutdown, which will not wait for hours of work, so it never drains. A terminal is
//! closed only once, but up to three tell of it: the kernel, the shell, the guardian. A stage once
//! reached is never taken back by a signal; `supervisor run` goes on with the batch. SIGPIPE is
//! ignored (the language's runtime does it before `main`): a reader that goes away is an error of
//! the write, not the end of the supervisor.
//!
//! A guardian hands on what was sent to it. What was sent to the whole group (`kill %1` of a shell,
//! `timeout`) comes twice then, from the sender and from the guardian, and counts once.

use std::io;
use std::time::Duration;

use supervisor_core::input::StopStage;
use supervisor_core::time::BootId;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::driver::clock::Clock;
use crate::guardian::Guarded;
use crate::guardian::channel::{self, Word};
use crate::guardian::twins::{Twins, Way};

/// One look of the event loop at its sources; the shortest time that it can wait.
const LOOK: Duration = Duration::from_millis(1);

/// Which kind of signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Interrupt,
    Terminate,
    Hangup,
}

/// What was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// A stop, of this stage.
    Stop(StopStage),
    /// The guardian has died.
    GuardianGone,
}

/// The signals that stop a supervisor.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// Where a guardian hands signals on, while it lives.
    guardian: Option<UnixStream>,
    twins: Twins<Came>,
    stage: Option<StopStage>,
}

impl Signals {
    /// From now on signals are heard here instead of ending the process.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen(guarded: Option<&Guarded>) -> io::Result<Signals> {
        // Before the rest: a signal that is handed on meanwhile waits in the line, and is not taken
        // for a second one.
        let guardian = guarded.map(|guarded| {
            let line = UnixStream::from_std(guarded.listen()?)?;
            guarded.tell(&Word::Listening);
            io::Result::Ok(line)
        });
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            guardian: guardian.transpose()?,
            twins: Twins::default(),
            stage: None,
        })
    }

    /// As [`Signals::listen`], for a supervisor whose signals have reached this stage already.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen_from(stage: Option<StopStage>, guarded: Option<&Guarded>) -> io::Result<Signals> {
        let listening = Signals::listen(guarded)?;
        Ok(Signals { stage, ..listening })
    }

    /// The stage that signals have reached.
    pub fn stage(&self) -> Option<StopStage> {
        self.stage
    }

    /// The stage that signals ask for which have arrived by now, if any have.
    pub async fn arrived(&mut self) -> Option<StopStage> {
        let mut reached = None;
        // A signal is seen when the event loop looks at its sources, which it does before any time
        // has passed. Each kind comes once: the kernel holds back what comes later.
        while let Ok(heard) = tokio::time::timeout(LOOK, self.next()).await {
            match heard {
                Heard::Stop(stage) => reached = Some(stage),
                // The next program sees for itself that it has none.
                Heard::GuardianGone => {}
            }
        }
        reached
    }

    /// What is heard next. Cancel-safe: a signal that was not returned is still pending. Signals
    /// that come faster than they are read count as one.
    pub async fn next(&mut self) -> Heard {
        loop {
            let (came, way) = tokio::select! {
                _ = self.interrupt.recv() => (Came::Interrupt, Way::Direct), // cancel-safe by contract
                _ = self.terminate.recv() => (Came::Terminate, Way::Direct), // cancel-safe by contract
                _ = self.hangup.recv() => (Came::Hangup, Way::Direct), // cancel-safe by contract
                // cancel-safe: a byte is returned or stays in the socket
                handed = handed_on(&mut self.guardian) => match handed {
                    Some(came) => (came, Way::HandedOn),
                    None => {
                        self.guardian = None;
                        return Heard::GuardianGone;
                    }
                },
            };
            let now = Clock::new(BootId::default()).now().boot;
            if !self.twins.is_second(came, way, now) {
                let stage = after(self.stage, came);
                self.stage = Some(stage);
                return Heard::Stop(stage);
            }
        }
    }
}

/// The next signal that the guardian hands on; `None` once it has died. Without one it never comes.
async fn handed_on(guardian: &mut Option<UnixStream>) -> Option<Came> {
    let Some(line) = guardian else {
        return std::future::pending().await;
    };
    let mut byte = [0];
    loop {
        let count = line.read(&mut byte).await.ok()?;
        let came = match byte[0] {
            _nothing if count == 0 => return None,
            channel::INTERRUPT => Came::Interrupt,
            channel::TERMINATE => Came::Terminate,
            channel::HANGUP => Came::Hangup,
            _unknown => continue,
        };
        return Some(came);
    }
}

fn after(stage: Option<StopStage>, came: Came) -> StopStage {
    match (stage, came) {
        (None, Came::Interrupt) => StopStage::Drain,
        (None, Came::Terminate | Came::Hangup)
        | (Some(StopStage::Drain), _)
        | (Some(StopStage::Stop), Came::Hangup) => StopStage::Stop,
        (Some(StopStage::Stop), Came::Interrupt | Came::Terminate) | (Some(StopStage::Kill), _) => {
            StopStage::Kill
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stages(came: &[Came]) -> Vec<StopStage> {
        let mut stage = None;
        came.iter()
            .map(|&came| *stage.insert(after(stage, came)))
            .collect()
    }

    #[test]
    fn ctrl_c_drains_then_stops_then_kills() {
        use StopStage::{Drain, Kill, Stop};
        assert_eq!(stages(&[Came::Interrupt; 4]), [Drain, Stop, Kill, Kill]);
    }

    #[test]
    fn terminate_never_drains() {
        use StopStage::{Kill, Stop};
        assert_eq!(stages(&[Came::Terminate; 3]), [Stop, Kill, Kill]);
    }

    #[test]
    fn a_terminal_that_closes_is_told_of_more_than_once_and_closes_once() {
        use StopStage::{Kill, Stop};
        assert_eq!(stages(&[Came::Hangup; 3]), [Stop, Stop, Stop]);
        let then_asked = [Came::Hangup, Came::Terminate, Came::Hangup];
        assert_eq!(stages(&then_asked), [Stop, Kill, Kill]);
    }

    #[test]
    fn mixed_signals_only_grow_harder() {
        for mask in 0..16_u32 {
            let came: Vec<Came> = (0..4)
                .map(|bit| {
                    if mask >> bit & 1 == 0 {
                        Came::Interrupt
                    } else {
                        Came::Terminate
                    }
                })
                .collect();
            let stages = stages(&came);
            assert!(stages.windows(2).all(|pair| pair[0] <= pair[1]), "{came:?}");
            assert_eq!(stages[3], StopStage::Kill);
        }
    }
}
