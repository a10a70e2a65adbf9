//! The functions that are called, and the loops that call them, as CLIF.

/// A function `%callee` of so many steps, each of which waits for the one before and none of which
/// can be folded into it.
pub(crate) fn callee(steps: usize) -> String {
    body("%callee", steps, "", "")
}

/// The literal scheme: the same, with an atomic counter at `address` that goes up on the way in,
/// and down on the way out.
pub(crate) fn counting(steps: usize, address: usize) -> String {
    let entry = format!("v7 = iconst.i64 {address}\nv8 = atomic_rmw.i64 add v7, v1");
    body("%counting", steps, &entry, "v9 = atomic_rmw.i64 sub v7, v1")
}

fn body(name: &str, steps: usize, entry: &str, exit: &str) -> String {
    let mut text = format!(
        "function {name}(i64) -> i64 system_v {{
        block0(v0: i64):
            v1 = iconst.i64 1
            {entry}
            v2 = iadd v0, v1
            v3 = iconst.i64 7
        "
    );
    let mut last = 2;
    for step in 0..steps {
        let [shifted, next] = [10 + 2 * step, 11 + 2 * step];
        text += &format!("v{shifted} = ushr v{last}, v3\nv{next} = iadd v{shifted}, v{last}\n");
        last = next;
    }
    text + &format!("{exit}\nreturn v{last}\n}}\n")
}

/// A loop `name` that calls `callee` directly, or, in a unit, as its linkage says. It calls it as
/// often as the first argument says, each time with what it returned last.
pub(crate) fn calling(name: &str, callee: &str) -> String {
    let declaration = format!("fn0 = {callee}(i64) -> i64 system_v");
    loop_of(name, &declaration, "", "call fn0(v3)")
}

/// A loop that calls what is in the slot at `address`.
pub(crate) fn through_slot(name: &str, address: usize) -> String {
    let load = format!("v8 = iconst.i64 {address}\nv9 = load.i64 notrap aligned v8");
    loop_of(name, "sig0 = (i64) -> i64 system_v", &load, "call_indirect sig0, v9(v3)")
}

fn loop_of(name: &str, declaration: &str, load: &str, call: &str) -> String {
    format!(
        "function {name}(i64, i64) -> i64 system_v {{
            {declaration}
        block0(v0: i64, v1: i64):
            jump block1(v0, v1)
        block1(v2: i64, v3: i64):
            {load}
            v4 = {call}
            v5 = iconst.i64 -1
            v6 = iadd v2, v5
            brif v6, block1(v6, v4), block2
        block2:
            return v4
        }}
        "
    )
}
