//! `supervisor logs`: what the programs of a task printed, to the byte; or its events.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use protocol::event_file::{EVENT_FILE_NAME, EVENT_LINE_VERSION, EventLine};
use protocol::ids::{AttemptNo, TaskId};
use serde::Serialize;
use serde_json::Value;

use crate::cli::error::{CliError, Code};
use crate::cli::open::{Found, Meant, Shelf};
use crate::cli::target::Target;
use crate::cli::{Io, pace};
use crate::store::LockState;
use crate::view::time::Stamp;
use supervisor_core::time::Wall;

/// Bytes copied at a time.
const CHUNK: usize = 64 * 1024;
/// Longest line of an event file: the host's lines are excerpts of a few KiB.
const EVENT_MAX: u64 = 1024 * 1024;
/// Looks at a quiet log between two looks at the batch itself.
const QUIET_LOOKS: u32 = 5;

const EXAMPLES: &str = "Examples:
  supervisor logs lexer                   what its last attempt printed
  supervisor logs lexer@1 --stderr        the first attempt's stderr
  supervisor logs -f lexer                follows, also into its next attempts, until it has ended
  supervisor logs lexer --json            its events, one object a line

The files themselves are in TASKDIR/attempts/N/runs/G/ of the batch's folder. -f looks at them every
0.2 s.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A task, or an attempt of it
    target: Target,
    /// Follow until the task has ended
    #[arg(short, long)]
    follow: bool,
    /// What was printed on stderr instead of stdout
    #[arg(long, conflicts_with = "json")]
    stderr: bool,
    /// For scripts: events, one JSON object a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let meant = Shelf::open()?.find(Some(&args.target))?;
    let (task, agent) = task(&meant)?;
    let mut reader = LogReader {
        batch: &meant.batch,
        folder: meant.batch.dir.task(&task).join("attempts"),
        task,
        agent,
        file: match (args.json, args.stderr) {
            (true, _) => EVENT_FILE_NAME,
            (false, true) => "stderr.log",
            (false, false) => "stdout.log",
        },
        json: args.json,
        place: None,
        told: 0,
    };
    let from = match meant.attempt {
        Some(attempt) => attempt,
        None => reader.last_attempt()?.unwrap_or_default(),
    };
    reader.place = Some(Place::start(from));
    let only = meant.attempt.filter(|_| !args.follow);
    reader.drain(only, io)?;
    if args.follow {
        reader.follow(io)?;
    } else if reader.told == 0 && !reader.folder.is_dir() {
        writeln!(io.err, "{} has no attempt yet", reader.task).map_err(CliError::output)?;
    }
    Ok(Code::Ok)
}

/// The task that is meant, and its agent's name.
fn task(meant: &Meant) -> Result<(TaskId, String), CliError> {
    let word = meant.task.as_deref().ok_or_else(|| {
        CliError::new(Code::Usage, format!("{} is a whole batch", meant.batch.id))
            .hint(format!("name a task of it: {}/TASK", meant.batch.id))
    })?;
    let opened = meant.batch.read()?;
    let ix = opened.task(word)?;
    let view = opened.view(std::collections::BTreeMap::new());
    let task = &opened.facts().tasks[ix.0 as usize];
    let agent = view
        .agent(task)
        .map_or_else(String::new, |agent| agent.name.to_string());
    Ok((task.id.clone(), agent))
}

/// How far a log was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    attempt: AttemptNo,
    /// The run within it; 0 before the first.
    run: u64,
    offset: u64,
}

impl Place {
    fn start(attempt: AttemptNo) -> Self {
        Self {
            attempt,
            run: 0,
            offset: 0,
        }
    }
}

struct LogReader<'a> {
    batch: &'a Found,
    /// The folder of the task's attempts.
    folder: PathBuf,
    task: TaskId,
    agent: String,
    file: &'static str,
    json: bool,
    place: Option<Place>,
    /// Events or bytes told so far.
    told: u64,
}

#[derive(Serialize)]
struct Event<'a> {
    v: u32,
    seq: u64,
    time: Stamp,
    batch: &'a str,
    task: &'a str,
    attempt: u32,
    agent: &'a str,
    #[serde(rename = "type")]
    kind: Value,
    data: Value,
}

impl LogReader<'_> {
    fn last_attempt(&self) -> Result<Option<AttemptNo>, CliError> {
        let last = numbers(&self.folder)?.pop();
        Ok(last
            .and_then(|number| u32::try_from(number).ok())
            .map(AttemptNo))
    }

    /// Tells everything that is there from the place on; with `only`, of that attempt alone.
    fn drain(&mut self, only: Option<AttemptNo>, io: &mut Io<'_>) -> Result<bool, CliError> {
        let Some(mut place) = self.place else {
            return Ok(false);
        };
        let before = place;
        for attempt in numbers(&self.folder)? {
            let attempt = AttemptNo(u32::try_from(attempt).unwrap_or(u32::MAX));
            if attempt < place.attempt || only.is_some_and(|only| attempt != only) {
                continue;
            }
            if attempt > place.attempt {
                place = Place::start(attempt);
            }
            let runs = self.folder.join(attempt.to_string()).join("runs");
            for run in numbers(&runs)? {
                if run < place.run {
                    continue;
                }
                if run > place.run {
                    place = Place {
                        run,
                        offset: 0,
                        ..place
                    };
                }
                let path = runs.join(run.to_string()).join(self.file);
                self.tell(&path, &mut place, io)?;
            }
        }
        self.place = Some(place);
        io.out.flush().map_err(CliError::output)?;
        Ok(place != before)
    }

    fn tell(&mut self, path: &Path, place: &mut Place, io: &mut Io<'_>) -> Result<(), CliError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            // Nothing was printed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(path, &error)),
        };
        file.seek(SeekFrom::Start(place.offset))
            .map_err(|e| unreadable(path, &e))?;
        if self.json {
            self.events(file, path, place, io)
        } else {
            self.bytes(file, path, place, io)
        }
    }

    fn bytes(
        &mut self,
        mut file: File,
        path: &Path,
        place: &mut Place,
        io: &mut Io<'_>,
    ) -> Result<(), CliError> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = file.read(&mut chunk).map_err(|e| unreadable(path, &e))?;
            if count == 0 {
                return Ok(());
            }
            io.out
                .write_all(&chunk[..count])
                .map_err(CliError::output)?;
            place.offset += count as u64;
            self.told += count as u64;
        }
    }

    fn events(
        &mut self,
        file: File,
        path: &Path,
        place: &mut Place,
        io: &mut Io<'_>,
    ) -> Result<(), CliError> {
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = (&mut lines).take(EVENT_MAX);
            let count = bounded
                .read_until(b'\n', &mut line)
                .map_err(|e| unreadable(path, &e))?;
            // A line without its end is still being written, or was cut when its host was killed.
            if line.last() != Some(&b'\n') {
                return Ok(());
            }
            self.event(&line, path, *place, io.out)?;
            place.offset += count as u64;
        }
    }

    fn event(
        &mut self,
        line: &[u8],
        path: &Path,
        place: Place,
        out: &mut dyn Write,
    ) -> Result<(), CliError> {
        let event: EventLine =
            serde_json::from_slice(line).map_err(|e| unreadable(path, &e.into()))?;
        if event.v > EVENT_LINE_VERSION {
            let message = format!("{} is of a newer release", path.display());
            return Err(CliError::new(Code::Unreadable, message));
        }
        let mut data =
            serde_json::to_value(&event.event).map_err(|e| unreadable(path, &e.into()))?;
        let kind = data.as_object_mut().and_then(|data| data.remove("type"));
        self.told += 1;
        let row = Event {
            v: EVENT_LINE_VERSION,
            seq: self.told,
            time: Stamp(Wall(event.time_ms)),
            batch: self.batch.id.as_str(),
            task: self.task.as_str(),
            attempt: place.attempt.0,
            agent: &self.agent,
            kind: kind.unwrap_or(Value::Null),
            data,
        };
        let written = serde_json::to_writer(&mut *out, &row).map_err(io::Error::from);
        written
            .and_then(|()| out.write_all(b"\n"))
            .map_err(CliError::output)
    }

    /// Goes on until the task has ended, or nobody works on it any more.
    fn follow(&mut self, io: &mut Io<'_>) -> Result<(), CliError> {
        let mut quiet = 0;
        loop {
            if self.drain(None, io)? {
                quiet = 0;
            } else {
                quiet += 1;
            }
            if quiet % QUIET_LOOKS == QUIET_LOOKS - 1 && self.is_over()? {
                // What was printed between the last drain and the end.
                self.drain(None, io)?;
                return Ok(());
            }
            pace::before_next_look();
        }
    }

    fn is_over(&self) -> Result<bool, CliError> {
        if self.batch.lock()? == LockState::Free {
            return Ok(true);
        }
        let opened = self.batch.read()?;
        let ix = opened.task(self.task.as_str())?;
        Ok(opened.facts().tasks[ix.0 as usize].state.is_terminal())
    }
}

/// The numbered folders in a folder, in order; none when it is not there.
fn numbers(folder: &Path) -> Result<Vec<u64>, CliError> {
    let listed = match std::fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(folder, &error)),
    };
    let mut found = Vec::new();
    for entry in listed {
        let name = entry
            .map_err(|error| unreadable(folder, &error))?
            .file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn unreadable(path: &Path, error: &io::Error) -> CliError {
    let code = match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Code::Unreadable,
        _other => Code::Environment,
    };
    CliError::new(code, format!("{} can not be read: {error}", path.display()))
}
