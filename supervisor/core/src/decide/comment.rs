//! Comments on the issue or pull request that a task is about: one at a time for each task, in the order
//! in which there was something to tell.
//!
//! Nothing waits for them but the end of the batch, and that not for long: a comment that can not be
//! posted is tried a bounded number of times, and then only said in the journal. What is to be posted
//! is on record before a host begins, and the host looks for it before it posts it, so that a crash in
//! between does not double it.

use std::time::Duration;

use protocol::report::{ResultStatus, RunResult};

use super::Desk;
use super::failure::{Failure, reported};
use crate::effect::Effect;
use crate::facts::{COMMENTS_MAX, Comment};
use crate::machine::{CommentState, QuestionState, TaskState};
use crate::plan::TaskIx;
use crate::record::{Record, StopReason};
use crate::retry::{self, Group};
use crate::step::{CommentOn, Purpose};
use crate::time::Deadline;

/// Runs of one comment at most, whatever came between.
const COMMENT_RUNS_MAX: u32 = 6;
/// First wait for a forge that is out of reach; doubles up to [`COMMENT_WAIT_MAX`].
const COMMENT_WAIT_MIN: Duration = Duration::from_secs(5);
/// Longest wait between two runs of a comment, also where the forge names a later time: the end of the
/// batch waits for it.
const COMMENT_WAIT_MAX: Duration = Duration::from_secs(120);
/// Hosts that post comments at the same time, at most.
const COMMENTING_MAX: usize = 2;

impl Desk<'_> {
    /// There is something to tell of a task.
    pub(super) fn tell(&mut self, ix: TaskIx, on: CommentOn) {
        let wanted = self.spec(ix).comments;
        let wanted = match on {
            CommentOn::Failed => wanted.failed,
            CommentOn::Done => wanted.done,
            CommentOn::Question(_) => wanted.question,
        };
        let comments = &self.task(ix).comments;
        let room = comments.len() < COMMENTS_MAX && comments.iter().all(|known| known.on != on);
        if wanted && room {
            self.move_comment(ix, on, CommentState::Queued, None, "");
        }
    }

    /// A task came to an end that may be worth a comment.
    pub(super) fn tell_end(&mut self, ix: TaskIx) {
        match self.task(ix).state {
            TaskState::Failed => self.tell(ix, CommentOn::Failed),
            TaskState::Done => self.tell(ix, CommentOn::Done),
            TaskState::Pending
            | TaskState::Blocked
            | TaskState::Ready
            | TaskState::Running
            | TaskState::Verifying
            | TaskState::Reviewing
            | TaskState::Waiting
            | TaskState::Paused
            | TaskState::Cancelled
            | TaskState::Skipped => {}
        }
    }

    /// Begins the runs of comments that are due; a stop and a disk that takes no records hold them.
    pub(super) fn comment(&mut self) {
        if self.index().commenting.is_empty() || !self.may_comment() {
            return;
        }
        let tasks: Vec<TaskIx> = self.index().commenting.iter().copied().collect();
        let posting = |ix: &&TaskIx| self.next_comment(**ix).is_some_and(|it| it.run.is_some());
        let mut free = COMMENTING_MAX.saturating_sub(tasks.iter().filter(posting).count());
        for ix in tasks {
            while let Some(comment) = self.due_comment(ix).filter(|_| free > 0) {
                if let Some(why) = self.is_stale(ix, comment.on) {
                    self.move_comment(ix, comment.on, CommentState::Failed, None, why);
                    continue;
                }
                free -= 1;
                self.post(ix, comment.on);
            }
        }
    }

    /// A clean-up alone tells nothing; else as for clean-ups.
    fn may_comment(&self) -> bool {
        !self.live.is_confined() && self.may_clean()
    }

    /// Whether a comment will be posted, or given up, by itself.
    pub(super) fn comments_move(&self) -> bool {
        let waits = |ix: &TaskIx| self.next_comment(*ix).is_some_and(|it| it.run.is_none());
        self.may_comment() && self.index().commenting.iter().any(waits)
    }

    fn next_comment(&self, ix: TaskIx) -> Option<Comment> {
        self.task(ix).comments.first().copied()
    }

    fn due_comment(&self, ix: TaskIx) -> Option<Comment> {
        let next = self.next_comment(ix)?;
        let due = next.state == CommentState::Queued && next.run.is_none() && next.at.is_none();
        due.then_some(next)
    }

    /// What it tells is no longer so.
    fn is_stale(&self, ix: TaskIx, on: CommentOn) -> Option<&'static str> {
        let state = self.task(ix).state;
        match on {
            CommentOn::Failed => {
                (state != TaskState::Failed).then_some("the task was opened again")
            }
            CommentOn::Done => (state != TaskState::Done).then_some("the task was opened again"),
            CommentOn::Question(id) => {
                let question = self.facts().questions.get(&id);
                let open = question.is_some_and(|it| it.state == QuestionState::Open);
                (!open).then_some("the question is settled")
            }
        }
    }

    fn post(&mut self, ix: TaskIx, on: CommentOn) {
        let generation = self.next_generation();
        let token = self.token(generation);
        self.record(Record::RunIntended {
            generation,
            task: ix,
            purpose: Purpose::Comment(on),
            token,
        });
        self.effect(Effect::SpawnHost { generation });
    }

    /// The wait for the next try is over.
    pub(super) fn comment_due(&mut self, ix: TaskIx) {
        if let Some(comment) = self.next_comment(ix) {
            self.move_comment(ix, comment.on, comment.state, None, "");
        }
    }

    /// A run of a comment is over with a result.
    pub(super) fn comment_over(&mut self, ix: TaskIx, on: CommentOn, result: &RunResult) {
        if result.status == ResultStatus::Ok {
            self.move_comment(ix, on, CommentState::Posted, None, &result.summary);
            return;
        }
        let failure = reported(result);
        let waits = retry::group(failure.class) == Group::Account;
        self.post_again(ix, on, &failure, waits);
    }

    /// A run of a comment is gone without a result.
    pub(super) fn comment_broken(
        &mut self,
        ix: TaskIx,
        on: CommentOn,
        stop: Option<StopReason>,
        failure: &Failure,
    ) {
        // Told to end: it goes on after `run`.
        let stopped = stop == Some(StopReason::Interrupted);
        if stopped {
            self.move_comment(ix, on, CommentState::Queued, None, "interrupted");
        } else {
            self.post_again(ix, on, failure, true);
        }
    }

    fn post_again(&mut self, ix: TaskIx, on: CommentOn, failure: &Failure, may: bool) {
        let runs = self.next_comment(ix).map_or(0, |comment| comment.runs);
        let detail = format!("{}: {}", failure.class, failure.detail);
        if !may || runs >= COMMENT_RUNS_MAX {
            self.move_comment(ix, on, CommentState::Failed, None, &detail);
            return;
        }
        let seed = self.facts().batch.seed ^ retry::mix(u64::from(ix.0) << 32 | u64::from(runs));
        let wait = retry::backoff(COMMENT_WAIT_MIN, COMMENT_WAIT_MAX, runs, seed);
        let latest = self.now.wall + COMMENT_WAIT_MAX;
        let named = self.believed(failure.reset).filter(|reset| *reset < latest);
        let at = named.map_or(Deadline::Boot(self.now.boot + wait), Deadline::Wall);
        self.move_comment(ix, on, CommentState::Queued, Some(at), &detail);
    }

    fn move_comment(
        &mut self,
        task: TaskIx,
        on: CommentOn,
        to: CommentState,
        at: Option<Deadline>,
        detail: &str,
    ) {
        self.record(Record::CommentMoved {
            task,
            on,
            to,
            at,
            detail: detail.into(),
        });
    }
}
