//! What is known of the programs that speak the protocol: their arguments, variables, homes, modes.
//! A program that nobody knows here gets nothing but the protocol.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::command::Start;
use protocol::program::{Permissions, ProgramAdapter};

use crate::agent::driven::home::{self, Login};

/// A program that is known, by the name of its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Preset {
    Opencode,
    Gemini,
    /// Claude Code behind an adapter of its own.
    ClaudeAgentAcp,
    /// Codex behind an adapter of its own.
    CodexAcp,
    Unknown,
}

/// Variables that a program gets unless the batch file sets them: no version changes in the middle
/// of a batch, nobody is called but the model, what fails for long is the supervisor's to wait for.
const OPENCODE: &[(&str, &str)] = &[
    ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
    ("OPENCODE_DISABLE_DEFAULT_PLUGINS", "1"),
    ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1"),
    ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
    ("OPENCODE_DISABLE_SHARE", "1"),
];
const GEMINI: &[(&str, &str)] = &[
    // It would start itself once more, and the outer one does not hand signals on.
    ("GEMINI_CLI_NO_RELAUNCH", "true"),
    ("GEMINI_TELEMETRY_ENABLED", "false"),
];
const CLAUDE: &[(&str, &str)] = &[
    ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    // After each turn it would ask the model what the user may want to say next.
    ("CLAUDE_CODE_ENABLE_PROMPT_SUGGESTION", "false"),
    ("CLAUDE_CODE_MAX_RETRIES", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    ("DISABLE_TELEMETRY", "1"),
    ("ENABLE_TOOL_SEARCH", "false"),
];

impl Preset {
    /// The preset of a program's path.
    pub(super) fn of(program: &str) -> Self {
        let name = Path::new(program)
            .file_name()
            .and_then(|name| name.to_str());
        match name.map(|name| name.trim_end_matches(".exe")) {
            Some("opencode") => Self::Opencode,
            Some("gemini") => Self::Gemini,
            Some("claude-agent-acp" | "claude-code-acp") => Self::ClaudeAgentAcp,
            Some("codex-acp") => Self::CodexAcp,
            _ => Self::Unknown,
        }
    }

    /// Arguments before those of the batch file.
    pub(super) fn args(self, adapter: &ProgramAdapter) -> Vec<String> {
        match self {
            Self::Opencode => vec!["acp".to_owned()],
            Self::Gemini => {
                let mode = match adapter.permissions {
                    Permissions::Full => "yolo",
                    Permissions::Edits => "auto_edit",
                    Permissions::Ask => "default",
                };
                let mut args = vec!["--acp", "--approval-mode", mode, "--skip-trust"];
                args.extend(adapter.model.iter().flat_map(|model| ["-m", model]));
                args.into_iter().map(str::to_owned).collect()
            }
            Self::ClaudeAgentAcp | Self::CodexAcp | Self::Unknown => Vec::new(),
        }
    }

    /// Variables beside those of the run; `home` is one of its own, `folder` one for our settings.
    pub(super) fn environment(
        self,
        adapter: &ProgramAdapter,
        start: &Start,
        home: Option<&Path>,
        folder: Option<&Path>,
    ) -> BTreeMap<String, String> {
        let mut extra = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            if !start.env.contains_key(name) {
                extra.insert(name.to_owned(), value);
            }
        };
        let fixed = match self {
            Self::Opencode => OPENCODE,
            Self::Gemini => GEMINI,
            Self::ClaudeAgentAcp => CLAUDE,
            Self::CodexAcp | Self::Unknown => &[],
        };
        for (name, value) in fixed {
            set(name, (*value).to_owned());
        }
        let below = |name: &str| home.map(|home| home.join(name).display().to_string());
        match self {
            Self::Opencode => {
                for (name, place) in XDG {
                    below(place).into_iter().for_each(|path| set(name, path));
                }
                let own = home.map(|home| home.join("opencode.json"));
                if let Some(file) = own.filter(|file| file.is_file()) {
                    set("OPENCODE_CONFIG", file.display().to_string());
                }
                if let Some(folder) = folder {
                    set("OPENCODE_CONFIG_DIR", folder.display().to_string());
                }
                set(
                    "OPENCODE_PERMISSION",
                    opencode_permission(adapter).to_owned(),
                );
            }
            Self::Gemini => below("")
                .into_iter()
                .for_each(|path| set("GEMINI_CLI_HOME", path)),
            Self::ClaudeAgentAcp => {
                below("")
                    .into_iter()
                    .for_each(|path| set("CLAUDE_CONFIG_DIR", path));
                adapter
                    .model
                    .iter()
                    .for_each(|model| set("ANTHROPIC_MODEL", model.clone()));
                // It refuses full permissions to root unless it is told that the machine is made
                // for that; who runs a batch as root with `permissions: full` has said so.
                if rustix::process::geteuid().is_root() {
                    set("IS_SANDBOX", "1".to_owned());
                }
            }
            Self::CodexAcp => below("")
                .into_iter()
                .for_each(|path| set("CODEX_HOME", path)),
            Self::Unknown => {}
        }
        extra
    }

    /// What of the operator's belongs to a login.
    pub(super) fn logins(self, start: &Start) -> Vec<Login> {
        let login = |folder: Option<PathBuf>, file: &str, to| {
            let from = folder.map(|folder| folder.join(file));
            from.map(|from| Login { from, to })
        };
        let below = |variable, folder| home::operators(start, variable, folder);
        let logins = match self {
            Self::Opencode => {
                let data = below("XDG_DATA_HOME", ".local/share");
                vec![login(
                    data,
                    "opencode/auth.json",
                    ".local/share/opencode/auth.json",
                )]
            }
            Self::Gemini => ["oauth_creds.json", "google_accounts.json"]
                .into_iter()
                .zip([".gemini/oauth_creds.json", ".gemini/google_accounts.json"])
                .map(|(file, to)| login(below("HOME", ".gemini"), file, to))
                .collect(),
            Self::ClaudeAgentAcp => {
                let home = below("CLAUDE_CONFIG_DIR", ".claude");
                vec![login(home, ".credentials.json", ".credentials.json")]
            }
            Self::CodexAcp => vec![login(
                below("CODEX_HOME", ".codex"),
                "auth.json",
                "auth.json",
            )],
            Self::Unknown => Vec::new(),
        };
        logins.into_iter().flatten().collect()
    }

    /// The session's mode that these permissions ask for, where the program has one for them.
    pub(super) fn mode(self, permissions: Permissions) -> Option<&'static str> {
        match (self, permissions) {
            (Self::ClaudeAgentAcp, Permissions::Full) => Some("bypassPermissions"),
            (Self::ClaudeAgentAcp, Permissions::Edits) => Some("acceptEdits"),
            (Self::ClaudeAgentAcp, Permissions::Ask) => Some("default"),
            (Self::CodexAcp, Permissions::Full) => Some("agent-full-access"),
            (Self::CodexAcp, Permissions::Edits) => Some("workspace-write"),
            (Self::CodexAcp, Permissions::Ask) => Some("read-only"),
            // By their arguments and variables.
            (Self::Opencode | Self::Gemini | Self::Unknown, _) => None,
        }
    }

    /// Whether the model is chosen over the wire; if not, by an argument or a variable.
    pub(super) fn model_by_wire(self) -> bool {
        match self {
            Self::Opencode | Self::CodexAcp | Self::Unknown => true,
            Self::Gemini | Self::ClaudeAgentAcp => false,
        }
    }

    /// Whether it says what its session has cost.
    pub(super) fn tells_cost(self) -> bool {
        match self {
            Self::Opencode | Self::ClaudeAgentAcp => true,
            Self::Gemini | Self::CodexAcp | Self::Unknown => false,
        }
    }

    /// Whether a session that it says it can load is really there later (gemini 0.61 finds none).
    pub(super) fn keeps_sessions(self) -> bool {
        self != Self::Gemini
    }
}

/// A home is laid out as a user's own is, so that one that was made by hand fits.
const XDG: [(&str, &str); 4] = [
    ("XDG_CONFIG_HOME", ".config"),
    ("XDG_DATA_HOME", ".local/share"),
    ("XDG_STATE_HOME", ".local/state"),
    ("XDG_CACHE_HOME", ".cache"),
];

/// Its rules for tools; those of the batch file go before what its own settings say.
fn opencode_permission(adapter: &ProgramAdapter) -> &'static str {
    match adapter.permissions {
        Permissions::Full => r#"{"*":"allow"}"#,
        Permissions::Edits => r#"{"edit":"allow","bash":"ask","webfetch":"ask"}"#,
        Permissions::Ask => r#"{"edit":"ask","bash":"ask","webfetch":"ask"}"#,
    }
}
