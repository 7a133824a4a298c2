//! What `integrate` tells: the plan before, the result after, and the texts of commit and request.

use std::fmt::Write as _;

use protocol::integrate::{BODY_MAX, How, IntegratePlan, IntegrateResult};
use protocol::report::excerpt;
use supervisor_core::facts::{Facts, Task};
use supervisor_core::machine::MergeState;

use crate::cli::Io;
use crate::cli::error::{CliError, Code};
use crate::cli::integrate::{Chosen, short};

/// Files that are named before anything is done; the rest is counted.
const FILES_NAMED_MAX: usize = 12;
/// Tasks that a merge commit names; the rest is counted.
const TASKS_NAMED_MAX: usize = 50;
/// Longest summary of a task in a pull request, bytes.
const SUMMARY_MAX: usize = 200;

/// Tells what is to be done, and what it will meet.
pub(super) fn plan(
    chosen: &Chosen<'_>,
    plan: &IntegratePlan,
    io: &mut Io<'_>,
) -> Result<(), CliError> {
    let (from, into) = (short(&chosen.from), short(&chosen.into));
    let (at, onto) = (plan.from.short(), plan.into.short());
    io.line(format_args!("{from} ({at}) into {into} ({onto})"))?;
    let files = counted(plan.files, "file");
    io.line(format_args!(
        "  {} in {files}",
        counted(plan.commits, "commit")
    ))?;
    for path in plan.paths.iter().take(FILES_NAMED_MAX) {
        io.line(format_args!("    {path}"))?;
    }
    let named = plan.paths.len().min(FILES_NAMED_MAX) as u64;
    if plan.files > named {
        io.line(format_args!("    and {} more", plan.files - named))?;
    }
    io.line(format_args!("  {}", way(plan, into)))?;
    match &plan.checked_out {
        Some(folder) => io.line(format_args!(
            "  {into} is checked out in {folder}, which follows"
        ))?,
        None if plan.how == How::PullRequest => {}
        None => io.line(format_args!(
            "  {into} is checked out nowhere; no hook runs"
        ))?,
    }
    if !plan.hooks.is_empty() {
        io.line(format_args!("  your hooks run: {}", plan.hooks.join(", ")))?;
    }
    if plan.signs {
        io.line("  the merge commit is signed, as your settings say")?;
    }
    let lost: Vec<String> = chosen.tasks().filter_map(not_in_it).collect();
    if !lost.is_empty() {
        io.line(format_args!("  not in it: {}", lost.join(", ")))?;
    }
    Ok(())
}

fn way(plan: &IntegratePlan, into: &str) -> String {
    let straight = match plan.fast_forward {
        true => "a fast-forward is possible",
        false => "a fast-forward is not possible",
    };
    let merges = match plan.conflicts.len() {
        0 => "no conflict".to_owned(),
        _ => format!("conflicts in {}", plan.conflicts.join(", ")),
    };
    match (plan.how, &plan.remote) {
        (How::PullRequest, Some(remote)) => {
            let (name, base) = (&remote.name, &remote.base);
            format!("by a pull request for {base} at {name}, after a push there; {merges}")
        }
        (How::PullRequest, None) => format!("by a pull request; {merges}"),
        (How::Either | How::FastForward, _) => format!("by a fast-forward of {into}; {straight}"),
        (How::Merge, _) => format!("by a merge commit on {into}; {straight}; {merges}"),
    }
}

/// A task whose work the batch branch does not hold, and will not.
fn not_in_it(task: &Task) -> Option<String> {
    let merge = task.merge.as_ref().map(|merge| merge.state);
    let why = match merge {
        Some(MergeState::Merged) => return None,
        Some(state) if state != MergeState::None => state.word(),
        Some(_) | None if task.state.word() == "done" => return None,
        Some(_) | None => task.state.word(),
    };
    Some(format!("{} ({why})", task.id))
}

/// Whether something was done.
pub(super) fn is_done(result: &IntegrateResult) -> bool {
    match result {
        IntegrateResult::FastForwarded { .. }
        | IntegrateResult::Merged { .. }
        | IntegrateResult::PullRequest { .. } => true,
        IntegrateResult::Planned {}
        | IntegrateResult::Contained {}
        | IntegrateResult::Conflict {}
        | IntegrateResult::Refused { .. } => false,
    }
}

/// Tells what came of it, and how the command ends.
pub(super) fn result(
    chosen: &Chosen<'_>,
    plan: &IntegratePlan,
    result: &IntegrateResult,
    io: &mut Io<'_>,
) -> Result<Code, CliError> {
    let into = short(&chosen.into);
    match result {
        IntegrateResult::Planned {} => io.line("nothing was done")?,
        IntegrateResult::Contained {} => {
            io.line(format_args!("{into} holds it already: nothing to do"))?;
        }
        IntegrateResult::FastForwarded { commit } => {
            io.line(format_args!("{into} is at {} now", commit.short()))?;
        }
        IntegrateResult::Merged { commit } => {
            io.line(format_args!(
                "{into} has merge commit {} now",
                commit.short()
            ))?;
        }
        IntegrateResult::PullRequest { url, existed } => {
            let there = if *existed {
                " (it was there already)"
            } else {
                ""
            };
            io.line(format_args!("{url}{there}"))?;
        }
        IntegrateResult::Conflict {} => return Err(conflict(chosen, plan)),
        IntegrateResult::Refused { why, way_out } => {
            return Err(CliError::new(Code::Refused, why.clone()).hint(way_out.clone()));
        }
    }
    Ok(Code::Ok)
}

fn conflict(chosen: &Chosen<'_>, plan: &IntegratePlan) -> CliError {
    let (from, into) = (short(&chosen.from), short(&chosen.into));
    let files = plan.conflicts.join(", ");
    let text = format!("{from} conflicts with {into} in {files}");
    CliError::new(Code::Refused, text)
        .hint("branch, index and working tree are as they were")
        .hint(format!(
            "`git merge {from}` on {into} lets you resolve it; or --into another branch, or --pr"
        ))
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

/// The message of a merge commit.
pub(super) fn message(chosen: &Chosen<'_>) -> String {
    let (from, into) = (short(&chosen.from), short(&chosen.into));
    let mut text = format!("Merge {from} into {into}\n");
    let merged = || chosen.tasks().filter(|task| is_merged(task));
    let count = merged().count();
    for (at, task) in merged().take(TASKS_NAMED_MAX).enumerate() {
        if at == 0 {
            text.push('\n');
        }
        // Writing to a String does not fail.
        let _ok = writeln!(text, "- {}", task.id);
    }
    if count > TASKS_NAMED_MAX {
        let _ok = writeln!(text, "- and {} more", count - TASKS_NAMED_MAX);
    }
    text
}

/// The title of a pull request.
pub(super) fn title(chosen: &Chosen<'_>) -> String {
    let merged = chosen.tasks().filter(|task| is_merged(task)).count();
    let name = &chosen.facts.batch.settings.name;
    format!("{name}: {}", counted(merged as u64, "task"))
}

/// The text of a pull request: every task, how it ended, where it was merged and what it says of itself.
pub(super) fn body(chosen: &Chosen<'_>, facts: &Facts) -> String {
    let batch = &facts.batch;
    let mut text = format!("Batch `{}` ({})\n\n", batch.settings.name, batch.id);
    text.push_str("| task | state | merge | result |\n|---|---|---|---|\n");
    for task in chosen.tasks() {
        let merge = match &task.merge {
            Some(merge) => match &merge.merged {
                Some(commit) => format!("{} {}", merge.state, commit.short()),
                None => merge.state.to_string(),
            },
            None => "none".to_owned(),
        };
        let summary = task.last.as_ref().map(|last| cell(&last.summary));
        let summary = summary.unwrap_or_default();
        let line = format!("| {} | {} | {merge} | {summary} |\n", task.id, task.state);
        // The last words fit whatever came before.
        if text.len() + line.len() > BODY_MAX - 100 {
            text.push_str("\nThe list is cut here.\n");
            break;
        }
        text.push_str(&line);
    }
    text
}

/// The first line of a text as it can stand in a table.
fn cell(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    excerpt(line, SUMMARY_MAX)
        .replace('\\', "\\\\")
        .replace('|', "\\|")
}

fn is_merged(task: &Task) -> bool {
    let merge = task.merge.as_ref().map(|merge| merge.state);
    merge == Some(MergeState::Merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_told_as_many() {
        assert_eq!(counted(0, "file"), "0 files");
        assert_eq!(counted(1, "file"), "1 file");
        assert_eq!(counted(2, "file"), "2 files");
    }

    #[test]
    fn a_summary_breaks_no_table() {
        assert_eq!(cell("a | b\\c\nsecond line"), "a \\| b\\\\c");
    }
}
