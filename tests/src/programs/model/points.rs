//! Frames that move.

use std::collections::BTreeSet;

use super::super::stack::{Frame, Inside, Point};
use super::super::{Carried, Points, Replacement, Statement, Way};
use super::values::Variables;
use super::{Ending, Model};

impl Model<'_> {
    /// The points of the functions that a unit exports, when it defines what it does.
    pub(super) fn points_of(&self, exports: &Replacement, number: u64) -> BTreeSet<Point> {
        let carried = match exports.points {
            Points::Without => return BTreeSet::new(),
            Points::Plain => None,
            Points::Carrying(carried) => Some(carried),
        };
        let mut points = BTreeSet::new();
        for &function in exports.functions.iter().filter(|&&f| self.program.can_move(f)) {
            let body = &self.program.functions[function].body;
            let mut add = |site| _ = points.insert(Point { function, site, carried });
            self.sites_of_points(body, number, &mut add);
        }
        points
    }

    fn sites_of_points(&self, body: &[Statement], number: u64, add: &mut impl FnMut(u32)) {
        for statement in body {
            match statement {
                Statement::If(_, then, otherwise) => {
                    self.sites_of_points(then, number, add);
                    self.sites_of_points(otherwise, number, add);
                }
                Statement::Repeat(site, _, body) => {
                    add(*site);
                    self.sites_of_points(body, number, add);
                }
                Statement::Visit(visit) => add(visit.site),
                // Others are no calls of what outlives the version.
                Statement::Call(call)
                    if call.way == Way::Name
                        && call.catches.is_empty()
                        && !self.stays(number, call.callee) =>
                {
                    add(call.site);
                }
                _ => {}
            }
        }
    }

    /// The point that the version which a frame is in has at a site, if the current one has it.
    fn covered(&self, variables: &Variables, site: u32) -> Option<Point> {
        let Variables { function, number, .. } = *variables;
        let points = &self.installs[number as usize - 1].points;
        let at = |carried| Point { function, site, carried };
        let carried = [None].into_iter().chain(Carried::ALL.map(Some));
        let point = carried.map(at).find(|point| points.contains(point))?;
        (self.ways_in[&point] == self.current[function]).then_some(point)
    }

    /// A frame comes to a loop.
    pub(super) fn move_on(&mut self, variables: &mut Variables, site: u32) {
        let current = self.current[variables.function];
        if variables.number != current && self.covered(variables, site).is_some() {
            variables.number = current;
            self.take_over((variables.function, current).into());
        }
    }

    /// A frame comes to a call: of no version meanwhile, if it can be left.
    pub(super) fn wait_for<T>(
        &mut self,
        variables: &mut Variables,
        site: u32,
        call: impl FnOnce(&mut Self) -> Result<T, Ending>,
    ) -> Result<T, Ending> {
        let Some(point) = self.covered(variables, site) else { return call(self) };
        self.take_over(Inside::Room(point));
        let result = call(self)?;
        // The current version has the point no more, perhaps, and then another is kept.
        variables.number = self.ways_in[&point];
        self.take_over((variables.function, variables.number).into());
        Ok(result)
    }

    /// What is innermost has been tail-called by what was, and has its gate if there was one.
    fn take_over(&mut self, inside: Inside) {
        self.stack.0.pop();
        self.stack.0.pop_if(|frame| matches!(frame, Frame::Gate(_)));
        self.stack.0.extend([Frame::Gate(inside), Frame::Body(inside)]);
    }
}
