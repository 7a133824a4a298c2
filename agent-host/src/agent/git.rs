//! The `git` adapter: what is to be done with a repository ([`crate::git`]), and what its end means.

use std::path::Path;
use std::time::Duration;

use protocol::class::Class;
use protocol::git::GitAdapter;
use protocol::report::{ResultStatus, RunResult};

use super::apart::Work;
use crate::git::{FILE_MAX, Outcome, WORD};
use crate::process::Ended;
use crate::run::{Run, read_bounded, result};

/// SIGKILL, which nobody below the host sends to git work but from outside.
const KILLED: i32 = 9;

impl Work for GitAdapter {
    const WORD: &'static str = WORD;
    const REQUEST: &'static str = "git.json";
    const OUTCOME: &'static str = "git-outcome.json";

    fn request(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&self.work)
    }

    fn at_most(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    fn judge(&self, ended: Option<Ended>, run: &mut Run) -> RunResult {
        let word = self.work.word();
        let failed = |text| Err((Class::SetupFailed, text));
        let said = match ended {
            None => {
                let limit = self.at_most();
                failed(format!("{word} took longer than {limit:?} and was killed"))
            }
            Some(Ended::Exit(0)) => read_outcome(&run.folder().join(Self::OUTCOME)).or_else(failed),
            Some(Ended::Exit(code)) => failed(format!("{word} exited with {code}")),
            // From outside: it says nothing of the work, which begins by putting right what is left.
            Some(Ended::Signal(KILLED)) => Err((Class::Lost, format!("{word} was killed"))),
            Some(Ended::Signal(signal)) => failed(format!("{word} was ended by signal {signal}")),
        };
        let (class, message) = match said {
            Ok(Outcome::Done(outcome)) => {
                let mut done = result(ResultStatus::Ok, None, "");
                done.git = Some(Box::new(outcome));
                return done;
            }
            Ok(Outcome::Failed { class, message }) => (class, format!("{word}: {message}")),
            Err(failed) => failed,
        };
        let mut failed = result(ResultStatus::Failed, Some(class), &message);
        failed.evidence = run.logs.evidence();
        failed
    }
}

fn read_outcome(path: &Path) -> Result<Outcome, String> {
    let text = read_bounded(path, FILE_MAX).map_err(|error| error.to_string());
    let read = text.and_then(|text| serde_json::from_str(&text).map_err(|error| error.to_string()));
    read.map_err(|error| format!("can not read {}: {error}", path.display()))
}
