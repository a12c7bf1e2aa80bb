//! Protectables: where resources are found.

pub mod openstack;
