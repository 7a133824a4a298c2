//! Comments on what a task is about: `comment: {on: [failed, question]}` as written, and what they say.

use protocol::forge::cut;
use serde_json::json;
use supervisor_core::plan::Comments;
use supervisor_core::step::CommentOn;

use super::decode::keys;
use super::error::Sink;
use super::low::Common;
use super::part::Part;
use super::render::RenderError;
use super::scalars::List;
use super::template::{Engine, to_value};
use super::words::CommentWord;

/// Lines of a reason, a question or an answer that are told.
const LINES_MAX: usize = 20;
/// Bytes of it that are told.
const BYTES_MAX: usize = 4 << 10;
/// Answers to choose from that are told.
const OPTIONS_MAX: usize = 20;

/// What a comment says. What agents and programs said stands in blocks of code, indented: nobody is
/// named by it, and nothing in it is a link or a heading.
const TEXT: &str = "\
{% if on == \"question\" -%}
The task `{{ task }}` of the batch `{{ batch }}` waits for an answer. Its agent asks:

{{ said }}
{% if options %}
It may be one of these:

{{ options }}
{% endif %}
Whoever runs the batch answers with `supervisor answer {{ question }} TEXT`. What is written here is not \
read by it.
{% elif on == \"failed\" -%}
The task `{{ task }}` of the batch `{{ batch }}` has failed in attempt {{ attempt }} (`{{ class }}`):

{{ said }}
{% else -%}
The task `{{ task }}` of the batch `{{ batch }}` is done, in attempt {{ attempt }}.
{% if said %}
{{ said }}
{% endif %}{% endif %}";

keys! {
    /// Comments on the issue or pull request that a task is about.
    CommentKeys as "the comments" {
        /// What is told there: `failed`, `question`, `done`. Default: nothing.
        on: List<CommentWord>,
    }
    later { }
}

/// What a task is to tell; it must be about something then.
pub(super) fn comments(common: &Common, about: bool, sink: &mut Sink) -> Comments {
    let Some(comment) = &common.comment else {
        return Comments::default();
    };
    let words = comment.value.on.iter().flat_map(|on| &on.value.0);
    let words: Vec<CommentWord> = words.map(|word| word.value).collect();
    if !about && !words.is_empty() {
        let help = "make the prompt of one (`prompt: {issue: owner/repo#12}`), or write `comment: {on: []}`";
        sink.report(
            comment.key,
            "`comment` without an issue or pull request",
            help,
        );
    }
    let has = |wanted| words.contains(&wanted);
    Comments {
        failed: has(CommentWord::Failed),
        question: has(CommentWord::Question),
        done: has(CommentWord::Done),
    }
}

/// What a comment tells.
#[derive(Debug)]
pub struct Told<'a> {
    /// The task's id.
    pub task: &'a str,
    /// The batch's id.
    pub batch: &'a str,
    /// The attempt's number.
    pub attempt: u32,
    /// What it is about.
    pub on: CommentOn,
    /// The class of the failure.
    pub class: &'a str,
    /// The reason, the question, or what the agent says that it did.
    pub said: &'a str,
    /// Answers to choose from.
    pub options: Vec<&'a str>,
}

impl Told<'_> {
    /// Its text.
    ///
    /// # Errors
    /// [`RenderError`] when the embedded template can not be filled in.
    pub fn text(&self) -> Result<String, RenderError> {
        let (on, question) = match self.on {
            CommentOn::Failed => ("failed", String::new()),
            CommentOn::Done => ("done", String::new()),
            CommentOn::Question(id) => ("question", id.to_string()),
        };
        let options: Vec<&str> = self.options.iter().copied().take(OPTIONS_MAX).collect();
        let values = json!({
            "task": self.task, "batch": self.batch, "attempt": self.attempt, "on": on,
            "question": question, "class": self.class, "said": block(self.said),
            "options": block(&options.join("\n")),
        });
        let mut context = tera::Context::new();
        for (name, value) in values.as_object().into_iter().flatten() {
            context.insert_value(name.clone(), to_value(value));
        }
        let filled = Engine::default().render(TEXT, &context);
        let part = Part::Comment;
        let filled = filled.map_err(|source| RenderError::Template { part, source })?;
        Ok(filled.trim_end().to_owned())
    }
}

/// The first lines of a text as an indented block of code, without what steers a terminal.
fn block(text: &str) -> String {
    let short = cut(text.trim(), BYTES_MAX);
    let mut lines = short.lines();
    let mut shown: Vec<String> = lines.by_ref().take(LINES_MAX).map(indented).collect();
    let left_out = lines.count();
    if left_out > 0 {
        shown.push(indented(&format!("[cut here: {left_out} more lines]")));
    }
    shown.join("\n")
}

fn indented(line: &str) -> String {
    let plain = line.chars().map(|c| if c.is_control() { ' ' } else { c });
    format!("    {}", plain.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::ids::QuestionId;

    fn told(on: CommentOn, said: &str, options: Vec<&str>) -> String {
        let told = Told {
            task: "parse",
            batch: "nightly-1",
            attempt: 2,
            on,
            class: "verify_failed",
            said,
            options,
        };
        told.text().unwrap()
    }

    #[test]
    fn a_failure_is_told_with_its_class_and_the_first_lines_of_its_reason() {
        let long = "@somebody: {{ x }}\n```\n\u{1b}[31m<b>\n".to_owned() + &"more\n".repeat(50);
        let text = told(CommentOn::Failed, &long, Vec::new());
        assert!(text.contains(
            "`parse` of the batch `nightly-1` has failed in attempt 2 (`verify_failed`)"
        ));
        assert!(
            text.contains("\n    @somebody: {{ x }}\n    ```\n     [31m<b>\n    more\n"),
            "{text}"
        );
        assert!(text.ends_with("    [cut here: 33 more lines]"), "{text}");
        let quoted = text.lines().filter(|line| line.contains("more"));
        assert!(quoted.into_iter().all(|line| line.starts_with("    ")));
    }

    #[test]
    fn a_question_is_told_with_its_options_and_the_way_to_answer() {
        let on = CommentOn::Question(QuestionId(3));
        let text = told(on, "Which port?", vec!["80", "8080"]);
        for part in [
            "asks:\n\n    Which port?",
            "\n    80\n    8080\n",
            "`supervisor answer q3 TEXT`",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = told(on, "Which port?", Vec::new());
        assert!(!text.contains("one of these"), "{text}");
    }

    #[test]
    fn an_end_is_told_in_few_words() {
        let text = told(CommentOn::Done, "", Vec::new());
        assert_eq!(
            text,
            "The task `parse` of the batch `nightly-1` is done, in attempt 2."
        );
        let text = told(CommentOn::Done, "all fixed", Vec::new());
        assert!(text.ends_with("\n\n    all fixed"), "{text}");
    }
}
