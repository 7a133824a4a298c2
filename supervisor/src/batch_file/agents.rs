//! Agents and accounts: what was configured, checked, and numbered as tasks name them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use protocol::command::PromptBy;
use protocol::program::ProgramKind;
use protocol::script::Script;
use supervisor_core::containment::Wish;
use supervisor_core::plan::{AccountIx, AccountSpec, AgentIx, AgentKind, AgentSpec, AutoResume};

use super::decode::{At, was_meant};
use super::error::{Place, Sink, nearest};
use super::files::Files;
use super::layers::Layers;
use super::low::AgentKeys;
use super::names;
use super::parse::parse;
use super::program;
use super::scalars::{Named, Text, Word};
use super::script::{ScriptLow, ScriptSource, read_script};
use super::tree::shown;
use super::words::{AutoResumeWord, KindWord, PromptWord};
use super::work::{AgentWork, CommandDrive, Drive};

/// The agent that carries out `run:` tasks.
pub(super) const RUN_AGENT: &str = "run";
/// The agent that needs no entry.
const SCRIPTED: &str = "scripted";

/// An agent that tasks may name.
#[derive(Debug)]
pub(super) struct Agent {
    /// What drives it.
    pub(super) kind: AgentKind,
    /// Whether a task must have a prompt for it.
    pub(super) needs_prompt: bool,
    /// Whether the task's prompt is its script.
    pub(super) prompt_is_script: bool,
    /// Its texts that are templates.
    pub(super) texts: Vec<Text>,
    /// Its number, once a task named it.
    used: Option<AgentIx>,
    account: String,
    concurrency: Option<u32>,
    containment: Option<Wish>,
    /// The models to choose from, the first one first.
    models: Vec<Arc<str>>,
    work: AgentWork,
}

/// All agents, and those in use in the order of their first use.
#[derive(Debug)]
pub(super) struct Agents {
    known: BTreeMap<String, Agent>,
    accounts: BTreeMap<String, AccountSpec>,
    used: Vec<AgentSpec>,
    used_accounts: Vec<AccountSpec>,
    account_numbers: HashMap<String, AccountIx>,
}

impl Agents {
    /// Checks everything that was configured, in use or not.
    pub(super) fn read(layers: &Layers, files: &mut Files, sink: &mut Sink) -> Self {
        let scripted = Drive::Scripted { script: None };
        let programs = program::found_by_name().map(|adapter| {
            let kind = AgentKind::Program(adapter.kind);
            let name = adapter.kind.word().to_owned();
            (name, built_in(kind, Drive::Program(adapter)))
        });
        let mut agents = Self {
            known: programs
                .chain([
                    (
                        RUN_AGENT.to_owned(),
                        built_in(AgentKind::Command, Drive::Run),
                    ),
                    (SCRIPTED.to_owned(), built_in(AgentKind::Scripted, scripted)),
                ])
                .collect(),
            accounts: accounts(layers, sink),
            used: Vec::new(),
            used_accounts: Vec::new(),
            account_numbers: HashMap::new(),
        };
        for (name, keys) in &layers.agents {
            names::check_word(name, "an agent's name", keys.key, sink);
            if name == RUN_AGENT {
                let message = format!("`{RUN_AGENT}` is the name of the agent of `run:` tasks");
                sink.report(keys.key, message, "choose another name");
                continue;
            }
            if let Some(agent) = read_agent(keys, &agents.accounts, files, sink) {
                agents.known.insert(name.clone(), agent);
            } else {
                // Known, so that the tasks that name it are not reported as well.
                let mut unclear = built_in(AgentKind::Command, Drive::Run);
                unclear.needs_prompt = false;
                agents.known.insert(name.clone(), unclear);
            }
        }
        agents
    }

    /// The agent of this name; an unknown one is reported.
    pub(super) fn find(&self, name: &str, place: Place, sink: &mut Sink) -> Option<&Agent> {
        let found = self.known.get(name).filter(|_| name != RUN_AGENT);
        if found.is_none() {
            let names = self
                .known
                .keys()
                .map(String::as_str)
                .filter(|name| *name != RUN_AGENT);
            let help = match nearest(name, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known agents: {}", names.collect::<Vec<_>>().join(", ")),
            };
            sink.report(place, format!("no agent is called `{}`", shown(name)), help);
        }
        found
    }

    /// The agent that carries out `run:` tasks.
    pub(super) fn texts_of(&self, name: &str) -> &[Text] {
        self.known.get(name).map_or(&[], |agent| &agent.texts)
    }

    /// Whether an agent plays the prompts of its tasks as scripts.
    pub(super) fn plays_prompts(&self, name: &str) -> bool {
        self.known
            .get(name)
            .is_some_and(|agent| agent.prompt_is_script)
    }

    /// How an agent wants the trees of its runs to be held together.
    pub(super) fn containment_of(&self, name: &str) -> Option<Wish> {
        self.known.get(name)?.containment
    }

    /// The number of an agent that exists.
    pub(super) fn number(&mut self, name: &str) -> AgentIx {
        let Some(agent) = self.known.get_mut(name) else {
            return AgentIx(0);
        };
        if let Some(number) = agent.used {
            return number;
        }
        let number = AgentIx(count(self.used.len()));
        agent.used = Some(number);
        let (account_numbers, used_accounts) = (&mut self.account_numbers, &mut self.used_accounts);
        let account = *account_numbers
            .entry(agent.account.clone())
            .or_insert_with(|| {
                let unnamed = AccountSpec {
                    name: agent.account.as_str().into(),
                    concurrency: None,
                    auto_resume: AutoResume::Always,
                };
                used_accounts.push(
                    self.accounts
                        .get(&agent.account)
                        .cloned()
                        .unwrap_or(unnamed),
                );
                AccountIx(count(used_accounts.len() - 1))
            });
        self.used.push(AgentSpec {
            name: name.into(),
            kind: agent.kind,
            account,
            concurrency: agent.concurrency,
            models: agent.models.clone(),
            work: names::json_text(&agent.work),
        });
        number
    }

    /// The kinds of the agents in use.
    pub(super) fn used(&self) -> &[AgentSpec] {
        &self.used
    }

    /// What the plan needs: agents and accounts in use.
    pub(super) fn into_specs(self) -> (Vec<AgentSpec>, Vec<AccountSpec>) {
        (self.used, self.used_accounts)
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn built_in(kind: AgentKind, drive: Drive) -> Agent {
    let account = match kind {
        AgentKind::Command => "command",
        AgentKind::Scripted => SCRIPTED,
        AgentKind::Program(kind) => kind.word(),
    };
    Agent {
        kind,
        needs_prompt: true,
        prompt_is_script: kind == AgentKind::Scripted,
        texts: Vec::new(),
        used: None,
        account: account.to_owned(),
        concurrency: None,
        containment: None,
        models: Vec::new(),
        work: AgentWork {
            drive,
            env: BTreeMap::new(),
            env_from: Vec::new(),
        },
    }
}

fn accounts(layers: &Layers, sink: &mut Sink) -> BTreeMap<String, AccountSpec> {
    let mut accounts = BTreeMap::new();
    for (name, keys) in &layers.accounts {
        names::check_word(name, "an account's name", keys.key, sink);
        let auto_resume = match keys.value.auto_resume.as_ref().map(|word| word.value) {
            Some(AutoResumeWord::Always) | None => AutoResume::Always,
            Some(AutoResumeWord::Ask) => AutoResume::Ask,
            Some(AutoResumeWord::Never) => AutoResume::Never,
        };
        let concurrency = keys
            .value
            .concurrency
            .as_ref()
            .map(|count| count.value.unsigned());
        let spec = AccountSpec {
            name: Arc::from(name.as_str()),
            concurrency,
            auto_resume,
        };
        accounts.insert(name.clone(), spec);
    }
    accounts
}

fn read_agent(
    keys: &At<AgentKeys>,
    accounts: &BTreeMap<String, AccountSpec>,
    files: &mut Files,
    sink: &mut Sink,
) -> Option<Agent> {
    let agent = &keys.value;
    let Some(kind) = &agent.kind else {
        if !was_meant(&agent.wrong, "kind") {
            let help = "add `kind: claude`, `codex`, `pi`, `acp`, `command` or `scripted`";
            sink.report(keys.key, "an agent without `kind`", help);
        }
        return None;
    };
    let mut texts = Vec::new();
    refuse_strangers(agent, kind.value, sink);
    let meaning = kind.value.mean();
    let (drive, needs_prompt) = match meaning {
        AgentKind::Program(kind) => {
            let adapter = program::read(kind, keys, &mut texts, sink);
            (Drive::Program(adapter), true)
        }
        AgentKind::Command => {
            let needs = agent
                .prompt_by
                .as_ref()
                .is_none_or(|by| by.value != PromptWord::None);
            (command(keys, &mut texts, sink)?, needs)
        }
        AgentKind::Scripted => {
            let script = script(keys, &mut texts, files, sink)?;
            let needs = script.is_none() && !was_meant(&agent.wrong, "script");
            (Drive::Scripted { script }, needs)
        }
    };
    let mut built = built_in(meaning, drive);
    built.prompt_is_script = needs_prompt && meaning == AgentKind::Scripted;
    built.needs_prompt = needs_prompt;
    built.containment = agent.containment.as_ref().map(|word| word.value.mean());
    built.models = models(agent, sink);
    built.concurrency = agent
        .concurrency
        .as_ref()
        .map(|count| count.value.unsigned());
    built.account = account(agent, built.account, accounts, sink);
    built.work.env = environment(agent.env.as_ref(), &mut texts, sink);
    built.work.env_from = names::env_names(agent.env_from.as_ref(), sink);
    texts.retain(|text| super::template::is_template(&text.text));
    built.texts = texts;
    Some(built)
}

/// The models that the agent names, by `models` or one by `model`.
fn models(agent: &AgentKeys, sink: &mut Sink) -> Vec<Arc<str>> {
    if let (Some(one), Some(_)) = (&agent.model, &agent.models) {
        let help = "keep `models`, with the first choice first";
        sink.report(one.key, "both `model` and `models`", help);
    }
    let several = agent.models.iter().flat_map(|models| &models.value.0);
    let mut models: Vec<Arc<str>> = Vec::new();
    for model in several.chain(&agent.model) {
        let name = model.value.text.as_str();
        if name.is_empty() {
            sink.report(model.place, "the model's name is empty", "name a model");
        } else if models.iter().any(|known| **known == *name) {
            let message = format!("the model `{}` is named twice", shown(name));
            sink.report(model.place, message, "remove one of the two");
        } else {
            models.push(name.into());
        }
    }
    models
}

fn account(
    agent: &AgentKeys,
    default: String,
    accounts: &BTreeMap<String, AccountSpec>,
    sink: &mut Sink,
) -> String {
    let Some(account) = &agent.account else {
        return default;
    };
    let name = &account.value.text;
    let mut kinds = ProgramKind::ALL.iter().map(|kind| kind.word());
    let is_kind = ["command", SCRIPTED].contains(&name.as_str()) || kinds.any(|kind| kind == name);
    if !accounts.contains_key(name) && !is_kind {
        let known = accounts.keys().map(String::as_str);
        let help = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add it: `accounts: {{{}: {{}}}}`", shown(name)),
        };
        let message = format!("no account is called `{}`", shown(name));
        sink.report(account.place, message, help);
    }
    name.clone()
}

fn command(keys: &At<AgentKeys>, texts: &mut Vec<Text>, sink: &mut Sink) -> Option<Drive> {
    let agent = &keys.value;
    let argv = argv(keys, texts, sink)?;
    let prompt_by = match agent.prompt_by.as_ref().map(|word| word.value) {
        Some(PromptWord::Argument) | None => PromptBy::Argument,
        Some(PromptWord::Stdin) => PromptBy::Stdin,
        Some(PromptWord::File) => PromptBy::File,
        Some(PromptWord::None) => PromptBy::None,
    };
    texts.extend(agent.result_file.as_ref().map(|path| path.value.clone()));
    let result_file = agent
        .result_file
        .as_ref()
        .map(|path| path.value.text.clone());
    Some(Drive::Command(CommandDrive {
        argv,
        prompt_by,
        result_file,
    }))
}

/// Program and arguments of a `kind: command`, from `command` or from `program` and `args`.
fn argv(keys: &At<AgentKeys>, texts: &mut Vec<Text>, sink: &mut Sink) -> Option<Vec<String>> {
    let agent = &keys.value;
    let argv: Vec<String> = match (&agent.command, &agent.program) {
        (Some(command), None) => {
            if let Some(args) = &agent.args {
                let help = "write program and arguments into `command`";
                sink.report(
                    args.key,
                    "`args` goes with `program`, not with `command`",
                    help,
                );
            }
            texts.extend_from_slice(command.value.texts());
            command.value.argv()
        }
        (None, Some(program)) => {
            texts.push(program.value.clone());
            let args = agent.args.iter().flat_map(|args| &args.value.0);
            texts.extend(args.map(|arg| arg.value.0.clone()));
            texts.iter().map(|text| text.text.clone()).collect()
        }
        (Some(command), Some(_)) => {
            let help = "keep one of the two";
            sink.report(command.key, "both `program` and `command`", help);
            return None;
        }
        (None, None) => {
            if !was_meant(&agent.wrong, "command") && !was_meant(&agent.wrong, "program") {
                let message = "an agent of `kind: command` without `command`";
                sink.report(keys.key, message, "add `command: [program, argument]`");
            }
            return None;
        }
    };
    if argv.first().is_some_and(String::is_empty) {
        sink.report(
            keys.key,
            "the program's name is empty",
            "name the program to start",
        );
    }
    Some(argv)
}

/// Reports keys that mean nothing for the agent's kind.
fn refuse_strangers(agent: &AgentKeys, kind: KindWord, sink: &mut Sink) {
    use KindWord::{Acp, Claude, Codex, Command, Pi, Scripted};
    const PROGRAMS: &[KindWord] = &[Claude, Codex, Pi, Acp];
    const STARTED: &[KindWord] = &[Command, Claude, Codex, Pi, Acp];
    fn of<T>(key: Option<&At<T>>) -> Option<Place> {
        key.map(|key| key.key)
    }
    let keys: [(Option<Place>, &str, &[KindWord]); 14] = [
        (of(agent.program.as_ref()), "program", STARTED),
        (of(agent.args.as_ref()), "args", STARTED),
        (of(agent.command.as_ref()), "command", &[Command]),
        (of(agent.prompt_by.as_ref()), "prompt_by", &[Command]),
        (of(agent.result_file.as_ref()), "result_file", &[Command]),
        (of(agent.script.as_ref()), "script", &[Scripted]),
        (of(agent.model.as_ref()), "model", PROGRAMS),
        (of(agent.models.as_ref()), "models", PROGRAMS),
        (of(agent.mode.as_ref()), "mode", &[Acp]),
        (of(agent.permissions.as_ref()), "permissions", PROGRAMS),
        (of(agent.home.as_ref()), "home", PROGRAMS),
        (of(agent.credentials.as_ref()), "credentials", PROGRAMS),
        (of(agent.system_prompt.as_ref()), "system_prompt", PROGRAMS),
        (of(agent.mcp.as_ref()), "mcp", &[Claude, Codex, Acp]),
    ];
    let word = |kind: &KindWord| match kind {
        Command => "command",
        Scripted => "scripted",
        Claude => "claude",
        Codex => "codex",
        Acp => "acp",
        Pi => "pi",
    };
    for (key, name, kinds) in keys {
        let Some(key) = key.filter(|_| !kinds.contains(&kind)) else {
            continue;
        };
        let message = format!("`{name}` means nothing for `kind: {}`", word(&kind));
        let fits: Vec<&str> = kinds.iter().map(word).collect();
        let help = format!("remove it; it belongs to `kind: {}`", fits.join("`, `"));
        sink.report(key, message, help);
    }
}

fn script(
    keys: &At<AgentKeys>,
    texts: &mut Vec<Text>,
    files: &mut Files,
    sink: &mut Sink,
) -> Option<Option<Script>> {
    let agent = &keys.value;
    let low: ScriptLow = match agent.script.as_ref().map(|script| &script.value) {
        None => return Some(None),
        Some(ScriptSource::Steps(low)) => low.clone(),
        Some(ScriptSource::File(path)) => {
            let text = files.read_named(&path.text, path.place, sink)?;
            let node = parse(&text.content, text.source, sink)?;
            read_script(&node, sink)?
        }
    };
    texts.extend(low.texts);
    Some(Some(low.script))
}

/// An `env` map; its names are checked, its values noted as templates.
pub(super) fn environment(
    env: Option<&At<Named<Word>>>,
    texts: &mut Vec<Text>,
    sink: &mut Sink,
) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for (name, word) in env.iter().flat_map(|env| &env.value.0) {
        names::check_env_name(name, word.key, sink);
        texts.push(word.value.0.clone());
        values.insert(name.clone(), word.value.0.text.clone());
    }
    values
}
