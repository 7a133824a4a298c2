//! Locks that a killed predecessor left.
//!
//! A lock in the git folder of a worktree of ours, or on the branch of a task, is nobody else's:
//! whoever made it was this work before it was killed. Any other lock may be that of a git that
//! lives, of the operator or of another task: it goes only with proof that whoever made it is gone.
//! That no process has the file open is not enough, because `git` closes a lock long before it
//! releases it.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::process::Pid;

use super::error::GitError;
use super::repo::Repo;
use crate::clock;
use crate::kernel::{start_ticks, ticks_a_second};

/// Locks in the shared folder that moving a ref meets.
const SHARED: &[&str] = &["packed-refs"];
/// How deep locks of a worktree are looked for: a ref of sixteen names in a submodule of a submodule.
/// What lies deeper stays, and git says what it thinks.
const DEPTH_MAX: u32 = 32;
/// Most processes that are looked through; with more there is no proof.
const PROCESSES_MAX: usize = 100_000;
/// How far the clock of a file system and that of processes may be apart (the one counts in steps of
/// the timer, the other in hundredths of a second).
const SLACK: Duration = Duration::from_secs(1);
/// Most bytes that are read of a process's arguments or environment.
const TEXT_MAX: u64 = 256 << 10;

/// Removes the locks of a worktree of ours, its submodules included; `admin` is its folder under
/// `worktrees`.
///
/// # Errors
/// When one can not be removed, or a folder not be read.
pub(crate) fn heal_worktree(admin: &Path) -> Result<(), GitError> {
    heal_below(admin, DEPTH_MAX)
}

fn heal_below(folder: &Path, depth: u32) -> Result<(), GitError> {
    for item in fs::read_dir(folder).map_err(GitError::file("read", folder))? {
        let item = item.map_err(GitError::file("read", folder))?;
        let path = item.path();
        let kind = item.file_type().map_err(GitError::file("read", &path))?;
        // Objects have no locks that anybody waits for, and there are many of them. The mark of a
        // locked worktree is called `locked`.
        if kind.is_dir() && depth > 0 && item.file_name() != "objects" {
            heal_below(&path, depth - 1)?;
        } else if !kind.is_dir() && path.extension().is_some_and(|end| end == "lock") {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes the lock of a ref of which nobody else makes use: the branch of a task.
///
/// # Errors
/// When it can not be removed.
pub(crate) fn heal_own_ref(common: &Path, reference: &str) -> Result<(), GitError> {
    remove(&common.join(format!("{reference}.lock")))
}

/// Removes locks of the shared files, and of refs that several works move, where whoever made them
/// is proven to be gone; `begun` is when this work began, by the clock of the file system.
///
/// # Errors
/// When one that is proven can not be removed. One without proof stays: git says what it thinks.
pub(crate) fn heal_shared(repo: &Repo, refs: &[&str], begun: SystemTime) -> Result<(), GitError> {
    for name in SHARED.iter().chain(refs) {
        let path = repo.common.join(format!("{name}.lock"));
        let made = fs::symlink_metadata(&path).and_then(|meta| meta.modified());
        if let Ok(made) = made
            // In the same tick of its clock as well: the processes are looked through after that.
            && made <= begun
            && is_nobodys(repo, &path, made)
        {
            remove(&path)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), GitError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(GitError::file("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether no process can be the one that made a lock: none has it open, and no git in this
/// repository is as old as the lock. Without `/proc` nothing is known.
fn is_nobodys(repo: &Repo, lock: &Path, made: SystemTime) -> bool {
    let since_epoch = made.duration_since(SystemTime::UNIX_EPOCH);
    let made_ms = since_epoch.map_or(0, |since| since.as_millis());
    let now_ms = u128::try_from(clock::wall_ms()).unwrap_or(0);
    let Ok(age_ms) = u64::try_from(now_ms.saturating_sub(made_ms)) else {
        return false;
    };
    let age = Duration::from_millis(age_ms);
    let (Some(uptime), Ok(processes)) = (uptime(), fs::read_dir("/proc")) else {
        return false;
    };
    let mut folders = vec![repo.common.clone()];
    folders.extend(
        repo.raw
            .workdir()
            .and_then(|top| fs::canonicalize(top).ok()),
    );
    let numbers = processes.flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.parse().ok().and_then(Pid::from_raw)
    });
    for (count, pid) in numbers.enumerate() {
        let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
        let began = Duration::from_secs(start_ticks(pid) / ticks_a_second());
        let is_old = uptime.saturating_sub(began) + SLACK >= age;
        let may_have_made = is_old && is_git(&process) && is_in(&process, &folders);
        if count >= PROCESSES_MAX || may_have_made || holds(&process, lock) {
            return false;
        }
    }
    true
}

fn uptime() -> Option<Duration> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds = text.split('.').next()?.parse().ok()?;
    // Rounded up: a process is rather taken to be older than it is.
    Some(Duration::from_secs(seconds) + Duration::from_secs(1))
}

fn is_git(process: &Path) -> bool {
    let name = fs::read(process.join("comm")).unwrap_or_default();
    name.starts_with(b"git")
}

/// Whether a process works in one of these folders, or names one.
fn is_in(process: &Path, folders: &[PathBuf]) -> bool {
    let cwd = fs::read_link(process.join("cwd")).unwrap_or_default();
    let texts = ["cmdline", "environ"].map(|name| read(&process.join(name)));
    folders.iter().any(|folder| {
        let name = folder.as_os_str().as_encoded_bytes();
        let is_named = |text: &Vec<u8>| text.windows(name.len()).any(|part| part == name);
        cwd.starts_with(folder) || texts.iter().any(is_named)
    })
}

fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path);
    // One that is gone, or another user's, names nothing.
    let read = file.and_then(|file| file.take(TEXT_MAX).read_to_end(&mut bytes));
    read.map_or_else(|_| Vec::new(), |_| bytes)
}

fn holds(process: &Path, lock: &Path) -> bool {
    let Ok(entries) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    let mut targets = entries.flatten().map(|entry| fs::read_link(entry.path()));
    targets.any(|target| target.is_ok_and(|target| target == lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repo(home: &Path) -> Repo {
        git2::Repository::init(home).unwrap();
        Repo::open(home).unwrap()
    }

    #[test]
    fn a_shared_lock_goes_only_when_it_is_no_younger_than_the_work_and_open_nowhere() {
        let home = tempfile::tempdir().unwrap();
        let repo = repo(home.path());
        let lock = repo.common.join("packed-refs.lock");
        let held = fs::File::create(&lock).unwrap();
        let made = held.metadata().unwrap().modified().unwrap();
        let later = made + Duration::from_secs(1);
        heal_shared(&repo, &[], later).unwrap();
        assert!(lock.exists(), "somebody has it open");
        drop(held);
        heal_shared(&repo, &[], made - Duration::from_millis(1)).unwrap();
        assert!(lock.exists(), "it is younger than the work");
        if cfg!(target_os = "linux") {
            heal_shared(&repo, &[], later).unwrap();
            assert!(!lock.exists());
        }
    }

    /// Git waits ten seconds for each of these, several times in one merge.
    #[test]
    fn a_lock_in_a_submodule_of_a_worktree_of_ours_does_not_stay() {
        let home = tempfile::tempdir().unwrap();
        let at = |path: &str| home.path().join(path);
        let locks = [
            "HEAD.lock",
            "modules/vendor/packed-refs.lock",
            "modules/vendor/AUTO_MERGE.lock",
            "modules/vendor/modules/deep/refs/heads/a/b.lock",
        ];
        let others = ["locked", "modules/vendor/objects/pack/x.lock"];
        for path in locks.iter().chain(&others) {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "").unwrap();
        }
        heal_worktree(home.path()).unwrap();
        assert!(locks.iter().all(|path| !at(path).exists()));
        assert!(others.iter().all(|path| at(path).exists()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_lock_that_is_closed_stays_while_a_git_as_old_as_it_works_in_the_repository() {
        let home = tempfile::tempdir().unwrap();
        let repo = repo(home.path());
        #[expect(
            clippy::disallowed_methods,
            reason = "it stands for the operator's git"
        )]
        let mut git = std::process::Command::new("git")
            .args(["cat-file", "--batch"])
            .current_dir(home.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let lock = repo.common.join("refs/heads/batch.lock");
        fs::write(&lock, "").unwrap();
        let made = fs::metadata(&lock).unwrap().modified().unwrap();
        let later = made + Duration::from_secs(1);
        heal_shared(&repo, &["refs/heads/batch"], later).unwrap();
        assert!(lock.exists(), "a git that may have made it lives");
        drop(git.stdin.take());
        git.wait().unwrap();
        heal_shared(&repo, &["refs/heads/batch"], later).unwrap();
        assert!(!lock.exists());
    }
}
