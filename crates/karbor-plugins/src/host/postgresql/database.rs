//! What a database is besides its contents: who may connect, its settings, its locale. `pg_restore`
//! brings that back only to a database that it makes itself, under the old name; so it is read from the
//! catalogs and kept as `database.json` in the snapshot, where it is encrypted: settings may be secret.

use karbor_plugin::PluginError;
use serde::{Deserialize, Serialize};

use super::{
    client::{Client, SLOW},
    lock_waits::shown,
};

/// Its name in the snapshot.
pub(super) const STORED_AS: &str = "database.json";

/// Most that is read of it, in bytes.
pub(super) const MOST: usize = 64 * 1024 * 1024;

/// The roles and tablespaces of the server, in the snapshot.
pub(super) const GLOBALS: &str = "globals.sql";

/// Where a database comes from. What it takes to make it again is in the snapshot; earlier checkpoints have
/// no more than this.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DatabasePlace {
    pub(crate) database: String,
    pub(crate) server_version: String,
    pub(crate) encoding: String,
    pub(crate) collate: String,
    pub(crate) ctype: String,
    pub(crate) owner: String,
    pub(crate) size: u64,
}

/// A database as it was.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Properties {
    encoding: String,
    collate: String,
    ctype: String,
    /// `c` (libc), `i` (ICU) or `b` (builtin); servers before version 15 know the first only.
    locale_provider: Option<String>,
    /// The locale of the two others.
    locale: Option<String>,
    icu_rules: Option<String>,
    owner: String,
    tablespace: Option<String>,
    /// -1: none.
    connection_limit: Option<i64>,
    is_template: bool,
    comment: Option<String>,
    /// Who may connect and more; absent when nothing was ever granted or revoked.
    acl: Option<Vec<Grant>>,
    /// Of `ALTER DATABASE … SET` and `ALTER ROLE … IN DATABASE … SET`.
    settings: Vec<Setting>,
    /// The roles that the contents name: owners and grantees.
    roles: Vec<String>,
    /// The tablespaces that the contents lie in.
    tablespaces: Vec<String>,
    extensions: Vec<String>,
    /// Of a checkpoint that knows no more than its place: the owner was never a must then.
    #[serde(skip)]
    scant: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Grant {
    /// Absent: everybody.
    grantee: Option<String>,
    privilege: String,
    grantable: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Setting {
    /// Absent: every role.
    role: Option<String>,
    name: String,
    value: String,
}

/// Columns that came with later versions are read by way of JSON.
const PROPERTIES: &str = "SELECT json_build_object(
    'encoding', pg_encoding_to_char(d.encoding), 'collate', d.datcollate, 'ctype', d.datctype,
    'locale_provider', j->>'datlocprovider', 'icu_rules', j->>'daticurules',
    'locale', coalesce(j->>'datlocale', j->>'daticulocale'),
    'owner', pg_get_userbyid(d.datdba),
    'tablespace', (SELECT spcname FROM pg_tablespace WHERE oid = d.dattablespace),
    'connection_limit', d.datconnlimit, 'is_template', d.datistemplate,
    'comment', shobj_description(d.oid, 'pg_database'),
    'acl', CASE WHEN d.datacl IS NOT NULL THEN (SELECT coalesce(json_agg(json_build_object(
        'grantee', CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END,
        'privilege', a.privilege_type, 'grantable', a.is_grantable)), '[]')
        FROM aclexplode(d.datacl) a) END,
    'settings', (SELECT coalesce(json_agg(json_build_object(
        'role', CASE s.setrole WHEN 0 THEN NULL ELSE pg_get_userbyid(s.setrole) END,
        'name', split_part(c, '=', 1), 'value', substr(c, strpos(c, '=') + 1))), '[]')
        FROM pg_db_role_setting s, unnest(s.setconfig) c WHERE s.setdatabase = d.oid),
    'roles', (SELECT coalesce(json_agg(DISTINCT r.rolname), '[]') FROM (
            SELECT s.refobjid AS oid, s.classid, s.objid FROM pg_shdepend s
                WHERE s.refclassid = 'pg_authid'::regclass AND s.dbid = d.oid
                AND s.deptype IN ('o', 'a', 'r') AND s.classid <> 'pg_extension'::regclass
            UNION ALL SELECT relowner, 'pg_class'::regclass, oid FROM pg_class WHERE oid >= 16384
            UNION ALL SELECT proowner, 'pg_proc'::regclass, oid FROM pg_proc WHERE oid >= 16384
            UNION ALL SELECT nspowner, 'pg_namespace'::regclass, oid FROM pg_namespace
                WHERE oid >= 16384 AND nspname NOT LIKE 'pg\\_%') o
        JOIN pg_roles r ON r.oid = o.oid
        WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = o.classid AND e.objid = o.objid
            AND e.deptype = 'e')
        AND NOT EXISTS (SELECT FROM pg_class c WHERE o.classid = 'pg_class'::regclass
            AND c.oid = o.objid AND (c.relpersistence = 't' OR c.relkind = 't'))),
    'tablespaces', (SELECT coalesce(json_agg(DISTINCT t.spcname), '[]') FROM pg_class c
        JOIN pg_tablespace t ON t.oid = c.reltablespace
        WHERE c.relpersistence <> 't' AND t.spcname <> 'pg_global'),
    'extensions', (SELECT coalesce(json_agg(extname), '[]') FROM pg_extension WHERE oid >= 16384))
    FROM pg_database d CROSS JOIN LATERAL (SELECT row_to_json(d) AS j) x
    WHERE d.datname = current_database();";

/// Roles, tablespaces and extensions of the checkpoint that the server does not have.
const LACKS: &str = "SELECT json_build_object(
    'version', current_setting('server_version_num')::int / 10000,
    'roles', (SELECT coalesce(json_agg(n), '[]') FROM json_array_elements_text(:'roles') n
        WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = n)),
    'tablespaces', (SELECT coalesce(json_agg(n), '[]') FROM json_array_elements_text(:'tablespaces') n
        WHERE NOT EXISTS (SELECT FROM pg_tablespace WHERE spcname = n)),
    'extensions', (SELECT coalesce(json_agg(n), '[]') FROM json_array_elements_text(:'extensions') n
        WHERE NOT EXISTS (SELECT FROM pg_available_extensions WHERE name = n)));";

/// What the server does not have of what is to be restored.
#[derive(Debug, Deserialize)]
pub(super) struct Lacks {
    /// The server's major version.
    pub(super) version: u32,
    pub(super) roles: Vec<String>,
    pub(super) tablespaces: Vec<String>,
    pub(super) extensions: Vec<String>,
}

/// How a database is to be made.
pub(super) struct Making<'a> {
    pub(super) client: &'a Client<'a>,
    /// The name under which it is made; nobody else uses it.
    pub(super) provisional: &'a str,
    /// Its comment until the restore is complete.
    pub(super) sign: &'a str,
    /// It belongs to the role that makes it, and no rights are given but everybody's.
    pub(super) no_owner: bool,
    /// In the server's default tablespace.
    pub(super) no_tablespaces: bool,
    /// The server's major version.
    pub(super) version: u32,
}

impl Properties {
    /// Reads those of a database.
    pub(super) async fn read(client: &Client<'_>) -> Result<Self, PluginError> {
        client.ask_json(client.database(), &[], PROPERTIES).await
    }

    /// What is not text in the encoding that the server says it is in, and cannot be kept: names given in a
    /// database of another encoding, or of none (`SQL_ASCII`).
    pub(super) fn garbled(&self) -> Option<String> {
        let is = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
        let settings = self
            .settings
            .iter()
            .any(|setting| is(&setting.value) || setting.role.as_deref().is_some_and(is));
        let grantees = self
            .acl
            .iter()
            .flatten()
            .filter_map(|grant| grant.grantee.as_deref());
        let parts = [
            ("its comment", self.comment.as_deref().is_some_and(is)),
            ("its owner", is(&self.owner)),
            (
                "a role",
                self.roles
                    .iter()
                    .map(String::as_str)
                    .chain(grantees)
                    .any(is),
            ),
            ("a setting", settings),
            ("a tablespace", self.tablespaces.iter().any(|name| is(name))),
        ];
        let found: Vec<_> = parts
            .iter()
            .filter(|(_, is)| *is)
            .map(|(what, _)| *what)
            .collect();
        (!found.is_empty()).then(|| {
            format!(
                "of the database these are not text in its encoding, and a restore cannot bring them back: {}; the data are in the checkpoint",
                found.join(", ")
            )
        })
    }

    /// What checkpoints of before kept.
    pub(super) fn of_place(place: &DatabasePlace) -> Self {
        Self {
            encoding: place.encoding.clone(),
            collate: place.collate.clone(),
            ctype: place.ctype.clone(),
            owner: place.owner.clone(),
            scant: true,
            ..Self::default()
        }
    }

    pub(super) fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// Its tablespace, if not the one that every server has and not every role may name.
    fn own_tablespace(&self) -> Option<&str> {
        self.tablespace
            .as_deref()
            .filter(|name| *name != "pg_default")
    }

    pub(super) fn is_template(&self) -> bool {
        self.is_template
    }

    /// The roles that own something or are granted something, and the tablespaces in use: two JSON arrays.
    pub(super) fn owners_and_tablespaces(&self) -> (String, String) {
        let mut roles = self.roles.clone();
        roles.push(self.owner.clone());
        let mut tablespaces = self.tablespaces.clone();
        tablespaces.extend(self.own_tablespace().map(str::to_owned));
        for names in [&mut roles, &mut tablespaces] {
            names.sort();
            names.dedup();
        }
        let list = |names: &[String]| serde_json::json!(names).to_string();
        (list(&roles), list(&tablespaces))
    }

    /// What the server lacks; `whole`: of the database itself too, not of its contents only.
    pub(super) async fn lacks(
        &self,
        client: &Client<'_>,
        whole: bool,
    ) -> Result<Lacks, PluginError> {
        let mut roles = self.roles.clone();
        let mut tablespaces = self.tablespaces.clone();
        if whole {
            let grantees = self.acl.iter().flatten().filter_map(|g| g.grantee.clone());
            roles.extend(grantees);
            roles.extend((!self.scant).then(|| self.owner.clone()));
            tablespaces.extend(self.own_tablespace().map(str::to_owned));
        }
        for names in [&mut roles, &mut tablespaces] {
            // Whether there is one whose name could not be kept is not known.
            names.retain(|name| !name.contains(char::REPLACEMENT_CHARACTER));
            names.sort();
            names.dedup();
        }
        let list = |names: &[String]| serde_json::json!(names).to_string();
        let (roles, tablespaces) = (list(&roles), list(&tablespaces));
        let extensions = list(&self.extensions);
        let variables = [
            ("roles", roles.as_str()),
            ("tablespaces", tablespaces.as_str()),
            ("extensions", extensions.as_str()),
        ];
        client
            .ask_json(client.maintenance(), &variables, LACKS)
            .await
    }

    /// Makes an empty database under its provisional name, signed, closed to everybody but its owner, with
    /// the settings that its contents may depend on. Answers with the settings that the server did not take.
    pub(super) async fn make(&self, making: &Making<'_>) -> Result<Vec<String>, PluginError> {
        let mut options = String::new();
        if making.version >= 15 {
            options.push_str(match self.locale_provider.as_deref() {
                Some("i") => " LOCALE_PROVIDER icu ICU_LOCALE :'locale'",
                Some("b") => " LOCALE_PROVIDER builtin BUILTIN_LOCALE :'locale'",
                _ => " LOCALE_PROVIDER libc",
            });
            if self.icu_rules.is_some() && making.version >= 16 {
                options.push_str(" ICU_RULES :'rules'");
            }
        } else if matches!(self.locale_provider.as_deref(), Some("i" | "b")) {
            return Err(PluginError::new(
                "the database sorts by a locale provider that this server does not have: restore to a server of version 15 or later, or make an empty database first and restore into it",
            ));
        }
        if self.own_tablespace().is_some() && !making.no_tablespaces {
            options.push_str(" TABLESPACE :\"tablespace\"");
        }
        let sql = format!(
            "DROP DATABASE IF EXISTS :\"provisional\" WITH (FORCE);
            CREATE DATABASE :\"provisional\" TEMPLATE template0 ENCODING :'encoding'
                LC_COLLATE :'collate' LC_CTYPE :'ctype'{options};
            COMMENT ON DATABASE :\"provisional\" IS :'sign';
            REVOKE ALL ON DATABASE :\"provisional\" FROM PUBLIC;
            {SETTINGS}"
        );
        let settings = serde_json::json!(self.settings).to_string();
        let variables = [
            ("provisional", making.provisional),
            ("sign", making.sign),
            ("encoding", &self.encoding),
            ("collate", &self.collate),
            ("ctype", &self.ctype),
            ("locale", self.locale.as_deref().unwrap_or_default()),
            ("rules", self.icu_rules.as_deref().unwrap_or_default()),
            ("tablespace", self.own_tablespace().unwrap_or_default()),
            ("settings", &settings),
        ];
        let client = making.client;
        let answer = client.ask_within(SLOW, client.maintenance(), &variables, &sql);
        let refused = answer.await?;
        // `set_config` answers first, each on a line of its own.
        let refused = refused.lines().last().unwrap_or_default();
        let refused: Vec<String> = serde_json::from_str(refused)
            .map_err(|e| PluginError::new("the server gave an unexpected answer").with_cause(e))?;
        let told = |what: String| {
            format!(
                "the server did not take a setting of the database, which it has to be given by hand: {what}"
            )
        };
        Ok(refused.into_iter().map(told).collect())
    }

    /// Gives a database that was made and filled its owner, rights and limits, and the name that it is to
    /// have, at once. `replaced`: the name that the database which has it now gets; `reopened`: that one takes
    /// connections again.
    pub(super) async fn settle(
        &self,
        making: &Making<'_>,
        name: &str,
        replaced: Option<&str>,
        reopened: bool,
    ) -> Result<(), PluginError> {
        let grants = serde_json::json!(self.grants(making.no_owner)).to_string();
        let limit = self.connection_limit.unwrap_or(-1).to_string();
        let owner = match (making.no_owner, &self.acl) {
            (true, _) => String::new(),
            (false, None) => OWNER.to_owned(),
            (false, Some(_)) => format!("{OWNER}{OWN_RIGHTS}"),
        };
        let aside = match replaced {
            Some(_) => "ALTER DATABASE :\"name\" RENAME TO :\"replaced\";",
            None => "",
        };
        let opened = match reopened {
            true => "ALTER DATABASE :\"replaced\" ALLOW_CONNECTIONS true;",
            false => "",
        };
        let sql = format!(
            "BEGIN; {owner} {GRANTS}
            ALTER DATABASE :\"provisional\" CONNECTION LIMIT :limit;
            {aside}
            ALTER DATABASE :\"provisional\" RENAME TO :\"name\";
            {opened}
            COMMIT;"
        );
        let variables = [
            ("name", name),
            ("provisional", making.provisional),
            ("owner", &self.owner),
            ("grants", &grants),
            ("limit", &limit),
            ("replaced", replaced.unwrap_or_default()),
        ];
        let client = making.client;
        let done = client.ask_within(SLOW, client.maintenance(), &variables, &sql);
        done.await.map(|_| ())
    }

    /// Gives a database that is there and empty the rights and settings that this one had, as far as the role
    /// may: nobody gets in, when it is filled, who could not before.
    pub(super) async fn adopt(
        &self,
        client: &Client<'_>,
        name: &str,
        no_owner: bool,
    ) -> Result<(), PluginError> {
        if self.scant {
            return Ok(());
        }
        let grants = serde_json::json!(self.grants(no_owner)).to_string();
        let settings = serde_json::json!(self.settings).to_string();
        let sql = format!(
            "\\set ON_ERROR_STOP 0
            REVOKE ALL ON DATABASE :\"provisional\" FROM PUBLIC;
            {GRANTS} {SETTINGS}"
        );
        let variables = [
            ("provisional", name),
            ("grants", &grants),
            ("settings", &settings),
        ];
        let done = client.ask_within(SLOW, client.maintenance(), &variables, &sql);
        done.await.map(|_| ())
    }

    /// Gives it, now that it is filled, also the comment, the limit and the owner. Answers with what is not as
    /// it was: what the role may not change.
    pub(super) async fn adopted(
        &self,
        client: &Client<'_>,
        name: &str,
        no_owner: bool,
    ) -> Result<Option<String>, PluginError> {
        if self.scant {
            return Ok(None);
        }
        let owner = if no_owner { "" } else { OWNER };
        let comment = match self.comment {
            Some(_) => "COMMENT ON DATABASE :\"provisional\" IS :'comment';",
            None => "",
        };
        let sql = format!(
            "\\set ON_ERROR_STOP 0
            {comment} ALTER DATABASE :\"provisional\" CONNECTION LIMIT :limit; {owner}"
        );
        let limit = self.connection_limit.unwrap_or(-1).to_string();
        let variables = [
            ("provisional", name),
            ("comment", self.comment.as_deref().unwrap_or_default()),
            ("limit", &limit),
            ("owner", &self.owner),
        ];
        client
            .ask_within(SLOW, client.maintenance(), &variables, &sql)
            .await?;
        let differs = self.differs(&Self::read(client).await?, no_owner);
        Ok((!differs.is_empty()).then(|| {
            format!(
                "the database was there, and its role may not make it all that it was, which has to be done by hand: {}",
                differs.join("; ")
            )
        }))
    }

    /// The properties that differ in `now`, for people.
    fn differs(&self, now: &Self, no_owner: bool) -> Vec<String> {
        let mut differs = Vec::new();
        let mut same = |same: bool, what: String| {
            if !same {
                differs.push(what);
            }
        };
        same(
            no_owner || self.owner == now.owner,
            format!("its owner was '{}'", shown(&self.owner)),
        );
        let text = |one: &Self| {
            let locale = one.locale.clone().unwrap_or_default();
            [&one.encoding, &one.collate, &one.ctype, &locale].map(Clone::clone)
        };
        same(
            text(self) == text(now),
            format!(
                "its encoding and locale were {}",
                shown(&text(self).join(" "))
            ),
        );
        // An owner's own rights are his to give.
        let grants = |one: &Self| {
            let mut grants = one.grants(no_owner);
            grants.retain(|grant| grant.grantee.as_ref() != Some(&one.owner));
            grants
        };
        let (had, has) = (grants(self), grants(now));
        let told = |grant: &Grant| {
            let grantee = grant.grantee.as_deref().map(shown);
            let grantee = grantee.map_or("everybody".to_owned(), |name| format!("'{name}'"));
            format!("{} of {grantee}", shown(&grant.privilege))
        };
        for grant in &has {
            same(
                had.contains(grant),
                format!("nobody had given the right {}", told(grant)),
            );
        }
        for grant in &had {
            same(
                has.contains(grant),
                format!("it had the right {}", told(grant)),
            );
        }
        for setting in &self.settings {
            let kept = now.settings.contains(setting);
            let role = setting.role.as_deref().map(shown);
            let role = role.map_or(String::new(), |role| format!(" of '{role}'"));
            same(kept, format!("the setting {}{role}", shown(&setting.name)));
        }
        same(
            self.connection_limit.unwrap_or(-1) == now.connection_limit.unwrap_or(-1),
            format!(
                "its limit of connections was {}",
                self.connection_limit.unwrap_or(-1)
            ),
        );
        same(
            self.comment.is_none() || self.comment == now.comment,
            "it had a comment".to_owned(),
        );
        differs
    }

    /// The rights to give. Nobody gets in who did not before: without owners, everybody's rights are those
    /// that everybody had.
    fn grants(&self, no_owner: bool) -> Vec<Grant> {
        let everybody = |privilege: &str| Grant {
            grantee: None,
            privilege: privilege.to_owned(),
            grantable: false,
        };
        let all = match &self.acl {
            Some(acl) => acl.clone(),
            None => vec![everybody("CONNECT"), everybody("TEMPORARY")],
        };
        let wanted = |grant: &Grant| !no_owner || grant.grantee.is_none();
        all.into_iter().filter(wanted).collect()
    }
}

/// A role that is gone owns nothing; that it is gone was refused or left out before.
const OWNER: &str = "SELECT format('ALTER DATABASE %I OWNER TO %I', :'provisional', :'owner')
    WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \\gexec
";

/// Where rights are listed, the owner's own are too.
const OWN_RIGHTS: &str =
    "SELECT format('REVOKE ALL ON DATABASE %I FROM %I', :'provisional', :'owner')
    WHERE EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \\gexec
";

const GRANTS: &str =
    "SELECT format('GRANT %s ON DATABASE %I TO %s%s', upper(g.privilege), :'provisional',
        coalesce(quote_ident(g.grantee), 'PUBLIC'),
        CASE WHEN g.grantable AND g.grantee IS NOT NULL THEN ' WITH GRANT OPTION' ELSE '' END)
    FROM json_to_recordset(:'grants') AS g(grantee text, privilege text, grantable bool)
    WHERE upper(g.privilege) IN ('CREATE', 'CONNECT', 'TEMPORARY') \\gexec
";

/// One by one: what only a superuser may set, or this server does not know, is told and left out. Some
/// settings are lists, which the catalog keeps as one text of quoted names.
const SETTINGS: &str = "SELECT set_config('karbor.settings', :'settings', false),
        set_config('karbor.database', :'provisional', false);
    DO $karbor$
    DECLARE
        given record;
        refused text[] := '{}';
        place text := format('DATABASE %I', current_setting('karbor.database'));
    BEGIN
        FOR given IN SELECT s.name, s.role, CASE WHEN s.name IN ('search_path', 'temp_tablespaces',
                    'local_preload_libraries', 'session_preload_libraries', 'shared_preload_libraries',
                    'unix_socket_directories')
                THEN coalesce((SELECT string_agg(quote_literal(coalesce(replace(m[1], '\"\"', '\"'), m[2])), ', ')
                    FROM regexp_matches(s.value, '\"((?:[^\"]|\"\")*)\"|([^\",[:space:]]+)', 'g') m), '''''')
                ELSE quote_literal(s.value) END AS value
            FROM json_to_recordset(current_setting('karbor.settings')::json)
                AS s(role text, name text, value text)
        LOOP
            BEGIN
                EXECUTE format('ALTER %s SET %I TO %s', CASE WHEN given.role IS NULL THEN place
                    ELSE format('ROLE %I IN %s', given.role, place) END, given.name, given.value);
            EXCEPTION WHEN OTHERS THEN
                refused := refused || (given.name || coalesce(' of ' || given.role, ''));
            END;
        END LOOP;
        PERFORM set_config('karbor.refused', array_to_json(refused)::text, false);
    END $karbor$;
    SELECT current_setting('karbor.refused');
";
