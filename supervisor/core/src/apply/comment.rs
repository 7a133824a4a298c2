//! Records of comments on issues and pull requests.

use protocol::ids::{AttemptNo, Generation};

use super::Apply;
use crate::core::{Change, ReplayError};
use crate::facts::{COMMENTS_MAX, Comment};
use crate::machine::CommentState;
use crate::plan::TaskIx;
use crate::step::CommentOn;
use crate::time::Deadline;

impl Apply<'_> {
    pub(super) fn comment_moved(
        &mut self,
        ix: TaskIx,
        on: CommentOn,
        to: CommentState,
        at: Option<Deadline>,
    ) -> Result<(), ReplayError> {
        let seq = self.entry.seq;
        let task = self.task(ix)?;
        let (attempt, count) = (task.attempts, task.comments.len());
        let known = task.comments.iter().position(|known| known.on == on);
        match known {
            None if to == CommentState::Queued => {
                self.require(count < COMMENTS_MAX, "a task has so many comments at most")?;
                self.task(ix)?.comments.push(Comment {
                    on,
                    attempt,
                    state: to,
                    run: None,
                    runs: 0,
                    at,
                });
            }
            None => return Err(self.unknown("comment")),
            Some(place) => {
                let comment = self.task(ix)?.comments[place];
                let mut state = comment.state;
                self.require(comment.run.is_none(), "a comment moves between two runs")?;
                if state != to {
                    let edge = state.become_(to);
                    let edge = edge.map_err(|edge| ReplayError::Edge { seq, edge })?;
                    self.changes.push(Change::Comment(ix, edge));
                }
                let comments = &mut self.task(ix)?.comments;
                match to {
                    CommentState::Posted | CommentState::Failed => _ = comments.remove(place),
                    CommentState::Queued | CommentState::Posting => {
                        (comments[place].state, comments[place].at) = (to, at);
                    }
                }
            }
        }
        self.state.index.note_comments(&self.state.facts, ix);
        Ok(())
    }

    /// A run of the next comment begins; gives the attempt that it tells of.
    pub(super) fn comment_run(
        &mut self,
        ix: TaskIx,
        on: CommentOn,
        generation: Generation,
    ) -> Result<AttemptNo, ReplayError> {
        let seq = self.entry.seq;
        let next = self.task(ix)?.comments.first_mut();
        let due = next.filter(|next| next.on == on && next.run.is_none());
        let Some(comment) = due else {
            return Err(ReplayError::Unknown {
                seq,
                what: "comment that is due",
            });
        };
        let edge = comment.state.become_(CommentState::Posting);
        let edge = edge.map_err(|edge| ReplayError::Edge { seq, edge })?;
        comment.run = Some(generation);
        comment.runs += 1;
        let attempt = comment.attempt;
        self.changes.push(Change::Comment(ix, edge));
        self.state.index.note_comments(&self.state.facts, ix);
        Ok(attempt)
    }
}
