//! Operators' requests: words of the control socket to commands of the core, and answers back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::ids::{Generation, MessageId, TaskId};
use protocol::report::Receipt;
use serde::{Deserialize, Serialize};
use supervisor_core::core::Change;
use supervisor_core::effect::{Answer, Refusal};
use supervisor_core::facts::Facts;
use supervisor_core::input::{OperatorCommand, ReplyId};
use supervisor_core::live::LiveRuns;
use supervisor_core::machine::{Edge, MessageState};
use supervisor_core::plan::{RetryMode, TaskIx};
use supervisor_core::time::{Now, Wall};

use crate::control::server::{Caller, refused};
use crate::control::wire::{Reply, RunActivity, Rung, Want};
use crate::store::inbox::Waiting;

/// Positions of tasks by their ids; made when first asked for, because most supervisors never are.
#[derive(Debug, Default)]
pub struct TaskNames {
    positions: HashMap<TaskId, TaskIx>,
}

impl TaskNames {
    /// The positions of these tasks.
    ///
    /// # Errors
    /// A refusal that names the first one that is not there.
    pub fn all(&mut self, facts: &Facts, ids: &[TaskId]) -> Result<Vec<TaskIx>, Reply> {
        if self.positions.len() != facts.tasks.len() {
            let numbered = (0_u32..).zip(&facts.tasks);
            self.positions = numbered
                .map(|(number, task)| (task.id.clone(), TaskIx(number)))
                .collect();
        }
        ids.iter()
            .map(|id| {
                let position = self.positions.get(id).copied();
                position.ok_or_else(|| refused(6, &format!("the batch has no task `{id}`")))
            })
            .collect()
    }

    fn maybe(
        &mut self,
        facts: &Facts,
        ids: Option<&[TaskId]>,
    ) -> Result<Option<Vec<TaskIx>>, Reply> {
        ids.map(|ids| self.all(facts, ids)).transpose()
    }
}

/// What a request comes to.
#[derive(Debug, PartialEq)]
pub enum Meaning {
    /// A command for the core, and the rung that the client waits for.
    Command(OperatorCommand, Option<Rung>),
    /// End every attempt, then the supervisor.
    EndAll {
        /// Time from asking to force.
        grace: Duration,
    },
    /// Heard already, when this supervisor began.
    Noted,
    /// Say what live runs do.
    Activity,
    /// Read the inbox again.
    Inbox,
    /// Tell every step from now on.
    Watch,
    /// Become this program and go on.
    Replace {
        /// The program.
        program: PathBuf,
    },
}

/// Understands a request.
///
/// # Errors
/// The refusal, where it names a task that is not there.
pub fn understand(names: &mut TaskNames, facts: &Facts, want: Want) -> Result<Meaning, Reply> {
    let command = match want {
        Want::Steer {
            tasks,
            mode,
            text,
            expires_ms,
            wait,
        } => {
            let command = OperatorCommand::Steer {
                tasks: names.all(facts, &tasks)?,
                mode,
                text: text.into(),
                expires: expires_ms.map(Wall),
                wait: wait.and_then(receipt),
            };
            return Ok(Meaning::Command(command, wait));
        }
        Want::Killed { .. } => return Ok(Meaning::Noted),
        Want::Activity => return Ok(Meaning::Activity),
        Want::Inbox => return Ok(Meaning::Inbox),
        Want::Watch => return Ok(Meaning::Watch),
        Want::Reexec { program } => {
            let program = PathBuf::from(program);
            return Ok(Meaning::Replace { program });
        }
        Want::Kill {
            tasks: None,
            grace_ms,
        } => {
            let grace = Duration::from_millis(grace_ms);
            return Ok(Meaning::EndAll { grace });
        }
        Want::Kill {
            tasks: Some(tasks),
            grace_ms,
        } => OperatorCommand::Kill {
            tasks: names.all(facts, &tasks)?,
            grace: Duration::from_millis(grace_ms),
        },
        Want::Answer { question, text } => OperatorCommand::Answer {
            question,
            text: text.into(),
        },
        Want::Pause { tasks, now } => OperatorCommand::Pause {
            tasks: names.maybe(facts, tasks.as_deref())?,
            now,
        },
        Want::Resume { tasks } => OperatorCommand::Resume {
            tasks: names.maybe(facts, tasks.as_deref())?,
        },
        Want::Cancel { tasks } => OperatorCommand::Cancel {
            tasks: names.maybe(facts, tasks.as_deref())?,
        },
        Want::Retry {
            tasks,
            fresh,
            attempts,
            note,
        } => OperatorCommand::Retry {
            tasks: names.all(facts, &tasks)?,
            mode: if fresh {
                RetryMode::Fresh
            } else {
                RetryMode::Resume
            },
            attempts,
            note: note.map(Into::into),
        },
        Want::Clean { tasks } => OperatorCommand::Clean {
            tasks: names.maybe(facts, tasks.as_deref())?,
        },
        Want::CleanBuildOutput { tasks } => OperatorCommand::CleanBuildOutput {
            tasks: names.all(facts, &tasks)?,
        },
        Want::Skip { tasks, as_done } => OperatorCommand::Skip {
            tasks: names.all(facts, &tasks)?,
            as_done,
        },
    };
    Ok(Meaning::Command(command, None))
}

/// The rung as an adapter proves it; the first two need no adapter.
fn receipt(rung: Rung) -> Option<Receipt> {
    match rung {
        Rung::Queued | Rung::Sent => None,
        Rung::Injected => Some(Receipt::Injected),
        Rung::Seen => Some(Receipt::Seen),
    }
}

/// The tasks that have an open attempt.
pub fn live_tasks(facts: &Facts) -> Vec<TaskIx> {
    let mut tasks: Vec<TaskIx> = facts.runs.values().map(|run| run.task).collect();
    tasks.sort_unstable();
    tasks.dedup();
    tasks
}

/// What each live run does now.
pub fn activity(facts: &Facts, live: &LiveRuns, now: Now) -> Reply {
    let runs = facts.runs.iter().filter_map(|(&generation, run)| {
        let task = facts.tasks.get(usize::try_from(run.task.0).ok()?)?;
        let known = live.get(generation);
        Some(RunActivity {
            task: task.id.clone(),
            generation: generation.0,
            pid: run.identity.as_ref().map(|identity| identity.pid),
            text: known.map_or_else(String::new, |live| live.activity.to_string()),
            quiet_ms: known.map_or(0, |live| now.boot.0.saturating_sub(live.alive.0)),
            heard_ms: known.map_or(0, |live| now.boot.0.saturating_sub(live.heard.0)),
            family: known.map_or_else(Default::default, |live| live.pong.family),
        })
    });
    Reply::Activity {
        runs: runs.collect(),
    }
}

/// Who waits for an answer.
#[derive(Debug)]
pub enum Waiter {
    /// A client of the control socket.
    Client {
        /// Where replies go.
        caller: Caller,
        /// The rung it waits for.
        wait: Option<Rung>,
    },
    /// A host that asked: the number of its request.
    Host {
        /// Its run.
        generation: Generation,
        /// The number.
        id: u64,
    },
    /// A request that had waited in the inbox, to be forgotten now.
    Inbox {
        /// The request.
        waiting: Waiting,
    },
    /// A client that is told this once what it asked for is durable.
    Replaced {
        /// Where the reply goes.
        caller: Caller,
        /// The reply.
        told: Reply,
    },
    /// Nobody: signals, and the second half of ending all.
    Nobody,
}

/// A client that waits for its messages to climb.
#[derive(Debug)]
struct Follow {
    ids: Vec<MessageId>,
    rung: Rung,
    caller: Caller,
    lines: Vec<String>,
}

/// Everyone who waits for steps, by connection: what a desk leaves for the one that goes on in its
/// place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Watches {
    watchers: Vec<u64>,
    follows: Vec<LeftFollow>,
    /// Files of the inbox whose requests were carried out, but which could not be removed.
    taken: Vec<PathBuf>,
}

/// [`Follow`], as it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LeftFollow {
    connection: u64,
    ids: Vec<MessageId>,
    rung: Rung,
    lines: Vec<String>,
}

/// Everyone who waits or watches.
#[derive(Debug, Default)]
pub struct Desk {
    last: u64,
    waiting: HashMap<ReplyId, Waiter>,
    follows: Vec<Follow>,
    watchers: Vec<Caller>,
    /// Files of the inbox whose requests are being carried out.
    taken: HashSet<PathBuf>,
}

impl Desk {
    /// A number for whoever waits.
    pub fn enlist(&mut self, waiter: Waiter) -> ReplyId {
        self.last += 1;
        let reply = ReplyId(self.last);
        self.waiting.insert(reply, waiter);
        reply
    }

    /// Who has this number; it is free after.
    pub fn discharge(&mut self, reply: ReplyId) -> Waiter {
        self.waiting.remove(&reply).unwrap_or(Waiter::Nobody)
    }

    /// From now on this client is told every step.
    pub fn watch(&mut self, caller: Caller) {
        self.watchers.push(caller);
    }

    /// Whether somebody waits to be told of steps.
    pub fn is_watched(&self) -> bool {
        !self.watchers.is_empty() || !self.follows.is_empty()
    }

    /// Notes that a request of the inbox is being carried out; `false` when it is already. At most
    /// as many as may wait there ([`WAITING_MAX`](crate::store::inbox::WAITING_MAX)).
    pub fn take_file(&mut self, file: &Path) -> bool {
        self.taken.insert(file.to_owned())
    }

    /// A request of the inbox was carried out and its file is gone.
    pub fn forget_file(&mut self, file: &Path) {
        self.taken.remove(file);
    }

    /// Hands a client the core's answer; one that waits for a rung is told of every move after.
    /// `queued` is what [`queued_at`] says of the answer.
    pub fn answer(&mut self, caller: Caller, wait: Option<Rung>, answer: &Answer, queued: Wall) {
        let reply = reply(answer, queued);
        if !caller.tell(reply) {
            return;
        }
        if let (Answer::Messages(ids), Some(rung)) = (answer, wait) {
            let follow = Follow {
                ids: ids.clone(),
                rung,
                caller,
                lines: Vec::new(),
            };
            if rung == Rung::Queued {
                let lines = ids.iter().map(|id| format!("{id} queued")).collect();
                follow.caller.tell(Reply::Done { lines });
            } else {
                self.follows.push(follow);
            }
        }
    }

    /// Tells watchers and waiting clients of durable steps.
    pub fn changed(&mut self, facts: &Facts, now: Now, changes: &[Change]) {
        if !self.watchers.is_empty() {
            for change in changes {
                let line = shown(facts, change);
                self.watchers.retain(|watcher| watcher.tell(line.clone()));
            }
        }
        if self.follows.is_empty() {
            return;
        }
        for change in changes {
            if let Change::Message(id, edge) = change {
                self.follows
                    .retain_mut(|follow| follow.moved(facts, now, *id, *edge));
            }
        }
    }

    /// Who waits for steps. Whoever waits for an answer is not in it: the core answers in the turn
    /// that it is asked in.
    pub fn watches(&self) -> Watches {
        let follows = self.follows.iter().map(|follow| LeftFollow {
            connection: follow.caller.connection,
            ids: follow.ids.clone(),
            rung: follow.rung,
            lines: follow.lines.clone(),
        });
        Watches {
            watchers: self.watchers.iter().map(|it| it.connection).collect(),
            follows: follows.collect(),
            taken: self.taken.iter().cloned().collect(),
        }
    }

    /// Goes on in the place of a desk that has left these; of those whose connection is not here
    /// any more nobody waits.
    pub fn take_over(&mut self, watches: Watches, callers: &BTreeMap<u64, Caller>) {
        let here = |connection: &u64| callers.get(connection).cloned();
        self.watchers = watches.watchers.iter().filter_map(here).collect();
        let follows = watches.follows.into_iter().filter_map(|left| {
            Some(Follow {
                caller: here(&left.connection)?,
                ids: left.ids,
                rung: left.rung,
                lines: left.lines,
            })
        });
        self.follows = follows.collect();
        self.taken.extend(watches.taken);
    }

    /// The supervisor ends: nobody is left waiting without a word.
    pub fn close(&mut self) {
        for watcher in self.watchers.drain(..) {
            watcher.tell(Reply::Done { lines: Vec::new() });
        }
        let text = "the supervisor ended first; the message stays with the task";
        for follow in self.follows.drain(..) {
            follow.caller.tell(refused(5, text));
        }
        for (_, waiter) in self.waiting.drain() {
            if let Waiter::Client { caller, .. } | Waiter::Replaced { caller, .. } = waiter {
                caller.tell(refused(5, "the supervisor ended before it could answer"));
            }
        }
    }
}

impl Follow {
    /// Tells one move; `false` when there is nothing more to wait for.
    fn moved(&mut self, facts: &Facts, now: Now, id: MessageId, edge: Edge) -> bool {
        let Some(position) = self.ids.iter().position(|waited| *waited == id) else {
            return true;
        };
        let Some(state) = MessageState::from_word(edge.to) else {
            return true;
        };
        let message = facts.messages.get(&id);
        let rung = message.and_then(|message| {
            let rungs = message.rungs.iter().rev();
            rungs.into_iter().find(|(reached, _)| *reached == state)
        });
        let told = self.caller.tell(Reply::Moved {
            id,
            state: edge.to.to_owned(),
            at_ms: rung.map_or(now.wall, |(_, at)| *at).0,
        });
        if is_over(state, self.rung) {
            self.ids.swap_remove(position);
            self.lines.push(format!("{id} {}", edge.to));
        }
        if self.ids.is_empty() {
            let lines = std::mem::take(&mut self.lines);
            self.caller.tell(Reply::Done { lines });
            return false;
        }
        told
    }
}

/// Whether a message in this state has reached the rung, or left the ladder.
fn is_over(state: MessageState, rung: Rung) -> bool {
    match state {
        MessageState::Queued => rung == Rung::Queued,
        MessageState::Sent => rung <= Rung::Sent,
        MessageState::Injected => rung <= Rung::Injected,
        MessageState::Seen
        | MessageState::Expired
        | MessageState::Dead
        | MessageState::Uncertain => true,
    }
}

/// When the messages of an answer were queued; they share one moment. `now` where it is about none.
pub fn queued_at(facts: Option<&Facts>, answer: &Answer, now: Wall) -> Wall {
    let (Some(facts), Answer::Messages(ids)) = (facts, answer) else {
        return now;
    };
    let first = ids.first().and_then(|id| facts.messages.get(id));
    let rung = first.and_then(|message| message.rungs.first());
    rung.map_or(now, |(_, at)| *at)
}

/// The core's answer in the socket's words.
pub fn reply(answer: &Answer, queued: Wall) -> Reply {
    match answer {
        Answer::Done(lines) => Reply::Done {
            lines: lines.iter().map(ToString::to_string).collect(),
        },
        Answer::Messages(ids) => Reply::Messages {
            ids: ids.clone(),
            at_ms: queued.0,
        },
        Answer::Asked(question) => Reply::Done {
            lines: vec![question.to_string()],
        },
        Answer::Refused(refusal) => refused(exit_code(refusal), &refusal.to_string()),
    }
}

fn exit_code(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::NotFound(_) => 6,
        Refusal::WrongState(_) | Refusal::CanNotProve(_) | Refusal::Unfit(_) => 8,
        Refusal::Limit(_) => 2,
    }
}

fn shown(facts: &Facts, change: &Change) -> Reply {
    let task = |ix: TaskIx| {
        let task = usize::try_from(ix.0)
            .ok()
            .and_then(|ix| facts.tasks.get(ix));
        task.map_or_else(String::new, |task| task.id.to_string())
    };
    let (of, edge) = match change {
        Change::Batch(edge) => (facts.batch.id.to_string(), edge),
        Change::Task(ix, edge)
        | Change::Attempt(ix, edge)
        | Change::Merge(ix, edge)
        | Change::Comment(ix, edge) => (task(*ix), edge),
        Change::Run(generation, edge) => (generation.to_string(), edge),
        Change::Message(id, edge) => (id.to_string(), edge),
        Change::Question(id, edge) => (id.to_string(), edge),
        Change::Account(ix, edge) => {
            let account = usize::try_from(ix.0)
                .ok()
                .and_then(|ix| facts.accounts.get(ix));
            let name = account.map(|account| account.spec.name.to_string());
            (name.unwrap_or_default(), edge)
        }
    };
    Reply::Changed {
        machine: edge.machine.to_owned(),
        of,
        from: edge.from.to_owned(),
        to: edge.to.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::fixture;
    use protocol::command::SteerMode;
    use serde_json::json;
    use std::sync::Arc;
    use supervisor_core::core::Core;
    use supervisor_core::input::Input;
    use supervisor_core::plan::AgentKind;
    use tokio::sync::mpsc;

    fn core() -> Core {
        let script = json!({"act": "nothing"});
        fixture::core(AgentKind::Command, &json!("run"), &script)
    }

    fn steer(task: &str, wait: Option<Rung>) -> Want {
        Want::Steer {
            tasks: vec![task.parse().unwrap()],
            mode: SteerMode::Boundary,
            text: "left".to_owned(),
            expires_ms: Some(5),
            wait,
        }
    }

    #[test]
    fn ids_become_positions_and_rungs_become_receipts() {
        let core = core();
        let facts = core.facts().unwrap();
        let mut names = TaskNames::default();
        let meant = understand(&mut names, facts, steer("first", Some(Rung::Seen))).unwrap();
        let command = OperatorCommand::Steer {
            tasks: vec![TaskIx(0)],
            mode: SteerMode::Boundary,
            text: "left".into(),
            expires: Some(Wall(5)),
            wait: Some(Receipt::Seen),
        };
        assert_eq!(meant, Meaning::Command(command, Some(Rung::Seen)));
        let unknown = understand(&mut names, facts, steer("second", None));
        let Err(Reply::Refused { code: 6, text }) = unknown else {
            panic!("{unknown:?}");
        };
        assert!(text.contains("second"));
    }

    #[test]
    fn the_whole_batch_is_no_list_of_tasks() {
        let core = core();
        let facts = core.facts().unwrap();
        let mut names = TaskNames::default();
        let mut meaning = |want| understand(&mut names, facts, want).unwrap();
        let pause = meaning(Want::Pause {
            tasks: None,
            now: true,
        });
        let expected = OperatorCommand::Pause {
            tasks: None,
            now: true,
        };
        assert_eq!(pause, Meaning::Command(expected, None));
        let kill = meaning(Want::Kill {
            tasks: None,
            grace_ms: 1500,
        });
        let grace = Duration::from_millis(1500);
        assert_eq!(kill, Meaning::EndAll { grace });
        assert_eq!(live_tasks(facts), [TaskIx(0)]);
    }

    fn moved(id: u64, from: &'static str, to: &'static str) -> Change {
        let machine = "message";
        Change::Message(MessageId(id), Edge { machine, from, to })
    }

    fn states(replies: &mut mpsc::Receiver<Reply>) -> Vec<String> {
        std::iter::from_fn(|| replies.try_recv().ok())
            .map(|reply| match reply {
                Reply::Messages { ids, at_ms } => format!("{} messages at {at_ms}", ids.len()),
                Reply::Moved { id, state, .. } => format!("{id} {state}"),
                Reply::Done { lines } => format!("done: {}", lines.join(", ")),
                Reply::Refused { code, .. } => format!("refused {code}"),
                other => format!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_follower_hears_each_move_until_all_have_reached_the_rung_or_left_the_ladder() {
        let core = core();
        let facts = core.facts().unwrap();
        let (replies, mut heard) = mpsc::channel(16);
        let mut desk = Desk::default();
        let ids = vec![MessageId(1), MessageId(2)];
        let queued = Wall(7);
        desk.answer(
            Caller::new(1, replies),
            Some(Rung::Injected),
            &Answer::Messages(ids),
            queued,
        );
        let mut tell = |change: Change| desk.changed(facts, fixture::now(), &[change]);
        tell(moved(1, "queued", "sent"));
        tell(moved(9, "queued", "sent"));
        tell(moved(1, "sent", "injected"));
        tell(moved(1, "injected", "seen"));
        tell(moved(2, "queued", "expired"));
        tell(moved(2, "queued", "sent"));
        let expected = [
            "2 messages at 7",
            "m1 sent",
            "m1 injected",
            "m2 expired",
            "done: m1 injected, m2 expired",
        ];
        assert_eq!(states(&mut heard), expected);
        assert!(heard.is_closed(), "the connection is kept open");
    }

    #[test]
    fn nobody_is_left_without_a_last_word() {
        let core = core();
        let facts = core.facts().unwrap();
        let mut desk = Desk::default();
        let (watcher, mut watched) = mpsc::channel(16);
        desk.watch(Caller::new(3, watcher));
        let (follower, mut followed) = mpsc::channel(16);
        let messages = Answer::Messages(vec![MessageId(1)]);
        desk.answer(
            Caller::new(4, follower),
            Some(Rung::Seen),
            &messages,
            Wall(8),
        );
        let (client, mut waiting) = mpsc::channel(16);
        let wait = None;
        desk.enlist(Waiter::Client {
            caller: Caller::new(2, client),
            wait,
        });
        desk.changed(facts, fixture::now(), &[moved(1, "queued", "sent")]);
        desk.close();
        assert_eq!(states(&mut watched).last().unwrap(), "done: ");
        assert_eq!(
            states(&mut followed),
            ["1 messages at 8", "m1 sent", "refused 5"]
        );
        assert_eq!(states(&mut waiting), ["refused 5"]);
    }

    #[test]
    fn a_watcher_that_does_not_read_is_let_go() {
        let core = core();
        let facts = core.facts().unwrap();
        let mut desk = Desk::default();
        let (watcher, watched) = mpsc::channel(2);
        desk.watch(Caller::new(3, watcher));
        for _ in 0..3 {
            desk.changed(facts, fixture::now(), &[moved(1, "queued", "sent")]);
        }
        assert!(desk.watchers.is_empty());
        assert_eq!(watched.len(), 2);
    }

    #[test]
    fn refusals_keep_their_exit_codes() {
        let text: Arc<str> = "no".into();
        let code = |refusal| match reply(&Answer::Refused(refusal), Wall(0)) {
            Reply::Refused { code, .. } => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(code(Refusal::NotFound(text.clone())), 6);
        assert_eq!(code(Refusal::WrongState(text.clone())), 8);
        assert_eq!(code(Refusal::CanNotProve(text.clone())), 8);
        assert_eq!(code(Refusal::Unfit(text.clone())), 8);
        assert_eq!(code(Refusal::Limit(text)), 2);
    }

    /// Client and supervisor may differ by any time; rungs are told by one clock, in their order.
    #[test]
    fn the_first_rung_has_the_time_of_the_journal() {
        let mut core = core();
        let command = OperatorCommand::Steer {
            tasks: vec![TaskIx(0)],
            mode: SteerMode::After,
            text: "left".into(),
            expires: None,
            wait: None,
        };
        let reply = ReplyId(1);
        let turn = core.handle(fixture::now(), Input::Operator { reply, command });
        assert!(turn.defects.is_empty(), "{:?}", turn.defects);
        let answer = Answer::Messages(vec![MessageId(1)]);
        let later = Wall(fixture::now().wall.0 + 60_000);
        let at = queued_at(core.facts(), &answer, later);
        assert_eq!(at, fixture::now().wall);
        let none = Answer::Done(Vec::new());
        assert_eq!(queued_at(core.facts(), &none, later), later);
    }
}
