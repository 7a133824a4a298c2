//! The server of the scripted model: one thread a connection, loopback only, every request on record.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::script::{Player, Reply, Script};
use super::{Wire, anthropic, http, is_turn, openai};
use crate::clock::{Deadline, pause, wall_ns};

/// Longest wait for a release file: longer than any story waits for anything.
pub const RELEASE_MAX: Duration = Duration::from_secs(180);
/// Pause between two looks for it: nothing else tells of it.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Most connections at a time; more are closed at once.
const CONNECTIONS_MAX: usize = 64;
/// A connection without a request for this long is closed.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// A running server; it lives until its process ends.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    record: PathBuf,
}

struct Shared {
    player: Mutex<Player>,
    record: Mutex<Record>,
    connections: AtomicUsize,
}

struct Record {
    file: File,
    number: u64,
}

impl Server {
    /// Begins to serve on a free port; requests are recorded in this file, one JSON object a line.
    ///
    /// # Errors
    /// When there is no port, or the file can not be written.
    pub fn start(script: Script, record: &Path) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let file = OpenOptions::new().create(true).append(true).open(record)?;
        let shared = Arc::new(Shared {
            player: Mutex::new(Player::new(script)),
            record: Mutex::new(Record { file, number: 0 }),
            connections: AtomicUsize::new(0),
        });
        std::thread::Builder::new()
            .name("model".to_owned())
            .spawn(move || accept(&listener, &shared))?;
        let record = record.to_owned();
        Ok(Self { address, record })
    }

    /// Where it is, as agents are told.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The turns asked for so far, as recorded, in order.
    ///
    /// # Errors
    /// When the record can not be read.
    pub fn turns(&self) -> io::Result<Vec<Value>> {
        let text = std::fs::read_to_string(&self.record)?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().map(serde_json::from_str);
        let requests: Vec<Value> = lines.collect::<Result<_, _>>()?;
        let turns = requests.into_iter();
        Ok(turns
            .filter(|request| request["conversation"].is_number())
            .collect())
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            shared.connections.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let shared = Arc::clone(shared);
        let served = std::thread::Builder::new().spawn(move || {
            // An agent that goes away in the middle is what stories are about.
            drop(serve(&stream, &shared));
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        });
        // Without a thread the connection closes: the agent meets a service that is not there.
        drop(served);
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_MAX))?;
    stream.set_nodelay(true)?;
    let mut from = BufReader::new(stream);
    let mut to = stream;
    while let Some(request) = http::read(&mut from)? {
        if !answer(&mut to, &request, shared)? || !request.keep {
            break;
        }
    }
    Ok(())
}

/// Answers one request; false when the connection is to break off.
fn answer(to: &mut impl Write, request: &http::Request, shared: &Shared) -> io::Result<bool> {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
    let wire = Wire::of(&request.path).filter(|_| request.method == "POST");
    let Some(wire) = wire else {
        shared.note(request, &body, None)?;
        return probe(to, request).map(|()| true);
    };
    let (conversation, reply) = if is_turn(&body) {
        let mut player = shared.player.lock().unwrap_or_else(PoisonError::into_inner);
        player.next(&wire.said(&body).to_string())
    } else {
        (None, Reply::aside())
    };
    let number = shared.note(request, &body, conversation)?;
    wait(&reply);
    let streams = wire.streams(&request.path, &body);
    if let Some(fault) = wire.fault(&reply, streams) {
        let text = wire.failure(&fault).to_string();
        http::answer(to, request, fault.status, &fault.headers, &text)?;
        return Ok(true);
    }
    if !streams {
        if reply.drop {
            return Ok(false);
        }
        let text = wire.whole(&reply, number, &body["model"]).to_string();
        http::answer(to, request, 200, &[], &text)?;
        return Ok(true);
    }
    http::begin_stream(to)?;
    for event in wire.events(&reply, number, &body["model"]) {
        http::chunk(to, &event)?;
    }
    if reply.drop {
        return Ok(false);
    }
    http::chunk(to, "")?;
    Ok(true)
}

/// What programs ask beside the model's words: whether anybody is there, and how long a text is.
fn probe(to: &mut impl Write, request: &http::Request) -> io::Result<()> {
    let (status, body) = if request.path.ends_with("/count_tokens") {
        (200, anthropic::count_tokens(&request.body))
    } else if request.path.ends_with("/models") {
        (200, openai::models())
    } else if request.method == "HEAD" || request.path == "/" {
        (200, json!({}))
    } else {
        let message = format!("no {} here", request.path);
        (
            404,
            json!({"type": "error", "error": {"type": "not_found_error", "message": message}}),
        )
    };
    http::answer(to, request, status, &[], &body.to_string())
}

fn wait(reply: &Reply) {
    pause(Duration::from_millis(reply.wait_ms));
    let deadline = Deadline::after(RELEASE_MAX);
    while let Some(file) = &reply.wait_file {
        if file.exists() || deadline.is_over() {
            break;
        }
        pause(LOOK_EVERY);
    }
}

impl Shared {
    /// Puts a request on record and gives it its number.
    fn note(
        &self,
        request: &http::Request,
        body: &Value,
        conversation: Option<usize>,
    ) -> io::Result<u64> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.number += 1;
        let number = record.number;
        let at_ms = i64::try_from(wall_ns() / 1_000_000).unwrap_or(i64::MAX);
        let line = json!({"number": number, "at_ms": at_ms, "method": request.method,
            "path": request.path, "conversation": conversation, "body": body});
        record.file.write_all(format!("{line}\n").as_bytes())?;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::model::said;

    /// What comes back for a request.
    fn ask(server: &Server, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn server(script: &str) -> (tempfile::TempDir, Server) {
        let folder = tempfile::tempdir().unwrap();
        let script = Script::parse(script).unwrap();
        let server = Server::start(script, &folder.path().join("requests.jsonl")).unwrap();
        (folder, server)
    }

    const TURN: &str = r#"{"model":"m","tools":[{"name":"Bash"}],"messages":["hello"]}"#;

    #[test]
    fn a_script_is_played_and_every_request_is_on_record() {
        let (_folder, server) = server(
            r#"{"conversations":[{"replies":[
                {"fail":{"status":429,"message":"slow down","headers":[["retry-after","3"]]}},
                {"content":[{"use":{"tool":"Bash","input":{"command":"ls"}}}]}]}]}"#,
        );
        let first = ask(&server, "POST", "/v1/messages", TURN);
        assert!(first.starts_with("HTTP/1.1 429") && first.contains("retry-after: 3"));
        assert!(first.contains("rate_limit_error") && first.contains("slow down"));
        let aside = ask(
            &server,
            "POST",
            "/v1/messages",
            r#"{"messages":["title?"]}"#,
        );
        assert!(aside.contains("aside"), "no turn is used up: {aside}");
        let stream = TURN.replace(r#""model""#, r#""stream":true,"model""#);
        let second = ask(&server, "POST", "/v1/messages?beta=true", &stream);
        assert!(second.contains("text/event-stream") && second.contains("message_stop"));
        assert!(second.contains("input_json_delta"));
        let turns = server.turns().unwrap();
        assert_eq!(turns.len(), 2);
        assert_eq!(turns[1]["body"]["messages"][0], "hello");
    }

    #[test]
    fn probes_are_answered_and_a_dropped_stream_has_no_end() {
        let (_folder, server) =
            server(r#"{"conversations":[{"replies":[{"drop":true,"content":[{"say":"half"}]}]}]}"#);
        assert!(ask(&server, "HEAD", "/", "").starts_with("HTTP/1.1 200"));
        assert!(ask(&server, "GET", "/v1/engines", "").starts_with("HTTP/1.1 404"));
        assert!(ask(&server, "GET", "/v1/models", "").contains("scripted"));
        let counted = ask(&server, "POST", "/v1/messages/count_tokens", "12345678");
        assert!(counted.contains(r#""input_tokens":2"#), "{counted}");
        let stream = TURN.replace(r#""model""#, r#""stream":true,"model""#);
        let dropped = ask(&server, "POST", "/v1/messages", &stream);
        assert!(dropped.contains("message_start") && !dropped.contains("message_stop"));
    }

    /// How each wire asks for a stream, where it says what was said, and how its answers end.
    const WIRES: [(&str, &str, &str); 4] = [
        ("/v1/messages?beta=true", "messages", "message_stop"),
        ("/v1/responses", "input", "response.completed"),
        ("/v1/chat/completions", "messages", "data: [DONE]"),
        (
            "/v1beta/models/m:streamGenerateContent?alt=sse",
            "contents",
            r#""finishReason":"STOP""#,
        ),
    ];

    /// A turn on this wire in which this was said.
    fn turn(field: &str, said: &str) -> String {
        json!({"model": "m", "stream": true, "tools": [{"name": "sh"}], field: [said]}).to_string()
    }

    #[test]
    fn one_script_drives_every_wire() {
        let limited = json!({"fail": {"status": 429, "message": "slow down",
            "headers": [["retry-after", "3"]], "more": {"resets_in_seconds": 7}}});
        let replies = json!([limited, {"drop": true, "content": [{"say": "half"}]},
            {"overflow": true},
            {"content": [{"say": "I look"}, {"use": {"tool": "sh", "input": {"cmd": "ls"}}}]}]);
        for (path, field, end) in WIRES {
            let script = json!({"conversations": [{"when": "albatross", "replies": replies}]});
            let (_folder, server) = server(&script.to_string());
            let hear = |said: &str| ask(&server, "POST", path, &turn(field, said));
            let limited = hear("an albatross");
            assert!(limited.starts_with("HTTP/1.1 429"), "{limited}");
            for text in ["retry-after: 3", "slow down", r#""resets_in_seconds":7"#] {
                assert!(limited.contains(text), "{text} in {limited}");
            }
            let dropped = hear("an albatross");
            assert!(dropped.starts_with("HTTP/1.1 200"), "{dropped}");
            assert!(!dropped.contains(end) && !dropped.ends_with("0\r\n\r\n"));
            let overflow = hear("an albatross");
            let words = ["too long", "context_length_exceeded", "exceeds the maximum"];
            assert!(
                words.iter().any(|word| overflow.contains(word)),
                "{overflow}"
            );
            let used = hear("an albatross, steered");
            assert!(used.contains(end) && used.ends_with("0\r\n\r\n"), "{used}");
            assert!(
                used.contains("I look") && used.contains(r#""sh""#),
                "{used}"
            );
            assert!(hear("a gull").contains("no more replies"));
            let turns = server.turns().unwrap();
            assert_eq!(turns.len(), 4, "the gull has no conversation");
            assert!(said(&turns[3]).contains("steered") && !said(&turns[2]).contains("steered"));
        }
    }

    #[test]
    fn a_whole_answer_comes_where_no_stream_is_asked_for() {
        for (path, field, _) in WIRES {
            let (_folder, server) =
                server(r#"{"conversations":[{"replies":[{"content":[{"say":"whole"}]}]}]}"#);
            let path = path.replace(":streamGenerateContent?alt=sse", ":generateContent");
            let body = turn(field, "x").replace(r#""stream":true"#, r#""stream":false"#);
            let answer = ask(&server, "POST", &path, &body);
            let (_, body) = answer.split_once("\r\n\r\n").unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            assert!(body.to_string().contains("whole"), "{body}");
        }
    }

    #[test]
    fn a_reply_waits_for_its_release() {
        let folder = tempfile::tempdir().unwrap();
        let release = folder.path().join("go");
        let script = json!({"conversations": [{"replies": [
            {"wait_file": release, "content": [{"say": "free"}]}]}]});
        let (_record, server) = server(&script.to_string());
        let asked =
            std::thread::spawn(move || (ask(&server, "POST", "/v1/messages", TURN), server));
        assert!(!asked.is_finished());
        std::fs::write(&release, "").unwrap();
        let (answer, _server) = asked.join().unwrap();
        assert!(answer.contains("free"));
    }
}
