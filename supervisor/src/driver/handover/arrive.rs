//! The new program's side: it looks at everything before it changes anything, and only then goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;

use protocol::version::BUILD;
use supervisor_core::core::{Core, Unrecorded};
use supervisor_core::effect::Ending;
use supervisor_core::input::Input;
use supervisor_core::time::Boot;
use tokio::sync::mpsc;

use crate::control::server::{self, Parked, Server, Stage, Still};
use crate::control::wire::Reply;
use crate::driver::clock::Clock;
use crate::driver::error::DriverError;
use crate::driver::handover::HandoverError;
use crate::driver::handover::document::{Document, FORMAT, Host, Order};
use crate::driver::handover::live::LeftStage;
use crate::driver::handover::trial::Verdict;
use crate::driver::host_io::Unsent;
use crate::driver::hosts::KeptHost;
use crate::driver::journal::StateLog;
use crate::driver::observer::Observer;
use crate::driver::open::{Opened, assemble, drive};
use crate::driver::operator::Waiter;
use crate::driver::run::{Driver, Place};
use crate::driver::signals::Signals;
use crate::guardian::Guarded;
use crate::process::identity::Machine;
use crate::process::replace;
use crate::store::{Check, Disk, Lock, Reading, RealDisk, StateDir, read_for_append};

/// A document and a batch that fit together; nothing has been changed yet.
#[derive(Debug)]
pub struct Arrival {
    /// What was handed over.
    pub document: Document,
    reading: Reading,
    core: Core,
}

/// Looks at a document and the batch that it is about.
///
/// # Errors
/// [`HandoverError`]: this program can not go on with it.
pub fn look(bytes: &[u8]) -> Result<Arrival, HandoverError> {
    let document = Document::read(bytes)?;
    let dir = StateDir::at(&document.dir);
    // What the checkpoint holds was checked when it was written, by the program that is leaving.
    let mut reading = read_for_append(&RealDisk, &dir, Check::Tail)?;
    let loaded = &mut reading.loaded;
    let mut core = match loaded.checkpoint.take() {
        Some(facts) => Core::restore(facts),
        None => Core::new(),
    };
    for entry in std::mem::take(&mut loaded.entries) {
        core.replay(&entry)
            .map_err(|source| HandoverError::Replay {
                dir: document.dir.clone(),
                source,
            })?;
    }
    Ok(Arrival {
        document,
        reading,
        core,
    })
}

impl Arrival {
    /// What a program that is being tried says. The batch went on since the sample was made.
    pub fn verdict(&self) -> Verdict {
        Verdict {
            handover: FORMAT,
            build: BUILD.to_owned(),
            seq: self.reading.loaded.end.seq,
        }
    }

    /// The journal must end exactly where the former program left it.
    ///
    /// # Errors
    /// [`HandoverError::OtherEnd`].
    pub fn check_end(&self) -> Result<(), HandoverError> {
        let (found, expected) = (self.reading.loaded.end.seq, self.document.seq);
        if found == expected && self.reading.loaded.torn.is_none() {
            return Ok(());
        }
        Err(HandoverError::OtherEnd { found, expected })
    }

    /// Takes every descriptor that the document names, or none.
    ///
    /// # Errors
    /// [`HandoverError::Descriptor`].
    pub fn take_descriptors(&self) -> Result<Descriptors, HandoverError> {
        let mut taken = Descriptors::default();
        for (number, what) in self.document.descriptors() {
            match replace::take(number) {
                Ok(fd) => {
                    taken.0.insert(number, fd);
                }
                Err(source) => {
                    taken.give_back();
                    return Err(HandoverError::Descriptor {
                        number,
                        what,
                        source,
                    });
                }
            }
        }
        Ok(taken)
    }
}

/// The descriptors of a document, by the numbers that it names them by.
#[derive(Debug, Default)]
pub struct Descriptors(BTreeMap<RawFd, OwnedFd>);

impl Descriptors {
    fn take(&mut self, number: RawFd) -> io::Result<OwnedFd> {
        self.0
            .remove(&number)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Leaves them open and owned by nobody, for the program that is executed next.
    pub fn give_back(self) {
        for (_, fd) in self.0 {
            replace::give_back(fd);
        }
    }
}

/// How this program came to take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coming {
    /// In the place of another program.
    New,
    /// Back again: the program in between could not go on, for this reason.
    Back(String),
}

/// Goes on with the batch. From here on there is no way back: an error ends the supervisor, and the
/// batch can be gone on with as after a crash.
///
/// # Errors
/// [`DriverError`].
pub fn go_on(
    arrival: Arrival,
    descriptors: Descriptors,
    coming: Coming,
    host: PathBuf,
    observer: &mut dyn Observer,
) -> Result<Ending, DriverError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DriverError::system("start the event loop"))?;
    let work = supervise(arrival, descriptors, coming, host, observer);
    runtime.block_on(work)
}

async fn supervise(
    arrival: Arrival,
    mut descriptors: Descriptors,
    coming: Coming,
    host: PathBuf,
    observer: &mut dyn Observer,
) -> Result<Ending, DriverError> {
    let Arrival {
        document,
        reading,
        mut core,
    } = arrival;
    let stage = document.signals.map(|stage| stage.0);
    let dir = StateDir::at(&document.dir);
    let machine = Machine::here()?;
    let clock = Clock::new(machine.boot_id);
    core.take_over(Unrecorded::from(document.core.clone()));
    let (place, asked) = place(&document, &mut descriptors, &dir, host)?;
    let signals = Signals::listen_from(stage, place.guarded.as_ref())
        .map_err(DriverError::system("listen for signals"))?;
    let still = still(&document, &mut descriptors)
        .map_err(DriverError::system("go on with the control socket"))?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (journal, loaded) = reading.open(disk.clone(), &dir, clock.now().wall)?;
    let opened = Opened {
        core,
        clock,
        log: StateLog::new(journal, disk, dir.clone()),
        loaded,
    };
    let assembled = assemble(place, dir, observer, opened, machine, signals, asked);
    let (mut driver, mut sources) = assembled?;
    driver
        .adopt_hosts(&document, descriptors)
        .map_err(DriverError::system("go on with the hosts"))?;
    let server = driver.greet(document, still, &coming);
    replace::release_signals().map_err(DriverError::system("receive signals again"))?;
    drive(driver, &mut sources, server).await
}

type Asking = mpsc::Receiver<server::Asked>;

fn place(
    document: &Document,
    descriptors: &mut Descriptors,
    dir: &StateDir,
    host: PathBuf,
) -> Result<(Place, Asking), DriverError> {
    let lock = descriptors
        .take(document.lock)
        .and_then(|lock| Lock::handed_over(dir, File::from(lock)))
        .map_err(DriverError::system("keep the batch's lock"))?;
    let guarded = match document.guardian {
        Some(number) => descriptors.take(number).map(Guarded::handed_over),
        None => Ok(None),
    };
    let guarded = guarded.map_err(DriverError::system("keep the line to the guardian"))?;
    let (asking, asked) = mpsc::channel(server::REQUESTS_MAX);
    let place = Place {
        batch: document.batch.clone(),
        socket: document.socket.clone(),
        host,
        lock,
        asking,
        guarded,
    };
    Ok((place, asked))
}

fn still(document: &Document, descriptors: &mut Descriptors) -> io::Result<Still> {
    let listener = descriptors.take(document.listener)?;
    let mut parked = Vec::with_capacity(document.clients.len());
    for client in &document.clients {
        let stage = match &client.reading {
            Some(line) => Stage::Reading(line.0.clone()),
            None => Stage::Asked,
        };
        let stream = descriptors.take(client.stream)?;
        parked.push(Parked::handed_over(client.connection, stream, stage)?);
    }
    Ok(Still {
        listener: server::listener_handed_over(listener)?,
        parked,
        next: document.next_connection,
    })
}

impl Driver<'_> {
    fn adopt_hosts(&mut self, document: &Document, mut from: Descriptors) -> io::Result<()> {
        for host in &document.hosts {
            let kept = kept(host, &mut from)?;
            self.hosts.adopt(host.generation, kept)?;
        }
        Ok(())
    }

    /// Serves clients from where the former program stopped, and tells who asked for all this.
    fn greet(&mut self, document: Document, still: Still, coming: &Coming) -> Server {
        self.stopping = document.stopping.map(|stage| stage.0);
        if let Some(LeftStage(stage)) = document.signalled {
            self.stop(stage);
        }
        let (server, callers) = self.serve_again(still, document.watches, document.asked);
        let asker = callers.get(&document.order.connection).cloned();
        tracing::info!(former = document.build, ?coming, "took over");
        match coming {
            Coming::New => {
                let now = self.clock.now().boot;
                let told = told(&document.build, self.hosts.len(), &document.order, now);
                let waiter = asker.map(|caller| Waiter::Replaced { caller, told });
                let reply = self.desk.enlist(waiter.unwrap_or(Waiter::Nobody));
                let build = BUILD.into();
                self.inputs.push_back(Input::Replaced { build, reply });
            }
            Coming::Back(why) => self.stays(asker.as_ref(), why),
        }
        server
    }
}

fn told(former: &str, hosts: usize, order: &Order, now: Boot) -> Reply {
    let pid = std::process::id();
    let whole = now.0.saturating_sub(order.asked_ms);
    let still = now.0.saturating_sub(order.still_ms);
    let lines = vec![
        format!("supervisor {former} replaced by {BUILD}; pid {pid} as before"),
        format!("{hosts} hosts kept; took {whole} ms, the batch stood still for {still} ms"),
    ];
    Reply::Done { lines }
}

fn kept(host: &Host, descriptors: &mut Descriptors) -> io::Result<KeptHost> {
    Ok(KeptHost {
        pid: host.pid,
        // Both were looked at when the document was read.
        token: host.token().unwrap_or_default(),
        containment: host.containment().unwrap_or_default(),
        asked: host.asked,
        ending: host.ending,
        process: descriptors.take(host.process)?,
        stdin: descriptors.take(host.stdin)?,
        stdout: descriptors.take(host.stdout.unwrap_or(-1))?,
        last_id: host.last_id,
        said: host.said.as_str().into(),
        unsent: Unsent {
            bytes: host.unsent.0.clone(),
            closed: host.closed,
        },
        line: host.half_line(),
        open: host.open,
    })
}
