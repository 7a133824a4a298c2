//! `supervisor run`: works through a batch file, or goes on with its unfinished batch.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use protocol::ids::BatchId;
use supervisor_core::effect::Ending;
use supervisor_core::input::Created;
use supervisor_core::plan::{Plan, TaskIx};
use supervisor_core::time::Wall;

use crate::batch_file::{BatchFile, parse_time, summary};
use crate::cli::batch::FileArgs;
use crate::cli::choose::{self, Choice, Chosen, choose};
use crate::cli::error::{CliError, Code};
use crate::cli::listing::Commands;
use crate::cli::live::{Show, Style};
use crate::cli::open::{Found, Shelf, local_time, shown};
use crate::cli::screen::Screen;
use crate::cli::{Io, act, agents, attach, detach, guard, report, stored, watch};
use crate::driver::{self, DriverError, Mode, Options};
use crate::guardian::{Above, Guarded};
use crate::process::identity::start_ticks;
use crate::store::lock::{self, Guardian, Holder};
use crate::store::{Lock, LockState, StateDir, StateRoot, StoreError};
use crate::view::View;
use crate::view::plan::write_text;
use crate::view::revision;
use crate::view::status::BatchRow;
use crate::view::status_text::write_ending;

const EXAMPLES: &str = "Examples:
  supervisor run                       batch.yml here; the same command goes on after a stop
  supervisor run nightly.yml --detach  in the background
  supervisor run nightly.yml --dry-run what it would do
  supervisor run --retry-failed        once more what failed
  supervisor run --only lexer 'm-*'    these tasks alone

The same batch is the same name in the same repository. An edited batch file is taken on the way:
new tasks and those that are not done take it, done ones stay, what is gone is skipped; `--dry-run`
shows each change. What `--set` and `--until` said holds until they say otherwise or the file is
edited. A command that lists the items of a `foreach` is run once for a batch, also by `--dry-run`
as long as there is none. Ctrl-C lets what runs finish, a second one
stops it, a third one kills it; every time `supervisor run` goes on where it was.
A small guardian stands above the supervisor and starts it again when it dies, at most five times in
ten minutes; while it does, `run` follows the batch. Whoever has a service manager for that says
`--no-guardian`.
Exit codes: 0 all done, 1 some tasks failed, 3 batch file invalid, 4 nothing moves without a person,
5 interrupted (run again to go on), 8 refused (live, finished, another repo), 9 state unreadable,
10 environment, 71 the supervisor died again and again (run again to go on).";

/// Looks until another `run` that is choosing its batch is told of instead of waited for: 10 s.
const DOOR_LOOKS_MAX: u32 = 50;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) file: FileArgs,
    /// In the background; comes back once it works
    #[arg(long, conflicts_with = "dry_run")]
    detach: bool,
    /// Show the plan and whether a batch would go on; start nothing
    #[arg(long)]
    dry_run: bool,
    /// Only these tasks (ids or globs) of a new batch; the rest is skipped
    #[arg(long, value_name = "ID", num_args = 1..)]
    pub(super) only: Vec<String>,
    /// Once more what failed
    #[arg(long, conflicts_with = "new")]
    pub(super) retry_failed: bool,
    /// A new batch, even where there is one
    #[arg(long)]
    pub(super) new: bool,
    /// No new attempt after this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<Wall>,
    /// For scripts: one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
    /// Without the small process above the supervisor that starts it again: for service managers
    #[arg(long)]
    no_guardian: bool,
    /// What a guardian tells the supervisor that it starts again: this batch, whatever its file says
    #[arg(long, value_name = "BATCH", hide = true)]
    go_on: Option<BatchId>,
}

impl Args {
    /// Whether this command is to become a guardian, if none started it.
    fn wants_guardian(&self) -> bool {
        !self.no_guardian && !self.dry_run && !self.detach
    }
}

fn time(text: &str) -> Result<Wall, &'static str> {
    parse_time(text).ok_or("a time is 2026-01-31T18:00:00Z")
}

impl From<DriverError> for CliError {
    fn from(error: DriverError) -> Self {
        let code = match error {
            DriverError::Store(store) => return store.into(),
            DriverError::Replay { .. } => Code::Unreadable,
            DriverError::Empty { .. } | DriverError::NotEmpty { .. } => Code::Refused,
            DriverError::HostMissing { .. }
            | DriverError::Machine(_)
            | DriverError::System { .. }
            | DriverError::Journal(_) => Code::Environment,
            DriverError::Unrecorded(_) => Code::Interrupted,
            DriverError::Defect(_) => Code::Internal,
        };
        CliError::from_source(code, &error)
    }
}

pub(super) fn run(args: Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let above = Guarded::of_this_process().map_err(|error| {
        let message = format!("can not let signals through: {error}");
        CliError::new(Code::Environment, message)
    })?;
    let guarded = match above {
        Above::Nobody => None,
        Above::Guardian(guarded) => Some(guarded),
        Above::Dead => return Ok(Code::Interrupted),
    };
    if guarded.is_none() && detach::is_background() {
        detach::leave_session()?;
    }
    if guarded.is_none() && args.wants_guardian() {
        return guard::run(&args, io);
    }
    if let Some(id) = &args.go_on {
        return go_on(&args, id, guarded, io);
    }
    let file = args.file.read(Some(&Commands::of_run(args.new)), io)?;
    let only = only(&args.only, &file.plan)?;
    if args.dry_run {
        return dry_run(&args, &file, io);
    }
    if !file.plan.repos.is_empty() {
        agents::require_git()?;
    }
    let host = driver::host_program()?;
    let root = StateRoot::from_env()?;
    root.create()?;
    // While the place of a dead guardian is taken; given back once the batch is ours.
    let mut place = None;
    let (choice, door) = loop {
        let door = door(&root)?;
        if guarded.as_ref().is_some_and(Guarded::is_over) {
            return Ok(Code::Interrupted); // nobody waits for us any more
        }
        match choose(&args, &root, &file, guarded.as_ref().map(Guarded::pid))? {
            Chosen::Do(choice) => break (choice, door),
            Chosen::Tell(batch) => {
                drop(door);
                return attach::over(&batch, args.json, io);
            }
            Chosen::Attach(batch, guardian) => {
                drop(door);
                if let Some(code) = attach::follow(&batch, guardian, args.detach, args.json, io)? {
                    return Ok(code);
                }
            }
            Chosen::Watch(batch, holder) => {
                drop(door);
                let over = match &guarded {
                    Some(guarded) => watch_over(&args, &batch, &holder, guarded, &mut place, io)?,
                    None if args.detach && !args.no_guardian => {
                        return detach::start(&batch, &again(&args), io);
                    }
                    None => return Err(choose::live(&batch, Some(holder.pid))),
                };
                if let Some(code) = over {
                    return Ok(code);
                }
            }
        }
    };
    tell_edit(&choice, args.json, io)?;
    let (batch, start) = prepare(&args, &root, &file, choice)?;
    if args.detach {
        drop(door);
        return detach::start(&batch, &again(&args), io);
    }
    let socket = root.socket(&batch.id);
    let lock = take(&batch.dir, socket.clone(), guarded.as_ref())?;
    drop(door);
    drop(place);
    let mode = match start.is_new {
        true => Mode::Create(Box::new(created(&args, &batch, file.plan, only)?)),
        false => Mode::Resume,
    };
    let held = Held {
        lock,
        socket,
        guarded,
        host,
        mode,
    };
    supervise(&args, batch, start, held, io)
}

/// Takes the place of a dead guardian, if that is not taken yet, and watches as long as it can.
fn watch_over(
    args: &Args,
    batch: &Found,
    holder: &Holder,
    guarded: &Guarded,
    place: &mut Option<Lock>,
    io: &mut Io<'_>,
) -> Result<Option<Code>, CliError> {
    if place.is_none() {
        *place = Some(watch::take_place(batch, holder, guarded)?);
    }
    watch::watch(batch, holder, guarded, args.json, io)
}

/// What a supervisor has when it begins.
struct Held {
    lock: Lock,
    socket: PathBuf,
    guarded: Option<Guarded>,
    host: PathBuf,
    mode: Mode,
}

/// Goes on with a batch that an earlier supervisor of our guardian has begun. Its file is not read:
/// it may have been edited since, and the batch goes on under the rules that it began with.
fn go_on(
    args: &Args,
    id: &BatchId,
    guarded: Option<Guarded>,
    io: &mut Io<'_>,
) -> Result<Code, CliError> {
    let host = driver::host_program()?;
    let shelf = Shelf::open()?;
    let batch = shelf.batch(Some(id.as_str()))?;
    let socket = shelf.root().socket(&batch.id);
    // Looked at first: a lock that is being left is waited for.
    if let LockState::Held(holder) = batch.lock()? {
        return Err(choose::live(&batch, holder.map(|holder| holder.pid)));
    }
    let lock = take(&batch.dir, socket.clone(), guarded.as_ref())?;
    let start = {
        let opened = batch.read()?;
        Start {
            is_new: false,
            commands: Vec::new(),
            live: choose::live_tasks(&opened),
            told: choose::told(&opened),
        }
    };
    let mode = Mode::Resume;
    supervise(
        args,
        batch,
        start,
        Held {
            lock,
            socket,
            guarded,
            host,
            mode,
        },
        io,
    )
}

fn supervise(
    args: &Args,
    batch: Found,
    start: Start,
    held: Held,
    io: &mut Io<'_>,
) -> Result<Code, CliError> {
    let mut show = show(args, &batch, start.live)?;
    show.say(&start.told);
    let ended = driver::run(Options {
        dir: batch.dir.clone(),
        lock: held.lock,
        socket: held.socket,
        host: held.host,
        mode: held.mode,
        commands: start.commands,
        guarded: held.guarded,
        observer: &mut show,
    });
    show.close();
    finish(&batch, ended?, args.json, io)
}

/// What an edited batch file changes, before it does.
fn tell_edit(choice: &Choice, json: bool, io: &mut Io<'_>) -> Result<(), CliError> {
    let Choice::GoOn(goes_on) = choice else {
        return Ok(());
    };
    let Some(edit) = &goes_on.edit else {
        return Ok(());
    };
    let (id, number) = (&goes_on.batch.id, edit.number);
    if json {
        let line = serde_json::json!({
            "v": 1, "type": "revision", "batch": id, "number": number, "changes": edit.changes,
        });
        io.line(format_args!("{line}"))?;
    } else {
        io.line(format_args!(
            "{id} takes the edited batch file (revision {number}):"
        ))?;
        revision::write_text(&edit.changes, io.out).map_err(CliError::output)?;
    }
    // The display has a writer of its own, and what it says comes after this.
    io.out.flush().map_err(CliError::output)
}

/// How the supervisor begins.
struct Start {
    is_new: bool,
    commands: Vec<supervisor_core::input::OperatorCommand>,
    live: BTreeMap<TaskIx, String>,
    told: String,
}

fn prepare(
    args: &Args,
    root: &StateRoot,
    file: &BatchFile,
    choice: Choice,
) -> Result<(Found, Start), CliError> {
    let begin = |batch: Found| {
        let (id, tasks) = (&batch.id, file.plan.tasks.len());
        let lanes = file.plan.settings.concurrency;
        let dir = batch.dir.path().display();
        let told = format!("{id}: {tasks} tasks, {lanes} at a time; files in {dir}");
        let start = Start {
            is_new: true,
            commands: Vec::new(),
            live: BTreeMap::new(),
            told,
        };
        (batch, start)
    };
    Ok(match choice {
        Choice::New => {
            let path = if args.file.is_stdin() {
                PathBuf::from("-")
            } else {
                std::path::absolute(&args.file.file).unwrap_or_else(|_| args.file.file.clone())
            };
            begin(stored::create(root, file, &path, act::now())?)
        }
        Choice::Begin(batch) => {
            stored::keep(&batch, 0, &file.inputs)?;
            begin(batch)
        }
        Choice::GoOn(goes_on) => {
            if let Some(edit) = &goes_on.edit {
                stored::keep(&goes_on.batch, edit.number, &file.inputs)?;
            }
            let start = Start {
                is_new: false,
                commands: goes_on.commands,
                live: goes_on.live,
                told: goes_on.told,
            };
            (goes_on.batch, start)
        }
    })
}

fn created(
    args: &Args,
    batch: &Found,
    mut plan: Plan,
    only: Vec<TaskIx>,
) -> Result<Created, CliError> {
    plan.settings.until = args.until.or(plan.settings.until);
    let seed = getrandom::u64().map_err(|error| {
        CliError::new(
            Code::Environment,
            format!("the system gives no random number: {error}"),
        )
    })?;
    Ok(Created {
        id: batch.id.clone(),
        seed,
        plan,
        only,
    })
}

/// The tasks that `--only` names: ids or globs.
fn only(words: &[String], plan: &Plan) -> Result<Vec<TaskIx>, CliError> {
    let mut found = Vec::new();
    for word in words {
        let glob = globset::Glob::new(word)
            .map_err(|error| CliError::new(Code::Usage, format!("--only: {error}")))?
            .compile_matcher();
        let before = found.len();
        let named = (0..).zip(&plan.tasks);
        found.extend(
            named
                .filter(|(_, task)| glob.is_match(task.id.as_str()))
                .map(|(number, _)| TaskIx(number)),
        );
        if found.len() == before {
            let message = format!("--only: no task is called `{word}`");
            return Err(CliError::new(Code::NotFound, message).hint("`supervisor plan` lists them"));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn dry_run(args: &Args, file: &BatchFile, io: &mut Io<'_>) -> Result<Code, CliError> {
    let root = StateRoot::from_env()?;
    let chosen = choose(args, &root, file, None);
    if let Ok(Chosen::Do(choice)) = &chosen {
        tell_edit(choice, args.json, io)?;
    }
    let told = match chosen {
        Ok(Chosen::Do(Choice::New)) => "a new batch would begin".to_owned(),
        Ok(Chosen::Do(Choice::Begin(batch))) => format!("{} would begin", batch.id),
        Ok(Chosen::Do(Choice::GoOn(goes_on))) => format!("would go on: {}", goes_on.told),
        Ok(Chosen::Watch(batch, holder)) => {
            let pid = holder.pid;
            format!(
                "would take the place of the guardian of {} (pid {pid})",
                batch.id
            )
        }
        Ok(Chosen::Tell(batch)) => format!("would tell what came of {}", batch.id),
        Ok(Chosen::Attach(batch, guardian)) => {
            format!(
                "would attach to {}: guardian pid {guardian} starts it again",
                batch.id
            )
        }
        Err(error) => {
            error.tell(io.err).map_err(CliError::output)?;
            "nothing would begin".to_owned()
        }
    };
    write_text(&summary(&file.plan), io.out).map_err(CliError::output)?;
    io.line(format_args!("\ndry run: {told}"))?;
    Ok(Code::Ok)
}

/// Between two `run` of the same file only one may choose: both would find no batch and make one.
fn door(root: &StateRoot) -> Result<Lock, CliError> {
    let dir = StateDir::at(root.index());
    for _ in 0..DOOR_LOOKS_MAX {
        match lock::lock(&dir, &ourselves(PathBuf::new(), None)) {
            Err(StoreError::Held { .. }) => crate::cli::pace::before_next_look(),
            other => return Ok(other?),
        }
    }
    Err(CliError::new(
        Code::Refused,
        "another `supervisor run` is starting a batch",
    )
    .hint("try again in a moment"))
}

/// Takes the lock of a batch for this process.
///
/// # Errors
/// Somebody holds it (8); the disk (10).
pub(super) fn take(
    dir: &StateDir,
    socket: PathBuf,
    guarded: Option<&Guarded>,
) -> Result<Lock, CliError> {
    Ok(lock::lock(dir, &ourselves(socket, guarded))?)
}

/// This process as it writes itself into a lock.
pub(super) fn ourselves(socket: PathBuf, guarded: Option<&Guarded>) -> Holder {
    let pid = std::process::id();
    Holder {
        pid,
        // Without procfs no identity; the kernel's lock holds all the same.
        start_ticks: start_ticks(pid).unwrap_or(0),
        socket,
        guardian: guarded.map(|guarded| Guardian {
            pid: guarded.pid(),
            start_ticks: start_ticks(guarded.pid()).unwrap_or(0),
        }),
    }
}

/// The arguments of the supervisor in the background. Its batch exists by then, so it finds that.
fn again(args: &Args) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["run".into(), args.file.file.clone().into()];
    for (name, value) in &args.file.set {
        words.push("--set".into());
        words.push(format!("{name}={value}").into());
    }
    if !args.only.is_empty() {
        words.push("--only".into());
        words.extend(args.only.iter().map(OsString::from));
    }
    if let Some(until) = args.until {
        words.push("--until".into());
        words.push(crate::view::time::Stamp(until).to_string().into());
    }
    if args.retry_failed {
        words.push("--retry-failed".into());
    }
    if args.no_guardian {
        words.push("--no-guardian".into());
    }
    words
}

/// How the batch is shown: as JSON, or as whoever looks can see it.
pub(super) fn style(json: bool) -> Style {
    match (json, Screen::has_person()) {
        (true, _) => Style::Json,
        (false, true) => Style::Terminal,
        (false, false) => Style::Plain,
    }
}

fn show(args: &Args, batch: &Found, live: BTreeMap<TaskIx, String>) -> Result<Show, CliError> {
    let style = style(args.json);
    let dir = batch.dir.path().display().to_string();
    Show::start(style, local_time(), dir, shown(&batch.file), live).map_err(|error| {
        CliError::new(
            Code::Environment,
            format!("can not start the display: {error}"),
        )
    })
}

/// The last words: what came of it, where everything is, what can be done next. Read back from the
/// disk, so that what is told is what is durable.
pub(super) fn finish(
    batch: &Found,
    ending: Ending,
    json: bool,
    io: &mut Io<'_>,
) -> Result<Code, CliError> {
    let code = match ending {
        Ending::Done => Code::Ok,
        Ending::Failed => Code::Failed,
        Ending::NeedsPerson => Code::NeedsPerson,
        Ending::Interrupted => Code::Interrupted,
        Ending::Environment => Code::Environment,
    };
    let opened = batch.read()?;
    let view: View<'_> = opened.view(BTreeMap::new());
    let written = if json {
        let row = BatchRow::new(&view);
        let line = serde_json::json!({
            "v": 1, "type": "ended", "code": code.number(), "batch": row,
            "report": report::kept(batch),
        });
        writeln!(io.out, "{line}")
    } else {
        write_ending(&view, report::kept(batch).as_deref(), io.out)
    };
    // What came of it outweighs that it could not be told: a terminal that is closed, a full disk.
    if let Err(error) = written {
        drop(CliError::output(error).tell(io.err));
    }
    Ok(code)
}
