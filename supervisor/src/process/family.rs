//! Everything that lives of given runs, each process pinned and with what proves it: by identity, by
//! tags, by session, by cgroup, and what descends from any of those.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::Signal;
use supervisor_core::containment::Layer;

use crate::process::cgroup::Leaf;
use crate::process::identity::Machine;
use crate::process::pidfd;
use crate::process::scan::{self, Look, Traces};
use crate::process::stat::{self, Stat};
use crate::process::tree::RecordedRun;

/// Most processes of all these runs; the hunt that follows a kill meets the rest.
const MEMBERS_MAX: usize = 100_000;

/// What proves that a process is of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A layer of containment.
    Layer(Layer),
    /// Its parent, with this number, is proven.
    Descent(u32),
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(Layer::Registry) => f.write_str("recorded identity"),
            Self::Layer(Layer::EnvTag) => f.write_str("spawn token in its environment"),
            Self::Layer(Layer::LimitTag) => f.write_str("tag in its limit of file locks"),
            Self::Layer(Layer::Session) => f.write_str("in a session that the run made"),
            Self::Layer(Layer::Cgroup) => f.write_str("in the cgroup of the run"),
            Self::Layer(Layer::Subreaper | Layer::Pidns | Layer::HostEof) => {
                f.write_str("held by its host")
            }
            Self::Descent(parent) => write!(f, "descends from process {parent} of the run"),
        }
    }
}

/// A living process of a run.
#[derive(Debug)]
pub struct Member {
    /// Its number.
    pub pid: u32,
    /// Clock ticks since boot at its start.
    pub start_ticks: u64,
    /// Its pin.
    pub pidfd: OwnedFd,
    /// Its run: a place in the list that was looked for.
    pub run: usize,
    /// What proves it.
    pub proof: Proof,
}

impl Member {
    /// Asks it to end, also when it is stopped.
    ///
    /// # Errors
    /// When we may not.
    pub fn ask(&self) -> io::Result<()> {
        pidfd::signal(&self.pidfd, Signal::TERM)?;
        pidfd::signal(&self.pidfd, Signal::CONT)
    }

    /// Ends it by force.
    ///
    /// # Errors
    /// When we may not.
    pub fn force(&self) -> io::Result<()> {
        pidfd::kill(&self.pidfd)
    }
}

/// Looks for everything that lives of these runs: one pass over all processes.
///
/// # Errors
/// When the processes of this machine can not be listed.
pub fn members(machine: &Machine, runs: &[RecordedRun]) -> io::Result<Vec<Member>> {
    let traces = traces(runs);
    Ok(gather(scan::look(machine, &traces)?, runs))
}

/// What carries a tag at all.
#[derive(Debug)]
pub struct Tagged {
    /// What lives of the runs that were looked for.
    pub members: Vec<Member>,
    /// Carry a token of none of these runs: pid and token.
    pub unknown: Vec<(u32, u128)>,
}

/// As [`members`], and in the same pass what carries a token of none of these runs.
///
/// # Errors
/// As [`members`].
pub fn tagged(machine: &Machine, runs: &[RecordedRun]) -> io::Result<Tagged> {
    let mut look = scan::look_at_all(machine, &traces(runs))?;
    let unknown = std::mem::take(&mut look.unknown);
    let members = gather(look, runs);
    Ok(Tagged { members, unknown })
}

fn traces(runs: &[RecordedRun]) -> Traces {
    Traces::new(runs.iter().map(|run| run.trace.clone()).collect())
}

fn gather(look: Look, runs: &[RecordedRun]) -> Vec<Member> {
    let mut family = Family::default();
    for one in look.found {
        family.add(Member {
            pid: one.pid,
            start_ticks: one.start_ticks,
            pidfd: one.pidfd,
            run: one.run,
            proof: Proof::Layer(one.why),
        });
    }
    for (ix, run) in runs.iter().enumerate() {
        family.add_leaf(ix, run);
    }
    family.add_descendants();
    family.members
}

#[derive(Default)]
struct Family {
    members: Vec<Member>,
    seen: HashSet<u32>,
}

impl Family {
    fn add(&mut self, member: Member) {
        if self.members.len() < MEMBERS_MAX && self.seen.insert(member.pid) {
            self.members.push(member);
        }
    }

    fn add_leaf(&mut self, ix: usize, run: &RecordedRun) {
        let dir = run.containment.leaf.as_deref();
        let Some(leaf) = dir.and_then(|dir| Leaf::recorded(dir, run.trace.token)) else {
            return;
        };
        for pid in leaf.members() {
            let in_leaf = |_: &Stat| leaf.members().contains(&pid);
            if !self.seen.contains(&pid)
                && let Some((found, pidfd)) = pin(pid, in_leaf)
            {
                self.add(Member {
                    pid,
                    start_ticks: found.start_ticks,
                    pidfd,
                    run: ix,
                    proof: Proof::Layer(Layer::Cgroup),
                });
            }
        }
    }

    /// What a proven process started is as proven as itself, if it still is the parent: nobody but
    /// the kernel says who a child's parent is, and an orphan's is another one.
    fn add_descendants(&mut self) {
        let mut at = 0;
        while let Some(parent) = self.members.get(at) {
            let (number, run) = (parent.pid, parent.run);
            let children = stat::of(number).map(|it| stat::children(&it));
            for pid in children.unwrap_or_default() {
                if self.seen.contains(&pid) {
                    continue;
                }
                let Some((found, pidfd)) = pin(pid, |it| it.parent == number) else {
                    continue;
                };
                if pidfd::has_ended(&self.members[at].pidfd).unwrap_or(true) {
                    break; // its number may be another's by now
                }
                self.add(Member {
                    pid,
                    start_ticks: found.start_ticks,
                    pidfd,
                    run,
                    proof: Proof::Descent(number),
                });
            }
            at += 1;
        }
    }
}

/// Pins a process and judges it after: what is judged is what a signal reaches.
fn pin(pid: u32, judge: impl Fn(&Stat) -> bool) -> Option<(Stat, OwnedFd)> {
    let pidfd = pidfd::open(pid).ok()?;
    let found = stat::of(pid).filter(|it| !it.is_over && judge(it))?;
    let lives = !pidfd::has_ended(&pidfd).ok()?;
    lives.then_some((found, pidfd))
}
