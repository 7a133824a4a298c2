//! The bridge as an MCP server, as the agent programs of the field begin with it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command as Program, Stdio};

use protocol::command::{Answer, Command};
use protocol::ids::QuestionId;
use protocol::report::{Ask, Asked, Event, ResultStatus};
use serde_json::{Value, json};

use crate::bridge::{file, open_gate, waiting};
use crate::client::Client;

/// A small MCP client.
struct Mcp {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    last: u64,
}

impl Mcp {
    fn start(client: &Client) -> Self {
        let mut program = Program::new(env!("CARGO_BIN_EXE_agent-host"));
        // Nothing of the environment, as some agents start their servers.
        program
            .env_clear()
            .args(["mcp", "--bridge"])
            .arg(file(client))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = program.spawn().unwrap();
        Self {
            stdin: child.stdin.take().unwrap(),
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            last: 0,
        }
    }

    /// One that has shaken hands.
    fn ready(client: &Client) -> Self {
        let mut mcp = Self::start(client);
        mcp.handshake("2025-11-25");
        mcp
    }

    fn handshake(&mut self, version: &str) -> Value {
        let params = json!({"protocolVersion": version, "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"}});
        let answer = self.request("initialize", params);
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        answer["result"].clone()
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.stdin, "{message}").unwrap();
    }

    fn ask(&mut self, method: &str, params: Value) -> u64 {
        self.last += 1;
        let id = self.last;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        assert!(self.stdout.read_line(&mut line).unwrap() > 0, "it ended");
        serde_json::from_str(&line).unwrap()
    }

    fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        let answer = self.answer();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    fn begin(&mut self, tool: &str, arguments: Value) -> u64 {
        self.ask("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// What a tool says, and whether it is a failure.
    fn tool(&mut self, tool: &str, arguments: Value) -> (Value, bool) {
        self.begin(tool, arguments);
        said(&self.answer())
    }

    /// Closes its stdin and waits for its end.
    fn end(mut self) -> Option<i32> {
        drop(self.stdin);
        self.child.wait().unwrap().code()
    }
}

fn said(answer: &Value) -> (Value, bool) {
    let result = &answer["result"];
    let text = result["content"][0]["text"].as_str().unwrap();
    let structured = result["structuredContent"].clone();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), structured);
    (structured, result["isError"] == true)
}

#[test]
fn every_client_of_the_field_can_begin() {
    let client = waiting();
    for (asked, agreed) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("2099-01-01", "2025-11-25"),
    ] {
        let mut mcp = Mcp::start(&client);
        let begun = mcp.handshake(asked);
        assert_eq!(begun["protocolVersion"], agreed, "{asked}");
        assert_eq!(begun["serverInfo"]["name"], "supervisor");
        assert_eq!(mcp.end(), Some(0));
    }
    open_gate(&client);
    client.result();
}

#[test]
fn a_client_may_try_what_is_newer_first_and_say_what_is_unknown_at_any_time() {
    let client = waiting();
    let mut mcp = Mcp::start(&client);
    mcp.send(&json!({"jsonrpc": "2.0", "method": "notifications/whatever"}));
    for params in [
        json!({}),
        json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}),
    ] {
        let refused = mcp.request("server/discover", params);
        assert_eq!(refused["error"]["code"], -32601, "{refused}");
    }
    let unknown = mcp.request("no/such/thing", json!({}));
    assert_eq!(unknown["error"]["code"], -32601, "{unknown}");
    mcp.handshake("2025-11-25");
    let unknown = mcp.request("no/such/thing", json!({}));
    assert_eq!(unknown["error"]["code"], -32601, "{unknown}");
    let late = mcp.request("server/discover", json!({}));
    assert!(late["error"]["code"].is_i64(), "{late}");
    mcp.send(
        &json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 77}}),
    );
    let tools = mcp.request("tools/list", json!({}));
    assert_eq!(tools["result"]["tools"].as_array().unwrap().len(), 6);
    assert_eq!(mcp.end(), Some(0));
    open_gate(&client);
    client.result();
}

#[test]
fn a_model_reports_asks_waits_and_hands_over_its_result() {
    let mut client = waiting();
    let mut mcp = Mcp::ready(&client);
    let done = (json!({"status": "done"}), false);
    let progress = json!({"text": "half", "percent": 50});
    assert_eq!(mcp.tool("report_progress", progress), done);
    let question = mcp.begin("ask_operator", json!({"question": "which?"}));
    let (id, ask) = client.wait_for_call::<Ask>("ask");
    assert_eq!(ask.text, "which?");
    let question_id = QuestionId(3);
    client.answer(
        id,
        Asked {
            question: question_id,
        },
    );
    // Nothing is held up by a question that waits.
    let mail = json!({"status": "mailbox", "messages": [], "answers": [], "more": false});
    assert_eq!(mcp.tool("read_mailbox", json!({})), (mail, false));
    client.tell(&Command::Answer(Answer {
        question: question_id,
        text: Some("this".to_owned()),
    }));
    let answer = mcp.answer();
    assert_eq!(answer["id"], question);
    let told = json!({"status": "answered", "question_id": "q3", "answer": "this"});
    assert_eq!(said(&answer), (told.clone(), false));
    for named in [json!("q3"), json!("3"), json!(3)] {
        let again = mcp.tool("ask_operator", json!({"question_id": named}));
        assert_eq!(again, (told.clone(), false));
    }
    let result = json!({"status": "ok", "summary": "it works"});
    assert_eq!(mcp.tool("task_result", result), done);
    assert_eq!(mcp.end(), Some(0));
    open_gate(&client);
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(result.summary, "it works");
    let half = |event: &Event| matches!(event, Event::Progress(one) if one.percent == Some(50));
    assert!(ended.events.iter().any(half));
}

#[test]
fn a_failure_is_told_to_the_model_and_not_to_its_program() {
    let client = waiting();
    let mut mcp = Mcp::ready(&client);
    for (tool, arguments, what) in [
        ("report_progress", json!({}), "arguments"),
        ("report_progress", json!({"text": ""}), "refused"),
        ("ask_operator", json!({"question_id": "q9"}), "refused"),
        (
            "task_result",
            json!({"status": "ok", "summary": "x", "artifacts": ["../x"]}),
            "refused",
        ),
        (
            "task_result",
            json!({"status": "fine", "summary": "x"}),
            "arguments",
        ),
    ] {
        let (said, failed) = mcp.tool(tool, arguments);
        assert!(failed, "{said}");
        assert_eq!(said["status"], "failed");
        assert_eq!(said["what"], what, "{said}");
        assert!(said["reason"].is_string(), "{said}");
    }
    let unknown = mcp.request(
        "tools/call",
        json!({"name": "hello", "arguments": {"token": ""}}),
    );
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    open_gate(&client);
    client.result();
    let (said, failed) = mcp.tool("list_tasks", json!({}));
    assert!(failed);
    assert_eq!(said["what"], "no_host", "{said}");
    assert_eq!(mcp.end(), Some(0));
}
