//! The calls into libproc, `sysctl` and `kqueue`. Each answer is bytes that [`crate::answer`] reads.

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::ptr;

use nix::libc;
use rustix::event::kqueue::{
    Event, EventFilter, EventFlags, ProcessEvents, UserDefinedFlags, UserFlags, kevent,
};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::answer::{
    self, Arguments, PROCESS_LENGTH, Process, Timebase, USAGE_LENGTH, Usage, process_at, usage_at,
};

/// Room for numbers in the first list; twice as much while a list fills it.
const PIDS_FIRST: usize = 1024;
/// Most numbers in one list: ten times what this system allows to live.
const PIDS_MAX: usize = 1 << 20;
/// Most bytes of arguments and environment together (`ARG_MAX`).
const ARGUMENTS_MAX: usize = 1 << 20;
/// Most bytes of a value that `sysctl` names: a UUID takes 37.
const VALUE_MAX: usize = 64;
/// Argument of `PROC_PIDTBSDINFO`: a process that has ended and was not collected is told of too.
const ENDED_TOO: u64 = 1;

// The reader's places are those of this system's structures.
const _: () = {
    use libc::{proc_bsdinfo, proc_taskinfo};
    assert!(size_of::<proc_bsdinfo>() == PROCESS_LENGTH);
    assert!(offset_of!(proc_bsdinfo, pbi_status) == process_at::STATUS);
    assert!(offset_of!(proc_bsdinfo, pbi_pid) == process_at::PID);
    assert!(offset_of!(proc_bsdinfo, pbi_ppid) == process_at::PARENT);
    assert!(offset_of!(proc_bsdinfo, pbi_pgid) == process_at::GROUP);
    assert!(offset_of!(proc_bsdinfo, pbi_start_tvsec) == process_at::START_SECONDS);
    assert!(offset_of!(proc_bsdinfo, pbi_start_tvusec) == process_at::START_MICROS);
    assert!(size_of::<proc_taskinfo>() == USAGE_LENGTH);
    assert!(offset_of!(proc_taskinfo, pti_resident_size) == usage_at::RESIDENT);
    assert!(offset_of!(proc_taskinfo, pti_total_user) == usage_at::USER);
    assert!(offset_of!(proc_taskinfo, pti_total_system) == usage_at::SYSTEM);
    assert!(offset_of!(proc_taskinfo, pti_threadnum) == usage_at::THREADS);
};

/// The numbers of all processes.
///
/// # Errors
/// When the kernel does not list them.
pub fn pids() -> io::Result<Vec<u32>> {
    // SAFETY: `listed` gives a buffer of as many bytes as it says.
    listed(|buffer, bytes| unsafe { libc::proc_listallpids(buffer, bytes) })
}

/// The numbers of the children of a process.
///
/// # Errors
/// As [`pids`].
pub fn children(of: u32) -> io::Result<Vec<u32>> {
    let of = number(of)?;
    // SAFETY: as for `pids`.
    listed(|buffer, bytes| unsafe { libc::proc_listchildpids(of, buffer, bytes) })
}

/// Calls `list` with ever more room until its answer, a count of numbers, does not fill it.
fn listed(list: impl Fn(*mut c_void, c_int) -> c_int) -> io::Result<Vec<u32>> {
    let mut room = PIDS_FIRST;
    loop {
        let mut numbers = vec![0_u32; room];
        let bytes = c_int::try_from(room * size_of::<u32>()).map_err(io::Error::other)?;
        let count = usize::try_from(list(numbers.as_mut_ptr().cast(), bytes))
            .map_err(|_negative| io::Error::last_os_error())?;
        if count < room || room >= PIDS_MAX {
            numbers.truncate(count);
            numbers.retain(|&pid| pid != 0); // the kernel itself
            return Ok(numbers);
        }
        room *= 2;
    }
}

/// Looks at a process; `None` when there is none of that number.
pub fn process(pid: u32) -> Option<Process> {
    let mut bytes = [0; PROCESS_LENGTH];
    info(pid, libc::PROC_PIDTBSDINFO, ENDED_TOO, &mut bytes)?;
    answer::process(&bytes)
}

/// What a process uses: threads, CPU time in microseconds, resident bytes; zeros where the kernel
/// does not say.
pub fn usage(pid: u32) -> (Usage, u64) {
    let mut bytes = [0; USAGE_LENGTH];
    let told = info(pid, libc::PROC_PIDTASKINFO, 0, &mut bytes);
    let usage = told
        .and_then(|()| answer::usage(&bytes))
        .unwrap_or_default();
    (usage, timebase().micros(usage.cpu_units))
}

/// Fills the buffer whole, or says nothing.
fn info(pid: u32, what: c_int, argument: u64, bytes: &mut [u8]) -> Option<()> {
    let length = c_int::try_from(bytes.len()).ok()?;
    let pid = number(pid).ok()?;
    // SAFETY: the buffer is ours, and as long as it is said to be.
    let written =
        unsafe { libc::proc_pidinfo(pid, what, argument, bytes.as_mut_ptr().cast(), length) };
    (written == length).then_some(())
}

unsafe extern "C" {
    /// Of `mach/mach_time.h`.
    fn mach_timebase_info(found: *mut Timebase) -> c_int;
}

fn timebase() -> Timebase {
    let mut found = Timebase { numer: 1, denom: 1 };
    // SAFETY: two numbers are written to a structure of ours that is laid out as theirs; a failure
    // leaves it as it is.
    unsafe { mach_timebase_info(&raw mut found) };
    found
}

/// How a process was started.
///
/// # Errors
/// When it is gone, has ended, or is another user's.
pub fn arguments(pid: u32) -> io::Result<Arguments> {
    let mut name = [libc::CTL_KERN, libc::KERN_PROCARGS2, number(pid)?];
    let mut bytes: Vec<u8> = Vec::with_capacity(ARGUMENTS_MAX);
    let mut length = ARGUMENTS_MAX;
    // SAFETY: the name has three parts; at most `length` bytes are written to a buffer that has
    // room for them; nothing is set.
    let asked = unsafe {
        libc::sysctl(
            name.as_mut_ptr(),
            3,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
            ptr::null_mut(),
            0,
        )
    };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has written that many bytes, and never more than there was room for.
    unsafe { bytes.set_len(length.min(ARGUMENTS_MAX)) };
    answer::arguments(&bytes).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The file of the program that a process runs; `None` when it is gone.
pub fn program(pid: u32) -> Option<PathBuf> {
    const ROOM: usize = libc::PROC_PIDPATHINFO_MAXSIZE as usize;
    let mut bytes = [0_u8; ROOM];
    let room = u32::try_from(ROOM).ok()?;
    // SAFETY: the buffer is ours, and as long as it is said to be.
    let length = unsafe { libc::proc_pidpath(number(pid).ok()?, bytes.as_mut_ptr().cast(), room) };
    let length = usize::try_from(length).ok().filter(|&length| length > 0)?;
    Some(OsStr::from_bytes(bytes.get(..length)?).into())
}

/// A descriptor that becomes readable when the process has ended, and stays so. It does not hold the
/// process's number: whoever signals by it must compare the start first.
///
/// # Errors
/// `NotFound` when there is no such process; others when descriptors are out.
pub fn watch_end(pid: u32) -> io::Result<OwnedFd> {
    let queue = rustix::event::kqueue::kqueue()?;
    rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
    let meant = Pid::from_raw(number(pid)?).ok_or(io::ErrorKind::NotFound)?;
    let end = EventFilter::Proc {
        pid: meant,
        flags: ProcessEvents::EXIT,
    };
    match change(&queue, &Event::new(end, EventFlags::ADD, ptr::null_mut())) {
        Ok(()) => Ok(queue),
        // One that has ended already can not be watched: its end is made to be seen.
        Err(Errno::SRCH) if process(pid).is_some() => {
            let seen = EventFilter::User {
                ident: 0,
                flags: UserFlags::TRIGGER,
                user_flags: UserDefinedFlags::new(0),
            };
            change(&queue, &Event::new(seen, EventFlags::ADD, ptr::null_mut()))?;
            Ok(queue)
        }
        Err(Errno::SRCH) => Err(io::ErrorKind::NotFound.into()),
        Err(error) => Err(error.into()),
    }
}

/// Changes what a queue waits for; takes no event from it.
fn change(queue: &OwnedFd, change: &Event) -> Result<(), Errno> {
    let mut taken: [Event; 0] = [];
    // SAFETY: the filters used here name processes and numbers of ours, no descriptor that could be
    // closed meanwhile.
    unsafe { kevent(queue, std::slice::from_ref(change), &mut taken, None) }.map(drop)
}

/// The id of this boot (`kern.bootsessionuuid`).
///
/// # Errors
/// When the kernel has none, or writes it otherwise.
pub fn boot_session() -> io::Result<u128> {
    let mut bytes = [0_u8; VALUE_MAX];
    let text = value(c"kern.bootsessionuuid", &mut bytes)?;
    answer::uuid(text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn value<'a>(name: &CStr, bytes: &'a mut [u8; VALUE_MAX]) -> io::Result<&'a [u8]> {
    let mut length = VALUE_MAX;
    // SAFETY: the name ends with a zero byte; at most `length` bytes are written to a buffer of that
    // length; nothing is set.
    let asked = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            bytes.as_mut_ptr().cast(),
            &raw mut length,
            ptr::null_mut(),
            0,
        )
    };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(&bytes[..length.min(VALUE_MAX)])
}

/// The id of this machine, which its name does not change.
///
/// # Errors
/// When the system does not know it within a second.
pub fn host_id() -> io::Result<u128> {
    let mut id = [0_u8; 16];
    let wait = libc::timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    // SAFETY: sixteen bytes are written to sixteen bytes of ours.
    if unsafe { libc::gethostuuid(id.as_mut_ptr(), &raw const wait) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u128::from_be_bytes(id))
}

/// The process at the other end of a connected local socket: whoever used that end last, which for
/// a pair is who made it until somebody else does.
///
/// # Errors
/// When it is no such socket.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut pid: libc::pid_t = 0;
    let mut length =
        libc::socklen_t::try_from(size_of::<libc::pid_t>()).map_err(io::Error::other)?;
    // SAFETY: a number of the size that is said is written to a number of ours.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_LOCAL,
            libc::LOCAL_PEERPID,
            (&raw mut pid).cast(),
            &raw mut length,
        )
    };
    if asked != 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(pid).map_err(io::Error::other)
}

/// A number as the kernel's calls take it; one that is none names no process.
fn number(pid: u32) -> io::Result<c_int> {
    let number = c_int::try_from(pid).ok().filter(|&number| number > 0);
    number.ok_or_else(|| io::ErrorKind::NotFound.into())
}
