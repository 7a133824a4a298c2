//! Messages to a plain command: with the prompt, or as a follow-up; each exactly once.

use protocol::command::{PromptBy, Start, SteerMode, Text};
use protocol::ids::MessageId;
use protocol::report::{Event, ResultStatus};

use crate::client::{Client, command, is, message, prompted};

/// A command that prints its prompt and ends with the nth line of the witness gate.
fn echo(client: &Client) -> Start {
    let mut start = client.start(prompted(&["printf", "[%s]"], PromptBy::Argument));
    start.prompt = Some(Text::Inline("the task\n".to_owned()));
    start
}

fn injected(ended: &crate::client::Ended) -> Vec<MessageId> {
    let ids = ended.events.iter().filter_map(|event| match event {
        Event::MessageInjected { id } => Some(*id),
        _ => None,
    });
    ids.collect()
}

#[test]
fn messages_of_the_start_go_in_with_the_prompt_set_off_from_it() {
    let client = Client::started(|client| {
        let mut start = echo(client);
        start.messages = vec![
            message(1, SteerMode::Boundary, "first"),
            message(2, SteerMode::After, "second"),
            message(3, SteerMode::After, "went in before"),
        ];
        start.injected = vec![MessageId(3)];
        start
    });
    let (_, ended) = client.result();
    let expected = "[the task\n\n--- message m1 of the operator ---\nfirst\n--- end of m1 ---\n\n\
        --- message m2 of the operator ---\nsecond\n--- end of m2 ---\n]";
    assert_eq!(ended.log("stdout.log"), expected);
    assert_eq!(ended.text("state/mailbox/injected"), "1\n2\n");
    assert_eq!(injected(&ended), [1, 2].map(MessageId));
    assert_eq!(ended.exit_file().unwrap().injected, [1, 2].map(MessageId));
    let position = |wanted: &Event| {
        ended
            .events
            .iter()
            .position(|event| event == wanted)
            .unwrap()
    };
    assert!(
        position(&Event::MessageInjected { id: MessageId(2) }) < position(&Event::PromptSent {})
    );
}

#[test]
fn a_message_to_a_running_command_is_the_prompt_of_its_next_run() {
    // The first run waits for the test; the second one has the message and ends at once.
    let line = "case $1 in *task*) echo up >&9; read go < gate;; esac; echo \"got $1\"";
    let mut client = Client::started(|client| {
        let gate = client.path("gate");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            gate,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        let mut start = client.start(prompted(&["sh", "-c", line, "sh"], PromptBy::Argument));
        start.prompt = Some(Text::Inline("the task".to_owned()));
        start
    });
    client.wait_for_word("up");
    client.deliver(4, SteerMode::Boundary, "and this");
    client.deliver(5, SteerMode::After, "and that");
    client.deliver(4, SteerMode::Boundary, "and this");
    client.ping();
    std::fs::write(client.path("gate"), "go\n").unwrap();
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(
        ended.log("stdout.log"),
        "got the task\ngot and this\n\nand that\n"
    );
    assert_eq!(injected(&ended), [4, 5].map(MessageId));
    let spawned = ended
        .events
        .iter()
        .filter(|event| matches!(event, Event::ProcessSpawned(_)));
    assert_eq!(
        spawned.count(),
        2,
        "one run for the task, one for both messages"
    );
}

#[test]
fn after_a_failed_run_no_message_goes_in() {
    let line = "echo up >&9; read go < gate; exit 1";
    let mut client = Client::started(|client| {
        let gate = client.path("gate");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            gate,
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        client.start(prompted(&["sh", "-c", line], PromptBy::Stdin))
    });
    client.wait_for_word("up");
    client.deliver(4, SteerMode::After, "too late");
    client.ping();
    std::fs::write(client.path("gate"), "go\n").unwrap();
    let (result, ended) = client.result();
    assert_eq!((result.exit_code, injected(&ended)), (Some(1), Vec::new()));
    assert_eq!(ended.text("state/mailbox/injected"), "");
}

#[test]
fn what_an_earlier_run_injected_never_goes_in_again_and_is_acknowledged() {
    let mut client = Client::started(|client| {
        std::fs::create_dir_all(client.path("state/mailbox")).unwrap();
        std::fs::write(client.path("state/mailbox/injected"), "8\n").unwrap();
        client.start(prompted(
            &["sh", "-c", "echo up >&9; sleep 1000"],
            PromptBy::Stdin,
        ))
    });
    client.wait_for_word("up");
    client.deliver(8, SteerMode::After, "again");
    client.wait_for(is(|event| {
        *event == Event::MessageInjected { id: MessageId(8) }
    }));
    client.stop(0);
    assert_eq!(client.end().text("state/mailbox/injected"), "8\n");
}

#[test]
fn a_command_without_prompt_takes_no_messages() {
    let mut client = Client::started(|client| {
        let mut start = client.start(command(&["sh", "-c", "echo up >&9; sleep 1000"]));
        start.messages = vec![message(1, SteerMode::Boundary, "first")];
        start
    });
    client.wait_for_word("up");
    client.deliver(2, SteerMode::After, "second");
    client.ping();
    client.stop(0);
    let ended = client.end();
    assert_eq!(injected(&ended), []);
    assert_eq!(ended.text("state/mailbox/injected"), "");
}
