//! The words of an integration on the wire: scripts read them in `integrated.jsonl`.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

use protocol::git::{GitEnd, GitOutcome, GitWork, Oid};
use protocol::integrate::{
    Agreed, How, Integrate, IntegratePlan, IntegrateResult, Integrated, Remote,
};

fn oid(digit: &str) -> Oid {
    Oid::try_from(digit.repeat(40)).unwrap()
}

#[test]
fn a_request_says_nothing_that_is_not_so() {
    let mut work = Integrate {
        repo: "/r".to_owned(),
        from: "refs/heads/batch/b".to_owned(),
        into: "refs/heads/main".to_owned(),
        how: How::FastForward,
        dry_run: false,
        agreed: None,
        message: "m".to_owned(),
        title: "t".to_owned(),
        body: "b".to_owned(),
    };
    let wire = |work: &Integrate| {
        let work = GitWork::Integrate(Box::new(work.clone()));
        let text = serde_json::to_string(&work).unwrap();
        assert_eq!(serde_json::from_str::<GitWork>(&text).unwrap(), work);
        text
    };
    let short = wire(&work);
    assert!(
        short.starts_with(r#"{"op":"integrate","repo":"/r""#),
        "{short}"
    );
    assert!(short.contains(r#""how":"fast_forward""#), "{short}");
    assert!(
        !short.contains("dry_run") && !short.contains("agreed"),
        "{short}"
    );
    work.dry_run = true;
    work.agreed = Some(Agreed {
        from: oid("a"),
        into: oid("b"),
    });
    assert!(wire(&work).contains(r#""dry_run":true"#));
}

#[test]
fn each_result_has_a_word_of_its_own() {
    let commit = oid("c");
    let url = "https://host/7".to_owned();
    let results = [
        (
            IntegrateResult::Planned {},
            r#"{"is":"planned"}"#.to_owned(),
        ),
        (
            IntegrateResult::Contained {},
            r#"{"is":"contained"}"#.to_owned(),
        ),
        (
            IntegrateResult::Conflict {},
            r#"{"is":"conflict"}"#.to_owned(),
        ),
        (
            IntegrateResult::FastForwarded {
                commit: commit.clone(),
            },
            format!(r#"{{"is":"fast_forwarded","commit":"{commit}"}}"#),
        ),
        (
            IntegrateResult::Merged {
                commit: commit.clone(),
            },
            format!(r#"{{"is":"merged","commit":"{commit}"}}"#),
        ),
        (
            IntegrateResult::PullRequest {
                url,
                existed: false,
            },
            r#"{"is":"pull_request","url":"https://host/7"}"#.to_owned(),
        ),
        (
            IntegrateResult::Refused {
                why: "w".to_owned(),
                way_out: "o".to_owned(),
            },
            r#"{"is":"refused","why":"w","way_out":"o"}"#.to_owned(),
        ),
    ];
    for (result, text) in results {
        assert_eq!(serde_json::to_string(&result).unwrap(), text);
        assert_eq!(
            serde_json::from_str::<IntegrateResult>(&text).unwrap(),
            result
        );
    }
}

#[test]
fn an_end_comes_back_whole() {
    let plan = IntegratePlan {
        from: oid("a"),
        into: oid("b"),
        how: How::PullRequest,
        commits: 2,
        files: 1,
        paths: vec!["f".to_owned()],
        fast_forward: true,
        conflicts: Vec::new(),
        checked_out: None,
        hooks: vec!["pre-push".to_owned()],
        signs: false,
        remote: Some(Remote {
            name: "origin".to_owned(),
            base: "main".to_owned(),
        }),
    };
    let result = IntegrateResult::Planned {};
    let done = GitOutcome::Integrated(Box::new(Integrated { plan, result }));
    let text = serde_json::to_string(&GitEnd::Done(done.clone())).unwrap();
    assert!(
        text.starts_with(r#"{"done":{"op":"integrated","plan":{"#),
        "{text}"
    );
    match serde_json::from_str(&text).unwrap() {
        GitEnd::Done(read) => assert_eq!(read, done),
        GitEnd::Failed { message, .. } => panic!("{message}"),
    }
}
