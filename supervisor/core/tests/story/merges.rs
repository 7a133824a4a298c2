//! The merges of a repository: whose turn it is, what proves them, what conflicts, and where they end.

use super::harness::*;

const SETTLED: [MergeState; 3] = [MergeState::Merged, MergeState::Parked, MergeState::Failed];

/// These tasks in one repository, done and waiting for a round that has just begun with all of them:
/// they became done while that of a first one was under way.
fn done(names: &[&str], change: impl FnOnce(&mut RepoRules)) -> World {
    let plan = repo(change).task("first").within("r");
    let plan = names
        .iter()
        .fold(plan, |plan, name| plan.task(name).within("r"));
    let mut world = World::start(plan);
    world.passes_all("first");
    for name in names {
        world.passes_all(name);
    }
    world.merges_but(&[]);
    world.stage_says(Stage::Verify, ok());
    world.stage_says(Stage::Advance, advanced());
    world
}

type RepoRules = supervisor_core::plan::RepoSpec;

fn repo(change: impl FnOnce(&mut RepoRules)) -> PlanBuilder {
    batch()
        .lanes(20)
        .agent("fixer", "main", |_| {})
        .repo("r", change)
}

fn conflict_by(rule: OnConflict) -> World {
    let mut world = World::start(repo(|it| it.on_conflict = rule).task("a").within("r"));
    world.passes_all("a");
    world.merges_but(&["a"]);
    world
}

fn agent() -> OnConflict {
    OnConflict::Agent(Some(AgentIx(1)))
}

/// The rounds go on, answered like this, until none is due; answers how many proofs there were. A
/// proof fails where it holds the merge commit of `bad`.
fn prove_all(world: &mut World, bad: &str) -> u32 {
    let mut proofs = 0;
    for _ in 0..200 {
        let Some((generation, purpose)) = world.other_runs().first().copied() else {
            return proofs;
        };
        let Purpose::Merge(_, stage) = purpose else {
            panic!("{purpose:?}");
        };
        let result = match stage {
            Stage::Merge => {
                world.merges_but(&[]);
                continue;
            }
            Stage::Verify => {
                proofs += 1;
                let round = world.round();
                let proving = round.proving() as usize;
                let mut held = round.commits[..proving].iter();
                let broken = held.any(|(ix, _)| world.name(*ix) == bad);
                if broken {
                    failed(Class::VerifyFailed)
                } else {
                    ok()
                }
            }
            Stage::Checkout => checked_out(),
            Stage::Advance => advanced(),
            Stage::Conflict | Stage::Resolve | Stage::Conclude => panic!("{stage:?}"),
        };
        world.run_says(generation, result);
    }
    panic!("the proofs have no end");
}

#[test]
fn a_merge_is_merged_proven_and_then_the_branch_moves() {
    let mut world = World::start(repo(|_| {}).task("a").within("r"));
    world.passes_all("a");
    assert_eq!(world.merge_at("a"), MergeState::Merging);
    world.merges_but(&[]);
    assert_eq!(world.merge_at("a"), MergeState::Verifying);
    world.stage_says(Stage::Verify, ok());
    assert_eq!(world.merge_at("a"), MergeState::Verifying, "not yet there");
    world.stage_says(Stage::Advance, advanced());
    assert_eq!(world.merge_at("a"), MergeState::Merged);
    assert_eq!(world.merge_of("a").merged, Some(merge_commit("a")));
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// Nothing verifies it: the branch moves with the merge.
#[test]
fn a_merge_that_nothing_proves_is_merged_at_once() {
    let mut world = World::start(repo(|it| it.verify = false).task("a").within("r"));
    world.passes_all("a");
    world.merges_but(&[]);
    assert_eq!(world.merge_at("a"), MergeState::Merged);
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// Found on the branch: proven when it got there.
#[test]
fn what_the_branch_holds_already_is_merged_without_a_proof() {
    let mut world = World::start(repo(|_| {}).task("a").within("r"));
    world.passes_all("a");
    let mut there = merged(&["a"], &[]);
    let outcome = there.git.as_deref_mut();
    let Some(protocol::git::GitOutcome::Merged(told)) = outcome else {
        panic!("{there:?}");
    };
    told.merges[0].commit = told.tip.clone();
    world.stage_says(Stage::Merge, there);
    assert_eq!(world.merge_at("a"), MergeState::Merged);
}

#[test]
fn one_round_at_a_time_in_a_repository() {
    let plan = repo(|_| {}).task("a").within("r").task("b").within("r");
    let mut world = World::start(plan);
    world.passes_all("a");
    world.passes_all("b");
    assert_eq!(world.other_runs().len(), 1);
    assert_eq!(world.merge_at("b"), MergeState::Queued);
    world.all_goes_well();
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn two_repositories_are_merged_into_side_by_side() {
    let plan = repo(|_| {}).repo("s", |_| {});
    let plan = plan.task("a").within("r").task("b").within("s");
    let mut world = World::start(plan);
    world.passes_all("a");
    world.passes_all("b");
    let stage = Stage::Merge;
    let runs: Vec<Purpose> = world
        .other_runs()
        .iter()
        .map(|(_, purpose)| *purpose)
        .collect();
    let both = [RepoIx(0), RepoIx(1)].map(|repo| Purpose::Merge(repo, stage));
    assert_eq!(runs, both);
    world.all_goes_well();
    assert_eq!(world.ending(), Some(Ending::Done));
}

/// The order of the graph, not of the plan: what it depends on is on the branch first.
#[test]
fn dependencies_are_merged_first() {
    let plan = repo(|it| it.group = 8);
    let plan = plan.task("late").within("r").after(&["early"]);
    let plan = plan.task("early").within("r");
    let mut world = World::start(plan);
    world.passes_all("early");
    world.passes_all("late");
    assert_eq!(world.merge_at("late"), MergeState::Queued);
    world.run_vanishes(world.merging(Stage::Merge));
    assert_eq!(world.merge_at("late"), MergeState::Queued);
    world.all_goes_well();
    let merged = |name: &str| {
        let ix = world.ix(name);
        world.journal.iter().position(|entry| {
            matches!(&entry.record, Record::MergeMoved { task, to, .. }
                if *task == ix && *to == MergeState::Merged)
        })
    };
    assert!(merged("early") < merged("late"));
}

// What waits for a merge.

#[test]
fn a_dependent_of_a_merge_starts_once_it_is_on_the_branch() {
    let plan = repo(|_| {})
        .task("a")
        .within("r")
        .task("b")
        .after_merge(&["a"]);
    let mut world = World::start(plan);
    world.passes_all("a");
    assert_eq!(
        world.at("b"),
        (TaskState::Blocked, TaskReason::Dependencies)
    );
    world.all_goes_well();
    assert_eq!(world.state("b"), TaskState::Done);
}

#[test]
fn a_dependent_of_the_work_alone_does_not_wait_for_its_merge() {
    let plan = repo(|_| {}).task("a").within("r");
    let plan = plan.task("b").after(&["a"]).task("c").after_end(&["a"]);
    let mut world = World::start(plan);
    world.passes_all("a");
    assert_eq!(world.live(), ["b", "c"]);
}

#[test]
fn a_merge_of_nothing_lets_its_dependents_start() {
    let plan = repo(|_| {})
        .task("a")
        .within("r")
        .spec(|it| it.changes = false);
    let mut world = World::start(plan.task("b").after_merge(&["a"]));
    world.passes_to("a", Step::Commit);
    world.says("a", committed("a", 0));
    assert_eq!(world.live(), ["b"]);
}

#[test]
fn dependents_of_a_parked_merge_wait_and_of_a_failed_one_are_skipped() {
    for (rule, state) in [
        (OnConflict::Park, TaskState::Blocked),
        (OnConflict::Fail, TaskState::Skipped),
    ] {
        let plan = repo(|it| it.on_conflict = rule).task("a").within("r");
        let plan = plan.task("b").after_merge(&["a"]).task("c").after(&["b"]);
        let mut world = World::start(plan);
        world.passes_all("a");
        world.merges_but(&["a"]);
        assert_eq!(world.states(&["b", "c"]), [state; 2]);
        let ending = match state {
            TaskState::Blocked => Ending::NeedsPerson,
            _ => Ending::Failed,
        };
        assert_eq!(world.ending(), Some(ending));
        world.crash_and_find(ProcessFact::Gone, ResultFact::Absent);
        world.retry("a");
        world.tick();
        world.all_goes_well();
        assert_eq!(world.states(&["b", "c"]), [TaskState::Done; 2]);
        assert_eq!(world.batch_at().0, BatchState::Done);
    }
}

/// Failures stop nobody there: a merge that failed and is tried again is waited for anew, once.
#[test]
fn a_merge_that_is_tried_again_is_counted_once_where_failures_stop_nobody() {
    let plan = repo(|it| it.on_conflict = OnConflict::Fail)
        .set(|it| it.on_failure = OnFailure::Continue)
        .task("a")
        .within("r")
        .task("slow")
        .task("b")
        .after_merge(&["a"])
        .after(&["slow"]);
    let mut world = World::start(plan);
    world.begin("slow");
    world.passes_all("a");
    world.merges_but(&["a"]);
    assert_eq!(world.merge_at("a"), MergeState::Failed);
    world.retry("a");
    world.merges_but(&[]);
    world.stage_says(Stage::Verify, ok());
    world.stage_says(Stage::Advance, advanced());
    assert_eq!(world.merge_at("a"), MergeState::Merged);
    assert_eq!(world.state("b"), TaskState::Blocked, "`slow` is not done");
    world.ends("slow", ok());
    assert_eq!(world.live(), ["b"]);
}

#[test]
fn a_batch_is_done_only_when_its_merges_are() {
    let mut world = World::start(repo(|_| {}).task("a").within("r"));
    world.passes_all("a");
    assert_eq!(world.ending(), None);
    world.merges_but(&[]);
    world.stage_says(Stage::Verify, ok());
    assert_eq!(world.batch_at().0, BatchState::Running);
    world.stage_says(Stage::Advance, advanced());
    assert_eq!(world.batch_at().0, BatchState::Done);
}

// Conflicts.

#[test]
fn a_conflict_is_parked_or_fails_as_the_batch_file_says() {
    let world = conflict_by(OnConflict::Park);
    assert_eq!(world.merge_at("a"), MergeState::Parked);
    let detail = &world.merge_of("a").detail;
    assert!(detail.starts_with("conflicts with ") && detail.ends_with("a.rs"));
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    let world = conflict_by(OnConflict::Fail);
    assert_eq!(world.merge_at("a"), MergeState::Failed);
    assert_eq!(world.ending(), Some(Ending::Failed));
}

/// The other side is told by name: of this round, of one before, or a commit that is no task's.
#[test]
fn a_conflict_names_the_tasks_whose_work_it_is_with() {
    let mut world = done(&["b", "c"], |it| it.on_conflict = OnConflict::Park);
    let by = [merge_commit("b"), merge_commit("first"), oid(9)];
    world.stage_says(Stage::Merge, merged_against(&["b"], &["c"], by));
    let detail = &world.merge_of("c").detail;
    let wanted = format!("conflicts with b, first, {} in: a.rs", oid(9).short());
    assert_eq!(**detail, *wanted);
}

#[test]
fn an_agent_resolves_a_conflict_and_its_merge_is_proven() {
    let mut world = conflict_by(agent());
    assert_eq!(world.merge_at("a"), MergeState::Resolving);
    world.stage_says(Stage::Conflict, conflicted(&["a.rs"]));
    world.stage_says(Stage::Resolve, ok());
    world.stage_says(Stage::Conclude, concluded(Some(oid(77))));
    assert_eq!(world.merge_at("a"), MergeState::Verifying);
    world.stage_says(Stage::Verify, ok());
    world.stage_says(Stage::Advance, advanced());
    assert_eq!(world.merge_of("a").merged, Some(oid(77)));
}

#[test]
fn what_merges_by_now_needs_no_agent() {
    let mut world = conflict_by(agent());
    world.stage_says(Stage::Conflict, conflicted(&[]));
    world.stage_says(Stage::Conclude, concluded(Some(oid(77))));
    assert_eq!(world.merge_at("a"), MergeState::Verifying);
}

#[test]
fn a_conflict_that_agents_do_not_resolve_is_parked() {
    for how in 0..3 {
        let mut world = conflict_by(agent());
        for tries in 0..2 {
            assert_eq!(world.merge_of("a").tries, tries);
            world.stage_says(Stage::Conflict, conflicted(&["a.rs"]));
            match how {
                0 => world.stage_says(Stage::Resolve, failed(Class::AgentFailed)),
                1 => {
                    world.stage_says(Stage::Resolve, ok());
                    world.stage_says(Stage::Conclude, concluded(None));
                }
                _ => {
                    world.stage_says(Stage::Resolve, ok());
                    world.stage_says(Stage::Conclude, concluded(Some(oid(77))));
                    world.stage_says(Stage::Verify, failed(Class::VerifyFailed));
                    // The first time it was the merge, from then on the proof.
                    if tries == 0 {
                        world.stage_says(Stage::Conflict, conflicted(&["a.rs"]));
                        world.stage_says(Stage::Resolve, failed(Class::AgentFailed));
                    }
                }
            }
        }
        assert_eq!(world.merge_at("a"), MergeState::Parked, "{how}");
        assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    }
}

#[test]
fn a_conflict_is_tried_anew_when_the_operator_queues_it_again() {
    let mut world = conflict_by(agent());
    for _ in 0..2 {
        world.stage_says(Stage::Conflict, conflicted(&["a.rs"]));
        world.stage_says(Stage::Resolve, failed(Class::AgentFailed));
    }
    world.crash_and_find(ProcessFact::Gone, ResultFact::Absent);
    assert_eq!(world.merge_at("a"), MergeState::Parked);
    assert_eq!(
        world.retry("a"),
        "a: is merged again; a done task is not done again"
    );
    world.tick();
    world.merges_but(&["a"]);
    assert_eq!(world.merge_of("a").tries, 0);
    assert_eq!(world.merge_at("a"), MergeState::Resolving);
}

/// Others need not wait until an agent may work, and no try is used up.
#[test]
fn a_conflict_waits_for_its_agents_account_and_others_go_on() {
    let plan = batch()
        .account("other", |_| {})
        .agent("fixer", "other", |_| {})
        .repo("r", |it| it.on_conflict = agent());
    let plan = plan.task("conflicts").within("r").task("b").within("r");
    let mut world = World::start(plan);
    world.passes_all("conflicts");
    world.merges_but(&["conflicts"]);
    world.stage_says(Stage::Conflict, conflicted(&["a.rs"]));
    world.stage_says(Stage::Resolve, failed(Class::UsageLimit));
    world.passes_all("b");
    world.all_goes_well();
    assert_eq!(world.merge_at("b"), MergeState::Merged);
    assert_eq!(world.merge_at("conflicts"), MergeState::Conflict);
    assert_eq!(world.merge_of("conflicts").tries, 0);
    assert_eq!(world.ending(), None, "time alone lets it go on");
    world.pass(hours(1));
    world.all_goes_well();
    assert_eq!(world.merge_at("conflicts"), MergeState::Merged);
    assert_eq!(world.facts().accounts[1].state, AccountState::Open);
}

#[test]
fn a_conflict_whose_agents_account_is_stopped_needs_a_person() {
    let mut world = conflict_by(agent());
    world.stage_says(Stage::Conflict, conflicted(&["a.rs"]));
    world.stage_says(Stage::Resolve, failed(Class::Auth));
    world.merges_but(&["a"]);
    assert_eq!(world.merge_at("a"), MergeState::Conflict);
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    world.resume_all();
    assert_eq!(world.merge_at("a"), MergeState::Resolving);
}

/// Whatever is left of a conflict by a crash is ruled on by the batch file, not by chance.
#[test]
fn a_conflict_is_ruled_on_after_a_crash_as_before() {
    for (rule, end) in [
        (OnConflict::Park, MergeState::Parked),
        (OnConflict::Fail, MergeState::Failed),
    ] {
        let mut world = conflict_by(rule);
        world.crash_at(
            |record| matches!(record, Record::MergeMoved { to, .. } if *to == MergeState::Conflict),
        );
        assert_eq!(world.merge_at("a"), end);
        assert_eq!(world.facts().repos[0].round, None);
    }
}

// Proofs.

#[test]
fn a_proof_that_fails_rolls_its_merge_back() {
    for (rule, end) in [
        (OnConflict::Park, MergeState::Parked),
        (OnConflict::Fail, MergeState::Failed),
        (agent(), MergeState::Resolving),
    ] {
        let mut world = World::start(repo(|it| it.on_conflict = rule).task("a").within("r"));
        world.passes_all("a");
        world.merges_but(&[]);
        world.stage_says(Stage::Verify, failed(Class::VerifyFailed));
        assert_eq!(world.merge_at("a"), end);
        assert!(world.merge_of("a").disproved);
        assert_eq!(world.merge_of("a").merged, None);
    }
}

/// It merges without a conflict, but its proof failed: an agent looks at it all the same.
#[test]
fn what_broke_the_proof_is_given_to_an_agent_though_it_merges() {
    let mut world = World::start(repo(|it| it.on_conflict = agent()).task("a").within("r"));
    world.passes_all("a");
    world.merges_but(&[]);
    world.stage_says(Stage::Verify, failed(Class::VerifyFailed));
    world.stage_says(Stage::Conflict, conflicted(&[]));
    assert_eq!(world.round().stage, Stage::Resolve);
}

/// The disk was full, a program is not there: that says nothing of what was merged.
#[test]
fn a_proof_that_could_not_be_made_is_made_again() {
    let mut world = World::start(repo(|_| {}).task("a").within("r"));
    world.passes_all("a");
    world.merges_but(&[]);
    for _ in 0..4 {
        world.stage_says(Stage::Verify, failed(Class::Environment));
        assert_eq!(world.merge_at("a"), MergeState::Verifying);
    }
    world.stage_says(Stage::Verify, failed(Class::Environment));
    assert_eq!(world.merge_at("a"), MergeState::Parked);
    assert!(!world.merge_of("a").disproved);
}

/// Wherever it is, a bisection finds it in a bounded number of proofs; what is good is merged, and
/// what came after it is merged again without it.
#[test]
fn what_breaks_the_proof_of_a_group_is_found() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for bad in names {
        let mut world = done(&names, |it| it.group = 8);
        assert_eq!(world.round().tasks.len(), 8);
        let after = names.iter().filter(|name| **name > bad).count();
        let proofs = prove_all(&mut world, bad);
        assert_eq!(world.merge_at(bad), MergeState::Parked);
        let good = names.iter().filter(|name| **name != bad);
        for name in good {
            assert_eq!(world.merge_at(name), MergeState::Merged, "{name}");
        }
        let again = u32::from(after > 0);
        assert!(proofs <= 3 + 2 + again, "{bad}: {proofs} proofs");
    }
}

#[test]
fn a_good_group_has_one_proof() {
    let names = ["a", "b", "c", "d", "e"];
    let mut world = done(&names, |it| it.group = 8);
    assert_eq!(prove_all(&mut world, "nobody"), 1);
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn a_group_takes_no_more_than_its_size() {
    let mut world = done(&["a", "b", "c"], |it| it.group = 2);
    world.merges_but(&[]);
    assert_eq!(world.round().commits.len(), 2);
    assert_eq!(world.merge_at("c"), MergeState::Queued);
    world.all_goes_well();
    assert_eq!(world.merge_at("c"), MergeState::Merged);
}

// Runs that vanish, break, lie, or are stopped.

/// The world at a stage of a merge that conflicts once and is resolved by an agent.
fn at_stage(stage: Stage) -> World {
    if matches!(stage, Stage::Merge | Stage::Checkout) {
        let mut world = done(&["a", "b"], |it| it.group = 8);
        if stage == Stage::Checkout {
            world.merges_but(&[]);
            world.stage_says(Stage::Verify, failed(Class::VerifyFailed));
        }
        return world;
    }
    let mut world = conflict_by(agent());
    for (at, result) in [
        (Stage::Conflict, conflicted(&["a.rs"])),
        (Stage::Resolve, ok()),
        (Stage::Conclude, concluded(Some(oid(77)))),
        (Stage::Verify, ok()),
    ] {
        if at == stage {
            break;
        }
        world.stage_says(at, result);
    }
    assert_eq!(world.round().stage, stage);
    world
}

#[test]
fn a_stage_whose_run_vanishes_is_done_again() {
    for stage in Stage::ALL.iter().copied() {
        let mut world = at_stage(stage);
        let run = world.merging(stage);
        world.run_vanishes(run);
        world.all_goes_well();
        assert_eq!(world.merge_at("a"), MergeState::Merged, "{stage:?}");
        // The other one of that group is what broke its proof.
        let end = if stage == Stage::Checkout {
            Ending::NeedsPerson
        } else {
            Ending::Done
        };
        assert_eq!(world.ending(), Some(end), "{stage:?}");
    }
}

#[test]
fn a_stage_that_vanishes_again_and_again_is_parked() {
    for stage in Stage::ALL.iter().copied() {
        let mut world = at_stage(stage);
        for _ in 0..200 {
            let Some((run, _)) = world.other_runs().first().copied() else {
                break;
            };
            world.run_vanishes(run);
        }
        assert_eq!(world.merge_at("a"), MergeState::Parked, "{stage:?}");
        assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    }
}

#[test]
fn a_stage_that_fails_or_says_nothing_is_parked_after_a_bounded_number_of_times() {
    for stage in Stage::ALL.iter().copied() {
        if matches!(stage, Stage::Verify | Stage::Resolve) {
            continue;
        }
        for said in [failed(Class::Environment), ok(), merged(&[], &[])] {
            let mut world = at_stage(stage);
            let mut runs = 0;
            while let Some((run, _)) = world.other_runs().first().copied() {
                world.run_says(run, said.clone());
                runs += 1;
                assert!(runs < 20, "{stage:?} has no end");
            }
            assert_eq!(world.merge_at("a"), MergeState::Parked, "{stage:?}");
        }
    }
}

/// One task twice, one that nobody asked for, one both merged and in conflict.
#[test]
fn what_a_round_says_of_tasks_counts_once() {
    let mut world = done(&["a", "b"], |it| it.group = 8);
    let told = merged(&["a", "a", "stranger"], &["a", "stranger", "stranger"]);
    world.stage_says(Stage::Merge, told);
    assert_eq!(world.merge_at("a"), MergeState::Verifying);
    assert_eq!(world.merge_at("b"), MergeState::Queued);
    world.all_goes_well();
    assert_eq!(world.ending(), Some(Ending::Done));
}

#[test]
fn a_stop_at_any_stage_goes_on_there_after_run() {
    for stage in Stage::ALL.iter().copied() {
        let mut world = at_stage(stage);
        let run = world.merging(stage);
        world.begin_run(run);
        world.stop(StopStage::Stop);
        world.exited_run(run, Exit::Signal(15), None);
        assert_eq!(world.ending(), Some(Ending::Interrupted), "{stage:?}");
        world.crash_and_lose();
        assert_eq!(world.round().stage, stage);
        world.all_goes_well();
        assert_eq!(world.merge_at("a"), MergeState::Merged, "{stage:?}");
    }
}

#[test]
fn a_drain_comes_to_its_end_at_any_stage() {
    for stage in Stage::ALL.iter().copied() {
        let mut world = at_stage(stage);
        world.stop(StopStage::Drain);
        world.all_goes_well();
        assert!(
            world.ending().is_some(),
            "{stage:?}: {:?}",
            world.batch_at()
        );
        world.crash_and_lose();
        world.all_goes_well();
        assert_eq!(world.merge_at("a"), MergeState::Merged, "{stage:?}");
    }
}

/// No agent begins in a drain: what needs one waits for the next supervisor.
#[test]
fn a_drain_does_not_wait_for_a_conflict_that_needs_an_agent() {
    let mut world = World::start(repo(|it| it.on_conflict = agent()).task("a").within("r"));
    world.passes_all("a");
    world.stop(StopStage::Drain);
    world.merges_but(&["a"]);
    assert_eq!(world.merge_at("a"), MergeState::Conflict);
    assert_eq!(world.ending(), Some(Ending::Interrupted));
    world.crash_and_lose();
    assert_eq!(world.merge_at("a"), MergeState::Resolving);
}

#[test]
fn merges_go_on_in_a_paused_batch_and_their_agents_do_not() {
    let mut world = at_stage(Stage::Resolve);
    let run = world.merging(Stage::Resolve);
    world.begin_run(run);
    world.op_lines(OperatorCommand::Pause {
        tasks: None,
        now: true,
    });
    assert_eq!(world.facts().runs[&run].state, RunState::Stopping);
    world.exited_run(run, Exit::Signal(15), None);
    world.merges_but(&["a"]);
    assert_eq!(world.merge_at("a"), MergeState::Conflict);
    assert_eq!(world.other_runs(), []);
    world.resume_all();
    world.all_goes_well();
    assert_eq!(world.merge_at("a"), MergeState::Merged);
}

#[test]
fn a_merge_whose_run_can_not_be_judged_needs_a_person_and_is_done_by_nobody_else() {
    let mut world = at_stage(Stage::Verify);
    let run = world.merging(Stage::Verify);
    world.begin_run(run);
    world.crash_and_recover(ProcessFact::Living, ResultFact::Absent);
    assert_eq!(world.ending(), Some(Ending::NeedsPerson));
    assert_eq!(world.facts().runs.len(), 1);
    world.crash_and_lose();
    world.all_goes_well();
    assert_eq!(world.merge_at("a"), MergeState::Merged);
}

/// What was decided last may be lost with the supervisor, wherever that was: the next one goes on
/// from what is there, and nothing is merged that was merged.
#[test]
fn a_crash_between_any_two_records_of_a_merge_ends_in_the_same_place() {
    let stories: [fn() -> World; 3] = [
        || at_stage(Stage::Advance),
        || {
            let mut world = done(&["a", "b", "c"], |it| it.group = 8);
            prove_all(&mut world, "b");
            world
        },
        || {
            let names = ["a", "conflicts", "c"];
            let mut world = done(&names, |it| (it.group, it.on_conflict) = (2, agent()));
            world.all_goes_well();
            world
        },
    ];
    for story in stories {
        let end = story().journal.len();
        for last in 10..end {
            let mut world = story();
            world.crash_after(last);
            world.all_goes_well();
            world.resume_all();
            world.all_goes_well();
            for task in &world.facts().tasks {
                let merge = task.merge.as_ref().map(|merge| merge.state);
                let settled = merge.is_some_and(|it| SETTLED.contains(&it));
                assert!(settled, "after record {last}: {task:?}");
            }
        }
    }
}

/// The operator's word on the merge is durable, that on the batch is not yet.
#[test]
fn a_merge_that_was_queued_again_right_before_a_crash_is_merged() {
    let mut world = conflict_by(OnConflict::Fail);
    assert_eq!(world.batch_at().0, BatchState::Failed);
    world.retry("a");
    world.crash_at(
        |record| matches!(record, Record::MergeMoved { to, .. } if *to == MergeState::Queued),
    );
    world.all_goes_well();
    assert_eq!(world.merge_at("a"), MergeState::Merged);
    assert_eq!(world.ending(), Some(Ending::Done));
}
