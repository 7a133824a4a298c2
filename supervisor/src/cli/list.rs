//! `supervisor list`: the batches of this machine, newest first.

use std::collections::BTreeMap;

use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::open::Shelf;
use crate::view::list::{write_json_row, write_text_row};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  supervisor list --json | jq -r '.[] | .id'")]
pub(super) struct Args {
    /// For scripts: one JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let shelf = Shelf::open()?;
    let mut first = true;
    if args.json {
        write!(io.out, "[").map_err(CliError::output)?;
    }
    for batch in shelf.newest_first() {
        // One unreadable batch must not hide the others; its own commands exit with 9.
        let opened = match batch.read() {
            Ok(opened) => opened,
            Err(error) => {
                error.tell(io.err).map_err(CliError::output)?;
                continue;
            }
        };
        let view = opened.view(BTreeMap::new());
        let written = if args.json {
            let comma = if first { "" } else { ",\n" };
            io.out
                .write_all(comma.as_bytes())
                .and_then(|()| write_json_row(&view, io.out))
        } else {
            write_text_row(&view, io.out)
        };
        written.map_err(CliError::output)?;
        first = false;
    }
    if args.json {
        io.line("]")?;
    } else if first {
        io.line("no batch yet; `supervisor run batch.yml` starts one")?;
    }
    Ok(Code::Ok)
}
