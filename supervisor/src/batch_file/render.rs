//! What a run is told: the templates of batch, agent and task filled in for one attempt.

use std::collections::BTreeMap;

use protocol::command::{
    Adapter, CommandAdapter, PromptBy, ScriptedAdapter, Text, VerifyAdapter, VerifyCommand,
};
use protocol::forge::{BadReference, ForgeItem, ForgeKind, Reference};
use protocol::git::Oid;
use protocol::ids::{AttemptNo, BatchId, TaskId};
use protocol::program::{McpServer, ProgramAdapter};
use protocol::script::Script;
use serde_json::Value as Json;
use tera::Context;

use super::about;
pub use super::part::{HookPoint, Part};
use super::template::{Engine, TemplateError, is_template, to_value};
use super::work::{
    Act, AgentWork, BatchWork, CommandDrive, Drive, PASSED_ON, RepoWork, TaskWork, VerifyWork,
};

/// Longest single argument, bytes: Linux takes 128 KiB with the closing zero (`MAX_ARG_STRLEN`).
pub const ARGUMENT_MAX: usize = (128 << 10) - 1;

/// What a render needs to know of the attempt.
#[derive(Debug, Clone, Copy)]
pub struct RenderContext<'a> {
    /// The batch's id.
    pub batch: &'a BatchId,
    /// The batch's name.
    pub batch_name: &'a str,
    /// The task.
    pub task: &'a TaskId,
    /// The attempt's number.
    pub attempt: AttemptNo,
    /// The task's `foreach` item, as JSON text (as the plan has it).
    pub item: Option<&'a str>,
    /// The attempt's place among those that live, from 0 to `concurrency - 1`.
    pub slot: u32,
    /// The model that the attempt works with, where its agent names one.
    pub model: Option<&'a str>,
    /// Results of the task's dependencies; may be empty unless [`TaskWork::reads_deps`].
    pub deps: &'a BTreeMap<TaskId, DependencyResult>,
    /// The supervisor's own environment.
    pub own_env: &'a BTreeMap<String, String>,
    /// The repository, where the run works in a worktree of one.
    pub repo: Option<RepoContext<'a>>,
    /// What the task's prompt is made of, once that is fetched.
    pub about: Option<&'a ForgeItem>,
    /// What the attempt before has taught, or the reviewer who sent the work back.
    pub hand_off: Option<&'a str>,
}

/// What a render needs to know of a run's worktree.
#[derive(Debug, Clone, Copy)]
pub struct RepoContext<'a> {
    /// What the batch file says of the repository.
    pub work: &'a RepoWork,
    /// The worktree, absolute (`SUPERVISOR_WORKTREE`).
    pub worktree: &'a str,
    /// Its branch, without `refs/heads/`, where it has one (`SUPERVISOR_BRANCH`).
    pub branch: Option<&'a str>,
    /// What the work starts from, once that is known (`SUPERVISOR_BASE`).
    pub base: Option<&'a Oid>,
    /// The work's commit, once there is one (`SUPERVISOR_COMMIT`).
    pub commit: Option<&'a Oid>,
}

/// What a template can see of a dependency.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize)]
pub struct DependencyResult {
    /// The summary of its result.
    pub result: String,
    /// Where the files are that it saved, absolute, by their names under `outputs`.
    pub outputs: BTreeMap<String, String>,
}

/// Everything of a `start` that comes from the batch file.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    /// The prompt.
    pub prompt: Option<String>,
    /// The whole environment of the agent.
    pub env: BTreeMap<String, String>,
    /// How the agent is driven. A result file is still relative to the working folder.
    pub adapter: Adapter,
}

/// A text can not be handed to a run.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A template fails.
    #[error("the template of {part} can not be filled in")]
    Template {
        /// Which text.
        part: Part,
        /// Why.
        #[source]
        source: TemplateError,
    },
    /// Too long for the command line.
    #[error(
        "{part} is {length} bytes, an argument may have {ARGUMENT_MAX}: use `prompt_by: stdin`"
    )]
    TooLong {
        /// Which text.
        part: Part,
        /// Its length, bytes.
        length: usize,
    },
    /// A zero byte can not stand in an argument or a variable.
    #[error("{part} has a zero byte")]
    ZeroByte {
        /// Which text.
        part: Part,
    },
    /// The plan names a text that the batch has not.
    #[error("the batch has no shared text of this number")]
    NoSuchText,
    /// The task has nothing that this agent can do.
    #[error("the task's work does not fit its agent's kind")]
    Mismatch,
    /// A batch branch that can not be.
    #[error("`merge.into` becomes `{name}`: {why}")]
    BranchName {
        /// What it becomes.
        name: String,
        /// Why that is no name.
        why: String,
    },
    /// An output that is no file of the worktree.
    #[error("{0}")]
    BadOutput(String),
    /// A template that becomes no reference.
    #[error(transparent)]
    Reference(#[from] BadReference),
    /// The prompt is made of something that is not there.
    #[error("the {} that the prompt is made of was not fetched", .0.name())]
    NotFetched(ForgeKind),
    /// The run works in no repository.
    #[error("the run has no worktree")]
    NoWorktree,
    /// An item or script that is not the JSON it was written as.
    #[error("the plan's JSON can not be read")]
    Json(#[source] serde_json::Error),
}

/// Fills in templates; keeps what it compiled.
#[derive(Debug, Default)]
pub struct Renderer {
    pub(super) engine: Engine,
}

impl Renderer {
    /// What an agent run is told.
    ///
    /// # Errors
    /// [`RenderError`] when a template fails with this attempt's values, or a text does not fit
    /// where it goes.
    pub fn start(
        &mut self,
        batch: &BatchWork,
        agent: &AgentWork,
        task: &TaskWork,
        context: RenderContext<'_>,
    ) -> Result<Rendered, RenderError> {
        let mut filling = Filling::new(&mut self.engine, batch, task, context);
        let env = filling.environment(Some(agent))?;
        let (prompt, adapter) = match (&agent.drive, &task.act) {
            (Drive::Run, Act::Run(argv)) => (None, filling.run(argv)?),
            (Drive::Command(drive), act) => {
                let prompt = filling.prompt(act, batch)?;
                filling.command(drive, prompt)?
            }
            (
                Drive::Scripted {
                    script: Some(script),
                },
                act,
            ) => (filling.prompt(act, batch)?, filling.scripted(script)?),
            (Drive::Program(drive), act) => {
                let prompt = filling.prompt(act, batch)?;
                (prompt, filling.program(drive)?)
            }
            (Drive::Scripted { script: None }, Act::Script(script)) => {
                (None, filling.scripted(script)?)
            }
            (Drive::Run | Drive::Scripted { script: None }, _) => {
                return Err(RenderError::Mismatch);
            }
        };
        Ok(Rendered {
            prompt,
            env,
            adapter,
        })
    }

    /// Which issue or pull request the task's prompt is made of; `None` for other tasks.
    ///
    /// # Errors
    /// As for [`Renderer::start`]; [`RenderError::Reference`] when the template becomes none.
    pub fn reference(
        &mut self,
        batch: &BatchWork,
        task: &TaskWork,
        context: RenderContext<'_>,
    ) -> Result<Option<(ForgeKind, Reference)>, RenderError> {
        let Some(about) = &task.about else {
            return Ok(None);
        };
        let mut filling = Filling::new(&mut self.engine, batch, task, context);
        let text = filling.fill(&about.reference, Part::Reference)?;
        let reference = Reference::parse(about.kind, text.trim())?;
        Ok(Some((about.kind, reference)))
    }

    /// What a verify run is told: its commands, and the environment that they share.
    ///
    /// # Errors
    /// As for [`Renderer::start`].
    pub fn verify(
        &mut self,
        batch: &BatchWork,
        task: &TaskWork,
        context: RenderContext<'_>,
    ) -> Result<Rendered, RenderError> {
        let mut filling = Filling::new(&mut self.engine, batch, task, context);
        let env = filling.environment(None)?;
        let commands = filling.commands(&task.verify, Part::Verify)?;
        Ok(Rendered {
            prompt: None,
            env,
            adapter: Adapter::Verify(VerifyAdapter { commands }),
        })
    }
}

/// One render: the engine, and the context once a text asks for it.
pub(super) struct Filling<'a> {
    engine: &'a mut Engine,
    batch: &'a BatchWork,
    task: &'a TaskWork,
    known: RenderContext<'a>,
    context: Option<Context>,
}

impl<'a> Filling<'a> {
    pub(super) fn new(
        engine: &'a mut Engine,
        batch: &'a BatchWork,
        task: &'a TaskWork,
        known: RenderContext<'a>,
    ) -> Self {
        Self {
            engine,
            batch,
            task,
            known,
            context: None,
        }
    }

    pub(super) fn fill(&mut self, text: &str, part: Part) -> Result<String, RenderError> {
        if !is_template(text) {
            return Ok(text.to_owned());
        }
        let context = match self.context.take() {
            Some(context) => context,
            None => build_context(&self.batch.vars, &self.task.vars, self.known)?,
        };
        let filled = self.engine.render(text, &context);
        self.context = Some(context);
        filled.map_err(|source| RenderError::Template { part, source })
    }

    pub(super) fn argument(&mut self, text: &str, part: Part) -> Result<String, RenderError> {
        let filled = self.fill(text, part.clone())?;
        fits_argument(&filled, part)?;
        Ok(filled)
    }

    fn variables(
        &mut self,
        env: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, RenderError> {
        let mut filled = BTreeMap::new();
        for (name, text) in env {
            let value = self.argument(text, Part::Env(name.clone()))?;
            filled.insert(name.clone(), value);
        }
        Ok(filled)
    }

    /// Commands with their arguments; `part` says what one of a number is called.
    pub(super) fn commands(
        &mut self,
        commands: &[VerifyWork],
        part: impl Fn(usize) -> Part,
    ) -> Result<Vec<VerifyCommand>, RenderError> {
        let mut filled = Vec::with_capacity(commands.len());
        for (index, command) in commands.iter().enumerate() {
            let argv = command.argv.iter();
            let argv = argv.map(|text| self.argument(text, part(index)));
            filled.push(VerifyCommand {
                argv: argv.collect::<Result<_, _>>()?,
                timeout_ms: command.timeout_ms,
                env: self.variables(&command.env)?,
            });
        }
        Ok(filled)
    }

    /// The whole environment: what is always passed on, what was asked for by name, what the file
    /// sets (batch, repository, agent, task; later ones win), who the run is, and where it works.
    pub(super) fn environment(
        &mut self,
        agent: Option<&AgentWork>,
    ) -> Result<BTreeMap<String, String>, RenderError> {
        let (batch, task) = (self.batch, self.task);
        let repo = self.known.repo.map(|repo| &repo.work.env);
        let layers = [
            Some(&batch.env),
            repo,
            agent.map(|it| &it.env),
            Some(&task.env),
        ];
        let asked_for = agent.map(|agent| &agent.env_from);
        let names = [Some(&batch.env_from), asked_for, Some(&task.env_from)];
        let names: Vec<&Vec<String>> = names.into_iter().flatten().collect();
        let own = self.known.own_env;
        let always = |name: &str| PASSED_ON.contains(&name) || name.starts_with("LC_");
        let asked = |name: &String| names.iter().any(|list| list.contains(name));
        let passed = own.iter().filter(|(name, _)| always(name) || asked(name));
        let mut env: BTreeMap<String, String> = passed
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        for layer in layers.into_iter().flatten() {
            env.extend(self.variables(layer)?);
        }
        let who = [
            ("SUPERVISOR_BATCH", self.known.batch.to_string()),
            ("SUPERVISOR_TASK", self.known.task.to_string()),
            ("SUPERVISOR_ATTEMPT", self.known.attempt.to_string()),
            ("SUPERVISOR_SLOT", self.known.slot.to_string()),
        ];
        env.extend(who.map(|(name, value)| (name.to_owned(), value)));
        env.extend(self.known.repo.iter().flat_map(place_variables));
        Ok(env)
    }

    pub(super) fn arguments(&mut self, argv: &[String]) -> Result<Vec<String>, RenderError> {
        let texts = argv.iter().enumerate();
        texts
            .map(|(index, text)| self.argument(text, Part::Argument(index)))
            .collect()
    }

    fn run(&mut self, argv: &[String]) -> Result<Adapter, RenderError> {
        Ok(Adapter::Command(CommandAdapter {
            argv: self.arguments(argv)?,
            prompt_by: PromptBy::None,
            result_file: None,
        }))
    }

    fn command(
        &mut self,
        drive: &CommandDrive,
        prompt: Option<String>,
    ) -> Result<(Option<String>, Adapter), RenderError> {
        if let (PromptBy::Argument, Some(prompt)) = (drive.prompt_by, &prompt) {
            fits_argument(prompt, Part::Prompt)?;
        }
        let result_file = match &drive.result_file {
            Some(path) => Some(self.argument(path, Part::ResultFile)?),
            None => None,
        };
        let adapter = Adapter::Command(CommandAdapter {
            argv: self.arguments(&drive.argv)?,
            // Without a prompt there is nothing to hand over, whatever the agent's way.
            prompt_by: if prompt.is_some() {
                drive.prompt_by
            } else {
                PromptBy::None
            },
            result_file,
        });
        Ok((prompt, adapter))
    }

    fn program(&mut self, drive: &ProgramAdapter) -> Result<Adapter, RenderError> {
        let mut adapter = drive.clone();
        adapter.model = self.known.model.map(str::to_owned);
        if let Some(text) = &mut adapter.system_prompt {
            *text = self.argument(text, Part::SystemPrompt)?;
        }
        adapter.args = self.arguments(&drive.args)?;
        for server in adapter.mcp.values_mut() {
            self.mcp_server(server)?;
        }
        Ok(Adapter::Program(adapter))
    }

    /// An agent that gets this prompt, whatever its task says.
    pub(super) fn told(
        &mut self,
        drive: &Drive,
        prompt: String,
    ) -> Result<(Option<String>, Adapter), RenderError> {
        match drive {
            Drive::Command(drive) => self.command(drive, Some(prompt)),
            Drive::Program(drive) => Ok((Some(prompt), self.program(drive)?)),
            Drive::Scripted {
                script: Some(script),
            } => Ok((Some(prompt), self.scripted(script)?)),
            Drive::Run | Drive::Scripted { script: None } => Err(RenderError::Mismatch),
        }
    }

    fn mcp_server(&mut self, server: &mut McpServer) -> Result<(), RenderError> {
        server.args = self.arguments(&server.args)?;
        for (name, value) in &mut server.env {
            *value = self.fill(value, Part::Env(name.clone()))?;
        }
        Ok(())
    }

    pub(super) fn prompt(
        &mut self,
        act: &Act,
        batch: &BatchWork,
    ) -> Result<Option<String>, RenderError> {
        match act {
            Act::Prompt(text) => {
                let text = text.resolve(batch).ok_or(RenderError::NoSuchText)?;
                match &self.task.about {
                    None => self.fill(text, Part::Prompt),
                    Some(about) => self.fill_about(text, about.kind),
                }
                .map(Some)
            }
            Act::Nothing => Ok(None),
            Act::Script(_) | Act::Run(_) => Err(RenderError::Mismatch),
        }
    }

    /// The one text that sees what it is about: it alone is made when that is fetched for sure.
    fn fill_about(&mut self, text: &str, kind: ForgeKind) -> Result<String, RenderError> {
        let item = self.known.about.filter(|item| item.kind == kind);
        let item = item.ok_or(RenderError::NotFetched(kind))?;
        let mut context = build_context(&self.batch.vars, &self.task.vars, self.known)?;
        context.insert_value(kind.word(), to_value(&about::seen(item)));
        let part = Part::Prompt;
        let filled = self.engine.render(text, &context);
        filled.map_err(|source| RenderError::Template { part, source })
    }

    fn scripted(&mut self, script: &Script) -> Result<Adapter, RenderError> {
        let mut json = serde_json::to_value(script).map_err(RenderError::Json)?;
        self.fill_json(&mut json)?;
        let script = Text::Inline(json.to_string());
        Ok(Adapter::Scripted(ScriptedAdapter { script }))
    }

    /// Fills in every text of a script. Its nesting is bounded by the batch file's.
    fn fill_json(&mut self, json: &mut Json) -> Result<(), RenderError> {
        match json {
            Json::String(text) if is_template(text) => {
                *text = self.fill(text, Part::Script)?;
                Ok(())
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Ok(()),
            Json::Array(items) => items.iter_mut().try_for_each(|item| self.fill_json(item)),
            Json::Object(map) => map.values_mut().try_for_each(|value| self.fill_json(value)),
        }
    }
}

/// Where a run works, for its environment.
fn place_variables(repo: &RepoContext<'_>) -> BTreeMap<String, String> {
    let path = repo.work.path.display().to_string();
    let values = [
        ("SUPERVISOR_REPO", Some(path.as_str())),
        ("SUPERVISOR_WORKTREE", Some(repo.worktree)),
        ("SUPERVISOR_BRANCH", repo.branch),
        ("SUPERVISOR_BASE", repo.base.map(Oid::as_str)),
        ("SUPERVISOR_COMMIT", repo.commit.map(Oid::as_str)),
    ];
    let known = values.into_iter();
    known
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect()
}

fn fits_argument(text: &str, part: Part) -> Result<(), RenderError> {
    if text.contains('\0') {
        return Err(RenderError::ZeroByte { part });
    }
    if text.len() > ARGUMENT_MAX {
        return Err(RenderError::TooLong {
            part,
            length: text.len(),
        });
    }
    Ok(())
}

/// What a text can use that is said once for all tasks: `vars`, `batch`.
pub(super) fn batch_context(vars: &BTreeMap<String, Json>, id: &BatchId, name: &str) -> Context {
    let mut context = Context::new();
    context.insert("vars", vars);
    let batch = serde_json::json!({"id": id.as_str(), "name": name});
    context.insert_value("batch", to_value(&batch));
    context
}

/// The names that a template can use: `vars`, `task`, `batch`, `item`, `slot`, `deps`, and `handoff`, which
/// is empty where nothing is handed on.
pub(super) fn build_context(
    batch_vars: &BTreeMap<String, Json>,
    task_vars: &BTreeMap<String, Json>,
    known: RenderContext<'_>,
) -> Result<Context, RenderError> {
    let mut vars: BTreeMap<&str, &Json> = BTreeMap::new();
    vars.extend(
        batch_vars
            .iter()
            .map(|(name, value)| (name.as_str(), value)),
    );
    vars.extend(task_vars.iter().map(|(name, value)| (name.as_str(), value)));
    let mut context = Context::new();
    context.insert("vars", &vars);
    let task = serde_json::json!({"id": known.task.as_str(), "attempt": known.attempt.0});
    context.insert_value("task", to_value(&task));
    let batch = serde_json::json!({"id": known.batch.as_str(), "name": known.batch_name});
    context.insert_value("batch", to_value(&batch));
    context.insert("slot", &known.slot);
    context.insert("handoff", known.hand_off.unwrap_or_default());
    let deps: BTreeMap<&str, &DependencyResult> = known
        .deps
        .iter()
        .map(|(id, result)| (id.as_str(), result))
        .collect();
    context.insert("deps", &deps);
    if let Some(text) = known.item {
        let item: Json = serde_json::from_str(text).map_err(RenderError::Json)?;
        context.insert_value("item", to_value(&item));
    }
    Ok(context)
}
