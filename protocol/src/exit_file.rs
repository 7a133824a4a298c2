//! `exit.json`: a run's durable result, written by the host before it reports the result.

use serde::{Deserialize, Serialize};

use crate::ids::{Generation, MessageId};
use crate::report::RunResult;

/// Format version of the file.
pub const EXIT_FILE_VERSION: u32 = 1;
/// Name of the file in the run's folder.
pub const EXIT_FILE_NAME: &str = "exit.json";
/// Name of the file in the run's folder that a host makes once it is about to start something; before
/// that there is no tree.
pub const MANIFEST_FILE_NAME: &str = "manifest.json";
/// Name of the file in the run's folder with what was printed on stdout; made with the first byte.
pub const STDOUT_FILE_NAME: &str = "stdout.log";
/// Name of the file in the run's folder with what was printed on stderr; made with the first byte.
pub const STDERR_FILE_NAME: &str = "stderr.log";
/// Name of the file in the run's folder with the prompt, for a program that gets it by a file.
pub const PROMPT_FILE_NAME: &str = "prompt.md";
/// Name of the file in the run's folder with what the attempt before has taught.
pub const HAND_OFF_FILE_NAME: &str = "handoff.md";
/// Names that file, in the environment of the run's agent; absent where there is nothing to hand on.
pub const HAND_OFF_VARIABLE: &str = "SUPERVISOR_HANDOFF";
/// Name of the empty file in the run's folder by which a host that lost its supervisor says that
/// it has seen the end of its whole tree. It holds for the boot in which it was written.
pub const CLEARED_FILE_NAME: &str = "cleared";
/// Name of the file in the task's folder that lists injected messages, one id a line.
pub const INJECTED_FILE_NAME: &str = "injected";
/// Ends a line of that list that a crash had cut short: the beginning of a number could name another
/// message, so such a line counts for nothing.
pub const CUT_LINE_END: char = '?';

/// The content of `exit.json`: one line of JSON. A file that does not parse was not finished and
/// counts as absent; one of a newer version stops whoever reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExitFile {
    /// [`EXIT_FILE_VERSION`].
    pub v: u32,
    /// The run it belongs to; another number than the folder's is refused.
    pub generation: Generation,
    /// The result.
    pub result: RunResult,
    /// Every message this run injected.
    pub injected: Vec<MessageId>,
}
