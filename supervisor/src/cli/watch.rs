//! `run` against a live batch whose guardian has died: takes that one's place by watching. The
//! supervisor is no child of ours, so its end is seen through its pin, and what came of the batch is
//! read from the disk.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use supervisor_core::time::BootId;

use crate::cli::error::{CliError, Code};
use crate::cli::open::Found;
use crate::cli::processes::identity_of;
use crate::cli::run::ourselves;
use crate::cli::{Io, act, attach, choose, pace};
use crate::control::client::{ClientError, Replies};
use crate::control::wire::Want;
use crate::driver::clock::Clock;
use crate::guardian::Guarded;
use crate::guardian::signals::{Came, HEARD, Signals};
use crate::guardian::twins::{Twins, Way};
use crate::process::identity::Machine;
use crate::process::inherited;
use crate::process::recorded::{Proven, Refused};
use crate::store::lock::{self, Holder};
use crate::store::{Lock, LockState, RealDisk, StoreError, registry};

/// Looks at the place of a guardian that is held by a process whose own guardian has died: it ends
/// once it sees that (two seconds; it takes a millisecond).
const LEAVING_LOOKS_MAX: u32 = 10;
/// Longest wait for the rest of a reply of which a part has come.
const REPLY_MAX: std::time::Duration = std::time::Duration::from_millis(1);

/// Takes the place of the dead guardian of this live supervisor; only one may.
///
/// # Errors
/// Refused (8) when another `run` has it, naming the pids.
pub(super) fn take_place(
    batch: &Found,
    holder: &Holder,
    guarded: &Guarded,
) -> Result<Lock, CliError> {
    let us = ourselves(PathBuf::new(), Some(guarded));
    for _ in 0..LEAVING_LOOKS_MAX {
        match lock::watch(&batch.dir, &us) {
            Err(StoreError::Held { .. }) => {}
            other => return Ok(other?),
        }
        if batch.guard()?.is_some_and(|guard| guard.alive) {
            break;
        }
        pace::before_next_look();
    }
    let pid = batch.guard()?.map(|guard| guard.pid);
    let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    let error = choose::live(batch, Some(holder.pid));
    Err(error.hint(format!("another `supervisor run`{pid} watches it")))
}

/// Watches the supervisor to its end, shows the steps of its batch, and hands on signals. The exit
/// code of the batch when it has ended; `None` when the supervisor died: then the batch is to be gone
/// on with.
///
/// # Errors
/// When the kernel does not let us watch (10), the batch can not be read (9), or stdout can not be
/// written.
pub(super) fn watch(
    batch: &Found,
    holder: &Holder,
    guarded: &Guarded,
    json: bool,
    io: &mut Io<'_>,
) -> Result<Option<Code>, CliError> {
    let machine = Machine::here().map_err(|e| CliError::from_source(Code::Environment, &e))?;
    let identity = identity_of(&machine, holder.pid, holder.start_ticks);
    let supervisor = match Proven::find(&machine, &identity) {
        Ok(proven) => proven,
        Err(Refused::Gone { .. } | Refused::Differs { .. }) => return gone(batch, holder),
        Err(error @ Refused::System { .. }) => {
            return Err(CliError::from_source(Code::Environment, &error));
        }
    };
    let (id, pid) = (&batch.id, holder.pid);
    let lost = batch.first_guard()?.map_or(0, |guard| guard.pid);
    let text = format!(
        "{id}: its guardian (pid {lost}) is gone; supervisor pid {pid} is watched from here"
    );
    attach::tell(json, "note", &text, io)?;
    let mut watch = Watch {
        batch,
        supervisor,
        guarded,
        signals: Signals::hear().map_err(system("hear signals"))?,
        twins: Twins::default(),
        shares_group: shares_group(pid),
        asked: false,
        steps: None,
    };
    let end = watch.attend(json, io)?;
    let asked = watch.asked;
    drop(watch);
    inherited::unblock(&HEARD).map_err(system("let signals through"))?;
    match end {
        End::GuardianGone => Ok(Some(Code::Interrupted)),
        End::Supervisor if asked || is_at_rest(batch) => attach::over(batch, json, io).map(Some),
        End::Supervisor => {
            let text = format!("{id}: supervisor pid {pid} died; its batch is gone on with");
            attach::tell(json, "note", &text, io)?;
            Ok(None)
        }
    }
}

/// The supervisor ended between two looks. A lock that is held all the same is nobody's to take.
fn gone(batch: &Found, holder: &Holder) -> Result<Option<Code>, CliError> {
    match batch.lock()? {
        LockState::Held(Some(now)) if now == *holder => Err(choose::live(batch, Some(holder.pid))),
        LockState::Held(_) | LockState::Free => Ok(None),
    }
}

/// Whether the supervisor ended by itself: then it said that nothing lives, as its last act. One that
/// died did not come to that.
fn is_at_rest(batch: &Found) -> bool {
    let listed = registry::read(&RealDisk, &batch.dir).ok().flatten();
    listed.is_some_and(|listed| listed.proves_rest(&batch.dir))
}

/// Whether what is sent to our process group reaches the supervisor too.
fn shares_group(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let theirs = pid.and_then(|pid| rustix::process::getpgid(Some(pid)).ok());
    theirs == Some(rustix::process::getpgrp())
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> CliError {
    move |error| CliError::new(Code::Environment, format!("can not {what}: {error}"))
}

enum End {
    /// The supervisor has ended.
    Supervisor,
    /// Our own guardian has died: nobody waits for us any more.
    GuardianGone,
}

struct Watch<'a> {
    batch: &'a Found,
    supervisor: Proven,
    guarded: &'a Guarded,
    signals: Signals,
    twins: Twins<Signal>,
    shares_group: bool,
    /// Somebody asked for an end: a supervisor that dies is not followed by another.
    asked: bool,
    /// The steps of the batch, while the supervisor tells them.
    steps: Option<Replies>,
}

impl Watch<'_> {
    fn attend(&mut self, json: bool, io: &mut Io<'_>) -> Result<End, CliError> {
        loop {
            if self.steps.is_none() {
                // One that does not answer is watched all the same.
                self.steps = act::ask(self.batch, &Want::Watch).ok().flatten();
            }
            let has_ended = self.wait().map_err(system("wait"))?;
            while let Some(came) = self.signals.next().map_err(system("read signals"))? {
                self.hand_on(came);
            }
            if self.guarded.is_over() {
                return Ok(End::GuardianGone);
            }
            self.show(json, io)?;
            if has_ended {
                return Ok(End::Supervisor);
            }
        }
    }

    /// Sleeps until there is something to do; whether the supervisor has ended.
    fn wait(&self) -> io::Result<bool> {
        let [supervisor, guardian] = [self.supervisor.as_fd(), self.guarded.as_fd()];
        let mut polled = vec![
            PollFd::from_borrowed_fd(supervisor, PollFlags::IN),
            PollFd::from_borrowed_fd(guardian, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        let mut timeout = None;
        match &self.steps {
            Some(steps) => polled.push(PollFd::from_borrowed_fd(steps.as_fd(), PollFlags::IN)),
            None => {
                timeout = Some(Timespec {
                    tv_sec: 0,
                    tv_nsec: i64::from(pace::LOOK_AGAIN.subsec_nanos()),
                });
            }
        }
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!polled[0].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows what the supervisor has told by now.
    fn show(&mut self, json: bool, io: &mut Io<'_>) -> Result<(), CliError> {
        while let Some(steps) = &mut self.steps {
            match steps.next(Some(REPLY_MAX)) {
                Ok(Some(reply)) => attach::show(&reply, json, io)?,
                Err(ClientError::TimedOut { .. }) => break,
                Ok(None) | Err(_) => self.steps = None,
            }
        }
        Ok(())
    }

    /// Hands a signal on to the supervisor, by its proven identity. What was sent to the whole group
    /// reaches it by itself where it is in that group; what comes two ways counts once.
    fn hand_on(&mut self, came: Came) {
        self.asked = true;
        let way = match came.sender == Some(self.guarded.pid()) {
            true => Way::HandedOn,
            false => Way::Direct,
        };
        let now = Clock::new(BootId::default()).now().boot;
        let is_second = self.twins.is_second(came.signal, way, now);
        if is_second || (way == Way::Direct && self.shares_group) {
            return;
        }
        if let Some(signal) = rustix::process::Signal::from_named_raw(came.signal as i32) {
            // It is just ending, which is what was asked for.
            drop(self.supervisor.signal(signal));
        }
    }
}
