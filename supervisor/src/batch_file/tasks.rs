//! Tasks as written to tasks as meant: one at a time, so that a large file costs little memory.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use protocol::forge::ForgeKind;
use protocol::ids::TaskId;
use serde_json::Value as Json;
use supervisor_core::plan::TaskSpec;

use super::agents::Agents;
use super::decode::{At, FromNode, was_meant};
use super::error::{Place, Sink, SourceId};
use super::files::Files;
use super::foreach::{self, Items};
use super::graph::Ids;
use super::listed::Lister;
use super::low::{Common, DependencyLow, DependsOn, ForeachKeys, TaskLow};
use super::names;
use super::preview::{Preview, Sight};
use super::repos::{Lodging, Repos};
use super::scalars::{Any, Named, Text};
use super::script::ScriptLow;
use super::template::is_template;
use super::tree::{Node, Style, shown};

/// Most tasks of a batch.
pub(super) const TASKS_MAX: usize = 1_000_000;

/// What tasks of one entry of the file share.
#[derive(Debug)]
pub(super) struct SpecDraft {
    /// What the core needs.
    pub(super) spec: Arc<TaskSpec>,
    /// What must come first, as written.
    pub(super) depends: Vec<DependencyLow>,
    /// Its texts that are templates.
    pub(super) texts: Vec<Text>,
    /// Its prompt, where that is a text of the batch file made of an issue or a pull request.
    pub(super) told: Option<(ForgeKind, Text)>,
    /// Its agent's name.
    pub(super) agent: String,
    /// Where its tasks work.
    pub(super) lodging: Lodging,
    /// Its own variables; kept only where templates need them.
    pub(super) vars: BTreeMap<String, Json>,
    /// Its tasks.
    pub(super) tasks: Range<u32>,
}

/// One task.
#[derive(Debug)]
pub(super) struct TaskDraft {
    /// Its id.
    pub(super) id: TaskId,
    /// Where its id stands.
    pub(super) place: Place,
    /// Which spec.
    pub(super) spec: u32,
    /// Its item as JSON text.
    pub(super) item: Option<Arc<str>>,
    /// Its globs of files.
    pub(super) touches: Arc<[Arc<str>]>,
    /// Files to be saved, relative to its working folder.
    pub(super) outputs: Arc<[Arc<str>]>,
    /// What must come first, where that differs from item to item.
    pub(super) depends: Option<Vec<DependencyLow>>,
}

/// Collects tasks.
pub(super) struct TaskReader<'r> {
    /// What every task takes over.
    pub(super) defaults: Common,
    /// Most memory of any attempt, bytes, by the limits of the batch.
    pub(super) memory_max: Option<u64>,
    /// The working folder.
    pub(super) folder: &'r Path,
    /// Whether a text of the batch itself reads `deps`.
    pub(super) batch_reads_deps: bool,
    /// Agents by name.
    pub(super) agents: &'r mut Agents,
    /// Repositories by name.
    pub(super) repos: &'r mut Repos,
    /// Asks commands for items.
    pub(super) lister: Lister<'r>,
    /// Files read so far.
    pub(super) files: &'r mut Files,
    /// Templates.
    pub(super) preview: &'r mut Preview,
    /// Where mistakes go.
    pub(super) sink: &'r mut Sink,
    /// Ids so far.
    pub(super) ids: Ids,
    /// Specs so far.
    pub(super) specs: Vec<SpecDraft>,
    /// Tasks so far.
    pub(super) tasks: Vec<TaskDraft>,
    /// Texts that tasks share.
    pub(super) texts: Vec<String>,
    /// Numbers of shared texts, by their file.
    pub(super) shared: HashMap<SourceId, u32>,
    /// Scripts that were read already, by their place.
    pub(super) scripts: HashMap<Place, Option<ScriptLow>>,
    nothing: Arc<[Arc<str>]>,
}

impl<'r> TaskReader<'r> {
    pub(super) fn new(
        folder: &'r Path,
        lister: Lister<'r>,
        agents: &'r mut Agents,
        repos: &'r mut Repos,
        files: &'r mut Files,
        preview: &'r mut Preview,
        sink: &'r mut Sink,
    ) -> Self {
        Self {
            defaults: Common::default(),
            memory_max: None,
            folder,
            lister,
            batch_reads_deps: false,
            agents,
            repos,
            files,
            preview,
            sink,
            ids: Ids::default(),
            specs: Vec::new(),
            tasks: Vec::new(),
            texts: Vec::new(),
            shared: HashMap::new(),
            scripts: HashMap::new(),
            nothing: Arc::from([]),
        }
    }

    /// Reads one entry of `tasks`.
    pub(super) fn add(&mut self, node: &Node<'_>) {
        let Some(task) = TaskLow::from_node(node, self.sink) else {
            return;
        };
        let common = task.common.over(&self.defaults);
        let depends = self.depends(task.own.depends_on, task.own.needs);
        let mut texts = Vec::new();
        let own_vars = variables(common.vars.as_ref(), self.sink);
        let lodging = self
            .repos
            .of_task(common.repo.as_ref(), node.place, self.agents, self.sink);
        let (spec, agent) = self.spec(&common, &own_vars, &mut texts, lodging, node.place);
        let told = told(&common, &spec);
        let is_told = |text: &Text| told.as_ref().is_some_and(|(_, it)| it.place == text.place);
        texts.retain(|text| is_template(&text.text) && !is_told(text));
        let number = u32::try_from(self.specs.len()).unwrap_or(u32::MAX);
        let first = self.tasks.len();
        let wrong = [task.own.wrong.as_slice(), &common.wrong].concat();
        let Some(id) = task.own.id else {
            if was_meant(&wrong, "id") {
                return;
            }
            self.sink
                .report(node.place, "a task without `id`", "add `id: some-name`");
            return;
        };
        let items = match self.items(task.own.foreach.as_ref(), &id, lodging) {
            Some(Repeated::For(items)) => items,
            Some(Repeated::Later) => {
                self.ids.expect_like(&id.value.text);
                Vec::new()
            }
            None => return,
        };
        let entry = Entry {
            id: &id.value,
            common: &common,
            depends: &depends,
            vars: &own_vars,
        };
        for item in &items {
            self.task(&entry, item.as_ref(), number);
        }
        let range = index(first)..index(self.tasks.len());
        let vars = if texts.is_empty() && told.is_none() {
            BTreeMap::new()
        } else {
            own_vars
        };
        self.specs.push(SpecDraft {
            spec,
            depends,
            texts,
            told,
            agent,
            lodging,
            vars,
            tasks: range,
        });
    }

    /// What the entry is repeated for: its items, or once for nothing.
    fn items(
        &mut self,
        foreach: Option<&At<ForeachKeys>>,
        id: &At<Text>,
        lodging: Lodging,
    ) -> Option<Repeated> {
        let Some(foreach) = foreach else {
            return Some(Repeated::For(vec![None]));
        };
        if !is_template(&id.value.text) {
            let help = "write a template that tells items apart: \"x-{{ item | slug }}\"";
            let message = "one id for all items of a `foreach`";
            self.sink.report(id.place, message, help);
            return None;
        }
        let folder = self.repos.folder(lodging).unwrap_or(self.folder);
        let with = foreach::Reader {
            folder,
            lister: &mut self.lister,
            files: self.files,
            preview: self.preview,
        };
        Some(match foreach::items(foreach, with, self.sink)? {
            Items::Known(items) => Repeated::For(items.into_iter().map(Some).collect()),
            Items::AtStart => Repeated::Later,
        })
    }

    fn depends(
        &mut self,
        depends_on: Option<At<DependsOn>>,
        needs: Option<At<DependsOn>>,
    ) -> Vec<DependencyLow> {
        if let (Some(_), Some(needs)) = (&depends_on, &needs) {
            let help = "`needs` is another name for `depends_on`: keep one of the two";
            self.sink
                .report(needs.key, "both `depends_on` and `needs`", help);
        }
        depends_on
            .or(needs)
            .map_or_else(Vec::new, |lines| lines.value.0)
    }

    fn task(&mut self, entry: &Entry<'_>, item: Option<&Json>, spec: u32) {
        if self.tasks.len() >= TASKS_MAX {
            let message = format!("more than {TASKS_MAX} tasks");
            self.sink.report(entry.id.place, message, "split the batch");
            return;
        }
        let vars = entry.vars;
        let mut sight = Sight {
            task: None,
            item,
            vars,
            deps: &[],
        };
        let text = if is_template(&entry.id.text) {
            let context = self.preview.context(sight);
            match self.preview.fill(entry.id, &context, item, self.sink) {
                Some(text) => text,
                None => return,
            }
        } else {
            entry.id.text.clone()
        };
        let Some(id) = self.id(&text, entry.id, item) else {
            return;
        };
        sight.task = Some(&id);
        let touches = self.touches(entry.common, sight);
        let outputs = self.saved(entry.common, sight);
        let depends = self.templated(entry.depends, sight);
        let item = item.map(foreach::item_text);
        let place = entry.id.place;
        self.tasks.push(TaskDraft {
            id,
            place,
            spec,
            item,
            touches,
            outputs,
            depends,
        });
    }

    fn id(&mut self, text: &str, written: &Text, item: Option<&Json>) -> Option<TaskId> {
        let of_item = || {
            item.map_or(String::new(), |item| {
                format!(" (item {})", shown(&item.to_string()))
            })
        };
        let id: TaskId = match text.parse() {
            Ok(id) => id,
            Err(error) => {
                let error: protocol::ids::BadId = error;
                let message = format!("`{}` is not a task id{}", shown(text), of_item());
                let rule = error.rule;
                let help = if item.is_some() {
                    format!("use {rule}; the filter `slug` makes a text fit")
                } else {
                    format!("use {rule}")
                };
                self.sink.report(written.place, message, help);
                return None;
            }
        };
        if let Err(first) = self.ids.add(&id) {
            let first = self.tasks.get(first as usize).map(|task| task.place);
            let line = first.map_or(0, |place| place.line);
            if item.is_some() && first == Some(written.place) {
                let message = format!("two items make the same id `{id}`{}", of_item());
                let help = "use more of the item in the id, or remove the repeated item";
                self.sink.report(written.place, message, help);
            } else {
                let message = format!("the id `{id}` is already taken");
                let help = format!("the first is at line {line}: give this task another id");
                self.sink.report(written.place, message, help);
            }
            return None;
        }
        Some(id)
    }

    fn touches(&mut self, common: &Common, sight: Sight<'_>) -> Arc<[Arc<str>]> {
        let Some(touches) = &common.touches else {
            return Arc::clone(&self.nothing);
        };
        let globs = &touches.value.0;
        let varies = globs.iter().any(|glob| is_template(&glob.value.text));
        let context = if varies {
            self.preview.context(sight)
        } else {
            tera::Context::new()
        };
        let mut filled = Vec::with_capacity(globs.len());
        for glob in globs {
            let Some(text) = self
                .preview
                .fill(&glob.value, &context, sight.item, self.sink)
            else {
                continue;
            };
            if let Err(error) = globset::Glob::new(&text) {
                let message = format!("`{}` is not a glob: {}", shown(&text), error.kind());
                self.sink
                    .report(glob.place, message, "for example `src/parser/**`");
            }
            filled.push(Arc::from(text));
        }
        filled.into()
    }

    /// The outputs of one item.
    fn saved(&mut self, common: &Common, sight: Sight<'_>) -> Arc<[Arc<str>]> {
        let Some(outputs) = common.outputs.as_ref().filter(|_| self.repos.worktrees) else {
            return Arc::clone(&self.nothing);
        };
        let context = self.preview.context(sight);
        let mut filled = Vec::with_capacity(outputs.value.0.len());
        for output in &outputs.value.0 {
            let text = &output.value;
            let path = self.preview.fill(text, &context, sight.item, self.sink);
            let Some(path) = path else {
                continue;
            };
            if is_template(&text.text) {
                self.check_output(&path, output.place);
            }
            filled.push(Arc::from(path));
        }
        filled.into()
    }

    /// The dependencies of one item, where they are templates.
    fn templated(
        &mut self,
        lines: &[DependencyLow],
        sight: Sight<'_>,
    ) -> Option<Vec<DependencyLow>> {
        if !lines.iter().any(|line| is_template(&line.text)) {
            return None;
        }
        let context = self.preview.context(sight);
        let mut filled = Vec::with_capacity(lines.len());
        for line in lines {
            let text = Text {
                text: line.text.clone(),
                place: line.place,
                style: Style::Quoted,
            };
            let text = self.preview.fill(&text, &context, sight.item, self.sink);
            filled.extend(text.map(|text| DependencyLow {
                text,
                ..line.clone()
            }));
        }
        Some(filled)
    }
}

/// What an entry of `tasks` is repeated for.
enum Repeated {
    /// These, or once for nothing.
    For(Vec<Option<Json>>),
    /// What a command lists when the batch starts.
    Later,
}

/// One entry of `tasks`, while its items become tasks.
struct Entry<'e> {
    id: &'e Text,
    common: &'e Common,
    depends: &'e [DependencyLow],
    vars: &'e BTreeMap<String, Json>,
}

/// The text of a prompt that is made of an issue or a pull request, where the batch file has one.
fn told(common: &Common, spec: &TaskSpec) -> Option<(ForgeKind, Text)> {
    let prompt = common.prompt.as_ref().filter(|_| spec.fetch)?;
    let about = prompt.value.about.as_ref().filter(|it| !it.built_in)?;
    Some((about.kind, prompt.value.text.clone()))
}

/// A length as the plan counts.
pub(super) fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// A `vars` map; its names are checked.
pub(super) fn variables(vars: Option<&At<Named<Any>>>, sink: &mut Sink) -> BTreeMap<String, Json> {
    let mut values = BTreeMap::new();
    for (name, value) in vars.iter().flat_map(|vars| &vars.value.0) {
        names::check_variable(name, value.key, sink);
        values.insert(name.clone(), value.value.0.clone());
    }
    values
}
