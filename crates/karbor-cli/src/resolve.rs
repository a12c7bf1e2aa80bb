//! What a person typed, turned into what the API wants.

use serde_json::Value;
use uuid::Uuid;

use crate::{client::Client, error::CliError, output::string};

/// The type of applications, the top of what a host has to protect.
pub(crate) const APPLICATION: &str = "Host::Application";

/// At most this many names are offered when one is not found.
const OFFERED: usize = 8;

/// The entry of a listing whose id or, failing that, name is `wanted`.
fn pick(what: &str, wanted: &str, entries: &[Value], listing: &str) -> Result<Value, CliError> {
    if let Some(entry) = entries.iter().find(|entry| same_id(entry, wanted)) {
        return Ok(entry.clone());
    }
    let named: Vec<_> = entries
        .iter()
        .filter(|entry| string(entry, "name") == wanted)
        .collect();
    match named.as_slice() {
        [entry] => Ok((*entry).clone()),
        [] => Err(
            CliError::not_found(format!("there is no {what} '{wanted}'"))
                .hint(offer(entries, listing)),
        ),
        several => {
            let ids: Vec<_> = several.iter().map(|entry| string(entry, "id")).collect();
            Err(CliError::usage(format!(
                "there are {} {what}s named '{wanted}'",
                several.len()
            ))
            .hint(format!("use an id: {}", ids.join(", "))))
        }
    }
}

fn same_id(entry: &Value, wanted: &str) -> bool {
    let id = string(entry, "id");
    id == wanted
        || matches!(
            (Uuid::try_parse(id), Uuid::try_parse(wanted)),
            (Ok(id), Ok(wanted)) if id == wanted
        )
}

fn offer(entries: &[Value], listing: &str) -> String {
    let names: Vec<_> = entries
        .iter()
        .take(OFFERED)
        .map(|entry| string(entry, "name"))
        .collect();
    if names.is_empty() {
        return format!("there are none yet; `{listing}` lists them");
    }
    let more = if entries.len() > OFFERED { ", …" } else { "" };
    format!("there are: {}{more} (`{listing}`)", names.join(", "))
}

impl Client {
    pub(crate) async fn providers(&self) -> Result<Vec<Value>, CliError> {
        self.list(&["providers"], "providers", &[], None).await
    }

    /// A provider by id or name.
    pub(crate) async fn provider(&self, wanted: &str) -> Result<Value, CliError> {
        pick(
            "provider",
            wanted,
            &self.providers().await?,
            "karbor provider list",
        )
    }

    /// The provider that was named, or the only one that protects the type.
    pub(crate) async fn provider_for(
        &self,
        wanted: Option<&str>,
        resource_type: &str,
    ) -> Result<Value, CliError> {
        if let Some(wanted) = wanted {
            return self.provider(wanted).await;
        }
        let providers = self.providers().await?;
        let fit: Vec<_> = providers
            .iter()
            .filter(|provider| {
                provider["extended_info_schema"]["options_schema"]
                    .get(resource_type)
                    .is_some()
            })
            .collect();
        match fit.as_slice() {
            [provider] => Ok((*provider).clone()),
            [] => Err(
                CliError::not_found(format!("no provider protects {resource_type}"))
                    .hint("`karbor provider list` shows what there is; providers.d declares more"),
            ),
            several => {
                let names: Vec<_> = several.iter().map(|entry| string(entry, "name")).collect();
                Err(CliError::usage(format!(
                    "several providers protect {resource_type}: {}",
                    names.join(", ")
                ))
                .hint("choose one with --provider"))
            }
        }
    }

    pub(crate) async fn plans(&self) -> Result<Vec<Value>, CliError> {
        self.list(&["plans"], "plans", &[], None).await
    }

    /// A plan by id or name.
    pub(crate) async fn plan(&self, wanted: &str) -> Result<Value, CliError> {
        if Uuid::try_parse(wanted).is_ok() {
            return Ok(self.get(&["plans", wanted]).await?["plan"].take());
        }
        pick("plan", wanted, &self.plans().await?, "karbor plan list")
    }

    /// A trigger by id or name.
    pub(crate) async fn trigger(&self, wanted: &str) -> Result<Value, CliError> {
        if Uuid::try_parse(wanted).is_ok() {
            return Ok(self.get(&["triggers", wanted]).await?["trigger_info"].take());
        }
        let all = self.list(&["triggers"], "triggers", &[], None).await?;
        pick("trigger", wanted, &all, "karbor trigger list")
    }

    /// A scheduled operation by id or name.
    pub(crate) async fn scheduled_operation(&self, wanted: &str) -> Result<Value, CliError> {
        let path = ["scheduled_operations"];
        if Uuid::try_parse(wanted).is_ok() {
            return Ok(self.get(&[path[0], wanted]).await?["scheduled_operation"].take());
        }
        let all = self.list(&path, "operations", &[], None).await?;
        let listing = "karbor scheduled-operation list";
        pick("scheduled operation", wanted, &all, listing)
    }

    pub(crate) async fn instances(&self, resource_type: &str) -> Result<Vec<Value>, CliError> {
        let path = ["protectables", resource_type, "instances"];
        self.list(&path, "instances", &[], None).await
    }

    /// A resource by type and id or name.
    pub(crate) async fn instance(&self, kind: &str, wanted: &str) -> Result<Value, CliError> {
        let listing = format!("karbor protectable instances {kind}");
        pick(kind, wanted, &self.instances(kind).await?, &listing)
    }

    /// A checkpoint by id, or by the beginning of one, with its provider's id. Without a named
    /// provider every one is asked: a checkpoint's id does not say where it lies.
    pub(crate) async fn checkpoint(
        &self,
        wanted: &str,
        provider: Option<&str>,
    ) -> Result<(String, Value), CliError> {
        let providers = match provider {
            Some(provider) => vec![self.provider(provider).await?],
            None => self.providers().await?,
        };
        let whole = Uuid::try_parse(wanted).is_ok();
        let mut found = Vec::new();
        for provider in &providers {
            let id = string(provider, "id");
            if whole {
                match self.get(&["providers", id, "checkpoints", wanted]).await {
                    Ok(mut answer) => return Ok((id.to_owned(), answer["checkpoint"].take())),
                    Err(error) if error.exit == crate::Exit::NotFound => {}
                    Err(error) => return Err(error),
                }
            } else if wanted.len() >= 4 {
                let path = ["providers", id, "checkpoints"];
                let all = self.list(&path, "checkpoints", &[], None).await?;
                let fit = all
                    .into_iter()
                    .filter(|entry| string(entry, "id").starts_with(wanted));
                found.extend(fit.map(|entry| (id.to_owned(), entry)));
            }
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(CliError::not_found(format!("there is no checkpoint '{wanted}'")).hint(
                "`karbor checkpoint list` shows what there is; an id may be cut short to four or \
                 more characters",
            )),
            several => Err(CliError::usage(format!(
                "{several} checkpoints begin with '{wanted}'; give more of the id"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_wins_over_a_name() {
        let entries = [
            json!({"id": "1", "name": "2"}),
            json!({"id": "2", "name": "other"}),
        ];
        assert_eq!(pick("plan", "2", &entries, "l").unwrap()["name"], "other");
    }

    #[test]
    fn an_ambiguous_name_lists_the_ids() {
        let entries = [
            json!({"id": "1", "name": "x"}),
            json!({"id": "2", "name": "x"}),
        ];
        let error = pick("plan", "x", &entries, "l").unwrap_err();
        assert_eq!(error.exit, crate::Exit::Usage);
        assert_eq!(
            error.to_string(),
            "error: there are 2 plans named 'x'\n  hint: use an id: 1, 2"
        );
    }
}
