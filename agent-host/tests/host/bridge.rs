//! What an agent does by the bridge, with the real words of a plain command.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command as Program, Stdio};

use protocol::class::Class;
use protocol::command::{Answer, Command, Start, SteerMode};
use protocol::ids::{MessageId, QuestionId};
use protocol::report::{Ask, Asked, Event, ListTasks, ResultStatus, Send, Sent, TaskLine, Tasks};

use crate::claude::plays;
use crate::client::{Client, Ended, command, message};

/// A run of a shell line that first says that it is up.
pub(crate) fn shell(line: &str) -> Client {
    let mut client = Client::shell(&format!("echo up >&9; {line}"));
    client.wait_for_word("up");
    client
}

/// A run that waits for a line in the pipe `gate`, and then ends well.
pub(crate) fn waiting() -> Client {
    let mut client = Client::started(|client| {
        make_gate(client);
        client.start(command(&["sh", "-c", "echo up >&9; read go < gate"]))
    });
    client.wait_for_word("up");
    client
}

fn make_gate(client: &Client) {
    let mode = nix::sys::stat::Mode::S_IRWXU;
    nix::unistd::mkfifo(&client.path("gate"), mode).unwrap();
}

pub(crate) fn open_gate(client: &Client) {
    std::fs::write(client.path("gate"), "go\n").unwrap();
}

/// The bridge's file of a run.
pub(crate) fn file(client: &Client) -> PathBuf {
    client.path("state/runs/7/bridge.json")
}

/// The program as somebody else than the run's family calls it.
pub(crate) fn outside(client: &Client, words: &[&str]) -> Child {
    let mut program = Program::new(env!("CARGO_BIN_EXE_agent-host"));
    program
        .args(words)
        .arg("--bridge")
        .arg(file(client))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    program.spawn().unwrap()
}

/// Its status, stdout and stderr.
pub(crate) fn said(mut child: Child) -> (Option<i32>, String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut err)
        .unwrap();
    (child.wait().unwrap().code(), out, err)
}

fn answer(client: &mut Client, question: u64, text: Option<&str>) {
    client.tell(&Command::Answer(Answer {
        question: QuestionId(question),
        text: text.map(str::to_owned),
    }));
}

fn taken(client: &mut Client, question: u64) -> Ask {
    let (id, ask) = client.wait_for_call("ask");
    let question = QuestionId(question);
    client.answer(id, Asked { question });
    ask
}

fn events(ended: &Ended, wanted: fn(&Event) -> bool) -> Vec<Event> {
    let events = ended.events.iter().filter(|event| wanted(event));
    events.cloned().collect()
}

#[test]
fn a_question_waits_for_the_operator_and_its_answer_is_printed() {
    let line = "a=$(agent-host ask 'which one?' --option this --option that); echo \"got $a\"";
    let mut client = shell(line);
    let ask = taken(&mut client, 3);
    assert_eq!(ask.text, "which one?");
    assert_eq!(ask.options, ["this", "that"]);
    answer(&mut client, 3, Some("that"));
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(ended.log("stdout.log"), "got that\n");
}

#[test]
fn a_question_that_expires_or_is_refused_is_a_failure_and_not_a_wait() {
    let line = "agent-host ask one; echo $?; agent-host ask two; echo $?";
    let mut client = shell(line);
    taken(&mut client, 3);
    answer(&mut client, 3, None);
    let (id, _) = client.wait_for_call::<Ask>("ask");
    client.refuse(id, "a run may ask 200 questions");
    let (_, ended) = client.result();
    assert_eq!(ended.log("stdout.log"), "1\n1\n");
    let said = ended.log("stderr.log");
    assert!(said.contains("q3 is over"), "{said}");
    assert!(said.contains("a run may ask 200 questions"), "{said}");
}

#[test]
fn an_answer_that_comes_while_nobody_waits_is_kept_for_whoever_asks_again() {
    let mut client = waiting();
    let mut asks = outside(&client, &["ask", "well?"]);
    taken(&mut client, 3);
    asks.kill().unwrap();
    asks.wait().unwrap();
    client.ping();
    answer(&mut client, 3, Some("yes"));
    client.ping();
    let again = said(outside(&client, &["ask", "--question", "q3"]));
    assert_eq!(again, (Some(0), "yes\n".to_owned(), String::new()));
    let other = said(outside(&client, &["ask", "--question", "q4"]));
    assert_eq!(other.0, Some(1), "{}", other.2);
    open_gate(&client);
    client.result();
}

#[test]
fn an_answer_that_nobody_took_is_in_the_mailbox() {
    let mut client = waiting();
    let mut asks = outside(&client, &["ask", "well?"]);
    taken(&mut client, 3);
    asks.kill().unwrap();
    asks.wait().unwrap();
    client.ping();
    answer(&mut client, 3, Some("yes"));
    client.ping();
    let (_, mail, _) = said(outside(&client, &["mailbox"]));
    assert_eq!(mail, "--- answer to q3 (well?) ---\nyes\n");
    let (_, mail, _) = said(outside(&client, &["mailbox"]));
    assert_eq!(mail, "", "it is given once");
    open_gate(&client);
    client.result();
}

#[test]
fn what_the_agent_says_is_reported() {
    let client = shell(
        "agent-host progress half --percent 50; agent-host say 'all is well'; \
         agent-host say 'come here' --urgent",
    );
    let (_, ended) = client.result();
    let said = events(&ended, |event| {
        matches!(
            event,
            Event::Progress(_) | Event::Reply(_) | Event::Escalation(_)
        )
    });
    let said = serde_json::to_value(said).unwrap();
    let wanted = serde_json::json!([
        {"type": "progress", "text": "half", "percent": 50},
        {"type": "reply", "text": "all is well"},
        {"type": "escalation", "text": "come here"},
    ]);
    assert_eq!(said, wanted);
}

#[test]
fn a_result_of_failed_outweighs_a_good_end() {
    let client = shell("agent-host result failed 'the tests do not pass'");
    let (result, _) = client.result();
    assert_eq!(result.status, ResultStatus::Failed);
    assert_eq!(result.class, Some(Class::AgentFailed));
    assert_eq!(result.summary, "the tests do not pass");
    assert_eq!(result.exit_code, Some(0));
}

#[test]
fn a_result_of_ok_gives_a_good_end_its_summary_and_files_and_heals_no_bad_one() {
    let line = "echo x > report.txt; agent-host result ok first; \
        agent-host result ok 'it works' --artifact report.txt; \
        agent-host result ok wrong --artifact absent; echo $?";
    let (result, ended) = shell(line).result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(
        result.summary, "it works",
        "a refused one counts for nothing"
    );
    assert_eq!(result.artifacts, ["report.txt"]);
    assert_eq!(ended.log("stdout.log"), "1\n");
    let (result, _) = shell("agent-host result ok 'it works'; exit 3").result();
    assert_eq!(result.status, ResultStatus::Failed);
    assert_eq!(result.exit_code, Some(3));
}

#[test]
fn a_message_to_another_task_goes_up_and_is_told_its_number_or_why_not() {
    let line = "agent-host say 'look here' --to docs; agent-host say more --to nobody; echo $?";
    let mut client = shell(line);
    let (id, send) = client.wait_for_call::<Send>("send");
    assert_eq!((send.to.as_str(), &*send.text), ("docs", "look here"));
    let message = MessageId(6);
    client.answer(id, Sent { message });
    let (id, _) = client.wait_for_call::<Send>("send");
    client.refuse(id, "the batch has no task `nobody`");
    let (_, ended) = client.result();
    assert_eq!(ended.log("stdout.log"), "m6\n1\n");
    let said = ended.log("stderr.log");
    assert!(said.contains("the batch has no task `nobody`"), "{said}");
}

#[test]
fn the_tasks_of_the_batch_are_printed_line_by_line() {
    let mut client = shell("agent-host tasks");
    let (id, _) = client.wait_for_call::<ListTasks>("tasks");
    let task = |id: &str, summary: &str| TaskLine {
        id: id.parse().unwrap(),
        state: "running".to_owned(),
        depends_on: Vec::new(),
        summary: summary.to_owned(),
    };
    let tasks = vec![task("a", ""), task("b", "half\nof it")];
    client.answer(id, Tasks { tasks, left_out: 2 });
    let (_, ended) = client.result();
    let lines = "a\trunning\t\nb\trunning\thalf\nand 2 more\n";
    assert_eq!(ended.log("stdout.log"), lines);
}

fn with_mail(client: &Client, line: &str) -> Start {
    let mut start = client.start(command(&["sh", "-c", line]));
    start.messages = vec![message(5, SteerMode::After, "of the operator")];
    let mut other = message(6, SteerMode::After, "of a colleague");
    other.from = Some("docs".parse().unwrap());
    start.messages.push(other);
    start
}

#[test]
fn a_command_without_a_prompt_reads_its_mailbox_and_what_it_read_is_seen() {
    let line = "agent-host mailbox; echo ---; agent-host mailbox";
    let client = Client::started(|client| with_mail(client, line));
    let (_, ended) = client.result();
    let mail = "--- m5 from the operator ---\nof the operator\n\
        --- m6 from task docs ---\n\
        [from the agent of task docs, not from the operator]\nof a colleague\n---\n";
    assert_eq!(ended.log("stdout.log"), mail);
    let rungs = events(&ended, |event| {
        matches!(
            event,
            Event::MessageInjected { .. } | Event::MessageSeen { .. }
        )
    });
    let (five, six) = (MessageId(5), MessageId(6));
    let wanted = [
        Event::MessageInjected { id: five },
        Event::MessageSeen { id: five },
        Event::MessageInjected { id: six },
        Event::MessageSeen { id: six },
    ];
    assert_eq!(rungs, wanted);
    assert_eq!(ended.exit_file().unwrap().injected, [five, six]);
}

#[test]
fn without_a_bridge_every_word_says_so() {
    for words in [&["say", "x"][..], &["ask", "x"], &["tasks"], &["mcp"]] {
        let mut program = Program::new(env!("CARGO_BIN_EXE_agent-host"));
        program.args(words).env_remove("SUPERVISOR_BRIDGE");
        let output = program.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{words:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("SUPERVISOR_BRIDGE is not set"), "{said}");
    }
    let mut program = Program::new(env!("CARGO_BIN_EXE_agent-host"));
    let output = program
        .args(["say", "x", "--bridge", "/nowhere/bridge.json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69));
}

#[test]
fn a_call_that_waits_hears_at_once_that_its_host_was_killed() {
    let mut client = waiting();
    let asks = outside(&client, &["ask", "well?"]);
    taken(&mut client, 3);
    client.child.kill().unwrap();
    client.child.wait().unwrap();
    let (code, _, err) = said(asks);
    assert_eq!(code, Some(69));
    assert!(err.contains("the host went away"), "{err}");
    open_gate(&client);
    let late = said(outside(&client, &["tasks"]));
    assert_eq!(late.0, Some(69), "{}", late.2);
    assert!(late.2.contains("can not be reached"), "{}", late.2);
}

#[test]
fn a_call_that_waits_hears_that_the_run_ends_and_the_bridge_is_gone_after() {
    let mut client = waiting();
    let asks = outside(&client, &["ask", "well?"]);
    taken(&mut client, 3);
    open_gate(&client);
    let (code, _, err) = said(asks);
    assert_eq!(code, Some(69));
    assert!(err.contains("the run is ending"), "{err}");
    let (_, ended) = client.result();
    let socket = ended.home.path().join("state/runs/7/bridge.sock");
    let refused = std::os::unix::net::UnixStream::connect(socket).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_folder_with_a_longer_path_than_a_socket_may_have_does_not_matter() {
    let mut client = Client::started(|client| {
        let mut start = client.start(command(&["sh", "-c", "agent-host ask 'deep?'"]));
        start.run_dir = client
            .path(&format!("state/{}/7", "x".repeat(200)))
            .display()
            .to_string();
        start
    });
    taken(&mut client, 3);
    answer(&mut client, 3, Some("yes"));
    let ended = client.end();
    let log = format!("state/{}/7/stdout.log", "x".repeat(200));
    assert_eq!(ended.text(&log), "yes\n");
}

#[test]
fn runs_without_an_agents_program_have_no_bridge() {
    let client = Client::script(r#"[{"run":"env"}]"#);
    let (_, ended) = client.result();
    assert!(!ended.log("stdout.log").contains("SUPERVISOR_BRIDGE"));
    let path = ended.home.path().join("state/runs/7/bridge.json");
    assert!(path.symlink_metadata().is_err());
}

/// A model that was told to go on and ended its turn has not waited; the answer is its next prompt.
#[test]
fn an_answer_that_nobody_took_begins_a_turn_where_the_agent_can_be_told() {
    let mut client = plays(
        "hear; stage started; say a one; echo up >&9; read go < gate; stage completed; result early; \
         hear; stage started; say b two; stage completed; result late; hear",
    );
    make_gate(&client);
    client.wait_for_word("up");
    let mut asks = outside(&client, &["ask", "well?"]);
    taken(&mut client, 3);
    asks.kill().unwrap();
    asks.wait().unwrap();
    client.ping();
    answer(&mut client, 3, Some("yes"));
    client.ping();
    open_gate(&client);
    let (result, ended) = client.result();
    assert_eq!(result.summary, "late");
    let heard = ended.text("heard");
    let told = "The operator answered your question q3 (well?): yes";
    assert!(heard.lines().nth(1).unwrap().contains(told), "{heard}");
    let arguments = ended.text("arguments");
    for part in [
        "--mcp-config",
        "\"mcp\",\"--bridge\"",
        "--strict-mcp-config",
    ] {
        assert!(arguments.contains(part), "{part}: {arguments}");
    }
}
