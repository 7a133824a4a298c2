//! The ways in which a process tries to outlive whoever started it.

use std::fmt;
use std::str::FromStr;

use nix::unistd::geteuid;

use super::cgroup;

macro_rules! escapes {
    ($($name:ident = $word:literal, $writes:literal, $what:literal;)*) => {
        /// One way out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Escape {
            $(#[doc = $what] $name,)*
        }

        impl Escape {
            /// Every one.
            pub const ALL: &'static [Escape] = &[$(Self::$name,)*];

            /// Its word on command lines, in the ledger and as a task's id.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// Lines that its processes write into the ledger, that of the agent itself included.
            pub const fn writes(self) -> usize {
                match self { $(Self::$name => $writes,)* }
            }
        }
    };
}

escapes! {
    Background = "background", 2, "A child in the background.";
    Nohup = "nohup", 2, "A child that ignores SIGHUP.";
    Setsid = "setsid", 2, "A child in a session of its own.";
    DoubleFork = "double-fork", 2, "A grandchild whose parent is gone, in the agent's group.";
    Daemon = "daemon", 2, "A grandchild in a session of its own, its parent gone.";
    IgnoresSignals = "ignores-signals", 2, "A child that ignores TERM, HUP and INT.";
    Stopped = "stopped", 3, "A child that has stopped itself, and one that will end it.";
    ClearsEnvironment = "clears-environment", 2, "A child whose environment is empty.";
    ClobbersVariable = "clobbers-variable", 2, "A child with another value in the product's variables.";
    ClosesFds = "closes-fds", 2, "A grandchild that has closed every descriptor.";
    OwnGroup = "own-group", 2, "A child in a process group of its own.";
    HoldsPipe = "holds-pipe", 2, "A child that keeps the agent's output open.";
    Storm = "storm", 40, "A tree of forks: three generations of three children each.";
    Comet = "comet", 1, "A chain in which each process forks the next and ends.";
    CometSetsid = "comet-setsid", 1, "Such a chain in which each process begins a session.";
    CometNoEnvironment = "comet-no-environment", 1, "Such a chain with an empty environment.";
    NestedSubreaper = "nested-subreaper", 3, "A descendant that adopts its own orphans, without environment.";
    Paranoid = "paranoid", 2, "Both tags stripped, double fork, own session, no descriptors, no signals.";
    NonDumpable = "non-dumpable", 2, "A session whose environment nobody but root may read.";
    OwnPidNamespace = "own-pid-namespace", 3, "A pid namespace of its own, with two processes.";
    CloneParent = "clone-parent", 2, "A child that is not the agent's but its parent's.";
    PdeathReset = "pdeath-reset", 2, "A session that wants no signal at its parent's death.";
    NestedSupervisor = "nested-supervisor", 3, "A whole supervisor, with a batch of its own.";
    CgroupMove = "cgroup-move", 2, "A session that has moved to another control group.";
    OtherUser = "other-user", 2, "A session of another user.";
    FullDaemonStopped = "full-daemon-stopped", 3, "A daemon without environment that has stopped itself.";
}

impl Escape {
    /// Those that this machine allows, and why not the others.
    pub fn possible() -> (Vec<Escape>, Vec<(Escape, &'static str)>) {
        let mut possible = Vec::new();
        let mut not = Vec::new();
        for &escape in Self::ALL {
            match escape.obstacle() {
                None => possible.push(escape),
                Some(why) => not.push((escape, why)),
            }
        }
        (possible, not)
    }

    fn obstacle(self) -> Option<&'static str> {
        let root = geteuid().is_root();
        match self {
            Self::OtherUser if !root => Some("only root becomes another user"),
            Self::CgroupMove if !root => Some("only root moves between control groups"),
            Self::CgroupMove if cgroup::mount().is_none() => Some("no cgroup v2 is mounted"),
            Self::OwnPidNamespace if !super::kernel::may_make_pid_namespace() => {
                Some("no pid namespace may be made here")
            }
            _ => None,
        }
    }

    /// Whether it is one process after the other, each of which lives for a millisecond.
    pub const fn is_comet(self) -> bool {
        matches!(
            self,
            Self::Comet | Self::CometSetsid | Self::CometNoEnvironment
        )
    }

    /// Whether nothing but a control group or a living owner can still know it: it has stripped
    /// every tag that is inherited.
    pub const fn strips_every_tag(self) -> bool {
        matches!(self, Self::Paranoid)
    }
}

impl fmt::Display for Escape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A word that names no escape.
#[derive(Debug, PartialEq, Eq)]
pub struct NoEscape;

impl FromStr for Escape {
    type Err = NoEscape;

    fn from_str(word: &str) -> Result<Self, NoEscape> {
        let found = Self::ALL.iter().find(|escape| escape.word() == word);
        found.copied().ok_or(NoEscape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_escape_has_a_word_of_its_own_that_leads_back_to_it() {
        for escape in Escape::ALL {
            assert_eq!(escape.word().parse(), Ok(*escape));
        }
        assert_eq!("polite".parse::<Escape>(), Err(NoEscape));
    }
}
