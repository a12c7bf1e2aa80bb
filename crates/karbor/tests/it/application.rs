//! An application worth protecting: a tree of files and a database.

use std::{
    fs::{self, File, FileTimes},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use crate::house::{House, LOCAL};

/// The application `shop`: the directory `uploads` and the database `orders`.
pub struct Application {
    pub uploads: PathBuf,
    pub database: PathBuf,
    /// Where it may be restored to besides.
    pub restored: PathBuf,
}

impl Application {
    /// Makes and declares it. Half of `megabytes` cannot be compressed.
    pub fn new(house: &House, megabytes: u64) -> Self {
        let application = Self {
            uploads: house.path("shop/uploads"),
            database: house.path("shop/orders.db"),
            restored: house.path("restored"),
        };
        fs::create_dir_all(&application.uploads).unwrap();
        fs::create_dir(&application.restored).unwrap();
        fill(&application.uploads, megabytes);
        let mode = fs::Permissions::from_mode(0o750);
        fs::set_permissions(&application.uploads, mode).unwrap();
        let database = rusqlite::Connection::open(&application.database).unwrap();
        database
            .execute_batch("create table orders (id integer primary key, what text)")
            .unwrap();
        database
            .execute_batch(
                "with recursive n(i) as (select 1 union all select i + 1 from n where i < 5000)
                 insert into orders select i, 'order number ' || i from n",
            )
            .unwrap();
        let declaration = format!(
            "name = 'shop'\nprojects = ['default']\nrestore_roots = ['{}']\n\
             [[directory]]\nname = 'uploads'\npath = '{}'\n\
             [[sqlite]]\nname = 'orders'\npath = '{}'\n",
            application.restored.display(),
            application.uploads.display(),
            application.database.display()
        );
        let file = house.state().join("applications.d/shop.toml");
        fs::write(file, declaration).unwrap();
        application
    }

    /// Restores the newest checkpoint beside the original and compares all of it.
    pub fn restores(&self, house: &House) {
        let place = self.restored.join(uuid::Uuid::new_v4().to_string());
        let to = place.to_str().unwrap();
        house.json(&["restore", "shop", "--latest", "--wait", "--restore-to", to]);
        let place = place.join("shop");
        same_tree(&self.uploads, &place.join("uploads"));
        let database = crate::house::files(&place.join("orders"));
        assert_eq!(database, [PathBuf::from("orders.db")]);
        let restored = place.join("orders/orders.db");
        assert_eq!(orders(&restored), orders(&self.database));
        fs::remove_dir_all(place).unwrap();
    }
}

/// What the database holds.
pub fn orders(database: &Path) -> Vec<(i64, String)> {
    let database = rusqlite::Connection::open(database).unwrap();
    let mut rows = database
        .prepare("select id, what from orders order by id")
        .unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.unwrap().map(Result::unwrap).collect()
}

fn fill(directory: &Path, megabytes: u64) {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for n in 0..megabytes / 2 {
        let folder = directory.join(format!("folder {}", n % 5));
        fs::create_dir_all(&folder).unwrap();
        let noise: Vec<u8> = (0..131_072)
            .flat_map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random.to_le_bytes()
            })
            .collect();
        fs::write(folder.join(format!("{n}.noise")), noise).unwrap();
        let text: String = (0..32_768)
            .map(|line| format!("file {n:>5}, line {line:>13}\n"))
            .collect();
        fs::write(folder.join(format!("{n}.text")), text).unwrap();
    }
    let mode = fs::Permissions::from_mode(0o640);
    fs::write(directory.join("empty"), "").unwrap();
    fs::set_permissions(directory.join("empty"), mode).unwrap();
    symlink("folder 0/0.text", directory.join("link")).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let times = FileTimes::new().set_modified(then);
    let file = File::options().write(true).open(directory.join("empty"));
    file.unwrap().set_times(times).unwrap();
}

/// Every path, kind, mode, time and byte.
pub fn same_tree(wanted: &Path, found: &Path) {
    let (names, others) = (entries(wanted), entries(found));
    assert_eq!(names, others, "{} differs", found.display());
    for name in names {
        let (wanted, found) = (wanted.join(&name), found.join(&name));
        let (a, b) = (
            fs::symlink_metadata(&wanted).unwrap(),
            fs::symlink_metadata(&found).unwrap(),
        );
        assert_eq!(a.mode(), b.mode(), "{}", found.display());
        if a.is_symlink() {
            assert_eq!(
                fs::read_link(&wanted).unwrap(),
                fs::read_link(&found).unwrap()
            );
            continue;
        }
        assert_eq!(
            a.modified().unwrap(),
            b.modified().unwrap(),
            "{}",
            found.display()
        );
        if a.is_file() {
            assert!(same_bytes(&wanted, &found), "{}", found.display());
        }
    }
}

/// Do two files hold the same? No if either is not there.
pub fn same_bytes(one: &Path, other: &Path) -> bool {
    matches!((fs::read(one), fs::read(other)), (Ok(a), Ok(b)) if a == b)
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    let mut at = 0;
    while at < found.len() {
        let path = directory.join(&found[at]);
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            for entry in fs::read_dir(&path).unwrap() {
                let name = found[at].join(entry.unwrap().file_name());
                found.push(name);
            }
        }
        at += 1;
    }
    found.sort();
    found
}

/// Lets the real restic read every byte of the default project's repository.
pub fn restic_checks(house: &House) {
    if Command::new("restic").arg("version").output().is_err() {
        let message = "restic is not on this machine";
        let required = std::env::var("KARBOR_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
        assert!(!required, "{message}, and KARBOR_REQUIRE_SERVERS=1");
        eprintln!("SKIPPED: {message}");
        return;
    }
    let password = house.text(&["manage", "vault-password", LOCAL, "default"]);
    let checked = Command::new("restic")
        .arg("-r")
        .arg(house.repository())
        .args(["check", "--read-data", "--no-cache"])
        .env("RESTIC_PASSWORD", password.trim())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("no errors were found"), "{said}");
}
