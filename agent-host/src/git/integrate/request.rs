//! A pull request: the batch branch is pushed to the remote of the operator's branch, and `gh` opens
//! the request there. Both are safe to do again.

use protocol::git::Oid;
use protocol::integrate::{How, Integrate, IntegratePlan, IntegrateResult, Remote};

use super::{HEADS, Look, Refusal, short};
use crate::git::Hands;
use crate::git::error::{GitError, said};
use crate::git::program::{Another, Told};

/// The program that opens pull requests.
const GH: &str = "gh";
/// The remote where a branch names none.
const REMOTE: &str = "origin";
/// What `git push` exits with when the other side refuses the branch; with others it was not reached.
const PUSH_REFUSED: i32 = 1;

/// Where a pull request goes.
pub(super) struct Target {
    /// Remote and branch.
    pub(super) remote: Remote,
    /// Where that branch was when it was last fetched.
    pub(super) seen: Option<Oid>,
}

/// Where a pull request for the operator's branch goes; `None` where there is no remote.
///
/// # Errors
/// When the repository can not be read.
pub(super) fn target(hands: &Hands, work: &Integrate) -> Result<Option<Target>, GitError> {
    let branch = short(&work.into);
    let config = hands.repo.raw.config();
    let config = config.map_err(|error| hands.repo.unread("the settings", &error))?;
    let text = |name: String| config.get_string(&name).ok();
    let tracked = text(format!("branch.{branch}.remote")).filter(|name| name != ".");
    let is_there = |name: &String| hands.repo.raw.find_remote(name).is_ok();
    let tracked = tracked.filter(is_there);
    let merged = match &tracked {
        Some(_) => text(format!("branch.{branch}.merge")),
        None => None,
    };
    let Some(name) = tracked.or_else(|| Some(REMOTE.to_owned()).filter(is_there)) else {
        return Ok(None);
    };
    let base = merged.as_deref().unwrap_or(branch);
    let base = base.strip_prefix(HEADS).unwrap_or(base).to_owned();
    let seen = hands.repo.tip(&format!("refs/remotes/{name}/{base}"))?;
    Ok(Some(Target {
        remote: Remote { name, base },
        seen,
    }))
}

/// What is missing for a pull request.
///
/// # Errors
/// When there is no `gh`.
pub(super) fn refusal(look: &Look<'_>, plan: &IntegratePlan) -> Result<Option<Refusal>, GitError> {
    debug_assert_eq!(plan.how, How::PullRequest);
    if plan.remote.is_none() {
        let repo = look.hands.repo.path.display();
        let why = format!(
            "{repo} has no remote `{REMOTE}`, and {} names no other",
            look.branch()
        );
        let way_out = "`git remote add origin URL`, or integrate here with --ff or --merge";
        return Ok(Some(Refusal::new(why, way_out)));
    }
    gh().map(|_| None)
}

fn gh() -> Result<Another, GitError> {
    Another::find(GH).map_err(|path| GitError::NoRequests { path })
}

/// Pushes and opens it.
///
/// # Errors
/// When the remote is not reached, or `gh` fails.
pub(super) fn open(look: &Look<'_>, plan: &IntegratePlan) -> Result<IntegrateResult, GitError> {
    let Some(remote) = &plan.remote else {
        return Err(GitError::Unfit("there is no remote".to_owned()));
    };
    if let Some(refusal) = push(look, remote)? {
        return Ok(refusal.into());
    }
    let told = create(look, remote)?;
    let out = String::from_utf8_lossy(&told.out);
    let err = String::from_utf8_lossy(&told.err);
    let existed = told.code != 0 && err.contains("already exists");
    let url = if existed { url(&err) } else { url(&out) };
    match (told.code == 0 || existed, url) {
        (true, Some(url)) => Ok(IntegrateResult::PullRequest { url, existed }),
        (true, None) => Ok(IntegrateResult::PullRequest {
            url: format!(
                "{} -> {} (gh printed no address)",
                short(&look.work.from),
                remote.base
            ),
            existed,
        }),
        (false, _) => Err(GitError::Unfit(format!(
            "the batch branch is pushed to {}, but `gh pr create` exited with {}: {}",
            remote.name,
            told.code,
            said(&told.err)
        ))),
    }
}

/// Never by force: a branch of that name that holds something else stays as it is.
fn push(look: &Look<'_>, remote: &Remote) -> Result<Option<Refusal>, GitError> {
    let what = format!("{}:{}", look.from, look.work.from);
    let call = look.hands.git.as_operator(&look.hands.repo.path);
    let call = call.args(["push", "--porcelain", &remote.name, &what]);
    let told = call.one_of(&[0, PUSH_REFUSED])?;
    Ok((told.code != 0).then(|| {
        let name = &remote.name;
        let why = format!("{name} does not take the batch branch: {}", said(&told.err));
        let way_out = format!(
            "see what {name} has there (`git ls-remote {name} {}`)",
            look.work.from
        );
        Refusal::new(why, way_out)
    }))
}

fn create(look: &Look<'_>, remote: &Remote) -> Result<Told, GitError> {
    let program = gh()?;
    let call = program
        .at(&look.hands.repo.path)
        .env("GH_PROMPT_DISABLED", "1");
    let call = call.args(["pr", "create", "--head", short(&look.work.from)]);
    let call = call.args(["--base", &remote.base, "--title", &look.work.title]);
    let call = call.args(["--body", &look.work.body]);
    let url = look.hands.repo.raw.find_remote(&remote.name).ok();
    let url = url.and_then(|found| found.url().map(str::to_owned).ok());
    match url.filter(|url| is_hosted(url)) {
        // With several remotes `gh` would choose one by rules of its own.
        Some(url) => call.args(["--repo", &url]),
        None => call,
    }
    .any()
}

/// Whether an address names a host: `https://...`, `ssh://...`, `git@host:owner/name`.
fn is_hosted(url: &str) -> bool {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some(scheme) => scheme != "file",
        None => {
            let host = url.split_once(':').map(|(host, _)| host);
            host.is_some_and(|host| !host.contains('/'))
        }
    }
}

/// The last address in what a program said.
fn url(text: &str) -> Option<String> {
    let words = text.split_whitespace();
    let mut urls = words.filter(|word| word.starts_with("http://") || word.starts_with("https://"));
    urls.next_back().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_with_a_host_is_handed_to_gh() {
        for hosted in [
            "https://github.com/o/n.git",
            "ssh://git@github.com/o/n",
            "git@github.com:o/n.git",
        ] {
            assert!(is_hosted(hosted), "{hosted}");
        }
        for local in ["/srv/n.git", "../n", "file:///srv/n.git", "./a:b"] {
            assert!(!is_hosted(local), "{local}");
        }
    }

    #[test]
    fn the_address_is_the_last_one_that_was_said() {
        let said = "Creating pull request for a into b\n\nhttps://github.com/o/n/pull/7\n";
        assert_eq!(url(said).as_deref(), Some("https://github.com/o/n/pull/7"));
        assert_eq!(url("nothing of the kind"), None);
    }
}
