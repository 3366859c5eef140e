//! JPEG XL: one grayscale image that was compressed without loss → its samples, exactly.
//!
//! A decoder of pictures hands out what a screen shows: samples scaled to its own range, colours converted, the image turned.
//! Any of that would shift HU without a trace, so that only integers are taken as the stream holds them, before anything is done to them; a stream whose samples are not kept as integers is refused, and lossy ones are among those.
//! The integers must fit what the header says of them: more than BitsStored is a stream that was scaled by somebody.
//!
//! Source: ISO/IEC 18181-1; PS3.5 section 8.2.15 and annex A.4.12.

use super::grayscale;
use dicom_encoding::{
    Codec, NeverAdapter, NeverPixelAdapter,
    adapters::{DecodeResult, PixelDataObject, PixelDataReader},
    submit_ele_transfer_syntax,
};
use jxl_oxide::{AllocTracker, JxlImage, JxlThreadPool, image::BitDepth};
use jxl_render::ImageBuffer;

/// Memory that a decoder may take beside its planes, bytes.
const OVERHEAD_BYTES: usize = 64 << 20;
/// Memory that a decoder may take for a pixel: planes of four bytes for each step of the transforms.
const BYTES_A_PIXEL: usize = 64;

/// Reader of the three transfer syntaxes.
#[derive(Debug, Clone, Copy)]
struct JpegXl;

impl PixelDataReader for JpegXl {
    fn decode_frame(&self, source: &dyn PixelDataObject, frame: u32, out: &mut Vec<u8>) -> DecodeResult<()> {
        grayscale::decode_frame(source, frame, out, |data, said| {
            let layout = Layout {
                rows: said.rows.into(),
                columns: said.columns.into(),
                allocated: said.allocated.into(),
                stored: said.stored.into(),
            };
            decode(data, layout)
        })
    }
}

submit_ele_transfer_syntax!(
    "1.2.840.10008.1.2.4.110",
    "JPEG XL Lossless",
    Codec::<NeverAdapter, _, NeverPixelAdapter>::EncapsulatedPixelData(Some(JpegXl), None)
);
submit_ele_transfer_syntax!(
    "1.2.840.10008.1.2.4.111",
    "JPEG XL Recompression",
    Codec::<NeverAdapter, _, NeverPixelAdapter>::EncapsulatedPixelData(Some(JpegXl), None)
);
submit_ele_transfer_syntax!(
    "1.2.840.10008.1.2.4.112",
    "JPEG XL",
    Codec::<NeverAdapter, _, NeverPixelAdapter>::EncapsulatedPixelData(Some(JpegXl), None)
);

/// Why a stream is not decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum StreamError {
    #[error("the JPEG XL stream is broken or ends early")]
    Broken,
    #[error(
        "the JPEG XL stream holds {0}, from which stored values do not come back exactly; send it as JPEG XL Lossless or uncompressed"
    )]
    Inexact(&'static str),
    #[error("the JPEG XL image is {columns} × {rows}; the header says otherwise")]
    Size { rows: u32, columns: u32 },
    #[error(
        "the JPEG XL samples have {found} bits; expected the {stored} of BitsStored or all that are allocated"
    )]
    Depth { found: u32, stored: u32 },
    #[error("a JPEG XL sample of {found} does not fit the {stored} bits of BitsStored: it was scaled")]
    Scaled { found: i32, stored: u32 },
}

/// What the header says.
#[derive(Debug, Clone, Copy)]
struct Layout {
    rows: u32,
    columns: u32,
    allocated: u32,
    stored: u32,
}

/// Samples of the only channel, row by row, as they were before compression.
fn decode(stream: &[u8], layout: Layout) -> Result<Vec<u16>, StreamError> {
    let pixels = layout.rows as usize * layout.columns as usize;
    let mut image = JxlImage::builder()
        .pool(JxlThreadPool::none())
        .alloc_tracker(AllocTracker::with_limit(OVERHEAD_BYTES + BYTES_A_PIXEL * pixels))
        .read(stream)
        .map_err(|_| StreamError::Broken)?;
    image.finalize().map_err(|_| StreamError::Broken)?;
    let header = image.image_header();
    let (rows, columns) = (header.size.height, header.size.width);
    if (rows, columns) != (layout.rows, layout.columns) {
        return Err(StreamError::Size { rows, columns });
    }
    let metadata = &header.metadata;
    if metadata.xyb_encoded {
        return Err(StreamError::Inexact("colours of the eye (XYB), which are lossy"));
    }
    if !metadata.grayscale() || !metadata.ec_info.is_empty() {
        return Err(StreamError::Inexact("more than one channel"));
    }
    if metadata.orientation != 1 {
        return Err(StreamError::Inexact("an image that is to be turned"));
    }
    let BitDepth::IntegerSample { bits_per_sample } = metadata.bit_depth else {
        return Err(StreamError::Inexact("floating-point samples"));
    };
    if ![layout.stored, layout.allocated].contains(&bits_per_sample) {
        return Err(StreamError::Depth {
            found: bits_per_sample,
            stored: layout.stored,
        });
    }
    if image.num_loaded_keyframes() != 1 {
        return Err(StreamError::Inexact("several pictures"));
    }
    let render = image.render_frame(0).map_err(|_| StreamError::Broken)?;
    let [channel] = render.color_channels() else {
        return Err(StreamError::Inexact("more than one channel"));
    };
    if (channel.width(), channel.height()) != (columns as usize, rows as usize) {
        return Err(StreamError::Broken);
    }
    let whole: Vec<i32> = match channel {
        ImageBuffer::I16(grid) => grid.buf().iter().map(|sample| i32::from(*sample)).collect(),
        ImageBuffer::I32(grid) => grid.buf().to_vec(),
        ImageBuffer::F32(_) => {
            return Err(StreamError::Inexact(
                "samples that are no integers, which are lossy",
            ));
        }
    };
    let word = |sample: i32| {
        let scaled = StreamError::Scaled {
            found: sample,
            stored: layout.stored,
        };
        let word = u16::try_from(sample).ok().filter(|word| fits(*word, layout));
        word.ok_or(scaled)
    };
    whole.into_iter().map(word).collect()
}

/// Whether the bits above BitsStored are empty, or those of a negative number.
fn fits(word: u16, layout: Layout) -> bool {
    let above = u32::from(word) >> layout.stored;
    let all = ((1u32 << layout.allocated) - 1) >> layout.stored;
    let negative = u32::from(word) >> (layout.stored - 1) & 1 == 1;
    above == 0 || negative && above == all
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_word_fits_when_nothing_or_its_sign_stands_above_the_stored_bits() {
        let layout = |stored| Layout {
            rows: 1,
            columns: 1,
            allocated: 16,
            stored,
        };
        for (word, stored, expected) in [
            (0x0FFF, 12, true),
            (0x1000, 12, false),
            (0xF800, 12, true),
            (0xF7FF, 12, false),
            (0xFFFF, 16, true),
        ] {
            assert_eq!(fits(word, layout(stored)), expected, "{word:x} in {stored}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let layout = Layout { rows: 4, columns: 4, allocated: 16, stored: 12 };
            let _ = decode(&[&[0xFF, 0x0A], noise.as_slice()].concat(), layout);
        }
    }
}
