//! Git work and its outcomes, byte by byte. As in `golden.rs`: never edited after a release, written
//! only where they do not exist yet.
#![expect(clippy::unwrap_used, reason = "a test: a panic is its failure")]

#[path = "golden/compare.rs"]
#[macro_use]
mod compare;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use compare::{golden, parse};
use protocol::build_output::{BuildOutput, BuildOutputFolder, BuildOutputFound, BuildOutputStays};
use protocol::git::{
    Advance, Candidate, Checkout, CommitWork, Committed, Conclude, Concluded, Conflict, Conflicted,
    Foreseen, Freshness, GitOutcome, GitWork, Kept, Merge, MergeCommit, MergeConflict, Merged, Oid,
    Predict, Predicted, Provision, Provisioned, Remove, Removed, Restore, Restored, Salvage,
    Salvaged,
};
use protocol::integrate::{
    Agreed, How, Integrate, IntegratePlan, IntegrateResult, Integrated, Remote,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

variants! {
    WORKS, work_name, GitWork,
    GitWork::Provision(_) => "provision",
    GitWork::Commit(_) => "commit",
    GitWork::Salvage(_) => "salvage",
    GitWork::Remove(_) => "remove",
    GitWork::Checkout(_) => "checkout",
    GitWork::Merge(_) => "merge",
    GitWork::Conflict(_) => "conflict",
    GitWork::Conclude(_) => "conclude",
    GitWork::Advance(_) => "advance",
    GitWork::Restore(_) => "restore",
    GitWork::Predict(_) => "predict",
    GitWork::Integrate(_) => "integrate",
    GitWork::BuildOutput(_) => "build_output",
}

variants! {
    OUTCOMES, outcome_name, GitOutcome,
    GitOutcome::Provisioned(_) => "provisioned",
    GitOutcome::Committed(_) => "committed",
    GitOutcome::Salvaged(_) => "salvaged",
    GitOutcome::Removed(_) => "removed",
    GitOutcome::CheckedOut {} => "checked_out",
    GitOutcome::Merged(_) => "merged",
    GitOutcome::Conflicted(_) => "conflicted",
    GitOutcome::Concluded(_) => "concluded",
    GitOutcome::Advanced {} => "advanced",
    GitOutcome::Restored(_) => "restored",
    GitOutcome::Predicted(_) => "predicted",
    GitOutcome::Integrated(_) => "integrated",
    GitOutcome::BuildOutput(_) => "build_output",
}

const REPO: &str = "/home/op/web";
const WORKTREE: &str = "/state/worktrees/parse-errors";
const BRANCH: &str = "refs/heads/supervisor/nightly/parse-errors";
const INTO: &str = "refs/heads/supervisor/nightly";
const MAIN: &str = "refs/heads/main";
const SALVAGE: &str = "refs/supervisor/salvage/nightly/parse-errors/1";

fn oid(digit: char) -> Oid {
    Oid::try_from(digit.to_string().repeat(40)).unwrap()
}

fn candidate() -> Candidate {
    Candidate {
        task: "parse-errors".parse().unwrap(),
        commit: oid('c'),
        message: "Merge parse-errors\n\nTask: \"parse\"".to_owned(),
    }
}

/// Work for a task's worktree; what may be absent is there.
fn works_of_a_task() -> Vec<GitWork> {
    let (repo, worktree) = (REPO.to_owned(), WORKTREE.to_owned());
    vec![
        GitWork::Provision(Provision {
            repo: repo.clone(),
            worktree: worktree.clone(),
            branch: BRANCH.to_owned(),
            into: INTO.to_owned(),
            pinned: oid('a'),
            needs: vec![oid('b')],
            made: Some(oid('a')),
            kept: vec![oid('d')],
            freshness: Freshness::Rebase,
            watch: Some("refs/heads/main".to_owned()),
        }),
        GitWork::Commit(CommitWork {
            repo: repo.clone(),
            worktree: worktree.clone(),
            branch: BRANCH.to_owned(),
            base: oid('a'),
            message: "Parse errors".to_owned(),
            touches: Some(vec!["src/**".to_owned()]),
            outputs: vec!["report.html".to_owned()],
            outputs_dir: "/state/outputs".to_owned(),
        }),
        GitWork::Salvage(Salvage {
            repo: repo.clone(),
            worktree: worktree.clone(),
            reference: SALVAGE.to_owned(),
            ignored: vec![".env".to_owned()],
            note: "the attempt starts fresh".to_owned(),
            last: Some(Kept {
                reference: SALVAGE.to_owned(),
                commit: oid('c'),
            }),
        }),
        GitWork::Remove(Remove {
            repo: repo.clone(),
            worktree: worktree.clone(),
            branch: Some(BRANCH.to_owned()),
            kept: oid('c'),
            kept_by: INTO.to_owned(),
        }),
        GitWork::Checkout(Checkout {
            repo,
            worktree,
            commit: oid('c'),
        }),
    ]
}

/// Work for a batch.
fn works_of_a_batch() -> Vec<GitWork> {
    let (repo, worktree) = (REPO.to_owned(), WORKTREE.to_owned());
    vec![
        GitWork::Merge(Merge {
            repo: repo.clone(),
            worktree: worktree.clone(),
            into: INTO.to_owned(),
            pinned: oid('a'),
            candidates: vec![candidate()],
            take: 1,
            advance: true,
            freshness: Freshness::Warn,
            watch: Some(MAIN.to_owned()),
        }),
        GitWork::Conflict(Conflict {
            repo: repo.clone(),
            worktree: worktree.clone(),
            into: INTO.to_owned(),
            candidate: candidate(),
            packet: "/state/packet".to_owned(),
        }),
        GitWork::Conclude(Conclude {
            repo: repo.clone(),
            worktree: worktree.clone(),
            tip: oid('b'),
            candidate: candidate(),
        }),
        GitWork::Advance(Advance {
            repo: repo.clone(),
            into: INTO.to_owned(),
            from: oid('a'),
            to: oid('b'),
        }),
        GitWork::Restore(Restore {
            repo: repo.clone(),
            reference: SALVAGE.to_owned(),
            to: "/home/op/restored".to_owned(),
            staged: true,
            modules: Some("/m".to_owned()),
        }),
        GitWork::Predict(Predict {
            repo,
            pairs: vec![(oid('a'), oid('b'))],
            at_most_ms: 2_000,
        }),
        GitWork::BuildOutput(BuildOutput {
            repo: REPO.to_owned(),
            worktree: WORKTREE.to_owned(),
            remove: true,
        }),
        GitWork::Integrate(Box::new(Integrate {
            repo: REPO.to_owned(),
            from: INTO.to_owned(),
            into: MAIN.to_owned(),
            how: How::Either,
            dry_run: true,
            agreed: Some(Agreed {
                from: oid('b'),
                into: oid('a'),
            }),
            message: "Merge nightly into main".to_owned(),
            title: "nightly: 2 tasks".to_owned(),
            body: "| task | state |".to_owned(),
        })),
    ]
}

fn works() -> Vec<GitWork> {
    let mut works = works_of_a_task();
    works.extend(works_of_a_batch());
    works
}

fn outcomes_of_a_task() -> Vec<GitOutcome> {
    vec![
        GitOutcome::Provisioned(Provisioned {
            base: oid('a'),
            head: oid('b'),
            made: true,
            warnings: vec!["main has moved".to_owned()],
        }),
        GitOutcome::Committed(Committed {
            commit: oid('c'),
            files: 3,
            markers: vec!["src/lib.rs".to_owned()],
            outside: vec!["docs/a.md".to_owned()],
            missing: vec!["report.html".to_owned()],
            warnings: vec!["inner is a repository".to_owned()],
        }),
        GitOutcome::Salvaged(Salvaged {
            reference: SALVAGE.to_owned(),
            commit: oid('d'),
            files: 12,
            bytes: 209_715_200,
            skipped: vec!["socket".to_owned()],
        }),
        GitOutcome::Removed(Removed {
            bytes: 4096,
            existed: true,
        }),
        GitOutcome::CheckedOut {},
    ]
}

fn outcomes_of_a_batch() -> Vec<GitOutcome> {
    let contents = || BTreeMap::from([("src/lib.rs".to_owned(), "contents".to_owned())]);
    vec![
        GitOutcome::Merged(Merged {
            tip: oid('a'),
            merges: vec![MergeCommit {
                task: "parse-errors".parse().unwrap(),
                commit: oid('e'),
            }],
            conflicts: vec![MergeConflict {
                task: "docs".parse().unwrap(),
                with: oid('e'),
                by: vec![oid('e'), oid('d')],
                files: vec!["src/lib.rs".to_owned()],
                kinds: contents(),
            }],
            warnings: vec!["refs/heads/main has moved".to_owned()],
        }),
        GitOutcome::Conflicted(Conflicted {
            tip: oid('b'),
            files: contents(),
        }),
        GitOutcome::Concluded(Concluded {
            commit: Some(oid('f')),
            markers: vec!["src/lib.rs".to_owned()],
        }),
        GitOutcome::Advanced {},
        GitOutcome::Restored(Restored {
            reference: SALVAGE.to_owned(),
            files: 12,
            bytes: 209_715_200,
            modules_left: true,
        }),
        GitOutcome::Predicted(Predicted {
            pairs: vec![
                Foreseen {
                    paths: vec!["src/lib.rs".to_owned()],
                    more: 3,
                },
                Foreseen::default(),
            ],
        }),
        GitOutcome::Integrated(Box::new(integrated())),
        GitOutcome::BuildOutput(BuildOutputFound {
            folders: vec![BuildOutputFolder {
                path: "target".to_owned(),
                bytes: 209_715_200,
                files: 812,
            }],
            stays: vec![BuildOutputStays {
                path: "web/node_modules".to_owned(),
                why: "holds a repository".to_owned(),
            }],
            bytes: 209_715_200,
            removed: true,
        }),
    ]
}

fn integrated() -> Integrated {
    Integrated {
        plan: IntegratePlan {
            from: oid('b'),
            into: oid('a'),
            how: How::Merge,
            commits: 2,
            files: 1,
            paths: vec!["src/lib.rs".to_owned()],
            fast_forward: false,
            conflicts: vec!["src/lib.rs".to_owned()],
            checked_out: Some(REPO.to_owned()),
            hooks: vec!["post-merge".to_owned()],
            signs: true,
            remote: Some(Remote {
                name: "origin".to_owned(),
                base: "main".to_owned(),
            }),
        },
        result: IntegrateResult::Merged { commit: oid('e') },
    }
}

fn outcomes() -> Vec<GitOutcome> {
    let mut outcomes = outcomes_of_a_task();
    outcomes.extend(outcomes_of_a_batch());
    outcomes
}

/// Written as released, and read back; returns the name of its file.
fn compare<T: Serialize + DeserializeOwned + PartialEq + Debug>(name: &str, value: &T) -> String {
    let mut written = serde_json::to_vec(value).unwrap();
    written.push(b'\n');
    let bytes = golden(name, &written);
    assert_eq!(&parse::<T>(name, &bytes), value, "{name}");
    let json: serde_json::Value = parse(name, &bytes);
    let word = json["op"].as_str().unwrap();
    assert_eq!(name.rsplit_once('.').unwrap().1, word, "{name}");
    format!("{name}.json")
}

#[test]
fn git_work_is_written_and_read_as_released_and_no_file_is_without_its_sample() {
    let mut known = BTreeSet::new();
    for work in works() {
        assert_eq!(work.word(), work_name(&work));
        known.insert(compare(&format!("git_work.{}", work.word()), &work));
    }
    for outcome in outcomes() {
        let name = format!("git_outcome.{}", outcome_name(&outcome));
        known.insert(compare(&name, &outcome));
    }
    assert_eq!(known.len(), WORKS.len() + OUTCOMES.len());
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1");
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let present: BTreeSet<String> = names.filter(|name| name.starts_with("git_")).collect();
    assert_eq!(present, known);
}

#[test]
fn what_may_be_absent_is_not_written_and_is_not_missed() {
    let text =
        r#"{"op":"provisioned","base":"BASE","head":"BASE"}"#.replace("BASE", oid('a').as_str());
    let outcome: GitOutcome = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&outcome).unwrap(), text);
    let bad = text.replace(oid('a').as_str(), "HEAD");
    assert!(serde_json::from_str::<GitOutcome>(&bad).is_err());
    assert!(serde_json::from_str::<GitWork>(r#"{"op":"dance"}"#).is_err());
}
