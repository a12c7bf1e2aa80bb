//! The one list of operations.

use karbor_model::OperationType;

use super::{
    Rules, copy::Copy, delete::Delete, protect::Protect, restore::Restore, verify::Verify,
};

/// The rules of an operation.
pub(crate) fn rules(operation: OperationType) -> &'static dyn Rules {
    match operation {
        OperationType::Protect => &Protect,
        OperationType::Restore => &Restore,
        OperationType::Verify => &Verify,
        OperationType::Copy => &Copy,
        OperationType::Delete => &Delete,
    }
}
