//! What many functions take, and what is left of them.

mod one_shot;
mod scale;
