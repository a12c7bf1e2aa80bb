//! What the file system bank promises besides the contract of banks.

mod children;
mod crashes;

use std::{
    collections::BTreeMap,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::Duration,
};

use karbor_banks::file_system::{FileSystemBank, NAME, SECTION, spec};
use karbor_model::ProviderId;
use karbor_plugin::{Bank, BankError, BankKey, ListRequest, ProviderConfig, Registry};

pub(super) fn key(text: &str) -> BankKey {
    BankKey::parse(text).unwrap()
}

pub(super) async fn keys(bank: &FileSystemBank) -> Vec<String> {
    let all = bank.list(&ListRequest::default()).await.unwrap();
    all.into_iter().map(|info| info.key.to_string()).collect()
}

fn provider(options: &[(&str, &str)]) -> ProviderConfig {
    let options = options
        .iter()
        .map(|(name, value)| ((*name).to_owned(), vec![(*value).to_owned()]));
    ProviderConfig {
        file: None,
        copy_bank: None,
        id: ProviderId::new(),
        name: "local".to_owned(),
        description: String::new(),
        bank: NAME.to_owned(),
        plugins: Vec::new(),
        enabled: true,
        sections: BTreeMap::from([(SECTION.to_owned(), options.collect())]),
    }
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add(spec()).unwrap();
    registry
}

#[tokio::test]
async fn it_is_made_from_the_original_s_options() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not/there/yet");
    let registry = registry();
    let path_option = ("file_system_bank_path", path.to_str().unwrap());
    for (options, file) in [
        (&[path_option][..], "karbor/a/b"),
        (
            &[path_option, ("bank_object_container", "other")],
            "other/a/b",
        ),
    ] {
        let bank = registry.open_bank(&provider(options)).await.unwrap().bank;
        bank.put(&key("a/b"), "x".into()).await.unwrap();
        assert_eq!(std::fs::read(path.join(file)).unwrap(), b"x");
    }
    for (options, wanted) in [
        (&[][..], "set 'file_system_bank_path'"),
        (&[("file_system_bank_path", "bank")], "absolute path"),
        (
            &[path_option, ("bank_object_container", "../x")],
            "plain directory name",
        ),
        (
            &[path_option, ("bank_object_container", "+tmp")],
            "plain directory name",
        ),
        (
            &[("file_system_bank_path", "/dev/null")],
            "cannot be opened",
        ),
    ] {
        let opened = registry.open_bank(&provider(options)).await;
        let error = opened.err().unwrap().to_string();
        assert!(
            error.contains("provider 'local'") && error.contains(wanted),
            "{error}"
        );
    }
}

/// What the original left there: its layout, its modes, its plain-text index files.
#[tokio::test]
async fn a_bank_of_the_original_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let checkpoint = "bd895224-4b7f-47d8-9855-21707b70cd17";
    let index = format!("indices/by-date/2026-11-22/a01/1795342855@{checkpoint}");
    let metadata = format!("checkpoints/{checkpoint}/resource-data/aaaaaaaa-e2/metadata");
    for (name, text) in [(&index, checkpoint), (&metadata, r#"{"stub": "volume-2"}"#)] {
        let file = directory.path().join("karbor").join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    let bank = FileSystemBank::open(directory.path()).unwrap();
    assert_eq!(keys(&bank).await, [metadata.as_str(), index.as_str()]);
    let by_date = bank.get(&key(&format!("/{index}"))).await.unwrap();
    assert_eq!(by_date, checkpoint);
    // Its last object gone, a directory goes too, as in the original.
    bank.delete(&key(&index)).await.unwrap();
    assert!(!directory.path().join("karbor/indices").exists());
}

#[tokio::test]
async fn only_the_owner_may_look() {
    let directory = tempfile::tempdir().unwrap();
    let bank = FileSystemBank::open(&directory.path().join("bank")).unwrap();
    bank.put(&key("a/b"), "x".into()).await.unwrap();
    bank.put_new(&key("a/c"), "x".into()).await.unwrap();
    bank.acquire_lease(&key("a"), "me", Duration::from_secs(9))
        .await
        .unwrap();
    fn look(at: &Path, seen: &mut usize) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(
                metadata.permissions().mode() & 0o777,
                wanted,
                "{}",
                path.display()
            );
            *seen += 1;
            if metadata.is_dir() {
                look(&path, seen);
            }
        }
    }
    let mut seen = 0;
    look(directory.path(), &mut seen);
    assert!(seen >= 10, "{seen}");
}

#[tokio::test]
async fn symbolic_links_lead_nowhere() {
    let directory = tempfile::tempdir().unwrap();
    let outside = directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    let bank = FileSystemBank::open(&directory.path().join("bank")).unwrap();
    bank.put(&key("real/object"), "x".into()).await.unwrap();
    let container = directory.path().join("bank/karbor");
    symlink(&outside, container.join("dir")).unwrap();
    symlink(outside.join("secret"), container.join("file")).unwrap();

    for name in ["dir/secret", "file"] {
        for error in [
            bank.get(&key(name)).await.unwrap_err(),
            bank.stat(&key(name)).await.unwrap_err(),
        ] {
            assert!(error.to_string().contains("symbolic link"), "{error}");
        }
    }
    let error = bank.put(&key("dir/new"), "x".into()).await.unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    bank.delete(&key("dir/secret")).await.unwrap_err();
    assert_eq!(keys(&bank).await, ["real/object"]);
    // A link in the place of an object is replaced, not written through; and deleted, not followed.
    bank.put(&key("file"), "mine".into()).await.unwrap();
    assert_eq!(bank.get(&key("file")).await.unwrap(), "mine");
    std::fs::remove_file(container.join("file")).unwrap();
    symlink(outside.join("secret"), container.join("file")).unwrap();
    bank.delete(&key("file")).await.unwrap();
    assert_eq!(std::fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
}

#[tokio::test]
async fn what_is_no_object_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let bank = FileSystemBank::open(directory.path()).unwrap();
    bank.put(&key("a/b"), "x".into()).await.unwrap();
    let container = directory.path().join("karbor");
    std::fs::write(container.join("a/notes~"), "an editor's").unwrap();
    std::fs::create_dir(container.join("a/empty")).unwrap();
    std::os::unix::net::UnixListener::bind(container.join("a/socket")).unwrap();
    assert_eq!(keys(&bank).await, ["a/b"]);
    for name in ["a/empty", "a/socket", "a"] {
        let error = bank.get(&key(name)).await.unwrap_err();
        assert!(matches!(error, BankError::NotFound(_)), "{name}: {error}");
    }
    // An empty directory is in nobody's way, one with an object is.
    bank.put(&key("a/empty"), "x".into()).await.unwrap();
    let error = bank
        .put(&key("a"), "x".into())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("'a/...' and 'a' cannot both"), "{error}");
    let error = bank
        .put_new(&key("a"), "x".into())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("'a/...' and 'a' cannot both"), "{error}");
    let error = bank
        .put(&key("a/b/c/d"), "x".into())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("'a/b' and 'a/b/c/d' cannot both"), "{error}");
}

/// Two open banks are to each other as two processes are: locks belong to the open file.
#[tokio::test]
async fn two_banks_on_one_directory_agree() {
    let directory = tempfile::tempdir().unwrap();
    let one = FileSystemBank::open(directory.path()).unwrap();
    one.put(&key("shared/object"), "one".into()).await.unwrap();
    let two = FileSystemBank::open(directory.path()).unwrap();
    // Opening the second has not swept the first's area.
    one.put(&key("shared/more"), "one".into()).await.unwrap();
    let error = two
        .put_new(&key("shared/object"), "two".into())
        .await
        .unwrap_err();
    assert!(matches!(error, BankError::AlreadyExists(_)), "{error}");

    let name = key("checkpoints/x");
    let long = Duration::from_secs(60);
    let lease = one.acquire_lease(&name, "one", long).await.unwrap();
    let error = two.acquire_lease(&name, "two", long).await.unwrap_err();
    assert!(
        error.to_string().contains("is held by one until"),
        "{error}"
    );
    assert_eq!(
        two.leases(&name).await.unwrap(),
        std::slice::from_ref(&lease)
    );
    one.release_lease(&lease).await.unwrap();
    two.acquire_lease(&name, "two", long).await.unwrap();

    // One prunes a directory that the other knows as durable, and the other makes it anew.
    for round in 0..50 {
        let (object, beside) = (key("pruned/dir/a"), key("pruned/dir/b"));
        one.put(&object, "x".into()).await.unwrap();
        let (deleted, put) = tokio::join!(two.delete(&object), one.put(&beside, "y".into()));
        deleted.unwrap();
        put.unwrap();
        assert_eq!(two.get(&beside).await.unwrap(), "y", "round {round}");
        two.delete(&beside).await.unwrap();
        assert!(!directory.path().join("karbor/pruned").exists());
    }
}

#[tokio::test]
async fn removing_what_is_ours_by_hand_is_survived() {
    let directory = tempfile::tempdir().unwrap();
    let bank = FileSystemBank::open(directory.path()).unwrap();
    bank.put(&key("a/b"), "1".into()).await.unwrap();
    std::fs::remove_dir_all(directory.path().join("karbor/+tmp")).unwrap();
    std::fs::remove_dir_all(directory.path().join("karbor/a")).unwrap();
    bank.put(&key("a/b"), "2".into()).await.unwrap();
    assert_eq!(bank.get(&key("a/b")).await.unwrap(), "2");
}

#[tokio::test]
async fn a_bank_that_went_away_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let bank = FileSystemBank::open(directory.path()).unwrap();
    bank.put(&key("a/b"), "1".into()).await.unwrap();
    std::fs::remove_dir_all(directory.path().join("karbor")).unwrap();
    let error = bank.put(&key("a/c"), "1".into()).await.unwrap_err();
    assert!(error.to_string().contains("bring it back"), "{error}");
}

#[tokio::test]
async fn a_lease_that_cannot_be_read_is_not_taken_for_free() {
    let directory = tempfile::tempdir().unwrap();
    let bank = FileSystemBank::open(directory.path()).unwrap();
    let (name, long) = (key("thing"), Duration::from_secs(60));
    bank.acquire_lease(&name, "one", long).await.unwrap();
    let file = directory.path().join("karbor/+leases/thing/+lease");
    std::fs::write(&file, "{").unwrap();
    let error = bank
        .acquire_lease(&name, "two", long)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot be read") && error.contains(file.to_str().unwrap()),
        "{error}"
    );
}

#[tokio::test]
async fn a_bank_that_must_exist_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = ("file_system_bank_path", directory.path().to_str().unwrap());
    let registry = registry();
    let open = async |must: &str| {
        let options = [path, ("file_system_bank_must_exist", must)];
        let opened = registry.open_bank(&provider(&options)).await;
        opened
            .map(|opened| opened.bank)
            .map_err(|error| error.to_string())
    };
    let container = directory.path().join("karbor");
    let error = open("True").await.unwrap_err();
    assert!(
        error.contains("is not there") && error.contains(container.to_str().unwrap()),
        "{error}"
    );
    assert!(!container.exists());
    let error = open("perhaps").await.unwrap_err();
    assert!(
        error.contains("expected true or false, found 'perhaps'"),
        "{error}"
    );
    open("False").await.unwrap();
    let bank = open("True").await.unwrap();
    bank.put(&key("a/b"), "x".into()).await.unwrap();
}

/// A directory that was moved away could still be written to, and what comes back is another one.
#[tokio::test]
async fn a_bank_that_is_not_at_its_path_is_away_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (at, elsewhere) = (
        folder.path().join("karbor"),
        folder.path().join("elsewhere"),
    );
    let bank = FileSystemBank::open(folder.path()).unwrap();
    bank.put(&key("a"), "1".into()).await.unwrap();
    std::fs::rename(&at, &elsewhere).unwrap();

    let is_away = async || {
        let listed = bank.list(&ListRequest::default()).await.map(|_| ());
        let read = bank.get(&key("a")).await.map(|_| ());
        let written = bank.put(&key("b"), "2".into()).await;
        for error in [listed, read, written].map(Result::unwrap_err) {
            assert!(error.to_string().contains("bring it back"), "{error}");
            assert!(error.is_retryable(), "{error}");
        }
    };
    is_away().await;
    // As the mount point of a file system that is not mounted.
    std::fs::create_dir(&at).unwrap();
    is_away().await;
    assert!(!elsewhere.join("b").exists());

    std::fs::remove_dir_all(&at).unwrap();
    std::fs::create_dir(&at).unwrap();
    std::fs::copy(elsewhere.join("a"), at.join("a")).unwrap();
    bank.put(&key("b"), "2".into()).await.unwrap();
    assert_eq!(keys(&bank).await, ["a", "b"]);
    assert!(at.join("b").exists() && !elsewhere.join("b").exists());
}

/// A repository that an operator moves aside inside the bank, to make another in its place.
#[tokio::test]
async fn a_directory_that_was_moved_away_within_the_bank_is_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let bank = FileSystemBank::open(folder.path()).unwrap();
    let container = folder.path().join("karbor");
    bank.put(&key("vaults/p/data/ab/1"), "1".into())
        .await
        .unwrap();
    for moved in ["vaults/p", "vaults"] {
        let (at, aside) = (container.join(moved), folder.path().join("aside"));
        std::fs::rename(&at, &aside).unwrap();
        bank.put(&key("vaults/p/data/ab/2"), "2".into())
            .await
            .unwrap();
        bank.put_new(&key("vaults/p/data/ab/3"), "3".into())
            .await
            .unwrap();
        assert_eq!(
            keys(&bank).await,
            ["vaults/p/data/ab/2", "vaults/p/data/ab/3"],
            "{moved}"
        );
        for name in ["2", "3"] {
            assert!(!aside.join("data/ab").join(name).exists(), "{moved}");
            assert!(!aside.join("p/data/ab").join(name).exists(), "{moved}");
        }
        // And when it comes back it is written to again.
        std::fs::remove_dir_all(&at).unwrap();
        std::fs::rename(&aside, &at).unwrap();
        bank.put(&key("vaults/p/data/ab/4"), "4".into())
            .await
            .unwrap();
        bank.delete(&key("vaults/p/data/ab/4")).await.unwrap();
        assert_eq!(keys(&bank).await, ["vaults/p/data/ab/1"]);
    }
}

/// A file says how large it is, and may lie: nothing is allocated for it.
#[tokio::test]
async fn an_object_that_claims_terabytes_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let bank = FileSystemBank::open(directory.path()).unwrap();
    bank.put(&key("a/b"), "x".into()).await.unwrap();
    let file = std::fs::File::create(directory.path().join("karbor/a/b")).unwrap();
    file.set_len(10 << 40).unwrap();
    for refused in [
        bank.get(&key("a/b")).await,
        bank.get_at_most(&key("a/b"), 1000).await,
        bank.get_range(&key("a/b"), 1, 9 << 40).await,
    ] {
        assert!(
            matches!(refused, Err(BankError::Corrupt { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(
        bank.get_range(&key("a/b"), 5 << 40, 3).await.unwrap(),
        "\0\0\0"
    );
}
