//! Stories of the guardian with the real programs: it and its supervisor are killed, stopped,
//! signalled and left alone, in every combination an operator or a machine can bring about.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::Pid;
use serde_json::Value;
use supervisor_tests::world::{Started, World, tool};

/// Two tasks that end once the file `go` is there, and one behind them.
const BATCH: &str = "version: 1
name: guarded
isolation: none
concurrency: 2
tasks:
  - id: first
    run: \"echo begin >> began; while ! test -e go; do sleep 0.05; done\"
  - id: second
    run: \"while ! test -e go; do sleep 0.05; done\"
  - id: last
    run: \"true\"
    depends_on: [first, second]
";

fn world() -> World {
    let world = World::new();
    world.write("batch.yml", BATCH);
    world
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

fn status(world: &World) -> Option<Value> {
    let ran = world.supervisor(&["status", "--json"]);
    (ran.code == Some(0)).then(|| ran.json())
}

/// The supervisor that works on the batch, once both its tasks run.
fn working(world: &World) -> u32 {
    world.eventually("a supervisor works on two tasks", |world| {
        let status = status(world)?;
        let batch = &status["batch"];
        let works = batch["supervisor"]["alive"] == true && batch["counts"]["running"] == 2;
        works.then(|| u32::try_from(batch["supervisor"]["pid"].as_u64().unwrap()).unwrap())
    })
}

/// The next supervisor that has the batch.
fn other_than(world: &World, before: u32) -> u32 {
    world.eventually("another supervisor has the batch", |world| {
        let text = std::fs::read_to_string(world.batch_dir()?.join("lock")).ok()?;
        let holder: Value = serde_json::from_str(&text).ok()?;
        let found = u32::try_from(holder["pid"].as_u64()?).ok()?;
        (found != before).then_some(found)
    })
}

fn go(world: &World) {
    world.write("go", "");
}

/// Every start of a supervisor in the journal: its pid, and its guardian's.
fn starts(world: &World) -> Vec<(u64, Option<u64>)> {
    let journal = world.journal();
    let records = journal.iter().filter_map(|line| {
        let started = line["record"].get("supervisor_started")?;
        let guardian = started["guardian"]["pid"].as_u64();
        Some((started["identity"]["pid"].as_u64()?, guardian))
    });
    records.collect()
}

/// Direct children of a process, also those that only wait to be collected.
fn children(of: u32) -> Vec<u32> {
    let path = format!("/proc/{of}/task/{of}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_ascii_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect()
}

fn assert_done(world: &World) {
    let status = world.status();
    assert_eq!(status["batch"]["state"], "done", "{status}");
    assert_eq!(status["batch"]["counts"]["done"], 3, "{status}");
    world.assert_nothing_left();
}

#[test]
fn a_killed_supervisor_is_started_again_and_the_batch_ends_without_an_operator() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    let first = working(&world);
    assert_eq!(children(guardian.pid()), [first]);
    kill(pid(first), Signal::SIGKILL).unwrap();
    other_than(&world, first);
    let second = working(&world);
    assert_eq!(
        children(guardian.pid()),
        [second],
        "no exit is left uncollected"
    );
    let number = guardian.pid();
    go(&world);
    assert_eq!(guardian.end(&world), Some(0), "{}", world.printed("run"));
    assert_done(&world);
    let guarded = Some(u64::from(number));
    let both = [(u64::from(first), guarded), (u64::from(second), guarded)];
    assert_eq!(starts(&world), both);
    let said = format!("supervisor pid {first} died (SIGKILL); start 1 of at most 5");
    assert!(
        world.printed("run").contains(&said),
        "{}",
        world.printed("run")
    );
}

#[test]
fn a_supervisor_in_the_background_is_started_again() {
    let world = world();
    world.supervisor(&["run", "--detach"]).ok();
    let first = working(&world);
    kill(pid(first), Signal::SIGKILL).unwrap();
    other_than(&world, first);
    working(&world);
    go(&world);
    world.eventually("the batch is done", |world| {
        (status(world)?["batch"]["state"] == "done").then_some(())
    });
    assert_done(&world);
}

#[test]
fn status_and_ps_show_the_guardian_as_the_owner() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    let supervisor = working(&world);
    let shown = world.status();
    assert_eq!(shown["batch"]["guardian"]["pid"], guardian.pid());
    assert_eq!(shown["batch"]["guardian"]["alive"], true);
    let processes = world.supervisor(&["ps", "--json"]).ok().json();
    let row = |role: &str| {
        let rows = processes.as_array().unwrap().iter();
        rows.filter(|row| row["role"] == role).collect::<Vec<_>>()
    };
    assert_eq!(row("guardian").len(), 1, "{processes}");
    assert_eq!(row("guardian")[0]["pid"], guardian.pid());
    assert_eq!(row("guardian")[0]["state"], "live");
    assert_eq!(row("supervisor")[0]["owner_pid"], guardian.pid());
    assert!(
        row("host")
            .iter()
            .all(|host| host["owner_pid"] == supervisor)
    );
    go(&world);
    assert_eq!(guardian.end(&world), Some(0));
}

#[test]
fn a_supervisor_that_dies_again_and_again_is_given_up_and_nothing_of_it_is_left() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    let mut supervisor = working(&world);
    for death in 1..=6 {
        kill(pid(supervisor), Signal::SIGKILL).unwrap();
        if death < 6 {
            supervisor = other_than(&world, supervisor);
        }
    }
    assert_eq!(guardian.end(&world), Some(71), "{}", world.printed("run"));
    world.assert_nothing_left();
    assert!(world.printed("run").contains("giving up"));
    go(&world);
    world.supervisor(&["run"]).ok();
    assert_done(&world);
}

#[test]
fn what_ignores_its_end_does_not_outlive_the_restart() {
    let world = World::new();
    world.write(
        "batch.yml",
        "version: 1\nname: stray\nisolation: none\ntasks:\n  - id: stray\n    run: |\n      \
         trap '' TERM HUP\n      setsid sh -c 'trap \"\" TERM HUP; echo $$ >> strays; sleep 1000' &\n      \
         while ! test -e go; do sleep 0.05; done\n",
    );
    let guardian = world.start("run", &["run", "--json"]);
    let stray = |world: &World, number: usize| {
        world.eventually("the task has left a process", |world| {
            let text = world.read("strays");
            text.lines()
                .nth(number)
                .and_then(|pid| pid.parse::<i32>().ok())
        })
    };
    let first = stray(&world, 0);
    let supervisor = world.eventually("a supervisor", |world| {
        status(world)?["batch"]["supervisor"]["pid"].as_u64()
    });
    kill(pid(u32::try_from(supervisor).unwrap()), Signal::SIGKILL).unwrap();
    stray(&world, 1);
    assert!(
        kill(Pid::from_raw(first), None).is_err(),
        "it was ended before the restart"
    );
    world.supervisor(&["kill", "stray", "--grace", "0s"]);
    let code = guardian.end(&world);
    // Its tasks wait for a person; whether that or the stop is seen first is all the same.
    assert!(matches!(code, Some(4 | 5)), "{code:?}");
    world.assert_nothing_left();
}

#[test]
fn a_supervisor_goes_on_without_its_guardian_and_says_so() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    let supervisor = working(&world);
    let number = guardian.pid();
    guardian.kill();
    let said = format!("the guardian (pid {number}) is gone");
    world.eventually("the supervisor says so", |world| {
        world.printed("run").contains(&said).then_some(())
    });
    let shown = world.status();
    assert_eq!(shown["batch"]["supervisor"]["pid"], supervisor);
    assert_eq!(shown["batch"]["supervisor"]["alive"], true);
    assert_eq!(shown["batch"]["guardian"]["alive"], false);
    let text = world.supervisor(&["status"]).ok().stdout;
    assert!(text.contains("nobody starts it again"), "{text}");
    let processes = world.supervisor(&["ps", "guarded", "--json"]).ok().json();
    let rows = processes.as_array().unwrap();
    assert!(
        rows.iter()
            .any(|row| row["role"] == "guardian" && row["state"] == "stale")
    );
    go(&world);
    world.eventually("the supervisor ends", |world| {
        (status(world)?["batch"]["supervisor"]["alive"] == false).then_some(())
    });
    assert_done(&world);
}

#[test]
fn after_both_were_killed_the_next_run_goes_on() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    let supervisor = working(&world);
    // The guardian first: else it would start another one.
    guardian.kill();
    kill(pid(supervisor), Signal::SIGKILL).unwrap();
    go(&world);
    world.supervisor(&["run"]).ok();
    assert_done(&world);
    assert_eq!(starts(&world).len(), 2);
}

#[test]
fn exit_codes_are_those_of_the_supervisor() {
    let world = World::new();
    let batch = |run: &str| {
        format!(
            "version: 1\nname: codes\nisolation: none\ntasks: [{{id: one, run: \"{run}\", attempts: 1}}]\n"
        )
    };
    world.write("batch.yml", &batch("true"));
    world.supervisor(&["run"]).ok();
    world.supervisor(&["run"]).exits(8);
    world.write("failing.yml", &batch("false").replace("codes", "failing"));
    world.supervisor(&["run", "failing.yml"]).exits(1);
    world.write("broken.yml", "version: 1\ntask: []\n");
    world.supervisor(&["run", "broken.yml"]).exits(3);
    world.supervisor(&["run", "absent.yml"]).exits(3);
    world.supervisor(&["run", "--until", "soon"]).exits(2);
    let without = world.supervisor(&["run", "--no-guardian", "--new"]).ok();
    assert!(
        without.stdout.contains("1 of 1 settled"),
        "{}",
        without.stdout
    );
    assert_eq!(starts(&world)[0].1, None, "nobody guards it");
}

#[test]
fn a_batch_from_stdin_is_gone_on_with() {
    let world = World::new();
    let mut command = world.command(&["run", "-"]);
    let file = std::fs::File::open(world.write("elsewhere.yml", BATCH)).unwrap();
    command.stdin(Stdio::from(file));
    let guardian = world.spawn("run", command);
    let first = working(&world);
    kill(pid(first), Signal::SIGKILL).unwrap();
    other_than(&world, first);
    go(&world);
    assert_eq!(guardian.end(&world), Some(0), "{}", world.printed("run"));
    assert_done(&world);
}

/// How often the supervisor said that it was asked to stop.
fn stops(world: &World) -> Vec<String> {
    let printed = world.printed("run");
    let lines = printed.lines().filter(|line| line.starts_with("stopping:"));
    lines.map(str::to_owned).collect()
}

fn end_by(world: &World, guardian: Started) {
    assert_eq!(guardian.end(world), Some(5), "{}", world.printed("run"));
    world.assert_nothing_left();
    assert_eq!(stops(world).len(), 1, "{}", world.printed("run"));
    assert!(
        stops(world)[0].contains("asked to end"),
        "{}",
        world.printed("run")
    );
    assert_eq!(starts(world).len(), 1, "it was not started again");
}

#[test]
fn a_signal_to_the_guardian_alone_reaches_the_supervisor_once() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    working(&world);
    guardian.signal(Signal::SIGTERM);
    end_by(&world, guardian);
}

#[test]
fn a_signal_to_the_whole_group_counts_once() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let world = world();
        let guardian = world.start_apart("run", &["run"]);
        working(&world);
        guardian.signal_group(signal);
        end_by(&world, guardian);
    }
}

#[test]
fn a_signal_to_the_supervisor_alone_ends_both() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    let supervisor = working(&world);
    kill(pid(supervisor), Signal::SIGTERM).unwrap();
    end_by(&world, guardian);
}

#[test]
fn a_supervisor_that_was_asked_to_end_and_is_then_killed_is_not_started_again() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    let supervisor = working(&world);
    guardian.signal(Signal::SIGINT);
    world.eventually("it drains", |world| (stops(world).len() == 1).then_some(()));
    kill(pid(supervisor), Signal::SIGKILL).unwrap();
    assert_eq!(guardian.end(&world), Some(5), "{}", world.printed("run"));
    world.assert_nothing_left();
    assert_eq!(starts(&world).len(), 1);
}

#[test]
fn kill_ends_guardian_and_supervisor_and_neither_comes_back() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    working(&world);
    let killed = world.supervisor(&["kill", "guarded", "--grace", "0s"]).ok();
    assert!(
        killed.stdout.contains("guardian of guarded"),
        "{}",
        killed.stdout
    );
    let code = guardian.end(&world);
    // Its tasks wait for a person; whether that or the stop is seen first is all the same.
    assert!(matches!(code, Some(4 | 5)), "{code:?}");
    world.assert_nothing_left();
    assert_eq!(starts(&world).len(), 1);
}

#[test]
fn kill_ends_a_supervisor_that_can_not_be_asked_and_its_guardian_lets_it() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    working(&world);
    let sockets = std::fs::read_dir(world.path("run/supervisor")).unwrap();
    for socket in sockets {
        std::fs::remove_file(socket.unwrap().path()).unwrap();
    }
    let killed = world.supervisor(&["kill", "guarded", "--grace", "0s"]).ok();
    assert!(
        killed.stdout.contains("nothing of it is alive"),
        "{}",
        killed.stdout
    );
    assert_eq!(guardian.end(&world), Some(5), "{}", world.printed("run"));
    world.assert_nothing_left();
    assert_eq!(starts(&world).len(), 1, "{}", killed.stdout);
}

/// Kills supervisors until the guardian waits long enough before the next one to be met alone.
fn guardian_alone(world: &World) {
    let mut supervisor = working(world);
    for _ in 0..3 {
        kill(pid(supervisor), Signal::SIGKILL).unwrap();
        supervisor = other_than(world, supervisor);
    }
    kill(pid(supervisor), Signal::SIGKILL).unwrap();
    world.eventually("the fourth start is awaited", |world| {
        world
            .printed("run")
            .contains("start 4 of at most 5")
            .then_some(())
    });
}

#[test]
fn kill_ends_a_guardian_that_waits_to_start_its_supervisor() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    guardian_alone(&world);
    world.supervisor(&["kill", "guarded", "--grace", "0s"]).ok();
    assert_eq!(guardian.end(&world), Some(5), "{}", world.printed("run"));
    world.assert_nothing_left();
    assert!(!world.printed("run").contains("start 5"));
}

#[test]
fn run_attaches_to_a_batch_whose_supervisor_is_being_started_again() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    let number = u64::from(guardian.pid());
    guardian_alone(&world);
    let text = world.supervisor(&["status"]).ok().stdout;
    assert!(text.contains("starts one"), "{text}");
    assert!(
        !world
            .supervisor(&["ps", "--orphans"])
            .ok()
            .stdout
            .contains("host")
    );
    let refused = world.supervisor(&["run", "--new"]).exits(8);
    assert!(refused.stderr.contains("follows it"), "{}", refused.stderr);
    go(&world);
    let attached = world.supervisor(&["run"]).ok();
    assert!(
        attached.stdout.contains("is starting its supervisor again")
            && attached.stdout.contains("3 of 3 settled"),
        "{}",
        attached.stdout
    );
    assert_eq!(guardian.end(&world), Some(0));
    assert_done(&world);
    let others = |(_, owner): &(u64, Option<u64>)| *owner != Some(number);
    assert!(
        !starts(&world).iter().any(others),
        "nobody else took the batch"
    );
}

#[test]
fn children_that_a_guardian_did_not_start_are_left_alone() {
    let world = world();
    let program = world.command(&["run"]);
    let line = format!(
        "sleep 1000 & echo $! > bystander; exec {} run",
        program.get_program().display()
    );
    let mut shell = tool("sh");
    shell
        .args(["-c", &line])
        .env_clear()
        .current_dir(world.repo());
    shell.envs(
        program
            .get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    let guardian = world.spawn("run", shell);
    let first = working(&world);
    let bystander: i32 = world.read("bystander").trim().parse().unwrap();
    kill(pid(first), Signal::SIGKILL).unwrap();
    other_than(&world, first);
    go(&world);
    assert_eq!(guardian.end(&world), Some(0), "{}", world.printed("run"));
    assert!(
        kill(Pid::from_raw(bystander), None).is_ok(),
        "it still lives"
    );
    kill(Pid::from_raw(bystander), Signal::SIGKILL).unwrap();
}

/// A supervisor that leads the session of a terminal of its own, and the terminal's other side,
/// which no program inherits: where one did, the terminal would never close.
fn at_terminal(world: &World) -> (Started, PtyMaster) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY;
    let master = posix_openpt(flags | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits())
        .open(ptsname_r(&master).unwrap())
        .unwrap();
    // A terminal throws away what was just printed when its interrupt key is pressed, also what a
    // quick program answers to that: here every word counts.
    let mut modes = tcgetattr(&slave).unwrap();
    modes.local_flags.insert(LocalFlags::NOFLSH);
    tcsetattr(&slave, SetArg::TCSANOW, &modes).unwrap();
    let side = || Stdio::from(slave.try_clone().unwrap());
    let program = world.command(&["run"]);
    let mut command = tool("setsid");
    command
        .arg("--ctty")
        .arg(program.get_program())
        .arg("run")
        .env_clear()
        .current_dir(world.repo());
    let environment = program.get_envs();
    command.envs(environment.filter_map(|(name, value)| Some((name, value?))));
    command.env("TERM", "xterm");
    command.stdin(side()).stdout(side()).stderr(side());
    // With `command` and `slave` our copies of the terminal's own side are closed here.
    (Started::from(command.spawn().unwrap()), master)
}

/// Everything that the terminal shows, collected until the text is there.
fn shows(world: &World, master: &PtyMaster, shown: &mut String, text: &str) {
    world.eventually(text, |_| {
        shown.push_str(&read_now(master));
        shown.contains(text).then_some(())
    });
}

fn read_now(master: &PtyMaster) -> String {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut polled = [PollFd::new(master.as_fd(), PollFlags::POLLIN)];
    if poll(&mut polled, PollTimeout::ZERO).unwrap() == 0 {
        return String::new();
    }
    let mut bytes = [0; 4096];
    // The last one to hold the other side has closed it: nothing more is shown.
    let count = nix::unistd::read(master, &mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

#[test]
fn ctrl_c_at_a_terminal_drains_then_stops_then_kills() {
    let world = World::new();
    let stubborn = BATCH.replace("while ! test -e go", "trap '' TERM INT; while ! test -e go");
    world.write("batch.yml", &stubborn);
    let (guardian, master) = at_terminal(&world);
    working(&world);
    let mut shown = String::new();
    let stages = [
        "nothing new starts",
        "is asked to end",
        "what runs is killed",
    ];
    for (pressed, stage) in stages.into_iter().enumerate() {
        nix::unistd::write(&master, b"\x03").unwrap();
        shows(&world, &master, &mut shown, stage);
        // A command in between gives a second arrival of the same signal time to show itself.
        status(&world);
        shown.push_str(&read_now(&master));
        let later = &stages[pressed + 1..];
        assert!(!later.iter().any(|later| shown.contains(later)), "{shown}");
    }
    assert_eq!(guardian.end(&world), Some(5), "{shown}");
    world.assert_nothing_left();
    assert_eq!(starts(&world).len(), 1);
}

#[test]
fn a_terminal_that_closes_stops_the_batch_in_order() {
    let world = world();
    let (guardian, master) = at_terminal(&world);
    working(&world);
    drop(master);
    assert_eq!(guardian.end(&world), Some(5));
    world.assert_nothing_left();
    let status = world.status();
    assert_eq!(status["batch"]["state"], "interrupted");
    assert_eq!(starts(&world).len(), 1);
}

#[test]
fn a_group_that_is_stopped_and_continued_goes_on() {
    let world = world();
    let guardian = world.start_apart("run", &["run"]);
    let supervisor = working(&world);
    let group = pid(guardian.pid());
    killpg(group, Signal::SIGSTOP).unwrap();
    for process in [guardian.pid(), supervisor] {
        world.eventually("both are stopped", |_| {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            stat.contains(") T ").then_some(())
        });
    }
    killpg(group, Signal::SIGCONT).unwrap();
    go(&world);
    assert_eq!(guardian.end(&world), Some(0), "{}", world.printed("run"));
    assert_done(&world);
}

/// Lets the supervisor become its own program anew, once it listens.
fn reexec(world: &World) {
    working(world);
    world.eventually("it becomes another program", |world| {
        let ran = world.supervisor(&["reexec", "guarded"]);
        (ran.code == Some(0)).then_some(())
    });
}

#[test]
fn a_supervisor_that_became_another_program_is_still_guarded() {
    let world = world();
    let guardian = world.start("run", &["run"]);
    let first = working(&world);
    reexec(&world);
    assert_eq!(working(&world), first, "the process is the same");
    assert_eq!(world.status()["batch"]["guardian"]["alive"], true);
    kill(pid(first), Signal::SIGKILL).unwrap();
    other_than(&world, first);
    reexec(&world);
    guardian.signal(Signal::SIGTERM);
    assert_eq!(guardian.end(&world), Some(5), "{}", world.printed("run"));
    world.assert_nothing_left();
    assert_eq!(stops(&world).len(), 1, "{}", world.printed("run"));
    assert_eq!(starts(&world).len(), 2);
}
