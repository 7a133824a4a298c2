//! An issue or a pull request, put together from the answers of a forge.

use protocol::forge::{
    COMMENTS_MAX, DIFF_MAX, ForgeComment, ForgeItem, ForgeKind, ForgeRemark, ForgeReview,
    ITEM_VERSION, LABELS_MAX, NAME_MAX, Place, PullRequest, TEXT_MAX, cut,
};
use protocol::report::excerpt;
use serde::Deserialize;

use super::error::ForgeError;
use super::forge::{Forge, ITEM_FRESH_MS, LIST_FRESH_MS};

/// Comments of one page: the most that a forge gives.
const PAGE: u64 = 100;
/// Pages of reviews that are looked through for the newest ones: they come oldest first, and nothing
/// says how many there are.
const REVIEW_PAGES_MAX: u64 = 10;
/// The form of a difference.
const DIFF: &str = "application/vnd.github.diff";

/// As the forge tells it; unknown fields are nothing to us.
#[derive(Debug, Deserialize)]
struct ItemLow {
    html_url: String,
    title: String,
    body: Option<String>,
    user: Option<UserLow>,
    state: String,
    #[serde(default)]
    labels: Vec<LabelLow>,
    #[serde(default)]
    comments: u64,
    base: Option<BranchLow>,
    head: Option<BranchLow>,
}

#[derive(Debug, Deserialize)]
struct UserLow {
    login: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum LabelLow {
    Name(String),
    Whole { name: Option<String> },
}

#[derive(Debug, Deserialize)]
struct BranchLow {
    #[serde(rename = "ref")]
    name: String,
}

#[derive(Debug, Deserialize)]
struct CommentLow {
    body: Option<String>,
    user: Option<UserLow>,
    #[serde(default)]
    created_at: String,
}

#[derive(Debug, Deserialize)]
struct ReviewLow {
    body: Option<String>,
    user: Option<UserLow>,
    #[serde(default)]
    state: String,
    submitted_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct RemarkLow {
    body: Option<String>,
    user: Option<UserLow>,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    path: String,
    line: Option<u64>,
}

/// Fetches everything of it.
///
/// # Errors
/// [`ForgeError`]; a part of it is not enough.
pub(super) fn fetch(
    mut forge: Forge,
    place: &Place,
    kind: ForgeKind,
    number: u64,
) -> Result<ForgeItem, ForgeError> {
    let reference = format!("{place}#{number}");
    let what = format!("{} {reference}", kind.name());
    let repo = format!("/repos/{}/{}", place.owner, place.name);
    let path = match kind {
        ForgeKind::Issue => format!("{repo}/issues/{number}"),
        ForgeKind::Pr => format!("{repo}/pulls/{number}"),
    };
    let low: ItemLow = forge.json(&path, ITEM_FRESH_MS, &what)?;
    let comments = format!("{repo}/issues/{number}/comments");
    let comments = newest_comments(&mut forge, &comments, low.comments, &what)?;
    let pull = match kind {
        ForgeKind::Issue => None,
        ForgeKind::Pr => Some(pull_request(&mut forge, &path, &low, &what)?),
    };
    let labels = low.labels.into_iter().filter_map(|label| match label {
        LabelLow::Name(name) => Some(name),
        LabelLow::Whole { name } => name,
    });
    Ok(ForgeItem {
        version: ITEM_VERSION,
        kind,
        reference,
        url: short(&low.html_url),
        number,
        title: short(&low.title),
        body: long(low.body),
        author: author(low.user),
        state: short(&low.state),
        labels: labels.take(LABELS_MAX).map(|name| short(&name)).collect(),
        comments_left_out: low.comments.saturating_sub(comments.len() as u64),
        comments,
        pull,
        warnings: forge.notes,
    })
}

/// The newest of so many comments, in the order in which they were written. The forge gives the oldest
/// first, so these are on the last page, and the one before it.
fn newest_comments(
    forge: &mut Forge,
    path: &str,
    count: u64,
    what: &str,
) -> Result<Vec<ForgeComment>, ForgeError> {
    let mut found: Vec<CommentLow> = Vec::new();
    let last = count.div_ceil(PAGE);
    let first = last.saturating_sub(1).max(1);
    for page in first..=last {
        let path = format!("{path}?per_page={PAGE}&page={page}");
        let more: Vec<CommentLow> = forge.json(&path, LIST_FRESH_MS, what)?;
        found.extend(more);
    }
    let skip = found.len().saturating_sub(COMMENTS_MAX);
    let newest = found.into_iter().skip(skip);
    Ok(newest
        .map(|low| ForgeComment {
            author: author(low.user),
            created: short(&low.created_at),
            body: long(low.body),
        })
        .collect())
}

fn pull_request(
    forge: &mut Forge,
    path: &str,
    low: &ItemLow,
    what: &str,
) -> Result<PullRequest, ForgeError> {
    let branch = |branch: &Option<BranchLow>| branch.as_ref().map(|it| short(&it.name));
    let reviews = reviews(forge, path, what)?;
    let remarks = remarks(forge, path, what)?;
    let diff = forge.text(path, DIFF, what)?;
    if diff.is_none() {
        let note = format!("the difference of {what} is too large for the forge to tell");
        forge.notes.push(note);
    }
    Ok(PullRequest {
        base: branch(&low.base).unwrap_or_default(),
        head: branch(&low.head).unwrap_or_default(),
        reviews,
        remarks,
        diff: cut(&plain(diff.as_deref().unwrap_or_default()), DIFF_MAX),
    })
}

/// The newest reviews, in the order in which they were written.
fn reviews(forge: &mut Forge, path: &str, what: &str) -> Result<Vec<ForgeReview>, ForgeError> {
    let mut found: Vec<ReviewLow> = Vec::new();
    for page in 1..=REVIEW_PAGES_MAX {
        let path = format!("{path}/reviews?per_page={PAGE}&page={page}");
        let more: Vec<ReviewLow> = forge.json(&path, LIST_FRESH_MS, what)?;
        let is_last = (more.len() as u64) < PAGE;
        found.extend(more);
        if is_last {
            break;
        }
        if page == REVIEW_PAGES_MAX {
            let count = PAGE * REVIEW_PAGES_MAX;
            let note = format!("{what} has {count} reviews or more: newer ones are left out");
            forge.notes.push(note);
        }
    }
    let mut reviews: Vec<ForgeReview> = found.into_iter().map(review).collect();
    // What only holds remarks together, and what its author has not sent yet.
    reviews.retain(|it| it.state != "pending" && (it.state != "commented" || !it.body.is_empty()));
    let skip = reviews.len().saturating_sub(COMMENTS_MAX);
    Ok(reviews.split_off(skip))
}

fn review(low: ReviewLow) -> ForgeReview {
    ForgeReview {
        author: author(low.user),
        created: short(&low.submitted_at.unwrap_or_default()),
        state: short(&low.state).to_ascii_lowercase(),
        body: long(low.body),
    }
}

/// The newest remarks on lines, in the order in which they were written.
fn remarks(forge: &mut Forge, path: &str, what: &str) -> Result<Vec<ForgeRemark>, ForgeError> {
    let path = format!("{path}/comments?per_page={PAGE}&sort=created&direction=desc");
    let newest_first: Vec<RemarkLow> = forge.json(&path, LIST_FRESH_MS, what)?;
    let newest = newest_first.into_iter().take(COMMENTS_MAX);
    let mut remarks: Vec<ForgeRemark> = newest
        .map(|low| ForgeRemark {
            author: author(low.user),
            created: short(&low.created_at),
            path: short(&low.path),
            line: low.line,
            body: long(low.body),
        })
        .collect();
    remarks.reverse();
    Ok(remarks)
}

fn author(user: Option<UserLow>) -> String {
    user.map_or_else(String::new, |user| short(&user.login))
}

/// A name or a title: one line.
fn short(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    excerpt(&line, NAME_MAX)
}

fn long(text: Option<String>) -> String {
    cut(&plain(&text.unwrap_or_default()), TEXT_MAX)
}

/// With the line ends of everybody else, and without other control characters: no argument can hold a
/// zero byte, and an escape would steer the terminal that shows it.
fn plain(text: &str) -> String {
    let steers = |c: &char| c.is_control() && !matches!(c, '\n' | '\t');
    let text = text.replace("\r\n", "\n");
    text.chars()
        .map(|c| {
            if steers(&c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}
