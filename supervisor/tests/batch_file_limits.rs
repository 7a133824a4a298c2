//! Large and hostile batch files: what they cost, and where they are refused.

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;
use supervisor::batch_file::error::Report;
use supervisor::batch_file::{BatchFile, Request, Source, read};

const HEAD: &str = "version: 1\nisolation: none\n";

fn read_text(folder: &Path, text: &[u8]) -> Result<BatchFile, Report> {
    let source = Source::Text {
        name: "<stdin>",
        bytes: text,
    };
    read(&Request {
        source,
        current_dir: folder,
        user_config: None,
        set: &[],
    })
}

/// Resident memory of this process, KiB.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_file_of_100_000_tasks_is_normal_input() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = format!("{HEAD}tasks:\n");
    for number in 0..100_000 {
        writeln!(text, "  - id: task-{number}\n    run: \"true\"").unwrap();
        if number > 0 {
            writeln!(text, "    depends_on: [task-{}]", number / 2).unwrap();
        }
    }
    let batch = read_text(folder.path(), text.as_bytes()).unwrap();
    assert_eq!(batch.plan.tasks.len(), 100_000);
    assert_eq!(batch.plan.tasks[99_999].depends_on[0].task.0, 49_999);
}

#[test]
fn a_foreach_of_100_000_items_shares_one_spec_and_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let items: String = (0..100_000)
        .map(|number| format!("file-{number}.txt\n"))
        .collect();
    std::fs::write(folder.path().join("items.txt"), items).unwrap();
    let text = format!(
        "{HEAD}tasks:\n  - id: \"t-{{{{ item | slug }}}}\"\n    foreach: {{file: items.txt}}\n    \
         run: \"echo {{{{ item | quote }}}}\"\n  - id: last\n    run: \"true\"\n    \
         depends_on: [\"t-*\"]\n"
    );
    let before = resident_kib();
    let batch = read_text(folder.path(), text.as_bytes()).unwrap();
    let grown = resident_kib().saturating_sub(before);
    assert_eq!(batch.plan.specs.len(), 2);
    assert_eq!(batch.plan.tasks.len(), 100_001);
    assert_eq!(batch.plan.tasks[100_000].depends_on.len(), 100_000);
    // 4 KiB a task is the limit of the whole supervisor; the plan may take a quarter of it. Other
    // tests of this file run beside this one, so the figure is an upper bound.
    assert!(grown < 300_000, "{grown} KiB for 100,000 tasks");
}

#[test]
fn a_glob_for_each_of_many_tasks_does_not_look_at_every_id() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = format!("{HEAD}tasks:\n");
    for number in 0..5_000 {
        writeln!(text, "  - id: a-{number}-x\n    run: \"true\"").unwrap();
        writeln!(text, "  - id: b-{number}\n    run: \"true\"").unwrap();
        writeln!(text, "    depends_on: [\"a-{number}-*\"]").unwrap();
    }
    let batch = read_text(folder.path(), text.as_bytes()).unwrap();
    assert!(
        batch
            .plan
            .tasks
            .iter()
            .skip(1)
            .step_by(2)
            .all(|task| task.depends_on.len() == 1)
    );
}

#[test]
fn too_many_dependencies_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let items: String = (0..8_000).map(|number| format!("{number}\n")).collect();
    std::fs::write(folder.path().join("items.txt"), items).unwrap();
    let group = |name: &str, rest: &str| {
        format!(
            "  - id: \"{name}-{{{{ item }}}}\"\n    foreach: {{file: items.txt}}\n    \
             run: \"true\"\n{rest}"
        )
    };
    let first = group("a", "");
    let second = group("b", "    depends_on: [\"a-*\"]\n");
    let text = format!("{HEAD}tasks:\n{first}{second}");
    let report = read_text(folder.path(), text.as_bytes()).unwrap_err();
    assert_eq!(report.problems.len(), 1, "{report}");
    assert!(
        report.problems[0].message.contains("10000000 dependencies"),
        "{report}"
    );
}

#[test]
fn a_file_over_the_limit_is_refused_by_size() {
    let folder = tempfile::tempdir().unwrap();
    let text = vec![b'#'; (64 << 20) + 1];
    let report = read_text(folder.path(), &text).unwrap_err();
    assert!(
        report.to_string().contains("larger than 64 MiB"),
        "{report}"
    );
}

#[test]
fn thousands_of_mistakes_are_counted_and_the_first_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = format!("{HEAD}tasks:\n");
    for number in 0..3_000 {
        writeln!(
            text,
            "  - id: t{number}\n    run: \"true\"\n    timeout: soon"
        )
        .unwrap();
    }
    let report = read_text(folder.path(), text.as_bytes()).unwrap_err();
    assert_eq!((report.problems.len(), report.dropped), (1_000, 2_000));
    assert!(
        report
            .to_string()
            .ends_with("3000 mistakes, the first 1000 are shown; nothing was started\n")
    );
}

#[test]
fn deep_and_wide_nonsense_is_refused_quickly() {
    let folder = tempfile::tempdir().unwrap();
    for text in [
        "[".repeat(1 << 20),
        "{a: ".repeat(1 << 18),
        "- ".repeat(1 << 18),
        "? ".repeat(1 << 18),
        format!("a: {}", "*x ".repeat(1 << 16)),
        format!("x: \"{}", "{{".repeat(1 << 16)),
    ] {
        assert!(read_text(folder.path(), text.as_bytes()).is_err());
    }
}

/// Pieces that batch files are made of, so that random files get past the first line.
fn pieces() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "version: 1\n",
        "isolation: none\n",
        "tasks:\n",
        "  - id: ",
        "a",
        "b-{{ item }}",
        "\n",
        "    run: ",
        "    prompt: |\n      - say: hi\n",
        "    agent: scripted\n",
        "true",
        "[",
        "]",
        "{",
        "}",
        "&x ",
        "*x ",
        "<<: ",
        "{{ vars.x }}",
        "{% if %}",
        "\"",
        "'",
        ": ",
        "- ",
        "#",
        "    foreach: {items: [1, 2]}\n",
        "    depends_on: [a, \"*\"]\n",
        "vars: {x: 1}\n",
        "\t",
        "    touches: [\"**\"]\n",
        "    verify: [\"true\"]\n",
        "é",
        "\u{1F600}",
        "| ",
        "> ",
        "!!str ",
        "agents:\n",
        "  c: {kind: command, command: [x]}\n",
        "---\n",
        "...\n",
        "\r\n",
        "%YAML 1.2\n",
    ]);
    prop::collection::vec(words, 0..40).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let folder = std::env::temp_dir();
        if let Err(report) = read_text(&folder, &bytes) {
            prop_assert!(report.to_string().contains("nothing was started"));
        }
    }

    #[test]
    fn no_pieces_panic_and_every_mistake_has_a_place(text in pieces()) {
        let folder = std::env::temp_dir();
        let all = format!("{HEAD}{text}");
        for text in [&text, &all] {
            if let Err(report) = read_text(&folder, text.as_bytes()) {
                prop_assert!(!report.problems.is_empty());
                prop_assert!(report.problems.iter().all(|problem| !problem.help.is_empty()));
            }
        }
    }
}
