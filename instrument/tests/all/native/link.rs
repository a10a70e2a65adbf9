//! Code in memory where it can run.

use cranelift_codegen::Context;
use cranelift_codegen::FinalizedRelocTarget;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{ExternalName, Function, LibCall};
use lastout_instrument::{Fixup, GateFrame, MachineCode, Symbol};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

use crate::support;

pub(crate) fn compile(func: Function) -> MachineCode {
    let isa = support::isa("x86_64");
    support::verify(&func, &*isa);
    let mut context = Context::for_function(func);
    let compiled = context.compile(&*isa, &mut ControlPlane::default()).expect("it compiles");
    let (mut bytes, frame) = (compiled.code_buffer().to_vec(), GateFrame::of(compiled));
    let relocations = compiled.buffer.relocs().to_vec();
    let names = context.func.params.user_named_funcs();
    let fixups = relocations.into_iter().filter_map(|relocation| {
        let name = match relocation.target {
            FinalizedRelocTarget::ExternalName(ExternalName::User(name)) => &names[name],
            // Copies struct arguments.
            FinalizedRelocTarget::ExternalName(ExternalName::LibCall(LibCall::Memcpy))
                if relocation.kind == Reloc::Abs8 =>
            {
                let copy = memcpy as *const () as u64;
                bytes[relocation.offset as usize..][..8].copy_from_slice(&copy.to_le_bytes());
                return None;
            }
            _ => panic!("{relocation:?} is not of a symbol"),
        };
        let symbol = Symbol::from_name(name.namespace, name.index).expect("it is a symbol");
        let (offset, kind, addend) = (relocation.offset, relocation.kind, relocation.addend);
        Some(Fixup { offset, kind, symbol, addend })
    });
    let fixups = fixups.collect();
    MachineCode { fixups, bytes, frame }
}

unsafe extern "C" {
    fn memcpy(to: *mut u8, from: *const u8, size: usize) -> *mut u8;
}

/// What a symbol is.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// The piece that begins there.
    Piece(usize),
    Address(u64),
}

/// Code, one piece after the other.
#[derive(Default)]
pub(crate) struct Linker {
    bytes: Vec<u8>,
    fixups: Vec<(Fixup, Target)>,
}

/// Pieces of code that can run.
pub(crate) struct Image {
    base: *mut u8,
    size: usize,
}

impl Linker {
    /// Where the piece begins.
    pub(crate) fn put(&mut self, code: &MachineCode, resolve: impl Fn(Symbol) -> Target) -> usize {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0xcc);
        let start = self.bytes.len();
        self.bytes.extend(&code.bytes);
        for &fixup in &code.fixups {
            let offset = fixup.offset + start as u32;
            self.fixups.push((Fixup { offset, ..fixup }, resolve(fixup.symbol)));
        }
        start
    }

    pub(crate) fn link(mut self) -> Image {
        let size = self.bytes.len();
        // SAFETY: it is nobody's memory yet.
        let base = unsafe {
            let read_write = ProtFlags::READ | ProtFlags::WRITE;
            mmap_anonymous(std::ptr::null_mut(), size, read_write, MapFlags::PRIVATE)
        };
        let base = base.expect("there is memory").cast::<u8>();
        for (fixup, target) in &self.fixups {
            let start = base as u64;
            let target = match *target {
                Target::Piece(piece) => start + piece as u64,
                Target::Address(address) => address,
            };
            let at = fixup.offset as usize;
            let value = target.wrapping_add_signed(fixup.addend);
            match fixup.kind {
                Reloc::Abs8 => self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes()),
                Reloc::X86CallPCRel4 => {
                    let distance = value.wrapping_sub(start + at as u64) as i64;
                    let distance = i32::try_from(distance).expect("it is in reach");
                    self.bytes[at..at + 4].copy_from_slice(&distance.to_le_bytes());
                }
                other => panic!("{other:?}"),
            }
        }
        // SAFETY: the memory was mapped for this, and nothing else refers to it.
        unsafe {
            base.copy_from_nonoverlapping(self.bytes.as_ptr(), size);
            mprotect(base.cast(), size, MprotectFlags::READ | MprotectFlags::EXEC)
                .expect("memory can be made executable");
        }
        Image { base, size }
    }
}

impl Image {
    /// The address of the piece that begins there.
    pub(crate) fn at(&self, start: usize) -> usize {
        self.base as usize + start
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: what was in it has returned, and only tests of it knew where it is.
        unsafe { munmap(self.base.cast(), self.size) }.expect("it is mapped");
    }
}
