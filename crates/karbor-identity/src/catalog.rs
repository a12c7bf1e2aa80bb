//! Where the other services are: the catalog of a token.

use serde::Deserialize;

/// Services and their endpoints, as keystone shows them to a token's bearer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Catalog(Vec<Service>);

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Service {
    #[serde(rename = "type")]
    service_type: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

/// One place at which a service answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Endpoint {
    /// For whom.
    pub interface: Interface,
    /// The region's id.
    #[serde(default)]
    region_id: Option<String>,
    /// Where.
    pub url: String,
}

/// For whom an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Interface {
    /// Everybody.
    Public,
    /// Other services.
    Internal,
    /// Administrators.
    Admin,
}

impl Catalog {
    /// The endpoint of the first of `types` (the official name of a service and its older ones) that has
    /// one for `interface`, in `region` if one is given.
    #[must_use]
    pub fn endpoint(
        &self,
        types: &[&str],
        interface: Interface,
        region: Option<&str>,
    ) -> Option<&Endpoint> {
        types.iter().find_map(|wanted| {
            let services = self.0.iter();
            services
                .filter(|service| service.service_type == *wanted)
                .flat_map(|service| &service.endpoints)
                .find(|endpoint| {
                    endpoint.interface == interface
                        && region.is_none_or(|region| endpoint.region() == Some(region))
                })
        })
    }
}

impl Endpoint {
    /// The region's id.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region_id.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn catalog() -> Catalog {
        let endpoint = |interface: &str, region: &str, url: &str| json!({"id": "e", "interface": interface, "region": region, "region_id": region, "url": url});
        serde_json::from_value(json!([
            {"id": "s", "name": "cinder", "type": "volumev3", "endpoints": [
                endpoint("public", "one", "http://one/volume"),
                endpoint("internal", "one", "http://inner/volume"),
                endpoint("public", "two", "http://two/volume"),
            ]},
            {"id": "t", "name": "empty", "type": "block-storage", "endpoints": []},
        ]))
        .unwrap()
    }

    #[test]
    fn the_first_type_with_a_fitting_endpoint_wins() {
        let catalog = catalog();
        let find = |types: &[&str], interface, region| {
            let found = catalog.endpoint(types, interface, region);
            found.map(|endpoint| endpoint.url.as_str())
        };
        let types = ["block-storage", "volumev3"];
        assert_eq!(
            find(&types, Interface::Public, None),
            Some("http://one/volume")
        );
        assert_eq!(
            find(&types, Interface::Public, Some("two")),
            Some("http://two/volume")
        );
        assert_eq!(
            find(&types, Interface::Internal, None),
            Some("http://inner/volume")
        );
        assert_eq!(find(&types, Interface::Internal, Some("two")), None);
        assert_eq!(find(&["compute"], Interface::Public, None), None);
    }
}
