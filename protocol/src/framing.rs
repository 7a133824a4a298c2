//! Bytes to lines: bounded, incomplete is a value, blank and over-long lines have their own.

/// Longest line in either direction, bytes without the newline (1 MiB: room for a long message,
/// small enough that a thousand hosts can not exhaust the supervisor).
pub const LINE_MAX: usize = 1 << 20;

/// What the reader found next.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole line without its newline; not yet known to be JSON.
    Line(Vec<u8>),
    /// A line of nothing but white space.
    Blank,
    /// A line over the limit; its bytes are dropped as they come. Reported once, as soon as the
    /// limit is passed, with the bytes seen by then; the rest of that line is swallowed.
    TooLong {
        /// Bytes seen when the limit was passed.
        seen: usize,
    },
}

/// Collects bytes and yields frames; holds at most one line of [`LINE_MAX`] plus what one
/// [`FrameReader::push`] brought.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Bytes of `buffer` already known to hold no newline.
    scanned: usize,
    /// Bytes of `buffer` already given out.
    start: usize,
    swallowing: bool,
    max: usize,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self::with_max(LINE_MAX)
    }
}

impl FrameReader {
    /// A reader with a limit of its own (tests).
    pub fn with_max(max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            scanned: 0,
            start: 0,
            swallowing: false,
            max,
        }
    }

    /// Takes in bytes as they came from the pipe.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or `None` when the bytes so far hold no whole line.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let newline = self.buffer[self.scanned..]
                .iter()
                .position(|&byte| byte == b'\n');
            let Some(offset) = newline else {
                self.scanned = self.buffer.len();
                return self.without_newline();
            };
            let end = self.scanned + offset;
            let line = self.buffer[self.start..end].to_vec();
            self.start = end + 1;
            self.scanned = self.start;
            if std::mem::take(&mut self.swallowing) {
                continue;
            }
            return Some(self.classify(line));
        }
    }

    /// Bytes after the last newline: what a stream that ends now leaves unfinished.
    pub fn unfinished(&self) -> usize {
        self.buffer.len() - self.start
    }

    fn without_newline(&mut self) -> Option<Frame> {
        let seen = self.unfinished();
        if !self.swallowing && seen <= self.max {
            return None;
        }
        self.buffer.clear();
        self.buffer.shrink_to(self.max);
        self.start = 0;
        self.scanned = 0;
        let first = !std::mem::replace(&mut self.swallowing, true);
        first.then_some(Frame::TooLong { seen })
    }

    fn classify(&self, line: Vec<u8>) -> Frame {
        if line.len() > self.max {
            return Frame::TooLong { seen: line.len() };
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return Frame::Blank;
        }
        Frame::Line(line)
    }
}
