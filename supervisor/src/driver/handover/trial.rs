//! Tries the next program before this one gives anything up: it is started as a child, reads a
//! sample document and the batch's files, and says what it is.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use supervisor_core::identity::Exit;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::time::Sleep;

use crate::driver::handover::document::FORMAT;
use crate::process::pidfd;
use crate::process::replace;

/// The hidden command by which a program is tried.
pub const VERB: &str = "handover-check";
/// Longest trial: it reads no more than a supervisor that starts does, which takes a second for
/// the largest batches.
const TRIAL_MAX: Duration = Duration::from_secs(10);
/// Most bytes of what a tried program prints that are kept; what follows is dropped.
const OUTPUT_MAX: usize = 16 * 1024;
/// Most characters of its complaint that are told.
const TOLD_MAX: usize = 600;

/// What a program says when it can take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The format that it reads.
    pub handover: u32,
    /// Its release.
    pub build: String,
    /// The last record that it found in the journal.
    pub seq: u64,
}

/// A program that is being tried.
#[derive(Debug)]
pub struct Trial {
    /// Its process number.
    pub pid: u32,
    process: AsyncFd<OwnedFd>,
    output: pipe::Receiver,
    open: bool,
    printed: Vec<u8>,
    /// What it must have found.
    seq: u64,
    time: Pin<Box<Sleep>>,
    overdue: bool,
}

/// What the loop of a trial was woken by.
enum Came {
    End,
    Output,
    Overdue,
}

impl Trial {
    /// Starts the program with a sample whose last record is `seq`.
    ///
    /// # Errors
    /// When it can not be started or watched.
    pub fn start(program: &Path, sample: File, seq: u64) -> io::Result<Trial> {
        Trial::start_for(TRIAL_MAX, program, sample, seq)
    }

    fn start_for(longest: Duration, program: &Path, sample: File, seq: u64) -> io::Result<Trial> {
        let tried = replace::try_program(program, &[VERB], sample)?;
        Ok(Trial {
            pid: tried.pid,
            process: pidfd::watch(tried.pidfd)?,
            output: pipe::Receiver::from_owned_fd(tried.output)?,
            open: true,
            printed: Vec::new(),
            seq,
            time: Box::pin(tokio::time::sleep(longest)),
            overdue: false,
        })
    }

    /// What came of it, once it has ended; one that does not end in time is killed. Cancel-safe:
    /// what was seen so far is kept.
    ///
    /// # Errors
    /// Why it can not take over, for people.
    pub async fn verdict(&mut self) -> Result<Verdict, String> {
        loop {
            let came = tokio::select! {
                biased;
                // Cancel-safe: only readiness is waited for.
                ended = self.process.readable() => match ended {
                    Ok(mut ready) => {
                        ready.retain_ready();
                        Came::End
                    }
                    Err(error) => return Err(error.to_string()),
                },
                // Cancel-safe: only readiness is waited for.
                ready = self.output.readable(), if self.open => {
                    self.open &= ready.is_ok();
                    Came::Output
                }
                // Cancel-safe: a timer that is not returned fires again.
                () = &mut self.time, if !self.overdue => Came::Overdue,
            };
            match came {
                Came::Output => _ = self.read(),
                Came::Overdue => {
                    self.overdue = true;
                    replace::end_trial(self.process.get_ref())
                        .map_err(|error| error.to_string())?;
                }
                Came::End => {
                    while self.open && self.read() > 0 && self.printed.len() < OUTPUT_MAX {}
                    let exit = pidfd::reap(self.process.as_fd());
                    return self.judge(exit.ok().flatten());
                }
            }
        }
    }

    fn read(&mut self) -> usize {
        let mut bytes = [0_u8; 4096];
        match self.output.try_read(&mut bytes) {
            Ok(0) => self.open = false,
            Ok(count) => {
                let room = OUTPUT_MAX.saturating_sub(self.printed.len());
                self.printed.extend_from_slice(&bytes[..count.min(room)]);
                return count;
            }
            Err(error) => self.open = error.kind() == io::ErrorKind::WouldBlock,
        }
        0
    }

    fn judge(&self, exit: Option<Exit>) -> Result<Verdict, String> {
        let printed = String::from_utf8_lossy(&self.printed);
        let told: String = printed.trim().chars().take(TOLD_MAX).collect();
        if self.overdue {
            return Err("it did not answer in time".to_owned());
        }
        match exit {
            Some(Exit::Code(0)) => {}
            Some(Exit::Code(code)) => return Err(format!("it refuses (exit {code}): {told}")),
            Some(Exit::Signal(signal)) => {
                return Err(format!("it died by signal {signal}: {told}"));
            }
            Some(Exit::Unseen) | None => return Err(format!("its end was not seen: {told}")),
        }
        let verdict: Verdict = serde_json::from_str(&told)
            .map_err(|error| format!("it is no supervisor that can take over ({error}): {told}"))?;
        if verdict.handover != FORMAT {
            let found = verdict.handover;
            return Err(format!(
                "it takes over in format {found}, this supervisor hands over in {FORMAT}"
            ));
        }
        if verdict.seq < self.seq {
            let (found, seq) = (verdict.seq, self.seq);
            return Err(format!(
                "it reads the journal up to record {found} of {seq}"
            ));
        }
        Ok(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::version::BUILD;
    use std::os::unix::fs::PermissionsExt;

    async fn verdict_of(script: &str) -> Result<Verdict, String> {
        within(TRIAL_MAX, script).await
    }

    async fn within(limit: Duration, script: &str) -> Result<Verdict, String> {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("next");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let sample = replace::sealed(b"sample").unwrap();
        let mut trial = Trial::start_for(limit, &program, sample, 7).unwrap();
        trial.verdict().await
    }

    #[tokio::test]
    async fn a_program_that_says_what_it_is_passes() {
        let script = format!(
            r#"[ "$1" = handover-check ] && [ "$(cat)" = sample ] &&
               echo '{{"handover":1,"build":"{BUILD}","seq":8}}'"#
        );
        let expected = Verdict {
            handover: 1,
            build: BUILD.to_owned(),
            seq: 8,
        };
        assert_eq!(verdict_of(&script).await, Ok(expected));
    }

    #[tokio::test]
    async fn every_other_program_is_refused_with_its_reason() {
        let refused = [
            ("echo too old >&2; exit 9", "it refuses (exit 9): too old"),
            ("kill -SEGV $$", "it died by signal 11"),
            ("exit 0", "no supervisor that can take over"),
            ("echo hello", "no supervisor that can take over"),
            (
                "echo '{\"handover\":2,\"build\":\"9\",\"seq\":9}'",
                "format 2",
            ),
            (
                "echo '{\"handover\":1,\"build\":\"9\",\"seq\":6}'",
                "record 6 of 7",
            ),
            (
                "head -c 1000000 /dev/zero",
                "no supervisor that can take over",
            ),
        ];
        for (script, expected) in refused {
            let why = verdict_of(script).await.unwrap_err();
            assert!(why.contains(expected), "{script}: {why}");
            assert!(why.len() < 5 * TOLD_MAX, "{}", why.len());
        }
    }

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_after_a_bounded_wait() {
        let limit = Duration::from_millis(20);
        let why = within(limit, "exec sleep 1000").await.unwrap_err();
        assert_eq!(why, "it did not answer in time");
    }
}
