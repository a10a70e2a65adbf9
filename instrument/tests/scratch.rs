use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::isa::CallConv;
use cranelift_codegen::{
    Context,
    ir::*,
    isa,
    settings::{self, Configurable},
};
use lastout_instrument::*;
use lastout_reclaim::Counting;
fn main_isa(t: &str) -> isa::OwnedTargetIsa {
    let mut b = settings::builder();
    b.set("opt_level", "none").unwrap();
    b.set("enable_pinned_reg", "true").unwrap();
    b.set("is_pic", "false").unwrap();
    isa::lookup_by_name(t).unwrap().finish(settings::Flags::new(b)).unwrap()
}
#[test]
fn show() {
    for t in ["x86_64", "aarch64"] {
        for counting in [Counting::Plain, Counting::Atomic] {
            let isa = main_isa(t);
            let mut s = Signature::new(CallConv::SystemV);
            s.params.push(AbiParam::new(types::I64));
            s.returns.push(AbiParam::new(types::I64));
            let f = gate(&s, GateOptions { counting, interleave: false }, &*isa).unwrap();
            println!("{t}\n{}", f.display());
            let mut c = Context::for_function(f);
            c.set_disasm(true);
            c.compile(&*isa, &mut ControlPlane::default()).unwrap();
            println!("{}", c.compiled_code().unwrap().vcode.as_ref().unwrap());
            println!(
                "{:?} {}",
                c.compiled_code().unwrap().buffer.relocs(),
                c.compiled_code().unwrap().code_info().total_size
            );
        }
    }
}
