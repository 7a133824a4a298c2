//! A scripted model on loopback: real agent programs talk to it as to a service, and it makes them
//! use their tools, wait, fail and be steered as a script says.
//!
//! Each request is answered by the next reply of its conversation. What was asked is on record
//! before the answer begins, so that a story can look for a text in the model's next request.
//! One wire is one module: [`anthropic`] is the first, and [`Wire`] is where others join.

pub mod anthropic;
mod http;
pub mod script;
pub mod server;

/// A family of endpoints, as a service offers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Anthropic Messages.
    Messages,
}

impl Wire {
    /// The wire that this path belongs to, if it asks a model for its next words.
    pub fn of(path: &str) -> Option<Self> {
        path.ends_with("/v1/messages").then_some(Self::Messages)
    }
}
