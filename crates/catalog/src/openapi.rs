//! The OpenAPI document that a catalogue serves of itself, made from the types that it answers with.

use hydra_core::keystore::wire::Problem;
use serde_json::{Value, json};
use utoipa::OpenApi;

use crate::wire::{
    About, Answers, Batch, Change, Created, Entry, Found, Line, ListQuestion, Listing, Lookup, NewEntry, Operation,
    OperationBegin, OperationEnd, PermissionsAnswer, PermissionsChange, PermissionsChanged, Question, Removal, Schema,
    SchemaChange, SchemaQuestion, Search, Whoami,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Catalogue", description = "Names, replicas and attributes of sealed images"),
    components(schemas(
        Batch<NewEntry>, Batch<Question>, Batch<Change>, Batch<Removal>, Batch<PermissionsChange>,
        Answers<Created>, Answers<Entry>, Answers<u64>, Answers<PermissionsAnswer>, Answers<PermissionsChanged>,
        Lookup, Found, ListQuestion, Listing, Search, Line, SchemaQuestion, SchemaChange, Schema,
        OperationBegin, OperationEnd, Operation, Problem, Whoami, About,
    ))
)]
struct Schemas;

/// Each address that is asked by POST, with the schemas of request and answer; an empty request has none.
const POSTS: [(&str, &str, &str); 14] = [
    ("entries/create", "Batch_NewEntry", "Answers_Created"),
    ("entries/show", "Batch_Question", "Answers_Entry"),
    ("entries/change", "Batch_Change", "Answers_Entry"),
    ("entries/remove", "Batch_Removal", "Answers_u64"),
    ("entries/find", "Lookup", "Found"),
    ("list", "ListQuestion", "Listing"),
    ("search", "Search", "Line"),
    ("schemas/show", "SchemaQuestion", "Schema"),
    ("schemas/change", "SchemaChange", "Schema"),
    ("permissions/show", "Batch_Question", "Answers_PermissionsAnswer"),
    (
        "permissions/change",
        "Batch_PermissionsChange",
        "Answers_PermissionsChanged",
    ),
    ("operations/begin", "OperationBegin", "Operation"),
    ("operations/end", "OperationEnd", "Operation"),
    ("operations/list", "", "Operation"),
];

/// The whole document.
pub fn document() -> Value {
    let mut document = serde_json::to_value(Schemas::openapi()).unwrap_or_default();
    let mut paths = serde_json::Map::new();
    for (name, request, answer) in POSTS {
        let content = match name {
            "search" => json!({
                "application/x-ndjson": { "schema": schema(answer) },
                "text/csv": { "schema": { "type": "string" } },
            }),
            "operations/list" => json!({
                "application/json": { "schema": { "type": "array", "items": schema(answer) } },
            }),
            _ => json!({ "application/json": { "schema": schema(answer) } }),
        };
        let mut post = json!({ "operationId": name.replace('/', "_"), "responses": responses(&content) });
        if !request.is_empty() {
            post["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": schema(request) } } });
        }
        paths.insert(format!("/v1/{name}"), json!({ "post": post }));
    }
    for (name, answer) in [("whoami", "Whoami"), ("about", "About")] {
        let content = json!({ "application/json": { "schema": schema(answer) } });
        let get = json!({ "operationId": name, "responses": responses(&content) });
        paths.insert(format!("/v1/{name}"), json!({ "get": get }));
    }
    for name in ["live", "ready"] {
        let get = json!({ "operationId": name, "responses": { "200": { "description": name } } });
        paths.insert(format!("/v1/{name}"), json!({ "get": get }));
    }
    paths.insert("/v1/thumbnail".into(), thumbnail());
    let own = json!({ "operationId": "openapi", "responses": { "200": { "description": "this document" } } });
    paths.insert("/openapi.json".into(), json!({ "get": own }));
    document["paths"] = Value::Object(paths);
    document
}

fn thumbnail() -> Value {
    let path = json!([{ "name": "path", "in": "query", "required": true, "schema": { "type": "string" } }]);
    let bytes = json!({ "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } });
    let mut stored = responses(&json!({}));
    stored["204"] = json!({ "description": "kept; with no bytes: taken away" });
    json!({
        "get": { "operationId": "thumbnail", "parameters": path, "responses": responses(&bytes) },
        "put": {
            "operationId": "put_thumbnail",
            "parameters": path,
            "requestBody": { "required": true, "content": bytes },
            "responses": stored,
        },
    })
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn responses(content: &Value) -> Value {
    let problem = json!({
        "description": "a problem document (RFC 9457)",
        "content": { "application/problem+json": { "schema": schema("Problem") } },
    });
    let mut all = serde_json::Map::new();
    if content.as_object().is_some_and(|kinds| !kinds.is_empty()) {
        all.insert("200".into(), json!({ "description": "answered", "content": content }));
    }
    all.insert("default".into(), problem);
    Value::Object(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every `$ref` below `value`.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(name)) = members.get("$ref") {
                    found.push(name.clone());
                }
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 40);
        for name in found {
            let name = name.strip_prefix("#/components/schemas/").unwrap().to_owned();
            assert!(document["components"]["schemas"][&name].is_object(), "{name}");
        }
    }
}
