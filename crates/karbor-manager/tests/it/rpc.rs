use std::{sync::Arc, time::Duration};

use karbor_manager::{
    Clock, InProcess, RpcTransport, RpcVersion, Target,
    rpc::{RpcArgs, RpcKind, RpcServer},
};
use karbor_model::{ApiError, ErrorKind, RequestContext};
use karbor_testkit::ServiceHarness;
use serde_json::{Value, json};

use crate::{
    logs,
    probe::{Probe, ProbeApi, ProbeEndpoint, client},
};

fn admin() -> RequestContext {
    RequestContext::admin()
}

/// A probe that answers on `probe.<host>`.
async fn serve(harness: &ServiceHarness, host: &str) -> (Arc<Probe>, Box<dyn RpcServer>) {
    let probe = Probe::new(harness, host);
    let endpoint = Arc::new(ProbeEndpoint::new(probe.clone()));
    let target = Target::topic("probe").with_server(host);
    let server = harness.transport.serve(target, vec![endpoint]).await;
    (probe, server.unwrap())
}

async fn raw(
    transport: &InProcess,
    version: (u32, u32),
    method: &str,
    args: Value,
) -> Result<Value, ApiError> {
    let target = Target::topic("probe").with_version(RpcVersion::new(version.0, version.1));
    let args: RpcArgs = serde_json::from_value(args).unwrap();
    let limit = Duration::from_secs(1);
    transport.call(&target, &admin(), method, args, limit).await
}

#[test]
fn targets_are_displayed_as_oslo_displays_them() {
    let all = Target::topic("t")
        .with_exchange("openstack")
        .with_namespace("n")
        .with_version(RpcVersion::new(1, 2))
        .with_server("s")
        .with_fanout(true);
    assert_eq!(
        all.to_string(),
        "<Target exchange=openstack, topic=t, namespace=n, version=1.2, server=s, fanout=True>"
    );
    assert_eq!(Target::new().to_string(), "<Target >");
    assert_eq!(Target::topic("t").to_string(), "<Target topic=t>");
}

#[test]
fn an_endpoint_takes_its_own_major_version_and_no_later_minor() {
    let v = |text: &str| text.parse::<RpcVersion>().unwrap();
    for (ours, wanted, takes) in [
        ("1.0", "1.0", true),
        ("1.3", "1.0", true),
        ("1.3", "1.3", true),
        ("1.3", "1.4", false),
        ("2.0", "1.0", false),
        ("1.0", "2.0", false),
        ("1.10", "1.9", true),
        ("1.3.1", "1.3.1", true),
        ("1.3.1", "1.3.2", false),
        ("1.3", "1.3.1", false),
        ("1.3", "1.2.9", true),
        ("1.3.2", "1.3", true),
        ("1.3", "1.3.0.7", true),
    ] {
        assert_eq!(v(ours).accepts(v(wanted)), takes, "{ours} takes {wanted}");
    }
    assert_eq!(v("1.0.2").to_string(), "1.0.2");
    assert_eq!(v("1.0.0").to_string(), "1.0");
    // oslo.messaging cannot read a version without a minor number either.
    for wrong in ["", "1", "a.b", "1.x", "-1.0", "1.", "1.0.", "1.0.x"] {
        assert!(wrong.parse::<RpcVersion>().is_err(), "{wrong}");
    }
}

#[tokio::test]
async fn a_call_arrives_with_its_context_and_its_arguments() {
    let harness = ServiceHarness::new();
    let (_probe, _server) = serve(&harness, "a").await;
    let context = RequestContext::for_project("u", "p1", false);
    let said = client(&harness.transport)
        .echo(&context, "ho".into(), 3)
        .await;
    assert_eq!(said.unwrap(), "a/p1: hohoho");
}

#[tokio::test]
async fn an_argument_that_is_left_out_or_null_has_its_default() {
    let harness = ServiceHarness::new();
    let (_probe, _server) = serve(&harness, "a").await;
    for args in [json!({"text": "x"}), json!({"text": "x", "times": null})] {
        let said = raw(&harness.transport, (1, 0), "echo", args).await;
        assert_eq!(said.unwrap(), "a/: x");
    }
}

#[tokio::test]
async fn a_wrong_argument_is_refused_by_name() {
    let harness = ServiceHarness::new();
    let (_probe, _server) = serve(&harness, "a").await;
    for (args, name) in [
        (json!({}), "'text': it is missing"),
        (json!({"text": 7}), "'text'"),
        (json!({"text": "x", "times": -1}), "'times'"),
        (
            json!({"text": "x", "tmies": 2}),
            "'tmies': echo has no such argument",
        ),
        (
            json!({"text": "x", "times": null, "loud": null}),
            "'loud': echo has no such argument",
        ),
    ] {
        let error = raw(&harness.transport, (1, 0), "echo", args)
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadRequest);
        assert!(error.message.contains(name), "{error}");
    }
}

#[tokio::test]
async fn versions_and_methods_that_are_not_there_are_refused_in_oslo_s_words() {
    let harness = ServiceHarness::new();
    let (_probe, _server) = serve(&harness, "a").await;
    let transport = &harness.transport;
    for version in [(1, 2), (2, 0)] {
        let error = raw(transport, version, "echo", json!({"text": "x"})).await;
        let error = error.unwrap_err();
        assert_eq!(error.class, "UnsupportedVersion");
        let (major, minor) = version;
        assert_eq!(
            error.message,
            format!(
                "Endpoint does not support RPC version {major}.{minor}. Attempted method: echo"
            )
        );
    }
    let error = raw(transport, (1, 0), "nothing", json!({}))
        .await
        .unwrap_err();
    assert_eq!(error.class, "NoSuchMethod");
    assert_eq!(
        error.message,
        "Endpoint does not support RPC method nothing"
    );
    // The other endpoint's namespace is not this one's.
    let target = Target::topic("probe").with_namespace("service");
    let limit = Duration::from_secs(1);
    let context = admin();
    let call = transport.call(&target, &context, "echo", RpcArgs::new(), limit);
    assert_eq!(call.await.unwrap_err().class, "UnsupportedVersion");
}

#[tokio::test]
async fn an_error_crosses_with_kind_class_and_message_and_its_cause_goes_to_the_log() {
    logs::record();
    let harness = ServiceHarness::new();
    let (probe, _server) = serve(&harness, "a").await;
    let context = admin();
    let error = client(&harness.transport).fail(&context).await.unwrap_err();
    let direct = probe.fail(&context).await.unwrap_err();
    assert_eq!(
        error,
        ApiError {
            cause: None,
            ..direct
        }
    );
    let logged = logs::with("hunter2");
    assert_eq!(logged.len(), 1);
    assert!(
        logged[0].contains(context.request_id.as_str()),
        "{logged:?}"
    );
}

#[tokio::test]
async fn a_method_that_panics_is_an_internal_error_and_the_server_goes_on() {
    logs::record();
    let harness = ServiceHarness::new();
    let (_probe, _server) = serve(&harness, "a").await;
    let client = client(&harness.transport);
    let error = client.panic(&admin()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    assert!(!error.message.contains("cheese"));
    assert_eq!(logs::with("out of cheese").len(), 1);
    assert!(client.echo(&admin(), "x".into(), 1).await.is_ok());
}

#[tokio::test]
async fn servers_of_a_topic_take_turns_and_one_can_be_named() {
    let harness = ServiceHarness::new();
    let (_a, _server_a) = serve(&harness, "a").await;
    let (_b, _server_b) = serve(&harness, "b").await;
    let client = client(&harness.transport);
    let mut hosts = Vec::new();
    for _ in 0..4 {
        hosts.push(client.echo(&admin(), "x".into(), 1).await.unwrap());
    }
    assert_eq!(hosts, ["a/: x", "b/: x", "a/: x", "b/: x"]);
    let named = client.clone().on_server("b");
    for _ in 0..3 {
        assert_eq!(named.echo(&admin(), "x".into(), 1).await.unwrap(), "b/: x");
    }
    let error = client
        .on_server("c")
        .echo(&admin(), "x".into(), 1)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("probe.c"), "{error}");
}

#[tokio::test]
async fn a_cast_reaches_one_and_a_fanout_all() {
    let harness = ServiceHarness::new();
    let (a, server_a) = serve(&harness, "a").await;
    let (b, server_b) = serve(&harness, "b").await;
    let client = client(&harness.transport);
    client.note(&admin(), "cast".into()).await.unwrap();
    client
        .note_everywhere(&admin(), "fanout".into())
        .await
        .unwrap();
    server_a.wait(Duration::from_secs(1)).await;
    server_b.wait(Duration::from_secs(1)).await;
    assert_eq!(a.events(), ["cast", "fanout"]);
    assert_eq!(b.events(), ["fanout"]);
    let kinds: Vec<RpcKind> = ProbeEndpoint::METHODS.iter().map(|m| m.kind).collect();
    assert_eq!(kinds[3..], [RpcKind::Call, RpcKind::Cast, RpcKind::Fanout]);
}

#[tokio::test]
async fn with_nobody_listening_a_call_and_a_cast_fail_at_once_and_a_fanout_does_not() {
    let harness = ServiceHarness::new();
    let client = client(&harness.transport);
    let before = harness.clock.monotonic();
    for error in [
        client.wait(&admin()).await.unwrap_err(),
        client.note(&admin(), "x".into()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(
            error.message.contains("Check that it is running"),
            "{error}"
        );
    }
    client.note_everywhere(&admin(), "x".into()).await.unwrap();
    assert_eq!(harness.clock.monotonic(), before);
}

#[tokio::test]
async fn no_answer_in_time_is_a_timeout_and_the_method_goes_on() {
    let harness = ServiceHarness::new();
    let (probe, server) = serve(&harness, "a").await;
    let client = client(&harness.transport);
    let call = tokio::spawn(async move { client.wait(&admin()).await });
    probe.entered.notified().await;
    harness.clock.advance(Duration::from_secs(59)).await;
    assert!(!call.is_finished());
    harness.clock.advance(Duration::from_secs(1)).await;
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(
        (error.kind, error.class.as_str()),
        (ErrorKind::Timeout, "MessagingTimeout")
    );
    assert!(
        error.message.contains("did not answer wait within 60 s"),
        "{error}"
    );
    probe.gate.add_permits(1);
    assert!(server.wait(Duration::from_secs(1)).await.is_empty());
    assert_eq!(probe.events(), ["call finished"]);
}

#[tokio::test]
async fn a_server_that_stopped_takes_nothing_more_but_the_others_do() {
    let harness = ServiceHarness::new();
    let (_a, server_a) = serve(&harness, "a").await;
    let (_b, _server_b) = serve(&harness, "b").await;
    server_a.stop().await;
    let client = client(&harness.transport);
    for _ in 0..3 {
        assert_eq!(client.echo(&admin(), "x".into(), 1).await.unwrap(), "b/: x");
    }
}

#[tokio::test]
async fn a_target_that_cannot_be_used_is_refused_in_oslo_s_words() {
    let harness = ServiceHarness::new();
    let (probe, server) = serve(&harness, "a").await;
    let transport = &harness.transport;
    let (context, limit) = (admin(), Duration::from_secs(1));
    let everybody = Target::topic("probe").with_fanout(true);
    let nobody = Target::new().with_fanout(true);
    let args = || serde_json::from_value::<RpcArgs>(json!({"word": "x"})).unwrap();
    for (error, words) in [
        (
            transport
                .call(&everybody, &context, "note", args(), limit)
                .await
                .map(drop),
            "A call cannot be used with fanout:<Target topic=probe, fanout=True>",
        ),
        (
            transport.cast(&nobody, &context, "note", args()).await,
            "A topic is required to send:<Target fanout=True>",
        ),
        (
            transport
                .serve(Target::topic("t"), Vec::new())
                .await
                .map(drop),
            "A server's target must have topic and server names specified:<Target topic=t>",
        ),
        (
            transport
                .serve(Target::new().with_server("s"), Vec::new())
                .await
                .map(drop),
            "A server's target must have topic and server names specified:<Target server=s>",
        ),
    ] {
        let error = error.unwrap_err();
        assert_eq!(
            (error.class.as_str(), error.message.as_str()),
            ("InvalidTarget", words)
        );
    }
    server.wait(limit).await;
    assert!(
        probe.events().is_empty(),
        "it went to one, as if nothing had been said"
    );
}
