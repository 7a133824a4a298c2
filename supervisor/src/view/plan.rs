//! `plan`: the tasks of a batch file in an order in which they can be done.

use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::batch_file::{PlannedLine, Summary};

/// Most columns of an id; longer ones push the rest of their line.
const ID_MAX: usize = 32;

#[derive(Serialize)]
struct PlanRow<'a> {
    name: &'a str,
    concurrency: u32,
    levels: u32,
    tasks: Tasks<'a>,
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
}

/// Writes `plan --json`.
///
/// # Errors
/// When `out` can not be written.
pub fn write_json(plan: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let row = PlanRow {
        name: &plan.name,
        concurrency: plan.concurrency,
        levels: plan.levels,
        tasks: Tasks(&plan.tasks),
    };
    serde_json::to_writer(&mut *out, &row)?;
    out.write_all(b"\n")
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
    let widest = plan.tasks.iter().map(|task| task.id.len()).max();
    let width = widest.unwrap_or(0).clamp(4, ID_MAX);
    writeln!(
        out,
        "\n{:>5}  {:width$}  {:12}  AFTER",
        "LEVEL", "TASK", "AGENT"
    )?;
    for task in &plan.tasks {
        let verify = if task.verify { " [verify]" } else { "" };
        let after = if task.depends_on.is_empty() {
            "-".to_owned()
        } else {
            task.depends_on.join(", ")
        };
        writeln!(
            out,
            "{:>5}  {:width$}  {:12}  {after}{verify}",
            task.level, task.id, task.agent
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use supervisor_core::plan::TaskIx;

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
        };
        Summary {
            name: "nightly".to_owned(),
            concurrency: 4,
            tasks: vec![line(0, "lexer", &[]), line(1, "parser", &["lexer"])],
            levels: 2,
        }
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
        write_json(&plan(), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap().lines().next().unwrap(),
            "{\"name\":\"nightly\",\"concurrency\":4,\"levels\":2,\"tasks\":[\
             {\"id\":\"lexer\",\"level\":1,\"agent\":\"run\",\"attempts_max\":3,\"verify\":false,\
             \"depends_on\":[],\"touches\":[]},\
             {\"id\":\"parser\",\"level\":2,\"agent\":\"run\",\"attempts_max\":3,\"verify\":true,\
             \"depends_on\":[\"lexer\"],\"touches\":[]}]}"
        );
    }
}
