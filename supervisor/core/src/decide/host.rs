//! What happens at a host's ends: spawn, hello, gate.

use std::sync::Arc;

use protocol::class::Class;
use protocol::command::RunKind;
use protocol::ids::{Generation, MessageId};

use super::Desk;
use crate::containment::{Cleared, Containment};
use crate::effect::Effect;
use crate::identity::{Exit, Identity};
use crate::input::WireFault;
use crate::live::{Gate, HELLO_MAX, LEASE, LiveTimer, WIRE_FAULTS_MAX, ping_every};
use crate::machine::{MessageState, RunState};
use crate::record::{Record, StopReason};
use crate::step::{Purpose, Step};

impl Desk<'_> {
    pub(super) fn host_spawned(
        &mut self,
        generation: Generation,
        identity: Identity,
        containment: Containment,
    ) {
        let wanted = self.run(generation);
        let Some(run) = wanted.filter(|_| !self.is_unresolved(generation)) else {
            // Nobody wants it any more; it waits behind the gate and has done nothing.
            self.effect(Effect::KillHost { generation });
            return;
        };
        if run.identity.is_some() {
            return;
        }
        let stopping = run.state == RunState::Stopping;
        self.record(Record::RunSpawned {
            generation,
            identity,
            containment,
        });
        self.live.insert(generation, self.now.boot);
        if stopping {
            self.effect(Effect::KillHost { generation });
            let again = self.now.boot + crate::live::KILL_AGAIN;
            self.live.arm(generation, LiveTimer::Kill, Some(again));
            return;
        }
        self.live.arm(
            generation,
            LiveTimer::Hello,
            Some(self.now.boot + HELLO_MAX),
        );
    }

    pub(super) fn spawn_failed(&mut self, generation: Generation, class: Class, error: Arc<str>) {
        if self
            .run(generation)
            .is_none_or(|run| run.identity.is_some())
            || self.is_unresolved(generation)
        {
            return;
        }
        self.live.insert(generation, self.now.boot);
        self.give_up(generation, class, error);
        let cleared = Cleared::CLEAN;
        self.run_over(generation, Exit::Unseen, None, Vec::new(), cleared, None);
    }

    pub(super) fn host_greeted(&mut self, generation: Generation) {
        let Some(live) = self.live.get_mut(generation) else {
            return;
        };
        live.heard = self.now.boot;
        live.alive = self.now.boot;
        live.progressed = self.now.boot;
        if live.gate != Gate::Closed {
            return;
        }
        live.gate = Gate::Greeted;
        self.live.arm(generation, LiveTimer::Hello, None);
        if self
            .run(generation)
            .is_some_and(|run| run.state == RunState::Spawned)
        {
            self.open_gate(generation);
        }
    }

    fn open_gate(&mut self, generation: Generation) {
        let Some(run) = self.run(generation) else {
            return;
        };
        let (purpose, spec) = (run.purpose, self.spec(run.task));
        let messages = if purpose == Purpose::Step(Step::Work) {
            self.send_queued(generation)
        } else {
            Vec::new()
        };
        if let Some(live) = self.live.get_mut(generation) {
            live.gate = Gate::Open;
        }
        let now = self.now.boot;
        let ping = now + ping_every(spec.silence);
        self.live.arm(generation, LiveTimer::Ping, Some(ping));
        self.live
            .arm(generation, LiveTimer::Lease, Some(now + LEASE));
        // Git work and hooks have limits of their own, which their hosts keep.
        let timed = purpose.is_agent() || purpose.kind() == RunKind::Verify;
        let silence = timed.then_some(now + spec.silence);
        self.live.arm(generation, LiveTimer::Silence, silence);
        let progress = timed.then_some(now + spec.no_progress);
        self.live.arm(generation, LiveTimer::Progress, progress);
        // The agent's own wall limit is over all runs of the attempt.
        let other = purpose.is_agent() && purpose != Purpose::Step(Step::Work);
        let wall = other.then_some(now + spec.timeout);
        self.live.arm(generation, LiveTimer::Wall, wall);
        self.effect(Effect::StartRun {
            generation,
            messages,
        });
    }

    /// Marks every queued message of the run's task as sent to it.
    fn send_queued(&mut self, generation: Generation) -> Vec<MessageId> {
        let Some(run) = self.run(generation) else {
            return Vec::new();
        };
        let mail = self
            .index()
            .mail
            .get(&run.task)
            .cloned()
            .unwrap_or_default();
        let queued: Vec<MessageId> = mail
            .into_iter()
            .filter(|id| self.facts().messages[id].state == MessageState::Queued)
            .collect();
        for id in &queued {
            let (to, generation) = (MessageState::Sent, Some(generation));
            self.record(Record::MessageMoved {
                id: *id,
                to,
                generation,
            });
        }
        queued
    }

    /// Hands queued messages to a run that has started.
    pub(super) fn deliver_queued(&mut self, generation: Generation) {
        for id in self.send_queued(generation) {
            let message = &self.facts().messages[&id];
            let (mode, text, from) = (message.mode, message.text.clone(), message.from);
            self.effect(Effect::Deliver {
                generation,
                id,
                mode,
                text,
                from,
            });
        }
    }

    pub(super) fn hello_refused(&mut self, generation: Generation, error: Arc<str>) {
        self.give_up(generation, Class::SpawnFailure, error);
        self.stop(generation, StopReason::NoHello, std::time::Duration::ZERO);
    }

    pub(super) fn start_failed(&mut self, generation: Generation, error: Arc<str>) {
        self.give_up(generation, Class::SetupFailed, error);
        self.stop(generation, StopReason::NoHello, std::time::Duration::ZERO);
    }

    /// Remembers why a run can not begin; the ruling comes when its host is gone.
    fn give_up(&mut self, generation: Generation, class: Class, error: Arc<str>) {
        if let Some(live) = self.live.get_mut(generation) {
            live.refused.get_or_insert((class, error));
        }
    }

    pub(super) fn wire_fault(&mut self, generation: Generation, fault: WireFault) {
        let Some(live) = self.live.get_mut(generation) else {
            return;
        };
        live.heard = self.now.boot;
        live.wire_faults += 1;
        let over = live.wire_faults > WIRE_FAULTS_MAX || fault == WireFault::TooLong;
        if over && live.broken.is_none() {
            live.broken = Some(fault);
            self.stop(generation, StopReason::Protocol, std::time::Duration::ZERO);
        }
    }
}
