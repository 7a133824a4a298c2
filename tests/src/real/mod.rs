//! The real agent programs in stories: where each one is, what leads it to the scripted model, and
//! how the model names its tools. The stage they play on is in [`stage`].
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

pub mod ladder;
pub mod pi;
pub mod stage;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub use self::stage::Stage;

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Real {
    /// Claude Code over its stream of JSON.
    Claude,
    /// Codex over its app server.
    Codex,
    /// pi over its rpc mode.
    Pi,
    /// opencode over the Agent Client Protocol.
    Opencode,
    /// Gemini over that protocol.
    Gemini,
    /// Claude Code behind its adapter to that protocol.
    ClaudeAcp,
    /// Codex behind its adapter to that protocol.
    CodexAcp,
}

impl Real {
    /// All of them, in the order of documents.
    pub const ALL: [Self; 7] = [
        Self::Claude,
        Self::Codex,
        Self::Pi,
        Self::Opencode,
        Self::ClaudeAcp,
        Self::CodexAcp,
        Self::Gemini,
    ];

    /// The name of its program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Pi => "pi",
            Self::Opencode => "opencode",
            Self::Gemini => "gemini",
            Self::ClaudeAcp => "claude-agent-acp",
            Self::CodexAcp => "codex-acp",
        }
    }

    /// The `kind` of its agents.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Claude => "claude",
            Self::Codex => "codex",
            Self::Pi => "pi",
            Self::Opencode | Self::Gemini | Self::ClaudeAcp | Self::CodexAcp => "acp",
        }
    }

    /// The variable that says where it is.
    pub fn variable(self) -> &'static str {
        match self {
            Self::Claude => "REAL_CLAUDE",
            Self::Codex => "REAL_CODEX",
            Self::Pi => "REAL_PI",
            Self::Opencode => "REAL_OPENCODE",
            Self::Gemini => "REAL_GEMINI",
            Self::ClaudeAcp => "REAL_CLAUDE_AGENT_ACP",
            Self::CodexAcp => "REAL_CODEX_ACP",
        }
    }

    /// Where it is, if that is said.
    pub fn installed(self) -> Option<PathBuf> {
        std::env::var_os(self.variable()).map(PathBuf::from)
    }

    /// An agent of a batch that is this program, led to the model at this place.
    ///
    /// # Panics
    /// When nobody says where it is.
    pub fn agent(self, url: &str) -> Value {
        let program = self.installed();
        let program = program.expect("scripts/real-agents.sh names the program");
        let mut agent = self.keys(url);
        agent["kind"] = json!(self.kind());
        agent["program"] = json!(program);
        agent
    }

    /// What leads it to the model at this place; pi has that in its home: [`Real::settle`].
    fn keys(self, url: &str) -> Value {
        match self {
            Self::Claude | Self::ClaudeAcp => json!({"model": "claude-x",
                "env": {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none"}}),
            Self::Codex => json!({"model": "gpt-x",
                "env": {"OPENAI_BASE_URL": format!("{url}/v1"), "OPENAI_API_KEY": "none"}}),
            Self::Pi => json!({"model": "fake/fake-model"}),
            Self::Opencode => json!({"model": "fake/fake-model",
                "env": {"OPENCODE_CONFIG_CONTENT": opencode_config(url).to_string()}}),
            Self::Gemini => json!({"model": "gemini-2.5-pro",
                "env": {"GOOGLE_GEMINI_BASE_URL": url, "GEMINI_API_KEY": "none"}}),
            Self::CodexAcp => {
                let provider = json!({"name": "fake", "base_url": format!("{url}/v1"),
                    "wire_api": "responses", "env_key": "FAKE_KEY",
                    "request_max_retries": 0, "stream_max_retries": 0});
                let config = json!({"model": "fake-model", "model_provider": "fake",
                    "model_providers": {"fake": provider}});
                json!({"env": {"CODEX_CONFIG": config.to_string(), "FAKE_KEY": "none",
                    "MODEL_PROVIDER": "fake"}})
            }
        }
    }

    /// What must lie in the operator's home for it to find the model at this place.
    fn settle(self, home: &Path, url: &str) {
        match self {
            Self::Pi => pi::write_models(&home.join(".pi/agent"), "openai-completions", url),
            Self::Claude
            | Self::Codex
            | Self::Opencode
            | Self::Gemini
            | Self::ClaudeAcp
            | Self::CodexAcp => {}
        }
    }

    /// A reply that runs a command by its own tool; codex waits for it as long as it may (30 s).
    pub fn shell(self, command: &str) -> Value {
        let described = || json!({"command": command, "description": "a step"});
        match self {
            Self::Claude | Self::ClaudeAcp => uses("Bash", &described()),
            Self::Codex => {
                let input = json!({"cmd": command, "yield_time_ms": 30_000});
                uses("exec_command", &input)
            }
            Self::CodexAcp => uses("exec_command", &json!({"cmd": command})),
            Self::Pi => uses("bash", &json!({"command": command})),
            Self::Opencode => uses("bash", &described()),
            Self::Gemini => uses("run_shell_command", &json!({"command": command})),
        }
    }

    /// A reply that writes a file, named by its whole path, by its own tool for that.
    pub fn write(self, path: &Path, text: &str) -> Value {
        match self {
            Self::Claude | Self::ClaudeAcp | Self::Gemini => {
                let tool = if self == Self::Gemini {
                    "write_file"
                } else {
                    "Write"
                };
                uses(tool, &json!({"file_path": path, "content": text}))
            }
            Self::Pi => uses("write", &json!({"path": path, "content": text})),
            Self::Opencode => uses("write", &json!({"filePath": path, "content": text})),
            Self::Codex | Self::CodexAcp => {
                let path = path.display();
                let patch =
                    format!("*** Begin Patch\n*** Add File: {path}\n+{text}\n*** End Patch\n");
                self.shell(&format!("apply_patch <<'EOF'\n{patch}EOF\n"))
            }
        }
    }

    /// A reply that uses one of the supervisor's own tools.
    pub fn supervisor_tool(self, tool: &str, input: &Value) -> Value {
        let tool = match self {
            Self::Claude | Self::ClaudeAcp => format!("mcp__supervisor__{tool}"),
            Self::Codex | Self::CodexAcp => format!("mcp__supervisor/{tool}"),
            Self::Pi => tool.to_owned(),
            Self::Opencode => format!("supervisor_{tool}"),
            Self::Gemini => format!("mcp_supervisor_{tool}"),
        };
        uses(&tool, input)
    }
}

/// Settings of opencode for the model at this place.
pub fn opencode_config(url: &str) -> Value {
    let model = json!({"name": "fake", "tool_call": true,
        "limit": {"context": 100_000, "output": 8000}, "cost": {"input": 3, "output": 15}});
    json!({"provider": {"fake": {"npm": "@ai-sdk/openai-compatible", "name": "fake",
            "options": {"baseURL": format!("{url}/v1"), "apiKey": "none"},
            "models": {"fake-model": model}}},
        "small_model": "fake/fake-model"})
}

/// A reply that uses a tool.
pub fn uses(tool: &str, input: &Value) -> Value {
    json!({"content": [{"use": {"tool": tool, "input": input}}]})
}

/// A reply that ends the turn.
pub fn say(text: &str) -> Value {
    json!({"content": [{"say": text}]})
}

/// A command that says that it began and runs until the file `go` is there. Claude Code refuses
/// `sleep`, and a pipe that nobody writes waits as well.
pub const UNTIL_GO: &str = "echo begun > begun; rm -f wait && mkfifo wait; \
    while ! test -e go; do read -r -t 0.05 line <>wait; done; echo went on";

/// The same in a folder of its own, which it makes.
pub fn until_go_in(folder: &str) -> String {
    format!("mkdir -p {folder}; cd {folder}; {UNTIL_GO}")
}
