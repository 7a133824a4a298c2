//! This process becomes another program: what it takes along, and how it tries that program first.
//!
//! `exec` keeps the process: its number, its parent, its children, its locks and every descriptor
//! that is not marked to be closed. Descriptors of ours are always marked, but for the moment in
//! which one program hands them to the next.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
#[cfg(target_os = "linux")]
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::FdFlags;

#[cfg(target_os = "macos")]
pub use crate::process::macos::{name_of_open, own_program, restore_name, sealed};
use crate::process::pidfd;

/// Largest document that is handed over, bytes: 200 hosts with a longest line and a longest backlog
/// each, written twice as long as they are.
pub const DOCUMENT_MAX: u64 = 2 << 30;

/// A file without a name that holds these bytes and can not be changed any more.
///
/// # Errors
/// When memory or descriptors are out.
#[cfg(target_os = "linux")]
pub fn sealed(bytes: &[u8]) -> io::Result<File> {
    use std::io::Write;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(rustix::fs::memfd_create("supervisor-handover", flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// Everything that a handed-over file holds.
///
/// # Errors
/// When it can not be read, or is over [`DOCUMENT_MAX`].
pub fn read_document(mut file: &File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > DOCUMENT_MAX {
        let text = format!("{length} bytes are over the limit of {DOCUMENT_MAX}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.rewind()?;
    file.take(DOCUMENT_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Takes a descriptor that the program before this one has handed over. A descriptor can be taken
/// once: it is marked to be closed by the next program, and one that is so marked is not taken.
///
/// # Errors
/// When there is no such descriptor, or it was not handed over.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    let not_handed = || {
        let text = format!("descriptor {number} was not handed over");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    if number <= nix::libc::STDERR_FILENO {
        return Err(not_handed());
    }
    // SAFETY: only borrowed to look at its flags; a number that is not open is an error of `fcntl`.
    let looked_at = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(looked_at).map_err(|_| not_handed())?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(not_handed());
    }
    rustix::io::fcntl_setfd(looked_at, flags | FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open, and nobody in this program owns it: everything that this
    // program opened is marked close-on-exec (the standard library, tokio and this room do so), and
    // so is everything taken here before, so an unmarked one came from the former program.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The opposite of [`take`]: the descriptor stays open under its number, for the next program.
pub fn give_back(fd: OwnedFd) {
    // That it can be taken again is all that this is for; an open descriptor has its flags changed.
    let _unmarked = rustix::io::fcntl_setfd(&fd, FdFlags::empty()).is_ok();
    let _number = fd.into_raw_fd();
}

/// Takes a descriptor for a look at what is in it, and leaves it handed over.
///
/// # Errors
/// As [`take`].
pub fn peek(number: RawFd) -> io::Result<File> {
    // SAFETY: only borrowed to be duplicated; a number that is not open is an error of that.
    let lent = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = rustix::io::fcntl_getfd(lent)?;
    if flags.contains(FdFlags::CLOEXEC) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    lent.try_clone_to_owned().map(File::from)
}

/// The signals that must not be lost while no program listens to them.
fn stopping() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect()
}

/// From now on signals that stop a supervisor wait in the kernel, as far as this thread is
/// concerned. Threads beside the loop call it when they begin, so that signals reach the loop's.
///
/// # Errors
/// When the kernel refuses, which it does for no known signal.
pub fn hold_signals() -> io::Result<()> {
    Ok(pthread_sigmask(
        SigmaskHow::SIG_BLOCK,
        Some(&stopping()),
        None,
    )?)
}

/// The end of [`hold_signals`]; those that came in between arrive now.
///
/// # Errors
/// As [`hold_signals`].
pub fn release_signals() -> io::Result<()> {
    Ok(pthread_sigmask(
        SigmaskHow::SIG_UNBLOCK,
        Some(&stopping()),
        None,
    )?)
}

/// This process's own program, as an open file: it can be executed again even when its name means
/// another program by then.
///
/// # Errors
/// When procfs is not there.
#[cfg(target_os = "linux")]
pub fn own_program() -> io::Result<File> {
    File::open("/proc/self/exe")
}

/// The name under which an open program can be executed.
#[cfg(target_os = "linux")]
pub fn name_of_open(program: RawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{program}"))
}

/// A program executed by its descriptor is called by that number; it gives itself its name back.
#[cfg(target_os = "linux")]
pub fn restore_name() {
    // The name only decorates lists of processes.
    let _named = nix::sys::prctl::set_name(c"supervisor");
}

/// Becomes this program, with these descriptors left open. Returns only when that failed; then
/// nothing has changed.
pub fn become_program(program: &Path, args: &[OsString], handed: &[RawFd]) -> io::Error {
    match try_become(program, args, handed) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn try_become(
    program: &Path,
    args: &[OsString],
    handed: &[RawFd],
) -> io::Result<std::convert::Infallible> {
    let text = |text: &OsStr| CString::new(text.as_bytes()).map_err(io::Error::from);
    let path = text(program.as_os_str())?;
    let args = args.iter().map(|arg| text(arg));
    let args = args.collect::<io::Result<Vec<CString>>>()?;
    mark(handed, false)?;
    let Err(error) = nix::unistd::execv(&path, &args);
    mark(handed, true)?;
    Err(error.into())
}

/// Marks descriptors to be closed by the next program, or not.
fn mark(handed: &[RawFd], closed: bool) -> io::Result<()> {
    let flags = if closed {
        FdFlags::CLOEXEC
    } else {
        FdFlags::empty()
    };
    for &number in handed {
        // SAFETY: borrowed for one call; a number that is not open is an error of that call.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        rustix::io::fcntl_setfd(fd, flags)?;
    }
    Ok(())
}

/// A program that is being tried: what it prints comes out of `output`.
#[derive(Debug)]
pub struct Tried {
    /// Its process number.
    pub pid: u32,
    /// Its pin; its exit is collected through it.
    pub pidfd: OwnedFd,
    /// Its stdout and stderr.
    pub output: OwnedFd,
}

/// Starts a program with a document as its stdin. Not a host but a supervisor that may take this
/// one's place; it works on nothing.
///
/// # Errors
/// When it can not be started or pinned.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that tries the next supervisor"
)]
pub fn try_program(program: &Path, args: &[&str], document: File) -> io::Result<Tried> {
    let (output, writer) = io::pipe()?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::from(document))
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()?;
    let pid = child.id();
    match pidfd::open(pid) {
        Ok(pidfd) => Ok(Tried {
            pid,
            pidfd,
            output: output.into(),
        }),
        Err(error) => {
            child.kill()?;
            child.wait()?;
            Err(error)
        }
    }
}

/// Kills a program that is being tried: a child of ours that is held by its pin.
///
/// # Errors
/// When we may not.
pub fn end_trial(pidfd: impl AsFd) -> io::Result<()> {
    pidfd::kill(pidfd)
}

/// The numbers of these descriptors.
pub fn numbers<'a>(fds: impl IntoIterator<Item = BorrowedFd<'a>>) -> Vec<RawFd> {
    fds.into_iter().map(|fd| fd.as_raw_fd()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_document_can_be_read_again_and_not_be_changed() {
        let file = sealed(b"what is kept").unwrap();
        assert_eq!(read_document(&file).unwrap(), b"what is kept");
        assert_eq!(read_document(&file).unwrap(), b"what is kept");
        assert!((&file).write_all(b"x").is_err());
        assert!(file.set_len(1).is_err());
    }

    #[test]
    fn a_descriptor_is_taken_once_and_only_if_it_was_handed_over() {
        let file = sealed(b"x").unwrap();
        let number = file.as_raw_fd();
        assert!(take(number).is_err(), "it is ours");
        assert!(peek(number).is_err(), "it is ours");
        let number = file.into_raw_fd();
        mark(&[number], false).unwrap();
        assert_eq!(read_document(&peek(number).unwrap()).unwrap(), b"x");
        let taken = take(number).unwrap();
        assert!(take(number).is_err(), "it was taken");
        assert!(
            rustix::io::fcntl_getfd(taken.as_fd())
                .unwrap()
                .contains(FdFlags::CLOEXEC)
        );
        give_back(taken);
        drop(take(number).unwrap());
        assert!(take(1).is_err() && take(-1).is_err() && take(i32::MAX).is_err());
    }

    #[test]
    fn a_program_that_can_not_be_executed_leaves_the_descriptors_marked() {
        let file = sealed(b"x").unwrap();
        let handed = numbers([file.as_fd()]);
        let error = become_program(Path::new("/nowhere"), &["x".into()], &handed);
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(take(handed[0]).is_err());
    }
}
