//! Reads the batch file that a command names.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::batch_file::{self, BatchFile, Request, Source};
use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::listing::Commands;
use crate::cli::open::current_dir;

/// The batch file where none is named.
pub const DEFAULT_FILE: &str = "batch.yml";
/// Longest batch file on stdin, bytes; the limit of a file is the same.
const STDIN_MAX: u64 = 64 * 1024 * 1024;
/// What stdin is called in messages.
const STDIN: &str = "<stdin>";

/// Which batch file, and what it is read with.
#[derive(Debug, Clone, clap::Args)]
pub struct FileArgs {
    /// The batch file; `-` reads it from stdin
    #[arg(default_value = DEFAULT_FILE)]
    pub file: PathBuf,
    /// Replace a variable of `vars`; may be given again
    #[arg(long, value_name = "VAR=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

fn assignment(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("an assignment is NAME=VALUE"),
    }
}

impl FileArgs {
    /// Reads the file and everything that it names. Without `commands` the items that a command lists
    /// are left out.
    ///
    /// # Errors
    /// Invalid (3), or naming a repository that can not be used (10): every mistake has then been told
    /// on stderr. A signal while a command lists items (5).
    pub fn read(
        &self,
        commands: Option<&Commands>,
        io: &mut Io<'_>,
    ) -> Result<BatchFile, CliError> {
        let current_dir = current_dir()?;
        let user_config = user_config();
        let text;
        let source = if self.is_stdin() {
            text = stdin()?;
            Source::Text {
                name: STDIN,
                bytes: &text,
            }
        } else {
            Source::File(&self.file)
        };
        let request = Request {
            source,
            current_dir: &current_dir,
            user_config: user_config.as_deref(),
            set: &self.set,
        };
        let read = match commands {
            Some(commands) => batch_file::read_with(&request, commands),
            None => batch_file::read(&request),
        };
        if let Some(stopped) = commands.and_then(Commands::stopped) {
            return Err(stopped);
        }
        read.map_err(|report| match report.render(io.err) {
            Ok(()) if report.is_machines() => CliError::told(Code::Environment),
            Ok(()) => CliError::told(Code::BatchFile),
            Err(error) => CliError::output(error),
        })
    }

    /// The batch comes from stdin.
    pub fn is_stdin(&self) -> bool {
        self.file == Path::new("-")
    }
}

fn stdin() -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let mut stdin = std::io::stdin().lock().take(STDIN_MAX + 1);
    stdin.read_to_end(&mut bytes).map_err(|error| {
        CliError::new(Code::Environment, format!("stdin can not be read: {error}"))
    })?;
    Ok(bytes)
}

/// The user's own file, by the XDG rules.
fn user_config() -> Option<PathBuf> {
    let folder = |name| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(config.join("supervisor/config.yml"))
}
