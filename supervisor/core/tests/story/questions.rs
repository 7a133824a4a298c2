//! Questions: durable, answered once, and no clock runs against who waits for a person.

use supervisor_core::facts::Question;
use supervisor_core::live::{QUESTIONS_MAX, WIRE_FAULTS_MAX};

use crate::harness::*;

fn question(world: &World, id: QuestionId) -> &Question {
    &world.facts().questions[&id]
}

fn settled(world: &World, id: QuestionId) -> (QuestionState, Option<&str>) {
    let question = question(world, id);
    (question.state, question.answer.as_deref())
}

/// What hosts were told since the last look.
fn told(world: &mut World) -> Vec<(QuestionId, Option<String>)> {
    let news = world.news();
    news.iter()
        .filter_map(|effect| match effect {
            Effect::AnswerHost { question, text, .. } => {
                Some((*question, text.as_deref().map(str::to_owned)))
            }
            _ => None,
        })
        .collect()
}

fn answer(id: QuestionId, text: &str) -> OperatorCommand {
    OperatorCommand::Answer {
        question: id,
        text: text.into(),
    }
}

fn rule(on_question: OnQuestion) -> World {
    let plan = batch()
        .task("a")
        .spec(|spec| spec.on_question = on_question.clone());
    let mut world = World::start(plan);
    world.begin("a");
    world
}

#[test]
fn a_question_waits_for_the_operator() {
    let mut world = rule(OnQuestion::Wait);
    let asked = world.now;
    let id = world.ask("a", "which one?");
    assert_eq!(
        world.at("a"),
        (TaskState::Waiting, TaskReason::Question(id))
    );
    let known = question(&world, id);
    assert_eq!(&*known.text, "which one?");
    assert_eq!(known.options, ["yes".into(), "no".into()]);
    assert_eq!(known.asked, asked.wall);
    assert_eq!(known.deadline, Deadline::Boot(asked.boot + hours(4)));
    world.pass(mins(30));
    let lines = world.op_lines(answer(id, "the first"));
    assert_eq!(lines, [format!("{id}: answered")]);
    assert_eq!(
        settled(&world, id),
        (QuestionState::Answered, Some("the first"))
    );
    assert_eq!(told(&mut world), [(id, Some("the first".to_owned()))]);
    assert_eq!(world.at("a"), (TaskState::Running, TaskReason::Working));
}

/// What each rule does at once, and what it does at the deadline.
#[test]
fn the_rules_of_the_batch_file() {
    let default = || Some("go on");
    let open = QuestionState::Open;
    let table = [
        (OnQuestion::Wait, open, (QuestionState::Expired, None)),
        (
            OnQuestion::WaitThenDefault("go on".into()),
            open,
            (QuestionState::Defaulted, default()),
        ),
        (
            OnQuestion::Default("go on".into()),
            QuestionState::Defaulted,
            (QuestionState::Defaulted, default()),
        ),
    ];
    for (on_question, first, last) in table {
        let mut world = rule(on_question.clone());
        world.pulse = Pulse::Printing;
        let id = world.ask("a", "well?");
        assert_eq!(question(&world, id).state, first, "{on_question:?}");
        world.pass(hours(4) - secs(1));
        assert_eq!(question(&world, id).state, first, "{on_question:?}");
        world.skip(secs(1));
        world.tick();
        assert_eq!(settled(&world, id), last, "{on_question:?}");
        let text = last.1.map(str::to_owned);
        assert_eq!(told(&mut world), [(id, text)], "the host is told once");
    }
}

/// The host is told after it knows the question's number, or it could not tell which.
#[test]
fn a_default_comes_after_the_number() {
    let mut world = rule(OnQuestion::Default("yes".into()));
    world.ask("a", "well?");
    let kinds: Vec<bool> = world
        .last
        .effects
        .iter()
        .map(|effect| matches!(effect, Effect::AnswerHost { .. }))
        .collect();
    assert_eq!(kinds, [false, true]);
    assert_eq!(world.state("a"), TaskState::Running);
}

#[test]
fn a_run_that_asks_without_end_is_refused_and_then_stopped() {
    let mut world = rule(OnQuestion::Default("yes".into()));
    for _ in 0..QUESTIONS_MAX {
        assert!(matches!(world.asks("a", "well?"), Answer::Asked(_)));
    }
    for _ in 0..=WIRE_FAULTS_MAX {
        assert!(matches!(world.asks("a", "well?"), Answer::Refused(_)));
    }
    let asked = u32::try_from(world.facts().questions.len()).unwrap();
    assert_eq!(asked, QUESTIONS_MAX, "only these are recorded");
    let stop = world.facts().runs.values().next().unwrap().stop;
    assert!(matches!(stop, Some((StopReason::Protocol, _))), "{stop:?}");
}

#[test]
fn a_question_that_must_not_be_asked_fails_the_attempt() {
    let mut world = rule(OnQuestion::Fail);
    let generation = world.run("a");
    let id = world.ask("a", "well?");
    let stop = Effect::StopHost {
        generation,
        grace: secs(10),
    };
    assert_eq!(world.last.urgent, [stop]);
    world.result("a", ok());
    world.exited("a", Exit::Code(0));
    assert_eq!(settled(&world, id), (QuestionState::Withdrawn, None));
    assert_eq!(
        world.outcome("a"),
        (Some(Class::AgentFailed), 1),
        "a result that came after the question does not count"
    );
    assert_eq!(told(&mut world), [], "nobody is there to be told");
}

/// The task waits until its last question is settled, whatever the order.
#[test]
fn several_questions_are_open_at_once() {
    let orders = [[0, 1, 2], [2, 1, 0], [1, 2, 0]];
    for order in orders {
        let mut world = rule(OnQuestion::Wait);
        let ids = [
            world.ask("a", "first?"),
            world.ask("a", "second?"),
            world.ask("a", "third?"),
        ];
        assert!(ids.is_sorted(), "numbers are never used twice");
        let mut left = ids.to_vec();
        for at in order {
            assert_eq!(world.reason("a"), TaskReason::Question(left[0]));
            world.op_lines(answer(ids[at], "yes"));
            left.retain(|id| *id != ids[at]);
        }
        assert_eq!(world.at("a"), (TaskState::Running, TaskReason::Working));
    }
}

#[test]
fn questions_of_two_tasks_do_not_meet() {
    let mut world = World::start(batch().tasks(&["a", "b"]));
    world.begin("a");
    world.begin("b");
    let of_a = world.ask("a", "a?");
    let of_b = world.ask("b", "b?");
    world.news();
    world.op_lines(answer(of_b, "yes"));
    let to_b = Effect::AnswerHost {
        generation: world.run("b"),
        question: of_b,
        text: Some("yes".into()),
    };
    assert!(world.news().contains(&to_b));
    assert_eq!(
        world.states(&["a", "b"]),
        [TaskState::Waiting, TaskState::Running]
    );
    assert_eq!(world.reason("a"), TaskReason::Question(of_a));
}

#[test]
fn deadlines_are_the_questions_own() {
    let plan = batch()
        .task("a")
        .spec(|spec| spec.question_timeout = mins(10));
    let mut world = World::start(plan);
    world.begin("a");
    let first = world.ask("a", "first?");
    world.pass(mins(6));
    let second = world.ask("a", "second?");
    world.pass(mins(4));
    assert_eq!(settled(&world, first).0, QuestionState::Expired);
    assert_eq!(
        world.at("a"),
        (TaskState::Waiting, TaskReason::Question(second))
    );
    world.pass(mins(6));
    assert_eq!(settled(&world, second).0, QuestionState::Expired);
    assert_eq!(world.state("a"), TaskState::Running);
}

/// Whatever ends the run takes its open questions back.
#[test]
fn questions_are_withdrawn_with_their_run() {
    type End = fn(&mut World);
    let ends: [(&str, End); 5] = [
        ("a result", |world| world.ends("a", ok())),
        ("a crash", |world| world.exited("a", Exit::Signal(11))),
        ("a cancel", |world| {
            world.cancel("a");
            world.exited("a", Exit::Code(0));
        }),
        ("a lost supervisor", World::crash_and_lose),
        ("a host that can not be judged", |world| {
            world.crash_and_recover(ProcessFact::Foreign, ResultFact::Absent);
        }),
    ];
    for (how, end) in ends {
        let mut world = rule(OnQuestion::Wait);
        let ids = [world.ask("a", "one?"), world.ask("a", "two?")];
        end(&mut world);
        for id in ids {
            assert_eq!(
                settled(&world, id),
                (QuestionState::Withdrawn, None),
                "{how}"
            );
            let why = format!("{id} is withdrawn already");
            let refusal = world.refused(answer(id, "yes"));
            assert_eq!(refusal, Refusal::WrongState(why.into()), "{how}");
        }
        assert_ne!(world.state("a"), TaskState::Waiting, "{how}");
        assert_eq!(told(&mut world), [], "{how}");
    }
}

#[test]
fn the_first_answer_holds() {
    let mut world = rule(OnQuestion::Wait);
    let id = world.ask("a", "well?");
    world.op_lines(answer(id, "yes"));
    let why = Refusal::WrongState(format!("{id} is answered already").into());
    assert_eq!(world.refused(answer(id, "no")), why);
    assert_eq!(settled(&world, id), (QuestionState::Answered, Some("yes")));
    assert_eq!(told(&mut world).len(), 1);
}

#[test]
fn answers_that_fit_no_question_are_refused() {
    let mut world = rule(OnQuestion::Wait);
    let id = world.ask("a", "well?");
    let unknown = id.next();
    let why = Refusal::NotFound(format!("there is no question {unknown}").into());
    assert_eq!(world.refused(answer(unknown, "yes")), why);
    let most = "x".repeat(supervisor_core::mailbox::TEXT_MAX);
    let refusal = world.refused(answer(id, &format!("{most}x")));
    assert!(matches!(refusal, Refusal::Limit(_)), "{refusal:?}");
    world.op_lines(answer(id, &most));
    assert_eq!(question(&world, id).state, QuestionState::Answered);
}

/// Only an agent at work may ask: not before it started, not after it was told to end or has
/// handed over its result, and no proof.
#[test]
fn who_may_not_ask_is_refused() {
    type Before = fn(&mut World);
    let cases: [(&str, Before); 5] = [
        ("no hello", |world| world.spawned("a")),
        ("not started", |world| {
            world.spawned("a");
            world.greeted("a");
        }),
        ("told to end", |world| {
            world.begin("a");
            world.cancel("a");
        }),
        ("has a result", |world| {
            world.begin("a");
            world.result("a", ok());
        }),
        ("a proof", |world| {
            world.succeed("a");
            world.begin("a");
        }),
    ];
    for (when, before) in cases {
        let mut world = World::start(batch().task("a").verified());
        before(&mut world);
        let records = world.journal.len();
        let why = Refusal::WrongState("only a run that has started may ask".into());
        assert_eq!(world.asks("a", "well?"), Answer::Refused(why), "{when}");
        assert_eq!(world.journal.len(), records, "{when}");
    }
}

/// The wall limit counts work: however long the operator thinks, what was left is left.
#[test]
fn the_wall_limit_stands_still_while_it_waits() {
    let plan = batch().task("a").spec(|spec| {
        spec.timeout = mins(60);
        spec.question_timeout = hours(100);
        spec.no_progress = hours(100);
    });
    let mut world = World::start(plan);
    world.pulse = Pulse::Busy;
    world.begin("a");
    world.pass(mins(20));
    for _ in 0..2 {
        let id = world.ask("a", "well?");
        world.pass(hours(30));
        assert_eq!(world.state("a"), TaskState::Waiting);
        world.op_lines(answer(id, "yes"));
    }
    world.pass(mins(40) - secs(1));
    assert_eq!(world.run_state("a"), RunState::Started);
    world.pass(secs(1));
    assert_eq!(world.run_state("a"), RunState::Stopping);
    world.exited("a", Exit::Code(0));
    assert_eq!(world.outcome("a").0, Some(Class::Timeout));
}

/// Two questions at once are one wait, from the first question to the last answer.
#[test]
fn waits_that_overlap_count_once() {
    let mut world = rule(OnQuestion::Wait);
    let deadline = world.attempt("a").deadline;
    let first = world.ask("a", "first?");
    world.pass(mins(10));
    let second = world.ask("a", "second?");
    world.pass(mins(10));
    world.op_lines(answer(first, "yes"));
    assert_eq!(world.attempt("a").deadline, deadline, "it still waits");
    world.pass(mins(10));
    world.op_lines(answer(second, "yes"));
    assert_eq!(world.attempt("a").deadline, deadline + mins(30));
}

/// A host may be mute while its agent waits for a person; afterwards both clocks begin anew.
#[test]
fn silence_does_not_count_while_it_waits() {
    let plan = || {
        batch().task("a").spec(|spec| {
            spec.silence = mins(5);
            spec.no_progress = mins(30);
            spec.question_timeout = hours(100);
        })
    };
    let mut asked = World::start(plan());
    asked.begin("a");
    asked.pass(mins(4));
    let id = asked.ask("a", "well?");
    asked.pass(hours(9) + mins(3));
    assert_eq!(asked.run_state("a"), RunState::Started);
    asked.op_lines(answer(id, "yes"));
    asked.pass(mins(5) - secs(1));
    assert_eq!(asked.run_state("a"), RunState::Started);
    asked.pass(mins(6));
    asked.exited("a", Exit::Code(0));
    assert_eq!(asked.outcome("a").0, Some(Class::Silence));

    let mut mute = World::start(plan());
    mute.begin("a");
    mute.pass(mins(9));
    mute.exited("a", Exit::Code(0));
    assert_eq!(
        mute.outcome("a").0,
        Some(Class::Silence),
        "without a question"
    );
}

/// A settled question lets no other attempt wait: the next one asks anew, under a new number.
#[test]
fn the_next_attempt_asks_anew() {
    let mut world = rule(OnQuestion::Wait);
    let first = world.ask("a", "well?");
    world.crash_and_lose();
    world.begin("a");
    let second = world.ask("a", "well?");
    assert!(second > first);
    assert_eq!(world.reason("a"), TaskReason::Question(second));
    world.op_lines(answer(second, "yes"));
    world.ends("a", ok());
    assert_eq!(world.ending(), Some(Ending::Done));
}
