//! The command line of a plain program's agent: `say`, `ask`, `result`, `progress`, `mailbox`, `tasks`.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::bridge::{BRIDGE_ENV, Call, Reply};
use protocol::ids::QuestionId;
use protocol::report::{ResultStatus, Verdict};

use super::client::{CallError, call};
use super::mcp;
use crate::{EXIT_SYSTEM, EXIT_USAGE, clock, host, process};

/// The host refused the call.
const EXIT_REFUSED_CALL: u8 = 1;
/// Nobody answered the question in the time that the caller had.
const EXIT_UNANSWERED: u8 = 6;
/// There is no bridge, or its host is gone (as `EX_UNAVAILABLE` of sysexits).
const EXIT_NO_BRIDGE: u8 = 69;
/// Longest `--timeout`, seconds: a week.
const TIMEOUT_MAX_S: u64 = 7 * 86_400;

/// What the words of this file are.
pub(crate) const HELP: &str = "\
Inside a run, for its agent:
  agent-host progress TEXT [--percent N]        say how far the work is
  agent-host ask QUESTION [--option TEXT]... [--question ID] [--timeout SECONDS]
                                                ask the operator, wait, print the answer
  agent-host say TEXT [--to TASK] [--urgent]    a message to the operator, or to another task
  agent-host mailbox                            take and print the messages that wait
  agent-host tasks                              the tasks of the batch and how far they are
  agent-host result ok|failed SUMMARY [--artifact FILE]... [--verdict approve|revise|reject]
                                                say how the work went; the verdict in a review
  agent-host mcp                                the same as an MCP server on stdin and stdout
Each takes --bridge FILE (else SUPERVISOR_BRIDGE names it), all but mcp --json.
They exit with 0; 1 the call was refused; 2 usage; 6 nobody answered in time; 69 there is no bridge
or its host is gone.
";

/// What the arguments ask for.
#[derive(Debug, PartialEq)]
struct Wanted {
    what: What,
    bridge: Option<PathBuf>,
    json: bool,
    timeout: Option<Duration>,
}

#[derive(Debug, PartialEq)]
enum What {
    Call(Call),
    Mcp,
}

/// Whether the first argument is a word of this file.
pub(crate) fn is_word(word: &str) -> bool {
    matches!(
        word,
        "progress" | "ask" | "say" | "mailbox" | "tasks" | "result" | "mcp"
    )
}

/// Does what the arguments say; returns the exit status.
pub(crate) fn run(word: &str, rest: VecDeque<String>) -> u8 {
    process::ignore_broken_pipes();
    let wanted = match understand(word, rest) {
        Ok(wanted) => wanted,
        Err(why) => {
            complain(&format!("{why}; see agent-host --help"));
            return EXIT_USAGE;
        }
    };
    let named = wanted.bridge.or_else(|| {
        let named = std::env::var_os(BRIDGE_ENV);
        named.filter(|file| !file.is_empty()).map(PathBuf::from)
    });
    let Some(file) = named else {
        complain(&CallError::NoBridge.text());
        return EXIT_NO_BRIDGE;
    };
    match wanted.what {
        What::Mcp => mcp::serve(file),
        What::Call(first) => {
            let since = clock::now();
            let until = wanted.timeout.map(|timeout| since + timeout);
            match patiently(&file, first, until) {
                Ok(reply) => print(&reply, wanted.json),
                Err(error) => {
                    complain(&error.text());
                    if error.is_refusal() {
                        EXIT_REFUSED_CALL
                    } else {
                        EXIT_NO_BRIDGE
                    }
                }
            }
        }
    }
}

/// Makes the call, and goes on waiting for an answer that is pending.
fn patiently(file: &Path, first: Call, until: Option<Instant>) -> Result<Reply, CallError> {
    let mut next = first;
    loop {
        let reply = call(file, &next)?;
        let Reply::Pending { question_id, .. } = &reply else {
            return Ok(reply);
        };
        if until.is_some_and(|until| clock::now() >= until) {
            return Ok(reply);
        }
        next = Call::AskOperator {
            question: String::new(),
            options: Vec::new(),
            question_id: Some(*question_id),
        };
    }
}

/// The arguments behind the word.
#[derive(Default)]
struct Given {
    plain: Vec<String>,
    bridge: Option<PathBuf>,
    json: bool,
    timeout: Option<Duration>,
    percent: Option<u8>,
    options: Vec<String>,
    question: Option<QuestionId>,
    to: Option<String>,
    urgent: bool,
    artifacts: Vec<String>,
    verdict: Option<Verdict>,
}

fn understand(word: &str, mut rest: VecDeque<String>) -> Result<Wanted, String> {
    let mut given = Given::default();
    let mut only_plain = false;
    while let Some(one) = rest.pop_front() {
        if only_plain || !one.starts_with("--") {
            given.plain.push(one);
        } else if one == "--" {
            only_plain = true;
        } else {
            option(word, &one, &mut rest, &mut given)?;
        }
    }
    let call = what(word, &mut given)?;
    if let Some(extra) = given.plain.first() {
        return Err(format!(
            "unexpected argument `{extra}`; quote a text of several words"
        ));
    }
    Ok(Wanted {
        what: call,
        bridge: given.bridge,
        json: given.json,
        timeout: given.timeout,
    })
}

fn option(
    word: &str,
    name: &str,
    rest: &mut VecDeque<String>,
    given: &mut Given,
) -> Result<(), String> {
    let mut value = || {
        rest.pop_front()
            .ok_or_else(|| format!("`{name}` needs a value"))
    };
    let bad = |text: String| format!("`{text}` makes no sense for `{name}`");
    match (name, word) {
        ("--bridge", _) => given.bridge = Some(value()?.into()),
        ("--json", word) if word != "mcp" => given.json = true,
        ("--percent", "progress") => {
            let text = value()?;
            given.percent = Some(text.parse().map_err(|_| bad(text))?);
        }
        ("--option", "ask") => given.options.push(value()?),
        ("--question", "ask") => {
            let text = value()?;
            given.question = Some(text.parse().map_err(|_| bad(text))?);
        }
        ("--timeout", "ask") => {
            let text = value()?;
            let seconds: Option<u64> = text.parse().ok();
            let seconds = seconds.filter(|seconds| *seconds <= TIMEOUT_MAX_S);
            given.timeout = Some(Duration::from_secs(seconds.ok_or_else(|| bad(text))?));
        }
        ("--to", "say") => given.to = Some(value()?),
        ("--urgent", "say") => given.urgent = true,
        ("--artifact", "result") => given.artifacts.push(value()?),
        ("--verdict", "result") => {
            given.verdict = Some(match value()?.as_str() {
                "approve" => Verdict::Approve,
                "revise" => Verdict::Revise,
                "reject" => Verdict::Reject,
                other => {
                    return Err(format!(
                        "a verdict is approve, revise or reject, not `{other}`"
                    ));
                }
            });
        }
        (_, _) => return Err(format!("`{word}` has no option `{name}`")),
    }
    Ok(())
}

fn what(word: &str, given: &mut Given) -> Result<What, String> {
    let mut next = |what: &str| {
        if given.plain.is_empty() {
            Err(format!("`{word}` needs {what}"))
        } else {
            Ok(given.plain.remove(0))
        }
    };
    Ok(What::Call(match word {
        "progress" => Call::ReportProgress {
            text: next("a text")?,
            percent: given.percent,
        },
        "ask" if given.question.is_some() => Call::AskOperator {
            question: String::new(),
            options: Vec::new(),
            question_id: given.question,
        },
        "ask" => Call::AskOperator {
            question: next("a question")?,
            options: std::mem::take(&mut given.options),
            question_id: None,
        },
        "say" => Call::SendMessage {
            text: next("a text")?,
            to: given.to.take(),
            urgent: given.urgent,
        },
        "mailbox" => Call::ReadMailbox {},
        "tasks" => Call::ListTasks {},
        "result" => Call::TaskResult {
            status: match next("ok or failed")?.as_str() {
                "ok" => ResultStatus::Ok,
                "failed" => ResultStatus::Failed,
                other => return Err(format!("a result is ok or failed, not `{other}`")),
            },
            summary: next("a summary")?,
            artifacts: std::mem::take(&mut given.artifacts),
            verdict: given.verdict,
        },
        _mcp => return Ok(What::Mcp),
    }))
}

/// Prints a reply; returns the exit status.
fn print(reply: &Reply, json: bool) -> u8 {
    let text = match json {
        true => serde_json::to_string(reply).map(|line| line + "\n"),
        false => Ok(plain(reply)),
    };
    let mut stdout = io::stdout();
    let printed = text
        .map_err(io::Error::from)
        .and_then(|text| stdout.write_all(text.as_bytes()))
        .and_then(|()| stdout.flush());
    match (printed, reply) {
        (Err(_), _) => EXIT_SYSTEM,
        (Ok(()), Reply::Pending { question_id, .. }) => {
            complain(&format!("{question_id} is not answered yet"));
            EXIT_UNANSWERED
        }
        (
            Ok(()),
            Reply::Done {}
            | Reply::Sent { .. }
            | Reply::Answered { .. }
            | Reply::Mailbox { .. }
            | Reply::Tasks { .. },
        ) => host::EXIT_OK,
    }
}

/// A reply for people and shells; nothing where there is nothing to say.
fn plain(reply: &Reply) -> String {
    match reply {
        Reply::Done {} | Reply::Pending { .. } => String::new(),
        Reply::Sent { message_id } => format!("{message_id}\n"),
        Reply::Answered { answer, .. } => format!("{answer}\n"),
        Reply::Mailbox {
            messages, answers, ..
        } => {
            let messages = messages.iter().map(|letter| {
                let from = letter.from.as_ref();
                let from =
                    from.map_or_else(|| "the operator".to_owned(), |id| format!("task {id}"));
                format!("--- {} from {from} ---\n{}\n", letter.id, letter.text)
            });
            let answers = answers.iter().map(|late| {
                let (id, question) = (late.question_id, &late.question);
                format!("--- answer to {id} ({question}) ---\n{}\n", late.answer)
            });
            messages.chain(answers).collect()
        }
        Reply::Tasks { tasks, left_out } => {
            let lines = tasks.iter().map(|task| {
                format!(
                    "{}\t{}\t{}\n",
                    task.id,
                    task.state,
                    first_line(&task.summary)
                )
            });
            let mut text: String = lines.collect();
            if *left_out > 0 {
                text.push_str(&format!("and {left_out} more\n"));
            }
            text
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn complain(text: &str) {
    let line = format!("agent-host: {text}\n");
    // There is nowhere left to say that stderr is gone.
    drop(io::stderr().write_all(line.as_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &[&str]) -> Result<Wanted, String> {
        let rest = line[1..].iter().map(|word| (*word).to_owned());
        understand(line[0], rest.collect())
    }

    fn called(line: &[&str]) -> Call {
        match wanted(line).unwrap().what {
            What::Call(call) => call,
            What::Mcp => panic!("{line:?}"),
        }
    }

    #[test]
    fn every_word_becomes_its_call() {
        assert_eq!(
            called(&["progress", "half", "--percent", "50"]),
            Call::ReportProgress {
                text: "half".to_owned(),
                percent: Some(50)
            }
        );
        assert_eq!(
            called(&["ask", "--option", "yes", "--option", "no", "well?"]),
            Call::AskOperator {
                question: "well?".to_owned(),
                options: vec!["yes".to_owned(), "no".to_owned()],
                question_id: None
            }
        );
        assert_eq!(
            called(&["say", "--to", "docs", "--", "--ready--"]),
            Call::SendMessage {
                to: Some("docs".to_owned()),
                text: "--ready--".to_owned(),
                urgent: false
            }
        );
        assert_eq!(
            called(&["result", "failed", "no luck", "--artifact", "log.txt"]),
            Call::TaskResult {
                status: ResultStatus::Failed,
                summary: "no luck".to_owned(),
                artifacts: vec!["log.txt".to_owned()],
                verdict: None
            }
        );
        assert_eq!(called(&["mailbox"]), Call::ReadMailbox {});
        assert_eq!(called(&["tasks", "--json"]), Call::ListTasks {});
        assert_eq!(wanted(&["mcp", "--bridge", "f"]).unwrap().what, What::Mcp);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_word_that_does_not() {
        for (line, said) in [
            (&["say"][..], "needs a text"),
            (&["say", "two", "words"], "`words`"),
            (&["say", "x", "--percent", "3"], "no option `--percent`"),
            (&["progress", "x", "--percent", "many"], "`many`"),
            (&["ask", "x", "--timeout"], "needs a value"),
            (&["ask", "x", "--timeout", "9999999"], "`9999999`"),
            (&["result", "fine", "x"], "not `fine`"),
            (&["result", "ok"], "needs a summary"),
            (&["mcp", "--json"], "no option `--json`"),
        ] {
            let refused = wanted(line).unwrap_err();
            assert!(refused.contains(said), "{line:?}: {refused}");
        }
    }
}
