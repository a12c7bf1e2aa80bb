//! The endpoints, and the OpenAPI document that says what they are.
//!
//! An [`Operation`] is all there is to say of one endpoint: method and path, the handler, the policy
//! rule, the schema that its body is really checked against, the type that its answer is really made
//! of. The router is built from the same list as the document, so neither has what the other lacks.

mod document;
mod operation;

pub(crate) use self::{
    document::document,
    operation::{Operation, Rule, delete_at, get, patch, post, put},
};
