//! An agent of `kind: claude`: its keys, checked.

use std::path::Path;

use protocol::command::{Credentials, Home, Permissions};

use super::decode::At;
use super::error::Sink;
use super::low::AgentKeys;
use super::scalars::Text;
use super::tree::shown;
use super::work::ClaudeDrive;

/// The agent that needs no entry, its account, and its program.
pub(super) const NAME: &str = "claude";

/// Claude Code as it is found on the `PATH`.
pub(super) fn built_in() -> ClaudeDrive {
    ClaudeDrive {
        program: NAME.to_owned(),
        args: Vec::new(),
        model: None,
        permissions: Permissions::Full,
        home: Home::Task,
        credentials: Credentials::Copy,
        system_prompt: None,
    }
}

/// What the keys say; what is wrong is reported, and stands as if it were not written.
pub(super) fn read(keys: &At<AgentKeys>, texts: &mut Vec<Text>, sink: &mut Sink) -> ClaudeDrive {
    let agent = &keys.value;
    let mut drive = built_in();
    if let Some(program) = &agent.program {
        if program.value.text.is_empty() {
            let help = "name the program to start";
            sink.report(program.place, "the program's name is empty", help);
        }
        drive.program.clone_from(&program.value.text);
    }
    let args = agent.args.iter().flat_map(|args| &args.value.0);
    for arg in args {
        texts.push(arg.value.0.clone());
        drive.args.push(arg.value.0.text.clone());
    }
    drive.model = agent.model.as_ref().map(|model| model.value.text.clone());
    if let Some(text) = &agent.system_prompt {
        texts.push(text.value.clone());
        drive.system_prompt = Some(text.value.text.clone());
    }
    if let Some(word) = &agent.permissions {
        drive.permissions = word.value.mean();
    }
    if let Some(home) = &agent.home {
        drive.home = read_home(home, sink);
    }
    if let Some(word) = &agent.credentials {
        drive.credentials = word.value.mean();
        if drive.home == Home::Shared {
            let help = "remove it, or write `home: task`";
            sink.report(
                word.key,
                "`credentials` means nothing for `home: shared`",
                help,
            );
        }
    }
    drive
}

fn read_home(home: &At<Text>, sink: &mut Sink) -> Home {
    match home.value.text.as_str() {
        "task" => Home::Task,
        "shared" => Home::Shared,
        path if Path::new(path).is_absolute() => Home::Path(path.to_owned()),
        other => {
            let message = format!("`{}` is no home", shown(other));
            let help = "write `task`, `shared` or an absolute path";
            sink.report(home.place, message, help);
            Home::Task
        }
    }
}
