//! Ends a batch or a part of it: through its supervisor, or directly where that is gone or does not
//! answer.

use std::sync::Arc;
use std::time::Duration;

use protocol::ids::TaskId;
use supervisor_core::identity::Identity;

use crate::cli::ending::{DYING_MAX, Runs, Verdict, Victims};
use crate::cli::error::{CliError, Code};
use crate::cli::open::Found;
use crate::cli::orphans::recorded_run;
use crate::cli::processes::{Census, Known, Part, Source, identity_of, living_guard};
use crate::cli::{Io, act};
use crate::control::client::{self, ClientError};
use crate::control::peer::Insiders;
use crate::control::server::is_agent_refusal;
use crate::control::wire::{CONTROL_VERSION, Reply, Request, Want};
use crate::driver::error::chain;
use crate::driver::recover;
use crate::process::recorded::{self, Field, Proven, Refused, difference};
use crate::process::{pidfd, stat, tree};
use crate::store::registry::{self, LiveRun, Process};
use crate::store::{Holder, Lock, LockState, RealDisk, StoreError, lock};

/// Longest wait for a live supervisor's answer. It answers in milliseconds and waits for no disk
/// first; one that is hung, stopped or still recovering must not protect its runs.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How something is ended.
#[derive(Debug)]
pub struct Killer {
    /// This machine.
    pub census: Census,
    /// Time from asking to force.
    pub grace: Duration,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What a live supervisor did with an order.
enum Order {
    /// It takes care of it.
    Taken,
    /// It did not answer; the request may still reach it.
    Silent,
}

impl Killer {
    /// Ends a batch, or a part of it.
    ///
    /// # Errors
    /// Unreadable (9), refused (8), not found (6).
    pub fn end(&self, batch: &Found, part: Part<'_>, io: &mut Io<'_>) -> Result<Verdict, CliError> {
        let known = self.known(batch, io)?;
        refuse_inside(&known)?;
        let refused = self.refused(batch, &known, part, io)?;
        let (runs, meant) = self.runs(batch, &known, part);
        let name = name_of(batch, part);
        let mut victims = Victims::find(&self.census.machine, &runs)?;
        let supervisor = self.supervisor(&known, part);
        if self.dry_run {
            if let Some((_, identity)) = &supervisor {
                io.line(format_args!(
                    "would end the supervisor of {name} (pid {})",
                    identity.pid
                ))?;
            }
            victims.preview(io)?;
            return Ok(refused);
        }
        let mut recorded_by_supervisor = false;
        // Pinned before anything is asked: what ends at once is told all the same.
        let above_all = self.above(&known, supervisor.as_ref());
        if known.is_owned() {
            match self.order(batch, &known, part, &meant, io)? {
                Order::Taken => {
                    recorded_by_supervisor = true;
                    victims.wait(self.grace + DYING_MAX);
                    victims.tell_ended("ended by its supervisor", io)?;
                }
                Order::Silent => {}
            }
        }
        // From here on nobody else starts anything of it.
        let mut above = Verdict::Ended;
        let held = match (part.task, recorded_by_supervisor) {
            (None, true) => self.outlast(batch, above_all, io)?,
            (None, false) => {
                above = self.force_above(batch, &known, part, io)?;
                self.hold(batch)?
            }
            (Some(_), _) if !known.is_owned() => self.hold(batch)?,
            (Some(_), _) => None,
        };
        let ended = if recorded_by_supervisor && victims.is_empty() {
            // It may have begun more meanwhile; two looks prove that nothing is left.
            victims.force(&self.census.machine, &runs, io)?
        } else {
            self.force(&runs, victims, io)?
        };
        if !recorded_by_supervisor && !meant.is_empty() {
            self.leave_note(batch, meant.iter().map(|run| run.run.0).collect(), io)?;
        }
        drop(held);
        let verdict = ended.max(above).max(refused);
        io.line(match verdict {
            Verdict::Lives => format!("{name}: something of it still lives"),
            Verdict::Refused => format!("{name}: nothing that is proven to be of it is alive"),
            Verdict::Open => format!("{name}: nothing more of it is found"),
            Verdict::Ended => format!("{name}: nothing of it is alive"),
        })?;
        Ok(verdict)
    }

    /// The journal; where that can not be read, the list that was derived from it.
    fn known(&self, batch: &Found, io: &mut Io<'_>) -> Result<Known, CliError> {
        let lock = batch.lock()?;
        match Known::fold(batch, lock.clone()) {
            Ok(Some(known)) => Ok(known),
            Ok(None) => Err(CliError::new(
                Code::NotFound,
                format!("batch {} has no record yet", batch.id),
            )),
            Err(error) => match registry::read(&RealDisk, &batch.dir) {
                Ok(Some(registry)) => {
                    error.tell(io.err).map_err(CliError::output)?;
                    Ok(Known {
                        registry,
                        guard: living_guard(batch)?,
                        lock,
                        source: Source::Registry,
                    })
                }
                Ok(None) | Err(_) => Err(error),
            },
        }
    }

    /// Tells of every recorded identity that is not what it says. A process of a boot that is over is
    /// gone, unless somebody has its number now: then that one is refused.
    fn refused(
        &self,
        batch: &Found,
        known: &Known,
        part: Part<'_>,
        io: &mut Io<'_>,
    ) -> Result<Verdict, CliError> {
        let mut verdict = Verdict::Ended;
        for run in known.registry.runs.iter().filter(|run| part.has(run)) {
            let Some(host) = &run.host else { continue };
            if let Some(field) = self.differs(host) {
                let (name, pid) = (host_name(run), host.pid);
                let source = known.source.word();
                io.line(format_args!(
                    "{name} (pid {pid} in the {source}): not touched: its {field} differs"
                ))?;
                verdict = Verdict::Refused;
            }
        }
        if known.source == Source::Registry {
            return Ok(verdict);
        }
        // The list is not acted upon when there is a journal; but if it says otherwise, that is told.
        let Ok(Some(listed)) = registry::read(&RealDisk, &batch.dir) else {
            return Ok(verdict);
        };
        let pairs = listed.runs.iter().filter(|run| part.has(run));
        for listed in pairs {
            let same = known.registry.runs.iter().find(|it| it.run == listed.run);
            let hosts = same.and_then(|it| Some((it.host.as_ref()?, listed.host.as_ref()?)));
            if let Some(what) = hosts.and_then(|(journal, listed)| departs(journal, listed)) {
                let (name, pid) = (host_name(listed), hosts.map_or(0, |(_, it)| it.pid));
                io.line(format_args!(
                    "{name} (pid {pid} in registry.json): not touched: its {what} differs from the \
                     journal's"
                ))?;
                verdict = Verdict::Refused;
            }
        }
        Ok(verdict)
    }

    /// The field in which a living process differs from what is recorded of its number.
    fn differs(&self, process: &Process) -> Option<Field> {
        match Proven::find(&self.census.machine, &process.identity()) {
            Err(Refused::Differs { field, .. }) => {
                let far = matches!(field, Field::Node | Field::PidNamespace);
                let somebody = stat::of(process.pid).is_some_and(|found| !found.is_over);
                (far || somebody).then_some(field)
            }
            Ok(_) | Err(Refused::Gone { .. } | Refused::System { .. }) => None,
        }
    }

    /// The runs that are meant, and those of them that may be acted upon. Without a journal a host
    /// must carry the token of its run as well as the identity.
    fn runs<'a>(
        &self,
        batch: &Found,
        known: &'a Known,
        part: Part<'_>,
    ) -> (Runs, Vec<&'a LiveRun>) {
        let meant: Vec<&LiveRun> = known
            .registry
            .runs
            .iter()
            .filter(|it| part.has(it))
            .collect();
        let mut runs = Runs::default();
        for run in &meant {
            let mut recorded = recorded_run(run);
            let doubtful = known.source == Source::Registry && {
                let traces = crate::process::scan::Traces::new(vec![recorded.trace.clone()]);
                run.host
                    .as_ref()
                    .is_some_and(|host| traces.tagged(host.pid).is_none())
            };
            if doubtful {
                recorded.trace.host = None;
            }
            recorded.open = self.question(batch, run);
            runs.recorded.push(recorded);
            runs.names.push(format!("{}@{}", run.task, run.attempt));
        }
        (runs, meant)
    }

    /// What stands against a proof that nothing of a run lives, before it is looked for: the same that
    /// recovery would say.
    pub(super) fn question(&self, batch: &Found, run: &LiveRun) -> Option<Arc<str>> {
        let host = run.host.as_ref()?; // one that waits behind its gate has started nothing
        match Proven::find(&self.census.machine, &host.identity()) {
            // It lives, and what it lost has come home to it.
            Ok(_) => tree::went_astray(run.containment().layers),
            // The machine was started anew.
            Err(Refused::Differs {
                field: Field::BootId,
                ..
            }) => None,
            Err(_) => {
                let folder = batch.dir.run(&run.task, run.attempt, run.run);
                recover::question(run.containment().layers, &folder)
            }
        }
    }

    /// The live supervisor, where the whole batch is meant: its name in messages and its identity.
    fn supervisor(&self, known: &Known, part: Part<'_>) -> Option<(Holder, Identity)> {
        if part.task.is_some() {
            return None;
        }
        let LockState::Held(Some(holder)) = &known.lock else {
            return None;
        };
        let recorded = known
            .registry
            .supervisor
            .as_ref()
            .filter(|it| it.pid == holder.pid && it.start_ticks == holder.start_ticks);
        let machine = &self.census.machine;
        let identity = recorded.map_or_else(
            || identity_of(machine, holder.pid, holder.start_ticks),
            Process::identity,
        );
        Some((holder.clone(), identity))
    }

    /// Asks the supervisor.
    fn order(
        &self,
        batch: &Found,
        known: &Known,
        part: Part<'_>,
        meant: &[&LiveRun],
        io: &mut Io<'_>,
    ) -> Result<Order, CliError> {
        let tasks: Option<Vec<TaskId>> = part.task.map(|_| {
            let mut tasks: Vec<TaskId> = meant.iter().map(|run| run.task.clone()).collect();
            tasks.dedup();
            tasks
        });
        if tasks.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Order::Taken); // it runs nothing of it
        }
        let LockState::Held(Some(holder)) = &known.lock else {
            return Ok(Order::Silent);
        };
        let grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        let request = Request {
            v: CONTROL_VERSION,
            batch: batch.id.clone(),
            want: Want::Kill { tasks, grace_ms },
        };
        let reply = client::send(&holder.socket, &request)
            .and_then(|mut replies| replies.next(Some(ANSWER_MAX)));
        let pid = holder.pid;
        match reply {
            Ok(Some(Reply::Done { lines })) => {
                for line in lines {
                    io.line(line)?;
                }
                Ok(Order::Taken)
            }
            Ok(Some(Reply::Refused { code, text })) if is_agent_refusal(&text) => {
                Err(act::refused(code, text))
            }
            Ok(Some(Reply::Refused { text, .. })) => {
                io.line(format_args!(
                    "supervisor (pid {pid}) refused: {text}; ended directly"
                ))?;
                Ok(Order::Silent)
            }
            // It was ending anyway.
            Err(ClientError::Closed) | Ok(_) => Ok(Order::Silent),
            Err(error) => {
                let why = chain(&error);
                io.line(format_args!(
                    "supervisor (pid {pid}): {why}; ended directly"
                ))?;
                Ok(Order::Silent)
            }
        }
    }

    /// The supervisor that is meant and its guardian, as far as they live.
    fn above(&self, known: &Known, supervisor: Option<&(Holder, Identity)>) -> Vec<Above> {
        let guardian = known.registry.guardian.as_ref().map(Process::identity);
        let supervisor = supervisor.map(|(_, identity)| identity.clone());
        let both = [("supervisor", supervisor), ("guardian", guardian)];
        let pinned = both.into_iter().filter_map(|(role, identity)| {
            let identity = identity?;
            let proven = Proven::find(&self.census.machine, &identity).ok()?;
            Some(Above {
                role,
                identity,
                proven,
            })
        });
        pinned.collect()
    }

    /// Waits until the supervisor that took the order is gone, and then its guardian; one that stays
    /// is killed.
    fn outlast(
        &self,
        batch: &Found,
        above: Vec<Above>,
        io: &mut Io<'_>,
    ) -> Result<Option<Lock>, CliError> {
        for one in above {
            let (role, pid) = (one.role, one.identity.pid);
            if pidfd::wait_ended(&one.proven, self.grace + DYING_MAX).unwrap_or(false) {
                io.line(format_args!("{role} of {} (pid {pid}): ended", batch.id))?;
            } else {
                self.force_one(role, &one.identity, io)?;
            }
        }
        self.hold(batch)
    }

    /// Ends the supervisor that there is, after its guardian was asked to end: it starts none again
    /// then, sweeps and ends by itself. One that does not is killed.
    fn force_above(
        &self,
        batch: &Found,
        known: &Known,
        part: Part<'_>,
        io: &mut Io<'_>,
    ) -> Result<Verdict, CliError> {
        let machine = &self.census.machine;
        let guardians = self.guardians(batch, known)?;
        let ask = |identity: &Identity| {
            recorded::signal(machine, identity, rustix::process::Signal::TERM).ok()
        };
        let asked: Vec<Option<Proven>> = guardians.iter().map(ask).collect();
        let mut verdict = Verdict::Ended;
        let now = Known {
            registry: known.registry.clone(),
            lock: batch.lock()?,
            guard: None,
            source: known.source,
        };
        if let Some((_, identity)) = self.supervisor(&now, part) {
            verdict = verdict.max(self.force_one("supervisor", &identity, io)?);
        } else if now.is_owned() {
            io.line("the supervisor has not written itself down yet: not touched")?;
            verdict = Verdict::Lives;
        }
        for (identity, asked) in guardians.iter().zip(asked) {
            let ended = asked.map(|it| pidfd::wait_ended(&it, ANSWER_MAX).unwrap_or(false));
            if ended == Some(true) {
                let pid = identity.pid;
                io.line(format_args!("guardian (pid {pid}): SIGTERM, ended"))?;
            } else {
                verdict = verdict.max(self.force_one("guardian", identity, io)?);
            }
        }
        Ok(verdict)
    }

    /// Everybody who would start a supervisor of the batch again: its guardian, and whoever has taken
    /// the place of one that died, with the guardian of that one before it.
    fn guardians(&self, batch: &Found, known: &Known) -> Result<Vec<Identity>, CliError> {
        let recorded = known.registry.guardian.as_ref().map(Process::identity);
        let mut all: Vec<Identity> = recorded.into_iter().collect();
        if let Some(watcher) = batch.watcher()? {
            let machine = &self.census.machine;
            let above = watcher.guardian.map(|it| (it.pid, it.start_ticks));
            let both = above
                .into_iter()
                .chain([(watcher.pid, watcher.start_ticks)]);
            all.extend(both.map(|(pid, ticks)| identity_of(machine, pid, ticks)));
        }
        Ok(all)
    }

    fn force_one(
        &self,
        role: &str,
        identity: &Identity,
        io: &mut Io<'_>,
    ) -> Result<Verdict, CliError> {
        let pid = identity.pid;
        let signal = rustix::process::Signal::KILL;
        let (said, verdict) = match recorded::signal(&self.census.machine, identity, signal) {
            Ok(proven) if pidfd::wait_ended(&proven, DYING_MAX).unwrap_or(false) => {
                ("SIGKILL, ended".to_owned(), Verdict::Ended)
            }
            Ok(_) => ("SIGKILL, still dying".to_owned(), Verdict::Lives),
            Err(Refused::Gone { .. }) => return Ok(Verdict::Ended),
            // Of a boot that is over, or its number is used anew: it is gone.
            Err(Refused::Differs { field, .. }) if field_means_gone(field) => {
                return Ok(Verdict::Ended);
            }
            Err(refused) => (
                format!("not touched: {}", chain(&refused)),
                Verdict::Refused,
            ),
        };
        io.line(format_args!("{role} (pid {pid}): {said}"))?;
        Ok(verdict)
    }

    /// Asks, waits for the grace, and forces.
    ///
    /// # Errors
    /// When the processes can not be listed (10).
    pub fn force(
        &self,
        runs: &Runs,
        mut victims: Victims,
        io: &mut Io<'_>,
    ) -> Result<Verdict, CliError> {
        victims.ask(self.grace);
        let how = match self.grace.is_zero() {
            true => "ended by itself",
            false => "SIGTERM",
        };
        victims.tell_ended(how, io)?;
        victims.force(&self.census.machine, runs, io)
    }

    /// Holds the batch while nobody works on it. `None`: the lock can not be had, and nobody who lives
    /// has it: no supervisor can take it either.
    ///
    /// # Errors
    /// Refused (8) when a supervisor has begun meanwhile.
    pub fn hold(&self, batch: &Found) -> Result<Option<Lock>, CliError> {
        match lock::hold(&batch.dir) {
            Err(StoreError::Held { .. }) => {}
            other => return Ok(other?),
        }
        // Its holder has been seen to end, and with it what it had open. A child of it that has not
        // begun its own program yet still shares the lock, for a moment: the look waits for that.
        match batch.lock()? {
            LockState::Held(Some(holder)) if is_gone(&holder) => Ok(None),
            LockState::Held(_) | LockState::Free => Ok(lock::hold(&batch.dir)?),
        }
    }

    /// Leaves the record to the next supervisor; a disk that does not take even that is told.
    ///
    /// # Errors
    /// When stdout can not be written.
    pub fn leave_note(
        &self,
        batch: &Found,
        runs: Vec<u64>,
        io: &mut Io<'_>,
    ) -> Result<(), CliError> {
        match act::keep(batch, Want::Killed { runs }) {
            Ok(()) => io.line(format_args!(
                "{}: noted for the next supervisor: cancelled, held until `resume`",
                batch.id
            )),
            Err(error) => io.line(format_args!(
                "{}: not noted ({error}): the next supervisor will find these runs lost and go on \
                 with them; `supervisor pause` holds them once the disk allows",
                batch.id
            )),
        }
    }
}

/// A process above the hosts of a batch, pinned while it lived.
struct Above {
    role: &'static str,
    identity: Identity,
    proven: Proven,
}

/// Refuses to act for whoever comes out of a run of the batch itself, as its supervisor would.
///
/// # Errors
/// Refused (8).
pub fn refuse_inside(known: &Known) -> Result<(), CliError> {
    if Insiders::of(&known.registry, known.owner()).has(std::process::id()) {
        let message = format!(
            "this comes from a run of {} itself: an agent can not steer, answer or end runs of its \
             own batch",
            known.registry.batch
        );
        return Err(CliError::new(Code::Refused, message));
    }
    Ok(())
}

/// Whether the process that wrote itself into a lock has ended, or is just ending.
fn is_gone(holder: &Holder) -> bool {
    stat::of(holder.pid).is_none_or(|it| it.is_over || it.start_ticks != holder.start_ticks)
}

/// Whether a process that differs in this proves that the recorded one is gone; on another machine
/// or in another namespace it is unknown.
const fn field_means_gone(field: Field) -> bool {
    match field {
        Field::Node | Field::PidNamespace => false,
        Field::BootId | Field::StartTicks | Field::PidfsInode => true,
    }
}

/// In what a listed identity departs from that of the journal.
fn departs(journal: &Process, listed: &Process) -> Option<String> {
    if journal.pid != listed.pid {
        return Some("pid".to_owned());
    }
    difference(&journal.identity(), &listed.identity()).map(|field| field.to_string())
}

fn host_name(run: &LiveRun) -> String {
    format!("host of {}@{}", run.task, run.attempt)
}

fn name_of(batch: &Found, part: Part<'_>) -> String {
    let mut name = batch.id.to_string();
    if let Some(task) = part.task {
        name.push('/');
        name.push_str(task.as_str());
    }
    if let Some(attempt) = part.attempt {
        name.push_str(&format!("@{attempt}"));
    }
    name
}
