//! The whole tree goes: by stop, by the end of stdin, by the lease.

use protocol::command::{Command, Stop};
use protocol::report::{Event, ResultStatus};

use crate::client::{Client, command};

/// A family that resists: ignores the polite signals, changes its session, forks twice.
const FAMILY: &str = "
    trap '' TERM HUP INT
    setsid sh -c 'trap \"\" TERM; echo session >&9; sleep 1000' &
    (setsid sh -c '(sleep 1000; true) & echo twice >&9' &) &
    sh -c 'kill -STOP $$; sleep 1000' &
    echo up >&9
    sleep 1000; sleep 1000";

fn family() -> Client {
    let mut client = Client::shell(FAMILY);
    let mut words = [client.word(), client.word(), client.word()];
    words.sort();
    assert_eq!(words, ["session", "twice", "up"]);
    client
}

#[test]
fn a_stop_without_grace_leaves_nobody() {
    let mut client = family();
    client.stop(0);
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(ended.exit_file(), None, "a stopped run has no result");
}

#[test]
fn whoever_ignores_the_polite_signal_is_killed_after_the_grace() {
    let mut client = family();
    client.stop(50);
    assert_eq!(client.end().status.code(), Some(0));
}

#[test]
fn a_second_stop_may_shorten_the_grace_but_not_lengthen_it() {
    let mut client = family();
    client.stop(3_600_000);
    client.stop(50);
    client.stop(3_600_000);
    assert_eq!(client.end().status.code(), Some(0));
}

#[test]
fn the_end_of_stdin_leaves_nobody() {
    let mut client = family();
    client.hang_up();
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.contains("stdin has ended"), "{}", ended.stderr);
    assert_eq!(ended.exit_file(), None);
}

/// Nobody is left to take what a grace would save: the program is not asked, it is killed.
#[test]
fn the_end_of_stdin_gives_no_grace() {
    let script =
        "trap 'echo asked >asked; exit 0' TERM; echo ready >&9; while :; do sleep 0.01; done";
    for asked in [true, false] {
        let mut client = Client::shell(script);
        client.wait_for_word("ready");
        if asked {
            client.stop(60_000);
        } else {
            client.hang_up();
        }
        let ended = client.end();
        assert_eq!(ended.status.code(), Some(0));
        assert_eq!(ended.home.path().join("asked").exists(), asked);
    }
}

#[test]
fn the_end_of_the_lease_leaves_nobody() {
    let mut client = Client::started(|client| {
        let mut start = client.start(command(&["sh", "-c", FAMILY]));
        start.lease_ms = 300;
        start
    });
    for _ in 0..3 {
        client.word();
    }
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.stderr.contains("lease"), "{}", ended.stderr);
}

#[test]
fn a_ping_renews_the_lease() {
    let mut client = Client::started(|client| {
        let mut start = client.start(command(&["sh", "-c", "sleep 1.5; echo end; sleep 1000"]));
        start.lease_ms = 1000;
        start
    });
    while client.ping().output_bytes == 0 {}
    client.stop(0);
    let ended = client.end();
    assert!(!ended.stderr.contains("lease"), "{}", ended.stderr);
    assert_eq!(ended.log("stdout.log"), "end\n");
}

#[test]
fn a_good_end_within_the_grace_counts() {
    let mut client =
        Client::shell("trap 'echo saved; exit 0' TERM; echo up >&9; sleep 1000 & wait");
    client.wait_for_word("up");
    client.stop(60_000);
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(ended.log("stdout.log"), "saved\n");
}

#[test]
fn a_bad_end_within_the_grace_is_the_stops_doing() {
    let mut client = Client::shell("trap 'exit 1' TERM; echo up >&9; sleep 1000 & wait");
    client.wait_for_word("up");
    client.stop(60_000);
    let ended = client.end();
    assert_eq!((ended.status.code(), ended.exit_file()), (Some(0), None));
}

#[test]
fn what_was_printed_before_the_kill_is_in_the_log() {
    let mut client = Client::shell("echo last words; echo up >&9; sleep 1000");
    client.wait_for_word("up");
    client.stop(0);
    assert_eq!(client.end().log("stdout.log"), "last words\n");
}

#[test]
fn a_stopped_process_is_woken_to_hear_the_request() {
    let mut client =
        Client::shell("trap 'exit 0' TERM; echo up >&9; kill -STOP $$; sleep 1000 & wait");
    client.wait_for_word("up");
    client.stop(60_000);
    assert_eq!(client.result().0.status, ResultStatus::Ok);
}

#[test]
fn garbage_on_stdin_is_said_and_survived() {
    let mut client = Client::shell("echo up >&9; read go < gate || sleep 1000");
    client.wait_for_word("up");
    client.send(b"what?\n\n{\"method\":\"dance\",\"params\":{}}\n{}\n");
    client.send(&[b'x'; 2_000_000]);
    client.send(b"\n");
    assert_eq!(client.request("dance", ()).unwrap_err().code, -32601);
    client.tell(&Command::Stop(Stop { grace_ms: 0 }));
    let ended = client.end();
    let notices = ended.notices();
    let kinds = [
        "no message",
        "a blank line",
        "no command `dance`",
        "no message",
        "a line of more",
    ];
    assert_eq!(notices.len(), kinds.len(), "{notices:?}");
    for (notice, kind) in notices.iter().zip(kinds) {
        assert!(notice.contains(kind), "{notice}: not {kind}");
    }
}

#[test]
fn an_interrupt_is_refused_by_an_adapter_that_can_not() {
    let mut client = Client::shell("echo up >&9; sleep 1000");
    client.wait_for_word("up");
    client.tell(&Command::Interrupt {});
    client.wait_for(|event| match event {
        Event::Notice(said) => said.text.contains("can not interrupt").then_some(()),
        _ => None,
    });
    client.stop(0);
    client.end();
}

#[test]
fn strays_that_ended_are_reaped_by_a_ping() {
    let line = "(setsid sh -c 'echo $$ >&9' &) ; read go < gate || sleep 1000";
    let mut client = Client::shell(line);
    let stray = client.word();
    let state = || std::fs::read_to_string(format!("/proc/{stray}/stat"));
    while state().is_ok() {
        client.ping();
    }
    client.stop(0);
    client.end();
}
