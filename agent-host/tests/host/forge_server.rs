//! A forge on the loopback interface: it answers as a story tells it to, and remembers what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What was asked.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Path and query.
    pub(crate) path: String,
    /// Headers, names in lower case.
    headers: Vec<(String, String)>,
    /// What was posted; empty: nothing.
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// What it does.
pub(crate) enum Does {
    /// It answers: status, headers, body.
    Answers(u16, Vec<(&'static str, String)>, String),
    /// It promises more than it sends.
    BreaksOff,
    /// It keeps the connection and says nothing.
    Hangs,
}

pub(crate) fn json(body: serde_json::Value) -> Does {
    Does::Answers(200, Vec::new(), body.to_string())
}

/// The forge; it ends with the test's process.
pub(crate) struct ForgeServer {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl ForgeServer {
    pub(crate) fn start(story: impl Fn(&Asked) -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (known, story) = (Arc::clone(&asked), Arc::new(story));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (known, story) = (Arc::clone(&known), Arc::clone(&story));
                std::thread::spawn(move || serve(stream.unwrap(), &known, &*story));
            }
        });
        Self { port, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What it was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

fn serve(stream: TcpStream, asked: &Mutex<Vec<Asked>>, story: &dyn Fn(&Asked) -> Does) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    while let Some(request) = read(&mut reader) {
        asked.lock().unwrap().push(request.clone());
        // Whoever asks may be gone by now, which some stories want.
        let told = match story(&request) {
            Does::Answers(status, headers, body) => answer(&mut writer, status, &headers, &body),
            Does::BreaksOff => {
                drop(writer.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"));
                return;
            }
            // Read on: the other side ends it.
            Does::Hangs => Ok(()),
        };
        if told.is_err() {
            return;
        }
    }
}

fn answer(
    to: &mut TcpStream,
    status: u16,
    headers: &[(&'static str, String)],
    body: &str,
) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if status != 304 {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    to.write_all(text.as_bytes())?;
    to.write_all(body.as_bytes())
}

fn read(from: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        from.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked {
        path,
        headers,
        body: String::new(),
    };
    let length = asked.header("content-length").map(str::parse);
    let length: u64 = length.and_then(Result::ok).unwrap_or(0);
    from.take(length).read_to_string(&mut asked.body).ok()?;
    Some(asked)
}
