//! How codex is started: its arguments, its environment, its home, and what its thread is asked for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use protocol::command::Start;
use protocol::program::{Permissions, ProgramAdapter};
use serde_json::{Value, json};

use super::settings::Settings;
use crate::agent::driven::home::{self, Login};
use crate::agent::driven::servers::{self, Servers};

/// The variable that names its home.
const HOME_VARIABLE: &str = "CODEX_HOME";
/// The file of a login.
const LOGIN_FILE: &str = "auth.json";
/// The name of the provider that is made of the variables of the run.
const PROVIDER: &str = "environment";
/// Where the service is when only a key is given.
const USUAL_URL: &str = "https://api.openai.com/v1";
/// The variable with the endpoint, and those with a key in the order in which they count. Codex itself
/// heeds none of them here.
const URL_VARIABLE: &str = "OPENAI_BASE_URL";
const KEY_VARIABLES: [&str; 2] = ["CODEX_API_KEY", "OPENAI_API_KEY"];
/// Providers that codex brings along: they can not be changed, and a change to them ends it.
const BUILT_IN: [&str; 6] = [
    "openai",
    "ollama",
    "ollama-chat",
    "lmstudio",
    "amazon-bedrock",
    "oss",
];

/// Settings for work without an operator, before those of the batch file, which thus win.
const SETTINGS: [&str; 3] = [
    "check_for_update_on_startup=false",
    "analytics.enabled=false",
    "feedback.enabled=false",
];

/// Program and arguments.
pub(super) fn argv(adapter: &ProgramAdapter, start: &Start, home: Option<&Path>) -> Vec<String> {
    let mut argv = vec![adapter.program.clone(), "app-server".to_owned()];
    let mut set = |setting: String| argv.extend(["-c".to_owned(), setting]);
    for setting in SETTINGS {
        set(setting.to_owned());
    }
    let shared = shared_home(start);
    let home = home.or(shared.as_deref());
    let settings = Settings::of(&adapter.args, home);
    let logged_in = home.is_some_and(|home| home.join(LOGIN_FILE).exists());
    let own = own_provider(start, &settings, logged_in);
    if let Some(table) = &own {
        set(format!("model_provider={}", quoted(PROVIDER)));
        set(format!("model_providers.{PROVIDER}={table}"));
    }
    let named = settings.provider.as_deref();
    let provider = own.is_some().then_some(PROVIDER).or(named);
    let changes = |name: &&str| !BUILT_IN.contains(name) && is_word(name);
    // Once more, for a blip: what lasts longer is the supervisor's to wait for, for all tasks
    // together. Of a provider that codex brings along, see `Conversation::failed_request`.
    if let Some(name) = provider.filter(changes).filter(|_| !settings.names_retries) {
        set(format!("model_providers.{name}.request_max_retries=1"));
        set(format!("model_providers.{name}.stream_max_retries=1"));
    }
    argv.extend(adapter.args.iter().cloned());
    argv
}

/// A provider made of the variables of the run, as TOML; `None` where the operator names another or
/// none is needed. A login in the home counts more than a mere key, which may be there for the agent's
/// commands.
fn own_provider(start: &Start, settings: &Settings, logged_in: bool) -> Option<String> {
    if settings.names_provider {
        return None;
    }
    let filled = |name: &str| start.env.get(name).filter(|value| !value.is_empty());
    let url = filled(URL_VARIABLE);
    let key = KEY_VARIABLES
        .into_iter()
        .find(|name| filled(name).is_some());
    if url.is_none() && (key.is_none() || logged_in) {
        return None;
    }
    let url = url.or(settings.base_url.as_ref());
    let url = url.map_or(USUAL_URL, String::as_str);
    let login = match key {
        Some(name) => format!(", env_key={}", quoted(name)),
        None if logged_in => ", requires_openai_auth=true".to_owned(),
        None => String::new(),
    };
    let (name, url) = (quoted(PROVIDER), quoted(url));
    Some(format!(
        "{{name={name}, base_url={url}, wire_api=\"responses\"{login}}}"
    ))
}

/// A name that may stand in a dotted key as it is.
fn is_word(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.bytes().all(word)
}

/// A text as TOML: JSON's strings are, but for one character.
fn quoted(text: &str) -> String {
    json!(text).to_string().replace('\u{7f}', "\\u007f")
}

/// The variables beside those of the run.
pub(super) fn environment(home: Option<&Path>) -> BTreeMap<String, String> {
    let home = home.map(|home| (HOME_VARIABLE.to_owned(), home.display().to_string()));
    home.into_iter().collect()
}

/// What a thread is asked for, whether it is new or goes on.
pub(super) fn thread(adapter: &ProgramAdapter, start: &Start, servers: &Servers) -> Value {
    // `untrusted`: whatever is not known to only read is asked about. The sandbox keeps what is
    // allowed inside the working folder.
    let (approvals, sandbox) = match adapter.permissions {
        Permissions::Full => ("never", "danger-full-access"),
        Permissions::Edits | Permissions::Ask => ("untrusted", "workspace-write"),
    };
    let mut thread = json!({"cwd": start.cwd, "approvalPolicy": approvals, "sandbox": sandbox});
    if let Some(model) = &adapter.model {
        thread["model"] = json!(model);
    }
    if let Some(text) = &adapter.system_prompt {
        thread["developerInstructions"] = json!(text);
    }
    if !servers.is_empty() {
        // Here and not among the arguments, which every user of the machine can read.
        thread["config"] = json!({"mcp_servers": servers::object(servers)});
    }
    thread
}

/// What of the operator's belongs to a login.
pub(super) fn logins(start: &Start) -> Vec<Login> {
    let login = shared_home(start).map(|shared| Login {
        from: shared.join(LOGIN_FILE),
        to: LOGIN_FILE,
    });
    login.into_iter().collect()
}

/// Where the operator's own home is, by the environment of the run.
fn shared_home(start: &Start) -> Option<PathBuf> {
    home::operators(start, HOME_VARIABLE, ".codex")
}

#[cfg(test)]
mod tests {
    use protocol::command::{Adapter, RunKind};
    use protocol::ids::{AttemptNo, Generation};
    use protocol::program::{Credentials, Home, ProgramKind};

    use super::*;

    fn adapter(args: &[&str]) -> ProgramAdapter {
        ProgramAdapter {
            program: "codex".to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            model: None,
            permissions: Permissions::Full,
            home: Home::Task,
            credentials: Credentials::Copy,
            system_prompt: None,
            kind: ProgramKind::Codex,
            mode: None,
            mcp: BTreeMap::new(),
        }
    }

    fn start(env: &[(&str, &str)]) -> Start {
        let env = env.iter();
        Start {
            generation: Generation(7),
            batch: "b-1".parse().unwrap(),
            task: "t".parse().unwrap(),
            attempt: AttemptNo(1),
            kind: RunKind::Agent,
            cwd: "/w".to_owned(),
            run_dir: "/r".to_owned(),
            task_dir: "/t".to_owned(),
            prompt: None,
            hand_off: None,
            env: env
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            session: None,
            messages: Vec::new(),
            injected: Vec::new(),
            memory: None,
            cgroup: None,
            log_max: 1,
            lease_ms: 1,
            adapter: Adapter::Program(adapter(&[])),
        }
    }

    fn line(env: &[(&str, &str)], args: &[&str], home: &Path) -> String {
        argv(&adapter(args), &start(env), Some(home)).join(" ")
    }

    #[test]
    fn the_usual_variables_make_a_provider_with_one_retry() {
        let home = tempfile::tempdir().unwrap();
        let env = [
            ("OPENAI_BASE_URL", "http://h:1/v1"),
            ("OPENAI_API_KEY", "k"),
        ];
        let line = line(&env, &["-c", "x=1"], home.path());
        for part in [
            r#"-c model_provider="environment""#,
            r#"base_url="http://h:1/v1", wire_api="responses", env_key="OPENAI_API_KEY"}"#,
            "-c model_providers.environment.stream_max_retries=1 -c x=1",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(!line.contains("=\"k\""), "the key itself is no argument");
    }

    #[test]
    fn a_provider_of_the_operator_is_not_replaced_and_tries_once_more_only() {
        let home = tempfile::tempdir().unwrap();
        let env = [
            ("OPENAI_BASE_URL", "http://h:1/v1"),
            ("OPENAI_API_KEY", "k"),
        ];
        let given = line(&env, &["-c", "model_provider=mine"], home.path());
        assert!(!given.contains("environment"), "{given}");
        assert!(given.contains("model_providers.mine.request_max_retries=1"));
        std::fs::write(home.path().join("config.toml"), "model_provider='fake'\n").unwrap();
        let given = line(&env, &[], home.path());
        assert!(!given.contains("environment"), "{given}");
        assert!(given.contains("model_providers.fake.request_max_retries=1"));
        for args in [
            &["-c", "model_provider=openai"][..],
            &["-c", "model_provider=a.b"],
            &["-c", "model_providers.fake.stream_max_retries=5"],
        ] {
            let given = line(&[], args, home.path());
            assert!(!given.contains("max_retries=1"), "{given}");
        }
    }

    #[test]
    fn a_login_counts_more_than_a_key_and_less_than_an_endpoint() {
        let home = tempfile::tempdir().unwrap();
        let key = [("OPENAI_API_KEY", "k")];
        assert!(line(&key, &[], home.path()).contains(USUAL_URL));
        let moved = line(&key, &["-c", "openai_base_url=http://o/v1"], home.path());
        assert!(moved.contains(r#"base_url="http://o/v1""#), "{moved}");
        std::fs::write(home.path().join(LOGIN_FILE), "{}").unwrap();
        assert!(!line(&key, &[], home.path()).contains("model_provider"));
        let url = line(&[("OPENAI_BASE_URL", "http://h/v1")], &[], home.path());
        assert!(url.contains("requires_openai_auth=true"), "{url}");
        assert!(!line(&[], &[], home.path()).contains("model_provider"));
    }

    #[test]
    fn permissions_become_approvals_and_a_sandbox() {
        let mut adapter = adapter(&[]);
        (adapter.model, adapter.system_prompt) = (Some("m".to_owned()), Some("be".to_owned()));
        let full = thread(&adapter, &start(&[]), &Servers::new());
        let wanted = json!({"cwd": "/w", "approvalPolicy": "never", "sandbox": "danger-full-access",
            "model": "m", "developerInstructions": "be"});
        assert_eq!(full, wanted);
        for permissions in [Permissions::Edits, Permissions::Ask] {
            adapter.permissions = permissions;
            let thread = thread(&adapter, &start(&[]), &Servers::new());
            assert_eq!(thread["approvalPolicy"], "untrusted");
            assert_eq!(thread["sandbox"], "workspace-write");
        }
    }

    #[test]
    fn what_is_quoted_can_not_end_its_quotes() {
        assert_eq!(quoted("a\"b\\\n\u{7f}"), r#""a\"b\\\n\u007f""#);
    }
}
