//! A function that takes as long as is asked for.

/// A function `name`, as CLIF, of so many steps, each of which waits for the one before and none of
/// which can be folded into it. It takes the value numbers below 10, and from there two a step.
///
/// `entry` and `exit` are further instructions, where it begins and before it returns.
pub fn callee(name: &str, steps: usize, [entry, exit]: [&str; 2]) -> String {
    let mut text = format!(
        "function {name}(i64) -> i64 system_v {{
        block0(v0: i64):
            {entry}
            v1 = iconst.i64 1
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
    text + &format!("{exit} return v{last}\n}}\n")
}
