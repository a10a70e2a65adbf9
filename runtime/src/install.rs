//! Installing a unit: everything that can fail, then everything that must not.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use cranelift_module::{FuncId, Module};

use crate::function::{Closing, FreeSeat, Function};
use crate::handle::Handle;
use crate::link::{Linked, is_public, link};
use crate::names::Names;
use crate::payload::{Image, Payload};
use crate::shared::Shared;
use crate::template::Kind;
use crate::types::FunctionType;
use crate::unit::Unit;
use crate::version::Version;
use crate::{Error, Result};

/// What an install has put into the engine.
///
/// It keeps the exposed functions of the unit alive, and nothing else.
pub struct Installed {
    versions: Vec<Version>,
    functions: HashMap<FuncId, Arc<Function>>,
}

impl Installed {
    /// The versions that the unit has installed, one for each function that it exports or
    /// exposes.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The version of the function with this name.
    pub fn version(&self, name: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.function() == name)
    }

    /// A handle to an exposed function of the unit.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFunction`] if the unit did not [expose](Unit::expose) it,
    /// [`Error::SignatureMismatch`] if `F` is not its type, or there is no memory for the entry.
    pub fn function<F: FunctionType>(&self, function: FuncId) -> Result<Handle<F>> {
        let exposed = self.functions.get(&function);
        let exposed = exposed.ok_or_else(|| Error::UnknownFunction(function.to_string()))?;
        Handle::new(Arc::clone(exposed))
    }
}

impl fmt::Debug for Installed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Installed").field(&self.versions).finish()
    }
}

/// Compiles, before the names are locked, what publishing this unit may need.
pub(crate) fn prepare(shared: &Shared, unit: &Unit) -> Result<()> {
    for &id in unit.functions.keys() {
        let declaration = unit.declarations().get_function_decl(id);
        if is_public(declaration.linkage) || unit.exposed.contains(&id) {
            shared.templates.get(Kind::Gate(declaration.signature.clone()))?;
        }
    }
    Ok(())
}

/// A unit that is linked and has a seat for each of its versions: nothing can fail any more.
pub(crate) struct Publication {
    image: Image,
    roots: Vec<Root>,
}

/// A function that is about to get a version.
struct Root {
    id: FuncId,
    function: Arc<Function>,
    seat: FreeSeat,
    body: usize,
    public: bool,
    exposed: bool,
}

impl Publication {
    /// Links `unit` against what `names` knows. On an error nothing has changed.
    pub(crate) fn new(shared: &Arc<Shared>, names: &Names, unit: &mut Unit) -> Result<Self> {
        let Linked { block, roots, callees } = link(shared, names, unit)?;
        let roots = roots.into_iter().map(|(id, function, body)| {
            let public = is_public(unit.declarations().get_function_decl(id).linkage);
            let exposed = unit.exposed.contains(&id);
            let seat = function.free_seat()?;
            Ok(Root { id, function, seat, body, public, exposed })
        });
        let roots = roots.collect::<Result<_>>()?;
        let attached = std::mem::take(&mut unit.attached);
        let image = Image::new(block, callees, attached);
        Ok(Self { image, roots })
    }

    /// Makes the unit's versions current, and those that they replace impossible to enter. What
    /// that leaves behind is to be let go after the lock of `names` is released.
    pub(crate) fn publish(self, shared: &Arc<Shared>, names: &mut Names) -> (Installed, Leftovers) {
        names.installs += 1;
        let image = Arc::new(self.image);
        let mut installed = Installed { versions: Vec::new(), functions: HashMap::new() };
        let mut replaced = Vec::new();
        for Root { id, function, seat, body, public, exposed } in self.roots {
            let version = Version::new(Arc::clone(function.name()), names.installs);
            let disposal = Arc::clone(&shared.disposal);
            let payload = Payload::new(Arc::clone(&image), version.clone(), disposal);
            // SAFETY: `names` is borrowed mutably, so this thread is the only one publishing.
            // `body` was compiled with the function's signature into the image that the payload
            // keeps.
            replaced.extend(unsafe { function.publish(seat, body, payload, &version) });
            installed.versions.push(version);
            if public {
                names.insert(&function);
            }
            if exposed {
                installed.functions.insert(id, function);
            }
        }
        // Not before all slots point elsewhere: callers turn away from a closed gate to what is
        // current, and would find half a unit.
        for closing in &replaced {
            // SAFETY: as above, and these were replaced just now.
            unsafe { closing.close() };
        }
        (installed, Leftovers { replaced, image })
    }
}

/// What an install lets go of.
pub(crate) struct Leftovers {
    /// To be retired.
    pub(crate) replaced: Vec<Closing>,
    /// The unit itself: if it has no versions, it goes at once.
    pub(crate) image: Arc<Image>,
}
