//! The MCP server on stdin and stdout: each tool is one call over the bridge.
//!
//! Only here a runtime is started: the host itself never comes this way. Each call has a connection
//! and a thread of its own, so that a question that waits for the operator holds up nothing else.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientJsonRpcMessage, ClientRequest,
    DiscoverResult, ErrorCode, ErrorData, Implementation, ListToolsResult, PaginatedRequestParams,
    ProtocolVersion, ServerCapabilities, ServerConfig, ServerJsonRpcMessage, Tool,
};
use rmcp::service::{RequestContext, RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::{RoleServer, ServerHandler, ServiceExt};
use serde_json::{Value, json};

use super::client::{self, CallError};
use super::tools;
use crate::{EXIT_SYSTEM, host};
use protocol::bridge::Call;
use protocol::framing::LINE_MAX;

/// Calls at a time; more wait for their turn. As many as the host takes connections.
const CALLS_MAX: usize = 16;

/// Serves until stdin ends; returns the exit status.
pub(crate) fn serve(file: PathBuf) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .max_blocking_threads(CALLS_MAX + 2)
        .build();
    let Ok(runtime) = runtime else {
        return EXIT_SYSTEM;
    };
    let status = runtime.block_on(async {
        let (input, output) = rmcp::transport::stdio();
        let lines = AsyncRwTransport::new_server(input, output).with_max_line_length(LINE_MAX);
        let transport = Patient {
            lines,
            has_begun: false,
        };
        let bridge = Server { file };
        match bridge.serve(transport).await {
            Ok(service) => service
                .waiting()
                .await
                .map_or(EXIT_SYSTEM, |_| host::EXIT_OK),
            // The client went away before it said anything of use.
            Err(_) => host::EXIT_OK,
        }
    });
    // A call may still wait for an answer that nobody will read.
    runtime.shutdown_background();
    status
}

/// The lines of a client that may begin with anything: what comes before `initialize` and is not
/// known is refused or passed over, so that a client can try a newer beginning first.
struct Patient<T> {
    lines: T,
    has_begun: bool,
}

impl<T> Transport<RoleServer> for Patient<T>
where
    T: Transport<RoleServer, Error = io::Error>,
{
    type Error = io::Error;

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = io::Result<()>> + Send + 'static {
        self.lines.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        loop {
            let message = self.lines.receive().await?;
            if self.has_begun {
                return Some(message);
            }
            let ClientJsonRpcMessage::Request(request) = &message else {
                continue;
            };
            match &request.request {
                ClientRequest::InitializeRequest(_) => {
                    self.has_begun = true;
                    return Some(message);
                }
                ClientRequest::PingRequest(_) => return Some(message),
                other => {
                    let error = ErrorData::new(
                        ErrorCode::METHOD_NOT_FOUND,
                        format!("{}: begin with initialize", other.method()),
                        None,
                    );
                    let refusal = ServerJsonRpcMessage::error(error, Some(request.id.clone()));
                    self.lines.send(refusal).await.ok()?;
                }
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        self.lines.close().await
    }
}

/// The tools of one bridge.
struct Server {
    file: PathBuf,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        let us = Implementation::new("supervisor", protocol::version::BUILD);
        ServerConfig::new(capabilities)
            .with_protocol_version(ProtocolVersion::V_2025_11_25)
            .with_server_info(us)
            .with_instructions(tools::INSTRUCTIONS)
    }

    /// Those with a handshake; a client of a newer one falls back to it.
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(ProtocolVersion::known_up_to(&ProtocolVersion::V_2025_11_25))
    }

    async fn discover(
        &self,
        _context: RequestContext<RoleServer>,
    ) -> Result<DiscoverResult, ErrorData> {
        let code = ErrorCode::METHOD_NOT_FOUND;
        Err(ErrorData::new(code, "server/discover", None))
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = tools::all().into_iter().map(|tool| {
            let schema = match tool.schema {
                Value::Object(schema) => schema,
                _no_schema => serde_json::Map::new(),
            };
            Tool::new(tool.name, tool.description, Arc::new(schema))
        });
        Ok(ListToolsResult::with_all_items(tools.collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let CallToolRequestParams {
            name, arguments, ..
        } = request;
        if !tools::all().iter().any(|tool| tool.name == name) {
            let said = format!("there is no tool `{name}`");
            return Err(ErrorData::invalid_params(said, None));
        }
        let params = arguments.unwrap_or_default();
        let call = serde_json::from_value::<Call>(json!({"method": name, "params": params}));
        let call = match call {
            Ok(call) => call,
            Err(error) => return Ok(failed("arguments", &error.to_string()).into()),
        };
        let file = self.file.clone();
        let made = tokio::task::spawn_blocking(move || client::call(&file, &call)).await;
        Ok(match made {
            Ok(Ok(reply)) => match serde_json::to_value(&reply) {
                Ok(reply) => CallToolResult::structured(reply),
                Err(error) => failed("answer", &error.to_string()),
            },
            Ok(Err(error)) => failed(word(&error), &error.text()),
            Err(error) => failed("answer", &error.to_string()),
        }
        .into())
    }
}

/// A failure that the model reads.
fn failed(what: &str, reason: &str) -> CallToolResult {
    CallToolResult::structured_error(json!({
        "status": "failed",
        "what": what,
        "reason": reason,
    }))
}

/// What kind of failure, in one word.
fn word(error: &CallError) -> &'static str {
    match error {
        CallError::Refused(_) if error.is_refusal() => "refused",
        CallError::Refused(_) => "ending",
        CallError::NoBridge
        | CallError::File { .. }
        | CallError::Gone { .. }
        | CallError::Cut(_) => "no_host",
        CallError::Answer(_) => "answer",
    }
}
