//! Calls: from the host and from generated code, by name and by address, to functions and to what
//! the host has.

mod entries;
mod escaping;
mod exposed;
mod handles;
mod host;
mod linkage;
mod steps;
