//! What would be in the way of a restore that replaces a database's objects in place: objects made since
//! that depend on one that would be dropped, and objects that cannot be dropped in a transaction.

use std::collections::HashMap;

use karbor_plugin::PluginError;
use serde::Deserialize;

use super::{client::Client, lock_waits::shown};

/// So many are named.
const NAMED: usize = 5;

/// The catalog's dependencies between what people made, each side under the words by which `pg_restore
/// --list` lists it, without owner; a part that may not be listed by itself also under those of what it is a
/// part of. The type of a table's rows or of arrays stands for what it comes with, a member of an extension
/// for the extension. What goes with something else by itself is left out.
const DEPENDENCIES: &str = "WITH relation AS (
        SELECT c.oid, n.nspname, c.relname, concat_ws(' ', CASE c.relkind WHEN 'v' THEN 'VIEW'
                WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE'
                WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, n.nspname, c.relname) AS text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't'
    ), entry(class, id, text, holder) AS (
        SELECT 'pg_class'::regclass::oid, oid, text, NULL FROM relation
        UNION ALL SELECT 'pg_class'::regclass, i.indexrelid, CASE WHEN k.oid IS NULL
                THEN concat_ws(' ', 'INDEX', r.nspname, x.relname)
                ELSE concat_ws(' ', 'CONSTRAINT', r.nspname, r.relname, k.conname) END, r.text
            FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN relation r ON r.oid = i.indrelid
            LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')
        UNION ALL SELECT 'pg_constraint'::regclass, k.oid, concat_ws(' ', CASE k.contype
                WHEN 'f' THEN 'FK CONSTRAINT' WHEN 'c' THEN 'CHECK CONSTRAINT' ELSE 'CONSTRAINT' END,
                r.nspname, r.relname, k.conname), r.text
            FROM pg_constraint k JOIN relation r ON r.oid = k.conrelid
        UNION ALL SELECT 'pg_attrdef'::regclass, d.oid,
                concat_ws(' ', 'DEFAULT', r.nspname, r.relname, a.attname), r.text
            FROM pg_attrdef d JOIN relation r ON r.oid = d.adrelid
            JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
        UNION ALL SELECT 'pg_rewrite'::regclass, w.oid,
                concat_ws(' ', 'RULE', r.nspname, r.relname, w.rulename), r.text
            FROM pg_rewrite w JOIN relation r ON r.oid = w.ev_class
        UNION ALL SELECT 'pg_trigger'::regclass, g.oid,
                concat_ws(' ', 'TRIGGER', r.nspname, r.relname, g.tgname), r.text
            FROM pg_trigger g JOIN relation r ON r.oid = g.tgrelid WHERE NOT g.tgisinternal
        UNION ALL SELECT 'pg_policy'::regclass, o.oid,
                concat_ws(' ', 'POLICY', r.nspname, r.relname, o.polname), r.text
            FROM pg_policy o JOIN relation r ON r.oid = o.polrelid
        UNION ALL SELECT 'pg_type'::regclass, t.oid, concat_ws(' ', CASE t.typtype WHEN 'd' THEN 'DOMAIN'
                ELSE 'TYPE' END, n.nspname, t.typname), NULL
            FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype <> 'm'
        UNION ALL SELECT 'pg_proc'::regclass, p.oid, concat_ws(' ', CASE p.prokind WHEN 'p' THEN 'PROCEDURE'
                WHEN 'a' THEN 'AGGREGATE' ELSE 'FUNCTION' END, n.nspname, p.proname || '('), NULL
            FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        UNION ALL SELECT 'pg_namespace'::regclass, oid, concat_ws(' ', 'SCHEMA -', nspname), NULL FROM pg_namespace
        UNION ALL SELECT 'pg_extension'::regclass, oid, concat_ws(' ', 'EXTENSION -', extname), NULL
            FROM pg_extension
    ), type(id, of_class, of_id) AS (
        SELECT t.oid, 'pg_class'::regclass::oid, t.typrelid FROM pg_type t
            JOIN pg_class c ON c.oid = t.typrelid AND c.relkind <> 'c'
        UNION ALL SELECT t.typarray, CASE WHEN c.oid IS NULL THEN 'pg_type'::regclass ELSE 'pg_class'::regclass END,
            coalesce(c.oid, t.oid) FROM pg_type t
            LEFT JOIN pg_class c ON c.oid = t.typrelid AND c.relkind <> 'c' WHERE t.typarray <> 0
    ), edge AS (
        SELECT d.classid AS by_class, d.objid AS by_id,
            coalesce(q.of_class, d.refclassid) AS class, coalesce(q.of_id, d.refobjid) AS id
        FROM pg_depend d
        LEFT JOIN type q ON d.refclassid = 'pg_type'::regclass AND q.id = d.refobjid
        WHERE d.deptype = 'n' AND d.objid >= 16384 AND d.refobjid >= 16384
        AND NOT EXISTS (SELECT FROM pg_depend w WHERE w.classid = d.classid AND w.objid = d.objid
            AND w.classid IN ('pg_class'::regclass, 'pg_type'::regclass, 'pg_proc'::regclass)
            AND w.deptype IN ('a', 'i'))
    ), owned AS (
        SELECT DISTINCT coalesce(x.refclassid, e.by_class) AS by_class, coalesce(x.refobjid, e.by_id) AS by_id,
            coalesce(y.refclassid, e.class) AS class, coalesce(y.refobjid, e.id) AS id
        FROM edge e
        LEFT JOIN pg_depend x ON x.classid = e.by_class AND x.objid = e.by_id AND x.deptype = 'e'
        LEFT JOIN pg_depend y ON y.classid = e.class AND y.objid = e.id AND y.deptype = 'e'
    )
    SELECT json_build_object(
        'dependencies', (SELECT coalesce(json_agg(json_build_object('by', b.text, 'holder', b.holder,
                'on', e.text, 'on_holder', e.holder)), '[]')
            FROM owned o JOIN entry b ON b.class = o.by_class AND b.id = o.by_id
            JOIN entry e ON e.class = o.class AND e.id = o.id
            WHERE b.text <> e.text AND b.holder IS DISTINCT FROM e.text),
        'subscriptions', (SELECT coalesce(json_agg(concat_ws(' ', 'SUBSCRIPTION -', subname)), '[]')
            FROM pg_subscription WHERE subslotname IS NOT NULL AND subdbid =
                (SELECT oid FROM pg_database WHERE datname = current_database())));";

#[derive(Debug, Deserialize)]
struct Found {
    dependencies: Vec<Dependency>,
    subscriptions: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    by: String,
    /// What it is a part of, if it is one.
    holder: Option<String>,
    on: String,
    on_holder: Option<String>,
}

/// The contents of a dump, in its order: what comes later is dropped first.
struct Contents<'a>(HashMap<&'a str, Vec<(usize, &'a str)>>);

impl<'a> Contents<'a> {
    /// Of what `pg_restore --list` prints.
    fn of(entries: &[&'a str]) -> Self {
        let mut all: HashMap<&str, Vec<(usize, &str)>> = HashMap::new();
        for (at, entry) in entries.iter().enumerate() {
            let kind = entry.split(' ').next().unwrap_or_default();
            all.entry(kind).or_default().push((at, entry));
        }
        Self(all)
    }

    /// Where one is.
    fn position(&self, text: &str) -> Option<usize> {
        let kind = text.split(' ').next().unwrap_or_default();
        let same = |entry: &str| {
            entry
                .strip_prefix(text)
                .is_some_and(|rest| text.ends_with('(') || rest.is_empty() || rest.starts_with(' '))
        };
        let found = self.0.get(kind)?.iter().find(|(_, entry)| same(entry));
        found.map(|(at, _)| *at)
    }
}

/// What is in the way of replacing what the dump holds, if anything, and what to do. `entries`: what the
/// dump's list has after the numbers.
pub(super) async fn find(
    client: &Client<'_>,
    database: &str,
    entries: &[&str],
) -> Result<Option<String>, PluginError> {
    let found: Found = client.ask_json_as_dumped(database, DEPENDENCIES).await?;
    let named = in_the_way(&found, entries);
    if named.is_empty() {
        return Ok(None);
    }
    let more = match named.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let list: Vec<_> = named.into_iter().take(NAMED).collect();
    Ok(Some(format!(
        "it cannot be replaced in place: {}{more}. Restore with 'swap', which puts the whole database back and \
         keeps the present one under another name, or under a new name with 'database', or drop what is in the way",
        list.join("; ")
    )))
}

fn in_the_way(found: &Found, entries: &[&str]) -> Vec<String> {
    let contents = Contents::of(entries);
    let mut named = Vec::new();
    // A part goes with what it is a part of, unless it is dropped by itself before.
    let goes = |text: &str, holder: Option<&str>| {
        let own = contents.position(text);
        own.or_else(|| contents.position(holder?))
    };
    for found in &found.dependencies {
        let Dependency { by, on, .. } = found;
        let Some(dropped) = goes(on, found.on_holder.as_deref()) else {
            continue;
        };
        // Its name may not be spelt here as there.
        if by.contains(char::REPLACEMENT_CHARACTER) {
            continue;
        }
        // People know a view, and not its rule.
        let holder = found.holder.as_deref();
        let called = holder.filter(|_| by.starts_with("RULE ")).unwrap_or(by);
        let (called, on) = (shown(called), shown(on));
        match goes(by, holder) {
            Some(before) if before > dropped => {}
            Some(_) => named.push(format!("{called} depends on {on} since")),
            None => named.push(format!("{called} was made since and depends on {on}")),
        }
    }
    let subscriptions = found.subscriptions.iter();
    let replaced = subscriptions.filter(|one| contents.position(one).is_some());
    named.extend(replaced.map(|one| format!("{} cannot be dropped in a transaction", shown(one))));
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pairs: &[(&str, &str)]) -> Found {
        let dependency = |(by, on): &(&str, &str)| Dependency {
            by: (*by).to_owned(),
            holder: Some("TABLE public o".to_owned()),
            on: (*on).to_owned(),
            on_holder: None,
        };
        Found {
            dependencies: pairs.iter().map(dependency).collect(),
            subscriptions: vec!["SUBSCRIPTION - s".to_owned()],
        }
    }

    #[test]
    fn only_what_is_dropped_too_late_or_not_at_all_is_in_the_way() {
        let entries = [
            "FUNCTION public f(integer) shop",
            "TABLE public p shop",
            "VIEW public v shop",
            "TABLE public o shop",
            "CONSTRAINT public p p_pkey shop",
            "FK CONSTRAINT public o o_p_fkey shop",
        ];
        let fine = [
            ("VIEW public v", "TABLE public p"),
            ("FK CONSTRAINT public o o_p_fkey", "TABLE public p"),
            ("TABLE public p", "FUNCTION public f("),
            ("TABLE public mine", "TABLE public mine_too"),
            ("FK CONSTRAINT public o o_p_since", "TABLE public p"),
        ];
        assert!(in_the_way(&found(&fine), &entries).is_empty());
        for (by, on, wanted) in [
            ("FUNCTION public f(", "TABLE public p", "since"),
            // The key is dropped before the table that refers to it.
            (
                "FK CONSTRAINT public o o_p_since",
                "CONSTRAINT public p p_pkey",
                "since",
            ),
            ("VIEW public v2", "TABLE public p", "made since"),
            (
                "FK CONSTRAINT public q q_fkey",
                "TABLE public p",
                "made since",
            ),
        ] {
            let mut found = found(&[(by, on)]);
            if !by.contains(" o ") {
                found.dependencies[0].holder = None;
            }
            let named = in_the_way(&found, &entries);
            assert!(named[0].contains(wanted), "{named:?}");
        }
        let named = in_the_way(&found(&[]), &["SUBSCRIPTION - s shop"]);
        assert!(named[0].contains("transaction"), "{named:?}");
    }
}
