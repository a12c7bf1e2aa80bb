//! Options of the REST API. Names and defaults are the original's where it had them.

use karbor_db::{QUOTA_BYTES, QUOTA_CHECKPOINTS, QUOTA_PLANS, USE_DEFAULT_QUOTA_CLASS};
use karbor_manager::{OptionDef, OptionKind};

macro_rules! option {
    ($group:literal, $name:literal, $kind:ident, $default:literal, $help:literal) => {
        OptionDef {
            group: $group,
            name: $name,
            kind: OptionKind::$kind,
            default: $default,
            help: $help,
            secret: false,
        }
    };
}

/// The options of this crate. It also reads those of `karbor-manager`.
pub const OPTIONS: &[OptionDef] = &[
    QUOTA_PLANS,
    QUOTA_CHECKPOINTS,
    QUOTA_BYTES,
    USE_DEFAULT_QUOTA_CLASS,
    option!(
        "DEFAULT",
        "osapi_karbor_listen",
        Str,
        "127.0.0.1",
        "IP address on which the API listens. Beyond this machine only behind a proxy that speaks \
         TLS: tokens travel in the clear here."
    ),
    option!(
        "DEFAULT",
        "osapi_karbor_listen_port",
        Int,
        "8799",
        "Port on which the API listens; 0 takes a free one."
    ),
    option!(
        "DEFAULT",
        "auth_strategy",
        Str,
        "local",
        "Who may ask: 'keystone' (tokens of the OpenStack identity service, see \
         [keystone_authtoken]), 'local' (tokens made by this service) or 'noauth' (anybody on this \
         machine, as an administrator: a token is 'user:project'; only on a loopback address)."
    ),
    option!(
        "DEFAULT",
        "noauth_on_any_address",
        Bool,
        "false",
        "Serve auth_strategy = noauth on addresses that other machines reach: anybody who reaches the API \
         may then do anything. For networks that nobody else can reach."
    ),
    option!(
        "DEFAULT",
        "osapi_max_limit",
        Int,
        "1000",
        "The most items that a list answers with at once."
    ),
    option!(
        "DEFAULT",
        "osapi_karbor_base_URL",
        Str,
        "",
        "URL that links in answers begin with, when a proxy stands before the API; taken from the \
         request's Host when not set."
    ),
    option!(
        "oslo_middleware",
        "max_request_body_size",
        Int,
        "114688",
        "The largest body of a request, in bytes."
    ),
    option!(
        "DEFAULT",
        "osapi_request_timeout",
        Seconds,
        "70",
        "How long a request may take; must be more than rpc_response_timeout, so that a slow \
         service is told apart from a slow request."
    ),
    option!(
        "DEFAULT",
        "client_socket_timeout",
        Seconds,
        "30",
        "How long a client may keep us waiting: for the head of a request (also between two on one \
         connection), for its body, or to take our answer."
    ),
    option!(
        "DEFAULT",
        "osapi_max_connections",
        Int,
        "1024",
        "The most connections at once. Beyond it the one that has been idle for longest, of the peer that \
         has the most, makes room; while all have a request, more wait to be accepted."
    ),
    option!(
        "DEFAULT",
        "osapi_max_connections_per_peer",
        Int,
        "256",
        "The most connections at once from one IPv4 address or one IPv6 network of 64 bits. Beyond it the \
         one that has been idle for longest makes room; while all have a request, more are answered with \
         a 503. A proxy before the API is one peer: give it as many as it needs."
    ),
    option!(
        "oslo_policy",
        "policy_file",
        Path,
        "policy.yaml",
        "File of the policies, relative to the state directory; rules that it does not name keep \
         their defaults (`karbor config policy` prints them). Read anew when it changes. It need \
         not exist unless it is named here."
    ),
    option!(
        "oslo_policy",
        "policy_dirs",
        List,
        "policy.d",
        "Folders of more policy files, relative to the state directory; they win over policy_file, \
         and a later one, by name, over an earlier one."
    ),
    option!(
        "oslo_policy",
        "enforce_scope",
        Bool,
        "true",
        "Accepted from the original's files. No rule of Karbor names a scope, so it decides nothing."
    ),
];
