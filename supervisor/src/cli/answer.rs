//! `supervisor answer`: the operator's answer to an agent's question.

use protocol::ids::QuestionId;

use crate::cli::error::{CliError, Code};
use crate::cli::open::Shelf;
use crate::cli::target::Target;
use crate::cli::{Io, act};
use crate::control::wire::Want;

const EXAMPLES: &str = "Examples:
  supervisor status --needs-me           shows the questions and their ids
  supervisor answer q1 'use port 8080'
  supervisor answer nightly/q1 yes

Without a live supervisor the answer is queued for the next one.
Exit codes: 0 answered, 6 no such question, 8 it is not open any more.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The question: `q1`, or `BATCH/q1`
    question: Target,
    /// The answer
    text: String,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let (batch, word) = match &args.question {
        Target::Word(word) => (None, word),
        Target::Task { batch, task, .. } => (batch.as_deref(), task),
    };
    let question: QuestionId = word
        .strip_prefix('q')
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| {
            CliError::new(Code::Usage, format!("`{word}` is not a question"))
                .hint("a question is called q1, q2, ...; `supervisor status --needs-me` shows them")
        })?;
    let found = Shelf::open()?.batch(batch)?;
    let text = args.text.clone();
    act::send(&found, Want::Answer { question, text }, None, io)
}
