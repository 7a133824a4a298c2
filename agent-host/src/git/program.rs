//! The `git` program: found once, started with an environment of its own, its output bounded.
//!
//! Nothing of the caller's `GIT_*` variables reaches it, no hook of the repository runs, nothing is
//! signed, nobody is asked, and no housekeeping begins behind our back. The operator's own settings
//! (filters, merge drivers, line ends) stay as they are: they say what a checkout and a commit are.
//!
//! Where we act for the operator in what is the operator's own ([`Git::as_operator`]), hooks run, what
//! is to be signed is signed, and the language, identity and logins of the environment hold.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use super::error::{GitError, said};
use super::repo::Identity;
use crate::process::{DEFAULT_PATH, resolve};

/// The oldest `git` that will do: it brought `merge-tree --write-tree`.
const LEAST: (u32, u32) = (2, 38);
/// Most bytes of standard output that are taken in (64 MiB: the names of half a million files).
const OUT_MAX: usize = 64 << 20;
/// Most bytes of standard error that are kept: its end is what an error quotes.
const ERR_MAX: usize = 64 << 10;

/// What a shell adds to the number of the signal that ended a program.
const SIGNAL_BASE: i32 = 128;
/// The number of the signal that nobody can catch.
const SIGKILL: i32 = 9;

/// Settings that hold for every call of our own.
const SETTINGS: &[&str] = &[
    "core.hooksPath=/dev/null",
    "commit.gpgSign=false",
    "tag.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "core.fsmonitor=false",
    "core.quotePath=false",
    "core.safecrlf=false",
    "core.editor=true",
    "color.ui=false",
    "advice.detachedHead=false",
    "advice.addEmbeddedRepo=false",
    "rerere.enabled=false",
    "submodule.recurse=false",
    // Others that move the same ref are awaited, as long as a slow disk takes: milliseconds.
    "core.filesRefLockTimeout=10000",
    "core.packedRefsTimeout=10000",
    // What is reported as kept is on the disk, for the price of one flush a call.
    "core.fsync=committed,loose-object,reference",
    "core.fsyncMethod=batch",
];

/// Settings that hold where we act for the operator: nobody is asked, nothing is left behind that
/// runs on, and what is reported as done is on the disk.
const OPERATORS_SETTINGS: &[&str] = &[
    "gc.auto=0",
    "maintenance.auto=false",
    "core.quotePath=false",
    "core.fsync=committed,loose-object,reference",
    "core.fsyncMethod=batch",
    "color.ui=false",
];

/// Variables of the environment that lead `git` to another repository than the one of its folder.
const LEADING_ELSEWHERE: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// What a call obeys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// Ours: as the head of this file says.
    Ours,
    /// The operator's: as if typed by hand, with nobody there to answer.
    Operators,
    /// Those of another program than `git`, otherwise as the operator's.
    Another,
}

/// The program.
#[derive(Debug, Clone)]
pub(crate) struct Git {
    file: PathBuf,
}

impl Git {
    /// Finds it in this process's `PATH`.
    ///
    /// # Errors
    /// When there is none, or too old a one.
    pub(super) fn find() -> Result<Self, GitError> {
        let path = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
        let Some(file) = resolve("git", &path, "/") else {
            return Err(GitError::NoProgram { path });
        };
        let git = Self { file };
        let told = git.at(Path::new("/")).args(["--version"]).text()?;
        match version(&told) {
            Some(found) if found < LEAST => Err(GitError::OldProgram {
                program: git.file,
                found: format!("{}.{}", found.0, found.1),
                least: format!("{}.{}", LEAST.0, LEAST.1),
            }),
            // A build that words its version otherwise is not refused for that.
            Some(_) | None => Ok(git),
        }
    }

    /// A call in this folder.
    pub(super) fn at(&self, folder: &Path) -> Call<'_> {
        call(&self.file, folder, Rules::Ours)
    }

    /// A call in this folder as the operator would make it.
    pub(super) fn as_operator(&self, folder: &Path) -> Call<'_> {
        call(&self.file, folder, Rules::Operators)
    }
}

/// Another program of the operator's that knows repositories.
#[derive(Debug)]
pub(super) struct Another {
    file: PathBuf,
}

impl Another {
    /// Finds it in this process's `PATH`; `Err` is where it was looked for.
    pub(super) fn find(name: &str) -> Result<Self, String> {
        let path = std::env::var("PATH").unwrap_or_else(|_| DEFAULT_PATH.to_owned());
        let file = resolve(name, &path, "/");
        file.map(|file| Self { file }).ok_or(path)
    }

    /// A call in this folder.
    pub(super) fn at(&self, folder: &Path) -> Call<'_> {
        call(&self.file, folder, Rules::Another)
    }
}

fn call<'a>(file: &'a Path, folder: &Path, rules: Rules) -> Call<'a> {
    Call {
        file,
        rules,
        folder: folder.to_owned(),
        arguments: Vec::new(),
        settings: Vec::new(),
        env: Vec::new(),
        input: Vec::new(),
    }
}

/// The first two numbers of `git version 2.47.3`.
fn version(told: &str) -> Option<(u32, u32)> {
    let mut numbers = told.split(' ').nth(2)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// One call of the program.
#[derive(Debug)]
pub(super) struct Call<'a> {
    file: &'a Path,
    rules: Rules,
    folder: PathBuf,
    arguments: Vec<OsString>,
    settings: Vec<String>,
    env: Vec<(&'static str, OsString)>,
    input: Vec<u8>,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Told {
    /// Its exit; a signal is an error before.
    pub(super) code: i32,
    /// What it printed.
    pub(super) out: Vec<u8>,
    /// The end of what it said on standard error.
    pub(super) err: Vec<u8>,
}

impl Call<'_> {
    /// More arguments.
    pub(super) fn args<T: AsRef<OsStr>>(mut self, more: impl IntoIterator<Item = T>) -> Self {
        let more = more.into_iter().map(|one| one.as_ref().to_owned());
        self.arguments.extend(more);
        self
    }

    /// A setting for this call, `name=value`.
    pub(super) fn set(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    /// A variable for this call.
    pub(super) fn env(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name, value.as_ref().to_owned()));
        self
    }

    /// Who makes the commits of this call.
    pub(super) fn by(self, who: &Identity) -> Self {
        self.env("GIT_AUTHOR_NAME", &who.name)
            .env("GIT_AUTHOR_EMAIL", &who.email)
            .by_committer(who)
    }

    /// Who makes the commits of this call, where their authors are known.
    pub(super) fn by_committer(self, who: &Identity) -> Self {
        self.env("GIT_COMMITTER_NAME", &who.name)
            .env("GIT_COMMITTER_EMAIL", &who.email)
    }

    /// What it reads.
    pub(super) fn input(mut self, bytes: Vec<u8>) -> Self {
        self.input = bytes;
        self
    }

    /// Runs it; exit 0 is wanted. Returns what it printed.
    ///
    /// # Errors
    /// When it could not be run, or said no.
    pub(super) fn run(self) -> Result<Vec<u8>, GitError> {
        self.one_of(&[0]).map(|told| told.out)
    }

    /// As [`Call::run`], as text without the line end.
    ///
    /// # Errors
    /// As [`Call::run`].
    pub(super) fn text(self) -> Result<String, GitError> {
        let out = self.run()?;
        Ok(String::from_utf8_lossy(&out).trim_end().to_owned())
    }

    /// Runs it; each of these exits is an answer.
    ///
    /// # Errors
    /// When it could not be run, or ended in another way.
    pub(super) fn one_of(self, codes: &[i32]) -> Result<Told, GitError> {
        let (status, out, err) = self.carry_out().map_err(|source| GitError::NotRun {
            program: self.file.to_owned(),
            folder: self.folder.clone(),
            source,
        })?;
        if out.len() > OUT_MAX {
            return Err(GitError::TooMuch {
                line: self.line(),
                folder: self.folder,
                max: OUT_MAX,
            });
        }
        match status.code() {
            Some(code) if codes.contains(&code) => Ok(Told { code, out, err }),
            _ => Err(GitError::Refused {
                line: self.line(),
                how: ended(status),
                said: said(&err),
                killed: is_killed(status),
                folder: self.folder,
            }),
        }
    }

    /// Runs it; every exit is an answer, and a signal that ended it is told as a shell does.
    ///
    /// # Errors
    /// When it could not be run.
    pub(super) fn any(self) -> Result<Told, GitError> {
        let (status, out, err) = self.carry_out().map_err(|source| GitError::NotRun {
            program: self.file.to_owned(),
            folder: self.folder.clone(),
            source,
        })?;
        let killed = || SIGNAL_BASE + status.signal().unwrap_or_default();
        let code = status.code().unwrap_or_else(killed);
        Ok(Told { code, out, err })
    }

    fn line(&self) -> String {
        let words = self.arguments.iter().map(|word| word.to_string_lossy());
        let line: Vec<_> = words.take(8).collect();
        line.join(" ")
    }

    fn carry_out(&self) -> io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
        let mut command = self.command();
        command
            .stdin(match self.input.is_empty() {
                true => Stdio::null(),
                false => Stdio::piped(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (out, err) = std::thread::scope(|scope| {
            let err = scope.spawn(|| tail(stderr));
            if let Some(mut stdin) = stdin {
                // One that reads no further has said, or will say, why.
                scope.spawn(move || drop(stdin.write_all(&self.input)));
            }
            (head(stdout), err.join().unwrap_or_default())
        });
        Ok((child.wait()?, out?, err))
    }

    fn command(&self) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that starts `git`, inside a process that the host owns"
        )]
        let mut command = Command::new(self.file);
        let settings = match self.rules {
            Rules::Ours => SETTINGS,
            Rules::Operators => OPERATORS_SETTINGS,
            Rules::Another => &[],
        };
        match self.rules {
            Rules::Ours => own_environment(&mut command),
            Rules::Operators | Rules::Another => operators_environment(&mut command),
        }
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder);
        let more = self.settings.iter().map(String::as_str);
        for setting in settings.iter().copied().chain(more) {
            command.args(["-c", setting]);
        }
        command.args(&self.arguments);
        command
    }
}

fn own_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"GIT_") {
            command.env_remove(name);
        }
    }
    command
        .env("LC_ALL", "C")
        .env_remove("LANGUAGE")
        .env("GIT_OPTIONAL_LOCKS", "0");
}

fn operators_environment(command: &mut Command) {
    for name in LEADING_ELSEWHERE {
        command.env_remove(name);
    }
    command.env("GIT_EDITOR", "true");
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
    }
}

/// Whether SIGKILL ended it, or one that it waited for: it comes from outside.
fn is_killed(status: ExitStatus) -> bool {
    status.signal() == Some(SIGKILL) || status.code() == Some(SIGNAL_BASE + SIGKILL)
}

/// What comes first of a stream, one byte beyond the limit at most; the rest is read and dropped.
fn head(stream: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        stream
            .by_ref()
            .take(OUT_MAX as u64 + 1)
            .read_to_end(&mut bytes)?;
        io::copy(&mut stream, &mut io::sink())?;
    }
    Ok(bytes)
}

/// What comes last of a stream.
fn tail(stream: Option<impl Read>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else {
        return kept;
    };
    let mut piece = [0; 8 << 10];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        kept.extend_from_slice(&piece[..count]);
        if kept.len() > ERR_MAX {
            kept.drain(..kept.len() - ERR_MAX);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_every_vendor_are_read() {
        assert_eq!(version("git version 2.47.3"), Some((2, 47)));
        assert_eq!(version("git version 2.39.5 (Apple Git-154)"), Some((2, 39)));
        assert_eq!(version("git version next"), None);
        assert!(version("git version 2.9.1").is_some_and(|old| old < LEAST));
    }

    #[test]
    fn a_refusal_names_the_call_the_folder_and_what_was_said() {
        let home = tempfile::tempdir().unwrap();
        let git = Git::find().unwrap();
        let error = git.at(home.path()).args(["rev-parse", "HEAD"]).run();
        let text = error.unwrap_err().to_string();
        assert!(text.contains("git rev-parse HEAD"), "{text}");
        assert!(text.contains("not a git repository"), "{text}");
        assert!(text.contains(&home.path().display().to_string()), "{text}");
    }

    #[test]
    fn what_it_reads_may_be_longer_than_a_pipe() {
        let home = tempfile::tempdir().unwrap();
        let git = Git::find().unwrap();
        git.at(home.path()).args(["init", "-q"]).run().unwrap();
        let long = vec![b'x'; 1 << 20];
        let call = git.at(home.path()).args(["hash-object", "-w", "--stdin"]);
        let name = call.input(long).text().unwrap();
        let size = git.at(home.path()).args(["cat-file", "-s", &name]);
        assert_eq!(size.text().unwrap(), "1048576");
    }
}
