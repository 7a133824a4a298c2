//! The servers of tools that an agent program is given: those of the batch file and the supervisor's
//! own.

use std::collections::BTreeMap;

use protocol::program::{McpServer, ProgramAdapter};
use serde_json::{Value, json};

use crate::bridge;
use crate::run::Run;

/// By name, as the program is told of them.
pub(in crate::agent) type Servers = BTreeMap<String, McpServer>;

/// All servers of a run.
pub(in crate::agent) fn of(adapter: &ProgramAdapter, run: &Run) -> Servers {
    let own = bridge::mcp_server(run).map(|server| (bridge::SERVER_NAME.to_owned(), server));
    adapter.mcp.clone().into_iter().chain(own).collect()
}

/// How their processes are recognised.
pub(in crate::agent) fn command_lines(servers: &Servers) -> Vec<Vec<String>> {
    let line = |server: &McpServer| {
        let program = std::iter::once(&server.command);
        program.chain(&server.args).cloned().collect()
    };
    servers.values().map(line).collect()
}

/// As the usual `mcpServers` object.
pub(in crate::agent) fn object(servers: &Servers) -> Value {
    let entry = |server: &McpServer| json!({"command": server.command, "args": server.args, "env": server.env});
    let entries = servers.iter();
    entries
        .map(|(name, server)| (name.clone(), entry(server)))
        .collect()
}
