//! What hosts do, as verbs on a task's name.

use std::time::Duration;

use protocol::class::Class;
use protocol::command::SteerMode;
use protocol::ids::{Generation, MessageId, QuestionId};
use protocol::report::{
    Capabilities, Event, Receipt, ResultStatus, RunResult, Said, Started, SteerReach, Usage,
};
use supervisor_core::effect::{Answer, Refusal};
use supervisor_core::identity::Exit;
use supervisor_core::input::{Input, OperatorCommand, StopStage};
use supervisor_core::plan::RetryMode;
use supervisor_core::reconcile::{ProcessFact, ResultFact, RunFacts};

use super::plan::PlanBuilder;
use super::world::World;

/// What the scripted agent's adapter can prove.
pub(crate) const fn caps() -> Capabilities {
    Capabilities {
        steer: SteerReach::Interrupt,
        receipt: Receipt::Seen,
        interrupt: true,
        resume: true,
        questions: true,
        usage: true,
        cost: true,
    }
}

/// A result that says all is well.
pub(crate) fn ok() -> RunResult {
    RunResult {
        status: ResultStatus::Ok,
        class: None,
        summary: "done".to_owned(),
        exit_code: Some(0),
        signal: None,
        reset_at_ms: None,
        session: None,
        usage: Usage::default(),
        family: None,
        evidence: String::new(),
        artifacts: Vec::new(),
        verdict: None,
        git: None,
    }
}

/// A result that says why not.
pub(crate) fn failed(class: Class) -> RunResult {
    RunResult {
        status: ResultStatus::Failed,
        class: Some(class),
        summary: format!("failed: {class}"),
        exit_code: Some(1),
        ..ok()
    }
}

pub(crate) fn used(tokens: u64) -> Usage {
    Usage {
        turns: 1,
        tokens,
        cost_micros: tokens * 10,
    }
}

pub(crate) fn said(text: &str) -> Event {
    Event::AssistantMessage(Said {
        text: text.to_owned(),
    })
}

impl World {
    pub(crate) fn spawned(&mut self, name: &str) {
        let generation = self.run(name);
        let identity = self.identity();
        self.handle(Input::HostSpawned {
            generation,
            identity,
            containment: Default::default(),
        });
    }

    pub(crate) fn spawn_failed(&mut self, name: &str) {
        let generation = self.run(name);
        self.handle(Input::SpawnFailed {
            class: protocol::class::Class::SpawnFailure,
            generation,
            error: "no such file".into(),
        });
    }

    pub(crate) fn greeted(&mut self, name: &str) {
        let generation = self.run(name);
        self.handle(Input::HostGreeted { generation });
    }

    pub(crate) fn report(&mut self, name: &str, event: Event) {
        let generation = self.run(name);
        self.report_of(generation, event);
    }

    pub(crate) fn report_of(&mut self, generation: Generation, event: Event) {
        self.handle(Input::HostReported {
            generation,
            claimed: generation,
            event,
        });
    }

    pub(crate) fn started(&mut self, name: &str) {
        self.started_with(name, Some("session-1"));
    }

    pub(crate) fn started_with(&mut self, name: &str, session: Option<&str>) {
        let event = Event::Started(Started {
            capabilities: caps(),
            session: session.map(str::to_owned),
        });
        self.report(name, event);
    }

    /// From the spawn's answer to an agent that works.
    pub(crate) fn begin(&mut self, name: &str) {
        self.spawned(name);
        self.greeted(name);
        self.started(name);
    }

    pub(crate) fn result(&mut self, name: &str, result: RunResult) {
        self.report(name, Event::Result(Box::new(result)));
    }

    pub(crate) fn exited(&mut self, name: &str, exit: Exit) {
        let generation = self.run(name);
        self.exited_run(generation, exit, None);
    }

    pub(crate) fn exited_run(
        &mut self,
        generation: Generation,
        exit: Exit,
        durable: Option<RunResult>,
    ) {
        self.handle(Input::HostExited {
            generation,
            exit,
            durable: durable.map(Box::new),
            injected: Vec::new(),
            cleared: supervisor_core::containment::Cleared::CLEAN,
            oom: None,
        });
    }

    /// The host of a run that works says this, and ends.
    pub(crate) fn ends(&mut self, name: &str, result: RunResult) {
        let generation = self.run(name);
        self.result(name, result);
        self.exited_run(generation, Exit::Code(0), None);
    }

    /// One whole run that goes well.
    pub(crate) fn succeed(&mut self, name: &str) {
        self.begin(name);
        self.ends(name, ok());
    }

    /// One whole run that fails with this class.
    pub(crate) fn fail(&mut self, name: &str, class: Class) {
        self.begin(name);
        self.ends(name, failed(class));
    }

    /// As [`World::fail`], and then waits until the next attempt is there.
    pub(crate) fn fail_and_wait(&mut self, name: &str, class: Class) {
        self.fail(name, class);
        self.pass(Duration::from_secs(1200));
    }

    // The operator.

    pub(crate) fn steer(&mut self, name: &str, mode: SteerMode, text: &str) -> MessageId {
        let command = self.steering(name, mode, text);
        match self.op(command) {
            Answer::Messages(ids) => ids[0],
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn steering(&self, name: &str, mode: SteerMode, text: &str) -> OperatorCommand {
        OperatorCommand::Steer {
            tasks: self.ixs(&[name]),
            mode,
            text: text.into(),
            expires: None,
            wait: None,
        }
    }

    pub(crate) fn refused(&mut self, command: OperatorCommand) -> Refusal {
        let before = self.journal.len();
        let answer = self.op(command);
        assert_eq!(self.journal.len(), before, "a refusal changes nothing");
        match answer {
            Answer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, name: &str, text: &str) -> QuestionId {
        match self.asks(name, text) {
            Answer::Asked(id) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn asks(&mut self, name: &str, text: &str) -> Answer {
        let generation = self.run(name);
        let reply = self.reply_id();
        self.handle(Input::HostAsked {
            generation,
            text: text.into(),
            options: vec!["yes".into(), "no".into()],
            reply,
        });
        self.answer_to(reply)
            .expect("every question is answered at once")
    }

    pub(crate) fn pause(&mut self, name: &str, now: bool) -> String {
        let tasks = Some(self.ixs(&[name]));
        self.op_lines(OperatorCommand::Pause { tasks, now })
            .remove(0)
    }

    pub(crate) fn resume(&mut self, name: &str) -> String {
        let tasks = Some(self.ixs(&[name]));
        self.op_lines(OperatorCommand::Resume { tasks }).remove(0)
    }

    pub(crate) fn resume_all(&mut self) -> Vec<String> {
        self.op_lines(OperatorCommand::Resume { tasks: None })
    }

    pub(crate) fn cancel(&mut self, name: &str) -> String {
        let tasks = Some(self.ixs(&[name]));
        self.op_lines(OperatorCommand::Cancel { tasks }).remove(0)
    }

    pub(crate) fn kill(&mut self, name: &str, grace: Duration) -> String {
        let tasks = self.ixs(&[name]);
        self.op_lines(OperatorCommand::Kill { tasks, grace })
            .remove(0)
    }

    pub(crate) fn retry(&mut self, name: &str) -> String {
        let tasks = self.ixs(&[name]);
        let command = OperatorCommand::Retry {
            tasks,
            mode: RetryMode::Fresh,
            attempts: None,
            note: None,
        };
        self.op_lines(command).remove(0)
    }

    pub(crate) fn skip_task(&mut self, name: &str, as_done: bool) -> String {
        let tasks = self.ixs(&[name]);
        self.op_lines(OperatorCommand::Skip { tasks, as_done })
            .remove(0)
    }

    /// The batch file was edited to say this; answers what the operator is told.
    pub(crate) fn revise(&mut self, plan: PlanBuilder) -> String {
        let command = OperatorCommand::Revise(Box::new(plan.plan()));
        self.op_lines(command).remove(0)
    }

    /// The supervisor dies, no host lives on, and the next one is given an edited batch file.
    pub(crate) fn resume_with(&mut self, plan: PlanBuilder) {
        self.crash();
        let runs: Vec<Generation> = self.facts().runs.keys().copied().collect();
        let gone = |generation| {
            let facts = RunFacts {
                process: ProcessFact::Gone,
                result: ResultFact::Absent,
                injected: Vec::new(),
                cleared: supervisor_core::containment::Cleared::CLEAN,
            };
            (generation, facts)
        };
        self.recover(runs.into_iter().map(gone).collect());
        self.revise(plan);
        self.tick();
    }

    pub(crate) fn stop(&mut self, stage: StopStage) -> String {
        self.op_lines(OperatorCommand::Stop(stage)).remove(0)
    }

    // After a crash.

    /// The supervisor dies, and the next one finds this of every live run.
    pub(crate) fn crash_and_recover(&mut self, process: ProcessFact, result: ResultFact) {
        self.crash_and_find(process, result);
        self.tick();
    }

    /// As far as the first tick, before which what waited for the supervisor is taken in.
    pub(crate) fn crash_and_find(&mut self, process: ProcessFact, result: ResultFact) {
        self.crash();
        let facts = RunFacts {
            process,
            result,
            injected: Vec::new(),
            cleared: supervisor_core::containment::Cleared::CLEAN,
        };
        let runs = self.facts().runs.keys().map(|run| (*run, facts.clone()));
        let runs = runs.collect();
        self.recover(runs);
    }

    /// The supervisor dies, and with it every host, without a trace.
    pub(crate) fn crash_and_lose(&mut self) {
        self.crash_and_recover(ProcessFact::Gone, ResultFact::Absent);
    }

    /// As [`World::crash_and_lose`], and the next supervisor is here for clean-ups alone.
    pub(crate) fn take_over_to_clean(&mut self) {
        self.crash();
        self.confine();
        let facts = RunFacts {
            process: ProcessFact::Gone,
            result: ResultFact::Absent,
            injected: Vec::new(),
            cleared: supervisor_core::containment::Cleared::CLEAN,
        };
        let runs = self.facts().runs.keys().map(|run| (*run, facts.clone()));
        let runs = runs.collect();
        self.recover(runs);
        self.decided();
        self.tick();
    }
}
