//! One endpoint.

use std::sync::Arc;

use axum::{
    Extension, Router,
    handler::Handler,
    http::Method,
    routing::{self, MethodRouter},
};
use schemars::{JsonSchema, Schema as JsonSchemaOf, SchemaGenerator};

use crate::{ApiManager, compat::schema::Schema};

/// The policy rule of an operation, on its way to the operation's handler.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule(pub(crate) &'static str);

/// All there is to say of one endpoint.
pub(crate) struct Operation {
    pub(super) method: Method,
    /// Below `/v1/{project_id}`.
    pub(crate) path: &'static str,
    pub(super) rule: &'static str,
    pub(super) summary: &'static str,
    pub(super) body: Option<&'static Schema>,
    pub(super) answer: Answer,
    /// Parameters of the query beyond those of every list.
    pub(super) query: Vec<&'static str>,
    router: MethodRouter<Arc<ApiManager>>,
}

type Shape = fn(&mut SchemaGenerator) -> JsonSchemaOf;

/// What a 200 has in it.
pub(super) enum Answer {
    /// Nothing.
    Nothing,
    /// `{}`.
    Empty,
    /// `{"<key>": <shape>}`.
    One(&'static str, Shape),
    /// `{"<key>": [<shape>, ..], "<key>_links": [next]}`, one page of it.
    Page(&'static str, Shape),
    /// `{"<key>": [<shape>, ..]}`, always all.
    All(&'static str, Shape),
}

macro_rules! methods {
    ($($name:ident $method:ident $of:ident),+) => {$(
        /// The endpoint that `handler` answers, for what `rule` allows.
        pub(crate) fn $name<H: Handler<T, Arc<ApiManager>>, T: 'static>(
            path: &'static str,
            handler: H,
            rule: &'static str,
            summary: &'static str,
        ) -> Operation {
            Operation {
                method: Method::$method,
                path,
                rule,
                summary,
                body: None,
                answer: Answer::Nothing,
                query: Vec::new(),
                router: routing::$of(handler),
            }
        }
    )+};
}

methods!(get GET get, post POST post, put PUT put, patch PATCH patch, delete_at DELETE delete);

impl Operation {
    /// It takes a body, checked against `schema`.
    pub(crate) fn takes(mut self, schema: &'static Schema) -> Self {
        self.body = Some(schema);
        self
    }

    /// It answers with one thing under `key`.
    pub(crate) fn gives<T: JsonSchema>(self, key: &'static str) -> Self {
        self.answers(Answer::One(key, SchemaGenerator::subschema_for::<T>))
    }

    /// It answers with an empty object.
    pub(crate) fn gives_empty(self) -> Self {
        self.answers(Answer::Empty)
    }

    /// It answers with a page of things under `key`, and knows these filters.
    pub(crate) fn lists<T: JsonSchema>(self, key: &'static str, filters: &[&'static str]) -> Self {
        self.answers(Answer::Page(key, SchemaGenerator::subschema_for::<T>))
            .asks(filters)
    }

    /// It answers with all things under `key`.
    pub(crate) fn gives_all<T: JsonSchema>(self, key: &'static str) -> Self {
        self.answers(Answer::All(key, SchemaGenerator::subschema_for::<T>))
    }

    /// It knows these parameters of the query.
    pub(crate) fn asks(mut self, query: &[&'static str]) -> Self {
        self.query.extend_from_slice(query);
        self
    }

    fn answers(mut self, answer: Answer) -> Self {
        self.answer = answer;
        self
    }

    /// Adds it to the routes, its rule with every request; a collection also as `<name>.json`, as the original's
    /// mapper did.
    pub(crate) fn route(self, routes: Router<Arc<ApiManager>>) -> Router<Arc<ApiManager>> {
        let at = self.place();
        let is_collection = self.path.rfind('/') == Some(0);
        let router = self.router.route_layer(Extension(Rule(self.rule)));
        let routes = match is_collection {
            true => routes.route(&format!("{at}.json"), router.clone()),
            false => routes,
        };
        routes.route(&at, router)
    }

    /// The resource that it belongs to: the first part of its path.
    pub(crate) fn resource(&self) -> &'static str {
        self.path.split('/').nth(1).unwrap_or_default()
    }

    pub(super) fn place(&self) -> String {
        format!("/v1/{{project_id}}{}", self.path)
    }
}
