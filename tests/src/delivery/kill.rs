//! The story of the killed delivery: batches of twenty tasks, kill -9 of whoever carries them, aimed at
//! git work of every kind, and what must hold of the repository afterwards.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::moments::{Doing, Follower};
use super::untouched::Side;
use super::{batch, history, repository};
use crate::clock::{Deadline, pause};
use crate::random::Random;
use crate::world::{Started, World};

/// Name of the batch.
const NAME: &str = "delivery";
/// Between two looks at the journal.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// Longest wait for the kind of work that a kill is aimed at.
const AIM_MAX: Duration = Duration::from_secs(4);
/// Longest time until a kill that is aimed at nothing.
const BLIND_MAX_MS: u64 = 1_200;
/// A last life that is not over after this: the batch hangs.
const HANG: Duration = Duration::from_secs(300);
/// Runs that a life for progress gets done.
const PROGRESS: usize = 4;
/// Exit status of a guardian whose supervisor died too often.
const GIVEN_UP: i32 = 71;

/// Lines of a story that are shown where it went wrong.
const STORY_LINES: usize = 80;

/// What is to be played.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    /// Kills; as many batches are played as it takes.
    pub kills: usize,
    /// Live attempts at most.
    pub concurrency: usize,
    /// What makes the moments repeatable, as far as a real machine allows.
    pub seed: u64,
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Victims {
    /// The supervisor: one without a guardian, or the one below its guardian.
    Supervisor,
    /// Guardian and supervisor at once.
    Both,
    /// The guardian alone.
    Guardian,
    /// Every host of the batch; its supervisor goes on.
    Hosts,
    /// Every process of the batch, agents included, as when the power fails.
    All,
}

/// What was done and found.
#[derive(Debug, Default)]
pub struct Evidence {
    batches: usize,
    victims: BTreeMap<Victims, usize>,
    hits: BTreeMap<Doing, usize>,
    idle: usize,
    wrong: Vec<String>,
}

impl Evidence {
    /// No rule was broken.
    pub fn is_clean(&self) -> bool {
        self.wrong.is_empty()
    }

    /// How many kills fell while work of this kind was under way.
    pub fn hits(&self, doing: Doing) -> usize {
        self.hits.get(&doing).copied().unwrap_or_default()
    }

    fn kills(&self) -> usize {
        self.victims.values().sum()
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kills, batches) = (self.kills(), self.batches);
        writeln!(
            f,
            "{kills} kills in {batches} batches of {} tasks",
            batch::TASKS.len()
        )?;
        for (victims, count) in &self.victims {
            writeln!(f, "  killed {victims:?}: {count}")?;
        }
        for (doing, count) in &self.hits {
            writeln!(f, "  during {doing:?}: {count}")?;
        }
        writeln!(f, "  while no run was under way: {}", self.idle)?;
        for wrong in &self.wrong {
            writeln!(f, "BROKEN: {wrong}")?;
        }
        Ok(())
    }
}

/// Plays batches until there were enough kills, each to its end, and judges each.
///
/// # Panics
/// When the machine itself fails (no process, no file).
pub fn play(script: &Script) -> Evidence {
    let mut evidence = Evidence::default();
    let mut random = Random::new(script.seed);
    let undisturbed = Stage::new(script.concurrency);
    let ran = undisturbed.world.supervisor(&["run", "delivery.yml"]);
    if ran.code != Some(0) {
        evidence
            .wrong
            .push(format!("undisturbed: exit {:?}: {}", ran.code, ran.stderr));
        return evidence;
    }
    let tree = undisturbed.judge(None, &mut evidence.wrong);
    drop(undisturbed);
    while evidence.is_clean() && evidence.kills() < script.kills {
        let stage = Stage::new(script.concurrency);
        evidence.batches += 1;
        let before = evidence.kills();
        stage.live_and_die(script, &mut random, &mut evidence);
        if evidence.is_clean() {
            stage.judge(Some(&tree), &mut evidence.wrong);
        }
        if evidence.kills() == before && evidence.is_clean() {
            evidence
                .wrong
                .push("a batch was over before one kill".to_owned());
        }
    }
    evidence
}

/// One batch and its repository.
struct Stage {
    world: World,
    base: String,
    before: Side,
}

/// When to kill.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// While this is under way, and so long after it was seen.
    Aimed(Doing, Duration),
    /// After this.
    Blind(Duration),
    /// When some more runs are finished: what is lost again and again without any progress is put aside
    /// for the operator, and is to be.
    Progress,
    /// Not at all.
    End,
}

impl Moment {
    fn draw(random: &mut Random) -> Self {
        let aims = u64::try_from(Doing::AIMS.len()).expect("a few");
        let drawn = random.below(aims + 4);
        let aim = usize::try_from(drawn).expect("a few");
        match Doing::AIMS.get(aim) {
            Some(aim) => Self::Aimed(*aim, Duration::from_micros(random.below(30_000))),
            None if drawn < aims + 2 => {
                Self::Blind(Duration::from_millis(random.below(BLIND_MAX_MS)))
            }
            None => Self::Progress,
        }
    }
}

/// How a life is over.
#[derive(Debug, PartialEq, Eq)]
enum Over {
    /// It was killed.
    Killed,
    /// Nobody was to be killed any more, and it did not end.
    Hung,
    /// It ended by itself, with this status.
    Ended(Option<i32>),
}

impl Stage {
    fn new(concurrency: usize) -> Self {
        let world = World::new();
        repository::build(&world, &batch::needs());
        let text = batch::file(batch::Rules {
            name: NAME,
            concurrency,
            keep: "failed",
        });
        world.write("delivery.yml", &text);
        let base = world.git(&["rev-parse", "HEAD"]).trim_end().to_owned();
        let before = Side::of(&world.repo());
        Self {
            world,
            base,
            before,
        }
    }

    /// Runs and kills until the batch is done.
    fn live_and_die(&self, script: &Script, random: &mut Random, evidence: &mut Evidence) {
        let mut follower = Follower::default();
        let mut bare = false;
        loop {
            let mut run = self.start(bare);
            let over = self.life(&mut run, bare, script, (random, &mut follower), evidence);
            let code = match over {
                Over::Hung => {
                    evidence.wrong.push(format!("not over after {HANG:?}"));
                    return;
                }
                Over::Killed => {
                    bare = random.below(2) == 0 && self.holder().is_none_or(is_gone);
                    continue;
                }
                Over::Ended(Some(GIVEN_UP)) => continue,
                Over::Ended(code) => code,
            };
            let state = self.world.status()["batch"]["state"].clone();
            // A supervisor whose guardian was killed may finish before the next `run`.
            if matches!(code, Some(0 | 8)) && state == "done" {
                return;
            }
            let said = self.world.printed("run");
            let text = format!(
                "after {} kills `run` ended with {code:?}, the batch is {state}: {said}",
                evidence.kills()
            );
            evidence.wrong.push(text);
            let story = super::explained(&self.world, batch::TASKS[0].id);
            let lines: Vec<&str> = story.lines().collect();
            let tail = lines.len().saturating_sub(STORY_LINES);
            let tail = lines[tail..].join("\n");
            evidence
                .wrong
                .push(format!("the end of its story:\n{tail}"));
            return;
        }
    }

    fn start(&self, bare: bool) -> Started {
        let args: &[&str] = match bare {
            true => &["run", "--no-guardian", "delivery.yml"],
            false => &["run", "delivery.yml"],
        };
        self.world.start_apart("run", args)
    }

    /// One `run`, until it is killed or ends.
    fn life(
        &self,
        run: &mut Started,
        bare: bool,
        script: &Script,
        (random, follower): (&mut Random, &mut Follower),
        evidence: &mut Evidence,
    ) -> Over {
        loop {
            let kills = evidence.kills() < script.kills;
            if !self.wait(run, random, follower, kills) {
                let status = run.ended().expect("it has ended");
                return Over::Ended(status.code());
            }
            if !kills {
                return Over::Hung;
            }
            follower.look(&self.world);
            let doing = follower.doing();
            let victims = draw(bare, random);
            self.kill(victims, run, bare);
            *evidence.victims.entry(victims).or_default() += 1;
            evidence.idle += usize::from(doing.is_empty());
            for doing in doing {
                *evidence.hits.entry(doing).or_default() += 1;
            }
            let goes_on = match victims {
                Victims::Hosts => true,
                Victims::Supervisor => !bare,
                Victims::Both | Victims::Guardian | Victims::All => false,
            };
            if !goes_on {
                return Over::Killed;
            }
        }
    }

    /// Waits for the moment of a kill, or to the end where there is none to come; false: it ended.
    fn wait(
        &self,
        run: &mut Started,
        random: &mut Random,
        follower: &mut Follower,
        kills: bool,
    ) -> bool {
        let moment = match kills {
            true => Moment::draw(random),
            false => Moment::End,
        };
        follower.look(&self.world);
        let before = follower.finished();
        let limit = Deadline::after(match moment {
            Moment::Aimed(..) => AIM_MAX,
            Moment::Blind(after) => after,
            Moment::Progress | Moment::End => HANG,
        });
        loop {
            if run.ended().is_some() {
                return false;
            }
            if limit.is_over() {
                return true;
            }
            match moment {
                Moment::Aimed(aim, after) => {
                    follower.look(&self.world);
                    if follower.is(aim) {
                        pause(after);
                        return run.ended().is_none();
                    }
                }
                Moment::Progress => {
                    follower.look(&self.world);
                    if follower.finished() >= before + PROGRESS {
                        return true;
                    }
                }
                Moment::Blind(_) | Moment::End => {}
            }
            pause(LOOK_EVERY);
        }
    }

    fn kill(&self, victims: Victims, run: &mut Started, bare: bool) {
        match victims {
            Victims::Supervisor if bare => run.signal(Signal::SIGKILL),
            Victims::Supervisor => {
                if let Some(pid) = self.holder() {
                    self.end(pid);
                }
            }
            Victims::Guardian => run.signal(Signal::SIGKILL),
            Victims::Both => {
                let holder = self.holder();
                run.signal_group(Signal::SIGKILL);
                if let Some(pid) = holder {
                    self.end(pid);
                }
            }
            Victims::Hosts => {
                for (pid, command) in self.world.processes() {
                    if command
                        .split(' ')
                        .next()
                        .is_some_and(|it| it.ends_with("agent-host"))
                    {
                        // It may have ended by itself meanwhile.
                        let _ended = kill(pid, Signal::SIGKILL);
                    }
                }
            }
            Victims::All => {
                let deadline = Deadline::after(AIM_MAX);
                while !deadline.is_over() {
                    let all = self.world.processes();
                    if all.is_empty() {
                        break;
                    }
                    for (pid, _) in all {
                        // It may have ended by itself meanwhile.
                        let _ended = kill(pid, Signal::SIGKILL);
                    }
                }
            }
        }
        let goes = !matches!(
            (victims, bare),
            (Victims::Hosts, _) | (Victims::Supervisor, false)
        );
        if goes {
            self.world
                .eventually("what was killed has ended", |_| run.ended());
        }
    }

    /// Who wrote itself into the lock of the batch last.
    fn holder(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.world.batch_dir()?.join("lock")).ok()?;
        let holder: serde_json::Value = serde_json::from_str(&text).ok()?;
        let pid = i32::try_from(holder.get("pid")?.as_i64()?).ok()?;
        Some(Pid::from_raw(pid))
    }

    fn end(&self, pid: Pid) {
        if is_gone(pid) {
            return;
        }
        // It may have ended by itself meanwhile.
        let _ended = kill(pid, Signal::SIGKILL);
        self.world
            .eventually("the supervisor is gone", |_| is_gone(pid).then_some(()));
    }

    /// What must hold when the batch is done; gives the final tree.
    fn judge(&self, tree: Option<&str>, wrong: &mut Vec<String>) -> String {
        let world = &self.world;
        world.assert_nothing_left();
        let branch = super::batch_branch(world);
        wrong.extend(self.before.differences(&Side::of(&world.repo())));
        wrong.extend(history::is_whole(world, &self.base, &branch));
        wrong.extend(history::is_sound(world));
        wrong.extend(history::strays(world));
        wrong.extend(history::proven_again(world, &self.base, &branch));
        let left: Vec<String> = history::worktrees(world)
            .into_iter()
            .filter(|folder| folder.contains("/tasks/"))
            .collect();
        if !left.is_empty() {
            wrong.push(format!("merged, and not removed: {left:?}"));
        }
        let own = history::tree(world, &branch);
        if let Some(tree) = tree.filter(|tree| **tree != own) {
            let args = ["diff", "--stat", tree, &own];
            let diff = world.shell(&format!("git {}", args.join(" "))).stdout;
            wrong.push(format!("the final tree is {own} and not {tree}: {diff}"));
        }
        if !wrong.is_empty() {
            wrong.push(format!(
                "git log:\n{}",
                world.git(&["log", "--oneline", "--graph", &branch, "-40"])
            ));
        }
        own
    }
}

fn draw(bare: bool, random: &mut Random) -> Victims {
    match (bare, random.below(6)) {
        (_, 0) => Victims::Hosts,
        (_, 1) => Victims::All,
        (true, _) => Victims::Supervisor,
        (false, 2) => Victims::Guardian,
        (false, 3) => Victims::Supervisor,
        (false, _) => Victims::Both,
    }
}

/// Whether a process that was killed has let everything go; nobody may have collected it yet.
fn is_gone(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}
