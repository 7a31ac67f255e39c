//! The OpenAPI document, made of the table that the router is made of.

use serde_json::{Map, Value, json};

use super::route::Route;

/// Returns the OpenAPI document of some routes.
pub(super) fn document(routes: &[Route]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        for path in route.path.templates() {
            let method = route.method.as_str().to_ascii_lowercase();
            let operation = operation(route, &path);
            let item = paths.entry(path).or_insert_with(|| json!({}));
            item[method] = operation;
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Persist",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs agents and keeps versions of their state.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route, path: &str) -> Value {
    let in_session = path.contains("{session}") && route.id != "listSessions";
    let id = if in_session {
        format!("{}InSession", route.id)
    } else {
        route.id.to_owned()
    };
    let names = path.split('{').skip(1);
    let names = names.filter_map(|rest| rest.split('}').next());
    let mut parameters: Vec<_> = names.map(|name| parameter(name, "path")).collect();
    parameters.extend(route.query.iter().map(|name| parameter(name, "query")));
    if route.id == "run" {
        let what = "Repeats of a request with the same key do not run the agent again.";
        parameters.push(header("Idempotency-Key", what));
    }
    let changes = ["save", "delete", "restore", "fork"];
    let is_conditional = changes.contains(&route.id) || ["load", "show"].contains(&route.id);
    if is_conditional {
        parameters.push(header(
            "If-Match",
            "Versions, as entity tags, that are expected.",
        ));
        let what = "Versions that are not expected, or * for a name without a state.";
        parameters.push(header("If-None-Match", what));
    }
    if route.id == "load" {
        parameters.push(header("Range", "One range of bytes."));
        let what = "Version, as an entity tag, without which the whole state is the answer.";
        parameters.push(header("If-Range", what));
    }
    let mut responses = json!({
        "200": {
            "description": "Done.",
            "content": content(route.answer, match route.id {
                "changes" => "text/event-stream",
                "metrics" => super::metrics::MEDIA_TYPE,
                _ => "application/octet-stream",
            }),
        },
        "default": {
            "description": "The request failed.",
            "content": {
                "application/problem+json": {
                    "schema": { "$ref": "#/components/schemas/Problem" },
                },
            },
        },
    });
    if route.id == "run" {
        responses["200"]["content"]["text/event-stream"] = run_events();
    }
    if ["save", "restore", "fork"].contains(&route.id) {
        responses["201"] = responses["200"].clone();
        responses["201"]["description"] = json!("The first version of the name was saved.");
    }
    if route.id == "load" {
        responses["206"] = responses["200"].clone();
        responses["206"]["description"] = json!("The range.");
    }
    if ["load", "show"].contains(&route.id) {
        responses["304"] = json!({ "description": "The client has this version." });
    }
    let mut operation = json!({
        "operationId": id,
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
    });
    operation["security"] = match route.right {
        Some(right) => {
            operation["description"] = json!(format!("Needs a token with the right {right}."));
            json!([{ "token": [] }])
        }
        None => json!([]),
    };
    if route.id == "save" {
        // A parameter has one name, and these have any.
        let needs = operation["description"].as_str().unwrap_or_default();
        let labels = "Headers `Persist-Label-KEY` become labels, with the key in lower case.";
        operation["description"] = json!(format!("{needs} {labels}"));
    }
    if let Some(schema) = route.body {
        operation["requestBody"] = json!({
            "required": route.id != "run",
            "content": content(schema, "application/octet-stream"),
        });
    }
    operation
}

/// Returns the content of a schema; that of the media type `otherwise` where there is none. Each
/// has a schema, without which generators make no function of the operation.
fn content(schema: &str, otherwise: &str) -> Value {
    match schema {
        "" if otherwise == "application/octet-stream" => json!({
            otherwise: { "schema": { "type": "string", "format": "binary" } },
        }),
        "" => json!({ otherwise: text() }),
        "Any" => json!({ "application/json": { "schema": { "type": "object" } } }),
        schema => {
            let schema = format!("#/components/schemas/{schema}");
            json!({ "application/json": { "schema": { "$ref": schema } } })
        }
    }
}

fn text() -> Value {
    json!({ "schema": { "type": "string" } })
}

/// Describes the events of a run. A schema cannot: it is of the stream as a whole.
fn run_events() -> Value {
    let what = "Server-sent events, each with JSON. `saved` and `deleted`: a version. `stdout` and \
                `stderr`: text that the agent printed, as {\"text\": …}. The last one is `answer`, \
                a RunResult, or `error`, a Problem.";
    json!({ "schema": { "type": "string", "description": what } })
}

fn parameter(name: &str, place: &str) -> Value {
    let is_number = ["version", "before", "limit", "from", "to"].contains(&name);
    let schema = if is_number {
        json!({ "type": "integer", "minimum": 0 })
    } else {
        json!({ "type": "string" })
    };
    json!({ "name": name, "in": place, "required": place == "path", "schema": schema })
}

fn header(name: &str, what: &str) -> Value {
    let schema = json!({ "type": "string" });
    json!({ "name": name, "in": "header", "description": what, "schema": schema })
}

fn schemas() -> Value {
    let object = |required: &[&str], properties: Value| {
        json!({
            "type": "object",
            "required": required,
            "properties": properties,
            "additionalProperties": false,
        })
    };
    let number = || json!({ "type": "integer", "minimum": 0 });
    let number_or_none = || json!({ "type": ["integer", "null"], "minimum": 0 });
    let text = || json!({ "type": "string" });
    let text_or_none = || json!({ "type": ["string", "null"] });
    let flag = || json!({ "type": "boolean" });
    let list = |items: Value| json!({ "type": "array", "items": items });
    let version = || json!({ "$ref": "#/components/schemas/Version" });
    json!({
        "Health": object(&["status"], json!({ "status": { "const": "ok" } })),
        "Names": object(&["names", "next"], json!({
            "names": list(text()),
            "next": text_or_none(),
        })),
        "History": object(&["versions", "unreadable", "next"], json!({
            "versions": list(version()),
            "unreadable": list(number()),
            "next": number_or_none(),
        })),
        "Pins": object(&["pins"], json!({ "pins": list(number()) })),
        "Version": object(
            &[
                "address", "agent", "session", "name", "version", "parent", "deleted", "size",
                "stored_size", "sha256", "created_at", "media_type", "labels",
            ],
            json!({
                "address": text(),
                "agent": text(),
                "session": text_or_none(),
                "name": text(),
                "version": number(),
                "parent": number_or_none(),
                "deleted": flag(),
                "size": number(),
                "stored_size": number(),
                "sha256": text(),
                "created_at": text_or_none(),
                "media_type": text_or_none(),
                "labels": { "type": "object", "additionalProperties": text() },
            }),
        ),
        "Difference": object(&["from", "to", "same", "bytes", "format", "diff"], json!({
            "from": version(),
            "to": version(),
            "same": flag(),
            "bytes": { "type": ["object", "null"] },
            "format": text_or_none(),
            "diff": text_or_none(),
        })),
        "RunRequest": object(&[], json!({ "args": list(text()), "stdin": text() })),
        "RunResult": object(
            &["answer", "stdout", "stderr", "denied_hosts", "versions", "replayed"],
            json!({
                "answer": text_or_none(),
                "stdout": text_or_none(),
                "stderr": text_or_none(),
                "denied_hosts": list(text()),
                "versions": list(version()),
                "replayed": { "enum": [null, "memory", "versions"] },
            }),
        ),
        "RestoreRequest": object(&["version"], json!({ "version": number() })),
        "ForkRequest": object(&["name"], json!({
            "name": text(),
            "agent": text(),
            "session": text(),
            "version": number(),
        })),
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "code", "detail", "hint"],
            "properties": {
                "type": text(),
                "title": text(),
                "status": number(),
                "code": text(),
                "detail": text(),
                "hint": text_or_none(),
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use axum::http::Method;

    use super::super::routes::ROUTES;
    use super::*;

    #[test]
    fn headers_of_load_and_save_are_described() {
        let document = document(ROUTES);
        let state = &document["paths"]["/v1/agents/{agent}/names/{name}/state"];
        let parameters = state["get"]["parameters"].as_array().expect("parameters");
        let mut names = parameters.iter().map(|one| &one["name"]);
        assert!(names.any(|name| name == "If-Range"), "{parameters:?}");
        let described = state["put"]["description"].as_str().expect("text");
        assert!(described.contains("Persist-Label-KEY"), "{described}");
        assert!(described.contains("right save"), "{described}");
    }

    #[test]
    fn each_operation_has_an_id_and_schemas_of_its_own() {
        let document = document(ROUTES);
        let mut ids = BTreeSet::new();
        let mut used = BTreeSet::new();
        for item in document["paths"].as_object().expect("paths").values() {
            for operation in item.as_object().expect("operations").values() {
                let id = operation["operationId"].as_str().expect("an id");
                assert!(ids.insert(id.to_owned()), "{id} twice");
            }
        }
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            used.insert(part.split('"').next().expect("a name").to_owned());
        }
        let schemas = document["components"]["schemas"].as_object();
        let known: BTreeSet<_> = schemas.expect("schemas").keys().cloned().collect();
        assert_eq!(used, known);
        let routes: usize = ROUTES
            .iter()
            .map(|route| route.path.templates().len())
            .sum();
        assert_eq!(ids.len(), routes);
        assert!(ROUTES.iter().all(|route| route.method != Method::HEAD));
    }
}
