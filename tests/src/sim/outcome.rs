//! The judge's rules for how attempts end.

use protocol::class::Class;
use protocol::command::RunKind;
use supervisor_core::facts::Facts;
use supervisor_core::reason::TaskReason;
use supervisor_core::record::{AttemptEnded, Next, StopReason};
use supervisor_core::step::{Purpose, Step};

use super::oracle::{Oracle, RunStory, consumes};
use super::world::{Told, broken};

impl Oracle {
    /// An attempt ends: with the class that its runs give, and done only with their proof.
    pub(super) fn attempt_ended(&mut self, facts: &Facts, ended: &AttemptEnded) -> Told {
        let no = |rule, text: String| broken(rule, format!("t{}: {text}", ended.task.0));
        if ended.consumed != ended.class.is_some_and(consumes) {
            return no(
                "only what the table says consumes an attempt",
                format!("{:?}", ended.class),
            );
        }
        let of = (ended.task, ended.attempt);
        let runs = || {
            self.runs
                .iter()
                .filter(move |(_, run)| (run.task, run.attempt) == of)
        };
        let mine = |kind: RunKind| {
            runs().filter(move |(_, run)| match run.purpose {
                Purpose::Step(step) => step.kind() == kind,
                Purpose::Merge(..) | Purpose::Clean(_) | Purpose::Comment(_) => false,
            })
        };
        let open = facts.tasks[ended.task.0 as usize]
            .attempt
            .as_ref()
            .map(|attempt| attempt.run);
        if open.is_some_and(|run| facts.runs.contains_key(&run)) {
            return no(
                "an attempt ends after its last run",
                format!("{open:?} lives"),
            );
        }
        keeps_hold(facts, ended)?;
        self.ends_under(facts, ended.task)?;
        let spec = facts.tasks[ended.task.0 as usize].spec;
        let spec = &facts.specs[spec.0 as usize];
        let verifies = spec.verify;
        let only_works = !verifies && spec.worktree.is_none() && !spec.hooks.after_run;
        match ended.class {
            None => {
                let counts =
                    |stop: Option<StopReason>| stop.is_none_or(StopReason::late_result_counts);
                let worked = mine(RunKind::Agent)
                    .any(|(_, run)| run.well && (run.first || counts(run.stop)));
                let proven = mine(RunKind::Verify).any(|(_, run)| run.well);
                if !worked || (verifies && !proven) {
                    return no(
                        "I5 done needs a result and its proof",
                        format!("agent {worked}, proof {proven}"),
                    );
                }
            }
            Some(class) => {
                let unproven = mine(RunKind::Verify).next().is_none();
                // Where another step came after the agent's, that one decides.
                let is_last = |run: &RunStory| run.purpose == Purpose::Step(Step::Work);
                let last = runs().next_back().filter(|(_, run)| is_last(run));
                let good = last.filter(|(_, run)| run.first && run.told_well && unproven);
                if let Some((generation, _)) = good
                    && only_works
                {
                    return no(
                        "I6 a result before the stop wins",
                        format!("{class} in spite of run {generation}"),
                    );
                }
                let late = last.filter(|(_, run)| {
                    run.told_well && unproven && run.stop.is_none_or(StopReason::late_result_counts)
                });
                let vanished = matches!(
                    class,
                    Class::Lost
                        | Class::Crash
                        | Class::NoResult
                        | Class::Silence
                        | Class::NoProgress
                        | Class::Timeout
                        | Class::Leftover
                        | Class::Budget
                );
                if let (Some((generation, _)), true) = (late, vanished) {
                    return no(
                        "I6 a durable result counts",
                        format!("{class} in spite of run {generation}"),
                    );
                }
            }
        }
        Ok(())
    }
}

/// What the operator paused while it ran does not go on by itself.
fn keeps_hold(facts: &Facts, ended: &AttemptEnded) -> Told {
    let held = facts.tasks[ended.task.0 as usize].hold;
    let goes_on = match &ended.next {
        Next::Retry { .. } => true,
        Next::Hold { reason, .. } => {
            matches!(
                reason,
                TaskReason::AccountLimited | TaskReason::AccountStopped
            )
        }
        Next::End { .. } => false,
    };
    if held && goes_on {
        return broken(
            "what the operator paused stays paused",
            format!("t{}: {:?}", ended.task.0, ended.next),
        );
    }
    Ok(())
}
