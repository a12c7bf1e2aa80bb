//! What configuration files of OpenStack Karbor may hold: options that do nothing here, sections of
//! providers' files, plugins that are not here yet. Names are facts of Karbor 1.6.0 and of the oslo
//! libraries and the keystone middleware that it was configured with.

mod options;
mod plugins;
mod sections;

pub(crate) use options::{IDLE, idle_reference};
pub(crate) use plugins::missing_plugin;
pub(crate) use sections::unknown_options;
