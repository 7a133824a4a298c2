//! Records of worktrees that go.

use protocol::ids::Generation;

use super::Apply;
use crate::core::ReplayError;
use crate::facts::{Clean, Salvage};
use crate::plan::TaskIx;
use crate::step::CleanStep;

impl Apply<'_> {
    pub(super) fn clean_moved(
        &mut self,
        ix: TaskIx,
        step: CleanStep,
        kept: Option<&Salvage>,
    ) -> Result<(), ReplayError> {
        let task = self.task(ix)?;
        let over = task.state.is_terminal() && task.worktree.is_some();
        let free = task.clean.as_ref().is_none_or(|clean| clean.run.is_none());
        let before = task.clean.as_ref().map(|clean| clean.step);
        // Room is made in a worktree that stays: nothing follows, and nothing goes before.
        let alone = |one| one == CleanStep::BuildOutput;
        let forward = before.is_none_or(|before| before <= step && alone(before) == alone(step));
        let held = kept.is_none_or(|kept| task.salvaged.contains(kept));
        self.require(over && free, "only the worktree of an ended task goes")?;
        self.require(forward, "a clean-up does not go back")?;
        let fits = held && kept.is_some() == (step == CleanStep::Remove);
        self.require(fits, "a worktree is removed once its salvage is on record")?;
        self.state.index.leave(&self.state.facts, ix);
        let task = self.task(ix)?;
        let runs = match &task.clean {
            Some(clean) if clean.step == step => clean.runs,
            Some(_) | None => 0,
        };
        task.clean = Some(Clean {
            step,
            run: None,
            runs,
            kept: kept.cloned(),
        });
        self.state.index.cleaning.insert(ix);
        self.state.index.arrive(&self.state.facts, ix);
        Ok(())
    }

    pub(super) fn clean_run(
        &mut self,
        ix: TaskIx,
        step: CleanStep,
        generation: Generation,
    ) -> Result<(), ReplayError> {
        let seq = self.entry.seq;
        let clean = self.task(ix)?.clean.as_mut();
        let due = clean.filter(|clean| clean.step == step && clean.run.is_none());
        let Some(clean) = due else {
            return Err(ReplayError::Unknown {
                seq,
                what: "step of a clean-up that is due",
            });
        };
        clean.run = Some(generation);
        clean.runs += 1;
        Ok(())
    }

    pub(super) fn clean_ended(&mut self, ix: TaskIx, removed: bool) -> Result<(), ReplayError> {
        let Some(clean) = &self.task(ix)?.clean else {
            return Err(self.unknown("clean-up"));
        };
        let (free, last) = (clean.run.is_none(), clean.step == CleanStep::Remove);
        self.require(free, "a clean-up ends between two runs")?;
        self.require(last || !removed, "only a removal removes a worktree")?;
        self.state.index.leave(&self.state.facts, ix);
        let task = self.task(ix)?;
        task.clean = None;
        if removed {
            task.worktree = None;
        }
        self.state.index.cleaning.remove(&ix);
        // A task that was opened again in the meantime may begin now.
        self.state.index.arrive(&self.state.facts, ix);
        Ok(())
    }
}
