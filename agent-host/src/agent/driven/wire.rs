//! The seam between an agent program's own wire and what every agent program has in common: lines in,
//! lines, events and steps out. A wire is pure but for [`Wire::launch`]; it never waits and never
//! touches a process, so recorded lines can be played through it.

use std::collections::BTreeMap;

use protocol::class::Class;
use protocol::ids::MessageId;
use protocol::report::{Capabilities, Event, Said, Usage};
use serde_json::Value;

use crate::run::{Failure, Run};

/// What is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::agent) struct Launch {
    /// Program and arguments.
    pub(in crate::agent) argv: Vec<String>,
    /// Variables beside those of the run.
    pub(in crate::agent) env: BTreeMap<String, String>,
    /// How the servers of tools that the program starts are recognised: what is of them is not left
    /// over when a turn ends.
    pub(in crate::agent) servers: Vec<Vec<String>>,
}

/// What a wire wants done.
#[derive(Debug, Default, PartialEq)]
pub(in crate::agent) struct Out {
    /// Whole lines for the program.
    pub(in crate::agent) lines: Vec<u8>,
    /// What to report, in order.
    pub(in crate::agent) events: Vec<Event>,
    /// What the run has to know, in order.
    pub(in crate::agent) steps: Vec<Step>,
}

impl Out {
    /// Adds a line.
    pub(in crate::agent) fn say(&mut self, line: &Value) {
        self.lines.extend_from_slice(line.to_string().as_bytes());
        self.lines.push(b'\n');
    }

    /// Adds a notice.
    pub(in crate::agent) fn notice(&mut self, text: impl Into<String>) {
        self.events.push(Event::Notice(Said { text: text.into() }));
    }

    /// Adds a step.
    pub(in crate::agent) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }
}

/// What the run has to know.
#[derive(Debug, PartialEq)]
pub(in crate::agent) enum Step {
    /// The conversation is open: a prompt may be said. Only once, and only from a wire that is not
    /// ready from the beginning.
    Ready,
    /// A turn began, whoever began it.
    TurnBegan,
    /// A turn ended.
    TurnEnded(Box<Ended>),
    /// It asks whether it may do something.
    MayUse(MayUse),
    /// It no longer wants the answer to this request.
    Withdrawn(String),
    /// The conversation can not go on.
    Failed(Failure),
}

/// A turn that ended.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::agent) struct Ended {
    pub(in crate::agent) verdict: Verdict,
    /// Its last words, or those of the failure.
    pub(in crate::agent) text: String,
    /// What the program documents of the end, for evidence.
    pub(in crate::agent) evidence: String,
    /// Turns that it will begin by itself.
    pub(in crate::agent) queued: u64,
    /// End of the account's limit, for a failure by it: milliseconds since the Unix epoch.
    pub(in crate::agent) reset_at_ms: Option<i64>,
}

/// What a turn's end means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum Verdict {
    /// The agent says that it is done.
    Well,
    /// It was cut short, by us or by itself.
    Aborted,
    /// It failed.
    Failed(Class),
}

/// A question for permission.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::agent) struct MayUse {
    /// The wire's name for the request.
    pub(in crate::agent) request: String,
    /// What it wants to use: the name of a tool.
    pub(in crate::agent) tool: String,
    /// What with, for people.
    pub(in crate::agent) detail: String,
    /// Why it asks.
    pub(in crate::agent) reason: String,
    /// It changes files and nothing else.
    pub(in crate::agent) is_edit: bool,
}

/// The answer to a question for permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::agent) enum Decision {
    /// It may.
    Allow,
    /// It may not, and why.
    Deny(String),
}

/// One conversation with an agent program over the program's own wire.
pub(in crate::agent) trait Wire {
    /// Longest line of the program that is read, bytes; of a longer one only the log knows.
    const LINE_MAX: usize;

    /// What this program can do and prove, as far as is known by now; final once it is ready.
    fn capabilities(&self) -> Capabilities;

    /// Makes its home ready and says what to start.
    ///
    /// # Errors
    /// The failure that the run ends with.
    fn launch(&mut self, run: &mut Run, resume: Option<&str>) -> Result<Launch, Failure>;

    /// The program runs: says what opens the conversation.
    fn open(&mut self, out: &mut Out);

    /// Whether a prompt may be said.
    fn is_ready(&self) -> bool;

    /// The agent's own conversation, once it is known.
    fn session(&self) -> Option<&str>;

    /// Whether the conversation has a history from before this run.
    fn is_resumed(&self) -> bool;

    /// Takes in a line of the program.
    fn hear(&mut self, line: &[u8], out: &mut Out);

    /// Begins a turn with this text, which these messages are part of.
    fn prompt(&mut self, text: &str, messages: Vec<MessageId>, out: &mut Out);

    /// Whether a message may go into the running turn now.
    fn can_steer(&self) -> bool;

    /// Says a message into the running turn.
    fn steer(&mut self, text: &str, message: MessageId, out: &mut Out);

    /// Asks it to cut its turn short.
    fn interrupt(&mut self, out: &mut Out);

    /// Answers a question for permission.
    fn decide(&mut self, request: &str, decision: &Decision, out: &mut Out);

    /// What the program used in this run so far.
    fn usage(&self) -> Usage;

    /// Whether it ever said something that was understood.
    fn has_spoken(&self) -> bool;

    /// How many texts that it was told it has not begun to work on, as far as it tells.
    fn untaken(&self) -> usize;

    /// How much it has running in the background, by its own count.
    fn background(&self) -> usize {
        0
    }

    /// The class of an end before its first word, where what it printed on stderr tells: a model that
    /// it does not know, a login that is missing.
    fn class_of_no_beginning(&self, _printed: &str) -> Option<Class> {
        None
    }

    /// What of its lines was not understood, as a sentence; `None` when all was.
    fn not_understood(&self) -> Option<String>;
}
