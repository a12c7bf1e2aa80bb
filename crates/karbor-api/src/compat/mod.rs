//! The original's words: all that its clients read, and read by.
//!
//! * [`views`]: what each record looks like; [`shapes`] says the same in JSON Schema where no type does;
//! * [`envelope`]: what stands around an answer or an error;
//! * [`error_words`]: what an error says;
//! * [`query_language`]: pages, order and filters in a query string;
//! * [`bodies`] and [`body_schemas`]: what a request's body must be, checked by [`schema`];
//! * [`python_texts`]: `str`, `repr` and `json.dumps`, which its messages and stored texts were made with.
//!
//! Nothing here knows of routes or of the manager: texts go in, typed values come out, and the other way round.

pub(crate) mod bodies;
pub(crate) mod body_schemas;
pub(crate) mod envelope;
pub(crate) mod error_words;
pub(crate) mod python_texts;
pub(crate) mod query_language;
pub(crate) mod schema;
pub(crate) mod shapes;
pub(crate) mod views;
