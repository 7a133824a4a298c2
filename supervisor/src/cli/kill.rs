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
use crate::control::peer;
use crate::control::wire::Want;
use crate::driver::error::chain;
use crate::driver::recover::Patience;
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
            if args.orphans && is_owned(&batch)? {
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

/// Whether a supervisor works on the batch, or a guardian is about to start one.
fn is_owned(batch: &Found) -> Result<bool, CliError> {
    let guarded = || Ok::<_, CliError>(batch.guard()?.is_some_and(|guard| guard.alive));
    Ok(batch.lock()? != LockState::Free || guarded()?)
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
        self.refuse_agents(batch, facts)?;
        let hosts = hosts(facts, task);
        if self.dry_run {
            return self.preview(batch, opened, &hosts, task, io);
        }
        // The guardian ends last.
        let guardian = guardian_of(batch, opened, task);
        let pinned = self.pin(hosts.iter().chain(&guardian));
        if opened.presence.alive && self.order(batch, facts, task, io)? {
            self.outlast(batch, facts, task, &pinned, io)?;
            return self.by_force(batch, facts, task, &hosts, io);
        }
        let mut lives = false;
        if task.is_none() {
            lives = self.by_hand(batch, opened, io)?;
        }
        if let Some(task) = task.and_then(|ix| facts.tasks.get(ix.0 as usize)) {
            let tasks = Some(vec![task.id.clone()]);
            act::keep(batch, Want::Pause { tasks, now: true })?;
        }
        let code = self.by_force(batch, facts, task, &hosts, io)?;
        Ok(if lives { Code::Failed } else { code })
    }

    /// Kills whoever holds the batch, and says whether it may still live. While a supervisor waits
    /// for what an earlier one left, the journal knows only that one: the lock knows the holder.
    fn force_supervisor(
        &self,
        batch: &Found,
        facts: &Facts,
        io: &mut Io<'_>,
    ) -> Result<bool, CliError> {
        let name = format!("supervisor of {}", batch.id);
        let holder = batch.holder()?;
        let held_by = holder.and_then(|holder| self.here(holder.pid, holder.start_ticks));
        match held_by.as_ref().or(facts.batch.supervisor.as_ref()) {
            Some(identity) => {
                let forced = self.force(&Recorded { name, identity }, io)?;
                Ok(forced == Forced::MayLive)
            }
            None => Ok(false),
        }
    }

    /// The identity of a process that holds a lock of this machine, or guards one that does.
    fn here(&self, pid: u32, start_ticks: u64) -> Option<Identity> {
        (start_ticks != 0).then(|| Identity {
            node: self.machine.node.clone(),
            pid_namespace: self.machine.pid_namespace,
            boot_id: self.machine.boot_id,
            pid,
            start_ticks,
            pidfs_inode: None,
            session: None,
        })
    }

    /// The guardian of whoever holds the batch, else of the last one that took it over.
    fn guardian(&self, batch: &Found, facts: &Facts) -> Result<Option<Identity>, CliError> {
        let guardian = batch.holder()?.and_then(|holder| holder.guardian);
        let living = guardian.and_then(|found| self.here(found.pid, found.start_ticks));
        Ok(living.or_else(|| facts.batch.guardian.clone()))
    }

    /// Ends guardian and supervisor without the latter's help, and says whether one may still live.
    /// The guardian is asked first: from then on it starts no supervisor any more, whatever this one
    /// dies of. It ends what is left, and then itself.
    fn by_hand(&self, batch: &Found, opened: &Opened, io: &mut Io<'_>) -> Result<bool, CliError> {
        let facts = opened.facts();
        let guardian = self.ask_guardian(batch, facts)?;
        let mut lives = false;
        if opened.presence.alive {
            lives = self.force_supervisor(batch, facts, io)?;
        }
        Ok(self.outlast_guardian(batch, guardian.as_ref(), io)? || lives)
    }

    /// Gives the guardian that was asked. One that is gone or can not be proven is not asked;
    /// [`Killer::outlast_guardian`] tells of it.
    fn ask_guardian(&self, batch: &Found, facts: &Facts) -> Result<Option<Identity>, CliError> {
        let guardian = self.guardian(batch, facts)?;
        if let Some(found) = &guardian {
            drop(recorded::signal(&self.machine, found, Signal::TERM));
        }
        Ok(guardian)
    }

    /// Waits for the guardian, which ends after its supervisor and what that left; one that does not
    /// is killed. Says whether it may still live.
    fn outlast_guardian(
        &self,
        batch: &Found,
        guardian: Option<&Identity>,
        io: &mut Io<'_>,
    ) -> Result<bool, CliError> {
        let Some(identity) = guardian else {
            return Ok(false);
        };
        let name = format!("guardian of {}", batch.id);
        if let Ok(proven) = Proven::find(&self.machine, identity) {
            let pid = proven.pid();
            let limit = self.grace + Patience::USUAL.ending + DYING_MAX;
            if pidfd::wait_ended(&proven, limit).unwrap_or(false) {
                io.line(format_args!("{name} (pid {pid}): ended"))?;
                return Ok(false);
            }
        }
        let forced = self.force(&Recorded { name, identity }, io)?;
        Ok(forced == Forced::MayLive)
    }

    /// An agent does not end runs of its own batch, neither through the supervisor, which refuses it
    /// as well, nor by force when that has refused.
    fn refuse_agents(&self, batch: &Found, facts: &Facts) -> Result<(), CliError> {
        let own = std::process::id();
        let is_host = |pid| {
            let recorded = facts.runs.values().filter_map(|run| run.identity.as_ref());
            let mut same = recorded.filter(|identity| identity.pid == pid);
            same.any(|identity| Proven::find(&self.machine, identity).is_ok())
        };
        if peer::carries_tag(own, &batch.id) || peer::descends_from_host(own, is_host) {
            let text = format!(
                "this comes from a run of {} itself: an agent can not end runs",
                batch.id
            );
            return Err(CliError::new(Code::Refused, text));
        }
        Ok(())
    }

    /// Pins those that live now: after the order their end can then still be told.
    fn pin<'a>(&self, recorded: impl Iterator<Item = &'a Recorded<'a>>) -> Vec<(&'a str, Proven)> {
        let pinned = recorded.map(|host| {
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
        let guardian = guardian_of(batch, opened, task);
        for host in guardian.iter().chain(hosts) {
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
            None => {
                self.wait_for_lock(batch, facts, io)?;
                // Told already where it has ended; one that has not is the caller's to see.
                let guardian = self.guardian(batch, facts)?;
                self.outlast_guardian(batch, guardian.as_ref(), io)
                    .map(|_alive| ())
            }
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
        self.ask_guardian(batch, facts)?;
        self.force_supervisor(batch, facts, io).map(|_alive| ())
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
        let (mut lives, mut refused) = (false, false);
        for host in hosts {
            match self.force(host, io)? {
                Forced::Ended => {}
                Forced::Refused => refused = true,
                Forced::MayLive => lives = true,
            }
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
        Ok(if refused { Code::Refused } else { Code::Ok })
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

    /// Kills one recorded process, if it is still the recorded one.
    fn force(&self, process: &Recorded<'_>, io: &mut Io<'_>) -> Result<Forced, CliError> {
        let name = &process.name;
        let proven = match recorded::signal(&self.machine, process.identity, Signal::KILL) {
            Ok(proven) => proven,
            Err(Refused::Gone { .. }) => return Ok(Forced::Ended),
            Err(refused) => {
                let forced = match &refused {
                    Refused::Differs {
                        field: Field::Node | Field::PidNamespace,
                        ..
                    }
                    | Refused::System { .. } => Forced::MayLive,
                    Refused::Differs { .. } | Refused::Gone { .. } => Forced::Refused,
                };
                io.line(format_args!("{name}: not touched: {}", chain(&refused)))?;
                return Ok(forced);
            }
        };
        let pid = proven.pid();
        if pidfd::wait_ended(&proven, DYING_MAX).unwrap_or(false) {
            io.line(format_args!("{name} (pid {pid}): killed"))?;
            return Ok(Forced::Ended);
        }
        io.line(format_args!("{name} (pid {pid}): killed, still dying"))?;
        Ok(Forced::MayLive)
    }
}

/// The guardian, as one of the recorded processes that a whole batch has.
fn guardian_of<'a>(
    batch: &Found,
    opened: &'a Opened,
    task: Option<TaskIx>,
) -> Option<Recorded<'a>> {
    let identity = opened.facts().batch.guardian.as_ref()?;
    let living = task.is_none() && opened.living_guardian().is_some();
    let name = format!("guardian of {}", batch.id);
    living.then_some(Recorded { name, identity })
}

/// What force did to one recorded process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forced {
    /// It is gone.
    Ended,
    /// Its number belongs to another process, which was left alone.
    Refused,
    /// It can not be judged from here, or it has not died yet.
    MayLive,
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
