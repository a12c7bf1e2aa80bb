//! The file as it is written, before anything is checked but its shape.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use uuid::Uuid;

use super::{Component, ComponentChecks, KindNames, NAMESPACE, Problem, checks::plain_name, sixty};
use crate::host::{component::Kind, kinds::kinds};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCommand {
    pub(super) command: Vec<String>,
    #[serde(default = "sixty")]
    pub(super) timeout: u64,
}

/// The file has a list of tables for each kind.
macro_rules! declare_file {
    ($($name:ident: $kind:ty,)+) => {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct RawApplication {
            pub(super) name: String,
            #[serde(default)]
            pub(super) description: String,
            pub(super) projects: Vec<String>,
            pub(super) id: Option<Uuid>,
            #[serde(default)]
            pub(super) restore_roots: Vec<PathBuf>,
            pub(super) quiesce: Option<RawCommand>,
            pub(super) resume: Option<RawCommand>,
            pub(super) before_restore: Option<RawCommand>,
            pub(super) after_restore: Option<RawCommand>,
            $(#[serde(default)]
            $name: Vec<<$kind as Kind>::Table>,)+
        }

        impl RawApplication {
            /// Takes the tables of all components and checks them.
            pub(super) fn components(
                &mut self,
                application: Uuid,
                file: &Path,
                problems: &mut Vec<Problem>,
            ) -> Vec<Component> {
                let mut components = Vec::new();
                $(for table in std::mem::take(&mut self.$name) {
                    let names = KindNames::of::<$kind>(stringify!($name));
                    components.push(component::<$kind>(names, table, application, file, problems));
                })+
                components
            }
        }
    };
}

kinds!(declare_file);

fn component<K: Kind>(
    kind: KindNames,
    table: K::Table,
    application: Uuid,
    file: &Path,
    problems: &mut Vec<Problem>,
) -> Component {
    let (name, id) = K::identity(&table);
    let name = name.to_owned();
    if let Err(message) = plain_name(&name) {
        problems.push(Problem::error(file, format!("{}.name", kind.name), message));
    }
    let key = format!("{}.{name}", kind.name);
    let mut checks = ComponentChecks::new(file, key, problems);
    let source = K::declare(table, &mut checks);
    Component {
        id: id.unwrap_or_else(|| component_id(application, kind.name, &name)),
        name,
        kind,
        source: Arc::new(source),
    }
}

pub(super) fn application_id(name: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

pub(super) fn component_id(application: Uuid, kind: &str, name: &str) -> Uuid {
    Uuid::new_v5(&application, format!("{kind}/{name}").as_bytes())
}
