//! Stories of the pure part of the bridge: calls, answers and time in, acts out.

use protocol::bridge::{ERROR_ENDING, ERROR_REFUSED};
use protocol::ids::MessageId;

use super::calls::*;
use super::*;
use protocol::bridge::{Call, SENDS_MAX, WAIT_MAX_MS};
use protocol::class::Class;
use protocol::ids::QuestionId;
use protocol::report::{Event, ResultStatus, Tasks};
use std::time::Duration;

const Q3: QuestionId = QuestionId(3);

struct World {
    calls: Calls,
    now: Instant,
    last: u64,
}

impl World {
    fn new() -> Self {
        Self {
            calls: Calls::default(),
            now: clock::now(),
            last: 0,
        }
    }

    /// A call over a connection of its own.
    fn call(&mut self, call: Call) -> (Caller, Vec<Act>) {
        self.last += 1;
        let caller = Caller {
            connection: self.last,
            id: 2,
        };
        (caller, self.calls.call(caller, call, self.now))
    }

    /// A question that the supervisor knows as q3.
    fn asked(&mut self) -> Caller {
        let (caller, acts) = self.call(ask("well?"));
        let id = requested(&acts);
        assert_eq!(self.answered(id, Ok(Answered::Question(Q3))), []);
        caller
    }

    fn answered(&mut self, id: u64, outcome: Result<Answered, RpcError>) -> Vec<Act> {
        self.calls.answered(id, outcome, self.now)
    }

    fn settle(&mut self, answer: Option<&str>) -> Vec<Act> {
        let answer = answer.map(str::to_owned);
        self.calls.settle(Q3, answer).expect("it is ours")
    }

    fn pass(&mut self, time: Duration) -> Vec<Act> {
        self.now += time;
        self.calls.expire(self.now)
    }

    fn again(&mut self) -> (Caller, Vec<Act>) {
        self.call(Call::AskOperator {
            question: String::new(),
            options: Vec::new(),
            question_id: Some(Q3),
        })
    }
}

fn ask(question: &str) -> Call {
    Call::AskOperator {
        question: question.to_owned(),
        options: Vec::new(),
        question_id: None,
    }
}

fn send(to: Option<&str>) -> Call {
    Call::SendMessage {
        to: to.map(str::to_owned),
        text: "hello".to_owned(),
        urgent: false,
    }
}

fn requested(acts: &[Act]) -> u64 {
    match acts {
        [Act::Request(id, _)] => *id,
        other => panic!("{other:?}"),
    }
}

fn answer(caller: Caller, text: &str) -> Vec<Act> {
    let reply = Reply::Answered {
        question_id: Q3,
        answer: text.to_owned(),
    };
    vec![Act::Answer(caller, reply)]
}

/// The code of the one refusal of this caller.
fn refusal(caller: Caller, acts: &[Act]) -> i64 {
    match acts {
        [Act::Refuse(refused, error)] if *refused == caller => error.code,
        other => panic!("{other:?}"),
    }
}

fn is_pending(caller: Caller, acts: &[Act]) -> bool {
    matches!(acts, [Act::Answer(told, Reply::Pending { question_id: Q3, .. })] if *told == caller)
}

#[test]
fn a_call_waits_until_its_time_is_over_and_goes_on_by_the_questions_id() {
    let mut world = World::new();
    let first = world.asked();
    let wait = Duration::from_millis(WAIT_MAX_MS);
    assert_eq!(world.calls.due(), Some(world.now + wait));
    assert_eq!(world.pass(wait - Duration::from_millis(1)), []);
    let acts = world.pass(Duration::from_millis(1));
    assert!(is_pending(first, &acts), "{acts:?}");
    assert_eq!(world.calls.due(), None, "nothing is due twice");
    let (second, acts) = world.again();
    assert_eq!(acts, []);
    assert_eq!(world.settle(Some("yes")), answer(second, "yes"));
    assert_eq!(world.calls.due(), None);
}

#[test]
fn an_answer_after_the_deadline_is_there_for_the_next_call_and_every_one_after() {
    let mut world = World::new();
    world.asked();
    world.pass(Duration::from_millis(WAIT_MAX_MS));
    assert_eq!(world.settle(Some("yes")), [], "nobody waits");
    assert!(world.calls.has_late());
    for _ in 0..2 {
        let (caller, acts) = world.again();
        assert_eq!(acts, answer(caller, "yes"));
    }
    assert!(!world.calls.has_late(), "it was taken");
}

#[test]
fn an_answer_before_the_first_wait_is_told_with_the_number() {
    let mut world = World::new();
    let (caller, acts) = world.call(ask("well?"));
    let id = requested(&acts);
    world.answered(id, Ok(Answered::Question(Q3)));
    assert_eq!(world.settle(Some("yes")), answer(caller, "yes"));
}

#[test]
fn an_answer_that_nobody_took_is_handed_out_once_by_the_mailbox() {
    let mut world = World::new();
    let caller = world.asked();
    world.calls.gone(caller.connection);
    assert_eq!(world.calls.due(), None, "nobody waits any more");
    assert_eq!(world.settle(Some("yes")), []);
    let (reader, acts) = world.call(Call::ReadMailbox {});
    let [Act::HandMailbox(told, late)] = &acts[..] else {
        panic!("{acts:?}");
    };
    assert_eq!(*told, reader);
    assert_eq!(late.len(), 1);
    assert_eq!((&*late[0].question, &*late[0].answer), ("well?", "yes"));
    assert_eq!(world.calls.take_late(), []);
}

#[test]
fn an_answer_whose_caller_went_away_over_it_is_not_lost() {
    let mut world = World::new();
    world.asked();
    assert_eq!(world.settle(Some("yes")).len(), 1);
    assert!(!world.calls.has_late());
    world.calls.not_taken(Q3);
    assert_eq!(world.calls.take_late().len(), 1);
}

#[test]
fn late_answers_are_handed_out_in_pieces_that_fit_a_line() {
    let mut world = World::new();
    let long = "x".repeat(protocol::bridge::TEXT_MAX);
    for number in 1..=3 {
        let (caller, acts) = world.call(ask("well?"));
        let question = QuestionId(number);
        world.answered(requested(&acts), Ok(Answered::Question(question)));
        world.calls.gone(caller.connection);
        world.calls.settle(question, Some(long.clone()));
    }
    for more in [true, true, false] {
        assert_eq!(world.calls.take_late().len(), 1);
        assert_eq!(world.calls.has_late(), more);
    }
}

#[test]
fn a_question_without_an_answer_is_a_failure_for_who_waits_and_who_asks_again() {
    let mut world = World::new();
    let caller = world.asked();
    let acts = world.settle(None);
    assert_eq!(refusal(caller, &acts), ERROR_REFUSED);
    let (again, acts) = world.again();
    assert_eq!(refusal(again, &acts), ERROR_REFUSED);
    assert!(!world.calls.has_late());
}

#[test]
fn a_question_that_this_run_did_not_ask_is_not_waited_for() {
    let mut world = World::new();
    let (caller, acts) = world.again();
    assert_eq!(refusal(caller, &acts), ERROR_REFUSED);
    assert_eq!(world.calls.settle(Q3, Some("yes".to_owned())), None);
}

#[test]
fn a_supervisor_that_does_not_answer_is_a_failure_in_time_and_its_answer_is_kept() {
    let mut world = World::new();
    let (caller, acts) = world.call(ask("well?"));
    let id = requested(&acts);
    let acts = world.pass(Duration::from_millis(WAIT_MAX_MS));
    assert_eq!(refusal(caller, &acts), ERROR_REFUSED);
    assert_eq!(world.answered(id, Ok(Answered::Question(Q3))), []);
    assert_eq!(world.settle(Some("yes")), []);
    assert!(world.calls.has_late());
}

#[test]
fn the_supervisors_refusal_is_the_callers() {
    let mut world = World::new();
    let no = || RpcError {
        code: 1,
        message: "no".to_owned(),
    };
    for call in [ask("well?"), send(Some("docs")), Call::ListTasks {}] {
        let (caller, acts) = world.call(call);
        let acts = world.answered(requested(&acts), Err(no()));
        assert_eq!(refusal(caller, &acts), ERROR_REFUSED);
    }
}

#[test]
fn numbers_of_requests_are_far_from_those_of_adapters_and_each_its_own() {
    let mut world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let id = requested(&world.call(Call::ListTasks {}).1);
        assert!(Calls::is_ours(id) && seen.insert(id));
    }
    assert!(!Calls::is_ours(1) && !Calls::is_ours(u64::from(u32::MAX)));
}

#[test]
fn a_message_goes_to_the_operator_unless_it_names_a_task() {
    let mut world = World::new();
    for to in [None, Some("operator"), Some("")] {
        let (caller, acts) = world.call(send(to));
        let [
            Act::Report(Event::Reply(said)),
            Act::Answer(told, Reply::Done {}),
        ] = &acts[..]
        else {
            panic!("{acts:?}");
        };
        assert_eq!((&*said.text, *told), ("hello", caller));
    }
    let (caller, acts) = world.call(send(Some("docs")));
    let message = MessageId(6);
    let told = world.answered(requested(&acts), Ok(Answered::Message(message)));
    let reply = Reply::Sent {
        message_id: message,
    };
    assert_eq!(told, [Act::Answer(caller, reply)]);
    let (caller, acts) = world.call(send(Some("../docs")));
    assert_eq!(refusal(caller, &acts), ERROR_BAD_PARAMS);
}

#[test]
fn messages_to_other_tasks_and_calls_of_all_kinds_are_counted() {
    let mut world = World::new();
    for _ in 0..SENDS_MAX {
        let id = requested(&world.call(send(Some("docs"))).1);
        world.answered(id, Ok(Answered::Message(MessageId(1))));
    }
    let (caller, acts) = world.call(send(Some("docs")));
    assert_eq!(refusal(caller, &acts), ERROR_REFUSED);
    assert_eq!(world.call(send(None)).1.len(), 2, "the operator hears on");
    for _ in SENDS_MAX + 2..CALLS_MAX {
        world.call(send(None));
    }
    let (caller, acts) = world.call(Call::ReadMailbox {});
    assert_eq!(refusal(caller, &acts), ERROR_REFUSED);
}

#[test]
fn texts_have_a_length() {
    let mut world = World::new();
    let long = "x".repeat(protocol::bridge::TEXT_MAX + 1);
    let progress = |text: &str, percent| Call::ReportProgress {
        text: text.to_owned(),
        percent,
    };
    for call in [
        progress("", None),
        progress(&long, None),
        progress("half", Some(101)),
        ask(""),
        ask(&long[..protocol::bounds::QUESTION_MAX + 1]),
        Call::AskOperator {
            question: "well?".to_owned(),
            options: vec!["x".to_owned(); protocol::bounds::OPTIONS_MAX + 1],
            question_id: None,
        },
        Call::SendMessage {
            to: None,
            text: long.clone(),
            urgent: false,
        },
        Call::TaskResult {
            status: ResultStatus::Ok,
            summary: String::new(),
            artifacts: Vec::new(),
            verdict: None,
        },
    ] {
        let (caller, acts) = world.call(call.clone());
        assert_eq!(refusal(caller, &acts), ERROR_BAD_PARAMS, "{call:?}");
    }
}

#[test]
fn the_end_of_the_run_leaves_nobody_waiting() {
    let mut world = World::new();
    let asked = world.asked();
    let (lists, _) = world.call(Call::ListTasks {});
    let acts = world.calls.end();
    let refused: Vec<Caller> = acts
        .iter()
        .map(|act| match act {
            Act::Refuse(caller, error) if error.code == ERROR_ENDING => *caller,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(refused, [lists, asked]);
    assert_eq!((world.calls.due(), world.calls.end()), (None, Vec::new()));
}

#[test]
fn an_answer_to_a_request_whose_caller_is_gone_goes_nowhere() {
    let mut world = World::new();
    let (caller, acts) = world.call(Call::ListTasks {});
    world.calls.gone(caller.connection);
    let tasks = Tasks {
        tasks: Vec::new(),
        left_out: 0,
    };
    let id = requested(&acts);
    assert_eq!(world.answered(id, Ok(Answered::Tasks(tasks.clone()))), []);
    assert_eq!(world.answered(id, Ok(Answered::Tasks(tasks))), [], "twice");
}

/// The result that the adapter has, what the agent says, and what comes of both.
#[test]
fn failed_is_believed_and_ok_heals_nothing() {
    use ResultStatus::{Failed, Ok as Good};
    let judged = |status, class, claimed: Option<ResultStatus>| {
        let mut world = World::new();
        let result = crate::run::result(status, class, "by its end");
        if let Some(status) = claimed {
            let caller = world.asked();
            let claim = Claim {
                status,
                summary: "by its word".to_owned(),
                artifacts: vec!["a".to_owned()],
                verdict: None,
            };
            world.calls.claim(caller, claim);
        }
        let judged = world.calls.judge(result);
        (judged.status, judged.class, judged.summary)
    };
    let crash = Some(Class::Crash);
    let word = || "by its word".to_owned();
    let end = || "by its end".to_owned();
    assert_eq!(judged(Good, None, None), (Good, None, end()));
    assert_eq!(judged(Good, None, Some(Good)), (Good, None, word()));
    let failed = (Failed, Some(Class::AgentFailed), word());
    assert_eq!(judged(Good, None, Some(Failed)), failed);
    assert_eq!(judged(Failed, crash, Some(Good)), (Failed, crash, end()));
    assert_eq!(judged(Failed, crash, Some(Failed)), (Failed, crash, end()));
}
