//! Smart managers, dumb data: managers, the services that wrap them, periodic tasks, RPC and configuration.
