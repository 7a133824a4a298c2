//! What pi has in its home: its catalogue of models.
#![expect(clippy::expect_used, reason = "a test: a panic is its failure")]

use std::path::Path;

use serde_json::json;

/// Writes a catalogue with the model at this place in it, spoken to over this wire (`api`).
///
/// # Panics
/// When it can not be written.
pub fn write_models(home: &Path, api: &str, url: &str) {
    std::fs::create_dir_all(home).expect("a home");
    let base = match api {
        "anthropic-messages" => url.to_owned(),
        _ => format!("{url}/v1"),
    };
    let cost = json!({"input": 3, "output": 15, "cacheRead": 0.3, "cacheWrite": 3.75});
    let model = json!({"id": "fake-model", "contextWindow": 100_000, "maxTokens": 8000,
        "cost": cost});
    let fake = json!({"baseUrl": base, "api": api, "apiKey": "none", "models": [model]});
    let models = json!({"providers": {"fake": fake}}).to_string();
    std::fs::write(home.join("models.json"), models).expect("a catalogue");
}
