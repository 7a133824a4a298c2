//! `run` against a batch whose guardian is starting its supervisor again: follows it to its end.

use std::collections::BTreeMap;

use crate::cli::error::{CliError, Code};
use crate::cli::open::Found;
use crate::cli::{Io, act, pace, report, wait};
use crate::control::client::ClientError;
use crate::control::wire::{Reply, Want};
use crate::store::{LockState, untold};
use crate::view::status::BatchRow;
use crate::view::status_text::write_ending;

/// Follows the batch until neither supervisor nor guardian works on it, and gives the exit code of
/// what came of it. `None` when the guardian ended without another supervisor: there is nobody to
/// follow, and the caller may choose anew. `leave`: only says so, for a command that does not stay.
///
/// # Errors
/// When the batch can not be read (9), or stdout can not be written.
pub(super) fn follow(
    batch: &Found,
    guardian: u32,
    leave: bool,
    json: bool,
    io: &mut Io<'_>,
) -> Result<Option<Code>, CliError> {
    let id = &batch.id;
    let text = format!("{id}: guardian pid {guardian} is starting its supervisor again");
    tell(json, "note", &text, io)?;
    if leave {
        return Ok(Some(Code::Ok));
    }
    // Read before the look: a supervisor that comes and goes between two looks has left its term.
    let before = term(batch)?;
    let mut met = false;
    loop {
        if batch.lock()? != LockState::Free {
            met = true;
            watch(batch, json, io)?;
        } else if batch.guard()?.is_none_or(|guard| !guard.alive) {
            return match met || term(batch)? > before {
                true => over(batch, json, io).map(Some),
                false => Ok(None),
            };
        }
        pace::before_next_look();
    }
}

/// The number of the last supervisor's start; 0 before the first record.
fn term(batch: &Found) -> Result<u64, CliError> {
    let opened = batch.read_any()?;
    Ok(opened.map_or(0, |opened| opened.facts().batch.term))
}

/// Shows the steps of the live supervisor until it ends.
fn watch(batch: &Found, json: bool, io: &mut Io<'_>) -> Result<(), CliError> {
    let Some(mut replies) = act::ask(batch, &Want::Watch)? else {
        return Ok(()); // it does not listen yet
    };
    loop {
        match replies.next(None) {
            Ok(Some(reply)) => show(&reply, json, io)?,
            Ok(None) | Err(ClientError::Closed | ClientError::Io { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Shows a step of the batch.
///
/// # Errors
/// When stdout can not be written.
pub(super) fn show(reply: &Reply, json: bool, io: &mut Io<'_>) -> Result<(), CliError> {
    match reply {
        Reply::Changed {
            machine,
            of,
            from,
            to,
        } => step(json, machine, of, from, to, io),
        _other => Ok(()),
    }
}

fn step(
    json: bool,
    machine: &str,
    of: &str,
    from: &str,
    to: &str,
    io: &mut Io<'_>,
) -> Result<(), CliError> {
    if json {
        let row = serde_json::json!({"v": 1, "type": machine, "of": of, "from": from, "to": to});
        io.line(row)?;
    } else if machine == "task" || machine == "batch" {
        io.line(format_args!("{of:24} {to}"))?;
    }
    io.out.flush().map_err(CliError::output)
}

/// Says something beside the steps.
///
/// # Errors
/// When stdout can not be written.
pub(super) fn tell(json: bool, kind: &str, text: &str, io: &mut Io<'_>) -> Result<(), CliError> {
    if json {
        io.line(serde_json::json!({"v": 1, "type": kind, "text": text}))?;
    } else {
        io.line(text)?;
    }
    io.out.flush().map_err(CliError::output)
}

/// Tells what came of a batch on which nobody works any more, as its exit code.
///
/// # Errors
/// When the batch can not be read (9).
pub(super) fn over(batch: &Found, json: bool, io: &mut Io<'_>) -> Result<Code, CliError> {
    untold::take(&batch.dir);
    let opened = batch.read()?;
    let view = opened.view(BTreeMap::new());
    let code = wait::outcome(&opened).unwrap_or(Code::Interrupted);
    if json {
        let row = BatchRow::new(&view);
        let (code, report) = (code.number(), report::kept(batch));
        io.line(serde_json::json!({
            "v": 1, "type": "ended", "code": code, "batch": row, "report": report,
        }))?;
    } else {
        write_ending(&view, report::kept(batch).as_deref(), io.out).map_err(CliError::output)?;
    }
    Ok(code)
}
