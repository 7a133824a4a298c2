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
    check_as(BUILD, reply)
}

/// As [`check`], for a hello that a supervisor of the release `build` has said: a supervisor that
/// was replaced since must judge the reply as the one that asked would have.
///
/// # Errors
/// As [`check`].
pub fn check_as(build: &str, reply: &HelloReply) -> Result<u32, Skew> {
    if reply.version < VERSION_MIN || reply.version > VERSION_MAX {
        return Err(Skew::NotOffered {
            chosen: reply.version,
            min: VERSION_MIN,
            max: VERSION_MAX,
        });
    }
    if reply.build != build {
        return Err(Skew::Build {
            supervisor: build.to_owned(),
            host: reply.build.clone(),
        });
    }
    Ok(reply.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version_min: u32, version_max: u32, build: &str) -> Hello {
        Hello {
            version_min,
            version_max,
            build: build.to_owned(),
        }
    }

    #[test]
    fn a_pair_of_one_release_agrees_on_the_newest_version() {
        let reply = answer(&Hello::ours()).unwrap();
        assert_eq!((reply.version, reply.build.as_str()), (VERSION_MAX, BUILD));
        assert_eq!(check(&reply), Ok(VERSION_MAX));
    }

    #[test]
    fn a_supervisor_that_speaks_more_gets_the_newest_that_both_speak() {
        let reply = answer(&hello(VERSION_MIN, VERSION_MAX + 7, BUILD)).unwrap();
        assert_eq!(reply.version, VERSION_MAX);
        let reply = answer(&hello(0, VERSION_MAX, BUILD)).unwrap();
        assert_eq!(reply.version, VERSION_MAX);
    }

    #[test]
    fn ranges_that_do_not_meet_are_refused_and_both_are_named() {
        let cases = [
            (VERSION_MAX + 1, VERSION_MAX + 3),
            (0, VERSION_MIN - 1),
            // A range that is upside down holds no version at all.
            (VERSION_MAX + 4, VERSION_MIN),
        ];
        for (min, max) in cases {
            let skew = answer(&hello(min, max, BUILD)).unwrap_err();
            let text = skew.to_string();
            assert!(
                text.contains(&format!("supervisor speaks {min} to {max}")),
                "{text}"
            );
            let ours = format!("agent-host speaks {VERSION_MIN} to {VERSION_MAX}");
            assert!(text.contains(&ours), "{text}");
        }
    }

    #[test]
    fn versions_are_compared_before_releases() {
        let skew = answer(&hello(VERSION_MAX + 1, VERSION_MAX + 1, "9.9.9")).unwrap_err();
        assert!(matches!(skew, Skew::NoCommonVersion { .. }), "{skew}");
    }

    #[test]
    fn a_pair_of_two_releases_is_refused_on_either_side() {
        let skew = answer(&hello(VERSION_MIN, VERSION_MAX, "0.0.1")).unwrap_err();
        let from_host =
            format!("supervisor is 0.0.1 but agent-host is {BUILD}: install both from one release");
        assert_eq!(skew.to_string(), from_host);

        let reply = HelloReply {
            version: VERSION_MAX,
            build: "0.0.1".to_owned(),
        };
        let skew = check(&reply).unwrap_err();
        let from_supervisor =
            format!("supervisor is {BUILD} but agent-host is 0.0.1: install both from one release");
        assert_eq!(skew.to_string(), from_supervisor);
    }

    #[test]
    fn a_reply_is_judged_by_the_release_that_asked() {
        let reply = HelloReply {
            version: VERSION_MAX,
            build: "0.0.1".to_owned(),
        };
        assert_eq!(check_as("0.0.1", &reply), Ok(VERSION_MAX));
        assert!(check_as("0.0.2", &reply).is_err());
    }

    #[test]
    fn a_version_that_was_not_offered_is_refused() {
        for chosen in [0, VERSION_MAX + 1, u32::MAX] {
            let reply = HelloReply {
                version: chosen,
                build: BUILD.to_owned(),
            };
            let skew = check(&reply).unwrap_err();
            assert!(
                matches!(skew, Skew::NotOffered { chosen: c, .. } if c == chosen),
                "{skew}"
            );
        }
    }
}
