//! The operator's branch takes the batch branch: a fast-forward or a merge commit.

use protocol::git::Oid;
use protocol::integrate::IntegrateResult;

use super::forecast;
use super::place::Place;
use super::{Look, Refusal};
use crate::git::error::{GitError, said};
use crate::git::program::{Call, Told};
use crate::git::repo::Repo;

/// What the reference log says.
const WHY: &str = "supervisor: integrate";

/// The branch moves on to the batch branch's commit.
///
/// # Errors
/// When the repository can not be read or `git` not be run.
pub(super) fn fast_forward(look: &Look<'_>) -> Result<IntegrateResult, GitError> {
    let commit = look.from.clone();
    let Some(place) = &look.place else {
        return Ok(match swap(look, &commit)? {
            None => IntegrateResult::FastForwarded { commit },
            Some(refusal) => refusal.into(),
        });
    };
    let told = in_place(look, place).args(["--ff-only", look.from.as_str()]);
    let told = told.any()?;
    Ok(match now(look)? {
        Some(now) if now == commit => IntegrateResult::FastForwarded { commit },
        _ => refused(look, place, &told)?.into(),
    })
}

/// The branch gets a merge commit.
///
/// # Errors
/// As [`fast_forward`].
pub(super) fn merge(look: &Look<'_>) -> Result<IntegrateResult, GitError> {
    let Some(place) = &look.place else {
        return elsewhere(look);
    };
    let call = in_place(look, place).args(["--no-ff", "--no-squash", "--commit"]);
    let call = identified(look, call)?.args(["-m", look.work.message.as_str()]);
    let told = call.args([look.from.as_str()]).any()?;
    match now(look)? {
        Some(commit) if commit != look.into && is_merge(&look.hands.repo, &commit, look)? => {
            Ok(IntegrateResult::Merged { commit })
        }
        _ => Ok(refused(look, place, &told)?.into()),
    }
}

/// Where nobody looks: the tree of the merge, a commit of it, and the branch by compare-and-swap.
fn elsewhere(look: &Look<'_>) -> Result<IntegrateResult, GitError> {
    let call = forecast::merge_tree(look.hands, None, &look.into, &look.from);
    // A fast-forward that is to be a merge all the same comes out as the batch branch's own tree.
    let told = call.one_of(&[0, 1])?;
    if told.code != 0 {
        return Ok(IntegrateResult::Conflict {});
    }
    let tree = told.out.split(|&byte| byte == 0).next().unwrap_or_default();
    let tree = String::from_utf8_lossy(tree).into_owned();
    let call = look.hands.git.as_operator(look.folder());
    let call = identified(look, call)?.args(["commit-tree", &tree]);
    let call = call.args(["-p", look.into.as_str(), "-p", look.from.as_str()]);
    let call = match signs(look)? {
        true => call.args(["-S"]),
        false => call,
    };
    let message = format!("{}\n", look.work.message.trim_end());
    let commit = call.args(["-F", "-"]).input(message.into_bytes()).text()?;
    let commit = Oid::try_from(commit).map_err(|error| GitError::Unfit(error.to_string()))?;
    Ok(match swap(look, &commit)? {
        None => IntegrateResult::Merged { commit },
        Some(refusal) => refusal.into(),
    })
}

/// Moves the branch, if it still is where it was.
fn swap(look: &Look<'_>, to: &Oid) -> Result<Option<Refusal>, GitError> {
    let Look { hands, work, .. } = look;
    let from = Some(&look.into);
    let moved = (hands.repo).move_ref(&hands.git, &work.into, from, Some(to), WHY)?;
    Ok((!moved).then(|| {
        let why = format!("{} has moved meanwhile", look.branch());
        Refusal::new(why, "look again: give the same command")
    }))
}

/// `git merge` in the operator's working tree.
fn in_place<'a>(look: &Look<'a>, place: &Place) -> Call<'a> {
    let call = look.hands.git.as_operator(&place.folder);
    call.args([
        "merge",
        "--quiet",
        "--no-stat",
        "--no-edit",
        "--no-autostash",
    ])
}

/// Commits are the operator's; where nobody is named they are made by the same name as all others.
fn identified<'a>(look: &Look<'_>, call: Call<'a>) -> Result<Call<'a>, GitError> {
    let asked = look.hands.git.as_operator(look.folder());
    let told = asked.args(["var", "GIT_COMMITTER_IDENT"]).any()?;
    Ok(match told.code {
        0 => call,
        _ => call.by(&look.hands.repo.identity()),
    })
}

/// Whether the operator's settings sign commits.
///
/// # Errors
/// When `git` can not be run.
pub(super) fn signs(look: &Look<'_>) -> Result<bool, GitError> {
    let call = look.hands.git.as_operator(look.folder());
    let call = call.args(["config", "--type=bool", "--get", "commit.gpgSign"]);
    Ok(call.any()?.out.trim_ascii() == b"true")
}

fn now(look: &Look<'_>) -> Result<Option<Oid>, GitError> {
    look.hands.repo.tip(&look.work.into)
}

/// Whether the commit is the merge that was ordered.
fn is_merge(repo: &Repo, commit: &Oid, look: &Look<'_>) -> Result<bool, GitError> {
    let found = repo.raw.find_commit(repo.raw_id(commit)?);
    let found = found.map_err(|error| repo.unread(commit.as_str(), &error))?;
    let parents = found.parent_ids().map(|id| repo.name(id));
    let parents: Result<Vec<Oid>, GitError> = parents.collect();
    Ok(parents? == [look.into.clone(), look.from.clone()])
}

/// `git` (or a hook, or a signature that could not be made) said no: what it began is undone. The tree
/// was clean, so what is staged is its work; what somebody saved meanwhile and did not stage stays.
fn refused(look: &Look<'_>, place: &Place, told: &Told) -> Result<Refusal, GitError> {
    if now(look)?.as_ref() == Some(&look.into) {
        let call = look.hands.git.at(&place.folder);
        // What it says is found again by the look that follows.
        call.args(["reset", "--quiet", "--merge", look.into.as_str()])
            .any()?;
    }
    let mut why = format!(
        "`git merge` in {} said no: {}",
        place.shown(),
        said(&told.err)
    );
    if let Some(left) = place.refusal(look)? {
        why = format!("{why}; and now {}", left.why);
    }
    let way_out = "put right what it names, or choose another branch with --into";
    Ok(Refusal::new(why, way_out))
}
