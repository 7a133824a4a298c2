//! The beginning and the end of a supervisor: from a locked state dir to a running loop, and back.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use protocol::version::BUILD;
use supervisor_core::core::Core;
use supervisor_core::effect::Ending;
use supervisor_core::input::{Created, Input, OperatorCommand};
use supervisor_core::outbox::Outbox;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tracing::Instrument;

use crate::control::peer::Outsiders;
use crate::control::server::{self, Asked, Server};
use crate::driver::alarm::Alarm;
use crate::driver::clock::Clock;
use crate::driver::commit::Committer;
use crate::driver::error::{DriverError, chain};
use crate::driver::handover::leave::leave;
use crate::driver::host_io::WORDS_MAX;
use crate::driver::hosts::Hosts;
use crate::driver::journal::StateLog;
use crate::driver::observer::{Note, Observer};
use crate::driver::operator::{Desk, TaskNames, Waiter};
use crate::driver::recover::{self, Patience, Scene};
use crate::driver::run::{Checkpoints, Driver, Left, Place, Sources};
use crate::driver::signals::Signals;
use crate::driver::start::Starter;
use crate::guardian::Guarded;
use crate::guardian::channel::Word;
use crate::process::identity::Machine;
use crate::process::spawn::Launcher;
use crate::process::{limits, orphans, pidfd};
use crate::store::registry::{self, Registry};
use crate::store::{
    Check, Disk, Loaded, Lock, Position, RealDisk, StateDir, checkpoint, inbox, load, lock,
    open_for_append, untold,
};

/// What a supervisor is started with.
pub struct Options<'a> {
    /// The batch's files.
    pub dir: StateDir,
    /// The lock of the state dir, held until the supervisor has ended.
    pub lock: Lock,
    /// Where the control socket is to be.
    pub socket: PathBuf,
    /// The other program of the pair, from [`host_program`].
    pub host: PathBuf,
    /// A new batch, or one to go on with.
    pub mode: Mode,
    /// What the command line wants done first (retry what failed, another concurrency ...).
    pub commands: Vec<OperatorCommand>,
    /// The guardian that started this supervisor.
    pub guarded: Option<Guarded>,
    /// Shows the batch to whoever started it.
    pub observer: &'a mut dyn Observer,
}

/// How a supervisor begins.
#[derive(Debug)]
pub enum Mode {
    /// With a new batch; the state dir has no records.
    Create(Box<Created>),
    /// Where the state dir's records end.
    Resume,
    /// There too, for clean-ups alone: nothing else of the batch moves.
    CleanUps,
}

/// The variable that names the other program of the pair, where it does not lie beside this one.
pub const HOST_VARIABLE: &str = "SUPERVISOR_AGENT_HOST";

/// Where the other program of the pair is: named by `SUPERVISOR_AGENT_HOST`, else beside this one.
///
/// # Errors
/// [`DriverError::HostMissing`] when there is no program at that place.
pub fn host_program() -> Result<PathBuf, DriverError> {
    let path = match std::env::var_os(HOST_VARIABLE) {
        Some(path) => std::path::absolute(path),
        None => std::env::current_exe().map(|own| own.with_file_name("agent-host")),
    };
    let path = path.map_err(DriverError::system("find agent-host"))?;
    let runnable = rustix::fs::access(&path, rustix::fs::Access::EXEC_OK).is_ok();
    if runnable && path.is_file() {
        Ok(path)
    } else {
        Err(DriverError::HostMissing { path })
    }
}

/// Works on a batch until it is settled, needs a person, or is told to stop.
///
/// # Errors
/// [`DriverError`]; the batch can be gone on with by another supervisor.
pub fn run(options: Options<'_>) -> Result<Ending, DriverError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(DriverError::system("start the event loop"))?;
    // The folder of a batch has its id as its name.
    let batch = options.dir.path().file_name().unwrap_or_default();
    let span = tracing::info_span!("batch", id = %batch.display());
    runtime.block_on(supervise(options).instrument(span))
}

async fn supervise(mut options: Options<'_>) -> Result<Ending, DriverError> {
    // First of all, so that a signal that comes from here on is answered and not died of.
    let signals = Signals::listen(options.guarded.as_ref())
        .map_err(DriverError::system("listen for signals"))?;
    orphans::adopt().map_err(DriverError::system("adopt orphans"))?;
    limits::raise_open_files().map_err(DriverError::system("raise the limit of open files"))?;
    let machine = Machine::here()?;
    options.dir = options.dir.verified()?;
    let opened = open(&options, &machine)?;
    let facts = opened.core.facts();
    let runs = match facts {
        Some(facts) => {
            let scene = Scene {
                machine: &machine,
                clock: &opened.clock,
                dir: &options.dir,
                facts,
                patience: Patience::USUAL,
            };
            recover::reconcile(scene, options.observer)
                .map_err(DriverError::system("look at the processes of this machine"))?
        }
        None => Vec::new(),
    };
    let us = std::process::id();
    let supervisor = pidfd::open(us)
        .and_then(|pidfd| machine.identify(us, pidfd))
        .map_err(DriverError::system("identify ourselves"))?;
    let recovered = Input::Recovered {
        supervisor,
        guardian: options
            .guarded
            .as_ref()
            .and_then(|guarded| guarded.identity(&machine)),
        build: BUILD.into(),
        runs,
    };
    begin(options, opened, machine, signals, recovered).await
}

/// A batch as its files tell it, its journal open for more.
pub(super) struct Opened {
    pub(super) core: Core,
    pub(super) clock: Clock,
    pub(super) log: StateLog,
    pub(super) loaded: Loaded,
}

fn open(options: &Options<'_>, machine: &Machine) -> Result<Opened, DriverError> {
    let clock = Clock::new(machine.boot_id);
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let now = clock.now();
    let (journal, mut loaded) = open_for_append(disk.clone(), &options.dir, now.wall)?;
    let path = || options.dir.path().to_owned();
    match (&options.mode, loaded.end.seq) {
        (Mode::Create(_), 0) | (Mode::Resume | Mode::CleanUps, 1..) => {}
        (Mode::Create(_), _) => return Err(DriverError::NotEmpty { dir: path() }),
        (Mode::Resume | Mode::CleanUps, 0) => return Err(DriverError::Empty { dir: path() }),
    }
    let mut core = match loaded.checkpoint.take() {
        Some(facts) => Core::restore(facts),
        None => Core::new(),
    };
    for entry in std::mem::take(&mut loaded.entries) {
        core.replay(&entry).map_err(|source| DriverError::Replay {
            dir: path(),
            source,
        })?;
    }
    if let Mode::CleanUps = options.mode {
        core.confine_to_clean_ups();
    }
    Ok(Opened {
        core,
        clock,
        log: StateLog::new(journal, disk, options.dir.clone()),
        loaded,
    })
}

async fn begin(
    options: Options<'_>,
    opened: Opened,
    machine: Machine,
    signals: Signals,
    recovered: Input,
) -> Result<Ending, DriverError> {
    tell_damage(&opened.loaded, options.observer);
    let batch = match (&options.mode, opened.core.facts()) {
        (Mode::Create(created), _) => created.id.clone(),
        (Mode::Resume | Mode::CleanUps, Some(facts)) => facts.batch.id.clone(),
        (Mode::Resume | Mode::CleanUps, None) => {
            let dir = options.dir.path().to_owned();
            return Err(DriverError::Empty { dir });
        }
    };
    let (asking, asked) = mpsc::channel(server::REQUESTS_MAX);
    let place = Place {
        batch,
        socket: options.socket,
        host: options.host,
        lock: options.lock,
        asking,
        guarded: options.guarded,
    };
    let (mut driver, mut sources) = assemble(
        place,
        options.dir,
        options.observer,
        opened,
        machine,
        signals,
        asked,
    )?;
    let listening =
        server::bind(&driver.place.socket, &driver.place.lock).map_err(DriverError::system(
            "listen on the control socket: its folder is missing or its path is too long",
        ))?;
    let place = &driver.place;
    let server = Server::start(listening, place.batch.clone(), place.asking.clone());
    driver.inputs = first_inputs(options.mode, recovered);
    driver.settle()?;
    driver.feed_waiting(options.commands)?;
    driver.settle()?;
    driver.begin_after_now();
    drive(driver, &mut sources, server).await
}

/// Puts a driver together that has heard and decided nothing yet.
pub(super) fn assemble<'a>(
    place: Place,
    dir: StateDir,
    observer: &'a mut dyn Observer,
    opened: Opened,
    machine: Machine,
    signals: Signals,
    asked: mpsc::Receiver<Asked>,
) -> Result<(Driver<'a>, Sources), DriverError> {
    let (words, heard) = mpsc::channel(WORDS_MAX);
    let launcher = Launcher::new(machine, &place.host, dir.path(), &place.batch)
        .map_err(DriverError::system("name the host's program"))?;
    let commit =
        Committer::start(opened.log).map_err(DriverError::system("start the journal's thread"))?;
    let sources = Sources {
        words: heard,
        asked,
        signals,
        alarm: Alarm::new().map_err(DriverError::system("make timers"))?,
        refresh: observer.refresh_every().map(|every| {
            let mut interval = tokio::time::interval(every);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        }),
    };
    let end = opened.loaded.end;
    let driver = Driver {
        core: opened.core,
        clock: opened.clock,
        hosts: Hosts::new(launcher, dir.hosts_log(), words),
        dir,
        starter: Starter::new(own_environment()),
        desk: Desk::default(),
        names: TaskNames::default(),
        outbox: Outbox::new(end.seq),
        commit,
        checkpoints: Checkpoints {
            journal_bytes_since: opened.loaded.tail_bytes,
            last_bytes: opened.loaded.checkpoint_bytes,
        },
        begins: None,
        durable: end,
        live_changed: false,
        proven: None,
        inputs: VecDeque::new(),
        outsiders: Outsiders::default(),
        gone: Vec::new(),
        held: None,
        listed: None,
        untold: VecDeque::new(),
        unshown: Vec::new(),
        observer,
        linger: None,
        disk_error: None,
        stopping: None,
        ending: None,
        place,
        replacing: None,
    };
    Ok((driver, sources))
}

/// Works to the end, which another program may see instead of this one.
pub(super) async fn drive(
    mut driver: Driver<'_>,
    sources: &mut Sources,
    mut server: Server,
) -> Result<Ending, DriverError> {
    let ended = loop {
        match driver.work(sources).await {
            Ok(Left::Ended(ending)) => break Ok(ending),
            Ok(Left::AtRest) => server = leave(&mut driver, sources, server).await?,
            Err(error) => break Err(error),
        }
    };
    driver.close(server, ended.is_ok()).await;
    ended
}

fn first_inputs(mode: Mode, recovered: Input) -> VecDeque<Input> {
    let created = match mode {
        Mode::Create(created) => Some(Input::Created(created)),
        Mode::Resume | Mode::CleanUps => None,
    };
    created.into_iter().chain([recovered]).collect()
}

fn tell_damage(loaded: &Loaded, observer: &mut dyn Observer) {
    if let Some(torn) = &loaded.torn {
        let kept = torn.kept.as_ref().map(|kept| kept.display().to_string());
        let text = format!(
            "{}: cut {} bytes of an unfinished write at byte {} ({}), kept in {}",
            torn.file.display(),
            torn.bytes,
            torn.offset,
            torn.why,
            kept.unwrap_or_default()
        );
        tracing::warn!("{text}");
        observer.noted(Note::TornTail(&text));
    }
}

/// Variables that are not UTF-8 can not be told to a host in JSON, and are left out.
fn own_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A checkpoint of what the files say at this place; `None` where the last one goes further.
fn state_at(dir: &StateDir, at: Position) -> Result<Option<Vec<u8>>, DriverError> {
    let loaded = load(&RealDisk, dir, Check::Tail)?;
    let mut core = loaded.checkpoint.map_or_else(Core::new, Core::restore);
    for entry in loaded
        .entries
        .iter()
        .take_while(|entry| entry.seq <= at.seq)
    {
        core.replay(entry).map_err(|source| DriverError::Replay {
            dir: dir.path().to_owned(),
            source,
        })?;
    }
    match core.facts() {
        Some(facts) if facts.batch.seq == at.seq => Ok(Some(checkpoint::encode(facts, at)?)),
        Some(_) | None => Ok(None),
    }
}

impl Driver<'_> {
    /// What waited for a supervisor; the tick after it lets the batch be closed if there is nothing
    /// to do.
    fn feed_waiting(&mut self, commands: Vec<OperatorCommand>) -> Result<(), DriverError> {
        for command in commands {
            self.ordered(command, Waiter::Nobody);
        }
        let waiting = inbox::waiting(&RealDisk, &self.dir)?;
        self.take_inbox(waiting);
        self.inputs.push_back(Input::Tick);
        Ok(())
    }

    /// Says that nothing lives, so that nobody needs to fold the journal to know that.
    fn close_registry(&self) {
        let facts = self.core.facts().filter(|facts| facts.runs.is_empty());
        let Some(facts) = facts.filter(|facts| facts.batch.seq == self.durable.seq) else {
            return;
        };
        let closed = Registry::of(facts).closed(self.durable);
        if let Err(error) = registry::write(&RealDisk, &self.dir, &closed.encode()) {
            tracing::debug!(%error, "the list of live processes is older than the journal");
        }
    }

    /// What the command line wanted is in the records so far: from them on a supervisor that dies is
    /// gone on with. One that dies before is started anew with the same words.
    fn begin_after_now(&mut self) {
        self.begins = self.core.facts().map(|facts| facts.batch.seq);
        self.tell_begun();
    }

    pub(super) fn tell_begun(&mut self) {
        let Some(seq) = self.begins.filter(|&seq| seq <= self.durable.seq) else {
            return;
        };
        let Some(batch) = self.core.facts().map(|facts| facts.batch.id.clone()) else {
            return;
        };
        tracing::debug!(seq, "the guardian may go on with the batch");
        self.begins = None;
        if let Some(guarded) = &self.place.guarded {
            guarded.tell(&Word::Begun(batch));
        }
    }

    pub(super) fn guardian_gone(&mut self) {
        if let Some(guarded) = self.place.guarded.take() {
            let pid = guarded.pid();
            tracing::warn!(pid, "the guardian is gone");
            self.note(Note::GuardianGone(pid));
        }
    }

    /// Where the guardian that started us is gone, nobody waits for the outcome: the next `run` is
    /// told it.
    fn leave_untold(&self) {
        let holder = lock::last_holder(&self.dir).ok().flatten();
        let had_one = holder.is_some_and(|holder| holder.guardian.is_some());
        let has_one = self.place.guarded.as_ref().is_some_and(|it| !it.is_over());
        if had_one
            && !has_one
            && let Err(error) = untold::leave(&self.dir)
        {
            tracing::warn!(%error, "the next run will not be told what came of the batch");
        }
    }

    /// After the loop: what waits is told, what is durable is summed up, and the disk's thread ends.
    async fn close(mut self, server: Server, well: bool) {
        self.stay("the supervisor ends");
        self.desk.close();
        if well {
            self.hosts.sweep(orphans::CLEAN_PASSES);
            self.hosts.remove_cgroup();
            self.sum_up();
            self.close_registry();
        }
        self.leave_untold();
        drop(self.desk);
        server::unbind(&self.place.socket, &self.place.lock);
        server.close().await;
        self.commit.end();
        if well {
            self.observer.ended(&self.dir);
        }
    }

    /// A checkpoint for those who read the ended batch. It stops before the last group: that is the
    /// one which a crash of the machine may tear, and a checkpoint that holds more than the journal
    /// says that records were lost.
    fn sum_up(&mut self) {
        let worth = checkpoint::is_worth_at_end(self.checkpoints.journal_bytes_since);
        let Some(at) = self.proven.filter(|_| worth && self.commit.may_save()) else {
            return;
        };
        self.core = Core::new(); // its memory is needed for the state that is read
        match state_at(&self.dir, at) {
            Ok(Some(bytes)) => self.commit.save(bytes),
            Ok(None) => {}
            Err(error) => tracing::warn!(error = chain(&error), "no checkpoint at the end"),
        }
    }
}
