//! The files of one run: `manifest.json`, `events.jsonl` and the durable `exit.json`.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use protocol::class::Class;
use protocol::command::{Adapter, PromptBy, Start, Text};
use protocol::event_file::{EVENT_FILE_NAME, EVENT_LINE_VERSION, EventLine};
use protocol::exit_file::{
    CLEARED_FILE_NAME, EXIT_FILE_NAME, ExitFile, HAND_OFF_VARIABLE, MANIFEST_FILE_NAME,
    PROMPT_FILE_NAME, STDERR_FILE_NAME, STDOUT_FILE_NAME,
};
use protocol::report::Event;
use serde::Serialize;

use crate::clock;
use crate::plain::{Folder, Made};

/// Longest time that an event waits in memory before it is in the file: short enough for
/// `logs -f`, long enough that a busy agent costs a few writes a second.
const FLUSH_AFTER: Duration = Duration::from_millis(250);
/// Most bytes of events held in memory.
const BUFFER_MAX: usize = 16 * 1024;
/// Format version of `manifest.json`.
const MANIFEST_VERSION: u32 = 1;

/// A file of the run could not be made or written.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}", path.display())]
pub(crate) struct FileError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FileError {
    pub(crate) fn new(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self {
            what,
            path: path.to_owned(),
            source,
        }
    }

    /// The error and its cause on one line.
    pub(crate) fn text(&self) -> String {
        format!("{self}: {}", self.source)
    }

    /// The class of a run that ends by it.
    pub(crate) fn class(&self) -> Class {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        match self.source.kind() {
            StorageFull | QuotaExceeded | ReadOnlyFilesystem => Class::Disk,
            _ => Class::Environment,
        }
    }
}

/// The folder of a run and what is open in it.
pub(crate) struct RunDir {
    folder: Rc<Folder>,
    events: Events,
}

/// Makes a folder of a task, 0700, and what is missing above it. A symbolic link from the task's own
/// folder down is refused: an agent of an earlier run could have put it there.
///
/// # Errors
/// [`FileError`], also when something else than a folder is in the way, or `path` is not below `task`.
pub(crate) fn make_in_task(task: &Path, path: &Path) -> Result<Made, FileError> {
    let failed = |source| FileError::new("can not make", path, source);
    let below = task
        .parent()
        .and_then(|outer| Some((outer, path.strip_prefix(outer).ok()?)));
    let (outer, below) = below
        .filter(|_| path.starts_with(task))
        .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    let made = Folder::outer(outer).and_then(|outer| outer.make(below));
    made.map_err(failed)
}

impl RunDir {
    /// What will be in the run's folder; at most `events_max` bytes of events.
    pub(crate) fn new(folder: Rc<Folder>, events_max: u64) -> Self {
        let events = Events {
            folder: Some(Rc::clone(&folder)),
            room: events_max,
            ..Events::default()
        };
        Self { folder, events }
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Rc<Folder> {
        &self.folder
    }

    /// Writes `manifest.json`: what the run was started with, without texts and values that may
    /// hold secrets.
    ///
    /// # Errors
    /// [`FileError`] when the file exists or can not be written.
    pub(crate) fn write_manifest(&self, start: &Start) -> Result<(), FileError> {
        let path = self.folder.path().join(MANIFEST_FILE_NAME);
        let failed = |source| FileError::new("can not write", &path, source);
        let mut line = serde_json::to_vec(&Manifest::of(start)).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        let mut file = self.folder.create_new(MANIFEST_FILE_NAME).map_err(failed)?;
        file.write_all(&line).map_err(failed)
    }

    /// Keeps an event. What can not be written is lost without a word: the supervisor has the
    /// report, and a full disk says so by the log and by the result.
    pub(crate) fn keep(&mut self, event: &Event, now: Instant) {
        self.events.keep(event, now);
    }

    /// When the events in memory are due in the file.
    pub(crate) fn flush_at(&self) -> Option<Instant> {
        self.events.since.map(|since| since + FLUSH_AFTER)
    }

    /// Writes the events in memory to the file.
    pub(crate) fn flush(&mut self) {
        self.events.flush();
    }

    /// Makes the result durable: the file's bytes, then its entry in the run's folder.
    ///
    /// The file is written in place and not renamed, which saves a second entry to sync: a file
    /// that does not parse was not finished and counts as absent. The folders above are older than
    /// the file, so every journaling file system has them on disk with it; syncing each of them as
    /// well cost five more flushes a run. On one that has not, the run counts as lost, and is
    /// done again: the supervisor's journal, not this file, says what is done.
    ///
    /// # Errors
    /// [`FileError`]; the result is then not known to be durable.
    pub(crate) fn write_exit(&self, exit: &ExitFile) -> Result<(), FileError> {
        let path = self.folder.path().join(EXIT_FILE_NAME);
        let failed = |source| FileError::new("can not write", &path, source);
        let mut line = serde_json::to_vec(exit).map_err(|e| failed(e.into()))?;
        line.push(b'\n');
        let mut file = self.folder.create_new(EXIT_FILE_NAME).map_err(failed)?;
        file.write_all(&line)
            .and_then(|()| file.sync_all())
            .map_err(failed)?;
        sync(&self.folder)
    }

    /// Says that nothing of the run's tree lives. Not synced: after a crash of the machine nothing
    /// lives anyway.
    ///
    /// # Errors
    /// [`FileError`]; whoever looks then has to prove it anew.
    pub(crate) fn mark_cleared(&self) -> Result<(), FileError> {
        let made = self.folder.create_new(CLEARED_FILE_NAME);
        made.map(drop).map_err(|source| {
            let path = self.folder.path().join(CLEARED_FILE_NAME);
            FileError::new("can not write", &path, source)
        })
    }
}

/// Makes the entries of a folder durable.
///
/// # Errors
/// [`FileError`].
pub(crate) fn sync(folder: &Folder) -> Result<(), FileError> {
    let failed = |source| FileError::new("can not sync", folder.path(), source);
    folder.sync().map_err(failed)
}

/// `events.jsonl`, bounded and buffered.
#[derive(Default)]
struct Events {
    folder: Option<Rc<Folder>>,
    file: Option<File>,
    buffer: Vec<u8>,
    /// Bytes that may still be kept.
    room: u64,
    /// When the oldest event of the buffer came.
    since: Option<Instant>,
}

impl Events {
    fn keep(&mut self, event: &Event, now: Instant) {
        let line = EventLine {
            v: EVENT_LINE_VERSION,
            time_ms: clock::wall_ms(),
            event: event.clone(),
        };
        let start = self.buffer.len();
        if serde_json::to_writer(&mut self.buffer, &line).is_err() {
            self.buffer.truncate(start);
            return;
        }
        self.buffer.push(b'\n');
        let size = (self.buffer.len() - start) as u64;
        if size > self.room {
            self.buffer.truncate(start);
            self.room = 0;
            return;
        }
        self.room -= size;
        self.since.get_or_insert(now);
        if self.buffer.len() > BUFFER_MAX {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.since = None;
        if self.buffer.is_empty() {
            return;
        }
        if let Err(_unwritable) = self.write() {
            self.room = 0;
        }
        self.buffer.clear();
    }

    fn write(&mut self) -> io::Result<()> {
        let file = match (&mut self.file, &self.folder) {
            (Some(file), _) => file,
            (none, Some(folder)) => none.insert(folder.open_append(EVENT_FILE_NAME)?),
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        file.write_all(&self.buffer)
    }
}

/// What `manifest.json` says.
#[derive(Serialize)]
struct Manifest<'a> {
    v: u32,
    started_ms: i64,
    host_pid: u32,
    host_build: &'static str,
    generation: u64,
    batch: &'a str,
    task: &'a str,
    attempt: u32,
    kind: &'static str,
    cwd: &'a str,
    adapter: &'static str,
    program: Vec<&'a str>,
    env_names: Vec<&'a str>,
    session: Option<&'a str>,
    messages: Vec<u64>,
    injected: Vec<u64>,
    log_max: u64,
    lease_ms: u64,
    memory_max: Option<u64>,
    paths: Paths<'a>,
}

/// Where everything of the run is, absolute: nobody has to derive it from a working folder. A log or a
/// result that is not there has not been written.
#[derive(Serialize)]
struct Paths<'a> {
    run: &'a str,
    task: &'a str,
    result: String,
    events: String,
    stdout: String,
    stderr: String,
    /// The prompt, where it goes through a file.
    prompt: Option<String>,
    /// What the attempt before has taught.
    handoff: Option<&'a str>,
    /// Where the program itself writes its result, if it does.
    result_file: Option<&'a str>,
}

impl<'a> Paths<'a> {
    fn of(start: &'a Start) -> Self {
        let below = |name: &str| format!("{}/{name}", start.run_dir);
        let command = match &start.adapter {
            Adapter::Command(command) => Some(command),
            Adapter::Scripted(_)
            | Adapter::Verify(_)
            | Adapter::Hook(_)
            | Adapter::Git(_)
            | Adapter::Fetch(_)
            | Adapter::Comment(_)
            | Adapter::Program(_) => None,
        };
        let by_file = command.is_some_and(|command| command.prompt_by == PromptBy::File);
        let prompt = match &start.prompt {
            Some(Text::File(path)) => Some(path.clone()),
            Some(Text::Inline(_)) if by_file => Some(below(PROMPT_FILE_NAME)),
            Some(Text::Inline(_)) | None => None,
        };
        Self {
            run: &start.run_dir,
            task: &start.task_dir,
            result: below(EXIT_FILE_NAME),
            events: below(EVENT_FILE_NAME),
            stdout: below(STDOUT_FILE_NAME),
            stderr: below(STDERR_FILE_NAME),
            prompt,
            handoff: start.env.get(HAND_OFF_VARIABLE).map(String::as_str),
            result_file: command.and_then(|command| command.result_file.as_deref()),
        }
    }
}

impl<'a> Manifest<'a> {
    fn of(start: &'a Start) -> Self {
        let (adapter, program) = match &start.adapter {
            Adapter::Command(command) => ("command", program_names([&command.argv])),
            Adapter::Scripted(_) => ("scripted", Vec::new()),
            Adapter::Verify(verify) => (
                "verify",
                program_names(verify.commands.iter().map(|command| &command.argv)),
            ),
            Adapter::Hook(hook) => (
                "hook",
                program_names(hook.commands.iter().map(|command| &command.argv)),
            ),
            Adapter::Git(git) => ("git", vec![git.work.word()]),
            Adapter::Fetch(fetch) => ("fetch", vec![fetch.fetch.kind.word()]),
            Adapter::Comment(it) => ("comment", vec![it.comment.about.kind.word()]),
            Adapter::Program(program) => (program.kind.word(), vec![program.program.as_str()]),
        };
        Self {
            v: MANIFEST_VERSION,
            started_ms: clock::wall_ms(),
            host_pid: std::process::id(),
            host_build: protocol::version::BUILD,
            generation: start.generation.0,
            batch: start.batch.as_str(),
            task: start.task.as_str(),
            attempt: start.attempt.0,
            kind: start.kind.word(),
            cwd: &start.cwd,
            adapter,
            program,
            env_names: start.env.keys().map(String::as_str).collect(),
            session: start.session.as_deref(),
            messages: start.messages.iter().map(|message| message.id.0).collect(),
            injected: start.injected.iter().map(|id| id.0).collect(),
            log_max: start.log_max,
            lease_ms: start.lease_ms,
            memory_max: start.memory.map(|limit| limit.max),
            paths: Paths::of(start),
        }
    }
}

/// Names only: an argument may hold the prompt or a key.
fn program_names<'a>(commands: impl IntoIterator<Item = &'a Vec<String>>) -> Vec<&'a str> {
    commands
        .into_iter()
        .filter_map(|argv| argv.first())
        .map(String::as_str)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_dir(home: &Path, events_max: u64) -> RunDir {
        let made = make_in_task(&home.join("t"), &home.join("t/run")).unwrap();
        RunDir::new(Rc::new(made.folder), events_max)
    }

    #[test]
    fn a_link_in_any_folder_of_the_task_is_refused_and_one_above_is_not() {
        let home = tempfile::tempdir().unwrap();
        let elsewhere = home.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        let state = home.path().join("state");
        std::os::unix::fs::symlink(&elsewhere, &state).unwrap();
        let task = state.join("tasks/t");
        let run = task.join("attempts/1/runs/2");
        make_in_task(&task, &run).unwrap();
        make_in_task(&task, &run).unwrap();
        for link in [run.clone(), task.join("attempts"), task.clone()] {
            std::fs::remove_dir_all(&link).unwrap();
            std::os::unix::fs::symlink(home.path(), &link).unwrap();
            let refused = make_in_task(&task, &run).unwrap_err().text();
            assert!(refused.contains(&link.display().to_string()), "{refused}");
            std::fs::remove_file(&link).unwrap();
        }
    }

    #[test]
    fn a_folder_that_is_not_of_the_task_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let task = home.path().join("t");
        for path in ["other/run", "t/../other"] {
            assert!(make_in_task(&task, &home.path().join(path)).is_err());
        }
        assert!(!home.path().join("other").exists());
    }

    #[test]
    fn a_result_is_written_once() {
        let home = tempfile::tempdir().unwrap();
        let dir = run_dir(home.path(), 100);
        let exit = ExitFile {
            v: protocol::exit_file::EXIT_FILE_VERSION,
            generation: protocol::ids::Generation(1),
            result: crate::run::result(protocol::report::ResultStatus::Ok, None, "first"),
            injected: Vec::new(),
        };
        dir.write_exit(&exit).unwrap();
        let text = std::fs::read_to_string(home.path().join("t/run/exit.json")).unwrap();
        assert!(text.ends_with("}\n") && text.lines().count() == 1, "{text}");
        assert_eq!(serde_json::from_str::<ExitFile>(&text).unwrap(), exit);
        assert!(
            dir.write_exit(&exit).is_err(),
            "a durable result was overwritten"
        );
    }

    #[test]
    fn events_stop_at_their_limit_with_a_whole_line() {
        let home = tempfile::tempdir().unwrap();
        let mut dir = run_dir(home.path(), 200);
        for _ in 0..10 {
            dir.keep(&Event::TurnEnded {}, clock::now());
        }
        dir.flush();
        let text = std::fs::read_to_string(dir.folder.path().join(EVENT_FILE_NAME)).unwrap();
        assert!(text.len() <= 200 && text.lines().count() >= 2, "{text}");
        for line in text.lines() {
            let line: EventLine = serde_json::from_str(line).unwrap();
            assert_eq!(line.event, Event::TurnEnded {});
        }
    }
}
