//! Requests carried by the `gh` program, with the operator's own login.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use protocol::report::excerpt;

use super::answer::{Answer, Ask, BODY_MAX, NoAnswer, Transport};
use super::error::ForgeError;
use crate::process::{DEFAULT_PATH, resolve};

/// Largest head of an answer, bytes.
const HEAD_MAX: usize = 64 << 10;
/// Most bytes of its standard error that are kept.
const SAID_MAX: u64 = 4 << 10;

/// The program, logged in at one forge.
#[derive(Debug)]
pub(super) struct Gh {
    file: PathBuf,
    host: String,
}

impl Gh {
    /// Finds it, if it is there and has a login for this forge.
    pub(super) fn logged_in(host: &str, path: Option<String>) -> Option<Self> {
        let path = path.unwrap_or_else(|| DEFAULT_PATH.to_owned());
        let gh = Self {
            file: resolve("gh", &path, "/")?,
            host: host.to_owned(),
        };
        // The answer is the login itself: it is not looked at, only whether there is one.
        let mut command = gh.command(&["auth", "token", "--hostname", host]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let known = command.status().is_ok_and(|status| status.success());
        known.then_some(gh)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the one place that starts `gh`, inside a process that the host owns"
        )]
        let mut command = Command::new(&self.file);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .env("GH_PROMPT_DISABLED", "1")
            .env("GH_NO_UPDATE_NOTIFIER", "1")
            .env("NO_COLOR", "1")
            .env_remove("GH_DEBUG");
        command
    }

    fn not_run(&self, error: &std::io::Error) -> NoAnswer {
        NoAnswer::NotRun(ForgeError::NotRun {
            program: self.file.display().to_string(),
            why: error.to_string(),
        })
    }
}

impl Transport for Gh {
    fn send(&self, ask: Ask<'_>) -> Result<Answer, NoAnswer> {
        let accept = format!("Accept: {}", ask.accept);
        let mark = ask.etag.map(|etag| format!("If-None-Match: {etag}"));
        let method = if ask.body.is_some() { "POST" } else { "GET" };
        let mut arguments = vec!["api", "--include", "--method", method];
        arguments.extend(["--hostname", &self.host, "-H", &accept]);
        arguments.extend(mark.iter().flat_map(|mark| ["-H", mark.as_str()]));
        if ask.body.is_some() {
            arguments.extend(["--input", "-"]);
        }
        arguments.push(ask.path.trim_start_matches('/'));
        let mut command = self.command(&arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if ask.body.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.spawn().map_err(|error| self.not_run(&error))?;
        if let (Some(body), Some(mut stdin)) = (ask.body, child.stdin.take()) {
            // At most as long as a pipe is without a reader; what `gh` says tells why it did not read.
            if let Err(error) = stdin.write_all(body.as_bytes())
                && error.kind() != std::io::ErrorKind::BrokenPipe
            {
                return Err(self.not_run(&error));
            }
        }
        let (out, said) = take_in(child).map_err(|error| self.not_run(&error))?;
        if out.len() as u64 > BODY_MAX {
            return Err(NoAnswer::TooLarge);
        }
        // Its exit repeats the status; without one it is about the way there.
        read(&out).ok_or_else(|| {
            let line = said.lines().map(str::trim).rfind(|line| !line.is_empty());
            let line = line.unwrap_or("`gh` printed no answer");
            NoAnswer::Unreached(excerpt(line, 300))
        })
    }
}

/// What it prints, one byte beyond the limit at most, and the beginning of what it says.
fn take_in(mut child: Child) -> std::io::Result<(Vec<u8>, String)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut out = Vec::new();
    let said = std::thread::scope(|scope| {
        let said = scope.spawn(|| {
            let mut said = Vec::new();
            let mut rest = stderr?;
            rest.by_ref().take(SAID_MAX).read_to_end(&mut said).ok()?;
            std::io::copy(&mut rest, &mut std::io::sink()).ok()?;
            Some(said)
        });
        let read = stdout.map(|stdout| stdout.take(BODY_MAX + 1).read_to_end(&mut out));
        read.transpose().map(|_| said.join().ok().flatten())
    })?;
    child.wait()?;
    let said = said.unwrap_or_default();
    Ok((out, String::from_utf8_lossy(&said).into_owned()))
}

/// Reads what `gh api --include` prints: the head of the answer, an empty line, the body.
fn read(out: &[u8]) -> Option<Answer> {
    let head_max = out.len().min(HEAD_MAX);
    let mut headers = Vec::new();
    let mut status = None;
    let mut at = 0;
    loop {
        let end = out[at..head_max].iter().position(|byte| *byte == b'\n')?;
        let line = std::str::from_utf8(&out[at..at + end]).ok()?;
        let line = line.trim_end_matches('\r');
        at += end + 1;
        match (status, line) {
            (None, line) => {
                let rest = line.strip_prefix("HTTP/")?;
                status = Some(rest.split(' ').nth(1)?.parse().ok()?);
            }
            (Some(status), "") => {
                let body = out[at..].to_vec();
                return Some(Answer {
                    status,
                    headers,
                    body,
                });
            }
            (Some(_), line) => {
                let (name, value) = line.split_once(':')?;
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_body_are_told_apart() {
        let out = b"HTTP/2.0 404 Not Found\r\nEtag: W/\"x\"\r\nA: b: c\r\n\r\nbody\r\n\r\nmore";
        let answer = read(out).unwrap();
        assert_eq!(answer.status, 404);
        assert_eq!(answer.header("etag"), Some("W/\"x\""));
        assert_eq!(answer.header("a"), Some("b: c"));
        assert_eq!(answer.body, b"body\r\n\r\nmore");
    }

    #[test]
    fn anything_else_is_no_answer() {
        for out in [
            "",
            "error connecting to forge.example\n",
            "HTTP/2.0 x\n\n",
            "HTTP/2.0 200 OK\nno header\n\n",
            "HTTP/2.0 200 OK\nA: b\n",
        ] {
            assert_eq!(read(out.as_bytes()), None, "{out}");
        }
    }
}
