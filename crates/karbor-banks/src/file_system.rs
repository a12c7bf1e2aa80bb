//! `karbor-fs-bank-plugin`: a bank in a directory, laid out as the original laid it out, so that
//! either reads what the other wrote: the object `a/b` is the file `<bank path>/karbor/a/b`.
//!
//! **Whole or absent.** An object is written to a file in `+tmp`, flushed, and renamed to its place;
//! then the directory is flushed. A new directory is flushed into its parent before anything in it
//! counts as written. So whatever dies when, a key shows the old object or the new one, and what a
//! returned `put` wrote survives a power cut. `put_new` moves without replacing, which is atomic
//! between processes too.
//!
//! **Nothing leaks in or out.** Every path is walked part by part from the container's descriptor
//! without following symbolic links. Names that start with `+` are ours and can be no key: `+tmp`
//! (unfinished writes), `+leases` and `+reserve` (room for the day when there is none). Each open bank keeps its unfinished writes in a directory of
//! its own under a lock that the kernel drops with the process; opening a bank sweeps those whose
//! owner is dead.
//!
//! **Several processes** may share a bank, on one host or over NFS. Leases are compared and set
//! under a lock on the file system. Their times are wall-clock times, so hosts that share a bank
//! must agree on the time better than the leases are long.
//!
//! A name cannot be both an object and the beginning of another's key (`a` and `a/b`): that is
//! refused with an error that names both. Empty directories are removed with their last object.
//!
//! **At its path, or away.** Unix lets a process go on in a directory that was moved or unmounted; what
//! is written there is lost to those who look at the path. So every call first makes sure that the
//! open directory is the one at its path. What came back there is opened anew, unless it is empty.
//!
//! **A bank on a mount point** should have `file_system_bank_must_exist = True`: then a container that
//! is not there, because its file system is not mounted, is refused instead of made anew and empty.
//!
//! Why not a storage library: `docs/adr`, "file system bank".

mod dirs;
mod error;
mod leases;
mod listing;
mod rename;
mod reserve;
mod store;
mod temp;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use karbor_plugin::{
    Bank, BankCapabilities, BankError, BankKey, Lease, ListRequest, ObjectInfo, OpenError,
    OptionDef, OptionKind, Options, PluginSpec, layers::AT_ONCE,
};
use tokio::sync::Semaphore;

use self::store::{Existing, Store};

/// The name in configuration.
pub const NAME: &str = "karbor-fs-bank-plugin";

/// The section of a provider's file that configures it.
pub const SECTION: &str = "file_system_bank_plugin";

const PATH: &str = "file_system_bank_path";
const CONTAINER: &str = "bank_object_container";
const MUST_EXIST: &str = "file_system_bank_must_exist";

const DEFAULT_CONTAINER: &str = "karbor";

/// What a provider's file says of the bank.
const OPTIONS: &[OptionDef] = &[
    OptionDef {
        group: SECTION,
        name: PATH,
        kind: OptionKind::Path,
        default: "",
        help: "The absolute path of the bank's directory. It must be set.",
        secret: false,
    },
    OptionDef {
        group: SECTION,
        name: CONTAINER,
        kind: OptionKind::Str,
        default: DEFAULT_CONTAINER,
        help: "The directory in it that holds the objects: a plain name.",
        secret: false,
    },
    OptionDef {
        group: SECTION,
        name: MUST_EXIST,
        kind: OptionKind::Bool,
        default: "false",
        help: "Refuse a bank that is not there instead of making it: for a bank on a mount point, which is empty while \
               nothing is mounted.",
        secret: false,
    },
];

/// The section of a provider's file for a bank at `path`: its name, and its options.
#[must_use]
pub fn section(path: &Path) -> (String, BTreeMap<String, Vec<String>>) {
    let options = BTreeMap::from([(PATH.to_owned(), vec![path.display().to_string()])]);
    (SECTION.to_owned(), options)
}

/// What the bank says of itself.
#[must_use]
pub fn spec() -> PluginSpec {
    let open = async |options: Options| {
        let bank = FileSystemBank::from_options(&options).await?;
        Ok(Arc::new(bank) as Arc<dyn Bank>)
    };
    PluginSpec {
        places: |options| {
            let path = options.path(SECTION, PATH).ok();
            path.and_then(|path| place(&path)).into_iter().collect()
        },
        ..PluginSpec::bank(NAME, OPTIONS, open)
    }
}

/// Where a bank of this path lies, without `.` and `..`; nowhere if the path is not absolute. Nothing is looked at: a
/// server may hang.
fn place(path: &Path) -> Option<PathBuf> {
    let mut place = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                place.pop();
            }
            Component::CurDir => {}
            part => place.push(part),
        }
    }
    path.is_absolute().then_some(place)
}

/// How many calls about objects are at work at once, also of those that nobody waits for any more; the others wait. Each
/// holds a few open files, of which a process usually may have 1024, and a thread; flushes of more at once are no faster.
const AT_WORK: usize = AT_ONCE;

/// How many calls about leases are at work at once, beside those about objects: neither waits for the other. Changes of
/// leases go one after the other anyway.
const LEASES_AT_WORK: usize = 8;

/// A bank in a directory.
#[derive(Clone)]
pub struct FileSystemBank {
    opened: Arc<Opened>,
    turns: Arc<Semaphore>,
    lease_turns: Arc<Semaphore>,
}

/// Where the bank is, and what is open of it.
struct Opened {
    path: PathBuf,
    container: String,
    store: Mutex<Arc<Store>>,
}

impl Opened {
    /// The bank as it is at its path now.
    fn store(&self) -> Result<Arc<Store>, BankError> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if !store.dirs.is_in_place()? {
            let found = Store::open(&self.path, &self.container, false)?;
            if found.dirs.is_empty()? {
                return Err(dirs::away(found.path()));
            }
            tracing::warn!(bank = %found.path().display(), "the bank's directory is another one now: it is opened anew");
            *store = Arc::new(found);
        }
        Ok(store.clone())
    }
}

impl FileSystemBank {
    /// Opens the bank at `path`, and makes its directories if there are none. What dead processes
    /// left unfinished is removed.
    ///
    /// # Errors
    /// A [`BankError`] that says what to do.
    pub fn open(path: &Path) -> Result<Self, BankError> {
        Self::open_container(path, DEFAULT_CONTAINER)
    }

    /// As [`open`](Self::open), with another name than `karbor` for the directory in `path`.
    ///
    /// # Errors
    /// A [`BankError`] that says what to do.
    pub fn open_container(path: &Path, container: &str) -> Result<Self, BankError> {
        Self::open_or_make(path, container, true)
    }

    fn open_or_make(path: &Path, container: &str, make: bool) -> Result<Self, BankError> {
        let store = Store::open(path, container, make)?;
        Ok(Self {
            opened: Arc::new(Opened {
                path: path.to_owned(),
                container: container.to_owned(),
                store: Mutex::new(Arc::new(store)),
            }),
            turns: Arc::new(Semaphore::new(AT_WORK)),
            lease_turns: Arc::new(Semaphore::new(LEASES_AT_WORK)),
        })
    }

    /// Opens the bank that a provider's options describe.
    ///
    /// # Errors
    /// [`OpenError`]: what is wrong with the options, or why it cannot be opened now; either says what to do.
    pub async fn from_options(options: &Options) -> Result<Self, OpenError> {
        let path = options.str(SECTION, PATH)?.to_owned();
        let goes_up = path.split('/').any(|part| part == "..");
        if !path.starts_with('/') || goes_up {
            return Err(OpenError::Config(format!(
                "set '{PATH}' in the section [{SECTION}] to the absolute path of a directory for the bank, without \
                 '..'; it is '{path}'"
            )));
        }
        let container = options.str(SECTION, CONTAINER)?.to_owned();
        if container.contains('/') || BankKey::parse(&container).is_err() {
            return Err(OpenError::Config(format!(
                "'{CONTAINER}' in the section [{SECTION}] must be a plain directory name like \
                 '{DEFAULT_CONTAINER}'; it is '{container}'"
            )));
        }
        let make = !options.bool(SECTION, MUST_EXIST)?;
        let open = move || Self::open_or_make(Path::new(&path), &container, make);
        let opened = tokio::task::spawn_blocking(open).await;
        let away = |error: &dyn fmt::Display| {
            OpenError::Away(format!("the bank cannot be opened: {error}"))
        };
        match opened {
            Ok(opened) => opened.map_err(|error| away(&error)),
            Err(error) => Err(away(&error)),
        }
    }

    /// Runs blocking work on objects off the runtime's threads. It runs to its end even if the caller goes.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, BankError> + Send + 'static,
    ) -> Result<T, BankError> {
        self.run_in(&self.turns, work).await
    }

    /// As [`run`](Self::run), on leases.
    async fn run_on_leases<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, BankError> + Send + 'static,
    ) -> Result<T, BankError> {
        self.run_in(&self.lease_turns, work).await
    }

    async fn run_in<T: Send + 'static>(
        &self,
        turns: &Arc<Semaphore>,
        work: impl FnOnce(&Store) -> Result<T, BankError> + Send + 'static,
    ) -> Result<T, BankError> {
        // A panic would come again, and the end of the runtime does not pass either.
        let ended = |error: &dyn fmt::Display| BankError::Other {
            message: format!("the bank's worker ended: {error}"),
            at: None,
            retryable: false,
        };
        let turn = turns.clone().acquire_owned().await;
        let turn = turn.map_err(|error| ended(&error))?;
        let opened = self.opened.clone();
        let work = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(opened.store()?.as_ref())
        });
        work.await.map_err(|error| ended(&error))?
    }
}

impl fmt::Debug for FileSystemBank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.opened.path.join(&self.opened.container);
        write!(f, "FileSystemBank({})", path.display())
    }
}

fn now() -> DateTime<Utc> {
    Utc::now()
}

#[async_trait]
impl Bank for FileSystemBank {
    fn capabilities(&self) -> BankCapabilities {
        BankCapabilities {
            conditional_put: true,
            durable: true,
        }
    }

    async fn put(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        let key = key.clone();
        self.run(move |store| store.put(&key, &data, Existing::Replace))
            .await
    }

    async fn put_new(&self, key: &BankKey, data: Bytes) -> Result<(), BankError> {
        let key = key.clone();
        self.run(move |store| store.put(&key, &data, Existing::Refuse))
            .await
    }

    async fn get_at_most(&self, key: &BankKey, most: u64) -> Result<Bytes, BankError> {
        let key = key.clone();
        self.run(move |store| store.get_at_most(&key, most)).await
    }

    async fn get_range(&self, key: &BankKey, offset: u64, length: u64) -> Result<Bytes, BankError> {
        let key = key.clone();
        self.run(move |store| store.get_range(&key, offset, length))
            .await
    }

    async fn stat(&self, key: &BankKey) -> Result<ObjectInfo, BankError> {
        let key = key.clone();
        self.run(move |store| store.stat(&key)).await
    }

    async fn delete(&self, key: &BankKey) -> Result<(), BankError> {
        let key = key.clone();
        self.run(move |store| store.delete(&key)).await
    }

    async fn list(&self, request: &ListRequest) -> Result<Vec<ObjectInfo>, BankError> {
        let request = request.clone();
        self.run(move |store| store.list(&request)).await
    }

    async fn acquire_lease(
        &self,
        name: &BankKey,
        owner: &str,
        ttl: Duration,
    ) -> Result<Lease, BankError> {
        let (name, owner) = (name.clone(), owner.to_owned());
        self.run_on_leases(move |store| store.acquire_lease(&name, &owner, ttl, now))
            .await
    }

    async fn renew_lease(&self, lease: &Lease, ttl: Duration) -> Result<Lease, BankError> {
        let lease = lease.clone();
        self.run_on_leases(move |store| store.renew_lease(&lease, ttl, now))
            .await
    }

    async fn release_lease(&self, lease: &Lease) -> Result<(), BankError> {
        let lease = lease.clone();
        self.run_on_leases(move |store| store.release_lease(&lease))
            .await
    }

    async fn leases(&self, name: &BankKey) -> Result<Vec<Lease>, BankError> {
        let name = name.clone();
        self.run_on_leases(move |store| store.leases(&name, now()))
            .await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn key(text: &str) -> BankKey {
        BankKey::parse(text).unwrap()
    }

    async fn in_time<T>(asked: impl Future<Output = Result<T, BankError>>) -> T {
        tokio::time::timeout(MINUTE, asked).await.unwrap().unwrap()
    }

    /// As many calls as can be at work hold their turns.
    async fn busy(turns: &Semaphore, of: usize) -> tokio::sync::SemaphorePermit<'_> {
        turns
            .acquire_many(u32::try_from(of).unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn neither_leases_nor_objects_wait_for_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let bank = FileSystemBank::open(directory.path()).unwrap();
        let a = key("a");
        let uploads = busy(&bank.turns, AT_WORK).await;
        let lease = in_time(bank.acquire_lease(&a, "me", MINUTE)).await;
        let lease = in_time(bank.renew_lease(&lease, MINUTE)).await;
        assert_eq!(in_time(bank.leases(&a)).await.len(), 1);
        drop(uploads);
        let _renewals = busy(&bank.lease_turns, LEASES_AT_WORK).await;
        in_time(bank.put(&a, "text".into())).await;
        assert_eq!(in_time(bank.get(&a)).await, "text");
        drop(lease);
    }

    /// A place that nobody can resolve would be a reason to refuse every restore.
    #[test]
    fn the_place_of_a_bank_can_be_resolved() {
        for (path, wanted) in [
            ("/srv/bank", Some("/srv/bank")),
            ("/srv/x/../bank/./a", Some("/srv/bank/a")),
            ("/../srv", Some("/srv")),
            ("bank", None),
            ("../bank", None),
        ] {
            assert_eq!(place(Path::new(path)), wanted.map(PathBuf::from), "{path}");
        }
    }

    /// What panicked once does so again; four tries, and as many by the flow, help nobody.
    #[tokio::test]
    async fn a_panic_does_not_pass() {
        let directory = tempfile::tempdir().unwrap();
        let bank = FileSystemBank::open(directory.path()).unwrap();
        let ended = bank.run::<()>(|_| panic!("a bug")).await.unwrap_err();
        assert!(!ended.is_retryable(), "{ended}");
        in_time(bank.put(&key("a"), "text".into())).await;
    }
}
