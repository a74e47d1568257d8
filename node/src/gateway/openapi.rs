//! The OpenAPI 3.1 document, made from the table of routes and from the protobuf descriptors with their comments.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{Cardinality, FieldDescriptor, FileDescriptor, Kind as FieldKind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{
    json::{JsonError, Translator},
    routes::{Answers, BATCH_MAX, Kind, Parameter, Place, ROUTES, Route, Takes, Verb},
};

/// Statuses that every route may answer with, and what they mean.
const REFUSALS: [(&str, &str); 8] = [
    ("400", "The request has a mistake."),
    ("401", "A good credential is needed."),
    ("403", "The caller may not do this."),
    ("404", "What was asked for does not exist."),
    ("429", "The limit is reached; `Retry-After` says when to come again."),
    ("431", "A header is too large."),
    ("503", "The gateway or the nodes have too much to do, or no node can answer."),
    ("504", "No node answered in time."),
];

/// The document.
pub fn document(translator: &Translator) -> Result<Value, JsonError> {
    let mut schemas = Schemas::default();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in ROUTES {
        let verb = match route.verb {
            Verb::Get => "get",
            Verb::Post => "post",
        };
        let operation = operation(route, translator, &mut schemas)?;
        paths.entry(route.path).or_default().insert(verb.to_owned(), operation);
    }
    schemas.add_own();
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Althing gateway",
            "version": "1",
            "summary": "Submit transactions to an Althing chain, read it and follow it.",
            "description": "JSON follows the proto3 mapping of the gRPC services: bytes are base64, 64-bit numbers are \
                texts. Keys and hashes in paths and queries may be 64 hex digits instead. Answers carry `RateLimit` and \
                `RateLimit-Policy`; refusals are problems (RFC 9457).",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"apiKey": []}, {"certificate": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas.done,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "certificate": {"type": "mutualTLS"},
            },
            "responses": {
                "Problem": {
                    "description": "A problem.",
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                },
            },
        },
    }))
}

fn operation(route: &Route, translator: &Translator, schemas: &mut Schemas) -> Result<Value, JsonError> {
    let mut responses = Map::new();
    let success = match route.answers {
        Answers::Message(name) => json_content(&schemas.message(&translator.message(name)?)),
        Answers::Schema(name) => json_content(name),
        Answers::Events => json!({"text/event-stream": {"schema": {"type": "string"}}}),
        Answers::Socket => Value::Null,
    };
    if success.is_null() {
        responses.insert("101".to_owned(), json!({"description": "The connection is a WebSocket from here on."}));
    } else {
        responses.insert("200".to_owned(), json!({"description": "The answer.", "content": success}));
    }
    for (status, about) in REFUSALS {
        let problem = json!({
            "description": about,
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        });
        responses.insert(status.to_owned(), problem);
    }
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.about,
        "parameters": route.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": responses,
    });
    if let Some(object) = operation.as_object_mut() {
        match route.permission {
            Some(permission) => object.insert(
                "description".to_owned(),
                json!(format!("Needs the permission `{permission:?}`.").to_lowercase()),
            ),
            None => object.insert("security".to_owned(), json!([])),
        };
        let body = match route.takes {
            Takes::Nothing => None,
            Takes::Transaction => {
                let mut content = json_content(&schemas.message(&translator.message("SubmitRequest")?));
                if let Some(content) = content.as_object_mut() {
                    content.insert("application/octet-stream".to_owned(), json!({}));
                }
                Some(content)
            }
            Takes::Transactions => Some(json_content("SubmitManyRequest")),
        };
        if let Some(content) = body {
            object.insert("requestBody".to_owned(), json!({"required": true, "content": content}));
            if let Some(responses) = object.get_mut("responses").and_then(Value::as_object_mut) {
                for (status, about) in [
                    ("408", "The body did not arrive in time."),
                    ("409", "The state of the chain does not allow this transaction."),
                    ("413", "The body is too large."),
                    ("415", "The body has a type that is not taken here."),
                ] {
                    let problem = json!({"description": about, "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}});
                    responses.insert(status.to_owned(), problem);
                }
            }
        }
    }
    Ok(operation)
}

fn json_content(schema: &str) -> Value {
    json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}})
}

/// Bytes, in either alphabet, with or without padding.
fn base64() -> Value {
    json!({"type": "string", "contentEncoding": "base64", "pattern": "^[0-9A-Za-z+/_-]*={0,2}$"})
}

fn parameter(parameter: &Parameter) -> Value {
    let height = json!({"type": "string", "pattern": "^([1-9][0-9]{0,18}|latest)$"});
    let schema = match parameter.kind {
        Kind::Key => json!({"type": "string", "pattern": "^([0-9a-fA-F]{64}|[0-9A-Za-z+/_-]{43}=?)$"}),
        Kind::Height => height,
        Kind::Count { least, most } => json!({"type": "integer", "minimum": least, "maximum": most}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Word(words) => json!({"type": "string", "enum": words}),
        Kind::Cursor => json!({"type": "string", "pattern": "^h[0-9]{1,19}$"}),
    };
    let schema = if parameter.many { json!({"type": "array", "items": schema, "maxItems": 16}) } else { schema };
    let place = match parameter.place {
        Place::Path => "path",
        Place::Query => "query",
    };
    json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.place == Place::Path,
        "description": parameter.about,
        "schema": schema,
    })
}

/// The schemas of messages, each written once.
#[derive(Default)]
struct Schemas {
    done: BTreeMap<String, Value>,
    started: BTreeSet<String>,
}

impl Schemas {
    /// The name of a message's schema.
    fn message(&mut self, message: &MessageDescriptor) -> String {
        let name = message.name().to_owned();
        if !self.started.insert(name.clone()) {
            return name;
        }
        let comments = Comments::of(&message.parent_file());
        let mut properties = Map::new();
        for field in message.fields() {
            let mut schema = self.field(&field);
            if let (Some(object), Some(about)) = (schema.as_object_mut(), comments.at(field.path())) {
                object.insert("description".to_owned(), json!(about));
            }
            properties.insert(field.json_name().to_owned(), schema);
        }
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        if let (Some(object), Some(about)) = (schema.as_object_mut(), comments.at(message.path())) {
            object.insert("description".to_owned(), json!(about));
        }
        self.done.insert(name.clone(), schema);
        name
    }

    fn field(&mut self, field: &FieldDescriptor) -> Value {
        let one = match field.kind() {
            FieldKind::Bool => json!({"type": "boolean"}),
            FieldKind::String => json!({"type": "string"}),
            FieldKind::Bytes => base64(),
            FieldKind::Double | FieldKind::Float => json!({"type": "number"}),
            FieldKind::Uint64 | FieldKind::Fixed64 => json!({"type": "string", "pattern": "^[0-9]+$"}),
            FieldKind::Int64 | FieldKind::Sint64 | FieldKind::Sfixed64 => {
                json!({"type": "string", "pattern": "^-?[0-9]+$"})
            }
            FieldKind::Uint32 | FieldKind::Fixed32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            FieldKind::Int32 | FieldKind::Sint32 | FieldKind::Sfixed32 => json!({"type": "integer"}),
            FieldKind::Enum(values) => {
                json!({"type": "string", "enum": values.values().map(|value| value.name().to_owned()).collect::<Vec<_>>()})
            }
            FieldKind::Message(message) => {
                let name = self.message(&message);
                let reference = json!({"$ref": format!("#/components/schemas/{name}")});
                // An absent message is written as null unless it is one of several.
                if field.containing_oneof().is_none() && field.cardinality() != Cardinality::Repeated {
                    json!({"anyOf": [reference, {"type": "null"}]})
                } else {
                    reference
                }
            }
        };
        if field.is_list() { json!({"type": "array", "items": one}) } else { one }
    }

    /// Schemas that only REST has.
    fn add_own(&mut self) {
        let own = [
            (
                "Problem",
                json!({
                    "type": "object",
                    "description": "Why there is no answer (RFC 9457).",
                    "properties": {
                        "type": {"type": "string", "format": "uri"},
                        "title": {"type": "string"},
                        "status": {"type": "integer"},
                        "detail": {"type": "string"},
                        "instance": {"type": "string", "format": "uri"},
                    },
                    "required": ["type", "title", "status", "detail", "instance"],
                }),
            ),
            (
                "Versions",
                json!({
                    "type": "object",
                    "properties": {"versions": {"type": "array", "items": {
                        "type": "object",
                        "properties": {"version": {"type": "string"}, "document": {"type": "string"}},
                        "required": ["version", "document"],
                    }}},
                    "required": ["versions"],
                }),
            ),
            ("OpenApi", json!({"type": "object", "description": "An OpenAPI 3.1 document."})),
            (
                "SubmitManyRequest",
                json!({
                    "type": "object",
                    "properties": {
                        "transactions": {
                            "type": "array", "minItems": 1, "maxItems": BATCH_MAX,
                            "items": base64(),
                        },
                        "wait": {"type": "string", "enum": ["WAIT_UNSPECIFIED", "WAIT_ACCEPTED", "WAIT_FINAL", "WAIT_DURABLE"]},
                    },
                    "required": ["transactions"],
                    "additionalProperties": false,
                }),
            ),
            (
                "SubmitManyResponse",
                json!({
                    "type": "object",
                    "properties": {"results": {"type": "array", "items": {"anyOf": [
                        {"$ref": "#/components/schemas/SubmitResponse"},
                        {
                            "type": "object",
                            "properties": {"problem": {"$ref": "#/components/schemas/Problem"}},
                            "required": ["problem"],
                        },
                    ]}}},
                    "required": ["results"],
                }),
            ),
            (
                "BlockPage",
                json!({
                    "type": "object",
                    "properties": {
                        "blocks": {"type": "array", "items": {"$ref": "#/components/schemas/Block"}},
                        "next": {"type": "string", "description": "Send it as `after` to go on."},
                    },
                    "required": ["blocks", "next"],
                }),
            ),
        ];
        self.done.extend(own.map(|(name, schema)| (name.to_owned(), schema)));
    }
}

/// The comments of a proto file by the paths of what they stand at.
struct Comments(BTreeMap<Vec<i32>, String>);

impl Comments {
    fn of(file: &FileDescriptor) -> Self {
        let info = file.file_descriptor_proto().source_code_info.clone().unwrap_or_default();
        let comment = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned();
        let comments = info
            .location
            .into_iter()
            .filter_map(|location| location.leading_comments.map(|text| (location.path, comment(&text))));
        Self(comments.collect())
    }

    fn at(&self, path: &[i32]) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::document;
    use crate::gateway::json::Translator;

    const COMMITTED: &str = include_str!("../../../docs/openapi.json");

    #[test]
    fn the_committed_document_is_the_one_that_is_served() {
        let document = document(&Translator::new().expect("the descriptors are read")).expect("is made");
        assert_eq!(COMMITTED, format!("{document:#}\n"), "run `make gen`");
    }

    #[test]
    fn every_reference_leads_somewhere_and_messages_carry_their_comments() {
        let document = document(&Translator::new().expect("the descriptors are read")).expect("is made");
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
        let about = &document["components"]["schemas"]["GetAccountResponse"]["properties"]["nonce"]["description"];
        assert_eq!(about, "Nonce that the next transaction of this account must carry.");
    }
}
