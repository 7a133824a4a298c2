//! `supervisor agents`: the kinds of agents, what of them is installed, and what each can do.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use protocol::program::ProgramKind;
use protocol::report::{Capabilities, Receipt, SteerReach};
use serde_json::{Value, json};

use crate::cli::Io;
use crate::cli::error::{CliError, Code};

/// Most folders above a program in which its package is looked for: `bin` in a package in a scope.
const PACKAGE_DEPTH_MAX: usize = 4;
/// Largest `package.json` that is read: the largest one seen is a tenth of it.
const PACKAGE_MAX: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  supervisor agents --json | jq '.[] | select(.path)'")]
pub(super) struct Args {
    /// For scripts: one JSON array
    #[arg(long)]
    json: bool,
}

/// A kind of agent.
struct Kind {
    name: &'static str,
    /// Its usual program; `None`: the host itself, or what the batch file names.
    program: Option<&'static str>,
    capabilities: Capabilities,
    /// What the table does not say.
    note: &'static str,
}

/// The kinds, as the host's adapters declare them with each run that they start.
fn kinds() -> Vec<Kind> {
    let programs = ProgramKind::ALL.map(|kind| Kind {
        name: kind.word(),
        program: kind.program(),
        capabilities: kind.capabilities(),
        note: match kind {
            ProgramKind::Claude => {
                "permissions by policy or as questions; cost at the end of each turn"
            }
            ProgramKind::Codex => "permissions by policy or as questions; tokens without a price",
            ProgramKind::Acp => {
                "any program of the batch file, and no more than that can: known once it runs"
            }
            ProgramKind::Pi => {
                "permissions by policy or as questions; no servers of tools but ours"
            }
        },
    });
    let none = Capabilities {
        steer: SteerReach::None,
        receipt: Receipt::Injected,
        interrupt: false,
        resume: false,
        questions: true,
        usage: false,
        cost: false,
    };
    let built_in = [
        Kind {
            name: "command",
            program: None,
            capabilities: none,
            note: "any program of the batch file; usage and cost with `result_file`",
        },
        Kind {
            name: "scripted",
            program: None,
            capabilities: ProgramKind::Claude.capabilities(),
            note: "built in; plays a script",
        },
    ];
    programs.into_iter().chain(built_in).collect()
}

/// A program that was found.
struct Found {
    path: PathBuf,
    version: Option<String>,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let kinds = kinds();
    let rows: Vec<(&Kind, Option<Found>)> = kinds
        .iter()
        .map(|kind| (kind, kind.program.and_then(|name| find(name, &path))))
        .collect();
    if args.json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(kind, found)| row(kind, found.as_ref()))
            .collect();
        io.line(Value::from(rows))?;
        return Ok(Code::Ok);
    }
    for (kind, found) in &rows {
        io.line(line(kind, found.as_ref()))?;
    }
    Ok(Code::Ok)
}

fn row(kind: &Kind, found: Option<&Found>) -> Value {
    json!({
        "kind": kind.name,
        "program": kind.program,
        "path": found.map(|found| found.path.display().to_string()),
        "version": found.and_then(|found| found.version.as_deref()),
        "capabilities": kind.capabilities,
        "note": kind.note,
    })
}

fn line(kind: &Kind, found: Option<&Found>) -> String {
    let here = match (kind.program, found) {
        (None, _) => "needs no program of its own".to_owned(),
        (Some(name), None) => format!("`{name}` is not on the PATH"),
        (Some(_), Some(found)) => {
            let version = found.version.as_deref().unwrap_or("version unknown");
            format!("{version} at {}", found.path.display())
        }
    };
    let can = kind.capabilities;
    let steer = match can.steer {
        SteerReach::None => "messages after the turn",
        SteerReach::Boundary => "messages at the next tool",
        SteerReach::Interrupt => "messages at the next tool or at once",
    };
    let receipt = match can.receipt {
        Receipt::Injected => "proven up to injected",
        Receipt::Seen => "proven up to seen",
    };
    let more = [
        (can.resume, "resume"),
        (can.questions, "questions"),
        (can.usage, "usage"),
        (can.cost, "cost"),
    ];
    let more = more.iter().filter(|(can, _)| *can).map(|(_, word)| *word);
    let more: Vec<&str> = std::iter::once(receipt).chain(more).collect();
    format!(
        "{:<9} {here}\n          {steer}, {}\n          {}",
        kind.name,
        more.join(", "),
        kind.note
    )
}

/// The program of this name in the folders of `path`.
fn find(name: &str, path: &OsStr) -> Option<Found> {
    let mut files = std::env::split_paths(path).map(|folder| folder.join(name));
    let path = files.find(|file| is_program(file))?;
    let version = version(&path);
    Some(Found { path, version })
}

/// Worktrees are made by the program `git`, and only a host starts it: here its absence is told before
/// anything begins.
///
/// # Errors
/// It is not on the `PATH` (10).
pub(super) fn require_git() -> Result<(), CliError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut files = std::env::split_paths(&path).map(|folder| folder.join("git"));
    if files.any(|file| is_program(&file)) {
        return Ok(());
    }
    let message = "the program `git` is not on the PATH, and tasks have worktrees";
    Err(CliError::new(Code::Environment, message)
        .hint("install it, or write `isolation: none` into the batch file"))
}

fn is_program(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The version that the files of an installed program name, without starting it: the file that the
/// link on the path leads to, when it is named by a version, or the package above it.
fn version(path: &Path) -> Option<String> {
    let file = path.canonicalize().ok()?;
    let name = file.file_name()?.to_str()?;
    let numbers = name.split('.').filter(|part| part.parse::<u32>().is_ok());
    if numbers.count() == 3 && name.starts_with(|c: char| c.is_ascii_digit()) {
        return Some(name.to_owned());
    }
    let folders = file.ancestors().skip(1).take(PACKAGE_DEPTH_MAX);
    folders.into_iter().find_map(|folder| {
        let package = folder.join("package.json");
        let small = package
            .metadata()
            .is_ok_and(|facts| facts.len() <= PACKAGE_MAX);
        let text = small.then(|| std::fs::read_to_string(&package).ok())??;
        let package: Value = serde_json::from_str(&text).ok()?;
        Some(package.get("version")?.as_str()?.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn program(path: &Path) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn the_version_is_read_from_what_is_installed() {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let package = folder.path().join("lib/node_modules/@a/b");
        program(&package.join("bin/b.exe"));
        std::fs::write(package.join("package.json"), r#"{"version":"2.1.329"}"#).unwrap();
        symlink(package.join("bin/b.exe"), bin.join("claude")).unwrap();
        let found = find("claude", bin.as_os_str()).unwrap();
        assert_eq!(found.version.as_deref(), Some("2.1.329"));

        let native = folder.path().join("share/versions/3.0.1");
        program(&native);
        std::fs::remove_file(bin.join("claude")).unwrap();
        symlink(native, bin.join("claude")).unwrap();
        let found = find("claude", bin.as_os_str()).unwrap();
        assert_eq!(found.version.as_deref(), Some("3.0.1"));
        assert!(find("codex", bin.as_os_str()).is_none());
    }

    #[test]
    fn what_is_there_and_what_it_can_do_is_said_in_both_forms() {
        let found = Found {
            path: PathBuf::from("/bin/claude"),
            version: None,
        };
        let kinds = kinds();
        let text = line(&kinds[0], Some(&found));
        assert!(text.contains("version unknown at /bin/claude"), "{text}");
        assert!(
            text.contains("proven up to seen, resume, questions"),
            "{text}"
        );
        assert!(line(&kinds[0], None).contains("`claude` is not on the PATH"));
        let row = row(&kinds[4], None);
        assert_eq!(row["kind"], "command");
        assert_eq!(row["capabilities"]["steer"], "none");
        assert_eq!(row["path"], Value::Null);
    }
}
