//! The command line: one file per command, each with its arguments, its calls and what it prints.

pub mod act;
pub mod agents;
pub mod answer;
pub mod attach;
mod base_moved;
pub mod batch;
pub mod cancel;
pub mod choose;
pub mod clean;
mod clean_plan;
mod clean_told;
pub mod completions;
pub mod detach;
pub mod doctor;
pub mod ending;
pub mod error;
pub mod explain;
mod forecast;
pub mod git_work;
pub mod guard;
pub mod guards;
pub mod handover;
pub mod integrate;
pub mod integrate_told;
pub mod kill;
pub mod killer;
pub mod leftovers;
pub mod list;
pub mod listing;
pub mod live;
pub mod logs;
pub mod machine_checks;
#[cfg(target_os = "macos")]
mod macos_checks;
pub mod open;
pub mod orphans;
pub mod pace;
pub mod pause;
pub mod plan;
pub mod processes;
pub mod ps;
pub mod reexec;
pub mod report;
pub mod resume;
pub mod retry;
pub mod run;
pub mod salvage;
mod salvage_restore;
pub mod schema;
pub mod screen;
pub mod skip;
pub mod status;
pub mod steer;
pub mod stored;
pub mod target;
pub mod validate;
pub mod verify;
pub mod wait;
pub mod watch;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufWriter, IsTerminal, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::cli::error::{CliError, Code};

/// What every command writes to; nothing else in the program prints.
pub struct Io<'a> {
    /// Results.
    pub out: &'a mut dyn Write,
    /// What a person must know besides.
    pub err: &'a mut dyn Write,
    /// Whether a person reads the results as they come.
    pub is_terminal: bool,
}

impl std::fmt::Debug for Io<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Io")
            .field("is_terminal", &self.is_terminal)
            .finish_non_exhaustive()
    }
}

impl Io<'_> {
    /// One line of the result.
    ///
    /// # Errors
    /// When stdout can not be written.
    pub fn line(&mut self, text: impl std::fmt::Display) -> Result<(), CliError> {
        writeln!(self.out, "{text}").map_err(CliError::output)
    }
}

/// Runs many coding agents unattended: one owner for every process, one journal for every fact.
#[derive(Debug, Parser)]
#[command(
    name = "supervisor",
    version = protocol::version::BUILD,
    disable_help_subcommand = true,
    after_help = manual(),
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work through a batch file; go on with its unfinished batch
    Run(run::Args),
    /// Show what `run` would do, in which order
    Plan(plan::Args),
    /// Check a batch file; every error at once
    Validate(validate::Args),
    /// Print the JSON Schema of batch files
    Schema(schema::Args),
    /// List the kinds of agents, what is installed, and what each can do
    Agents(agents::Args),
    /// List the batches of this machine, newest first
    List(list::Args),
    /// Show where a batch and its tasks are, and why
    Status(status::Args),
    /// Show the processes of batches, and what proves them ours
    Ps(ps::Args),
    /// Show what a task printed
    Logs(logs::Args),
    /// Tell the story of a batch or a task from its journal
    Explain(explain::Args),
    /// Tell what came of a batch or a task, for whoever comes back to it
    Report(report::Args),
    /// Send a message to a task's agent
    Steer(steer::Args),
    /// Answer an agent's question
    Answer(answer::Args),
    /// End processes by force, whole trees at once
    Kill(kill::Args),
    /// Say what this machine gives, and what was left behind
    Doctor(doctor::Args),
    /// Hold a batch or tasks
    Pause(pause::Args),
    /// Let a batch or tasks go on
    Resume(resume::Args),
    /// Rule that a batch or tasks go no further
    Cancel(cancel::Args),
    /// Try tasks again that have ended
    Retry(retry::Args),
    /// Pass tasks over
    Skip(skip::Args),
    /// Take the work of a batch into a branch of yours
    Integrate(integrate::Args),
    /// Remove worktrees of ended tasks; what is in them is kept first
    Clean(clean::Args),
    /// List, show or restore what was put aside
    Salvage(salvage::Args),
    /// Wait until a batch or a task is settled
    Wait(wait::Args),
    /// Replace the program of a live supervisor, in place
    Reexec(reexec::Args),
    /// Prove a batch's journal: checksums, order, legal steps, checkpoint
    Verify(verify::Args),
    /// Print completions for a shell
    Completions(completions::Args),
    #[command(hide = true)]
    Handover(handover::Args),
    #[command(hide = true)]
    HandoverCheck,
}

impl Command {
    fn run(self, io: &mut Io<'_>) -> Result<Code, CliError> {
        match self {
            Self::Run(args) => run::run(args, io),
            Self::Plan(args) => plan::run(&args, io),
            Self::Validate(args) => validate::run(&args, io),
            Self::Schema(args) => schema::run(&args, io),
            Self::Agents(args) => agents::run(&args, io),
            Self::List(args) => list::run(&args, io),
            Self::Status(args) => status::run(&args, io),
            Self::Ps(args) => ps::run(&args, io),
            Self::Logs(args) => logs::run(&args, io),
            Self::Explain(args) => explain::run(&args, io),
            Self::Report(args) => report::run(&args, io),
            Self::Steer(args) => steer::run(&args, io),
            Self::Answer(args) => answer::run(&args, io),
            Self::Kill(args) => kill::run(&args, io),
            Self::Doctor(args) => doctor::run(&args, io),
            Self::Pause(args) => pause::run(&args, io),
            Self::Resume(args) => resume::run(&args, io),
            Self::Cancel(args) => cancel::run(&args, io),
            Self::Retry(args) => retry::run(&args, io),
            Self::Skip(args) => skip::run(&args, io),
            Self::Integrate(args) => integrate::run(&args, io),
            Self::Clean(args) => clean::run(&args, io),
            Self::Salvage(args) => salvage::run(&args, io),
            Self::Wait(args) => wait::run(&args, io),
            Self::Verify(args) => verify::run(&args, io),
            Self::Reexec(args) => reexec::run(&args, io),
            Self::Completions(args) => completions::run(&args, io),
            Self::Handover(args) => handover::run(&args, io),
            Self::HandoverCheck => handover::check(io),
        }
    }
}

/// The foot of the main help: how to name things, and what the exit codes mean.
fn manual() -> String {
    let mut text = String::from(
        "TARGET is BATCH or [BATCH/]TASK[@ATTEMPT]; unique prefixes are enough. Without BATCH the\n\
         only unfinished batch of this repository is meant.\n\n\
         First steps:\n  \
         supervisor validate batch.yml        every mistake at once, with its line\n  \
         supervisor run batch.yml             work through it; the same command goes on after a stop\n  \
         supervisor status                    where everything is, and why\n  \
         supervisor logs -f TASK              what a task prints\n  \
         supervisor steer TASK 'use port 1'   a message to its agent\n\n\
         Exit codes:\n",
    );
    for code in Code::ALL {
        // Writing to a String does not fail.
        let _ok = writeln!(text, "  {:>2}  {}", code.number(), code.meaning());
    }
    text
}

/// The whole program: parse, run, exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut err = std::io::stderr();
    let result = catch_unwind(AssertUnwindSafe(|| start(args)));
    let error = match result {
        Ok(Ok(code)) => return code.into(),
        Ok(Err(error)) => error,
        Err(_) => CliError::new(Code::Internal, "a fault of this program (see above)")
            .hint("no journal is harmed by it: `supervisor run` goes on with an unfinished batch")
            .hint("a detached supervisor writes the same to supervisor.log in its batch's folder"),
    };
    // Nothing is left to tell it to when stderr is gone too; the exit code says it.
    let _told = error.tell(&mut err);
    error.code().into()
}

fn start(args: impl IntoIterator<Item = OsString>) -> Result<Code, CliError> {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(shown) => {
            shown.print().map_err(CliError::output)?;
            return Ok(if shown.use_stderr() {
                Code::Usage
            } else {
                Code::Ok
            });
        }
    };
    let stdout = std::io::stdout();
    let is_terminal = stdout.is_terminal();
    // Not locked: the live display of `run` writes from a thread of its own.
    let mut out = BufWriter::new(stdout);
    let mut err = std::io::stderr();
    let mut io = Io {
        out: &mut out,
        err: &mut err,
        is_terminal,
    };
    let result = cli.command.run(&mut io);
    match (out.flush(), result) {
        (Err(error), Ok(Code::Ok)) => Err(CliError::output(error)),
        // Whatever else came of it is told by the exit code all the same.
        (Ok(()) | Err(_), result) => result,
    }
}
