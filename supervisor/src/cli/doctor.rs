//! `supervisor doctor`: what this machine gives, what follows where it does not, and what was left
//! lying about.

use std::io::{self, Write};

use serde::Serialize;

use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::leftovers;
use crate::cli::machine_checks as machine;
use crate::store::StateRoot;

const EXAMPLES: &str = "Examples:
  supervisor doctor              what holds here, one line each
  supervisor doctor --json | jq '.[] | select(.state != \"ok\")'
  supervisor doctor --fix        repairs what is safe: sockets nobody listens at, index entries
                                 without a folder, empty cgroups of batches without a supervisor

ok: it is there. weak: batches run, with less certainty or room. missing: batches do not run, or can
not be kept apart. Nothing but --fix changes anything, and that never touches work or processes:
`supervisor kill --orphans` ends those.
Exit codes: 0 nothing is missing, 10 something is.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// For scripts: one JSON array
    #[arg(long)]
    json: bool,
    /// Repair what is safe to repair
    #[arg(long)]
    fix: bool,
}

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Batches run, with less certainty or room.
    Weak,
    /// Batches do not run, or can not be kept apart.
    Missing,
}

impl Health {
    /// The word in text and JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Weak => "weak",
            Self::Missing => "missing",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub check: &'static str,
    /// How good it is.
    pub state: Health,
    /// What was found.
    pub found: String,
    /// What follows, where it is not ok.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<&'static str>,
    /// What can be done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

impl Check {
    /// As it should be.
    pub fn ok(check: &'static str, found: impl Into<String>) -> Check {
        Check {
            check,
            state: Health::Ok,
            found: found.into(),
            consequence: None,
            remedy: None,
        }
    }

    /// Not as it should be.
    pub fn bad(
        check: &'static str,
        state: Health,
        found: impl Into<String>,
        consequence: &'static str,
        remedy: &'static str,
    ) -> Check {
        Check {
            consequence: Some(consequence),
            remedy: Some(remedy),
            state,
            ..Check::ok(check, found)
        }
    }
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let mut checks = machine::all();
    match StateRoot::from_env() {
        Ok(root) => {
            checks.extend(machine::state(&root));
            checks.extend(leftovers::all(&root, args.fix));
        }
        Err(error) => checks.push(Check::bad(
            "state_dir",
            Health::Missing,
            error.to_string(),
            "there is no place for batches",
            "set HOME or XDG_STATE_HOME to an absolute path",
        )),
    }
    if args.json {
        write_json(&checks, io.out).map_err(CliError::output)?;
    } else {
        write_text(&checks, io.out).map_err(CliError::output)?;
    }
    let missing = checks.iter().any(|check| check.state == Health::Missing);
    Ok(if missing { Code::Environment } else { Code::Ok })
}

fn write_json(checks: &[Check], out: &mut dyn Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, checks)?;
    out.write_all(b"\n")
}

fn write_text(checks: &[Check], out: &mut dyn Write) -> io::Result<()> {
    for check in checks {
        writeln!(
            out,
            "{:8} {:16} {}",
            check.state.word(),
            check.check,
            check.found
        )?;
        if let Some(consequence) = check.consequence {
            writeln!(out, "{:25} {consequence}", "")?;
        }
        if let Some(remedy) = check.remedy {
            writeln!(out, "{:25} do: {remedy}", "")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ok_says_what_follows_and_what_to_do() {
        let checks = [
            Check::ok("pidfd", "there"),
            Check::bad(
                "cgroup",
                Health::Weak,
                "not delegated",
                "less certain",
                "delegate it",
            ),
        ];
        let mut out = Vec::new();
        write_text(&checks, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.lines().last().unwrap().ends_with("do: delegate it"));
        let mut out = Vec::new();
        write_json(&checks, &mut out).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(json[0].as_object().unwrap().len(), 3);
        assert_eq!(json[1]["state"], "weak");
    }
}
