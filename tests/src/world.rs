//! A world of its own for one story with the real programs: private home, state and repository,
//! cleared environment, and nothing left alive when it ends.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::clock::{Deadline, pause};

/// Longest wait for something that must happen (a busy machine is slow, a hang is longer).
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at a file that another process writes: nothing else tells of it.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// Private folders, a git repository with one commit, and the built programs.
#[derive(Debug)]
pub struct World {
    root: TempDir,
    operator: Operator,
}

/// Whoever types commands in a world; may do so in a thread of its own.
#[derive(Debug, Clone)]
pub struct Operator {
    root: PathBuf,
    programs: PathBuf,
    /// What starts `supervisor` for it: a program and its first arguments.
    launcher: Vec<OsString>,
}

/// One command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status; `None`: ended by a signal.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Ran {
    /// Asserts the exit status.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Asserts exit status 0.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Its output as one JSON value.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON: {error}\n{}", self.stdout))
    }
}

/// The folder of the built programs: that of this test, or one above for an integration test.
///
/// # Panics
/// When they are not there: `cargo test --workspace` builds them, `-p supervisor-tests` does not.
pub fn programs() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let folder = own.parent().expect("a program lies in a folder");
    let folder = if folder.ends_with("deps") {
        folder.parent().expect("deps lies in the profile's folder")
    } else {
        folder
    };
    for program in ["supervisor", "agent-host"] {
        assert!(
            folder.join(program).is_file(),
            "{} is missing: cargo build -p supervisor -p agent-host",
            folder.join(program).display()
        );
    }
    folder.to_owned()
}

/// A command outside of any world: a compiler, a floor of a benchmark.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests' side: not a run of the product"
)]
pub fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A fresh world.
    ///
    /// # Panics
    /// When its folders or its repository can not be made.
    pub fn new() -> Self {
        // Short: the control socket's path has a limit of about 100 bytes.
        let root = tempfile::Builder::new().prefix("w-").tempdir();
        let root = root.expect("a folder for the world");
        let operator = Operator {
            root: root.path().to_owned(),
            programs: programs(),
            launcher: Vec::new(),
        };
        let world = Self { root, operator };
        for folder in ["home", "state", "config", "run", "repo"] {
            std::fs::create_dir(world.path(folder)).expect("a folder of the world");
        }
        world.set_private("run");
        world.git(&["init", "--quiet", "--initial-branch=main"]);
        world.write("README", "a small repository\n");
        world.commit("first");
        world
    }

    fn set_private(&self, folder: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(self.path(folder), mode).expect("a private folder");
    }

    /// A path of the world: `home`, `state`, `config`, `run`, `repo` or below.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(below)
    }

    /// The repository, in which every command runs.
    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// The state root: `batches/` is below it.
    pub fn state(&self) -> PathBuf {
        self.path("state/supervisor")
    }

    /// Writes a file of the repository.
    ///
    /// # Panics
    /// When it can not be written.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.repo().join(name);
        let folder = path.parent().expect("a file lies in a folder");
        std::fs::create_dir_all(folder).expect("a folder of the repository");
        std::fs::write(&path, text).expect("a file of the repository");
        path
    }

    /// Text of a file of the repository; empty when it is not there (yet).
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.repo().join(name)).unwrap_or_default()
    }

    /// Commits everything in the repository.
    ///
    /// # Panics
    /// When git refuses.
    pub fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
    }

    /// Runs git in the repository and gives its output.
    ///
    /// # Panics
    /// When git refuses.
    pub fn git(&self, args: &[&str]) -> String {
        let mut git = self.operator.program("git");
        git.args([
            "-c",
            "user.name=operator",
            "-c",
            "user.email=operator@localhost",
        ]);
        let ran = finish(git.args(args)).ok();
        ran.stdout
    }

    /// From here on every `supervisor` of this world is started by this program, which is given
    /// these arguments and then the command line to become.
    pub fn launch_by<A: Into<OsString>>(&mut self, launcher: impl IntoIterator<Item = A>) {
        self.operator.launcher = launcher.into_iter().map(Into::into).collect();
    }

    /// The operator of this world.
    pub fn operator(&self) -> Operator {
        self.operator.clone()
    }

    /// A `supervisor` command to be changed further and run by the test itself.
    pub fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        self.operator.command(args)
    }

    /// Runs `supervisor` to its end.
    ///
    /// # Panics
    /// When it can not be started.
    pub fn supervisor<A: AsRef<OsStr>>(&self, args: &[A]) -> Ran {
        self.operator.supervisor(args)
    }

    /// Runs a shell command line in the repository, in this world's environment.
    ///
    /// # Panics
    /// When there is no shell.
    pub fn shell(&self, line: &str) -> Ran {
        finish(self.operator.program("sh").args(["-c", line]))
    }

    /// Runs `supervisor` to its end with this on its stdin.
    ///
    /// # Panics
    /// When it can not be started.
    pub fn supervisor_with_stdin<A: AsRef<OsStr>>(&self, args: &[A], stdin: &str) -> Ran {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut pipe = child.stdin.take().expect("stdin is a pipe");
        // A program that does not read its stdin closes the pipe early; its exit tells why.
        drop(pipe.write_all(stdin.as_bytes()));
        drop(pipe);
        let output = child
            .wait_with_output()
            .expect("a started program can be waited for");
        ran(output.status, &output.stdout, &output.stderr)
    }

    /// Starts `supervisor` and goes on; its output goes to the files `NAME.out` and `NAME.err` of
    /// the world, so that it never waits for a reader.
    ///
    /// # Panics
    /// When it can not be started.
    pub fn start<A: AsRef<OsStr>>(&self, name: &str, args: &[A]) -> Started {
        self.start_with(name, args, &[])
    }

    /// As [`World::start`], with these variables more.
    ///
    /// # Panics
    /// When it can not be started.
    pub fn start_with<A: AsRef<OsStr>>(
        &self,
        name: &str,
        args: &[A],
        variables: &[(&str, &str)],
    ) -> Started {
        let mut command = self.command(args);
        command.envs(variables.iter().copied());
        self.spawn(name, command)
    }

    /// As [`World::start`], in a process group of its own, which is what a terminal and a shell
    /// signal.
    ///
    /// # Panics
    /// When it can not be started.
    pub fn start_apart<A: AsRef<OsStr>>(&self, name: &str, args: &[A]) -> Started {
        let mut command = self.command(args);
        command.process_group(0);
        self.spawn(name, command)
    }

    /// Starts a command that the test has changed; its output goes where [`World::start`] says.
    ///
    /// # Panics
    /// When it can not be started.
    pub fn spawn(&self, name: &str, mut command: Command) -> Started {
        let log = |end: &str| {
            let path = self.path(format!("{name}.{end}"));
            std::fs::File::create(path).expect("a log of the world")
        };
        command.stdout(log("out")).stderr(log("err"));
        let child = command.spawn().expect("the program starts");
        Started { child }
    }

    /// What a command that was started under this name has printed so far.
    pub fn printed(&self, name: &str) -> String {
        let read = |end: &str| std::fs::read_to_string(self.path(format!("{name}.{end}")));
        read("out").unwrap_or_default() + &read("err").unwrap_or_default()
    }

    /// `supervisor status --json`.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    pub fn status(&self) -> Value {
        self.supervisor(&["status", "--json"]).ok().json()
    }

    /// The folder of the newest batch; `None` before the first.
    pub fn batch_dir(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.state().join("batches")).ok()?;
        let folders = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            let made = entry.metadata().and_then(|data| data.created()).ok()?;
            Some((made, entry.path()))
        });
        folders.max().map(|(_, path)| path)
    }

    /// Every whole line of the newest batch's journal, in order.
    ///
    /// # Panics
    /// When a whole line is not JSON.
    pub fn journal(&self) -> Vec<Value> {
        let Some(folder) = self.batch_dir() else {
            return Vec::new();
        };
        let mut files: Vec<(u64, PathBuf)> = std::fs::read_dir(folder.join("journal"))
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let number = path.file_stem()?.to_str()?.parse().ok()?;
                (path.extension()? == "jsonl").then_some((number, path))
            })
            .collect();
        files.sort();
        files.iter().flat_map(|(_, path)| lines(path)).collect()
    }

    /// Looks again and again until `look` sees something.
    ///
    /// # Panics
    /// When it has not after [`PATIENCE`].
    #[track_caller]
    pub fn eventually<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Deadline::after(PATIENCE);
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(!deadline.is_over(), "not in {PATIENCE:?}: {what}");
            pause(LOOK_EVERY);
        }
    }

    /// Every live process that has to do with this world, by its environment, folder or command
    /// line; this process and threads of it are not counted.
    pub fn processes(&self) -> Vec<(Pid, String)> {
        let mark = self.root.path().as_os_str().as_encoded_bytes().to_owned();
        let own = std::process::id();
        let numbers = std::fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let ours = numbers.filter(|pid| *pid != own).filter_map(|pid| {
            let folder = PathBuf::from(format!("/proc/{pid}"));
            let command = std::fs::read(folder.join("cmdline")).unwrap_or_default();
            let environment = std::fs::read(folder.join("environ")).unwrap_or_default();
            let cwd = std::fs::read_link(folder.join("cwd")).unwrap_or_default();
            let named = [
                command.as_slice(),
                &environment,
                cwd.as_os_str().as_encoded_bytes(),
            ]
            .iter()
            .any(|text| text.windows(mark.len()).any(|part| part == mark));
            let shown = String::from_utf8_lossy(&command).replace('\0', " ");
            let pid = Pid::from_raw(i32::try_from(pid).ok()?);
            named.then_some((pid, shown))
        });
        ours.collect()
    }

    /// Asserts that no process of this world is left, however short-lived ones are given time.
    ///
    /// # Panics
    /// When one is still there after [`PATIENCE`].
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        self.eventually("every process of the world has ended", |world| {
            world.processes().is_empty().then_some(())
        });
    }
}

impl Operator {
    fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = tool(program);
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.root.join("home"))
            .env("XDG_STATE_HOME", self.root.join("state"))
            .env("XDG_CONFIG_HOME", self.root.join("config"))
            .env("XDG_RUNTIME_DIR", self.root.join("run"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .current_dir(self.root.join("repo"));
        command
    }

    /// A `supervisor` command to be changed further.
    pub fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let supervisor = self.programs.join("supervisor");
        let mut command = match self.launcher.split_first() {
            None => self.program(supervisor),
            Some((launcher, first)) => {
                let mut command = self.program(launcher);
                command.args(first).arg(supervisor);
                command
            }
        };
        command.args(args);
        command
    }

    /// Runs `supervisor` to its end.
    ///
    /// # Panics
    /// When it can not be started.
    pub fn supervisor<A: AsRef<OsStr>>(&self, args: &[A]) -> Ran {
        finish(&mut self.command(args))
    }
}

impl Drop for World {
    /// A story that failed in the middle must not leave its processes to the next one.
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            // It may have ended by itself meanwhile: then there is nothing to do.
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
    }
}

/// A `supervisor` that runs beside the test.
#[derive(Debug)]
pub struct Started {
    child: Child,
}

impl From<Child> for Started {
    fn from(child: Child) -> Self {
        Self { child }
    }
}

impl Started {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    /// When it can not be asked: it is a child of ours.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it has not ended after [`PATIENCE`].
    pub fn end(mut self, world: &World) -> Option<i32> {
        let status = world.eventually("the supervisor ends", |_| self.ended());
        status.code()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has been reaped.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is small"));
        nix::sys::signal::kill(pid, signal).expect("a child that was not reaped can be signalled");
    }

    /// kill -9 of its whole group, which it must lead, and its end seen.
    ///
    /// # Panics
    /// When it is not a child of ours.
    pub fn kill_group(mut self) {
        self.signal_group(Signal::SIGKILL);
        self.child.wait().expect("a child can be waited for");
    }

    /// Sends a signal to its whole group, which it must lead.
    ///
    /// # Panics
    /// When it has been reaped.
    pub fn signal_group(&self, signal: Signal) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).expect("a pid is small"));
        nix::sys::signal::killpg(group, signal).expect("a group with a child in it is signalled");
    }

    /// kill -9, and its end seen.
    ///
    /// # Panics
    /// When it is not a child of ours.
    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }
}

fn finish(command: &mut Command) -> Ran {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    ran(output.status, &output.stdout, &output.stderr)
}

fn ran(status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Ran {
    Ran {
        code: status.code(),
        stdout: String::from_utf8_lossy(stdout).into_owned(),
        stderr: String::from_utf8_lossy(stderr).into_owned(),
    }
}

/// The whole lines of a JSONL file; what is behind the last newline is not finished.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .map(|line| {
            serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{}: {error}: {line}", path.display()))
        })
        .collect()
}
