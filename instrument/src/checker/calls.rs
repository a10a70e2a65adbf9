//! What calls and returns do on a path.

use cranelift_codegen::ir::{Inst, SigRef, Value};

use super::language::{Event, Returned, Source};
use super::{Checker, Meaning, Path, Rule, require};
use crate::Symbol;
use crate::frame::body_call;

impl Checker<'_> {
    /// A call: of what was loaded, with the parameters, or of a stub, with the lane.
    pub(super) fn call(&self, path: &mut Path, inst: Inst, sig_ref: SigRef) -> Result<(), Rule> {
        let dfg = &self.func.dfg;
        let (callee, arguments) = self.called_with(path, inst)?;
        let signature = &dfg.signatures[sig_ref];
        path.time += 1;
        if self.layout.is_some() && callee == Meaning::Address(Symbol::CurrentLedger) {
            require(path.pinned == Meaning::Outer, Rule::Foreign)?;
            require(*signature == self.asking, Rule::Arguments)?;
            path.values[dfg.first_result(inst)] = Some(Meaning::Ledger);
            path.is_inside = if self.forwards { None } else { Some(false) };
            return Ok(());
        }
        match callee {
            Meaning::Loaded(source, loaded) => {
                path.event(Event::Call(source, loaded))?;
                require(path.is_inside == Some(false), Rule::TailCall)?;
                require(path.keeps_lane && path.keeps_outer, Rule::Frame)?;
                let marked = self.func.srcloc(inst) == body_call();
                require(marked == (source == Source::Body), Rule::Frame)?;
                self.check_forwarded(sig_ref, &arguments)?;
                for (number, &result) in dfg.inst_results(inst).iter().enumerate() {
                    path.values[result] = Some(Meaning::Result(source, number));
                }
            }
            Meaning::Address(stub) => {
                match stub {
                    Symbol::Leave => path.event(Event::Leave)?,
                    Symbol::Removed => path.event(Event::Removed)?,
                    Symbol::Interleave => {}
                    _ => return Err(Rule::Foreign),
                }
                require(*signature == self.stub, Rule::Arguments)?;
                require(arguments == [Meaning::Address(Symbol::Lane)], Rule::Arguments)?;
            }
            _ => return Err(Rule::Foreign),
        }
        require(path.pinned == Meaning::Ledger, Rule::Pinned)
    }

    /// A tail call of what was loaded, with the parameters.
    pub(super) fn tail_call(
        &self,
        path: &mut Path,
        inst: Inst,
        sig_ref: SigRef,
    ) -> Result<(), Rule> {
        let (callee, arguments) = self.called_with(path, inst)?;
        let Meaning::Loaded(source, loaded) = callee else { return Err(Rule::Foreign) };
        require(source == Source::Slot, Rule::Foreign)?;
        path.event(Event::Call(source, loaded))?;
        require(path.is_inside == Some(true), Rule::TailCall)?;
        require(matches!(path.pinned, Meaning::Outer | Meaning::Ledger), Rule::Pinned)?;
        self.check_forwarded(sig_ref, &arguments)
    }

    /// What an indirect call calls, and with what.
    fn called_with(&self, path: &Path, inst: Inst) -> Result<(Meaning, Vec<Meaning>), Rule> {
        let [callee, ref arguments @ ..] = *self.func.dfg.inst_args(inst) else {
            return Err(Rule::Foreign);
        };
        let arguments = arguments.iter().map(|&argument| self.meaning(path, argument));
        Ok((self.meaning(path, callee)?, arguments.collect::<Result<_, _>>()?))
    }

    fn check_forwarded(&self, sig_ref: SigRef, arguments: &[Meaning]) -> Result<(), Rule> {
        let params = (0..self.called.params.len()).map(Meaning::Param);
        require(self.func.dfg.signatures[sig_ref] == *self.called, Rule::Arguments)?;
        require(arguments.iter().copied().eq(params), Rule::Arguments)
    }

    pub(super) fn check_return(&self, path: &Path, values: &[Value]) -> Result<(), Rule> {
        let returned = path.phase.returns()?;
        let held = if self.layout.is_some() { Meaning::Outer } else { Meaning::Ledger };
        require(path.pinned == held, Rule::Pinned)?;
        for (number, &value) in values.iter().enumerate() {
            let meaning = self.meaning(path, value)?;
            let kept = match returned {
                Returned::Results(source) => meaning == Meaning::Result(source, number),
                Returned::Zeros => matches!(meaning, Meaning::Zero | Meaning::Integer(0)),
            };
            require(kept, Rule::Return)?;
        }
        Ok(())
    }
}
