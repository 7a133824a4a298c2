//! The supervisor is killed at its n-th system call of one kind, for every n: whatever it was about
//! to do, the next `run` goes on rightly.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::crash::record::{Record, What};
use crate::world::{World, tool};

/// Kinds of calls, as `strace` names them: a name after `?` need not exist on this machine.
pub const KINDS: [(&str, &str); 5] = [
    ("write", "write,?pwrite64,?writev,?pwritev2"),
    ("sync", "fdatasync,fsync"),
    ("rename", "?rename,?renameat,?renameat2,?unlink,?unlinkat"),
    ("fork", "?fork,?vfork,?clone,?clone3"),
    ("pidfd", "?pidfd_open,?pidfd_send_signal,?waitid"),
];
/// Tasks of the batch: two side by side, one after them.
const TASKS: [(&str, &str); 3] = [("a", ""), ("b", ""), ("c", "\n    depends_on: [a, b]")];
/// Lives that a batch may take to its end after the kill.
const LIVES_MAX: usize = 3;

/// One kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Index in [`KINDS`].
    pub kind: usize,
    /// At which call of a thread.
    pub call: usize,
}

/// Whether `strace` is there and may trace; why not.
///
/// # Errors
/// A sentence.
pub fn can_trace() -> Result<(), String> {
    let mut strace = tool("strace");
    strace.args(["-f", "-b", "execve", "-qq", "-e", "trace=none", "true"]);
    match strace.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("strace does not start: {error}")),
    }
}

/// How many calls of each kind the busiest thread of a supervisor makes in an undisturbed batch.
///
/// # Panics
/// When that batch does not end well.
pub fn calls(program: &Path) -> Vec<usize> {
    let count = |(_, names): &(&str, &str)| {
        let mut world = stage(program);
        let trace = world.path("trace");
        let output = trace.display().to_string();
        let only = format!("trace={names}");
        world.launch_by([
            "strace", "-f", "-b", "execve", "-qq", "-o", &output, "-e", &only,
        ]);
        world.supervisor(&run_words()).ok();
        busiest(&std::fs::read_to_string(trace).expect("strace wrote its output"))
    };
    KINDS.iter().map(count).collect()
}

/// Calls of the thread with the most; a call in two lines (unfinished, resumed) is one.
fn busiest(trace: &str) -> usize {
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else {
            continue;
        };
        let call = call.trim_start();
        if call.starts_with(|first: char| first.is_ascii_lowercase()) {
            *calls.entry(thread).or_default() += 1;
        }
    }
    calls.into_values().max().unwrap_or_default()
}

/// Kills the supervisor at this point, lets the batch go on, and gives what is wrong then.
///
/// # Panics
/// When the machine itself fails.
pub fn kill_at(point: Point, program: &Path) -> Vec<String> {
    let mut world = stage(program);
    let (kind, names) = KINDS[point.kind];
    let inject = format!("inject={names}:signal=KILL:when={}", point.call);
    let only = format!("trace={names}");
    world.launch_by([
        "strace",
        "-f",
        "-b",
        "execve",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &only,
        "-e",
        &inject,
    ]);
    let words = run_words();
    let killed = world.supervisor(&words);
    world.launch_by::<&str>([]);
    let mut code = killed.code;
    let mut said = killed.stderr;
    for _ in 0..LIVES_MAX {
        // 8: it is finished already, only its supervisor did not live to say so.
        if matches!(code, Some(0 | 8)) {
            break;
        }
        let ran = world.supervisor(&words);
        code = ran.code;
        said = ran.stderr;
    }
    let mut wrong = judge(&world);
    if !matches!(code, Some(0 | 8)) {
        wrong.push(format!("the batch ends with {code:?}: {said}"));
    }
    let at = |what: String| format!("killed at {kind} {}: {what}", point.call);
    wrong.into_iter().map(at).collect()
}

/// Without a guardian where there is one: it would be the one that is traced.
fn run_words() -> Vec<&'static str> {
    let mut help = tool(crate::world::programs().join("supervisor"));
    let help = help.args(["run", "--help"]).output();
    let help = help.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    match help.is_ok_and(|help| help.contains("--no-guardian")) {
        true => vec!["run", "zoo.yml", "--no-guardian"],
        false => vec!["run", "zoo.yml"],
    }
}

fn stage(program: &Path) -> World {
    let world = World::new();
    Record::new(&world.path("record"));
    std::fs::create_dir(world.path("locks")).expect("a folder for the tasks' locks");
    // Every task may end as often as it likes.
    std::fs::write(world.path("permits"), [0; 100]).expect("permits can be given");
    let paths: [PathBuf; 4] = [
        program.to_owned(),
        world.path("record"),
        world.path("locks"),
        world.path("permits"),
    ];
    let [program, record, locks, permits] =
        paths.map(|path| format!("{:?}", path.display().to_string()));
    let mut text = "version: 1\nname: zoo\nisolation: none\nconcurrency: 2\ntasks:\n".to_owned();
    for (id, more) in TASKS {
        text.push_str(&format!(
            "  - id: {id}\n    run: [{program}, task, {record}, {locks}, {permits}, {id}]{more}\n"
        ));
    }
    world.write("zoo.yml", &text);
    world
}

/// Every task is done, by one result; none ran beside itself; nothing is left.
fn judge(world: &World) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = Record::read(&world.path("record")).lines();
    for (id, _) in TASKS {
        let of = |what: What| {
            lines
                .iter()
                .filter(move |line| line.task == id && line.what == what)
        };
        if of(What::End).next().is_none() {
            wrong.push(format!("{id} never came to its end"));
        }
        if of(What::Overlap).next().is_some() {
            wrong.push(format!("{id} ran beside itself"));
        }
    }
    let done = world
        .journal()
        .iter()
        .filter(|line| ends_done(&line["record"]))
        .count();
    if done != TASKS.len() {
        wrong.push(format!("{done} tasks became done, not {}", TASKS.len()));
    }
    let verified = world.supervisor(&["verify", "zoo"]);
    if verified.code != Some(0) {
        wrong.push(format!("verify: {}{}", verified.stdout, verified.stderr));
    }
    let left = world.processes();
    if !left.is_empty() {
        wrong.push(format!("processes are left: {left:?}"));
    }
    wrong
}

fn ends_done(record: &Value) -> bool {
    record["attempt_ended"]["next"]["end"]["to"] == "done" || record["task_ended"]["to"] == "done"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_with_the_most_calls_counts_and_a_resumed_call_once() {
        let trace = "7 write(1, \"a\") = 1\n8 write(1, \"b\" <unfinished ...>\n7 write(1) = 1\n\
                     8 <... write resumed>) = 1\n7 +++ exited with 0 +++\n";
        assert_eq!(busiest(trace), 2);
    }
}
