//! Twenty tasks in worktrees of one repository: dependencies, five that change one file in different
//! places, and two pairs that change the same line.

#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::fmt::Write as _;

/// How a task's work is done.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// A command line of the task's own.
    Run(&'static str),
    /// A program as an agent, which gets the command line as its prompt.
    Command(&'static str),
    /// Further steps of the embedded agent, as YAML.
    Scripted(&'static str),
}

/// One task.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Its id.
    pub id: &'static str,
    /// What must be merged before it begins.
    pub needs: &'static [&'static str],
    /// What it does, beside writing `done/ID.txt`.
    pub act: Act,
    /// Further keys.
    pub keys: &'static str,
}

const fn work(id: &'static str, needs: &'static [&'static str], act: Act) -> Work {
    let keys = "";
    Work {
        id,
        needs,
        act,
        keys,
    }
}

const fn keyed(work: Work, keys: &'static str) -> Work {
    Work { keys, ..work }
}

/// The five that change one file in different places.
const SHARED: [&str; 5] = ["shared-1", "shared-2", "shared-3", "shared-4", "shared-5"];

/// Fails the first time and begins anew: what it left by then is salvaged.
const REMOVE: &str = ", {run: rm -f src/doomed.txt}, {on_attempt: {1: [{write: {path: half.log, text: \
     half}}, {fail: {class: agent_failed, message: not this time}}], other: [{say: again}]}}";

/// The twenty tasks; each may be done twice in one worktree, as when its first agent was lost.
pub const TASKS: [Work; 20] = [
    keyed(
        work("spec", &[], Act::Run("echo '{\"api\": 1}' > openapi.json")),
        ", outputs: [openapi.json]",
    ),
    work("lexer", &["spec"], Act::Scripted("")),
    keyed(
        work(
            "parser",
            &["spec"],
            Act::Command("echo parsed > src/parser.txt"),
        ),
        ", verify: ['test -f src/parser.txt', [test, -f, vendor/lib.txt]]",
    ),
    work(
        "printer",
        &["spec"],
        Act::Scripted(", {write: {path: src/unit-05.txt, text: \"printed\\n\"}}"),
    ),
    work(
        SHARED[0],
        &[],
        Act::Run("sed -i 's/^line 50$/line 50 by shared-1/' src/shared.txt"),
    ),
    work(
        SHARED[1],
        &[],
        Act::Run("sed -i 's/^line 150$/line 150 by shared-2/' src/shared.txt"),
    ),
    work(
        SHARED[2],
        &[],
        Act::Command("sed -i 's/^line 250$/line 250 by shared-3/' src/shared.txt"),
    ),
    work(
        SHARED[3],
        &[],
        Act::Run("sed -i 's/^line 350$/line 350 by shared-4/' src/shared.txt"),
    ),
    work(
        SHARED[4],
        &[],
        Act::Command("sed -i 's/^line 450$/line 450 by shared-5/' src/shared.txt"),
    ),
    work("left", &[], Act::Run("echo left > src/pair.txt")),
    work("right", &[], Act::Command("echo right > src/pair.txt")),
    work(
        "east",
        &[],
        Act::Scripted(", {write: {path: src/compass.txt, text: \"east\\n\"}}"),
    ),
    work("west", &[], Act::Run("echo west > src/compass.txt")),
    work(
        "binary",
        &[],
        Act::Run("head -c 20000 /dev/zero | tr '\\0' '\\377' > logo.bin"),
    ),
    work(
        "tool",
        &[],
        Act::Run("printf '#!/bin/sh\\necho tool\\n' > tool && chmod +x tool"),
    ),
    work("link", &[], Act::Command("ln -sfn src/unit-01.txt latest")),
    work(
        "rename",
        &[],
        Act::Run("test -e src/new-name.txt || mv src/old-name.txt src/new-name.txt"),
    ),
    keyed(
        work("remove", &[], Act::Scripted(REMOVE)),
        ", attempts: 3, retry: {backoff: 1s, by_class: {agent_failed: fresh}}",
    ),
    keyed(
        work(
            "docs",
            &["spec", "lexer", "parser"],
            Act::Run("cp \"$SPEC\" docs.txt"),
        ),
        ", env: {SPEC: '{{ deps[\"spec\"].outputs[\"openapi.json\"] }}'}",
    ),
    work(
        "pack",
        &["docs", "printer"],
        Act::Run("cat done/docs.txt done/printer.txt > packed.txt"),
    ),
];

/// What a batch file of the twenty tasks says beside them.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Its name.
    pub name: &'a str,
    /// Live attempts at most.
    pub concurrency: usize,
    /// Which worktrees stay: a word of the batch file.
    pub keep: &'a str,
}

/// The batch file.
///
/// # Panics
/// Never: a text can be written to.
pub fn file(rules: Rules<'_>) -> String {
    let Rules {
        name,
        concurrency,
        keep,
    } = rules;
    let mut text = format!(
        "version: 1\nname: {name}\nconcurrency: {concurrency}\nworktrees: {{keep: {keep}}}\n\
         merge: {{verify: [./check], on_conflict: agent, agent: resolver, prompt: resolve it}}\n\
         agents:\n\
         \x20 shell: {{kind: command, command: [sh, -c]}}\n\
         \x20 resolver: {{kind: command, command: [sh, -c, ./resolve]}}\n\
         tasks:\n"
    );
    for task in TASKS {
        let id = task.id;
        let note = format!("mkdir -p done && echo {id} > done/{id}.txt");
        let line = |line: &str| serde_json::Value::from(format!("{note} && {line}")).to_string();
        let act = match task.act {
            Act::Run(act) => format!("run: {}", line(act)),
            Act::Command(act) => format!("agent: shell, prompt: {}", line(act)),
            Act::Scripted(steps) => {
                let script =
                    format!("[{{write: {{path: done/{id}.txt, text: \"{id}\\n\"}}}}{steps}]");
                let script = serde_json::Value::from(script).to_string();
                format!("agent: scripted, prompt: {script}")
            }
        };
        let needs = match task.needs {
            [] => String::new(),
            needs => format!(", depends_on: {}", serde_json::json!(needs)),
        };
        let keys = task.keys;
        writeln!(text, "  - {{id: {id}, {act}{needs}{keys}}}").expect("a text grows");
    }
    text
}

/// The needs of each task, a line each, as the check in the repository reads them.
pub fn needs() -> String {
    let lines = TASKS.map(|task| format!("{} {}\n", task.id, task.needs.join(" ")));
    lines.concat()
}
