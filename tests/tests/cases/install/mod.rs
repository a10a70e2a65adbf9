//! Installs: what a unit may have in it, what is refused, and what becomes current together.

mod adopted;
mod data;
mod errors;
mod in_place;
mod parallel;
mod refused;
