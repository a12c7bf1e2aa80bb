//! What a directory's `include` and `exclude` mean, in the manner of `.gitignore`: a pattern with a
//! `/` at its start or middle is anchored at the directory, any other matches at every depth; `*`
//! stays within a part of a path, `**` crosses; what lies below a match is matched too.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// A list of patterns.
#[derive(Debug, Clone)]
pub(crate) struct Globs {
    set: GlobSet,
}

impl Globs {
    /// Compiles patterns.
    ///
    /// # Errors
    /// Names the pattern that is none.
    pub(crate) fn new(patterns: &[String]) -> Result<Self, String> {
        let mut builder = GlobSetBuilder::new();
        for pattern in patterns {
            let text = pattern.trim_end_matches('/');
            let bare = text.strip_prefix('/').unwrap_or(text);
            if bare.is_empty() {
                return Err(format!("the pattern '{pattern}' matches nothing"));
            }
            let whole = match text.contains('/') {
                true => bare.to_owned(),
                false => format!("**/{bare}"),
            };
            let glob = GlobBuilder::new(&whole)
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| format!("'{pattern}' is not a pattern: {}", error.kind()))?;
            builder.add(glob);
        }
        let set = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { set })
    }

    /// Are there any patterns?
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Is this path (relative to the directory), or one that it lies below, matched?
    pub(crate) fn matches(&self, relative: &Path) -> bool {
        relative
            .ancestors()
            .filter(|path| !path.as_os_str().is_empty())
            .any(|path| self.set.is_match(path))
    }
}

/// `include` and `exclude` together.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    include: Globs,
    exclude: Globs,
}

impl Filter {
    /// Compiles both.
    ///
    /// # Errors
    /// Names the pattern that is none.
    pub(crate) fn new(include: &[String], exclude: &[String]) -> Result<Self, String> {
        Ok(Self {
            include: Globs::new(include)?,
            exclude: Globs::new(exclude)?,
        })
    }

    /// Is this path (relative to the directory) taken? Directories are left out only by `exclude`:
    /// what `include` wants may lie below.
    pub(crate) fn takes(&self, relative: &Path, is_dir: bool) -> bool {
        if self.exclude.matches(relative) {
            return false;
        }
        is_dir || self.include.is_empty() || self.include.matches(relative)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Globs {
        Globs::new(&patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn anchored_and_floating_patterns() {
        let globs = globs(&["*.tmp", "/cache", "var/log/*.gz", "**/deep/**"]);
        for yes in [
            "a.tmp",
            "x/y/a.tmp",
            "cache",
            "cache/a/b",
            "var/log/a.gz",
            "x/deep/y",
        ] {
            assert!(globs.matches(Path::new(yes)), "{yes}");
        }
        for no in ["a.tmpx", "x/cache", "var/log/x/a.gz", "x/var/log/a.gz"] {
            assert!(!globs.matches(Path::new(no)), "{no}");
        }
    }

    #[test]
    fn an_include_takes_files_and_still_walks_every_directory() {
        let filter = Filter::new(&["*.jpg".to_owned()], &["/old".to_owned()]).unwrap();
        assert!(filter.takes(Path::new("a/b.jpg"), false));
        assert!(!filter.takes(Path::new("a/b.txt"), false));
        assert!(filter.takes(Path::new("a"), true));
        assert!(!filter.takes(Path::new("old"), true));
        assert!(!filter.takes(Path::new("old/b.jpg"), false));
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let error = Globs::new(&["a[".to_owned()]).unwrap_err();
        assert!(error.contains("'a['"), "{error}");
    }
}
