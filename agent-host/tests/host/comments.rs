//! The `comment` adapter: a comment is there once, whoever asks for it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use protocol::class::Class;
use protocol::command::{Adapter, RunKind};
use protocol::forge::{CommentAdapter, CommentWork, Fetch, ForgeKind, Reference};
use protocol::report::{ResultStatus, RunResult};
use serde_json::{Value, json as value};

use crate::client::{Client, Ended};
use crate::forge_server::{Asked, Does, ForgeServer, json};

const MARK: &str = "<!-- supervisor nightly a 1 failed -->";

/// An issue with these comments; what is posted goes to them.
fn issue(comments: &Arc<Mutex<Vec<String>>>, posts: Post) -> ForgeServer {
    let comments = Arc::clone(comments);
    ForgeServer::start(move |asked| {
        let mut comments = comments.lock().unwrap();
        match asked.path.strip_prefix("/repos/owner/repo/issues/12") {
            Some("") => json(value!({"comments": comments.len()})),
            Some("/comments") => posted(&mut comments, asked, posts),
            Some(page) => {
                let page = page.rsplit('=').next().unwrap();
                let page: usize = page.parse().unwrap();
                json(page_of(&comments, page))
            }
            None => panic!("{}", asked.path),
        }
    })
}

/// What a forge does with what is posted.
#[derive(Clone, Copy)]
enum Post {
    Takes,
    /// It takes it, and its answer is lost.
    Loses,
    Refuses,
}

fn posted(comments: &mut Vec<String>, asked: &Asked, does: Post) -> Does {
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    let text = body["body"].as_str().unwrap().to_owned();
    match does {
        Post::Takes => {
            comments.push(text);
            let made = value!({"body": "", "html_url": "https://forge.example/c/1"});
            Does::Answers(201, Vec::new(), made.to_string())
        }
        Post::Loses => {
            comments.push(text);
            Does::BreaksOff
        }
        Post::Refuses => {
            let said = value!({"message": "Resource not accessible by personal access token"});
            Does::Answers(403, Vec::new(), said.to_string())
        }
    }
}

fn page_of(comments: &[String], page: usize) -> Value {
    let page = comments.iter().skip((page - 1) * 100).take(100);
    page.map(|body| value!({"body": body, "html_url": "https://forge.example/c/1"}))
        .collect()
}

fn post(url: &str, text: &str) -> (RunResult, Ended) {
    let comment = CommentWork {
        about: Fetch {
            kind: ForgeKind::Issue,
            reference: Reference::parse(ForgeKind::Issue, "owner/repo#12").unwrap(),
            repo: None,
        },
        text: text.to_owned(),
        mark: MARK.to_owned(),
    };
    let adapter = Adapter::Comment(CommentAdapter {
        comment,
        timeout_ms: 60_000,
    });
    let env = [("GITHUB_API_URL", url), ("GH_TOKEN", "a-long-secret")];
    let env: BTreeMap<String, String> = env
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let client = Client::started(|client| {
        let mut start = client.start(adapter);
        start.kind = RunKind::Hook;
        start.env.extend(env);
        start
    });
    client.result()
}

#[test]
fn a_comment_is_posted_with_its_mark_and_without_secrets() {
    let comments = Arc::default();
    let forge = issue(&comments, Post::Takes);
    let (result, ended) = post(&forge.url(), "It failed: a-long-secret");
    assert_eq!(result.status, ResultStatus::Ok, "{result:?}");
    assert_eq!(result.summary, "posted: https://forge.example/c/1");
    let text = format!("It failed: [left out]\n\n{MARK}");
    assert_eq!(*comments.lock().unwrap(), [text]);
    assert!(!ended.log("stderr.log").contains("a-long-secret"));
    assert!(
        forge
            .asked()
            .iter()
            .all(|it| it.header("authorization") == Some("Bearer a-long-secret"))
    );
}

#[test]
fn one_whose_answer_was_lost_is_found_and_not_posted_again() {
    let comments: Arc<Mutex<Vec<String>>> = Arc::default();
    // As many as fill a page: the next one is on another.
    comments.lock().unwrap().resize(100, "other".to_owned());
    let losing = issue(&comments, Post::Loses);
    let (result, _) = post(&losing.url(), "It failed");
    assert_eq!(result.class, Some(Class::Network), "{result:?}");
    let forge = issue(&comments, Post::Takes);
    let (result, _) = post(&forge.url(), "It failed");
    assert_eq!(result.status, ResultStatus::Ok, "{result:?}");
    assert!(
        result.summary.starts_with("it is there already"),
        "{}",
        result.summary
    );
    assert_eq!(comments.lock().unwrap().len(), 101);
    assert!(forge.asked().iter().all(|it| it.body.is_empty()));
}

#[test]
fn a_forge_that_lets_nobody_write_is_told_in_its_words() {
    let comments = Arc::default();
    let forge = issue(&comments, Post::Refuses);
    let (result, _) = post(&forge.url(), "It failed");
    assert_eq!(result.class, Some(Class::SetupFailed));
    for part in ["the token of GH_TOKEN", "Resource not accessible"] {
        assert!(result.summary.contains(part), "{}", result.summary);
    }
}
