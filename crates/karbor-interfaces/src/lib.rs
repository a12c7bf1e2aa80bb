//! What each service answers over RPC, one file a service.
