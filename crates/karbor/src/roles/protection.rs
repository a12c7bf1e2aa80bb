//! The role `protection`: providers, checkpoints and the operations on them.

use karbor_manager::RunningService;
use karbor_protection::{MasterKey, ProtectionManager, ProtectionParts, Providers};

use super::{Common, Failure};
use crate::{configured::Configured, state::StateDir};

/// Starts it.
pub(crate) async fn start(common: &Common) -> Result<RunningService<ProtectionManager>, Failure> {
    let Common {
        state, config, db, ..
    } = common;
    let Configured {
        registry,
        providers,
        remarks,
        ..
    } = Configured::load(state, config).await?;
    for remark in remarks {
        tracing::warn!("{remark}");
    }
    for emptied in crate::status::emptied(&db.run_views(), &providers).await? {
        tracing::error!("{emptied}");
    }
    let master_key = master_key(state, &providers).await?;
    let parts = ProtectionParts {
        registry,
        providers,
        master_key,
    };
    let clock = common.clock.clone();
    let manager = ProtectionManager::new(None, db.runs(), config.clone(), clock, parts)?;
    common.serve(manager).await
}

/// The master key. Where repositories exist it is never made anew: they could not be opened with it.
async fn master_key(state: &StateDir, providers: &Providers) -> Result<MasterKey, Failure> {
    let path = state.join("master.key");
    let repositories = match path.exists() {
        true => false,
        false => crate::status::repositories(providers).await.map_err(|error| {
            format!("there is no master key, and whether an old one is needed cannot be told: {error}")
        })?,
    };
    let key = MasterKey::load_or_create(&path, !repositories)?;
    Ok(key)
}
