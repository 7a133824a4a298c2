//! Hands an order to a batch's supervisor, or keeps it for the next one; either way the operator is
//! told only what is durable.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::ids::{Generation, MessageId, TaskId};
use supervisor_core::machine::MessageState;
use supervisor_core::time::{BootId, Wall};

use crate::batch_file::parse_length;
use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::killer::refuse_inside;
use crate::cli::open::{Found, Meant, Shelf, shown};
use crate::cli::processes::Known;
use crate::cli::target::Target;
use crate::control::client::{self, ClientError, Replies};
use crate::control::wire::{CONTROL_VERSION, Reply, Request, RunActivity, Rung, Want};
use crate::driver::clock::Clock;
use crate::store::{RealDisk, inbox};
use crate::view::time::{Span, Stamp};

/// Longest wait for a supervisor's answer to an order: it is durable by then, even on a slow disk.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Longest wait for a supervisor to look into its inbox: it is told that it should, and does.
const NUDGE_MAX: Duration = Duration::from_secs(1);
/// Longest wait for what live runs do now: it only decorates what the files say.
const ACTIVITY_MAX: Duration = Duration::from_millis(200);

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            ClientError::TimedOut { .. } => Code::TimedOut,
            ClientError::NoSupervisor { .. } | ClientError::Closed | ClientError::Io { .. } => {
                Code::Environment
            }
            ClientError::Reply(_) => Code::Internal,
        };
        CliError::from_source(code, &error)
    }
}

/// Now, by the wall clock.
pub fn now() -> Wall {
    Clock::new(BootId::default()).now().wall
}

/// A length as an argument.
///
/// # Errors
/// A sentence that shows the form.
pub fn length(text: &str) -> Result<Duration, &'static str> {
    parse_length(text).ok_or("a length is a number and a unit: 500ms, 90s, 20m, 2h, 3d")
}

/// Opens a connection with this request; `None` when the batch has no live supervisor.
///
/// # Errors
/// When the connection fails (10).
pub fn ask(batch: &Found, want: &Want) -> Result<Option<Replies>, CliError> {
    let Some(holder) = batch.holder()? else {
        return Ok(None);
    };
    match client::send(&holder.socket, &request(batch, want.clone())) {
        Ok(replies) => Ok(Some(replies)),
        // It ended after we looked, or has not begun to listen: the inbox reaches it either way.
        Err(ClientError::NoSupervisor { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn request(batch: &Found, want: Want) -> Request {
    Request {
        v: CONTROL_VERSION,
        batch: batch.id.clone(),
        want,
    }
}

/// What live runs do now, as their supervisor says; nothing when it does not say so at once.
pub fn activity(batch: &Found) -> BTreeMap<Generation, RunActivity> {
    let answer = ask(batch, &Want::Activity);
    let reply = match answer {
        Ok(Some(mut replies)) => replies.next(Some(ACTIVITY_MAX)),
        Ok(None) | Err(_) => return BTreeMap::new(),
    };
    match reply {
        Ok(Some(Reply::Activity { runs })) => runs
            .into_iter()
            .map(|run| (Generation(run.generation), run))
            .collect(),
        Ok(_) | Err(_) => BTreeMap::new(),
    }
}

/// Gives an order to one batch; without a live supervisor it is queued, and that is said. With a
/// wait in it the rungs are told as they are reached.
///
/// # Errors
/// What the supervisor refuses; a wait that timed out (11).
pub fn send(
    batch: &Found,
    want: Want,
    timeout: Option<Duration>,
    io: &mut Io<'_>,
) -> Result<Code, CliError> {
    let rung = rung(&want);
    let Some(replies) = ask(batch, &want)? else {
        return queue(batch, want, io);
    };
    match rung {
        Some(_) => follow(replies, timeout, io),
        None => answer(replies, io),
    }
}

/// Gives an order to a live supervisor and tells what it did; `false` when nobody took it.
///
/// # Errors
/// What the supervisor refuses.
pub fn order(batch: &Found, want: Want, io: &mut Io<'_>) -> Result<bool, CliError> {
    match ask(batch, &want)? {
        Some(replies) => answer(replies, io).map(|_code| true),
        None => Ok(false),
    }
}

fn rung(want: &Want) -> Option<Rung> {
    if let Want::Steer { wait, .. } = want {
        return *wait;
    }
    None
}

/// The one answer to an order.
fn answer(mut replies: Replies, io: &mut Io<'_>) -> Result<Code, CliError> {
    while let Some(reply) = replies.next(Some(ANSWER_MAX))? {
        match reply {
            Reply::Done { lines } => {
                for line in lines {
                    io.line(line)?;
                }
            }
            Reply::Messages { ids, at_ms } => queued(&ids, Wall(at_ms), io)?,
            Reply::Refused { code, text } => return Err(refused(code, text)),
            Reply::Moved { .. } | Reply::Activity { .. } | Reply::Changed { .. } => {}
        }
    }
    Ok(Code::Ok)
}

fn queued(ids: &[MessageId], at: Wall, io: &mut Io<'_>) -> Result<(), CliError> {
    for id in ids {
        io.line(format_args!("{id} queued {}", Stamp(at)))?;
    }
    io.out.flush().map_err(CliError::output)
}

/// The way of a message, rung by rung, up to the one that is waited for.
fn follow(
    mut replies: Replies,
    timeout: Option<Duration>,
    io: &mut Io<'_>,
) -> Result<Code, CliError> {
    let started = now();
    let mut code = Code::Ok;
    loop {
        let left = match timeout {
            Some(limit) => Some(time_left(limit, started).ok_or_else(not_reached)?),
            None => None,
        };
        let reply = match replies.next(left) {
            Ok(reply) => reply,
            Err(ClientError::TimedOut { .. }) => return Err(not_reached()),
            Err(error) => return Err(error.into()),
        };
        match reply {
            Some(Reply::Messages { ids, at_ms }) => queued(&ids, Wall(at_ms), io)?,
            Some(Reply::Moved { id, state, at_ms }) => {
                if has_left(&state) {
                    code = Code::Failed;
                }
                io.line(format_args!("{id} {state} {}", Stamp(Wall(at_ms))))?;
                io.out.flush().map_err(CliError::output)?;
            }
            Some(Reply::Refused { code, text }) => return Err(refused(code, text)),
            Some(Reply::Done { .. }) | None => return Ok(code),
            Some(Reply::Activity { .. } | Reply::Changed { .. }) => {}
        }
    }
}

fn time_left(limit: Duration, started: Wall) -> Option<Duration> {
    let Span(waited) = Span::between(started, now());
    limit.checked_sub(waited).filter(|left| !left.is_zero())
}

/// Whether a message in that state climbs no further, without having arrived.
fn has_left(state: &str) -> bool {
    match MessageState::from_word(state) {
        Some(MessageState::Expired | MessageState::Dead | MessageState::Uncertain) => true,
        Some(
            MessageState::Queued | MessageState::Sent | MessageState::Injected | MessageState::Seen,
        )
        | None => false,
    }
}

fn not_reached() -> CliError {
    CliError::new(
        Code::TimedOut,
        "the message has not reached that rung in time",
    )
    .hint("it stays with its task: `supervisor explain TASK` shows how far it comes")
}

/// A refusal of the supervisor, with the exit code that it names.
pub fn refused(code: u8, text: String) -> CliError {
    CliError::new(Code::from_number(code).unwrap_or(Code::Refused), text)
}

/// Keeps an order for the next supervisor.
fn queue(batch: &Found, want: Want, io: &mut Io<'_>) -> Result<Code, CliError> {
    if matches!(rung(&want), Some(Rung::Sent | Rung::Injected | Rung::Seen)) {
        let message = format!("batch {} has no live supervisor to carry it out", batch.id);
        return Err(CliError::new(Code::Refused, message)
            .hint("without `--wait` the message is queued for the next one"));
    }
    // An order for a batch that no supervisor can read would wait for ever.
    if let Some(known) = Known::fold(batch, batch.lock()?)? {
        refuse_inside(&known)?;
    }
    keep(batch, want)?;
    io.line(format_args!(
        "queued: batch {} has no live supervisor; `supervisor run {}` carries it out",
        batch.id,
        shown(&batch.file)
    ))?;
    Ok(Code::Ok)
}

/// Puts an order into the inbox, durable when this returns.
///
/// # Errors
/// Too long, too many (8); the disk (10).
pub fn keep(batch: &Found, want: Want) -> Result<(), CliError> {
    let unique = getrandom::u64().map_err(|error| {
        CliError::new(
            Code::Environment,
            format!("the system gives no random number: {error}"),
        )
    })?;
    inbox::put(&RealDisk, &batch.dir, now(), unique, &request(batch, want))?;
    nudge(batch);
    Ok(())
}

/// A supervisor may have begun, and looked into the inbox, between our look for one and the request
/// that we put there: it looks again. One that does not listen yet has not looked yet, and one that
/// does not listen any more leaves the request to the next; so nothing depends on an answer.
fn nudge(batch: &Found) {
    let Ok(Some(mut replies)) = ask(batch, &Want::Inbox) else {
        return;
    };
    if let Err(error) = replies.next(Some(NUDGE_MAX)) {
        tracing::debug!(%error, "the supervisor did not say that it looked into the inbox");
    }
}

/// Gives the same order to every target: one request a batch. No target: the batch meant here.
///
/// # Errors
/// As [`send`]; the first one that fails ends it.
pub fn send_each(
    targets: &[Target],
    io: &mut Io<'_>,
    want: impl Fn(Option<Vec<TaskId>>) -> Want,
) -> Result<Code, CliError> {
    for (batch, tasks) in by_batch(targets)? {
        send(&batch, want(tasks), None, io)?;
    }
    Ok(Code::Ok)
}

/// As [`send_each`], for orders that only tasks can take.
///
/// # Errors
/// As [`send`]; a target that is a whole batch (2).
pub fn send_tasks(
    targets: &[Target],
    io: &mut Io<'_>,
    want: impl Fn(Vec<TaskId>) -> Want,
) -> Result<Code, CliError> {
    for (batch, tasks) in by_batch(targets)? {
        let tasks = tasks.ok_or_else(|| {
            let message = format!("{} is a whole batch; this order takes tasks", batch.id);
            CliError::new(Code::Usage, message).hint(format!("name them: {}/TASK", batch.id))
        })?;
        send(&batch, want(tasks), None, io)?;
    }
    Ok(Code::Ok)
}

/// A batch and what of it is meant: tasks, or without any the whole batch.
pub(super) type Group = (Found, Option<Vec<TaskId>>);

/// The batches that are meant, each once; no target: the batch meant here.
///
/// # Errors
/// Not found (6), ambiguous (7).
pub(super) fn by_batch(targets: &[Target]) -> Result<Vec<Group>, CliError> {
    let shelf = Shelf::open()?;
    if targets.is_empty() {
        return Ok(vec![(shelf.batch(None)?, None)]);
    }
    let mut groups: Vec<Group> = Vec::new();
    for target in targets {
        let meant = shelf.find(Some(target))?;
        let task = task_id(&meant)?;
        let group = groups
            .iter_mut()
            .find(|(batch, _)| batch.id == meant.batch.id);
        match (group, task) {
            (None, task) => groups.push((meant.batch, task.map(|task| vec![task]))),
            (Some((_, Some(tasks))), Some(task)) => tasks.push(task),
            (Some((_, whole)), None) => *whole = None,
            (Some((_, None)), Some(_)) => {}
        }
    }
    Ok(groups)
}

/// The task that is meant, in full. A whole id is handed to a live supervisor as it is, which is
/// quicker than reading the batch; what may be a prefix is looked up.
///
/// # Errors
/// Not found (6), ambiguous (7).
pub fn task_id(meant: &Meant) -> Result<Option<TaskId>, CliError> {
    let Some(word) = &meant.task else {
        return Ok(None);
    };
    if let Ok(id) = word.parse::<TaskId>()
        && meant.batch.dir.task(&id).is_dir()
    {
        return Ok(Some(id));
    }
    let opened = meant.batch.read()?;
    let ix = opened.task(word)?;
    Ok(opened
        .facts()
        .tasks
        .get(ix.0 as usize)
        .map(|task| task.id.clone()))
}
