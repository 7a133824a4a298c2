//! `supervisor steer`: a message to a task's agent, with receipts.

use std::io::Read;
use std::time::Duration;

use clap::ValueEnum;
use protocol::command::SteerMode;
use supervisor_core::mailbox::TEXT_MAX;

use crate::cli::error::{CliError, Code};
use crate::cli::open::Shelf;
use crate::cli::target::Target;
use crate::cli::{Io, act};
use crate::control::wire::{Rung, Want};

const EXAMPLES: &str = "Examples:
  supervisor steer lexer 'use the table in docs/grammar.md'
  supervisor steer nightly/lexer - < note.txt
  supervisor steer lexer 'stop that' --mode interrupt --wait seen --timeout 2m

Rungs: queued (durable), sent (written to its host), injected (handed to the agent), seen (read by
the agent). A rung that the task's agent can not prove is refused at once (exit 8). A task that does
not run gets the message with its next prompt. Without a live supervisor the message is queued.
Exit codes: 0 reached, 1 it can not be reached any more, 8 refused, 11 not reached in time.";

/// When a message goes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// At the next tool boundary
    Boundary,
    /// Interrupt the turn
    Interrupt,
    /// When the turn ends
    After,
    /// In a new session, with a hand-off
    Restart,
}

/// A rung to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum UpTo {
    /// Durable
    Queued,
    /// Written to a host
    Sent,
    /// Handed to the agent
    Injected,
    /// Read by the agent
    Seen,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The task
    target: Target,
    /// The message; `-` reads it from stdin
    text: String,
    /// When it goes in
    #[arg(long, value_enum, default_value = "boundary")]
    mode: Mode,
    /// Come back when the message has reached this rung
    #[arg(long, value_enum, value_name = "RUNG")]
    wait: Option<UpTo>,
    /// Longest wait
    #[arg(long, value_name = "D", requires = "wait", value_parser = act::length)]
    timeout: Option<Duration>,
    /// Useless after this time: not handed over any more
    #[arg(long, value_name = "D", value_parser = act::length)]
    expires: Option<Duration>,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let text = text(&args.text)?;
    let meant = Shelf::open()?.find(Some(&args.target))?;
    let task = act::task_id(&meant)?.ok_or_else(|| {
        CliError::new(
            Code::Usage,
            "a message goes to a task, not to a whole batch",
        )
        .hint("name one: `supervisor steer BATCH/TASK TEXT`")
    })?;
    let expires = args.expires.map(|length| act::now() + length);
    let want = Want::Steer {
        tasks: vec![task],
        mode: args.mode.into(),
        text,
        expires_ms: expires.map(|at| at.0),
        wait: args.wait.map(Into::into),
    };
    act::send(&meant.batch, want, args.timeout, io)
}

/// The message, from the command line or stdin; bounded before it is read whole.
fn text(given: &str) -> Result<String, CliError> {
    let mut text = String::new();
    if given == "-" {
        let mut stdin = std::io::stdin().lock().take(TEXT_MAX as u64 + 1);
        stdin.read_to_string(&mut text).map_err(|error| {
            CliError::new(
                Code::Usage,
                format!("the message on stdin can not be read: {error}"),
            )
        })?;
    } else {
        given.clone_into(&mut text);
    }
    if text.trim().is_empty() {
        return Err(CliError::new(Code::Usage, "the message is empty"));
    }
    if text.len() > TEXT_MAX {
        return Err(
            CliError::new(Code::Usage, format!("the message is over {TEXT_MAX} bytes"))
                .hint("put it into a file of the working folder and name that file"),
        );
    }
    Ok(text)
}

impl From<Mode> for SteerMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Boundary => Self::Boundary,
            Mode::Interrupt => Self::Interrupt,
            Mode::After => Self::After,
            Mode::Restart => Self::Restart,
        }
    }
}

impl From<UpTo> for Rung {
    fn from(rung: UpTo) -> Self {
        match rung {
            UpTo::Queued => Self::Queued,
            UpTo::Sent => Self::Sent,
            UpTo::Injected => Self::Injected,
            UpTo::Seen => Self::Seen,
        }
    }
}
