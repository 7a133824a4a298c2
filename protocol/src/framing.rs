//! Bytes to lines: bounded, incomplete is a value, blank and over-long lines have their own.

/// Longest line in either direction, bytes without the newline (1 MiB: room for a long message,
/// small enough that a thousand hosts can not exhaust the supervisor).
pub const LINE_MAX: usize = 1 << 20;

/// Memory that an empty reader keeps, bytes: most lines fit, so that a quiet host costs little and
/// a busy one does not ask the allocator for every line.
const KEPT_MAX: usize = 16 * 1024;

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
        /// Bytes seen when the limit was passed: at least the limit and one.
        seen: usize,
    },
}

/// Collects bytes and yields frames. Call [`FrameReader::next_frame`] until it answers `None` after
/// every [`FrameReader::push`]: then the reader never holds more than one unfinished line of at
/// most the limit, plus what one push brought.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Bytes of `buffer` already known to hold no newline that was not given out.
    scanned: usize,
    /// Bytes of `buffer` already given out.
    start: usize,
    swallowing: bool,
    max: usize,
}

/// A line that has begun, as one reader leaves it for another one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HalfLine {
    /// Its bytes so far.
    pub bytes: Vec<u8>,
    /// It is over the limit and was reported: what follows of it is swallowed.
    pub swallowing: bool,
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

    /// A reader that goes on in the middle of this line.
    pub fn resume(line: HalfLine) -> Self {
        Self {
            scanned: line.bytes.len(),
            buffer: line.bytes,
            swallowing: line.swallowing,
            ..Self::default()
        }
    }

    /// The line that has begun, once `next_frame` has answered `None`; for [`FrameReader::resume`].
    pub fn half_line(&self) -> HalfLine {
        HalfLine {
            bytes: self.buffer[self.start..].to_vec(),
            swallowing: self.swallowing,
        }
    }

    /// Takes in bytes as they came from the pipe.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame, or `None` when the bytes so far hold no whole line.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            let newline = self.buffer[self.scanned..]
                .iter()
                .position(|&byte| byte == b'\n');
            let Some(offset) = newline else {
                return self.without_newline();
            };
            let line = self.start..self.scanned + offset;
            self.start = line.end + 1;
            self.scanned = self.start;
            // The rest of a line that was already reported is nobody's news.
            if !std::mem::take(&mut self.swallowing) {
                return Some(self.classify(&self.buffer[line]));
            }
        }
    }

    /// Bytes after the last newline, once `next_frame` has answered `None`: what a stream that ends
    /// now leaves unfinished. Zero inside an over-long line, which was reported already.
    pub fn unfinished(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Memory held now, bytes.
    pub fn held(&self) -> usize {
        self.buffer.capacity()
    }

    fn without_newline(&mut self) -> Option<Frame> {
        let seen = self.unfinished();
        let over = seen > self.max;
        if over || self.swallowing || seen == 0 {
            self.forget();
        } else {
            self.scanned = self.buffer.len();
        }
        if !over || self.swallowing {
            return None;
        }
        self.swallowing = true;
        Some(Frame::TooLong { seen })
    }

    /// Drops every byte, and the memory that only a long line needed.
    fn forget(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_MAX);
        self.start = 0;
        self.scanned = 0;
    }

    fn classify(&self, line: &[u8]) -> Frame {
        if line.len() > self.max {
            return Frame::TooLong { seen: line.len() };
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return Frame::Blank;
        }
        Frame::Line(line.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(reader: &mut FrameReader) -> Vec<Frame> {
        std::iter::from_fn(|| reader.next_frame()).collect()
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        let mut reader = FrameReader::with_max(4);
        reader.push(b"1234\n12345\n");
        assert_eq!(
            frames(&mut reader),
            [Frame::Line(b"1234".to_vec()), Frame::TooLong { seen: 5 }]
        );
        assert_eq!(reader.unfinished(), 0);
    }

    #[test]
    fn an_over_long_line_is_reported_before_its_end_and_only_once() {
        let mut reader = FrameReader::with_max(4);
        reader.push(b"12345");
        assert_eq!(frames(&mut reader), [Frame::TooLong { seen: 5 }]);
        reader.push(b"6789");
        assert_eq!(frames(&mut reader), []);
        assert_eq!(reader.unfinished(), 0, "it was reported already");
        reader.push(b"0\nok\n");
        assert_eq!(frames(&mut reader), [Frame::Line(b"ok".to_vec())]);
    }

    #[test]
    fn the_end_of_a_swallowed_line_is_not_a_blank_line() {
        let mut reader = FrameReader::with_max(4);
        reader.push(b"12345");
        assert_eq!(frames(&mut reader).len(), 1);
        reader.push(b"\n \t\r\n");
        assert_eq!(frames(&mut reader), [Frame::Blank]);
    }

    #[test]
    fn what_a_stream_leaves_unfinished_is_counted() {
        let mut reader = FrameReader::with_max(8);
        reader.push(b"whole\nhal");
        assert_eq!(frames(&mut reader), [Frame::Line(b"whole".to_vec())]);
        assert_eq!(reader.unfinished(), 3);
        reader.push(b"f\n");
        assert_eq!(frames(&mut reader), [Frame::Line(b"half".to_vec())]);
        assert_eq!(reader.unfinished(), 0);
    }

    /// Every stream, handed from one reader to another after every byte, gives the same frames.
    #[test]
    fn a_second_reader_goes_on_in_the_middle_of_a_line() {
        let mut stream = b"one\n \n".to_vec();
        stream.extend(vec![b'x'; LINE_MAX + 1]);
        stream.extend(b"rest\ntwo\nhal");
        let mut whole = FrameReader::default();
        whole.push(&stream);
        let expected = frames(&mut whole);
        assert_eq!(expected.len(), 4);
        for step in [1_000, 333_333, LINE_MAX] {
            let mut reader = FrameReader::default();
            let mut found = Vec::new();
            for bytes in stream.chunks(step) {
                reader.push(bytes);
                found.extend(frames(&mut reader));
                reader = FrameReader::resume(reader.half_line());
            }
            assert!(
                found.len() == 4 && found[0] == expected[0],
                "{}",
                found.len()
            );
            assert!(matches!(found[2], Frame::TooLong { .. }));
            assert_eq!(found[3], expected[3]);
            assert_eq!(reader.half_line().bytes, b"hal");
        }
    }

    #[test]
    fn memory_of_a_long_line_is_given_back() {
        let mut reader = FrameReader::default();
        reader.push(&vec![b'x'; LINE_MAX]);
        assert_eq!(frames(&mut reader), []);
        assert!(reader.held() >= LINE_MAX);
        reader.push(b"\n");
        assert_eq!(frames(&mut reader).len(), 1);
        assert!(reader.held() <= KEPT_MAX, "holds {}", reader.held());
    }
}
