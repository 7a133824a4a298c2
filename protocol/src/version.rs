//! The first exchange on a pipe: which protocol versions each side speaks, and nothing else.
//!
//! | version | added |
//! |---|---|
//! | 1 | everything in this crate |

use serde::{Deserialize, Serialize};

/// Oldest protocol version that this build speaks.
pub const VERSION_MIN: u32 = 1;
/// Newest protocol version that this build speaks.
pub const VERSION_MAX: u32 = 1;
/// The release both programs of a pair carry; a pair that differs is refused in the hello.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// The supervisor's half of the hello (`method: "hello"`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version the supervisor speaks.
    pub version_min: u32,
    /// Newest version the supervisor speaks.
    pub version_max: u32,
    /// The supervisor's release.
    pub build: String,
}

impl Hello {
    /// What this build says.
    pub fn ours() -> Self {
        Self {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            build: BUILD.to_owned(),
        }
    }
}

/// The host's half of the hello (the result of the request).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloReply {
    /// The version that the host chose: the newest that both speak.
    pub version: u32,
    /// The host's release.
    pub build: String,
}

/// Why a hello was refused; both sides are named so that the operator sees which one to replace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Skew {
    /// The ranges do not meet.
    #[error(
        "no common protocol version: supervisor speaks {theirs_min} to {theirs_max}, \
         agent-host speaks {ours_min} to {ours_max}"
    )]
    NoCommonVersion {
        /// Oldest version of the side that asked.
        theirs_min: u32,
        /// Newest version of the side that asked.
        theirs_max: u32,
        /// Oldest version of this side.
        ours_min: u32,
        /// Newest version of this side.
        ours_max: u32,
    },
    /// The pair was not installed together.
    #[error("supervisor is {supervisor} but agent-host is {host}: install both from one release")]
    Build {
        /// The supervisor's release.
        supervisor: String,
        /// The host's release.
        host: String,
    },
    /// The reply names a version outside the range that was offered.
    #[error("agent-host chose protocol version {chosen}, offered were {min} to {max}")]
    NotOffered {
        /// What the host chose.
        chosen: u32,
        /// Oldest offered.
        min: u32,
        /// Newest offered.
        max: u32,
    },
}

/// The host's answer to a hello.
///
/// # Errors
/// [`Skew`] when the version ranges do not meet or the releases differ.
pub fn answer(hello: &Hello) -> Result<HelloReply, Skew> {
    let version = VERSION_MAX.min(hello.version_max);
    if version < VERSION_MIN || version < hello.version_min {
        return Err(Skew::NoCommonVersion {
            theirs_min: hello.version_min,
            theirs_max: hello.version_max,
            ours_min: VERSION_MIN,
            ours_max: VERSION_MAX,
        });
    }
    if hello.build != BUILD {
        return Err(Skew::Build {
            supervisor: hello.build.clone(),
            host: BUILD.to_owned(),
        });
    }
    Ok(HelloReply {
        version,
        build: BUILD.to_owned(),
    })
}

/// The supervisor's check of the reply.
///
/// # Errors
/// [`Skew`] when the host chose a version that was not offered or is of another release.
pub fn check(reply: &HelloReply) -> Result<u32, Skew> {
    if reply.version < VERSION_MIN || reply.version > VERSION_MAX {
        return Err(Skew::NotOffered {
            chosen: reply.version,
            min: VERSION_MIN,
            max: VERSION_MAX,
        });
    }
    if reply.build != BUILD {
        return Err(Skew::Build {
            supervisor: BUILD.to_owned(),
            host: reply.build.clone(),
        });
    }
    Ok(reply.version)
}
