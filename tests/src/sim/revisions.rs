//! The batch file is edited while the batch goes on: at random, between any two steps, and judged.

use std::collections::BTreeMap;

use protocol::ids::TaskId;
use supervisor_core::core::Core;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::input::OperatorCommand;
use supervisor_core::machine::{BatchState, TaskState};
use supervisor_core::plan::{Condition, Dependency, Plan, Rules, TaskIx};
use supervisor_core::reason::TaskReason;
use supervisor_core::record::Record;
use supervisor_core::revision::{Unfit, compare};

use super::oracle::Oracle;
use super::reached::Reached;
use super::world::{Told, World, broken, task_ix};

/// What a revision does to a task, and where the task is then: each pair must be reached.
pub(super) const REVISIONS: [&str; 9] = [
    "added",
    "changed_waiting",
    "changed_live",
    "changed_over",
    "removed_waiting",
    "removed_live",
    "removed_over",
    "returned",
    "refused",
];

impl World {
    /// An edit of the batch file as it was last, or now and then of the one that it began with.
    pub(super) fn edited(&mut self) -> OperatorCommand {
        let wall = self.clock.now().wall;
        let known = if self.rng.chance(100) {
            self.first_plan.clone()
        } else {
            self.plan.clone()
        };
        self.plan = super::plans::edit(&mut self.rng, known, wall, self.swarm.storm);
        OperatorCommand::Revise(Box::new(self.plan.clone()))
    }

    /// The batch takes an edited file; after that it says what the file says.
    pub(super) fn revise(&mut self) -> Told {
        let command = self.edited();
        self.take_revision(command)
    }

    pub(super) fn take_revision(&mut self, command: OperatorCommand) -> Told {
        let OperatorCommand::Revise(plan) = &command else {
            return self.command(command);
        };
        let plan = plan.clone();
        let facts = self.supervisor.as_ref().and_then(|it| it.core.facts());
        let answer = facts.map(|facts| compare(facts, (*plan).clone()));
        self.command(command)?;
        if let Some(Err(Unfit::Moved { .. })) = answer {
            // The operator puts the file right again.
            self.reached.revision("refused");
            self.plan = self.taken_plan.clone();
            return Ok(());
        }
        self.taken_plan = (*plan).clone();
        let core = self.supervisor.as_ref().map(|it| &it.core);
        core.map_or(Ok(()), |core| says_what_the_file_says(core, &plan))
    }

    /// How many tasks the batch has by now.
    pub(super) fn task_count(&self) -> usize {
        let facts = self.supervisor.as_ref().and_then(|it| it.core.facts());
        facts.map_or(self.plan.tasks.len(), |facts| facts.tasks.len())
    }
}

/// Every task that is not done is under the rules of the file, and no other is.
fn says_what_the_file_says(core: &Core, plan: &Plan) -> Told {
    let Some(facts) = core.facts() else {
        return Ok(());
    };
    let no =
        |id: &TaskId, text: &str| broken("a batch says what its file says", format!("{id} {text}"));
    let file: BTreeMap<&TaskId, usize> = (0..plan.tasks.len())
        .map(|at| (&plan.tasks[at].id, at))
        .collect();
    let mut found = 0;
    for task in &facts.tasks {
        let at = file.get(&task.id);
        found += usize::from(at.is_some());
        if task.state == TaskState::Done {
            continue;
        }
        match at {
            None if !task.removed => return no(&task.id, "is not in it"),
            Some(_) if task.removed => return no(&task.id, "is in it"),
            Some(at) if !same_rules(facts, task, plan, *at) => {
                return no(&task.id, "has other rules");
            }
            None | Some(_) => {}
        }
    }
    if found < file.len() {
        return broken("a batch says what its file says", "a new task is missing");
    }
    if facts.batch.settings != plan.settings || !facts.batch.plan_closed {
        return broken("a batch says what its file says", "its own rules differ");
    }
    Ok(())
}

fn same_rules(facts: &Facts, task: &Task, plan: &Plan, at: usize) -> bool {
    let (rules, planned) = (task.next_rules(), &plan.tasks[at]);
    let (old, new) = (
        &facts.specs[rules.spec.0 as usize],
        &plan.specs[planned.spec.0 as usize],
    );
    let (ours, theirs) = (
        &facts.agents[old.agent.0 as usize],
        &plan.agents[new.agent.0 as usize],
    );
    let account = &facts.accounts[ours.account.0 as usize].spec;
    let mut spec = (**old).clone();
    spec.agent = new.agent;
    if let (Some(ours), Some(theirs)) = (&mut spec.review, new.review) {
        let names = [
            &facts.agents[ours.agent.0 as usize].name,
            &plan.agents[theirs.agent.0 as usize].name,
        ];
        if names[0] == names[1] {
            ours.agent = theirs.agent;
        }
    }
    let mut agent = ours.clone();
    agent.account = theirs.account;
    let old_edges = edges(&rules.depends_on, |ix| &facts.tasks[ix].id);
    let new_edges = edges(&planned.depends_on, |ix| &plan.tasks[ix].id);
    spec == **new
        && agent == *theirs
        && *account == plan.accounts[theirs.account.0 as usize]
        && rules.touches == planned.touches
        && rules.item == planned.item
        && old_edges == new_edges
}

fn edges<'a>(
    depends_on: &[Dependency],
    id: impl Fn(usize) -> &'a TaskId,
) -> Vec<(&'a TaskId, Condition)> {
    let named = depends_on.iter();
    named
        .map(|it| (id(it.task.0 as usize), it.condition))
        .collect()
}

impl Oracle {
    /// A record of a revision, with the state before it.
    pub(super) fn revised(
        &mut self,
        facts: &Facts,
        record: &Record,
        reached: &mut Reached,
    ) -> Told {
        match record {
            Record::PlanRevised(_) => {
                // The operator said something new: what a rule of the old file stopped may go on.
                self.failed_batch = false;
                if matches!(facts.batch.state, BatchState::Done | BatchState::Failed) {
                    self.batch_held = None;
                }
                Ok(())
            }
            Record::PlanExtended { tasks, .. } => {
                if facts.batch.revision > 0 && !tasks.is_empty() {
                    reached.revision("added");
                }
                Ok(())
            }
            Record::TaskRevised { task, rules } => {
                self.task_revised(facts, *task, rules, reached);
                Ok(())
            }
            Record::TaskRemoved { task } => {
                self.held.remove(task);
                let task = &facts.tasks[task.0 as usize];
                reached.revision(match place(task) {
                    Place::Waiting => "removed_waiting",
                    Place::Live => "removed_live",
                    Place::Over => "removed_over",
                });
                if task.state == TaskState::Done {
                    return broken("done stays done", format!("{} is removed", task.id));
                }
                Ok(())
            }
            _other => Ok(()),
        }
    }

    fn task_revised(&mut self, facts: &Facts, ix: TaskIx, rules: &Rules, reached: &mut Reached) {
        let task = &facts.tasks[ix.0 as usize];
        reached.revision(match place(task) {
            Place::Waiting => "changed_waiting",
            Place::Live => "changed_live",
            Place::Over => "changed_over",
        });
        if task.removed && task.reason == TaskReason::Removed {
            reached.revision("returned");
            // Killed while it was out of the file; to put it back is the operator's newest word.
            self.held.remove(&ix);
        }
        let max = facts.specs[rules.spec.0 as usize].attempts;
        if task.consumed + u32::from(task.attempt.is_some()) >= max {
            self.lowered.insert(ix);
        }
    }

    /// An attempt begins under the newest rules, and never for what the file no longer has.
    pub(super) fn begins_under(&mut self, facts: &Facts, ix: TaskIx) -> Told {
        let task = &facts.tasks[ix.0 as usize];
        if task.removed {
            let text = format!("{} starts", task.id);
            return broken("what the file no longer has is not tried", text);
        }
        if task.revised.is_some() {
            let text = format!("{} starts under old rules", task.id);
            return broken("an attempt begins under the newest rules", text);
        }
        let work = facts.batch.settings.work.clone();
        let attempt = task.attempts.next();
        self.began.insert((ix, attempt), (task.rules(), work));
        Ok(())
    }

    /// Whatever was edited meanwhile: an attempt ends under the rules that it began with.
    pub(super) fn ends_under(&self, facts: &Facts, ix: TaskIx) -> Told {
        let task = &facts.tasks[ix.0 as usize];
        let Some((rules, work)) = self.began.get(&(ix, task.attempts)) else {
            return broken("an attempt ends that began", format!("{}", task.id));
        };
        let newest = &facts.batch.settings.work;
        let kept = task.attempt.as_ref().and_then(|it| it.work.as_ref());
        if task.rules() != *rules || kept.unwrap_or(newest) != work {
            return broken("a running attempt keeps its rules", format!("{}", task.id));
        }
        Ok(())
    }
}

enum Place {
    Waiting,
    Live,
    Over,
}

fn place(task: &Task) -> Place {
    match (task.attempt.is_some(), task.state.is_terminal()) {
        (true, _) => Place::Live,
        (false, true) => Place::Over,
        (false, false) => Place::Waiting,
    }
}

/// Leaves tasks out of a plan, with every edge to them.
pub(super) fn without(plan: &mut Plan, stays: &[bool]) {
    let number = |at: usize| stays[..at].iter().filter(|stays| **stays).count();
    let tasks = std::mem::take(&mut plan.tasks);
    let kept = tasks.into_iter().zip(stays).filter(|(_, stays)| **stays);
    plan.tasks = kept
        .map(|(mut task, _)| {
            let edges = task.depends_on.iter();
            let edges = edges.filter(|edge| stays[edge.task.0 as usize]);
            task.depends_on = edges
                .map(|edge| Dependency {
                    task: task_ix(number(edge.task.0 as usize)),
                    condition: edge.condition,
                })
                .collect();
            task
        })
        .collect();
}
