//! After a crash: what became of the hosts of earlier supervisors, and of their runs.
//!
//! The stdin of those hosts has ended with their supervisor, so they are ending by themselves and
//! are waited for first. What is then left of a run, and is proven to be of it (by its recorded
//! identity, or by the spawn token in its environment), is killed. What can not be judged from
//! here is told as such; the core rules.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::time::Duration;

use protocol::ids::{Generation, MessageId};
use supervisor_core::facts::{Facts, Run};
use supervisor_core::identity::Identity;
use supervisor_core::reconcile::{ProcessFact, ResultFact, RunFacts, rule};
use supervisor_core::time::Boot;

use crate::driver::clock::Clock;
use crate::driver::observer::{Found, Note, Observer};
use crate::driver::run_files;
use crate::process::identity::Machine;
use crate::process::pidfd;
use crate::process::recorded::{Field, Proven, Refused, difference};
use crate::process::scan::{self, Tagged};
use crate::store::StateDir;

/// How long what is left of earlier supervisors is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For hosts that end by themselves.
    pub ending: Duration,
    /// For what was killed.
    pub killing: Duration,
}

impl Patience {
    /// A host kills its tree at once when its stdin ends; this is many times what a large tree on a
    /// busy machine takes. Then longer than the kernel takes to end anything that it can end.
    pub const USUAL: Patience = Patience {
        ending: Duration::from_secs(15),
        killing: Duration::from_secs(5),
    };
}

/// Looks in a row that must find nothing once something was found: a process that is just becoming
/// another program has no environment for an instant, and is not seen in it.
const CLEAN_LOOKS: u32 = 2;
/// Longest wait before the processes are looked at anew: a tree may have forked meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

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
    /// Runs that an operator ended while no supervisor could record it.
    pub killed: &'a BTreeSet<Generation>,
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
    let mut places: HashMap<Generation, Place> = HashMap::new();
    for (&generation, run) in &scene.facts.runs {
        places.insert(generation, place(scene, run));
    }
    let living = wait_and_kill(scene, &places, observer)?;
    let mut runs = Vec::with_capacity(places.len());
    for (&generation, run) in &scene.facts.runs {
        let process = match places.get(&generation) {
            Some(Place::Foreign) => ProcessFact::Foreign,
            _here_or_over if living.contains(&generation) => ProcessFact::Living,
            _here_or_over if scene.killed.contains(&generation) => ProcessFact::Killed,
            _here_or_over => ProcessFact::Gone,
        };
        runs.push((generation, facts_of(scene, generation, run, process)));
    }
    tell_plan(scene.facts, &runs, observer);
    Ok(runs)
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

/// Waits for every process of the runs that are here, then kills what is left. Returns the runs of
/// which something still lives.
fn wait_and_kill(
    scene: Scene<'_>,
    places: &HashMap<Generation, Place>,
    observer: &mut dyn Observer,
) -> io::Result<HashSet<Generation>> {
    let here: Vec<(Generation, &Run)> = scene
        .facts
        .runs
        .iter()
        .filter(|(generation, _)| places.get(generation) == Some(&Place::Here))
        .map(|(&generation, run)| (generation, run))
        .collect();
    let mut found = find(scene, &here)?;
    if found.is_empty() {
        return Ok(HashSet::new());
    }
    let hosts: HashSet<Generation> = found.iter().map(|one| one.generation).collect();
    observer.noted(Note::WaitingForHosts(hosts.len()));
    let start = scene.clock.now().boot;
    let asked_until = start + scene.patience.ending;
    let killed_until = asked_until + scene.patience.killing;
    let mut clean = 0;
    while clean < CLEAN_LOOKS && scene.clock.now().boot < killed_until {
        if scene.clock.now().boot >= asked_until {
            kill_all(&found);
        }
        let until = scene.clock.now().boot + LOOK_AGAIN.min(scene.patience.ending);
        wait_all(scene.clock, &found, until)?;
        found = find(scene, &here)?;
        clean = if found.is_empty() { clean + 1 } else { 0 };
    }
    Ok(found.iter().map(|one| one.generation).collect())
}

/// A living process that is proven to be of a run.
#[derive(Debug)]
struct OfRun {
    generation: Generation,
    pid: u32,
    pidfd: std::os::fd::OwnedFd,
}

/// One look at all processes, for the tokens of these runs; and one at each recorded host, which
/// may have cleared its environment.
fn find(scene: Scene<'_>, runs: &[(Generation, &Run)]) -> io::Result<Vec<OfRun>> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let by_token: HashMap<u128, Generation> = runs
        .iter()
        .map(|(generation, run)| (run.token, *generation))
        .collect();
    let tagged = scan::tagged(|token| by_token.contains_key(&token))?;
    let mut found: Vec<OfRun> = tagged
        .into_iter()
        .filter_map(|Tagged { pid, pidfd, token }| {
            let generation = *by_token.get(&token)?;
            // An exit that nobody has collected yet is no life.
            let lives = !pidfd::has_ended(&pidfd).ok()?;
            lives.then_some(OfRun {
                generation,
                pid,
                pidfd,
            })
        })
        .collect();
    for (generation, run) in runs {
        if let Some(identity) = &run.identity
            && !found.iter().any(|known| known.pid == identity.pid)
            && let Some(proven) = recorded_host(scene.machine, identity)
        {
            found.push(OfRun {
                generation: *generation,
                pid: identity.pid,
                pidfd: proven.into_pidfd(),
            });
        }
    }
    Ok(found)
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

fn kill_all(found: &[OfRun]) {
    for one in found {
        if let Err(error) = pidfd::kill(&one.pidfd) {
            tracing::error!(run = one.generation.0, pid = one.pid, %error, "can not be killed");
        }
    }
}

/// Waits until all of them have ended, until `until` at most.
fn wait_all(clock: &Clock, found: &[OfRun], until: Boot) -> io::Result<()> {
    for one in found {
        let left = until.0.saturating_sub(clock.now().boot.0);
        if !pidfd::wait_ended(&one.pidfd, Duration::from_millis(left))? && left == 0 {
            break;
        }
    }
    Ok(())
}

fn facts_of(scene: Scene<'_>, generation: Generation, run: &Run, process: ProcessFact) -> RunFacts {
    let task = usize::try_from(run.task.0)
        .ok()
        .and_then(|ix| scene.facts.tasks.get(ix));
    let (result, injected) = match task {
        Some(task) => files_of(scene, generation, run, &task.id),
        None => (ResultFact::Unreadable, Vec::new()),
    };
    RunFacts {
        process,
        result,
        injected,
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
    use serde_json::json;
    use std::process::{Child, Command};
    use supervisor_core::core::Core;
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
            killed: &BTreeSet::new(),
            patience: Patience {
                ending: Duration::from_millis(50),
                killing: Duration::from_secs(20),
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
            .env(scan::TOKEN_VARIABLE, scan::token_text(token));
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let left = Left(command.spawn().unwrap());
        while scan::token_of(left.0.id()).is_none() {
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
        assert!(told[0].contains("WaitingForHosts(1)"), "{told:?}");
        assert!(told[1].contains("letter: C"), "{told:?}");
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
}
