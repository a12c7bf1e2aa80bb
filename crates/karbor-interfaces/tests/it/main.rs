//! The protection interface: over RPC it must do what a direct call does, in the original's names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]

mod recorder;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use karbor_interfaces::{ProtectionApi, ProtectionClient, ProtectionEndpoint};
use karbor_manager::{InProcess, RpcEndpoint, RpcServer, RpcTransport, RpcVersion, Target};
use karbor_model::{
    ApiError, CheckpointId, CheckpointProperties, ErrorKind, OperationId, OperationType,
    ProviderId, RequestContext,
};
use recorder::{Recorder, Wiretap, plan, restore, verification};
use serde_json::{Map, Value, json};

/// Methods and their arguments, as `karbor/services/protection/rpcapi.py` of the original has them.
const ORIGINAL: &[(&str, &[&str])] = &[
    ("protect", &["plan", "checkpoint_properties"]),
    ("restore", &["restore", "restore_auth"]),
    ("verification", &["verification"]),
    ("copy", &["plan"]),
    ("delete", &["provider_id", "checkpoint_id"]),
    ("reset_state", &["provider_id", "checkpoint_id", "state"]),
    ("show_checkpoint", &["provider_id", "checkpoint_id"]),
    (
        "list_checkpoints",
        &[
            "provider_id",
            "marker",
            "limit",
            "sort_keys",
            "sort_dirs",
            "filters",
            "all_tenants",
        ],
    ),
    ("list_protectable_types", &[]),
    ("show_protectable_type", &["protectable_type"]),
    (
        "list_protectable_instances",
        &[
            "protectable_type",
            "marker",
            "limit",
            "sort_keys",
            "sort_dirs",
            "filters",
            "parameters",
        ],
    ),
    (
        "show_protectable_instance",
        &["protectable_type", "protectable_id", "parameters"],
    ),
    (
        "list_protectable_dependents",
        &["protectable_id", "protectable_type", "protectable_name"],
    ),
    (
        "list_providers",
        &["marker", "limit", "sort_keys", "sort_dirs", "filters"],
    ),
    ("show_provider", &["provider_id"]),
];

struct Stage {
    direct: Arc<Recorder>,
    remote: Arc<Recorder>,
    tap: Arc<Wiretap>,
    client: ProtectionClient,
    _server: Box<dyn RpcServer>,
}

async fn stage() -> Stage {
    let transport = InProcess::new();
    let remote = Arc::new(Recorder::default());
    let endpoint = Arc::new(ProtectionEndpoint::new(remote.clone()));
    let target = Target::topic("karbor-protection").with_server("a");
    let server = transport.serve(target, vec![endpoint]).await.unwrap();
    let tap = Arc::new(Wiretap::new(transport));
    Stage {
        direct: Arc::new(Recorder::default()),
        remote,
        client: ProtectionClient::new(tap.clone(), Duration::from_secs(60)),
        tap,
        _server: server,
    }
}

/// Calls every method once; what came back, as JSON.
async fn call_all(api: &dyn ProtectionApi, context: &RequestContext) -> Vec<Value> {
    fn told<T: serde::Serialize>(outcome: Result<T, ApiError>) -> Value {
        match outcome {
            Ok(value) => json!({ "ok": value }),
            Err(error) => json!({ "error": error }),
        }
    }
    let (provider, checkpoint) = (recorder::provider_id(), recorder::checkpoint_id());
    let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let filters = BTreeMap::from([("plan_id".to_owned(), "p".to_owned())]);
    let map: Map<String, Value> = serde_json::from_value(json!({"extra_info": "{}"})).unwrap();
    let properties = CheckpointProperties {
        extra_info: Some("{}".into()),
        operation_id: Some(OperationId(checkpoint.0)),
        begin_before: Some(chrono::DateTime::UNIX_EPOCH),
    };
    let c = context;
    vec![
        told(api.protect(c, plan(), properties).await),
        told(api.restore(c, restore(), Some(map.clone())).await),
        told(api.verification(c, verification()).await),
        told(
            api.read_back(c, OperationType::Verify, verification())
                .await,
        ),
        told(api.copy(c, plan()).await),
        told(api.delete(c, provider, checkpoint).await),
        told(
            api.reset_state(c, provider, checkpoint, "error".into())
                .await,
        ),
        told(api.show_checkpoint(c, provider, checkpoint).await),
        told(
            api.list_checkpoints(
                c,
                provider,
                Some(checkpoint),
                Some(7),
                words(&["created_at"]),
                words(&["desc"]),
                filters.clone(),
                true,
            )
            .await,
        ),
        told(api.list_protectable_types(c).await),
        told(api.show_protectable_type(c, "Host::Directory".into()).await),
        told(
            api.list_protectable_instances(
                c,
                "Host::Directory".into(),
                Some("m".into()),
                None,
                words(&["name"]),
                words(&["asc"]),
                filters.clone(),
                Some(map.clone()),
            )
            .await,
        ),
        told(
            api.show_protectable_instance(c, "Host::Directory".into(), "i".into(), None)
                .await,
        ),
        told(
            api.list_protectable_dependents(c, "i".into(), "T".into(), "n".into())
                .await,
        ),
        told(
            api.list_providers(c, None, Some(3), words(&[]), words(&[]), filters)
                .await,
        ),
        told(api.show_provider(c, provider).await),
        told(api.cancel_operation(c, recorder::operation_log_id()).await),
        told(api.accept_checkpoint(c, provider, checkpoint).await),
        told(api.record_operation(c, recorder::operation_log()).await),
        told(
            api.await_operation(c, recorder::operation_log_id(), 9)
                .await,
        ),
    ]
}

#[tokio::test]
async fn every_method_does_by_rpc_what_it_does_called_directly() {
    let stage = stage().await;
    let context = RequestContext::for_project("u", "p", false);
    let direct = call_all(&*stage.direct, &context).await;
    let remote = call_all(&stage.client, &context).await;
    assert_eq!(direct, remote);
    assert!(direct.iter().any(|told| told.get("error").is_some()));
    assert_eq!(stage.direct.seen(), stage.remote.seen());
    assert_eq!(stage.direct.seen().len(), ProtectionEndpoint::METHODS.len());
}

#[tokio::test]
async fn names_of_methods_and_arguments_on_the_wire_are_the_original_s() {
    let stage = stage().await;
    call_all(&stage.client, &RequestContext::admin()).await;
    let sent = stage.tap.sent();
    let ours = [
        ("cancel_operation", &["operation_log_id"][..]),
        ("accept_checkpoint", &["provider_id", "checkpoint_id"]),
        ("read_back", &["operation", "readback"]),
        ("record_operation", &["operation_log"]),
        ("await_operation", &["operation_log_id", "seconds"]),
    ];
    assert_eq!(sent.len(), ORIGINAL.len() + ours.len());
    for (method, arguments) in ORIGINAL.iter().chain(&ours) {
        let message = sent.iter().find(|m| m.method == *method).expect(method);
        let names: Vec<&str> = message.args.keys().map(String::as_str).collect();
        assert_eq!(&names, arguments, "{method}");
        let version = match *method {
            "cancel_operation" => (1, 1),
            "accept_checkpoint" => (1, 2),
            "record_operation" | "await_operation" => (1, 3),
            "read_back" => (1, 4),
            _ => (1, 0),
        };
        assert_eq!(
            message.target.version,
            Some(RpcVersion::new(version.0, version.1))
        );
        assert_eq!(message.target.topic.as_deref(), Some("karbor-protection"));
        assert_eq!(message.target.namespace, None, "the original names none");
    }
}

/// The original sends null for what its caller left out.
#[tokio::test]
async fn what_the_original_leaves_out_is_taken() {
    let recorder = Arc::new(Recorder::default());
    let endpoint = ProtectionEndpoint::new(recorder);
    let args = json!({
        "provider_id": recorder::provider_id(), "marker": null, "limit": null, "sort_keys": null,
        "sort_dirs": null, "filters": null, "all_tenants": null
    });
    let args = serde_json::from_value(args).unwrap();
    let context = RequestContext::admin();
    let listed = endpoint.dispatch(&context, "list_checkpoints", args).await;
    assert!(listed.unwrap().is_array());
}

#[tokio::test]
async fn an_id_that_is_none_is_refused_by_its_name() {
    let endpoint = ProtectionEndpoint::new(Arc::new(Recorder::default()));
    let args = json!({"provider_id": "../x", "checkpoint_id": CheckpointId::new()});
    let args = serde_json::from_value(args).unwrap();
    let refused = endpoint
        .dispatch(&RequestContext::admin(), "delete", args)
        .await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadRequest);
    assert!(error.message.contains("provider_id"), "{error}");
    let protect = async |properties: Value| {
        let args = json!({"plan": plan(), "checkpoint_properties": properties});
        let args = serde_json::from_value(args).unwrap();
        let admin = RequestContext::admin();
        endpoint.dispatch(&admin, "protect", args).await
    };
    for bad in [
        json!({"operation_id": "x"}),
        json!({"begin_before": "soon"}),
    ] {
        let error = protect(bad).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadRequest);
        assert!(error.message.contains("checkpoint_properties"), "{error}");
    }
    let original = json!({"extra_info": null, "name": "of the original"});
    assert!(protect(original).await.is_ok());
}

/// A method that came later is not understood by a service of before, and that is said.
#[tokio::test]
async fn an_older_service_refuses_what_it_does_not_know() {
    struct Older(ProtectionEndpoint);

    #[async_trait::async_trait]
    impl RpcEndpoint for Older {
        fn target(&self) -> Target {
            Target::new().with_version(RpcVersion::new(1, 0))
        }
        fn methods(&self) -> &'static [karbor_manager::RpcMethod] {
            self.0.methods()
        }
        async fn dispatch(
            &self,
            context: &RequestContext,
            method: &str,
            args: Map<String, Value>,
        ) -> Result<Value, ApiError> {
            self.0.dispatch(context, method, args).await
        }
    }

    let transport = InProcess::new();
    let older = Older(ProtectionEndpoint::new(Arc::new(Recorder::default())));
    let target = Target::topic("karbor-protection").with_server("old");
    let _server = transport
        .serve(target, vec![Arc::new(older)])
        .await
        .unwrap();
    let client = ProtectionClient::new(Arc::new(transport), Duration::from_secs(1));
    let context = RequestContext::admin();
    assert!(
        client
            .show_provider(&context, ProviderId::new())
            .await
            .is_ok()
    );
    let refused = client
        .cancel_operation(&context, recorder::operation_log_id())
        .await;
    assert_eq!(refused.unwrap_err().class, "UnsupportedVersion");
}

/// An original service lists instances without what they depend on.
#[test]
fn an_instance_of_an_original_service_is_read() {
    let told = json!({"id": "i", "type": "OS::Nova::Server", "name": "n", "extra_info": null});
    let read: karbor_model::ProtectableInstance = serde_json::from_value(told.clone()).unwrap();
    assert_eq!(read.dependent_resources, None);
    assert_eq!(serde_json::to_value(read).unwrap(), told);
}
