//! The gate: hello, then nothing until `start`.

use protocol::command::{Command, Pong};
use protocol::rpc::{ERROR_BAD_PARAMS, ERROR_NO_COMMON_VERSION, ERROR_UNKNOWN_METHOD};
use protocol::version::{BUILD, Hello, HelloReply, VERSION_MAX};

use crate::client::{Client, command};

#[test]
fn a_hello_of_our_own_release_is_answered() {
    let mut client = Client::spawn();
    let reply = client.request("hello", Hello::ours()).unwrap();
    let reply: HelloReply = serde_json::from_str(&reply).unwrap();
    assert_eq!(
        reply,
        HelloReply {
            version: VERSION_MAX,
            build: BUILD.to_owned()
        }
    );
    client.hang_up();
    assert_eq!(client.end().status.code(), Some(0));
}

#[test]
fn an_older_a_newer_and_a_skewed_supervisor_are_refused_by_name() {
    let older = Hello {
        version_min: 0,
        version_max: 0,
        build: BUILD.to_owned(),
    };
    let newer = Hello {
        version_min: 2,
        version_max: 9,
        build: BUILD.to_owned(),
    };
    let skewed = Hello {
        build: "9.9.9".to_owned(),
        ..Hello::ours()
    };
    for (hello, words) in [(older, "0 to 0"), (newer, "2 to 9"), (skewed, "9.9.9")] {
        let mut client = Client::spawn();
        let error = client.request("hello", hello).unwrap_err();
        assert_eq!(error.code, ERROR_NO_COMMON_VERSION);
        assert!(error.message.contains(words), "{}", error.message);
        let ended = client.end();
        assert_eq!(ended.status.code(), Some(3));
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
}

#[test]
fn a_hello_that_can_not_be_read_is_refused() {
    let mut client = Client::spawn();
    let error = client.request("hello", "hi").unwrap_err();
    assert_eq!(error.code, ERROR_BAD_PARAMS);
    assert_eq!(client.end().status.code(), Some(3));
}

#[test]
fn whoever_does_not_begin_with_hello_gets_nothing() {
    let openings = [
        "garbage\n",
        "{\"method\":\"start\",\"params\":{}}\n",
        "{\"id\":1,\"method\":\"ping\"}\n",
    ];
    for first in openings {
        let mut client = Client::spawn();
        client.send(first.as_bytes());
        let ended = client.end();
        assert_eq!(ended.status.code(), Some(3), "{first}");
        assert!(ended.stderr.contains("hello"), "{}", ended.stderr);
    }
}

#[test]
fn nothing_happens_before_start() {
    let mut client = Client::greeted();
    assert_eq!(client.ping(), Pong::default());
    client.tell(&Command::Interrupt {});
    assert_eq!(client.ping(), Pong::default());
    assert!(!client.path("state").exists());
    let error = client.request("dance", ()).unwrap_err();
    assert_eq!(error.code, ERROR_UNKNOWN_METHOD);
    client.stop(0);
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(0));
    assert!(ended.events.is_empty());
    assert!(
        ended.stderr.contains("`interrupt` before `start`"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_start_that_can_not_be_read_begins_nothing() {
    let mut client = Client::greeted();
    client.send(b"{\"jsonrpc\":\"2.0\",\"method\":\"start\",\"params\":{\"generation\":7}}\n");
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(3));
    assert!(ended.stderr.contains("missing field"), "{}", ended.stderr);
}

#[test]
fn commands_that_come_in_one_read_with_start_are_obeyed() {
    let mut client = Client::greeted();
    let start = client.start(command(&["sleep", "1000"]));
    let start = Command::Start(Box::new(start));
    let mut lines = serde_json::to_vec(&start).unwrap();
    lines.extend_from_slice(b"\n{\"method\":\"stop\",\"params\":{\"grace_ms\":60000}}\n");
    client.send(&lines);
    let ended = client.end();
    assert_eq!(ended.status.code(), Some(0));
    assert_eq!(ended.result(), None);
}
