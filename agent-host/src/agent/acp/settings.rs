//! Settings that a program gets from us, as files beside those of its user or where there are none.

use std::path::{Path, PathBuf};

use protocol::command::Start;
use protocol::program::{Home, ProgramAdapter};
use serde_json::{Value, json};

use super::preset::Preset;
use crate::agent::driven::home;
use crate::run::Failure;
use crate::run_dir::make_in_task;

/// Tells what the wire has no words for.
const OPENCODE_EXTENSION: &str = include_str!("opencode.js");
/// So long opencode waits for a server of tools, milliseconds: an hour, because one of them may ask
/// the operator. Its own limit is a minute.
const MCP_TIMEOUT_MS: u64 = 3_600_000;

/// Writes what the program is given; the folder of its settings, where that is another one than its
/// home.
///
/// # Errors
/// `setup_failed` when something can not be written.
pub(super) fn write(
    preset: Preset,
    adapter: &ProgramAdapter,
    start: &Start,
    home: Option<&Path>,
) -> Result<Option<PathBuf>, Failure> {
    match preset {
        Preset::Opencode => opencode(adapter, start).map(Some),
        Preset::Gemini => gemini(adapter, start, home).map(|()| None),
        Preset::ClaudeAgentAcp | Preset::CodexAcp | Preset::Unknown => Ok(None),
    }
}

/// A folder of settings that is read beside all others, whatever home it has.
fn opencode(adapter: &ProgramAdapter, start: &Start) -> Result<PathBuf, Failure> {
    let task = Path::new(&start.task_dir);
    let folder = task.join("home").join("opencode-settings");
    let plugins = folder.join("plugin");
    drop(make_in_task(task, &plugins)?);
    home::write(
        &plugins.join("supervisor.js"),
        OPENCODE_EXTENSION.as_bytes(),
    )?;
    let mut settings = json!({
        "autoupdate": false,
        "share": "disabled",
        // A tool that is refused is told to the model, as other programs do.
        "experimental": {"continue_loop_on_deny": true, "mcp_timeout": MCP_TIMEOUT_MS},
    });
    if let Some(text) = &adapter.system_prompt {
        let file = folder.join("system.md");
        home::write(&file, text.as_bytes())?;
        settings["instructions"] = json!([file]);
    }
    home::write(
        &folder.join("opencode.json"),
        settings.to_string().as_bytes(),
    )?;
    Ok(folder)
}

/// Its settings, in a home of ours that has none.
fn gemini(adapter: &ProgramAdapter, start: &Start, home: Option<&Path>) -> Result<(), Failure> {
    let Some(home) = home.filter(|_| adapter.home == Home::Task) else {
        return Ok(());
    };
    let folder = home.join(".gemini");
    let file = folder.join("settings.json");
    if file.exists() {
        return Ok(());
    }
    home::make_folder(adapter, Path::new(&start.task_dir), &folder)?;
    let login: Value = match start.env.contains_key("GEMINI_API_KEY") {
        true => json!("gemini-api-key"),
        false => json!("oauth-personal"),
    };
    let settings = json!({
        "security": {"auth": {"selectedType": login}},
        // What fails for long is the supervisor's to wait for.
        "general": {"maxAttempts": 2, "enableAutoUpdate": false, "disableAutoUpdate": true},
        "privacy": {"usageStatisticsEnabled": false},
        "telemetry": {"enabled": false},
    });
    home::write(&file, settings.to_string().as_bytes())
}
