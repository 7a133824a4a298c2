//! Which faults a story knows, and how often: drawn from the seed, each family off in half of the
//! seeds, because a rare fault is found best where the others do not drown it.

use super::rng::Rng;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $word:literal),+ $(,)?) => {
        /// One kind of misfortune.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Fault {
            $($(#[$doc])* $name,)+
        }
        impl Fault {
            /// Every fault.
            pub(super) const ALL: &'static [Fault] = &[$(Fault::$name),+];
            /// Its name in counters and stories.
            pub(super) const fn word(self) -> &'static str {
                match self { $(Fault::$name => $word,)+ }
            }
        }
    };
}

faults! {
    /// The supervisor is killed between two inputs.
    KilledIdle = "killed_idle",
    /// The supervisor is killed between two effects.
    KilledInEffects = "killed_in_effects",
    /// The supervisor is killed in a call to the disk.
    KilledInDisk = "killed_in_disk",
    /// The supervisor is killed in a call to the disk while it starts.
    KilledInStart = "killed_in_start",
    /// The power goes.
    PowerCut = "power_cut",
    /// The machine sleeps.
    Suspended = "suspended",
    /// The date is put forward.
    WallForward = "wall_forward",
    /// The date is put back.
    WallBack = "wall_back",
    /// The disk takes seconds.
    SlowDisk = "slow_disk",
    /// The disk has no room for a while.
    DiskFull = "disk_full",
    /// A sync fails.
    SyncFailed = "sync_failed",
    /// A timer fires late.
    LateTick = "late_tick",
    /// A host can not be spawned.
    SpawnFailed = "spawn_failed",
    /// `start` can not be made.
    StartFailed = "start_failed",
    /// The hello is refused.
    HelloRefused = "hello_refused",
    /// A host says nothing at all.
    NoHello = "no_hello",
    /// A host ends before its hello.
    EndsBeforeHello = "ends_before_hello",
    /// The end of a host is told before its spawn.
    EndsBeforeSpawnAnswer = "ends_before_spawn_answer",
    /// A host talks before it was started.
    TalksAtTheGate = "talks_at_the_gate",
    /// A host reports for an earlier generation.
    OldGeneration = "old_generation",
    /// A host reports another result after the first.
    SecondResult = "second_result",
    /// A host's result comes after it was told to stop.
    ResultAfterStop = "result_after_stop",
    /// A report comes after the host's end.
    WordAfterEnd = "word_after_end",
    /// A host ends well without a result.
    EndsWithoutResult = "ends_without_result",
    /// A host dies by a signal.
    Crashes = "crashes",
    /// A host is killed from outside.
    KilledHost = "killed_host",
    /// A host dies with a durable result and without a report.
    DiesBeforeReport = "dies_before_report",
    /// A host goes silent.
    Silent = "silent",
    /// A host answers nothing any more.
    Hangs = "hangs",
    /// A host is killed for want of memory.
    OomKilled = "oom_killed",
    /// A host lives and does nothing new.
    Stands = "stands",
    /// A host works for ever.
    NeverEnds = "never_ends",
    /// A host does not end after its result.
    Lingers = "lingers",
    /// A host ignores stop.
    IgnoresStop = "ignores_stop",
    /// Lines that are not the protocol.
    Garbage = "garbage",
    /// Blank lines.
    Blank = "blank",
    /// A line over the limit.
    TooLong = "too_long",
    /// A message is said to be seen that was not injected.
    SeenUnread = "seen_unread",
    /// A message is not taken.
    MessageIgnored = "message_ignored",
    /// A host of an earlier term still lives at recovery.
    StillLiving = "still_living",
    /// A host of an earlier term belongs to another machine.
    Foreign = "foreign",
    /// A result can not be read.
    Unreadable = "unreadable",
    /// A host writes its result after its supervisor died.
    ResultAfterDeath = "result_after_death",
    /// A host dies in the middle of what it does in a repository.
    HalfDone = "half_done",
    /// A host did what it was asked to, and nobody hears of it.
    DoneUnheard = "done_unheard",
    /// A host did what it was asked to, and says that it failed.
    DoneSaidFailed = "done_said_failed",
    /// A host says that it did its git work, and not what.
    NothingSaid = "nothing_said",
    /// Somebody else puts a commit on the batch branch.
    BranchMoved = "branch_moved",
}

/// How much longer a storm with limited accounts lasts, ms.
const ACCOUNT_STORM: u64 = 900_000;

/// What a story knows of faults; rates are per mille unless said otherwise.
#[derive(Debug, Clone)]
pub(super) struct Swarm {
    /// Mean time between two deaths of the supervisor, ms; 0: none.
    pub(super) kill_every: u64,
    /// Power cuts among these deaths.
    pub(super) power: u64,
    /// Mean time between two changes of the clocks, ms; 0: none.
    pub(super) clock_every: u64,
    /// Mean time between two misfortunes of the disk, ms; 0: none.
    pub(super) disk_every: u64,
    /// Slow commits.
    pub(super) slow_disk: u64,
    /// Late ticks.
    pub(super) late: u64,
    /// Spawns and hellos that go wrong.
    pub(super) spawn: u64,
    /// Runs that fail, hang or vanish.
    pub(super) bad_runs: u64,
    /// Bad ends that are the account's.
    pub(super) accounts: u64,
    /// Runs that lie.
    pub(super) lies: u64,
    /// Facts after a crash that can not be judged.
    pub(super) facts: u64,
    /// Mean time between two messages or answers of the operator, ms; 0: none.
    pub(super) steer_every: u64,
    /// Mean time between two other commands of the operator, ms; 0: none.
    pub(super) command_every: u64,
    /// Mean time between two edits of the batch file, ms; 0: none.
    pub(super) revise_every: u64,
    /// Whether these commands may stop or pause the whole batch.
    pub(super) stops: bool,
    /// Repositories of the plan; 0: no task has a worktree.
    pub(super) repos: usize,
    /// Merges that conflict.
    pub(super) conflicts: u64,
    /// Pieces of work that break the proof of a merge.
    pub(super) breaks: u64,
    /// Length of the first phase, in which all this happens, ms.
    pub(super) storm: u64,
    /// Mean length of a host's step, ms.
    pub(super) pace: u64,
}

impl Swarm {
    /// The swarm of a seed.
    pub(super) fn draw(rng: &mut Rng) -> Swarm {
        let pace = rng.pick(&[50, 500, 5_000, 30_000]);
        let accounts = if rng.chance(500) {
            rng.range(1, 900)
        } else {
            0
        };
        // An account waits a minute before it is tried again: the storm must outlast that.
        let storm = pace * rng.range(40, 400) + if accounts > 0 { ACCOUNT_STORM } else { 0 };
        let mut every = |parts: (u64, u64)| {
            let length = (storm / rng.range(parts.0, parts.1)).max(10);
            if rng.chance(500) { length } else { 0 }
        };
        let kill_every = every((2, 12));
        let clock_every = every((2, 8));
        let disk_every = every((2, 8));
        let steer_every = every((3, 30));
        let command_every = every((3, 30));
        let revise_every = every((2, 20));
        let mut rate = |most: u64| {
            if rng.chance(500) {
                rng.range(1, most)
            } else {
                0
            }
        };
        Swarm {
            kill_every,
            power: rate(1000),
            clock_every,
            disk_every,
            slow_disk: rate(500),
            late: rate(500),
            spawn: rate(300),
            bad_runs: rate(700),
            accounts,
            lies: rate(500),
            facts: rate(400),
            steer_every,
            command_every,
            revise_every,
            stops: rate(1) > 0,
            conflicts: rate(500),
            breaks: rate(250),
            repos: if rng.chance(320) { rng.index(3) + 1 } else { 0 },
            storm,
            pace,
        }
    }

    /// The second phase: nothing goes wrong any more.
    pub(super) fn calm(&mut self) {
        let (storm, pace) = (self.storm, self.pace.min(5_000));
        *self = Swarm {
            kill_every: 0,
            power: 0,
            clock_every: 0,
            disk_every: 0,
            slow_disk: 0,
            late: 0,
            spawn: 0,
            bad_runs: 0,
            accounts: 0,
            lies: 0,
            facts: 0,
            steer_every: 0,
            command_every: 0,
            revise_every: 0,
            stops: false,
            conflicts: 0,
            breaks: 0,
            repos: self.repos,
            storm,
            pace,
        };
    }
}
