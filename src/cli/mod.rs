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
