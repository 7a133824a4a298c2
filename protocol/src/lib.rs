//! The conversation between a supervisor and one `agent-host`, in one page.
//!
//! The supervisor starts a host with pipes on stdin and stdout. Every line in either direction is
//! one JSON-RPC 2.0 object of at most [`framing::LINE_MAX`] bytes.
//!
//! 1. The supervisor sends the request [`version::Hello`]; the host answers with
//!    [`version::HelloReply`] or with the error [`rpc::ERROR_NO_COMMON_VERSION`] and ends.
//! 2. Once the host's identity is durable the supervisor sends the command `start`
//!    ([`command::Start`]). Before `start` a host does nothing.
//! 3. The host sends `report` notifications ([`report::Report`]); the last one that matters is
//!    `result`, sent after the result is durable in the run's `exit.json` ([`exit_file`]).
//! 4. At any time the supervisor may send `deliver`, `answer`, `interrupt`, `stop` (notifications:
//!    a report acknowledges them) and `ping` (a request: its answer is the heartbeat).
//! 5. At any time the host may send the request `ask`; the answer to the request is the question's
//!    id, the operator's answer comes later as the command `answer`. So it may send `send`, a
//!    message to another task, and `tasks`, which is answered with the batch's tasks.
//! 6. The host ends by itself after `result`, after `stop`, and when its stdin ends; always after
//!    its whole process tree is gone.

pub mod action_file;
pub mod bounds;
pub mod bridge;
pub mod build_output;
pub mod class;
pub mod command;
pub mod event_file;
pub mod exit_file;
pub mod forge;
pub mod framing;
pub mod git;
pub mod ids;
pub mod integrate;
pub mod list;
pub mod program;
pub mod report;
pub mod result_file;
pub mod rpc;
pub mod script;
pub mod version;
