//! Programs, operations and types that are made at random, and what files say of Cranelift's.

mod conformance;
mod programs;
mod random;
