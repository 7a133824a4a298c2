//! README keeps its word: every command in it is executed here or is named with who executes it,
//! and every batch file in it is valid.

use std::path::Path;

use supervisor_tests::source::{root, text};
use supervisor_tests::world::{Ran, World, programs};

/// Who executes a command of README.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// The quickstart story below.
    Quickstart,
    /// The install story below.
    Install,
    /// Whoever runs this test: the gate.
    Gate,
    /// The quickstart story, in the repository that it made.
    Tour,
}

/// Every command in README's `sh` blocks.
const EXECUTED: &[(&str, By)] = &[
    ("scripts/quickstart.sh", By::Quickstart),
    ("scripts/check.sh", By::Gate),
    ("scripts/install.sh", By::Install),
    ("supervisor status", By::Tour),
    ("supervisor list", By::Tour),
    ("supervisor ps", By::Tour),
    ("supervisor explain greet", By::Tour),
    ("supervisor logs greet", By::Tour),
    ("supervisor verify", By::Tour),
];

/// A fenced block: its language and its lines.
#[derive(Debug)]
struct Block {
    language: String,
    content: String,
}

fn blocks() -> Vec<Block> {
    let readme = text("README.md");
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in readme.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(""), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                let (language, content) = (language.to_owned(), String::new());
                open = Some(Block { language, content });
            }
            (Some(_), Some(_)) => panic!("a block is not closed before `{line}`"),
            (None, Some(block)) => {
                block.content.push_str(line);
                block.content.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "the last block is not closed");
    blocks
}

fn of_language(language: &str) -> Vec<String> {
    let blocks = blocks().into_iter();
    let found: Vec<String> = blocks
        .filter(|block| block.language == language)
        .map(|block| block.content)
        .collect();
    assert!(!found.is_empty(), "README has `{language}` blocks");
    found
}

fn commands() -> Vec<String> {
    let lines: Vec<String> = of_language("sh")
        .iter()
        .flat_map(|block| block.lines())
        .map(str::to_owned)
        .collect();
    lines
        .into_iter()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

#[test]
fn every_block_is_of_a_known_language() {
    for block in blocks() {
        let known = ["sh", "yaml", "text"].contains(&block.language.as_str());
        assert!(known, "`{}`: say who executes it, here", block.language);
    }
}

#[test]
fn every_command_has_somebody_who_executes_it() {
    let listed: Vec<&str> = EXECUTED.iter().map(|(command, _)| *command).collect();
    assert_eq!(
        commands(),
        listed,
        "README's commands in their order, and the list above"
    );
}

#[test]
fn the_first_command_and_the_second_are_the_promised_ones() {
    assert_eq!(
        commands()[..2],
        ["scripts/quickstart.sh", "scripts/check.sh"]
    );
}

#[test]
fn every_batch_file_is_valid() {
    let world = World::new();
    for batch in of_language("yaml") {
        let ran = world.supervisor_with_stdin(&["validate", "-"], &batch);
        assert_eq!(ran.code, Some(0), "{batch}\n{}", ran.stderr);
    }
}

/// Runs a command line as an operator would, with the built programs on the PATH.
fn shell(world: &World, folder: &Path, line: &str) -> Ran {
    let bin = programs();
    let (bin, folder) = (bin.display(), folder.display());
    let line = format!("cd '{folder}' && PATH='{bin}':$PATH SUPERVISOR_BIN='{bin}' {line}");
    world.shell(&line)
}

#[test]
fn the_quickstart_and_the_tour_do_what_they_say() {
    let world = World::new();
    let folder = world.path("quickstart");
    let quickstart = format!("scripts/quickstart.sh '{}'", folder.display());
    let ran = shell(&world, &root(), &quickstart).ok();
    let shown = ["where everything is", "repository", "journal"];
    for part in shown {
        assert!(
            ran.stdout.contains(part),
            "{part} is not in\n{}",
            ran.stdout
        );
    }
    let repo = folder.join("repo");
    let status = shell(&world, &repo, "supervisor status --json").ok().json();
    assert_eq!(status["batch"]["state"], "done", "{status}");
    let seen = status["tasks"].as_array().expect("tasks are a list");
    assert!(
        seen.iter().any(|task| task["attempt"].as_u64() > Some(1)),
        "one was repaired"
    );
    for (command, _) in EXECUTED.iter().filter(|(_, by)| *by == By::Tour) {
        let ran = shell(&world, &repo, command).ok();
        assert!(!ran.stdout.trim().is_empty(), "`{command}` says nothing");
    }
    // A second time in the same folder touches nothing and goes as well.
    shell(&world, &root(), &quickstart).ok();
    assert!(folder.join("repo-2/batch.yml").is_file());
    world.assert_nothing_left();
}

#[test]
fn both_programs_are_installed_as_a_pair_or_not_at_all() {
    let world = World::new();
    let install = format!("scripts/install.sh '{}'", world.path("home/bin").display());
    for _ in 0..2 {
        shell(&world, &root(), &install).ok();
    }
    let version = |program: &str| {
        let ran = shell(&world, &world.repo(), &format!("~/bin/{program} --version")).ok();
        ran.stdout.split_whitespace().nth(1).map(str::to_owned)
    };
    assert_eq!(version("supervisor"), version("agent-host"));
    let pairs = || {
        let folder = world.path("home/lib/supervisor");
        let entries = std::fs::read_dir(folder).expect("the pairs have a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = names
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let installed = pairs();
    assert_eq!(
        installed.len(),
        2,
        "one pair and the link to it: {installed:?}"
    );

    // A host of another release: refused, and what was installed still is.
    let skewed = world.path("skewed");
    std::fs::create_dir(&skewed).expect("a folder");
    std::fs::copy(programs().join("supervisor"), skewed.join("supervisor")).expect("a copy");
    world
        .shell("printf '#!/bin/sh\\necho agent-host 9.9.9\\n' > ../skewed/agent-host")
        .ok();
    world.shell("chmod +x ../skewed/agent-host").ok();
    let line = format!("SUPERVISOR_BIN='{}' {install}", skewed.display());
    let refused = world
        .shell(&format!("cd '{}' && {line}", root().display()))
        .exits(1);
    assert!(
        refused.stderr.contains("agent-host is 9.9.9"),
        "{}",
        refused.stderr
    );
    assert_eq!(pairs(), installed);
}
