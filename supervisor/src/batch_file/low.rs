//! The batch file as written: every key with its type and its words of explanation.
//!
//! What is said here is what `supervisor schema` prints. Nothing has a default at this stage.

use std::borrow::Cow;

use protocol::class::Class;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use supervisor_core::plan::{Condition, RetryMode};

use super::about::Prompt;
use super::comment::CommentKeys;
use super::decode::{At, FromNode, entries, keys, read_keys, was_meant};
use super::error::{Place, Sink, nearest};
use super::low_repo::{HookKeys, MergeKeys, RepoKeys, ReviewKeys, WorktreesKeys};
use super::scalars::{
    Any, Backoff, CommandLine, Count, Dollars, Failures, Length, List, ListOrNone, Named, Text,
    Time, Version, Whole, Word,
};
use super::script::ScriptSource;
use super::size::Memory;
use super::tree::{Node, View, shown};
use super::words::{
    AutoResumeWord, ChangesWord, ConditionWord, ContainmentWord, CredentialsWord, EnforceWord,
    FailureWord, FreshnessWord, Isolation, KindWord, ModeWord, PermissionWord, PromptWord,
    QuestionWord,
};

/// Most live attempts of a batch that may be asked for.
pub(super) const CONCURRENCY_MAX: i64 = 10_000;

keys! {
    /// A batch: tasks, their order, and the rules under which they are worked through.
    BatchKeys as "the batch file" {
        /// Version of the format; always 1.
        version: Version,
        /// Name of the batch: lower-case letters, digits and `-`. Default: the file's stem.
        name: Text,
        /// Files with agents, accounts and defaults to take over; this file wins over them, a later
        /// one over an earlier one.
        include: List<Text>,
        /// The working folder, relative to this file. Default: the folder of this file. Worktrees are
        /// made of the git repository that it lies in.
        repo: Text,
        /// Repositories by name, where tasks work in several; each task then names one.
        repos: Named<RepoKeys>,
        /// The branch, tag or commit that worktrees start from. Default: what is checked out. It is
        /// looked up once, when the batch begins.
        base: Text,
        /// What happens when the branch that the batch began with has moved on. Default `warn`.
        freshness: FreshnessWord,
        /// Where tasks work. Default: `worktree` inside a git repository, else `none`.
        isolation: Isolation,
        /// Where worktrees are made, and which of them stay.
        worktrees: WorktreesKeys,
        /// How the work of tasks is merged into the batch branch.
        merge: MergeKeys,
        /// Commands around the work of every task.
        hooks: HookKeys,
        /// Live attempts of the batch at most. Default 4; the user's own limit is the ceiling.
        concurrency: Whole<1, CONCURRENCY_MAX>,
        /// Environment for every agent and command; values are templates.
        env: Named<Word>,
        /// Names of environment variables that are passed on where the supervisor has them.
        env_from: ListOrNone<Text>,
        /// Variables for templates: `{{ vars.NAME }}`.
        vars: Named<Any>,
        /// Values for every task that does not set its own.
        defaults: Common,
        /// The agents that tasks name.
        agents: Named<AgentKeys>,
        /// What agents share: logins and their limits.
        accounts: Named<AccountKeys>,
        /// Limits of the whole batch: when one is reached the batch pauses.
        limits: BatchLimitKeys,
        /// No attempt before this time.
        not_before: Time,
        /// No new attempt from this time on; what runs may finish.
        until: Time,
        /// What a failed task does to the others. Default `skip_dependents`.
        on_failure: FailureWord,
        /// Failed tasks until the batch stops: a number, or a percentage of all tasks.
        max_failures: Failures,
        /// What happens to an agent's question. Default `wait`.
        on_question: QuestionWord,
        /// How long a question waits. Default `4h`.
        question_timeout: Length,
        /// The answer when nobody gives one in time.
        question_default: Text,
    }
    later { "notify" }
}

keys! {
    /// What a task and `defaults` have in common.
    Common as "the defaults" {
        /// What the agent is told; a template. A scripted agent without a script of its own plays
        /// it: a YAML list of steps. Or an issue or a pull request: `{issue: owner/repo#12}`.
        prompt: Prompt,
        /// A file with the prompt, relative to the batch file.
        prompt_file: Text,
        /// A plain command instead of prompt and agent: a text for `sh -c`, or a list of arguments.
        run: CommandLine,
        /// Who does it: a name of `agents`, or `scripted`.
        agent: Text,
        /// The repository it works in: a name of `repos`.
        repo: Text,
        /// Globs of the files it changes: tasks whose globs overlap never run at the same time.
        touches: List<Text>,
        /// Whether a change outside `touches` fails the attempt. Default false.
        touches_enforce: bool,
        /// Files that are saved when it is done, relative to its working folder; templates. Other
        /// tasks read where they are by `{{ deps["id"].outputs["path"] }}`.
        outputs: List<Text>,
        /// Whether an attempt that changes no file has failed. Default `required` for an agent's
        /// work in a worktree, `optional` for `run`.
        changes: ChangesWord,
        /// Another agent that judges the work before it is done.
        review: ReviewKeys,
        /// What is told in a comment on the issue or pull request that it is about. Default: nothing.
        comment: CommentKeys,
        /// Commands that must all exit 0 before the task is done.
        verify: List<VerifyItem>,
        /// Higher starts first. Default 0.
        priority: Whole<{ i32::MIN as i64 }, { i32::MAX as i64 }>,
        /// How a failed attempt is tried again.
        retry: RetryKeys,
        /// Attempts at most. Default 3; those lost to a restart or to a usage limit do not count.
        attempts: Whole<1, 1_000>,
        /// Wall time of one attempt. Default `2h`.
        timeout: Length,
        /// Longest time without a sign of life of the attempt's processes. Default `20m`.
        silence: Length,
        /// Longest time alive, but without anything new. Default `60m`.
        no_progress: Length,
        /// Environment for agent and verify commands; values are templates.
        env: Named<Word>,
        /// Names of environment variables that are passed on where the supervisor has them.
        env_from: ListOrNone<Text>,
        /// Variables for templates, over those of the batch.
        vars: Named<Any>,
        /// Limits over all attempts of the task.
        limits: TaskLimitKeys,
        /// No attempt before this time.
        not_before: Time,
        /// What happens to an agent's question.
        on_question: QuestionWord,
        /// How long a question waits.
        question_timeout: Length,
        /// The answer when nobody gives one in time.
        question_default: Text,
        /// How the process trees of its runs are held together. Default: what its agent says, else
        /// `auto`.
        containment: ContainmentWord,
    }
    later { }
}

keys! {
    /// What only a task has.
    TaskOwn as "a task" {
        /// Its name, unique in the batch: letters, digits, `.`, `_`, `-`; at most 64. With `foreach`
        /// a template: `"check-{{ item | slug }}"`.
        id: Text,
        /// Tasks that come first: a list (globs allowed), or a map with a condition for each.
        depends_on: DependsOn,
        /// The same as `depends_on`.
        needs: DependsOn,
        /// One task for each item, decided when the file is read.
        foreach: ForeachKeys,
    }
    later { }
}

/// One thing to be brought to an outcome.
#[derive(Debug, Clone, Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct TaskLow {
    #[schemars(flatten)]
    pub(super) own: TaskOwn,
    #[schemars(flatten)]
    pub(super) common: Common,
}

impl FromNode for TaskLow {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        use super::decode::{Keys, refuse_key};
        let entries = entries(node, TaskOwn::WHAT, sink)?;
        let mut task = Self::default();
        for entry in entries {
            if !task.own.read_key(entry, sink) && !task.common.read_key(entry, sink) {
                let known = &[TaskOwn::KEYS, Common::KEYS];
                task.common.wrong.push(entry.key.to_string());
                refuse_key(entry, TaskOwn::WHAT, known, Common::LATER, sink);
            }
        }
        Some(task)
    }
}

keys! {
    /// One configured agent.
    AgentKeys as "an agent" {
        /// What drives it.
        kind: KindWord,
        /// Its program, by name or path; each argument follows in `args`.
        program: Text,
        /// Arguments of `program`; each is a template.
        args: ListOrNone<Word>,
        /// Program and arguments in one: a list, or a text for `sh -c`; templates. What the attempt
        /// before has taught is `{{ handoff }}` there and in prompts, empty where there is nothing, and
        /// in the file that `SUPERVISOR_HANDOFF` names, which is set where there is something.
        command: CommandLine,
        /// How the program gets the prompt. Default `argument`.
        prompt_by: PromptWord,
        /// Environment for this agent; values are templates.
        env: Named<Word>,
        /// Names of environment variables that are passed on where the supervisor has them.
        env_from: ListOrNone<Text>,
        /// The account whose limits it shares. Default: its kind.
        account: Text,
        /// Live attempts of this agent at most.
        concurrency: Whole<1, CONCURRENCY_MAX>,
        /// Where the program writes a JSON result, relative to the working folder; a template.
        /// Without it the exit status is the result.
        result_file: Text,
        /// The model; default: the program's own.
        model: Text,
        /// Models to choose from: the next one when one is missing, refuses or stays overloaded.
        models: List<Text>,
        /// The mode of its session, where its wire has modes (`kind: acp`).
        mode: Text,
        /// What it may do without asking. Default `full`.
        permissions: PermissionWord,
        /// Where the program keeps sessions and settings: `task` (a folder of the task, the default),
        /// `shared` (the operator's own) or an absolute path.
        home: Text,
        /// How the operator's login gets into a home that is not shared. Default `copy`.
        credentials: CredentialsWord,
        /// Added to the program's system prompt; a template.
        system_prompt: Text,
        /// Servers of tools that it gets beside the supervisor's own, by name.
        mcp: Named<McpKeys>,
        /// What a scripted agent does: a list of steps, or the name of a file with them.
        script: ScriptSource,
        /// How the process trees of its runs are held together, where the task does not say.
        containment: ContainmentWord,
    }
    later { }
}

keys! {
    /// A server of tools, which the agent program starts (MCP over stdio).
    McpKeys as "a server of tools" {
        /// Program and arguments: a list, or a text for `sh -c`; templates.
        command: CommandLine,
        /// Environment for it beside the agent's; values are templates.
        env: Named<Word>,
    }
    later { }
}

keys! {
    /// What agents share: a login and its limits.
    AccountKeys as "an account" {
        /// Live attempts of all its agents at most.
        concurrency: Whole<1, CONCURRENCY_MAX>,
        /// What happens when a usage limit is over. Default `always`.
        auto_resume: AutoResumeWord,
    }
    later { }
}

keys! {
    /// Limits of the whole batch.
    BatchLimitKeys as "the limits of the batch" {
        /// Turns of all agents.
        turns: Count,
        /// Tokens of all agents, in and out together.
        tokens: Count,
        /// Cost of all agents in US dollars.
        cost_usd: Dollars,
        /// Running time; pauses are not counted.
        wall: Length,
        /// Memory of one attempt, all its processes together: no task may have more.
        memory: Memory,
        /// Allows limits that an agent can not report.
        enforce: EnforceWord,
    }
    later { "disk_free" }
}

keys! {
    /// Limits over all attempts of a task, and of the memory of each.
    TaskLimitKeys as "the limits of a task" {
        /// Turns.
        turns: Count,
        /// Tokens, in and out together.
        tokens: Count,
        /// Cost in US dollars.
        cost_usd: Dollars,
        /// Memory of one attempt, all its processes together.
        memory: Memory,
        /// Allows limits that an agent can not report.
        enforce: EnforceWord,
    }
    later { "disk_free" }
}

keys! {
    /// How a failed attempt is tried again.
    RetryKeys as "retry" {
        /// The first and the longest wait before an attempt. Default `30s..10m`.
        backoff: Backoff,
        /// How the next attempt begins, by outcome class; `stall` stands for `silence` and
        /// `no_progress`.
        by_class: ByClass,
    }
    later { }
}

keys! {
    /// Where the items of a `foreach` come from; exactly one.
    ForeachKeys as "foreach" {
        /// Files below the working folder that match; an item is the file's path.
        glob: Text,
        /// The items themselves.
        items: List<Any>,
        /// A file: `.csv` (a header line; an item is a map), `.jsonl` (one JSON value a line) or
        /// `.txt` (one text a line).
        file: Text,
        /// A command that prints them, run once when the batch starts: a JSON array, one JSON value a
        /// line, or one text a line. A text for `sh -c`, or a list of arguments; templates can use
        /// `vars`. It works in the folder of the batch file.
        command: CommandLine,
        /// Time limit of `command`. Default `10m`.
        timeout: Length,
    }
    later { }
}

keys! {
    /// A command with its own rules.
    VerifyKeys as "a command" {
        /// The command: a text for `sh -c`, or a list of arguments.
        run: CommandLine,
        /// Its time limit. Default `10m`.
        timeout: Length,
        /// Environment for it; values are templates.
        env: Named<Word>,
    }
    later { }
}

/// One command of `verify` or of a hook.
#[derive(Debug, Clone, Default)]
pub(super) struct VerifyItem(pub(super) VerifyKeys);

impl JsonSchema for VerifyItem {
    fn schema_name() -> Cow<'static, str> {
        "VerifyItem".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let short = generator.subschema_for::<CommandLine>();
        let long = generator.subschema_for::<VerifyKeys>();
        json_schema!({"anyOf": [short, long]})
    }
}

impl FromNode for VerifyItem {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        if !matches!(node.view(), View::Map(_)) {
            let value = CommandLine::from_node(node, sink)?;
            let run = Some(At {
                value,
                key: node.place,
                place: node.place,
            });
            return Some(Self(VerifyKeys {
                run,
                ..VerifyKeys::default()
            }));
        }
        let keys: VerifyKeys = read_keys(node, sink)?;
        if keys.run.is_none() && !was_meant(&keys.wrong, "run") {
            let help = "write `{run: \"cargo test\", timeout: 10m}`";
            sink.report(node.place, "a command without `run`", help);
        }
        Some(Self(keys))
    }
}

/// What must come first.
#[derive(Debug, Clone, Default)]
pub(super) struct DependsOn(pub(super) Vec<DependencyLow>);

/// One line of `depends_on`.
#[derive(Debug, Clone)]
pub(super) struct DependencyLow {
    /// An id or a glob; a template when there is `foreach`.
    pub(super) text: String,
    /// Where it stands.
    pub(super) place: Place,
    /// What is waited for, where that is written.
    pub(super) condition: Option<Condition>,
}

impl JsonSchema for DependsOn {
    fn schema_name() -> Cow<'static, str> {
        "DependsOn".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let list = generator.subschema_for::<List<Text>>();
        let condition = generator.subschema_for::<ConditionKeys>();
        let line = json_schema!({"anyOf": [condition, {"const": null}]});
        let map =
            json_schema!({"type": "object", "minProperties": 1, "additionalProperties": line});
        json_schema!({"anyOf": [list, map]})
    }
}

keys! {
    /// What a dependency waits for.
    ConditionKeys as "a dependency" {
        /// Default `merged` where the task has a worktree, else `done`.
        condition: ConditionWord,
    }
    later { }
}

impl FromNode for DependsOn {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let View::Map(entries) = node.view() else {
            let list = List::<Text>::from_node(node, sink)?;
            let lines = list.0.into_iter().map(|item| DependencyLow {
                text: item.value.text,
                place: item.place,
                condition: None,
            });
            return Some(Self(lines.collect()));
        };
        if entries.is_empty() {
            let help = "name at least one task, or remove the key";
            sink.report(node.place, "the map of dependencies is empty", help);
        }
        let mut lines = Vec::with_capacity(entries.len());
        for entry in entries {
            let keys = match entry.value.view() {
                View::Scalar(scalar) if scalar.is_null() => ConditionKeys::default(),
                _ => read_keys(&entry.value, sink).unwrap_or_default(),
            };
            lines.push(DependencyLow {
                text: entry.key.to_string(),
                place: entry.key_place,
                condition: keys.condition.map(|word| word.value.mean()),
            });
        }
        Some(Self(lines))
    }
}

/// Retry rules by outcome class.
#[derive(Debug, Clone, Default)]
pub(super) struct ByClass(pub(super) Vec<(Class, RetryMode)>);

impl JsonSchema for ByClass {
    fn schema_name() -> Cow<'static, str> {
        "ByClass".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mode = generator.subschema_for::<ModeWord>();
        let mut names: Vec<&str> = Class::ALL.iter().map(|class| class.word()).collect();
        names.push("stall");
        json_schema!({
            "type": "object",
            "propertyNames": {"enum": names},
            "additionalProperties": mode
        })
    }
}

impl FromNode for ByClass {
    fn from_node(node: &Node<'_>, sink: &mut Sink) -> Option<Self> {
        let mut rules = Vec::new();
        for entry in entries(node, "retry rules by class", sink)? {
            let classes = classes_of(&entry.key);
            if classes.is_empty() {
                let known = Class::ALL.iter().map(|class| class.word());
                let help = match nearest(&entry.key, known.chain(["stall"])) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "classes are listed in the manual, for example `crash`".to_owned(),
                };
                let message = format!("`{}` is not an outcome class", shown(&entry.key));
                sink.report(entry.key_place, message, help);
            }
            if let Some(mode) = ModeWord::from_node(&entry.value, sink) {
                rules.extend(classes.into_iter().map(|class| (class, mode.mean())));
            }
        }
        Some(Self(rules))
    }
}

fn classes_of(word: &str) -> Vec<Class> {
    if word == "stall" {
        return vec![Class::Silence, Class::NoProgress];
    }
    word.parse().into_iter().collect()
}

keys! {
    /// The user's own file: agents and accounts for every batch, and the machine's ceiling.
    UserKeys as "the user file" {
        /// Version of the format; always 1.
        version: Version,
        /// Agents for every batch; a batch's own agent of the same name wins.
        agents: Named<AgentKeys>,
        /// Accounts for every batch; a batch's own account of the same name wins.
        accounts: Named<AccountKeys>,
        /// Live attempts of one batch at most on this machine, whatever the batch file says.
        concurrency: Whole<1, CONCURRENCY_MAX>,
    }
    later { }
}

keys! {
    /// A file named by `include`.
    IncludeKeys as "an included file" {
        /// Version of the format; always 1.
        version: Version,
        /// Files that this one takes over in turn.
        include: List<Text>,
        /// Values for every task that does not set its own.
        defaults: Common,
        /// Agents.
        agents: Named<AgentKeys>,
        /// Accounts.
        accounts: Named<AccountKeys>,
        /// Commands around the work of every task.
        hooks: HookKeys,
    }
    later { }
}

/// The whole batch file, for the schema alone: tasks are read one by one.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Batch")]
pub(super) struct BatchSchema {
    #[schemars(flatten)]
    _keys: BatchKeys,
    /// The tasks.
    #[schemars(rename = "tasks")]
    _tasks: List<TaskLow>,
}

impl Common {
    /// Whether the task says itself what is to be done.
    pub(super) fn has_act(&self) -> bool {
        self.prompt.is_some() || self.prompt_file.is_some() || self.run.is_some()
    }
}
