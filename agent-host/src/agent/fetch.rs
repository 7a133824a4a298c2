//! The `fetch` and `comment` adapters: what is asked of the forge ([`crate::fetch`]), and what its end
//! means. What was fetched is kept in the task's folder, where the agent's prompt is made of it.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use protocol::class::Class;
use protocol::forge::{ForgeItem, ITEM_FILE_NAME};
use protocol::report::{ResultStatus, RunResult};

use super::apart::Work;
use crate::fetch::{FILE_MAX, Outcome, Request, WORD};
use crate::process::Ended;
use crate::run::{Failure, Run, read_bounded, result};
use crate::run_dir::make_in_task;

/// A fetch, or a comment.
pub(super) struct Asks {
    pub(super) work: Request,
    pub(super) timeout_ms: u64,
}

impl Work for Asks {
    const WORD: &'static str = WORD;
    const REQUEST: &'static str = "fetch.json";
    const OUTCOME: &'static str = "fetch-outcome.json";

    fn request(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&self.work)
    }

    fn at_most(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    fn judge(&self, ended: Option<Ended>, run: &mut Run) -> RunResult {
        let failed = |text| Err((Class::SetupFailed, text, None));
        let said = match ended {
            None => {
                let text = format!("no answer within {:?}; it was killed", self.at_most());
                Err((Class::Network, text, None))
            }
            Some(Ended::Exit(0)) => read_outcome(&run.folder().join(Self::OUTCOME)),
            Some(Ended::Exit(code)) => failed(format!("it exited with {code}")),
            Some(Ended::Signal(signal)) => failed(format!("it was ended by signal {signal}")),
        };
        let told = said.and_then(|done| match done {
            Done::Item(item) => match keep(run, &item) {
                Ok(()) => Ok(told(run, &item)),
                Err(failure) => Err((failure.class, failure.text, None)),
            },
            Done::Comment(told) => Ok(told),
        });
        match told {
            Ok(told) => result(ResultStatus::Ok, None, &told),
            Err((class, text, reset_at_ms)) => {
                let mut failed = result(ResultStatus::Failed, Some(class), &text);
                failed.reset_at_ms = reset_at_ms;
                failed.evidence = run.logs.evidence();
                failed
            }
        }
    }
}

/// Why there is nothing: class, text, when to ask again.
type Nothing = (Class, String, Option<i64>);

/// What came of it.
enum Done {
    Item(Box<ForgeItem>),
    Comment(String),
}

/// What was fetched, in words.
fn told(run: &mut Run, item: &ForgeItem) -> String {
    for warning in &item.warnings {
        run.notice(warning);
    }
    format!("{} with {} comments", item.reference, item.comments.len())
}

fn read_outcome(path: &Path) -> Result<Done, Nothing> {
    let text = read_bounded(path, FILE_MAX).map_err(|error| error.to_string());
    let read = text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    match read {
        Ok(Outcome::Done(item)) => Ok(Done::Item(item)),
        Ok(Outcome::Posted(told)) => Ok(Done::Comment(told)),
        Ok(Outcome::Failed {
            class,
            message,
            reset_at_ms,
        }) => Err((class, message, reset_at_ms)),
        Err(why) => {
            let text = format!("can not read {}: {why}", path.display());
            Err((Class::SetupFailed, text, None))
        }
    }
}

/// Puts it into the task's folder, in place of what an earlier attempt fetched.
fn keep(run: &Run, item: &ForgeItem) -> Result<(), Failure> {
    let task = Path::new(&run.start.task_dir);
    let folder = make_in_task(task, task)?.folder;
    let aside = format!("{ITEM_FILE_NAME}.new");
    let written = serde_json::to_vec(item)
        .map_err(io::Error::from)
        .and_then(|bytes| {
            match folder.remove(&aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut file = folder.create_new(&aside)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            folder.rename(&aside, ITEM_FILE_NAME)?;
            folder.sync()
        });
    written.map_err(|error| {
        let path = task.join(ITEM_FILE_NAME);
        let text = format!("can not write {}: {error}", path.display());
        Failure::new(Class::SetupFailed, text)
    })
}
