//! Names that nobody reads here: those known from elsewhere, and those that must be misspelt.

use std::collections::BTreeSet;

use karbor_model::OptionDef;

/// Options that files may hold, because another program or version reads them, and that do nothing
/// here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleOptions {
    /// Group.
    pub group: &'static str,
    /// Names; none stands for every option of the group.
    pub names: &'static [&'static str],
    /// Why they do nothing: what follows "no effect, because".
    pub why: &'static str,
}

/// Every name that means something.
pub(super) struct Names<'a> {
    options: Vec<(&'a str, &'a str)>,
    idle: &'a [IdleOptions],
}

impl<'a> Names<'a> {
    pub(super) fn new(options: &'a [OptionDef], idle: &'a [IdleOptions]) -> Self {
        let declared = options.iter().map(|option| (option.group, option.name));
        let idle_names = idle
            .iter()
            .flat_map(|idle| idle.names.iter().map(|name| (idle.group, *name)));
        Self {
            options: declared.chain(idle_names).collect(),
            idle,
        }
    }

    /// Why an option does nothing, if that is known.
    pub(super) fn idle(&self, group: &str, name: &str) -> Option<&'static str> {
        let is_it = |idle: &&IdleOptions| {
            idle.group == group && (idle.names.is_empty() || idle.names.contains(&name))
        };
        self.idle.iter().find(is_it).map(|idle| idle.why)
    }

    /// What was probably meant by a name that means nothing: ` (did you mean …?)` or nothing.
    pub(super) fn guess(&self, group: &str, name: &str) -> String {
        let groups: BTreeSet<&str> = self.options.iter().map(|(group, _)| *group).collect();
        let near_group = closest(group, groups.into_iter()).unwrap_or(group);
        let inside = self.options.iter().filter(|(g, _)| *g == near_group);
        let meant = closest(name, inside.map(|(_, name)| *name))
            .map(|meant| (near_group, meant))
            .or_else(|| {
                self.options
                    .iter()
                    .copied()
                    .find(|(_, other)| *other == name)
            });
        match meant {
            Some((same, meant)) if same == group => format!(" (did you mean '{meant}'?)"),
            Some((other, meant)) => format!(" (did you mean '{meant}' in [{other}]?)"),
            None => String::new(),
        }
    }
}

/// The nearest of some names, if it is near enough to be a slip of the finger.
#[must_use]
pub fn closest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wanted.chars().count() / 4).clamp(1, 3);
    names
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptionKind;

    const fn option(group: &'static str, name: &'static str) -> OptionDef {
        OptionDef {
            group,
            name,
            kind: OptionKind::Str,
            default: "",
            help: "",
            secret: false,
        }
    }

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let options = [
            option("DEFAULT", "osapi_max_limit"),
            option("database", "connection"),
        ];
        let idle = [IdleOptions {
            group: "DEFAULT",
            names: &["debug"],
            why: "",
        }];
        let names = Names::new(&options, &idle);
        let guess = |group, name| names.guess(group, name);
        assert_eq!(
            guess("DEFAULT", "osapi_max_limt"),
            " (did you mean 'osapi_max_limit'?)"
        );
        assert_eq!(
            guess("databse", "conection"),
            " (did you mean 'connection' in [database]?)"
        );
        assert_eq!(
            guess("DEFAULT", "connection"),
            " (did you mean 'connection' in [database]?)"
        );
        assert_eq!(guess("DEFAULT", "debgu"), " (did you mean 'debug'?)");
        assert_eq!(guess("nova", "weight"), "");
    }
}
