//! What must hold after the crash story, each rule by evidence that the killed process did not write
//! or could not have written after its death.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde_json::Value;

use super::observe::{Observation, Shown, read};
use super::record::{Line, Record, What};
use super::{BATCH, Life, Script, dependency, task_id};
use crate::world::World;

/// Violations that are printed; the rest is counted.
const PRINTED_MAX: usize = 20;

/// What was found.
#[derive(Debug, Default)]
pub struct Evidence {
    counts: Vec<(&'static str, usize)>,
    violations: Vec<String>,
}

impl Evidence {
    /// No rule was broken.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    fn count(&mut self, what: &'static str, number: usize) {
        self.counts.push((what, number));
    }

    fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    /// Counts something that must not be, and each case of it as a violation.
    fn none(&mut self, what: &'static str, cases: Vec<String>) {
        self.count(what, cases.len());
        let cases = cases.into_iter().map(|case| format!("{what}: {case}"));
        self.violations.extend(cases);
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, number) in &self.counts {
            writeln!(f, "{number:>8}  {what}")?;
        }
        for violation in self.violations.iter().take(PRINTED_MAX) {
            writeln!(f, "VIOLATION {violation}")?;
        }
        let more = self.violations.len().saturating_sub(PRINTED_MAX);
        if more > 0 {
            writeln!(f, "and {more} violations more")?;
        }
        Ok(())
    }
}

/// Judges the whole story.
pub(super) fn judge(
    world: &World,
    script: &Script,
    lives: &[Life],
    trouble: Vec<String>,
    observations: Vec<Observation>,
) -> Evidence {
    let lines = Record::read(&world.path("record")).lines();
    let mut evidence = Evidence::default();
    evidence.count("kill -9 of the supervisor", lives.len().saturating_sub(1));
    evidence.none("runs that ended wrongly", trouble);
    judge_record(&mut evidence, script, &lines);
    judge_journal(&mut evidence, script, &world.journal());
    match world.batch_dir() {
        Some(folder) => evidence.none("runs after a durable result", run_again(&folder, script)),
        None => evidence.violation("there is no batch".to_owned()),
    }
    judge_observations(&mut evidence, &observations, lives, &lines);
    judge_end(&mut evidence, world, script);
    evidence
}

/// The tasks' own record: every task came to its end, none ran beside itself, order was kept.
fn judge_record(evidence: &mut Evidence, script: &Script, lines: &[Line]) {
    let of = |what: What| lines.iter().filter(move |line| line.what == what);
    let first =
        |what: What, task: &str| of(what).find(|line| line.task == task).map(|line| line.at);
    evidence.count("starts of tasks", of(What::Start).count());
    evidence.count("ends of tasks", of(What::End).count());
    let overlaps = of(What::Overlap).map(|line| format!("{} (pid {})", line.task, line.pid));
    evidence.none(
        "two runs of a task alive at the same time",
        overlaps.collect(),
    );
    let mut unfinished = Vec::new();
    let mut early = Vec::new();
    for number in 0..script.tasks {
        let task = task_id(number);
        if first(What::End, &task).is_none() {
            unfinished.push(task.clone());
        }
        let Some(before) = dependency(number, script.concurrency).map(task_id) else {
            continue;
        };
        if first(What::Start, &task) < first(What::End, &before) {
            early.push(format!("{task} before the end of {before}"));
        }
    }
    evidence.none("tasks that never came to their end", unfinished);
    evidence.none("tasks started before their dependency was done", early);
}

/// The journal: every task ends `done`, exactly once; `lost` consumes nothing.
fn judge_journal(evidence: &mut Evidence, script: &Script, journal: &[Value]) {
    let records: Vec<&Value> = journal
        .iter()
        .filter_map(|line| line.get("record"))
        .collect();
    let of = |name: &'static str| records.iter().filter_map(move |record| record.get(name));
    evidence.count("records in the journal", records.len());
    let ids: Vec<&str> = of("plan_extended")
        .filter_map(|record| record.get("tasks")?.as_array())
        .flatten()
        .filter_map(|task| task.get("id")?.as_str())
        .collect();
    if ids.len() != script.tasks {
        evidence.violation(format!("the journal plans {} tasks", ids.len()));
    }
    let mut ended: BTreeMap<&str, Vec<&str>> = ids.iter().map(|id| (*id, Vec::new())).collect();
    // A task ends by a record of its own, or with its last attempt.
    let by_attempt = of("attempt_ended").filter_map(|record| {
        let end = record.get("next")?.get("end")?;
        Some((record, end.get("to")))
    });
    let endings = of("task_ended").map(|record| (record, record.get("to")));
    for (record, state) in endings.chain(by_attempt) {
        let index = record.get("task").and_then(Value::as_u64);
        let index = index.and_then(|index| usize::try_from(index).ok());
        match (
            index.and_then(|index| ids.get(index)),
            state.and_then(Value::as_str),
        ) {
            (Some(id), Some(state)) => ended.entry(id).or_default().push(state),
            _ => evidence.violation(format!("an end of nothing: {record}")),
        }
    }
    let good = ended.values().filter(|states| **states == ["done"]).count();
    evidence.count("tasks that ended `done` exactly once", good);
    let bad = ended
        .iter()
        .filter(|(_, states)| **states != ["done"])
        .map(|(id, states)| format!("{id}: {states:?}"));
    evidence.none("tasks that did not", bad.collect());

    let class = |record: &Value| {
        record
            .get("class")
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let lost: Vec<&Value> = of("attempt_ended")
        .filter(|record| class(record).as_deref() == Some("lost"))
        .collect();
    evidence.count("attempts that ended `lost`", lost.len());
    let mut losses: BTreeMap<Option<u64>, usize> = BTreeMap::new();
    for record in &lost {
        *losses
            .entry(record.get("task").and_then(Value::as_u64))
            .or_default() += 1;
    }
    let most = losses.into_values().max().unwrap_or_default();
    evidence.count("most of them of one task", most);
    let consumed = |record: &&&Value| record.get("consumed") != Some(&Value::Bool(false));
    let consuming = lost
        .iter()
        .filter(consumed)
        .map(|record| record.to_string());
    evidence.none("lost attempts that consumed one", consuming.collect());
    let other = of("attempt_ended")
        .filter_map(class)
        .filter(|class| class != "lost");
    evidence.none("attempts that ended in another class", other.collect());
}

/// Runs of a task that follow one whose good result was durable.
fn run_again(batch: &Path, script: &Script) -> Vec<String> {
    let mut cases = Vec::new();
    for number in 0..script.tasks {
        let task = task_id(number);
        let mut runs = Vec::new();
        for attempt in folders(&batch.join("tasks").join(&task).join("attempts")) {
            for run in folders(&attempt.1.join("runs")) {
                let exit = std::fs::read(run.1.join("exit.json")).unwrap_or_default();
                let exit: Value = serde_json::from_slice(&exit).unwrap_or_default();
                runs.push((run.0, exit["result"]["status"] == "ok"));
            }
        }
        runs.sort_unstable();
        let durable = runs.iter().find(|(_, ok)| *ok).map(|(run, _)| *run);
        let last = runs.last().map(|(run, _)| *run);
        if let (Some(durable), Some(last)) = (durable, last)
            && last > durable
        {
            cases.push(format!(
                "{task}: run {last} after the result of run {durable}"
            ));
        }
        if durable.is_none() {
            cases.push(format!("{task}: no durable result in {}", batch.display()));
        }
    }
    cases
}

/// The numbered folders in a folder.
fn folders(folder: &Path) -> Vec<(u64, std::path::PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let numbered = entries.filter_map(|entry| {
        let path = entry.ok()?.path();
        Some((path.file_name()?.to_str()?.parse().ok()?, path))
    });
    numbered.collect()
}

/// What `status` showed while the supervisor was being killed.
fn judge_observations(
    evidence: &mut Evidence,
    observations: &[Observation],
    lives: &[Life],
    lines: &[Line],
) {
    evidence.count("looks at the status", observations.len());
    if observations.is_empty() {
        evidence.violation("the status was never seen".to_owned());
    }
    let mut lies = Vec::new();
    let mut done: BTreeMap<&str, i128> = BTreeMap::new();
    let mut alive_since: BTreeMap<u32, i128> = BTreeMap::new();
    for look in observations {
        let shown = match &look.shown {
            Ok(shown) => shown,
            Err(error) => {
                lies.push(format!("no status: {error}"));
                continue;
            }
        };
        lies.extend(contradictions(shown));
        lies.extend(about_the_supervisor(look, shown, lives, &mut alive_since));
        for (task, _) in done.iter().filter(|(task, _)| !is_done(shown, task)) {
            lies.push(format!(
                "{task} was shown done and then {:?}",
                shown.tasks.get(*task)
            ));
        }
        for (task, _) in shown.tasks.iter().filter(|(_, state)| *state == "done") {
            done.entry(task).or_insert(look.ended);
        }
    }
    for (task, seen) in &done {
        let ended = |line: &&Line| line.what == What::End && line.task == **task;
        if !lines.iter().filter(ended).any(|line| line.at < *seen) {
            lies.push(format!(
                "{task} was shown done before it had come to its end"
            ));
        }
    }
    evidence.none("lies of the status", lies);
    let started = lines.iter().filter(|line| line.what == What::Start);
    let again = started.filter_map(|line| {
        let seen = done.get(line.task.as_str())?;
        (line.at > *seen).then(|| format!("{} (pid {})", line.task, line.pid))
    });
    evidence.none("starts of a task that was shown done", again.collect());
}

fn is_done(shown: &Shown, task: &str) -> bool {
    shown.tasks.get(task).is_some_and(|state| state == "done")
}

/// Where one status contradicts itself.
fn contradictions(shown: &Shown) -> Option<String> {
    let mut counted: BTreeMap<&str, u64> = BTreeMap::new();
    for state in shown.tasks.values() {
        *counted.entry(state).or_default() += 1;
    }
    let said: BTreeMap<&str, u64> = shown
        .counts
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| (state.as_str(), *count))
        .collect();
    (said != counted).then(|| format!("counts {said:?}, but the tasks are {counted:?}"))
}

/// Where a status contradicts what whoever killed the supervisor knows of its life.
fn about_the_supervisor(
    look: &Observation,
    shown: &Shown,
    lives: &[Life],
    alive_since: &mut BTreeMap<u32, i128>,
) -> Option<String> {
    let (pid, alive) = shown.supervisor?;
    let of_pid: Vec<&Life> = lives.iter().filter(|life| life.pid == pid).collect();
    let could_live = of_pid
        .iter()
        .any(|life| life.started < look.ended && look.began < life.ended);
    if alive && !could_live {
        return Some(format!(
            "supervisor {pid} is shown alive, but it was reaped before"
        ));
    }
    if alive {
        alive_since.entry(pid).or_insert(look.ended);
        return None;
    }
    let since = alive_since.get(&pid)?;
    let lived = of_pid
        .iter()
        .any(|life| *since <= look.began && look.ended < life.alive_until);
    lived.then(|| format!("supervisor {pid} is shown dead, but it lives"))
}

/// After all: the final status, a second reader of the journal, and nothing left behind.
fn judge_end(evidence: &mut Evidence, world: &World, script: &Script) {
    match read(&world.supervisor(&["status", BATCH, "--json"])) {
        Ok(shown) => {
            let done: BTreeSet<&String> = shown
                .tasks
                .keys()
                .filter(|id| is_done(&shown, id))
                .collect();
            if shown.batch != "done" || done.len() != script.tasks {
                let tasks = done.len();
                evidence.violation(format!(
                    "the batch is {} with {tasks} tasks done",
                    shown.batch
                ));
            }
        }
        Err(error) => evidence.violation(format!("no final status: {error}")),
    }
    let verified = world.supervisor(&["verify", BATCH]);
    if verified.code != Some(0) {
        let (code, said) = (verified.code, verified.stderr);
        evidence.violation(format!("verify of the journal exits {code:?}: {said}"));
    }
    let left = world.processes().into_iter();
    let left = left.map(|(pid, command)| format!("{pid} {command}"));
    evidence.none("processes left behind", left.collect());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::Victims;
    use serde_json::json;

    const SCRIPT_TASKS: usize = 2;

    fn script() -> Script {
        Script {
            victims: Victims::Supervisor,
            kills: 1,
            tasks: SCRIPT_TASKS,
            concurrency: 1,
            seed: 1,
            task_program: "/bin/true".into(),
        }
    }

    fn line(what: What, task: usize, at: i128) -> Line {
        let task = task_id(task);
        let pid = 1;
        Line {
            what,
            task,
            pid,
            at,
        }
    }

    fn good_record() -> Vec<Line> {
        (0..SCRIPT_TASKS)
            .flat_map(|task| [line(What::Start, task, 10), line(What::End, task, 20)])
            .collect()
    }

    fn good_journal() -> Vec<Value> {
        let ids = [json!({"id": task_id(0)}), json!({"id": task_id(1)})];
        let end = json!({"end": {"to": "done"}});
        vec![
            json!({"record": {"plan_extended": {"tasks": ids}}}),
            json!({"record": {"attempt_ended": {"task": 0, "class": "lost", "consumed": false}}}),
            json!({"record": {"task_ended": {"task": 0, "to": "done"}}}),
            json!({"record": {"attempt_ended": {"task": 1, "consumed": false, "next": end}}}),
        ]
    }

    fn look(began: i128, ended: i128, supervisor: (u32, bool), states: [&str; 2]) -> Observation {
        let mut counts = BTreeMap::new();
        for state in states {
            *counts.entry(state.to_owned()).or_default() += 1;
        }
        let tasks = states.iter().enumerate();
        let tasks = tasks.map(|(number, state)| (task_id(number), (*state).to_owned()));
        let shown = Shown {
            batch: "running".to_owned(),
            supervisor: Some(supervisor),
            counts,
            tasks: tasks.collect(),
        };
        Observation {
            began,
            ended,
            shown: Ok(shown),
        }
    }

    const LIVES: [Life; 2] = [
        Life {
            pid: 7,
            started: 0,
            alive_until: 50,
            ended: 60,
        },
        Life {
            pid: 8,
            started: 60,
            alive_until: 60,
            ended: 200,
        },
    ];

    fn of_looks(looks: &[Observation], lines: &[Line]) -> Evidence {
        let mut evidence = Evidence::default();
        judge_observations(&mut evidence, looks, &LIVES, lines);
        evidence
    }

    fn of_journal(journal: &[Value]) -> Evidence {
        let mut evidence = Evidence::default();
        judge_journal(&mut evidence, &script(), journal);
        evidence
    }

    #[test]
    fn a_good_story_is_clean() {
        let mut evidence = of_journal(&good_journal());
        judge_record(&mut evidence, &script(), &good_record());
        assert!(evidence.is_clean(), "{evidence}");
        let looks = [
            look(1, 2, (7, true), ["running", "ready"]),
            look(61, 70, (7, false), ["done", "ready"]),
            look(80, 90, (8, true), ["done", "done"]),
        ];
        let evidence = of_looks(&looks, &good_record());
        assert!(evidence.is_clean(), "{evidence}");
    }

    #[test]
    fn a_record_that_breaks_a_rule_is_found() {
        let mut overlap = good_record();
        overlap.push(line(What::Overlap, 0, 15));
        let unfinished = good_record()[..3].to_vec();
        for lines in [overlap, unfinished] {
            let mut evidence = Evidence::default();
            judge_record(&mut evidence, &script(), &lines);
            assert!(!evidence.is_clean(), "{lines:?}");
        }
    }

    #[test]
    fn a_dependent_that_starts_early_is_found() {
        let script = Script {
            tasks: 4,
            ..script()
        };
        assert_eq!(dependency(3, script.concurrency), Some(1));
        let mut lines: Vec<Line> = (0..4)
            .flat_map(|task| [line(What::Start, task, 10), line(What::End, task, 20)])
            .collect();
        let mut early = Evidence::default();
        judge_record(&mut early, &script, &lines);
        assert!(!early.is_clean());
        lines[6].at = 21;
        let mut in_order = Evidence::default();
        judge_record(&mut in_order, &script, &lines);
        assert!(in_order.is_clean(), "{in_order}");
    }

    #[test]
    fn a_journal_that_breaks_a_rule_is_found() {
        let twice = json!({"record": {"task_ended": {"task": 1, "to": "done"}}});
        let failed = json!({"record": {"task_ended": {"task": 1, "to": "failed"}}});
        let lost = json!({"record": {"attempt_ended": {"class": "lost", "consumed": true}}});
        let crash = json!({"record": {"attempt_ended": {"class": "crash", "consumed": true}}});
        for more in [twice, failed, lost, crash] {
            let mut journal = good_journal();
            journal.push(more.clone());
            assert!(!of_journal(&journal).is_clean(), "{more}");
        }
        let mut missing = good_journal();
        missing.pop();
        assert!(!of_journal(&missing).is_clean());
        assert!(!of_journal(&[]).is_clean());
    }

    #[test]
    fn a_status_that_lies_is_found() {
        let good = look(61, 70, (8, true), ["done", "running"]);
        let reverted = look(71, 80, (8, true), ["running", "running"]);
        assert!(!of_looks(&[good.clone(), reverted], &good_record()).is_clean());
        let too_early = look(1, 5, (7, true), ["done", "running"]);
        assert!(!of_looks(&[too_early], &good_record()).is_clean());
        let undead = look(61, 70, (7, true), ["running", "running"]);
        assert!(!of_looks(&[undead], &good_record()).is_clean());
        let alive = look(1, 2, (7, true), ["running", "running"]);
        let buried = look(3, 4, (7, false), ["running", "running"]);
        assert!(!of_looks(&[alive, buried], &good_record()).is_clean());
        let mut miscounted = good.clone();
        if let Ok(shown) = &mut miscounted.shown {
            shown.counts.insert("failed".to_owned(), 1);
        }
        assert!(!of_looks(&[miscounted], &good_record()).is_clean());
        let unreadable = Observation {
            shown: Err("exit 9".to_owned()),
            ..good
        };
        assert!(!of_looks(&[unreadable], &good_record()).is_clean());
        assert!(!of_looks(&[], &good_record()).is_clean());
    }

    #[test]
    fn a_start_after_the_task_was_shown_done_is_found() {
        let mut lines = good_record();
        let looks = [look(61, 70, (8, true), ["done", "running"])];
        assert!(of_looks(&looks, &lines).is_clean());
        lines.push(line(What::Start, 0, 71));
        assert!(!of_looks(&looks, &lines).is_clean());
    }

    #[test]
    fn a_run_after_a_durable_result_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let write = |task: usize, run: u64, status: &str| {
            let runs = format!("tasks/{}/attempts/1/runs/{run}", task_id(task));
            let run = folder.path().join(runs);
            std::fs::create_dir_all(&run).unwrap();
            let exit = json!({"v": 1, "result": {"status": status}});
            std::fs::write(run.join("exit.json"), exit.to_string()).unwrap();
        };
        write(0, 1, "ok");
        assert_eq!(
            run_again(folder.path(), &script()).len(),
            1,
            "task 1 has no result"
        );
        write(1, 2, "failed");
        write(1, 3, "ok");
        assert_eq!(run_again(folder.path(), &script()), [""; 0]);
        write(0, 4, "failed");
        assert_eq!(run_again(folder.path(), &script()).len(), 1);
    }
}
