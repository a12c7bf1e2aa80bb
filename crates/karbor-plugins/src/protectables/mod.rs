//! Protectables: where resources are found.

pub mod host;
pub mod openstack;
