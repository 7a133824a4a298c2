//! Limits of our own process.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard one: a host takes four descriptors, so the usual
/// soft limit of 1,024 would end at about 250 hosts. Returns the limit in force; `None` is no limit.
///
/// # Errors
/// When the kernel refuses, which it does not for a limit within the hard one.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let now = getrlimit(Resource::Nofile);
    if now.current != now.maximum {
        let raised = Rlimit {
            current: now.maximum,
            maximum: now.maximum,
        };
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(now.maximum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let limit = raise_open_files().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, limit);
    }
}
