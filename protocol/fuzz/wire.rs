//! What must hold for any bytes on the pipe; shared by the fuzz target and the smoke test.

use protocol::command::Command;
use protocol::framing::{Frame, FrameReader};
use protocol::report::Report;
use protocol::rpc::{self, Incoming};

/// Feeds `data` (first byte: how it is cut, second: the line limit) to the reader and the readers
/// of messages; panics when a promise is broken.
pub(crate) fn check(data: &[u8]) {
    let [cut, limit, stream @ ..] = data else {
        return;
    };
    let max = usize::from(*limit) * 4;
    let size = usize::from(*cut) + 1;
    let in_pieces = frames(stream.chunks(size), max, size);
    let at_once = frames(std::iter::once(stream), max, stream.len());
    assert_eq!(in_pieces, at_once, "frames depend on how the stream is cut");
    for frame in &at_once {
        match frame {
            Frame::Line(line) => message(line),
            Frame::Blank | Frame::TooLong { .. } => {}
        }
    }
}

/// All frames of a stream; what a `TooLong` had seen depends on the cut, so it is checked and
/// then left out.
fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>, max: usize, size: usize) -> Vec<Frame> {
    // What the allocator may round up to, doubled, beside the reader's own 16 KiB.
    let held_max = 2 * (max + size) + 16 * 1024;
    let mut reader = FrameReader::with_max(max);
    let mut all = Vec::new();
    for piece in pieces {
        reader.push(piece);
        while let Some(frame) = reader.next_frame() {
            all.push(checked(frame, max));
        }
        assert!(
            reader.unfinished() <= max,
            "an over-long line was not reported"
        );
        assert!(
            reader.held() <= held_max,
            "holds {} for {max}",
            reader.held()
        );
    }
    all
}

fn checked(frame: Frame, max: usize) -> Frame {
    match frame {
        Frame::Line(line) => {
            assert!(line.len() <= max, "a line over the limit was given out");
            assert!(!line.contains(&b'\n'), "two lines in one frame");
            Frame::Line(line)
        }
        Frame::Blank => Frame::Blank,
        Frame::TooLong { seen } => {
            assert!(seen > max, "{seen} bytes are within {max}");
            Frame::TooLong { seen: 0 }
        }
    }
}

/// No line makes a reader panic, and what it understood it can say again.
fn message(line: &[u8]) {
    let Ok(Incoming::Notification { params, .. }) = rpc::read(line) else {
        return;
    };
    if let Ok(command) = serde_json::from_slice::<Command>(line) {
        let again = command
            .line()
            .and_then(|line| serde_json::from_slice::<Command>(&line));
        assert!(
            matches!(&again, Ok(read) if *read == command),
            "{command:?}: {again:?}"
        );
    }
    if let Some(Ok(report)) = params.map(|params| report(params.get())) {
        let line = report.line().unwrap_or_default();
        let Ok(Incoming::Notification {
            params: Some(params),
            ..
        }) = rpc::read(&line)
        else {
            panic!("a written report is no notification");
        };
        let again = self::report(params.get());
        assert!(
            matches!(&again, Ok(read) if *read == report),
            "{report:?}: {again:?}"
        );
    }
}

fn report(params: &str) -> serde_json::Result<Report> {
    serde_json::from_str(params)
}
