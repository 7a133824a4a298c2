//! `plan`: the tasks of a batch file in an order in which they can be done.

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::batch_file::{PlannedLine, PlannedRepo, Summary};
use crate::view::forecast::Forecast;

/// Most columns of an id; longer ones push the rest of their line.
const ID_MAX: usize = 32;
/// Most columns of a branch or a repository's name.
const BRANCH_MAX: usize = 64;
/// Digits of a commit that are shown.
const SHORT: usize = 12;
/// Pairs of tasks that are shown to a person.
const APART_MAX: usize = 20;

#[derive(Serialize)]
struct PlanRow<'a> {
    name: &'a str,
    concurrency: u32,
    levels: u32,
    repos: Vec<RepoRow<'a>>,
    tasks: Tasks<'a>,
    apart: &'a [(String, String)],
    apart_more: bool,
    #[serde(flatten)]
    forecast: &'a Forecast,
}

#[derive(Serialize)]
struct RepoRow<'a> {
    name: &'a str,
    path: &'a str,
    base: &'a str,
    branch: Option<&'a str>,
    into: &'a str,
}

struct Tasks<'a>(&'a [PlannedLine]);

impl Serialize for Tasks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|task| TaskRow {
            id: &task.id,
            level: task.level,
            agent: &task.agent,
            attempts_max: task.attempts,
            verify: task.verify,
            depends_on: &task.depends_on,
            touches: &task.touches,
            repo: task.repo.as_deref(),
            branch: task.branch.as_deref(),
        }))
    }
}

#[derive(Serialize)]
struct TaskRow<'a> {
    id: &'a str,
    level: u32,
    agent: &'a str,
    attempts_max: u32,
    verify: bool,
    depends_on: &'a [String],
    touches: &'a [String],
    repo: Option<&'a str>,
    branch: Option<&'a str>,
}

/// Writes `plan --json`.
///
/// # Errors
/// When `out` can not be written.
pub fn write_json(plan: &Summary, forecast: &Forecast, out: &mut dyn Write) -> io::Result<()> {
    let row = PlanRow {
        name: &plan.name,
        concurrency: plan.concurrency,
        levels: plan.levels,
        repos: plan.repos.iter().map(repo_row).collect(),
        tasks: Tasks(&plan.tasks),
        apart: &plan.apart.pairs,
        apart_more: plan.apart.more,
        forecast,
    };
    serde_json::to_writer(&mut *out, &row)?;
    out.write_all(b"\n")
}

fn repo_row(repo: &PlannedRepo) -> RepoRow<'_> {
    RepoRow {
        name: &repo.name,
        path: &repo.path,
        base: &repo.base,
        branch: repo.branch.as_deref(),
        into: &repo.into,
    }
}

/// Writes the plan for a person.
///
/// # Errors
/// When `out` can not be written.
pub fn write_text(plan: &Summary, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "{}: {} tasks, {} live at most, {} in a row at least",
        plan.name,
        plan.tasks.len(),
        plan.concurrency,
        plan.levels
    )?;
    for repo in &plan.repos {
        write_repo(repo, out)?;
    }
    let widest = plan.tasks.iter().map(|task| task.id.len()).max();
    let width = widest.unwrap_or(0).clamp(4, ID_MAX);
    let branches = Branches::of(plan);
    write!(out, "\n{:>5}  {:width$}  {:12}  ", "LEVEL", "TASK", "AGENT")?;
    branches.write("REPOSITORY", "BRANCH", out)?;
    writeln!(out, "AFTER")?;
    for task in &plan.tasks {
        let verify = if task.verify { " [verify]" } else { "" };
        let after = if task.depends_on.is_empty() {
            "-".to_owned()
        } else {
            task.depends_on.join(", ")
        };
        let (level, id, agent) = (task.level, &task.id, &task.agent);
        write!(out, "{level:>5}  {id:width$}  {agent:12}  ")?;
        let (repo, branch) = (task.repo.as_deref(), task.branch.as_deref());
        branches.write(repo.unwrap_or("-"), branch.unwrap_or("-"), out)?;
        writeln!(out, "{after}{verify}")?;
    }
    write_apart(plan, out)
}

fn write_repo(repo: &PlannedRepo, out: &mut dyn Write) -> io::Result<()> {
    let short = repo.base.get(..SHORT).unwrap_or(&repo.base);
    let (path, into) = (&repo.path, &repo.into);
    let name = if repo.name == "." {
        String::new()
    } else {
        format!("{}: ", repo.name)
    };
    let branch = repo.branch.as_deref();
    let from = branch.map_or_else(|| short.to_owned(), |branch| format!("{branch} ({short})"));
    writeln!(out, "{name}{path}, from {from}, merged into {into}")
}

/// The columns that only worktrees need.
struct Branches {
    repo: usize,
    branch: usize,
}

impl Branches {
    fn of(plan: &Summary) -> Self {
        let widest = |text: fn(&PlannedLine) -> Option<&String>| {
            let widths = plan.tasks.iter().filter_map(text).map(String::len);
            widths.max().unwrap_or(0).min(BRANCH_MAX)
        };
        Self {
            repo: widest(|task| task.repo.as_ref()).max("REPOSITORY".len()),
            branch: widest(|task| task.branch.as_ref()),
        }
    }

    fn write(&self, repo: &str, branch: &str, out: &mut dyn Write) -> io::Result<()> {
        if self.branch == 0 {
            return Ok(());
        }
        let (repo_width, width) = (self.repo, self.branch);
        write!(out, "{repo:repo_width$}  {branch:width$}  ")
    }
}

fn write_apart(plan: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let pairs = &plan.apart.pairs;
    if pairs.is_empty() && !plan.apart.more {
        return Ok(());
    }
    writeln!(
        out,
        "\nNever run together, because both may touch the same files:"
    )?;
    for (first, second) in pairs.iter().take(APART_MAX) {
        writeln!(out, "  {first} and {second}")?;
    }
    let left = pairs.len().saturating_sub(APART_MAX);
    match (left, plan.apart.more) {
        (0, false) => Ok(()),
        (0, true) => writeln!(
            out,
            "  and others: there are too many tasks to look at each pair"
        ),
        (left, more) => {
            let at_least = if more { "at least " } else { "" };
            writeln!(
                out,
                "  and {at_least}{left} pairs more (`--json` names them)"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use supervisor_core::plan::TaskIx;

    use crate::batch_file::Apart;

    use super::*;

    fn plan() -> Summary {
        let line = |number: u32, id: &str, after: &[&str]| PlannedLine {
            task: TaskIx(number),
            id: id.to_owned(),
            level: number + 1,
            agent: "run".to_owned(),
            attempts: 3,
            verify: number == 1,
            depends_on: after.iter().map(|id| (*id).to_owned()).collect(),
            touches: Vec::new(),
            repo: None,
            branch: None,
        };
        Summary {
            name: "nightly".to_owned(),
            concurrency: 4,
            tasks: vec![line(0, "lexer", &[]), line(1, "parser", &["lexer"])],
            levels: 2,
            repos: Vec::new(),
            apart: Apart::default(),
        }
    }

    fn in_worktrees() -> Summary {
        let mut plan = plan();
        plan.repos.push(PlannedRepo {
            name: "web".to_owned(),
            path: "/code/web".to_owned(),
            base: "0123456789abcdef".to_owned(),
            branch: Some("main".to_owned()),
            into: "batch/{{ batch.id }}".to_owned(),
        });
        plan.tasks[0].repo = Some("web".to_owned());
        plan.tasks[0].branch = Some("supervisor/x/lexer".to_owned());
        plan.apart.pairs = vec![("lexer".to_owned(), "parser".to_owned())];
        plan
    }

    #[test]
    fn a_person_reads_where_work_goes_and_what_never_runs_together() {
        let mut out = Vec::new();
        write_text(&in_worktrees(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "nightly: 2 tasks, 4 live at most, 2 in a row at least\n\
             web: /code/web, from main (0123456789ab), merged into batch/{{ batch.id }}\n\n\
             LEVEL  TASK    AGENT         REPOSITORY  BRANCH              AFTER\n    \
             1  lexer   run           web         supervisor/x/lexer  -\n    \
             2  parser  run           -           -                   lexer [verify]\n\n\
             Never run together, because both may touch the same files:\n  lexer and parser\n"
        );
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let mut plan = plan();
        let pair = ("a".to_owned(), "b".to_owned());
        plan.apart.pairs = vec![pair; APART_MAX + 3];
        let text = |plan: &Summary| {
            let mut out = Vec::new();
            write_text(plan, &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert!(text(&plan).ends_with("  and 3 pairs more (`--json` names them)\n"));
        plan.apart.more = true;
        assert!(text(&plan).contains("and at least 3 pairs more"));
        plan.apart.pairs.truncate(1);
        assert!(text(&plan).ends_with("too many tasks to look at each pair\n"));
    }

    #[test]
    fn a_person_reads_what_comes_after_what() {
        let mut out = Vec::new();
        write_text(&plan(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "nightly: 2 tasks, 4 live at most, 2 in a row at least\n\n\
             LEVEL  TASK    AGENT         AFTER\n    \
             1  lexer   run           -\n    \
             2  parser  run           lexer [verify]\n"
        );
    }

    #[test]
    fn the_keys_of_a_plan_are_stable() {
        let mut out = Vec::new();
        write_json(&plan(), &Forecast::default(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap().lines().next().unwrap(),
            "{\"name\":\"nightly\",\"concurrency\":4,\"levels\":2,\"repos\":[],\"tasks\":[\
             {\"id\":\"lexer\",\"level\":1,\"agent\":\"run\",\"attempts_max\":3,\"verify\":false,\
             \"depends_on\":[],\"touches\":[],\"repo\":null,\"branch\":null},\
             {\"id\":\"parser\",\"level\":2,\"agent\":\"run\",\"attempts_max\":3,\"verify\":true,\
             \"depends_on\":[\"lexer\"],\"touches\":[],\"repo\":null,\"branch\":null}],\
             \"apart\":[],\"apart_more\":false,\"conflicts\":[],\"conflicts_unknown\":[]}"
        );
    }
}
