//! Which device the networks run on.

use std::str::FromStr;

/// A choice of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA when the build and the machine have it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA, or an error.
    Cuda,
}

/// Not a device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a device is `auto`, `cpu` or `cuda`")]
pub struct DeviceError;

impl FromStr for DeviceChoice {
    type Err = DeviceError;
    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(DeviceError),
        }
    }
}
