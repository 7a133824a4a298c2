//! What the runs of isolation and delivery are told: hooks, proofs of merges, reviewers, resolvers.

use std::collections::BTreeMap;

use protocol::command::{Adapter, VerifyAdapter};
use protocol::git::Oid;
use protocol::ids::BatchId;

use super::delivery::output_mistake;
use super::git_base::check_branch_name;
use super::render::{
    Filling, HookPoint, Part, RenderContext, RenderError, Rendered, Renderer, RepoContext,
    batch_context,
};
use super::told::{self, Resolution, Review};
use super::work::{Act, AgentWork, BatchWork, RepoWork, TaskWork};

impl Renderer {
    /// What a hook run is told. The commands are the repository's, or the batch's own where the run
    /// works in none; there may be none of them.
    ///
    /// # Errors
    /// As for [`Renderer::start`].
    pub fn hook(
        &mut self,
        batch: &BatchWork,
        task: &TaskWork,
        point: HookPoint,
        context: RenderContext<'_>,
    ) -> Result<Rendered, RenderError> {
        let hooks = context.repo.map_or(&task.hooks, |repo| &repo.work.hooks);
        let mut filling = Filling::new(&mut self.engine, batch, task, context);
        let env = filling.environment(None)?;
        let part = |index| Part::Hook(point, index);
        let commands = filling.commands(point.commands(hooks), part)?;
        Ok(Rendered {
            prompt: None,
            env,
            adapter: Adapter::Hook(VerifyAdapter { commands }),
        })
    }

    /// What the proof of a merge is told: the commands of the repository, and its environment. The
    /// task is one of those that are merged.
    ///
    /// # Errors
    /// As for [`Renderer::start`]; [`RenderError::NoWorktree`] without a repository.
    pub fn merge_verify(
        &mut self,
        batch: &BatchWork,
        task: &TaskWork,
        context: RenderContext<'_>,
    ) -> Result<Rendered, RenderError> {
        let repo = needed(context)?;
        let mut filling = Filling::new(&mut self.engine, batch, task, context);
        let env = filling.environment(None)?;
        let commands = filling.commands(&repo.work.verify, Part::MergeVerify)?;
        Ok(Rendered {
            prompt: None,
            env,
            adapter: Adapter::Verify(VerifyAdapter { commands }),
        })
    }

    /// The batch branch of a repository, as the whole name of a ref.
    ///
    /// # Errors
    /// [`RenderError::Template`], [`RenderError::BranchName`] when git would not take it.
    pub fn batch_branch(
        &mut self,
        batch: &BatchWork,
        repo: &RepoWork,
        id: &BatchId,
        name: &str,
    ) -> Result<String, RenderError> {
        let context = batch_context(&batch.vars, id, name);
        let filled = self.engine.render(&repo.into, &context);
        let name = filled.map_err(|source| RenderError::Template {
            part: Part::Into,
            source,
        })?;
        match check_branch_name(&name) {
            Ok(()) => Ok(format!("refs/heads/{name}")),
            Err(refusal) => Err(RenderError::BranchName {
                name,
                why: refusal.message,
            }),
        }
    }

    /// The files that a task saves, relative to its working folder.
    ///
    /// # Errors
    /// [`RenderError::Template`], [`RenderError::BadOutput`].
    pub fn outputs(
        &mut self,
        batch: &BatchWork,
        task: &TaskWork,
        context: RenderContext<'_>,
    ) -> Result<Vec<String>, RenderError> {
        let mut filling = Filling::new(&mut self.engine, batch, task, context);
        let mut outputs = Vec::with_capacity(task.outputs.len());
        for output in &task.outputs {
            let path = filling.fill(output, Part::Output)?;
            if let Some((message, _)) = output_mistake(&path) {
                return Err(RenderError::BadOutput(message));
            }
            outputs.push(path);
        }
        Ok(outputs)
    }

    /// What a reviewer is told. `agent` is the reviewer; `proof` is the end of what the commands
    /// that prove the task said, `None` where there are none; `before` is what was said of the work
    /// when it was sent back.
    ///
    /// # Errors
    /// As for [`Renderer::start`]; [`RenderError::NoWorktree`] without a repository.
    pub fn review(
        &mut self,
        batch: &BatchWork,
        agent: &AgentWork,
        task: &TaskWork,
        proof: Option<&str>,
        before: Option<&str>,
        context: RenderContext<'_>,
    ) -> Result<Rendered, RenderError> {
        let repo = needed(context)?;
        let (Some(base), Some(commit)) = (repo.base, repo.commit) else {
            return Err(RenderError::NoWorktree);
        };
        let mut filling = Filling::new(&mut self.engine, batch, task, context);
        let env = filling.environment(Some(agent))?;
        let asked = match &task.review {
            Some(text) => {
                let text = text.resolve(batch).ok_or(RenderError::NoSuchText)?;
                Some(filling.fill(text, Part::ReviewPrompt)?)
            }
            None => None,
        };
        let work = filling.work(&task.act, batch)?;
        let prompt = told::review(&Review {
            batch: context.batch_name,
            task: context.task,
            work: &work,
            base,
            commit,
            proof,
            before,
            asked: asked.as_deref(),
        });
        let (prompt, adapter) = filling.told(&agent.drive, prompt)?;
        Ok(Rendered {
            prompt,
            env,
            adapter,
        })
    }

    /// The environment of work that no template says anything of.
    ///
    /// # Errors
    /// As for [`Renderer::start`].
    pub fn environment(
        &mut self,
        batch: &BatchWork,
        task: &TaskWork,
        context: RenderContext<'_>,
    ) -> Result<BTreeMap<String, String>, RenderError> {
        Filling::new(&mut self.engine, batch, task, context).environment(None)
    }

    /// What an agent that resolves a conflict is told. `files` are those that conflict, each with
    /// the reason; `packet` is the folder with their three versions.
    ///
    /// # Errors
    /// As for [`Renderer::start`]; [`RenderError::NoWorktree`] without a repository.
    pub fn resolve(
        &mut self,
        batch: &BatchWork,
        agent: &AgentWork,
        task: &TaskWork,
        conflict: Conflict<'_>,
        context: RenderContext<'_>,
    ) -> Result<Rendered, RenderError> {
        let repo = needed(context)?;
        let Some(commit) = repo.commit else {
            return Err(RenderError::NoWorktree);
        };
        let mut filling = Filling::new(&mut self.engine, batch, task, context);
        let env = filling.environment(Some(agent))?;
        let asked = match &repo.work.resolve {
            Some(text) => {
                let text = text.resolve(batch).ok_or(RenderError::NoSuchText)?;
                Some(filling.fill(text, Part::MergePrompt)?)
            }
            None => None,
        };
        let work = filling.work(&task.act, batch)?;
        let prompt = told::resolution(&Resolution {
            batch: context.batch_name,
            task: context.task,
            work: &work,
            tip: conflict.tip,
            commit,
            files: conflict.files,
            packet: conflict.packet,
            proves: !repo.work.verify.is_empty(),
            disproof: conflict.disproof,
            asked: asked.as_deref(),
        });
        let (prompt, adapter) = filling.told(&agent.drive, prompt)?;
        Ok(Rendered {
            prompt,
            env,
            adapter,
        })
    }
}

/// A merge that conflicts, as it lies in the worktree of merges.
#[derive(Debug, Clone, Copy)]
pub struct Conflict<'a> {
    /// Where the batch branch is.
    pub tip: &'a Oid,
    /// The files, each with the reason.
    pub files: &'a BTreeMap<String, String>,
    /// The folder with the three versions of each file, absolute.
    pub packet: &'a str,
    /// What the commands that prove merges said, where it was they that failed.
    pub disproof: Option<&'a str>,
}

fn needed(context: RenderContext<'_>) -> Result<RepoContext<'_>, RenderError> {
    context.repo.ok_or(RenderError::NoWorktree)
}

impl Filling<'_> {
    /// What a task is about, for somebody else than its own agent.
    fn work(&mut self, act: &Act, batch: &BatchWork) -> Result<String, RenderError> {
        Ok(match act {
            Act::Prompt(_) => self.prompt(act, batch)?.unwrap_or_default(),
            Act::Run(argv) => format!("Run this command: {}", self.arguments(argv)?.join(" ")),
            Act::Script(_) => "Play a script.".to_owned(),
            Act::Nothing => "Its agent was told nothing.".to_owned(),
        })
    }
}
