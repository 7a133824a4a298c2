//! Planted bugs, to prove that the simulator finds such bugs. Without the feature `mutations`
//! every question here is answered `false` at compile time.

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Effects are performed before their records are durable.
    ActBeforeDurable,
    /// Reports of an earlier generation are believed.
    NoGenerationCheck,
    /// After a crash a new run is started beside what was found.
    DoubleSpawnOnResume,
    /// A late result reopens a terminal task.
    ReopenedTerminal,
    /// A message that a crashed run already injected is injected again.
    DoubleInjection,
    /// Suspended time counts against silence and wall limits.
    WrongClockOverSuspend,
    /// A stop is performed but never recorded.
    LostStopDecision,
    /// A lost run consumes an attempt.
    LostConsumesAttempt,
    /// A result that came after a cancel is believed.
    LateResultAfterCancel,
    /// A worktree goes on the word of an earlier salvage.
    RemovalBeforeSalvage,
    /// The batch branch moves to merges that were not proven.
    UnprovenMerge,
    /// A task is done without the word of its reviewer.
    SkippedReview,
    /// Work that was sent back is verified by its earlier commit.
    StaleCommit,
    /// A batch branch that could not be moved counts as moved.
    IgnoredBranchMove,
    /// Merges do not wait for those that they depend on.
    UnorderedMerges,
    /// Half of a group is proven in a worktree that still holds all of it.
    StaleMergeProof,
    /// Dependents begin before the work that they need is merged.
    EarlyDependents,
    /// A merge that waits for the operator is forgotten.
    ForgottenParking,
    /// A second run of a round begins beside the first.
    SecondRound,
}

/// Whether the bug is planted in this thread.
#[cfg(feature = "mutations")]
pub fn on(mutation: Mutation) -> bool {
    switch::PLANTED.with(|planted| planted.get() == Some(mutation))
}

/// Whether the bug is planted in this thread.
#[cfg(not(feature = "mutations"))]
pub const fn on(_mutation: Mutation) -> bool {
    false
}

#[cfg(feature = "mutations")]
mod switch {
    use std::cell::Cell;

    thread_local! {
        pub(super) static PLANTED: Cell<Option<super::Mutation>> = const { Cell::new(None) };
    }
}

/// Plants a bug in this thread, or none.
#[cfg(feature = "mutations")]
pub fn set(mutation: Option<Mutation>) {
    switch::PLANTED.with(|planted| planted.set(mutation));
}
