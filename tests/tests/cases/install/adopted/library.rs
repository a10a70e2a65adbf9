//! A shared library: closed when the last thread has left it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{env, fs, thread};

use lastout::{Adopted, Engine, Installed, VersionState};
use lastout_tests::support::{COUNTINGS, Door};
use lastout_tests::{builder, call, engine};
use libloading::Library;

use super::{address_of, pass_door, signature_of};

/// The library's file, compiled once.
fn compiled() -> &'static [u8] {
    static COMPILED: OnceLock<Vec<u8>> = OnceLock::new();
    COMPILED.get_or_init(|| {
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/install/adopted/plugin.rs");
        let file = temporary("compiled");
        let mut command = Command::new(rustc);
        command.args(["--edition=2024", "--crate-type=cdylib", "-Copt-level=1", "-o"]);
        let status = command.arg(&file).arg(source).status().unwrap();
        assert!(status.success(), "the plugin cannot be compiled");
        let compiled = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        compiled
    })
}

fn temporary(name: &str) -> PathBuf {
    let file = format!("plugin-{}-{name}.so", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(file)
}

/// The library, loaded from a file of its own: the same file would be loaded only once.
struct Plugin {
    file: PathBuf,
    adopted: Adopted,
}

impl Plugin {
    fn load(engine: &Engine) -> Self {
        static LOADED: AtomicUsize = AtomicUsize::new(0);
        let file = temporary(&LOADED.fetch_add(1, Ordering::Relaxed).to_string());
        fs::write(&file, compiled()).unwrap();
        // SAFETY: it is the library of `plugin.rs`, which does nothing when loaded or closed.
        let library = unsafe { Library::new(&file) }.unwrap();
        fs::remove_file(&file).unwrap();
        // SAFETY: the functions are only called while the library is there.
        let address = |name: &str| unsafe { *library.get::<*const u8>(name).unwrap() };
        let exports = [
            ("times_ten", signature_of::<fn(i64) -> i64>(engine)),
            ("calls", signature_of::<fn() -> i64>(engine)),
            ("through", signature_of::<fn(usize, usize) -> i64>(engine)),
        ];
        let exports = exports.map(|(name, signature)| (name, signature, address(name)));
        let mut adopted = Adopted::new(move || library.close().unwrap());
        for (name, signature, address) in exports {
            // SAFETY: that is how `plugin.rs` declares it, and the owner keeps the library.
            unsafe { adopted.export(name, &signature, address) };
        }
        Self { file, adopted }
    }

    fn install(self, engine: &Engine) -> (PathBuf, Installed) {
        (self.file, engine.adopt(self.adopted).unwrap())
    }
}

/// Whether a library is mapped.
fn is_loaded(file: &Path) -> bool {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.contains(file.to_str().unwrap())
}

extern "C" fn pass_and_return_7(door: usize) -> i64 {
    pass_door(door, 7)
}

#[test]
fn a_library_is_closed_when_the_last_thread_has_left() {
    for counting in COUNTINGS {
        let engine = builder!().counting(counting).build().unwrap();
        let (first, installed) = Plugin::load(&engine).install(&engine);
        let times_ten = engine.function::<fn(i64) -> i64>("times_ten").unwrap();
        let calls = engine.function::<fn() -> i64>("calls").unwrap();
        let through = engine.function::<fn(usize, usize) -> i64>("through").unwrap();
        assert_eq!((call!(times_ten, 4).unwrap(), call!(calls).unwrap()), (40, 1));
        assert!(is_loaded(&first));
        let door = Door::default();
        let second = thread::scope(|scope| {
            let pass = (pass_and_return_7 as *const ()).addr();
            let at = address_of(&door);
            let through = &through;
            let inside = scope.spawn(move || call!(through, at, pass));
            door.arrived();
            let (second, _) = Plugin::load(&engine).install(&engine);
            assert_eq!((call!(times_ten, 5).unwrap(), call!(calls).unwrap()), (50, 1));
            assert!(is_loaded(&first) && is_loaded(&second));
            assert_eq!(installed.version("times_ten").unwrap().state(), VersionState::Freed);
            assert_eq!(installed.version("through").unwrap().state(), VersionState::Retired);
            door.open();
            assert_eq!(inside.join().unwrap().unwrap(), 1007);
            second
        });
        assert!(installed.version("through").unwrap().wait_freed(Duration::ZERO));
        assert!(!is_loaded(&first) && is_loaded(&second));
        drop(engine);
        assert!(!is_loaded(&second));
    }
}

#[test]
fn a_library_that_is_never_installed_is_closed() {
    let engine = engine!();
    let Plugin { file, adopted } = Plugin::load(&engine);
    assert!(is_loaded(&file));
    drop(adopted);
    assert!(!is_loaded(&file));
}
