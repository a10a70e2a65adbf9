//! What figures were measured on.

/// The name of the processor, and how many of them the process may use.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model =
        model.map_or("unknown processor", |model| model.trim_start_matches([' ', '\t', ':']));
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    format!("{model}, {processors} processors")
}
