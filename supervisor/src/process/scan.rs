//! One look at every process: which of them carry the spawn token of a run in their environment.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use crate::process::{pidfd, procfs};

/// The variable that every host, and by inheritance its whole tree, carries.
pub const TOKEN_VARIABLE: &str = "SUPERVISOR_TOKEN";
/// Most bytes read of one environment: what the kernel allows a process to be started with.
const ENVIRON_MAX: usize = 2 * 1024 * 1024;

/// A living process that carries a token, pinned before the token was read for good.
#[derive(Debug)]
pub struct Tagged {
    /// Its number.
    pub pid: u32,
    /// Its pin.
    pub pidfd: OwnedFd,
    /// Its token.
    pub token: u128,
}

/// A token as it stands in an environment: 32 hexadecimal digits.
pub fn token_text(token: u128) -> String {
    format!("{token:032x}")
}

/// The token in the environment of a process; `None` when it has none, is gone, or is another
/// user's.
pub fn token_of(pid: u32) -> Option<u128> {
    token_in(&environ_of(pid).ok()?)
}

/// The environment that a process was started with, each variable ended by a zero byte.
///
/// # Errors
/// When the process is gone or another user's. One that ends while it is read gives what was read
/// so far.
pub fn environ_of(pid: u32) -> io::Result<Vec<u8>> {
    procfs::read(format!("/proc/{pid}/environ"), ENVIRON_MAX)
}

fn token_in(environ: &[u8]) -> Option<u128> {
    environ.split(|&byte| byte == 0).find_map(|entry| {
        let value = entry
            .strip_prefix(TOKEN_VARIABLE.as_bytes())?
            .strip_prefix(b"=")?;
        let digits = std::str::from_utf8(value).ok()?;
        (digits.len() == 32)
            .then(|| u128::from_str_radix(digits, 16).ok())
            .flatten()
    })
}

/// Every living process but ourselves whose token is `wanted`.
///
/// # Errors
/// When procfs can not be listed; single processes that can not be read are passed over.
pub fn tagged(wanted: impl Fn(u128) -> bool) -> io::Result<Vec<Tagged>> {
    let ours = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == ours || !token_of(pid).is_some_and(&wanted) {
            continue;
        }
        // Pinned only now; so read again what is pinned, not what had the number before.
        let Ok(pidfd) = pidfd::open(pid) else {
            continue;
        };
        if let Some(token) = token_of(pid).filter(|&token| wanted(token)) {
            found.push(Tagged { pid, pidfd, token });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_variable_of_that_name_is_a_token() {
        let token = 0xabcd_u128;
        let digits = token_text(token);
        let environ = format!("A=1\0SUPERVISOR_TOKEN={digits}\0B=2\0");
        assert_eq!(token_in(environ.as_bytes()), Some(token));
        let longer_name = format!("XSUPERVISOR_TOKEN={digits}\0");
        assert_eq!(token_in(longer_name.as_bytes()), None);
        let in_a_value = format!("A=SUPERVISOR_TOKEN={digits}\0");
        assert_eq!(token_in(in_a_value.as_bytes()), None);
        assert_eq!(token_in(b"SUPERVISOR_TOKEN=\0"), None);
        assert_eq!(token_in(b"SUPERVISOR_TOKEN=abcd\0"), None);
        assert_eq!(token_in(b""), None);
    }

    #[test]
    fn a_process_that_is_not_there_has_no_token() {
        assert_eq!(token_of(u32::MAX), None);
    }
}
