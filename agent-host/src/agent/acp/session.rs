//! How a session opens: what the program offers, a new session or an earlier one, its model and mode.

use std::collections::VecDeque;

use protocol::class::Class;
use protocol::program::McpServer;
use serde_json::{Value, json};

use super::preset::Preset;
use super::{Acp, Steering, VERSION, What, fail, fail_by, line};
use crate::agent::driven::json_rpc::Fault;
use crate::agent::driven::wire::{Out, Step};

/// What the program said that it can do.
#[derive(Debug, Default)]
pub(super) struct Offer {
    loads: bool,
    resumes: bool,
    takes_system_prompt: bool,
}

impl Offer {
    /// Whether an earlier session can go on.
    pub(super) fn resumes(&self) -> bool {
        self.loads || self.resumes
    }
}

/// What the session is still to be told before the first prompt.
#[derive(Debug, Default)]
pub(super) struct Opening(VecDeque<Choice>);

#[derive(Debug)]
struct Choice {
    what: &'static str,
    method: &'static str,
    params: Value,
    /// The user named it.
    must: bool,
}

impl Acp {
    pub(super) fn initialized(&mut self, outcome: Result<Value, Fault>, out: &mut Out) {
        let result = match outcome {
            Ok(result) => result,
            Err(fault) => return fail_by(&fault, "it can not be spoken to", out),
        };
        if result["protocolVersion"].as_u64() != Some(VERSION) {
            let text = format!(
                "it speaks version {} of the protocol, not {VERSION}",
                result["protocolVersion"]
            );
            return fail(Class::Environment, &text, out);
        }
        let can = &result["agentCapabilities"];
        let session = &can["sessionCapabilities"];
        self.offer = Offer {
            loads: can["loadSession"] == true,
            resumes: session["resume"].is_object(),
            takes_system_prompt: session["systemPrompt"].is_object(),
        };
        self.steering = if result["_meta"]["steering"]["supported"] == true {
            Steering::Extension
        } else if self.preset == Preset::Opencode
            || line::text(&result["agentInfo"]["name"]) == "OpenCode"
        {
            self.conversation.folds_prompts();
            Steering::SecondPrompt
        } else {
            Steering::None
        };
        match self.resume.clone() {
            Some(id) if self.offer.resumes() => {
                let method = match self.offer.loads {
                    true => "session/load",
                    false => "session/resume",
                };
                let mut params = self.session_params();
                params["sessionId"] = json!(id);
                self.requests.say(What::Load, method, &params, out);
            }
            Some(_) => {
                out.notice("this program resumes no session: a new one begins");
                self.resume = None;
                self.say_new(out);
            }
            None => self.say_new(out),
        }
    }

    pub(super) fn say_new(&mut self, out: &mut Out) {
        let by_settings = self.preset == Preset::Opencode || self.offer.takes_system_prompt;
        if let Some(text) = self.adapter.system_prompt.as_ref().filter(|_| !by_settings) {
            self.preface = Some(text.clone());
            out.notice("this program takes no system prompt: it goes before the first prompt");
        }
        let params = self.session_params();
        self.requests.say(What::New, "session/new", &params, out);
    }

    fn session_params(&self) -> Value {
        let servers: Vec<Value> = self
            .servers
            .iter()
            .map(|(name, server)| entry(name, server))
            .collect();
        let mut params = json!({"cwd": self.cwd, "mcpServers": servers});
        if self.offer.takes_system_prompt
            && let Some(text) = &self.adapter.system_prompt
        {
            let content = json!([{"type": "text", "text": text}]);
            params["systemPrompt"] = json!({"mode": "append", "content": content});
        }
        params
    }

    /// A session is open; its model and mode follow.
    pub(super) fn opened(&mut self, result: &Value, out: &mut Out) {
        let mut choices = VecDeque::new();
        if let Some(model) = self
            .adapter
            .model
            .clone()
            .filter(|_| self.preset.model_by_wire())
        {
            let models = &result["models"]["availableModels"];
            let by_method = models
                .is_array()
                .then_some(("session/set_model", "modelId"));
            match self.choice("model", &model, by_method, models, result) {
                Some(choice) => choices.push_back(Choice {
                    must: true,
                    ..choice
                }),
                None => {
                    return fail(
                        Class::ModelMissing,
                        "this program lets nobody choose a model",
                        out,
                    );
                }
            }
        }
        let own = self
            .preset
            .mode(self.adapter.permissions)
            .map(str::to_owned);
        let must = self.adapter.mode.is_some();
        if let Some(mode) = self.adapter.mode.clone().or(own) {
            let modes = &result["modes"]["availableModes"];
            let by_method = modes.is_array().then_some(("session/set_mode", "modeId"));
            match self.choice("mode", &mode, by_method, modes, result) {
                Some(choice) => choices.push_back(Choice { must, ..choice }),
                None if must => return fail(Class::SetupFailed, "this program has no modes", out),
                None => out.notice("this program has no modes: its own permissions hold"),
            }
        }
        self.opening = Opening(choices);
        self.choose_next(out);
    }

    /// How the session is told to use this model or mode: by the option of that category, or by the
    /// method that is there for it.
    fn choice(
        &self,
        what: &'static str,
        wanted: &str,
        by_method: Option<(&'static str, &str)>,
        listed: &Value,
        result: &Value,
    ) -> Option<Choice> {
        let has = |list: &Value, key: &str| {
            let mut list = list.as_array().into_iter().flatten();
            list.any(|entry| entry[key] == wanted)
        };
        let mut options = result["configOptions"].as_array().into_iter().flatten();
        let option = options.find(|option| option["category"] == what || option["id"] == what);
        let by_option = option.map(|option| Choice {
            what,
            method: "session/set_config_option",
            params: self.with_session(json!({"configId": option["id"], "value": wanted})),
            must: false,
        });
        let by_method = by_method.map(|(method, key)| {
            let mut params = self.with_session(json!({}));
            params[key] = json!(wanted);
            let must = false;
            let is_listed = has(listed, key) || has(listed, "id");
            (
                is_listed,
                Choice {
                    what,
                    method,
                    params,
                    must,
                },
            )
        });
        match (by_method, by_option) {
            (Some((true, method)), _) => Some(method),
            (Some((false, _)), Some(option)) => Some(option),
            (Some((false, method)), None) => Some(method),
            (None, option) => option,
        }
    }

    pub(super) fn choose_next(&mut self, out: &mut Out) {
        match self.opening.0.pop_front() {
            Some(Choice {
                what,
                method,
                params,
                must,
            }) => {
                self.requests
                    .say(What::Choose { what, must }, method, &params, out);
            }
            None => {
                self.is_ready = true;
                out.step(Step::Ready);
            }
        }
    }
}

fn entry(name: &str, server: &McpServer) -> Value {
    let env = server.env.iter();
    let env: Vec<Value> = env
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({"name": name, "command": server.command, "args": server.args, "env": env})
}
