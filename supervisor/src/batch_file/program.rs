//! An agent program that is driven over its wire: its keys, checked.

use std::collections::BTreeMap;
use std::path::Path;

use protocol::program::{Credentials, Home, McpServer, Permissions, ProgramAdapter, ProgramKind};

use super::agents::environment;
use super::decode::{At, was_meant};
use super::error::Sink;
use super::low::{AgentKeys, McpKeys};
use super::names;
use super::scalars::Text;
use super::tree::shown;

/// The server of tools that every agent program gets.
const OWN_SERVER: &str = "supervisor";

/// The programs that need no entry, as they are found on the `PATH`.
pub(super) fn found_by_name() -> impl Iterator<Item = ProgramAdapter> {
    let named = |kind: &ProgramKind| kind.program().map(|program| built_in(*kind, program));
    ProgramKind::ALL.iter().filter_map(named)
}

fn built_in(kind: ProgramKind, program: &str) -> ProgramAdapter {
    ProgramAdapter {
        kind,
        program: program.to_owned(),
        args: Vec::new(),
        model: None,
        mode: None,
        permissions: Permissions::Full,
        home: Home::Task,
        credentials: Credentials::Copy,
        system_prompt: None,
        mcp: BTreeMap::new(),
    }
}

/// What the keys say; what is wrong is reported, and stands as if it were not written.
pub(super) fn read(
    kind: ProgramKind,
    keys: &At<AgentKeys>,
    texts: &mut Vec<Text>,
    sink: &mut Sink,
) -> ProgramAdapter {
    let agent = &keys.value;
    let mut drive = built_in(kind, kind.program().unwrap_or_default());
    if let Some(program) = &agent.program {
        if program.value.text.is_empty() {
            let help = "name the program to start";
            sink.report(program.place, "the program's name is empty", help);
        }
        drive.program.clone_from(&program.value.text);
    } else if drive.program.is_empty() && !was_meant(&agent.wrong, "program") {
        let message = "an agent of `kind: acp` without `program`";
        sink.report(keys.key, message, "name it: `program: opencode`");
    }
    let args = agent.args.iter().flat_map(|args| &args.value.0);
    for arg in args {
        texts.push(arg.value.0.clone());
        drive.args.push(arg.value.0.text.clone());
    }
    // Which model it is, an attempt decides.
    drive.mode = agent.mode.as_ref().map(|mode| mode.value.text.clone());
    if let Some(text) = &agent.system_prompt {
        texts.push(text.value.clone());
        drive.system_prompt = Some(text.value.text.clone());
    }
    if let Some(word) = &agent.permissions {
        drive.permissions = word.value.mean();
    }
    read_home(agent, &mut drive, sink);
    for (name, server) in agent.mcp.iter().flat_map(|named| &named.value.0) {
        names::check_word(name, "a server's name", server.key, sink);
        if name == OWN_SERVER {
            let message = format!("`{OWN_SERVER}` is the name of the supervisor's own server");
            sink.report(server.key, message, "choose another name");
        }
        let server = mcp_server(server, texts, sink);
        drive
            .mcp
            .extend(server.map(|server| (name.clone(), server)));
    }
    drive
}

fn read_home(agent: &AgentKeys, drive: &mut ProgramAdapter, sink: &mut Sink) {
    if let Some(home) = &agent.home {
        drive.home = home_of(home, sink);
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
}

fn home_of(home: &At<Text>, sink: &mut Sink) -> Home {
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

fn mcp_server(keys: &At<McpKeys>, texts: &mut Vec<Text>, sink: &mut Sink) -> Option<McpServer> {
    let Some(command) = &keys.value.command else {
        if !was_meant(&keys.value.wrong, "command") {
            let help = "add `command: [program, argument]`";
            sink.report(keys.key, "a server of tools without `command`", help);
        }
        return None;
    };
    texts.extend_from_slice(command.value.texts());
    let mut argv = command.value.argv().into_iter();
    let Some(program) = argv.next().filter(|program| !program.is_empty()) else {
        let help = "name the program to start";
        sink.report(command.place, "the program's name is empty", help);
        return None;
    };
    Some(McpServer {
        command: program,
        args: argv.collect(),
        env: environment(keys.value.env.as_ref(), texts, sink),
    })
}
