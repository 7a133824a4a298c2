//! Takes a layer of the product away without a switch in it: the kernel says "done" and does
//! nothing, or the thing is not there.

use std::io;
use std::path::Path;

use nix::libc;

use super::{cgroup, kernel};

macro_rules! layers {
    ($($name:ident = $word:literal, $what:literal;)*) => {
        /// What can be taken away.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Layer {
            $(#[doc = $what] $name,)*
        }

        impl Layer {
            /// Every one.
            pub const ALL: &'static [Layer] = &[$(Self::$name,)*];

            /// Its word on command lines.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

layers! {
    Cgroup = "cgroup", "No control groups are mounted (root only).";
    Subreaper = "subreaper", "Orphans do not come home.";
    LockLimit = "lock-limit", "The number in the limit of locks is not set.";
    Signals = "signals", "No signal arrives.";
}

impl Layer {
    fn take_away(self) -> io::Result<()> {
        /// `RLIMIT_LOCKS` of `asm-generic/resource.h`.
        const LIMIT: u32 = 10;
        match self {
            Self::Cgroup => hide_cgroups(),
            Self::Subreaper => {
                let switch = u32::try_from(libc::PR_SET_CHILD_SUBREAPER).ok();
                kernel::pretend(libc::SYS_prctl, [switch, None, None, None])
            }
            // Setting asks for no old value; what reads the limit still gets the true one.
            Self::LockLimit => {
                let setting = [None, Some(LIMIT), None, Some(0)];
                kernel::pretend(libc::SYS_prlimit64, setting)?;
                kernel::pretend(libc::SYS_setrlimit, [Some(LIMIT), None, None, None])
            }
            Self::Signals => {
                kernel::pretend(libc::SYS_pidfd_send_signal, [None; 4])?;
                kernel::pretend(libc::SYS_kill, [None; 4])
            }
        }
    }
}

/// Without the mount of cgroup v2, for us and our descendants alone.
fn hide_cgroups() -> io::Result<()> {
    let Some(mount) = cgroup::mount() else {
        return Ok(());
    };
    kernel::unshare(libc::CLONE_NEWNS)?;
    let run = |program: &str, arguments: &[&str]| {
        let status = crate::world::tool(program).args(arguments).status()?;
        let failed = || io::Error::other(format!("{program} {arguments:?}: {status}"));
        status.success().then_some(()).ok_or_else(failed)
    };
    run("mount", &["--make-rprivate", "/"])?;
    run("umount", &["--lazy", &mount.display().to_string()])
}

/// `LAYER... -- PROGRAM ARGUMENT...`: becomes the program, without these layers.
///
/// # Errors
/// When a layer can not be taken away, or the program is not there.
pub fn launch_without(words: &[&str]) -> io::Result<()> {
    let mut rest = words.iter();
    for word in rest.by_ref() {
        if *word == "--" {
            break;
        }
        let found = Layer::ALL.iter().find(|layer| layer.word() == *word);
        found.ok_or(io::ErrorKind::InvalidInput)?.take_away()?;
    }
    let program = rest.next().ok_or(io::ErrorKind::InvalidInput)?;
    let arguments: Vec<String> = rest.map(|word| (*word).to_owned()).collect();
    let environment: Vec<String> = std::env::vars()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    match kernel::become_program(Path::new(program), &arguments, &environment)? {}
}
