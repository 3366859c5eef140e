//! Lossy JPEG of 8 or 12 bits (processes 1, 2 and 4): one grayscale image → its samples.
//!
//! In Rust, because the decoder of dicom-rs knows 8 bits only; it takes that one's place in the registry of transfer syntaxes.
//! Sequential, with Huffman codes; the transform is computed in floating point, so that samples are within one of every
//! other decoder's.
//! Every length of a stream is checked before memory is reserved, and a stream that ends early is refused.
//! No colour, no progressive or arithmetic coding: nothing of a CT has them.
//!
//! Source: ITU-T T.81 (ISO/IEC 10918-1), annexes A, B and F; PS3.5 section 8.2.1.

use super::grayscale;
use dicom_core::ops::AttributeOp;
use dicom_encoding::{
    Codec, NeverAdapter,
    adapters::{
        DecodeResult, EncodeError, EncodeOptions, EncodeResult, PixelDataObject, PixelDataReader,
        PixelDataWriter,
    },
    submit_ele_transfer_syntax,
};
use std::{f64::consts::PI, sync::LazyLock};

/// Reader of JPEG Extended (processes 2 and 4).
#[derive(Debug, Clone, Copy)]
struct JpegDct;

impl PixelDataReader for JpegDct {
    fn decode_frame(&self, source: &dyn PixelDataObject, frame: u32, out: &mut Vec<u8>) -> DecodeResult<()> {
        grayscale::decode_frame(source, frame, out, |data, said| {
            let layout = Layout {
                rows: said.rows,
                columns: said.columns,
                stored: said.stored,
            };
            decode(data, layout)
        })
    }
}

/// Writes nothing: the registry lets a reader take another's place only when it brings a writer.
#[derive(Debug, Clone, Copy)]
struct Unwritten;

impl PixelDataWriter for Unwritten {
    fn encode_frame(
        &self,
        _: &dyn PixelDataObject,
        _: u32,
        _: EncodeOptions,
        _: &mut Vec<u8>,
    ) -> EncodeResult<Vec<AttributeOp>> {
        Err(EncodeError::Custom {
            message: "lossy JPEG is not written here".to_owned(),
            source: None,
        })
    }
}

submit_ele_transfer_syntax!(
    "1.2.840.10008.1.2.4.51",
    "JPEG Extended (Process 2 & 4)",
    Codec::<NeverAdapter, _, _>::EncapsulatedPixelData(Some(JpegDct), Some(Unwritten))
);

/// Why a stream is not decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum StreamError {
    #[error("the JPEG stream ends early")]
    Short,
    #[error("the JPEG stream is broken: {0}")]
    Broken(&'static str),
    #[error("the JPEG stream has {0}, which no CT has and which is not decoded here")]
    Unsupported(&'static str),
    #[error("the JPEG image is {columns} × {rows}; the header says otherwise")]
    Size { rows: u16, columns: u16 },
    #[error("the JPEG samples have {found} bits; expected the {stored} of BitsStored")]
    Depth { found: u16, stored: u16 },
}
use StreamError::{Broken, Short, Unsupported};

/// What the header says.
#[derive(Debug, Clone, Copy)]
struct Layout {
    rows: u16,
    columns: u16,
    stored: u16,
}

/// Side of a block.
const SIDE: usize = 8;
/// Coefficients of a block.
const BLOCK: usize = SIDE * SIDE;

/// Row and column of each coefficient in the order of the stream (T.81 figure A.6).
const ZIGZAG: [usize; BLOCK] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// A Huffman code, by the length of its words (T.81 annex F.2.2.3).
#[derive(Debug, Clone, Default)]
struct Huffman {
    /// Of each length from 1: the first word, and where its value is in `values`.
    lengths: Vec<(u32, usize, usize)>,
    values: Vec<u8>,
}

impl Huffman {
    /// The code of these numbers of words by length, and their values.
    fn new(counts: &[u8], values: &[u8]) -> Result<Self, StreamError> {
        let (mut code, mut at) = (0u32, 0usize);
        let mut lengths = Vec::with_capacity(counts.len());
        for (bits, count) in (1u32..).zip(counts) {
            lengths.push((code, at, usize::from(*count)));
            code += u32::from(*count);
            at += usize::from(*count);
            if code > 1 << bits {
                return Err(Broken("a Huffman table has more words than bits"));
            }
            code <<= 1;
        }
        Ok(Self {
            lengths,
            values: values.get(..at).ok_or(Short)?.to_vec(),
        })
    }

    fn read(&self, bits: &mut Bits<'_>) -> Result<u8, StreamError> {
        let mut word = 0u32;
        for (first, at, count) in &self.lengths {
            word = word << 1 | bits.take(1)?;
            let place = word.wrapping_sub(*first) as usize;
            if place < *count {
                return Ok(self.values[at + place]);
            }
        }
        Err(Broken("a Huffman word is not in its table"))
    }
}

/// The bits of a scan; a stuffed zero follows each byte of ones, and behind a marker there are none.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    held: u32,
    count: u32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            held: 0,
            count: 0,
        }
    }

    /// At most 16 bits.
    fn take(&mut self, count: u32) -> Result<u32, StreamError> {
        while self.count < count {
            let byte = *self.bytes.get(self.at).ok_or(Short)?;
            self.at += 1;
            if byte == 0xFF {
                match self.bytes.get(self.at) {
                    Some(0) => self.at += 1,
                    _ => return Err(Short),
                }
            }
            self.held = self.held << 8 | u32::from(byte);
            self.count += 8;
        }
        self.count -= count;
        Ok(self.held >> self.count & ((1 << count) - 1))
    }

    /// A number of so many bits (T.81 section F.2.2.1).
    fn number(&mut self, size: u8) -> Result<i32, StreamError> {
        if size == 0 {
            return Ok(0);
        }
        if size > 15 {
            return Err(Broken("a coefficient has more than 15 bits"));
        }
        let value = self.take(size.into())?.cast_signed();
        Ok(if value < 1 << (size - 1) {
            value - (1 << size) + 1
        } else {
            value
        })
    }

    /// Drops the rest of the byte and the restart marker that must follow.
    fn restart(&mut self, number: usize) -> Result<(), StreamError> {
        self.count = 0;
        let marker = self.bytes.get(self.at..self.at + 2).ok_or(Short)?;
        if marker[0] != 0xFF || usize::from(marker[1]) != 0xD0 + number % 8 {
            return Err(Broken("a restart marker is missing"));
        }
        self.at += 2;
        Ok(())
    }
}

/// What the markers say.
#[derive(Default)]
struct Tables {
    quantization: [Option<[u16; BLOCK]>; 4],
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    restart_interval: usize,
    /// Precision, rows, columns and quantization table.
    frame: Option<(u8, u16, u16, usize)>,
}

/// Samples of the only component, row by row.
fn decode(stream: &[u8], layout: Layout) -> Result<Vec<u16>, StreamError> {
    let mut tables = Tables::default();
    let word = |at: usize| -> Result<u16, StreamError> {
        let bytes = stream.get(at..at + 2).ok_or(Short)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    if word(0)? != 0xFFD8 {
        return Err(Broken("it does not begin with SOI"));
    }
    let mut at = 2;
    loop {
        let marker = word(at)?;
        if marker == 0xFFFF {
            at += 1;
            continue;
        }
        let length = usize::from(word(at + 2)?);
        let body = stream.get(at + 4..at + 2 + length).ok_or(Short)?;
        at += 2 + length;
        match marker {
            0xFFDB => tables.read_quantization(body)?,
            0xFFC4 => tables.read_huffman(body)?,
            0xFFDD => tables.restart_interval = body.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)),
            0xFFC0 | 0xFFC1 => tables.read_frame(body, layout)?,
            0xFFC2..=0xFFCF => return Err(Unsupported("progressive, lossless or arithmetic coding")),
            0xFFDA => return tables.scan(body, stream.get(at..).ok_or(Short)?),
            0xFFE0..=0xFFFE => {}
            _ => return Err(Broken("a marker was expected")),
        }
    }
}

impl Tables {
    fn read_quantization(&mut self, mut body: &[u8]) -> Result<(), StreamError> {
        while let [head, rest @ ..] = body {
            let width = if head >> 4 == 0 { 1 } else { 2 };
            let bytes = rest.get(..BLOCK * width).ok_or(Short)?;
            let mut table = [0u16; BLOCK];
            for (value, bytes) in table.iter_mut().zip(bytes.chunks_exact(width)) {
                *value = bytes.iter().fold(0, |n, byte| n << 8 | u16::from(*byte));
            }
            *slot(&mut self.quantization, head & 15)? = Some(table);
            body = &rest[BLOCK * width..];
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut body: &[u8]) -> Result<(), StreamError> {
        while let [head, rest @ ..] = body {
            let counts = rest.get(..16).ok_or(Short)?;
            let values = &rest[16..];
            let table = Huffman::new(counts, values)?;
            body = &values[table.values.len()..];
            let tables = if head >> 4 == 0 {
                &mut self.dc
            } else {
                &mut self.ac
            };
            *slot(tables, head & 15)? = Some(table);
        }
        Ok(())
    }

    fn read_frame(&mut self, body: &[u8], layout: Layout) -> Result<(), StreamError> {
        let [precision @ (8 | 12), y0, y1, x0, x1, 1, _, _, table] = *body else {
            return Err(Unsupported("several components, or neither 8 nor 12 bits"));
        };
        let (rows, columns) = (u16::from_be_bytes([y0, y1]), u16::from_be_bytes([x0, x1]));
        if (rows, columns) != (layout.rows, layout.columns) {
            return Err(StreamError::Size { rows, columns });
        }
        if u16::from(precision) != layout.stored {
            return Err(StreamError::Depth {
                found: precision.into(),
                stored: layout.stored,
            });
        }
        self.frame = Some((precision, rows, columns, table.into()));
        Ok(())
    }

    /// Decodes the only scan.
    fn scan(&self, head: &[u8], coded: &[u8]) -> Result<Vec<u16>, StreamError> {
        let (precision, rows, columns, quantization) =
            self.frame.ok_or(Broken("the scan comes before the frame"))?;
        let [1, _, selectors, 0, 63, 0] = *head else {
            return Err(Unsupported("several scans"));
        };
        let missing = || Broken("a table that its scan names is not there");
        let quantization = self.quantization.get(quantization).and_then(Option::as_ref);
        let quantization = quantization.ok_or_else(missing)?;
        let named = |tables: &'_ [Option<Huffman>; 4], at: u8| tables.get(usize::from(at)).cloned().flatten();
        let dc = named(&self.dc, selectors >> 4).ok_or_else(missing)?;
        let ac = named(&self.ac, selectors & 15).ok_or_else(missing)?;
        let (rows, columns) = (usize::from(rows), usize::from(columns));
        let (down, across) = (rows.div_ceil(SIDE), columns.div_ceil(SIDE));
        // Each block takes two bits at least: a short stream must not reserve much.
        if coded.len() * 4 < down * across {
            return Err(Short);
        }
        let most = f64::from((1u32 << precision) - 1);
        let middle = f64::from(1u32 << (precision - 1));
        let mut samples = vec![0u16; rows * columns];
        let (mut bits, mut before) = (Bits::new(coded), 0i32);
        for block in 0..down * across {
            if self.restart_interval > 0 && block > 0 && block.is_multiple_of(self.restart_interval) {
                bits.restart(block / self.restart_interval - 1)?;
                before = 0;
            }
            let coefficients = coefficients(&mut bits, &dc, &ac, &mut before, quantization)?;
            let values = inverse(&coefficients);
            let (top, left) = (block / across * SIDE, block % across * SIDE);
            for (row, line) in (top..rows.min(top + SIDE)).zip(values.chunks_exact(SIDE)) {
                for (column, value) in (left..columns.min(left + SIDE)).zip(line) {
                    samples[row * columns + column] = nearest((value + middle).clamp(0.0, most));
                }
            }
        }
        Ok(samples)
    }
}

fn slot<T>(tables: &mut [T; 4], at: u8) -> Result<&mut T, StreamError> {
    tables
        .get_mut(usize::from(at))
        .ok_or(Broken("a table has a number beyond 3"))
}

/// The coefficients of a block, by row and column, as they were before quantization.
fn coefficients(
    bits: &mut Bits<'_>,
    dc: &Huffman,
    ac: &Huffman,
    before: &mut i32,
    quantization: &[u16; BLOCK],
) -> Result<[f64; BLOCK], StreamError> {
    let mut block = [0f64; BLOCK];
    let size = dc.read(bits)?;
    *before = before
        .checked_add(bits.number(size)?)
        .filter(|value| value.unsigned_abs() < 1 << 20)
        .ok_or(Broken("a mean is out of range"))?;
    block[0] = f64::from(*before) * f64::from(quantization[0]);
    let mut at = 1;
    while at < BLOCK {
        let code = ac.read(bits)?;
        let (zeros, size) = (usize::from(code >> 4), code & 15);
        if size == 0 {
            if zeros != 15 {
                break;
            }
            at += 16;
            continue;
        }
        at += zeros;
        let place = *ZIGZAG
            .get(at)
            .ok_or(Broken("a block has more than 64 coefficients"))?;
        block[place] = f64::from(bits.number(size)?) * f64::from(quantization[at]);
        at += 1;
    }
    Ok(block)
}

/// C(u)/2 · cos((2x + 1)uπ/16), by x, then u (T.81 section A.3.3).
static BASIS: LazyLock<[[f64; SIDE]; SIDE]> = LazyLock::new(|| {
    let mut basis = [[0.0; SIDE]; SIDE];
    for (x, row) in (0u32..).zip(basis.iter_mut()) {
        for (u, value) in (0u32..).zip(row.iter_mut()) {
            let scale = if u == 0 { 0.5f64.sqrt() } else { 1.0 };
            *value = scale / 2.0 * (f64::from((2 * x + 1) * u) * PI / 16.0).cos();
        }
    }
    basis
});

/// The inverse transform, columns first.
fn inverse(block: &[f64; BLOCK]) -> [f64; BLOCK] {
    let (mut half, mut out) = ([0f64; BLOCK], [0f64; BLOCK]);
    for (y, basis) in BASIS.iter().enumerate() {
        for u in 0..SIDE {
            half[y * SIDE + u] = (0..SIDE).map(|v| basis[v] * block[v * SIDE + u]).sum();
        }
    }
    for (at, value) in out.iter_mut().enumerate() {
        let line = &half[at / SIDE * SIDE..][..SIDE];
        *value = BASIS[at % SIDE].iter().zip(line).map(|(b, h)| b * h).sum();
    }
    out
}

/// The nearest whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to the range of the precision, which has at most 12 bits"
)]
fn nearest(value: f64) -> u16 {
    value.round() as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One block of 12 bits: a mean of 100 · 8 / 8 above the middle, and nothing else.
    fn flat() -> Vec<u8> {
        let mut stream = vec![0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0];
        stream.extend([8u8; 64]);
        stream.extend([0xFF, 0xC1, 0, 11, 12, 0, 8, 0, 8, 1, 1, 0x11, 0]);
        // One word each: size 7 of the mean, end of block.
        for (class, value) in [(0x00, 7), (0x10, 0)] {
            stream.extend([0xFF, 0xC4, 0, 20, class, 1]);
            stream.extend([0u8; 15]);
            stream.push(value);
        }
        stream.extend([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0]);
        // 0, then 1100100, then 0, and ones behind.
        stream.extend([0b0110_0100, 0b0111_1111, 0xFF, 0xD9]);
        stream
    }

    const LAYOUT: Layout = Layout {
        rows: 8,
        columns: 8,
        stored: 12,
    };

    #[test]
    fn a_block_with_nothing_but_a_mean_is_flat() {
        assert_eq!(decode(&flat(), LAYOUT).unwrap(), [2148; 64]);
    }

    #[test]
    fn refuses_another_size_another_depth_and_an_early_end() {
        let wide = Layout { columns: 9, ..LAYOUT };
        assert!(matches!(
            decode(&flat(), wide),
            Err(StreamError::Size { columns: 8, .. })
        ));
        let deep = Layout { stored: 16, ..LAYOUT };
        assert_eq!(
            decode(&flat(), deep),
            Err(StreamError::Depth {
                found: 12,
                stored: 16
            })
        );
        let whole = flat();
        for end in 0..whole.len() - 3 {
            assert!(decode(&whole[..end], LAYOUT).is_err(), "{end}");
        }
    }

    #[test]
    fn the_transform_of_one_coefficient_is_its_cosine() {
        let mut block = [0.0; BLOCK];
        block[1] = 8.0;
        let values = inverse(&block);
        for (x, value) in values.iter().take(SIDE).enumerate() {
            let expected = 8.0 / 4.0 * 0.5f64.sqrt() * ((2.0 * x as f64 + 1.0) * PI / 16.0).cos();
            assert!((value - expected).abs() < 1e-12, "{x}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut stream = flat();
            stream.truncate(stream.len() - 4);
            stream.extend(&noise);
            let _ = decode(&stream, LAYOUT);
            let _ = decode(&[&[0xFF, 0xD8], noise.as_slice()].concat(), LAYOUT);
        }
    }
}
