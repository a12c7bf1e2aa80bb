//! `karbor protect`: find the plan, or make one for the application, and make a checkpoint.

use clap::Args;
use serde_json::{Value, json};

use super::{application, checkpoint, plan};
use crate::{
    arguments::WaitOptions,
    error::{CliError, Exit},
    output::string,
    resolve::APPLICATION,
    session::Session,
};

/// What to protect.
#[derive(Debug, Clone, Args)]
pub struct ProtectArguments {
    /// Name or id of a plan, or of an application (a plan of its name is made the first time)
    what: String,
    /// Provider for a plan that is made [default: the only one that protects applications]
    #[arg(long, value_name = "NAME|ID")]
    provider: Option<String>,
    #[command(flatten)]
    wait: WaitOptions,
}

impl ProtectArguments {
    pub(crate) async fn run(self, session: &mut Session) -> Result<(), CliError> {
        let plan = match session.client.plan(&self.what).await {
            Err(error) if error.exit == Exit::NotFound => self.new_plan(session).await?,
            found => found?,
        };
        checkpoint::create(session, &plan, self.wait).await
    }

    async fn new_plan(&self, session: &mut Session) -> Result<Value, CliError> {
        let application = session
            .client
            .instance(APPLICATION, &self.what)
            .await
            .map_err(|error| match error.exit {
                Exit::NotFound => {
                    let what = &self.what;
                    CliError::not_found(format!(
                        "there is neither a plan nor an application '{what}'"
                    ))
                    .hint("`karbor application list` and `karbor plan list` show what there is")
                }
                _ => error,
            })?;
        let name = string(&application, "name").to_owned();
        if let Some(reason) = application::broken(&application) {
            let message =
                format!("the application {name} cannot be used as it is declared: {reason}");
            return Err(CliError::usage(message).hint(
                "mend its file in applications.d of the service; `karbor config validate` there names what is \
                 wrong. No plan was made",
            ));
        }
        let wanted = json!({
            "name": name,
            "resources": [plan::of_plan(&application)],
            "parameters": {},
        });
        let plan = plan::create(session, self.provider.as_deref(), wanted).await?;
        session.note(&format!("plan {name} made for application {name}"))?;
        Ok(plan)
    }
}
