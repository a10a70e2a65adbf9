//! Plugins: shared libraries that are compiled while the program runs, replaced while a thread
//! calls them, and closed when it has left them.
//!
//! ```text
//! cargo run --example adopt_library -- [--json]
//! ```

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use lastout::{Adopted, Engine, FunctionType, Handle};
use libloading::Library;
use serde_json::json;

const SOURCE: &str = "
    #[unsafe(no_mangle)]
    pub extern \"C\" fn price(amount: i64) -> i64 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        amount * FACTOR
    }
";
const FACTORS: [i64; 4] = [10, 12, 9, 11];

type Error = Box<dyn std::error::Error>;
type Price = extern "C" fn(i64) -> i64;

fn main() -> ExitCode {
    let json = match env::args().nth(1).as_deref() {
        None => false,
        Some("--json") => true,
        Some(_) => {
            eprintln!("usage: adopt_library [--json]");
            return ExitCode::from(2);
        }
    };
    match run(json) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("adopt_library: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A folder that is removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        let path = env::temp_dir().join(format!("lastout-plugins-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Compiles a plugin. Each has a file of its own: the same would be loaded only once.
    fn compile(&self, factor: i64) -> Result<PathBuf, Error> {
        let source = self.0.join(format!("price_{factor}.rs"));
        let library = self.0.join(format!("price_{factor}.so"));
        fs::write(&source, SOURCE.replace("FACTOR", &factor.to_string()))?;
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition=2024", "--crate-type=cdylib", "-O", "-o"]);
        let status = command.arg(&library).arg(&source).status()?;
        if !status.success() {
            return Err(format!("rustc failed on {}", source.display()).into());
        }
        Ok(library)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Loads a library and has calls of `price` go to it. The engine closes it in the end.
fn install(engine: &Engine, path: &Path) -> Result<(), Error> {
    // SAFETY: the library is our own and does nothing when it is loaded or closed.
    let library = unsafe { Library::new(path)? };
    // SAFETY: that is what the library has under this name.
    let price = *unsafe { library.get::<Price>("price")? };
    let mut adopted = Adopted::new(move || drop(library));
    // SAFETY: the function is of this type, and the library stays until the owner lets go.
    unsafe { adopted.export("price", &Price::signature(engine.isa()), price as *const u8) };
    engine.adopt(adopted)?;
    Ok(())
}

fn is_loaded(path: &Path) -> Result<bool, Error> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    Ok(maps.contains(&*path.to_string_lossy()))
}

/// What the calling thread tells.
#[derive(Default)]
struct Caller {
    stop: AtomicBool,
    calls: AtomicU64,
    price: AtomicI64,
}

impl Caller {
    fn call(&self, price: &Handle<fn(i64) -> i64>) {
        while !self.stop.load(Ordering::Relaxed) {
            // SAFETY: the plugins are sound for this argument.
            let result = unsafe { price.call(100) }.expect("the function is never removed");
            self.price.store(result, Ordering::Relaxed);
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until the thread has called what is installed now.
    fn wait(&self) -> i64 {
        let seen = self.calls.load(Ordering::Relaxed);
        // The first of the two may have begun before.
        while self.calls.load(Ordering::Relaxed) < seen + 2 {
            thread::sleep(Duration::from_millis(1));
        }
        self.price.load(Ordering::Relaxed)
    }
}

fn run(json: bool) -> Result<bool, Error> {
    let engine = Engine::new()?;
    let folder = Folder::new()?;
    let mut current = folder.compile(FACTORS[0])?;
    install(&engine, &current)?;
    let price = engine.function::<fn(i64) -> i64>("price")?;
    let caller = Caller::default();
    let (mut prices, mut closed) = (Vec::new(), 0);

    thread::scope(|scope| {
        scope.spawn(|| caller.call(&price));
        let swapped = (|| -> Result<(), Error> {
            prices.push(caller.wait());
            println!("the first plugin says {}", prices[0]);
            for factor in &FACTORS[1..] {
                let next = folder.compile(*factor)?;
                install(&engine, &next)?;
                let open = is_loaded(&current)?;
                println!("installed the next; the thread is {} the last", inside(open));
                prices.push(caller.wait());
                let open = is_loaded(&current)?;
                closed += i32::from(!open);
                println!("it says {}, and the last is {}", prices[prices.len() - 1], state(open));
                current = next;
            }
            Ok(())
        })();
        caller.stop.store(true, Ordering::Relaxed);
        swapped
    })?;

    engine.remove("price")?;
    let open = is_loaded(&current)?;
    closed += i32::from(!open);
    println!("removed the function; its plugin is {}", state(open));
    let calls = caller.calls.load(Ordering::Relaxed);
    if json {
        println!("{}", json!({ "prices": prices, "closed": closed, "calls": calls }));
    }
    Ok(prices == FACTORS.map(|factor| 100 * factor) && closed == FACTORS.len() as i32)
}

fn inside(open: bool) -> &'static str {
    if open { "still inside" } else { "out of" }
}

fn state(open: bool) -> &'static str {
    if open { "still open" } else { "closed" }
}
