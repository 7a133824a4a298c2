//! What a TARGET means: `BATCH | [BATCH/]TASK[@ATTEMPT]`, unique prefixes accepted.

use std::str::FromStr;

use protocol::ids::AttemptNo;

use crate::cli::error::{CliError, Code};

/// Candidates named in one message; the rest is counted.
const NAMED_MAX: usize = 8;

/// A target as written; nothing is looked up yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `WORD`: a batch, or a task of the batch that is meant without a name.
    Word(String),
    /// `[BATCH/]TASK[@ATTEMPT]`.
    Task {
        /// The batch, where it was named.
        batch: Option<String>,
        /// The task.
        task: String,
        /// The attempt, where it was named.
        attempt: Option<AttemptNo>,
    },
}

/// A text that is no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not BATCH or [BATCH/]TASK[@ATTEMPT]")]
pub struct BadTarget(String);

impl FromStr for Target {
    type Err = BadTarget;
    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = || BadTarget(text.chars().take(120).collect());
        let (batch, rest) = match text.split_once('/') {
            Some((batch, rest)) => (Some(batch), rest),
            None => (None, text),
        };
        let (task, attempt) = match rest.split_once('@') {
            Some((task, number)) => (task, Some(number.parse().map_err(|_| bad())?)),
            None => (rest, None),
        };
        if task.is_empty() || batch.is_some_and(str::is_empty) || task.contains('/') {
            return Err(bad());
        }
        if batch.is_none() && attempt.is_none() {
            return Ok(Self::Word(task.to_owned()));
        }
        Ok(Self::Task {
            batch: batch.map(str::to_owned),
            task: task.to_owned(),
            attempt,
        })
    }
}

/// What a reader may mean by a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub id: String,
    /// It belongs to the repository (or folder) that the command runs in.
    pub is_here: bool,
    /// It has an outcome.
    pub is_settled: bool,
}

/// The place in `ids` of the one that `word` names: exactly, or by a prefix of only one.
///
/// # Errors
/// Not found (6), naming what there is; ambiguous (7), naming the candidates.
pub fn unique<'a>(
    word: &str,
    kind: &str,
    ids: impl Iterator<Item = &'a str> + Clone,
) -> Result<usize, CliError> {
    if let Some(exact) = ids.clone().position(|id| id == word) {
        return Ok(exact);
    }
    let found: Vec<(usize, &str)> = ids
        .enumerate()
        .filter(|(_, id)| id.starts_with(word))
        .collect();
    match found[..] {
        [(position, _)] => Ok(position),
        [] => Err(CliError::new(
            Code::NotFound,
            format!("no {kind} is called `{word}` or begins with it"),
        )),
        _ => {
            let named = names(found.iter().map(|(_, id)| *id));
            let message = format!("`{word}` is more than one {kind}: {named}");
            Err(CliError::new(Code::Ambiguous, message).hint("name one of them"))
        }
    }
}

/// The batch that is meant when none is named: the only unfinished one here; a finished one where
/// it is the only one at all.
///
/// # Errors
/// Not found (6) when there is none here; ambiguous (7), naming the candidates.
pub fn unnamed(candidates: &[Candidate]) -> Result<usize, CliError> {
    let here = || (0..).zip(candidates).filter(|(_, batch)| batch.is_here);
    let unfinished: Vec<usize> = here()
        .filter(|(_, batch)| !batch.is_settled)
        .map(|(position, _)| position)
        .collect();
    if let [only] = unfinished[..] {
        return Ok(only);
    }
    let all: Vec<usize> = here().map(|(position, _)| position).collect();
    let among = if unfinished.is_empty() {
        &all
    } else {
        &unfinished
    };
    match among[..] {
        [only] => Ok(only),
        [] => Err(
            CliError::new(Code::NotFound, "no batch of this repository is known").hint(
                "name one of `supervisor list`, or start one with `supervisor run batch.yml`",
            ),
        ),
        _ => {
            let named = names(among.iter().map(|&at| candidates[at].id.as_str()));
            let state = if unfinished.is_empty() {
                "finished"
            } else {
                "unfinished"
            };
            let message = format!("more than one {state} batch of this repository: {named}");
            Err(CliError::new(Code::Ambiguous, message).hint("name one of them"))
        }
    }
}

pub(super) fn names<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = ids.len().saturating_sub(NAMED_MAX);
    let mut named: Vec<String> = ids.take(NAMED_MAX).map(str::to_owned).collect();
    if more > 0 {
        named.push(format!("and {more} more"));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(batch: Option<&str>, task: &str, attempt: Option<u32>) -> Target {
        Target::Task {
            batch: batch.map(str::to_owned),
            task: task.to_owned(),
            attempt: attempt.map(AttemptNo),
        }
    }

    #[test]
    fn a_target_is_read_as_the_manual_says() {
        assert_eq!("lexer".parse(), Ok(Target::Word("lexer".to_owned())));
        assert_eq!("b/lexer".parse(), Ok(task(Some("b"), "lexer", None)));
        assert_eq!("b/lexer@2".parse(), Ok(task(Some("b"), "lexer", Some(2))));
        assert_eq!("lexer@2".parse(), Ok(task(None, "lexer", Some(2))));
        for bad in ["", "/", "b/", "/t", "t@", "t@x", "a/b/c", "@1"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_exact_name_wins_over_the_prefix_of_another() {
        let ids = ["lexer", "lexer-2", "parser"];
        assert_eq!(unique("lexer", "task", ids.into_iter()).unwrap(), 0);
        assert_eq!(unique("p", "task", ids.into_iter()).unwrap(), 2);
        let error = unique("lex", "task", ids.into_iter()).unwrap_err();
        assert_eq!(error.code(), Code::Ambiguous);
        assert_eq!(
            error.to_string(),
            "`lex` is more than one task: lexer, lexer-2"
        );
        let error = unique("x", "task", ids.into_iter()).unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
    }

    fn batch(id: &str, is_here: bool, is_settled: bool) -> Candidate {
        Candidate {
            id: id.to_owned(),
            is_here,
            is_settled,
        }
    }

    #[test]
    fn without_a_name_the_only_unfinished_batch_here_is_meant() {
        let far = batch("far", false, false);
        let over = batch("over", true, true);
        let open = batch("open", true, false);
        let other = batch("other", true, false);
        assert_eq!(
            unnamed(&[far.clone(), over.clone(), open.clone()]).unwrap(),
            2
        );
        assert_eq!(unnamed(&[far.clone(), over.clone()]).unwrap(), 1);
        assert_eq!(
            unnamed(&[far]).unwrap_err().code(),
            Code::NotFound,
            "a batch of another repository is never meant"
        );
        let error = unnamed(&[open.clone(), over.clone(), other]).unwrap_err();
        assert_eq!(error.code(), Code::Ambiguous);
        assert!(error.to_string().ends_with("open, other"), "{error}");
        let error = unnamed(&[over.clone(), over]).unwrap_err();
        assert_eq!(error.code(), Code::Ambiguous);
    }

    #[test]
    fn a_long_list_of_candidates_is_cut() {
        let ids: Vec<String> = (0..12).map(|n| format!("m-{n}")).collect();
        let error = unique("m", "task", ids.iter().map(String::as_str)).unwrap_err();
        assert!(error.to_string().ends_with("m-7, and 4 more"), "{error}");
    }
}
