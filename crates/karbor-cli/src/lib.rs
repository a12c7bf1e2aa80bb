//! The client commands: they see the model and HTTP only.
