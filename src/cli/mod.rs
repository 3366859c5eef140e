//! One file a command; each turns arguments into calls of the library and results into text.

pub(crate) mod train;

use ictus::analysis::infer::DeviceChoice;

/// Parses `--device`.
pub(crate) fn device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        "cuda" => Ok(DeviceChoice::Cuda),
        other => Err(format!("{other:?} is not auto, cpu or cuda")),
    }
}

/// Exit code for something that this build does not have.
const NOT_IN_THIS_BUILD: u8 = 2;

/// Prints a line for a person or a pipe.
pub(crate) fn say(line: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "{line}")
}

/// Answers a flag or command that is not built yet.
pub(crate) fn not_in_this_build(what: &str) -> std::process::ExitCode {
    eprintln!("ictus: {what} is not in this build");
    std::process::ExitCode::from(NOT_IN_THIS_BUILD)
}
