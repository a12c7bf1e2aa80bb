//! The document, put together from the operations.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::operation::{Answer, Operation};
use crate::compat::envelope::fault_name;

/// What any request may be answered with, when not with what it asked for.
const FAULTS: &[(u16, &str)] = &[
    (
        400,
        "Something in the request is wrong; the message names it.",
    ),
    (
        403,
        "The policy does not allow it, or it is a checkpoint or trigger of another project.",
    ),
    (404, "There is no such thing, or it is another project's."),
    (
        405,
        "The API has no such method here; Allow names those that it has.",
    ),
    (408, "The body did not arrive in time."),
    (409, "The thing is in a state that does not allow it."),
    (413, "The body is too large, or a quota is used up."),
    (415, "The body is not application/json."),
    (424, "Something else still needs it."),
    (503, "A service that is needed is away; ask again later."),
    (
        504,
        "It took too long, and may have been done all the same.",
    ),
];

/// How a filter filters.
const FILTER: &str = "Only those with this value, or with one of a list like ['a', 'b']. Names, \
    descriptions, properties and definitions are searched for a regular expression";

/// What only requests with a body, or that change something, are answered with.
const OF_BODIES: &[u16] = &[408, 415];
const OF_CHANGES: &[u16] = &[409, 413, 424];

/// The OpenAPI 3.1 document of these operations; the same for the same code.
pub(crate) fn document(operations: &[Operation]) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        });
    let mut generator = SchemaGenerator::new(settings);
    let mut paths = Map::new();
    paths.insert("/".to_owned(), json!({ "get": versions() }));
    for operation in operations {
        let methods = paths
            .entry(operation.place())
            .or_insert_with(|| json!({ "parameters": path_parameters(operation) }));
        methods[operation.method.as_str().to_ascii_lowercase()] =
            described(operation, &mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.sort_keys();
    for (status, _) in FAULTS {
        schemas.insert(fault_schema(*status), fault(*status));
    }
    schemas.insert("Unauthorized".to_owned(), unauthorized());
    schemas.insert("NoRoute".to_owned(), no_route());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Karbor",
            "summary": "Application data protection as a service",
            "description": "The REST API v1 of Karbor. A project's members see and change what is \
                            their project's; `x-policy` names the rule that says who may.",
            "version": "1.0",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "apiKey", "in": "header", "name": "X-Auth-Token" },
            },
            "schemas": schemas,
            "responses": responses(),
        },
        "security": [{ "token": [] }],
    })
}

fn versions() -> Value {
    let version = json!({
        "type": "object",
        "properties": {
            "id": { "type": "string" },
            "status": { "type": "string" },
            "links": { "type": "array", "items": link() },
        },
        "required": ["id", "status", "links"],
    });
    json!({
        "operationId": "versions",
        "summary": "The versions of the API",
        "security": [],
        "responses": {
            "300": answer("The versions", json!({
                "type": "object",
                "properties": { "versions": { "type": "array", "items": version } },
                "required": ["versions"],
            })),
            "403": { "$ref": "#/components/responses/Forbidden" },
        },
    })
}

fn described(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let method = operation.method.as_str().to_ascii_lowercase();
    let words = operation
        .path
        .replace(['{', '}'], "")
        .replace(['/', '-'], "_");
    let mut described = json!({
        "operationId": format!("{method}{words}"),
        "summary": operation.summary,
        "tags": [operation.resource()],
        "x-policy": operation.rule,
    });
    let query = query_parameters(operation);
    if !query.is_empty() {
        described["parameters"] = query.into();
    }
    if let Some(schema) = operation.body {
        described["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": schema.described() } },
        });
    }
    let mut answers = Map::new();
    answers.insert("200".to_owned(), good(operation, generator));
    let unauthorized = json!({ "$ref": "#/components/responses/Unauthorized" });
    answers.insert("401".to_owned(), unauthorized);
    for (status, _) in FAULTS {
        let is_change = method != "get";
        if (OF_BODIES.contains(status) && operation.body.is_none())
            || (OF_CHANGES.contains(status) && !is_change)
        {
            continue;
        }
        let name = fault_schema(*status);
        let response = json!({ "$ref": format!("#/components/responses/{name}") });
        answers.insert(status.to_string(), response);
    }
    described["responses"] = answers.into();
    described
}

fn good(operation: &Operation, generator: &mut SchemaGenerator) -> Value {
    let object = |key: &str, value: Value| json!({ "type": "object", "properties": { key: value }, "required": [key] });
    let schema = match &operation.answer {
        Answer::Nothing => return json!({ "description": "It is done; the body is empty." }),
        Answer::Empty => json!({ "type": "object", "maxProperties": 0 }),
        Answer::One(key, shape) => object(key, shape(generator).into()),
        Answer::All(key, shape) => {
            let items = Value::from(shape(generator));
            object(key, json!({ "type": "array", "items": items }))
        }
        Answer::Page(key, shape) => {
            let items = Value::from(shape(generator));
            let mut page = object(key, json!({ "type": "array", "items": items }));
            page["properties"][format!("{key}_links")] = json!({
                "description": "The next page, if there may be one.",
                "type": "array",
                "items": link(),
            });
            page
        }
    };
    answer("What was asked for", schema)
}

fn answer(description: &str, schema: Value) -> Value {
    json!({
        "description": description,
        "content": { "application/json": { "schema": schema } },
    })
}

fn link() -> Value {
    json!({
        "type": "object",
        "properties": { "rel": { "type": "string" }, "href": { "type": "string" } },
        "required": ["rel", "href"],
    })
}

fn path_parameters(operation: &Operation) -> Vec<Value> {
    let place = operation.place();
    let names = place
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let uuids = ["id", "checkpoint_id"];
    let other_ids = ["protectables", "os-services", "quotas", "quota_classes"];
    names
        .map(|name| {
            let is_uuid = uuids.contains(&name) && !other_ids.contains(&operation.resource());
            let schema = match is_uuid {
                true => json!({ "type": "string", "format": "uuid" }),
                false => json!({ "type": "string", "minLength": 1 }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect()
}

fn query_parameters(operation: &Operation) -> Vec<Value> {
    let parameter = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "query", "description": description, "schema": schema });
    let text = || json!({ "type": "string" });
    let mut parameters = Vec::new();
    if let Answer::Page(..) = operation.answer {
        parameters = vec![
            parameter(
                "limit",
                "How many at most",
                json!({ "type": "integer", "minimum": 1 }),
            ),
            parameter("marker", "The id after which to go on", text()),
            parameter(
                "offset",
                "How many to leave out first",
                json!({ "type": "integer", "minimum": 0, "maximum": 0x7fff_ffff }),
            ),
            parameter(
                "sort",
                "`key:asc` or `key:desc`, several with commas",
                text(),
            ),
            parameter("sort_key", "The key to sort by; not with `sort`", text()),
            parameter(
                "sort_dir",
                "The direction; not with `sort`",
                json!({ "type": "string", "enum": ["asc", "desc"] }),
            ),
            parameter(
                "all_tenants",
                "Of all projects; for administrators only",
                json!({ "type": "boolean" }),
            ),
        ];
    }
    let filters = operation.query.iter();
    parameters.extend(filters.map(|name| parameter(name, FILTER, text())));
    parameters
}

fn fault_schema(status: u16) -> String {
    let name = match status {
        408 => "RequestTimeout",
        424 => "FailedDependency",
        504 => "GatewayTimeout",
        other => fault_name(other),
    };
    name[..1].to_ascii_uppercase() + &name[1..]
}

fn fault(status: u16) -> Value {
    let name = fault_name(status);
    json!({
        "type": "object",
        "properties": { name: {
            "type": "object",
            "properties": { "code": { "const": status }, "message": { "type": "string" } },
            "required": ["code", "message"],
        }},
        "required": [name],
    })
}

fn unauthorized() -> Value {
    json!({
        "type": "object",
        "properties": { "error": {
            "type": "object",
            "properties": {
                "code": { "const": 401 },
                "title": { "type": "string" },
                "message": { "type": "string" },
            },
            "required": ["code", "title", "message"],
        }},
        "required": ["error"],
    })
}

fn no_route() -> Value {
    let text = json!({ "type": "string" });
    json!({
        "type": "object",
        "properties": { "code": text, "title": text, "message": text },
        "required": ["code", "title", "message"],
    })
}

fn responses() -> Value {
    let mut responses = Map::new();
    for (status, description) in FAULTS {
        let name = fault_schema(*status);
        let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
        let schema = match status {
            404 => json!({ "anyOf": [reference, { "$ref": "#/components/schemas/NoRoute" }] }),
            _ => reference,
        };
        responses.insert(name, answer(description, schema));
    }
    let mut nobody = answer(
        "There is no token, or none that counts.",
        json!({ "$ref": "#/components/schemas/Unauthorized" }),
    );
    nobody["headers"] = json!({
        "WWW-Authenticate": { "schema": { "type": "string" } },
    });
    responses.insert("Unauthorized".to_owned(), nobody);
    responses.into()
}
