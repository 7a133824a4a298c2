//! What a host leaves for its supervisor: the durable result of a run, and which messages went in.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::command::RunKind;
use protocol::exit_file::{
    CLEARED_FILE_NAME, CUT_LINE_END, EXIT_FILE_NAME, EXIT_FILE_VERSION, ExitFile,
    INJECTED_FILE_NAME, MANIFEST_FILE_NAME,
};
use protocol::ids::{Generation, MessageId};
use supervisor_core::reconcile::ResultFact;

/// Longest `exit.json` or manifest, bytes: their texts are excerpts of a few KiB.
const EXIT_FILE_MAX: u64 = 1 << 20;
/// Longest list of injected messages, bytes: tens of thousands of ids.
const INJECTED_FILE_MAX: u64 = 1 << 20;

/// A file of a run that must be readable and is not.
#[derive(Debug, thiserror::Error)]
#[error("{path} can not be read")]
pub struct Unreadable {
    /// Which file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// What a run's `exit.json` shows, and the messages that it names as injected.
pub fn result(run_dir: &Path, generation: Generation) -> (ResultFact, Vec<MessageId>) {
    let path = run_dir.join(EXIT_FILE_NAME);
    let bytes = match read(&path, EXIT_FILE_MAX) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return (ResultFact::Absent, Vec::new()),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a run's result is unreadable");
            return (ResultFact::Unreadable, Vec::new());
        }
    };
    judge(&bytes, generation).unwrap_or_else(|why| {
        tracing::error!(path = %path.display(), why, "a run's result is unreadable");
        (ResultFact::Unreadable, Vec::new())
    })
}

/// Only bytes that are no JSON at all were never finished; everything else that does not fit is
/// something that a person must look at.
fn judge(
    bytes: &[u8],
    generation: Generation,
) -> Result<(ResultFact, Vec<MessageId>), &'static str> {
    #[derive(serde::Deserialize)]
    struct Head {
        v: u32,
        generation: Generation,
    }
    let Ok(json) = serde_json::from_slice::<&serde_json::value::RawValue>(bytes) else {
        return Ok((ResultFact::Absent, Vec::new()));
    };
    let head: Head = serde_json::from_str(json.get()).map_err(|_| "it names no version")?;
    if head.v != EXIT_FILE_VERSION {
        return Err("it is of another format version");
    }
    if head.generation != generation {
        return Err("it belongs to another run");
    }
    let mut file: ExitFile =
        serde_json::from_str(json.get()).map_err(|_| "its fields do not fit")?;
    file.result.keep_bounded();
    Ok((ResultFact::Durable(Box::new(file.result)), file.injected))
}

/// What a run was for, by its manifest; `None` where there is none that can be read.
pub fn kind_of(run_dir: &Path) -> Option<RunKind> {
    #[derive(serde::Deserialize)]
    struct Manifest {
        kind: RunKind,
    }
    let bytes = read(&run_dir.join(MANIFEST_FILE_NAME), EXIT_FILE_MAX).ok()??;
    let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
    Some(manifest.kind)
}

/// The last bytes of a log, at most `max`, as text.
///
/// # Errors
/// When there is none, or it can not be read.
pub fn end_of(log: &Path, max: u64) -> io::Result<String> {
    let mut file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(max)))?;
    let mut end = Vec::new();
    file.take(max).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// Whether the host of a run is known to have seen the end of its tree: it says so before its result
/// or when it was left alone, and before its first file there was no tree.
pub fn host_saw_the_end(run_dir: &Path) -> bool {
    let is_there = |name| run_dir.join(name).symlink_metadata().is_ok();
    is_there(EXIT_FILE_NAME) || is_there(CLEARED_FILE_NAME) || !is_there(MANIFEST_FILE_NAME)
}

/// The messages that runs of a task have injected so far, in order.
///
/// # Errors
/// [`Unreadable`]: to go on could inject a message twice.
pub fn injected(task_dir: &Path) -> Result<Vec<MessageId>, Unreadable> {
    let path = task_dir.join(INJECTED_FILE_NAME);
    let unreadable = |source| Unreadable {
        path: path.clone(),
        source,
    };
    let bytes = read(&path, INJECTED_FILE_MAX).map_err(unreadable)?;
    parse_injected(&bytes.unwrap_or_default()).map_err(unreadable)
}

/// A last line without its newline was never finished: its message was not injected.
fn parse_injected(bytes: &[u8]) -> io::Result<Vec<MessageId>> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
    let not_ids = |_| io::Error::new(io::ErrorKind::InvalidData, "a line is not a message id");
    let text = std::str::from_utf8(&bytes[..whole])
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))?;
    text.lines()
        .filter(|line| !line.ends_with(CUT_LINE_END))
        .map(|line| line.trim().parse().map_err(not_ids))
        .collect()
}

/// The whole file; `None` when there is none. Follows no symbolic link and opens nothing but a
/// regular file, because an agent could have put something else there.
fn read(path: &Path, max: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?;
    if !length.is_file() || length.len() > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "not a regular file, or too long",
        ));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length.len()).unwrap_or(0));
    file.take(max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const RUN: Generation = Generation(7);

    fn shown(content: &str) -> (ResultFact, Vec<MessageId>) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(EXIT_FILE_NAME), content).unwrap();
        result(dir.path(), RUN)
    }

    #[test]
    fn a_whole_file_of_this_run_is_a_durable_result() {
        let (fact, injected) = shown(
            r#"{"v":1,"generation":7,"result":{"status":"ok","summary":"fine"},"injected":[3]}"#,
        );
        let ResultFact::Durable(result) = fact else {
            panic!("{fact:?}");
        };
        assert_eq!(result.summary, "fine");
        assert_eq!(injected, [MessageId(3)]);
    }

    #[test]
    fn no_file_and_an_unfinished_file_are_absent() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(result(dir.path(), RUN).0, ResultFact::Absent);
        assert_eq!(shown("").0, ResultFact::Absent);
        assert_eq!(shown(r#"{"v":1,"generation":7,"res"#).0, ResultFact::Absent);
    }

    #[test]
    fn what_this_release_can_not_judge_is_not_absent() {
        for content in [
            r#"{"v":2,"generation":7,"result":{"status":"ok"},"injected":[]}"#,
            r#"{"v":1,"generation":8,"result":{"status":"ok"},"injected":[]}"#,
            r#"{"v":1,"generation":7,"result":{"status":"perhaps"},"injected":[]}"#,
            r#"{"generation":7}"#,
            "[]",
        ] {
            assert_eq!(shown(content).0, ResultFact::Unreadable, "{content}");
        }
    }

    #[test]
    fn a_link_a_folder_and_a_huge_file_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(EXIT_FILE_NAME);
        std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
        assert_eq!(result(dir.path(), RUN).0, ResultFact::Unreadable);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_eq!(result(dir.path(), RUN).0, ResultFact::Unreadable);
        fs::remove_dir(&path).unwrap();
        File::create(&path)
            .unwrap()
            .set_len(EXIT_FILE_MAX + 1)
            .unwrap();
        assert_eq!(result(dir.path(), RUN).0, ResultFact::Unreadable);
    }

    #[test]
    fn injected_ids_end_at_the_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(injected(dir.path()).unwrap(), []);
        let path = dir.path().join(INJECTED_FILE_NAME);
        fs::write(&path, "m1\n2\nm3").unwrap();
        assert_eq!(injected(dir.path()).unwrap(), [MessageId(1), MessageId(2)]);
        fs::write(&path, "m1\nm2?\n3\n").unwrap();
        assert_eq!(injected(dir.path()).unwrap(), [MessageId(1), MessageId(3)]);
        fs::write(&path, "m1").unwrap();
        assert_eq!(injected(dir.path()).unwrap(), []);
        fs::write(&path, "m1\nnonsense\n").unwrap();
        assert!(injected(dir.path()).is_err());
    }
}
