//! The OpenAPI document that a store serves of itself, made from the types that it answers with.

use hydra_core::keystore::wire::{
    About, Answers, Batch, Change, Changed, Confirm, Create, DescribeAnswer, DropBelow, List, ListAnswer, OfKeyId,
    OfRegistration, Operation, PermissionsAnswer, Problem, Put, ReadAnswer, Undo, WhoAmI,
};
use serde_json::{Value, json};
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(title = "Hydra key store", description = "One share of each key, never a key"),
    components(schemas(
        Batch<Create>, Batch<Confirm>, Batch<OfRegistration>, Batch<Undo>, Batch<OfKeyId>, Batch<Put>,
        Batch<DropBelow>, Batch<Change>, Batch<List>,
        Answers<Changed>, Answers<ReadAnswer>, Answers<DescribeAnswer>, Answers<PermissionsAnswer>,
        Answers<ListAnswer>,
        Problem, WhoAmI, About,
    ))
)]
struct Schemas;

/// The names of the schemas of an operation's request and answer.
fn schemas_of(operation: Operation) -> (&'static str, &'static str) {
    match operation {
        Operation::Create => ("Batch_Create", "Answers_Changed"),
        Operation::Confirm => ("Batch_Confirm", "Answers_Changed"),
        Operation::Stop | Operation::Remove => ("Batch_OfRegistration", "Answers_Changed"),
        Operation::Undo => ("Batch_Undo", "Answers_Changed"),
        Operation::Read => ("Batch_OfKeyId", "Answers_ReadAnswer"),
        Operation::Describe => ("Batch_OfKeyId", "Answers_DescribeAnswer"),
        Operation::Put => ("Batch_Put", "Answers_Changed"),
        Operation::Drop => ("Batch_DropBelow", "Answers_Changed"),
        Operation::Permissions => ("Batch_OfKeyId", "Answers_PermissionsAnswer"),
        Operation::Change => ("Batch_Change", "Answers_Changed"),
        Operation::List => ("Batch_List", "Answers_ListAnswer"),
    }
}

/// The whole document.
pub fn document() -> Value {
    let mut document = serde_json::to_value(Schemas::openapi()).unwrap_or_default();
    let mut paths = serde_json::Map::new();
    for operation in Operation::ALL {
        let (request, answer) = schemas_of(operation);
        let post = json!({
            "operationId": operation.name(),
            "requestBody": { "required": true, "content": { "application/json": { "schema": schema(request) } } },
            "responses": responses(answer),
        });
        paths.insert(format!("/v1/entries/{}", operation.name()), json!({ "post": post }));
    }
    for (name, answer) in [("whoami", "WhoAmI"), ("about", "About")] {
        let get = json!({ "operationId": name, "responses": responses(answer) });
        paths.insert(format!("/v1/{name}"), json!({ "get": get }));
    }
    for name in ["live", "ready"] {
        let get = json!({ "operationId": name, "responses": { "200": { "description": name } } });
        paths.insert(format!("/v1/{name}"), json!({ "get": get }));
    }
    let own = json!({ "operationId": "openapi", "responses": { "200": { "description": "this document" } } });
    paths.insert("/v1/openapi.json".into(), json!({ "get": own }));
    document["paths"] = Value::Object(paths);
    document
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn responses(answer: &str) -> Value {
    json!({
        "200": { "description": "answered", "content": { "application/json": { "schema": schema(answer) } } },
        "default": {
            "description": "a problem document (RFC 9457)",
            "content": { "application/problem+json": { "schema": schema("Problem") } },
        },
    })
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
    fn every_operation_is_there_and_every_schema_that_is_named() {
        let document = document();
        for operation in Operation::ALL {
            let path = format!("/v1/entries/{}", operation.name());
            assert!(document["paths"][&path]["post"].is_object(), "{path}");
        }
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 30);
        for name in found {
            let name = name.strip_prefix("#/components/schemas/").unwrap().to_owned();
            assert!(document["components"]["schemas"][&name].is_object(), "{name}");
        }
    }
}
