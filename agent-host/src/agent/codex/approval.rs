//! Requests of codex for permission: what each is about, and how it is answered.

use std::collections::BTreeMap;

use protocol::report::{EXCERPT_MAX, excerpt};
use serde_json::{Value, json};

use crate::agent::driven::json_rpc;
use crate::agent::driven::wire::{Decision, MayUse, Out, Step};
use crate::bridge::SERVER_NAME;

/// Most requests that wait; the driver lets fewer wait.
const WAITING_MAX: usize = 64;

/// The requests that wait for an answer, by the text of their id.
#[derive(Debug, Default)]
pub(super) struct Approvals(BTreeMap<String, Waiting>);

#[derive(Debug)]
struct Waiting {
    /// As the program gave it.
    id: Value,
    kind: Kind,
}

/// What the answer looks like.
#[derive(Debug)]
enum Kind {
    /// `{"decision": …}`.
    Decision,
    /// `{"action": …}`.
    Elicitation,
    /// The permissions that it wants, to be handed back.
    Permissions(Value),
}

impl Approvals {
    /// Takes in a request of the program. `files`: what is known of the change of files in this item.
    pub(super) fn ask(
        &mut self,
        id: Value,
        method: &str,
        params: &Value,
        files: impl Fn(&str) -> Option<String>,
        out: &mut Out,
    ) {
        let text = |name: &str| params[name].as_str().unwrap_or_default().to_owned();
        let (kind, tool, detail, is_edit) = match method {
            "item/commandExecution/requestApproval" => {
                (Kind::Decision, "shell".to_owned(), text("command"), false)
            }
            "item/fileChange/requestApproval" => {
                let detail = files(&text("itemId")).unwrap_or_default();
                let is_edit = params["grantRoot"].is_null();
                (Kind::Decision, "apply_patch".to_owned(), detail, is_edit)
            }
            "item/permissions/requestApproval" => {
                let wanted = params["permissions"].clone();
                let detail = wanted.to_string();
                let kind = Kind::Permissions(wanted);
                (kind, "permissions".to_owned(), detail, false)
            }
            "mcpServer/elicitation/request" => {
                let (meta, server) = (&params["_meta"], text("serverName"));
                if meta["codex_approval_kind"] != "mcp_tool_call" {
                    out.notice(format!(
                        "the server {server} asks something: it is declined"
                    ));
                    return json_rpc::answer(&id, &json!({"action": "decline"}), out);
                }
                // The host's own: nobody needs to allow it.
                if server == SERVER_NAME {
                    return json_rpc::answer(&id, &accepted(), out);
                }
                let tool = meta["tool_name"].as_str().unwrap_or_default();
                let detail = meta["tool_params"].to_string();
                (Kind::Elicitation, format!("{server}/{tool}"), detail, false)
            }
            // A question with choices, for whoever sits before a screen.
            "item/tool/requestUserInput" => {
                out.notice("the agent asks its user something: nobody answers");
                return json_rpc::answer(&id, &json!({"answers": {}}), out);
            }
            other => return json_rpc::refuse(&id, other, out),
        };
        if self.0.len() >= WAITING_MAX {
            return json_rpc::refuse(&id, method, out);
        }
        let request = id.to_string();
        self.0.insert(request.clone(), Waiting { id, kind });
        out.step(Step::MayUse(MayUse {
            request,
            tool: excerpt(&tool, EXCERPT_MAX),
            detail: excerpt(&detail, EXCERPT_MAX),
            reason: excerpt(&text("reason"), EXCERPT_MAX),
            is_edit,
        }));
    }

    /// The program says that a request is done with; by our answer, or without it.
    pub(super) fn resolved(&mut self, id: &Value, out: &mut Out) {
        let request = id.to_string();
        if self.0.remove(&request).is_some() {
            out.step(Step::Withdrawn(request));
        }
    }

    /// Says a decision; whether the request waited.
    pub(super) fn decide(&mut self, request: &str, decision: &Decision, out: &mut Out) -> bool {
        let Some(Waiting { id, kind }) = self.0.remove(request) else {
            return false;
        };
        let allowed = *decision == Decision::Allow;
        let result = match kind {
            Kind::Decision if allowed => json!({"decision": "accept"}),
            Kind::Decision => json!({"decision": "decline"}),
            Kind::Elicitation if allowed => accepted(),
            Kind::Elicitation => json!({"action": "decline"}),
            Kind::Permissions(wanted) if allowed => json!({"permissions": wanted, "scope": "turn"}),
            Kind::Permissions(_) => json!({"permissions": {}, "scope": "turn"}),
        };
        json_rpc::answer(&id, &result, out);
        true
    }
}

fn accepted() -> Value {
    json!({"action": "accept", "content": {}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(approvals: &mut Approvals, method: &str, params: &Value) -> Out {
        let mut out = Out::default();
        let files = |id: &str| (id == "i").then(|| "add /p".to_owned());
        approvals.ask(json!(0), method, params, files, &mut out);
        out
    }

    fn said(out: &Out) -> Value {
        serde_json::from_slice(&out.lines).unwrap_or_default()
    }

    fn asked(out: &Out) -> &MayUse {
        match out.steps.as_slice() {
            [Step::MayUse(ask)] => ask,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_change_of_files_is_an_edit_and_a_command_is_not() {
        let mut approvals = Approvals::default();
        let method = "item/fileChange/requestApproval";
        let params = json!({"itemId": "i", "reason": null, "grantRoot": null});
        let out = ask(&mut approvals, method, &params);
        assert!(asked(&out).is_edit);
        assert_eq!(asked(&out).detail, "add /p");
        let root = json!({"itemId": "i", "grantRoot": "/"});
        assert!(!asked(&ask(&mut approvals, method, &root)).is_edit);
        let params = json!({"command": "make", "reason": "May I?"});
        let out = ask(
            &mut approvals,
            "item/commandExecution/requestApproval",
            &params,
        );
        assert!(!asked(&out).is_edit);
        assert_eq!(asked(&out).reason, "May I?");
    }

    #[test]
    fn each_kind_is_answered_in_its_own_form_and_once() {
        let permissions = json!({"permissions": {"network": {"enabled": true}}});
        let server = json!({"serverName": "s", "_meta":
            {"codex_approval_kind": "mcp_tool_call", "tool_name": "t", "tool_params": {"q": 1}}});
        let cases = [
            (
                "item/commandExecution/requestApproval",
                json!({}),
                json!({"decision": "accept"}),
                json!({"decision": "decline"}),
            ),
            (
                "item/permissions/requestApproval",
                permissions,
                json!({"permissions": {"network": {"enabled": true}}, "scope": "turn"}),
                json!({"permissions": {}, "scope": "turn"}),
            ),
            (
                "mcpServer/elicitation/request",
                server,
                accepted(),
                json!({"action": "decline"}),
            ),
        ];
        for (method, params, yes, no) in cases {
            let deny = Decision::Deny("no".to_owned());
            for (decision, wanted) in [(Decision::Allow, yes), (deny, no)] {
                let mut approvals = Approvals::default();
                let request = asked(&ask(&mut approvals, method, &params)).request.clone();
                let mut out = Out::default();
                assert!(approvals.decide(&request, &decision, &mut out));
                assert_eq!(
                    said(&out),
                    json!({"jsonrpc": "2.0", "id": 0, "result": wanted})
                );
                assert!(!approvals.decide(&request, &decision, &mut out));
            }
        }
    }

    #[test]
    fn the_host_s_own_server_needs_no_permission_and_unknown_requests_are_refused() {
        let mut approvals = Approvals::default();
        let own =
            json!({"serverName": "supervisor", "_meta": {"codex_approval_kind": "mcp_tool_call"}});
        let out = ask(&mut approvals, "mcpServer/elicitation/request", &own);
        assert_eq!(said(&out)["result"]["action"], "accept");
        let out = ask(&mut approvals, "mcpServer/elicitation/request", &json!({}));
        assert_eq!(said(&out)["result"]["action"], "decline");
        let out = ask(&mut approvals, "attestation/generate", &json!({}));
        assert_eq!(said(&out)["error"]["code"], -32601);
        let out = ask(&mut approvals, "item/tool/requestUserInput", &json!({}));
        assert_eq!(said(&out)["result"], json!({"answers": {}}));
    }

    #[test]
    fn what_is_resolved_without_us_is_withdrawn() {
        let mut approvals = Approvals::default();
        ask(
            &mut approvals,
            "item/commandExecution/requestApproval",
            &json!({}),
        );
        let mut out = Out::default();
        approvals.resolved(&json!(1), &mut out);
        approvals.resolved(&json!(0), &mut out);
        approvals.resolved(&json!(0), &mut out);
        assert_eq!(out.steps, [Step::Withdrawn("0".to_owned())]);
    }
}
