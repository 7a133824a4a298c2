//! `supervisor kill`: ends processes by force; works with and without a supervisor.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::cli::ending::{Runs, Verdict, Victims};
use crate::cli::error::{CliError, Code};
use crate::cli::killer::{Killer, refuse_inside};
use crate::cli::open::{Found, Shelf};
use crate::cli::orphans::Search;
use crate::cli::processes::{Census, Known, Part, parse_process_id};
use crate::cli::target::Target;
use crate::cli::{Io, act};
use crate::process::family::Member;
use crate::process::stat;
use crate::store::LockState;
use crate::view::processes::{ProcessRow, ProcessState};

/// Grace where none is given.
const GRACE: &str = "10s";

const EXAMPLES: &str = "Examples:
  supervisor kill lexer                 ends its attempt; the task is held until `resume`
  supervisor kill nightly --grace 0s    ends every attempt and the supervisor, at once
  supervisor kill 4711-8812345          the run that this process of `ps` belongs to
  supervisor kill --orphans             what has no living owner, of every batch
  supervisor kill --all --dry-run       what would be ended, of every batch

It never asks. With a live supervisor the order goes through it; without one, or when it does not
answer within 5 s (hung, stopped, still recovering), everything of the run is ended directly: each
process is proven to be of it first (recorded identity, spawn token, limit tag, session, cgroup,
descent), asked with SIGTERM, and killed after the grace. It prints what it did to each. What can not
be proven is never touched, and the field that differs is named.
It needs no writable disk: what could not be recorded is left as a note for the next supervisor, for
which the attempt is cancelled and its task paused until `resume`. With --orphans nothing is held: what
had no owner was lost already, and `run` goes on with it.
Exit codes: 0 nothing of it is alive, 1 something still lives, 6 not found, 7 ambiguous, 8 a recorded
identity was refused, or the command comes out of a run of the batch itself.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Batches, tasks, or process ids of `ps` (their whole run ends)
    #[arg(required_unless_present_any = ["all", "orphans"])]
    target: Vec<Target>,
    /// Every batch of this user
    #[arg(long, conflicts_with_all = ["target", "orphans"])]
    all: bool,
    /// Everything of ours without a living owner, proven by the same means as `ps --orphans` shows
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
    let killer = Killer {
        census: Census::take()?,
        grace: args.grace,
        dry_run: args.dry_run,
    };
    if args.orphans {
        return orphans(&shelf, &killer, io);
    }
    let mut ends = Ends::default();
    if args.all {
        for batch in shelf.newest_first() {
            if !is_at_rest(&batch) {
                ends.add(killer.end(&batch, Part::default(), io), io)?;
            }
        }
        return ends.code();
    }
    for target in &args.target {
        let ended = end_target(&shelf, &killer, target, io);
        ends.add(ended, io)?;
    }
    ends.code()
}

/// What became of several targets: one that fails does not keep the others alive.
#[derive(Default)]
struct Ends {
    worst: Option<Verdict>,
    failed: Option<Code>,
}

impl Ends {
    fn add(&mut self, ended: Result<Verdict, CliError>, io: &mut Io<'_>) -> Result<(), CliError> {
        match ended {
            Ok(verdict) => self.worst = self.worst.max(Some(verdict)),
            Err(error) => {
                error.tell(io.err).map_err(CliError::output)?;
                self.failed.get_or_insert(error.code());
            }
        }
        Ok(())
    }

    fn code(self) -> Result<Code, CliError> {
        let worst = self.worst.unwrap_or(Verdict::Ended);
        match (worst, self.failed) {
            (Verdict::Lives, _) | (_, None) => Ok(worst.code()),
            (Verdict::Ended | Verdict::Open | Verdict::Refused, Some(code)) => {
                Err(CliError::told(code))
            }
        }
    }
}

fn is_at_rest(batch: &Found) -> bool {
    let known = Known::read(batch);
    known.is_ok_and(|known| {
        known.is_none_or(|known| known.lock == LockState::Free && known.registry.runs.is_empty())
    })
}

fn end_target(
    shelf: &Shelf,
    killer: &Killer,
    target: &Target,
    io: &mut Io<'_>,
) -> Result<Verdict, CliError> {
    let by_process = match target {
        Target::Word(word) => parse_process_id(word),
        Target::Task { .. } => None,
    };
    if let Some((pid, ticks)) = by_process {
        return end_process(shelf, killer, pid, ticks, io);
    }
    let meant = shelf.find(Some(target))?;
    let task = act::task_id(&meant)?;
    let part = Part {
        task: task.as_ref(),
        attempt: meant.attempt,
    };
    killer.end(&meant.batch, part, io)
}

/// Ends the run that a process of `ps` belongs to; the whole of it, because half a tree is nobody's.
fn end_process(
    shelf: &Shelf,
    killer: &Killer,
    pid: u32,
    ticks: u64,
    io: &mut Io<'_>,
) -> Result<Verdict, CliError> {
    let is_meant = |row: &&ProcessRow| row.pid == pid && row.start_ticks == ticks;
    for batch in shelf.newest_first() {
        let Some(known) = Known::read(&batch)? else {
            continue;
        };
        let rows = killer.census.of(&batch, &known, Part::default())?;
        let Some(row) = rows.iter().find(is_meant) else {
            continue;
        };
        let run = known
            .registry
            .runs
            .iter()
            .find(|it| Some(it.run.0) == row.run);
        let part = Part {
            task: run.map(|run| &run.task),
            attempt: run.map(|run| run.attempt),
        };
        return killer.end(&batch, part, io);
    }
    let search = Search::new(shelf)?;
    let mut orphans = search.look(&killer.census)?;
    let run = orphans
        .members
        .iter()
        .find(|one| one.pid == pid && one.start_ticks == ticks);
    if let Some(run) = run.map(|one| one.run) {
        orphans.members.retain(|one| one.run == run);
        let meant = Orphaned {
            members: orphans.members,
            open: Vec::new(),
            is_held: true,
        };
        return end_orphans(&search, meant, killer, io);
    }
    Err(not_ours(pid, ticks))
}

fn not_ours(pid: u32, ticks: u64) -> CliError {
    match stat::of(pid).filter(|found| !found.is_over) {
        None => CliError::new(Code::NotFound, format!("process {pid} is gone")),
        Some(found) if found.start_ticks != ticks => CliError::new(
            Code::Refused,
            format!("process {pid} is not the one that is meant: its start ticks differs"),
        ),
        Some(_) => CliError::new(
            Code::Refused,
            format!("process {pid} is not proven to be of any batch known here; not touched"),
        ),
    }
}

/// Ends everything of ours that has no living owner.
fn orphans(shelf: &Shelf, killer: &Killer, io: &mut Io<'_>) -> Result<Code, CliError> {
    let search = Search::new(shelf)?;
    let mut ends = Ends::default();
    let found = search.look(&killer.census)?;
    for row in found.rows(&killer.census, &search) {
        if row.state == ProcessState::Foreign {
            let (id, batch) = (&row.id, &row.batch);
            io.line(format_args!(
                "process {id} (batch {batch}): not touched: no batch known here has made its token"
            ))?;
        }
    }
    let open = search
        .lost()
        .filter(|(_, batch, run)| killer.question(batch, run).is_some());
    let meant = Orphaned {
        members: found.members,
        open: open.map(|(at, ..)| at).collect(),
        is_held: false,
    };
    ends.add(end_orphans(&search, meant, killer, io), io)?;
    for error in search.unread {
        ends.add(Err(error), io)?;
    }
    ends.code()
}

/// Runs that are to be ended, and of which batch.
#[derive(Default)]
struct Lost {
    runs: Runs,
    /// Where a run of the search is among them.
    places: BTreeMap<usize, usize>,
    /// Those that are recorded as live, by batch.
    killed: BTreeMap<usize, Vec<u64>>,
}

impl Lost {
    /// The place of a run of the search.
    fn place(&mut self, search: &Search, at: usize, killer: &Killer) -> usize {
        let next = self.places.len();
        let place = *self.places.entry(at).or_insert(next);
        if place == next {
            let ((batch, _), sought, mut recorded) = search.run_at(at);
            let name = match &sought.live {
                None => format!("an ended run of {}", batch.id),
                Some(run) => {
                    recorded.open = killer.question(batch, run);
                    self.killed.entry(sought.batch).or_default().push(run.run.0);
                    format!("{}/{}@{}", batch.id, run.task, run.attempt)
                }
            };
            self.runs.recorded.push(recorded);
            self.runs.names.push(name);
        }
        place
    }
}

/// What is to be ended without a living owner.
struct Orphaned {
    members: Vec<Member>,
    /// Runs of which something may live that is not found.
    open: Vec<usize>,
    /// Their tasks are held until `resume`: the operator meant these runs. Whoever only clears away
    /// what was lost wants the next supervisor to go on.
    is_held: bool,
}

fn end_orphans(
    search: &Search,
    meant: Orphaned,
    killer: &Killer,
    io: &mut Io<'_>,
) -> Result<Verdict, CliError> {
    let Orphaned {
        mut members,
        open,
        is_held,
    } = meant;
    if members.is_empty() && open.is_empty() {
        io.line("no process of ours is without a living owner")?;
        return Ok(Verdict::Ended);
    }
    let mut lost = Lost::default();
    for member in &mut members {
        member.run = lost.place(search, member.run, killer);
    }
    for run in open {
        lost.place(search, run, killer);
    }
    let Lost { runs, killed, .. } = lost;
    let owned_by_nobody: BTreeSet<usize> = killed.keys().copied().collect();
    let batches = owned_by_nobody.into_iter().map(|at| &search.batches[at]);
    let batches: Vec<_> = batches.collect();
    for (_, known) in &batches {
        refuse_inside(known)?;
    }
    let victims = Victims::of(members, &runs.names);
    if killer.dry_run {
        victims.preview(io)?;
        return Ok(Verdict::Ended);
    }
    // Held while we kill: no supervisor begins in the middle of it.
    let mut held = Vec::new();
    for (batch, _) in &batches {
        held.push(killer.hold(batch)?);
    }
    let verdict = killer.force(&runs, victims, io)?;
    for (at, runs) in killed.into_iter().filter(|_| is_held) {
        killer.leave_note(&search.batches[at].0, runs, io)?;
    }
    Ok(verdict)
}
