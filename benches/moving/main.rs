//! What it costs that frames can move to another version, and how long it takes them, beside the
//! other ways of replacing a function.
//!
//! ```text
//! cargo bench --bench moving [-- --json] [--moves N]
//! ```

use std::collections::BTreeMap;

use lastout::ResumePoints;
use lastout::cranelift_codegen::ir::Function;
use lastout_tests::measure::machine;
use lastout_tests::moving;
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

/// A function `work(i64) -> i64`, whose versions tell `tick` their numbers: in a loop of its own that
/// ends when it is told to.
pub(crate) fn looping(version: i64) -> String {
    format!(
        "function %work(i64) -> i64 tail {{
            fn0 = %tick(i64) -> i64 system_v
         block0(v0: i64):
            jump block1
         block1:
            v1 = iconst.i64 {version}
            v2 = call fn0(v1)
            brif v2, block2, block1
         block2:
            return v2
         }}"
    )
}

/// Points at loops only.
pub(crate) fn at_loops(func: &Function) -> ResumePoints {
    moving::points(func, |_| false)
}

/// With three digits after the point.
pub(crate) fn rounded(figure: f64) -> Json {
    ((figure * 1000.0).round() / 1000.0).into()
}
