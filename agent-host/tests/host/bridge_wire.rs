//! The bridge's socket: who may speak, and what comes of garbage, floods and strangers.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;

use protocol::bridge::{BridgeFile, Call, ERROR_NO_TOKEN};
use protocol::report::Ask;
use protocol::rpc::{self, Incoming, RpcError};

use crate::bridge::{file, open_gate, waiting};
use crate::client::Client;

struct Caller {
    stream: BufReader<UnixStream>,
}

fn bridge(client: &Client) -> BridgeFile {
    let text = std::fs::read_to_string(file(client)).unwrap();
    serde_json::from_str(&text).unwrap()
}

impl Caller {
    fn connect(client: &Client) -> Self {
        let stream = UnixStream::connect(bridge(client).socket).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    fn known(client: &Client) -> Self {
        let mut caller = Self::connect(client);
        let token = bridge(client).token;
        caller.send(&Call::Hello { token }.line(1).unwrap());
        assert!(caller.answer().unwrap().is_ok());
        caller
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// The next answer; `None` at the end.
    fn answer(&mut self) -> Option<Result<String, RpcError>> {
        let mut line = Vec::new();
        // A connection that was closed on us while we wrote ends like any other.
        let count = self.stream.read_until(b'\n', &mut line).unwrap_or(0);
        (count > 0).then(|| match rpc::read(&line).unwrap() {
            Incoming::Answer { outcome, .. } => outcome.map(|value| value.get().to_owned()),
            other => panic!("{other:?}"),
        })
    }

    fn is_closed_after_a_refusal(&mut self) -> RpcError {
        let refusal = self.answer().expect("no word").expect_err("it is taken");
        assert!(self.answer().is_none(), "it is still open");
        refusal
    }
}

#[test]
fn socket_and_file_are_for_their_owner_alone_and_the_token_is_in_no_log() {
    let client = waiting();
    let token = bridge(&client).token;
    assert_eq!(token.len(), 32);
    for name in ["bridge.json", "bridge.sock"] {
        let facts = client.path("state/runs/7").join(name).metadata().unwrap();
        assert_eq!(facts.permissions().mode() & 0o777, 0o600, "{name}");
        assert_eq!(facts.file_type().is_socket(), name == "bridge.sock");
    }
    let folder = client.path("state/runs/7").metadata().unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);
    Caller::known(&client);
    open_gate(&client);
    let (_, ended) = client.result();
    for name in ["events.jsonl", "manifest.json", "exit.json", "stderr.log"] {
        assert!(!ended.log(name).contains(&token), "{name}");
    }
    assert!(!format!("{:?}", ended.events).contains(&token));
}

#[test]
fn nobody_speaks_without_the_token() {
    let client = waiting();
    for first in [
        Call::ReadMailbox {},
        Call::Hello {
            token: "0".repeat(32),
        },
        Call::Hello {
            token: String::new(),
        },
    ] {
        let mut caller = Caller::connect(&client);
        caller.send(&first.line(1).unwrap());
        let refusal = caller.is_closed_after_a_refusal();
        assert_eq!(refusal.code, ERROR_NO_TOKEN, "{first:?}");
    }
    let mut good = Caller::known(&client);
    good.send(&Call::ReadMailbox {}.line(2).unwrap());
    assert!(good.answer().unwrap().is_ok());
    open_gate(&client);
    client.result();
}

#[test]
fn garbage_ends_the_connection_and_nothing_else() {
    let mut client = waiting();
    let long = vec![b'x'; (1 << 20) + 2];
    for bytes in [
        &b"hello\n"[..],
        b"[1,2]\n",
        b"\xff\xfe\n",
        br#"{"jsonrpc":"2.0","method":"hello"}
"#,
        &long,
    ] {
        let mut caller = Caller::connect(&client);
        // It may be closed before all of it is written.
        drop(caller.stream.get_mut().write_all(bytes));
        caller.is_closed_after_a_refusal();
    }
    client.ping();
    let mut known = Caller::known(&client);
    known.send(b"{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"kill\",\"params\":{}}\n");
    let refusal = known.answer().unwrap().unwrap_err();
    assert!(refusal.message.contains("kill"), "{refusal:?}");
    known.send(&Call::ReadMailbox {}.line(2).unwrap());
    assert!(
        known.answer().unwrap().is_ok(),
        "an unknown word is refused"
    );
    open_gate(&client);
    client.result();
}

#[test]
fn one_connection_too_many_is_told_so() {
    let client = waiting();
    let mut callers: Vec<Caller> = (0..16).map(|_| Caller::known(&client)).collect();
    let refusal = Caller::connect(&client).is_closed_after_a_refusal();
    assert!(refusal.message.contains("16 connections"), "{refusal:?}");
    for caller in &mut callers {
        caller.send(&Call::ReadMailbox {}.line(2).unwrap());
        assert!(caller.answer().unwrap().is_ok());
    }
    open_gate(&client);
    client.result();
}

#[test]
fn one_call_too_many_at_a_time_is_refused() {
    let mut client = waiting();
    let mut caller = Caller::known(&client);
    let ask = |id| {
        let question = format!("number {id}?");
        let call = Call::AskOperator {
            question,
            options: Vec::new(),
            question_id: None,
        };
        call.line(id).unwrap()
    };
    for id in 2..=10 {
        caller.send(&ask(id));
    }
    let refusal = caller.answer().unwrap().unwrap_err();
    assert!(refusal.message.contains("8 calls"), "{refusal:?}");
    for id in 2..10 {
        let (_, asked) = client.wait_for_call::<Ask>("ask");
        assert_eq!(asked.text, format!("number {id}?"));
    }
    open_gate(&client);
    client.result();
}
