//! The batch branch goes into a branch of the operator's: looked at first, done only as it was seen.
//!
//! Whether it merges is found out by `git merge-tree`, whose merge is the one of `git merge`, drivers
//! and attributes included, with its objects in a folder of ours: a forecast leaves no trace. A
//! branch that is checked out nowhere gets the merged tree as a commit and moves by compare-and-swap.
//! In the operator's working tree `git merge` acts, after it is proven that nothing there can be lost.

use std::path::{Path, PathBuf};

use protocol::git::{GitOutcome, Oid};
use protocol::integrate::{How, Integrate, IntegratePlan, IntegrateResult, Integrated};

use self::forecast::{Change, Forecast};
use self::place::Place;
use super::Hands;
use super::error::GitError;

mod forecast;
mod place;
mod request;
mod settle;

/// What is before a branch's name in the name of its ref.
const HEADS: &str = "refs/heads/";

/// Something is in the way, and what the operator can do.
struct Refusal {
    why: String,
    way_out: String,
}

impl Refusal {
    fn new(why: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            way_out: way_out.into(),
        }
    }
}

impl From<Refusal> for IntegrateResult {
    fn from(refusal: Refusal) -> Self {
        let Refusal { why, way_out } = refusal;
        Self::Refused { why, way_out }
    }
}

/// What there is, before anything is done.
struct Look<'a> {
    hands: &'a Hands,
    work: &'a Integrate,
    from: Oid,
    into: Oid,
    forecast: Forecast,
    changes: Vec<Change>,
    place: Option<Place>,
    /// Why the place of `into` can not be known for sure.
    taken: Option<Refusal>,
}

/// Looks, and does it unless it is only to be looked or something is in the way.
///
/// # Errors
/// When the repository can not be read, or `git` or `gh` can not be run.
pub(super) fn integrate(hands: &Hands, work: &Integrate) -> Result<GitOutcome, GitError> {
    let target = match work.how {
        How::PullRequest => request::target(hands, work)?,
        How::Either | How::FastForward | How::Merge => None,
    };
    let look = look(hands, work, target.as_ref())?;
    let mut plan = look.plan()?;
    plan.remote = target.map(|target| target.remote);
    let result = match look.refusal(&plan)? {
        Some(result) => result,
        None if work.dry_run => IntegrateResult::Planned {},
        None => match plan.how {
            How::PullRequest => request::open(&look, &plan)?,
            How::Either | How::FastForward => settle::fast_forward(&look)?,
            How::Merge => settle::merge(&look)?,
        },
    };
    let integrated = Integrated { plan, result };
    Ok(GitOutcome::Integrated(Box::new(integrated)))
}

fn look<'a>(
    hands: &'a Hands,
    work: &'a Integrate,
    target: Option<&request::Target>,
) -> Result<Look<'a>, GitError> {
    let missing = |reference: &str| {
        let repo = hands.repo.path.display();
        GitError::Unfit(format!("{repo} has no branch {reference}"))
    };
    let from = hands.repo.tip(&work.from)?;
    let from = from.ok_or_else(|| missing(&work.from))?;
    let remote = target.and_then(|target| target.seen.clone());
    let into = match remote {
        Some(seen) => seen,
        None => hands
            .repo
            .tip(&work.into)?
            .ok_or_else(|| missing(&work.into))?,
    };
    let (place, taken) = match work.how {
        How::PullRequest => (None, None),
        How::Either | How::FastForward | How::Merge => place::find(hands, &work.into)?,
    };
    let folder = place.as_ref().and_then(Place::there);
    let forecast = forecast::merge(hands, folder, &into, &from)?;
    let changes = forecast::changes(hands, &forecast, &into, &from)?;
    Ok(Look {
        hands,
        work,
        from,
        into,
        forecast,
        changes,
        place,
        taken,
    })
}

impl Look<'_> {
    /// The name of the operator's branch, for people.
    fn branch(&self) -> &str {
        short(&self.work.into)
    }

    fn plan(&self) -> Result<IntegratePlan, GitError> {
        let how = match self.work.how {
            How::Either if self.forecast.is_straight() => How::FastForward,
            How::Either => How::Merge,
            named @ (How::FastForward | How::Merge | How::PullRequest) => named,
        };
        let named = self.changes.iter().map(Change::shown);
        let conflicts = match &self.forecast {
            Forecast::Conflict { files, .. } => files.clone(),
            Forecast::Contained | Forecast::Straight | Forecast::Clean { .. } => Vec::new(),
            Forecast::Unrelated => Vec::new(),
        };
        let signs = how == How::Merge && settle::signs(self)?;
        Ok(IntegratePlan {
            from: self.from.clone(),
            into: self.into.clone(),
            how,
            commits: forecast::commits(self.hands, &self.into, &self.from)?,
            files: self.changes.len() as u64,
            paths: named.take(protocol::git::PATHS_MAX).collect(),
            fast_forward: self.forecast.is_straight(),
            conflicts,
            checked_out: self.place.as_ref().map(Place::shown),
            hooks: place::hooks(self.hands, self.place.as_ref(), how)?,
            signs,
            remote: None,
        })
    }

    /// What ends it here, the most telling first.
    fn refusal(&self, plan: &IntegratePlan) -> Result<Option<IntegrateResult>, GitError> {
        if let Some(moved) = self.moved() {
            return Ok(Some(moved.into()));
        }
        if self.forecast.is_contained() {
            return Ok(Some(IntegrateResult::Contained {}));
        }
        if plan.how == How::PullRequest {
            return Ok(request::refusal(self, plan)?.map(Into::into));
        }
        let branch = self.branch();
        match (&self.forecast, plan.how) {
            (Forecast::Unrelated, _) => {
                let why = format!("{branch} and the batch branch have no commit in common");
                let way_out = "choose a branch that the batch started from, with --into";
                return Ok(Some(Refusal::new(why, way_out).into()));
            }
            (Forecast::Conflict { .. } | Forecast::Clean { .. }, How::FastForward) => {
                let why =
                    format!("{branch} has commits of its own, so no fast-forward is possible");
                return Ok(Some(Refusal::new(why, "merge, with --merge").into()));
            }
            (Forecast::Conflict { .. }, _) => return Ok(Some(IntegrateResult::Conflict {})),
            (Forecast::Contained | Forecast::Straight | Forecast::Clean { .. }, _) => {}
        }
        if let Some(Refusal { why, way_out }) = &self.taken {
            return Ok(Some(Refusal::new(why, way_out).into()));
        }
        let in_the_way = match &self.place {
            Some(place) => place.refusal(self)?,
            None => None,
        };
        Ok(in_the_way.map(Into::into))
    }

    /// A branch is not where the operator saw it.
    fn moved(&self) -> Option<Refusal> {
        let agreed = self.work.agreed.as_ref()?;
        let both = [
            (&self.work.from, &agreed.from, &self.from),
            (&self.work.into, &agreed.into, &self.into),
        ];
        let (name, seen, now) = both.into_iter().find(|(_, seen, now)| seen != now)?;
        let (name, seen, now) = (short(name), seen.short(), now.short());
        let why = format!("{name} was at {seen} when it was looked at, and is at {now} now");
        Some(Refusal::new(why, "look again: give the same command"))
    }

    /// Where `git` works for the operator.
    fn folder(&self) -> &Path {
        let place = self.place.as_ref().and_then(Place::there);
        place.unwrap_or(&self.hands.repo.path)
    }
}

/// A folder of this work alone for what must not stay in the repository.
fn scratch(hands: &Hands) -> PathBuf {
    hands.folder.join("objects")
}

/// The name of a branch without what is before it.
fn short(reference: &str) -> &str {
    reference.strip_prefix(HEADS).unwrap_or(reference)
}
