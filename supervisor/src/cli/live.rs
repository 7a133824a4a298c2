//! What `run` tells while it works: lines for people, objects for scripts, a board for a terminal.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use supervisor_core::core::Change;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::input::StopStage;
use supervisor_core::machine::{CommentState, Edge, MergeState, TaskState};
use supervisor_core::plan::TaskIx;
use supervisor_core::reconcile::ProcessFact;

use crate::cli::report;
use crate::cli::screen::{Board, REDRAW, ROWS_MAX, Screen};
use crate::driver::{Note, Observer, Picture};
use crate::store::StateDir;
use crate::view::delivery;
use crate::view::reason::{BatchWhy, LastWhy, TaskWhy, first_line};
use crate::view::story;
use crate::view::time::{LocalTime, Span, Stamp};
use crate::view::{Presence, View};

/// How a batch is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Lines, and a board below them.
    Terminal,
    /// Lines only.
    Plain,
    /// One JSON object a line.
    Json,
}

/// Shows a batch to whoever started it.
#[derive(Debug)]
pub struct Show {
    style: Style,
    screen: Screen,
    time: LocalTime,
    dir: String,
    file: String,
    /// Ids of the tasks that were live before a resume: a note comes without a picture.
    names: BTreeMap<TaskIx, String>,
}

/// One step, for scripts.
#[derive(Serialize)]
struct Step<'a> {
    v: u32,
    time: Stamp,
    #[serde(rename = "type")]
    kind: &'static str,
    batch: &'a str,
    of: &'a str,
    from: &'static str,
    to: &'static str,
    reason: Option<String>,
}

/// Something beside the machines, for scripts.
#[derive(Serialize)]
struct Noted<'a> {
    v: u32,
    time: Stamp,
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'a str,
}

impl Show {
    /// A display of the batch whose files are in `dir` and which was made from `file`.
    ///
    /// # Errors
    /// When the system allows no more threads.
    pub fn start(
        style: Style,
        time: LocalTime,
        dir: String,
        file: String,
        names: BTreeMap<TaskIx, String>,
    ) -> std::io::Result<Show> {
        let screen = Screen::start(style == Style::Terminal)?;
        Ok(Show {
            style,
            screen,
            time,
            dir,
            file,
            names,
        })
    }

    /// Says something that no step says.
    pub fn say(&mut self, text: &str) {
        match self.style {
            Style::Terminal | Style::Plain => self.screen.line(text.to_owned()),
            Style::Json => {
                let time = Stamp(self.time.now);
                let row = Noted {
                    v: 1,
                    time,
                    kind: "note",
                    text,
                };
                self.screen.line(json(&row));
            }
        }
    }

    /// Everything that waits is shown when this returns.
    pub fn close(&mut self) {
        self.screen.close();
    }

    fn step(&mut self, picture: Picture<'_>, change: Change) {
        self.time.now = picture.now.wall;
        let view = view(picture.facts, &self.time, &self.dir, &self.file);
        let line = match self.style {
            Style::Terminal | Style::Plain => text(&view, change),
            Style::Json => object(&view, change),
        };
        if let Some(line) = line {
            self.screen.line(line);
        }
    }
}

fn view<'a>(facts: &'a Facts, time: &LocalTime, dir: &'a str, file: &'a str) -> View<'a> {
    View {
        facts,
        presence: Presence {
            pid: Some(std::process::id()),
            alive: true,
            recovering: false,
        },
        guard: None,
        hosts: BTreeMap::new(),
        activity: BTreeMap::new(),
        time: time.clone(),
        dir,
        file,
    }
}

/// The line that a person reads of a step; most steps say nothing that the next does not say
/// better.
fn text(view: &View<'_>, change: Change) -> Option<String> {
    let at = view.time.time_of_day(view.time.now);
    match change {
        Change::Task(ix, edge) => {
            let task = view.task(ix)?;
            let what = task_line(view, task, edge)?;
            Some(format!("{at}  {:24} {what}", task.id))
        }
        Change::Batch(edge) => Some(match batch_why(view, edge) {
            Some(why) => format!("{at}  {:24} {}: {why}", "batch", edge.to),
            None => format!("{at}  {:24} {}", "batch", edge.to),
        }),
        Change::Message(id, edge) => {
            let message = view.facts.messages.get(&id)?;
            let task = view.task_name(message.task);
            Some(format!("{at}  {task:24} message {id} {}", edge.to))
        }
        Change::Account(ix, edge) => {
            let account = view.facts.accounts.get(ix.0 as usize)?;
            Some(format!(
                "{at}  account {:16} {}",
                account.spec.name, edge.to
            ))
        }
        Change::Merge(ix, edge) => {
            let task = view.task(ix)?;
            let what = merge_line(task, edge)?;
            Some(format!("{at}  {:24} {what}", task.id))
        }
        Change::Comment(ix, edge) => {
            let posted = edge.to == CommentState::Posted.word();
            let what = if posted {
                "told on what it is about"
            } else if edge.to == CommentState::Failed.word() {
                "not told on what it is about"
            } else {
                return None;
            };
            Some(format!("{at}  {:24} {what}", view.task(ix)?.id))
        }
        Change::Attempt(..) | Change::Run(..) | Change::Question(..) => None,
    }
}

fn task_line(view: &View<'_>, task: &Task, edge: Edge) -> Option<String> {
    let to = TaskState::from_word(edge.to)?;
    let was_live = TaskState::from_word(edge.from).is_some_and(TaskState::is_live);
    let why = || match why(view, task, to) {
        Some(why) => format!("{to}: {why}"),
        None => to.to_string(),
    };
    match to {
        TaskState::Running if was_live => Some("goes on".to_owned()),
        TaskState::Running => Some(format!("attempt {} begins", task.attempts)),
        TaskState::Verifying => Some("verifies".to_owned()),
        TaskState::Reviewing => Some("is being reviewed".to_owned()),
        TaskState::Done
        | TaskState::Waiting
        | TaskState::Paused
        | TaskState::Failed
        | TaskState::Cancelled
        | TaskState::Skipped => Some(why()),
        TaskState::Ready if was_live => Some(format!("again: {}", LastWhy { view, task })),
        TaskState::Pending | TaskState::Blocked | TaskState::Ready => None,
    }
}

/// What a person reads of a merge: how it came out, not each step on the way.
fn merge_line(task: &Task, edge: Edge) -> Option<String> {
    let merge = task.merge.as_ref()?;
    let to = MergeState::from_word(edge.to)?;
    // The sentence belongs to the state that the merge is in by now.
    let detail =
        Some(first_line(&merge.detail)).filter(|said| merge.state == to && !said.is_empty());
    let detail = detail.map_or_else(String::new, |said| format!(": {said}"));
    match to {
        MergeState::Merged => Some("merged".to_owned()),
        MergeState::Conflict => Some(format!("its merge conflicts{detail}")),
        MergeState::Resolving => Some("an agent resolves its merge".to_owned()),
        MergeState::RolledBack => Some(format!("its merge is rolled back{detail}")),
        MergeState::Parked => Some(format!("its merge waits for the operator{detail}")),
        MergeState::Failed => Some(format!("it is not merged{detail}")),
        MergeState::None | MergeState::Queued | MergeState::Merging | MergeState::Verifying => None,
    }
}

/// As [`why`], for the batch.
fn batch_why<'a>(view: &'a View<'a>, edge: Edge) -> Option<BatchWhy<'a>> {
    (view.facts.batch.state.word() == edge.to).then_some(BatchWhy { view })
}

/// The reason of a step, where the picture has not gone on to another one since.
fn why<'a>(view: &'a View<'a>, task: &'a Task, to: TaskState) -> Option<TaskWhy<'a>> {
    (task.state == to).then_some(TaskWhy { view, task })
}

fn object(view: &View<'_>, change: Change) -> Option<String> {
    let (kind, of, edge, reason) = match change {
        Change::Batch(edge) => {
            let id = view.facts.batch.id.to_string();
            let reason = batch_why(view, edge).map(|why| why.to_string());
            ("batch", id, edge, reason)
        }
        Change::Task(ix, edge) => {
            let task = view.task(ix)?;
            let to = TaskState::from_word(edge.to)?;
            let reason = why(view, task, to).map(|why| why.to_string());
            ("task", task.id.to_string(), edge, reason)
        }
        Change::Merge(ix, edge) => {
            let task = view.task(ix)?;
            let merge = task.merge.as_ref();
            let said = merge.filter(|it| it.state.word() == edge.to && !it.detail.is_empty());
            let reason = said.map(|it| it.detail.to_string());
            ("merge", task.id.to_string(), edge, reason)
        }
        Change::Comment(ix, edge) => ("comment", view.task(ix)?.id.to_string(), edge, None),
        Change::Message(id, edge) => ("message", id.to_string(), edge, None),
        Change::Question(id, edge) => ("question", id.to_string(), edge, None),
        Change::Attempt(..) | Change::Run(..) | Change::Account(..) => return None,
    };
    Some(json(&Step {
        v: 1,
        time: Stamp(view.time.now),
        kind,
        batch: view.facts.batch.id.as_str(),
        of: &of,
        from: edge.from,
        to: edge.to,
        reason,
    }))
}

/// Plain structs of strings and numbers always become JSON.
fn json(row: &impl Serialize) -> String {
    serde_json::to_string(row).unwrap_or_default()
}

fn board(picture: Picture<'_>, view: &View<'_>) -> Board {
    let counts = view.counts();
    let live = picture.facts.runs.len();
    let mut rows: Vec<String> = picture
        .facts
        .runs
        .iter()
        .take(ROWS_MAX)
        .map(|(generation, run)| {
            let live = picture.live.get(*generation);
            let length = live.map_or(Duration::ZERO, |live| {
                Duration::from_millis(picture.now.boot.0.saturating_sub(live.spawned.0))
            });
            let doing = live.map_or("", |live| first_line(&live.activity));
            let task = view.task_name(run.task);
            format!(
                "{task}@{}  {}  {}  {doing}",
                run.attempt,
                delivery::purpose(Some(view.facts), run.purpose),
                Span(length)
            )
        })
        .collect();
    if live > rows.len() {
        rows.push(format!("... and {} more", live - rows.len()));
    }
    Board {
        settled: counts.settled() as u64,
        all: counts.all() as u64,
        counts: counts.sentence(),
        rows,
    }
}

impl Observer for Show {
    fn changed(&mut self, picture: Picture<'_>, changes: &[Change]) {
        for change in changes {
            self.step(picture, *change);
        }
    }

    fn noted(&mut self, note: Note<'_>) {
        match note {
            Note::TornTail(text) => self.say(&format!("torn tail: {text}")),
            Note::WaitingForHosts(count) => {
                self.say(&format!(
                    "{count} hosts of the earlier supervisor are ending: waiting"
                ));
            }
            Note::Reconciled(found) => {
                for found in found {
                    let host = match found.process {
                        ProcessFact::Gone => "is gone",
                        ProcessFact::Killed => "was killed while no supervisor lived",
                        ProcessFact::Living => "still lives",
                        ProcessFact::Foreign => "is on another machine or namespace",
                    };
                    let result = if found.result {
                        " and left a result"
                    } else {
                        ""
                    };
                    let (run, letter) = (found.generation, found.letter);
                    let task = self.names.get(&found.task);
                    let task = task.map_or_else(|| format!("#{}", found.task.0), String::clone);
                    let ruling = story::ruling(letter);
                    let row = letter.word();
                    self.say(&format!(
                        "{task}: run {run} was {}, its host {host}{result}; row {row}: {ruling}",
                        found.state
                    ));
                }
            }
            Note::Inbox(text) => self.say(&format!("from the inbox: {text}")),
            Note::Stopping(stage) => self.say(stopping(stage)),
            Note::GuardianGone(pid) => self.say(&format!(
                "the guardian (pid {pid}) is gone: work goes on, but nobody starts it again if the \
                 supervisor dies too"
            )),
            Note::DiskFailed(text) => self.say(&format!("the journal can not be written: {text}")),
            Note::DiskRecovered => self.say("the journal can be written again"),
            Note::Trouble(text) => self.say(text),
        }
    }

    fn refresh_every(&self) -> Option<Duration> {
        (self.style == Style::Terminal).then_some(REDRAW)
    }

    fn refresh(&mut self, picture: Picture<'_>) {
        self.time.now = picture.now.wall;
        let view = view(picture.facts, &self.time, &self.dir, &self.file);
        let board = board(picture, &view);
        self.screen.board(board);
    }

    fn ended(&mut self, dir: &StateDir) {
        let file = std::path::absolute(&self.file);
        let file = file.unwrap_or_else(|_| PathBuf::from(&self.file));
        if let Err(error) = report::keep(dir, file) {
            self.say(&format!("no report is left with the batch: {error}"));
        }
    }

    fn leave(&mut self) {
        self.screen.leave();
    }

    fn stay(&mut self) {
        match Screen::start(self.style == Style::Terminal) {
            Ok(screen) => self.screen = screen,
            Err(error) => tracing::error!(%error, "the display can not go on"),
        }
    }

    fn words(&self) -> Vec<OsString> {
        match self.style {
            Style::Json => vec!["--json".into()],
            Style::Terminal | Style::Plain => Vec::new(),
        }
    }
}

fn stopping(stage: StopStage) -> &'static str {
    match stage {
        StopStage::Drain => {
            "stopping: nothing new starts, what runs may finish (once more: stop what runs)"
        }
        StopStage::Stop => "stopping: what runs is asked to end (once more: kill)",
        StopStage::Kill => "stopping: what runs is killed",
    }
}
