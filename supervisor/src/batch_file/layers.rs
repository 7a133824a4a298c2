//! Which value counts: built in, then the user's file, then included files, then the batch file.

use std::collections::BTreeMap;

use super::decode::{At, FromNode, Keys, entries, refuse_key};
use super::error::{Place, Sink};
use super::files::{FileText, Files};
use super::low::{
    AccountKeys, AgentKeys, BatchKeys, Common, IncludeKeys, RetryKeys, TaskLimitKeys, UserKeys,
};
use super::low_repo::{HookKeys, ReviewKeys};
use super::parse::parse;
use super::scalars::{List, Named, Text};
use super::tree::Node;

/// Deepest chain of included files.
const INCLUDE_MAX: usize = 16;

/// Agents, accounts and defaults after layering.
#[derive(Debug, Default)]
pub(super) struct Layers {
    /// Agents by name.
    pub(super) agents: BTreeMap<String, At<AgentKeys>>,
    /// Accounts by name.
    pub(super) accounts: BTreeMap<String, At<AccountKeys>>,
    /// What tasks take over.
    pub(super) defaults: Common,
    /// Commands around the work of every task.
    pub(super) hooks: HookKeys,
    /// The machine's ceiling of live attempts.
    pub(super) ceiling: Option<u32>,
}

/// The batch file read: its own keys, and its tasks still as nodes.
pub(super) struct Top<'n, 'a> {
    /// Its keys.
    pub(super) keys: BatchKeys,
    /// Its tasks, with the place of the key.
    pub(super) tasks: Option<(Place, &'n Node<'a>)>,
}

/// Reads the keys of the batch file; tasks are left for later, one by one.
pub(super) fn read_top<'n, 'a>(node: &'n Node<'a>, sink: &mut Sink) -> Option<Top<'n, 'a>> {
    let mut top = Top {
        keys: BatchKeys::default(),
        tasks: None,
    };
    for entry in entries(node, BatchKeys::WHAT, sink)? {
        if entry.key == "tasks" {
            top.tasks = Some((entry.key_place, &entry.value));
        } else if !top.keys.read_key(entry, sink) {
            let known = &[BatchKeys::KEYS, &["tasks"]];
            top.keys.wrong.push(entry.key.to_string());
            refuse_key(entry, BatchKeys::WHAT, known, BatchKeys::LATER, sink);
        }
    }
    Some(top)
}

impl Layers {
    /// The layers below the batch file's own keys, and those on top.
    pub(super) fn read(
        top: &mut BatchKeys,
        user: Option<&FileText>,
        batch: &FileText,
        files: &mut Files,
        sink: &mut Sink,
    ) -> Self {
        let mut layers = Self::default();
        if let Some(user) = user {
            layers.add_user(user, sink);
        }
        let mut chain = vec![batch.clone()];
        layers.add_includes(top.include.take(), &mut chain, files, sink);
        layers.add_agents(top.agents.take());
        layers.add_accounts(top.accounts.take());
        if let Some(defaults) = top.defaults.take() {
            layers.add_defaults(defaults.value);
        }
        layers.add_hooks(top.hooks.take());
        layers
    }

    fn add_user(&mut self, text: &FileText, sink: &mut Sink) {
        let says_nothing = |line: &str| line.trim().is_empty() || line.starts_with('#');
        if text.content.lines().all(says_nothing) {
            return;
        }
        let node = parse(&text.content, text.source, sink);
        let Some(keys) = node.and_then(|node| UserKeys::from_node(&node, sink)) else {
            return;
        };
        self.add_agents(keys.agents);
        self.add_accounts(keys.accounts);
        self.ceiling = keys.concurrency.map(|number| number.value.unsigned());
    }

    fn add_includes(
        &mut self,
        names: Option<At<List<Text>>>,
        chain: &mut Vec<FileText>,
        files: &mut Files,
        sink: &mut Sink,
    ) {
        let names = names.map_or_else(Vec::new, |list| list.value.0);
        for name in names {
            let Some(text) = files.read_named(&name.value.text, name.place, sink) else {
                continue;
            };
            if let Some(at) = chain.iter().position(|file| file.source == text.source) {
                let steps = chain.len() - at;
                let message = format!("`{}` includes itself after {steps} steps", name.value.text);
                sink.report(name.place, message, "remove one of the `include` lines");
                continue;
            }
            if chain.len() >= INCLUDE_MAX {
                let message = format!("files include each other deeper than {INCLUDE_MAX} levels");
                sink.report(
                    name.place,
                    message,
                    "name the files in the batch file itself",
                );
                continue;
            }
            chain.push(text.clone());
            let node = parse(&text.content, text.source, sink);
            if let Some(keys) = node.and_then(|node| IncludeKeys::from_node(&node, sink)) {
                self.add_includes(keys.include, chain, files, sink);
                self.add_agents(keys.agents);
                self.add_accounts(keys.accounts);
                if let Some(defaults) = keys.defaults {
                    self.add_defaults(defaults.value);
                }
                self.add_hooks(keys.hooks);
            }
            chain.pop();
        }
    }

    fn add_agents(&mut self, agents: Option<At<Named<AgentKeys>>>) {
        self.agents
            .extend(agents.map_or_else(Vec::new, |named| named.value.0));
    }

    fn add_accounts(&mut self, accounts: Option<At<Named<AccountKeys>>>) {
        self.accounts
            .extend(accounts.map_or_else(Vec::new, |named| named.value.0));
    }

    fn add_hooks(&mut self, hooks: Option<At<HookKeys>>) {
        if let Some(hooks) = hooks {
            let below = std::mem::take(&mut self.hooks);
            self.hooks = hooks.value.over(&below);
        }
    }

    fn add_defaults(&mut self, defaults: Common) {
        let below = std::mem::take(&mut self.defaults);
        self.defaults = defaults.over(&below);
    }
}

impl Common {
    /// These values, and those of `below` where this layer says nothing. Variables and environment
    /// are joined name by name; what is to be done (prompt, prompt_file, run) counts as one.
    pub(super) fn over(self, below: &Common) -> Common {
        let act = if self.has_act() { None } else { Some(below) };
        Common {
            prompt: self.prompt.or_else(|| act?.prompt.clone()),
            prompt_file: self.prompt_file.or_else(|| act?.prompt_file.clone()),
            agent: match self.run {
                Some(_) => self.agent,
                None => self.agent.or_else(|| below.agent.clone()),
            },
            run: self.run.or_else(|| act?.run.clone()),
            repo: self.repo.or_else(|| below.repo.clone()),
            touches: self.touches.or_else(|| below.touches.clone()),
            touches_enforce: self
                .touches_enforce
                .or_else(|| below.touches_enforce.clone()),
            outputs: self.outputs.or_else(|| below.outputs.clone()),
            changes: self.changes.or_else(|| below.changes.clone()),
            review: review_over(self.review, below.review.as_ref()),
            comment: self.comment.or_else(|| below.comment.clone()),
            verify: self.verify.or_else(|| below.verify.clone()),
            priority: self.priority.or_else(|| below.priority.clone()),
            retry: retry_over(self.retry, below.retry.as_ref()),
            attempts: self.attempts.or_else(|| below.attempts.clone()),
            timeout: self.timeout.or_else(|| below.timeout.clone()),
            silence: self.silence.or_else(|| below.silence.clone()),
            no_progress: self.no_progress.or_else(|| below.no_progress.clone()),
            env: named_over(self.env, below.env.as_ref()),
            env_from: self.env_from.or_else(|| below.env_from.clone()),
            vars: named_over(self.vars, below.vars.as_ref()),
            limits: limits_over(self.limits, below.limits.as_ref()),
            not_before: self.not_before.or_else(|| below.not_before.clone()),
            on_question: self.on_question.or_else(|| below.on_question.clone()),
            question_timeout: self
                .question_timeout
                .or_else(|| below.question_timeout.clone()),
            wrong: self.wrong,
            containment: self.containment.or_else(|| below.containment.clone()),
            question_default: self
                .question_default
                .or_else(|| below.question_default.clone()),
        }
    }
}

fn named_over<T: Clone>(
    own: Option<At<Named<T>>>,
    below: Option<&At<Named<T>>>,
) -> Option<At<Named<T>>> {
    let (mut own, below) = match (own, below) {
        (Some(own), Some(below)) => (own, below),
        (own, below) => return own.or_else(|| below.cloned()),
    };
    let known = |name: &String| own.value.0.iter().any(|(known, _)| known == name);
    let more: Vec<_> = below
        .value
        .0
        .iter()
        .filter(|(name, _)| !known(name))
        .cloned()
        .collect();
    own.value.0.extend(more);
    Some(own)
}

fn retry_over(own: Option<At<RetryKeys>>, below: Option<&At<RetryKeys>>) -> Option<At<RetryKeys>> {
    let (mut own, below) = match (own, below) {
        (Some(own), Some(below)) => (own, below),
        (own, below) => return own.or_else(|| below.cloned()),
    };
    own.value.backoff = own.value.backoff.or_else(|| below.value.backoff.clone());
    own.value.by_class = own.value.by_class.or_else(|| below.value.by_class.clone());
    Some(own)
}

fn limits_over(
    own: Option<At<TaskLimitKeys>>,
    below: Option<&At<TaskLimitKeys>>,
) -> Option<At<TaskLimitKeys>> {
    let (mut own, below) = match (own, below) {
        (Some(own), Some(below)) => (own, below),
        (own, below) => return own.or_else(|| below.cloned()),
    };
    own.value.turns = own.value.turns.or_else(|| below.value.turns.clone());
    own.value.tokens = own.value.tokens.or_else(|| below.value.tokens.clone());
    own.value.cost_usd = own.value.cost_usd.or_else(|| below.value.cost_usd.clone());
    own.value.memory = own.value.memory.or_else(|| below.value.memory.clone());
    own.value.enforce = own.value.enforce.or_else(|| below.value.enforce.clone());
    Some(own)
}

fn review_over(
    own: Option<At<ReviewKeys>>,
    below: Option<&At<ReviewKeys>>,
) -> Option<At<ReviewKeys>> {
    let (mut own, below) = match (own, below) {
        (Some(own), Some(below)) => (own, below),
        (own, below) => return own.or_else(|| below.cloned()),
    };
    own.value.agent = own.value.agent.or_else(|| below.value.agent.clone());
    own.value.rounds = own.value.rounds.or_else(|| below.value.rounds.clone());
    own.value.prompt = own.value.prompt.or_else(|| below.value.prompt.clone());
    Some(own)
}
