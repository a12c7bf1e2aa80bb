//! Plugins describe themselves; the registry opens them as a provider's file says.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use karbor_model::ProviderId;
use karbor_plugin::{
    Bank, BankError, BankKey, OpenError, OptionDef, OptionKind, Options, PluginSpec,
    ProviderConfig, Registry, RegistryError,
};
use karbor_testkit::{Fault, FaultyBank, MemoryBank, Verb};
use tokio::sync::Notify;

const OPTIONS: &[OptionDef] = &[
    option("path", OptionKind::Path, "/srv", false),
    option("size", OptionKind::Int, "", false),
    option("key", OptionKind::Int, "", true),
];

const fn option(
    name: &'static str,
    kind: OptionKind,
    default: &'static str,
    secret: bool,
) -> OptionDef {
    OptionDef {
        group: "memory_bank",
        name,
        kind,
        default,
        help: "",
        secret,
    }
}

/// A bank plugin, what it was opened with, and what it opens.
struct Scene {
    registry: Registry,
    opened: Arc<Mutex<Vec<Options>>>,
    away: Arc<AtomicBool>,
    bank: Arc<FaultyBank<MemoryBank>>,
}

fn scene() -> Scene {
    let bank = Arc::new(FaultyBank::new(MemoryBank::new()));
    let (opened, away) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let mut registry = Registry::new();
    let spec = spec("memory", &bank, &opened, &away);
    registry.add(spec).unwrap();
    Scene {
        registry,
        opened,
        away,
        bank,
    }
}

fn spec(
    name: &'static str,
    bank: &Arc<FaultyBank<MemoryBank>>,
    opened: &Arc<Mutex<Vec<Options>>>,
    away: &Arc<AtomicBool>,
) -> PluginSpec {
    let (bank, opened, away) = (bank.clone(), opened.clone(), away.clone());
    let open = move |options: Options| {
        opened.lock().unwrap().push(options);
        let bank = match away.load(Ordering::SeqCst) {
            true => Err(OpenError::Away("it is unplugged".to_owned())),
            false => Ok(bank.clone() as Arc<dyn Bank>),
        };
        async { bank }
    };
    PluginSpec {
        places: |options| options.path("memory_bank", "path").into_iter().collect(),
        ..PluginSpec::bank(name, OPTIONS, open)
    }
}

fn provider(options: &[(&str, &str, &str)]) -> ProviderConfig {
    let mut sections: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    for (section, name, value) in options {
        let section = sections.entry((*section).to_owned()).or_default();
        section.insert((*name).to_owned(), vec![(*value).to_owned()]);
    }
    ProviderConfig {
        file: Some("/etc/karbor/a.conf".into()),
        id: ProviderId::new(),
        name: "a".to_owned(),
        description: String::new(),
        bank: "memory".to_owned(),
        copy_bank: Some("memory".to_owned()),
        plugins: Vec::new(),
        enabled: true,
        sections,
    }
}

fn key(text: &str) -> BankKey {
    BankKey::parse(text).unwrap()
}

#[tokio::test]
async fn a_plugin_is_given_its_options_checked_and_taken_literally() {
    let scene = scene();
    let provider = provider(&[
        ("memory_bank", "path", "/data/$x"),
        ("memory_bank", "size", "5"),
        ("copy.memory_bank", "size", "6"),
    ]);
    scene.registry.open_bank(&provider).await.unwrap();
    let copies = scene.registry.open_copy_bank(&provider).await.unwrap();
    assert!(copies.is_some());
    let opened = scene.opened.lock().unwrap();
    let given = opened.iter().map(|options| {
        let path = options.path("memory_bank", "path").unwrap();
        (path, options.int("memory_bank", "size").unwrap())
    });
    let wanted = [("/data/$x", 5), ("/srv", 6)].map(|(path, size)| (PathBuf::from(path), size));
    assert_eq!(given.collect::<Vec<_>>(), wanted);
    let places = scene.registry.places(&provider);
    assert_eq!(places, wanted.map(|(path, _)| path));
}

/// What lies there must not be restored into, however the file has it.
#[test]
fn the_place_of_a_bank_that_cannot_be_opened_is_known() {
    let scene = scene();
    let wrong = ProviderConfig {
        enabled: false,
        ..provider(&[
            ("memory_bank", "path", "/data"),
            ("memory_bank", "size", "large"),
        ])
    };
    let places = scene.registry.places(&wrong);
    assert_eq!(places[0], PathBuf::from("/data"));
}

/// It may hold the last copy: a slip of the pen in the file must not free the place for restores.
#[test]
fn the_place_of_a_bank_that_the_file_configures_and_does_not_name_is_known() {
    let mut scene = scene();
    let mut other = spec("other", &scene.bank, &scene.opened, &scene.away);
    let path = OptionDef {
        group: "other_bank",
        ..option("path", OptionKind::Path, "/nowhere", false)
    };
    other.options = Vec::leak(vec![path]);
    scene.registry.add(other).unwrap();
    let sections = provider(&[
        ("memory_bank", "path", "/data"),
        ("copy.memory_bank", "path", "/copies"),
        ("bank", "max_requests", "3"),
    ]);
    for bank in ["memory", "memroy", "other"] {
        for copy_bank in ["", "memory", "memroy", "other"] {
            let config = ProviderConfig {
                bank: bank.to_owned(),
                copy_bank: Some(copy_bank.to_owned()).filter(|name| !name.is_empty()),
                ..sections.clone()
            };
            let places = scene.registry.places(&config);
            for place in ["/data", "/copies"] {
                let is_known = places.contains(&PathBuf::from(place));
                assert!(is_known, "'{bank}' and '{copy_bank}': {places:?}");
            }
        }
    }
    // Nor is a bank's default one of a bank that the file does not speak of.
    let none = ProviderConfig {
        bank: "other".to_owned(),
        copy_bank: None,
        ..provider(&[])
    };
    assert_eq!(scene.registry.places(&none), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_value_that_is_none_is_told_with_its_place_and_no_secret() {
    let scene = scene();
    for (options, wanted) in [
        (
            [("memory_bank", "size", "large")],
            "provider 'a': option 'size' in group [memory_bank] (file /etc/karbor/a.conf): expected a whole number, \
             found 'large'",
        ),
        (
            [("memory_bank", "key", "geheim")],
            "provider 'a': option 'key' in group [memory_bank] (file /etc/karbor/a.conf): expected a whole number",
        ),
        (
            [("bank", "max_requests", "0")],
            "provider 'a': option 'max_requests' in group [bank] (file /etc/karbor/a.conf): expected at least 1",
        ),
    ] {
        let opened = scene.registry.open_bank(&provider(&options)).await;
        assert_eq!(opened.err().unwrap().to_string(), wanted);
        // Opening makes a bank's directories: not before it is known that nothing is wrong.
        assert_eq!(scene.opened.lock().unwrap().len(), 0, "{options:?}");
    }
    // Nor does a bank that is away hide it.
    scene.away.store(true, Ordering::SeqCst);
    let limits = provider(&[("copy.bank", "max_requests", "0")]);
    let opened = scene.registry.open_copy_bank(&limits).await;
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("expected at least 1"), "{error}");
    let copies = provider(&[("copy.memory_bank", "size", "large")]);
    let opened = scene.registry.open_copy_bank(&copies).await;
    let error = opened.err().unwrap().to_string();
    let wanted =
        "provider 'a': its copy bank, which the sections [copy.…] configure: option 'size'";
    assert!(error.starts_with(wanted), "{error}");
}

#[tokio::test]
async fn two_plugins_of_one_name_are_refused() {
    let Scene {
        mut registry,
        bank,
        opened,
        away,
    } = scene();
    let twin = registry.add(spec("memory", &bank, &opened, &away));
    let error = twin.unwrap_err();
    assert!(matches!(error, RegistryError::DeclaredTwice(_)), "{error}");
    registry.add(spec("other", &bank, &opened, &away)).unwrap();
    for (group, name, kind) in [
        ("memory_bank", "size", OptionKind::Str),
        ("bank", "max_requests", OptionKind::Int),
        ("provider", "colour", OptionKind::Str),
    ] {
        let def = OptionDef {
            group,
            ..option(name, kind, "", false)
        };
        let mut third = spec("third", &bank, &opened, &away);
        third.options = Vec::leak(vec![def]);
        let error = registry.add(third).unwrap_err();
        assert!(
            matches!(error, RegistryError::Option(_)),
            "{group}: {error}"
        );
    }
    // What both declare is listed once, beside what every bank has.
    let options = registry.options();
    let names: Vec<_> = options.iter().map(|option| option.name).collect();
    let wanted = ["max_requests", "request_timeout", "path", "size", "key"];
    assert_eq!(names, wanted);
}

#[tokio::test]
async fn a_bank_that_is_opened_has_its_layers() {
    let scene = scene();
    let provider = provider(&[("copy.memory_bank", "size", "1")]);
    let opened = scene.registry.open_bank(&provider).await.unwrap();
    scene
        .bank
        .inject(Fault::Fail, 1, |call| call.verb == Verb::Put);
    opened.bank.put(&key("a"), "text".into()).await.unwrap();
    let counts = opened.metrics.counts();
    assert_eq!((counts.puts, counts.errors), (2, 1));
}

#[tokio::test]
async fn a_copy_bank_that_is_away_is_opened_when_it_is_there() {
    let scene = scene();
    scene.away.store(true, Ordering::SeqCst);
    let provider = provider(&[("copy.memory_bank", "size", "1")]);
    let refused = scene.registry.open_bank(&provider).await.err().unwrap();
    assert!(matches!(refused, RegistryError::Away { .. }), "{refused}");
    let copies = scene.registry.open_copy_bank(&provider).await.unwrap();
    let copies = copies.unwrap().bank;
    let error = copies.put(&key("a"), "x".into()).await.unwrap_err();
    assert!(matches!(error, BankError::Away { .. }), "{error}");
    scene.away.store(false, Ordering::SeqCst);
    copies.put(&key("a"), "x".into()).await.unwrap();
    assert_eq!(scene.bank.count(Verb::Put), 1);
}

/// A file server that is down lets a start wait for seconds, not for ever, and takes one thread, not one for each use.
#[tokio::test(start_paused = true)]
async fn a_copy_bank_that_does_not_answer_is_opened_when_it_does() {
    let scene = scene();
    let (tries, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let mut registry = Registry::new();
    let open = {
        let (bank, tries, answers) = (scene.bank.clone(), tries.clone(), answers.clone());
        move |_| {
            tries.fetch_add(1, Ordering::SeqCst);
            let (bank, answers) = (bank.clone(), answers.clone());
            async move {
                answers.notified().await;
                Ok(bank as Arc<dyn Bank>)
            }
        }
    };
    registry
        .add(PluginSpec::bank("memory", OPTIONS, open))
        .unwrap();
    let provider = provider(&[("copy.memory_bank", "size", "1")]);
    let opening = registry.open_copy_bank(&provider);
    let copies = tokio::time::timeout(Duration::from_secs(20), opening).await;
    let copies = copies.unwrap().unwrap().unwrap().bank;
    let error = copies.put(&key("a"), "x".into()).await.unwrap_err();
    assert!(
        matches!(&error, BankError::Away { reason, .. } if reason.contains("not answered")),
        "{error}"
    );
    answers.notify_one();
    copies.put(&key("a"), "x".into()).await.unwrap();
    assert_eq!(scene.bank.count(Verb::Put), 1);
    assert_eq!(tries.load(Ordering::SeqCst), 1);
}

/// What is said of its layers makes it no other bank.
#[tokio::test]
async fn a_copy_bank_that_is_the_bank_once_more_is_refused() {
    let scene = scene();
    let same = provider(&[
        ("memory_bank", "path", "/data"),
        ("copy.memory_bank", "path", "/data"),
        ("copy.bank", "max_requests", "3"),
    ]);
    let error = scene.registry.open_copy_bank(&same).await.err().unwrap();
    assert!(error.to_string().contains("its bank once more"), "{error}");
}
