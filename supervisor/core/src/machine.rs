//! The closed machines: one enum and one edge table per entity, used live, in replay and in tests.

use std::fmt;

/// A state that the edge table does not lead to; a journal that asks for it is not ours to follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{machine}: no edge from {from} to {to}")]
pub struct IllegalEdge {
    /// Which machine.
    pub machine: &'static str,
    /// The state it is in.
    pub from: &'static str,
    /// The state asked for.
    pub to: &'static str,
}

/// One step of one machine, as told to whoever watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// Which machine.
    pub machine: &'static str,
    /// From this state
    pub from: &'static str,
    /// to this one.
    pub to: &'static str,
}

macro_rules! machine {
    (
        $(#[$doc:meta])*
        $name:ident as $machine:literal {
            $($(#[$sdoc:meta])* $state:ident = $word:literal => [$($to:ident),*]),+ $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$sdoc])* $state,)+
        }
        impl $name {
            /// Every state, in the order of the manual.
            pub const ALL: &'static [$name] = &[$($name::$state),+];

            /// The word used in status, journal and scripts.
            pub const fn word(self) -> &'static str {
                match self { $($name::$state => $word,)+ }
            }
            /// The states that this one may become: the edge table.
            pub const fn edges(self) -> &'static [$name] {
                match self { $($name::$state => &[$($name::$to),*],)+ }
            }
            /// Takes one edge.
            ///
            /// # Errors
            /// [`IllegalEdge`] when the table does not hold it.
            pub fn become_(&mut self, to: $name) -> Result<Edge, IllegalEdge> {
                let (from_word, to_word) = (self.word(), to.word());
                if !self.edges().contains(&to) {
                    return Err(IllegalEdge { machine: $machine, from: from_word, to: to_word });
                }
                *self = to;
                Ok(Edge { machine: $machine, from: from_word, to: to_word })
            }
            /// Every edge of this machine, for tests that count which were taken.
            pub fn all_edges() -> Vec<Edge> {
                let mut all = Vec::new();
                for from in Self::ALL {
                    for to in from.edges() {
                        all.push(Edge { machine: $machine, from: from.word(), to: to.word() });
                    }
                }
                all
            }
            /// The state of that word.
            pub fn from_word(word: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|state| state.word() == word)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

machine! {
    /// Where a batch is.
    BatchState as "batch" {
        /// Attempts may start.
        Running = "running" => [Paused, Stopping, Done, Failed],
        /// No new attempts until its reason is gone.
        Paused = "paused" => [Running, Stopping, Done, Failed],
        /// Draining, or ending what runs.
        Stopping = "stopping" => [Running, Done, Failed, Interrupted],
        /// Every task done or skipped on purpose.
        Done = "done" => [Running],
        /// Every task terminal, some not done.
        Failed = "failed" => [Running],
        /// Ended before its tasks did; `run` goes on with it.
        Interrupted = "interrupted" => [Running],
    }
}

machine! {
    /// Where a task is.
    TaskState as "task" {
        /// Not yet looked at.
        Pending = "pending" => [Blocked, Ready, Skipped],
        /// Waits for a dependency, a date, or a task that touches the same files.
        Blocked = "blocked" => [Ready, Paused, Skipped, Cancelled, Done],
        /// Waits for a lane, or for the end of a backoff.
        Ready = "ready" => [Running, Blocked, Paused, Skipped, Cancelled, Done, Failed],
        /// An agent works on it.
        Running = "running" => [Verifying, Waiting, Ready, Paused, Done, Failed, Cancelled],
        /// Its work is committed and its proof is being made.
        Verifying = "verifying" => [Reviewing, Ready, Paused, Done, Failed, Cancelled],
        /// Another agent judges its work.
        Reviewing = "reviewing" => [Running, Ready, Paused, Done, Failed, Cancelled],
        /// An agent waits for the operator's answer.
        Waiting = "waiting" => [Running],
        /// Held by the operator, a kill, or an account.
        Paused = "paused" => [Ready, Blocked, Running, Verifying, Reviewing, Skipped, Cancelled, Done],
        /// Proven done.
        Done = "done" => [],
        /// Not done, and not tried again.
        Failed = "failed" => [Blocked],
        /// Ended by the operator.
        Cancelled = "cancelled" => [Blocked],
        /// Not tried: a dependency failed, or the operator said so.
        Skipped = "skipped" => [Blocked],
    }
}

impl TaskState {
    /// Left only by `retry` (the record `Reopened`).
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Done | Self::Failed | Self::Cancelled | Self::Skipped
        )
    }
    /// An attempt is open.
    pub const fn is_live(self) -> bool {
        matches!(
            self,
            Self::Running | Self::Verifying | Self::Reviewing | Self::Waiting
        )
    }
}

machine! {
    /// Where an attempt is.
    AttemptState as "attempt" {
        /// Its worktree and what else it needs are being made.
        Preparing = "preparing" => [Working, Ended],
        /// Its agent works.
        Working = "working" => [Proving, Ended],
        /// Its work is being committed and proven.
        Proving = "proving" => [Reviewing, Ended],
        /// Its work is being judged.
        Reviewing = "reviewing" => [Preparing, Working, Ended],
        /// It has an outcome.
        Ended = "ended" => [],
    }
}

machine! {
    /// Where the merge of a task's commit is.
    MergeState as "merge" {
        /// There is nothing to merge.
        None = "none" => [],
        /// It waits for its turn.
        Queued = "queued" => [Merging],
        /// It is being merged.
        Merging = "merging" => [Queued, Verifying, Merged, Conflict, Parked],
        /// Its merge commit is being proven.
        Verifying = "verifying" => [Queued, Merged, RolledBack, Parked],
        /// The batch branch holds it.
        Merged = "merged" => [],
        /// It conflicts with what the batch branch holds.
        Conflict = "conflict" => [Resolving, Parked, Failed],
        /// An agent resolves it.
        Resolving = "resolving" => [Queued, Verifying, Merged, Conflict, Parked],
        /// It waits for the operator.
        Parked = "parked" => [Queued],
        /// Its merge commit was proven bad: the batch branch is without it.
        RolledBack = "rolled_back" => [Resolving, Parked, Failed],
        /// It is not merged, and not tried again.
        Failed = "failed" => [Queued],
    }
}

impl MergeState {
    /// Nothing more happens by itself.
    pub const fn is_settled(self) -> bool {
        matches!(
            self,
            Self::None | Self::Merged | Self::Parked | Self::Failed
        )
    }
    /// It belongs to a round.
    pub const fn is_under_way(self) -> bool {
        matches!(self, Self::Merging | Self::Verifying | Self::Resolving)
    }
    /// The batch branch holds the work, or there is none.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::None | Self::Merged)
    }
}

machine! {
    /// Where a comment on the issue or pull request of a task is.
    CommentState as "comment" {
        /// It is to be posted.
        Queued = "queued" => [Posting, Failed],
        /// A run looks whether it is there, and posts it.
        Posting = "posting" => [Queued, Posted, Failed],
        /// It is there.
        Posted = "posted" => [],
        /// It is not there, and not tried again.
        Failed = "failed" => [],
    }
}

machine! {
    /// Where a run is: the life of one host.
    RunState as "run" {
        /// Decided and durable; the host may or may not exist.
        Intended = "intended" => [Spawned, Stopping, Ended],
        /// The host exists and waits behind the stdin gate; its identity is durable.
        Spawned = "spawned" => [Started, Finished, Stopping, Ended],
        /// The agent's program runs.
        Started = "started" => [Finished, Stopping, Ended],
        /// Its result is durable; the host is ending.
        Finished = "finished" => [Stopping, Ended],
        /// Told to end.
        Stopping = "stopping" => [Ended],
        /// The host and its tree are gone.
        Ended = "ended" => [],
    }
}

machine! {
    /// How far a message has come.
    MessageState as "message" {
        /// Durable, not yet handed to a host.
        Queued = "queued" => [Sent, Expired, Dead],
        /// Written to a host.
        Sent = "sent" => [Injected, Queued, Uncertain],
        /// Handed to the agent's program, durable there.
        Injected = "injected" => [Seen],
        /// Read by the agent.
        Seen = "seen" => [],
        /// Its time ran out before it was sent.
        Expired = "expired" => [],
        /// Its task ended first.
        Dead = "dead" => [],
        /// A crash hid whether the agent got it.
        Uncertain = "uncertain" => [],
    }
}

machine! {
    /// Where a question is.
    QuestionState as "question" {
        /// Waits for the operator.
        Open = "open" => [Answered, Defaulted, Expired, Withdrawn],
        /// Answered by the operator.
        Answered = "answered" => [],
        /// Answered by the batch file's default.
        Defaulted = "defaulted" => [],
        /// Its deadline passed and the batch file gives no answer.
        Expired = "expired" => [],
        /// The run that asked has ended.
        Withdrawn = "withdrawn" => [],
    }
}

machine! {
    /// Whether an account may be used.
    AccountState as "account" {
        /// It may.
        Open = "open" => [Limited, Stopped],
        /// Not before its reset.
        Limited = "limited" => [Probing, Stopped],
        /// One attempt finds out whether the limit is over.
        Probing = "probing" => [Open, Limited, Stopped],
        /// Not before the operator acts.
        Stopped = "stopped" => [Open],
    }
}
