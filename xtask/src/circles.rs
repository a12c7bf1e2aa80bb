//! Circles of files, checked: files that import each other are one subject in pieces.
//!
//! An import is a `use`, or a path in the code, that leads to another file of the same crate, as far as names tell.
//! A name that a file only shows (`pub use`) is that of the file which it comes from, and what only tests use does not
//! count. Two or three files that lean on each other can be read together; a larger
//! circle has no beginning, so a reader of one file must read them all.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{UseTree, visit::Visit};

use crate::{failure::Failure, shell};

/// How many files may lean on each other.
const LARGEST: usize = 3;

/// Checks every crate of the workspace and prints the circles that are too large.
pub(crate) fn run() -> Result<(), Failure> {
    let (mut files, mut offences) = (0, Vec::new());
    for folder in crates(&shell::root())? {
        let house = House::read(&folder)?;
        files += house.files.len();
        let circles = circles(&house.imports());
        offences.extend(circles.into_iter().filter(|one| one.len() > LARGEST).map(
            |circle| -> String {
                let names: Vec<_> = circle.iter().map(|&at| house.shown(at)).collect();
                format!(
                    "{} files import each other: {}",
                    names.len(),
                    names.join(", ")
                )
            },
        ));
    }
    for offence in &offences {
        eprintln!("levels: {offence}");
    }
    match offences.len() {
        0 => {
            println!("levels: {files} files, no circle of more than {LARGEST}");
            Ok(())
        }
        some => Err(format!("{some} circles of files are too large").into()),
    }
}

/// The sources of every crate.
fn crates(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut folders = vec![root.join("xtask/src")];
    for entry in fs::read_dir(root.join("crates"))? {
        folders.push(entry?.path().join("src"));
    }
    folders.sort();
    Ok(folders)
}

/// One file: a module.
struct File {
    path: PathBuf,
    /// `["http", "guard"]` for `src/http/guard.rs`; nothing for the crate's root.
    module: Vec<String>,
    seen: Seen,
}

/// What a file says of others of its crate, in paths from the crate's root on.
#[derive(Default)]
struct Seen {
    uses: BTreeSet<Vec<String>>,
    /// By the path under which it can be had here: where it comes from.
    shown: BTreeMap<Vec<String>, Vec<String>>,
    /// What the file names without a path.
    named: BTreeSet<String>,
}

/// The files of a crate.
struct House {
    files: Vec<File>,
    modules: BTreeMap<Vec<String>, usize>,
    shown: BTreeMap<Vec<String>, Vec<String>>,
}

/// How often a name is followed to where it comes from.
const MOST_STEPS: usize = 8;

impl House {
    fn read(folder: &Path) -> Result<Self, Failure> {
        let mut paths = Vec::new();
        rust_files(folder, &mut paths)?;
        let mut files = Vec::new();
        for path in paths {
            let module = module_of(path.strip_prefix(folder)?);
            let parsed = syn::parse_file(&fs::read_to_string(&path)?)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let seen = seen(&module, &parsed);
            files.push(File { path, module, seen });
        }
        Ok(Self::of(files))
    }

    fn of(files: Vec<File>) -> Self {
        let modules = files.iter().enumerate();
        let modules = modules
            .map(|(at, file)| (file.module.clone(), at))
            .collect();
        let shown = files
            .iter()
            .flat_map(|file| file.seen.shown.clone())
            .collect();
        Self {
            files,
            modules,
            shown,
        }
    }

    /// Which files each file imports, by their places.
    fn imports(&self) -> Vec<BTreeSet<usize>> {
        let of = |(at, file): (usize, &File)| {
            let own = file.seen.shown.iter().filter_map(|(here, from)| {
                let name = here.last()?;
                file.seen.named.contains(name).then_some(from)
            });
            let found = file.seen.uses.iter().chain(own);
            let found = found.filter_map(|path| self.holder(&self.followed(path)));
            found.filter(|&other| other != at).collect()
        };
        self.files.iter().enumerate().map(of).collect()
    }

    /// A path without the names that files only show.
    fn followed(&self, path: &[String]) -> Vec<String> {
        let mut path = path.to_vec();
        for _ in 0..MOST_STEPS {
            let shown = (1..=path.len()).find_map(|length| {
                let from = self.shown.get(&path[..length])?;
                Some([from, &path[length..]].concat())
            });
            match shown {
                Some(from) if from != path => path = from,
                _ => break,
            }
        }
        path
    }

    /// The file that a path leads into.
    fn holder(&self, path: &[String]) -> Option<usize> {
        let lengths = (0..=path.len()).rev();
        let mut found = lengths.filter_map(|length| self.modules.get(&path[..length]));
        found.next().copied()
    }

    fn shown(&self, at: usize) -> String {
        let path = &self.files[at].path;
        let shown = path.strip_prefix(shell::root()).unwrap_or(path);
        shown.display().to_string()
    }
}

pub(crate) fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

fn module_of(path: &Path) -> Vec<String> {
    let names = path.with_extension("");
    let mut names: Vec<_> = names
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    if names
        .last()
        .is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str()))
    {
        names.pop();
    }
    names
}

/// What a file says of its crate.
fn seen(module: &[String], file: &syn::File) -> Seen {
    let mut reader = Reader {
        module: module.to_vec(),
        children: file.items.iter().filter_map(child).collect(),
        seen: Seen::default(),
    };
    reader.visit_file(file);
    reader.seen
}

/// The name of a module that lies in a file of its own.
fn child(item: &syn::Item) -> Option<String> {
    match item {
        syn::Item::Mod(item) if item.content.is_none() => Some(item.ident.to_string()),
        _ => None,
    }
}

struct Reader {
    /// The module that is read.
    module: Vec<String>,
    /// Modules below the file's own that are files.
    children: BTreeSet<String>,
    seen: Seen,
}

impl Reader {
    /// A path from the crate's root on, if it leads into the crate.
    fn whole(&self, path: &[String]) -> Option<Vec<String>> {
        let (mut whole, rest) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (self.module.clone(), &path[1..]),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let kept = self.module.len().saturating_sub(ups);
                (self.module[..kept].to_vec(), &path[ups..])
            }
            name if self.children.contains(name) => (self.module.clone(), path),
            _ => return None,
        };
        whole.extend(rest.iter().cloned());
        Some(whole)
    }

    /// Notes what a `use` names; `is_shown` to others.
    fn note(&mut self, before: &[String], tree: &UseTree, is_shown: bool) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.note(&with(&path.ident), &path.tree, is_shown),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note(before, tree, is_shown);
                }
                return;
            }
            UseTree::Name(name) if name.ident == "self" => {
                (before.to_vec(), before.last().cloned())
            }
            UseTree::Name(name) => (with(&name.ident), Some(name.ident.to_string())),
            UseTree::Rename(rename) => (with(&rename.ident), Some(rename.rename.to_string())),
            UseTree::Glob(_) => (before.to_vec(), None),
        };
        let Some(whole) = self.whole(&path) else {
            return;
        };
        match name.filter(|_| is_shown) {
            Some(name) => {
                let here = [&self.module[..], &[name]].concat();
                self.seen.shown.insert(here, whole);
            }
            None => {
                self.seen.uses.insert(whole);
            }
        }
    }
}

pub(crate) fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    let is_test = |attribute: &syn::Attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Path>()
                .is_ok_and(|path| path.is_ident("test"))
    };
    attributes.iter().any(is_test)
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if is_for_tests(&item.attrs) {
            return;
        }
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_for_tests(&item.attrs) {
            let is_shown = !matches!(item.vis, syn::Visibility::Inherited);
            self.note(&[], &item.tree, is_shown);
        }
    }

    /// Who may see an item says nothing of what the item needs.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        match parts.len() {
            0 => {}
            1 => self.seen.named.extend(parts),
            _ => {
                self.seen.named.insert(parts[0].clone());
                self.seen.uses.extend(self.whole(&parts));
            }
        }
        syn::visit::visit_path(self, path);
    }
}

/// The groups of places that reach each other, without those of one.
fn circles(imports: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let reach: Vec<_> = (0..imports.len()).map(|at| reached(imports, at)).collect();
    let mut circles: Vec<BTreeSet<usize>> = (0..imports.len())
        .map(|at| {
            let back = reach[at]
                .iter()
                .filter(|&&other| reach[other].contains(&at));
            back.copied().collect()
        })
        .filter(|circle: &BTreeSet<usize>| circle.len() > 1)
        .collect();
    circles.sort();
    circles.dedup();
    circles
}

/// Every place that one leads to.
fn reached(imports: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut next = vec![from];
    while let Some(at) = next.pop() {
        for &other in &imports[at] {
            if found.insert(other) {
                next.push(other);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn house(files: &[(&str, &str)]) -> House {
        let files = files.iter().map(|(path, text)| {
            let module = module_of(Path::new(path));
            let seen = seen(&module, &syn::parse_file(text).unwrap());
            File {
                path: PathBuf::from(path),
                module,
                seen,
            }
        });
        House::of(files.collect())
    }

    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let house = house(files);
        let circles = circles(&house.imports());
        let shown = |circle: &BTreeSet<usize>| circle.iter().map(|&at| house.shown(at)).collect();
        circles.iter().map(shown).collect()
    }

    #[test]
    fn files_that_import_each_other_are_a_circle() {
        let files = [
            ("lib.rs", "mod a; mod b; pub use a::A;"),
            ("a.rs", "use crate::b::B; pub struct A;"),
            ("b.rs", "pub struct B; fn f() { super::a::g() }"),
        ];
        assert_eq!(found(&files), [["a.rs", "b.rs"]]);
    }

    #[test]
    fn who_may_see_an_item_is_no_import() {
        let files = [
            ("lib.rs", "mod rooms;"),
            (
                "rooms/mod.rs",
                "mod one; pub struct Worker; fn f() { one::g() }",
            ),
            ("rooms/one.rs", "pub(in super::super) fn g() {}"),
        ];
        assert!(found(&files).is_empty());
    }

    #[test]
    fn a_parent_that_only_holds_its_children_is_in_no_circle() {
        let files = [
            ("rooms/mod.rs", "mod one; pub struct Worker;"),
            ("rooms/one.rs", "use super::Worker;"),
        ];
        assert!(found(&files).is_empty());
        let shows = [
            (
                "rooms/mod.rs",
                "mod one; mod two; pub use one::{self, One as First}; pub struct Worker;",
            ),
            ("rooms/one.rs", "use super::{Worker as Its};"),
            ("rooms/two.rs", "use super::First;"),
        ];
        assert!(found(&shows).is_empty());
        let uses = [
            (
                "rooms/mod.rs",
                "mod one; pub use one::One; pub struct Worker(One);",
            ),
            ("rooms/one.rs", "use super::Worker;"),
        ];
        assert_eq!(found(&uses), [["rooms/mod.rs", "rooms/one.rs"]]);
    }

    #[test]
    fn what_only_tests_use_makes_no_circle() {
        let files = [
            (
                "a.rs",
                "pub struct A; #[cfg(test)] mod tests { use crate::b::B; } #[cfg(test)] use crate::b;",
            ),
            ("b.rs", "use crate::a::A;"),
        ];
        assert!(found(&files).is_empty());
    }

    #[test]
    fn a_module_inside_a_file_is_that_file() {
        let files = [
            (
                "a.rs",
                "mod inner { use super::super::b::B; pub struct C; }",
            ),
            ("b.rs", "use crate::a::inner::C;"),
        ];
        assert_eq!(found(&files), [["a.rs", "b.rs"]]);
    }
}
