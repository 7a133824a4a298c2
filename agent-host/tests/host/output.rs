//! What programs print: complete, bounded, and without growth of the host.

use std::fs;
use std::io::Write;
use std::path::Path;

use protocol::report::ResultStatus;

use crate::client::{Client, command};

/// Peak resident memory, KiB, without the pages of the program's own file, which all hosts share.
pub(crate) fn peak_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.unwrap().trim().trim_end_matches(" kB");
        number.parse().unwrap()
    };
    kib("VmHWM:") - kib("RssFile:")
}

/// Runs a shell line that prints a lot, and returns the log, once the host's memory was judged.
fn print_a_lot(line: &str, bytes: u64) -> tempfile::TempDir {
    let mut client = Client::greeted();
    let before = peak_kib(client.child.id());
    let gate = client.path("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let line = format!("{line}; echo printed >&9; read go < gate");
    let start = client.start(command(&["sh", "-c", &line]));
    client.tell(&protocol::command::Command::Start(Box::new(start)));
    client.wait_for_word("printed");
    while client.ping().output_bytes < bytes {}
    let growth = peak_kib(client.child.id()).saturating_sub(before);
    assert!(growth < 4096, "the host grew by {growth} KiB");
    fs::OpenOptions::new()
        .write(true)
        .open(gate)
        .unwrap()
        .write_all(b"go\n")
        .unwrap();
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    ended.home
}

/// Compares a file with a pattern that repeats.
fn is_pattern(path: &Path, pattern: &[u8], bytes: usize) -> bool {
    let found = fs::read(path).unwrap();
    found.len() == bytes
        && found
            .chunks(pattern.len())
            .all(|part| pattern.starts_with(part))
}

#[test]
fn two_hundred_megabytes_are_complete_to_the_byte() {
    let home = print_a_lot("yes 0123456789abcde | head -c 200000000", 200_000_000);
    let log = home.path().join("state/runs/7/stdout.log");
    assert!(is_pattern(&log, b"0123456789abcde\n", 200_000_000));
}

#[test]
fn a_line_of_fifty_megabytes_is_complete_to_the_byte() {
    let home = print_a_lot("head -c 50000000 /dev/zero | tr '\\0' x >&2", 50_000_000);
    let log = home.path().join("state/runs/7/stderr.log");
    assert!(is_pattern(&log, &[b'x'; 4096], 50_000_000));
}

#[test]
fn beyond_its_limit_a_log_counts_and_says_so_once() {
    let client = Client::started(|client| {
        let mut start = client.start(command(&["sh", "-c", "yes | head -c 1000000; echo e >&2"]));
        start.log_max = 1000;
        start
    });
    let (result, ended) = client.result();
    assert_eq!(result.status, ResultStatus::Ok);
    let log = ended.log("stdout.log");
    assert_eq!(
        log.len() - 1000,
        "\n[supervisor: 999000 bytes not kept]\n".len()
    );
    assert!(log.ends_with("\n[supervisor: 999000 bytes not kept]\n"));
    assert_eq!(ended.log("stderr.log"), "e\n", "each log has its own limit");
    assert_eq!(ended.notices().len(), 1, "{:?}", ended.notices());
}

#[test]
fn a_survivor_that_holds_the_pipe_does_not_hold_up_the_result() {
    // It would print for ever; the host drains for a moment, then closes and kills.
    let (result, ended) =
        Client::shell("(trap '' PIPE; while :; do echo y; done) & exit 0").result();
    assert_eq!(result.status, ResultStatus::Ok);
    assert_eq!(ended.notices(), ["processes left at the end and killed: 1"]);
}

#[test]
fn the_heartbeat_shows_output_and_time_of_the_family() {
    let mut client =
        Client::shell("printf 12345; printf 678 >&2; echo up >&9; while :; do :; done");
    client.wait_for_word("up");
    let mut pong = client.ping();
    while pong.family.cpu_ms < 50 || pong.output_bytes < 8 {
        pong = client.ping();
    }
    assert_eq!(pong.output_bytes, 8);
    client.stop(0);
    client.end();
}
