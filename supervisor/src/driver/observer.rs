//! What the command line is told while a batch runs: plain lines or a live view are its business.

use std::ffi::OsString;
use std::time::Duration;

use protocol::ids::Generation;
use supervisor_core::core::Change;
use supervisor_core::facts::Facts;
use supervisor_core::input::StopStage;
use supervisor_core::live::LiveRuns;
use supervisor_core::machine::RunState;
use supervisor_core::plan::TaskIx;
use supervisor_core::reconcile::{Letter, ProcessFact};
use supervisor_core::time::Now;

use crate::store::StateDir;

/// Shows a batch to whoever started it. Called on the driver's loop, so nothing here may block: a
/// terminal that does not take output is the observer's to wait for, elsewhere.
pub trait Observer {
    /// These steps are durable, in this order.
    fn changed(&mut self, picture: Picture<'_>, changes: &[Change]);

    /// Something else worth a line.
    fn noted(&mut self, note: Note<'_>);

    /// How often [`Observer::refresh`] is wanted at most; `None`: never.
    fn refresh_every(&self) -> Option<Duration>;

    /// The live view's turn: called at most as often as asked for, while runs are live.
    fn refresh(&mut self, picture: Picture<'_>);

    /// The supervisor ends and its last record is durable. Nobody else may write the batch's files
    /// until this returns; here blocking harms nobody.
    fn ended(&mut self, _dir: &StateDir) {}

    /// Another program is about to take this one's place, and with it whatever is shown: what waits
    /// is shown, or given up after a moment.
    fn leave(&mut self) {}

    /// It did not: showing goes on.
    fn stay(&mut self) {}

    /// The words on its command line by which the next program shows the batch in the same way.
    fn words(&self) -> Vec<OsString> {
        Vec::new()
    }
}

/// The batch at one moment. It may be ahead of what is durable.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// The state.
    pub facts: &'a Facts,
    /// What is known of live runs.
    pub live: &'a LiveRuns,
    /// When.
    pub now: Now,
}

/// What happens beside the machines.
#[derive(Debug)]
pub enum Note<'a> {
    /// After a crash: the journal's unfinished end was cut off and kept aside.
    TornTail(&'a str),
    /// After a crash: hosts of the earlier supervisor still live, and are waited for.
    WaitingForHosts(usize),
    /// After a crash: what was found of each run, and the ruling that follows.
    Reconciled(&'a [Found]),
    /// A request that waited for a supervisor was carried out, or refused, with this result.
    Inbox(&'a str),
    /// A signal or a command asks the supervisor to end.
    Stopping(StopStage),
    /// The guardian with this pid has died: nobody starts the supervisor again.
    GuardianGone(u32),
    /// The journal can not be written; work waits until it can.
    DiskFailed(&'a str),
    /// The journal can be written again.
    DiskRecovered,
    /// Something went wrong that work survives.
    Trouble(&'a str),
}

/// One line of the reconcile plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The run.
    pub generation: Generation,
    /// Its task.
    pub task: TaskIx,
    /// Where it was.
    pub state: RunState,
    /// What became of its host.
    pub process: ProcessFact,
    /// Whether it left a durable result.
    pub result: bool,
    /// The ruling.
    pub letter: Letter,
}
