//! The operations over checkpoints, one room each: what the operation is asked with, how it prepares the bank, what its
//! hooks may write, and what its end means to the bank and to the database.
//!
//! The worker carries all of them out the same way and names none: it enters a run, claims its checkpoints, lets the room
//! prepare the bank, waits for a turn, runs the flow, and lets the room conclude. What differs is [`Rules`].

mod copy;
pub(crate) mod delete;
pub(crate) mod protect;
mod readback;
mod restore;
mod rules;
mod verify;

use karbor_model::OperationType;

pub(crate) use self::{
    readback::id_of_another,
    rules::{Evidence, Line, Rules},
};

/// The one list of operations.
pub(crate) fn rules(operation: OperationType) -> &'static dyn Rules {
    match operation {
        OperationType::Protect => &protect::Protect,
        OperationType::Restore => &restore::Restore,
        OperationType::Verify => &verify::Verify,
        OperationType::Copy => &copy::Copy,
        OperationType::Delete => &delete::Delete,
    }
}
