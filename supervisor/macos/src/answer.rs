//! Reads what the kernel of macOS answers: bytes in, values out, no system call.
//!
//! Offsets are those of `sys/proc_info.h`; where this is built for macOS the compiler proves them
//! against the structures of the C library. Both of its processors are little-endian.

/// Bytes of a `proc_bsdinfo`.
pub const PROCESS_LENGTH: usize = 136;
/// Bytes of a `proc_taskinfo`.
pub const USAGE_LENGTH: usize = 96;
/// `pbi_status` of a process that has ended and was not collected (`SZOMB` of `sys/proc.h`).
const ENDED: u32 = 5;

/// Places in a `proc_bsdinfo`.
pub(crate) mod process_at {
    pub(crate) const STATUS: usize = 4;
    pub(crate) const PID: usize = 12;
    pub(crate) const PARENT: usize = 16;
    pub(crate) const GROUP: usize = 100;
    pub(crate) const START_SECONDS: usize = 120;
    pub(crate) const START_MICROS: usize = 128;
}

/// Places in a `proc_taskinfo`.
pub(crate) mod usage_at {
    pub(crate) const RESIDENT: usize = 8;
    pub(crate) const USER: usize = 16;
    pub(crate) const SYSTEM: usize = 24;
    pub(crate) const THREADS: usize = 84;
}

/// A process at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent; 1 (`launchd`) for one whose parent has ended.
    pub parent: u32,
    /// Its process group.
    pub group: u32,
    /// It has ended and nobody has collected its exit.
    pub is_over: bool,
    /// Its start, microseconds since the Unix epoch; a later change of the date does not change it.
    pub started_us: u64,
}

/// What a process uses; zeros where we may not ask (another user's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Its threads.
    pub threads: u32,
    /// CPU time of its own, in the units of [`Timebase`].
    pub cpu_units: u64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
}

/// How the kernel's units of time become nanoseconds: times `numer`, divided by `denom`. Laid out as
/// `mach_timebase_info` of the C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Timebase {
    /// Multiplied by this.
    pub numer: u32,
    /// Divided by this; 0 is taken as 1.
    pub denom: u32,
}

impl Timebase {
    /// Microseconds of so many units.
    pub fn micros(self, units: u64) -> u64 {
        let nanos = u128::from(units) * u128::from(self.numer) / u128::from(self.denom.max(1));
        u64::try_from(nanos / 1000).unwrap_or(u64::MAX)
    }
}

/// How a process was started.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments {
    /// Its words, joined by spaces.
    pub command: String,
    /// Its environment, each variable ended by a zero byte; empty where the kernel does not show it
    /// (another user's process, or a program of the system).
    pub environ: Vec<u8>,
}

/// Reads a `proc_bsdinfo`; `None` when it is cut.
pub fn process(bytes: &[u8]) -> Option<Process> {
    let bytes = bytes.get(..PROCESS_LENGTH)?;
    let seconds = long(bytes, process_at::START_SECONDS)?;
    let micros = long(bytes, process_at::START_MICROS)?;
    Some(Process {
        pid: word(bytes, process_at::PID)?,
        parent: word(bytes, process_at::PARENT)?,
        group: word(bytes, process_at::GROUP)?,
        is_over: word(bytes, process_at::STATUS)? == ENDED,
        started_us: seconds.checked_mul(1_000_000)?.checked_add(micros)?,
    })
}

/// Reads a `proc_taskinfo`; `None` when it is cut.
pub fn usage(bytes: &[u8]) -> Option<Usage> {
    let bytes = bytes.get(..USAGE_LENGTH)?;
    let (user, system) = (long(bytes, usage_at::USER)?, long(bytes, usage_at::SYSTEM)?);
    Some(Usage {
        threads: word(bytes, usage_at::THREADS)?,
        cpu_units: user.saturating_add(system),
        resident_bytes: long(bytes, usage_at::RESIDENT)?,
    })
}

/// Reads the answer of `KERN_PROCARGS2`: the number of words, the program's path, zero bytes up to
/// the first word, the words, then the variables, each ended by a zero byte; an empty one ends them,
/// and what follows is the dynamic linker's. `None` when it ends before the words do.
pub fn arguments(bytes: &[u8]) -> Option<Arguments> {
    let words = usize::try_from(word(bytes, 0)?).ok()?;
    let path_end = zero(bytes, 4)?;
    let first = bytes[path_end..].iter().position(|&byte| byte != 0);
    // All zeros: a program without words and variables.
    let mut at = first.map_or(bytes.len(), |gap| path_end + gap);
    let mut command = Vec::new();
    for number in 0..words {
        let end = zero(bytes, at)?;
        if number > 0 {
            command.push(b' ');
        }
        command.extend_from_slice(&bytes[at..end]);
        at = end + 1;
    }
    let from = at;
    while let Some(end) = zero(bytes, at).filter(|&end| end > at) {
        at = end + 1;
    }
    Some(Arguments {
        command: String::from_utf8_lossy(&command).into_owned(),
        environ: bytes[from.min(bytes.len())..at.min(bytes.len())].to_vec(),
    })
}

/// Reads a UUID as `sysctl` writes it: 32 digits, dashes, perhaps a zero byte at the end.
pub fn uuid(text: &[u8]) -> Option<u128> {
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    let digits: Vec<u8> = text.iter().copied().filter(|&byte| byte != b'-').collect();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u128::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()
}

/// The next zero byte from a place on.
fn zero(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.iter().position(|&byte| byte == 0)?;
    Some(from + found)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(four))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let eight = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(eight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(words: u32, rest: &[u8]) -> Vec<u8> {
        let mut bytes = words.to_le_bytes().to_vec();
        bytes.extend_from_slice(rest);
        bytes
    }

    #[test]
    fn words_and_variables_are_told_apart_by_their_number() {
        let bytes = answer(
            3,
            b"/bin/sh\0\0\0\0\0sh\0-c\0A=1 B=2\0HOME=/root\0SUPERVISOR_TOKEN=ab\0\0ptr=\0x=y\0",
        );
        let found = arguments(&bytes).unwrap();
        assert_eq!(found.command, "sh -c A=1 B=2");
        assert_eq!(found.environ, b"HOME=/root\0SUPERVISOR_TOKEN=ab\0");
    }

    #[test]
    fn an_empty_word_is_a_word_and_no_end() {
        let bytes = answer(3, b"/bin/sh\0\0sh\0\0x\0A=1\0\0");
        let found = arguments(&bytes).unwrap();
        assert_eq!(
            (found.command.as_str(), found.environ.as_slice()),
            ("sh  x", &b"A=1\0"[..])
        );
    }

    #[test]
    fn an_environment_that_is_not_shown_is_empty() {
        for rest in [
            &b"/bin/sleep\0\0sleep\x009\0"[..],
            b"/bin/sleep\0\0sleep\x009\0\0\0\0",
        ] {
            let found = arguments(&answer(2, rest)).unwrap();
            assert_eq!(found.command, "sleep 9");
            assert_eq!(found.environ, b"");
        }
        assert_eq!(
            arguments(&answer(0, b"/x\0\0\0")),
            Some(Arguments::default())
        );
    }

    #[test]
    fn an_answer_that_is_cut_or_lies_about_its_words_is_none() {
        let whole = answer(2, b"/bin/sh\0sh\0x\0A=1\0");
        assert!(arguments(&whole).is_some());
        for length in 0..4 + b"/bin/sh\0sh\0x\0".len() {
            assert_eq!(arguments(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(arguments(&answer(u32::MAX, b"/bin/sh\0sh\0")), None);
        let cut = answer(1, b"/bin/sh\0sh\0A=1\0B=");
        assert_eq!(
            arguments(&cut).unwrap().environ,
            b"A=1\0",
            "half a variable is none"
        );
    }

    #[test]
    fn a_process_is_read_from_its_places() {
        let mut bytes = [0xff_u8; PROCESS_LENGTH];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(4, &2_u32.to_le_bytes());
        put(12, &4711_u32.to_le_bytes());
        put(16, &1_u32.to_le_bytes());
        put(100, &4700_u32.to_le_bytes());
        put(120, &1_700_000_000_u64.to_le_bytes());
        put(128, &123_456_u64.to_le_bytes());
        let expected = Process {
            pid: 4711,
            parent: 1,
            group: 4700,
            is_over: false,
            started_us: 1_700_000_000_123_456,
        };
        assert_eq!(process(&bytes), Some(expected));
        bytes[4] = 5;
        assert!(process(&bytes).unwrap().is_over);
        assert_eq!(process(&bytes[..PROCESS_LENGTH - 1]), None, "cut");
        bytes[120..128].fill(0xff);
        assert_eq!(process(&bytes), None, "no such time");
    }

    #[test]
    fn what_is_used_is_read_from_its_places() {
        let mut bytes = [0_u8; USAGE_LENGTH];
        bytes[8..16].copy_from_slice(&(3_u64 << 20).to_le_bytes());
        bytes[16..24].copy_from_slice(&24_u64.to_le_bytes());
        bytes[24..32].copy_from_slice(&48_u64.to_le_bytes());
        bytes[84..88].copy_from_slice(&7_u32.to_le_bytes());
        let expected = Usage {
            threads: 7,
            cpu_units: 72,
            resident_bytes: 3 << 20,
        };
        assert_eq!(usage(&bytes), Some(expected));
        assert_eq!(usage(&bytes[1..]), None, "cut");
    }

    #[test]
    fn units_of_time_become_micros_without_overflow() {
        let arm = Timebase {
            numer: 125,
            denom: 3,
        };
        assert_eq!(arm.micros(24_000_000), 1_000_000, "24 MHz: a second");
        let same = Timebase { numer: 1, denom: 1 };
        assert_eq!(same.micros(u64::MAX), u64::MAX / 1000);
        assert_eq!(Timebase { numer: 1, denom: 0 }.micros(5000), 5);
    }

    #[test]
    fn a_uuid_is_32_digits_and_nothing_else() {
        let id = Some(0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF);
        assert_eq!(uuid(b"01234567-89AB-CDEF-0123-456789ABCDEF\0"), id);
        assert_eq!(uuid(b"01234567-89ab-cdef-0123-456789abcdef"), id);
        assert_eq!(uuid(b"01234567-89ab-cdef-0123-456789abcde"), None);
        assert_eq!(uuid(b"+1234567-89ab-cdef-0123-456789abcdef"), None);
        assert_eq!(uuid(b""), None);
    }
}
