//! Options: the original's groups `[keystone_authtoken]` and `[trustee]`, under its names.

use karbor_manager::{OptionDef, OptionKind};

macro_rules! option {
    ($group:ident, $name:literal, $kind:ident, $default:literal, $help:literal) => {
        option!($group, $name, $kind, $default, $help, false)
    };
    ($group:ident, $name:literal, $kind:ident, $default:literal, $help:literal, $secret:literal) => {
        OptionDef {
            group: $group,
            name: $name,
            kind: OptionKind::$kind,
            default: $default,
            help: $help,
            secret: $secret,
        }
    };
}

/// The group of the service's own user, and of how tokens are checked.
pub(crate) const SERVICE: &str = "keystone_authtoken";
/// The group of the user that trusts are given to.
pub(crate) const TRUSTEE: &str = "trustee";

/// The options of this crate; they matter with `auth_strategy = keystone`.
pub const OPTIONS: &[OptionDef] = &[
    option!(
        SERVICE,
        "auth_url",
        Str,
        "",
        "Where keystone answers, e.g. https://keystone.example/identity or http://127.0.0.1:5000; /v3 is \
         added if it is not there. www_authenticate_uri when not set."
    ),
    option!(
        SERVICE,
        "www_authenticate_uri",
        Str,
        "",
        "Where clients find keystone, told to those that come without a good token; auth_url when not set."
    ),
    option!(
        SERVICE,
        "auth_uri",
        Str,
        "",
        "The older name of www_authenticate_uri."
    ),
    option!(
        SERVICE,
        "auth_type",
        Str,
        "password",
        "How the service's own user proves itself: 'password' or 'v3applicationcredential'."
    ),
    option!(
        SERVICE,
        "username",
        Str,
        "",
        "Name of the service's own user."
    ),
    option!(
        SERVICE,
        "user_id",
        Str,
        "",
        "Its id, instead of a name and a domain."
    ),
    option!(SERVICE, "password", Str, "", "Its password.", true),
    option!(
        SERVICE,
        "user_domain_name",
        Str,
        "",
        "Name of its domain; the domain with the id 'default' when neither name nor id is set."
    ),
    option!(SERVICE, "user_domain_id", Str, "", "Id of its domain."),
    option!(
        SERVICE,
        "project_name",
        Str,
        "service",
        "Name of the project that it acts in; it needs a role there that may validate tokens ('service' or \
         'admin')."
    ),
    option!(
        SERVICE,
        "project_id",
        Str,
        "",
        "Id of that project, instead of a name and a domain."
    ),
    option!(
        SERVICE,
        "project_domain_name",
        Str,
        "",
        "Name of that project's domain; the domain with the id 'default' when neither name nor id is set."
    ),
    option!(
        SERVICE,
        "project_domain_id",
        Str,
        "",
        "Id of that project's domain."
    ),
    option!(
        SERVICE,
        "application_credential_id",
        Str,
        "",
        "Id of the application credential, with auth_type = v3applicationcredential."
    ),
    option!(
        SERVICE,
        "application_credential_secret",
        Str,
        "",
        "Its secret.",
        true
    ),
    option!(
        SERVICE,
        "token_cache_time",
        Int,
        "60",
        "How many seconds a good token is taken without asking keystone again: a revoked one works for at \
         most that long, and none beyond its own expiry. 0 or less: keystone is asked every time."
    ),
    option!(
        SERVICE,
        "http_connect_timeout",
        Seconds,
        "10",
        "How long keystone may take to answer; must be less than osapi_request_timeout."
    ),
    option!(
        SERVICE,
        "cafile",
        Path,
        "",
        "Certificate authorities (PEM) to trust besides the system's."
    ),
    option!(
        SERVICE,
        "insecure",
        Bool,
        "false",
        "Take any certificate: anybody on the network between then reads passwords and tokens."
    ),
    option!(
        SERVICE,
        "memcached_servers",
        List,
        "",
        "Accepted, without effect: tokens are remembered in the service's memory."
    ),
    option!(
        TRUSTEE,
        "auth_type",
        Str,
        "password",
        "How the user proves itself by which scheduled operations run as their owners: only 'password'."
    ),
    option!(
        TRUSTEE,
        "auth_url",
        Str,
        "",
        "Accepted for the original's sake: must name the same keystone as [keystone_authtoken]."
    ),
    option!(
        TRUSTEE,
        "username",
        Str,
        "",
        "Name of that user; the user of [keystone_authtoken] when the group is empty."
    ),
    option!(
        TRUSTEE,
        "user_id",
        Str,
        "",
        "Its id, instead of a name and a domain."
    ),
    option!(TRUSTEE, "password", Str, "", "Its password.", true),
    option!(
        TRUSTEE,
        "user_domain_name",
        Str,
        "",
        "Name of its domain; the domain with the id 'default' when neither name nor id is set."
    ),
    option!(TRUSTEE, "user_domain_id", Str, "", "Id of its domain."),
];
