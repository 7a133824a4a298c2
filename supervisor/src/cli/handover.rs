//! The hidden commands by which one supervisor program tries, and becomes, the next.

use std::ffi::OsString;
use std::io::stdin;
use std::os::fd::{AsFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use protocol::ids::BatchId;

use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::live::Show;
use crate::cli::open::{Found, local_time, shown};
use crate::cli::run::{finish, style};
use crate::driver;
use crate::driver::error::chain;
use crate::driver::handover::HandoverError;
use crate::driver::handover::arrive::{Arrival, Coming, Descriptors, go_on, look};
use crate::driver::handover::leave::VERB;
use crate::process::replace;
use crate::store::{RealDisk, StateDir, StateRoot, index};

/// Longest reason that travels to the former program, characters.
const REASON_MAX: usize = 600;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The batch, for people who look at the process
    batch: BatchId,
    /// Descriptor of what is handed over
    #[arg(long)]
    state: RawFd,
    /// Descriptor of the former program
    #[arg(long)]
    former: Option<RawFd>,
    /// Why the program in between could not go on
    #[arg(long)]
    refused: Option<String>,
    /// Show the batch as JSON
    #[arg(long)]
    json: bool,
}

/// Says whether this program could take over from the sample on stdin.
pub(super) fn check(io: &mut Io<'_>) -> Result<Code, CliError> {
    let sample = stdin().as_fd().try_clone_to_owned();
    let verdict = sample
        .and_then(|sample| replace::read_document(&sample.into()))
        .map_err(HandoverError::Unreadable)
        .and_then(|bytes| look(&bytes))
        .map_err(|error| CliError::from_source(Code::Refused, &error))?
        .verdict();
    driver::host_program()?;
    let line = serde_json::to_string(&verdict)
        .map_err(|error| CliError::from_source(Code::Internal, &error))?;
    io.line(line)?;
    Ok(Code::Ok)
}

/// Takes over from the program that executed this one.
pub(super) fn run(args: &Args, io: &mut Io<'_>) -> Result<Code, CliError> {
    let looked = catch_unwind(AssertUnwindSafe(|| prepare(args)));
    let prepared = match looked {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(why)) => return Err(go_back(args, &why)),
        Err(_) => return Err(go_back(args, "a fault of the new program")),
    };
    let Prepared {
        arrival,
        descriptors,
        batch,
        host,
        mut show,
    } = prepared;
    // These two are of no more use: there is no way back.
    for number in [Some(args.state), args.former].into_iter().flatten() {
        drop(replace::take(number));
    }
    let coming = match &args.refused {
        Some(why) => Coming::Back(why.clone()),
        None => Coming::New,
    };
    let ended = go_on(arrival, descriptors, coming, host, &mut show);
    show.close();
    finish(&batch, ended?, args.json, io)
}

/// Everything that can fail and be gone back from.
struct Prepared {
    arrival: Arrival,
    descriptors: Descriptors,
    batch: Found,
    host: PathBuf,
    show: Show,
}

fn prepare(args: &Args) -> Result<Prepared, String> {
    if args.refused.is_some() {
        replace::restore_name();
    }
    let state = replace::peek(args.state).and_then(|state| replace::read_document(&state));
    let bytes = state.map_err(|error| chain(&HandoverError::Unreadable(error)))?;
    let arrival = look(&bytes).map_err(|error| chain(&error))?;
    arrival.check_end().map_err(|error| chain(&error))?;
    let host = match args.refused {
        Some(_) => arrival.document.host.clone(),
        None => driver::host_program().map_err(|error| chain(&error))?,
    };
    let batch = found(&arrival).map_err(|error| error.to_string())?;
    let show = Show::start(
        style(args.json),
        local_time(),
        batch.dir.path().display().to_string(),
        shown(&batch.file),
        Default::default(),
    );
    let show = show.map_err(|error| format!("can not start the display: {error}"))?;
    let descriptors = arrival.take_descriptors().map_err(|error| chain(&error))?;
    Ok(Prepared {
        arrival,
        descriptors,
        batch,
        host,
        show,
    })
}

fn found(arrival: &Arrival) -> Result<Found, CliError> {
    let document = &arrival.document;
    let root = StateRoot::from_env()?;
    let listing = index::list(&RealDisk, &root)?;
    let entry = listing.entries.iter().find(|it| it.id == document.batch);
    let found = entry
        .map(Found::from)
        .filter(|it| it.dir.path() == document.dir);
    found.ok_or_else(|| {
        let dir = StateDir::at(&document.dir);
        let message = format!("{} is not in the index of batches", dir.path().display());
        CliError::new(Code::NotFound, message)
    })
}

/// Becomes the former program again, which goes on with the same document. Returns only when there
/// is none, or it can not be executed: then this process ends, and its hosts with it.
fn go_back(args: &Args, why: &str) -> CliError {
    let why: String = why.chars().take(REASON_MAX).collect();
    let (Some(former), None) = (args.former, &args.refused) else {
        return CliError::new(Code::Internal, format!("can not go on: {why}"))
            .hint("`supervisor run` goes on with the batch");
    };
    let batch = args.batch.as_str();
    let mut words: Vec<OsString> = ["supervisor", VERB, batch, "--state"]
        .map(OsString::from)
        .into();
    words.push(args.state.to_string().into());
    words.push("--former".into());
    words.push(former.to_string().into());
    words.push("--refused".into());
    words.push(why.clone().into());
    if args.json {
        words.push("--json".into());
    }
    // Nothing was taken, so everything is still open for the next program.
    let error = replace::become_program(&replace::name_of_open(former), &words, &[]);
    CliError::new(
        Code::Internal,
        format!("can not take over ({why}), and the former program can not be executed: {error}"),
    )
    .hint("`supervisor run` goes on with the batch")
}
