//! Snapshots, as restic writes them.

use serde::{Deserialize, Serialize};

use crate::{Snapshot, SnapshotId, SnapshotNumbers, id::Id, time::Time};

/// The JSON of a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SnapshotJson {
    pub(crate) time: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Id>,
    pub(crate) tree: Id,
    #[serde(default)]
    pub(crate) paths: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) hostname: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) username: String,
    #[serde(default)]
    pub(crate) uid: u32,
    #[serde(default)]
    pub(crate) gid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) excludes: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tags: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) original: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) program_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) summary: Option<SnapshotNumbers>,
}

impl Snapshot {
    pub(crate) fn from_json(id: Id, json: &[u8]) -> Result<Self, String> {
        let json: SnapshotJson =
            serde_json::from_slice(json).map_err(|error| format!("it is no snapshot: {error}"))?;
        Ok(Self {
            id: SnapshotId(id),
            time: json.time.to_utc(),
            paths: json.paths.unwrap_or_default(),
            hostname: json.hostname,
            username: json.username,
            tags: json.tags.unwrap_or_default(),
            parent: json.parent.map(SnapshotId),
            numbers: json.summary,
            tree: json.tree,
            original: json.original,
            excludes: json.excludes.unwrap_or_default(),
        })
    }

    /// Was it this one before it was copied?
    #[must_use]
    pub fn was(&self, id: &SnapshotId) -> bool {
        self.original == Some(id.0)
    }

    /// Has it all of these tags?
    #[must_use]
    pub fn has_tags(&self, tags: &[String]) -> bool {
        tags.iter().all(|tag| self.tags.contains(tag))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn restics_own_example_is_read() {
        let json = br#"{"time":"2015-01-02T18:10:50.895208559+01:00",
            "tree":"2da81727b6585232894cfbb8f8bdab8d1eccd3d8f7c92bc934d62e62e618ffdf","dir":"/tmp/testdata",
            "hostname":"kasimir","username":"fd0","uid":1000,"gid":100,"tags":["NL","DE"],"paths":null,
            "original":"251c2e5841355f743f9d4ffd3260bee765acee40a6229857e32b60446991b837"}"#;
        let snapshot = Snapshot::from_json(Id([0; 32]), json).unwrap();
        assert!(snapshot.has_tags(&["DE".to_owned()]));
        assert!(!snapshot.has_tags(&["DE".to_owned(), "FR".to_owned()]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Snapshot::from_json(Id([0; 32]), &bytes);
        }
    }
}
