//! How a run's tree of processes is held together, and what is known of it after the run's end.

use std::fmt;
use std::sync::Arc;

use protocol::command::Keeper;

/// Most processes that a [`Cleared::Residual`] names one by one; the rest is only counted.
pub const NAMED_MAX: usize = 32;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }
        impl $name {
            /// All of them, in the order of the manual.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word in batch file, journal and `ps`.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }
    };
}

words! {
    /// What the batch file asks for.
    Wish {
        /// The best that is there without a price: a cgroup where one can be made.
        Auto = "auto",
        /// A cgroup, or the run does not begin.
        Cgroup = "cgroup",
        /// A pid namespace, or the run does not begin.
        Pidns = "pidns",
        /// What every Unix has, and nothing else.
        Portable = "portable",
    }
}

words! {
    /// One means by which a run's tree is found and ended.
    Layer {
        /// The host leads a session of its own: a session below it holds its descendants only.
        Session = "session",
        /// Orphans of the tree come to the host, and the host's own to the supervisor.
        Subreaper = "subreaper",
        /// The spawn token in the environment.
        EnvTag = "env_tag",
        /// A number made of the spawn token in the hard limit of file locks.
        LimitTag = "limit_tag",
        /// A cgroup of the run's own.
        Cgroup = "cgroup",
        /// A pid namespace of the run's own: the kernel ends all of it with its first process.
        Pidns = "pidns",
        /// The host's recorded identity.
        Registry = "registry",
        /// The host ends its own tree when its stdin ends.
        HostEof = "host_eof",
    }
}

/// A set of layers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Layers(u16);

impl Layers {
    /// None.
    pub const NONE: Layers = Layers(0);

    /// The same set and this layer.
    #[must_use]
    pub const fn with(self, layer: Layer) -> Layers {
        Layers(self.0 | 1 << layer as u16)
    }

    /// Whether the layer is in it.
    pub const fn has(self, layer: Layer) -> bool {
        self.0 & (1 << layer as u16) != 0
    }

    /// Its layers, in the order of the manual.
    pub fn iter(self) -> impl Iterator<Item = Layer> {
        Layer::ALL.iter().copied().filter(move |&one| self.has(one))
    }
}

impl FromIterator<Layer> for Layers {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Layers {
        layers.into_iter().fold(Layers::NONE, Layers::with)
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, layer) in self.iter().enumerate() {
            let comma = if number > 0 { "," } else { "" };
            write!(f, "{comma}{layer}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layers({self})")
    }
}

/// What a run really has: its host holds all of it before it begins, or it does not begin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Containment {
    /// The layers.
    pub layers: Layers,
    /// The folder of its cgroup, where it has one.
    pub leaf: Option<Arc<str>>,
    /// Who sees to its limit of memory, where it has one.
    pub memory: Option<Keeper>,
}

/// A process of a run that outlived it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its number.
    pub pid: u32,
    /// Clock ticks since boot at its start.
    pub start_ticks: u64,
    /// What proves it to be of the run, and why it lives on.
    pub why: Arc<str>,
}

/// What is known of a run's tree after its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleared {
    /// Nothing of it lives.
    Clean {
        /// Processes killed after the host's end.
        killed: u32,
    },
    /// Some of it lives on.
    Residual {
        /// Processes killed after the host's end.
        killed: u32,
        /// At most [`NAMED_MAX`] of those that live.
        left: Vec<Leftover>,
    },
    /// Nothing was found, but what could hide is not excluded.
    NotExcluded {
        /// Processes killed after the host's end.
        killed: u32,
        /// What is missing for a proof.
        why: Arc<str>,
    },
}

impl Cleared {
    /// Nothing was there to be killed, and nothing lives.
    pub const CLEAN: Cleared = Cleared::Clean { killed: 0 };

    /// Whether it is proven that nothing lives.
    pub const fn is_clean(&self) -> bool {
        matches!(self, Cleared::Clean { .. })
    }

    /// Processes killed after the host's end.
    pub const fn killed(&self) -> u32 {
        match self {
            Cleared::Clean { killed }
            | Cleared::Residual { killed, .. }
            | Cleared::NotExcluded { killed, .. } => *killed,
        }
    }
}

impl fmt::Display for Cleared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "killed {}, ", self.killed())?;
        match self {
            Cleared::Clean { .. } => f.write_str("clean"),
            Cleared::NotExcluded { why, .. } => {
                write!(f, "residual cannot be excluded: {why}")
            }
            Cleared::Residual { left, .. } => {
                write!(f, "residual:")?;
                for (number, one) in left.iter().enumerate() {
                    let comma = if number > 0 { "," } else { "" };
                    write!(f, "{comma} pid {} ({})", one.pid, one.why)?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_layers_holds_what_was_put_in_and_reads_as_words() {
        let set = Layers::NONE.with(Layer::EnvTag).with(Layer::Session);
        assert!(set.has(Layer::Session) && set.has(Layer::EnvTag));
        assert!(!set.has(Layer::Cgroup));
        assert_eq!(set.to_string(), "session,env_tag");
        let all: Layers = Layer::ALL.iter().copied().collect();
        assert_eq!(all.iter().count(), Layer::ALL.len());
    }

    #[test]
    fn only_a_proof_is_called_clean() {
        let why: Arc<str> = "no cgroup, and its host was killed".into();
        let open = Cleared::NotExcluded { killed: 2, why };
        assert!(!open.is_clean());
        let said = "killed 2, residual cannot be excluded: no cgroup, and its host was killed";
        assert_eq!(open.to_string(), said);
        assert_eq!(Cleared::CLEAN.to_string(), "killed 0, clean");
        let one = |pid| Leftover {
            pid,
            start_ticks: 1,
            why: "env_tag".into(),
        };
        let left = Cleared::Residual {
            killed: 0,
            left: vec![one(7), one(9)],
        };
        assert_eq!(
            left.to_string(),
            "killed 0, residual: pid 7 (env_tag), pid 9 (env_tag)"
        );
        assert!(!left.is_clean());
    }
}
