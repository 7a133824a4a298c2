//! The house rules that a program can judge. Each message says what to do instead.

use std::fmt::Write as _;

use supervisor_tests::source::{Source, files, sources, text, words};

/// Longest file, lines outside of tests: one entity each.
const FILE_LINES_MAX: usize = 600;
/// Longest function.
const FUNCTION_LINES_MAX: usize = 90;
/// 95 of 100 functions are at most this long: a screen.
const FUNCTION_LINES_P95: usize = 45;

/// Words that say nothing about what a thing is, and what the glossary offers.
const WORDS_NOT_USED: &[(&str, &str)] = &[
    ("worker", "agent or host"),
    ("manager", "name what it does"),
    ("handler", "name what it does"),
    ("processor", "name what it does"),
    ("util", "put it beside its user"),
    ("utils", "put it beside its user"),
    ("helper", "put it beside its user"),
    ("helpers", "put it beside its user"),
    ("common", "name what is shared"),
    ("misc", "name what it holds"),
    ("job", "task"),
    ("workflow", "batch"),
];

/// Calls that signal a process, and the only files in which each may stand. A process that was written
/// down is signalled by `recorded` alone, which proves its identity first. The others signal what
/// needs no proof, because it can be nobody else: a child of ours that was not collected, what came
/// home to us or stands below it, and what a search has pinned before it read the tags.
const SIGNAL_CALLS: &[(&str, &[&str])] = &[
    ("pidfd_send_signal(", &["supervisor/src/process/pidfd.rs"]),
    (
        "pidfd::signal(",
        &[
            "supervisor/src/process/family.rs",
            "supervisor/src/process/recorded.rs",
            "supervisor/src/guardian/watch.rs",
        ],
    ),
    (
        "pidfd::kill(",
        &[
            "supervisor/src/process/family.rs",
            "supervisor/src/process/hunt.rs",
            "supervisor/src/process/orphans.rs",
            "supervisor/src/process/replace.rs",
            "supervisor/src/process/spawn.rs",
            "supervisor/src/driver/hosts.rs",
        ],
    ),
    (
        "signal_group(",
        &[
            "supervisor/src/process/hunt.rs",
            "supervisor/src/process/orphans.rs",
        ],
    ),
    (
        "kill_process_group(",
        &[
            "supervisor/src/process/orphans.rs",
            "agent-host/src/process.rs",
        ],
    ),
    (
        "kill_process(",
        &[
            // Where there is no pidfd, after the start was compared.
            "supervisor/src/process/macos.rs",
            "supervisor/src/process/orphans.rs",
            "agent-host/src/process.rs",
        ],
    ),
    (
        "child.kill(",
        &[
            "supervisor/src/process/pidfd.rs",
            "supervisor/src/process/replace.rs",
            "supervisor/src/process/spawn.rs",
        ],
    ),
    ("leaf.kill(", &["supervisor/src/process/tree.rs"]),
    ("\"cgroup.kill\"", &["supervisor/src/process/cgroup.rs"]),
    ("signal::kill(", &[]),
    ("libc::kill(", &[]),
    ("killpg(", &[]),
    (".start_kill(", &[]),
    (".kill()", &[]),
];

/// The only test files that may let time pass: they play the operator's and the task's side.
const FILES_THAT_WAIT: &[&str] = &["tests/src/clock.rs"];

/// Rooms whose tests hold at least as many lines of code as they do: the folders of the room, and
/// the folders or files of tests elsewhere that are about nothing else.
const ROOMS: &[(&str, &[&str])] = &[
    // The simulator is the core's test first of all.
    ("supervisor/core/", &["tests/src/sim", "tests/tests/sim.rs"]),
    ("supervisor/src/store/", &["supervisor/tests/store"]),
    ("protocol/", &[]),
];

/// Collects what breaks a rule, and fails with all of it.
#[derive(Default)]
struct Findings(String);

impl Findings {
    fn add(&mut self, path: &str, line: usize, what: &str) {
        writeln!(self.0, "  {path}:{line}: {what}").ok();
    }

    #[track_caller]
    fn none(self, rule: &str) {
        assert!(self.0.is_empty(), "{rule}\n{}", self.0);
    }
}

fn is_production(source: &Source) -> bool {
    source.production_lines() > 0
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let mut findings = Findings::default();
    for source in sources() {
        let first = source.text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") || first.len() < 12 {
            findings.add(&source.path, 1, "begin with `//! ` and the file's purpose");
        }
    }
    findings.none("a reader must know from the first line whether to read on");
}

#[test]
fn no_file_is_longer_than_one_entity() {
    let mut findings = Findings::default();
    for source in sources() {
        let lines = source.production_lines();
        if lines > FILE_LINES_MAX {
            let what = format!("{lines} lines outside of tests: cut it where it has two subjects");
            findings.add(&source.path, 1, &what);
        }
    }
    findings.none(&format!(
        "a file has at most {FILE_LINES_MAX} production lines"
    ));
}

#[test]
fn functions_fit_a_screen() {
    let mut findings = Findings::default();
    let mut lengths = Vec::new();
    for source in sources() {
        for function in source.functions() {
            lengths.push(function.lines);
            if function.lines > FUNCTION_LINES_MAX {
                let what = format!(
                    "{} has {} lines: give its parts names",
                    function.name, function.lines
                );
                findings.add(&source.path, function.line, &what);
            }
        }
    }
    findings.none(&format!(
        "a function has at most {FUNCTION_LINES_MAX} lines"
    ));
    lengths.sort_unstable();
    let p95 = lengths[lengths.len() * 95 / 100];
    assert!(
        p95 <= FUNCTION_LINES_P95,
        "the 95th percentile of function lengths is {p95}, the house has {FUNCTION_LINES_P95}: \
         cut the longest functions"
    );
}

#[test]
fn names_are_of_the_glossary() {
    let mut findings = Findings::default();
    for source in sources().iter().filter(|source| is_production(source)) {
        let stem = source.path.rsplit('/').next().unwrap_or_default();
        let mut names = source.definitions();
        names.push((1, stem.trim_end_matches(".rs").to_owned()));
        for (line, name) in names {
            // Plain English, not a name of a thing: no common version.
            let parts = parts_of(&name.replace("NO_COMMON_VERSION", ""));
            for (word, instead) in WORDS_NOT_USED {
                if parts.iter().any(|part| part == word) {
                    findings.add(&source.path, line, &format!("`{name}`: say {instead}"));
                }
            }
        }
    }
    findings.none("one word for one thing, and no word that says nothing");
}

/// The words of a name in snake, camel or screaming case, in lower case.
fn parts_of(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut lower_before = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && lower_before) {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| c != '_') {
            part.extend(c.to_lowercase());
        }
        lower_before = c.is_lowercase();
    }
    parts
}

#[test]
fn names_are_taken_apart() {
    assert_eq!(parts_of("WorkerPool"), ["worker", "pool"]);
    assert_eq!(parts_of("run_job_2"), ["run", "job", "2"]);
    assert_eq!(parts_of("LINE_MAX"), ["line", "max"]);
}

#[test]
fn processes_are_ended_only_where_their_identity_is_proven() {
    let mut findings = Findings::default();
    for source in sources().iter().filter(|source| is_production(source)) {
        for (number, _, line) in source.lines().filter(|(_, test, _)| !test) {
            // Whether a process is there is asked without a signal.
            let line = line.replace("test_kill_process(", "");
            let call = SIGNAL_CALLS.iter().find(|(call, _)| line.contains(call));
            if let Some((call, _)) =
                call.filter(|(_, files)| !files.contains(&source.path.as_str()))
            {
                let what = format!("`{call}`: signal it by `process::recorded`");
                findings.add(&source.path, number, &what);
            }
        }
    }
    findings.none("a signal goes to a proven identity or is refused");
}

#[test]
fn nothing_is_left_for_later() {
    // Written apart so that this file does not find itself.
    let marks = ["TO DO", "FIX ME", "XX X", "HA CK"].map(|mark| mark.replace(' ', ""));
    let mut findings = Findings::default();
    let endings = [".rs", ".sh", ".md", ".yml", ".yaml", ".toml", ".c"];
    for path in files(&endings) {
        for (at, line) in text(&path).lines().enumerate() {
            if words(line).any(|word| marks.iter().any(|mark| mark == word)) {
                findings.add(
                    &path,
                    at + 1,
                    "do it now, or open an issue and delete the line",
                );
            }
        }
    }
    findings.none("a note in the code is nobody's work");
}

#[test]
fn lints_are_lifted_with_expect() {
    let mut findings = Findings::default();
    for source in sources() {
        for (number, _, line) in source.lines() {
            if line.contains("#[allow(") || line.contains("#![allow(") {
                findings.add(&source.path, number, "use `expect` with a reason");
            }
        }
    }
    findings.none("an exception that is no longer needed must say so");
}

#[test]
fn tests_wait_for_events_and_not_for_time() {
    let mut findings = Findings::default();
    for source in sources() {
        if FILES_THAT_WAIT.contains(&source.path.as_str()) {
            continue;
        }
        for (number, test, line) in source.lines() {
            if test && (line.contains("thread::sleep") || line.contains("time::sleep(")) {
                findings.add(
                    &source.path,
                    number,
                    "use World::eventually, or virtual time",
                );
            }
        }
    }
    findings.none("a test that sleeps is slow on a good day and wrong on a bad one");
}

#[test]
fn packages_take_versions_and_lints_from_the_workspace() {
    let mut findings = Findings::default();
    let manifests = files(&["Cargo.toml"]);
    assert!(manifests.len() >= 5, "{manifests:?}");
    for path in manifests {
        let manifest = text(&path);
        // The root declares them; the fuzz target is a workspace of its own.
        if manifest.contains("[workspace]") {
            continue;
        }
        if !manifest.contains("[lints]\nworkspace = true") {
            findings.add(&path, 1, "add `[lints] workspace = true`");
        }
        let mut in_dependencies = false;
        for (at, line) in manifest.lines().enumerate() {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            } else if in_dependencies
                && line.contains('=')
                && !line.starts_with('#')
                && !line.contains("workspace = true")
            {
                findings.add(
                    &path,
                    at + 1,
                    "declare it in the root and take it from there",
                );
            }
        }
    }
    findings.none("one version of each dependency, in one place");
}

#[test]
fn rooms_that_must_not_fail_have_more_test_than_code() {
    let sources = sources();
    let mut findings = Findings::default();
    for (room, elsewhere) in ROOMS {
        let (mut production, mut test) = (0, 0);
        for source in &sources {
            let lines = source.code_lines();
            if source.path.starts_with(room) {
                production += lines.0;
                test += lines.1;
            } else if elsewhere.iter().any(|start| source.path.starts_with(start)) {
                test += lines.1;
            }
        }
        if test < production {
            let what = format!("{test} lines of tests for {production} of code: write stories");
            findings.add(room, 1, &what);
        }
    }
    findings.none("lines that hold code, comments and blank ones not counted on either side");
}

#[test]
fn every_fixture_has_its_reader() {
    let all: Vec<String> = files(&[""])
        .into_iter()
        .filter(|path| path.starts_with("tests/fixtures/"))
        .collect();
    let is_test = |source: &Source| !is_production(source);
    let tests: String = sources()
        .into_iter()
        .filter(is_test)
        .map(|source| source.text)
        .collect();
    let fixtures: String = all.iter().map(|path| text(path)).collect();
    let mut findings = Findings::default();
    for path in &all {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        // A folder that a test reads as a whole: every input has what is expected of it.
        let twin = match name.rsplit_once('.') {
            Some((stem, "expected")) => format!("{folder}/{stem}.yml"),
            Some((stem, _)) => format!("{folder}/{stem}.expected"),
            None => String::new(),
        };
        // What is said to git about the folder is not a fixture.
        if name.starts_with('.') {
            continue;
        }
        let in_pair = tests.contains(folder) && all.contains(&twin);
        if !in_pair && !tests.contains(name) && !fixtures.contains(name) {
            findings.add(
                path,
                1,
                "name it in the test or fixture that reads it, or delete it",
            );
        }
    }
    findings.none("a fixture that nothing names is read by nobody");
}

#[test]
fn stories_of_the_longer_list_say_so_in_their_names() {
    let mark = "scripts/real-agents.sh --all\"]";
    let mut findings = Findings::default();
    for source in sources() {
        if !source.path.starts_with("tests/tests/real_") {
            continue;
        }
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, pair) in lines.windows(2).enumerate() {
            if pair[0].ends_with(mark) != pair[1].starts_with("fn long_") {
                findings.add(&source.path, at + 2, pair[1]);
            }
        }
    }
    findings.none("`scripts/real-agents.sh` leaves out what begins with long_, and nothing else");
}

#[test]
fn the_changelog_is_open() {
    let changelog = text("CHANGELOG.md");
    let heading = changelog.lines().find(|line| line.starts_with("## "));
    assert_eq!(
        heading,
        Some("## [Unreleased]"),
        "what was done goes under `## [Unreleased]` first"
    );
}

#[test]
fn the_gate_is_what_the_readme_says() {
    let ci = text(".ci/run");
    let gate = "scripts/check.sh";
    assert!(
        text("README.md").contains(gate),
        "README names the test command"
    );
    let last = ci.lines().last().unwrap_or_default();
    assert_eq!(
        last,
        format!("exec {gate}"),
        "CI runs README's test command and nothing else"
    );
}
