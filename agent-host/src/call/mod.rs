//! The agent's end of the bridge: what `agent-host say`, `ask` and their like do, and the MCP server.

pub(crate) mod client;
pub(crate) mod line;
pub(crate) mod mcp;
mod tools;
