//! The operator: at random in the storm, patient and helpful in the calm.

use std::sync::Arc;

use protocol::command::SteerMode;
use protocol::ids::QuestionId;
use protocol::report::Receipt;
use supervisor_core::facts::Facts;
use supervisor_core::input::{Input, OperatorCommand, StopStage};
use supervisor_core::machine::{BatchState, MergeState, QuestionState};
use supervisor_core::plan::{RepoIx, RetryMode, TaskIx};
use supervisor_core::reason::TaskReason;

use super::swarm::Fault;
use super::world::{Asker, Pending, Told, World, ms, task_ix};

/// Time between two looks of the operator in the calm, ms.
const TEND_EVERY: u64 = 120_000;

impl World {
    /// Gives a command, where a supervisor takes it.
    pub(super) fn command(&mut self, command: OperatorCommand) -> Told {
        if self.supervisor.is_none() {
            return Ok(());
        }
        let reply = self.ask(Asker::Operator(command.clone()));
        self.oracle.commanded(reply, &command);
        self.input(Input::Operator { reply, command })
    }

    fn some_tasks(&mut self) -> Vec<TaskIx> {
        let count = self.task_count();
        if self.rng.chance(100) {
            return (0..count).map(task_ix).collect();
        }
        (0..self.rng.range(1, 2))
            .map(|_| task_ix(self.rng.index(count)))
            .collect()
    }

    fn open_questions(&self) -> Vec<QuestionId> {
        let facts = self.supervisor.as_ref().and_then(|it| it.core.facts());
        let questions = facts.map(|facts| &facts.questions).into_iter().flatten();
        let open = questions.filter(|(_, question)| question.state == QuestionState::Open);
        open.map(|(id, _)| *id).collect()
    }

    /// A message, or an answer.
    pub(super) fn steer_or_answer(&mut self) -> Told {
        let open = self.open_questions();
        if self.rng.chance(400) && !open.is_empty() {
            let question = self.rng.pick(&open);
            return self.command(OperatorCommand::Answer {
                question,
                text: "go on".into(),
            });
        }
        if self.rng.chance(50) {
            let question = QuestionId(self.rng.range(1, 9));
            return self.command(OperatorCommand::Answer {
                question,
                text: "a guess".into(),
            });
        }
        let mode = self.rng.pick(&[
            SteerMode::Boundary,
            SteerMode::Boundary,
            SteerMode::Interrupt,
            SteerMode::After,
            SteerMode::Restart,
        ]);
        let long = if self.rng.chance(20) { 70_000 } else { 5 };
        let text: Arc<str> = "x".repeat(long).into();
        let wall = self.clock.now().wall;
        let expires = self
            .rng
            .chance(200)
            .then(|| wall + ms(self.rng.skewed(600_000)));
        let wait = self
            .rng
            .pick(&[None, None, Some(Receipt::Injected), Some(Receipt::Seen)]);
        let tasks = self.some_tasks();
        self.command(OperatorCommand::Steer {
            tasks,
            mode,
            text,
            expires,
            wait,
        })
    }

    /// Anything else.
    pub(super) fn command_something(&mut self) -> Told {
        let tasks = self.some_tasks();
        let whole = self.swarm.stops && self.rng.chance(300);
        let some = (!whole).then(|| tasks.clone());
        let now = self.rng.chance(500);
        let command = match self.rng.below(24) {
            0..=2 => OperatorCommand::Kill {
                tasks,
                grace: ms(self.rng.pick(&[0, 2_000, 10_000])),
            },
            3..=5 => OperatorCommand::Pause { tasks: some, now },
            6..=9 => OperatorCommand::Resume { tasks: some },
            10 => OperatorCommand::Cancel { tasks: some },
            11..=13 => OperatorCommand::Retry {
                tasks,
                mode: self.rng.pick(&[RetryMode::Resume, RetryMode::Fresh]),
                attempts: now.then(|| u32::try_from(self.rng.range(1, 5)).unwrap_or(1)),
                note: self.rng.chance(500).then(|| "mind the tests".into()),
            },
            14 | 15 => OperatorCommand::Skip {
                tasks,
                as_done: now,
            },
            20 | 21 if self.swarm.repos > 0 => OperatorCommand::Clean {
                tasks: now.then_some(tasks),
            },
            22 if self.swarm.repos > 0 => OperatorCommand::CleanBuildOutput { tasks },
            23 if self.swarm.repos > 0 => {
                self.met(Fault::BranchMoved);
                let repo = u32::try_from(self.rng.index(self.swarm.repos)).unwrap_or(0);
                self.git.intrude(RepoIx(repo));
                return Ok(());
            }
            16 | 17 if self.swarm.stops => OperatorCommand::Stop(self.rng.pick(&[
                StopStage::Drain,
                StopStage::Drain,
                StopStage::Stop,
                StopStage::Kill,
            ])),
            _ => OperatorCommand::SetConcurrency(u32::try_from(self.rng.range(0, 6)).unwrap_or(1)),
        };
        self.command(command)
    }

    /// The calm: the operator answers, resumes, and starts what has stopped.
    pub(super) fn tend(&mut self) -> Told {
        if self.over {
            return Ok(());
        }
        self.later(TEND_EVERY, Pending::Tend);
        if self.supervisor.is_none() {
            self.later(1_000, Pending::Start);
            return Ok(());
        }
        for question in self.open_questions() {
            self.command(OperatorCommand::Answer {
                question,
                text: "yes".into(),
            })?;
        }
        let Some(facts) = self.supervisor.as_ref().and_then(|it| it.core.facts()) else {
            return Ok(());
        };
        let unresolved = facts.runs.values().any(|run| run.unresolved)
            || facts
                .tasks
                .iter()
                .any(|task| matches!(task.reason, TaskReason::Unresolved(_)));
        let state = facts.batch.state;
        if unresolved && matches!(state, BatchState::Running | BatchState::Paused) {
            // What could not be judged is judged again by the next supervisor.
            return self.command(OperatorCommand::Stop(StopStage::Stop));
        }
        let parked = parked(facts);
        if !parked.is_empty() {
            self.command(again(parked))?;
        }
        if state != BatchState::Stopping {
            return self.command(OperatorCommand::Resume { tasks: None });
        }
        Ok(())
    }
}

/// Tasks whose merges wait for the operator.
pub(super) fn parked(facts: &Facts) -> Vec<TaskIx> {
    let parked = |at: &usize| {
        let merge = facts.tasks[*at].merge.as_ref();
        merge.is_some_and(|merge| merge.state == MergeState::Parked)
    };
    (0..facts.tasks.len()).filter(parked).map(task_ix).collect()
}

/// They are merged again.
pub(super) fn again(tasks: Vec<TaskIx>) -> OperatorCommand {
    OperatorCommand::Retry {
        tasks,
        mode: RetryMode::Resume,
        attempts: None,
        note: None,
    }
}
