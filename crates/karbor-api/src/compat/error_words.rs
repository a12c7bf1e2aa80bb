//! What errors say, in the original's words where it had any: clients match on them. The class is the name of the
//! original's exception.

use karbor_model::{ApiError, ErrorKind, ParameterFault};
use serde_json::Value;

use super::python_texts;
use crate::refusal::{DefinitionFault, NOT_PROTECTED, RecordKind, Refusal, is_of_the_plan};

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(denied) => Self::forbidden(
                "PolicyNotAuthorized",
                format!("Policy doesn't allow {} to be performed.", denied.rule),
            ),
            Refusal::NotFound { what, id } => Self::not_found(record(what), id),
            Refusal::MarkerIsNoId { marker } => not_a_uuid("marker", &marker),
            Refusal::DateIsNone { field, date } => {
                Self::invalid_field(field, date, "Give a date as YYYY-MM-DD.")
            }
            Refusal::NoProviderForPlan => Self::bad_request("The provider could not be found."),
            Refusal::PlanIsStarted => {
                invalid_plan("The plan can be only updated in suspended status.")
            }
            Refusal::Parameters(fault) => Self::bad_request(match fault {
                ParameterFault::ResourceId { .. } => "The resource_id must be a uuid.",
                ParameterFault::UnknownType { .. } => "The key of plan parameters is invalid.",
                ParameterFault::UnknownName { .. } => {
                    "The protect property of plan parameters is invalid."
                }
            }),
            Refusal::NotAChoice {
                name,
                given,
                choices,
            } => Self::invalid_field(
                &name,
                python_texts::text(&given),
                format!(
                    "{} is not one of {}",
                    python_texts::repr(&given),
                    python_texts::repr(&Value::Array(choices))
                ),
            ),
            Refusal::ProtectedByAnotherProvider => {
                invalid_plan("The parameter provider_id is not the same as the value in the plan.")
            }
            Refusal::NotProtected(error) => not_protected(error),
            Refusal::CopyProviderIsNoId => Self::invalid_input("Invalid provider id provided."),
            Refusal::CopiedByAnotherProvider => {
                Self::invalid_input("The provider id is not the same as the value in the plan.")
            }
            Refusal::NothingToCopy => Self::invalid_input("The plan has not been protected."),
            Refusal::MayHaveBegun { what, id, error } => {
                let message = format!(
                    "{} The {} {id} may have begun all the same: look at it before asking again.",
                    error.message,
                    record(what).to_lowercase()
                );
                Self { message, ..error }
            }
            Refusal::NoProtectableType => Self::invalid_input("Invalid protectable type provided."),
            Refusal::NoProtectableInstance {
                protectable_type,
                id,
            } => Self::new(
                ErrorKind::NotFound,
                "ProtectableResourceNotFound",
                format!(
                    "The resource {id} of type {protectable_type} could not be found: not found"
                ),
            ),
            Refusal::TriggerTypeIsFixed { wanted } => {
                Self::invalid_field("type", wanted, "The type of a trigger cannot be changed.")
            }
            Refusal::NoStartTime => Self::bad_request("start_time should be supplied"),
            Refusal::TriggerIsUsed => Self::new(
                ErrorKind::FailedDependency,
                "DeleteTriggerNotAllowed",
                "Trigger is being used by one or more operations",
            ),
            Refusal::ForeignTrigger => invalid_id("trigger"),
            Refusal::NoOperationType { given } => Self::new(
                ErrorKind::BadRequest,
                "InvalidInput",
                format!("Invalid operation type: {given}"),
            ),
            Refusal::Definition(fault) => invalid_definition(fault),
            Refusal::ServiceIsFixed { binary, changeable } => Self::bad_request(format!(
                "Updating a {binary} service is not supported. Only {changeable} services can be \
                 updated."
            )),
            Refusal::ReasonWithoutStop => {
                Self::bad_request("Specifying 'disabled_reason' with status 'enabled' is invalid.")
            }
            Refusal::ForeignQuota => {
                Self::forbidden("NotAuthorized", "Access was denied to this resource.")
            }
            Refusal::Other(error) => error,
        }
    }
}

/// What the original called a kind of record.
fn record(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Plan => "Plan",
        RecordKind::Readback(operation) => {
            operation.readback().map_or("Readback", |names| names.title)
        }
        RecordKind::OperationLog => "OperationLog",
        RecordKind::Trigger => "Trigger",
        RecordKind::ScheduledOperation => "Scheduled Operation",
        RecordKind::Service => "Service",
    }
}

/// A plan that cannot be protected is a bad request (without the traceback that the original added, Q19). What is
/// declared has to be mended: trying again does not help a person who waits for the answer.
fn not_protected(mut error: ApiError) -> ApiError {
    if is_of_the_plan(&error) {
        error.kind = ErrorKind::BadRequest;
        error.message = format!("{NOT_PROTECTED}: {}", error.message);
    }
    error
}

fn invalid_plan(reason: &str) -> ApiError {
    ApiError::new(
        ErrorKind::BadRequest,
        "InvalidPlan",
        format!("Invalid plan: {reason}"),
    )
}

fn invalid_definition(fault: DefinitionFault) -> ApiError {
    let reason = match fault {
        DefinitionFault::PlanId => "Plan_id is invalid",
        DefinitionFault::ForeignPlan => "The plan belongs to another project",
        DefinitionFault::Provider => "Provider_id is conflict",
    };
    ApiError::new(
        ErrorKind::BadRequest,
        "InvalidOperationDefinition",
        format!("Invalid operation definition, reason:{reason}"),
    )
}

/// An id in a path that is none.
pub(crate) fn invalid_id(what: &str) -> ApiError {
    ApiError::bad_request(format!("Invalid {what} id provided."))
}

/// An id in a body or a query that is none.
pub(crate) fn not_a_uuid(field: &str, given: &str) -> ApiError {
    let shown = python_texts::repr_str(given);
    ApiError::invalid_field(field, given, format!("{shown} is not a 'uuid'"))
}

/// The project in the path is not that of the token.
pub(crate) fn malformed_url() -> ApiError {
    ApiError::bad_request("Malformed request url")
}

/// What the original said of a body that is no JSON.
pub(crate) const MALFORMED_BODY: &str = "Malformed request body";
