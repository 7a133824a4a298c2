//! What is known of live runs but is not worth a record: lost with the supervisor, like the runs.
//!
//! Signs of life come by the thousand; a record for each would buy nothing, because after a crash
//! every run is over anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use protocol::command::Pong;
use protocol::ids::Generation;
use protocol::report::{Context, Usage};

use crate::input::WireFault;
use crate::time::Boot;

/// Longest wait for the hello: a host needs milliseconds, a loaded machine seconds.
pub const HELLO_MAX: Duration = Duration::from_secs(10);
/// Time between two pings of one host: the protocol's longest time between heartbeats.
pub const PING_EVERY: Duration = Duration::from_secs(15);
/// Longest silence of a host itself: no answer to four pings, and nothing else. Then it hangs,
/// whatever its agent does. Half of the time after which a host ends by itself because it hears
/// nothing: the supervisor, which can say why, comes first.
pub const LEASE: Duration = Duration::from_secs(60);
/// Shortest time between two pings of one host, for runs whose limit of silence is very short.
pub const PING_EVERY_MIN: Duration = Duration::from_secs(1);
/// CPU time that is a sign of life: one clock tick of most kernels. Less is what a sleeping program's
/// timers use, and what two kernel counters may differ by when they are read one after the other.
pub const CPU_ALIVE_MS: u64 = 10;
/// Longest time from a run's result to the end of its host.
pub const LINGER_MAX: Duration = Duration::from_secs(15);
/// Time between two kills of a host that does not go (it hangs in the kernel).
pub const KILL_AGAIN: Duration = Duration::from_secs(30);
/// Blank lines, garbage and stale reports of one run until its wire counts as broken.
pub const WIRE_FAULTS_MAX: u32 = 100;

/// Questions that one run may ask, answered or not: more than a person answers in a day. Each is a
/// record, so a run that asks without end would fill the journal; further ones are refused and count
/// as faults of its wire.
pub const QUESTIONS_MAX: u32 = 200;

/// Messages that one run may send to other tasks: the limit that its host keeps, too. Each is a
/// record, and two agents that answer each other must come to an end.
pub const SENDS_MAX: u32 = protocol::bridge::SENDS_MAX;

/// Time between two pings of a host whose run may be silent for this long: at least two answers
/// come in that time, so that what works without a word is noticed.
pub(crate) fn ping_every(silence: Duration) -> Duration {
    (silence / 3).clamp(PING_EVERY_MIN, PING_EVERY)
}

/// How far the stdin gate of a run is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    /// No hello yet.
    Closed,
    /// The hello went well.
    Greeted,
    /// `start` was sent.
    Open,
}

/// Deadlines of a live run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LiveTimer {
    /// The hello is overdue.
    Hello,
    /// Time for a ping.
    Ping,
    /// Time to look at the signs of life.
    Silence,
    /// Time to look for something new.
    Progress,
    /// Time to look whether the host itself answers.
    Lease,
    /// The wall limit of an agent that is not the task's own.
    Wall,
    /// The result is in, the host should be gone.
    Linger,
    /// It was killed and should be gone.
    Kill,
}

const KINDS: usize = 8;

/// Signs of life and of progress of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// How far its gate is open.
    pub gate: Gate,
    /// Host spawned at.
    pub spawned: Boot,
    /// Last sign of life of the host: any frame.
    pub heard: Boot,
    /// Last sign of life of the agent's process family.
    pub alive: Boot,
    /// Last something new.
    pub progressed: Boot,
    /// What it does now, for people; an excerpt.
    pub activity: Arc<str>,
    /// Last signs in a pong.
    pub pong: Pong,
    /// The family's CPU time when it last counted as a sign of life, milliseconds.
    pub cpu_counted_ms: u64,
    /// Use so far.
    pub usage: Usage,
    /// When its use was last recorded.
    pub usage_noted: Option<Boot>,
    /// How full its context is.
    pub context: Option<Context>,
    /// Blank lines, garbage and stale reports so far.
    pub wire_faults: u32,
    /// Questions so far.
    pub asked: u32,
    /// Messages to other tasks so far.
    pub sent: u32,
    /// The fault that broke the wire, if one did.
    pub broken: Option<WireFault>,
    /// Why it could not begin, if so.
    pub refused: Option<(protocol::class::Class, Arc<str>)>,
    armed: [Option<Boot>; KINDS],
}

impl Live {
    /// A run whose host was started at this moment.
    pub fn begun(now: Boot) -> Live {
        Live {
            gate: Gate::Closed,
            spawned: now,
            heard: now,
            alive: now,
            progressed: now,
            activity: "starting".into(),
            pong: Pong::default(),
            cpu_counted_ms: 0,
            usage: Usage::default(),
            usage_noted: None,
            context: None,
            wire_faults: 0,
            asked: 0,
            sent: 0,
            broken: None,
            refused: None,
            armed: [None; KINDS],
        }
    }

    /// Its armed deadlines.
    pub fn armed(&self) -> impl Iterator<Item = (LiveTimer, Boot)> + '_ {
        let armed = ALL_KINDS.iter().zip(self.armed);
        armed.filter_map(|(kind, at)| Some((*kind, at?)))
    }

    /// The same run with these deadlines armed, and no others.
    #[must_use]
    pub fn with_armed(mut self, deadlines: impl IntoIterator<Item = (LiveTimer, Boot)>) -> Live {
        self.armed = [None; KINDS];
        for (kind, at) in deadlines {
            self.armed[kind as usize] = Some(at);
        }
        self
    }
}

/// Every live run, with one table of their deadlines.
#[derive(Debug, Clone, Default)]
pub struct LiveRuns {
    runs: BTreeMap<Generation, Live>,
    timers: BTreeSet<(Boot, Generation, LiveTimer)>,
    /// The supervisor of a closed batch was told to end: no clean-up goes on.
    held: bool,
    /// This supervisor is here for clean-ups alone.
    confined: bool,
}

impl LiveRuns {
    /// What is known of one run.
    pub fn get(&self, generation: Generation) -> Option<&Live> {
        self.runs.get(&generation)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (Generation, &Live)> {
        self.runs
            .iter()
            .map(|(generation, live)| (*generation, live))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// No clean-up of a closed batch goes on in this life of the supervisor.
    pub(crate) fn hold(&mut self) {
        self.held = true;
    }

    /// Whether that was said.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Nothing but clean-ups goes on in this life of the supervisor.
    pub(crate) fn confine(&mut self, confined: bool) {
        self.confined = confined;
    }

    /// Whether that was said.
    pub(crate) fn is_confined(&self) -> bool {
        self.confined
    }

    pub(crate) fn get_mut(&mut self, generation: Generation) -> Option<&mut Live> {
        self.runs.get_mut(&generation)
    }

    pub(crate) fn insert(&mut self, generation: Generation, now: Boot) {
        self.take_over(generation, Live::begun(now));
    }

    /// Takes in what another core knew of a run, its armed deadlines included.
    pub(crate) fn take_over(&mut self, generation: Generation, live: Live) {
        self.remove(generation);
        let armed = live.armed().map(|(kind, at)| (at, generation, kind));
        self.timers.extend(armed);
        self.runs.insert(generation, live);
    }

    pub(crate) fn remove(&mut self, generation: Generation) -> Option<Live> {
        let live = self.runs.remove(&generation)?;
        for kind in ALL_KINDS {
            if let Some(at) = live.armed[kind as usize] {
                self.timers.remove(&(at, generation, kind));
            }
        }
        Some(live)
    }

    pub(crate) fn arm(&mut self, generation: Generation, kind: LiveTimer, at: Option<Boot>) {
        let Some(live) = self.runs.get_mut(&generation) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut live.armed[kind as usize], at) {
            self.timers.remove(&(before, generation, kind));
        }
        if let Some(at) = at {
            self.timers.insert((at, generation, kind));
        }
    }

    pub(crate) fn pop_due(&mut self, now: Boot) -> Option<(Generation, LiveTimer)> {
        let &(at, generation, kind) = self.timers.first()?;
        if at > now {
            return None;
        }
        self.arm(generation, kind, None);
        Some((generation, kind))
    }

    pub(crate) fn next(&self) -> Option<Boot> {
        self.timers.first().map(|(at, _, _)| *at)
    }

    /// The supervisor was away: nothing that was not heard in that time counts as silence.
    pub(crate) fn shift(&mut self, gap: Duration) {
        self.timers = self
            .timers
            .iter()
            .map(|(at, run, kind)| (*at + gap, *run, *kind))
            .collect();
        for live in self.runs.values_mut() {
            for at in live.armed.iter_mut().flatten() {
                *at = *at + gap;
            }
            for at in [&mut live.heard, &mut live.alive, &mut live.progressed] {
                *at = *at + gap;
            }
        }
    }
}

const ALL_KINDS: [LiveTimer; KINDS] = [
    LiveTimer::Hello,
    LiveTimer::Ping,
    LiveTimer::Silence,
    LiveTimer::Progress,
    LiveTimer::Lease,
    LiveTimer::Wall,
    LiveTimer::Linger,
    LiveTimer::Kill,
];
