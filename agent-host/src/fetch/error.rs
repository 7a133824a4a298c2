//! Why an issue or a pull request could not be had, and the class that a failed run gets from it.

use protocol::class::Class;

/// Why it could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForgeError {
    /// The request can not be read.
    #[error("the request can not be read: {0}")]
    Request(String),
    /// `#12` without a repository of a forge.
    #[error(
        "`#` and a number means the repository that `origin` names, and {0}: write `owner/repo#12`"
    )]
    NoOrigin(String),
    /// An address of the API that a token must not be sent to.
    #[error("GITHUB_API_URL is {0}: it must begin with `https://` (or be of this machine)")]
    Address(String),
    /// The operator's own certificates can not be read.
    #[error("SSL_CERT_FILE is {path}, and no certificates can be read there: {why}")]
    Certificates {
        /// The file.
        path: String,
        /// Why not.
        why: String,
    },
    /// Nobody answers.
    #[error(
        "can not reach {host}: {why}; check the network, or HTTPS_PROXY where there is a proxy (it is tried again)"
    )]
    Offline {
        /// The forge.
        host: String,
        /// What the system says.
        why: String,
    },
    /// It takes no more requests for now.
    #[error("{host} takes no more requests {}; {}", wait_text(*.wait_min), token_text(*.has_token))]
    Limited {
        /// The forge.
        host: String,
        /// Until then, milliseconds since the Unix epoch, where it said so.
        until_ms: Option<i64>,
        /// How long that is from now, minutes.
        wait_min: Option<i64>,
        /// Whether the requests carried a token.
        has_token: bool,
    },
    /// It has trouble of its own.
    #[error("{host} answered {status} for {path} (it is tried again)")]
    Trouble {
        /// The forge.
        host: String,
        /// The status.
        status: u16,
        /// What was asked for.
        path: String,
    },
    /// What came is no answer of a forge, or half of one.
    #[error("what {host} sent for {path} is no answer of a forge: {why} (it is tried again)")]
    Garbled {
        /// The forge.
        host: String,
        /// What was asked for.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such thing, or not for us.
    #[error("{host} has no {what} for us: does it exist, and may {who} read it?")]
    Missing {
        /// The forge.
        host: String,
        /// What.
        what: String,
        /// Whose rights count.
        who: String,
    },
    /// The login is refused.
    #[error("{host} refuses {who}: {said}")]
    Denied {
        /// The forge.
        host: String,
        /// Whose rights count.
        who: String,
        /// What it says.
        said: String,
    },
    /// More than is taken in.
    #[error("what {host} sent for {path} is longer than {max} bytes")]
    TooLarge {
        /// The forge.
        host: String,
        /// What was asked for.
        path: String,
        /// The limit.
        max: u64,
    },
    /// `gh` can not be run.
    #[error("can not run {program}: {why}")]
    NotRun {
        /// The program.
        program: String,
        /// Why not.
        why: String,
    },
}

fn wait_text(wait_min: Option<i64>) -> String {
    match wait_min {
        Some(minutes) => format!("for the next {minutes} min"),
        None => "for now".to_owned(),
    }
}

fn token_text(has_token: bool) -> &'static str {
    match has_token {
        true => "it is tried again then",
        false => "it is tried again then; with a token (GH_TOKEN) it takes far more",
    }
}

impl ForgeError {
    /// The class of the run. `network` is waited for; the others are tried a bounded number of times.
    pub(crate) fn class(&self) -> Class {
        match self {
            ForgeError::Offline { .. }
            | ForgeError::Limited { .. }
            | ForgeError::Trouble { .. }
            | ForgeError::Garbled { .. } => Class::Network,
            ForgeError::Request(_)
            | ForgeError::NoOrigin(_)
            | ForgeError::Missing { .. }
            | ForgeError::Denied { .. }
            | ForgeError::TooLarge { .. } => Class::SetupFailed,
            ForgeError::Address(_)
            | ForgeError::Certificates { .. }
            | ForgeError::NotRun { .. } => Class::Environment,
        }
    }

    /// When it is worth while to ask again.
    pub(crate) fn reset_at_ms(&self) -> Option<i64> {
        match self {
            ForgeError::Limited { until_ms, .. } => *until_ms,
            ForgeError::Request(_)
            | ForgeError::NoOrigin(_)
            | ForgeError::Address(_)
            | ForgeError::Certificates { .. }
            | ForgeError::Offline { .. }
            | ForgeError::Trouble { .. }
            | ForgeError::Garbled { .. }
            | ForgeError::Missing { .. }
            | ForgeError::Denied { .. }
            | ForgeError::TooLarge { .. }
            | ForgeError::NotRun { .. } => None,
        }
    }
}
