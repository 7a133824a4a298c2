//! placeholder
use super::*;
use protocol::command::{ScriptedAdapter, Start};
pub(super) struct ScriptedAgent;
impl ScriptedAgent {
    pub(super) fn new(_: &ScriptedAdapter, _: &Start) -> Result<Self, Failure> {
        Ok(Self)
    }
}
impl Agent for ScriptedAgent {
    fn capabilities(&self) -> Capabilities {
        NONE
    }
    fn takes_prompts(&self) -> bool {
        true
    }
    fn start(&mut self, _: &mut Run) -> Result<(), Failure> {
        Ok(())
    }
    fn prompt(&mut self, _: &mut Run, _: Option<String>) -> Result<(), Failure> {
        Ok(())
    }
    fn stop(&mut self) {}
    fn advance(&mut self, _: &mut Run, _: Instant) -> Advance {
        Advance::Waits(None)
    }
    fn drain(&mut self, _: &mut Run) {}
    fn program(&mut self) -> Option<&mut Program> {
        None
    }
}
