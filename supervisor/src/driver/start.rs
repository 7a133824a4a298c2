//! Makes the command `start`: what the state says of a run, and what the batch file says of it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use crate::driver::places::Places;
use crate::driver::tasks::task_id;
use crate::driver::told::Scope;
use protocol::command::{Adapter, MemoryLimit, Message, RunKind, Start, Text};
use protocol::exit_file::{HAND_OFF_FILE_NAME, HAND_OFF_VARIABLE};
use protocol::ids::{Generation, MessageId};
use supervisor_core::facts::{Attempt, Facts, Run, Task};
use supervisor_core::plan::{AgentIx, RepoIx, RetryMode, SpecIx, TaskSpec};
use supervisor_core::step::{Purpose, Step};

use crate::batch_file::render::{RenderError, Renderer};
use crate::batch_file::work::{AgentWork, BatchWork, RepoWork, TaskWork};
use crate::driver::hand_off;
use crate::driver::run_files::{self, Unreadable};
use crate::process::tag::{TOKEN_VARIABLE, token_text};
use crate::store::StateDir;

/// A host ends by itself when it heard nothing for this long: twice the lease by which the core
/// rules on hosts, eight of its pings.
const LEASE_MS: u64 = 120_000;
/// Most bytes kept of each of a run's stdout and stderr.
const LOG_MAX: u64 = 1 << 30;
/// Longest text that travels in the line itself; a longer one goes through a file. A quarter of a
/// line, because escapes can make it longer and other fields need room too.
const INLINE_MAX: usize = 256 << 10;
/// Most bytes of messages that travel in `start`; those that follow are delivered after it.
const MESSAGES_MAX: usize = 128 << 10;
/// Task specs kept parsed; the tasks of one `foreach` share one, so this is plenty.
const SPECS_MAX: usize = 256;

/// Why a run can not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state does not hold what the run names.
    #[error("the state has no {0} for this run")]
    Missing(&'static str),
    /// What the plan carries for the driver is not readable.
    #[error("the plan's rules for {of} can not be read")]
    Work {
        /// Whose.
        of: &'static str,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A template, or a text that does not fit.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// Which messages went in already is not known.
    #[error(transparent)]
    Injected(#[from] Unreadable),
    /// What the prompt is made of can not be read.
    #[error("{path}, which the prompt is made of, can not be read")]
    Item {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A long text can not be put into its file.
    #[error("{path} can not be written")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A `start`, and the messages that did not fit into it.
#[derive(Debug)]
pub struct Prepared {
    /// The command.
    pub start: Start,
    /// To be delivered right after it, in order.
    pub rest: Vec<Message>,
}

/// Makes starts; keeps what it parsed and compiled.
#[derive(Debug)]
pub struct Starter {
    pub(super) renderer: Renderer,
    pub(super) own_env: BTreeMap<String, String>,
    /// The last one used, and the text that it was made from.
    batch: Option<(Arc<str>, Rc<BatchWork>)>,
    agents: HashMap<AgentIx, Rc<AgentWork>>,
    specs: HashMap<SpecIx, Rc<TaskWork>>,
}

impl Starter {
    /// A starter for a supervisor with this environment.
    pub fn new(own_env: BTreeMap<String, String>) -> Starter {
        Starter {
            renderer: Renderer::default(),
            own_env,
            batch: None,
            agents: HashMap::new(),
            specs: HashMap::new(),
        }
    }

    /// Everything that this run's host is told, with these messages.
    ///
    /// # Errors
    /// [`StartError`]; the run is over then.
    pub fn prepare(
        &mut self,
        dir: &StateDir,
        facts: &Facts,
        generation: Generation,
        messages: &[MessageId],
    ) -> Result<Prepared, StartError> {
        let of = Subject::find(facts, generation)?;
        let batch = self.batch_work(facts, &of)?;
        let task = self.task_work(of.task.spec, &of.spec.work)?;
        let lodging = self.lodging(dir, facts, &batch, &of)?;
        let hand_off = of.hand_off(dir);
        let told = self.told(Scope {
            hand_off: hand_off.as_deref(),
            dir,
            facts,
            batch: &batch,
            task: &task,
            lodging: lodging.as_ref(),
            of: &of,
        })?;
        let run_dir = dir.run(&of.task.id, of.run.attempt, generation);
        let task_dir = dir.task(&of.task.id);
        let (messages, rest) = split_messages(facts, messages);
        let mut env = told.env;
        env.insert(TOKEN_VARIABLE.to_owned(), token_text(of.run.token));
        if let Some(hand_off) = &hand_off {
            let path = file(&run_dir, HAND_OFF_FILE_NAME, hand_off)?;
            env.insert(HAND_OFF_VARIABLE.to_owned(), path);
        }
        let cwd = lodging.as_ref().map_or(&batch.folder, |it| &it.cwd);
        let start = Start {
            generation,
            batch: facts.batch.id.clone(),
            task: of.task.id.clone(),
            attempt: of.run.attempt,
            kind: of.run.kind(),
            cwd: path_text(cwd),
            prompt: match told.prompt {
                Some(prompt) => {
                    let prompt = of.with_notes(prompt, &told.adapter);
                    Some(fit(prompt, &run_dir, "prompt")?)
                }
                None => None,
            },
            hand_off,
            env,
            session: of.session(),
            messages,
            injected: if of.run.purpose == Purpose::Step(Step::Work) {
                run_files::injected(&task_dir)?
            } else {
                Vec::new()
            },
            log_max: LOG_MAX,
            lease_ms: LEASE_MS,
            cgroup: of.run.containment.leaf.as_deref().map(str::to_owned),
            memory: memory(facts, &of),
            adapter: finish_adapter(told.adapter, cwd, &run_dir)?,
            run_dir: path_text(&run_dir),
            task_dir: path_text(&task_dir),
        };
        Ok(Prepared { start, rest })
    }

    /// Where a run works that has to do with a repository.
    fn lodging(
        &mut self,
        dir: &StateDir,
        facts: &Facts,
        batch: &BatchWork,
        of: &Subject<'_>,
    ) -> Result<Option<Lodging>, StartError> {
        let ix = match of.run.purpose {
            Purpose::Merge(repo, _) => Some(repo),
            Purpose::Step(_) | Purpose::Clean(_) | Purpose::Comment(_) => of.spec.worktree,
        };
        let Some(ix) = ix else {
            return Ok(None);
        };
        let repo = facts.repos.get(index(ix.0));
        let repo = repo.ok_or(StartError::Missing("repository"))?;
        let work: Rc<RepoWork> = Rc::new(parse("its repository", &repo.spec.work)?);
        let (id, name) = (&facts.batch.id, &facts.batch.settings.name);
        let into = self.renderer.batch_branch(batch, &work, id, name)?;
        let places = Places::new(dir, id, batch.worktrees.clone());
        let worktree = match of.run.purpose {
            Purpose::Merge(..) => places.merges(ix),
            Purpose::Step(Step::Review) => places.review(&of.task.id),
            Purpose::Step(_) | Purpose::Clean(_) | Purpose::Comment(_) => {
                places.worktree(&of.task.id)
            }
        };
        // Git work names every path itself; what it works on may not be there yet.
        let cwd = match of.run.kind() {
            RunKind::Git => work.path.clone(),
            RunKind::Hook if matches!(of.run.purpose, Purpose::Comment(_)) => work.path.clone(),
            RunKind::Merge if !of.run.purpose.is_agent() => work.path.clone(),
            RunKind::Agent | RunKind::Verify | RunKind::Review | RunKind::Merge | RunKind::Hook => {
                worktree.join(&work.folder)
            }
        };
        Ok(Some(Lodging {
            ix,
            work,
            into,
            worktree: path_text(&worktree),
            branch: places.branch(&of.task.id),
            places,
            cwd,
        }))
    }

    /// An attempt goes on under what it began with, also where the batch file was edited since.
    fn batch_work(&mut self, facts: &Facts, of: &Subject<'_>) -> Result<Rc<BatchWork>, StartError> {
        let newest = &facts.batch.settings.work;
        let own = of.attempt.and_then(|attempt| attempt.work.as_ref());
        let text = own.unwrap_or(newest);
        if let Some((known, work)) = &self.batch
            && Arc::ptr_eq(known, text)
        {
            return Ok(work.clone());
        }
        let work: Rc<BatchWork> = Rc::new(parse("the batch", text)?);
        self.batch = Some((text.clone(), work.clone()));
        Ok(work)
    }

    pub(super) fn agent_work(
        &mut self,
        facts: &Facts,
        agent: AgentIx,
    ) -> Result<Rc<AgentWork>, StartError> {
        if let Some(work) = self.agents.get(&agent) {
            return Ok(work.clone());
        }
        let spec = facts
            .agents
            .get(index(agent.0))
            .ok_or(StartError::Missing("agent"))?;
        let work: Rc<AgentWork> = Rc::new(parse("its agent", &spec.work)?);
        self.agents.insert(agent, work.clone());
        Ok(work)
    }

    fn task_work(&mut self, spec: SpecIx, text: &str) -> Result<Rc<TaskWork>, StartError> {
        if let Some(work) = self.specs.get(&spec) {
            return Ok(work.clone());
        }
        let work: Rc<TaskWork> = Rc::new(parse("its task", text)?);
        if self.specs.len() >= SPECS_MAX {
            self.specs.clear();
        }
        self.specs.insert(spec, work.clone());
        Ok(work)
    }
}

/// What a run is about.
pub(super) struct Subject<'a> {
    pub(super) run: &'a Run,
    pub(super) generation: Generation,
    pub(super) task: &'a Task,
    pub(super) spec: &'a TaskSpec,
    /// The open attempt, where the run is of one.
    pub(super) attempt: Option<&'a Attempt>,
}

impl<'a> Subject<'a> {
    fn find(facts: &'a Facts, generation: Generation) -> Result<Self, StartError> {
        let run = facts
            .runs
            .get(&generation)
            .ok_or(StartError::Missing("run"))?;
        let task = facts
            .tasks
            .get(index(run.task.0))
            .ok_or(StartError::Missing("task"))?;
        let spec = facts.specs.get(index(task.spec.0));
        let spec = spec.ok_or(StartError::Missing("rules"))?;
        let attempt = match run.purpose {
            Purpose::Step(_) => {
                let attempt = task.attempt.as_ref();
                Some(attempt.ok_or(StartError::Missing("attempt"))?)
            }
            Purpose::Merge(..) | Purpose::Clean(_) | Purpose::Comment(_) => None,
        };
        Ok(Subject {
            run,
            generation,
            task,
            spec,
            attempt,
        })
    }

    /// Only an agent learns from what was before: the attempt before, or the reviewer's last word.
    fn hand_off(&self, dir: &StateDir) -> Option<String> {
        let attempt = self
            .attempt
            .filter(|_| self.run.purpose == Purpose::Step(Step::Work))?;
        if let Some(sent_back) = sent_back(attempt) {
            return Some(sent_back);
        }
        let text = hand_off::hand_off(dir, &self.task.id, self.task.last.as_deref()?)?;
        let is_new = attempt.mode == RetryMode::Fresh && self.spec.worktree.is_some();
        let note = match is_new {
            true => "The working folder was made anew; what that attempt left is kept aside.",
            false => "The working folder is as that attempt left it.",
        };
        Some(format!("{text}\n\n{note}"))
    }

    /// The prompt, and behind it why the work was sent back, for a plain program: it has no
    /// conversation in which it could be told, and would do the same again.
    fn with_notes(&self, prompt: String, adapter: &Adapter) -> String {
        let attempt = self.attempt.filter(|_| {
            let works = self.run.purpose == Purpose::Step(Step::Work);
            works && matches!(adapter, Adapter::Command(_))
        });
        match attempt.and_then(sent_back) {
            Some(sent_back) if !prompt.contains(&sent_back) => {
                format!("{prompt}\n\n{sent_back}\n")
            }
            Some(_) | None => prompt,
        }
    }

    /// Only an agent that is to resume, or whose work was sent back, has a conversation to go on with.
    fn session(&self) -> Option<String> {
        let attempt = self
            .attempt
            .filter(|_| self.run.purpose == Purpose::Step(Step::Work))?;
        let resumes = attempt.mode == RetryMode::Resume || attempt.rounds > 0;
        let session = self.task.session.as_ref().filter(|_| resumes)?;
        Some(session.to_string())
    }
}

/// What the reviewer said, where the work was sent back.
fn sent_back(attempt: &Attempt) -> Option<String> {
    let notes = attempt.notes.as_deref().unwrap_or_default();
    (attempt.rounds > 0).then(|| {
        format!(
            "Your work was reviewed and sent back (round {}). The reviewer says:\n\n{notes}",
            attempt.rounds
        )
    })
}

/// Where a run works, and in which repository.
pub(super) struct Lodging {
    pub(super) ix: RepoIx,
    pub(super) work: Rc<RepoWork>,
    /// The batch branch, a whole ref name.
    pub(super) into: String,
    /// The worktree that it works in, or on.
    pub(super) worktree: String,
    /// The task's branch, without `refs/heads/`.
    pub(super) branch: String,
    /// All places of the batch.
    pub(super) places: Places,
    /// Its working folder.
    pub(super) cwd: PathBuf,
}

pub(super) fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn parse<T: serde::de::DeserializeOwned>(of: &'static str, text: &str) -> Result<T, StartError> {
    serde_json::from_str(text).map_err(|source| StartError::Work { of, source })
}

/// The limit under which the run was spawned; an edited batch file counts from the next attempt on.
fn memory(facts: &Facts, of: &Subject<'_>) -> Option<MemoryLimit> {
    let keeper = of.run.containment.memory?;
    let max = facts.specs.get(index(of.task.spec.0))?.memory_max?;
    Some(MemoryLimit { max, keeper })
}

/// The messages that go into `start`, and those for which it has no room.
fn split_messages(facts: &Facts, ids: &[MessageId]) -> (Vec<Message>, Vec<Message>) {
    let mut room = MESSAGES_MAX;
    let mut all: Vec<Message> = ids
        .iter()
        .filter_map(|&id| {
            let message = facts.messages.get(&id)?;
            Some(Message {
                id,
                mode: message.mode,
                text: message.text.to_string(),
                from: message.from.and_then(|from| task_id(facts, from)),
            })
        })
        .collect();
    let fits = all
        .iter()
        .take_while(|message| {
            let left = room.checked_sub(message.text.len());
            room = left.unwrap_or(0);
            left.is_some()
        })
        .count();
    let rest = all.split_off(fits);
    (all, rest)
}

fn finish_adapter(adapter: Adapter, folder: &Path, run_dir: &Path) -> Result<Adapter, StartError> {
    Ok(match adapter {
        Adapter::Command(mut command) => {
            command.result_file = command
                .result_file
                .map(|path| path_text(&folder.join(path)));
            Adapter::Command(command)
        }
        Adapter::Scripted(mut scripted) => {
            if let Text::Inline(script) = scripted.script {
                scripted.script = fit(script, run_dir, "script.json")?;
            }
            Adapter::Scripted(scripted)
        }
        other @ (Adapter::Verify(_)
        | Adapter::Program(_)
        | Adapter::Hook(_)
        | Adapter::Git(_)
        | Adapter::Fetch(_)
        | Adapter::Comment(_)) => other,
    })
}

/// A text for the line, or for a file in the run's folder when it is too long for the line.
fn fit(text: String, run_dir: &Path, name: &str) -> Result<Text, StartError> {
    if text.len() <= INLINE_MAX {
        return Ok(Text::Inline(text));
    }
    file(run_dir, name, &text).map(Text::File)
}

/// Puts a text into a file of the run's folder, and returns its path.
fn file(run_dir: &Path, name: &str, text: &str) -> Result<String, StartError> {
    let path = run_dir.join(name);
    match write_private(run_dir, &path, text.as_bytes()) {
        Ok(()) => Ok(path_text(&path)),
        Err(source) => Err(StartError::File { path, source }),
    }
}

/// The folder is the host's to make; only a long text needs it earlier.
fn write_private(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    file.write_all(bytes)
}

/// Paths reach us as text (batch file, state dir), so nothing is lost here.
pub(super) fn path_text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::fixture;
    use serde_json::{Value, json};
    use supervisor_core::core::Core;
    use supervisor_core::input::{Input, OperatorCommand, ReplyId};
    use supervisor_core::plan::{AgentKind, TaskIx};

    const RUN: Generation = Generation(1);

    fn command(prompt: &str) -> Core {
        let drive = json!({"command": {"argv": ["agent", "{{ task.id }}"], "prompt_by": "stdin",
            "result_file": "out/result.json"}});
        fixture::core(AgentKind::Command, &drive, &prompted(prompt))
    }

    fn prompted(prompt: &str) -> Value {
        json!({"act": {"prompt": {"inline": prompt}}})
    }

    fn prepare(core: &Core, dir: &Path, messages: &[MessageId]) -> Result<Prepared, StartError> {
        let own = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
        let facts = core.facts().unwrap();
        Starter::new(own).prepare(&StateDir::at(dir), facts, RUN, messages)
    }

    #[test]
    fn a_start_holds_everything_and_nothing_relative() {
        let folder = tempfile::tempdir().unwrap();
        let core = command("do {{ task.id }}");
        let Prepared { start, rest } = prepare(&core, folder.path(), &[]).unwrap();
        assert!(rest.is_empty());
        assert_eq!(start.prompt, Some(Text::Inline("do first".to_owned())));
        assert_eq!(start.cwd, "/work/folder");
        for path in [&start.cwd, &start.run_dir, &start.task_dir] {
            assert!(Path::new(path).is_absolute(), "{path}");
        }
        let Adapter::Command(command) = &start.adapter else {
            panic!("{:?}", start.adapter);
        };
        assert_eq!(command.argv, ["agent", "first"]);
        let result_file = command.result_file.as_deref();
        assert_eq!(result_file, Some("/work/folder/out/result.json"));
        let token = core.facts().unwrap().runs[&RUN].token;
        assert_eq!(start.env[TOKEN_VARIABLE], token_text(token));
        assert_eq!(start.env["PATH"], "/bin");
        assert_eq!(start.session, None);
    }

    #[test]
    fn a_long_prompt_goes_through_a_private_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let prompt = "x".repeat(INLINE_MAX + 1);
        let core = command(&prompt);
        for _again in 0..2 {
            let start = prepare(&core, folder.path(), &[]).unwrap().start;
            let Some(Text::File(path)) = start.prompt else {
                panic!("the prompt is in the line");
            };
            assert!(path.starts_with(&start.run_dir));
            assert_eq!(fs::read_to_string(&path).unwrap(), prompt);
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn messages_without_room_in_the_line_follow_it_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut core = command("go");
        let long = MESSAGES_MAX / 2 - 1;
        for length in [long, 3, long, 3] {
            let steer = OperatorCommand::Steer {
                tasks: vec![TaskIx(0)],
                mode: protocol::command::SteerMode::After,
                text: "m".repeat(length).into(),
                expires: None,
                wait: None,
            };
            let input = Input::Operator {
                reply: ReplyId(1),
                command: steer,
            };
            assert!(core.handle(fixture::now(), input).defects.is_empty());
        }
        let ids: Vec<MessageId> = (1..=4).map(MessageId).collect();
        let Prepared { start, rest } = prepare(&core, folder.path(), &ids).unwrap();
        let number = |messages: &[Message]| -> Vec<u64> {
            messages.iter().map(|message| message.id.0).collect()
        };
        assert_eq!(number(&start.messages), [1, 2]);
        assert_eq!(number(&rest), [3, 4]);
    }

    #[test]
    fn what_went_in_before_is_told_and_must_be_readable() {
        let folder = tempfile::tempdir().unwrap();
        let core = command("go");
        let task = StateDir::at(folder.path()).task(&"first".parse().unwrap());
        fs::create_dir_all(&task).unwrap();
        let injected = task.join(protocol::exit_file::INJECTED_FILE_NAME);
        fs::write(&injected, "1\n3\n").unwrap();
        let start = prepare(&core, folder.path(), &[]).unwrap().start;
        assert_eq!(start.injected, [MessageId(1), MessageId(3)]);
        fs::write(&injected, "what\n").unwrap();
        let refused = prepare(&core, folder.path(), &[]);
        assert!(
            matches!(refused, Err(StartError::Injected(_))),
            "{refused:?}"
        );
    }

    #[test]
    fn a_run_that_the_state_does_not_hold_is_not_started() {
        let folder = tempfile::tempdir().unwrap();
        let core = command("go");
        let dir = StateDir::at(folder.path());
        let facts = core.facts().unwrap();
        let refused = Starter::new(BTreeMap::new()).prepare(&dir, facts, Generation(9), &[]);
        assert!(
            matches!(refused, Err(StartError::Missing("run"))),
            "{refused:?}"
        );
    }

    #[test]
    fn work_that_does_not_fit_its_agent_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let drive = json!("run");
        let core = fixture::core(AgentKind::Command, &drive, &prompted("go"));
        let refused = prepare(&core, folder.path(), &[]);
        assert!(matches!(refused, Err(StartError::Render(_))), "{refused:?}");
        let core = fixture::core(AgentKind::Command, &drive, &json!({"no": "act"}));
        let refused = prepare(&core, folder.path(), &[]);
        assert!(
            matches!(refused, Err(StartError::Work { .. })),
            "{refused:?}"
        );
    }
}
