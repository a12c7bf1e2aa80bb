//! Which checkpoints are copies, and which are not copied yet.
//!
//! A copy says in its own `extra_info` what it is a copy of. That is the only record: nothing is written
//! to the source, which may lie in a bank that is failing. A checkpoint is copied when the bank of copies
//! holds a checkpoint of the same *origin* that is whole or on its way; so a copy that failed or was
//! deleted is made again, and one that is there is not (Q30). On its way is what somebody works on; what
//! nobody does is given up.

use std::collections::HashSet;

use chrono::DateTime;
use karbor_model::{Checkpoint, CheckpointId, CheckpointStatus, Origin};

/// What is to be known of copies for which a provider has no second bank.
pub(crate) const IN_SAME_BANK: &str = "the provider names no second bank (copy_bank): the copy lies in the same bank \
                                       as what it is a copy of, and is lost with it";

/// The origin of any checkpoint: its own, if it is no copy.
pub(crate) fn origin(checkpoint: &Checkpoint) -> Origin {
    checkpoint.info().origin().unwrap_or_else(|| Origin {
        copied_from: checkpoint.id,
        protected_at: DateTime::from_timestamp(checkpoint.timestamp, 0).unwrap_or_default(),
    })
}

/// Does it say that somebody is making it?
pub(crate) fn is_unfinished(copy: &Checkpoint) -> bool {
    use CheckpointStatus::{Copying, Protecting, WaitCopying};
    matches!(copy.status, WaitCopying | Copying | Protecting)
}

/// Is it whole, or on its way to be?
fn counts(copy: &Checkpoint) -> bool {
    use CheckpointStatus::{Available, Finished};
    matches!(copy.status, Available | Finished) || is_unfinished(copy)
}

/// Those of `sources` that `targets` lacks, each origin once, in the order of `sources`. Without a
/// second bank the two are the same checkpoints, and only copies count as copies.
pub(crate) fn pick(
    sources: Vec<Checkpoint>,
    targets: &[Checkpoint],
    second_bank: bool,
) -> Vec<Checkpoint> {
    let is_copy = |checkpoint: &Checkpoint| checkpoint.info().origin().is_some();
    let origin = |checkpoint: &Checkpoint| origin(checkpoint).copied_from;
    let mut there: HashSet<CheckpointId> = targets
        .iter()
        .filter(|target| counts(target) && (second_bank || is_copy(target)))
        .map(origin)
        .collect();
    sources
        .into_iter()
        .filter(|source| source.status == CheckpointStatus::Available)
        .filter(|source| second_bank || !is_copy(source))
        .filter(|source| there.insert(origin(source)))
        .collect()
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use karbor_model::{CheckpointInfo, CheckpointPlan, INDEX_VERSION, PlanId, ProviderId};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn checkpoint(status: CheckpointStatus, of: Option<&Checkpoint>) -> Checkpoint {
        let (plan, provider) = (PlanId::new(), ProviderId::new());
        Checkpoint {
            version: INDEX_VERSION.to_owned(),
            id: CheckpointId::new(),
            status,
            owner_id: String::new(),
            provider_id: provider,
            project_id: "p".to_owned(),
            protection_plan: CheckpointPlan {
                id: plan,
                name: String::new(),
                provider_id: provider,
                resources: Vec::new(),
            },
            extra_info: of.and_then(|of| {
                let mut info = CheckpointInfo::of_copy(&origin(of), &of.info(), Utc::now(), false);
                info.set_copied();
                info.to_extra_info()
            }),
            created_at: None,
            timestamp: 1_800_000_000,
            resource_graph: None,
            seal: None,
        }
    }

    fn ids(checkpoints: &[Checkpoint]) -> Vec<CheckpointId> {
        checkpoints.iter().map(|one| one.id).collect()
    }

    #[test]
    fn a_copy_of_a_copy_has_the_origin_of_the_first() {
        let first = checkpoint(CheckpointStatus::Available, None);
        let copy = checkpoint(CheckpointStatus::Available, Some(&first));
        let second = checkpoint(CheckpointStatus::Available, Some(&copy));
        assert_eq!(origin(&second), origin(&first));
        assert_eq!(first.info().origin(), None);
        // What a user stores there is not taken for it.
        let mut other = first;
        other.extra_info = Some(json!({"created_by": "manual", "copied_from": "me"}));
        assert_eq!(other.info().origin(), None);
    }

    /// A bank that copies were made in becomes the bank, the old one is to hold the copies now.
    #[test]
    fn banks_may_change_places() {
        let first = checkpoint(CheckpointStatus::Available, None);
        let lost = checkpoint(CheckpointStatus::Available, None);
        let copies = [&first, &lost]
            .map(|of| checkpoint(CheckpointStatus::Available, Some(of)))
            .to_vec();
        let picked = pick(copies.clone(), std::slice::from_ref(&first), true);
        assert_eq!(ids(&picked), ids(&copies[1..]));
        assert!(pick(copies.clone(), &copies, false).is_empty());
    }

    proptest! {
        /// Every available source has a copy after one round, and the next round copies nothing.
        #[test]
        fn q30_a_second_copy_copies_nothing_anew(
            states in proptest::collection::vec((0..CheckpointStatus::ALL.len(), 0..CheckpointStatus::ALL.len()), 0..20),
            second_bank: bool,
        ) {
            let state = |at: usize| CheckpointStatus::ALL[at];
            let sources: Vec<_> = states.iter().map(|(at, _)| checkpoint(state(*at), None)).collect();
            let copies = sources.iter().zip(&states).skip(1).step_by(2);
            let copies: Vec<_> = copies.map(|(of, (_, at))| checkpoint(state(*at), Some(of))).collect();
            let all = |copies: &[Checkpoint]| match second_bank {
                true => (sources.clone(), copies.to_vec()),
                false => {
                    let all = [&sources[..], copies].concat();
                    (all.clone(), all)
                }
            };
            let (from, to) = all(&copies);
            let picked = pick(from, &to, second_bank);
            for one in &picked {
                prop_assert_eq!(one.status, CheckpointStatus::Available);
                prop_assert!(one.info().origin().is_none());
            }
            let made = picked.iter().map(|of| checkpoint(CheckpointStatus::Available, Some(of)));
            let copies: Vec<_> = copies.iter().cloned().chain(made).collect();
            for source in sources.iter().filter(|one| one.status == CheckpointStatus::Available) {
                let of = |copy: &&Checkpoint| counts(copy) && origin(copy).copied_from == source.id;
                prop_assert_eq!(copies.iter().filter(of).count(), 1);
            }
            let (from, to) = all(&copies);
            prop_assert!(pick(from, &to, second_bank).is_empty());
        }
    }
}
