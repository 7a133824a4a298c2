//! The old program's side: it tries the next one, comes to rest, leaves everything and goes. Where
//! that fails it goes on as if nothing had been.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use protocol::version::{BUILD, VERSION_MAX};
use supervisor_core::core::Unrecorded;
use supervisor_core::input::StopStage;
use supervisor_core::time::Boot;
use tokio::time::Sleep;

use crate::control::server::{Asked, Caller, Parked, Server, Stage, Still, refused};
use crate::control::wire::CONTROL_VERSION;
use crate::driver::error::{DriverError, chain};
use crate::driver::handover::document::{Bytes, Client, Document, Host, Order, Request};
use crate::driver::handover::live::{LeftCore, LeftStage};
use crate::driver::handover::trial::{Trial, Verdict};
use crate::driver::hosts::LeftHost;
use crate::driver::observer::Note;
use crate::driver::operator::Watches;
use crate::driver::run::{Driver, Sources};
use crate::process::replace;

/// The hidden command by which a program takes over.
pub const VERB: &str = "handover";
/// Longest time from a passed trial until the journal is at rest: a group on a slow disk, and the
/// lines that hosts have in their pipes.
const REST_MAX: Duration = Duration::from_secs(10);
/// A descriptor that a sample does not name.
const NONE: RawFd = -1;

/// A supervisor on its way to the next program.
#[derive(Debug)]
pub struct Replacing {
    asker: Caller,
    program: PathBuf,
    asked: Boot,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The next program is tried; the batch goes on.
    Trying(Box<Trial>),
    /// Nobody listens to hosts any more, the journal comes to rest.
    Resting { since: Boot, time: Pin<Box<Sleep>> },
}

/// A step towards the next program.
#[derive(Debug)]
pub enum Stepped {
    /// The trial ended.
    Tried(Result<Verdict, String>),
    /// The batch did not come to rest in time.
    NoRest,
}

impl Replacing {
    /// The next step. Cancel-safe: what was seen so far is kept.
    pub async fn next(&mut self) -> Stepped {
        match &mut self.step {
            Step::Trying(trial) => Stepped::Tried(trial.verdict().await),
            Step::Resting { time, .. } => {
                time.await;
                Stepped::NoRest
            }
        }
    }

    /// Whether the batch is being brought to rest.
    pub fn is_resting(&self) -> bool {
        matches!(self.step, Step::Resting { .. })
    }
}

impl Driver<'_> {
    /// A client wants another program in our place.
    pub(in crate::driver) fn replace_by(&mut self, program: &Path, asker: Caller) {
        let refusal = if self.replacing.is_some() {
            Some("the supervisor is being replaced already".to_owned())
        } else if let Some(error) = &self.disk_error {
            Some(format!("the journal can not be written now: {error}"))
        } else if self.stopping >= Some(StopStage::Stop) {
            Some("the batch is being stopped".to_owned())
        } else {
            None
        };
        let trial = match refusal {
            Some(refusal) => Err(refusal),
            None => (self.try_program(program))
                .map_err(|error| format!("{} can not be tried: {error}", program.display())),
        };
        match trial {
            Ok(trial) => {
                self.hosts.spare(Some(trial.pid));
                self.replacing = Some(Replacing {
                    asker,
                    program: program.to_owned(),
                    asked: self.clock.now().boot,
                    step: Step::Trying(Box::new(trial)),
                });
            }
            // A client that is gone needs no answer.
            Err(refusal) => _ = asker.tell(refused(8, &refusal)),
        }
    }

    fn try_program(&self, program: &Path) -> io::Result<Trial> {
        let order = Order {
            connection: 0,
            asked_ms: 0,
            still_ms: 0,
        };
        let sample = self.document(order).write()?;
        Trial::start(program, replace::sealed(&sample)?, self.durable.seq)
    }

    /// One step further, or back.
    pub(in crate::driver) fn stepped(&mut self, stepped: Stepped) {
        match stepped {
            Stepped::Tried(Ok(verdict)) => self.rest(&verdict),
            Stepped::Tried(Err(why)) => {
                let program = self.replacing.as_ref().map(|it| it.program.clone());
                let program = program.unwrap_or_default();
                self.stay(&format!("{} can not take over: {why}", program.display()));
            }
            Stepped::NoRest => {
                let limit = REST_MAX.as_secs();
                self.stay(&format!("the batch did not come to rest within {limit} s"));
            }
        }
    }

    fn rest(&mut self, verdict: &Verdict) {
        self.hosts.spare(None);
        if let Some(replacing) = &mut self.replacing {
            tracing::info!(build = verdict.build, "the next supervisor can take over");
            self.hosts.park();
            replacing.step = Step::Resting {
                since: self.clock.now().boot,
                time: Box::pin(tokio::time::sleep(REST_MAX)),
            };
        }
    }

    /// Whether the batch is being brought to rest: clients then wait.
    pub(in crate::driver) fn is_resting(&self) -> bool {
        self.replacing.as_ref().is_some_and(Replacing::is_resting)
    }

    /// Whether everything that was heard is decided, everything decided is durable, and everything
    /// durable is done and told.
    pub(in crate::driver) fn is_at_rest(&self) -> bool {
        let heard = self.hosts.are_parked() && self.gone.is_empty() && self.inputs.is_empty();
        let written = self.commit.is_idle() && self.commit.may_save() && !self.live_changed;
        let done = self.outbox.is_empty() && self.untold.is_empty();
        heard && written && done && self.disk_error.is_none() && self.ending.is_none()
    }

    /// Gives the replacement up, if there is one: whoever asked for it is told why.
    pub(in crate::driver) fn stay(&mut self, why: &str) {
        let Some(replacing) = self.replacing.take() else {
            return;
        };
        self.hosts.spare(None);
        self.hosts.listen_again();
        self.stays(Some(&replacing.asker), why);
    }

    /// Whoever looks is told that this program goes on, and so is who asked, if still connected.
    pub(super) fn stays(&mut self, asker: Option<&Caller>, why: &str) {
        tracing::warn!(why, "the supervisor was not replaced");
        self.observer
            .noted(Note::Trouble(&format!("not replaced: {why}")));
        if let Some(asker) = asker {
            // A client that is gone needs no answer.
            let _heard = asker.tell(refused(8, &format!("{why}; supervisor {BUILD} goes on")));
        }
    }

    /// Everything that the journal does not hold, but for clients.
    fn document(&self, order: Order) -> Document {
        let unrecorded: Unrecorded = self.core.unrecorded();
        let hosts = self.hosts.left();
        Document {
            build: BUILD.to_owned(),
            protocol: VERSION_MAX,
            control: CONTROL_VERSION,
            batch: self.place.batch.clone(),
            dir: self.dir.path().to_owned(),
            socket: self.place.socket.clone(),
            host: self.place.host.clone(),
            seq: self.durable.seq,
            core: LeftCore::from(unrecorded),
            stopping: self.stopping.map(LeftStage),
            signals: None,
            signalled: None,
            hosts: hosts.into_iter().map(Host::from).collect(),
            clients: Vec::new(),
            next_connection: 1,
            asked: Vec::new(),
            watches: self.desk.watches(),
            lock: self.place.lock.as_fd().as_raw_fd(),
            listener: NONE,
            guardian: self.place.guarded.as_ref().map(|it| it.as_fd().as_raw_fd()),
            order,
        }
    }
}

impl From<LeftHost<'_>> for Host {
    fn from(left: LeftHost<'_>) -> Host {
        Host {
            generation: left.generation,
            pid: left.pid,
            token: format!("{:032x}", left.token),
            layers: (left.containment.layers.iter())
                .map(|layer| layer.word().to_owned())
                .collect(),
            leaf: left.containment.leaf.as_deref().map(str::to_owned),
            asked: left.asked,
            ending: left.ending,
            process: left.process.as_raw_fd(),
            stdin: left.stdin.as_raw_fd(),
            stdout: left.stdout.map(|stdout| stdout.as_raw_fd()),
            last_id: left.last_id,
            said: left.said.to_owned(),
            unsent: Bytes(left.unsent.bytes),
            closed: left.unsent.closed,
            line: Bytes(left.line.bytes),
            swallowing: left.line.swallowing,
            open: left.open,
        }
    }
}

impl From<&Parked> for Client {
    fn from(parked: &Parked) -> Client {
        Client {
            connection: parked.connection,
            stream: parked.as_fd().as_raw_fd(),
            reading: match &parked.stage {
                Stage::Reading(line) => Some(Bytes(line.clone())),
                Stage::Asked => None,
            },
        }
    }
}

/// Becomes the next program, with a driver at rest. Returns only when that failed: then everybody
/// is served again.
///
/// # Errors
/// [`DriverError::System`] when the control socket died over it.
pub(in crate::driver) async fn leave(
    driver: &mut Driver<'_>,
    sources: &mut Sources,
    server: Server,
) -> Result<Server, DriverError> {
    let Some(replacing) = driver.replacing.take() else {
        return Ok(server);
    };
    let still = server.park().await;
    let still = still.map_err(DriverError::system("hold the control socket"))?;
    driver.observer.leave();
    let (error, signalled, asked) = go(driver, sources, &still, &replacing).await;
    driver.observer.stay();
    let why = format!(
        "{} can not be started: {error}",
        replacing.program.display()
    );
    let connection = replacing.asker.connection;
    let (server, callers) = driver.serve_again(still, driver.desk.watches(), asked);
    driver.hosts.listen_again();
    if let Err(error) = replace::release_signals() {
        tracing::error!(%error, "signals stay held");
    }
    if let Some(stage) = signalled {
        driver.stop(stage);
    }
    driver.stays(callers.get(&connection), &why);
    Ok(server)
}

/// Returns only when the next program could not be started, with the signal and the requests that
/// came meanwhile.
async fn go(
    driver: &Driver<'_>,
    sources: &mut Sources,
    still: &Still,
    replacing: &Replacing,
) -> (io::Error, Option<StopStage>, Vec<Request>) {
    let mut asked = Vec::new();
    while let Ok(Asked { pid, want, caller }) = sources.asked.try_recv() {
        asked.push(Request {
            connection: caller.connection,
            pid,
            want,
        });
    }
    // Held first and looked for then: one that comes later waits in the kernel for the next program.
    if let Err(error) = replace::hold_signals() {
        return (error, None, asked);
    }
    let signalled = sources.signals.arrived().await;
    let still_since = match &replacing.step {
        Step::Resting { since, .. } => *since,
        Step::Trying(_) => driver.clock.now().boot,
    };
    let order = Order {
        connection: replacing.asker.connection,
        asked_ms: replacing.asked.0,
        still_ms: still_since.0,
    };
    let document = Document {
        signals: sources.signals.stage().map(LeftStage),
        signalled: signalled.map(LeftStage),
        clients: still.parked.iter().map(Client::from).collect(),
        next_connection: still.next,
        asked: asked.clone(),
        listener: still.as_fd().as_raw_fd(),
        ..driver.document(order)
    };
    let words = driver.observer.words();
    let error = become_next(&replacing.program, &document, words);
    (error, signalled, asked)
}

fn become_next(program: &Path, document: &Document, words: Vec<OsString>) -> io::Error {
    let prepared = || -> io::Result<(File, File)> {
        let state = replace::sealed(&document.write()?)?;
        Ok((state, replace::own_program()?))
    };
    let (state, former) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    let handed: Vec<RawFd> = (document.descriptors().into_iter().map(|it| it.0))
        .chain([state.as_raw_fd(), former.as_raw_fd()])
        .collect();
    let (state, former) = (state.as_raw_fd(), former.as_raw_fd());
    // The batch is for people who look at the process.
    let mut args: Vec<OsString> = vec![program.into(), VERB.into(), document.batch.as_str().into()];
    args.push("--state".into());
    args.push(state.to_string().into());
    args.push("--former".into());
    args.push(former.to_string().into());
    args.extend(words);
    let error = replace::become_program(program, &args, &handed);
    tracing::error!(error = chain(&error), "the next supervisor was not started");
    error
}

impl Driver<'_> {
    /// Serves clients again, and looks at what they asked meanwhile.
    pub(in crate::driver) fn serve_again(
        &mut self,
        still: Still,
        watches: Watches,
        asked: Vec<Request>,
    ) -> (Server, BTreeMap<u64, Caller>) {
        let asking = self.place.asking.clone();
        let (server, mut callers) = Server::resume(still, self.place.batch.clone(), asking);
        self.desk.take_over(watches, &callers);
        for Request {
            connection,
            pid,
            want,
        } in asked
        {
            // A client that has gone since does not wait for what it wanted; to do it unseen
            // would be a surprise.
            if let Some(caller) = callers.remove(&connection) {
                self.asked(Asked { pid, want, caller });
            }
        }
        (server, callers)
    }
}
