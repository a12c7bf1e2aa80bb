//! The REST API v1: handlers, the ApiManager, tokens, error envelopes.
