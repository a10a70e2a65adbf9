//! Which errors are refusals that are documented, and which are failures.

use cranelift_codegen::CodegenError;
use cranelift_module::ModuleError;

/// Why something cannot be run.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// It is not for this host, this version of Cranelift, or lastout. That is no failure.
    Refused(String),
    /// It should be possible.
    Failed(String),
}

impl From<ModuleError> for Trouble {
    fn from(error: ModuleError) -> Self {
        match &error {
            ModuleError::IncompatibleSignature(..) => {
                Self::Refused("a function is called with a signature that it does not have".into())
            }
            ModuleError::Compilation(CodegenError::Unsupported(what)) => {
                Self::Refused(format!("Cranelift does not support it here: {what}"))
            }
            ModuleError::Compilation(CodegenError::Verifier(errors)) => {
                Self::Failed(format!("not verified: {errors}"))
            }
            ModuleError::Backend(backend) => match backend.downcast_ref() {
                Some(error) => Self::instrument(error),
                None => Self::Failed(error.to_string()),
            },
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl From<lastout::Error> for Trouble {
    fn from(error: lastout::Error) -> Self {
        match error {
            lastout::Error::Module(error) => Self::from(*error),
            lastout::Error::Instrument(error) => Self::instrument(&error),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Trouble {
    /// Without the signature or instruction, so that equal reasons are equal.
    fn instrument(error: &lastout_instrument::Error) -> Self {
        use lastout_instrument::Error;
        match error {
            Error::Signature { why, .. } | Error::Call { why, .. } => Self::Refused((*why).into()),
            Error::PinnedRegister { .. } => {
                Self::Refused("the pinned register holds the thread's ledger".into())
            }
            error => Self::Failed(error.to_string()),
        }
    }
}
