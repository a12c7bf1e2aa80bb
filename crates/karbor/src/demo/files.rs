//! A tree of files: made, changed, and remembered with all that a restore must bring back.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// What is remembered of one file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Remembered {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    links: u64,
    content: Vec<u8>,
}

/// Folders, files of all sizes, an executable, a symbolic link, a hard link.
pub(super) fn make(root: &Path) -> io::Result<()> {
    for folder in ["images", "invoices/2026", "bin"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for number in 0..24_u32 {
        fs::write(
            root.join(format!("invoices/2026/{number:04}.txt")),
            invoice(number),
        )?;
    }
    for number in 0..8_u32 {
        fs::write(
            root.join(format!("images/{number}.raw")),
            noise(number, 300_000),
        )?;
    }
    let script = root.join("bin/start");
    fs::write(&script, "#!/bin/sh\nexec shop\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o750))?;
    symlink("invoices/2026", root.join("current"))?;
    fs::hard_link(root.join("images/0.raw"), root.join("images/cover.raw"))
}

/// An ordinary day: some new, some longer, some gone.
pub(super) fn work(root: &Path) -> io::Result<()> {
    fs::write(root.join("images/new.raw"), noise(99, 200_000))?;
    let mut invoice = fs::OpenOptions::new()
        .append(true)
        .open(root.join("invoices/2026/0007.txt"))?;
    invoice.write_all(b"paid\n")?;
    fs::remove_file(root.join("invoices/2026/0013.txt"))
}

/// A bad day.
pub(super) fn wreck(root: &Path) -> io::Result<()> {
    fs::remove_dir_all(root.join("invoices"))?;
    fs::write(root.join("images/1.raw"), "overwritten")?;
    fs::set_permissions(root.join("bin/start"), fs::Permissions::from_mode(0o600))?;
    fs::remove_file(root.join("current"))
}

/// Everything below `root`.
pub(super) fn remember(root: &Path) -> io::Result<BTreeMap<PathBuf, Remembered>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)?;
            let content = if metadata.is_dir() {
                folders.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path)?.into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path)?
            };
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            let (mode, owner) = (metadata.mode(), (metadata.uid(), metadata.gid()));
            let links = if metadata.is_dir() {
                0
            } else {
                metadata.nlink()
            };
            all.insert(
                path,
                Remembered {
                    mode,
                    owner,
                    modified,
                    links,
                    content,
                },
            );
        }
    }
    Ok(all)
}

fn invoice(number: u32) -> String {
    format!(
        "Invoice {number}\n{}",
        "one thing, well made      1.00\n".repeat(20 + number as usize % 50)
    )
}

/// Bytes that do not compress, the same at every run (xorshift).
fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) * 2 + 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
