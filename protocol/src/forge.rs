//! Issues and pull requests as the subject of a task: what is asked for, and what was fetched.
//!
//! All of it is fetched by a run of its own before the agent begins, and kept in the task's folder.
//! What others wrote there is data: it is cut at the limits of this file, and never a template.

use serde::{Deserialize, Serialize};

/// Name of the file in the task's folder with what was fetched last.
pub const ITEM_FILE_NAME: &str = "issue.json";
/// Version of that file.
pub const ITEM_VERSION: u32 = 1;
/// Largest such file, bytes: everything at its limit, each byte escaped (`\"`; control characters other
/// than line ends and tabs are replaced before).
pub const ITEM_FILE_MAX: u64 = 64 << 20;
/// Longest body, and longest comment, bytes; the forge itself takes 65,536 characters.
pub const TEXT_MAX: usize = 64 << 10;
/// Longest text of a comment that is posted, bytes.
pub const COMMENT_MAX: usize = 16 << 10;
/// Longest title, name of a label or branch, bytes.
pub const NAME_MAX: usize = 1 << 10;
/// Most comments, reviews, remarks: the newest of each are kept, because they tell how things stand.
pub const COMMENTS_MAX: usize = 100;
/// Most labels; the forge itself takes a hundred.
pub const LABELS_MAX: usize = 100;
/// Longest difference of a pull request, bytes.
pub const DIFF_MAX: usize = 1 << 20;
/// The forge that is meant where a reference names none.
pub const DEFAULT_HOST: &str = "github.com";
/// Longest name of an owner or a repository, bytes: the forge's own bound for repositories.
const PART_MAX: usize = 100;

/// What a task is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForgeKind {
    /// An issue.
    Issue,
    /// A pull request.
    Pr,
}

impl ForgeKind {
    /// Its key in a batch file, and its name in templates.
    pub const fn word(self) -> &'static str {
        match self {
            ForgeKind::Issue => "issue",
            ForgeKind::Pr => "pr",
        }
    }

    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            ForgeKind::Issue => "issue",
            ForgeKind::Pr => "pull request",
        }
    }

    /// The part of its address before the number.
    const fn path_word(self) -> &'static str {
        match self {
            ForgeKind::Issue => "issues",
            ForgeKind::Pr => "pull",
        }
    }
}

/// A repository on a forge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The forge, a name of a host, lower case.
    pub host: String,
    /// Who owns it.
    pub owner: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host != DEFAULT_HOST {
            write!(f, "{}/", self.host)?;
        }
        write!(f, "{}/{}", self.owner, self.name)
    }
}

/// Which issue or pull request is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reference {
    /// Of which repository; absent: of the one that the task's own repository calls `origin`.
    pub place: Option<Place>,
    /// Its number, at least 1.
    pub number: u64,
}

/// A text that names no issue or pull request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReference {
    /// No known form.
    #[error("`{text}` names no {}", .kind.name())]
    Form {
        /// What was wanted.
        kind: ForgeKind,
        /// What stands there, its beginning.
        text: String,
    },
    /// The other kind.
    #[error("`{text}` is the address of {}", match .kind { ForgeKind::Issue => "a pull request", ForgeKind::Pr => "an issue" })]
    Kind {
        /// What was wanted.
        kind: ForgeKind,
        /// What stands there, its beginning.
        text: String,
    },
}

impl Reference {
    /// Reads `owner/repo#12`, `#12`, or the address of its page.
    ///
    /// # Errors
    /// [`BadReference`] for anything else, and for the address of the other kind.
    pub fn parse(kind: ForgeKind, text: &str) -> Result<Self, BadReference> {
        let shown = || crate::report::excerpt(text, 200);
        let bad = || BadReference::Form {
            kind,
            text: shown(),
        };
        let address = ["https://", "http://"]
            .iter()
            .find_map(|scheme| text.strip_prefix(scheme));
        let Some(address) = address else {
            let (place, number) = text.split_once('#').ok_or_else(bad)?;
            let place = match place {
                "" => None,
                place => Some(place_of(DEFAULT_HOST, place).ok_or_else(bad)?),
            };
            let number = number_of(number).ok_or_else(bad)?;
            return Ok(Self { place, number });
        };
        let address = address.split(['?', '#']).next().unwrap_or_default();
        let mut parts = address.trim_end_matches('/').splitn(5, '/');
        let mut next = || parts.next().unwrap_or_default();
        let (host, owner, name, word, rest) = (next(), next(), next(), next(), next());
        let place = place_of(host, &format!("{owner}/{name}")).ok_or_else(bad)?;
        // A pull request has pages of its own below its address.
        let number = number_of(rest.split('/').next().unwrap_or_default()).ok_or_else(bad)?;
        let found = [ForgeKind::Issue, ForgeKind::Pr]
            .into_iter()
            .find(|kind| kind.path_word() == word)
            .ok_or_else(bad)?;
        if found != kind {
            let text = shown();
            return Err(BadReference::Kind { kind, text });
        }
        Ok(Self {
            place: Some(place),
            number,
        })
    }
}

fn number_of(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.filter(|number| *number > 0)
}

/// A repository named `owner/name`, with letters that can stand in an address as they are.
fn place_of(host: &str, path: &str) -> Option<Place> {
    let (owner, name) = path.split_once('/')?;
    let is_part = |part: &str| {
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let leads = part.chars().all(|c| c == '.');
        part.len() <= PART_MAX && !leads && part.chars().all(letter)
    };
    let (bare, port) = host.split_once(':').unwrap_or((host, "443"));
    let is_host = is_part(bare) && port.parse::<u16>().is_ok();
    (is_host && is_part(owner) && is_part(name)).then(|| Place {
        host: host.to_ascii_lowercase(),
        owner: owner.to_owned(),
        name: name.to_owned(),
    })
}

impl Place {
    /// The repository behind a remote's address: `https://host/owner/name.git`,
    /// `ssh://git@host/owner/name`, `git@host:owner/name.git`.
    pub fn of_remote(address: &str) -> Option<Place> {
        let (rest, is_web) = match address.split_once("://") {
            Some(("https" | "http", rest)) => (rest.to_owned(), true),
            Some(("ssh" | "git" | "git+ssh", rest)) => (rest.to_owned(), false),
            Some(_) => return None,
            None => {
                let (host, path) = address.split_once(':')?;
                (format!("{host}/{path}"), false)
            }
        };
        let (host, path) = rest.split_once('/')?;
        let host = host.rsplit('@').next()?;
        // The port of another protocol is not that of its pages.
        let host = match is_web {
            true => host,
            false => host.split(':').next()?,
        };
        let path = path.trim_matches('/');
        place_of(host, path.strip_suffix(".git").unwrap_or(path))
    }
}

/// What is to be fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// What it is.
    pub kind: ForgeKind,
    /// Which one.
    pub reference: Reference,
    /// The repository whose `origin` is meant where the reference names none: a folder in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
}

/// How a host fetches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchAdapter {
    /// What.
    pub fetch: Fetch,
    /// Wall time of it, milliseconds; then its processes are killed and the run fails.
    pub timeout_ms: u64,
}

/// A comment that is to be on an issue or a pull request, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommentWork {
    /// What it is about.
    pub about: Fetch,
    /// What it says, at most [`COMMENT_MAX`] bytes, without the mark.
    pub text: String,
    /// A line that the forge does not show, and that no other comment has: one that has it is this one.
    pub mark: String,
}

/// How a host posts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommentAdapter {
    /// What.
    pub comment: CommentWork,
    /// Wall time of it, milliseconds; then its processes are killed and the run fails.
    pub timeout_ms: u64,
}

/// An issue or a pull request, as far as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgeItem {
    /// [`ITEM_VERSION`].
    pub version: u32,
    /// What it is.
    pub kind: ForgeKind,
    /// `owner/repo#12`, with the host in front where that is not [`DEFAULT_HOST`].
    pub reference: String,
    /// The address of its page.
    pub url: String,
    /// Its number.
    pub number: u64,
    /// Its title.
    pub title: String,
    /// What its author wrote, at most [`TEXT_MAX`] bytes and a line that says what was cut.
    pub body: String,
    /// Who wrote it; empty where that account is gone.
    pub author: String,
    /// `open` or `closed`.
    pub state: String,
    /// Names of its labels, at most [`LABELS_MAX`].
    pub labels: Vec<String>,
    /// The newest comments, in the order in which they were written, at most [`COMMENTS_MAX`].
    pub comments: Vec<ForgeComment>,
    /// Older comments that were left out.
    pub comments_left_out: u64,
    /// What only a pull request has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<PullRequest>,
    /// What the operator should know: a copy was used that may be old, a difference is too large.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// One comment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgeComment {
    /// Who wrote it; empty where that account is gone.
    pub author: String,
    /// When, as the forge says it.
    pub created: String,
    /// What, as [`ForgeItem::body`].
    pub body: String,
}

/// What only a pull request has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// The branch that it is to be merged into.
    pub base: String,
    /// The branch that it is made of.
    pub head: String,
    /// The newest reviews, in the order in which they were written, at most [`COMMENTS_MAX`]; one that
    /// says nothing but its remarks is left out.
    pub reviews: Vec<ForgeReview>,
    /// The newest remarks on lines of it, in the same order, at most [`COMMENTS_MAX`].
    pub remarks: Vec<ForgeRemark>,
    /// What it changes, at most [`DIFF_MAX`] bytes and a line that says what was cut.
    pub diff: String,
}

/// One review of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgeReview {
    /// Who wrote it; empty where that account is gone.
    pub author: String,
    /// When, as the forge says it.
    pub created: String,
    /// What it rules, in the forge's words, lower case: `approved`, `changes_requested`, `commented`,
    /// `dismissed`.
    pub state: String,
    /// What, as [`ForgeItem::body`].
    pub body: String,
}

/// One remark on a line of what a pull request changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgeRemark {
    /// Who wrote it; empty where that account is gone.
    pub author: String,
    /// When, as the forge says it.
    pub created: String,
    /// On this file.
    pub path: String,
    /// On this line of it as it is now, from 1; absent where the line is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What, as [`ForgeItem::body`].
    pub body: String,
}

/// A text of at most so many bytes; where it is longer, a line at its end says how much is missing.
pub fn cut(text: &str, max: usize) -> String {
    let Some(left_out) = text.len().checked_sub(max).filter(|more| *more > 0) else {
        return text.to_owned();
    };
    let end = text.floor_char_boundary(max);
    let left_out = left_out + (max - end);
    format!("{}\n[cut here: {left_out} more bytes]", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str) -> Option<Place> {
        Some(Place {
            host: host.to_owned(),
            owner: "owner".to_owned(),
            name: "re.po-1".to_owned(),
        })
    }

    #[test]
    fn a_reference_is_short_or_an_address() {
        let hub = place(DEFAULT_HOST);
        for (kind, text, wanted) in [
            (ForgeKind::Issue, "owner/re.po-1#12", (hub.clone(), 12)),
            (ForgeKind::Pr, "owner/re.po-1#12", (hub.clone(), 12)),
            (ForgeKind::Issue, "#7", (None, 7)),
            (
                ForgeKind::Issue,
                "https://github.com/owner/re.po-1/issues/3/#issuecomment-1",
                (hub.clone(), 3),
            ),
            (
                ForgeKind::Pr,
                "https://GitHub.com/owner/re.po-1/pull/4/files?w=1",
                (hub, 4),
            ),
            (
                ForgeKind::Pr,
                "http://forge.example:8443/owner/re.po-1/pull/4",
                (place("forge.example:8443"), 4),
            ),
        ] {
            let read = Reference::parse(kind, text).unwrap();
            assert_eq!((read.place, read.number), wanted, "{text}");
        }
    }

    #[test]
    fn what_names_nothing_or_leads_elsewhere_is_refused() {
        for text in [
            "",
            "12",
            "#",
            "#0",
            "#-1",
            "#1x",
            "#99999999999999999999999",
            "owner#1",
            "owner/repo/more#1",
            "../repo#1",
            "owner/..#1",
            "owner/re po#1",
            "owner/repo?x=1#1",
            "ow%2fner/repo#1",
            "/repo#1",
            "https://github.com/owner/repo",
            "https://github.com/owner/repo/issues/",
            "https://github.com/owner/repo/wiki/1",
            "https://github.com:x/owner/repo/issues/1",
            "https://user@github.com/owner/repo/issues/1",
            "https:///owner/repo/issues/1",
        ] {
            let refused = Reference::parse(ForgeKind::Issue, text);
            assert!(
                matches!(refused, Err(BadReference::Form { .. })),
                "{text}: {refused:?}"
            );
        }
    }

    #[test]
    fn the_address_of_the_other_kind_is_named_as_such() {
        let pull = "https://github.com/owner/repo/pull/4";
        let refused = Reference::parse(ForgeKind::Issue, pull).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("`{pull}` is the address of a pull request")
        );
        let issue = pull.replace("pull", "issues");
        let refused = Reference::parse(ForgeKind::Pr, &issue).unwrap_err();
        assert!(refused.to_string().ends_with("of an issue"), "{refused}");
    }

    #[test]
    fn the_place_of_a_remote_is_read_from_every_usual_address() {
        for (host, address) in [
            ("github.com", "https://github.com/owner/re.po-1.git"),
            ("github.com", "https://user:pass@github.com/owner/re.po-1/"),
            ("github.com", "git@github.com:owner/re.po-1.git"),
            ("github.com", "ssh://git@github.com:22/owner/re.po-1"),
            (
                "forge.example:8443",
                "https://forge.example:8443/owner/re.po-1",
            ),
        ] {
            assert_eq!(Place::of_remote(address), place(host), "{address}");
        }
        for address in [
            "/srv/git/re.po-1.git",
            "../owner/repo",
            "host/owner/repo",
            "file:///srv/owner/repo",
            "https://github.com/repo",
            "https://github.com/group/owner/repo",
        ] {
            assert_eq!(Place::of_remote(address), None, "{address}");
        }
    }

    #[test]
    fn a_place_is_shown_as_people_write_it() {
        let shown = |host| place(host).unwrap().to_string();
        assert_eq!(shown(DEFAULT_HOST), "owner/re.po-1");
        assert_eq!(shown("forge.example"), "forge.example/owner/re.po-1");
    }

    #[test]
    fn a_cut_text_says_how_much_is_missing_and_stays_text() {
        assert_eq!(cut("four", 4), "four");
        assert_eq!(cut("fours", 4), "four\n[cut here: 1 more bytes]");
        assert_eq!(cut("aé", 2), "a\n[cut here: 2 more bytes]");
    }
}
