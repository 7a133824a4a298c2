//! Signals to the supervisor become the stages of its stop.
//!
//! | signal | first | second | third |
//! |---|---|---|---|
//! | SIGINT (Ctrl-C) | drain: what runs may finish | stop what runs, with grace | kill |
//! | SIGTERM, SIGHUP | stop what runs, with grace | kill | |
//!
//! Ctrl-C drains first because a person at a terminal most often wants the batch to end without
//! losing what runs now; whoever is in a hurry presses it again. SIGTERM comes from a service
//! manager or a shutdown, which will not wait for hours of work, so it never drains. A stage once
//! reached is never taken back by a signal; `supervisor run` goes on with the batch. SIGPIPE is
//! ignored (the language's runtime does it before `main`): a reader that goes away is an error of
//! the write, not the end of the supervisor.

use std::io;
use std::time::Duration;

use supervisor_core::input::StopStage;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// One look of the event loop at its sources; the shortest time that it can wait.
const LOOK: Duration = Duration::from_millis(1);

/// Which kind of signal came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Interrupt,
    Terminate,
}

/// The signals that stop a supervisor.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    stage: Option<StopStage>,
}

impl Signals {
    /// From now on signals are heard here instead of ending the process.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            stage: None,
        })
    }

    /// As [`Signals::listen`], for a supervisor whose signals have reached this stage already.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen_from(stage: Option<StopStage>) -> io::Result<Signals> {
        let listening = Signals::listen()?;
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
        while let Ok(stage) = tokio::time::timeout(LOOK, self.next()).await {
            reached = Some(stage);
        }
        reached
    }

    /// The stage that the next signal asks for. Cancel-safe: a signal that was not returned is
    /// still pending. Signals that come faster than they are read count as one.
    pub async fn next(&mut self) -> StopStage {
        let came = tokio::select! {
            _ = self.interrupt.recv() => Came::Interrupt, // cancel-safe by its own contract
            _ = self.terminate.recv() => Came::Terminate, // cancel-safe by its own contract
            _ = self.hangup.recv() => Came::Terminate, // cancel-safe by its own contract
        };
        let stage = after(self.stage, came);
        self.stage = Some(stage);
        stage
    }
}

fn after(stage: Option<StopStage>, came: Came) -> StopStage {
    match (stage, came) {
        (None, Came::Interrupt) => StopStage::Drain,
        (None, Came::Terminate) | (Some(StopStage::Drain), _) => StopStage::Stop,
        (Some(StopStage::Stop | StopStage::Kill), _) => StopStage::Kill,
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
