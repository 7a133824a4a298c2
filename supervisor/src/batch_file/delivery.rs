//! What a task says of isolation and delivery: review, changes, outputs, and how its worktree is kept
//! to what it may touch.

use std::path::{Component, Path};

use supervisor_core::plan::ReviewSpec;

use super::agents::RUN_AGENT;
use super::decode::{At, was_meant};
use super::error::Place;
use super::low::Common;
use super::low_repo::ReviewKeys;
use super::repos::Lodging;
use super::scalars::Text;
use super::tasks::TaskReader;
use super::template::is_template;
use super::tree::shown;
use super::words::ChangesWord;
use super::work::{Act, TextRef};

/// How often work may be sent back in one attempt, where nobody says.
const ROUNDS: u32 = 2;

/// What becomes of the work of a task.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    /// Whether it must change a file.
    pub(super) changes: bool,
    /// Who judges it.
    pub(super) review: Option<ReviewSpec>,
    /// What the reviewer is told, a template.
    pub(super) review_prompt: Option<TextRef>,
    /// Files to be saved, templates.
    pub(super) outputs: Vec<String>,
    /// Whether a change outside `touches` fails the attempt.
    pub(super) touches_enforce: bool,
}

impl TaskReader<'_> {
    /// What the task says of its delivery; its texts that may be templates go to `texts`.
    pub(super) fn delivery(
        &mut self,
        common: &Common,
        lodging: Lodging,
        act: &Act,
        agent: &str,
        texts: &mut Vec<Text>,
    ) -> Delivery {
        if lodging == Lodging::Folder {
            self.refuse_delivery(common);
            return Delivery::default();
        }
        self.check_resolver(lodging, agent);
        let review = common.review.as_ref();
        let written = common.changes.as_ref().map(|word| word.value);
        Delivery {
            changes: match written {
                Some(ChangesWord::Required) => true,
                Some(ChangesWord::Optional) => false,
                None => !matches!(act, Act::Run(_)),
            },
            review: review.and_then(|review| self.review(review)),
            review_prompt: review
                .and_then(|review| review.value.prompt.as_ref())
                .map(|prompt| {
                    texts.push(prompt.value.clone());
                    TextRef::Inline(prompt.value.text.clone())
                }),
            outputs: self.outputs(common),
            touches_enforce: self.touches_enforce(common),
        }
    }

    /// Keys that are about worktrees, in a task that has none.
    fn refuse_delivery(&mut self, common: &Common) {
        let written = [
            common.repo.as_ref().map(|key| (key.key, "repo")),
            common.review.as_ref().map(|key| (key.key, "review")),
            common.changes.as_ref().map(|key| (key.key, "changes")),
            common.outputs.as_ref().map(|key| (key.key, "outputs")),
            common
                .touches_enforce
                .as_ref()
                .map(|key| (key.key, "touches_enforce")),
        ];
        for (place, key) in written.into_iter().flatten() {
            self.repos.refuse_key(place, key, self.sink);
        }
    }

    /// A conflict of this task's work is resolved by its own agent: it must be able to.
    fn check_resolver(&mut self, lodging: Lodging, agent: &str) {
        let Some(place) = self.repos.own_resolver(lodging) else {
            return;
        };
        let why = if agent == RUN_AGENT {
            "a `run` task has no agent that could resolve a conflict"
        } else if self.agents.plays_prompts(agent) {
            "an agent that plays its prompt as a script can not resolve a conflict"
        } else {
            return;
        };
        let help = "name one that can: `on_conflict: agent` with `agent: NAME`";
        self.sink.report(place, why, help);
    }

    fn review(&mut self, review: &At<ReviewKeys>) -> Option<ReviewSpec> {
        let keys = &review.value;
        let Some(name) = &keys.agent else {
            if !was_meant(&keys.wrong, "agent") {
                let help = "add `agent: NAME`: who judges the work";
                self.sink
                    .report(review.key, "a review without `agent`", help);
            }
            return None;
        };
        let text = &name.value.text;
        let agent = self.agents.find(text, name.place, self.sink)?;
        if agent.prompt_is_script {
            let message = format!("the agent `{}` has no script of its own", shown(text));
            let help = "a reviewer is told what to judge, not what to play: give it a `script`";
            self.sink.report(name.place, message, help);
            return None;
        }
        Some(ReviewSpec {
            agent: self.agents.number(text),
            rounds: keys
                .rounds
                .as_ref()
                .map_or(ROUNDS, |key| key.value.unsigned()),
        })
    }

    fn touches_enforce(&mut self, common: &Common) -> bool {
        let Some(enforce) = common.touches_enforce.as_ref().filter(|key| key.value) else {
            return false;
        };
        if common.touches.is_none() && !was_meant(&common.wrong, "touches") {
            let message = "`touches_enforce` in a task without `touches`";
            let help = "add `touches: [\"src/**\"]`, or remove it";
            self.sink.report(enforce.key, message, help);
        }
        true
    }

    fn outputs(&mut self, common: &Common) -> Vec<String> {
        let mut outputs = Vec::new();
        for output in common.outputs.iter().flat_map(|list| &list.value.0) {
            let text = &output.value.text;
            if !is_template(text) {
                self.check_output(text, output.place);
            }
            if outputs.contains(text) {
                let message = format!("the output `{}` is named twice", shown(text));
                self.sink
                    .report(output.place, message, "remove one of the two");
            }
            outputs.push(text.clone());
        }
        outputs
    }

    /// An output is a file of the worktree, by its own name.
    pub(super) fn check_output(&mut self, path: &str, place: Place) {
        if let Some((message, help)) = output_mistake(path) {
            self.sink.report(place, message, help);
        }
    }
}

/// What is wrong with the path of an output.
pub(super) fn output_mistake(path: &str) -> Option<(String, &'static str)> {
    let named = shown(path);
    let mut parts = Path::new(path).components();
    if path.is_empty() || path.ends_with('/') || path.contains('\0') {
        return Some((
            format!("the output `{named}` names no file"),
            "for example `openapi.json`",
        ));
    }
    if path.starts_with('/') {
        let help = "name it relative to the working folder of the task";
        return Some((format!("the output `{named}` is an absolute path"), help));
    }
    if !parts.all(|part| matches!(part, Component::Normal(name) if name != ".git"))
        || path.split('/').any(|part| part == "." || part.is_empty())
    {
        let help = "write the path as it is, without `.` and `..`, below the working folder";
        return Some((
            format!("the output `{named}` leaves the working folder"),
            help,
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_a_file_below_the_working_folder() {
        for good in ["openapi.json", "a/b.c", "..a", ".github/x", "a b"] {
            assert_eq!(output_mistake(good), None, "{good}");
        }
        for bad in [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            ".git/config",
            "a\0b",
            "..",
        ] {
            assert!(output_mistake(bad).is_some(), "{bad:?}");
        }
    }
}
