//! Frames that move.

use std::collections::BTreeSet;

use super::super::stack::{Frame, Inside, Point};
use super::super::{Carried, Points, Program, Replacement, Statement, Way};
use super::values::Variables;
use super::{Ending, Model};

/// How often frames of a program move, and do not, and what else becomes of their functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Out of loops.
    pub looping: u32,
    /// Those that stay in a loop, as the current version has no such point.
    pub staying: u32,
    /// Out of calls, and back into the version that they have left.
    pub returned: u32,
    /// Out of calls, and into another version.
    pub resumed: u32,
    /// Out of calls, and into a version that is not current, as the current one has no such point.
    pub resumed_in_old: u32,
    /// Out of calls that did not return.
    pub unwound: u32,
    /// Not at all: how often a function was replaced in its place.
    pub in_place: u32,
    /// How often it was not, since frames were inside.
    pub held_up: u32,
}

/// How often frames move if nobody replaces anything but the program itself.
pub fn moves(program: &Program) -> Moves {
    let (model, _) = Model::run_through(program, true);
    model.moves
}

impl Model<'_> {
    /// The points of the functions that a unit exports, when it defines what it does.
    pub(super) fn points_of(&self, exports: &Replacement, number: u64) -> BTreeSet<Point> {
        let carried = match exports.points {
            Points::Without => return BTreeSet::new(),
            Points::Loops | Points::Plain => None,
            Points::Carrying(carried) => Some(carried),
        };
        let mut points = BTreeSet::new();
        for &function in exports.functions.iter().filter(|&&f| self.program.can_move(f)) {
            let body = &self.program.functions[function].body;
            let at_calls = exports.points != Points::Loops;
            let mut add = |site, is_call: bool| {
                if at_calls || !is_call {
                    points.insert(Point { function, site, carried });
                }
            };
            self.sites_of_points(body, number, &mut add);
        }
        points
    }

    /// Adds where points can be, and whether that is at a call. Whether it goes on behind.
    fn sites_of_points(
        &self,
        body: &[Statement],
        number: u64,
        add: &mut impl FnMut(u32, bool),
    ) -> bool {
        body.iter().all(|statement| {
            match statement {
                Statement::If(_, then, otherwise) => {
                    let then = self.sites_of_points(then, number, add);
                    return self.sites_of_points(otherwise, number, add) || then;
                }
                Statement::Repeat(site, _, body) => {
                    add(*site, false);
                    return self.sites_of_points(body, number, add);
                }
                Statement::Return | Statement::Tail(_) => return false,
                Statement::Visit(visit) => add(visit.site, true),
                // Others are no calls of what outlives the version.
                Statement::Call(call)
                    if call.way == Way::Name
                        && call.catches.is_empty()
                        && !self.stays(number, call.callee) =>
                {
                    add(call.site, true);
                }
                _ => {}
            }
            true
        })
    }

    /// The point that the version which a frame is in has at a site.
    fn point(&self, variables: &Variables, site: u32) -> Option<Point> {
        let Variables { function, number, .. } = *variables;
        let points = &self.installs[number as usize - 1].points;
        let at = |carried| Point { function, site, carried };
        let carried = [None].into_iter().chain(Carried::ALL.map(Some));
        carried.map(at).find(|point| points.contains(point))
    }

    /// Whether a point is offered: the current version has it.
    fn is_offered(&self, point: Point) -> bool {
        self.resume_entries[&point] == self.current[point.function]
    }

    /// A frame comes to a loop.
    pub(super) fn move_on(&mut self, variables: &mut Variables, site: u32) {
        let current = self.current[variables.function];
        let point = self.point(variables, site).filter(|_| variables.number != current);
        let Some(point) = point else { return };
        if self.is_offered(point) {
            self.moves.looping += 1;
            variables.number = current;
            self.take_over((variables.function, current).into());
        } else {
            self.moves.staying += 1;
        }
    }

    /// A frame comes to a call: of no version meanwhile, if it can be left.
    pub(super) fn wait_for<T>(
        &mut self,
        variables: &mut Variables,
        site: u32,
        call: impl FnOnce(&mut Self) -> Result<T, Ending>,
    ) -> Result<T, Ending> {
        let point = self.point(variables, site).filter(|&point| self.is_offered(point));
        let Some(point) = point else { return call(self) };
        self.take_over(Inside::Parked(point));
        self.moves.unwound += 1;
        let result = call(self)?;
        self.moves.unwound -= 1;
        // The current version has the point no more, perhaps, and then another is kept.
        let before = std::mem::replace(&mut variables.number, self.resume_entries[&point]);
        self.take_over((variables.function, variables.number).into());
        let Moves { returned, resumed, resumed_in_old, .. } = &mut self.moves;
        *match variables.number {
            number if number != self.current[variables.function] => resumed_in_old,
            number if number != before => resumed,
            _ => returned,
        } += 1;
        Ok(result)
    }

    /// What is innermost has been tail-called by what was, and has its gate if there was one.
    fn take_over(&mut self, inside: Inside) {
        self.stack.0.pop();
        self.stack.0.pop_if(|frame| matches!(frame, Frame::Gate(_)));
        self.stack.0.extend([Frame::Gate(inside), Frame::Body(inside)]);
    }
}
