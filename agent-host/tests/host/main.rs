//! The real `agent-host` over real pipes.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a test that can not go on has failed, and it starts the program itself"
)]

mod acp;
mod bridge;
mod bridge_wire;
mod claude;
mod client;
mod codex;
mod commands;
mod comments;
mod fetch;
mod forge_server;
mod git_again;
mod git_commit;
mod git_fresh;
mod git_kills;
mod git_provision;
mod git_stage;
mod git_work;
mod hello;
mod hooks;
mod integrates;
mod mcp;
mod memory;
mod messages;
mod output;
mod pi;
mod scripts;
mod stops;
mod verifies;
