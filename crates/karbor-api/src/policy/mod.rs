//! Who may do what: the rules, and asking them.
//!
//! The rules are oslo.policy's, in its language, under the original's names and with its defaults
//! ([`DEFAULTS`]); a `policy.yaml` says otherwise where it wants. A rule is named beside its endpoint's route and
//! travels from there with who asks ([`Caller`]); each is asked once, with what the request acts on as the target:
//! of a project ([`Policy::permit`], without whose [`Permit`] [`ApiManager`](crate::ApiManager) lists and makes
//! nothing), or of a record once that is read ([`Policy::allow_on`]).
//!
//! Everything that is not clearly allowed is refused: a rule that is not there, an attribute that the
//! target lacks. What is not clear does not get that far: a file with a rule that cannot be read, that
//! refers to nothing or to itself, is not taken. At start it stops the service; later, the rules that
//! were in force stay, and the log says which line to mend. A rule decides by what is here: there are
//! no `http:` checks.
//!
//! Whether somebody is an administrator is itself a rule, `context_is_admin`, asked once per request
//! when the token is known; `is_admin:True` in other rules is its answer.

mod caller;
mod check;
mod defaults;
mod files;
mod parse;
mod rules;

use std::{
    borrow::Cow,
    cell::OnceCell,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use karbor_manager::Clock;
use karbor_model::RequestContext;
use serde_json::{Map, Value};

pub(crate) use self::caller::{Caller, Permit};
use self::files::Stamp;
pub use self::{
    check::{Check, Subject, Target, Template},
    defaults::{DEFAULTS, RuleDefault, sample},
    files::{PolicyError, PolicyFiles},
    parse::RuleError,
    rules::{LineError, Rules},
};

/// The policy file when none is named.
pub(crate) const POLICY_FILE: &str = "policy.yaml";

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The policies in force.
pub struct Policy {
    clock: Arc<dyn Clock>,
    state: Mutex<Loaded>,
}

struct Loaded {
    files: Option<PolicyFiles>,
    rules: Arc<Rules>,
    looked_at: Duration,
    /// What the files looked like when `rules` was read.
    stamp: Stamp,
    /// What is wrong with them since, told once.
    trouble: Option<String>,
}

impl Loaded {
    /// Reads the files again if they look different; what fails is tried again at the next look.
    fn renew(
        &mut self,
        stamp: Result<Stamp, PolicyError>,
        load: impl FnOnce() -> Result<Rules, PolicyError>,
    ) {
        let renewed = match stamp {
            Ok(stamp) if stamp == self.stamp => {
                self.trouble = None;
                return;
            }
            // It may only be on its way to a new version: what it forbade is not allowed meanwhile.
            Ok(stamp) => match self.stamp.keys().find(|file| !stamp.contains_key(*file)) {
                Some(file) => Err(format!(
                    "{} is gone; SIGHUP, or a restart, does without it",
                    file.display()
                )),
                None => load()
                    .map(|rules| (stamp, rules))
                    .map_err(|error| error.to_string()),
            },
            Err(error) => Err(error.to_string()),
        };
        match renewed {
            Ok((stamp, rules)) => {
                tracing::info!("the policies were read anew");
                self.rules = Arc::new(rules);
                self.stamp = stamp;
                self.trouble = None;
            }
            Err(trouble) => {
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::error!("the policies stay as they were: {trouble}");
                }
                self.trouble = Some(trouble);
            }
        }
    }
}

impl std::fmt::Debug for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policy").finish_non_exhaustive()
    }
}

impl Policy {
    /// The defaults, for good.
    #[must_use]
    pub fn defaults(clock: Arc<dyn Clock>) -> Self {
        Self::new(None, Rules::default(), Stamp::new(), clock)
    }

    /// What the files say, now and whenever they change.
    ///
    /// # Errors
    /// [`PolicyError`] when they cannot be read.
    pub fn open(files: PolicyFiles, clock: Arc<dyn Clock>) -> Result<Self, PolicyError> {
        let stamp = files.stamp()?;
        let rules = files.load()?;
        Ok(Self::new(Some(files), rules, stamp, clock))
    }

    fn new(files: Option<PolicyFiles>, rules: Rules, stamp: Stamp, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(Loaded {
            files,
            rules: Arc::new(rules),
            looked_at: clock.monotonic(),
            stamp,
            trouble: None,
        });
        Self { clock, state }
    }

    /// What these files say from now on, whether or not they look different: an operator asked for it.
    ///
    /// # Errors
    /// [`PolicyError`] when they cannot be read; then the rules stay as they were.
    pub fn reload(&self, files: PolicyFiles) -> Result<(), PolicyError> {
        let stamp = files.stamp()?;
        let rules = Arc::new(files.load()?);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = Loaded {
            files: Some(files),
            rules,
            looked_at: self.clock.monotonic(),
            stamp,
            trouble: None,
        };
        Ok(())
    }

    /// May the caller do what the rule names in `project`? For what has no record: lists, creating.
    ///
    /// # Errors
    /// [`Denied`].
    pub(crate) fn permit<'a>(
        &self,
        caller: Caller<'a>,
        project: &'a str,
    ) -> Result<Permit<'a>, Denied> {
        self.ask(caller, &Asked::new(caller.context(), project, None))?;
        Ok(Permit::new(caller, project))
    }

    /// May the caller do what the rule names to `record` of `project`?
    ///
    /// # Errors
    /// [`Denied`].
    pub(crate) fn allow_on(
        &self,
        caller: Caller<'_>,
        project: &str,
        record: &dyn Fn() -> Value,
    ) -> Result<(), Denied> {
        let target = Asked::new(caller.context(), project, Some(record));
        self.ask(caller, &target)
    }

    fn ask(&self, caller: Caller<'_>, target: &Asked<'_>) -> Result<(), Denied> {
        let (rules, rule) = (self.rules(), caller.rule());
        match rules.allow(rule, &credentials(caller.context()), target) {
            true => Ok(()),
            false => Err(Denied { rule }),
        }
    }

    /// Is who asks an administrator? Told by roles and names alone: `context.is_admin` is the answer
    /// of this.
    pub(crate) fn is_admin(&self, context: &RequestContext) -> bool {
        let mut credentials = credentials(context);
        credentials.remove("is_admin");
        self.rules()
            .allow("context_is_admin", &credentials, &credentials)
    }

    /// The rules in force, after a look at the files if the last one was a while ago.
    fn rules(&self) -> Arc<Rules> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(files) = state.files.clone() else {
            return state.rules.clone();
        };
        let now = self.clock.monotonic();
        if now.saturating_sub(state.looked_at) < LOOK_EVERY {
            return state.rules.clone();
        }
        state.looked_at = now;
        state.renew(files.stamp(), || files.load());
        state.rules.clone()
    }
}

/// The policy does not allow what a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) rule: &'static str,
}

/// What rules may ask of who asks.
fn credentials(context: &RequestContext) -> Map<String, Value> {
    let mut credentials = Map::new();
    credentials.insert("is_admin".to_owned(), context.is_admin.into());
    credentials.insert("roles".to_owned(), context.roles.clone().into());
    credentials.insert("project_id".to_owned(), context.project_id.clone().into());
    credentials.insert(
        "is_admin_project".to_owned(),
        context.is_admin_project.into(),
    );
    if let Some(user) = &context.user_id {
        credentials.insert("user_id".to_owned(), user.clone().into());
    }
    credentials
}

/// The target of a request: a project, the user unless the record has one, and the record itself,
/// which is taken apart only when a rule asks for more.
struct Asked<'a> {
    project: &'a str,
    user: Option<&'a str>,
    record: Option<&'a dyn Fn() -> Value>,
    taken_apart: OnceCell<Value>,
}

impl<'a> Asked<'a> {
    fn new(
        context: &'a RequestContext,
        project: &'a str,
        record: Option<&'a dyn Fn() -> Value>,
    ) -> Self {
        Self {
            project,
            user: context.user_id.as_deref(),
            record,
            taken_apart: OnceCell::new(),
        }
    }
}

impl Target for Asked<'_> {
    fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        if name == "project_id" {
            return Some(Cow::Borrowed(self.project));
        }
        if let Some(record) = self.record
            && let Some(value) = self.taken_apart.get_or_init(record).get(name)
        {
            return Some(check::printed(value));
        }
        (name == "user_id")
            .then_some(self.user)
            .flatten()
            .map(Cow::Borrowed)
    }
}

#[cfg(test)]
mod tests;
