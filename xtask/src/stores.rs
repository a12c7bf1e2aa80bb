//! Who may see the whole database, checked: a manager is given the stores of its own tables and what it may read
//! besides, never the `Db` that hands out all of them (`docs/adr/0039-a-store-for-each-owner.md`).
//!
//! The code of a manager's crate names it neither in a `use` nor by its path; tests may.

use std::{fs, path::Path};

use syn::{UseTree, visit::Visit};

use crate::{
    circles::{is_for_tests, rust_files},
    failure::Failure,
    shell,
};

/// The crates that are given stores.
const MANAGERS: &[&str] = &[
    "karbor-api",
    "karbor-notification",
    "karbor-operationengine",
    "karbor-protection",
];

/// The crate of the database, and the type that is not for managers.
const CRATE: &str = "karbor_db";
const WHOLE: &str = "Db";

/// Checks every manager's crate and prints the files that name the whole database.
pub(crate) fn run() -> Result<(), Failure> {
    let root = shell::root();
    let mut offences = Vec::new();
    for name in MANAGERS {
        let mut paths = Vec::new();
        rust_files(&root.join("crates").join(name).join("src"), &mut paths)?;
        for path in paths {
            let parsed = syn::parse_file(&fs::read_to_string(&path)?)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            if !is_tests(&path) && names_whole(&parsed) {
                offences.push(path);
            }
        }
    }
    for path in &offences {
        let shown = path.strip_prefix(&root).unwrap_or(path).display();
        eprintln!("levels: {shown} names {CRATE}::{WHOLE}: take the stores that it needs instead");
    }
    match offences.len() {
        0 => {
            println!(
                "levels: {} managers, each with stores of its own",
                MANAGERS.len()
            );
            Ok(())
        }
        some => Err(format!("{some} files of managers name the whole database").into()),
    }
}

/// A file of tests: `mod tests;` has it under `#[cfg(test)]`.
fn is_tests(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests")
}

/// Does a file name the whole database outside its tests?
fn names_whole(file: &syn::File) -> bool {
    let mut reader = Reader { found: false };
    reader.visit_file(file);
    reader.found
}

struct Reader {
    found: bool,
}

impl Reader {
    /// Notes what a `use` takes of the database's crate. All of it, or the crate under another name, counts, too.
    fn note(&mut self, is_below: bool, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                self.note(!is_below && path.ident == CRATE, &path.tree);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note(is_below, tree);
                }
            }
            UseTree::Name(name) => self.found |= is_below && name.ident == WHOLE,
            UseTree::Rename(rename) => {
                self.found |= match is_below {
                    true => rename.ident == WHOLE || rename.ident == "self",
                    false => rename.ident == CRATE,
                }
            }
            UseTree::Glob(_) => self.found |= is_below,
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_for_tests(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.note(false, &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let mut parts = path.segments.iter().map(|part| &part.ident);
        self.found |= parts.next().is_some_and(|first| first == CRATE)
            && parts.next().is_some_and(|second| second == WHOLE);
        syn::visit::visit_path(self, path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(code: &str) -> bool {
        names_whole(&syn::parse_file(code).unwrap())
    }

    #[test]
    fn a_manager_that_names_the_whole_database_is_found() {
        for code in [
            "use karbor_db::Db;",
            "use karbor_db::{DbError, Db as All};",
            "use {std::fmt, karbor_db::{Db}};",
            "use karbor_db::*;",
            "use karbor_db as everything;",
            "use karbor_db::{self as everything};",
            "struct Manager { db: karbor_db::Db }",
            "mod inner { fn f(db: &karbor_db::Db) {} }",
        ] {
            assert!(names(code), "{code}");
        }
    }

    #[test]
    fn stores_names_alike_and_tests_are_not() {
        for code in [
            "use karbor_db::{DbError, PlanStore};",
            "impl Manager for M { type Db = PlanStore; }",
            "use other::Db;",
            "#[cfg(test)] mod tests { use karbor_db::Db; }",
            "#[cfg(test)] use karbor_db::Db;",
        ] {
            assert!(!names(code), "{code}");
        }
    }
}
