//! Which signatures a gate can forward, and those of the code that it calls by symbols.

use cranelift_codegen::ir::{AbiParam, ArgumentPurpose, Signature, types};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use target_lexicon::Architecture;

use crate::Error;

/// How many bytes an instruction can take off the stack that returns, in multiples of 16.
const MOST_TAKEN_AWAY: u64 = 0xfff0;

/// Checks that a call of `signature` can be forwarded by code that is compiled for `isa`.
///
/// A gate takes its parameters and passes them on, so whatever Cranelift can both receive and
/// pass goes through: any scalar and vector, registers and stack, several results, extension
/// flags, struct-return pointers and struct arguments. What cannot be expressed twice over, or
/// what Cranelift would refuse with a panic, is refused here instead.
///
/// # Errors
///
/// [`Error::Signature`] says what about the signature is the trouble.
pub fn check_signature(signature: &Signature, isa: &dyn TargetIsa) -> Result<(), Error> {
    let refuse = |why| Err(Error::Signature { signature: signature.to_string(), why });
    let x86_64 = matches!(isa.triple().architecture, Architecture::X86_64);
    match signature.call_conv {
        CallConv::Fast | CallConv::Tail | CallConv::SystemV => {}
        CallConv::WindowsFastcall if x86_64 => {}
        CallConv::PreserveAll if signature.returns.is_empty() => {}
        CallConv::PreserveAll => return refuse("a preserve_all function cannot return values"),
        _ => return refuse("no function with this calling convention can be defined on this host"),
    }
    for param in &signature.params {
        if let ArgumentPurpose::StructArgument(size) = param.purpose {
            if !x86_64 {
                return refuse("this host has no struct arguments");
            }
            if size % 8 != 0 {
                return refuse("the size of a struct argument is not a multiple of 8");
            }
        }
        if param.purpose != ArgumentPurpose::Normal && param.value_type != isa.pointer_type() {
            return refuse("the address of a struct is not of the type of addresses");
        }
    }
    if signature.call_conv == CallConv::Tail && x86_64 {
        let bytes = |param: &AbiParam| match param.purpose {
            ArgumentPurpose::StructArgument(size) => u64::from(size),
            _ if param.value_type.bytes() <= 8 => 8,
            // There may be a gap before it.
            _ => u64::from(param.value_type.bytes()) + 8,
        };
        // Not all of them are on the stack, but that makes no difference to anybody.
        if signature.params.iter().map(bytes).sum::<u64>() > MOST_TAKEN_AWAY {
            return refuse(
                "there are more bytes of arguments than a return can take off the stack",
            );
        }
    }
    let llvm = isa.flags().enable_llvm_abi_extensions();
    for AbiParam { value_type, .. } in signature.params.iter().chain(&signature.returns) {
        match (*value_type, signature.call_conv) {
            (types::I128, call_conv) if x86_64 && !llvm && call_conv != CallConv::Tail => {
                return refuse("128-bit integers need the flag enable_llvm_abi_extensions");
            }
            (types::F16 | types::F128, CallConv::WindowsFastcall) if !llvm => {
                return refuse("f16 and f128 need the flag enable_llvm_abi_extensions here");
            }
            _ => {}
        }
    }
    if signature.returns.iter().any(|result| result.purpose != ArgumentPurpose::Normal) {
        return refuse("a result has a special purpose");
    }
    let struct_returns = signature
        .params
        .iter()
        .filter(|param| param.purpose == ArgumentPurpose::StructReturn)
        .count();
    if struct_returns > 1 {
        return refuse("there is more than one struct-return pointer");
    }
    if struct_returns == 1 && signature.call_conv == CallConv::Tail && !x86_64 {
        return refuse("this host has no struct-return pointers in the tail calling convention");
    }
    if struct_returns == 1 && !signature.returns.is_empty() {
        return refuse("there are results beside a struct-return pointer");
    }
    Ok(())
}

/// The signature of every preserving stub: it takes one address and keeps every register.
pub(crate) fn preserving_signature(isa: &dyn TargetIsa) -> Signature {
    let mut signature = Signature::new(CallConv::PreserveAll);
    signature.params.push(AbiParam::new(isa.pointer_type()));
    signature
}

/// The signature of [`Symbol::CurrentLedger`](crate::Symbol::CurrentLedger).
pub(crate) fn current_ledger_signature(isa: &dyn TargetIsa) -> Signature {
    let mut signature = Signature::new(isa.default_call_conv());
    signature.returns.push(AbiParam::new(isa.pointer_type()));
    signature
}
