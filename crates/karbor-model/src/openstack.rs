//! The resource types of OpenStack, as the original had them, by name: which there are and how they depend on each
//! other.

const PROJECT: &str = "OS::Keystone::Project";
const SERVER: &str = "OS::Nova::Server";
const POD: &str = "OS::Kubernetes::Pod";

/// Each type with the types that depend on it, in the original's order.
pub const OPENSTACK_PARENTS: [(&str, &[&str]); 8] = [
    (PROJECT, &[]),
    (SERVER, &[PROJECT]),
    ("OS::Cinder::Volume", &[SERVER, POD, PROJECT]),
    ("OS::Glance::Image", &[SERVER, PROJECT]),
    ("OS::Manila::Share", &[PROJECT]),
    ("OS::Neutron::Network", &[PROJECT]),
    ("OS::Trove::Instance", &[PROJECT]),
    (POD, &[PROJECT]),
];

/// The types alone.
pub const OPENSTACK_TYPES: [&str; 8] = {
    let mut names = [""; 8];
    let mut at = 0;
    while at < names.len() {
        names[at] = OPENSTACK_PARENTS[at].0;
        at += 1;
    }
    names
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_depend_on_known_ones() {
        let mut parents = OPENSTACK_PARENTS.iter().flat_map(|(_, parents)| *parents);
        assert!(parents.all(|parent| OPENSTACK_TYPES.contains(parent)));
    }
}
