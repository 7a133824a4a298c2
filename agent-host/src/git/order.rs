//! In which order commits are merged: what another one is built on comes first, then what has the
//! fewest conflicts, then the order that was given.

use std::collections::{BTreeSet, HashMap};

use git2::{Oid, Sort};
use protocol::git::{Candidate, Oid as Name};

use super::error::GitError;
use super::predict::Judge;
use super::repo::Repo;

/// Most candidates that are judged; the others come after them, in the order that was given.
const JUDGED_MAX: usize = 64;
/// Most pairs of candidates that are merged in memory; of the others the files that both change
/// count as conflicts.
const PAIRS_MAX: usize = 128;
/// Most files of one candidate that are compared with those of the others.
const FILES_MAX: usize = 10_000;
/// Most commits of one candidate that are looked through for other candidates.
const COMMITS_MAX: usize = 10_000;

/// The places of the candidates, in the order in which they are merged.
///
/// # Errors
/// When a commit is not here.
pub(super) fn of(
    repo: &Repo,
    tip: &Name,
    candidates: &[Candidate],
) -> Result<Vec<usize>, GitError> {
    let judged = &candidates[..candidates.len().min(JUDGED_MAX)];
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    if judged.len() > 1 {
        let tip = repo.raw_id(tip)?;
        let ids = judged.iter().map(|one| repo.raw_id(&one.commit));
        let ids = ids.collect::<Result<Vec<Oid>, GitError>>()?;
        let judge = Judge::of(repo)?;
        let needs = needs(repo, &judge, tip, &ids)?;
        let weights = weights(&judge, tip, &ids)?;
        order[..ids.len()].copy_from_slice(&arrange(&needs, &weights));
    }
    Ok(order)
}

/// How many files conflict: with the tip, and with all other candidates.
type Weight = (usize, usize);

/// Each place once: the lightest of those whose needs are met, the first of equals.
fn arrange(needs: &[BTreeSet<usize>], weights: &[Weight]) -> Vec<usize> {
    let mut left: BTreeSet<usize> = (0..weights.len()).collect();
    let mut order = Vec::new();
    while let Some(next) = {
        let free = left.iter().filter(|&&at| needs[at].is_disjoint(&left));
        // Commits can not need each other; were it so, the first one goes.
        let next = free.min_by_key(|&&at| (weights[at], at)).or(left.first());
        next.copied()
    } {
        left.remove(&next);
        order.push(next);
    }
    order
}

/// For each candidate, those that are among its ancestors.
fn needs(
    repo: &Repo,
    judge: &Judge,
    tip: Oid,
    ids: &[Oid],
) -> Result<Vec<BTreeSet<usize>>, GitError> {
    let mut places: HashMap<Oid, Vec<usize>> = HashMap::new();
    for (at, id) in ids.iter().enumerate() {
        places.entry(*id).or_default().push(at);
    }
    let ancestors = |id: Oid| -> Result<BTreeSet<usize>, git2::Error> {
        let mut walk = judge.raw().revwalk()?;
        walk.set_sorting(Sort::NONE)?;
        walk.push(id)?;
        walk.hide(tip)?;
        let mut found = BTreeSet::new();
        for commit in walk.take(COMMITS_MAX) {
            let commit = commit?;
            let of = places.get(&commit).filter(|_| commit != id);
            found.extend(of.into_iter().flatten());
        }
        Ok(found)
    };
    let all = ids.iter().map(|id| ancestors(*id));
    let all = all.collect::<Result<_, _>>();
    all.map_err(|error| repo.unread("the history of what is merged", &error))
}

fn weights(judge: &Judge, tip: Oid, ids: &[Oid]) -> Result<Vec<Weight>, GitError> {
    let changed = ids.iter().map(|id| {
        let files = judge.changed(tip, *id, FILES_MAX)?;
        Ok(files.into_iter().collect::<BTreeSet<_>>())
    });
    let changed = changed.collect::<Result<Vec<_>, GitError>>()?;
    let mut weights = Vec::new();
    for id in ids {
        weights.push((judge.conflicts(tip, *id)?.len(), 0));
    }
    let mut merged = 0;
    for one in 0..ids.len() {
        for other in one + 1..ids.len() {
            let shared = meetings(&changed[one], &changed[other]);
            // Files that only one of the two changes do not conflict.
            let count = match shared {
                0 => 0,
                _ if merged >= PAIRS_MAX => shared,
                _ => {
                    merged += 1;
                    judge.conflicts(ids[one], ids[other])?.len()
                }
            };
            weights[one].1 += count;
            weights[other].1 += count;
        }
    }
    Ok(weights)
}

/// How many files both change, or one of them changes where the other makes a folder.
fn meetings(one: &BTreeSet<Vec<u8>>, other: &BTreeSet<Vec<u8>>) -> usize {
    let above = |path: &[u8], files: &BTreeSet<Vec<u8>>| {
        let mut ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        ends.any(|(end, _)| files.contains(&path[..end]))
    };
    let below_other = |path: &&Vec<u8>| other.contains(*path) || above(path, other);
    let below_one = |path: &&Vec<u8>| above(path, one);
    one.iter().filter(below_other).count() + other.iter().filter(below_one).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn needs_come_first_then_the_lightest_then_the_first() {
        let needs = [
            BTreeSet::from([2]),
            BTreeSet::new(),
            BTreeSet::new(),
            BTreeSet::new(),
        ];
        let weights = [(0, 0), (0, 3), (1, 0), (0, 3)];
        assert_eq!(arrange(&needs, &weights), [1, 3, 2, 0]);
        assert_eq!(arrange(&[], &[]), [0; 0]);
    }

    #[test]
    fn a_file_meets_what_lies_below_it() {
        let of = |paths: &[&str]| -> BTreeSet<Vec<u8>> {
            paths.iter().map(|path| path.as_bytes().to_vec()).collect()
        };
        let one = of(&["a", "b/c", "d/e/f"]);
        for (other, count) in [
            (of(&["a"]), 1),
            (of(&["a/x", "a/y"]), 2),
            (of(&["b", "d/e"]), 2),
            (of(&["ab", "b/cd", "d/e/g"]), 0),
        ] {
            assert_eq!(meetings(&one, &other), count, "{other:?}");
            assert_eq!(meetings(&other, &one), count, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn each_candidate_has_one_place_behind_its_needs(
            items in proptest::collection::vec((proptest::collection::btree_set(0..12usize, 0..4), 0..3usize), 0..12)
        ) {
            // A need has a smaller place, so there is no circle.
            let needs: Vec<BTreeSet<usize>> = items
                .iter()
                .enumerate()
                .map(|(at, (needs, _))| needs.iter().copied().filter(|need| *need < at).collect())
                .collect();
            let weights: Vec<Weight> = items.iter().map(|(_, weight)| (*weight, 0)).collect();
            let order = arrange(&needs, &weights);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..items.len()).collect::<Vec<_>>());
            for (at, place) in order.iter().enumerate() {
                prop_assert!(needs[*place].iter().all(|need| order[..at].contains(need)));
            }
        }
    }
}
