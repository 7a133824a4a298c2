//! The table of live hosts: each is started, spoken to, killed and collected here.
//!
//! A host that was asked to end and does not is ended in steps: its family is asked as well (and
//! woken up, where it was stopped), a short while later the host is killed, and once its end is seen
//! what is left of its tree ([`tree`]).

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::command::Command;
use protocol::framing::HalfLine;
use protocol::ids::Generation;
use protocol::rpc;
use protocol::version::{BUILD, Hello};
use supervisor_core::containment::{Cleared, Containment};
use supervisor_core::identity::{Exit, Identity};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::driver::host_io::{self, HELLO_ID, Inlet, Outlet, Sent, Unsent, Words};
use crate::process::cgroup::Leaf;
use crate::process::orphans::{self, CLEAN_PASSES, Swept};
use crate::process::spawn::{Launcher, Order, SpawnError, Spawned};
use crate::process::tree::{self, EndedHost};
use crate::process::{pidfd, pressure};

/// Longest file of what hosts print to stderr; then it becomes `<name>.1` and a new one begins.
/// Hosts print there only what they can not report, so this is many days of trouble.
const LOG_MAX: u64 = 16 << 20;

/// From asking the family of a host that did not end in its grace to killing the host: time for a
/// program that was stopped, or whose host hangs, to write down what it has.
const FAMILY_GRACE: Duration = Duration::from_millis(250);

/// The live hosts of this supervisor.
#[derive(Debug)]
pub struct Hosts {
    launcher: Launcher,
    log: Log,
    words: Words,
    live: HashMap<Generation, Host>,
    pids: HashSet<u32>,
    /// Hosts that were killed and have not been seen to end.
    dying: HashSet<Generation>,
    /// A child that is no host and is not swept: a supervisor that is being tried.
    spared: Option<u32>,
    /// On while nobody is to listen to hosts.
    park: watch::Sender<bool>,
}

#[derive(Debug)]
struct Host {
    identity: Identity,
    containment: Containment,
    token: u128,
    /// Processes that the kernel of this machine had killed for want of memory when it began.
    oom_before: u64,
    /// It was asked to end, with a grace.
    asked: bool,
    /// Its family was asked to end, and it is killed in a moment.
    ending: bool,
    /// Processes of its tree that were killed together with it.
    killed: u32,
    process: Arc<AsyncFd<OwnedFd>>,
    outlet: Outlet,
    last_id: u64,
    /// The release that said hello to it.
    said: Arc<str>,
    /// Its pipe while nobody listens to it.
    parked: Option<Inlet>,
}

impl Hosts {
    /// An empty table; hosts started later write their stderr to `log` and speak into `words`.
    pub fn new(launcher: Launcher, log: PathBuf, words: Words) -> Hosts {
        Hosts {
            launcher,
            log: Log { path: log },
            words,
            live: HashMap::new(),
            pids: HashSet::new(),
            dying: HashSet::new(),
            spared: None,
            park: watch::Sender::new(false),
        }
    }

    /// Starts a host and says hello to it.
    ///
    /// # Errors
    /// When it can not be started, identified or watched; no process of it is left then.
    pub fn spawn(
        &mut self,
        generation: Generation,
        order: Order,
    ) -> Result<(Identity, Containment), SpawnError> {
        let hello = rpc::request(HELLO_ID, "hello", Hello::ours());
        let hello = hello.map_err(|error| SpawnError::Start(error.into()))?;
        let stderr = self.log.open().map_err(SpawnError::Start)?;
        let spawned = self.launcher.spawn(order, stderr)?;
        let known = (spawned.identity.clone(), spawned.containment.clone());
        if let Err(error) = self.register(generation, order.token, spawned) {
            self.sweep(CLEAN_PASSES); // a child of ours that is no host
            return Err(SpawnError::Start(error));
        }
        // A host that has ended already is seen by its process, not by this pipe.
        self.line(generation, &hello);
        Ok(known)
    }

    fn register(
        &mut self,
        generation: Generation,
        token: u128,
        spawned: Spawned,
    ) -> io::Result<()> {
        let said: Arc<str> = BUILD.into();
        let stdout = pipe::Receiver::from_owned_fd(spawned.stdout)?;
        let host = Host {
            identity: spawned.identity,
            containment: spawned.containment,
            token,
            oom_before: pressure::kills_of_machine(),
            asked: false,
            ending: false,
            killed: 0,
            process: Arc::new(pidfd::watch(spawned.pidfd)?),
            outlet: Outlet::new(spawned.stdin)?,
            last_id: HELLO_ID,
            said: said.clone(),
            parked: None,
        };
        self.admit(generation, host, Inlet::new(stdout, said));
        Ok(())
    }

    fn admit(&mut self, generation: Generation, host: Host, inlet: Inlet) {
        self.pids.insert(host.identity.pid);
        let process = host.process.clone();
        self.live.insert(generation, host);
        self.listen(generation, inlet, process);
    }

    fn listen(&self, generation: Generation, inlet: Inlet, process: Arc<AsyncFd<OwnedFd>>) {
        let (words, park) = (self.words.clone(), self.park.subscribe());
        let listening = host_io::listen(generation, inlet, process, words, park);
        drop(tokio::spawn(listening)); // it ends with its host, or when it is parked
    }

    /// From now on nobody listens to hosts, also to those that start; each listener says so.
    pub fn park(&self) {
        self.park.send_replace(true);
    }

    /// A listener gave its pipe back.
    pub fn parked(&mut self, generation: Generation, inlet: Inlet) {
        if let Some(host) = self.live.get_mut(&generation) {
            host.parked = Some(inlet);
        }
    }

    /// Whether nobody listens to any host.
    pub fn are_parked(&self) -> bool {
        self.live.values().all(|host| host.parked.is_some())
    }

    /// Listens again to all hosts.
    pub fn listen_again(&mut self) {
        self.park.send_replace(false);
        let inlets: Vec<_> = (self.live.iter_mut())
            .filter_map(|(run, host)| Some((*run, host.parked.take()?, host.process.clone())))
            .collect();
        for (generation, inlet, process) in inlets {
            self.listen(generation, inlet, process);
        }
    }

    /// What the next program needs to go on with these hosts. It is true until the event loop runs
    /// again.
    pub fn left(&self) -> Vec<LeftHost<'_>> {
        let left = self.live.iter().map(|(&generation, host)| {
            let parked = host.parked.as_ref();
            let (line, open) = parked.map_or((HalfLine::default(), true), Inlet::rest);
            LeftHost {
                generation,
                pid: host.identity.pid,
                token: host.token,
                containment: &host.containment,
                asked: host.asked,
                ending: host.ending,
                process: host.process.as_fd(),
                stdin: host.outlet.as_fd(),
                stdout: parked.map(AsFd::as_fd),
                last_id: host.last_id,
                said: &host.said,
                unsent: host.outlet.unsent(),
                line,
                open,
            }
        });
        left.collect()
    }

    /// Goes on with a host of the program before this one.
    ///
    /// # Errors
    /// When its descriptors can not be watched.
    pub fn adopt(&mut self, generation: Generation, kept: KeptHost) -> io::Result<()> {
        let stdout = pipe::Receiver::from_owned_fd(kept.stdout)?;
        // It is an uncollected child of ours, so its number still means it.
        let identity = self.launcher.machine().identify(kept.pid, &kept.process)?;
        let host = Host {
            identity: Identity {
                session: Some(kept.pid),
                ..identity
            },
            containment: kept.containment,
            token: kept.token,
            oom_before: pressure::kills_of_machine(),
            asked: kept.asked,
            ending: kept.ending,
            killed: 0,
            process: Arc::new(pidfd::watch(kept.process)?),
            outlet: Outlet::resume(kept.stdin, kept.unsent)?,
            last_id: kept.last_id,
            said: kept.said.clone(),
            parked: None,
        };
        let inlet = Inlet::resume(stdout, kept.said, kept.line, kept.open);
        self.admit(generation, host, inlet);
        if kept.ending {
            // Whoever waited for the moment to kill it is gone.
            self.kill(generation);
        }
        Ok(())
    }

    /// Spares this child from sweeps, or with `None` no child that is not a host.
    pub fn spare(&mut self, pid: Option<u32>) {
        self.spared = pid;
    }

    /// How many hosts live.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Sends a command; `None` when this run has no live host.
    pub fn command(&self, generation: Generation, command: &Command) -> Option<Sent> {
        let host = self.live.get(&generation)?;
        match serde_json::to_vec(&Notification::of(command)) {
            Ok(mut line) => {
                line.push(b'\n');
                Some(host.outlet.send(&line))
            }
            Err(error) => {
                tracing::error!(run = generation.0, %error, "a command can not be written as JSON");
                Some(Sent::Dropped)
            }
        }
    }

    /// Sends a line that was made elsewhere (answers); `None` when this run has no live host.
    pub fn line(&self, generation: Generation, line: &[u8]) -> Option<Sent> {
        Some(self.live.get(&generation)?.outlet.send(line))
    }

    /// Asks for a sign of life; `None` when this run has no live host.
    pub fn ping(&mut self, generation: Generation) -> Option<Sent> {
        let host = self.live.get_mut(&generation)?;
        host.last_id += 1;
        match rpc::request(host.last_id, "ping", serde_json::json!({})) {
            Ok(line) => Some(host.outlet.send(&line)),
            Err(_) => Some(Sent::Dropped), // an empty object can always be written
        }
    }

    /// Notes that the host was asked to end, with a grace.
    pub fn asked_to_end(&mut self, generation: Generation) {
        if let Some(host) = self.live.get_mut(&generation) {
            host.asked = true;
        }
    }

    /// Kills the host, at once or, when it did not end in the grace it was given, after its family was
    /// asked. Where the run has a cgroup everything in it is killed with the host; what is left of
    /// its tree is ended when its own end is seen.
    pub fn kill(&mut self, generation: Generation) {
        let Some(host) = self.live.get_mut(&generation) else {
            return;
        };
        let pid = host.identity.pid;
        if std::mem::take(&mut host.asked) {
            host.ending = true;
            orphans::ask_to_end(pid);
            let process = host.process.clone();
            drop(tokio::spawn(async move {
                tokio::time::sleep(FAMILY_GRACE).await;
                kill(generation, pid, &process);
            }));
            return;
        }
        let leaf = host.containment.leaf.as_deref();
        if let Some(leaf) = leaf.and_then(|dir| Leaf::recorded(dir, host.token)) {
            // A second kill meets the same processes: they are not counted twice.
            host.killed = host.killed.max(leaf.strike(pid));
        }
        kill(generation, pid, &host.process);
        self.dying.insert(generation);
    }

    /// A host was seen to end.
    pub fn has_ended(&mut self, generation: Generation) {
        self.dying.remove(&generation);
    }

    /// Whether a host that was killed has not been seen to end.
    pub fn are_dying(&self) -> bool {
        !self.dying.is_empty()
    }

    /// Collects hosts that have ended, and ends what is left of their trees.
    pub fn collect(&mut self, ended: &[Generation]) -> Vec<Gone> {
        let mut runs = Vec::with_capacity(ended.len());
        let mut hosts = Vec::with_capacity(ended.len());
        for &generation in ended {
            let Some(host) = self.live.remove(&generation) else {
                continue;
            };
            self.pids.remove(&host.identity.pid);
            runs.push((generation, host.oom_before));
            hosts.push(EndedHost {
                identity: host.identity,
                containment: host.containment,
                token: host.token,
                killed: host.killed,
                process: Pin(host.process),
            });
        }
        let is_host = |pid| self.is_kept(pid);
        let ends = tree::end_trees(self.launcher.machine(), &hosts, is_host);
        let runs = runs.into_iter().zip(ends);
        let gone = runs.map(|((generation, before), end)| Gone {
            generation,
            exit: end.exit,
            cleared: end.cleared,
            oom: (end.exit == Exit::Signal(9))
                .then(|| pressure::evidence(end.oom_kills, before, pressure::kills_of_machine()))
                .flatten(),
        });
        gone.collect()
    }

    /// Removes the batch's folder of cgroups, once no host lives.
    pub fn remove_cgroup(&self) {
        if let (true, Ok(parent)) = (self.live.is_empty(), self.launcher.cgroup()) {
            parent.remove();
        }
    }

    /// Ends every child that is no host; so many looks in a row must find none.
    pub fn sweep(&self, clean_passes: u32) -> Swept {
        match orphans::sweep(clean_passes, |pid| self.is_kept(pid), |_pid| {}) {
            Ok(swept) => {
                if swept != Swept::default() {
                    tracing::warn!(
                        ended = swept.ended,
                        left = swept.left,
                        "orphans of dead hosts"
                    );
                }
                swept
            }
            Err(error) => {
                tracing::error!(%error, "children can not be listed: orphans may be left");
                Swept::default()
            }
        }
    }

    /// Whether this child lives on: a live host, or a supervisor that is being tried.
    fn is_kept(&self, pid: u32) -> bool {
        self.pids.contains(&pid) || self.spared == Some(pid)
    }

    /// Whether this process number is a live host's.
    pub fn is_host(&self, pid: u32) -> bool {
        self.pids.contains(&pid)
    }

    /// Whether this run has a live host.
    pub fn is_live(&self, generation: Generation) -> bool {
        self.live.contains_key(&generation)
    }

    /// Whether no host lives.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }
}

/// A host that is gone.
#[derive(Debug)]
pub struct Gone {
    /// Its run.
    pub generation: Generation,
    /// How it ended.
    pub exit: Exit,
    /// What is known of its tree now.
    pub cleared: Cleared,
    /// What says that the kernel killed it for want of memory.
    pub oom: Option<Arc<str>>,
}

/// A live host as one program leaves it for the next.
#[derive(Debug)]
pub struct LeftHost<'a> {
    /// Its run.
    pub generation: Generation,
    /// Its process number.
    pub pid: u32,
    /// Its spawn token.
    pub token: u128,
    /// What holds its tree together.
    pub containment: &'a Containment,
    /// It was asked to end, with a grace.
    pub asked: bool,
    /// Its family was asked to end, and it is to be killed.
    pub ending: bool,
    /// Its pin.
    pub process: BorrowedFd<'a>,
    /// The pipe of commands.
    pub stdin: BorrowedFd<'a>,
    /// The pipe of reports; absent while somebody listens to it.
    pub stdout: Option<BorrowedFd<'a>>,
    /// The number of the last request to it.
    pub last_id: u64,
    /// The release that said hello to it.
    pub said: &'a str,
    /// What waits for it to read.
    pub unsent: Unsent,
    /// What was read of a line that has only begun.
    pub line: HalfLine,
    /// Whether the end of its stdout has not been seen.
    pub open: bool,
}

/// The same host as the next program takes it.
#[derive(Debug)]
pub struct KeptHost {
    /// Its process number.
    pub pid: u32,
    /// Its spawn token.
    pub token: u128,
    /// What holds its tree together.
    pub containment: Containment,
    /// It was asked to end, with a grace.
    pub asked: bool,
    /// Its family was asked to end, and it is to be killed.
    pub ending: bool,
    /// Its pin.
    pub process: OwnedFd,
    /// The pipe of commands.
    pub stdin: OwnedFd,
    /// The pipe of reports.
    pub stdout: OwnedFd,
    /// The number of the last request to it.
    pub last_id: u64,
    /// The release that said hello to it.
    pub said: Arc<str>,
    /// What waits for it to read.
    pub unsent: Unsent,
    /// What was read of a line that has only begun.
    pub line: HalfLine,
    /// Whether the end of its stdout has not been seen.
    pub open: bool,
}

/// The pin of a host, shared with who listens to it.
struct Pin(Arc<AsyncFd<OwnedFd>>);

impl AsFd for Pin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn kill(generation: Generation, pid: u32, process: &AsyncFd<OwnedFd>) {
    if let Err(error) = pidfd::kill(process.get_ref()) {
        tracing::error!(run = generation.0, pid, %error, "the host can not be killed");
    }
}

/// A command in its envelope, serialised in one pass.
#[derive(serde::Serialize)]
struct Notification<'a> {
    jsonrpc: &'static str,
    #[serde(flatten)]
    command: &'a Command,
}

impl<'a> Notification<'a> {
    fn of(command: &'a Command) -> Self {
        Self {
            jsonrpc: "2.0",
            command,
        }
    }
}

/// The file that hosts print to.
#[derive(Debug)]
struct Log {
    path: PathBuf,
}

impl Log {
    fn open(&self) -> io::Result<File> {
        let file = open_log(&self.path)?;
        if file.metadata()?.len() < LOG_MAX {
            return Ok(file);
        }
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        std::fs::rename(&self.path, older)?;
        open_log(&self.path)
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
}
