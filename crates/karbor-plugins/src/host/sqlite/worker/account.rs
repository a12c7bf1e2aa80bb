//! Whose rights a worker has.

use std::fs;

use serde::{Deserialize, Serialize};

/// A user of this host, and the groups he is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Account {
    pub(in super::super) user: u32,
    pub(super) group: u32,
    pub(super) groups: Vec<u32>,
}

impl Account {
    /// The account of a user, as `/etc/passwd` and `/etc/group` know it. One that they do not know has the
    /// group of its file and no other.
    pub(in super::super) fn of(user: u32, group: u32) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::among(&read("/etc/passwd"), &read("/etc/group"), user, group)
    }

    fn among(users: &str, groups: &str, user: u32, group: u32) -> Self {
        let mut known = users.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, id) = (fields.next()?, fields.nth(1)?);
            let primary = fields.next()?.parse().ok()?;
            (id.parse() == Ok(user)).then_some((name, primary))
        });
        let Some((name, primary)) = known.next() else {
            return Self {
                user,
                group,
                groups: Vec::new(),
            };
        };
        let of_name = groups.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let id = fields.nth(2)?.parse().ok()?;
            let mut members = fields.next()?.split(',');
            members.any(|member| member == name).then_some(id)
        });
        Self {
            user,
            group: primary,
            groups: of_name.collect(),
        }
    }

    /// An account that owns nothing: for what needs no rights at all.
    pub(in super::super) fn nobody() -> Self {
        Self {
            user: 65_534,
            group: 65_534,
            groups: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_groups_that_the_host_gives_him() {
        let users = "root:x:0:0::/root:/bin/sh\nalice:x:1000:100::/home/alice:/bin/sh\nbroken\n";
        let groups = "users:x:100:\nweb:x:33:bob,alice\nroot:x:0:\nmail:x:8:alicea\n";
        let of = |user| Account::among(users, groups, user, 7);
        let alice = of(1000);
        assert_eq!(
            (alice.user, alice.group, alice.groups),
            (1000, 100, vec![33])
        );
        let stranger = of(4000);
        assert_eq!((stranger.group, stranger.groups), (7, vec![]));
    }
}
