//! The nasty agent: starts what tries to outlive it, sees it written down, and then leaves or stays.
//!
//! Everything hostile ends by itself: after [`LIFE`], or as soon as the ledger's folder is gone.

use std::convert::Infallible;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, raise};
use nix::unistd::{Pid, Uid, setpgid, setsid};

use super::escape::Escape;
use super::kernel::{self, Side};
use super::ledger::{Ledger, Life};
use crate::clock::{Deadline, pause};

/// Longest life of anything hostile: longer than a cell of the matrix, short enough that a machine
/// on which a test was killed is soon clean again.
pub const LIFE: Duration = Duration::from_secs(120);
/// Between two looks at whether the story is over.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Between two looks at whether everything is written down.
const READY_EVERY: Duration = Duration::from_millis(5);
/// Life of one link of a comet.
const HOP: Duration = Duration::from_millis(1);
/// Children of each process of the storm, and its generations: 3 + 9 + 27 processes.
const STORM: (usize, usize) = (3, 3);
/// The user that nobody is.
const NOBODY: u32 = 65_534;

/// What the agent does once its descendants are out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Exits with 0, as if all were well.
    Leaves,
    /// Stays until it is ended.
    Stays,
}

/// Plays an agent: the first one of its escape is nasty, a later one looks whether anything of the
/// first is alive (then it says so in `overlaps`) and ends well.
///
/// # Errors
/// When its escape does not work here.
pub fn play(escape: Escape, ledger: &Ledger, then: Then) -> io::Result<()> {
    let begun = ledger.path("begun").join(escape.word());
    let first = OpenOptions::new().write(true).create_new(true).open(begun);
    if first.is_err() {
        return look_for_the_first(escape, ledger);
    }
    let mut cage = Cage {
        escape,
        ledger: ledger.clone(),
        pen: ledger.pen()?,
        until: Deadline::after(LIFE),
    };
    Ledger::sign(&mut cage.pen, escape)?;
    cage.open()?;
    while !ledger.is_out(escape) && !cage.until.is_over() {
        kernel::collect_all();
        pause(READY_EVERY);
    }
    match then {
        Then::Leaves => Ok(()),
        Then::Stays => cage.stay(),
    }
}

fn look_for_the_first(escape: Escape, ledger: &Ledger) -> io::Result<()> {
    let alive = ledger.survivors(escape, None);
    if !alive.is_empty() {
        let mut file = OpenOptions::new();
        let mut file = file
            .append(true)
            .create(true)
            .open(ledger.path("overlaps"))?;
        file.write_all(format!("{escape} {alive:?}\n").as_bytes())?;
    }
    Ok(())
}

/// One escape under way.
struct Cage {
    escape: Escape,
    ledger: Ledger,
    pen: File,
    until: Deadline,
}

impl Cage {
    /// Lets it out.
    fn open(&mut self) -> io::Result<()> {
        if self.escape != Escape::HoldsPipe {
            be_silent()?;
        }
        match self.escape {
            Escape::Background | Escape::HoldsPipe => self.child(|_| Ok(())),
            Escape::Nohup => self.child(|_| kernel::ignore(&[Signal::SIGHUP])),
            Escape::Setsid => self.child(|_| begin_session()),
            Escape::OwnGroup => self.child(|_| own_group()),
            Escape::IgnoresSignals => self.child(|_| ignore_polite_signals()),
            Escape::NonDumpable => self.child(|_| begin_session().and_then(|()| kernel::hide())),
            Escape::PdeathReset => {
                self.child(|_| begin_session().and_then(|()| kernel::forget_parent()))
            }
            Escape::OtherUser => self.child(|_| {
                begin_session()?;
                Ok(nix::unistd::setuid(Uid::from_raw(NOBODY))?)
            }),
            Escape::CgroupMove => self.child(|cage| {
                begin_session()?;
                cage.move_to_another_cgroup()
            }),
            Escape::Stopped => self.child(Cage::stop),
            Escape::DoubleFork => self.grandchild(|_| Ok(())),
            Escape::Daemon => self.grandchild(|_| begin_session()),
            Escape::ClosesFds => self.grandchild(|cage| {
                begin_session()?;
                cage.sign_and_close()
            }),
            Escape::ClearsEnvironment => self.again(&[]),
            Escape::ClobbersVariable => self.again(&[
                "SUPERVISOR_TOKEN=0123456789abcdef0123456789abcdef".to_owned(),
                "SUPERVISOR_BATCH=another".to_owned(),
            ]),
            Escape::CometNoEnvironment
            | Escape::NestedSubreaper
            | Escape::Paranoid
            | Escape::FullDaemonStopped => self.again(&[]),
            Escape::Comet | Escape::CometSetsid => self.launch_comet(),
            Escape::Storm => self.storm(STORM.1),
            Escape::CloneParent => match kernel::split_as_sibling()? {
                Side::Parent(_) => Ok(()),
                Side::Child => self.be_hostile(|_| Ok(())),
            },
            Escape::OwnPidNamespace => {
                kernel::leave_pid_namespace()?;
                self.child(|cage| cage.child(|_| Ok(())))
            }
            Escape::NestedSupervisor => self.nest(),
        }
    }

    /// A hostile child that first does `act`.
    fn child(&mut self, act: impl FnOnce(&mut Cage) -> io::Result<()>) -> io::Result<()> {
        match kernel::split()? {
            Side::Parent(_) => Ok(()),
            Side::Child => self.be_hostile(act),
        }
    }

    /// As [`Cage::child`], but its parent is gone at once.
    fn grandchild(&mut self, act: impl FnOnce(&mut Cage) -> io::Result<()>) -> io::Result<()> {
        match kernel::split()? {
            Side::Parent(child) => kernel::collect(child),
            Side::Child => {
                let made = self.child(act);
                kernel::leave(i32::from(made.is_err()))
            }
        }
    }

    /// Does `act`, writes itself down and lives.
    fn be_hostile(&mut self, act: impl FnOnce(&mut Cage) -> io::Result<()>) -> ! {
        if act(self).is_err() || Ledger::sign(&mut self.pen, self.escape).is_err() {
            // Not written down: the story waits for it in vain, and says so.
            kernel::leave(3);
        }
        self.stay_hostile()
    }

    fn stay_hostile(&self) -> ! {
        // A child whose own child is hostile as well must not leave it a zombie for long.
        drop(self.stay());
        kernel::leave(0)
    }

    /// Lives until it is ended, or nobody is interested any more.
    fn stay(&self) -> io::Result<()> {
        while !self.until.is_over() && !self.ledger.is_gone() {
            kernel::collect_all();
            pause(LOOK_EVERY);
        }
        Ok(())
    }

    /// Starts this program again with another environment; there it goes on in [`go_on`].
    fn again(&mut self, environment: &[String]) -> io::Result<()> {
        match kernel::split()? {
            Side::Parent(_) => Ok(()),
            Side::Child => {
                let error = start_again(self.escape, &self.ledger, environment);
                kernel::leave(i32::from(error.is_err()))
            }
        }
    }

    /// Writes itself down, leaves somebody behind who ends it one day, and stops.
    fn stop(&mut self) -> io::Result<()> {
        let own = Life::own()?;
        if kernel::split()? == Side::Child {
            // A stopped process can not end itself.
            self.be_hostile_until(move || own.end());
        }
        Ledger::sign(&mut self.pen, self.escape)?;
        raise(Signal::SIGSTOP)?;
        self.stay_hostile()
    }

    fn be_hostile_until(&mut self, at_last: impl FnOnce()) -> ! {
        let signed = Ledger::sign(&mut self.pen, self.escape);
        if signed.is_ok() {
            drop(self.stay());
        }
        at_last();
        kernel::leave(0)
    }

    fn sign_and_close(&mut self) -> io::Result<()> {
        Ledger::sign(&mut self.pen, self.escape)?;
        kernel::close_everything()?;
        self.stay_hostile()
    }

    fn launch_comet(&mut self) -> io::Result<()> {
        match kernel::split()? {
            Side::Parent(_) => Ok(()),
            Side::Child => self.be_comet(),
        }
    }

    /// Each link writes itself down, lives for a moment, and is followed by the next.
    fn be_comet(&mut self) -> ! {
        let mut hop = 0;
        while !self.until.is_over() && self.ledger.set_beat(self.escape, hop).is_ok() {
            pause(HOP);
            hop += 1;
            match kernel::split() {
                Ok(Side::Child) => {}
                Ok(Side::Parent(_)) | Err(_) => kernel::leave(0),
            }
            if self.escape != Escape::Comet && begin_session().is_err() {
                kernel::leave(3);
            }
        }
        kernel::leave(0)
    }

    fn storm(&mut self, generations: usize) -> io::Result<()> {
        if generations == 0 {
            return Ok(());
        }
        for _ in 0..STORM.0 {
            self.child(|cage| cage.storm(generations - 1))?;
        }
        Ok(())
    }

    fn move_to_another_cgroup(&mut self) -> io::Result<()> {
        let mount = super::cgroup::mount().ok_or(io::ErrorKind::NotFound)?;
        let folder = mount.join(format!("zoo-{}", std::process::id()));
        // Written down first, so that the story can take it away.
        fs::write(self.ledger.path("cgroup"), folder.display().to_string())?;
        fs::create_dir(&folder)?;
        fs::write(folder.join("cgroup.procs"), "0")
    }

    /// A supervisor of its own, whose one task is an agent with a child.
    fn nest(&mut self) -> io::Result<()> {
        let folder = self.ledger.path("inner");
        for below in ["state", "run", "home"] {
            fs::create_dir_all(folder.join(below))?;
        }
        let own = std::env::current_exe()?;
        let supervisor = own.with_file_name("supervisor");
        let argv = [
            own.as_path(),
            "inner".as_ref(),
            self.escape.word().as_ref(),
            &self.ledger.path(""),
        ]
        .map(|word| format!("{:?}", word.display().to_string()));
        let text = format!(
            "version: 1\nname: inner\nisolation: none\ntasks:\n  - id: inside\n    run: [{}]\n",
            argv.join(", ")
        );
        let file = folder.join("inner.yml");
        fs::write(&file, text)?;
        if kernel::split()? == Side::Child {
            let environment = nested_environment(&folder);
            let arguments = ["run".to_owned(), file.display().to_string()];
            let error = kernel::become_program(&supervisor, &arguments, &environment);
            kernel::leave(i32::from(error.is_err()));
        }
        Ok(())
    }
}

fn nested_environment(folder: &Path) -> Vec<String> {
    let mut entries: Vec<String> = std::env::vars()
        .filter(|(name, _)| !name.starts_with("XDG_"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    for (name, below) in [
        ("XDG_STATE_HOME", "state"),
        ("XDG_RUNTIME_DIR", "run"),
        ("XDG_CONFIG_HOME", "home"),
    ] {
        entries.push(format!("{name}={}", folder.join(below).display()));
    }
    entries
}

/// The agent of a nested supervisor: itself and one child.
///
/// # Errors
/// When the ledger can not be written.
pub fn play_inside(escape: Escape, ledger: &Ledger) -> io::Result<()> {
    let mut cage = cage_again(escape, ledger)?;
    Ledger::sign(&mut cage.pen, escape)?;
    cage.child(|_| Ok(()))?;
    cage.stay()
}

/// Goes on as a process whose environment is no longer the product's.
///
/// # Errors
/// When a step does not work here.
pub fn go_on(escape: Escape, ledger: &Ledger) -> io::Result<()> {
    let mut cage = cage_again(escape, ledger)?;
    match escape {
        Escape::CometNoEnvironment => cage.be_comet(),
        Escape::NestedSubreaper => {
            begin_session()?;
            kernel::adopt()?;
            cage.grandchild(|_| begin_session())?;
            cage.be_hostile(|_| Ok(()))
        }
        Escape::Paranoid => {
            ignore_polite_signals()?;
            kernel::lower_lock_limit(1)?;
            cage.grandchild(|cage| {
                begin_session()?;
                cage.sign_and_close()
            })
        }
        Escape::FullDaemonStopped => cage.grandchild(|cage| {
            begin_session()?;
            cage.stop()
        }),
        _ => cage.be_hostile(|_| Ok(())),
    }
}

fn cage_again(escape: Escape, ledger: &Ledger) -> io::Result<Cage> {
    Ok(Cage {
        escape,
        ledger: ledger.clone(),
        pen: ledger.pen()?,
        until: Deadline::after(LIFE),
    })
}

fn start_again(escape: Escape, ledger: &Ledger, environment: &[String]) -> io::Result<Infallible> {
    let own = std::env::current_exe()?;
    let folder: PathBuf = ledger.path("");
    let arguments = ["again", escape.word(), &folder.display().to_string()].map(str::to_owned);
    kernel::become_program(&own, &arguments, environment)
}

/// Lets go of the agent's output, which only [`Escape::HoldsPipe`] keeps.
fn be_silent() -> io::Result<()> {
    let nothing = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    Ok(())
}

fn begin_session() -> io::Result<()> {
    setsid()?;
    Ok(())
}

fn own_group() -> io::Result<()> {
    let us = Pid::from_raw(0);
    Ok(setpgid(us, us)?)
}

fn ignore_polite_signals() -> io::Result<()> {
    kernel::ignore(&[Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT])
}
