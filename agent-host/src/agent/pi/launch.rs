//! How pi is started: its arguments, its environment, its home and settings, its session.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, Read as _};
use std::path::{Path, PathBuf};

use protocol::command::Start;
use protocol::program::{Credentials, Home, Permissions, ProgramAdapter};
use serde_json::{Map, Value, json};

use crate::agent::driven::home::{self, Login};
use crate::agent::driven::session_id;
use crate::run::{Failure, Run, read_bounded};

/// The variable that names its home.
const HOME_VARIABLE: &str = "PI_CODING_AGENT_DIR";
/// The variable that names its folder of sessions, where it is not in its home.
const SESSIONS_VARIABLE: &str = "PI_CODING_AGENT_SESSION_DIR";
/// Its folder of sessions in its home.
const SESSIONS: &str = "sessions";
/// Its login.
const LOGIN_FILE: &str = "auth.json";
/// Models and services beside those that it knows.
const MODELS_FILE: &str = "models.json";
/// Its settings.
const SETTINGS_FILE: &str = "settings.json";
/// Largest file of settings that is read (1 MiB).
const SETTINGS_MAX: u64 = 1 << 20;
/// Longest first line of a session that is read, bytes: an id and two paths.
const HEADER_MAX: u64 = 64 * 1024;
/// Our extension in the run's folder.
const EXTENSION_FILE: &str = "pi-extension.js";
/// What is in it, but for its first line.
const EXTENSION: &str = include_str!("extension.js");

/// Variables that it gets unless the batch file sets them: nobody is called but the model, and no
/// version changes in the middle of a batch.
const VARIABLES: &[(&str, &str)] = &[
    ("PI_OFFLINE", "1"),
    ("PI_SKIP_VERSION_CHECK", "1"),
    ("PI_TELEMETRY", "0"),
];

/// Settings of the operator's that name files of the operator's home, which are not in another one.
const SETTINGS_AWAY: &[&str] = &[
    "extensions",
    "packages",
    "prompts",
    "sessionDir",
    "skills",
    "themes",
];

/// Program and arguments.
pub(super) fn argv(
    adapter: &ProgramAdapter,
    session: &Session,
    home: Option<&Path>,
    extension: &Path,
) -> Vec<String> {
    let mut argv = vec![
        adapter.program.clone(),
        "--mode".to_owned(),
        "rpc".to_owned(),
    ];
    let mut option = |name: &str, value: &str| argv.extend([name.to_owned(), value.to_owned()]);
    if let Some(home) = home {
        option("--session-dir", &home.join(SESSIONS).display().to_string());
    }
    match &session.origin {
        Origin::New => option("--session-id", &session.id),
        Origin::Resumed(file) => option("--session", &file.display().to_string()),
        Origin::Moved(file) => {
            option("--fork", &file.display().to_string());
            option("--session-id", &session.id);
        }
    }
    if let Some(model) = &adapter.model {
        option("--model", model);
    }
    if let Some(text) = &adapter.system_prompt {
        option("--append-system-prompt", text);
    }
    option("--extension", &extension.display().to_string());
    argv.extend(adapter.args.iter().cloned());
    argv
}

/// The variables beside those of the run.
pub(super) fn environment(start: &Start, home: Option<&Path>) -> BTreeMap<String, String> {
    let unset = |name: &str| !start.env.contains_key(name);
    let mut extra: BTreeMap<String, String> = VARIABLES
        .iter()
        .filter(|(name, _)| unset(name))
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if let Some(home) = home {
        extra.insert(HOME_VARIABLE.to_owned(), home.display().to_string());
    }
    extra
}

/// Makes its home ready, with login, models and settings; `None`: it is the operator's own.
///
/// # Errors
/// `setup_failed` when something in it can not be made.
pub(super) fn make_home(
    adapter: &ProgramAdapter,
    run: &mut Run,
) -> Result<Option<PathBuf>, Failure> {
    let home = home::make(adapter, &run.start, &logins(adapter, &run.start))?;
    if let Some(home) = &home {
        write_settings(adapter, home, run)?;
    }
    Ok(home)
}

/// What of the operator's belongs to a login. Models that are in a home of a given path stay as they
/// are: who names a home has set it up.
fn logins(adapter: &ProgramAdapter, start: &Start) -> Vec<Login> {
    let Some(shared) = shared_home(start) else {
        return Vec::new();
    };
    let login = |name| Login {
        from: shared.join(name),
        to: name,
    };
    let has_models = match &adapter.home {
        Home::Path(path) => Path::new(path).join(MODELS_FILE).exists(),
        Home::Task | Home::Shared => false,
    };
    let models = (!has_models).then(|| login(MODELS_FILE));
    std::iter::once(login(LOGIN_FILE)).chain(models).collect()
}

/// Writes settings into a home: the operator's, and its own retries turned down. Those that are in a
/// home of a given path stay as they are.
fn write_settings(adapter: &ProgramAdapter, home: &Path, run: &mut Run) -> Result<(), Failure> {
    let file = home.join(SETTINGS_FILE);
    if matches!(adapter.home, Home::Path(_)) && file.exists() {
        return Ok(());
    }
    let theirs = shared_home(&run.start)
        .filter(|_| adapter.credentials != Credentials::None)
        .map(|shared| shared.join(SETTINGS_FILE));
    let theirs = theirs.map_or_else(|| Ok(Map::new()), |file| read_settings(&file));
    let theirs = theirs.unwrap_or_else(|error| {
        run.notice(&format!("the operator's settings are not taken: {error}"));
        Map::new()
    });
    home::write(
        &file,
        Value::Object(settings(theirs)).to_string().as_bytes(),
    )
}

/// What is in a file of settings; nothing when there is none.
fn read_settings(file: &Path) -> io::Result<Map<String, Value>> {
    match read_bounded(file, SETTINGS_MAX) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(error),
    }
}

/// Settings of a run. One try of its own is left, for a blip; of several messages that wait all go
/// in at the next boundary.
fn settings(mut theirs: Map<String, Value>) -> Map<String, Value> {
    for name in SETTINGS_AWAY {
        theirs.remove(*name);
    }
    let retry = json!({"enabled": true, "maxRetries": 1, "baseDelayMs": 1000,
        "provider": {"maxRetries": 0}});
    theirs.insert("retry".to_owned(), retry);
    theirs.insert("steeringMode".to_owned(), json!("all"));
    theirs
}

/// Writes our extension into the run's folder.
///
/// # Errors
/// `setup_failed` when it can not be written.
pub(super) fn write_extension(adapter: &ProgramAdapter, folder: &Path) -> Result<PathBuf, Failure> {
    let file = folder.join(EXTENSION_FILE);
    let asks = adapter.permissions != Permissions::Full;
    let content = format!("const ASKS = {asks};\n{EXTENSION}");
    home::write(&file, content.as_bytes())?;
    Ok(file)
}

/// A conversation and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) origin: Origin,
}

/// Where a session comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// It begins now.
    New,
    /// Its history is in this file.
    Resumed(PathBuf),
    /// Its history is in this file, but belongs to another working folder, in which pi would go on
    /// working: it is copied into a session of this one.
    Moved(PathBuf),
}

/// A new session.
pub(super) fn new_session(start: &Start) -> Session {
    Session {
        id: session_id::of_run(start),
        origin: Origin::New,
    }
}

/// The session to go on with; a new beginning when its history is not there (it was never written,
/// or somebody removed it).
pub(super) fn session(id: &str, start: &Start, home: Option<&Path>) -> Session {
    let Some((file, cwd)) = find(id, &folder_of_sessions(start, home)) else {
        return new_session(start);
    };
    let here = Path::new(&start.cwd);
    let is_here = cwd == here || here.canonicalize().is_ok_and(|here| cwd == here);
    match is_here {
        true => Session {
            id: id.to_owned(),
            origin: Origin::Resumed(file),
        },
        false => Session {
            origin: Origin::Moved(file),
            ..new_session(start)
        },
    }
}

fn folder_of_sessions(start: &Start, home: Option<&Path>) -> PathBuf {
    let own = home.map(|home| home.join(SESSIONS));
    let named = || start.env.get(SESSIONS_VARIABLE).map(PathBuf::from);
    let shared = || Some(shared_home(start)?.join(SESSIONS));
    own.or_else(named).or_else(shared).unwrap_or_default()
}

/// The newest file of a session and its working folder: `<time>_<id>.jsonl`, there or in a folder
/// there.
fn find(id: &str, sessions: &Path) -> Option<(PathBuf, PathBuf)> {
    let end = format!("_{id}.jsonl");
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries(sessions).map(|entry| entry.path());
    let all = folders.flat_map(|path| match path.is_dir() {
        true => entries(&path).map(|entry| entry.path()).collect(),
        false => vec![path],
    });
    let named = |path: &PathBuf| {
        let name = path.file_name();
        name.is_some_and(|name| name.to_string_lossy().ends_with(&end))
    };
    let mut found: Vec<PathBuf> = all.filter(named).collect();
    found.sort_by(|one, other| other.file_name().cmp(&one.file_name()));
    found.into_iter().find_map(|file| {
        let cwd = header(&file, id)?;
        Some((file, cwd))
    })
}

/// The working folder of a session, by its first line; `None`: it is none.
fn header(file: &Path, id: &str) -> Option<PathBuf> {
    let file = fs::File::open(file).ok()?.take(HEADER_MAX);
    let mut line = Vec::new();
    io::BufReader::new(file).read_until(b'\n', &mut line).ok()?;
    let header: Value = serde_json::from_slice(&line).ok()?;
    let is_it = header.get("type")? == "session" && header.get("id")? == id;
    Some(PathBuf::from(header.get("cwd")?.as_str()?)).filter(|_| is_it)
}

/// Where the operator's own home is, by the environment of the run.
fn shared_home(start: &Start) -> Option<PathBuf> {
    home::operators(start, HOME_VARIABLE, ".pi/agent")
}
