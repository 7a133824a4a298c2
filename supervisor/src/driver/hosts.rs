//! The table of live hosts: each is started, spoken to, killed and collected here.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::command::Command;
use protocol::framing::HalfLine;
use protocol::ids::Generation;
use protocol::rpc;
use protocol::version::{BUILD, Hello};
use supervisor_core::identity::{Exit, Identity};
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::driver::host_io::{self, HELLO_ID, Inlet, Outlet, Sent, Unsent, Words};
use crate::process::orphans::{self, CLEAN_PASSES, Swept};
use crate::process::pidfd;
use crate::process::spawn::{Launcher, Spawned};

/// Longest file of what hosts print to stderr; then it becomes `<name>.1` and a new one begins.
/// Hosts print there only what they can not report, so this is many days of trouble.
const LOG_MAX: u64 = 16 << 20;

/// The live hosts of this supervisor.
#[derive(Debug)]
pub struct Hosts {
    launcher: Launcher,
    log: Log,
    words: Words,
    live: HashMap<Generation, Host>,
    pids: HashSet<u32>,
    /// A child that is no host and is not swept: a supervisor that is being tried.
    spared: Option<u32>,
    /// On while nobody is to listen to hosts.
    park: watch::Sender<bool>,
}

#[derive(Debug)]
struct Host {
    pid: u32,
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
            spared: None,
            park: watch::Sender::new(false),
        }
    }

    /// Starts a host and says hello to it.
    ///
    /// # Errors
    /// When it can not be started, identified or watched; no process of it is left then.
    pub fn spawn(&mut self, generation: Generation, token: u128) -> io::Result<Identity> {
        let hello = rpc::request(HELLO_ID, "hello", Hello::ours())?;
        let stderr = self.log.open()?;
        let spawned = self.launcher.spawn(token, stderr)?;
        let identity = spawned.identity.clone();
        if let Err(error) = self.register(generation, spawned) {
            self.sweep(CLEAN_PASSES); // a child of ours that is no host
            return Err(error);
        }
        // A host that has ended already is seen by its process, not by this pipe.
        self.line(generation, &hello);
        Ok(identity)
    }

    fn register(&mut self, generation: Generation, spawned: Spawned) -> io::Result<()> {
        let said: Arc<str> = BUILD.into();
        let stdout = pipe::Receiver::from_owned_fd(spawned.stdout)?;
        let host = Host {
            pid: spawned.identity.pid,
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
        self.pids.insert(host.pid);
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
                pid: host.pid,
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
        let host = Host {
            pid: kept.pid,
            process: Arc::new(pidfd::watch(kept.process)?),
            outlet: Outlet::resume(kept.stdin, kept.unsent)?,
            last_id: kept.last_id,
            said: kept.said.clone(),
            parked: None,
        };
        let inlet = Inlet::resume(stdout, kept.said, kept.line, kept.open);
        self.admit(generation, host, inlet);
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

    /// Kills the host; its tree comes to us and is swept when its end is seen.
    pub fn kill(&self, generation: Generation) {
        let Some(host) = self.live.get(&generation) else {
            return;
        };
        if let Err(error) = pidfd::kill(host.process.get_ref()) {
            tracing::error!(run = generation.0, pid = host.pid, %error, "the host can not be killed");
        }
    }

    /// Collects the exits of hosts that have ended, and then what they left behind.
    pub fn collect(&mut self, ended: &[Generation]) -> Vec<(Generation, Exit)> {
        let mut exits = Vec::with_capacity(ended.len());
        for &generation in ended {
            let Some(host) = self.live.remove(&generation) else {
                continue;
            };
            let exit = match pidfd::reap(host.process.as_fd()) {
                Ok(Some(exit)) => exit,
                // Not to be: its pidfd said that it has ended, and nobody else collects.
                Ok(None) => Exit::Unseen,
                Err(error) => {
                    tracing::error!(run = generation.0, %error, "the host's exit was lost");
                    Exit::Unseen
                }
            };
            self.pids.remove(&host.pid);
            exits.push((generation, exit));
        }
        let by_themselves = exits.iter().all(|(_, exit)| *exit == Exit::Code(0));
        self.sweep(if by_themselves { 1 } else { CLEAN_PASSES });
        exits
    }

    /// Ends every child that is no host; so many looks in a row must find none.
    pub fn sweep(&self, clean_passes: u32) -> Swept {
        match orphans::sweep(clean_passes, |pid| {
            self.pids.contains(&pid) || self.spared == Some(pid)
        }) {
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

/// A live host as one program leaves it for the next.
#[derive(Debug)]
pub struct LeftHost<'a> {
    /// Its run.
    pub generation: Generation,
    /// Its process number.
    pub pid: u32,
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
