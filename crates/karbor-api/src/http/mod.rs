//! HTTP: routes, and the way in and out of them.

mod call;
mod connections;
mod guard;
mod handlers;
mod routes;
mod server;

pub(crate) use self::routes::document;
pub use self::{
    routes::router,
    server::{ServeError, serve},
};
