//! A decoder of one grayscale image → a reader of frames, as the registry of transfer syntaxes wants one.

use dicom_encoding::adapters::{DecodeError, DecodeResult, PixelDataObject};
use std::fmt::Display;

/// What the header says of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub(super) rows: u16,
    pub(super) columns: u16,
    /// Bits of a pixel, 8 or 16.
    pub(super) allocated: u16,
    /// Bits of it that are used.
    pub(super) stored: u16,
}

/// Decodes a frame, and appends its samples to `out` in as many bytes as they have allocated, little endian.
pub(super) fn decode_frame<E: Display>(
    source: &dyn PixelDataObject,
    frame: u32,
    out: &mut Vec<u8>,
    decode: impl FnOnce(&[u8], Said) -> Result<Vec<u16>, E>,
) -> DecodeResult<()> {
    let failed = |message: String| DecodeError::Custom {
        message,
        source: None,
    };
    let data = source
        .frame_pixel_data(frame)
        .ok_or_else(|| failed("the frame is not there".to_owned()))?;
    let wanted = (source.rows(), source.cols(), source.bits_allocated());
    let (Some(rows), Some(columns), Some(allocated @ (8 | 16))) = wanted else {
        return Err(failed(
            "the image has no size, or not 8 or 16 bits allocated".to_owned(),
        ));
    };
    let said = Said {
        rows,
        columns,
        allocated,
        stored: source.bits_stored().unwrap_or(allocated),
    };
    let samples = decode(&data, said).map_err(|error| failed(error.to_string()))?;
    if allocated == 8 {
        out.extend(samples.iter().map(|sample| sample.to_le_bytes()[0]));
    } else {
        out.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    }
    Ok(())
}
