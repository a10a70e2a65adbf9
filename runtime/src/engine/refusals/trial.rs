//! The life of an engine, from its making to its end. Every operation that the system has refused
//! is tried again.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use cranelift_codegen::ir::{AbiParam, Signature, types};
use cranelift_codegen::isa::CallConv;
use cranelift_module::{DataDescription, Module};
use lastout_tests::call;
use lastout_tests::clif::define;
use lastout_tests::support::Drops;

use crate::host::fork;
use crate::host::sys::faults;
use crate::{Adopted, CallError, Dispatch, DropPolicy, Engine, Error, Handle, Result, Unit};

#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) quarantine_pages: usize,
    pub(super) drop_policy: DropPolicy,
    pub(super) strict: bool,
    pub(super) dispatch: Dispatch,
}

/// An engine's figures when everything has been removed.
#[derive(Debug, PartialEq)]
pub(super) struct Left {
    /// The code that all functions have in common.
    code_bytes: usize,
    data_bytes: usize,
    versions: u64,
    /// Values that were attached and are not dropped when the engine is gone.
    values: usize,
}

/// Does everything that an engine can do, and returns what is left.
pub(super) fn run(setting: Setting) -> Left {
    let trial = Trial::new(setting);
    trial.replace_and_remove();
    trial.fill_and_empty_pages();
    // From now on the engine has to make copies before it writes.
    fork::pretend();
    trial.check();
    trial.replace_and_remove();
    trial.fill_and_empty_pages();
    trial.remove_everything();
    let left = trial.left();
    // The end of an engine with installed functions is tried, too.
    trial.replace_and_remove();
    let values = trial.end();
    Left { values, ..left }
}

/// Runs an operation, and once more if the system has refused something, which it does once. In
/// between, `check` finds everything as it was.
fn retry<T>(mut operation: impl FnMut() -> Result<T>, check: impl FnOnce()) -> T {
    operation().unwrap_or_else(|error| {
        assert!(matches!(error, Error::Memory(_)), "{error:?}");
        assert!(!faults::clear(), "nothing was refused: {error:?}");
        check();
        operation().expect("no more than one call is refused")
    })
}

type Unary = fn(i64) -> i64;

struct Trial {
    engine: Engine,
    page: usize,
    drops: Drops,
    attached: Cell<usize>,
    functions: RefCell<BTreeMap<&'static str, Function>>,
}

struct Function {
    handle: Handle<Unary>,
    /// The current version, if there is one.
    version: Option<Adder>,
}

/// Adds a number to its argument, or to the result of another function.
#[derive(Clone, Copy, Debug)]
struct Adder {
    plus: i64,
    callee: Option<&'static str>,
}

impl Trial {
    fn new(Setting { quarantine_pages, drop_policy, strict, dispatch }: Setting) -> Self {
        let page = rustix::param::page_size();
        let builder = || {
            let builder = Engine::builder().quarantine(quarantine_pages * page).strict(strict);
            builder.drop_policy(drop_policy).dispatch(dispatch)
        };
        let engine = retry(|| builder().build(), || {});
        Self {
            engine,
            page,
            drops: Drops::new(),
            attached: Cell::new(0),
            functions: RefCell::default(),
        }
    }

    /// Calls all functions.
    fn check(&self) {
        for (name, Function { handle, .. }) in &*self.functions.borrow() {
            match (call!(handle, 5), self.adds(name)) {
                (Ok(result), Some(adds)) => assert_eq!(result, 5 + adds, "{name}"),
                (Err(CallError::Removed(_)), None) => {}
                (result, adds) => panic!("{name} adds {adds:?}: {result:?}"),
            }
        }
    }

    /// The number that a function adds to its argument, unless it or one that it calls has been
    /// removed.
    fn adds(&self, name: &str) -> Option<i64> {
        let Adder { plus, callee } = self.functions.borrow().get(name)?.version?;
        Some(plus + callee.map_or(Some(0), |callee| self.adds(callee))?)
    }

    /// Runs the operation that gives a function this version, or removes it.
    fn change<T>(
        &self,
        operation: impl FnMut() -> Result<T>,
        name: &'static str,
        version: Option<Adder>,
    ) {
        retry(operation, || self.check());
        let known = self.functions.borrow().get(name).map(|known| known.handle.clone());
        let handle = known.unwrap_or_else(|| retry(|| self.engine.function(name), || self.check()));
        self.functions.borrow_mut().insert(name, Function { handle, version });
        self.check();
    }

    /// A unit with something attached.
    fn unit(&self) -> Unit {
        let mut unit = self.engine.unit();
        unit.attach(self.drops.value());
        self.attached.set(self.attached.get() + 1);
        unit
    }

    /// A unit with an adder. The number is in two parts, one in read-only and the other in writable
    /// data.
    fn adder(&self, name: &str, Adder { plus, callee }: Adder) -> Unit {
        let mut unit = self.unit();
        for (part, writable) in [(plus / 2, false), (plus - plus / 2, true)] {
            define_data(&mut unit, writable, &part.to_ne_bytes());
        }
        let (import, call) = match callee {
            Some(callee) => (format!("fn0 = %{callee}(i64) -> i64 system_v"), "v1 = call fn0(v0)"),
            None => (String::new(), "v1 = band v0, v0"),
        };
        let text = format!(
            "function %{name}(i64) -> i64 system_v {{
                gv0 = symbol u1:0
                gv1 = symbol u1:1
                {import}
             block0(v0: i64):
                {call}
                v2 = symbol_value.i64 gv0
                v3 = load.i64 v2
                v4 = symbol_value.i64 gv1
                v5 = load.i64 v4
                store v5, v4
                v6 = iadd v1, v3
                v7 = iadd v6, v5
                return v7
             }}\n"
        );
        define(&mut unit, &text).unwrap();
        unit
    }

    fn install(&self, name: &'static str, plus: i64, callee: Option<&'static str>) {
        let adder = Adder { plus, callee };
        self.change(|| self.engine.install(self.adder(name, adder)), name, Some(adder));
    }

    /// Replaces the installed version in its place.
    fn install_over(&self, name: &'static str, plus: i64, callee: Option<&'static str>) {
        let adder = Adder { plus, callee };
        let replace = || self.engine.replace_in_place(self.adder(name, adder), Duration::ZERO);
        if cfg!(target_arch = "x86_64") {
            self.change(replace, name, Some(adder));
        }
    }

    fn remove(&self, name: &'static str) {
        self.change(|| self.engine.remove(name), name, None);
    }

    fn replace_and_remove(&self) {
        self.install("inner", 10, None);
        self.install("outer", 100, Some("inner"));
        self.install_over("outer", 110, Some("inner"));
        self.install("inner", 30, None);
        self.install_over("inner", 40, None);
        self.call_from_c();
        self.remove("inner");
        self.call_from_c();
        self.change(|| self.adopt("inner"), "inner", Some(Adder { plus: 7, callee: None }));
        self.install("outer", 200, Some("inner"));
        self.install("inner", 50, None);
        self.call_from_c();
        self.change(|| self.engine.declare("later", &signature()), "later", None);
        self.install("later", 2, Some("outer"));
        self.install("outer", 0, Some("inner"));
        self.remove("later");
        self.engine.collect();
        self.check();
    }

    /// Calls `inner` with 5 through its stable address.
    fn call_from_c(&self) {
        let functions = self.functions.borrow();
        let inner = &functions["inner"].handle;
        let address = retry(|| inner.c_address(), || self.check());
        // SAFETY: there is a handle to the function, which is of this type.
        let call = unsafe { std::mem::transmute::<*const u8, extern "C" fn(i64) -> i64>(address) };
        assert_eq!(call(5), self.adds("inner").map_or(0, |adds| 5 + adds));
    }

    /// Code that adds 7, and a value that its owner drops.
    fn adopt(&self, name: &str) -> Result<()> {
        extern "C" fn add_seven(x: i64) -> i64 {
            x + 7
        }

        let value = self.drops.value();
        self.attached.set(self.attached.get() + 1);
        let mut adopted = Adopted::new(move || drop(value));
        // SAFETY: the code is of this signature, and stays.
        unsafe { adopted.export(name, &signature(), add_seven as *const u8) };
        self.engine.adopt(adopted).map(drop)
    }

    /// Takes more pages of every section than an empty section keeps, and gives them back.
    fn fill_and_empty_pages(&self) {
        let bytes = 40 * self.page;
        let adder = Adder { plus: 3, callee: None };
        let large = || {
            let mut unit = self.adder("large", adder);
            define_data(&mut unit, false, &vec![1; bytes]);
            define_data(&mut unit, true, &vec![1; bytes]);
            // The code is never called, so it may be anything.
            let code = unit.declare_anonymous_function(&signature()).unwrap();
            unit.define_function_bytes(code, 64, &vec![1; bytes / 2], &[]).unwrap();
            self.engine.install(unit)
        };
        self.change(large, "large", Some(adder));
        self.remove("large");
        self.functions.borrow_mut().remove("large");
        self.engine.collect();
    }

    fn remove_everything(&self) {
        self.remove("outer");
        self.remove("inner");
        self.functions.borrow_mut().clear();
    }

    /// What is left when there are no functions. An operation that was refused at the last moment
    /// is made up for by the next, so it takes two looks.
    fn left(&self) -> Left {
        let look = || {
            self.install("last", 1, None);
            self.remove("last");
            self.functions.borrow_mut().clear();
            self.engine.collect();
            self.engine.stats()
        };
        let (first, second) = (look(), look());
        let pages = first.committed_bytes.min(second.committed_bytes) / self.page;
        assert!(pages <= 80, "of {} pages {pages} are left", 3 * 40);
        Left {
            code_bytes: first.code_bytes.min(second.code_bytes),
            data_bytes: first.data_bytes.min(second.data_bytes),
            versions: first.alive().min(second.alive()),
            values: 0,
        }
    }

    /// Drops the engine, and returns how many values have not been dropped.
    fn end(self) -> usize {
        let Self { engine, drops, attached, functions, .. } = self;
        drop(engine);
        for (name, Function { handle, .. }) in functions.take() {
            let result = call!(handle, 5);
            assert!(matches!(result, Err(CallError::Removed(_))), "{name}: {result:?}");
        }
        attached.get() - drops.count()
    }
}

fn define_data(unit: &mut Unit, writable: bool, bytes: &[u8]) {
    let id = unit.declare_anonymous_data(writable, false).unwrap();
    let mut description = DataDescription::new();
    description.define(bytes.into());
    unit.define_data(id, &description).unwrap();
}

fn signature() -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.push(AbiParam::new(types::I64));
    signature.returns.push(AbiParam::new(types::I64));
    signature
}
