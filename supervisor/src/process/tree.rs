//! The order in which the tree of a run is ended by the supervisor, once its host has ended.
//!
//! A host that ended by itself with status 0 has seen that it has no child left (`ECHILD`), and it is the
//! subreaper of its tree: that is the proof, and nothing more is looked at. So the usual end costs
//! nothing. After any other end, and where orphans do not come home:
//!
//! 1. the run's cgroup is killed until nothing is in it;
//! 2. the host's process group is killed while the host is not collected, then it is collected;
//! 3. what came home to us is killed until two looks find no child that is no host;
//! 4. one look at all processes by tags and sessions; what it finds is hunted to its end.
//!
//! Every step has a bound; what is left after it is told, never called clean.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use supervisor_core::containment::{Cleared, Containment, Layer, Layers};
use supervisor_core::identity::{Exit, Identity};

use crate::process::cgroup::{Leaf, remove_leftovers};
use crate::process::identity::Machine;
use crate::process::orphans::{self, CLEAN_PASSES, Swept};
use crate::process::scan::{self, Trace, Traces};
use crate::process::{hunt, pidfd};

/// SIGKILL, which is also how the kernel ends what uses too much memory.
const KILLED: i32 = 9;

/// A host that has ended and was not collected.
#[derive(Debug)]
pub struct EndedHost<P> {
    /// What it is known by.
    pub identity: Identity,
    /// What holds its tree together.
    pub containment: Containment,
    /// Its spawn token.
    pub token: u128,
    /// Processes of its tree that were killed together with it.
    pub killed: u32,
    /// Its pin.
    pub process: P,
}

/// How a host ended, and its tree.
#[derive(Debug)]
pub struct End {
    /// How the host ended.
    pub exit: Exit,
    /// What is known of its tree now.
    pub cleared: Cleared,
    /// Processes of its cgroup that the kernel killed for want of memory; looked at only where the
    /// host was killed itself.
    pub oom_kills: u64,
}

/// Collects these hosts and ends what is left of their trees; what became of each, in their
/// order. `is_host` names the hosts that live on.
pub fn end_trees<P: AsFd>(
    machine: &Machine,
    hosts: &[EndedHost<P>],
    is_host: impl Fn(u32) -> bool,
) -> Vec<End> {
    let mut ends = Vec::with_capacity(hosts.len());
    let mut forced = Vec::new();
    let exits: Vec<Exit> = hosts.iter().map(collect).collect();
    // What died with them is collected before their cgroups are looked at and removed, which takes
    // longer: until then its numbers are not free, and who waits for its end waits for us.
    orphans::collect_ended(&is_host);
    for (ix, (host, exit)) in hosts.iter().zip(exits).enumerate() {
        let leaf = leaf_of(host);
        let counted = leaf.as_ref().filter(|_| exit == Exit::Signal(KILLED));
        let oom_kills = counted.map_or(0, Leaf::oom_kills);
        let emptied = leaf.as_ref().is_none_or(Leaf::remove_empty);
        let is_proven = exit == Exit::Code(0) && went_astray(host.containment.layers).is_none();
        if !is_proven || !emptied {
            forced.push((ix, emptied));
        }
        ends.push(End {
            exit,
            cleared: Cleared::CLEAN,
            oom_kills,
        });
    }
    if forced.is_empty() {
        return ends;
    }
    let traces = forced.iter().map(|&(ix, _)| trace(&hosts[ix]));
    let traces = Traces::new(traces.collect());
    let in_order = forced.iter().map(|&(ix, emptied)| (&hosts[ix], emptied));
    let cleared = clear(machine, &traces, in_order, is_host);
    for ((ix, _), cleared) in forced.into_iter().zip(cleared) {
        ends[ix].cleared = cleared;
    }
    ends
}

/// Kills what a host may have left in its group, then collects it.
fn collect<P: AsFd>(host: &EndedHost<P>) -> Exit {
    let pid = host.identity.pid;
    orphans::kill_group_of_ended(pid);
    match pidfd::reap(host.process.as_fd()) {
        Ok(Some(exit)) => exit,
        // Not to be: its pin said that it has ended, and nobody else collects.
        Ok(None) => Exit::Unseen,
        Err(error) => {
            tracing::error!(pid, %error, "the host's exit was lost");
            Exit::Unseen
        }
    }
}

/// What stands against a proof that nothing lives of a run with these layers, though it was looked
/// for: its orphans came to nobody who would have known them.
pub fn went_astray(layers: Layers) -> Option<Arc<str>> {
    let is_held = [Layer::Subreaper, Layer::Cgroup, Layer::Pidns]
        .iter()
        .any(|&layer| layers.has(layer));
    (!is_held).then(|| {
        "orphans do not come home on this system: what left its session and cleared its \
         environment is not seen"
            .into()
    })
}

fn leaf_of<P>(host: &EndedHost<P>) -> Option<Leaf> {
    Leaf::recorded(host.containment.leaf.as_deref()?, host.token)
}

fn trace<P>(host: &EndedHost<P>) -> Trace {
    Trace {
        token: host.token,
        host: Some(host.identity.clone()),
        // It was held unreaped until now, so its session's number was no other's.
        host_lived_until: u64::MAX,
    }
}

/// Ends the trees of these hosts; whether the leaf of each is empty and removed is known.
fn clear<'a, P: AsFd + 'a>(
    machine: &Machine,
    traces: &Traces,
    hosts: impl Iterator<Item = (&'a EndedHost<P>, bool)>,
    is_host: impl Fn(u32) -> bool,
) -> Vec<Cleared> {
    let mut killed = vec![0_u32; traces.all().len()];
    let mut leaves = Vec::new();
    let mut stuck: Vec<Option<Arc<str>>> = vec![None; killed.len()];
    for (ix, (host, emptied)) in hosts.enumerate() {
        killed[ix] = host.killed;
        stuck[ix] = went_astray(host.containment.layers);
        if let Some(leaf) = leaf_of(host).filter(|_| !emptied) {
            // What was killed together with the host may still be there, on its way out.
            let (found, why) = kill_leaf(&leaf);
            killed[ix] = host.killed.max(found);
            stuck[ix] = why.or_else(|| stuck[ix].take());
            leaves.push(leaf);
        }
    }
    let swept = orphans::sweep(CLEAN_PASSES, is_host, |pid| {
        if let Some((run, _)) = traces.tagged(pid) {
            killed[run] += 1;
        }
    });
    let unswept = tell(swept);
    let audits = audit(machine, traces);
    leaves.iter().for_each(Leaf::remove);
    let all = killed.into_iter().zip(stuck).enumerate();
    all.map(|(ix, (killed, stuck))| match &audits {
        Ok(ended) => verdict(killed, &ended[ix], stuck.or_else(|| unswept.clone())),
        Err(why) => Cleared::NotExcluded {
            killed,
            why: why.clone(),
        },
    })
    .collect()
}

/// A run whose host is not a child of ours: another supervisor started it.
#[derive(Debug, Clone)]
pub struct RecordedRun {
    /// Its tags, its host, its session.
    pub trace: Trace,
    /// What holds its tree together.
    pub containment: Containment,
    /// What stands against a proof that nothing of it lives, even if nothing is found.
    pub open: Option<Arc<str>>,
}

/// Ends everything of these runs that lives, hosts included, all in one search; what is then known of
/// each, in their order.
///
/// # Errors
/// When the processes of this machine can not be listed.
pub fn end_recorded(machine: &Machine, runs: &[RecordedRun]) -> std::io::Result<Vec<Cleared>> {
    let mut leaves = Vec::with_capacity(runs.len());
    let mut folders = BTreeSet::new();
    for run in runs {
        let recorded = run.containment.leaf.as_deref();
        let leaf = recorded.and_then(|dir| Leaf::recorded(dir, run.trace.token));
        leaves.push(leaf.as_ref().map(kill_leaf).unwrap_or_default());
        if let Some(leaf) = leaf {
            leaf.remove();
            folders.extend(leaf.dir().parent().map(Path::to_owned));
        }
    }
    let traces = runs.iter().map(|run| run.trace.clone()).collect();
    let ended = hunt::end_all(machine, &Traces::new(traces))?;
    folders.iter().for_each(|folder| remove_leftovers(folder));
    let all = runs.iter().zip(leaves).zip(&ended);
    let verdicts = all.map(|((run, (killed, stuck)), ended)| {
        verdict(killed, ended, stuck.or_else(|| run.open.clone()))
    });
    Ok(verdicts.collect())
}

/// Kills what is in a leaf: how many there were, and why it is not empty if it is not.
fn kill_leaf(leaf: &Leaf) -> (u32, Option<Arc<str>>) {
    let members = u32::try_from(leaf.members().len()).unwrap_or(u32::MAX);
    let why = match leaf.kill() {
        Ok(true) => None,
        Ok(false) => Some("its cgroup does not become empty".into()),
        Err(error) => Some(format!("its cgroup can not be killed: {error}").into()),
    };
    (members, why)
}

fn tell(swept: std::io::Result<Swept>) -> Option<Arc<str>> {
    match swept {
        Ok(swept) => {
            if swept != Swept::default() {
                let (ended, left) = (swept.ended, swept.left);
                tracing::warn!(ended, left, "orphans of dead hosts");
            }
            (swept.left > 0).then(|| "processes that came home do not die".into())
        }
        Err(error) => Some(format!("our children can not be listed: {error}").into()),
    }
}

/// One look; only if it finds something, the hunt.
fn audit(machine: &Machine, traces: &Traces) -> Result<Vec<hunt::Ended>, Arc<str>> {
    let look = scan::look(machine, traces).and_then(|look| {
        if look.found.is_empty() {
            return Ok(vec![hunt::Ended::default(); traces.all().len()]);
        }
        hunt::end_all(machine, traces)
    });
    look.map_err(|error| format!("the processes of this machine can not be listed: {error}").into())
}

/// What is known of a run's tree after a hunt; `open` is what stands against a proof.
fn verdict(killed: u32, ended: &hunt::Ended, open: Option<Arc<str>>) -> Cleared {
    let killed = killed + ended.killed;
    if !ended.left.is_empty() {
        let left = ended.left.clone();
        return Cleared::Residual { killed, left };
    }
    if let Some(pid) = ended.doubtful.first() {
        let why =
            format!("process {pid} is in a session of its number, but not proven to be of it");
        let why = why.into();
        return Cleared::NotExcluded { killed, why };
    }
    match open {
        Some(why) => Cleared::NotExcluded { killed, why },
        None => Cleared::Clean { killed },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervisor_core::containment::Leftover;

    #[test]
    fn without_a_layer_that_holds_orphans_nothing_is_proven() {
        let portable = [Layer::Session, Layer::EnvTag, Layer::HostEof];
        let portable: Layers = portable.into_iter().collect();
        assert!(went_astray(portable).is_some());
        for holds in [Layer::Subreaper, Layer::Cgroup, Layer::Pidns] {
            assert_eq!(went_astray(portable.with(holds)), None, "{holds}");
        }
    }

    #[test]
    fn clean_is_said_only_when_nothing_stands_against_it() {
        let mut ended = hunt::Ended {
            killed: 2,
            ..hunt::Ended::default()
        };
        assert_eq!(verdict(1, &ended, None), Cleared::Clean { killed: 3 });
        let why: Arc<str> = "no cgroup".into();
        let open = verdict(1, &ended, Some(why.clone()));
        assert_eq!(open, Cleared::NotExcluded { killed: 3, why });
        ended.doubtful = vec![77];
        assert!(!verdict(1, &ended, None).is_clean());
        ended.left = vec![Leftover {
            pid: 78,
            start_ticks: 1,
            why: "env_tag".into(),
        }];
        assert!(matches!(
            verdict(1, &ended, None),
            Cleared::Residual { killed: 3, .. }
        ));
    }
}
