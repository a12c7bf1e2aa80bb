//! Periodic tasks and version rules beside the real oslo.service and oslo.messaging, on random timelines
//! that are the same every time. The two differences that the head of `periodic.rs` names are applied to
//! oslo; no third is tolerated, and neither of the two may be gone unnoticed.

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use karbor_manager::{
    Clock, InProcess, PeriodicTask, PeriodicTasks, RpcEndpoint, RpcMethod, RpcTransport,
    RpcVersion, Target,
    rpc::{Dispatcher, RpcArgs, RpcKind, RpcMessage},
};
use karbor_model::{ApiError, RequestContext};
use karbor_testkit::{FakeClock, python};
use serde_json::{Value, json};

const TIMELINES: usize = 1000;
const DISPATCHES: usize = 3000;

/// SplitMix64: the same numbers on every machine and in every year.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// From 0 up to 1, in a form that JSON keeps.
    fn part(&mut self) -> f64 {
        self.below(1 << 20) as f64 / f64::from(1 << 20)
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap()].clone()
    }
}

fn timeline(random: &mut Random) -> Value {
    let count = random.below(5) + 1;
    let looks = random.below(25) + 5;
    // Some look often, some seldom.
    let pace = random.pick(&[900, 5_000, 30_000, 200_000]);
    let tasks: Vec<Value> = (0..count)
        .map(|number| {
            // One of those behind it, so that nothing is added twice.
            let adds = (random.one_in(4) && number + 1 < count)
                .then(|| number + 1 + random.below(count - number - 1));
            json!({
                "spacing": random.pick(&[-1, 0, 1, 3, 10, 19, 20, 21, 60, 100, 300]),
                "immediately": random.one_in(2),
                "enabled": !random.one_in(8),
                "external": random.one_in(5),
                "fails": random.one_in(6),
                "takes": if random.one_in(3) { random.below(40_000) } else { 0 },
                "adds": adds,
            })
        })
        .collect();
    let added_by_others: Vec<u64> = tasks
        .iter()
        .filter_map(|task| task["adds"].as_u64())
        .collect();
    let mut at: Vec<(u64, u64)> = (0..count)
        .filter(|number| !added_by_others.contains(number))
        .map(|number| {
            (
                if random.one_in(3) {
                    random.below(looks)
                } else {
                    0
                },
                number,
            )
        })
        .collect();
    at.sort_unstable();
    // What two add is added once.
    let mut seen = Vec::new();
    let tasks: Vec<Value> = tasks
        .into_iter()
        .map(|mut task| {
            let adds = task["adds"].as_u64();
            if adds.is_some_and(|adds| seen.contains(&adds)) {
                task["adds"] = Value::Null;
            }
            seen.extend(adds);
            task
        })
        .collect();
    let looks: Vec<Value> = (0..looks)
        .map(|look| {
            let add: Vec<u64> = at
                .iter()
                .filter(|(when, _)| *when == look)
                .map(|(_, n)| *n)
                .collect();
            json!({
                "add": add,
                "after": random.below(pace),
                "raise": random.one_in(10),
            })
        })
        .collect();
    let draws: Vec<f64> = (0..200).map(|_| random.part()).collect();
    json!({
        "run_external": !random.one_in(4),
        "random": draws,
        "tasks": tasks,
        "looks": looks,
    })
}

/// The stage of a timeline: who ran when.
struct Stage {
    clock: FakeClock,
    start: Duration,
    tasks: PeriodicTasks<Stage>,
    told: Value,
    ran: Mutex<Vec<Value>>,
}

impl Stage {
    fn add(&self, number: u64) {
        let told = self.told["tasks"][usize::try_from(number).unwrap()].clone();
        let (spacing, flag) = (told["spacing"].as_i64().unwrap(), |name: &str| {
            told[name].as_bool().unwrap()
        });
        let task = PeriodicTask::new(format!("task {number}"), {
            let (told, adds) = (told.clone(), Mutex::new(told["adds"].as_u64()));
            move |stage: Arc<Stage>, _| {
                let at = stage.clock.monotonic() - stage.start;
                let at = u64::try_from(at.as_nanos()).unwrap();
                stage.ran.lock().unwrap().push(json!([number, at]));
                stage
                    .clock
                    .turn(Duration::from_millis(told["takes"].as_u64().unwrap()));
                if let Some(other) = adds.lock().unwrap().take() {
                    stage.add(other);
                }
                let fails = told["fails"].as_bool().unwrap();
                async move {
                    match fails {
                        true => Err(ApiError::bad_request("told to")),
                        false => Ok(()),
                    }
                }
            }
        });
        self.tasks.add(
            task.spacing(spacing)
                .run_immediately(flag("immediately"))
                .enabled(flag("enabled"))
                .external_process_ok(flag("external")),
        );
    }
}

async fn ours(told: &Value) -> Value {
    let clock = FakeClock::new();
    let draws: Vec<f64> = told["random"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .collect();
    let draws = Mutex::new(draws.into_iter());
    let tasks = PeriodicTasks::with_random(clock.shared(), move || {
        draws.lock().unwrap().next().expect("enough draws")
    });
    tasks.set_run_external(told["run_external"].as_bool().unwrap());
    let stage = Arc::new(Stage {
        start: clock.monotonic(),
        clock,
        tasks,
        told: told.clone(),
        ran: Mutex::default(),
    });
    let context = RequestContext::admin();
    let mut looks = Vec::new();
    for look in told["looks"].as_array().unwrap() {
        for number in look["add"].as_array().unwrap() {
            stage.add(number.as_u64().unwrap());
        }
        stage
            .clock
            .turn(Duration::from_millis(look["after"].as_u64().unwrap()));
        stage.ran.lock().unwrap().clear();
        let raise = look["raise"].as_bool().unwrap();
        let idle = stage.tasks.periodic_tasks(&stage, &context, raise).await;
        let idle = idle
            .ok()
            .map(|idle| u64::try_from(idle.as_nanos()).unwrap());
        let ran = stage.ran.lock().unwrap().clone();
        looks.push(json!({"ran": ran, "idle": idle}));
    }
    Value::Array(looks)
}

const fn method(name: &'static str) -> RpcMethod {
    RpcMethod {
        name,
        since: RpcVersion::new(1, 0),
        kind: RpcKind::Call,
        arguments: &[],
    }
}

/// An endpoint that answers which one it is.
struct Numbered {
    number: usize,
    target: Target,
    methods: &'static [RpcMethod],
}

#[async_trait]
impl RpcEndpoint for Numbered {
    fn target(&self) -> Target {
        self.target.clone()
    }

    fn methods(&self) -> &'static [RpcMethod] {
        self.methods
    }

    async fn dispatch(&self, _: &RequestContext, _: &str, _: RpcArgs) -> Result<Value, ApiError> {
        Ok(json!(self.number))
    }
}

fn version(random: &mut Random) -> String {
    let mut text = format!("{}.{}", random.pick(&[1, 1, 1, 2]), random.below(4));
    for _ in 0..random.pick(&[0, 0, 1, 2]) {
        text += &format!(".{}", random.below(3));
    }
    text
}

fn dispatch(random: &mut Random) -> Value {
    let namespaces = [None, None, None, Some("bells")];
    let endpoints: Vec<Value> = (0..random.below(4))
        .map(|_| {
            let methods: &[&str] = random.pick(&[&["ring"][..], &["ring", "grease"], &["grease"]]);
            json!({
                "namespace": random.pick(&namespaces),
                "version": (!random.one_in(4)).then(|| version(random)),
                "methods": methods,
            })
        })
        .collect();
    let mut message = json!({
        "method": random.pick(&["ring", "grease", "climb"]),
        "args": {},
        "namespace": random.pick(&namespaces),
    });
    if !random.one_in(6) {
        message["version"] = json!(version(random));
    }
    json!({"endpoints": endpoints, "message": message})
}

async fn our_dispatch(told: &Value) -> Value {
    const BOTH: &[RpcMethod] = &[method("ring"), method("grease")];
    let endpoints = told["endpoints"].as_array().unwrap().iter().enumerate();
    let endpoints = endpoints.map(|(number, told)| -> Arc<dyn RpcEndpoint> {
        let target = Target {
            namespace: told["namespace"].as_str().map(str::to_owned),
            version: told["version"].as_str().map(|text| text.parse().unwrap()),
            ..Target::new()
        };
        let methods = match (told["methods"][0].as_str(), told["methods"][1].as_str()) {
            (_, Some(_)) => BOTH,
            (Some("ring"), _) => &BOTH[..1],
            _ => &BOTH[1..],
        };
        Arc::new(Numbered {
            number,
            target,
            methods,
        })
    });
    let mut message = told["message"].clone();
    message["context"] = json!(RequestContext::admin());
    let message: RpcMessage = serde_json::from_value(message).unwrap();
    // A revision of 0 is not written, and what follows a revision neither.
    let asked = told["message"]["version"].as_str().unwrap_or("1.0");
    let shown = message.version.to_string();
    match Dispatcher::new(endpoints.collect()).dispatch(message).await {
        Ok(number) => json!({"answered": number}),
        Err(error) => {
            let message = error
                .message
                .replace(&format!("version {shown}."), &format!("version {asked}."));
            json!({"class": error.class, "message": message})
        }
    }
}

fn version_texts(random: &mut Random) -> Vec<String> {
    let mut texts: Vec<String> = [
        "", "1", "1.", ".1", "1..2", "01.02", "1.0.x", "1.0.0.x", "a.b",
    ]
    .map(str::to_owned)
    .to_vec();
    for _ in 0..500 {
        let length = random.below(8);
        let letters = (0..length).map(|_| random.pick(&['0', '1', '2', '.', '.', '.', 'x']));
        texts.push(letters.collect());
    }
    texts
}

fn target(random: &mut Random) -> Value {
    let mut told = json!({});
    for name in ["exchange", "topic", "namespace", "server"] {
        if random.one_in(2) {
            told[name] = json!(random.pick(&["a", "b.c"]));
        }
    }
    if random.one_in(2) {
        told["version"] = json!(format!("{}.{}", random.below(3), random.below(4)));
    }
    if random.one_in(2) {
        told["fanout"] = json!(true);
    }
    told
}

fn our_target(told: &Value) -> Target {
    let text = |name: &str| told[name].as_str().map(str::to_owned);
    Target {
        exchange: text("exchange"),
        topic: text("topic"),
        namespace: text("namespace"),
        version: text("version").map(|text| text.parse().unwrap()),
        server: text("server"),
        fanout: told["fanout"].as_bool().unwrap_or_default(),
    }
}

async fn our_refusal(told: &Value) -> Value {
    let (transport, target) = (InProcess::new(), our_target(&told["target"]));
    let (context, args) = (RequestContext::admin(), RpcArgs::new());
    let limit = Duration::from_secs(1);
    let done = match told["kind"].as_str().unwrap() {
        "serve" => transport.serve(target, Vec::new()).await.map(drop),
        "call" => transport
            .call(&target, &context, "m", args, limit)
            .await
            .map(drop),
        _ => transport.cast(&target, &context, "m", args).await,
    };
    json!(done.unwrap_err().message)
}

fn ask(interpreter: &std::path::Path, asked: &Value) -> Value {
    let mut script = Command::new(interpreter)
        .args(["-W", "ignore", "-c", include_str!("against_oslo.py")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = script.stdin.take().unwrap();
    let text = asked.to_string();
    let writes = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = script.wait_with_output().unwrap();
    writes.join().unwrap();
    assert!(output.status.success(), "the script failed: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn periodic_tasks_and_version_rules_are_those_of_oslo_but_for_two_things() {
    let Some(interpreter) = python("service") else {
        return;
    };
    let random = &mut Random(7);
    let timelines: Vec<Value> = (0..TIMELINES).map(|_| timeline(random)).collect();
    let dispatches: Vec<Value> = (0..DISPATCHES).map(|_| dispatch(random)).collect();
    let versions = version_texts(random);
    let targets: Vec<Value> = (0..200).map(|_| target(random)).collect();
    let refused = [
        json!({"kind": "call", "target": {"topic": "t", "fanout": true}}),
        json!({"kind": "call", "target": {}}),
        json!({"kind": "cast", "target": {"fanout": true}}),
        json!({"kind": "serve", "target": {"topic": "t"}}),
        json!({"kind": "serve", "target": {"server": "s"}}),
    ];
    let asked = json!({
        "timelines": timelines,
        "dispatches": dispatches,
        "versions": versions,
        "targets": targets,
        "refused": refused,
    });
    let answers = ask(&interpreter, &asked);

    let (mut shifted, mut idled, mut runs) = (0, 0, 0);
    for (number, told) in timelines.iter().enumerate() {
        let ours = ours(told).await;
        assert_eq!(ours, answers["ours"][number], "timeline {number}: {told}");
        shifted += usize::from(ours != answers["without_shift"][number]);
        idled += usize::from(ours != answers["without_idle"][number]);
        let looks = ours.as_array().unwrap().iter();
        runs += looks
            .map(|look| look["ran"].as_array().unwrap().len())
            .sum::<usize>();
    }
    assert!(runs > 10 * TIMELINES, "{runs}");
    assert!(
        shifted > TIMELINES / 20,
        "a late look shifts no phase: {shifted}"
    );
    assert!(idled > TIMELINES / 20, "idle times are oslo's: {idled}");

    let mut answered = 0;
    for (told, answer) in dispatches
        .iter()
        .zip(answers["dispatched"].as_array().unwrap())
    {
        assert_eq!(&our_dispatch(told).await, answer, "{told}");
        answered += usize::from(answer["answered"].is_number());
    }
    assert!(
        (DISPATCHES / 20..DISPATCHES / 2).contains(&answered),
        "{answered}"
    );
    for (text, is_version) in versions.iter().zip(answers["versions"].as_array().unwrap()) {
        let ours = text.parse::<RpcVersion>().is_ok();
        assert_eq!(ours, *is_version, "{text:?}");
    }
    for (told, shown) in targets.iter().zip(answers["targets"].as_array().unwrap()) {
        assert_eq!(our_target(told).to_string(), *shown, "{told}");
    }
    for (told, words) in refused.iter().zip(answers["refused"].as_array().unwrap()) {
        assert_eq!(&our_refusal(told).await, words, "{told}");
    }
}
