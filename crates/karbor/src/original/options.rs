//! Options of the original's `karbor.conf` that do nothing here, and why. One that a crate declares
//! works nevertheless: what is said of its group here is for the rest of the group.

use std::fmt::Write;

use karbor_manager::config::IdleOptions;

const ONE_PROCESS: &str =
    "`karbor serve` runs every service in one process, and they talk to each other directly";
const LOG: &str = "the log goes to stderr: KARBOR_LOG chooses what, KARBOR_LOG_FORMAT how";
const FIXED: &str = "this part of the original was exchangeable and is not here";
const RUNTIME: &str = "threads and connections are managed by the runtime";
const TOKENS: &str = "keystone is asked by a client of our own, which has no use for it";
const CLOUD: &str = "the plugins for OpenStack's services are not here yet";

/// The options that do nothing.
pub(crate) const IDLE: &[IdleOptions] = &[
    IdleOptions {
        group: "DEFAULT",
        names: &[
            "control_exchange",
            "executor_thread_pool_size",
            "operationengine_topic",
            "protection_topic",
            "rpc_backend",
            "rpc_conn_pool_size",
            "rpc_ping_enabled",
            "rpc_poll_timeout",
            "rpc_thread_pool_size",
            "transport_url",
        ],
        why: ONE_PROCESS,
    },
    IdleOptions {
        group: "DEFAULT",
        names: &[
            "default_log_levels",
            "fatal_deprecations",
            "instance_format",
            "instance_uuid_format",
            "log-config",
            "log-config-append",
            "log-date-format",
            "log-dir",
            "log-file",
            "log_color",
            "log_config",
            "log_config_append",
            "log_date_format",
            "log_dir",
            "log_file",
            "log_format",
            "log_rotate_interval",
            "log_rotate_interval_type",
            "log_rotation_type",
            "logdir",
            "logfile",
            "logging_context_format_string",
            "logging_debug_format_suffix",
            "logging_default_format_string",
            "logging_exception_prefix",
            "logging_user_identity_format",
            "max_logfile_count",
            "max_logfile_size_mb",
            "publish_errors",
            "rate_limit_burst",
            "rate_limit_except_level",
            "rate_limit_interval",
            "syslog-log-facility",
            "syslog_log_facility",
            "use-journal",
            "use-syslog",
            "use_journal",
            "use_json",
            "use_stderr",
            "use_syslog",
            "verbose",
            "watch_log_file",
        ],
        why: LOG,
    },
    IdleOptions {
        group: "DEFAULT",
        names: &[
            "db_driver",
            "executor",
            "operationengine_manager",
            "protection_manager",
            "provider_registry",
            "quota_driver",
            "workflow_engine",
        ],
        why: FIXED,
    },
    IdleOptions {
        group: "DEFAULT",
        names: &[
            "backdoor_port",
            "backdoor_socket",
            "client_socket_backlog",
            "log_options",
            "osapi_karbor_workers",
            "tcp_keepalive",
            "tcp_keepalive_count",
            "tcp_keepalive_interval",
            "thread_count",
            "wsgi_default_pool_size",
            "wsgi_keep_alive",
            "wsgi_log_format",
        ],
        why: RUNTIME,
    },
    IdleOptions {
        group: "DEFAULT",
        names: &["api_paste_config"],
        why: "the API is one program and is not put together from a paste file",
    },
    IdleOptions {
        group: "DEFAULT",
        names: &["time_format"],
        why: "each trigger says itself whether its pattern is a calendar or a crontab",
    },
    IdleOptions {
        group: "DEFAULT",
        names: &["sync_status_interval"],
        why: "a status is written when it changes, not at intervals",
    },
    IdleOptions {
        group: "DEFAULT",
        names: &["fatal_exception_format_errors"],
        why: "messages are checked when the program is built",
    },
    IdleOptions {
        group: "DEFAULT",
        names: &["enable_new_services"],
        why: "a new service is enabled; `karbor service disable` takes it out",
    },
    IdleOptions {
        group: "DEFAULT",
        names: &["use_forwarded_for"],
        why: "the client's address decides nothing",
    },
    IdleOptions {
        group: "DEFAULT",
        names: &[
            "query_checkpoint_filters",
            "query_instance_filters",
            "query_operation_log_filters",
            "query_plan_filters",
            "query_provider_filters",
            "query_restore_filters",
            "query_verification_filters",
        ],
        why: "every filter of the API is always open",
    },
    IdleOptions {
        group: "DEFAULT",
        names: &["max_age", "until_refresh", "reservation_expire"],
        why: "usage is counted exactly and needs no refreshing",
    },
    IdleOptions {
        group: "operationengine",
        names: &["executor", "max_concurrent_operations", "thread_count"],
        why: RUNTIME,
    },
    IdleOptions {
        group: "database",
        names: &[
            "asyncio_connection",
            "asyncio_slave_connection",
            "backend",
            "connection_debug",
            "connection_parameters",
            "connection_recycle_time",
            "connection_trace",
            "db_inc_retry_interval",
            "db_max_retries",
            "db_max_retry_interval",
            "db_retry_interval",
            "idle_timeout",
            "max_overflow",
            "max_pool_size",
            "max_retries",
            "min_pool_size",
            "mysql_enable_ndb",
            "mysql_sql_mode",
            "mysql_wsrep_sync_wait",
            "pool_timeout",
            "retry_interval",
            "slave_connection",
            "sqlite_db",
            "sqlite_synchronous",
            "synchronous_reader",
            "use_db_reconnect",
            "use_tpool",
        ],
        why: RUNTIME,
    },
    IdleOptions {
        group: "keystone_authtoken",
        names: &[],
        why: TOKENS,
    },
    IdleOptions {
        group: "trustee",
        names: &[],
        why: TOKENS,
    },
    IdleOptions {
        group: "clients_keystone",
        names: &[],
        why: TOKENS,
    },
    IdleOptions {
        group: "karbor_client",
        names: &[],
        why: ONE_PROCESS,
    },
    IdleOptions {
        group: "oslo_messaging_rabbit",
        names: &[],
        why: ONE_PROCESS,
    },
    IdleOptions {
        group: "oslo_messaging_amqp",
        names: &[],
        why: ONE_PROCESS,
    },
    IdleOptions {
        group: "oslo_messaging_kafka",
        names: &[],
        why: ONE_PROCESS,
    },
    IdleOptions {
        group: "oslo_messaging_zmq",
        names: &[],
        why: ONE_PROCESS,
    },
    IdleOptions {
        group: "oslo_messaging_notifications",
        names: &[],
        why: "there is no message queue to send notifications to",
    },
    IdleOptions {
        group: "oslo_concurrency",
        names: &[],
        why: "locks are kept in the state directory, the database and the bank",
    },
    IdleOptions {
        group: "oslo_middleware",
        names: &[
            "enable_proxy_headers_parsing",
            "http_basic_auth_user_file",
            "secure_proxy_ssl_header",
        ],
        why: "the API takes no word of a proxy for granted; osapi_karbor_base_URL names its address",
    },
    IdleOptions {
        group: "oslo_policy",
        names: &[
            "enforce_new_defaults",
            "remote_content_type",
            "remote_ssl_ca_crt_file",
            "remote_ssl_client_crt_file",
            "remote_ssl_client_key_file",
            "remote_ssl_verify_server_crt",
            "remote_timeout",
        ],
        why: "policies are decided here and by no other server",
    },
    IdleOptions {
        group: "oslo_policy",
        names: &["policy_default_rule"],
        why: "every request has a rule of its own",
    },
    IdleOptions {
        group: "oslo_versionedobjects",
        names: &[],
        why: FIXED,
    },
    IdleOptions {
        group: "oslo_reports",
        names: &[],
        why: "`karbor service show` tells how a service is",
    },
    IdleOptions {
        group: "cors",
        names: &[],
        why: "the API gives no answers to other sites' pages",
    },
    IdleOptions {
        group: "healthcheck",
        names: &[],
        why: "`GET /` is the check, and needs no setting",
    },
    IdleOptions {
        group: "profiler",
        names: &[],
        why: "there is no profiler",
    },
    IdleOptions {
        group: "ssl",
        names: &[],
        why: "TLS is a proxy's",
    },
    IdleOptions {
        group: "cinder_client",
        names: &[],
        why: CLOUD,
    },
    IdleOptions {
        group: "freezer_client",
        names: &[],
        why: CLOUD,
    },
    IdleOptions {
        group: "glance_client",
        names: &[],
        why: CLOUD,
    },
    IdleOptions {
        group: "manila_client",
        names: &[],
        why: CLOUD,
    },
    IdleOptions {
        group: "neutron_client",
        names: &[],
        why: CLOUD,
    },
    IdleOptions {
        group: "nova_client",
        names: &[],
        why: CLOUD,
    },
    IdleOptions {
        group: "trove_client",
        names: &[],
        why: CLOUD,
    },
    IdleOptions {
        group: "pod_protectable",
        names: &[],
        why: CLOUD,
    },
];

/// Markdown: what does nothing, and why.
pub(crate) fn idle_reference() -> String {
    let mut out = String::from(
        "## Options of OpenStack Karbor that have no effect\n\n\
         They may stay in a file. Of a group without names every option that is not listed above has none.\n\n\
         | group | options | why |\n|---|---|---|\n",
    );
    for idle in IDLE {
        let names: Vec<_> = idle.names.iter().map(|name| format!("`{name}`")).collect();
        // Writing into a String cannot fail.
        let _ = writeln!(
            out,
            "| {} | {} | {} |",
            idle.group,
            names.join(", "),
            idle.why
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nothing_that_is_named_works() {
        for option in crate::settings::options() {
            let named = |idle: &&IdleOptions| {
                idle.group == option.group && idle.names.contains(&option.name)
            };
            assert_eq!(
                IDLE.iter().find(named),
                None,
                "[{}] {}",
                option.group,
                option.name
            );
        }
    }

    #[test]
    fn every_option_is_named_once() {
        let mut seen = BTreeSet::new();
        for idle in IDLE {
            let whole = [""];
            let names = if idle.names.is_empty() {
                &whole[..]
            } else {
                idle.names
            };
            for name in names {
                assert!(seen.insert((idle.group, *name)), "[{}] {name}", idle.group);
            }
        }
    }
}
