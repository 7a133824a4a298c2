//! A host that does not keep the protocol: `hostile_host FOLDER AGENT_HOST`. What it does at its
//! start is the next line of `FOLDER/plan`; once there is none it is an honest host that turns
//! on its supervisor only for tasks whose id names a misdeed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ExitCode, Stdio};

use nix::fcntl::{FcntlArg, OFlag};
use protocol::version::BUILD;
use serde_json::{Value, json};
use supervisor_tests::world::tool;

/// Lines of a flood that has an end: more than any supervisor puts up with.
const MANY: usize = 5_000;
/// Bytes of a line that is far too long.
const LONG_LINE: usize = 100_000_000;
/// Bytes of a text in a report that is just short enough.
const LONG_TEXT: usize = 1_000_000;

/// Where the commands come from.
type Input = BufReader<io::Stdin>;

fn main() -> io::Result<ExitCode> {
    let args: Vec<String> = std::env::args().collect();
    let [_, folder, host] = args.as_slice() else {
        return Err(io::Error::other("usage: hostile_host FOLDER AGENT_HOST"));
    };
    match next_misdeed(Path::new(folder))? {
        Some(misdeed) => at_once(&misdeed),
        None => honest(host),
    }
}

/// The next line of the plan; each is taken once, whoever comes.
fn next_misdeed(folder: &Path) -> io::Result<Option<String>> {
    let plan = std::fs::read_to_string(folder.join("plan"))?;
    for (number, misdeed) in plan.lines().enumerate() {
        match File::create_new(folder.join(format!("taken-{number}"))) {
            Ok(_) => return Ok(Some(misdeed.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Before or instead of the hello.
fn at_once(misdeed: &str) -> io::Result<ExitCode> {
    let out = &mut io::stdout().lock();
    match misdeed {
        "silent" => {}
        "exit-0" => return Ok(ExitCode::SUCCESS),
        "exit-9" => return Ok(9.into()),
        "blank" => out.write_all(b"\n")?,
        "garbage" => many(out, b"\x89PNG\xff\xfe{]\n")?,
        "long-line" => long_line(out)?,
        "older" => hello(out, 0, BUILD)?,
        "newer" => hello(out, 99, BUILD)?,
        "other-release" => hello(out, 1, "99.0.0")?,
        "refuses" => {
            let error = json!({"code": -32001, "message": "no common protocol version"});
            say(out, &json!({"jsonrpc": "2.0", "id": 1, "error": error}))?;
        }
        other => return Err(io::Error::other(format!("no misdeed `{other}`"))),
    }
    out.flush()?;
    wait_for_stop(&mut io::stdin().lock(), false)?;
    Ok(ExitCode::SUCCESS)
}

fn hello(out: &mut impl Write, version: u32, build: &str) -> io::Result<()> {
    let reply = json!({"version": version, "build": build});
    say(out, &json!({"jsonrpc": "2.0", "id": 1, "result": reply}))
}

/// The real host says the hello; at the start it is known whose run this is.
fn honest(host: &str) -> io::Result<ExitCode> {
    let mut input = BufReader::new(io::stdin());
    let mut real = tool(host).stdin(Stdio::piped()).spawn()?;
    let mut to_real = real.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let command: Value = serde_json::from_slice(&line)?;
        let params = &command["params"];
        let task = params["task"].as_str().unwrap_or_default();
        if command["method"] == "start" && task.starts_with("bad-") {
            return misbehave(task, params, input, (real, to_real));
        }
        to_real.write_all(&line)?;
        if command["method"] == "start" {
            return serve(real, to_real, input);
        }
        line.clear();
    }
    drop(to_real);
    end_as(&mut real)
}

/// Hands on every further command, and ends as the real host does.
fn serve(mut real: Child, mut to_real: ChildStdin, mut input: Input) -> io::Result<ExitCode> {
    std::thread::spawn(move || io::copy(&mut input, &mut to_real));
    end_as(&mut real)
}

fn end_as(real: &mut Child) -> io::Result<ExitCode> {
    let code = real.wait()?.code();
    let code = code.and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// In the middle of a run.
fn misbehave(
    task: &str,
    start: &Value,
    mut input: Input,
    (mut real, to_real): (Child, ChildStdin),
) -> io::Result<ExitCode> {
    drop(to_real);
    real.wait()?;
    // The real host has set our stdout, which it shared, to not block.
    nix::fcntl::fcntl(io::stdout(), FcntlArg::F_SETFL(OFlag::empty()))?;
    let own = start["generation"].as_u64().unwrap_or_default();
    let out = &mut io::stdout();
    if task != "bad-exit-3-before-started" {
        say(out, &report(own, &started()))?;
    }
    let mut deaf = false;
    match task {
        "bad-no-result" => return Ok(ExitCode::SUCCESS),
        "bad-exit-3-before-started" | "bad-exit-3" => return Ok(3.into()),
        "bad-garbage" => many(out, b"{\"jsonrpc\":\"2.0\",\"method\":\"report\"}\n")?,
        "bad-blank" => many(out, b" \t\r\n")?,
        "bad-long-line" => long_line(out)?,
        "bad-closed-stdout" => {
            nix::unistd::close(1)?;
            deaf = true;
        }
        "bad-other-run" => {
            let result = json!({"type": "result", "status": "ok", "summary": "done",
                "usage": {"turns": 0, "tokens": 0, "cost_micros": 0}});
            say(out, &report(own + 1, &result))?;
            say(out, &report(own.wrapping_sub(1), &result))?;
            return Ok(ExitCode::SUCCESS);
        }
        "bad-other-run-for-ever" => {
            let line = format!("{}\n", report(own + 1, &json!({"type": "turn_ended"})));
            many(out, line.as_bytes())?;
        }
        "bad-flood" => return flood(out, input, &said(own, "x")),
        "bad-wide-flood" => {
            return flood(out, input, &said(own, &"x".repeat(LONG_TEXT)));
        }
        "bad-question-flood" => {
            let ask = json!({"generation": own, "text": "x".repeat(LONG_TEXT)});
            let ask = json!({"jsonrpc": "2.0", "id": 7, "method": "ask", "params": ask});
            return flood(out, input, &ask);
        }
        other => return Err(io::Error::other(format!("no misdeed `{other}`"))),
    }
    wait_for_stop(&mut input, deaf)?;
    Ok(ExitCode::SUCCESS)
}

fn started() -> Value {
    let capabilities = json!({"steer": "none", "receipt": "injected", "interrupt": false,
        "resume": false, "questions": false, "usage": false, "cost": false});
    json!({"type": "started", "capabilities": capabilities})
}

fn report(generation: u64, event: &Value) -> Value {
    let params = json!({"generation": generation, "event": event});
    json!({"jsonrpc": "2.0", "method": "report", "params": params})
}

fn said(own: u64, text: &str) -> Value {
    report(own, &json!({"type": "assistant_message", "text": text}))
}

/// Good messages until it is told to stop.
fn flood(out: &mut impl Write, mut input: Input, message: &Value) -> io::Result<ExitCode> {
    let line = format!("{message}\n");
    let told = std::thread::spawn(move || wait_for_stop(&mut input, false));
    while !told.is_finished() {
        out.write_all(line.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn say(out: &mut impl Write, message: &Value) -> io::Result<()> {
    writeln!(out, "{message}")?;
    out.flush()
}

fn many(out: &mut impl Write, line: &[u8]) -> io::Result<()> {
    for _ in 0..MANY {
        out.write_all(line)?;
    }
    out.flush()
}

fn long_line(out: &mut impl Write) -> io::Result<()> {
    let part = vec![b'x'; 1 << 16];
    for _ in 0..LONG_LINE.div_ceil(part.len()) {
        out.write_all(&part)?;
    }
    out.flush()
}

/// Lives on: until it is told to stop or its stdin ends, or, deaf, until it is killed.
fn wait_for_stop(input: &mut impl BufRead, deaf: bool) -> io::Result<()> {
    let mut line = String::new();
    while deaf || input.read_line(&mut line)? > 0 {
        if deaf {
            nix::unistd::pause();
        } else if line.contains("\"method\":\"stop\"") {
            break;
        }
        line.clear();
    }
    Ok(())
}
