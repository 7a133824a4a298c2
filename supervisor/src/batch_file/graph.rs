//! Dependencies: names and globs to tasks, and the proof that they go in no circle.

use std::collections::HashMap;
use std::rc::Rc;

use globset::Glob;
use protocol::ids::TaskId;
use supervisor_core::plan::{Condition, Dependency, TaskIx};

use super::error::{Place, Sink, nearest};
use super::low::DependencyLow;
use super::tree::shown;

/// Most dependencies of a batch (ten million, 80 MB; a barrier of 3,000 tasks on 3,000).
const EDGES_MAX: usize = 10_000_000;
/// Most circles that are named.
const CYCLES_MAX: usize = 10;
/// Unknown names for which the nearest known one is looked for in a large batch.
const SUGGESTIONS_MAX: usize = 20;

/// The tasks as far as dependencies go.
#[derive(Debug, Default)]
pub(super) struct Ids {
    numbers: HashMap<TaskId, u32>,
    list: Vec<TaskId>,
    sorted: Vec<u32>,
    /// How ids begin that are made of items which are not known yet.
    expected: Vec<String>,
}

impl Ids {
    /// Takes in an id; the number of the task that has it already, if one has.
    pub(super) fn add(&mut self, id: &TaskId) -> Result<(), u32> {
        let number = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        if let Some(first) = self.numbers.get(id) {
            return Err(*first);
        }
        self.numbers.insert(id.clone(), number);
        self.list.push(id.clone());
        Ok(())
    }

    /// Tasks with ids by this template will be there once their items are known.
    pub(super) fn expect_like(&mut self, template: &str) {
        self.expected.push(beginning(template, ['{']).to_owned());
    }

    /// How many entries make such ids.
    pub(super) fn expected(&self) -> usize {
        self.expected.len()
    }

    /// Whether a name or glob may be of a task that is not there yet.
    fn may_come(&self, wanted: &str) -> bool {
        let wanted = beginning(wanted, META);
        let both = |begins: &String| begins.starts_with(wanted) || wanted.starts_with(&**begins);
        self.expected.iter().any(both)
    }

    /// The id of a task.
    pub(super) fn name(&self, number: u32) -> &str {
        self.list.get(number as usize).map_or("", TaskId::as_str)
    }

    /// The tasks whose ids match, in the order of the file.
    fn matching(&mut self, glob: &str) -> Result<Vec<u32>, globset::Error> {
        let matcher = Glob::new(glob)?.compile_matcher();
        if self.sorted.len() != self.list.len() {
            self.sorted = (0..u32::try_from(self.list.len()).unwrap_or(u32::MAX)).collect();
            let list = &self.list;
            self.sorted
                .sort_unstable_by(|a, b| list[*a as usize].cmp(&list[*b as usize]));
        }
        // Only ids with the same beginning are looked at: work does not grow with the batch.
        let pattern = glob.find(META).unwrap_or(glob.len());
        let prefix = &glob[..pattern];
        let list = &self.list;
        let from = self
            .sorted
            .partition_point(|n| list[*n as usize].as_str() < prefix);
        let near = self.sorted[from..].iter().copied();
        let near = near.take_while(|n| list[*n as usize].as_str().starts_with(prefix));
        let mut found: Vec<u32> = near
            .filter(|n| matcher.is_match(list[*n as usize].as_str()))
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}

const META: [char; 5] = ['*', '?', '[', '{', '\\'];

/// A text up to the first of these characters.
fn beginning<const N: usize>(text: &str, ends: [char; N]) -> &str {
    &text[..text.find(ends).unwrap_or(text.len())]
}

/// How little a condition asks for.
fn weakness(condition: Condition) -> u8 {
    match condition {
        Condition::Merged => 0,
        Condition::Done => 1,
        Condition::Finished => 2,
    }
}

/// Turns the lines of `depends_on` into dependencies.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    /// Whether tasks have worktrees.
    worktrees: bool,
    globs: HashMap<String, Rc<[u32]>>,
    edges: usize,
    suggested: usize,
    overflowed: bool,
}

impl Resolver {
    pub(super) fn new(worktrees: bool) -> Self {
        Self {
            worktrees,
            ..Self::default()
        }
    }

    /// The dependencies of the task `own`.
    pub(super) fn resolve(
        &mut self,
        own: u32,
        lines: &[DependencyLow],
        ids: &mut Ids,
        sink: &mut Sink,
    ) -> Box<[Dependency]> {
        let mut found: Vec<Dependency> = Vec::new();
        for line in lines {
            let numbers = self.numbers(own, line, ids, sink);
            self.edges = self.edges.saturating_add(numbers.len());
            if self.edges > EDGES_MAX {
                self.refuse_more(line, sink);
                return Box::default();
            }
            let condition = self.condition(line.condition);
            let edges = numbers.iter().map(|number| Dependency {
                task: TaskIx(*number),
                condition,
            });
            found.extend(edges);
        }
        // Of two conditions on one task the one that asks for more stays.
        found.sort_unstable_by_key(|edge| (edge.task, weakness(edge.condition)));
        found.dedup_by_key(|edge| edge.task);
        found.into()
    }

    /// What a line waits for. Without worktrees there is nothing to merge: then done is all there is.
    fn condition(&self, written: Option<Condition>) -> Condition {
        match (written, self.worktrees) {
            (None | Some(Condition::Merged), true) => Condition::Merged,
            (None | Some(Condition::Merged), false) => Condition::Done,
            (Some(condition @ (Condition::Done | Condition::Finished)), _) => condition,
        }
    }

    fn refuse_more(&mut self, line: &DependencyLow, sink: &mut Sink) {
        if !std::mem::replace(&mut self.overflowed, true) {
            let message = format!("more than {EDGES_MAX} dependencies in this batch");
            let help = "let one task wait for the many, and the others wait for that one";
            sink.report(line.place, message, help);
        }
    }

    fn numbers(
        &mut self,
        own: u32,
        line: &DependencyLow,
        ids: &mut Ids,
        sink: &mut Sink,
    ) -> Rc<[u32]> {
        let Some(number) = line
            .text
            .parse::<TaskId>()
            .ok()
            .and_then(|id| ids.numbers.get(&id))
        else {
            if line.text.contains(META) {
                return self.glob(own, line, ids, sink);
            }
            if !ids.may_come(&line.text) {
                self.unknown(line, ids, sink);
            }
            return Rc::from([]);
        };
        if *number == own {
            let message = format!("the task `{}` depends on itself", line.text);
            sink.report(line.place, message, "remove this dependency");
            return Rc::from([]);
        }
        Rc::from([*number])
    }

    fn glob(
        &mut self,
        own: u32,
        line: &DependencyLow,
        ids: &mut Ids,
        sink: &mut Sink,
    ) -> Rc<[u32]> {
        let all = match self.globs.get(&line.text) {
            Some(known) => Rc::clone(known),
            None => {
                let found = match ids.matching(&line.text) {
                    Ok(found) => found,
                    Err(error) => {
                        let text = shown(&line.text);
                        let message = format!("`{text}` is not a glob: {}", error.kind());
                        sink.report(line.place, message, "for example `build-*`");
                        return Rc::from([]);
                    }
                };
                let found: Rc<[u32]> = found.into();
                self.globs.insert(line.text.clone(), Rc::clone(&found));
                found
            }
        };
        let mut others = all.iter().copied().filter(|number| *number != own);
        if others.clone().next().is_none() && !ids.may_come(&line.text) {
            let message = format!("`{}` matches no other task", shown(&line.text));
            sink.report(
                line.place,
                message,
                "check the ids, or remove this dependency",
            );
        }
        if all.contains(&own) {
            others.by_ref().collect()
        } else {
            all
        }
    }

    fn unknown(&mut self, line: &DependencyLow, ids: &Ids, sink: &mut Sink) {
        let known = ids.list.iter().map(TaskId::as_str);
        self.suggested += 1;
        let near = if self.suggested <= SUGGESTIONS_MAX {
            nearest(&line.text, known)
        } else {
            None
        };
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "name the id of a task of this file, or a glob such as `build-*`".to_owned(),
        };
        sink.report(
            line.place,
            format!("no task is called `{}`", shown(&line.text)),
            help,
        );
    }
}

/// Reports every circle of dependencies (the first [`CYCLES_MAX`]), each named in full.
pub(super) fn refuse_cycles(
    edges: &[Box<[Dependency]>],
    ids: &Ids,
    place_of: &dyn Fn(u32) -> Place,
    sink: &mut Sink,
) {
    for cycle in cycles(edges) {
        // The circle is told from its first task in the file.
        let least = cycle.iter().enumerate().min_by_key(|(_, task)| **task);
        let start = least.map_or(0, |(at, _)| at);
        let turned = cycle[start..].iter().chain(&cycle[..start]);
        let mut names: Vec<&str> = turned.map(|task| ids.name(*task)).collect();
        names.extend(names.first().copied());
        let message = format!("the dependencies go in a circle: {}", names.join(" -> "));
        sink.report(
            place_of(cycle[start]),
            message,
            "remove one of these dependencies",
        );
    }
}

/// Where a task is in the search for circles.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    New,
    OnPath,
    Done,
}

/// Circles in the order they are found, each as a path along `depends_on`.
fn cycles(edges: &[Box<[Dependency]>]) -> Vec<Vec<u32>> {
    let mut marks = vec![Mark::New; edges.len()];
    let mut cycles = Vec::new();
    for root in 0..edges.len() {
        if marks[root] != Mark::New {
            continue;
        }
        // The path from the root, each task with the number of its edges already walked.
        let mut path: Vec<(usize, usize)> = vec![(root, 0)];
        marks[root] = Mark::OnPath;
        while let Some((task, walked)) = path.last_mut() {
            let Some(next) = edges[*task].get(*walked).map(|edge| edge.task.0 as usize) else {
                marks[*task] = Mark::Done;
                path.pop();
                continue;
            };
            *walked += 1;
            match marks[next] {
                Mark::New => {
                    marks[next] = Mark::OnPath;
                    path.push((next, 0));
                }
                Mark::OnPath => {
                    let from = path.iter().position(|(task, _)| *task == next).unwrap_or(0);
                    let number = |task: usize| u32::try_from(task).unwrap_or(u32::MAX);
                    cycles.push(path[from..].iter().map(|(task, _)| number(*task)).collect());
                    if cycles.len() == CYCLES_MAX {
                        return cycles;
                    }
                }
                Mark::Done => {}
            }
        }
    }
    cycles
}
