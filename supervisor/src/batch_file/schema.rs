//! The JSON Schema of the batch file, from the same types that read it.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value as Json, json};

use super::low::BatchSchema;

/// What the schema says of itself.
const ABOUT: &str = "A batch file of the supervisor. Editors check it with the line \
    `# yaml-language-server: $schema=./supervisor.schema.json` at its top.";

/// The schema as JSON text.
pub fn schema() -> String {
    let generator = SchemaSettings::draft2020_12().into_generator();
    let mut schema = Json::from(generator.into_root_schema_for::<BatchSchema>());
    remove_null(&mut schema);
    if let Json::Object(root) = &mut schema {
        root.insert("title".to_owned(), json!("batch.yml"));
        root.insert("description".to_owned(), json!(ABOUT));
        root.insert("required".to_owned(), json!(["version", "tasks"]));
        require(root, "TaskLow", &["id"]);
        require(root, "AgentKeys", &["kind"]);
    }
    let mut text = format!("{schema:#}");
    text.push('\n');
    text
}

/// What a map can not do without; the readers say so with a sentence of their own.
fn require(root: &mut Map<String, Json>, definition: &str, keys: &[&str]) {
    let definitions = root.get_mut("$defs").and_then(Json::as_object_mut);
    let definition = definitions.and_then(|map| map.get_mut(definition));
    if let Some(Json::Object(definition)) = definition {
        definition.insert("required".to_owned(), json!(keys));
    }
}

/// A key that may be absent may not be written empty: schemars says `null` where we mean absent.
fn remove_null(schema: &mut Json) {
    match schema {
        Json::Array(items) => items.iter_mut().for_each(remove_null),
        Json::Object(map) => {
            if let Some(Json::Array(types)) = map.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    map.insert("type".to_owned(), only);
                }
            }
            if let Some(Json::Array(any)) = map.get_mut("anyOf") {
                any.retain(|schema| *schema != json!({"type": "null"}));
                if let [Json::Object(only)] = any.as_slice() {
                    let only = only.clone();
                    map.remove("anyOf");
                    map.extend(only);
                }
            }
            map.values_mut().for_each(remove_null);
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}
