//! Trees and their nodes, as restic writes them in JSON.

use std::{ffi::OsString, fmt, os::unix::ffi::OsStringExt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};

use crate::{
    id::Id,
    pack::BlobKind,
    quote::{quote, unquote},
    time::Time,
};

/// What sort of thing a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum NodeKind {
    File,
    Dir,
    Symlink,
    /// A block device.
    Dev,
    Chardev,
    Fifo,
    Socket,
}

/// One entry of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: NodeKind,
    /// Permissions with setuid, setgid and sticky bits, as Unix has them (`0o7777`).
    pub(crate) mode: u32,
    pub(crate) mtime: Time,
    pub(crate) atime: Time,
    pub(crate) ctime: Time,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) user: Arc<str>,
    pub(crate) group: Arc<str>,
    pub(crate) inode: u64,
    pub(crate) device_id: u64,
    pub(crate) size: u64,
    pub(crate) links: u64,
    pub(crate) target: Vec<u8>,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// `st_rdev` of a device.
    pub(crate) device: u64,
    /// Of a file: its blobs, in order.
    pub(crate) content: Vec<Id>,
    /// Of a directory: its tree.
    pub(crate) subtree: Option<Id>,
}

impl Node {
    /// A node of which only name and kind are known.
    pub(crate) fn new(name: Vec<u8>, kind: NodeKind) -> Self {
        Self {
            name,
            kind,
            mode: 0,
            mtime: Time::default(),
            atime: Time::default(),
            ctime: Time::default(),
            uid: 0,
            gid: 0,
            user: Arc::from(""),
            group: Arc::from(""),
            inode: 0,
            device_id: 0,
            size: 0,
            links: 0,
            target: Vec::new(),
            xattrs: Vec::new(),
            device: 0,
            content: Vec::new(),
            subtree: None,
        }
    }

    pub(crate) fn os_name(&self) -> OsString {
        OsString::from_vec(self.name.clone())
    }
}

/// Go's `os.FileMode`, which restic stores, has bits of its own.
mod go_mode {
    use super::NodeKind;

    const DIR: u32 = 1 << 31;
    const SYMLINK: u32 = 1 << 27;
    const DEVICE: u32 = 1 << 26;
    const FIFO: u32 = 1 << 25;
    const SOCKET: u32 = 1 << 24;
    const SETUID: u32 = 1 << 23;
    const SETGID: u32 = 1 << 22;
    const CHAR_DEVICE: u32 = 1 << 21;
    const STICKY: u32 = 1 << 20;
    const SPECIAL: [(u32, u32); 3] = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)];

    pub(super) fn from_unix(kind: NodeKind, mode: u32) -> u32 {
        let kind = match kind {
            NodeKind::File => 0,
            NodeKind::Dir => DIR,
            NodeKind::Symlink => SYMLINK,
            NodeKind::Dev => DEVICE,
            NodeKind::Chardev => DEVICE | CHAR_DEVICE,
            NodeKind::Fifo => FIFO,
            NodeKind::Socket => SOCKET,
        };
        let special = SPECIAL.iter().filter(|(unix, _)| mode & unix != 0);
        special.fold(kind | mode & 0o777, |bits, (_, go)| bits | go)
    }

    pub(super) fn to_unix(go_mode: u32) -> u32 {
        let special = SPECIAL.iter().filter(|(_, go)| go_mode & go != 0);
        special.fold(go_mode & 0o777, |bits, (unix, _)| bits | unix)
    }
}

#[derive(Serialize, Deserialize)]
struct XattrJson {
    name: String,
    /// Go writes an empty value as `null` or `""`.
    value: Option<String>,
}

fn is_zero<T: PartialEq + Default>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Serialize, Deserialize)]
struct NodeJson {
    name: String,
    #[serde(rename = "type")]
    kind: NodeKind,
    #[serde(default, skip_serializing_if = "is_zero")]
    mode: u32,
    #[serde(default)]
    mtime: Time,
    #[serde(default)]
    atime: Time,
    #[serde(default)]
    ctime: Time,
    #[serde(default)]
    uid: u32,
    #[serde(default)]
    gid: u32,
    #[serde(
        default = "no_text",
        skip_serializing_if = "str_is_empty",
        with = "arc_str"
    )]
    user: Arc<str>,
    #[serde(
        default = "no_text",
        skip_serializing_if = "str_is_empty",
        with = "arc_str"
    )]
    group: Arc<str>,
    #[serde(default, skip_serializing_if = "is_zero")]
    inode: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    device_id: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    links: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    linktarget: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    linktarget_raw: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extended_attributes: Option<Vec<XattrJson>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    device: u64,
    #[serde(default)]
    content: Option<Vec<Id>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subtree: Option<Id>,
}

fn no_text() -> Arc<str> {
    Arc::from("")
}

fn str_is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
}

mod arc_str {
    use std::{borrow::Cow, sync::Arc};

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Arc<str>, D::Error> {
        Ok(Arc::from(&*Cow::<'de, str>::deserialize(d)?))
    }
}

impl From<Node> for NodeJson {
    fn from(node: Node) -> Self {
        let (linktarget, linktarget_raw) = match String::from_utf8(node.target) {
            Ok(text) => (text, None),
            Err(error) => (
                String::from_utf8_lossy(error.as_bytes()).into_owned(),
                Some(STANDARD.encode(error.as_bytes())),
            ),
        };
        let xattrs = node.xattrs.into_iter().map(|(name, value)| XattrJson {
            name,
            value: Some(STANDARD.encode(value)),
        });
        let xattrs: Vec<_> = xattrs.collect();
        Self {
            name: quote(&node.name),
            kind: node.kind,
            mode: go_mode::from_unix(node.kind, node.mode),
            mtime: node.mtime,
            atime: node.atime,
            ctime: node.ctime,
            uid: node.uid,
            gid: node.gid,
            user: node.user,
            group: node.group,
            inode: node.inode,
            device_id: node.device_id,
            size: node.size,
            links: node.links,
            linktarget,
            linktarget_raw,
            extended_attributes: (!xattrs.is_empty()).then_some(xattrs),
            device: node.device,
            content: (node.kind == NodeKind::File).then_some(node.content),
            subtree: node.subtree,
        }
    }
}

impl TryFrom<NodeJson> for Node {
    type Error = String;

    fn try_from(json: NodeJson) -> Result<Self, String> {
        let base64 = |text: &str, what: &str| {
            STANDARD
                .decode(text)
                .map_err(|error| format!("the {what} of '{}' is not base64: {error}", json.name))
        };
        let target = match &json.linktarget_raw {
            Some(raw) => base64(raw, "link target")?,
            None => json.linktarget.clone().into_bytes(),
        };
        let xattrs = json.extended_attributes.iter().flatten().map(|xattr| {
            let value = xattr.value.as_deref().unwrap_or_default();
            Ok((xattr.name.clone(), base64(value, "extended attribute")?))
        });
        Ok(Self {
            xattrs: xattrs.collect::<Result<_, String>>()?,
            target,
            name: checked_name(&json.name)?,
            kind: json.kind,
            mode: go_mode::to_unix(json.mode),
            mtime: json.mtime,
            atime: json.atime,
            ctime: json.ctime,
            uid: json.uid,
            gid: json.gid,
            user: json.user,
            group: json.group,
            inode: json.inode,
            device_id: json.device_id,
            size: json.size,
            links: json.links,
            device: json.device,
            content: json.content.unwrap_or_default(),
            subtree: json.subtree,
        })
    }
}

/// A name that can be nothing but an entry of its own directory: a tree may have been made by somebody
/// who wants a restore to write elsewhere.
fn checked_name(quoted: &str) -> Result<Vec<u8>, String> {
    let name = unquote(quoted).ok_or_else(|| format!("'{quoted}' is not a quoted name"))?;
    match &name[..] {
        b"" | b"." | b".." => Err(format!("'{quoted}' is not the name of a file")),
        name if name.contains(&b'/') || name.contains(&0) => {
            Err(format!("'{quoted}' is not the name of a file"))
        }
        _ => Ok(name),
    }
}

/// A tree may not have more entries: some 200 bytes each fill the largest that is read, ordinary ones have
/// 300 and more.
pub(crate) const MOST_ENTRIES: usize = 5_000_000;

#[derive(Deserialize)]
struct TreeJson<const MOST: usize> {
    nodes: Option<Nodes<MOST>>,
}

/// Entries, checked and counted as they come: a few bytes for each in a tree are some hundred in memory.
struct Nodes<const MOST: usize>(Vec<Node>);

impl<'de, const MOST: usize> Deserialize<'de> for Nodes<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<const MOST: usize>;

        impl<'de, const MOST: usize> Visitor<'de> for Entries<MOST> {
            type Value = Vec<Node>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Vec<Node>, A::Error> {
                let mut nodes = Vec::new();
                while let Some(entry) = entries.next_element::<NodeJson>()? {
                    if nodes.len() >= MOST {
                        return Err(A::Error::custom(format!(
                            "it has more than {MOST} entries, which none has"
                        )));
                    }
                    nodes.push(Node::try_from(entry).map_err(A::Error::custom)?);
                }
                Ok(nodes)
            }
        }

        deserializer.deserialize_seq(Entries::<MOST>).map(Self)
    }
}

/// The JSON of a tree, and how many entries are left out because it would be larger than what is read.
/// `nodes` must be sorted by name, and the tree has no more than `most` of them.
pub(crate) fn tree_to_json(
    nodes: impl Iterator<Item = Node>,
    most: usize,
) -> Result<(Vec<u8>, u64), String> {
    json_within(nodes, most.min(MOST_ENTRIES), BlobKind::Tree.largest())
}

fn json_within(
    nodes: impl Iterator<Item = Node>,
    most_entries: usize,
    most_bytes: usize,
) -> Result<(Vec<u8>, u64), String> {
    const END: &[u8] = b"]}\n";
    let mut json = b"{\"nodes\":[".to_vec();
    let (mut entries, mut left) = (0, 0);
    for node in nodes {
        let before = json.len();
        if entries > 0 {
            json.push(b',');
        }
        serde_json::to_writer(&mut json, &NodeJson::from(node))
            .map_err(|error| error.to_string())?;
        if entries >= most_entries || json.len() + END.len() > most_bytes {
            json.truncate(before);
            left += 1;
        } else {
            entries += 1;
        }
    }
    json.extend_from_slice(END);
    Ok((json, left))
}

/// Reads the JSON of a tree; nodes come sorted by name, each name once.
pub(crate) fn tree_from_json(json: &[u8]) -> Result<Vec<Node>, String> {
    at_most::<MOST_ENTRIES>(json)
}

fn at_most<const MOST: usize>(json: &[u8]) -> Result<Vec<Node>, String> {
    let tree: TreeJson<MOST> =
        serde_json::from_slice(json).map_err(|error| format!("it is not a tree: {error}"))?;
    let mut nodes = tree.nodes.map_or_else(Vec::new, |nodes| nodes.0);
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = nodes.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(format!("it has two entries '{}'", quote(&pair[0].name)));
    }
    match nodes
        .iter()
        .find(|node| node.kind == NodeKind::Dir && node.subtree.is_none())
    {
        Some(node) => Err(format!("its directory '{}' has no tree", quote(&node.name))),
        None => Ok(nodes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(nodes: &str) -> Result<Vec<Node>, String> {
        tree_from_json(format!(r#"{{"nodes":{nodes}}}"#).as_bytes())
    }

    #[test]
    fn restics_own_example_is_read() {
        let nodes = tree(
            r#"[{"name":"testdata","type":"dir","mode":2147484141,"mtime":"2014-12-22T14:47:59.912418701+01:00",
            "atime":"2014-12-06T17:49:21.748468803+01:00","ctime":"2014-12-22T14:47:59.912418701+01:00",
            "uid":1000,"gid":100,"user":"fd0","inode":409704562,"content":null,
            "subtree":"b26e315b0988ddcd1cee64c351d13a100fedbc9fdbb144a67d1b765ab280b4dc"}]"#,
        )
        .unwrap();
        assert_eq!(nodes[0].mode, 0o755);
        assert_eq!(&*nodes[0].user, "fd0");
    }

    #[test]
    fn every_node_survives() {
        let mut file = Node::new(b"caf\xe9 \"x\"\n".to_vec(), NodeKind::File);
        file.mode = 0o6755;
        file.content = vec![Id([1; 32]), Id([2; 32])];
        file.xattrs = vec![
            ("user.x".to_owned(), vec![0, 255]),
            ("user.e".to_owned(), vec![]),
        ];
        let mut link = Node::new(b"link".to_vec(), NodeKind::Symlink);
        link.target = b"\xff/x".to_vec();
        let mut dir = Node::new(b"tmp".to_vec(), NodeKind::Dir);
        dir.mode = 0o1777;
        dir.subtree = Some(Id([3; 32]));
        let nodes = vec![file, link, dir];
        let (json, left) = tree_to_json(nodes.clone().into_iter(), MOST_ENTRIES).unwrap();
        assert_eq!(left, 0);
        assert_eq!(tree_from_json(&json).unwrap(), nodes);
    }

    #[test]
    fn an_empty_file_has_a_list_and_a_directory_has_null() {
        let (json, _) = tree_to_json(
            [Node::new(b"f".to_vec(), NodeKind::File)].into_iter(),
            MOST_ENTRIES,
        )
        .unwrap();
        assert!(String::from_utf8(json).unwrap().contains(r#""content":[]"#));
        let (json, _) = tree_to_json(
            [Node::new(b"f".to_vec(), NodeKind::Fifo)].into_iter(),
            MOST_ENTRIES,
        )
        .unwrap();
        assert!(
            String::from_utf8(json)
                .unwrap()
                .contains(r#""content":null"#)
        );
    }

    #[test]
    fn hostile_names_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "a/b",
            "/etc",
            r"a\\x00",
            r"\\x2e\\x2e",
            r"a\\x2fb",
        ] {
            let found = tree(&format!(r#"[{{"name":"{name}","type":"file"}}]"#));
            assert!(found.is_err(), "{name}");
        }
        let twice = r#"[{"name":"a","type":"file"},{"name":"a","type":"symlink"}]"#;
        assert!(tree(twice).is_err());
        assert!(tree(r#"[{"name":"a","type":"dir"}]"#).is_err());
    }

    #[test]
    fn what_has_more_entries_than_any_tree_is_neither_written_nor_read() {
        let nodes = || (0..4).map(|n| Node::new(vec![b'a' + n], NodeKind::Fifo));
        let (json, left) = json_within(nodes(), 3, usize::MAX).unwrap();
        assert_eq!(left, 1);
        assert_eq!(at_most::<3>(&json).unwrap().len(), 3);
        let (json, left) = json_within(nodes(), 4, usize::MAX).unwrap();
        assert_eq!(left, 0);
        let refused = at_most::<3>(&json).unwrap_err();
        assert!(refused.contains("more than 3 entries"), "{refused}");
    }

    #[test]
    fn a_tree_is_no_larger_than_what_is_read() {
        let mut large = Node::new(b"b".to_vec(), NodeKind::File);
        large.content = vec![Id([1; 32]); 100];
        let small = |name: &str| Node::new(name.into(), NodeKind::Fifo);
        let nodes = || [small("a"), large.clone(), small("c")].into_iter();
        let (whole, _) = json_within(nodes(), 3, usize::MAX).unwrap();
        let (same, left) = json_within(nodes(), 3, whole.len()).unwrap();
        assert_eq!((&same, left), (&whole, 0));
        // What does not fit is left out, not all that comes after it.
        let (json, left) = json_within(nodes(), 3, whole.len() - 1 - 1000).unwrap();
        let found = tree_from_json(&json).unwrap();
        let names: Vec<_> = found.iter().map(|node| &node.name[..]).collect();
        assert_eq!((names, left), (vec![&b"a"[..], b"c"], 1));
        // Sealed, the largest is one that is read.
        let sealed = BlobKind::Tree.largest() + crate::crypto::OVERHEAD;
        assert_eq!(sealed, BlobKind::Tree.most() as usize);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = tree_from_json(&bytes);
        }

        #[test]
        fn no_strange_json_makes_it_panic(text in "[{}\\[\\],:\"a-z0-9\\\\]{0,80}") {
            let _ = tree(&text);
        }
    }
}
