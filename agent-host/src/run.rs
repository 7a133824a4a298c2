//! What an adapter may use of its run: what to do, reports, questions, messages, logs.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use protocol::action_file::ActionLine;
use protocol::class::Class;
use protocol::command::{Adapter, Message, Start, Text};
use protocol::exit_file::{EXIT_FILE_VERSION, ExitFile};
use protocol::framing::LINE_MAX;
use protocol::ids::MessageId;
use protocol::report::{
    Ask, EXCERPT_MAX, Event, Report, ResultStatus, RunResult, Said, Usage, excerpt,
};
use protocol::rpc;

use crate::actions::Actions;
use crate::clock;
use crate::family::Gauge;
use crate::link::Link;
use crate::logs::{Logs, Stream};
use crate::mailbox::{Delivered, Mailbox, Moment};
use crate::plain::Folder;
use crate::run_dir::{FileError, RunDir, make_in_task};
use crate::scratch::Scratch;

/// Largest prompt or script file (16 MiB: far beyond any context window).
const TEXT_FILE_MAX: u64 = 16 << 20;

/// What an agent is told that gives a verdict out of place.
pub(crate) const NO_REVIEW: &str =
    "only a review gives a verdict, and this run is none: leave it out";

/// Why a run can not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Its class.
    pub(crate) class: Class,
    /// For people.
    pub(crate) text: String,
}

impl Failure {
    /// A failure.
    pub(crate) fn new(class: Class, text: impl Into<String>) -> Self {
        Self {
            class,
            text: text.into(),
        }
    }

    /// As a result.
    pub(crate) fn into_result(self) -> RunResult {
        result(ResultStatus::Failed, Some(self.class), &self.text)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::new(error.class(), error.text())
    }
}

/// A result without particulars.
pub(crate) fn result(status: ResultStatus, class: Option<Class>, summary: &str) -> RunResult {
    RunResult {
        status,
        class,
        summary: excerpt(summary, EXCERPT_MAX),
        exit_code: None,
        signal: None,
        reset_at_ms: None,
        session: None,
        usage: Usage::default(),
        family: None,
        evidence: String::new(),
        artifacts: Vec::new(),
        verdict: None,
        git: None,
    }
}

/// One run, as its adapter sees it.
pub(crate) struct Run {
    /// What the supervisor wants; its messages are in the mailbox.
    pub(crate) start: Start,
    /// The pipe.
    pub(crate) link: Link,
    /// What the agent's program prints.
    pub(crate) logs: Logs,
    /// Messages on their way in.
    pub(crate) mailbox: Mailbox,
    /// What its agent asked leave for.
    actions: Actions,
    /// Absent when it could not be made; the run then ends at once.
    dir: Option<RunDir>,
    /// What its family uses.
    pub(crate) gauge: Gauge,
    /// The buffer that all reads go through.
    pub(crate) scratch: Scratch,
    next_request: u64,
}

impl Run {
    /// Makes the run's files. What could not be made comes back as a failure beside the run,
    /// which can still report it.
    pub(crate) fn new(
        mut start: Start,
        link: Link,
        scratch: Scratch,
    ) -> (Self, Result<(), Failure>) {
        let path = Path::new(&start.run_dir);
        let mut outcome = Ok(());
        let made = make_in_task(Path::new(&start.task_dir), path).and_then(|made| {
            let folder = Rc::new(made.folder);
            let dir = RunDir::new(Rc::clone(&folder), start.log_max);
            dir.write_manifest(&start)?;
            Ok((folder, dir))
        });
        let made = made.map_err(|error| outcome = Err(error.into())).ok();
        let (folder, dir) = made.unzip();
        let run = Self {
            logs: Logs::new(folder.as_ref(), start.log_max),
            actions: Actions::new(folder.as_ref(), start.log_max),
            mailbox: Mailbox::new(&mut start),
            gauge: Gauge::new(&start, clock::now()),
            start,
            link,
            dir,
            scratch,
            next_request: 1,
        };
        (run, outcome)
    }

    /// The run's folder.
    pub(crate) fn folder(&self) -> &Path {
        Path::new(&self.start.run_dir)
    }

    /// The run's folder, open; absent when it could not be made.
    pub(crate) fn files(&self) -> Option<Rc<Folder>> {
        self.dir.as_ref().map(|dir| Rc::clone(dir.folder()))
    }

    /// Reports an event and keeps it in `events.jsonl`.
    pub(crate) fn report(&mut self, event: Event) {
        if let Some(dir) = &mut self.dir {
            dir.keep(&event, clock::now());
        }
        let report = Report {
            generation: self.start.generation,
            event,
        };
        self.send(rpc::notification("report", &report));
    }

    /// Reports something odd that the run can live with.
    pub(crate) fn notice(&mut self, text: &str) {
        self.report(Event::Notice(Said {
            text: excerpt(text, EXCERPT_MAX),
        }));
    }

    /// Keeps an answer to the agent's wish to do something.
    pub(crate) fn keep_action(&mut self, line: &ActionLine) {
        if let Err(error) = self.actions.keep(line) {
            self.notice(&format!(
                "what the agent was told about {} is in no file: {}",
                line.tool,
                error.text()
            ));
        }
    }

    /// Asks the operator; the answer to the request names it.
    pub(crate) fn ask(&mut self, text: &str, options: &[String]) -> u64 {
        let id = self.next_request;
        self.next_request += 1;
        let ask = Ask {
            generation: self.start.generation,
            text: text.to_owned(),
            options: options.to_vec(),
        };
        self.send(rpc::request(id, "ask", ask.bounded()));
        id
    }

    /// Queues a line that was made for the pipe.
    pub(crate) fn send(&mut self, line: Result<Vec<u8>, serde_json::Error>) {
        let sent = line.is_ok_and(|line| self.link.send(&line));
        if !sent {
            let generation = self.start.generation;
            complain(
                generation.0,
                &format!("a line over {LINE_MAX} bytes was not sent"),
            );
        }
    }

    /// Takes in what the agent's program printed.
    pub(crate) fn log(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(notice) = self.logs.stream(stream).take(bytes) {
            self.notice(&notice);
        }
    }

    /// As [`Run::log`], with what the last read brought.
    pub(crate) fn log_scratch(&mut self, stream: Stream) {
        if let Some(notice) = self.logs.stream(stream).take(self.scratch.bytes()) {
            self.notice(&notice);
        }
    }

    /// Takes in a message of the operator.
    pub(crate) fn deliver(&mut self, message: Message) {
        let id = message.id;
        match self.mailbox.deliver(message) {
            Ok(Delivered::Waits | Delivered::Known) => {}
            // Said again, because whoever sends it again does not know.
            Ok(Delivered::WentIn) => self.report(Event::MessageInjected { id }),
            Ok(Delivered::Full) => self.notice(&format!("too many messages wait: {id} is refused")),
            Err(error) => self.notice(&format!("{id} can not go in: {}", error.text())),
        }
    }

    /// Takes the next message that suits the moment: on the list of the injected, reported, and from now on
    /// the caller's to hand to the agent. `None` also when the list can not be written, after a notice.
    pub(crate) fn inject_next(&mut self, moment: Moment) -> Option<Message> {
        match self.mailbox.inject_next(moment, clock::now()) {
            Ok(Some(message)) => {
                self.report(Event::MessageInjected { id: message.id });
                Some(headed(message))
            }
            Ok(None) => None,
            Err(error) => {
                self.notice(&format!("no message can go in: {}", error.text()));
                None
            }
        }
    }

    /// Reports that the agent has read a message.
    pub(crate) fn seen(&mut self, id: MessageId) {
        self.report(Event::MessageSeen { id });
    }

    /// When the run itself has something to do.
    pub(crate) fn due(&self) -> Option<Instant> {
        let flush = self.dir.as_ref().and_then(RunDir::flush_at);
        let due = [flush, self.gauge.due(), self.mailbox.sync_at()];
        due.into_iter().flatten().min()
    }

    /// Does what is due.
    pub(crate) fn do_due(&mut self, now: Instant) {
        if let Some(dir) = &mut self.dir
            && dir.flush_at().is_some_and(|due| due <= now)
        {
            dir.flush();
        }
        if self.mailbox.sync_at().is_some_and(|due| due <= now) {
            self.sync_mailbox();
        }
    }

    fn sync_mailbox(&mut self) {
        if let Err(error) = self.mailbox.sync() {
            self.notice(&format!(
                "which messages went in may not outlive a crash of this machine: {}",
                error.text()
            ));
        }
    }

    /// The same result; a failure that the kernel's want of memory explains is told as that.
    pub(crate) fn explained(&mut self, mut result: RunResult) -> RunResult {
        let explains = match (result.status, result.class) {
            (ResultStatus::Ok, _) => {
                if let Some(evidence) = self.gauge.counted() {
                    self.notice(&format!("the work went on all the same: {evidence}"));
                }
                false
            }
            (ResultStatus::Failed, class) => class.is_none_or(may_be_memory),
        };
        if let Some(evidence) = explains.then(|| self.gauge.evidence(&result)).flatten() {
            result.class = Some(Class::Oom);
            result.summary = excerpt(&format!("{evidence}; {}", result.summary), EXCERPT_MAX);
        }
        result
    }

    /// Closes the run's files and hands over its result: durable first, then reported.
    ///
    /// A result that can not be made durable is still told, and only a failed one: it claims no
    /// work, and the supervisor learns why.
    ///
    /// # Errors
    /// When nothing durable was written.
    pub(crate) fn finish(&mut self, mut result: RunResult) -> Result<(), Failure> {
        self.logs.close();
        result.family = Some(self.gauge.total());
        let exit = ExitFile {
            v: EXIT_FILE_VERSION,
            generation: self.start.generation,
            result,
            injected: self.mailbox.injected().to_vec(),
        };
        let written = match &self.dir {
            Some(dir) => dir.write_exit(&exit).map_err(Failure::from),
            None => Err(Failure::new(Class::Environment, "the run has no folder")),
        };
        let result = match (&written, exit.result.status) {
            (Ok(()), _) | (Err(_), ResultStatus::Failed) => exit.result,
            (Err(failure), ResultStatus::Ok) => failure.clone().into_result(),
        };
        self.report(Event::Result(Box::new(result)));
        self.close();
        written
    }

    /// Says where the next supervisor looks that nothing of the run's tree lives.
    pub(crate) fn mark_cleared(&self) {
        if let Some(Err(error)) = self.dir.as_ref().map(RunDir::mark_cleared) {
            complain(self.start.generation.0, &error.text());
        }
    }

    /// Closes the run's files without a result.
    pub(crate) fn close(&mut self) {
        self.logs.close();
        self.sync_mailbox();
        if let Some(dir) = &mut self.dir {
            dir.flush();
        }
    }

    /// Reads a text that may be in a file.
    ///
    /// # Errors
    /// `setup_failed` when the file can not be read.
    pub(crate) fn text(text: &Text) -> Result<String, Failure> {
        match text {
            Text::Inline(text) => Ok(text.clone()),
            Text::File(path) => read_bounded(Path::new(path), TEXT_FILE_MAX).map_err(|error| {
                Failure::new(Class::SetupFailed, format!("can not read {path}: {error}"))
            }),
        }
    }

    /// The prompt, if there is one.
    ///
    /// # Errors
    /// As [`Run::text`].
    pub(crate) fn prompt(&self) -> Result<Option<String>, Failure> {
        self.start.prompt.as_ref().map(Self::text).transpose()
    }

    /// Takes the adapter's part out of the start.
    pub(crate) fn take_adapter(start: &mut Start) -> Adapter {
        let empty = protocol::command::VerifyAdapter {
            commands: Vec::new(),
        };
        std::mem::replace(&mut start.adapter, Adapter::Verify(empty))
    }
}

/// The message; one of another task's agent says so, because an agent must not take it for a word of
/// its operator.
fn headed(mut message: Message) -> Message {
    if let Some(from) = &message.from {
        let text = &message.text;
        message.text = format!("[from the agent of task {from}, not from the operator]\n{text}");
    }
    message
}

/// What is seen of a family of which something was killed for want of memory; other classes have a
/// cause of their own.
fn may_be_memory(class: Class) -> bool {
    matches!(
        class,
        Class::AgentFailed | Class::Crash | Class::NoResult | Class::VerifyFailed
    )
}

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// What the file system says; "too large" beyond `max`; "invalid data" when it is not UTF-8.
pub(crate) fn read_bounded(path: &Path, max: u64) -> io::Result<String> {
    let file = std::fs::File::open(path)?;
    let mut text = String::new();
    let size = io::Read::read_to_string(&mut io::Read::take(file, max + 1), &mut text)?;
    if size as u64 > max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// A line for whoever reads this program's stderr; 0 before the run is known.
pub(crate) fn complain(generation: u64, text: &str) {
    let line = format!("agent-host run {generation}: {text}\n");
    // There is nowhere left to say that stderr is gone.
    drop(io::Write::write_all(&mut io::stderr(), line.as_bytes()));
}
