//! Starts hosts; the supervisor starts nothing else.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use protocol::command::Keeper;
use protocol::ids::BatchId;
use supervisor_core::containment::{Containment, Layer, Layers, Wish};
use supervisor_core::identity::Identity;

use crate::process::birth::{self, Birth, Born};
use crate::process::cgroup::{Leaf, Missing, Parent};
use crate::process::identity::Machine;
use crate::process::pidfd;
use crate::process::tag::{self, TOKEN_VARIABLE, token_text};

/// The variable that names the batch of a host, for people who look at a process.
pub const BATCH_VARIABLE: &str = "SUPERVISOR_BATCH";
/// The variable that tells a host to make a pid namespace for its run.
pub const NAMESPACE_VARIABLE: &str = "SUPERVISOR_PID_NAMESPACE";
/// What a host inherits of our environment. It needs no more: the environment of the agent's
/// program travels in `start`.
const INHERITED: &[&str] = &["PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL"];

/// The layers that the host makes by itself before it answers the hello: it answers only when it
/// holds them, and nothing is started in it before.
const OF_EVERY_HOST: &[Layer] = &[
    Layer::Session,
    #[cfg(target_os = "linux")]
    Layer::Subreaper,
    Layer::EnvTag,
    Layer::Registry,
    Layer::HostEof,
];

/// How one host is to be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Its spawn token.
    pub token: u128,
    /// How its tree is to be held together.
    pub wish: Wish,
    /// Most memory of its whole tree, bytes; its cgroup keeps it where one has a say over memory.
    pub memory: Option<u64>,
}

/// Why a host was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The batch file asks for a cgroup.
    #[error("`containment: cgroup` can not be had")]
    NoCgroup(#[source] Arc<Missing>),
    /// The leaf of this run can not be made.
    #[error("the cgroup of the run can not be made")]
    Leaf(#[source] io::Error),
    /// The program can not be started or identified; nothing of it is left.
    #[error("the host can not be started")]
    Start(#[source] io::Error),
}

/// What every host of a batch is started with.
#[derive(Debug)]
pub struct Launcher {
    program: CString,
    cwd: CString,
    env: Vec<(OsString, OsString)>,
    machine: Machine,
    parent: Result<Parent, Arc<Missing>>,
}

/// A host that was just started and waits behind the stdin gate.
#[derive(Debug)]
pub struct Spawned {
    /// What it is known by.
    pub identity: Identity,
    /// What holds its tree together.
    pub containment: Containment,
    /// Its pin; its exit is collected through it.
    pub pidfd: OwnedFd,
    /// Commands go in here; its end is the host's order to end.
    pub stdin: OwnedFd,
    /// Reports come out here.
    pub stdout: OwnedFd,
}

impl Launcher {
    /// Prepares the start of hosts: the program, its working folder, its environment, and the
    /// batch's cgroup where one can be made.
    ///
    /// # Errors
    /// When a path holds a zero byte.
    pub fn new(
        machine: Machine,
        program: &Path,
        cwd: &Path,
        batch: &BatchId,
    ) -> io::Result<Launcher> {
        let mut env = inherited(|name| std::env::var_os(name));
        env.push((BATCH_VARIABLE.into(), batch.as_str().into()));
        let parent = Parent::make(batch).map_err(Arc::new);
        if let Err(missing) = &parent {
            tracing::debug!(%missing, "runs have no cgroups");
        }
        Ok(Launcher {
            program: CString::new(program.as_os_str().as_bytes())?,
            cwd: CString::new(cwd.as_os_str().as_bytes())?,
            env,
            machine,
            parent,
        })
    }

    /// What this machine says of itself.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Where the leaves of the runs are; or why there are none.
    ///
    /// # Errors
    /// [`Missing`].
    pub fn cgroup(&self) -> Result<&Parent, Arc<Missing>> {
        self.parent.as_ref().map_err(Arc::clone)
    }

    /// Starts one host; its stderr goes to `stderr`. The cost does not grow with the size of this
    /// process.
    ///
    /// # Errors
    /// [`SpawnError`]: no process of it is left, and no leaf.
    pub fn spawn(&mut self, order: Order, stderr: File) -> Result<Spawned, SpawnError> {
        let (leaf, keeps) = self.leaf(order)?.unzip();
        let spawned = self.start(order, leaf.as_ref(), stderr);
        if let (Err(_), Some(leaf)) = (&spawned, &leaf) {
            leaf.remove();
        }
        let mut spawned = spawned.map_err(SpawnError::Start)?;
        spawned.containment.memory = order.memory.map(|_| match keeps {
            Some(true) => Keeper::Cgroup,
            Some(false) | None => Keeper::Host,
        });
        Ok(spawned)
    }

    /// The leaf of a run, and whether it keeps the run's limit of memory.
    fn leaf(&self, order: Order) -> Result<Option<(Leaf, bool)>, SpawnError> {
        let asked = match order.wish {
            Wish::Cgroup => true,
            Wish::Auto | Wish::Pidns => false,
            Wish::Portable => return Ok(None),
        };
        let parent = match &self.parent {
            Ok(parent) => parent,
            Err(missing) if asked => return Err(SpawnError::NoCgroup(missing.clone())),
            Err(_) => return Ok(None),
        };
        let made = match order.memory {
            Some(bytes) => limited(parent, order.token, bytes),
            None => parent.leaf(order.token).map(|leaf| (leaf, false)),
        };
        match made {
            Ok(made) => Ok(Some(made)),
            Err(error) if asked => Err(SpawnError::Leaf(error)),
            Err(error) => {
                tracing::warn!(%error, "this run has no cgroup");
                Ok(None)
            }
        }
    }

    fn start(&self, order: Order, leaf: Option<&Leaf>, stderr: File) -> io::Result<Spawned> {
        let (child_stdin, stdin) = io::pipe()?;
        let (stdout, child_stdout) = io::pipe()?;
        let stdio = [child_stdin.into(), child_stdout.into(), stderr.into()];
        let mut env = self.env.clone();
        env.push((TOKEN_VARIABLE.into(), token_text(order.token).into()));
        if order.wish == Wish::Pidns {
            env.push((NAMESPACE_VARIABLE.into(), "1".into()));
        }
        let lent = tag::lend(order.token)?;
        let tagged = lent.is_some();
        let born = match leaf {
            Some(leaf) => self.start_in(leaf, &env, &stdio),
            None => self.start_here(env, stdio),
        };
        drop(lent);
        let Born { pid, pidfd } = born?;
        let identity = match self.machine.identify(pid, &pidfd) {
            Ok(identity) => identity,
            Err(error) => {
                end(&pidfd)?;
                return Err(error);
            }
        };
        Ok(Spawned {
            // A session of its own is the first thing that a host makes.
            identity: Identity {
                session: Some(pid),
                ..identity
            },
            containment: containment(order.wish, tagged, leaf),
            pidfd,
            stdin: stdin.into(),
            stdout: stdout.into(),
        })
    }

    /// There is no hook between fork and exec, so that the standard library takes `posix_spawn`.
    fn start_here(&self, env: Vec<(OsString, OsString)>, stdio: [OwnedFd; 3]) -> io::Result<Born> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that starts processes"
        )]
        let mut command = Command::new(OsStr::from_bytes(self.program.as_bytes()));
        command
            .current_dir(OsStr::from_bytes(self.cwd.as_bytes()))
            .env_clear()
            .envs(env);
        let [stdin, stdout, stderr] = stdio.map(Stdio::from);
        let mut child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn()?;
        let pid = child.id();
        match pidfd::open(pid) {
            Ok(pidfd) => Ok(Born { pid, pidfd }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    fn start_in(
        &self,
        leaf: &Leaf,
        env: &[(OsString, OsString)],
        stdio: &[OwnedFd; 3],
    ) -> io::Result<Born> {
        let cgroup = leaf.open()?;
        let env: Result<Vec<CString>, _> = env.iter().map(variable).collect();
        let [stdin, stdout, stderr] = stdio;
        birth::start(&Birth {
            program: &self.program,
            argv: std::slice::from_ref(&self.program),
            env: &env?,
            cwd: &self.cwd,
            stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            cgroup: cgroup.as_fd(),
        })
    }
}

/// A leaf with a limit of memory, where it can keep one.
fn limited(parent: &Parent, token: u128, bytes: u64) -> io::Result<(Leaf, bool)> {
    if let Err(error) = parent.count_memory() {
        tracing::debug!(%error, "no cgroup keeps limits of memory: hosts watch them");
    }
    let leaf = parent.leaf(token)?;
    match leaf.limit_memory(bytes) {
        Ok(keeps) => Ok((leaf, keeps)),
        Err(error) => {
            leaf.remove();
            Err(error)
        }
    }
}

/// A host without an identity does not live.
fn end(pidfd: &OwnedFd) -> io::Result<()> {
    pidfd::kill(pidfd)?;
    pidfd::collect(pidfd.as_fd())?;
    Ok(())
}

fn containment(wish: Wish, tagged: bool, leaf: Option<&Leaf>) -> Containment {
    let mut layers: Layers = OF_EVERY_HOST.iter().copied().collect();
    if tagged {
        layers = layers.with(Layer::LimitTag);
    }
    if leaf.is_some() {
        layers = layers.with(Layer::Cgroup);
    }
    if wish == Wish::Pidns {
        layers = layers.with(Layer::Pidns);
    }
    Containment {
        layers,
        leaf: leaf.map(|leaf| leaf.dir().to_string_lossy().into()),
        memory: None,
    }
}

fn variable((name, value): &(OsString, OsString)) -> Result<CString, std::ffi::NulError> {
    let mut text = name.as_bytes().to_vec();
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    CString::new(text)
}

fn inherited(read: impl Fn(&str) -> Option<OsString>) -> Vec<(OsString, OsString)> {
    INHERITED
        .iter()
        .filter_map(|&name| Some((name.into(), read(name)?)))
        .collect()
}

/// Sets a pipe end of ours to not block.
///
/// # Errors
/// When the kernel refuses, which it does for no pipe.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(&fd)?;
    Ok(fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?)
}
