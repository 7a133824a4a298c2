//! How a command ends: the exit codes of the manual, and errors that say what happened, what
//! happens next and what the operator can do.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// Every exit code of the program; the numbers are part of the public contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// All well, all done.
    Ok = 0,
    /// Some tasks failed; for `kill`: something still lives.
    Failed = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The batch file is invalid.
    BatchFile = 3,
    /// Nothing moves without a person.
    NeedsPerson = 4,
    /// Interrupted; `run` goes on.
    Interrupted = 5,
    /// No such batch, task, attempt or question.
    NotFound = 6,
    /// More than one thing is meant.
    Ambiguous = 7,
    /// Refused: identity, lock held, unsafe.
    Refused = 8,
    /// The state can not be read or is newer than this release.
    Unreadable = 9,
    /// Disk, git, a missing program.
    Environment = 10,
    /// A wait timed out.
    TimedOut = 11,
    /// A fault of this program.
    Internal = 70,
    /// The guardian gave up: the supervisor died again and again.
    GivenUp = 71,
}

impl Code {
    /// Every code, in the order of the manual.
    pub const ALL: &'static [Code] = &[
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::BatchFile,
        Self::NeedsPerson,
        Self::Interrupted,
        Self::NotFound,
        Self::Ambiguous,
        Self::Refused,
        Self::Unreadable,
        Self::Environment,
        Self::TimedOut,
        Self::Internal,
        Self::GivenUp,
    ];

    /// The number that the shell sees.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The code of that number, as a supervisor names it in a refusal.
    pub fn from_number(number: u8) -> Option<Code> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.number() == number)
    }

    /// What it means, for the help text.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "ok, all done",
            Self::Failed => "some tasks failed (`kill`: something still lives)",
            Self::Usage => "wrong usage",
            Self::BatchFile => "batch file invalid",
            Self::NeedsPerson => "nothing moves without a person",
            Self::Interrupted => "interrupted, resumable",
            Self::NotFound => "not found",
            Self::Ambiguous => "ambiguous",
            Self::Refused => "refused (identity, lock held, unsafe)",
            Self::Unreadable => "state unreadable or newer than this release",
            Self::Environment => "environment (disk, git, a missing program)",
            Self::TimedOut => "wait timed out",
            Self::Internal => "internal fault",
            Self::GivenUp => "the supervisor died six times in ten minutes; nothing of it is left",
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        ExitCode::from(code.number())
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct CliError {
    code: Code,
    message: String,
    hints: Vec<String>,
    quiet: bool,
}

impl CliError {
    /// An error of this kind; `message` is a lower-case fragment that names ids and paths.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hints: Vec::new(),
            quiet: false,
        }
    }

    /// An error of this kind that tells its whole chain of sources.
    pub fn from_source(code: Code, error: &dyn std::error::Error) -> Self {
        Self::new(code, crate::driver::error::chain(error))
    }

    /// An error that has been told already; only the exit code is left to say it.
    pub fn told(code: Code) -> Self {
        let mut told = Self::new(code, "told already");
        told.quiet = true;
        told
    }

    /// Stdout can not be written. A reader that went away (`| head`) is a quiet end, not an error.
    pub fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::told(Code::Ok);
        }
        Self::new(
            Code::Environment,
            format!("can not write to stdout: {error}"),
        )
    }

    /// Adds what happens next or what the operator can do; one line each.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The exit code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Tells it to a person.
    ///
    /// # Errors
    /// When `err` can not be written.
    pub fn tell(&self, err: &mut dyn Write) -> io::Result<()> {
        if self.quiet {
            return Ok(());
        }
        writeln!(err, "error: {}", self.message)?;
        for hint in &self.hints {
            writeln!(err, "  {hint}")?;
        }
        err.flush()
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_number_of_the_manual() {
        let numbers: Vec<u8> = Code::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 70, 71]);
        for code in Code::ALL {
            assert_eq!(Code::from_number(code.number()), Some(*code));
            assert_eq!(CliError::new(*code, "x").code(), *code);
        }
        assert_eq!(Code::from_number(12), None);
    }

    #[test]
    fn an_error_tells_what_happened_and_what_to_do() {
        let error = CliError::new(Code::Refused, "batch a-1 is live (pid 7)").hint("watch it");
        let mut told = Vec::new();
        error.tell(&mut told).unwrap();
        assert_eq!(
            String::from_utf8(told).unwrap(),
            "error: batch a-1 is live (pid 7)\n  watch it\n"
        );
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_end_and_a_full_disk_is_not() {
        let closed = CliError::output(io::ErrorKind::BrokenPipe.into());
        let mut told = Vec::new();
        closed.tell(&mut told).unwrap();
        assert_eq!((closed.code(), told.len()), (Code::Ok, 0));
        let full = CliError::output(io::ErrorKind::StorageFull.into());
        assert_eq!(full.code(), Code::Environment);
    }
}
