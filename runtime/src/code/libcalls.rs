//! The functions of the host that Cranelift's code calls on its own account.

use cranelift_codegen::ir::LibCall;

use crate::{Error, Result};

/// The address of a function of the host's runtime library that Cranelift calls on its own
/// account.
pub(crate) fn address(libcall: LibCall) -> Result<usize> {
    if let Some(address) = math(libcall).or_else(|| shuffle(libcall)) {
        return Ok(address);
    }
    let name = cranelift_module::default_libcall_names()(libcall);
    let missing = || Error::MissingImport(name.clone());
    let c_name = std::ffi::CString::new(name.clone()).map_err(|_| missing())?;
    // SAFETY: the name is a C string, and asking for a symbol runs nothing.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c_name.as_ptr()) };
    if address.is_null() { Err(missing()) } else { Ok(address.addr()) }
}

/// The address of a mathematical function for which the processor may have no instruction.
///
/// The functions are Rust's: C's are in a library of their own, which a program need not have
/// loaded.
fn math(libcall: LibCall) -> Option<usize> {
    macro_rules! address {
        ($($libcall:ident => $function:path, ($($x:ident),*) $float:ty;)*) => {
            match libcall {
                $(LibCall::$libcall => {
                    extern "C" fn call($($x: $float),*) -> $float {
                        $function($($x),*)
                    }
                    Some(call as *const () as usize)
                })*
                _ => None,
            }
        };
    }
    address! {
        CeilF32 => f32::ceil, (x) f32;
        CeilF64 => f64::ceil, (x) f64;
        FloorF32 => f32::floor, (x) f32;
        FloorF64 => f64::floor, (x) f64;
        TruncF32 => f32::trunc, (x) f32;
        TruncF64 => f64::trunc, (x) f64;
        NearestF32 => f32::round_ties_even, (x) f32;
        NearestF64 => f64::round_ties_even, (x) f64;
        FmaF32 => f32::mul_add, (x, y, z) f32;
        FmaF64 => f64::mul_add, (x, y, z) f64;
    }
}

/// The address of a function that picks bytes from a vector, where the processor has no instruction
/// for that. Cranelift has named it, and no library has it.
#[cfg(target_arch = "x86_64")]
fn shuffle(libcall: LibCall) -> Option<usize> {
    use std::arch::x86_64::__m128i;

    #[expect(improper_ctypes_definitions, reason = "vectors are passed as Cranelift passes them")]
    extern "C" fn pick(bytes: __m128i, places: __m128i) -> __m128i {
        // SAFETY: vectors and arrays of the same size, without invalid bit patterns.
        let [bytes, places]: [[u8; 16]; 2] = unsafe { std::mem::transmute([bytes, places]) };
        let picked = places.map(|place| match place {
            0..0x80 => bytes[usize::from(place % 16)],
            _ => 0,
        });
        // SAFETY: as above.
        unsafe { std::mem::transmute(picked) }
    }
    (libcall == LibCall::X86Pshufb).then_some(pick as *const () as usize)
}

#[cfg(not(target_arch = "x86_64"))]
fn shuffle(_: LibCall) -> Option<usize> {
    None
}
