//! Functions whose frames move to the version that is current, as a unit defines them.

use std::collections::BTreeMap;

use cranelift_codegen::Context;
use cranelift_codegen::ir::{
    Block, ExtFuncData, ExternalName, Function, Inst, Signature, UserExternalName, Value,
};
use cranelift_module::{
    DataDescription, DataId, FuncId, Linkage, Module, ModuleError, ModuleResult,
};
use lastout_instrument::resume::{
    Live, Mark, PointNames, PointPosition, PositionNames, Resumable, ResumePoint,
};

use crate::function::resume_points::PointKey;
use crate::unit::Unit;

/// The points of a function at which its frames move to the version that is current: see
/// [`Unit::define_resumable_function`].
#[derive(Clone, Debug, Default)]
pub struct ResumePoints {
    marks: Vec<Mark>,
    converters: Vec<Converter>,
}

#[derive(Clone, Debug)]
struct Converter {
    id: u32,
    from: Vec<Live>,
    function: FuncId,
}

impl ResumePoints {
    /// An empty set of points.
    pub fn new() -> Self {
        Self::default()
    }

    /// Marks the start of a block, which as a rule is the header of a loop. In each round, a frame
    /// finds out whether it is to move on.
    ///
    /// By `id`, points of different versions are the same; no two points of a function have the
    /// same `id`.
    pub fn block(&mut self, id: u32, block: Block) -> &mut Self {
        self.marks.push(Mark { id, position: PointPosition::Block(block), labels: Vec::new() });
        self
    }

    /// Marks the return of a `call` of another unit's function, or the host's. While the call is in
    /// progress the frame is in no version, and afterwards it is in the one that is current then.
    pub fn call(&mut self, id: u32, call: Inst) -> &mut Self {
        self.marks.push(Mark { id, position: PointPosition::Call(call), labels: Vec::new() });
        self
    }

    /// Gives a value a number at the last point, if the value is alive there: such as the number of
    /// the variable that has this value.
    ///
    /// Without labels, values that are alive are told apart by their types and order only, and a
    /// version that uses two variables of a type in another order takes one for the other.
    ///
    /// # Panics
    ///
    /// If there is no point yet.
    pub fn label(&mut self, label: u32, value: Value) -> &mut Self {
        let mark = self.marks.last_mut().expect("labels are of the point before them");
        mark.labels.push((label, value));
        self
    }

    /// Lets frames come to a point of this version from versions where other values are alive at
    /// it: `converter`, a function of the same unit, takes `from`, and returns the values that are
    /// alive here.
    ///
    /// The results of the call, at a point after one, are not converted.
    pub fn convert(&mut self, id: u32, from: &[Live], converter: FuncId) -> &mut Self {
        self.converters.push(Converter { id, from: from.to_vec(), function: converter });
        self
    }
}

/// The points of a unit's functions, and their parked calls.
#[derive(Default)]
pub(crate) struct UnitPoints {
    /// The points, by their resume entries.
    pub(crate) points: BTreeMap<FuncId, UnitPoint>,
    /// The parked calls, by the names under which the unit calls them.
    pub(crate) parked_calls: BTreeMap<FuncId, UnitParkedCall>,
}

/// A point of a function, or a resume entry that converts for one.
pub(crate) struct UnitPoint {
    /// The function whose point this is.
    pub(crate) function: FuncId,
    pub(crate) key: PointKey,
    pub(crate) flag: Option<DataId>,
}

/// The parked call of a point at a call.
pub(crate) struct UnitParkedCall {
    pub(crate) resume_entry: FuncId,
    pub(crate) callee: FuncId,
    /// The signature with which the callee is called.
    pub(crate) called_as: Signature,
}

/// The functions that are declared for a point.
struct Declared {
    names: PointNames,
    resume_entry: FuncId,
    code: FuncId,
    fallback: Option<FuncId>,
}

fn refuse<T>(why: String) -> ModuleResult<T> {
    Err(ModuleError::Backend(anyhow::anyhow!(why)))
}

fn instrument(error: lastout_instrument::Error) -> ModuleError {
    ModuleError::Backend(error.into())
}

fn function_name(id: FuncId) -> UserExternalName {
    UserExternalName { namespace: 0, index: id.as_u32() }
}

impl Unit {
    /// Defines a function whose frames do not stay in the version in which they have begun. At each
    /// of the `points` a frame goes on in the version that is current, if that has the same point:
    /// one of the same number, where values of the same types are alive (and of the same
    /// [labels](ResumePoints::label)). So a loop that never ends, or a call that never returns,
    /// does not keep an old version.
    ///
    /// The counts move along, and the last frame to leave a version frees it. A frame that finds no
    /// such point stays in its version, which is no error; [`Engine::versions`] shows it.
    ///
    /// Values that are alive go along as they are. Constants do not, nor addresses of functions and
    /// data, nor values computed from these alone: wherever in the function they are defined, a
    /// frame that has moved has those of its new version. But an address of the version's own data
    /// that has been through memory, or is merged with others, goes along, and is good for as long
    /// as the old version: it must not be alive at a point.
    ///
    /// Returns the points, with the values that are alive at each: a
    /// [converter](ResumePoints::convert) of a later version would have to take these.
    ///
    /// The unit gets more functions, with names such as `f@1`: for each point a copy of the code
    /// that can be reached from there. In [backtraces](crate::Engine::backtrace), frames that have
    /// moved have these names. As for every module, `context` is left with the function as it was
    /// compiled.
    ///
    /// # Errors
    ///
    /// As [`define_function`](Module::define_function), and [`ModuleError::Backend`] if
    ///
    /// - the function is not of [`CallConv::Tail`](cranelift_codegen::isa::CallConv), or the host
    ///   is not x86-64: frames move by tail calls;
    /// - the function is not declared as `Export` or `Preemptible`;
    /// - it has stack slots or looks at its frame, which could not move;
    /// - there is no such block, or no such `call`; or the call is of a function of the same unit
    ///   that is not `Preemptible`, so that the version would have to stay for it;
    /// - two points have a number in common, or a point two values with one label; a converter does
    ///   not return the values that are alive at its point, or there is no such point.
    ///
    /// After an error the unit must not be used any more.
    ///
    /// [`Engine::versions`]: crate::Engine::versions
    pub fn define_resumable_function(
        &mut self,
        id: FuncId,
        context: &mut Context,
        points: &ResumePoints,
    ) -> ModuleResult<Vec<ResumePoint>> {
        if id.as_u32() as usize >= self.declared_functions {
            return Err(ModuleError::Undeclared(id.to_string()));
        }
        let declaration = self.declarations().get_function_decl(id);
        let name = declaration.linkage_name(id).into_owned();
        if !matches!(declaration.linkage, Linkage::Export | Linkage::Preemptible) {
            return refuse(format!("`{name}` cannot be replaced, so it has no use for points"));
        }
        let isa = self.owned_isa();
        let func = std::mem::replace(&mut context.func, Function::new());
        let resumable = Resumable::new(&func, &points.marks, &*isa).map_err(instrument)?;
        let mut declared = Vec::with_capacity(points.marks.len());
        for point in resumable.points() {
            declared.push(self.declare_point(id, &name, &func, &resumable, point)?);
        }
        let names: Vec<_> = declared.iter().map(|point| point.names.clone()).collect();
        for (point, Declared { names: own, resume_entry, code, fallback }) in
            resumable.points().iter().zip(&declared)
        {
            self.define(*resume_entry, resumable.resume_entry(point, own))?;
            self.define(*code, resumable.code(point, &names))?;
            if let Some((fallback, func)) = fallback.zip(resumable.fallback(point, own)) {
                self.define(fallback, func)?;
            }
        }
        for converter in &points.converters {
            self.define_converting(id, &name, &resumable, &declared, converter)?;
        }
        context.func = resumable.start(&names);
        self.define_function(id, context)?;
        Ok(resumable.points().to_vec())
    }

    fn define(&mut self, id: FuncId, func: Function) -> ModuleResult<()> {
        self.define_function(id, &mut Context::for_function(func))
    }

    fn declare_point(
        &mut self,
        function: FuncId,
        name: &str,
        func: &Function,
        resumable: &Resumable<'_>,
        point: &ResumePoint,
    ) -> ModuleResult<Declared> {
        let key = PointKey::new(point);
        let signature = resumable.resume_entry_signature(point);
        let resume_entry =
            self.declare_function(&format!("{name}@{key}"), Linkage::Preemptible, &signature)?;
        let local = format!("{name}@{}", point.id);
        let signature = resumable.code_signature(point);
        let code = self.declare_function(&local, Linkage::Local, &signature)?;
        let (position, fallback, flag) = match point.position {
            PointPosition::Block(_) => {
                let flag = self.declare_anonymous_data(true, false)?;
                let mut zero = DataDescription::new();
                zero.define_zeroinit(size_of::<usize>());
                zero.set_align(align_of::<usize>() as u64);
                self.define_data(flag, &zero)?;
                let name = UserExternalName { namespace: 1, index: flag.as_u32() };
                (PositionNames::Block { flag: name }, None, Some(flag))
            }
            PointPosition::Call(_) => {
                let callee = self.callee_of(point.id, func, resumable.callee(point))?;
                let called_as = point.call.clone().expect("the point is at a call");
                let callee_name = self.declarations().get_function_decl(callee);
                let callee_name = callee_name.linkage_name(callee);
                let parked_call = format!("{name}@{key} waiting for {callee_name}");
                let signature = resumable.parked_call_signature(point);
                let parked_call =
                    self.declare_function(&parked_call, Linkage::Import, &signature)?;
                self.points
                    .parked_calls
                    .insert(parked_call, UnitParkedCall { resume_entry, callee, called_as });
                let signature = resumable.fallback_signature(point);
                let fallback = self.declare_function(
                    &format!("{local} fallback"),
                    Linkage::Local,
                    &signature,
                )?;
                let position = PositionNames::Call {
                    parked_call: function_name(parked_call),
                    fallback: function_name(fallback),
                };
                (position, Some(fallback), None)
            }
        };
        self.points.points.insert(resume_entry, UnitPoint { function, key, flag });
        let names = PointNames {
            resume_entry: function_name(resume_entry),
            code: function_name(code),
            position,
        };
        Ok(Declared { names, resume_entry, code, fallback })
    }

    /// The function that a marked call calls, if that stays when the version goes.
    fn callee_of(
        &self,
        point: u32,
        func: &Function,
        callee: Option<&ExtFuncData>,
    ) -> ModuleResult<FuncId> {
        let id = match callee.map(|callee| &callee.name) {
            Some(&ExternalName::User(name)) => {
                let name = &func.params.user_named_funcs()[name];
                let declared = (name.index as usize) < self.declared_functions;
                (name.namespace == 0 && declared).then(|| FuncId::from_u32(name.index))
            }
            _ => None,
        };
        match id {
            Some(id) if !self.declarations().get_function_decl(id).linkage.is_final() => Ok(id),
            _ => refuse(format!(
                "point {point}: what is called belongs to the version, which would have to stay"
            )),
        }
    }

    fn define_converting(
        &mut self,
        function: FuncId,
        name: &str,
        resumable: &Resumable<'_>,
        declared: &[Declared],
        converter: &Converter,
    ) -> ModuleResult<()> {
        let Converter { id, from, function: converter } = converter;
        let points = resumable.points().iter().zip(declared);
        let Some((point, declared)) = points.clone().find(|(point, _)| point.id == *id) else {
            return refuse(format!("point {id}: there is a converter, and no such point"));
        };
        if converter.as_u32() as usize >= self.declared_functions {
            return Err(ModuleError::Undeclared(converter.to_string()));
        }
        let converted = self.declarations().get_function_decl(*converter).signature.clone();
        let takes = converted.params.iter().map(|param| param.value_type);
        if !takes.eq(from.iter().map(|live| live.ty)) || !point.accepts(&converted.returns) {
            return refuse(format!(
                "point {id}: the converter {converted} does not make what is alive there of what \
                 was alive elsewhere"
            ));
        }
        let key = PointKey::new(point).with_live(from.clone());
        let signature = resumable.converting_signature(point, &converted);
        let resume_entry =
            self.declare_function(&format!("{name}@{key}"), Linkage::Preemptible, &signature)?;
        let names = &declared.names;
        let func =
            resumable.converting_resume_entry(point, names, &function_name(*converter), &converted);
        self.define(resume_entry, func)?;
        self.points.points.insert(resume_entry, UnitPoint { function, key, flag: None });
        Ok(())
    }
}
