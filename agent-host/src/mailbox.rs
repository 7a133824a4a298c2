//! Messages of the operator on their way into the agent, and the list of those that went.
//!
//! The list is written before a message goes in, so that it outlives the host, the supervisor and
//! every crash of either; it is made durable shortly after. Only a crash of the whole machine can
//! come between, and after one a message that was sent and is not on the list is `uncertain`: no
//! message waits for a disk on its way into an agent.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::command::{Message, Start, SteerMode};
use protocol::exit_file::{CUT_LINE_END, INJECTED_FILE_NAME};
use protocol::ids::MessageId;

use crate::plain::Folder;
use crate::run_dir::{FileError, make_in_task, sync};

/// Most messages that wait in a host; the supervisor holds a task's mailbox and sends what fits.
pub(crate) const WAITING_MAX: usize = 1000;
/// Largest list of injected messages that is read (64 KiB: some 8,000 messages to one task).
const LIST_MAX: u64 = 64 * 1024;

/// How long a line of the list may wait for its sync: several messages share one, and what is at
/// stake (a machine that crashes just then) has an honest answer.
const SYNC_AFTER: Duration = Duration::from_millis(100);

/// What became of a delivered message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// It waits for its moment.
    Waits,
    /// It waits already.
    Known,
    /// It went in before, in this run or an earlier one: never again.
    WentIn,
    /// Too many wait.
    Full,
}

/// When messages may go in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Between two steps of a turn: for messages that do not wait for its end.
    Boundary,
    /// With a prompt: for all.
    Prompt,
}

impl Moment {
    fn suits(self, mode: SteerMode) -> bool {
        match (self, mode) {
            (Moment::Prompt, _)
            | (Moment::Boundary, SteerMode::Boundary | SteerMode::Interrupt) => true,
            (Moment::Boundary, SteerMode::After | SteerMode::Restart) => false,
        }
    }
}

/// The messages of one run.
pub(crate) struct Mailbox {
    /// The task's folder; the list is in `mailbox/` there.
    task: PathBuf,
    waiting: VecDeque<Message>,
    /// Injected by earlier runs and by this one.
    went_in: BTreeSet<MessageId>,
    /// Injected by this run, in order.
    by_this_run: Vec<MessageId>,
    /// The durable list, once it has been read into `went_in`.
    list: Option<List>,
    /// The list open for appending, once something went in.
    file: Option<File>,
    /// When the first line that is not durable yet was written.
    unsynced: Option<Instant>,
    /// Folders with an entry that is not durable yet.
    new_entries: Vec<Folder>,
}

/// How the durable list ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    /// With a whole line, or it is empty.
    Whole,
    /// With a line that a crash cut short, before its message went in.
    Cut,
}

impl Mailbox {
    /// The mailbox of a run; what goes in with its prompt waits already.
    pub(crate) fn new(start: &mut Start) -> Self {
        Self {
            task: Path::new(&start.task_dir).to_owned(),
            waiting: std::mem::take(&mut start.messages).into(),
            went_in: start.injected.iter().copied().collect(),
            by_this_run: Vec::new(),
            list: None,
            file: None,
            unsynced: None,
            new_entries: Vec::new(),
        }
    }

    /// Takes in a message.
    ///
    /// # Errors
    /// When the list of injected messages can not be read: then none may go in.
    pub(crate) fn deliver(&mut self, message: Message) -> Result<Delivered, FileError> {
        self.read_list()?;
        if self.went_in.contains(&message.id) {
            return Ok(Delivered::WentIn);
        }
        if self.waiting.iter().any(|waiting| waiting.id == message.id) {
            return Ok(Delivered::Known);
        }
        if self.waiting.len() >= WAITING_MAX {
            return Ok(Delivered::Full);
        }
        self.waiting.push_back(message);
        Ok(Delivered::Waits)
    }

    /// Whether a message waits that may go in at this moment.
    pub(crate) fn waits(&self, moment: Moment) -> bool {
        self.waiting
            .iter()
            .any(|message| moment.suits(message.mode))
    }

    /// Whether a message waits that asks to interrupt the turn.
    pub(crate) fn wants_interrupt(&self) -> bool {
        self.waiting
            .iter()
            .any(|message| message.mode == SteerMode::Interrupt)
    }

    /// Takes the next message that suits the moment, on the list of the injected before it is
    /// handed out.
    ///
    /// # Errors
    /// When the list can not be written; the message waits on.
    pub(crate) fn inject_next(
        &mut self,
        moment: Moment,
        now: Instant,
    ) -> Result<Option<Message>, FileError> {
        if self.waiting.is_empty() {
            return Ok(None);
        }
        self.read_list()?;
        let went_in = &self.went_in;
        self.waiting
            .retain(|message| !went_in.contains(&message.id));
        let next = self
            .waiting
            .iter()
            .position(|message| moment.suits(message.mode));
        let Some((index, id)) = next.map(|index| (index, self.waiting[index].id)) else {
            return Ok(None);
        };
        self.append(id)?;
        self.unsynced.get_or_insert(now);
        self.went_in.insert(id);
        self.by_this_run.push(id);
        Ok(self.waiting.remove(index))
    }

    /// What this run injected, in order.
    pub(crate) fn injected(&self) -> &[MessageId] {
        &self.by_this_run
    }

    /// When what went in is to be made durable.
    pub(crate) fn sync_at(&self) -> Option<Instant> {
        self.unsynced.map(|since| since + SYNC_AFTER)
    }

    /// Makes the list durable, and its name.
    ///
    /// # Errors
    /// When that fails; it is not tried again on what was written (a second sync may succeed though
    /// the bytes are lost), and the next message opens the list anew.
    pub(crate) fn sync(&mut self) -> Result<(), FileError> {
        if self.unsynced.take().is_none() {
            return Ok(());
        }
        let path = self.list_path();
        if let Some(file) = self.file.take() {
            file.sync_data()
                .map_err(|source| FileError::new("can not sync", &path, source))?;
            self.file = Some(file);
        }
        for folder in std::mem::take(&mut self.new_entries) {
            sync(&folder)?;
        }
        Ok(())
    }

    fn append(&mut self, id: MessageId) -> Result<(), FileError> {
        let path = self.list_path();
        let failed = |source| FileError::new("can not write", &path, source);
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open_list(&path)?,
        };
        let line = if self.list == Some(List::Cut) {
            format!("{CUT_LINE_END}\n{}\n", id.0)
        } else {
            format!("{}\n", id.0)
        };
        // A file that failed is not kept, and what it took of the line is no line.
        self.list = Some(List::Cut);
        file.write_all(line.as_bytes()).map_err(failed)?;
        self.list = Some(List::Whole);
        self.file = Some(file);
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        self.task.join("mailbox")
    }

    fn list_path(&self) -> PathBuf {
        self.folder().join(INJECTED_FILE_NAME)
    }

    /// The list open for appending.
    fn open_list(&mut self, path: &Path) -> Result<File, FileError> {
        let failed = |source| FileError::new("can not write", path, source);
        let made = make_in_task(&self.task, &self.folder())?;
        let file = made.folder.open_append(INJECTED_FILE_NAME);
        let file = file.map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            self.new_entries.push(made.folder);
            self.new_entries.extend(made.changed);
        }
        Ok(file)
    }

    fn read_list(&mut self) -> Result<(), FileError> {
        if self.list.is_some() {
            return Ok(());
        }
        let path = self.list_path();
        let list = read_list(&path).map_err(|e| FileError::new("can not read", &path, e))?;
        let (ids, end) = list;
        self.went_in.extend(ids);
        self.list = Some(end);
        Ok(())
    }
}

/// The ids in the list.
fn read_list(path: &Path) -> io::Result<(Vec<MessageId>, List)> {
    let size = match fs::metadata(path) {
        Ok(facts) => facts.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok((Vec::new(), List::Whole));
        }
        Err(error) => return Err(error),
    };
    if size > LIST_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let text = fs::read_to_string(path)?;
    let (whole, cut) = text.rsplit_once('\n').unwrap_or(("", &text));
    let ids = whole.lines().filter_map(|line| line.parse().ok());
    Ok((
        ids.collect(),
        if cut.is_empty() {
            List::Whole
        } else {
            List::Cut
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn message(id: u64, mode: SteerMode) -> Message {
        Message {
            id: MessageId(id),
            mode,
            text: format!("text {id}"),
            from: None,
        }
    }

    fn mailbox(folder: &Path) -> Mailbox {
        Mailbox {
            task: folder.to_owned(),
            waiting: VecDeque::new(),
            went_in: BTreeSet::new(),
            by_this_run: Vec::new(),
            list: None,
            file: None,
            unsynced: None,
            new_entries: Vec::new(),
        }
    }

    #[test]
    fn a_message_goes_in_once_over_any_number_of_runs() {
        let task = tempfile::tempdir().unwrap();
        let mut first = mailbox(task.path());
        assert_eq!(
            first.deliver(message(1, SteerMode::After)).unwrap(),
            Delivered::Waits
        );
        assert_eq!(
            first.deliver(message(1, SteerMode::After)).unwrap(),
            Delivered::Known
        );
        assert_eq!(
            first
                .inject_next(Moment::Prompt, clock::now())
                .unwrap()
                .unwrap()
                .id,
            MessageId(1)
        );
        assert_eq!(
            first.deliver(message(1, SteerMode::After)).unwrap(),
            Delivered::WentIn
        );
        let mut second = mailbox(task.path());
        assert_eq!(
            second.deliver(message(1, SteerMode::After)).unwrap(),
            Delivered::WentIn
        );
        assert_eq!(
            second.deliver(message(2, SteerMode::After)).unwrap(),
            Delivered::Waits
        );
        assert_eq!(
            second
                .inject_next(Moment::Prompt, clock::now())
                .unwrap()
                .unwrap()
                .id,
            MessageId(2)
        );
        assert_eq!(
            second.inject_next(Moment::Prompt, clock::now()).unwrap(),
            None
        );
        assert_eq!(second.injected(), [MessageId(2)]);
    }

    #[test]
    fn a_cut_line_hides_no_other() {
        let task = tempfile::tempdir().unwrap();
        fs::create_dir(task.path().join("mailbox")).unwrap();
        fs::write(task.path().join("mailbox/injected"), "1\n7").unwrap();
        let mut one = mailbox(task.path());
        one.deliver(message(2, SteerMode::After)).unwrap();
        one.inject_next(Moment::Prompt, clock::now()).unwrap();
        let path = task.path().join("mailbox/injected");
        assert_eq!(
            read_list(&path).unwrap(),
            ([1, 2].map(MessageId).into(), List::Whole),
            "the cut line might have been 71"
        );
    }

    #[test]
    fn what_can_not_be_recorded_does_not_go_in() {
        let task = tempfile::tempdir().unwrap();
        fs::create_dir_all(task.path().join("mailbox/injected")).unwrap();
        let mut one = mailbox(task.path());
        assert!(one.deliver(message(1, SteerMode::After)).is_err());
        one.list = Some(List::Whole);
        one.deliver(message(1, SteerMode::Boundary)).unwrap();
        assert!(one.inject_next(Moment::Prompt, clock::now()).is_err());
        assert!(one.waits(Moment::Boundary));
        assert_eq!(one.injected(), []);
    }

    #[test]
    fn a_message_for_the_turns_end_lets_others_pass_at_a_boundary() {
        let task = tempfile::tempdir().unwrap();
        let mut one = mailbox(task.path());
        one.deliver(message(1, SteerMode::After)).unwrap();
        assert!(!one.waits(Moment::Boundary));
        one.deliver(message(2, SteerMode::Boundary)).unwrap();
        let next = one
            .inject_next(Moment::Boundary, clock::now())
            .unwrap()
            .unwrap();
        assert_eq!(next.id, MessageId(2));
        assert_eq!(
            one.inject_next(Moment::Boundary, clock::now()).unwrap(),
            None
        );
        assert_eq!(
            one.inject_next(Moment::Prompt, clock::now())
                .unwrap()
                .unwrap()
                .id,
            MessageId(1)
        );
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let task = tempfile::tempdir().unwrap();
        let mut one = mailbox(task.path());
        for id in 0..WAITING_MAX as u64 {
            assert_eq!(
                one.deliver(message(id, SteerMode::After)).unwrap(),
                Delivered::Waits
            );
        }
        assert_eq!(
            one.deliver(message(5000, SteerMode::After)).unwrap(),
            Delivered::Full
        );
    }

    #[test]
    fn what_went_in_is_made_durable_shortly_after_and_once() {
        let task = tempfile::tempdir().unwrap();
        let mut one = mailbox(task.path());
        let start = clock::now();
        assert_eq!(one.sync_at(), None);
        for id in [1, 2] {
            one.deliver(message(id, SteerMode::After)).unwrap();
            let now = start + SYNC_AFTER * u32::try_from(id - 1).unwrap();
            one.inject_next(Moment::Prompt, now).unwrap();
        }
        assert_eq!(
            one.sync_at(),
            Some(start + SYNC_AFTER),
            "by the oldest line"
        );
        let changed: Vec<&Path> = one.new_entries.iter().map(Folder::path).collect();
        assert_eq!(
            changed,
            [&*task.path().join("mailbox"), task.path()],
            "a new list needs its name, too"
        );
        one.sync().unwrap();
        assert_eq!((one.sync_at(), one.new_entries.len()), (None, 0));
        one.deliver(message(3, SteerMode::After)).unwrap();
        one.inject_next(Moment::Prompt, start).unwrap();
        assert_eq!(one.sync_at(), Some(start + SYNC_AFTER));
        let path = task.path().join("mailbox/injected");
        let (listed, end) = read_list(&path).unwrap();
        assert_eq!((listed.len(), end), (3, List::Whole));
    }
}
