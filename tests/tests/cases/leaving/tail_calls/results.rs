//! Tail calls of functions with arguments and results of all kinds, compared with direct calls.

use lastout_tests::layers::engines;
use lastout_tests::registers::keeps;
use lastout_tests::support::install;
use lastout_tests::{builder, call};

/// Signatures: the types of further parameters, and of the results.
const SIGNATURES: [(&[&str], &[&str]); 8] = [
    (&[], &["i64"]),
    (&["i128"], &["i128"]),
    (&["f32x4", "f64"], &["f32x4", "f64", "i64"]),
    (&["i64", "i64", "i64", "i64", "i64", "i64", "i64", "i64"], &["i64", "i64"]),
    (&["i128", "i128", "i128", "i64", "f32x4"], &["i128", "i128"]),
    (&["f64"; 12], &["f64"; 10]),
    (&["i64"; 4], &["i64"; 16]),
    (
        &["i128", "f32x4", "f64", "i64", "i64", "i64", "i64", "i64", "i64"],
        &["f32x4", "i128", "i64", "f64", "i64", "i64", "i64", "i64", "i64", "i64", "i64"],
    ),
];

fn bytes(ty: &str) -> usize {
    match ty {
        "i128" | "f32x4" => 16,
        _ => 8,
    }
}

/// Functions that mix their arguments into results: `last`, and `between`, which tail-calls it; and
/// `outer`, which loads the arguments from memory, calls `between`, and stores the results there.
/// `by` is how functions are called: as colocated ones, or not.
fn texts((params, results): (&[&str], &[&str]), suffix: &str, by: &str) -> [String; 3] {
    let list = |types: &[&str]| types.join(", ");
    let signature = format!(
        "(i64{}) -> {} tail",
        params.iter().map(|ty| format!(", {ty}")).collect::<String>(),
        list(results)
    );
    let values: Vec<_> = (0..params.len()).map(|index| format!("v{}", 10 + index)).collect();
    let typed: String =
        values.iter().zip(params).map(|(value, ty)| format!(", {value}: {ty}")).collect();
    let arguments: String = values.iter().map(|value| format!(", {value}")).collect();
    // Each result is the last argument of its type, or made of the first one, and the results are
    // all different.
    let made: Vec<_> = results.iter().enumerate().map(|(number, ty)| {
        let source = params.iter().rposition(|param| param == ty).map(|index| values[index].clone());
        let [one, two, three, four] = [1000, 2000, 3000, 4000].map(|base| format!("v{}", base + number));
        let sum = format!("{one} = iconst.i64 {number}\n{two} = iadd v0, {one}\n");
        let (lines, value) = match (*ty, source) {
            ("i64", Some(source)) => (format!("{sum}{three} = iadd {two}, {source}\n"), three),
            ("i64", None) => (sum, two),
            ("i128", Some(source)) => (format!("{sum}{three} = uextend.i128 {two}\n{four} = iadd {three}, {source}\n"), four),
            ("i128", None) => (format!("{sum}{three} = iconcat {two}, {one}\n"), three),
            ("f64", Some(source)) => (format!("{sum}{three} = fcvt_from_sint.f64 {two}\n{four} = fadd {three}, {source}\n"), four),
            ("f64", None) => (format!("{sum}{three} = fcvt_from_sint.f64 {two}\n"), three),
            (_, Some(source)) => (format!("{sum}{three} = splat.i64x2 {two}\nv{} = bitcast.i64x2 little {source}\n{four} = bxor {three}, v{}\nv{} = bitcast.f32x4 little {four}\n", 5000 + number, 5000 + number, 6000 + number), format!("v{}", 6000 + number)),
            (_, None) => (format!("{sum}{three} = splat.i64x2 {two}\n{four} = bitcast.f32x4 little {three}\n"), four),
        };
        (lines, value)
    }).collect();
    let lines: String = made.iter().map(|(lines, _)| lines.as_str()).collect();
    let returned = made.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ");
    let last = format!(
        "function %last{suffix}{signature} {{
         block0(v0: i64{typed}):
            {lines}
            return {returned}
         }}\n"
    );
    let between = format!(
        "function %between{suffix}{signature} {{
            fn0 = {by} %last{suffix}{signature}
         block0(v0: i64{typed}):
            v1 = iconst.i64 1000
            v2 = iadd v0, v1
            return_call fn0(v2{arguments})
         }}\n"
    );
    let mut at = 0;
    let mut place = |ty: &str| {
        let place = at;
        at += bytes(ty);
        place
    };
    let loads: String = params
        .iter()
        .zip(&values)
        .map(|(ty, value)| format!("{value} = load.{ty} notrap v0+{}\n", place(ty)))
        .collect();
    let stored: Vec<_> = (0..results.len()).map(|index| format!("v{}", 100 + index)).collect();
    let stores: String = results
        .iter()
        .zip(&stored)
        .map(|(ty, value)| format!("store notrap {value}, v0+{}\n", place(ty)))
        .collect();
    let outer = format!(
        "function %outer{suffix}(i64, i64) -> i64 system_v {{
            fn0 = {by} %between{suffix}{signature}
         block0(v0: i64, v1: i64):
            {loads}
            {} = call fn0(v1{arguments})
            {stores}
            return v1
         }}\n",
        stored.join(", ")
    );
    [last, between, outer]
}

#[test]
fn results_and_arguments_of_all_kinds_come_through() {
    for (name, engine) in engines(|| builder!()) {
        for (number, signature) in SIGNATURES.into_iter().enumerate() {
            install(&engine, &texts(signature, "_direct", "colocated").concat());
            for text in texts(signature, "_gated", "") {
                install(&engine, &text);
            }
            let run = |function: &str, seed: u64| {
                let function = engine.function::<fn(usize, i64) -> i64>(function).unwrap();
                let mut words: Vec<u64> = (1..=64_u64)
                    .map(|word| (word * seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3)
                    .collect();
                let address = words.as_mut_ptr().expose_provenance();
                assert_eq!(keeps(|| call!(function, address, seed as i64)), Ok(seed as i64));
                words
            };
            for seed in 1..20 {
                let direct = run("outer_direct", seed);
                assert_eq!(run("outer_gated", seed), direct, "{name}, signature {number}");
            }
            // And where there is nothing to call: zeros for all of them.
            engine.remove("last_gated").unwrap();
            let function = engine.function::<fn(usize, i64) -> i64>("outer_gated").unwrap();
            let mut words = vec![u64::MAX; 64];
            let address = words.as_mut_ptr().expose_provenance();
            assert!(keeps(|| call!(function, address, 1)).is_err(), "{name}, signature {number}");
            let (params, results) = signature;
            let size = |types: &[&str]| types.iter().map(|ty| bytes(ty)).sum::<usize>() / 8;
            let (start, end) = (size(params), size(params) + size(results));
            assert!(words[..start].iter().all(|word| *word == u64::MAX));
            assert_eq!(words[start..end], vec![0; end - start], "{name}, signature {number}");
            drop(function);
            for gone in
                ["outer_gated", "between_gated", "outer_direct", "between_direct", "last_direct"]
            {
                engine.remove(gone).unwrap();
            }
        }
    }
}
