//! `supervisor kill`: ends processes by force; works with and without a supervisor.

use std::time::Duration;

use rustix::process::Signal;
use supervisor_core::containment::Cleared;
use supervisor_core::facts::{Facts, Run};
use supervisor_core::identity::Identity;
use supervisor_core::plan::TaskIx;

use crate::cli::error::{CliError, Code};
use crate::cli::open::{Found, Opened, Shelf};
use crate::cli::processes::Census;
use crate::cli::target::Target;
use crate::cli::{Io, act, pace};
use crate::control::wire::Want;
use crate::driver::error::chain;
use crate::process::identity::Machine;
use crate::process::pidfd;
use crate::process::recorded::{self, Field, Proven, Refused};
use crate::process::scan::Trace;
use crate::process::tree::{self, RecordedRun};
use crate::store::LockState;

/// Grace where none is given.
const GRACE: &str = "10s";
/// Longest wait for a killed process to be gone; only one stuck in the kernel takes longer.
const DYING_MAX: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "Examples:
  supervisor kill lexer                 ends its attempt; the task is held until `resume`
  supervisor kill nightly --grace 0s    ends every attempt and the supervisor, at once
  supervisor kill --all --dry-run       what would be ended, of every batch

It never asks. With a live supervisor the order goes through it; without one, or when it does not
answer, every recorded process is proven by its identity and then killed with its whole tree. What
can not be proven is never touched.
Exit codes: 0 nothing of it is alive, 1 something still lives, 6 not found, 7 ambiguous.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Batches, tasks, or process ids of `ps` (their whole run ends)
    #[arg(required_unless_present_any = ["all", "orphans"])]
    target: Vec<Target>,
    /// Every batch of this user
    #[arg(long, conflicts_with_all = ["target", "orphans"])]
    all: bool,
    /// What lives of batches without a supervisor
    #[arg(long, conflicts_with = "target")]
    orphans: bool,
    /// Time from asking to force
    #[arg(long, value_name = "D", default_value = GRACE, value_parser = act::length)]
    grace: Duration,
    /// Only say what would be ended
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let shelf = Shelf::open()?;
    let machine = Machine::here().map_err(|e| CliError::from_source(Code::Environment, &e))?;
    let killer = Killer {
        machine,
        grace: args.grace,
        dry_run: args.dry_run,
    };
    let mut worst = Code::Ok;
    if args.all || args.orphans {
        for batch in shelf.newest_first() {
            if args.orphans && batch.lock()? != LockState::Free {
                continue;
            }
            match batch.read() {
                Ok(opened) => worst = worst.max(killer.end(&batch, &opened, None, io)?),
                Err(error) => {
                    error.tell(io.err).map_err(CliError::output)?;
                    worst = worst.max(Code::Failed);
                }
            }
        }
        return Ok(worst);
    }
    for target in &args.target {
        let target = match by_process(&shelf, target)? {
            Some(owner) => owner,
            None => target.clone(),
        };
        let meant = shelf.find(Some(&target))?;
        let opened = meant.batch.read()?;
        let task = match &meant.task {
            Some(word) => Some(opened.task(word)?),
            None => None,
        };
        worst = worst.max(killer.end(&meant.batch, &opened, task, io)?);
    }
    Ok(worst)
}

/// What a process id of `ps` belongs to; `None` for any other target. The whole run ends, because
/// half a tree is nobody's.
fn by_process(shelf: &Shelf, target: &Target) -> Result<Option<Target>, CliError> {
    let Target::Word(word) = target else {
        return Ok(None);
    };
    let numbers = |half: &str| half.bytes().all(|byte| byte.is_ascii_digit()) && !half.is_empty();
    let is_process = word
        .split_once('-')
        .is_some_and(|(pid, ticks)| numbers(pid) && numbers(ticks));
    if !is_process {
        return Ok(None);
    }
    let census = Census::take()?;
    for batch in shelf.newest_first() {
        let opened = batch.read()?;
        let rows = census.of(&batch, &opened, None)?;
        if let Some(row) = rows.into_iter().find(|row| row.id == *word) {
            return Ok(Some(match row.task {
                Some(task) => Target::Task {
                    batch: Some(row.batch),
                    task,
                    attempt: None,
                },
                None => Target::Word(row.batch),
            }));
        }
    }
    Ok(None)
}

struct Killer {
    machine: Machine,
    grace: Duration,
    dry_run: bool,
}

/// A recorded process, and what it is called in messages.
struct Recorded<'a> {
    name: String,
    identity: &'a Identity,
}

impl Killer {
    /// Ends a batch or a task of it, through its supervisor where there is one.
    fn end(
        &self,
        batch: &Found,
        opened: &Opened,
        task: Option<TaskIx>,
        io: &mut Io<'_>,
    ) -> Result<Code, CliError> {
        let facts = opened.facts();
        let hosts = hosts(facts, task);
        if self.dry_run {
            return self.preview(batch, opened, &hosts, task, io);
        }
        let pinned = self.pin(&hosts);
        if opened.presence.alive && self.order(batch, facts, task, io)? {
            self.outlast(batch, facts, task, &pinned, io)?;
            return self.by_force(batch, facts, task, &hosts, io);
        }
        if let (None, Some(identity), true) = (task, &facts.batch.supervisor, opened.presence.alive)
        {
            let name = format!("supervisor of {}", batch.id);
            self.force(&Recorded { name, identity }, io)?;
        }
        if let Some(task) = task.and_then(|ix| facts.tasks.get(ix.0 as usize)) {
            let tasks = Some(vec![task.id.clone()]);
            act::keep(batch, Want::Pause { tasks, now: true })?;
        }
        self.by_force(batch, facts, task, &hosts, io)
    }

    /// Pins the hosts that live now: after the order their end can then still be told.
    fn pin<'a>(&self, hosts: &'a [Recorded<'a>]) -> Vec<(&'a str, Proven)> {
        let pinned = hosts.iter().map(|host| {
            let proven = Proven::find(&self.machine, host.identity);
            Some((host.name.as_str(), proven.ok()?))
        });
        pinned.flatten().collect()
    }

    fn preview(
        &self,
        batch: &Found,
        opened: &Opened,
        hosts: &[Recorded<'_>],
        task: Option<TaskIx>,
        io: &mut Io<'_>,
    ) -> Result<Code, CliError> {
        if let (None, Some(pid), true) = (task, opened.presence.pid, opened.presence.alive) {
            io.line(format_args!(
                "would end supervisor of {} (pid {pid})",
                batch.id
            ))?;
        }
        for host in hosts {
            let pid = host.identity.pid;
            match Proven::find(&self.machine, host.identity) {
                Ok(_) => io.line(format_args!(
                    "would kill {} (pid {pid}) and its tree",
                    host.name
                ))?,
                Err(refused) => io.line(format_args!("{}: {}", host.name, chain(&refused)))?,
            }
        }
        Ok(Code::Ok)
    }

    /// Asks the supervisor; `false` when it did not answer, so that force is left.
    fn order(
        &self,
        batch: &Found,
        facts: &Facts,
        task: Option<TaskIx>,
        io: &mut Io<'_>,
    ) -> Result<bool, CliError> {
        let tasks = task
            .and_then(|ix| facts.tasks.get(ix.0 as usize))
            .map(|task| vec![task.id.clone()]);
        let grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        match act::order(batch, Want::Kill { tasks, grace_ms }, io) {
            Ok(done) => Ok(done),
            Err(error) => {
                let code = error.code();
                error.tell(io.err).map_err(CliError::output)?;
                match code {
                    // The supervisor answered: nothing of the task runs.
                    Code::NotFound | Code::Refused => Ok(true),
                    _ => Ok(false),
                }
            }
        }
    }

    /// Waits until the supervisor has done what it was told, at most for the grace and a while.
    fn outlast(
        &self,
        batch: &Found,
        facts: &Facts,
        task: Option<TaskIx>,
        pinned: &[(&str, Proven)],
        io: &mut Io<'_>,
    ) -> Result<(), CliError> {
        for (name, proven) in pinned {
            let pid = proven.pid();
            let gone = pidfd::wait_ended(proven, self.grace + DYING_MAX).unwrap_or(false);
            let end = if gone { "ended" } else { "still lives" };
            io.line(format_args!("{name} (pid {pid}): {end}"))?;
        }
        match task {
            Some(_) => Ok(()),
            None => self.wait_for_lock(batch, facts, io),
        }
    }

    fn wait_for_lock(&self, batch: &Found, facts: &Facts, io: &mut Io<'_>) -> Result<(), CliError> {
        let limit = self.grace + DYING_MAX;
        let looks = limit.as_millis() / pace::LOOK_AGAIN.as_millis();
        for _ in 0..looks {
            if batch.lock()? == LockState::Free {
                return io.line(format_args!("supervisor of {}: ended", batch.id));
            }
            pace::before_next_look();
        }
        match &facts.batch.supervisor {
            Some(identity) => {
                let name = format!("supervisor of {}", batch.id);
                self.force(&Recorded { name, identity }, io)
                    .map(|_alive| ())
            }
            None => Ok(()),
        }
    }

    /// Kills what is recorded and still there, then whatever carries the token of its runs.
    fn by_force(
        &self,
        batch: &Found,
        facts: &Facts,
        task: Option<TaskIx>,
        hosts: &[Recorded<'_>],
        io: &mut Io<'_>,
    ) -> Result<Code, CliError> {
        let mut lives = false;
        for host in hosts {
            lives |= self.force(host, io)?;
        }
        lives |= !self.end_trees(facts, task, io)?;
        let what = task.and_then(|ix| facts.tasks.get(ix.0 as usize));
        let name = what.map_or_else(
            || batch.id.to_string(),
            |task| format!("{}/{}", batch.id, task.id),
        );
        if lives {
            io.line(format_args!("{name}: something of it may still live"))?;
            return Ok(Code::Failed);
        }
        io.line(format_args!("{name}: nothing of it is alive"))?;
        Ok(Code::Ok)
    }

    /// Ends what is left of the trees of these runs; `false` when something is.
    fn end_trees(
        &self,
        facts: &Facts,
        task: Option<TaskIx>,
        io: &mut Io<'_>,
    ) -> Result<bool, CliError> {
        let runs: Vec<RecordedRun> = runs(facts, task)
            .map(|run| RecordedRun {
                trace: Trace {
                    token: run.token,
                    host: run.identity.clone(),
                    host_lived_until: 0,
                },
                containment: run.containment.clone(),
                open: None,
            })
            .collect();
        let cleared = tree::end_recorded(&self.machine, &runs).map_err(|error| {
            let message = format!("the processes of this machine can not be listed: {error}");
            CliError::new(Code::Environment, message)
        })?;
        for cleared in cleared
            .iter()
            .filter(|it| it.killed() > 0 || !it.is_clean())
        {
            io.line(format_args!("{cleared}"))?;
        }
        Ok(cleared.iter().all(Cleared::is_clean))
    }

    /// Kills one recorded process; whether it may still live.
    fn force(&self, process: &Recorded<'_>, io: &mut Io<'_>) -> Result<bool, CliError> {
        let name = &process.name;
        let proven = match recorded::signal(&self.machine, process.identity, Signal::KILL) {
            Ok(proven) => proven,
            Err(Refused::Gone { .. }) => return Ok(false),
            Err(refused) => {
                let may_live = match &refused {
                    Refused::Differs {
                        field: Field::Node | Field::PidNamespace,
                        ..
                    }
                    | Refused::System { .. } => true,
                    Refused::Differs { .. } | Refused::Gone { .. } => false,
                };
                io.line(format_args!("{name}: not touched: {}", chain(&refused)))?;
                return Ok(may_live);
            }
        };
        let pid = proven.pid();
        let gone = pidfd::wait_ended(&proven, DYING_MAX).unwrap_or(false);
        let end = if gone {
            "killed"
        } else {
            "killed, still dying"
        };
        io.line(format_args!("{name} (pid {pid}): {end}"))?;
        Ok(!gone)
    }
}

fn runs(facts: &Facts, task: Option<TaskIx>) -> impl Iterator<Item = &Run> {
    let ours = move |run: &&Run| task.is_none_or(|task| task == run.task);
    facts.runs.values().filter(ours)
}

fn hosts(facts: &Facts, task: Option<TaskIx>) -> Vec<Recorded<'_>> {
    let mut found = Vec::new();
    for run in runs(facts, task) {
        if let (Some(task), Some(identity)) = (facts.tasks.get(run.task.0 as usize), &run.identity)
        {
            let name = format!("host of {}@{}", task.id, run.attempt);
            found.push(Recorded { name, identity });
        }
    }
    found
}
