//! The command line.

use std::time::Duration;

use lexopt::prelude::*;

const HELP: &str = "\
usage: hotswap [--seconds N] [--threads N] [--json] [--watch FILE | FILE.clif...]

  --seconds N   stop after N seconds (5; with --watch: never)
  --threads N   threads that call (one a processor, at least 2)
  --watch FILE  install FILE whenever it is saved
  --json        end with one JSON object";

pub(crate) struct Args {
    seconds: Option<f64>,
    pub(crate) threads: usize,
    pub(crate) json: bool,
    pub(crate) watch: Option<String>,
    pub(crate) files: Vec<String>,
}

impl Args {
    /// The arguments, or `None` if they asked for help, which was printed.
    pub(crate) fn parse() -> Result<Option<Self>, lexopt::Error> {
        let processors = std::thread::available_parallelism().map_or(2, |count| count.get());
        let mut args = Self {
            seconds: None,
            threads: processors.max(2),
            json: false,
            watch: None,
            files: Vec::new(),
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(arg) = parser.next()? {
            match arg {
                Long("seconds") => args.seconds = Some(parser.value()?.parse()?),
                Long("threads") => args.threads = parser.value()?.parse()?,
                Long("watch") => args.watch = Some(parser.value()?.string()?),
                Long("json") => args.json = true,
                Long("help") | Short('h') => {
                    println!("{HELP}");
                    return Ok(None);
                }
                Value(file) => args.files.push(file.string()?),
                _ => return Err(arg.unexpected()),
            }
        }
        if args.watch.is_some() && !args.files.is_empty() {
            return Err("--watch takes the only file there is".into());
        }
        if args.watch.is_none() {
            args.seconds.get_or_insert(5.0);
        }
        Ok(Some(args))
    }

    pub(crate) fn is_over(&self, elapsed: Duration) -> bool {
        self.seconds.is_some_and(|seconds| elapsed.as_secs_f64() >= seconds)
    }
}
