//! One read from beginning to end.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value as Json;
use supervisor_core::plan::{
    AgentSpec, Dependency, Keep, Limits, MaxFailures, OnFailure, Plan, PlannedTask, Settings,
    SpecIx,
};

use super::agents::{Agents, RUN_AGENT, environment};
use super::decode::{At, was_meant};
use super::error::{Place, Report, Sink, nearest};
use super::files::{FileText, Files};
use super::git_base::{discover, opened};
use super::graph::{Resolver, refuse_cycles};
use super::layers::{Layers, Top, read_top};
use super::listed::{AtStart, Lister, Lists};
use super::low::{BatchKeys, BatchLimitKeys, Common};
use super::names;
use super::parse::parse;
use super::preview::{Preview, Sight};
use super::repo_read::Sources;
use super::reports;
use super::repos::Repos;
use super::scalars::{Failures, Text};
use super::tasks::{SpecDraft, TaskDraft, TaskReader, variables};
use super::template::is_template;
use super::tree::{Node, View, plain_to_json, shown};
use super::work::BatchWork;
use super::{BatchFile, Identity, Request, Source};

/// Live attempts when nobody says how many.
const CONCURRENCY: u32 = 4;
/// Lost runs in a row, without progress, that quarantine a task.
const LOST_MAX: u32 = 25;

/// Reads a batch file and everything that it names. No command is asked for the items of a `foreach`:
/// tasks that are made of them are missing.
///
/// # Errors
/// [`Report`]: every mistake that was found, each with its place and the way out.
pub fn read(request: &Request<'_>) -> Result<BatchFile, Report> {
    read_with(request, &AtStart)
}

/// As [`read`]; `lists` has what the commands print that list the items of a `foreach`.
///
/// # Errors
/// As for [`read`].
pub fn read_with(request: &Request<'_>, lists: &dyn Lists) -> Result<BatchFile, Report> {
    let mut sink = Sink::default();
    let mut files = Files::new(request.current_dir);
    let read = read_all(request, lists, &mut files, &mut sink);
    match read {
        Some(read) if sink.is_clean() => Ok(BatchFile {
            plan: read.plan,
            identity: read.identity,
            inputs: files.into_inputs(),
            at_start: read.at_start,
        }),
        Some(_) | None => Err(sink.into_report()),
    }
}

/// What a text says.
struct Read {
    plan: Plan,
    identity: Identity,
    at_start: usize,
}

fn read_all(
    request: &Request<'_>,
    lists: &dyn Lists,
    files: &mut Files,
    sink: &mut Sink,
) -> Option<Read> {
    let text = match request.source {
        Source::File(path) => files.read_top(path, sink)?,
        Source::Text { name, bytes } => files.add_bytes(name, bytes, sink)?,
    };
    let node = parse(&text.content, text.source, sink)?;
    let Top { mut keys, tasks } = read_top(&node, sink)?;
    let top = Place {
        source: text.source,
        line: 1,
        column: 1,
        length: 1,
    };
    if keys.version.is_none() && !was_meant(&keys.wrong, "version") {
        sink.report(
            top,
            "the file says no version",
            "write `version: 1` on its first line",
        );
    }
    let user = read_user_file(request.user_config, files, sink);
    let layers = Layers::read(&mut keys, user.as_ref(), &text, files, sink);
    let folder = working_folder(&keys, &text, files, sink);
    if folder.to_str().is_none() {
        let message = format!("the working folder {} is not UTF-8", folder.display());
        let help = "paths go to agents and into records as text: rename that folder";
        sink.report_machine(top, message, help);
        return None;
    }
    let root = repository_root(&folder);
    let name = batch_name(&keys, request, sink);
    let mut vars = variables(keys.vars.as_ref(), sink);
    override_vars(&mut vars, request.set, sink);
    let reading = Reading {
        keys: &keys,
        folder: &folder,
        root: root.as_deref(),
        name: &name,
        vars: &vars,
        lists,
        top,
    };
    let (plan, at_start) = reading.plan(request, tasks, layers, files, sink);
    Some(Read {
        plan,
        at_start,
        identity: Identity {
            name,
            root: root.unwrap_or(folder),
        },
    })
}

fn read_user_file(path: Option<&Path>, files: &mut Files, sink: &mut Sink) -> Option<FileText> {
    let path = path?;
    match path.try_exists() {
        Ok(false) => None,
        // What can not be looked at is not the same as absent: reading it says why.
        Ok(true) | Err(_) => files.read_top(path, sink),
    }
}

/// The folder that tasks work in: absolute, links resolved.
fn working_folder(keys: &BatchKeys, text: &FileText, files: &Files, sink: &mut Sink) -> PathBuf {
    let name = keys.repo.as_ref().map_or(".", |repo| &repo.value.text);
    let path = files.resolve(name, text.source);
    match std::fs::canonicalize(&path) {
        Ok(folder) if folder.is_dir() => folder,
        Ok(_) | Err(_) => {
            let place = keys.repo.as_ref().map(|repo| repo.place);
            let place = place.unwrap_or(Place {
                source: text.source,
                line: 0,
                column: 0,
                length: 0,
            });
            let message = format!("the working folder {} does not exist", path.display());
            let help = "`repo` is a path relative to the batch file";
            sink.report_machine(place, message, help);
            path
        }
    }
}

/// Root of the git repository around a folder.
fn repository_root(folder: &Path) -> Option<PathBuf> {
    let git = discover(folder)?;
    let root = opened(folder)
        .ok()
        .and_then(|r| r.workdir().map(Path::to_owned));
    let root = root.unwrap_or(git);
    Some(std::fs::canonicalize(&root).unwrap_or(root))
}

fn batch_name(keys: &BatchKeys, request: &Request<'_>, sink: &mut Sink) -> String {
    if let Some(name) = &keys.name {
        let text = &name.value.text;
        if !names::is_batch_name(text) {
            let message = format!("`{}` is not a batch's name", shown(text));
            let help = format!(
                "use lower-case letters, digits and `-`, for example `{}`",
                names::batch_name_of(text)
            );
            sink.report(name.place, message, help);
        }
        return text.clone();
    }
    let stem = match request.source {
        Source::File(path) => path.file_stem().and_then(OsStr::to_str).unwrap_or("batch"),
        Source::Text { .. } => "stdin",
    };
    names::batch_name_of(stem)
}

/// `--set NAME=VALUE`: only variables that the file has, so that a slip of the pen is seen.
fn override_vars(vars: &mut BTreeMap<String, Json>, set: &[(String, String)], sink: &mut Sink) {
    for (name, value) in set {
        if vars.contains_key(name) {
            vars.insert(name.clone(), plain_to_json(value));
            continue;
        }
        let source = sink.add_text("--set", format!("{name}={value}").into());
        let length = u32::try_from(name.chars().count()).unwrap_or(u32::MAX);
        let place = Place {
            source,
            line: 1,
            column: 1,
            length,
        };
        let help = match nearest(name, vars.keys().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add it to `vars` of the batch file first".to_owned(),
        };
        let message = format!("the batch file has no variable `{}`", shown(name));
        sink.report(place, message, help);
    }
}

/// What is known once the head of the file is read.
struct Reading<'r> {
    keys: &'r BatchKeys,
    folder: &'r Path,
    root: Option<&'r Path>,
    name: &'r str,
    vars: &'r BTreeMap<String, Json>,
    lists: &'r dyn Lists,
    top: Place,
}

impl Reading<'_> {
    fn plan(
        &self,
        request: &Request<'_>,
        tasks: Option<(Place, &Node<'_>)>,
        mut layers: Layers,
        files: &mut Files,
        sink: &mut Sink,
    ) -> (Plan, usize) {
        let mut env_texts = Vec::new();
        let env = environment(self.keys.env.as_ref(), &mut env_texts, sink);
        let env_from = names::env_names(self.keys.env_from.as_ref(), sink);
        env_texts.retain(|text| is_template(&text.text));
        let mut agents = Agents::read(&layers, files, sink);
        let mut preview = Preview::new(self.name, self.vars);
        let defaults = std::mem::take(&mut layers.defaults).over(&self.questions());
        let mut repos = self.repos(&layers, files, &agents, &mut preview, sink);
        let batch_reads_deps = env_texts.iter().any(|text| preview.reads_deps(&text.text));
        let lister = self.lister(&env, &env_from, files);
        let mut reader = TaskReader::new(
            self.folder,
            lister,
            &mut agents,
            &mut repos,
            files,
            &mut preview,
            sink,
        );
        let limits = self.keys.limits.as_ref();
        let memory = limits.and_then(|limits| limits.value.memory.as_ref());
        reader.defaults = defaults;
        reader.batch_reads_deps = batch_reads_deps;
        reader.memory_max = memory.map(|memory| memory.value.0);
        self.read_tasks(tasks, &mut reader);
        let TaskReader {
            mut ids,
            specs,
            tasks,
            texts,
            ..
        } = reader;
        let edges = resolve(&specs, &tasks, repos.worktrees, &mut ids, sink);
        let place_of = |task: u32| cycle_place(task, &specs, &tasks);
        refuse_cycles(&edges, &ids, &place_of, sink);
        let shared = Shared {
            batch: &env_texts,
            agents: &agents,
            repos: &repos,
        };
        check_templates(&shared, &specs, &tasks, &edges, &mut preview, sink);
        self.check_limits(agents.used(), sink);
        let work = BatchWork {
            file: file_name(request.source),
            folder: self.folder.to_owned(),
            env,
            env_from,
            vars: self.vars.clone(),
            worktrees: repos.dir.clone(),
            salvage_ignored: repos.salvage_ignored,
            texts,
        };
        let settings = self.settings(&work, layers.ceiling, repos.keep, sink);
        let plan = assemble(settings, agents, repos, specs, tasks, edges);
        (plan, ids.expected())
    }

    /// What asks commands for items; they see what the batch sets for all that runs. A template may
    /// tell tasks apart, and there are none yet.
    fn lister(
        &self,
        env: &BTreeMap<String, String>,
        env_from: &[String],
        files: &Files,
    ) -> Lister<'_> {
        let plain = env.iter().filter(|(_, value)| !is_template(value));
        Lister {
            lists: self.lists,
            batch: Identity {
                name: self.name.to_owned(),
                root: self.root.unwrap_or(self.folder).to_owned(),
            },
            folder: files.resolve("", self.top.source),
            env: plain
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            env_from: env_from.to_vec(),
            known: HashMap::new(),
        }
    }

    fn repos(
        &self,
        layers: &Layers,
        files: &Files,
        agents: &Agents,
        preview: &mut Preview,
        sink: &mut Sink,
    ) -> Repos {
        let from = Sources {
            keys: self.keys,
            hooks: &layers.hooks,
            folder: self.folder,
            root: self.root,
            top: self.top,
            files,
        };
        Repos::read(&from, agents, preview, sink)
    }

    /// What the batch itself says of questions, as the lowest layer of the defaults.
    fn questions(&self) -> Common {
        Common {
            on_question: self.keys.on_question.clone(),
            question_timeout: self.keys.question_timeout.clone(),
            question_default: self.keys.question_default.clone(),
            ..Common::default()
        }
    }

    fn read_tasks(&self, tasks: Option<(Place, &Node<'_>)>, reader: &mut TaskReader<'_>) {
        const HELP: &str = "a batch has at least one task: `tasks: [{id: hello, run: echo hello}]`";
        let Some((key, node)) = tasks else {
            if !was_meant(&self.keys.wrong, "tasks") {
                reader.sink.report(self.top, "the file has no tasks", HELP);
            }
            return;
        };
        match node.view() {
            View::List([]) => reader
                .sink
                .report(node.place, "the list of tasks is empty", HELP),
            View::List(items) => items.iter().for_each(|item| reader.add(item)),
            View::Broken => {}
            View::Scalar(_) | View::Map(_) => {
                let message = format!("expected a list of tasks, found {}", node.kind());
                reader
                    .sink
                    .report(key, message, "write `- id: ...` for each task");
            }
        }
    }

    fn settings(
        &self,
        work: &BatchWork,
        ceiling: Option<u32>,
        keep: Keep,
        sink: &mut Sink,
    ) -> Settings {
        let keys = self.keys;
        let wanted = keys
            .concurrency
            .as_ref()
            .map_or(CONCURRENCY, |key| key.value.unsigned());
        let (not_before, until) = (keys.not_before.as_ref(), keys.until.as_ref());
        if let (Some(from), Some(to)) = (not_before, until)
            && from.value.0 >= to.value.0
        {
            let help = "no attempt could ever start: let `until` come after `not_before`";
            sink.report(to.place, "`until` is not after `not_before`", help);
        }
        Settings {
            name: self.name.into(),
            concurrency: wanted.min(ceiling.unwrap_or(u32::MAX)).max(1),
            on_failure: keys
                .on_failure
                .as_ref()
                .map_or(OnFailure::SkipDependents, |word| word.value.mean()),
            max_failures: keys
                .max_failures
                .as_ref()
                .map(|failures| match failures.value {
                    Failures::Count(count) => MaxFailures::Count(count),
                    Failures::Percent(percent) => MaxFailures::Percent(percent),
                }),
            not_before: not_before.map(|time| time.value.0),
            until: until.map(|time| time.value.0),
            limits: keys
                .limits
                .as_ref()
                .map_or_else(Limits::default, batch_limits),
            lost_max: LOST_MAX,
            keep,
            work: names::json_text(work),
        }
    }

    /// A limit that an agent in use can not report would never be reached.
    fn check_limits(&self, used: &[AgentSpec], sink: &mut Sink) {
        let Some(limits) = self.keys.limits.as_ref().map(|limits| &limits.value) else {
            return;
        };
        if limits.enforce.is_some() {
            return;
        }
        let written = [
            ("turns", limits.turns.as_ref().map(|key| key.key)),
            ("tokens", limits.tokens.as_ref().map(|key| key.key)),
            ("cost_usd", limits.cost_usd.as_ref().map(|key| key.key)),
        ];
        let agents = used.iter().filter(|agent| &*agent.name != RUN_AGENT);
        let agents = agents.map(|agent| (&*agent.name, agent.kind));
        reports::check(agents, written, sink);
    }
}

fn file_name(source: Source<'_>) -> String {
    match source {
        Source::File(path) => path.display().to_string(),
        Source::Text { name, .. } => name.to_owned(),
    }
}

fn assemble(
    settings: Settings,
    agents: Agents,
    repos: Repos,
    specs: Vec<SpecDraft>,
    tasks: Vec<TaskDraft>,
    edges: Vec<Box<[Dependency]>>,
) -> Plan {
    let (agents, accounts) = agents.into_specs();
    let tasks = tasks
        .into_iter()
        .zip(edges)
        .map(|(task, depends_on)| PlannedTask {
            id: task.id,
            spec: SpecIx(task.spec),
            item: task.item,
            touches: task.touches,
            depends_on,
        });
    let tasks = tasks.collect();
    let specs = specs.into_iter().map(|draft| draft.spec).collect();
    Plan {
        settings,
        agents,
        accounts,
        repos: repos.into_specs(),
        specs,
        tasks,
    }
}

fn batch_limits(limits: &At<BatchLimitKeys>) -> Limits {
    let keys = &limits.value;
    Limits {
        turns: keys.turns.as_ref().map(|key| key.value.0),
        tokens: keys.tokens.as_ref().map(|key| key.value.0),
        cost_micros: keys.cost_usd.as_ref().map(|key| key.value.0),
        wall: keys.wall.as_ref().map(|key| key.value.0),
    }
}

/// The dependencies of every task, in the order of tasks.
fn resolve(
    specs: &[SpecDraft],
    tasks: &[TaskDraft],
    worktrees: bool,
    ids: &mut super::graph::Ids,
    sink: &mut Sink,
) -> Vec<Box<[Dependency]>> {
    let mut resolver = Resolver::new(worktrees);
    let mut edges = Vec::with_capacity(tasks.len());
    for (number, task) in (0u32..).zip(tasks) {
        let shared = specs
            .get(task.spec as usize)
            .map_or(&[][..], |spec| &spec.depends);
        let lines = task.depends.as_deref().unwrap_or(shared);
        edges.push(resolver.resolve(number, lines, ids, sink));
    }
    edges
}

/// Where a task says what it depends on.
fn cycle_place(task: u32, specs: &[SpecDraft], tasks: &[TaskDraft]) -> Place {
    let nowhere = Place {
        source: super::error::SourceId(0),
        line: 0,
        column: 0,
        length: 0,
    };
    let Some(draft) = tasks.get(task as usize) else {
        return nowhere;
    };
    let line = specs
        .get(draft.spec as usize)
        .and_then(|spec| spec.depends.first());
    line.map_or(draft.place, |line| line.place)
}

/// Texts that many tasks share.
struct Shared<'s> {
    batch: &'s [Text],
    agents: &'s Agents,
    repos: &'s Repos,
}

impl<'s> Shared<'s> {
    /// Those that the tasks of this spec use.
    fn of(&self, spec: &SpecDraft) -> impl Iterator<Item = &'s Text> + use<'s> {
        let agent = self.agents.texts_of(&spec.agent).iter();
        let repo = self.repos.texts(spec.lodging).iter();
        self.batch.iter().chain(agent).chain(repo)
    }
}

/// Tries every template with the values of every task that uses it.
fn check_templates(
    shared: &Shared<'_>,
    specs: &[SpecDraft],
    tasks: &[TaskDraft],
    edges: &[Box<[Dependency]>],
    preview: &mut Preview,
    sink: &mut Sink,
) {
    for spec in specs {
        let has_none = spec.texts.is_empty() && spec.told.is_none();
        if has_none && shared.of(spec).next().is_none() {
            continue;
        }
        let range = spec.tasks.start as usize..spec.tasks.end as usize;
        for (task, edges) in tasks[range.clone()].iter().zip(&edges[range]) {
            let item: Option<Json> = task
                .item
                .as_ref()
                .and_then(|item| serde_json::from_str(item).ok());
            let deps: Vec<(&str, &[Arc<str>])> = edges
                .iter()
                .map(|edge| &tasks[edge.task.0 as usize])
                .map(|task| (task.id.as_str(), &*task.outputs))
                .collect();
            let sight = Sight {
                task: Some(&task.id),
                item: item.as_ref(),
                vars: &spec.vars,
                deps: &deps,
            };
            let context = preview.context(sight);
            for text in &spec.texts {
                // The result is of no use yet: only whether there is one.
                drop(preview.fill(text, &context, item.as_ref(), sink));
            }
            if let Some((kind, text)) = &spec.told {
                preview.try_about(text, *kind, &context, item.as_ref(), sink);
            }
            for text in shared.of(spec) {
                preview.try_shared(text, !spec.vars.is_empty(), &context, item.as_ref(), sink);
            }
        }
    }
}
