//! What the two OpenAI wires have in common: their failures and their list of models.

use serde_json::{Value, json};

use super::script::Fault;

/// Why a request that is too long is refused, in the service's words.
const TOO_LONG: &str =
    "Your input exceeds the context window of this model. Please adjust your input and try again.";

/// The service's word for a request that is too long.
const TOO_LONG_CODE: &str = "context_length_exceeded";

/// The error of a request that is too long, as it stands in a stream.
pub(super) fn overflow_error() -> Value {
    json!({"code": TOO_LONG_CODE, "message": TOO_LONG})
}

/// The failure of a request that is too long, as an answer of its own.
pub(super) fn overflow() -> Fault {
    Fault {
        status: 400,
        kind: Some(TOO_LONG_CODE.to_owned()),
        message: TOO_LONG.to_owned(),
        ..Fault::default()
    }
}

/// The body of a failure.
pub(super) fn failure(fault: &Fault) -> Value {
    let (kind, code) = match fault.status {
        401 => ("invalid_request_error", json!("invalid_api_key")),
        403 => (
            "invalid_request_error",
            json!("unsupported_country_region_territory"),
        ),
        404 => ("invalid_request_error", json!("model_not_found")),
        429 => ("rate_limit_error", json!("rate_limit_exceeded")),
        400..=499 => ("invalid_request_error", Value::Null),
        _ => ("server_error", json!("server_error")),
    };
    let mut error = json!({"message": fault.message, "type": kind, "param": null, "code": code});
    if let Some(word) = &fault.kind {
        // Programs read one or the other, and scripts need not know which.
        error["code"] = json!(word);
        if word != TOO_LONG_CODE {
            error["type"] = json!(word);
        }
    }
    json!({"error": error})
}

/// The answer to `GET /v1/models`: one, whatever it is called in requests.
pub(super) fn models() -> Value {
    json!({"object": "list", "data": [
        {"id": "scripted", "object": "model", "created": 0, "owned_by": "nobody"}]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_the_word_of_its_status_or_of_the_script() {
        let mut fault = Fault {
            status: 429,
            message: "slow".to_owned(),
            ..Fault::default()
        };
        assert_eq!(failure(&fault)["error"]["code"], "rate_limit_exceeded");
        fault.kind = Some("usage_limit_reached".to_owned());
        let error = &failure(&fault)["error"];
        assert_eq!(error["type"], "usage_limit_reached");
        assert_eq!(error["message"], "slow");
        let error = &failure(&overflow())["error"];
        assert_eq!(error["code"], "context_length_exceeded");
        assert_eq!(error["type"], "invalid_request_error");
    }
}
