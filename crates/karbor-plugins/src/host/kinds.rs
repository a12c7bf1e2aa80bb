//! The kinds of components that an application can be made of: the one list of them.
//!
//! A kind is a folder beside this file, with one implementation of [`Kind`]: what declarations say of its components
//! and how that is checked, what a restore may be told, how components are found to be well, saved and restored. All
//! else (the loader of declarations, the protectables, the registry, the embedded provider) goes by this list.

use std::sync::Arc;

use karbor_plugin::ProtectionPlugin;

use super::{
    applications::{APPLICATION, APPLICATION_PLUGIN, KindNames},
    component::{ComponentPlugin, Kind},
    shared::Host,
};

/// Gives the kinds, in the order in which people see them, to a macro. The name of a kind is that of its tables in
/// declarations, `[[name]]`, and part of the ids of its components: it can never change.
macro_rules! kinds {
    ($use:ident) => {
        $use! {
            directory: $crate::host::directory::DirectoryKind,
            sqlite: $crate::host::sqlite::SqliteKind,
            postgresql: $crate::host::postgresql::PostgresqlKind,
            mariadb: $crate::host::mariadb::MariadbKind,
        }
    };
}
pub(in crate::host) use kinds;

/// A kind, as all that treats every kind alike knows it.
pub(crate) struct ListedKind {
    pub(crate) names: KindNames,
    /// Makes its plugin.
    pub(crate) plugin: fn(Arc<Host>) -> Arc<dyn ProtectionPlugin>,
}

impl ListedKind {
    const fn of<K: Kind>(name: &'static str) -> Self {
        Self {
            names: KindNames::of::<K>(name),
            plugin: |host| Arc::new(ComponentPlugin::<K>::new(host)),
        }
    }
}

macro_rules! list {
    ($($name:ident: $kind:ty,)+) => {
        /// The kinds.
        pub(crate) const KINDS: &[ListedKind] = &[$(ListedKind::of::<$kind>(stringify!($name)),)+];
    };
}

kinds!(list);

/// Every resource type there is on this host: applications, and what they are made of.
pub const TYPES: [&str; KINDS.len() + 1] = {
    let mut types = [APPLICATION; KINDS.len() + 1];
    let mut at = 0;
    while at < KINDS.len() {
        types[at + 1] = KINDS[at].names.resource_type;
        at += 1;
    }
    types
};

/// The names of the plugins for what is on this host.
pub const PLUGINS: [&str; KINDS.len() + 1] = {
    let mut plugins = [APPLICATION_PLUGIN; KINDS.len() + 1];
    let mut at = 0;
    while at < KINDS.len() {
        plugins[at + 1] = KINDS[at].names.plugin;
        at += 1;
    }
    plugins
};
