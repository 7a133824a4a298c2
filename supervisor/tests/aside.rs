//! A program that a command runs besides ends with everything below it. One story after the other:
//! whoever runs one may have no other children.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use supervisor::process::aside::{Came, Order, run};
use supervisor::process::orphans;
use supervisor_core::identity::Exit;

const LONG: Duration = Duration::from_secs(600);

fn shell(line: &str, folder: &Path, at_most: Duration, stop: &io::PipeReader) -> Came {
    let args = [OsStr::new("-c"), OsStr::new(line)];
    let order = Order {
        program: Path::new("/bin/sh"),
        args: &args,
        folder,
        at_most,
        dies_with_us: false,
    };
    run(&order, stop).unwrap()
}

#[test]
fn it_ends_by_itself_or_with_its_whole_tree() {
    let home = tempfile::tempdir().unwrap();
    let (stop, mut asks) = io::pipe().unwrap();
    let came = shell("exit 7", home.path(), LONG, &stop);
    assert_eq!(came, Came::Ended(Exit::Code(7)));
    // A lock is taken away by whoever is asked to end; what does not listen is killed.
    let line = "trap 'rm lock; exit' TERM; : > lock
(trap '' TERM; while :; do sleep 1; done) &
setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" &
wait";
    let short = Duration::from_millis(300);
    assert_eq!(shell(line, home.path(), short, &stop), Came::TimedOut);
    assert_eq!(orphans::children().unwrap(), [] as [u32; 0]);
    assert!(!home.path().join("lock").exists());
    asks.write_all(b"x").unwrap();
    assert_eq!(shell(line, home.path(), LONG, &stop), Came::Stopped);
    assert_eq!(orphans::children().unwrap(), [] as [u32; 0]);
    // It has a session, and with that no terminal, of its own.
    drop(asks);
    let (stop, _asks) = io::pipe().unwrap();
    let line = "test \"$(ps -o sid= -p $$ | tr -d ' ')\" = $$";
    assert_eq!(
        shell(line, home.path(), LONG, &stop),
        Came::Ended(Exit::Code(0))
    );
}
