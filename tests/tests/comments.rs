//! Comments that tasks leave on what they are about: by explicit setting alone, once, and in nobody's way.
#![expect(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json as value};
use supervisor_tests::delivery::{explained, row};
use supervisor_tests::world::{Started, World};

// As in `forge.rs`.
#[path = "../../agent-host/tests/host/forge_server.rs"]
mod forge_server;

use forge_server::{Asked, Does, ForgeServer, json};

/// The issue 12 with what was posted to it.
#[derive(Clone, Default)]
struct Issue {
    comments: Arc<Mutex<Vec<String>>>,
    /// So many posts are taken without an answer; the next ones get one.
    silent: Arc<AtomicU32>,
    /// Every post is refused with this status, where there is one.
    refused: Option<u16>,
}

impl Issue {
    fn serve(&self) -> ForgeServer {
        let issue = self.clone();
        ForgeServer::start(move |asked| issue.answer(asked))
    }

    fn answer(&self, asked: &Asked) -> Does {
        let path = asked.path.strip_prefix("/repos/owner/repo/issues/12");
        let mut comments = self.comments.lock().unwrap();
        match path {
            Some("") => json(value!({
                "html_url": "https://forge.example/12", "title": "T", "number": 12, "body": "B",
                "user": null, "state": "open", "comments": comments.len()
            })),
            Some("/comments") => {
                if let Some(status) = self.refused {
                    return Does::Answers(status, Vec::new(), String::new());
                }
                let body: Value = serde_json::from_str(&asked.body).unwrap();
                comments.push(body["body"].as_str().unwrap().to_owned());
                let less = |left: u32| left.checked_sub(1);
                match self
                    .silent
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
                {
                    Ok(_) => Does::Hangs,
                    Err(_) => {
                        let made = value!({"body": "", "html_url": "https://forge.example/c"});
                        Does::Answers(201, Vec::new(), made.to_string())
                    }
                }
            }
            Some(_) => {
                let all = comments.iter().map(|body| {
                    value!({"body": body, "html_url": "https://forge.example/c", "user": null})
                });
                json(all.collect())
            }
            None => Does::BreaksOff,
        }
    }

    fn posted(&self) -> Vec<String> {
        self.comments.lock().unwrap().clone()
    }
}

fn world(on: &str, command: &str) -> World {
    let world = World::new();
    let comment = match on {
        "" => String::new(),
        on => format!(", comment: {{on: [{on}]}}"),
    };
    let text = format!(
        "version: 1\nname: forge\nisolation: none\n\
         agents:\n  one: {{kind: command, command: [sh, -c, {command:?}]}}\n\
         defaults: {{agent: one, attempts: 1}}\n\
         tasks: [{{id: a, prompt: {{issue: owner/repo#12}}{comment}}}]\n"
    );
    world.write("batch.yml", &text);
    world
}

fn start(world: &World, forge: &ForgeServer, args: &[&str]) -> Started {
    world.start_with("run", args, &[("GITHUB_API_URL", &forge.url())])
}

#[test]
fn a_failure_is_told_once_with_its_reason() {
    let issue = Issue::default();
    let forge = issue.serve();
    let world = world("failed, question", "echo @all is lost; exit 3");
    let run = start(&world, &forge, &["run"]);
    assert_eq!(run.end(&world), Some(1), "{}", world.printed("run"));
    let posted = issue.posted();
    assert_eq!(posted.len(), 1, "{posted:?}");
    let batch = world.status()["batch"]["id"].as_str().unwrap().to_owned();
    for part in [
        format!("The task `a` of the batch `{batch}` has failed in attempt 1 (`agent_failed`)"),
        format!("<!-- supervisor {batch} a 1 failed -->"),
    ] {
        assert!(posted[0].contains(&part), "{part}: {}", posted[0]);
    }
    let story = explained(&world, "a");
    assert!(story.contains("posted: https://forge.example/c"), "{story}");
    world.assert_nothing_left();
}

#[test]
fn without_the_setting_nothing_is_ever_posted() {
    let issue = Issue::default();
    let forge = issue.serve();
    let world = world("", "exit 3");
    let run = start(&world, &forge, &["run"]);
    assert_eq!(run.end(&world), Some(1), "{}", world.printed("run"));
    assert_eq!(issue.posted(), Vec::<String>::new());
    assert!(forge.asked().iter().all(|asked| asked.body.is_empty()));
    world.assert_nothing_left();
}

#[test]
fn a_supervisor_that_is_killed_while_it_posts_does_not_post_twice() {
    let issue = Issue::default();
    issue.silent.store(1, Ordering::SeqCst);
    let forge = issue.serve();
    let world = world("done", "true");
    let first = start(&world, &forge, &["run", "--no-guardian"]);
    world.eventually("the comment is there, and its answer is not", |_| {
        (!issue.posted().is_empty()).then_some(())
    });
    assert_eq!(row(&world, "a")["state"], "done", "the task did not wait");
    first.kill();
    let again = start(&world, &forge, &["run", "--no-guardian"]);
    assert_eq!(again.end(&world), Some(0), "{}", world.printed("run"));
    assert_eq!(issue.posted().len(), 1);
    let story = explained(&world, "a");
    assert!(story.contains("it is there already"), "{story}");
    world.assert_nothing_left();
}

#[test]
fn a_comment_that_is_refused_is_a_warning_and_changes_nothing_else() {
    let issue = Issue {
        refused: Some(403),
        ..Issue::default()
    };
    let forge = issue.serve();
    let world = world("done", "true");
    let run = start(&world, &forge, &["run"]);
    assert_eq!(run.end(&world), Some(0), "{}", world.printed("run"));
    assert_eq!(row(&world, "a")["state"], "done");
    let story = explained(&world, "a");
    assert!(story.contains("is not posted (warning)"), "{story}");
    world.assert_nothing_left();
}

#[test]
fn a_question_is_told_with_the_way_to_answer_it() {
    let issue = Issue::default();
    let forge = issue.serve();
    let world = World::new();
    world.write(
        "batch.yml",
        "version: 1\nname: forge\nisolation: none\n\
         agents:\n  one: {kind: scripted, script: [{ask: {text: 'Which port?', options: ['80', '81']}}]}\n\
         tasks: [{id: a, agent: one, prompt: {issue: owner/repo#12, text: go}, comment: {on: [question]}}]\n",
    );
    let run = start(&world, &forge, &["run"]);
    let text = world.eventually("the question is told", |_| issue.posted().pop());
    for part in [
        "    Which port?\n",
        "    80\n    81\n",
        "`supervisor answer q1 TEXT`",
        "question-q1 -->",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    world.supervisor(&["answer", "q1", "81"]).ok();
    assert_eq!(run.end(&world), Some(0), "{}", world.printed("run"));
    assert_eq!(issue.posted().len(), 1);
    world.assert_nothing_left();
}

#[test]
fn a_comment_needs_something_that_the_task_is_about() {
    let world = World::new();
    world.write(
        "batch.yml",
        "version: 1\nname: forge\nisolation: none\n\
         tasks: [{id: a, run: 'true', comment: {on: [failed]}}]\n",
    );
    let ran = world.supervisor(&["validate"]).exits(3);
    for part in [
        "`comment` without an issue or pull request",
        "prompt: {issue: owner/repo#12}",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
}
