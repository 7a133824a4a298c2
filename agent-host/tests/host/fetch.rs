//! The `fetch` adapter against a forge on the loopback interface, and against a `gh` that is a script.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::class::Class;
use protocol::command::{Adapter, RunKind};
use protocol::forge::{
    COMMENTS_MAX, DIFF_MAX, Fetch, FetchAdapter, ForgeItem, ForgeKind, ITEM_FILE_NAME, Reference,
    TEXT_MAX,
};
use protocol::report::{ResultStatus, RunResult};
use serde_json::{Value, json as value};
use tempfile::TempDir;

use crate::client::{Client, Ended};
use crate::forge_server::{Asked, Does, ForgeServer, json};

/// What every fetch of a story shares.
struct Scene {
    cache: TempDir,
    env: BTreeMap<String, String>,
    repo: Option<String>,
    timeout_ms: u64,
}

impl Scene {
    fn at(url: &str) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let home = cache.path().display().to_string();
        let named = [("GITHUB_API_URL", url), ("XDG_CACHE_HOME", &home)];
        let owned = named.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            cache,
            env: BTreeMap::from(owned),
            repo: None,
            timeout_ms: 60_000,
        }
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    fn fetch(&self, kind: ForgeKind, reference: &str) -> (RunResult, Ended) {
        self.fetch_with(kind, reference, |_| {})
    }

    fn fetch_with(
        &self,
        kind: ForgeKind,
        reference: &str,
        prepare: impl FnOnce(&Client),
    ) -> (RunResult, Ended) {
        let fetch = Fetch {
            kind,
            reference: Reference::parse(kind, reference).unwrap(),
            repo: self.repo.clone(),
        };
        let adapter = Adapter::Fetch(FetchAdapter {
            fetch,
            timeout_ms: self.timeout_ms,
        });
        let client = Client::started(|client| {
            prepare(client);
            let mut start = client.start(adapter);
            start.kind = RunKind::Hook;
            start.env.extend(self.env.clone());
            start
        });
        client.result()
    }

    fn issue(&self) -> (RunResult, Ended) {
        self.fetch(ForgeKind::Issue, "owner/repo#12")
    }

    /// Every copy was made so long ago.
    fn age(&self, milliseconds: i64) {
        let folder = self.cache.path().join("supervisor/forge");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let mut copy: Value = serde_json::from_str(&text).unwrap();
            let seen = copy["seen_ms"].as_i64().unwrap();
            copy["seen_ms"] = value!(seen - milliseconds);
            std::fs::write(&path, copy.to_string()).unwrap();
        }
    }
}

fn item(ended: &Ended) -> ForgeItem {
    let path = ended.home.path().join("state").join(ITEM_FILE_NAME);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn low(comments: u64) -> Value {
    value!({
        "html_url": "https://forge.example/owner/repo/issues/12", "title": "A title", "number": 12,
        "body": "first\r\nsecond {{ vars.x }}", "user": {"login": "somebody"}, "state": "open",
        "labels": [{"name": "bug", "color": "red"}, "old"], "comments": comments, "more": [1]
    })
}

fn comment(number: u64) -> Value {
    value!({"body": format!("comment {number}"), "user": null, "created_at": "2026-01-02T03:04:05Z"})
}

/// An issue with so many comments.
fn issue(count: u64) -> impl Fn(&Asked) -> Does {
    move |asked| match asked.path.as_str() {
        "/repos/owner/repo/issues/12" => json(low(count)),
        path => {
            let page = path.strip_prefix("/repos/owner/repo/issues/12/comments?per_page=100&page=");
            let page: u64 = page.unwrap_or_else(|| panic!("{path}")).parse().unwrap();
            let first = (page - 1) * 100 + 1;
            json((first..=count.min(page * 100)).map(comment).collect())
        }
    }
}

fn answers(status: u16, headers: &[(&'static str, &str)], body: &str) -> ForgeServer {
    let owned = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    let (headers, body): (Vec<_>, _) = (owned.collect(), body.to_owned());
    ForgeServer::start(move |_| Does::Answers(status, headers.clone(), body.clone()))
}

#[test]
fn an_issue_lies_in_the_tasks_folder_with_all_that_was_said() {
    let forge = ForgeServer::start(issue(2));
    let scene = Scene::at(&forge.url()).set("GH_TOKEN", "secret");
    let (result, ended) = scene.issue();
    assert_eq!(result.status, ResultStatus::Ok, "{result:?}");
    assert_eq!(result.summary, "owner/repo#12 with 2 comments");
    let item = item(&ended);
    assert_eq!(
        (item.title.as_str(), item.state.as_str()),
        ("A title", "open")
    );
    assert_eq!(item.body, "first\nsecond {{ vars.x }}");
    assert_eq!(item.author, "somebody");
    assert_eq!(item.labels, ["bug", "old"]);
    let said: Vec<_> = item.comments.iter().map(|it| it.body.as_str()).collect();
    assert_eq!(said, ["comment 1", "comment 2"]);
    assert_eq!((item.comments_left_out, item.pull), (0, None));
    let asked = forge.asked();
    assert!(
        asked
            .iter()
            .all(|it| it.header("authorization") == Some("Bearer secret"))
    );
    let path = ended.home.path().join("state").join(ITEM_FILE_NAME);
    assert_eq!(
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn of_many_comments_the_newest_are_kept_in_their_order() {
    let forge = ForgeServer::start(issue(250));
    let (_, ended) = Scene::at(&forge.url()).issue();
    let item = item(&ended);
    assert_eq!(item.comments.len(), COMMENTS_MAX);
    assert_eq!(item.comments[0].body, "comment 151");
    assert_eq!(item.comments[99].body, "comment 250");
    assert_eq!(item.comments_left_out, 150);
    assert_eq!(forge.asked().len(), 3, "the issue, and the last two pages");
}

#[test]
fn a_fresh_copy_spares_the_request_and_an_older_one_the_answer() {
    let forge = ForgeServer::start(|asked| {
        let etag = vec![("etag", "\"mark\"".to_owned())];
        match asked.header("if-none-match") {
            Some("\"mark\"") => Does::Answers(304, etag, String::new()),
            Some(other) => panic!("{other}"),
            None => Does::Answers(200, etag, low(0).to_string()),
        }
    });
    let scene = Scene::at(&forge.url());
    let (_, first) = scene.issue();
    assert_eq!(forge.asked().len(), 1);
    let (_, second) = scene.issue();
    assert_eq!(forge.asked().len(), 0);
    scene.age(2 * 3600 * 1000);
    let (_, third) = scene.issue();
    let asked = forge.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].header("if-none-match").is_some());
    assert_eq!(item(&first), item(&second));
    assert_eq!(item(&first), item(&third));
    scene.issue();
    assert_eq!(forge.asked().len(), 0, "it was seen to be how things stand");
}

#[test]
fn lists_are_fresh_for_a_shorter_time_than_issues() {
    let forge = ForgeServer::start(issue(1));
    let scene = Scene::at(&forge.url());
    scene.issue();
    forge.asked();
    scene.age(10 * 60 * 1000);
    scene.issue();
    let paths: Vec<_> = forge.asked().into_iter().map(|it| it.path).collect();
    assert_eq!(
        paths,
        ["/repos/owner/repo/issues/12/comments?per_page=100&page=1"]
    );
}

#[test]
fn a_forge_that_takes_no_more_requests_says_until_when() {
    let headers = [
        ("x-ratelimit-remaining", "0"),
        ("x-ratelimit-reset", "4000000000"),
    ];
    let forge = answers(403, &headers, r#"{"message": "API rate limit exceeded"}"#);
    let (result, _) = Scene::at(&forge.url()).issue();
    assert_eq!(result.class, Some(Class::Network), "{result:?}");
    assert_eq!(result.reset_at_ms, Some(4_000_000_000_000));
    assert!(result.summary.contains("GH_TOKEN"), "{}", result.summary);
}

#[test]
fn what_is_not_there_for_us_is_said_with_whose_rights_counted() {
    let forge = answers(404, &[], r#"{"message": "Not Found"}"#);
    let (result, ended) = Scene::at(&forge.url()).set("GITHUB_TOKEN", "t").issue();
    assert_eq!(result.class, Some(Class::SetupFailed));
    for part in [
        "issue owner/repo#12",
        "does it exist",
        "the token of GITHUB_TOKEN",
    ] {
        assert!(result.summary.contains(part), "{}", result.summary);
    }
    assert!(
        !ended
            .home
            .path()
            .join("state")
            .join(ITEM_FILE_NAME)
            .exists()
    );
    let forge = answers(401, &[], r#"{"message": "Bad credentials"}"#);
    let (result, _) = Scene::at(&forge.url()).set("GH_TOKEN", "t").issue();
    assert_eq!(result.class, Some(Class::SetupFailed));
    assert!(
        result.summary.contains("Bad credentials"),
        "{}",
        result.summary
    );
}

#[test]
fn trouble_of_the_forge_or_of_the_way_there_is_waited_for() {
    for (story, said) in [
        (Does::Answers(502, Vec::new(), String::new()), "502"),
        (Does::BreaksOff, "breaks off"),
        (
            Does::Answers(200, Vec::new(), "<html>".to_owned()),
            "no answer of a forge",
        ),
    ] {
        let story = std::sync::Mutex::new(Some(story));
        let forge = ForgeServer::start(move |_| story.lock().unwrap().take().unwrap());
        let (result, _) = Scene::at(&forge.url()).issue();
        assert_eq!(result.class, Some(Class::Network), "{result:?}");
        assert!(result.summary.contains(said), "{}", result.summary);
        assert!(result.summary.contains("127.0.0.1"), "{}", result.summary);
    }
}

#[test]
fn a_forge_that_says_nothing_is_given_up_in_time() {
    let forge = ForgeServer::start(|_| Does::Hangs);
    let mut scene = Scene::at(&forge.url());
    scene.timeout_ms = 500;
    let (result, _) = scene.issue();
    assert_eq!(result.class, Some(Class::Network));
    assert!(
        result.summary.contains("no answer within 500ms"),
        "{}",
        result.summary
    );
}

#[test]
fn a_forge_out_of_reach_is_named_with_what_to_do() {
    // Nobody listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = format!("http://{}", port.local_addr().unwrap());
    drop(port);
    let (result, _) = Scene::at(&gone).issue();
    assert_eq!(result.class, Some(Class::Network));
    for part in ["can not reach 127.0.0.1", "check the network"] {
        assert!(result.summary.contains(part), "{}", result.summary);
    }
}

#[test]
fn a_copy_of_the_same_day_stands_in_for_a_forge_that_does_not_answer() {
    const HOUR: i64 = 3600 * 1000;
    let (broken, seen) = (Arc::new(AtomicBool::new(false)), issue(1));
    let switch = Arc::clone(&broken);
    let forge = ForgeServer::start(move |asked| match broken.load(Ordering::SeqCst) {
        true => Does::BreaksOff,
        false => seen(asked),
    });
    let scene = Scene::at(&forge.url());
    let (_, first) = scene.issue();
    switch.store(true, Ordering::SeqCst);
    scene.age(3 * HOUR);
    let (result, ended) = scene.issue();
    assert_eq!(result.status, ResultStatus::Ok, "{result:?}");
    assert_eq!(item(&ended).comments, item(&first).comments);
    let used = |it: &&str| it.contains("a copy of 180 min ago is used");
    assert_eq!(ended.notices().into_iter().filter(used).count(), 2);
    scene.age(22 * HOUR);
    let (result, _) = scene.issue();
    assert_eq!(result.class, Some(Class::Network), "after a day no more");
}

#[test]
fn a_pull_request_has_its_branches_and_its_difference() {
    let forge = ForgeServer::start(|asked| match asked.header("accept") {
        Some("application/vnd.github.diff") => {
            Does::Answers(200, Vec::new(), "+".repeat(DIFF_MAX + 7))
        }
        _ if asked.path != "/repos/owner/repo/pulls/12" => json(value!([])),
        _ => {
            let mut low = low(0);
            low["base"] = value!({"ref": "main"});
            low["head"] = value!({"ref": "topic"});
            low["body"] = value!("x".repeat(TEXT_MAX + 1));
            json(low)
        }
    });
    let page = "https://github.com/owner/repo/pull/12/files";
    let (result, ended) = Scene::at(&forge.url()).fetch(ForgeKind::Pr, page);
    assert_eq!(result.status, ResultStatus::Ok, "{result:?}");
    let item = item(&ended);
    let pull = item.pull.unwrap();
    assert_eq!((pull.base.as_str(), pull.head.as_str()), ("main", "topic"));
    assert!(pull.diff.ends_with("\n[cut here: 7 more bytes]"));
    assert!(item.body.ends_with("\n[cut here: 1 more bytes]"));
}

/// So many reviews, every other one without a word of its own.
fn some_reviews(page: u64, count: u64) -> Value {
    let numbers = (page - 1) * 100 + 1..=count.min(page * 100);
    numbers
        .map(|number| {
            let says = number % 2 == 0;
            let body = if says { format!("review {number}") } else { String::new() };
            value!({"body": body, "user": {"login": "judge"}, "state": "COMMENTED", "submitted_at": null})
        })
        .collect()
}

#[test]
fn a_pull_request_has_its_newest_reviews_and_remarks_in_their_order() {
    let forge = ForgeServer::start(|asked| {
        let below = asked.path.strip_prefix("/repos/owner/repo/pulls/12");
        match (below, asked.header("accept")) {
            (Some(""), Some("application/vnd.github.diff")) => {
                Does::Answers(200, Vec::new(), "+\u{1b}[31m\tred\n".to_owned())
            }
            (Some(""), _) => json(low(0)),
            (Some("/reviews?per_page=100&page=1"), _) => json(some_reviews(1, 250)),
            (Some("/reviews?per_page=100&page=2"), _) => json(some_reviews(2, 250)),
            (Some("/reviews?per_page=100&page=3"), _) => json(some_reviews(3, 250)),
            (Some("/comments?per_page=100&sort=created&direction=desc"), _) => json(value!([
                {"body": "newer", "path": "src/a\n.rs", "line": 7, "created_at": "t"},
                {"body": "older", "path": "src/b.rs", "line": null},
            ])),
            (other, _) => panic!("{other:?}"),
        }
    });
    let (result, ended) = Scene::at(&forge.url()).fetch(ForgeKind::Pr, "owner/repo#12");
    assert_eq!(result.status, ResultStatus::Ok, "{result:?}");
    let pull = item(&ended).pull.unwrap();
    assert_eq!(pull.reviews.len(), COMMENTS_MAX);
    assert_eq!(pull.reviews[0].body, "review 52");
    assert_eq!(pull.reviews[99].body, "review 250");
    assert_eq!(
        (
            pull.reviews[0].author.as_str(),
            pull.reviews[0].state.as_str()
        ),
        ("judge", "commented")
    );
    let told: Vec<_> = pull
        .remarks
        .iter()
        .map(|it| (it.path.as_str(), it.line, it.body.as_str()))
        .collect();
    assert_eq!(
        told,
        [("src/b.rs", None, "older"), ("src/a .rs", Some(7), "newer")]
    );
    assert_eq!(pull.diff, "+\u{fffd}[31m\tred\n", "no escape is left");
}

#[test]
fn a_difference_that_the_forge_can_not_tell_is_left_out_and_said() {
    let forge = ForgeServer::start(|asked| match asked.header("accept") {
        Some("application/vnd.github.diff") => Does::Answers(406, Vec::new(), String::new()),
        _ if asked.path != "/repos/owner/repo/pulls/12" => json(value!([])),
        _ => json(low(0)),
    });
    let (_, ended) = Scene::at(&forge.url()).fetch(ForgeKind::Pr, "owner/repo#12");
    let item = item(&ended);
    assert_eq!(item.pull.unwrap().diff, "");
    assert!(
        item.warnings[0].contains("too large"),
        "{:?}",
        item.warnings
    );
}

#[test]
fn a_number_alone_is_of_the_repository_that_origin_names() {
    let forge = ForgeServer::start(issue(0));
    let mut scene = Scene::at(&forge.url());
    let folder = tempfile::tempdir().unwrap();
    let repo = git2::Repository::init(folder.path()).unwrap();
    scene.repo = Some(folder.path().display().to_string());
    let (result, _) = scene.fetch(ForgeKind::Issue, "#12");
    assert_eq!(result.class, Some(Class::SetupFailed));
    assert!(
        result.summary.contains("write `owner/repo#12`"),
        "{}",
        result.summary
    );
    repo.remote("origin", "git@github.com:owner/repo.git")
        .unwrap();
    let (result, ended) = scene.fetch(ForgeKind::Issue, "#12");
    assert_eq!(result.status, ResultStatus::Ok, "{result:?}");
    assert_eq!(item(&ended).reference, "owner/repo#12");
}

#[test]
fn a_token_is_not_sent_in_the_clear() {
    let scene = Scene::at("http://forge.example").set("GH_TOKEN", "secret");
    let (result, ended) = scene.issue();
    assert_eq!(result.class, Some(Class::Environment));
    assert!(result.summary.contains("https://"), "{}", result.summary);
    assert!(!ended.log("stderr.log").contains("secret"));
}

#[test]
fn a_link_in_the_tasks_folder_is_replaced_and_not_followed() {
    let forge = ForgeServer::start(issue(0));
    let target = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(target.path(), "kept").unwrap();
    let place = |client: &Client| {
        std::fs::create_dir(client.path("state")).unwrap();
        symlink(target.path(), client.path("state").join(ITEM_FILE_NAME)).unwrap();
    };
    let scene = Scene::at(&forge.url());
    let (result, ended) = scene.fetch_with(ForgeKind::Issue, "owner/repo#12", place);
    assert_eq!(result.status, ResultStatus::Ok, "{result:?}");
    assert_eq!(std::fs::read(target.path()).unwrap(), b"kept");
    assert_eq!(item(&ended).number, 12);
}

/// A `gh` that is logged in if asked so, and answers what lies in a folder.
fn fake_gh(home: &Path, logged_in: bool) {
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> '{home}/calls'\ncase \"$1\" in\n\
         auth) exit {exit};;\n\
         api) cat '{home}/answer'; echo 'gh: said' >&2; exit \"$(cat '{home}/exit')\";;\nesac\n",
        home = home.display(),
        exit = u8::from(!logged_in),
    );
    let file = home.join("gh");
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o700)).unwrap();
}

fn with_gh(answer: &str, exit: u8) -> (RunResult, Ended, String) {
    let home = tempfile::tempdir().unwrap();
    fake_gh(home.path(), true);
    std::fs::write(home.path().join("answer"), answer).unwrap();
    std::fs::write(home.path().join("exit"), exit.to_string()).unwrap();
    let path = format!(
        "{}:{}",
        home.path().display(),
        std::env::var("PATH").unwrap()
    );
    let mut scene = Scene::at("").set("PATH", &path);
    scene.env.remove("GITHUB_API_URL");
    let (result, ended) = scene.issue();
    let calls = std::fs::read_to_string(home.path().join("calls")).unwrap();
    (result, ended, calls)
}

#[test]
fn gh_carries_the_requests_where_it_is_logged_in() {
    let answer = format!("HTTP/2.0 200 OK\r\nEtag: \"m\"\r\n\r\n{}", low(0));
    let (result, ended, calls) = with_gh(&answer, 0);
    assert_eq!(result.status, ResultStatus::Ok, "{result:?}");
    assert_eq!(item(&ended).title, "A title");
    let calls: Vec<_> = calls.lines().collect();
    assert_eq!(calls[0], "auth token --hostname github.com");
    assert!(calls[1].starts_with("api --include --method GET --hostname github.com"));
    assert!(
        calls[1].ends_with(" repos/owner/repo/issues/12"),
        "{}",
        calls[1]
    );
}

#[test]
fn what_gh_meets_is_told_apart_as_well() {
    let missing = "HTTP/2.0 404 Not Found\r\n\r\n{\"message\": \"Not Found\"}";
    assert_eq!(with_gh(missing, 1).0.class, Some(Class::SetupFailed));
    let (offline, _, _) = with_gh("", 1);
    assert_eq!(offline.class, Some(Class::Network));
    assert!(offline.summary.contains("gh: said"), "{}", offline.summary);
}
