//! `agent-host`: one process per run. It is started by `supervisor` with pipes on stdin and stdout,
//! drives one agent program, owns every process below it, and ends with its stdin.
//!
//! One thread, one `poll`, no runtime: a host is started for every run of every task, so its start
//! is most of its cost, and nothing wakes it up unless something happened. Adapters are spared
//! callbacks all the same: they are asked to go on whenever there is something new.

#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

use std::io::Write;

use protocol::command::{Command, Pong, Start};
use protocol::framing::Frame;
use protocol::rpc::{self, ERROR_BAD_PARAMS, ERROR_NO_COMMON_VERSION, Incoming, RpcError};
use protocol::version::{self, Hello};

use crate::link::{Heard, Link};
use crate::namespace::Inside;
use crate::run::complain;
use crate::scratch::Scratch;

mod actions;
mod agent;
mod bridge;
mod call;
mod clock;
#[cfg(all(target_os = "linux", target_env = "gnu", not(test)))]
mod entry;
mod family;
mod fetch;
mod git;
mod host;
mod kernel;
mod link;
mod list;
mod logs;
mod mailbox;
mod namespace;
mod plain;
mod process;
mod program;
mod run;
mod run_dir;
mod scratch;
mod wait;

/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// The two sides do not understand each other: hello refused, or no hello at all.
const EXIT_REFUSED: u8 = 3;
/// The operating system refuses what every run needs.
const EXIT_SYSTEM: u8 = 71;

const HELP: &str = "\
agent-host: carries out one run of one task for `supervisor`.

Without arguments it is not started by hand: it speaks JSON-RPC on stdin and stdout and ends with
its stdin.

Options:
  --version   print the release and the protocol versions
  --help      print this text
";

#[cfg(not(all(target_os = "linux", target_env = "gnu", not(test))))]
fn main() -> std::process::ExitCode {
    run_program().into()
}

/// The whole program; returns its exit status.
fn run_program() -> u8 {
    let mut arguments = std::env::args_os().skip(1);
    let Some(argument) = arguments.next() else {
        return speak();
    };
    let (min, max) = (version::VERSION_MIN, version::VERSION_MAX);
    let text = match argument.to_str() {
        Some("--version") => {
            format!("agent-host {} (protocol {min} to {max})\n", version::BUILD)
        }
        Some("--help") => format!("{HELP}\n{}", call::line::HELP),
        Some(git::WORD) => return git::run(arguments),
        Some(fetch::WORD) => return fetch::run(arguments),
        Some(list::WORD) => return list::run(arguments),
        Some(word) if call::line::is_word(word) => {
            let rest = arguments.map(|one| one.to_string_lossy().into_owned());
            return call::line::run(word, rest.collect());
        }
        _ => {
            complain(
                0,
                &format!("unexpected argument {}; see --help", argument.display()),
            );
            return EXIT_USAGE;
        }
    };
    let mut stdout = std::io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => host::EXIT_OK,
        Err(_) => EXIT_SYSTEM,
    }
}

/// The whole conversation.
fn speak() -> u8 {
    let begun = process::begin().and_then(|()| match namespace::is_wanted() {
        true => namespace::enter(),
        false => Ok(Inside::TheRun),
    });
    match begun {
        Ok(Inside::TheRun) => {}
        Ok(Inside::Outside(status)) => return status,
        Err(error) => {
            complain(0, &format!("can not begin: {error}"));
            return EXIT_SYSTEM;
        }
    }
    let (input, output) = process::take_stdio();
    let link = Link::new(input, output);
    let mut link = match link {
        Ok(link) => link,
        Err(error) => {
            complain(0, &format!("can not begin: {error}"));
            return EXIT_SYSTEM;
        }
    };
    let mut scratch = Scratch::new();
    match gate(&mut link, &mut scratch) {
        Gate::Start(start) => host::carry_out(*start, link, scratch),
        Gate::Left => host::EXIT_OK,
        Gate::Refused(why) => {
            complain(0, &why);
            EXIT_REFUSED
        }
    }
}

/// What came of waiting for `start`.
enum Gate {
    /// The run begins.
    Start(Box<Start>),
    /// The supervisor went away or does not want the run any more.
    Left,
    /// No conversation is possible.
    Refused(String),
}

/// Hello first, then nothing but pings until `start`.
fn gate(link: &mut Link, scratch: &mut Scratch) -> Gate {
    let mut greeted = false;
    loop {
        match link.read(scratch) {
            Ok(Heard::Bytes) => {}
            Ok(Heard::End) => return Gate::Left,
            Err(error) => return Gate::Refused(format!("can not read stdin: {error}")),
        }
        while let Some(frame) = link.next_frame() {
            let Frame::Line(line) = frame else { continue };
            let step = if greeted {
                before_start(link, &line)
            } else {
                hello(link, &line)
            };
            match step {
                Ok(None) => greeted = true,
                Ok(Some(gate)) => return gate,
                Err(why) => return Gate::Refused(why),
            }
            if link.flush().is_err() {
                return Gate::Left;
            }
        }
    }
}

/// Answers the hello; nothing else may come first.
fn hello(link: &mut Link, line: &[u8]) -> Result<Option<Gate>, String> {
    let (id, hello) = match rpc::read(line) {
        Ok(Incoming::Request { id, method, params }) if method == "hello" => {
            let params = params.map_or("null", |params| params.get());
            (id, serde_json::from_str::<Hello>(params))
        }
        Ok(_) => return Err("the first message was no hello".to_owned()),
        Err(error) => return Err(format!("the first line was no hello: {error}")),
    };
    let reply = hello
        .map_err(|error| (ERROR_BAD_PARAMS, error.to_string()))
        .and_then(|hello| {
            version::answer(&hello).map_err(|skew| (ERROR_NO_COMMON_VERSION, skew.to_string()))
        });
    match reply {
        Ok(reply) => send(link, rpc::answer(id, reply)).map(|()| None),
        Err((code, message)) => {
            send(
                link,
                rpc::refusal(
                    id,
                    &RpcError {
                        code,
                        message: message.clone(),
                    },
                ),
            )?;
            Err(match link.flush() {
                Ok(()) => message,
                Err(error) => format!("{message}; and nobody reads that: {error}"),
            })
        }
    }
}

/// Between hello and `start`.
fn before_start(link: &mut Link, line: &[u8]) -> Result<Option<Gate>, String> {
    match rpc::read(line) {
        Ok(Incoming::Request { id, method, .. }) if method == "ping" => {
            send(link, rpc::answer(id, Pong::default())).map(|()| None)
        }
        Ok(Incoming::Request { id, method, .. }) => {
            send(link, host::unknown_method(id, &method)).map(|()| None)
        }
        Ok(Incoming::Notification { method, .. }) => match serde_json::from_slice(line) {
            Ok(Command::Start(start)) => Ok(Some(Gate::Start(start))),
            Ok(Command::Stop(_)) => Ok(Some(Gate::Left)),
            Ok(Command::Deliver(_) | Command::Answer(_) | Command::Interrupt {}) => {
                complain(0, &format!("`{method}` before `start` is not heeded"));
                Ok(None)
            }
            Err(error) => Err(format!("`{method}` before the run: {error}")),
        },
        Ok(Incoming::Answer { .. }) => Err("an answer before the run".to_owned()),
        Err(error) => Err(format!("garbage before the run: {error}")),
    }
}

fn send(link: &mut Link, line: Result<Vec<u8>, serde_json::Error>) -> Result<(), String> {
    let line = line.map_err(|error| error.to_string())?;
    if link.send(&line) {
        Ok(())
    } else {
        Err("an answer is too long".to_owned())
    }
}
