//! Whose records a caller gets: the one rule for a record that is named, and the one for a list.
//!
//! A record of another project does not exist for the caller (404), unless it is of a kind that the original was
//! recorded to admit (403). Policies come after it: they can narrow what a project may do with its own, and open
//! nothing of another's (`docs/adr/0026`). A list is of the caller's project; an administrator alone may ask for
//! more. Handlers pass on what was asked for and choose none of this.

use std::collections::BTreeSet;

use karbor_db::ListQuery;
use karbor_model::{OperationLog, Plan, Readback, RequestContext, ScheduledOperation, Trigger};
use serde::Serialize;
use serde_json::{Value, json};

use super::ApiManager;
use crate::{
    page::Page,
    policy::{Caller, Denied},
    refusal::{RecordKind, Refusal},
};

/// A record that belongs to a project.
pub(super) trait Owned: Serialize {
    fn kind(&self) -> RecordKind;

    fn shown_id(&self) -> String;

    fn project(&self) -> &str;

    /// What a policy can name of it.
    fn attributes(&self) -> Value {
        json!(self)
    }
}

macro_rules! owned {
    ($($record:ident: $kind:expr),+ $(,)?) => {$(
        impl Owned for $record {
            fn kind(&self) -> RecordKind {
                let kind: fn(&Self) -> RecordKind = $kind;
                kind(self)
            }

            fn shown_id(&self) -> String {
                self.id.to_string()
            }

            fn project(&self) -> &str {
                &self.project_id
            }
        }
    )+};
}

impl Owned for OperationLog {
    fn kind(&self) -> RecordKind {
        RecordKind::OperationLog
    }

    fn shown_id(&self) -> String {
        self.id.to_string()
    }

    fn project(&self) -> &str {
        &self.project_id
    }

    /// With the original's name for the readback that it is about.
    fn attributes(&self) -> Value {
        let mut attributes = json!(self);
        for (name, id) in self.readback_ids() {
            attributes[name] = id;
        }
        attributes
    }
}

owned!(
    Plan: |_| RecordKind::Plan,
    Readback: |readback| RecordKind::Readback(readback.operation),
    Trigger: |_| RecordKind::Trigger,
    ScheduledOperation: |_| RecordKind::ScheduledOperation,
);

/// Did the original admit that another project has a record of this kind?
fn is_admitted(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Trigger)
}

/// Is the record one that the caller may know of?
///
/// # Errors
/// A 404 as for an id that nobody has; a 403 that names the caller's rule where [`is_admitted`] says so.
fn require_own<R: Owned>(caller: Caller<'_>, record: &R) -> Result<(), Refusal> {
    if caller.context().may_access(record.project()) {
        Ok(())
    } else if is_admitted(record.kind()) {
        let rule = caller.rule();
        Err(Denied { rule }.into())
    } else {
        Err(hidden(record))
    }
}

fn hidden<R: Owned>(record: &R) -> Refusal {
    Refusal::not_found(record.kind(), record.shown_id())
}

impl ApiManager {
    /// May the caller do what its rule names to a record?
    pub(super) fn may_use(&self, caller: Caller<'_>, record: &impl Owned) -> Result<(), Refusal> {
        require_own(caller, record)?;
        Ok(self
            .policy
            .allow_on(caller, record.project(), &|| record.attributes())?)
    }

    /// May the caller see a record? One that its rule forbids it to see does not exist for it: so it was
    /// with plans, restores, verifications and the operation log.
    pub(super) fn may_see(&self, caller: Caller<'_>, record: &impl Owned) -> Result<(), Refusal> {
        require_own(caller, record)?;
        self.policy
            .allow_on(caller, record.project(), &|| record.attributes())
            .map_err(|_| hidden(record))
    }
}

/// What becomes of filters that a list does not know. The original's lists differed, and clients rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnknownFilters {
    Ignored,
    /// Ignored for a member; an administrator finds nothing.
    FindNothing,
}

/// What the database is asked for a page: the caller's own records, or those that an administrator asked for.
/// `None` where nothing can match. A list as the value of a filter means one of its values.
pub(super) fn scoped(
    context: &RequestContext,
    page: &Page,
    known: &[&str],
    unknown: UnknownFilters,
) -> Option<ListQuery> {
    let mut filters = Vec::with_capacity(page.filters.len());
    let mut exact = BTreeSet::new();
    let mut project = (!page.is_of_all_projects(context)).then(|| context.project_id.clone());
    for filter in &page.filters {
        let is_known = known.contains(&filter.name.as_str());
        if filter.name == "project_id" || is_known {
            exact.extend(filter.one_of.is_some().then(|| filter.name.clone()));
            let only = [filter.text.clone()];
            let values = filter.one_of.as_deref().unwrap_or(&only);
            match (&project, values) {
                // One of none.
                (_, []) => return None,
                (Some(own), _) if !is_known => {
                    if !values.contains(own) {
                        return None;
                    }
                }
                (None, [only]) if !is_known => project = Some(only.clone()),
                _ => filters.extend(
                    values
                        .iter()
                        .map(|value| (filter.name.clone(), value.clone())),
                ),
            }
        } else if context.is_admin && unknown == UnknownFilters::FindNothing {
            return None;
        }
    }
    Some(ListQuery {
        project,
        filters,
        exact,
        marker: page.marker.clone(),
        limit: Some(page.limit),
        offset: page.offset,
        sort: page.sort.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Filter;

    fn page(filters: &[(&str, &str)], all_tenants: bool) -> Page {
        let filters = filters.iter().map(|(name, text)| Filter {
            name: (*name).to_owned(),
            text: (*text).to_owned(),
            one_of: None,
        });
        Page {
            filters: filters.collect(),
            all_tenants,
            ..Page::default()
        }
    }

    fn user(is_admin: bool) -> RequestContext {
        RequestContext::for_project("u", "p", is_admin)
    }

    fn of(context: &RequestContext, page: &Page) -> Option<ListQuery> {
        scoped(context, page, &["status"], UnknownFilters::FindNothing)
    }

    #[test]
    fn only_an_administrator_lists_all_projects() {
        let all = page(&[], true);
        assert_eq!(of(&user(true), &all).unwrap().project, None);
        let member = of(&user(false), &all).unwrap();
        assert_eq!(member.project.as_deref(), Some("p"));
    }

    #[test]
    fn a_member_never_lists_another_project() {
        let foreign = page(&[("project_id", "q")], true);
        assert!(of(&user(false), &foreign).is_none());
        let listed = of(&user(true), &foreign).unwrap();
        assert_eq!(listed.project.as_deref(), Some("q"));
        let unknown = page(&[("bogus", "1"), ("status", "x")], false);
        let listed = of(&user(false), &unknown).unwrap();
        assert_eq!(listed.project.as_deref(), Some("p"));
        assert_eq!(listed.filters, [("status".to_owned(), "x".to_owned())]);
        assert!(of(&user(true), &unknown).is_none());
    }
}
