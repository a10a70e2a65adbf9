//! What it costs that frames can move to another version, and how long it takes them, beside the
//! other ways of replacing a function.
//!
//! ```text
//! cargo bench -p lastout --bench moving [-- --json] [--moves N]
//! ```

use std::collections::BTreeMap;

use lastout_tests::measure::machine;
use lexopt::prelude::*;
use serde_json::{Value as Json, json};

mod idle;
mod many;
mod replace;

type Error = Box<dyn std::error::Error>;

/// Figures by name.
pub(crate) type Figures = BTreeMap<String, Json>;

fn main() -> Result<(), Error> {
    let (mut json, mut moves) = (false, 20_000);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("json") => json = true,
            Long("moves") => moves = parser.value()?.parse()?,
            // Cargo says so to every bench.
            Long("bench") => {}
            _ => return Err(arg.unexpected().into()),
        }
    }
    println!("{}", machine());
    let idle = idle::measure()?;
    let replace = replace::measure()?;
    let many = many::measure(moves)?;
    if json {
        let report =
            json!({ "machine": machine(), "idle": idle, "replace": replace, "moves": many });
        println!("{report}");
    }
    Ok(())
}

/// With three digits after the point.
pub(crate) fn rounded(figure: f64) -> Json {
    ((figure * 1000.0).round() / 1000.0).into()
}
