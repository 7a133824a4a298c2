//! What of a run's family is still at work when the agent says that its turn is over.

use rustix::process::{Pid, getpgid};

use crate::process;

/// Most processes that are named; the others are counted.
const NAMED_MAX: usize = 8;

/// Living processes of the family that are neither the agent nor in its process group, as the kernel
/// shows them, nor one of its servers or started by one. Most agents have their servers in their
/// group, and each command that they run gets a session of its own, also those that they let go.
pub(super) fn left_beside(agent: Pid, servers: &[Vec<String>]) -> Vec<String> {
    let is_server = |pid| {
        let argv = process::arguments(pid);
        servers.iter().any(|server| is_of(&argv, server))
    };
    let others = process::descendants_but(is_server)
        .into_iter()
        .filter(|&pid| {
            let group = getpgid(Some(pid)).ok();
            group != Some(agent) && process::is_living(pid)
        });
    others
        .map(|pid| format!("{} {}", pid.as_raw_nonzero(), process::command_line(pid)))
        .collect()
}

/// Whether these are the arguments of a server: its program's name, perhaps behind an interpreter, and
/// then its own.
fn is_of(argv: &[String], server: &[String]) -> bool {
    let Some((program, args)) = server.split_first() else {
        return false;
    };
    let file_name = |path: &str| path.rsplit('/').next().map(str::to_owned);
    let Some(head) = argv.strip_suffix(args) else {
        return false;
    };
    head.iter()
        .any(|word| file_name(word) == file_name(program))
}

/// As a sentence.
pub(super) fn name(left: &[String]) -> String {
    let named = left.iter().take(NAMED_MAX).cloned();
    let more = left.len().saturating_sub(NAMED_MAX);
    let more = (more > 0).then(|| format!("and {more} more"));
    named.chain(more).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_its_name_and_its_arguments() {
        let words =
            |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
        let server = words("/opt/x/agent-host mcp --bridge /s/b.json");
        for line in [
            "/opt/x/agent-host mcp --bridge /s/b.json",
            "agent-host mcp --bridge /s/b.json",
            "node /opt/x/agent-host mcp --bridge /s/b.json",
        ] {
            assert!(is_of(&words(line), &server), "{line}");
        }
        for line in [
            "agent-host mcp --bridge /s/other.json",
            "agent-host",
            "mcp --bridge /s/b.json",
            "",
        ] {
            assert!(!is_of(&words(line), &server), "{line}");
        }
        assert!(!is_of(&words("x"), &[]));
    }
}
