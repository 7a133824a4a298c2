//! One batch in which every task is another escape, with strangers beside it.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::agent::Then;
use super::bystander::Bystanders;
use super::escape::Escape;
use super::layer::Layer;
use super::ledger::{Ledger, Life};
use super::owners::Owners;
use crate::world::{Ran, Started, World};

/// Name of the batch.
pub const BATCH: &str = "zoo";
/// Name of the other batch of the same user.
const OTHER: &str = "other";

/// What is played on a stage.
#[derive(Debug, Clone)]
pub struct Play {
    /// The agents.
    pub escapes: Vec<Escape>,
    /// What they do once they are out.
    pub then: Then,
    /// Wall limit of an attempt.
    pub timeout: Duration,
    /// What the product has to do without.
    pub without: Vec<Layer>,
    /// The program `nasty_agent`.
    pub program: PathBuf,
    /// Further tasks, each with a ledger of its own and a child in the background.
    pub fillers: usize,
}

/// A batch under way.
#[derive(Debug)]
pub struct Stage {
    /// Where it happens.
    pub world: World,
    /// The truth.
    pub ledger: Ledger,
    /// Its agents.
    pub escapes: Vec<Escape>,
    /// The truth of the fillers.
    pub fillers: Vec<Ledger>,
    bystanders: Bystanders,
    other: Vec<Life>,
    other_run: Option<Started>,
    run: Option<Started>,
    runs: usize,
}

impl Stage {
    /// Starts the strangers and the batch.
    ///
    /// # Panics
    /// When one of them does not start.
    pub fn open(play: &Play) -> Self {
        let mut world = World::new();
        let ledger = Ledger::new(&world.path("ledger"));
        let bystanders = Bystanders::start(&world, &play.program);
        let other_run = start_other(&world, &play.program);
        let other = other_lives(&world);
        if !play.without.is_empty() {
            let layers = play.without.iter().map(|layer| layer.word().to_owned());
            let program = play.program.display().to_string();
            let words = [program, "without".to_owned()].into_iter();
            world.launch_by(words.chain(layers).chain(["--".to_owned()]));
        }
        let filler = |number| Ledger::new(&world.path(format!("ledger-{number}")));
        let fillers: Vec<Ledger> = (0..play.fillers).map(filler).collect();
        world.write("zoo.yml", &batch_file(play, &ledger, &fillers));
        let mut stage = Self {
            world,
            ledger,
            escapes: play.escapes.clone(),
            fillers,
            bystanders,
            other,
            other_run: Some(other_run),
            run: None,
            runs: 0,
        };
        stage.run();
        stage
    }

    /// Starts `supervisor run`, or starts it again.
    pub fn run(&mut self) {
        self.runs += 1;
        let name = format!("run-{}", self.runs);
        self.run = Some(self.world.start(&name, &["run", "zoo.yml"]));
    }

    /// Waits until everything that tries to escape is out.
    ///
    /// # Panics
    /// When something never comes.
    pub fn wait_until_out(&self) {
        for &escape in &self.escapes {
            let what = format!("{escape} is out");
            let out = |_: &World| self.ledger.is_out(escape).then_some(());
            self.world.eventually(&what, out);
        }
        for filler in &self.fillers {
            let out = |_: &World| filler.is_out(Escape::Background).then_some(());
            self.world.eventually("a filler is out", out);
        }
    }

    /// The product's processes.
    pub fn owners(&self) -> Owners {
        Owners::of(&self.world, BATCH)
    }

    /// Runs a `supervisor` command.
    pub fn supervisor(&self, arguments: &[&str]) -> Ran {
        self.world.supervisor(arguments)
    }

    /// Waits until `supervisor run` has ended; `None`: by a signal.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait_for_run(&mut self) -> Option<i32> {
        let run = self.run.take().expect("a run was started");
        run.end(&self.world)
    }

    /// Lets the batch come to its end, with as many lives of the supervisor as it takes.
    ///
    /// # Panics
    /// When it does not end, or ends neither done nor failed.
    pub fn finish(&mut self) -> i32 {
        /// One for the killed one, one that resumes, and one in reserve.
        const LIVES_MAX: usize = 3;
        for _ in 0..LIVES_MAX {
            match self.wait_for_run() {
                Some(code @ (0 | 1)) => return code,
                // Killed; or its guardian was.
                None | Some(5) => self.run(),
                Some(code) => panic!("run ended with {code}: {}", self.said()),
            }
        }
        panic!(
            "the batch is not over after {LIVES_MAX} lives: {}",
            self.said()
        );
    }

    /// Everything that the supervisors of the batch printed.
    pub fn said(&self) -> String {
        let files = (1..=self.runs).flat_map(|run| [(run, "out"), (run, "err")]);
        let texts = files.map(|(run, end)| {
            let path = self.world.path(format!("run-{run}.{end}"));
            fs::read_to_string(path).unwrap_or_default()
        });
        texts.collect()
    }

    /// Strangers that are no longer alive.
    pub fn lost_strangers(&self) -> Vec<Life> {
        let other = self.other.iter().copied();
        let mut lost: Vec<Life> = other.filter(|life| !life.is_alive()).collect();
        lost.extend(self.bystanders.lost());
        lost
    }

    /// Processes of this world that are neither in the ledger nor strangers: an owner that was left
    /// behind, most likely that of the nested supervisor.
    pub fn unwritten(&self) -> Vec<(Life, String)> {
        let known: BTreeSet<Life> = self.ledger.lines().iter().map(|line| line.life).collect();
        let batch = self.world.path("ledger").display().to_string();
        let found = self.world.processes().into_iter();
        found
            .filter(|(_, command)| command.contains(&batch) || command.contains("zoo.yml"))
            .filter_map(|(pid, command)| Some((Life::of(pid.as_raw())?, command)))
            .filter(|(life, _)| !known.contains(life))
            .collect()
    }

    /// The tasks of which the product recorded that something lives or can not be excluded.
    pub fn residuals(&self) -> BTreeSet<String> {
        let journal = self.world.journal();
        let bodies = journal.iter().filter_map(|line| line["record"].as_object());
        let mut tasks: Vec<String> = Vec::new();
        let mut task_of: BTreeMap<u64, usize> = BTreeMap::new();
        let mut found = BTreeSet::new();
        for (name, body) in bodies.flatten() {
            if name == "plan_extended" {
                let planned = body["tasks"].as_array().into_iter().flatten();
                tasks.extend(planned.filter_map(|task| task["id"].as_str().map(str::to_owned)));
            }
            let run = body["generation"].as_u64();
            let task = body["task"].as_u64();
            if let (Some(run), Some(task)) = (run, task) {
                let task = usize::try_from(task).expect("tasks are counted in memory");
                task_of.insert(run, task);
            }
            let cleared = body["cleared"].as_object();
            let open = cleared.is_some_and(|cleared| !cleared.contains_key("clean"));
            if let Some(run) = run.filter(|_| open) {
                let task = task_of.get(&run).and_then(|task| tasks.get(*task));
                found.insert(task.expect("a run has a task").clone());
            }
        }
        found
    }
}

/// Whether a text says that something may be left.
pub fn speaks_of_residual(text: &str) -> bool {
    ["residual", "cannot be excluded", "can not be excluded"]
        .iter()
        .any(|words| text.contains(words))
}

impl Drop for Stage {
    /// Nothing hostile outlives its story, whatever became of it.
    fn drop(&mut self) {
        for ledger in self.fillers.iter().chain([&self.ledger]) {
            ledger.lines().iter().for_each(|line| line.life.end());
        }
        // Chains end by themselves once they can not write any more.
        drop(fs::remove_dir_all(self.ledger.path("beat")));
        if let Some(other) = self.other_run.take() {
            other.kill();
        }
        if let Ok(cgroup) = fs::read_to_string(self.ledger.path("cgroup")) {
            let gone = |_: &World| fs::remove_dir(&cgroup).is_ok().then_some(());
            if !std::thread::panicking() {
                self.world.eventually("the control group is empty", gone);
            }
        }
    }
}

fn batch_file(play: &Play, ledger: &Ledger, fillers: &[Ledger]) -> String {
    let then = match play.then {
        Then::Leaves => "leaves",
        Then::Stays => "stays",
    };
    let mut text = format!(
        "version: 1\nname: {BATCH}\nisolation: none\nconcurrency: {}\n\
         defaults:\n  attempts: 2\n  timeout: {}s\n  retry: {{backoff: 1s..1s}}\ntasks:\n",
        play.escapes.len() + fillers.len(),
        play.timeout.as_secs(),
    );
    let mut task = |id: &str, escape: Escape, ledger: &Ledger| {
        let program = play.program.display().to_string();
        let folder = ledger.path("").display().to_string();
        let words = [&program, "play", escape.word(), &folder, then];
        let words = words.map(|word| format!("{word:?}")).join(", ");
        text.push_str(&format!("  - id: {id}\n    run: [{words}]\n"));
    };
    for &escape in &play.escapes {
        task(escape.word(), escape, ledger);
    }
    for (number, filler) in fillers.iter().enumerate() {
        task(&format!("filler-{number}"), Escape::Background, filler);
    }
    text
}

/// Another batch of the same user, in the same repository, with an agent of the same program.
fn start_other(world: &World, program: &Path) -> Started {
    let words = [program, "bystander".as_ref(), &world.path("home")]
        .map(|word| format!("{:?}", word.display().to_string()));
    let text = format!(
        "version: 1\nname: {OTHER}\nisolation: none\ntasks:\n  - id: stranger\n    run: [{}]\n",
        words.join(", ")
    );
    world.write("other.yml", &text);
    world.start("other", &["run", "other.yml"])
}

/// Everything of the other batch, once all of it is there.
fn other_lives(world: &World) -> Vec<Life> {
    world.eventually("the other batch runs", |world| {
        let owners = Owners::of(world, OTHER);
        let host = *owners.hosts.first()?;
        let parents = super::owners::parents();
        let agents = parents.iter().filter(|(_, parent)| **parent == host.pid);
        let agents: Vec<Life> = agents.filter_map(|(pid, _)| Life::of(*pid)).collect();
        let mut lives = owners.all();
        (!agents.is_empty()).then(|| {
            lives.extend(agents);
            lives
        })
    })
}
