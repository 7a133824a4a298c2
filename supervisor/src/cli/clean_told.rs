//! How `supervisor clean` tells what goes and what came of it, to people and to scripts.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::build_output::{BuildOutputFolder, BuildOutputFound, BuildOutputStays};
use serde::Serialize;
use supervisor_core::facts::Salvage;
use supervisor_core::plan::TaskIx;

use crate::cli::Io;
use crate::cli::clean_plan::{Going, Plan, What};
use crate::cli::error::CliError;
use crate::view::delivery;
use crate::view::family::size;
use crate::view::time::Stamp;

/// What came of one worktree.
#[derive(Debug, Default)]
pub(super) struct End {
    /// What was wanted is done.
    pub(super) done: bool,
    /// The worktree is gone.
    pub(super) gone: bool,
    /// What the journal says.
    pub(super) detail: String,
    /// What keeps its content.
    pub(super) kept: Option<Salvage>,
    /// The build output that went.
    pub(super) output: Option<BuildOutputFound>,
}

/// Shows what would go.
///
/// # Errors
/// When stdout can not be written.
pub(super) fn plan(plan: &Plan, io: &mut Io<'_>) -> Result<(), CliError> {
    let id = &plan.batch.id;
    for (task, why) in &plan.stays {
        io.line(format_args!("{id}/{task}: {why}"))?;
    }
    for one in &plan.going {
        let (task, size, path) = (&one.id, one.size, one.path.display());
        let kept = match (&one.output, &one.merged) {
            (Some(_), _) => "build output; all else stays".to_owned(),
            (None, Some(commit)) => {
                format!("merged by {commit}; what else is in it is salvaged first")
            }
            (None, None) => "not merged: all of it is salvaged first".to_owned(),
        };
        let again = if one.under_way {
            ", was cut off and goes on"
        } else {
            ""
        };
        io.line(format_args!("{id}/{task}: {size}, {kept}{again}\n  {path}"))?;
        if let Some(found) = &one.output {
            folders(found, io)?;
        }
    }
    let count = plan.going.len();
    if count == 0 && plan.stays.is_empty() {
        return io.line(format_args!("{id}: no worktrees"));
    }
    let total = plan.total();
    match plan.what {
        What::Worktrees => io.line(format_args!("{id}: {count} worktrees can go, {total}")),
        What::BuildOutput => io.line(format_args!(
            "{id}: build output of {count} worktrees can go, {total}"
        )),
    }
}

fn folders(found: &BuildOutputFound, io: &mut Io<'_>) -> Result<(), CliError> {
    for folder in &found.folders {
        let (path, bytes, files) = (&folder.path, size(folder.bytes), folder.files);
        io.line(format_args!("  {bytes:>12}  {path}  ({files} files)"))?;
    }
    for folder in &found.stays {
        io.line(format_args!("  {} stays: {}", folder.path, folder.why))?;
    }
    Ok(())
}

/// Tells what came of it.
///
/// # Errors
/// When stdout can not be written.
pub(super) fn ends(
    plan: &Plan,
    ends: &BTreeMap<TaskIx, End>,
    io: &mut Io<'_>,
) -> Result<(), CliError> {
    let id = &plan.batch.id;
    for one in &plan.going {
        let (task, Some(end)) = (&one.id, ends.get(&one.ix)) else {
            continue;
        };
        if let (What::BuildOutput, Some(found)) = (plan.what, &end.output) {
            let bytes = size(found.bytes);
            io.line(format_args!("{id}/{task}: {bytes} of build output is gone"))?;
            continue;
        }
        let said = delivery::clean_ended(end.gone, &end.detail);
        io.line(format_args!("{id}/{task}: {said}"))?;
        if let Some(kept) = &end.kept {
            let (reference, commit) = (&kept.reference, kept.commit.short());
            io.line(format_args!("  kept by {reference} at {commit}"))?;
        }
    }
    Ok(())
}

/// A batch, for scripts.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    batch: &'a str,
    what: &'static str,
    bytes: u64,
    bytes_complete: bool,
    going: Vec<GoingRow<'a>>,
    stays: Vec<StaysRow<'a>>,
}

#[derive(Debug, Serialize)]
struct GoingRow<'a> {
    task: &'a str,
    path: &'a Path,
    bytes: u64,
    bytes_complete: bool,
    ended: Stamp,
    merged: Option<&'a str>,
    under_way: bool,
    folders: &'a [BuildOutputFolder],
    folders_stay: &'a [BuildOutputStays],
    end: Option<EndRow<'a>>,
}

#[derive(Debug, Serialize)]
struct EndRow<'a> {
    done: bool,
    gone: bool,
    detail: &'a str,
    #[serde(rename = "ref")]
    reference: Option<&'a str>,
    commit: Option<&'a str>,
    folders: &'a [BuildOutputFolder],
}

#[derive(Debug, Serialize)]
struct StaysRow<'a> {
    task: &'a str,
    why: &'a str,
}

/// The plan, and what came of it where it was carried out.
pub(super) fn row<'a>(plan: &'a Plan, ends: Option<&'a BTreeMap<TaskIx, End>>) -> Row<'a> {
    let total = plan.total();
    let stays = plan.stays.iter();
    let stays = stays.map(|(task, why)| StaysRow {
        task: task.as_str(),
        why,
    });
    let going = plan.going.iter();
    let going = going.map(|one| going_row(one, ends.and_then(|ends| ends.get(&one.ix))));
    Row {
        batch: plan.batch.id.as_str(),
        what: plan.what.word(),
        bytes: total.bytes,
        bytes_complete: !total.more,
        going: going.collect(),
        stays: stays.collect(),
    }
}

fn going_row<'a>(one: &'a Going, end: Option<&'a End>) -> GoingRow<'a> {
    let found = one.output.as_ref();
    GoingRow {
        task: one.id.as_str(),
        path: &one.path,
        bytes: one.size.bytes,
        bytes_complete: !one.size.more,
        ended: Stamp(one.ended),
        merged: one.merged.as_deref(),
        under_way: one.under_way,
        folders: found.map_or(&[], |found| &found.folders),
        folders_stay: found.map_or(&[], |found| &found.stays),
        end: end.map(|end| EndRow {
            done: end.done,
            gone: end.gone,
            detail: &end.detail,
            reference: end.kept.as_ref().map(|kept| &*kept.reference),
            commit: end.kept.as_ref().map(|kept| kept.commit.as_str()),
            folders: end.output.as_ref().map_or(&[], |found| &found.folders),
        }),
    }
}

/// Writes all of it as one list.
///
/// # Errors
/// When stdout can not be written.
pub(super) fn json(rows: &[Row<'_>], io: &mut Io<'_>) -> Result<(), CliError> {
    serde_json::to_writer(&mut *io.out, rows).map_err(|error| CliError::output(error.into()))?;
    io.line("")
}
