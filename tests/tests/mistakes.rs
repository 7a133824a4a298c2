//! Every broken thing that an operator may do ends with a clear error and its exit code.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use supervisor_tests::world::{Ran, World, programs};

const GOOD: &str = "version: 1\nname: good\nisolation: none\ntasks: [{id: a, run: 'true'}]\n";
/// Waits until a file is there, so that the batch is live as long as the story needs it.
const LIVE: &str = "version: 1\nname: live\nisolation: none\ntasks:\n\
    - {id: a, run: 'until test -e go; do sleep 0.05; done'}\n";

/// A batch file that is refused: exit 3, a place, and these words.
#[track_caller]
fn refuses(world: &World, what: &str, bytes: &[u8], words: &[&str]) {
    fs::write(world.repo().join("batch.yml"), bytes).expect("the batch file");
    for command in ["validate", "run", "plan"] {
        let ran = world.supervisor(&[command]);
        let told: String = ran.stderr.chars().take(2000).collect();
        assert_eq!(ran.code, Some(3), "{what}: {command}: {told}");
        assert!(
            ran.stderr.len() < 64 * 1024,
            "{what}: {} bytes told",
            ran.stderr.len()
        );
        for word in words.iter().chain(&["batch.yml"]) {
            assert!(told.contains(word), "{what}: `{word}` is not told: {told}");
        }
    }
    assert!(world.batch_dir().is_none(), "{what}: nothing was begun");
}

#[test]
fn broken_bytes_and_bombs_are_refused_by_place() {
    let world = World::new();
    refuses(&world, "nothing", b"", &[]);
    refuses(&world, "blanks", b" \n\n", &[]);
    refuses(&world, "a NUL", b"version: 1\nname: a\0b\n", &["2:"]);
    refuses(&world, "only NULs", &[0; 4096], &[]);
    refuses(
        &world,
        "not UTF-8",
        b"version: 1\nname: \xff\xfe\n",
        &["2:", "UTF-8"],
    );
    refuses(
        &world,
        "UTF-16",
        b"\xff\xfev\0e\0r\0s\0i\0o\0n\0",
        &["UTF-8"],
    );
    refuses(&world, "a tab", b"version: 1\ntasks:\n\t- id: a\n", &["3:"]);
    refuses(&world, "an object file", b"\x7fELF\x02\x01\x01\0\0\0", &[]);
    let mut deep = b"version: 1\ntasks: ".to_vec();
    deep.extend([b'['; 200_000]);
    refuses(&world, "deep lists", &deep, &["2:"]);
    let deep = format!(
        "version: 1\nvars: {}1{}\n",
        "{a: ".repeat(50_000),
        "}".repeat(50_000)
    );
    refuses(&world, "deep maps", deep.as_bytes(), &["2:"]);
    let mut deep = "version: 1\nvars:\n".to_owned();
    for depth in 1..3_000 {
        writeln!(deep, "{}a:", " ".repeat(depth)).expect("a text grows");
    }
    refuses(&world, "deep blocks", deep.as_bytes(), &[]);
    let mut bomb = "version: 1\nvars:\n  a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(9);
        let below = below.trim_end_matches(", ");
        writeln!(bomb, "  a{level}: &a{level} [{below}]").expect("a text grows");
    }
    bomb.push_str("tasks: [{id: a, run: 'true'}]\nisolation: none\n");
    refuses(&world, "an alias bomb", bomb.as_bytes(), &["alias"]);
    refuses(&world, "a loop", b"version: 1\nvars: &a {b: *a}\n", &["2:"]);
}

#[test]
fn a_batch_file_over_the_limit_is_refused_before_it_is_read() {
    let world = World::new();
    let file = fs::File::create(world.repo().join("batch.yml")).expect("the batch file");
    file.set_len((64 << 20) + 1).expect("a length");
    let ran = world.supervisor(&["run"]).exits(3);
    assert!(ran.stderr.contains("64 MiB"), "{}", ran.stderr);
    let line = "yes '# more and more' | head -c 70000000";
    let bin = world.command(&["run", "-"]);
    let program = Path::new(bin.get_program()).display().to_string();
    let ran = world.shell(&format!("{line} | '{program}' run -")).exits(3);
    assert!(ran.stderr.contains("64 MiB"), "{}", ran.stderr);
    for other in ["/dev/zero", "."] {
        let Ran { code, stderr, .. } = world.supervisor(&["run", other]);
        assert!(matches!(code, Some(3 | 10)), "{other}: {code:?}: {stderr}");
    }
}

#[test]
fn line_ends_and_marks_of_other_editors_are_read() {
    let world = World::new();
    let crlf = GOOD.replace('\n', "\r\n");
    let bom = format!("\u{feff}{GOOD}");
    for (name, text) in [("crlf", crlf), ("bom", bom)] {
        let text = text.replace("good", name);
        fs::write(world.repo().join("batch.yml"), &text).expect("the batch file");
        world.supervisor(&["run"]).ok();
    }
    let text = GOOD.replace("good", "stdin").replace("tasks", "# é\ntasks");
    world.supervisor_with_stdin(&["run", "-"], &text).ok();
    let again = world.supervisor_with_stdin(&["run", "-"], &text).exits(8);
    assert!(again.stderr.contains("--new"), "{}", again.stderr);
    world.supervisor_with_stdin(&["run", "-"], "").exits(3);
}

fn started(world: &World) -> Option<()> {
    let journal = world.journal();
    let is_start = |line: &Value| line["record"].get("run_started").is_some();
    journal.iter().any(is_start).then_some(())
}

#[test]
fn a_batch_file_that_is_gone_or_unreadable_is_named() {
    let world = World::new();
    for command in ["run", "validate", "plan"] {
        let ran = world.supervisor(&[command]);
        assert!(
            matches!(ran.code, Some(3 | 6 | 10)),
            "{command}: {:?}",
            ran.code
        );
        assert!(ran.stderr.contains("batch.yml"), "{}", ran.stderr);
        world
            .supervisor(&[command, "folder/other.yml"])
            .exits(ran.code.unwrap_or(-1));
    }
    // Interrupted, then its file vanishes: the other commands go on without it.
    let path = world.write("batch.yml", LIVE);
    let live = world.start("run", &["run", "--no-guardian"]);
    world.eventually("the task runs", started);
    let second = world.supervisor(&["run"]).exits(8);
    let pid = live.pid().to_string();
    assert!(
        second.stderr.contains(&pid),
        "the pid is named: {}",
        second.stderr
    );
    live.signal(Signal::SIGTERM);
    live.signal(Signal::SIGTERM);
    live.end(&world);
    fs::remove_file(&path).expect("the batch file");
    let gone = world.supervisor(&["run"]);
    assert_ne!(gone.code, Some(0));
    assert!(gone.stderr.contains("batch.yml"), "{}", gone.stderr);
    for command in [
        &["status"][..],
        &["explain", "a"],
        &["logs", "a"],
        &["verify"],
    ] {
        world.supervisor(command).ok();
    }
    world.write("go", "");
    world.write("batch.yml", LIVE);
    world.supervisor(&["run"]).ok();
    world.assert_nothing_left();
}

#[test]
fn two_that_run_the_same_file_at_once_are_one_batch() {
    let world = World::new();
    world.write("batch.yml", LIVE);
    let started: Vec<_> = (0..4)
        .map(|n| world.start(&format!("run-{n}"), &["run"]))
        .collect();
    world.eventually("all but one are refused", |world| {
        let told = |n| fs::read_to_string(world.path(format!("run-{n}.err"))).unwrap_or_default();
        let refused = (0..4)
            .filter(|n| told(*n).contains("live supervisor"))
            .count();
        (refused == 3).then_some(())
    });
    world.write("go", "");
    let mut codes: Vec<Option<i32>> = started.into_iter().map(|run| run.end(&world)).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(8), Some(8), Some(8)]);
    let batches = fs::read_dir(world.state().join("batches")).expect("the batches");
    assert_eq!(batches.count(), 1);
    world.assert_nothing_left();
}

#[test]
fn outside_of_a_repository_a_batch_runs_all_the_same() {
    let world = World::new();
    fs::remove_dir_all(world.repo().join(".git")).expect("the repository");
    world.write("batch.yml", &GOOD.replace("isolation: none\n", ""));
    world.supervisor(&["run"]).ok();
    assert_eq!(world.status()["batch"]["state"], "done");
}

#[test]
fn state_that_has_no_place_is_an_error_of_the_environment() {
    let world = World::new();
    world.write("batch.yml", GOOD);
    fs::write(world.path("file"), "not a folder").expect("a file");
    let places = [
        world.path("file"),
        world.path("file/below"),
        "/proc/none".into(),
    ];
    for place in places {
        let mut run = world.command(&["run"]);
        let output = run
            .env("XDG_STATE_HOME", &place)
            .output()
            .expect("it starts");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(10),
            "{}: {told}",
            place.display()
        );
        let named = place.to_string_lossy().into_owned();
        assert!(told.contains(&named), "{named} is not named: {told}");
    }
    // Unset it is below HOME; without a HOME there is no place, and that is said.
    let mut run = world.command(&["run"]);
    let output = run
        .env_remove("XDG_STATE_HOME")
        .output()
        .expect("it starts");
    assert_eq!(output.status.code(), Some(0));
    assert!(world.path("home/.local/state/supervisor/batches").is_dir());
    let mut run = world.command(&["run"]);
    let output = run
        .env_remove("XDG_STATE_HOME")
        .env_remove("HOME")
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(10), "{told}");
    assert!(told.contains("XDG_STATE_HOME"), "{told}");
}

/// A batch whose supervisor was killed; it needs nothing more to be done.
fn interrupted() -> World {
    let world = World::new();
    world.write("batch.yml", LIVE);
    let live = world.start("run", &["run", "--no-guardian"]);
    world.eventually("the task runs", started);
    live.kill();
    world.write("go", "");
    world
}

/// `supervisor` as somebody for whom file modes hold: not as root, who writes everywhere.
fn bound_by_modes(world: &World, args: &str) -> Ran {
    let program = programs().join("supervisor");
    let may_all = nix::unistd::geteuid().is_root();
    let without = if may_all {
        "setpriv --bounding-set=-all "
    } else {
        ""
    };
    world.shell(&format!("{without}'{}' {args}", program.display()))
}

#[test]
fn a_state_dir_that_can_not_be_written_is_told_and_kept() {
    let world = interrupted();
    let dir = world.batch_dir().expect("there is a batch");
    let lock = |mode: u32| {
        let folders = [dir.join("journal"), dir.join("inbox"), dir.clone()];
        let files = [dir.join("journal/000001.jsonl"), dir.join("lock")];
        for (path, mode) in folders
            .map(|path| (path, mode))
            .into_iter()
            .chain(files.map(|path| (path, mode & 0o666)))
        {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
        }
    };
    let journal = world.journal();
    lock(0o500);
    let acting = ["run", "steer a hello"].map(|args| bound_by_modes(&world, args));
    let reading = ["status", "explain a", "verify"].map(|args| bound_by_modes(&world, args));
    lock(0o700);
    for ran in acting {
        assert_eq!(ran.code, Some(10), "{}{}", ran.stdout, ran.stderr);
        let named = dir.display().to_string();
        assert!(ran.stderr.contains(&named), "{}", ran.stderr);
    }
    for ran in reading {
        ran.ok();
    }
    assert_eq!(world.journal(), journal);
    world.supervisor(&["run"]).ok();
}

#[test]
fn a_state_dir_that_is_gone_is_not_an_empty_one() {
    let world = interrupted();
    let dir = world.batch_dir().expect("there is a batch");
    let aside = world.path("aside");
    fs::rename(&dir, &aside).expect("the batch's folder");
    let gone = world.supervisor(&["run"]).exits(9);
    assert!(
        gone.stderr.contains(&dir.display().to_string()),
        "{}",
        gone.stderr
    );
    assert!(gone.stderr.contains("--new"), "{}", gone.stderr);
    assert!(!dir.exists(), "a batch that is gone is not begun again");
    fs::rename(&aside, &dir).expect("the batch's folder");
    world.supervisor(&["run"]).ok();
}
