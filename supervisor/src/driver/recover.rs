//! After a crash: what became of the hosts of earlier supervisors, and of their runs.
//!
//! The stdin of those hosts has ended with their supervisor, so they are ending by themselves and
//! are waited for first. What is then left of the runs, and is proven to be of them (by cgroup, by
//! tags, by session or by recorded identity), is killed in one search for all of them. What can
//! not be judged from here is told as such, and so is what can not be excluded; the core rules.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::ids::{Generation, MessageId};
use supervisor_core::containment::{Cleared, Layer, Layers};
use supervisor_core::facts::{Facts, Run, Task};
use supervisor_core::identity::Identity;
use supervisor_core::machine::MessageState;
use supervisor_core::reconcile::{ProcessFact, ResultFact, RunFacts, rule};
use supervisor_core::time::Now;

use crate::control::wire::Want;
use crate::driver::clock::Clock;
use crate::driver::observer::{Found, Note, Observer};
use crate::driver::run_files;
use crate::process::identity::Machine;
use crate::process::recorded::{Field, Proven, Refused, difference};
use crate::process::scan::Trace;
use crate::process::tree::RecordedRun;
use crate::process::{pidfd, stat, tree};
use crate::store::{RealDisk, StateDir, inbox};

/// How long what is left of earlier supervisors is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For hosts that end by themselves.
    pub ending: Duration,
}

impl Patience {
    /// A host kills its tree at once when its stdin ends; this is many times what a large tree on a
    /// busy machine takes.
    pub const USUAL: Patience = Patience {
        ending: Duration::from_secs(15),
    };
}

/// What recovery needs to know.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// This machine.
    pub machine: &'a Machine,
    /// Its clocks.
    pub clock: &'a Clock,
    /// The batch's files.
    pub dir: &'a StateDir,
    /// The batch's state.
    pub facts: &'a Facts,
    /// How long to wait.
    pub patience: Patience,
}

/// Finds out what became of every run that the state holds as live, and tells the observer the
/// plan that follows from it.
///
/// # Errors
/// When the processes of this machine can not be listed.
pub fn reconcile(
    scene: Scene<'_>,
    observer: &mut dyn Observer,
) -> io::Result<Vec<(Generation, RunFacts)>> {
    let here: Vec<(Generation, &Run)> = scene
        .facts
        .runs
        .iter()
        .filter(|(_, run)| place(scene, run) == Place::Here)
        .map(|(&generation, run)| (generation, run))
        .collect();
    let mut cleared = clear(scene, &here, observer)?;
    // Only now: a kill may have come while we waited.
    let killed = killed(scene.dir)?;
    let mut runs = Vec::with_capacity(scene.facts.runs.len());
    for (&generation, run) in &scene.facts.runs {
        let (process, cleared) = match (place(scene, run), cleared.remove(&generation)) {
            (Place::Foreign, _) => (ProcessFact::Foreign, foreign()),
            (Place::Over, _) | (Place::Here, None) => (ProcessFact::Gone, Cleared::CLEAN),
            (Place::Here, Some(cleared @ Cleared::Residual { .. })) => {
                (ProcessFact::Living, cleared)
            }
            (Place::Here, Some(cleared)) => (ProcessFact::Gone, cleared),
        };
        let process = match process {
            ProcessFact::Gone if killed.contains(&generation) => ProcessFact::Killed,
            gone_or_not => gone_or_not,
        };
        let mut found = facts_of(scene, generation, run, process, cleared);
        if place(scene, run) == Place::Over && !matches!(found.result, ResultFact::Durable(_)) {
            found.injected = with_all_sent(scene.facts, generation, found.injected);
        }
        runs.push((generation, found));
    }
    tell_plan(scene.facts, &runs, observer);
    Ok(runs)
}

/// After a crash of the machine, a host's list of what went in may lack its last lines: whatever was
/// sent to the run may have gone in. With a durable result there is no doubt: it names all.
fn with_all_sent(
    facts: &Facts,
    generation: Generation,
    mut injected: Vec<MessageId>,
) -> Vec<MessageId> {
    let to_run = facts.messages.iter().filter(|(_, message)| {
        message.state == MessageState::Sent && message.generation == Some(generation)
    });
    injected.extend(to_run.map(|(&id, _)| id));
    injected.sort_unstable();
    injected.dedup();
    injected
}

fn foreign() -> Cleared {
    Cleared::NotExcluded {
        killed: 0,
        why: "it was started on another machine or in another pid namespace".into(),
    }
}

/// The runs that an operator ended while no supervisor lived to record it.
fn killed(dir: &StateDir) -> io::Result<BTreeSet<Generation>> {
    let waiting = inbox::waiting(&RealDisk, dir).map_err(io::Error::other)?;
    let notes = waiting
        .into_iter()
        .filter_map(|one| match one.request.want {
            Want::Killed { runs } => Some(runs),
            Want::Steer { .. }
            | Want::Answer { .. }
            | Want::Kill { .. }
            | Want::Pause { .. }
            | Want::Resume { .. }
            | Want::Cancel { .. }
            | Want::Retry { .. }
            | Want::Skip { .. }
            | Want::Clean { .. }
            | Want::CleanBuildOutput { .. }
            | Want::Inbox
            | Want::Activity
            | Want::Reexec { .. }
            | Want::Watch => None,
        });
    Ok(notes.flatten().map(Generation).collect())
}

/// Where a run's processes can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On this machine, in this boot.
    Here,
    /// In a boot that is over: nowhere.
    Over,
    /// On another machine or in another pid namespace: not to be judged from here.
    Foreign,
}

/// Judged by the host's identity; before it is known, by that of the supervisor that meant to
/// start it.
fn place(scene: Scene<'_>, run: &Run) -> Place {
    let recorded = run
        .identity
        .as_ref()
        .or(scene.facts.batch.supervisor.as_ref());
    let Some(recorded) = recorded else {
        return Place::Here;
    };
    let here = Identity {
        node: scene.machine.node.clone(),
        boot_id: scene.machine.boot_id,
        pid_namespace: scene.machine.pid_namespace,
        ..recorded.clone()
    };
    match difference(recorded, &here) {
        Some(Field::Node | Field::PidNamespace) => Place::Foreign,
        Some(Field::BootId) => Place::Over,
        Some(Field::StartTicks | Field::PidfsInode) | None => Place::Here,
    }
}

/// Ends everything that is left of these runs, all in one search; what is then known of each.
fn clear(
    scene: Scene<'_>,
    here: &[(Generation, &Run)],
    observer: &mut dyn Observer,
) -> io::Result<HashMap<Generation, Cleared>> {
    if here.is_empty() {
        return Ok(HashMap::new());
    }
    let hosts = wait_for_hosts(scene, here, observer)?;
    let runs: Vec<RecordedRun> = here
        .iter()
        .map(|(generation, run)| RecordedRun {
            trace: Trace {
                token: run.token,
                host: run.identity.clone(),
                host_lived_until: match hosts.contains(generation) {
                    true => u64::MAX,
                    false => ticks(&scene.facts.batch.now),
                },
            },
            containment: run.containment.clone(),
            open: open_question(scene, *generation, run),
        })
        .collect();
    let cleared = tree::end_recorded(scene.machine, &runs)?;
    let generations = here.iter().map(|(generation, _)| *generation);
    Ok(generations.zip(cleared).collect())
}

/// Waits for hosts that end by themselves because their stdin has; the runs whose host was seen.
fn wait_for_hosts(
    scene: Scene<'_>,
    here: &[(Generation, &Run)],
    observer: &mut dyn Observer,
) -> io::Result<HashSet<Generation>> {
    let mut hosts = Vec::new();
    for (generation, run) in here {
        let recorded = run.identity.as_ref();
        if let Some(proven) = recorded.and_then(|it| recorded_host(scene.machine, it)) {
            hosts.push((*generation, proven));
        }
    }
    if hosts.is_empty() {
        return Ok(HashSet::new());
    }
    observer.noted(Note::WaitingForHosts(hosts.len()));
    let until = scene.clock.now().boot + scene.patience.ending;
    for (_, host) in &hosts {
        let left = until.0.saturating_sub(scene.clock.now().boot.0);
        // What has not ended by then is killed by the search that follows.
        pidfd::wait_ended(host, Duration::from_millis(left))?;
    }
    Ok(hosts
        .into_iter()
        .map(|(generation, _)| generation)
        .collect())
}

/// What stands against a proof that nothing of a run lives, though nothing was found. Only a run whose
/// supervisor *and* host were killed has such a question: all others were seen to end.
fn open_question(scene: Scene<'_>, generation: Generation, run: &Run) -> Option<Arc<str>> {
    run.identity.as_ref()?; // a host that waits behind its gate has started nothing
    let task = task_of(scene.facts, run)?;
    let folder = scene.dir.run(&task.id, run.attempt, generation);
    question(run.containment.layers, &folder)
}

/// What stands against a proof that nothing lives of a run with these layers whose host is gone.
pub fn question(layers: Layers, run_dir: &Path) -> Option<Arc<str>> {
    if layers.has(Layer::Cgroup) || layers.has(Layer::Pidns) {
        return None; // it was empty, or is gone with its first process
    }
    if let Some(why) = tree::went_astray(layers) {
        return Some(why); // whatever its host saw, it did not see those
    }
    if run_files::host_saw_the_end(run_dir) {
        return None;
    }
    Some("it had no cgroup, and its host was killed before its tree was gone".into())
}

fn task_of<'a>(facts: &'a Facts, run: &Run) -> Option<&'a Task> {
    facts.tasks.get(usize::try_from(run.task.0).ok()?)
}

/// A moment as start times are counted.
fn ticks(at: &Now) -> u64 {
    stat::start_clock_ms(at).saturating_mul(stat::ticks_a_second()) / 1000
}

fn recorded_host(machine: &Machine, identity: &Identity) -> Option<Proven> {
    match Proven::find(machine, identity) {
        Ok(proven) => Some(proven),
        Err(Refused::Gone { .. } | Refused::Differs { .. }) => None,
        Err(error @ Refused::System { .. }) => {
            tracing::error!(%error, "a recorded host can not be judged");
            None
        }
    }
}

fn facts_of(
    scene: Scene<'_>,
    generation: Generation,
    run: &Run,
    process: ProcessFact,
    cleared: Cleared,
) -> RunFacts {
    let (result, injected) = match task_of(scene.facts, run) {
        Some(task) => files_of(scene, generation, run, &task.id),
        None => (ResultFact::Unreadable, Vec::new()),
    };
    RunFacts {
        process,
        result,
        injected,
        cleared,
    }
}

fn files_of(
    scene: Scene<'_>,
    generation: Generation,
    run: &Run,
    task: &protocol::ids::TaskId,
) -> (ResultFact, Vec<MessageId>) {
    let run_dir = scene.dir.run(task, run.attempt, generation);
    let (result, in_result) = run_files::result(&run_dir, generation);
    match run_files::injected(&scene.dir.task(task)) {
        Ok(mut injected) => {
            injected.extend(in_result);
            injected.sort_unstable();
            injected.dedup();
            (result, injected)
        }
        Err(error) => {
            tracing::error!(%error, "which messages went in is not known");
            (ResultFact::Unreadable, in_result)
        }
    }
}

fn tell_plan(facts: &Facts, runs: &[(Generation, RunFacts)], observer: &mut dyn Observer) {
    let plan: Vec<Found> = runs
        .iter()
        .filter_map(|(generation, found)| {
            let run = facts.runs.get(generation)?;
            let stop = run.stop.map(|(reason, _)| reason);
            Some(Found {
                generation: *generation,
                task: run.task,
                state: run.state,
                process: found.process,
                result: matches!(found.result, ResultFact::Durable(_)),
                letter: rule(found.process, &found.result, run.state, stop),
            })
        })
        .collect();
    if !plan.is_empty() {
        observer.noted(Note::Reconciled(&plan));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::fixture::{self, Tape};
    use crate::process::scan::token_of;
    use crate::process::tag::{TOKEN_VARIABLE, token_text};
    use serde_json::json;
    use std::process::{Child, Command};
    use supervisor_core::core::Core;
    use supervisor_core::facts::Message;
    use supervisor_core::input::Input;
    use supervisor_core::plan::AgentKind;
    use supervisor_core::time::BootId;

    const RUN: Generation = Generation(1);

    /// A state whose only run was intended by the supervisor of the fixture.
    fn core() -> Core {
        fixture::core(
            AgentKind::Command,
            &json!("run"),
            &json!({"act": "nothing"}),
        )
    }

    /// The machine on which the fixture's supervisor was.
    fn same_machine() -> Machine {
        Machine {
            node: "here".into(),
            pid_namespace: 1,
            boot_id: BootId(7),
        }
    }

    fn found_on(machine: &Machine, core: &Core, dir: &StateDir) -> (RunFacts, Vec<String>) {
        let clock = Clock::new(machine.boot_id);
        let scene = Scene {
            machine,
            clock: &clock,
            dir,
            facts: core.facts().unwrap(),
            patience: Patience {
                ending: Duration::from_millis(50),
            },
        };
        let mut tape = Tape::default();
        let runs = reconcile(scene, &mut tape).unwrap();
        let [(RUN, found)] = &runs[..] else {
            panic!("{runs:?}");
        };
        (found.clone(), tape.0)
    }

    fn process_on(machine: &Machine) -> ProcessFact {
        let folder = tempfile::tempdir().unwrap();
        found_on(machine, &core(), &StateDir::at(folder.path()))
            .0
            .process
    }

    #[test]
    fn another_machine_or_namespace_is_foreign_and_another_boot_is_over() {
        let same = same_machine();
        assert_eq!(process_on(&same), ProcessFact::Gone);
        let node = "elsewhere".into();
        assert_eq!(
            process_on(&Machine {
                node,
                ..same.clone()
            }),
            ProcessFact::Foreign
        );
        let pid_namespace = 2;
        let other = Machine {
            pid_namespace,
            ..same.clone()
        };
        assert_eq!(process_on(&other), ProcessFact::Foreign);
        let boot_id = BootId(8);
        assert_eq!(process_on(&Machine { boot_id, ..same }), ProcessFact::Gone);
    }

    /// A process that does not outlive its test.
    struct Left(Child);

    impl Drop for Left {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    /// Returns once the token can be seen: for an instant after its start it can not.
    fn start_with_token(token: u128, script: &str) -> Left {
        #[expect(clippy::disallowed_methods, reason = "what an earlier supervisor left")]
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script])
            .env(TOKEN_VARIABLE, token_text(token));
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let left = Left(command.spawn().unwrap());
        while token_of(left.0.id()).is_none() {
            std::thread::yield_now();
        }
        left
    }

    #[test]
    fn what_does_not_end_by_itself_is_killed_and_a_stranger_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let core = core();
        let token = core.facts().unwrap().runs[&RUN].token;
        let mut left = start_with_token(token, "trap '' TERM; exec sleep 1000");
        let mut stranger = start_with_token(token ^ 1, "exec sleep 1000");
        let dir = StateDir::at(folder.path());
        let (found, told) = found_on(&same_machine(), &core, &dir);
        assert_eq!(found.process, ProcessFact::Gone);
        assert_eq!(found.cleared, Cleared::Clean { killed: 1 });
        assert!(told[0].contains("letter: C"), "{told:?}");
        assert!(!left.0.wait().unwrap().success());
        assert!(
            stranger.0.try_wait().unwrap().is_none(),
            "a stranger was hit"
        );
    }

    #[test]
    fn files_that_can_not_be_judged_are_told_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let mut core = core();
        let dir = StateDir::at(folder.path());
        let run = dir.run(&"first".parse().unwrap(), protocol::ids::AttemptNo(1), RUN);
        std::fs::create_dir_all(&run).unwrap();
        let exit = run.join(protocol::exit_file::EXIT_FILE_NAME);
        let whole = r#"{"v":1,"generation":1,"result":{"status":"ok"},"injected":[4]}"#;
        std::fs::write(&exit, whole).unwrap();
        let (_, told) = found_on(&same_machine(), &core, &dir);
        assert!(told[0].contains("letter: C"), "it never began: {told:?}");
        let spawned = Input::HostSpawned {
            generation: RUN,
            identity: core.facts().unwrap().batch.supervisor.clone().unwrap(),
            containment: Default::default(),
        };
        let turn = core.handle(fixture::now(), spawned);
        assert!(turn.defects.is_empty(), "{:?}", turn.defects);
        let (found, told) = found_on(&same_machine(), &core, &dir);
        assert!(matches!(found.result, ResultFact::Durable(_)));
        assert_eq!(found.injected, [MessageId(4)]);
        assert!(told[0].contains("letter: A"), "{told:?}");
        std::fs::write(&exit, whole.replace("\"v\":1", "\"v\":2")).unwrap();
        let (found, told) = found_on(&same_machine(), &core, &dir);
        assert_eq!(found.result, ResultFact::Unreadable);
        assert!(told[0].contains("letter: F"), "{told:?}");
    }

    #[test]
    fn what_was_sent_before_a_crash_of_the_machine_may_have_gone_in() {
        let folder = tempfile::tempdir().unwrap();
        let dir = StateDir::at(folder.path());
        let core = core();
        let mut facts = core.facts().unwrap().clone();
        let message = |id, state, generation| {
            let message = Message {
                task: supervisor_core::plan::TaskIx(0),
                mode: protocol::command::SteerMode::Boundary,
                text: "text".into(),
                expires: None,
                from: None,
                state,
                generation,
                rungs: Vec::new(),
            };
            (MessageId(id), message)
        };
        facts.messages.extend([
            message(1, MessageState::Sent, Some(RUN)),
            message(2, MessageState::Seen, Some(RUN)),
            message(3, MessageState::Sent, Some(Generation(9))),
            message(4, MessageState::Queued, None),
        ]);
        let injected_on = |machine: &Machine| {
            let scene = Scene {
                machine,
                clock: &Clock::new(machine.boot_id),
                dir: &dir,
                facts: &facts,
                patience: Patience::USUAL,
            };
            let runs = reconcile(scene, &mut Tape::default()).unwrap();
            runs[0].1.injected.clone()
        };
        assert_eq!(
            injected_on(&same_machine()),
            [],
            "what a host wrote outlives every crash of a process"
        );
        let boot_id = BootId(8);
        let booted_again = Machine {
            boot_id,
            ..same_machine()
        };
        assert_eq!(injected_on(&booted_again), [MessageId(1)]);
        let run = dir.run(&"first".parse().unwrap(), protocol::ids::AttemptNo(1), RUN);
        std::fs::create_dir_all(&run).unwrap();
        let whole = r#"{"v":1,"generation":1,"result":{"status":"ok"},"injected":[4]}"#;
        std::fs::write(run.join(protocol::exit_file::EXIT_FILE_NAME), whole).unwrap();
        assert_eq!(
            injected_on(&booted_again),
            [MessageId(4)],
            "a durable result names all that went in"
        );
    }
}
