//! What a directory's `include` and `exclude` mean: the language of gitignore(5), with `{a,b}` beside it.
//!
//! * A pattern with a `/` at its start or middle is anchored at the directory, any other matches at every
//!   depth. One with a `/` at its end matches directories only.
//! * `*` and `?` stay within a part of a path, `**` crosses; `[a-z]` and `[!a-z]` are one character, `{a,b}` is
//!   one of the two, and `\` takes the meaning from what follows it.
//! * `!` takes back what patterns before it said: the last that matches decides. What lies in a directory that
//!   is excluded cannot be taken back: nobody looks into it.
//! * What lies below a match of `include` is included, unless a pattern with `!` matches it.
//!
//! What would silently mean something else than it seems to is refused: a comment, `.` and `..`, the path of
//! the directory itself, classes such as `[[:alpha:]]`.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::source::DirectorySource;

/// A list of patterns.
#[derive(Debug, Clone)]
pub(crate) struct Globs {
    set: GlobSet,
    patterns: Arc<Vec<Pattern>>,
}

#[derive(Debug)]
struct Pattern {
    text: String,
    /// It takes back what others said.
    negated: bool,
    only_dirs: bool,
    /// Something matched it.
    used: AtomicBool,
}

impl Globs {
    /// Compiles the patterns of the directory at `root`.
    ///
    /// # Errors
    /// Names the pattern that is none, and why.
    pub(crate) fn new(patterns: &[String], root: &Path) -> Result<Self, String> {
        let mut builder = GlobSetBuilder::new();
        let mut parsed = Vec::new();
        for text in patterns {
            let (pattern, glob) = parse(text, root)
                .map_err(|reason| format!("the pattern '{}' {reason}", text.escape_debug()))?;
            let glob = GlobBuilder::new(&glob)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| {
                    format!(
                        "'{}' is not a pattern: {}",
                        text.escape_debug(),
                        error.kind()
                    )
                })?;
            builder.add(glob);
            parsed.push(pattern);
        }
        let set = builder.build().map_err(|error| error.to_string())?;
        Ok(Self {
            set,
            patterns: Arc::new(parsed),
        })
    }

    /// Are there any patterns?
    pub(crate) fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// What the last pattern that matches this path itself says: that it is meant, or that it is not.
    fn says(&self, path: &Path, is_dir: bool) -> Option<bool> {
        let mut said = None;
        for at in self.set.matches(path) {
            let Some(pattern) = self.patterns.get(at) else {
                continue;
            };
            if is_dir || !pattern.only_dirs {
                pattern.used.store(true, Ordering::Relaxed);
                said = Some(!pattern.negated);
            }
        }
        said
    }

    /// The patterns that have matched nothing so far.
    fn unused(&self) -> impl Iterator<Item = &str> {
        let patterns = self.patterns.iter();
        let unused = patterns.filter(|pattern| !pattern.used.load(Ordering::Relaxed));
        unused.map(|pattern| pattern.text.as_str())
    }
}

/// A pattern and the glob that it becomes.
fn parse(text: &str, root: &Path) -> Result<(Pattern, String), &'static str> {
    if text.contains(['\0', '\n']) {
        return Err("has a line end or NUL character in it");
    }
    let mut bare = without_trailing_spaces(text);
    if bare.starts_with('#') {
        return Err("would be a comment: write '\\#' for a name that begins with '#'");
    }
    let negated = bare.starts_with('!');
    if negated {
        bare = &bare[1..];
    }
    let only_dirs = bare.ends_with('/');
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let anchored = bare.contains('/');
    let inner = bare.strip_prefix('/').unwrap_or(bare);
    if inner.is_empty() {
        return Err("matches nothing");
    }
    if bare.starts_with('/') && Path::new(bare).starts_with(root) {
        return Err(
            "is the path of the directory or lies below it: patterns begin there, so leave that part out",
        );
    }
    if inner.split('/').any(|part| part == "." || part == "..") {
        return Err(
            "has a '.' or '..' in it, which match nothing: '/name' is what lies in the directory itself",
        );
    }
    if inner.split('/').any(str::is_empty) {
        return Err("has '//' in it, which matches nothing");
    }
    if inner.contains("[[:") {
        return Err("has a class such as [[:alpha:]] in it, which is not supported: write '[a-z]'");
    }
    let mut glob = match anchored {
        true => inner.to_owned(),
        false => format!("**/{inner}"),
    };
    // What is in a directory, and not the directory.
    if glob.ends_with("/**") {
        glob.push_str("/*");
    }
    let pattern = Pattern {
        text: text.to_owned(),
        negated,
        only_dirs,
        used: AtomicBool::new(false),
    };
    Ok((pattern, glob))
}

/// Spaces at the end do not count, unless a `\` is before them.
fn without_trailing_spaces(text: &str) -> &str {
    let bare = text.trim_end_matches(' ');
    let escapes = bare.len() - bare.trim_end_matches('\\').len();
    match escapes % 2 == 1 && bare.len() < text.len() {
        true => &text[..=bare.len()],
        false => bare,
    }
}

/// `include` and `exclude` together.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    include: Globs,
    exclude: Globs,
    above: Arc<Mutex<Above>>,
}

/// What `include` says of the directories above the file that was asked about last: a walk asks about its
/// neighbours next.
#[derive(Debug, Default)]
struct Above {
    dir: PathBuf,
    /// Of each part of the path: its own or that of the nearest above that has one.
    said: Vec<Option<bool>>,
}

impl Above {
    /// What `include` says of a directory, or else of the nearest above it.
    fn says(&mut self, include: &Globs, dir: &Path) -> Option<bool> {
        let both = self.dir.components().zip(dir.components());
        let common = both.take_while(|(before, now)| before == now).count();
        self.said.truncate(common);
        let mut at: PathBuf = dir.components().take(common).collect();
        for part in dir.components().skip(common) {
            at.push(part);
            let said = include.says(&at, true);
            let inherited = self.said.last().copied().flatten();
            self.said.push(said.or(inherited));
        }
        self.dir = at;
        self.said.last().copied().flatten()
    }
}

/// Of patterns by which nothing is left of a directory that has something.
pub(crate) const LEAVE_OUT_ALL: &str = "the patterns leave out everything: nothing of the directory is protected; see 'include' and 'exclude'";

impl Filter {
    /// Compiles both of a declaration.
    ///
    /// # Errors
    /// Names the pattern that is none.
    pub(crate) fn new(source: &DirectorySource) -> Result<Self, String> {
        Ok(Self {
            include: Globs::new(&source.include, &source.path)?,
            exclude: Globs::new(&source.exclude, &source.path)?,
            above: Arc::default(),
        })
    }

    /// Is this path (relative to the directory) taken? Directories are left out only by `exclude`:
    /// what `include` wants may lie below.
    pub(crate) fn takes(&self, relative: &Path, is_dir: bool) -> bool {
        let mut above: Vec<_> = parents(relative).collect();
        above.reverse();
        let excluded = above
            .into_iter()
            .any(|above| self.exclude.says(above, true) == Some(true));
        !excluded && self.takes_here(relative, is_dir)
    }

    /// As [`takes`](Self::takes), of a path in directories that are taken.
    pub(crate) fn takes_here(&self, relative: &Path, is_dir: bool) -> bool {
        if self.exclude.says(relative, is_dir) == Some(true) {
            return false;
        }
        is_dir || self.include.is_empty() || self.includes(relative)
    }

    fn includes(&self, file: &Path) -> bool {
        let said = self.include.says(file, false);
        let said = said.or_else(|| {
            let mut above = self.above.lock().unwrap_or_else(PoisonError::into_inner);
            above.says(&self.include, file.parent()?)
        });
        said == Some(true)
    }

    /// The patterns of `include` that have matched nothing so far.
    pub(crate) fn unused_includes(&self) -> impl Iterator<Item = &str> {
        self.include.unused()
    }

    /// The patterns of `exclude` that have matched nothing so far.
    pub(crate) fn unused_excludes(&self) -> impl Iterator<Item = &str> {
        self.exclude.unused()
    }
}

/// The directories above a relative path, the nearest first.
fn parents(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors()
        .skip(1)
        .filter(|above| !above.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr)]

    use std::{
        collections::BTreeSet,
        fs,
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    fn filter(include: &[&str], exclude: &[&str]) -> Result<Filter, String> {
        let owned = |patterns: &[&str]| patterns.iter().map(|&p| p.to_owned()).collect();
        Filter::new(&DirectorySource {
            path: "/srv/shop".into(),
            include: owned(include),
            exclude: owned(exclude),
            one_file_system: false,
            exclude_caches: false,
            on_unreadable: Default::default(),
        })
    }

    /// Files; what ends with `/` is a directory.
    const PATHS: &[&str] = &[
        "a",
        "a.tmp",
        "b.txt",
        "build",
        "#note",
        "!bang",
        "sp ",
        "x[1]",
        "back\\slash",
        "d/",
        "d/a",
        "d/a.tmp",
        "d/build/",
        "d/build/out",
        "d/build/keep",
        "d/e/",
        "d/e/a",
        "d/e/f/",
        "d/e/f/a.tmp",
        "d/e/f/g",
        "src/",
        "src/build/",
        "src/build/x",
        "src/main.rs",
        "src/lib/",
        "src/lib/main.rs",
        "keep/",
        "keep/f",
        "keep/sub/",
        "keep/sub/f",
        "drop/",
        "drop/f",
        "foo/",
        "foo/bar/",
        "foo/bar/baz",
        "foo/x/",
        "foo/x/bar/",
        "foo/x/bar/baz",
        "cache/",
        "cache/y",
        "logs/",
        "logs/1.gz",
        "logs/old/",
        "logs/old/2.gz",
        "1",
        "2",
        "ab",
        "ba",
    ];

    /// Sets of patterns whose meaning is git's.
    const SETS: &[&[&str]] = &[
        &["*.tmp"],
        &["/a"],
        &["a"],
        &["build/"],
        &["build"],
        &["/build/"],
        &["d/build"],
        &["d/build/"],
        &["/d/build/*", "!/d/build/keep"],
        &["d/build/", "!d/build/keep"],
        &["/*", "!/keep"],
        &["/*", "!/keep/", "/keep/*", "!/keep/f"],
        &["*", "!*/", "!*.rs"],
        &["*", "!a"],
        &["foo/*"],
        &["foo/**"],
        &["foo/**/baz"],
        &["**/bar"],
        &["**/bar/"],
        &["**/bar/**"],
        &["/**/a"],
        &["d/**"],
        &["d/**", "!d/e/"],
        &["logs/*.gz"],
        &["logs/**/*.gz"],
        &["*.gz", "!old/*.gz"],
        &["*.gz", "!logs/old/2.gz"],
        &["?"],
        &["[ab]"],
        &["[!ab]"],
        &["[^ab]"],
        &["[a-b][a-b]"],
        &["\\#note"],
        &["\\!bang"],
        &["sp\\ "],
        &["sp "],
        &["x\\[1\\]"],
        &["back\\\\slash"],
        &["src/*/main.rs"],
        &["src/main.rs"],
        &["main.rs"],
        &["a*"],
        &["*/a"],
        &["/*/a"],
        &["cache/", "!cache/y"],
        &["!a"],
        &["a", "!a", "a"],
        &["keep/sub/"],
    ];

    /// gitignore(5) is the reference, and git its judge.
    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        let dir = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(dir.path()).args(arguments);
            command.env("GIT_CONFIG_GLOBAL", "/dev/null");
            command.env("GIT_CONFIG_NOSYSTEM", "1");
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            command.spawn()
        };
        let Ok(made) = git(&["init", "-q"]) else {
            eprintln!("SKIPPED: no git");
            return;
        };
        assert!(made.wait_with_output().unwrap().status.success());
        for path in PATHS {
            match path.strip_suffix('/') {
                Some(folder) => fs::create_dir_all(dir.path().join(folder)).unwrap(),
                None => fs::write(dir.path().join(path), "").unwrap(),
            }
        }
        for set in SETS {
            fs::write(dir.path().join(".gitignore"), set.join("\n") + "\n").unwrap();
            let mut asked = git(&["check-ignore", "--no-index", "-z", "--stdin"]).unwrap();
            let question = PATHS.iter().map(|path| path.trim_end_matches('/'));
            let question = question.collect::<Vec<_>>().join("\0") + "\0";
            let mut stdin = asked.stdin.take().unwrap();
            stdin.write_all(question.as_bytes()).unwrap();
            drop(stdin);
            let answer = asked.wait_with_output().unwrap();
            assert!(matches!(answer.status.code(), Some(0 | 1)));
            let told = String::from_utf8(answer.stdout).unwrap();
            let ignored: BTreeSet<_> = told.split_terminator('\0').collect();
            let filter = filter(&[], set).unwrap();
            for path in PATHS {
                let (bare, is_dir) = match path.strip_suffix('/') {
                    Some(folder) => (folder, true),
                    None => (*path, false),
                };
                let takes = filter.takes(Path::new(bare), is_dir);
                assert_eq!(!takes, ignored.contains(bare), "{set:?} on {path:?}");
            }
        }
    }

    #[test]
    fn braces_are_one_of_several() {
        let filter = filter(&[], &["*.{jpg,png}", "/{a,b}/c"]).unwrap();
        for (path, takes) in [
            ("x.jpg", false),
            ("y/x.png", false),
            ("x.gif", true),
            ("b/c", false),
        ] {
            assert_eq!(filter.takes(Path::new(path), false), takes, "{path}");
        }
    }

    #[test]
    fn an_include_takes_files_and_still_walks_every_directory() {
        let filter = filter(&["*.jpg", "/docs", "!/docs/drafts/"], &["/old"]).unwrap();
        for (path, is_dir, takes) in [
            ("a/b.jpg", false, true),
            ("a/b.txt", false, false),
            ("a", true, true),
            ("old", true, false),
            ("old/b.jpg", false, false),
            ("docs/x/y.txt", false, true),
            ("docs/drafts/y.txt", false, false),
            ("docs/drafts/y.jpg", false, true),
        ] {
            assert_eq!(filter.takes(Path::new(path), is_dir), takes, "{path}");
        }
    }

    /// A local user makes such a tree: each directory's verdict is found once, not for every file below.
    #[test]
    fn an_include_costs_no_more_for_a_file_that_lies_deep() {
        let filter = filter(&["*.jpg", "/docs", "!/docs/drafts/", "*.png"], &[]).unwrap();
        let begun = std::time::Instant::now();
        let mut path = std::path::PathBuf::from("docs");
        let mut takes = 0;
        for level in 0..3000 {
            path.push(if level == 2000 { "docs" } else { "d" });
            takes += u32::from(filter.takes_here(&path.join("f"), false));
        }
        assert_eq!(takes, 3000);
        while path.pop() {
            let file = path.join("f");
            let wanted = path.starts_with("docs");
            assert_eq!(filter.takes_here(&file, false), wanted);
        }
        assert!(filter.takes_here(Path::new("docs/drafts/f.jpg"), false));
        assert!(!filter.takes_here(Path::new("docs/drafts/f"), false));
        assert!(filter.takes_here(Path::new("docs/f"), false));
        assert!(!filter.takes_here(Path::new("other/f"), false));
        assert!(begun.elapsed() < std::time::Duration::from_secs(10));
    }

    #[test]
    fn what_matched_nothing_is_known() {
        let filter = filter(&["*.jpg", "*.png"], &["*.tmp", "/cache/"]).unwrap();
        for path in ["a.jpg", "b.txt", "cache", "c.tmp"] {
            filter.takes_here(Path::new(path), false);
        }
        assert_eq!(filter.unused_includes().collect::<Vec<_>>(), ["*.png"]);
        // It is for directories, and that was a file.
        assert_eq!(filter.unused_excludes().collect::<Vec<_>>(), ["/cache/"]);
    }

    #[test]
    fn what_would_mean_something_else_is_refused_with_the_reason() {
        for (pattern, reason) in [
            ("a[", "'a['"),
            ("{a,b", "'{a,b'"),
            ("./x", "'.'"),
            ("a/../b", "'..'"),
            ("/srv/shop/cache", "leave that part out"),
            ("/srv/shop", "leave that part out"),
            ("!/srv/shop/x", "leave that part out"),
            ("# comment", "comment"),
            ("", "nothing"),
            ("/", "nothing"),
            ("//", "nothing"),
            ("d//", "'//'"),
            ("a//b", "'//'"),
            ("!", "nothing"),
            ("[[:alpha:]]", "[a-z]"),
            ("a\nb", "line end"),
        ] {
            for both in [(&[pattern][..], &[][..]), (&[][..], &[pattern][..])] {
                let error = filter(both.0, both.1).unwrap_err();
                assert!(error.contains(reason), "{pattern}: {error}");
            }
        }
    }
}
