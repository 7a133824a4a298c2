//! How Claude Code is started: its arguments, its environment, its home, its session.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use protocol::command::Start;
use protocol::program::{Home, Permissions, ProgramAdapter};
use serde_json::json;

use crate::agent::driven::home::{self, Login};
use crate::agent::driven::servers::{self, Servers};
use crate::agent::driven::session_id;
use crate::bridge;

/// The variable that names its home.
const HOME_VARIABLE: &str = "CLAUDE_CONFIG_DIR";
/// The file of a login.
const CREDENTIALS_FILE: &str = ".credentials.json";

/// Variables that it gets unless the batch file sets them. It tries a failed request once more, for
/// a blip: what lasts longer is the supervisor's to wait for, for all tasks together. Nothing runs
/// on behind a turn's end, no version changes in the middle of a batch, nobody is called but the
/// model.
const VARIABLES: &[(&str, &str)] = &[
    ("CLAUDE_CODE_DISABLE_BACKGROUND_TASKS", "1"),
    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ("CLAUDE_CODE_MAX_RETRIES", "1"),
    ("DISABLE_AUTOUPDATER", "1"),
    ("DISABLE_ERROR_REPORTING", "1"),
    ("DISABLE_TELEMETRY", "1"),
    ("ENABLE_TOOL_SEARCH", "false"),
];

/// Tools with which it would begin turns by itself or talk to its neighbours.
const TOOLS_AWAY: &str = "CronCreate,CronDelete,CronList,ListAgents,Monitor,ScheduleWakeup,\
    SendMessage,Workflow";

/// Program and arguments.
pub(super) fn argv(adapter: &ProgramAdapter, session: &Session, servers: &Servers) -> Vec<String> {
    let mode = match adapter.permissions {
        Permissions::Full => "bypassPermissions",
        Permissions::Edits => "acceptEdits",
        Permissions::Ask => "default",
    };
    let mut argv = vec![
        adapter.program.as_str(),
        "-p",
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        "--verbose",
        "--permission-mode",
        mode,
        "--disallowedTools",
        TOOLS_AWAY,
    ];
    if adapter.permissions != Permissions::Full {
        argv.extend(["--permission-prompt-tool", "stdio"]);
    }
    argv.push(match session.origin {
        Origin::New => "--session-id",
        Origin::Resumed => "--resume",
    });
    argv.push(&session.id);
    if let Some(model) = &adapter.model {
        argv.extend(["--model", model]);
    }
    if let Some(text) = &adapter.system_prompt {
        argv.extend(["--append-system-prompt", text]);
    }
    let config = json!({"mcpServers": servers::object(servers)}).to_string();
    if !servers.is_empty() {
        argv.extend(["--mcp-config", &config]);
    }
    if adapter.home != Home::Shared {
        argv.push("--strict-mcp-config");
    }
    let own = format!("mcp__{}", bridge::SERVER_NAME);
    if servers.contains_key(bridge::SERVER_NAME) {
        argv.extend(["--allowedTools", &own]);
    }
    let own = argv.into_iter().map(str::to_owned);
    own.chain(adapter.args.iter().cloned()).collect()
}

/// The variables beside those of the run.
pub(super) fn environment(start: &Start, home: Option<&Path>) -> BTreeMap<String, String> {
    let unset = |name: &str| !start.env.contains_key(name);
    let mut extra: BTreeMap<String, String> = VARIABLES
        .iter()
        .filter(|(name, _)| unset(name))
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    // It refuses full permissions to root unless it is told that the machine is made for that; who
    // runs a batch as root with `permissions: full` has said so.
    if rustix::process::geteuid().is_root() && unset("IS_SANDBOX") {
        extra.insert("IS_SANDBOX".to_owned(), "1".to_owned());
    }
    if let Some(home) = home {
        extra.insert(HOME_VARIABLE.to_owned(), home.display().to_string());
    }
    extra
}

/// A conversation and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) origin: Origin,
}

/// Where a session comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It begins now.
    New,
    /// Its history is in the home.
    Resumed,
}

/// A new session.
pub(super) fn new_session(start: &Start) -> Session {
    Session {
        id: session_id::of_run(start),
        origin: Origin::New,
    }
}

/// The session to go on with; with a new beginning under the same id when its history is not there
/// (it was never written, or somebody removed it).
pub(super) fn session(id: &str, start: &Start, home: Option<&Path>) -> Session {
    let home = home.map(Path::to_owned).or_else(|| shared_home(start));
    let known = is_uuid(id) && home.is_some_and(|home| has_history(&home, id));
    match known {
        true => Session {
            id: id.to_owned(),
            origin: Origin::Resumed,
        },
        false if is_uuid(id) => Session {
            id: id.to_owned(),
            origin: Origin::New,
        },
        false => new_session(start),
    }
}

fn is_uuid(text: &str) -> bool {
    let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match byte {
            b'-' => dash(at),
            byte => byte.is_ascii_hexdigit() && !dash(at),
        })
}

/// Whether a home knows a session: in `projects/<folder>/<id>.jsonl`, whatever the working folder
/// was called then.
fn has_history(home: &Path, id: &str) -> bool {
    let Ok(projects) = fs::read_dir(home.join("projects")) else {
        return false;
    };
    let name = format!("{id}.jsonl");
    let written = |path: PathBuf| path.metadata().is_ok_and(|facts| facts.len() > 0);
    projects
        .flatten()
        .any(|project| written(project.path().join(&name)))
}

/// What of the operator's belongs to a login.
pub(super) fn logins(start: &Start) -> Vec<Login> {
    let shared = shared_home(start);
    let login = shared.map(|shared| Login {
        from: shared.join(CREDENTIALS_FILE),
        to: CREDENTIALS_FILE,
    });
    login.into_iter().collect()
}

/// Where the operator's own home is, by the environment of the run.
fn shared_home(start: &Start) -> Option<PathBuf> {
    home::operators(start, HOME_VARIABLE, ".claude")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use protocol::command::{Adapter, RunKind};
    use protocol::ids::{AttemptNo, Generation};
    use protocol::program::{Credentials, ProgramKind};

    use super::*;

    fn adapter(home: Home, credentials: Credentials) -> ProgramAdapter {
        ProgramAdapter {
            program: "claude".to_owned(),
            args: vec!["--max-turns".to_owned(), "9".to_owned()],
            model: Some("m".to_owned()),
            permissions: Permissions::Full,
            home,
            credentials,
            system_prompt: None,
            kind: ProgramKind::Claude,
            mode: None,
            mcp: BTreeMap::new(),
        }
    }

    fn start(folder: &Path) -> Start {
        let text = |name: &str| folder.join(name).display().to_string();
        Start {
            generation: Generation(7),
            batch: "b-1".parse().unwrap(),
            task: "t".parse().unwrap(),
            attempt: AttemptNo(1),
            kind: RunKind::Agent,
            cwd: text(""),
            run_dir: text("task/run"),
            task_dir: text("task"),
            prompt: None,
            hand_off: None,
            env: BTreeMap::from([("HOME".to_owned(), text("op"))]),
            session: None,
            messages: Vec::new(),
            injected: Vec::new(),
            memory: None,
            cgroup: None,
            log_max: 1,
            lease_ms: 1,
            adapter: Adapter::Program(adapter(Home::Task, Credentials::Copy)),
        }
    }

    #[test]
    fn a_session_id_is_a_uuid_and_belongs_to_one_run() {
        let folder = tempfile::tempdir().unwrap();
        let one = start(folder.path());
        let other = Start {
            generation: Generation(8),
            ..one.clone()
        };
        assert!(is_uuid(&new_session(&one).id), "{:?}", new_session(&one));
        assert_ne!(new_session(&one), new_session(&other));
        for text in ["", "../../etc", &"a".repeat(36), &"-".repeat(36)] {
            assert!(!is_uuid(text), "{text}");
        }
    }

    #[test]
    fn a_session_goes_on_where_its_history_is() {
        let folder = tempfile::tempdir().unwrap();
        let (start, home) = (start(folder.path()), folder.path().join("home"));
        let id = new_session(&start).id;
        assert_eq!(session(&id, &start, Some(&home)).origin, Origin::New);
        let project = home.join("projects/-somewhere");
        fs::create_dir_all(&project).unwrap();
        fs::write(project.join(format!("{id}.jsonl")), "{}\n").unwrap();
        let found = session(&id, &start, Some(&home));
        assert_eq!(
            (found.id.as_str(), found.origin),
            (id.as_str(), Origin::Resumed)
        );
        let argv = argv(
            &adapter(Home::Task, Credentials::None),
            &found,
            &Servers::new(),
        );
        assert!(
            argv.windows(2).any(|pair| pair == ["--resume", &id]),
            "{argv:?}"
        );
        assert_eq!(
            argv.last().unwrap(),
            "9",
            "the operator's arguments come last"
        );
        let strange = session("../x", &start, Some(&home));
        assert_eq!(strange, new_session(&start), "no id is a path");
    }

    #[test]
    fn a_login_is_brought_by_the_rule_alone_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let start = start(folder.path());
        let login = folder.path().join("op/.claude").join(CREDENTIALS_FILE);
        fs::create_dir_all(login.parent().unwrap()).unwrap();
        fs::write(&login, "secret").unwrap();
        let own = folder
            .path()
            .join("task/home/claude")
            .join(CREDENTIALS_FILE);
        home::make(
            &adapter(Home::Task, Credentials::None),
            &start,
            &logins(&start),
        )
        .unwrap();
        assert!(!own.exists());
        home::make(
            &adapter(Home::Task, Credentials::Copy),
            &start,
            &logins(&start),
        )
        .unwrap();
        assert_eq!(own.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&own, "renewed").unwrap();
        home::make(
            &adapter(Home::Task, Credentials::Copy),
            &start,
            &logins(&start),
        )
        .unwrap();
        assert_eq!(fs::read(&own).unwrap(), b"renewed", "the newer login stays");
        home::make(
            &adapter(Home::Task, Credentials::Link),
            &start,
            &logins(&start),
        )
        .unwrap();
        assert_eq!(fs::read_link(&own).unwrap(), login);
        let shared = home::make(
            &adapter(Home::Shared, Credentials::Copy),
            &start,
            &logins(&start),
        );
        assert_eq!(shared.unwrap(), None);
    }

    #[test]
    fn what_the_batch_file_sets_is_not_overruled() {
        let folder = tempfile::tempdir().unwrap();
        let mut start = start(folder.path());
        let name = "CLAUDE_CODE_MAX_RETRIES".to_owned();
        assert_eq!(environment(&start, None)[&name], "1");
        start.env.insert(name.clone(), "5".to_owned());
        assert!(!environment(&start, None).contains_key(&name));
        let home = environment(&start, Some(Path::new("/h")));
        assert_eq!(home[HOME_VARIABLE], "/h");
    }
}
