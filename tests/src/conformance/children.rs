//! Files in processes of their own: one that crashes is a failure, and the others go on.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::report::FileReport;

/// How long a file may take before it is taken to hang.
const LIMIT: Duration = Duration::from_secs(300);

/// Has `child`, a command that [reports](report_to_parent) what it finds out about a file, do so.
pub fn run_in_child(child: io::Result<Command>, path: &Path) -> FileReport {
    run(child).unwrap_or_else(|what| FileReport::failure(path, &what))
}

fn run(command: io::Result<Command>) -> Result<FileReport, String> {
    let not_started = |error: io::Error| format!("no process can be started: {error}");
    let mut command = command.map_err(not_started)?;
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(not_started)?;
    let stdout = child.stdout.take();
    let (done, output) = channel();
    let reader = thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.map(|mut stdout| stdout.read_to_string(&mut text));
        // The receiver is gone if this took too long.
        let _ = done.send(());
        read.map(|read| read.map(|_| text))
    });
    let in_time = output.recv_timeout(LIMIT).is_ok();
    if !in_time {
        // It may have ended just now.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if !in_time {
        return Err(format!("not done after {} s", LIMIT.as_secs()));
    }
    let text = reader.join().ok().flatten().and_then(Result::ok).unwrap_or_default();
    let report = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    match report {
        Some(report) if status.success() => Ok(report),
        _ => Err(format!("its process ended with {status}")),
    }
}

/// Prints what is to be known about a file for the process that has [asked](run_in_child) for it.
///
/// # Errors
///
/// If nothing can be written to the standard output.
pub fn report_to_parent(report: &FileReport) -> io::Result<()> {
    serde_json::to_writer(io::stdout(), report)?;
    Ok(())
}
