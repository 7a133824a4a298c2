//! A comment that is posted once, as far as that can be known: it is looked for first.

use protocol::forge::{COMMENT_MAX, CommentWork, Place, cut};
use serde::Deserialize;

use super::error::ForgeError;
use super::forge::Forge;

/// Comments of one page: the most that a forge gives.
const PAGE: u64 = 100;
/// Pages in which the comment is looked for, the newest ones.
const PAGES_MAX: u64 = 10;
/// Shortest value of a variable that is taken for a secret, bytes: shorter ones stand in any text.
const SECRET_MIN: usize = 8;
/// What stands for a secret.
const LEFT_OUT: &str = "[left out]";

#[derive(Debug, Deserialize)]
struct ItemLow {
    #[serde(default)]
    comments: u64,
}

#[derive(Debug, Deserialize)]
struct CommentLow {
    body: Option<String>,
    #[serde(default)]
    html_url: String,
}

/// Posts it where no comment has its mark; gives a sentence for people.
///
/// # Errors
/// [`ForgeError`]; it may be there nevertheless, and is found the next time.
pub(super) fn post(
    mut forge: Forge,
    place: &Place,
    work: &CommentWork,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<String, ForgeError> {
    let number = work.about.reference.number;
    let what = format!("{} {place}#{number}", work.about.kind.name());
    // A pull request is an issue as far as its comments go.
    let item = format!("/repos/{}/{}/issues/{number}", place.owner, place.name);
    let comments = format!("{item}/comments");
    if let Some(found) = find(&mut forge, &item, &comments, &work.mark, &what)? {
        return Ok(format!("it is there already: {}", found.html_url));
    }
    let text = cut(&without_secrets(&work.text, environment), COMMENT_MAX);
    let body = serde_json::json!({"body": format!("{text}\n\n{}", work.mark)}).to_string();
    let made: CommentLow = forge.post(&comments, &body, &what)?;
    Ok(format!("posted: {}", made.html_url))
}

/// The comment with this mark, among the newest ones.
fn find(
    forge: &mut Forge,
    item: &str,
    comments: &str,
    mark: &str,
    what: &str,
) -> Result<Option<CommentLow>, ForgeError> {
    let low: ItemLow = forge.json(item, 0, what)?;
    // One more than there are: what came since may be on it.
    let last = low.comments / PAGE + 1;
    let first = last.saturating_sub(PAGES_MAX - 1).max(1);
    for page in (first..=last).rev() {
        let path = format!("{comments}?per_page={PAGE}&page={page}");
        let found: Vec<CommentLow> = forge.json(&path, 0, what)?;
        let has_mark = |it: &CommentLow| it.body.as_deref().is_some_and(|it| it.contains(mark));
        if let Some(comment) = found.into_iter().find(has_mark) {
            return Ok(Some(comment));
        }
    }
    Ok(None)
}

/// The text without the values of variables whose names say that they are secret.
fn without_secrets(text: &str, environment: impl Iterator<Item = (String, String)>) -> String {
    let is_secret = |name: &str| {
        let name = name.to_ascii_uppercase();
        ["TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"]
            .iter()
            .any(|part| name.contains(part))
    };
    let environment = environment.map(|(name, value)| (name, value.trim().to_owned()));
    let secrets = environment.filter(|(name, value)| is_secret(name) && value.len() >= SECRET_MIN);
    secrets.fold(text.to_owned(), |text, (_, value)| {
        text.replace(&value, LEFT_OUT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_by_its_name_is_left_out() {
        let variables = [
            ("API_TOKEN", "abcdefgh1"),
            ("HOME", "/home/op"),
            ("my_key", "short"),
        ];
        let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let told = without_secrets("at /home/op: abcdefgh1, short", owned.into_iter());
        assert_eq!(told, "at /home/op: [left out], short");
    }
}
