//! Rust types, and the Cranelift types to which they correspond.

use cranelift_codegen::ir::{AbiParam, Signature, Type, types};
use cranelift_codegen::isa::TargetIsa;

/// A Rust type that can be passed to and returned from generated code by value.
///
/// Implemented for the integers up to 64 bits, the two floats, and raw pointers.
///
/// # Safety
///
/// The type is passed in C as Cranelift passes `abi`, and has no invalid bit patterns.
pub unsafe trait Value: Copy {
    /// The parameter or result that is this type in C on a host with pointers of type `pointer`.
    fn abi(pointer: Type) -> AbiParam;
}

macro_rules! value {
    ($($rust:ty => $abi:expr;)*) => {$(
        // SAFETY: a number of this size and kind, extended as C compilers for the host expect it.
        unsafe impl Value for $rust {
            fn abi(_: Type) -> AbiParam {
                $abi
            }
        }
    )*};
}

value! {
    i8 => AbiParam::new(types::I8).sext();
    i16 => AbiParam::new(types::I16).sext();
    i32 => AbiParam::new(types::I32);
    i64 => AbiParam::new(types::I64);
    u8 => AbiParam::new(types::I8).uext();
    u16 => AbiParam::new(types::I16).uext();
    u32 => AbiParam::new(types::I32);
    u64 => AbiParam::new(types::I64);
    f32 => AbiParam::new(types::F32);
    f64 => AbiParam::new(types::F64);
}

macro_rules! pointer {
    ($($(#[$bound:meta])* [$($generic:ident)?] $rust:ty;)*) => {$(
        // SAFETY: a number of the size of a pointer. Only sized pointees: one word.
        unsafe impl$(<$generic>)? Value for $rust {
            fn abi(pointer: Type) -> AbiParam {
                AbiParam::new(pointer)
            }
        }
    )*};
}

pointer! {
    [] usize;
    [] isize;
    [T] *const T;
    [T] *mut T;
}

/// The result of a function: one [`Value`], or nothing.
///
/// # Safety
///
/// As for [`Value`].
pub unsafe trait Returned {
    /// The result, if there is one.
    fn abi(pointer: Type) -> Option<AbiParam>;
}

// SAFETY: nothing is returned in C as no results in Cranelift.
unsafe impl Returned for () {
    fn abi(_: Type) -> Option<AbiParam> {
        None
    }
}

// SAFETY: as the value.
unsafe impl<T: Value> Returned for T {
    fn abi(pointer: Type) -> Option<AbiParam> {
        Some(T::abi(pointer))
    }
}

/// The type of a function: `fn(A, B) -> R`, or `extern "C" fn(A, B) -> R`, or the same with
/// `extern "C-unwind"`, of [`Value`]s.
pub trait FunctionType: Copy {
    /// The signature with which the host calls a function of this type that is compiled for `isa`.
    fn signature(isa: &dyn TargetIsa) -> Signature;
}

/// A function of the host, which generated code may call.
///
/// An `extern "C-unwind"` function may panic: the panic unwinds through generated code, whose gates
/// count out, to the `catch_unwind` that wants it. It may also [throw](crate::throw). A panic that
/// reaches the end of an `extern "C"` function ends the process with a message, as everywhere in
/// Rust.
pub trait HostFunction: FunctionType {
    /// Whether unwinding may leave the function into generated code.
    const UNWINDS: bool;

    /// The address of the function.
    fn address(self) -> *const u8;
}

/// Whether two signatures have the same types in the same places. They may differ in extension
/// flags and calling convention.
pub(crate) fn same_types(one: &Signature, other: &Signature) -> bool {
    let types = |params: &[AbiParam]| params.iter().map(|param| param.value_type).collect();
    let of = |signature: &Signature| -> (Vec<Type>, Vec<Type>) {
        (types(&signature.params), types(&signature.returns))
    };
    of(one) == of(other)
}

/// Whether a function of the host that has the signature `existing` can be called as if it had the
/// signature `given`.
pub(crate) fn same_but_for_extensions(existing: &Signature, given: &Signature) -> bool {
    let purposes = |signature: &Signature| -> Vec<_> {
        signature.params.iter().map(|param| param.purpose).collect()
    };
    same_types(existing, given)
        && existing.call_conv == given.call_conv
        && purposes(existing) == purposes(given)
}

/// Calls a macro with each number of parameters that functions may have, as lists of names.
macro_rules! for_each_arity {
    ($do:ident) => {
        for_each_arity!(@ $do [] A0 A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11);
    };
    (@ $do:ident [$($name:ident)*]) => { $do!($($name)*); };
    (@ $do:ident [$($name:ident)*] $next:ident $($rest:ident)*) => {
        $do!($($name)*);
        for_each_arity!(@ $do [$($name)* $next] $($rest)*);
    };
}
pub(crate) use for_each_arity;

macro_rules! function_type {
    ($($A:ident)*) => {
        function_type!(@ [$($A)*] fn($($A),*) -> R);
        function_type!(@ [$($A)*] extern "C" fn($($A),*) -> R);
        function_type!(@ [$($A)*] unsafe extern "C" fn($($A),*) -> R);
        function_type!(@ [$($A)*] extern "C-unwind" fn($($A),*) -> R);
        function_type!(@ [$($A)*] unsafe extern "C-unwind" fn($($A),*) -> R);
        function_type!(host [$($A)*] false, extern "C" fn($($A),*) -> R);
        function_type!(host [$($A)*] false, unsafe extern "C" fn($($A),*) -> R);
        function_type!(host [$($A)*] true, extern "C-unwind" fn($($A),*) -> R);
        function_type!(host [$($A)*] true, unsafe extern "C-unwind" fn($($A),*) -> R);
    };
    (@ [$($A:ident)*] $fn:ty) => {
        impl<$($A: Value,)* R: Returned> FunctionType for $fn {
            fn signature(isa: &dyn TargetIsa) -> Signature {
                let pointer = isa.pointer_type();
                let mut signature = Signature::new(isa.default_call_conv());
                signature.params.extend::<Vec<AbiParam>>(vec![$($A::abi(pointer)),*]);
                signature.returns.extend(R::abi(pointer));
                signature
            }
        }
    };
    (host [$($A:ident)*] $unwinds:expr, $fn:ty) => {
        impl<$($A: Value,)* R: Returned> HostFunction for $fn {
            const UNWINDS: bool = $unwinds;

            fn address(self) -> *const u8 {
                self as *const u8
            }
        }
    };
}

for_each_arity!(function_type);
