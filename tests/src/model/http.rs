//! HTTP/1.1 as far as agents speak it to a model: whole requests in, whole or streamed answers out,
//! all of it bounded.

use std::io::{self, BufRead, Read, Write};

/// Longest line of a request's head, bytes: tokens in headers are long, paths are not.
const LINE_MAX: u64 = 64 * 1024;
/// Most headers of a request.
const HEADERS_MAX: usize = 128;
/// Largest body, bytes: several times a full context window as JSON.
const BODY_MAX: u64 = 64 << 20;

/// One request.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    /// Whether the connection is to stay open.
    pub(super) keep: bool,
}

/// Reads the next request; `None` at the end of the connection.
///
/// # Errors
/// What the connection says; "invalid data" for what is no request within the limits.
pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some(first) = line(from)? else {
        return Ok(None);
    };
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(bad("no request line"));
    };
    let (mut length, mut keep) = (0, true);
    for count in 0.. {
        let header = line(from)?.ok_or_else(|| bad("the head breaks off"))?;
        if header.is_empty() {
            break;
        }
        if count == HEADERS_MAX {
            return Err(bad("too many headers"));
        }
        let (name, value) = header.split_once(':').ok_or_else(|| bad("no header"))?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| bad("no length"))?,
            "transfer-encoding" => return Err(bad("a body without a length")),
            "connection" => keep = !value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    if length > BODY_MAX {
        return Err(bad("a body that is too large"));
    }
    let mut body = Vec::new();
    if from.take(length).read_to_end(&mut body)? as u64 != length {
        return Err(bad("the body breaks off"));
    }
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let method = method.to_owned();
    Ok(Some(Request {
        method,
        path,
        body,
        keep,
    }))
}

/// One line without its end; `None` at the end of the connection.
fn line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    from.take(LINE_MAX).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(bad("a line without its end"));
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    let text = String::from_utf8(bytes).map_err(|_| bad("a head that is no text"))?;
    Ok(Some(text))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn head(status: u16, headers: &[(String, String)]) -> String {
    let mut head = format!("HTTP/1.1 {status} {}\r\n", reason(status));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        429 => "Too Many Requests",
        _ => "Status",
    }
}

/// Writes an answer with a JSON body; none for a `HEAD`.
///
/// # Errors
/// What the connection says.
pub(super) fn answer(
    to: &mut impl Write,
    request: &Request,
    status: u16,
    headers: &[(String, String)],
    body: &str,
) -> io::Result<()> {
    let mut text = head(status, headers);
    let length = body.len();
    text.push_str(&format!(
        "content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    ));
    if request.method != "HEAD" {
        text.push_str(body);
    }
    to.write_all(text.as_bytes())
}

/// Begins an answer whose length is not known.
///
/// # Errors
/// What the connection says.
pub(super) fn begin_stream(to: &mut impl Write) -> io::Result<()> {
    let mut text = head(200, &[]);
    text.push_str("content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    to.write_all(text.as_bytes())
}

/// Writes one piece of a stream; an empty one ends it.
///
/// # Errors
/// What the connection says.
pub(super) fn chunk(to: &mut impl Write, piece: &str) -> io::Result<()> {
    to.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_one_after_the_other() {
        let bytes = b"POST /v1/messages?beta=true HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}\
            HEAD / HTTP/1.1\r\nconnection: close\r\n\r\n";
        let mut from = bytes.as_slice();
        let first = read(&mut from).unwrap().unwrap();
        assert_eq!(
            (first.path.as_str(), first.body.as_slice(), first.keep),
            ("/v1/messages", b"{}".as_slice(), true)
        );
        let second = read(&mut from).unwrap().unwrap();
        assert_eq!((second.method.as_str(), second.keep), ("HEAD", false));
        assert!(read(&mut from).unwrap().is_none());
    }

    #[test]
    fn what_breaks_off_or_is_too_large_is_refused() {
        let large = format!(
            "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n",
            BODY_MAX + 1
        );
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000));
        let cut = "POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc";
        for text in [
            large.as_str(),
            &long,
            cut,
            "GET\r\n\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            let error = read(&mut text.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
