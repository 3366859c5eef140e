//! JPEG-LS, lossless and near-lossless: one grayscale image → its samples.
//!
//! In Rust, because dicom-rs has this only by a C++ library; it is put into the registry of transfer syntaxes, so that
//! whatever decodes there decodes this.
//! Every length and parameter of a stream is checked before memory is reserved, and a stream that ends early is refused.
//! No colour, no restart intervals, no mapping tables: nothing of a CT has them.
//!
//! Source: ITU-T T.87 (ISO/IEC 14495-1), annexes A and C; PS3.5 annex A.4.3.

use super::grayscale;
use dicom_encoding::{
    Codec, NeverAdapter, NeverPixelAdapter,
    adapters::{DecodeResult, PixelDataObject, PixelDataReader},
    submit_ele_transfer_syntax,
};

/// Reader of both transfer syntaxes.
#[derive(Debug, Clone, Copy)]
struct JpegLs;

impl PixelDataReader for JpegLs {
    fn decode_frame(&self, source: &dyn PixelDataObject, frame: u32, out: &mut Vec<u8>) -> DecodeResult<()> {
        grayscale::decode_frame(source, frame, out, |data, said| {
            decode(data, (said.rows, said.columns))
        })
    }
}

submit_ele_transfer_syntax!(
    "1.2.840.10008.1.2.4.80",
    "JPEG-LS Lossless Image Compression",
    Codec::<NeverAdapter, _, NeverPixelAdapter>::EncapsulatedPixelData(Some(JpegLs), None)
);
submit_ele_transfer_syntax!(
    "1.2.840.10008.1.2.4.81",
    "JPEG-LS Lossy (Near-Lossless) Image Compression",
    Codec::<NeverAdapter, _, NeverPixelAdapter>::EncapsulatedPixelData(Some(JpegLs), None)
);

/// Why a stream is not decoded.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum StreamError {
    #[error("the JPEG-LS stream ends early")]
    Short,
    #[error("the JPEG-LS stream is broken: {0}")]
    Broken(&'static str),
    #[error("the JPEG-LS stream has {0}, which no CT has and which is not decoded here")]
    Unsupported(&'static str),
    #[error("the JPEG-LS image is {columns} × {rows}; the header says otherwise")]
    Size { rows: u16, columns: u16 },
}

/// What the markers say.
#[derive(Debug, Clone, Copy)]
struct Parameters {
    rows: u16,
    columns: u16,
    precision: u8,
    near: i32,
    /// MAXVAL, T1, T2, T3 and RESET of an LSE marker; 0 is the default.
    preset: [u16; 5],
}

/// Samples of the only component, row by row; `size`: the rows and columns that there must be.
fn decode(stream: &[u8], size: (u16, u16)) -> Result<Vec<u16>, StreamError> {
    let (parameters, scan) = markers(stream)?;
    let (rows, columns) = (parameters.rows, parameters.columns);
    if (rows, columns) != size {
        return Err(StreamError::Size { rows, columns });
    }
    Decoder::new(&parameters, scan)?.image(usize::from(rows), usize::from(columns))
}

/// Reads the markers up to the scan.
fn markers(stream: &[u8]) -> Result<(Parameters, &[u8]), StreamError> {
    let word = |at: usize| -> Result<u16, StreamError> {
        let bytes = stream.get(at..at + 2).ok_or(StreamError::Short)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    if word(0)? != 0xFFD8 {
        return Err(StreamError::Broken("it does not begin with SOI"));
    }
    let mut found: Option<Parameters> = None;
    let (mut preset, mut at) = ([0u16; 5], 2);
    loop {
        let (marker, length) = (word(at)?, usize::from(word(at + 2)?));
        let body = stream.get(at + 4..at + 2 + length).ok_or(StreamError::Short)?;
        match (marker, body) {
            (0xFFF7, [precision, y0, y1, x0, x1, 1, ..]) => {
                found = Some(Parameters {
                    rows: u16::from_be_bytes([*y0, *y1]),
                    columns: u16::from_be_bytes([*x0, *x1]),
                    precision: *precision,
                    near: 0,
                    preset: [0; 5],
                });
            }
            (0xFFF7, _) => return Err(StreamError::Unsupported("several components")),
            (0xFFF8, [1, values @ ..]) if values.len() >= 10 => {
                for (value, bytes) in preset.iter_mut().zip(values.chunks_exact(2)) {
                    *value = u16::from_be_bytes([bytes[0], bytes[1]]);
                }
            }
            (0xFFF8, _) => return Err(StreamError::Unsupported("a mapping table or a larger size")),
            (0xFFDD, body) if body.iter().any(|byte| *byte != 0) => {
                return Err(StreamError::Unsupported("restart intervals"));
            }
            (0xFFDA, [1, _, 0, near, 0, 0]) => {
                let parameters = found.ok_or(StreamError::Broken("the scan comes before the frame"))?;
                let parameters = Parameters {
                    near: i32::from(*near),
                    preset,
                    ..parameters
                };
                return Ok((parameters, &stream[at + 2 + length..]));
            }
            (0xFFDA, _) => {
                return Err(StreamError::Unsupported(
                    "interleaved components, a mapping or a point transform",
                ));
            }
            (0xFFC0..=0xFFFE, _) => {}
            _ => return Err(StreamError::Broken("a marker was expected")),
        }
        at += 2 + length;
    }
}

/// Bits of a scan: after FFH a byte has seven (T.87 section 9.1).
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
    after_ff: bool,
}

impl Bits<'_> {
    fn bit(&mut self) -> Result<u32, StreamError> {
        self.take(1)
    }

    fn take(&mut self, wanted: u32) -> Result<u32, StreamError> {
        while self.count < wanted {
            let byte = *self.data.get(self.at).ok_or(StreamError::Short)?;
            if self.after_ff && byte & 0x80 != 0 {
                // A marker: the scan is over.
                return Err(StreamError::Short);
            }
            let width = if self.after_ff { 7 } else { 8 };
            self.held = self.held << width | u64::from(byte);
            self.count += width;
            self.after_ff = byte == 0xFF;
            self.at += 1;
        }
        self.count -= wanted;
        let bits = self.held >> self.count & ((1 << wanted) - 1);
        Ok(u32::try_from(bits).unwrap_or_default())
    }
}

/// Statistics of a context (T.87 section A.2).
#[derive(Debug, Clone, Copy)]
struct Statistics {
    /// A: magnitudes of errors.
    magnitude: i32,
    /// B: bias.
    bias: i32,
    /// C: correction of the prediction.
    correction: i32,
    /// N: occurrences.
    count: i32,
    /// Nn: negative errors, of the two contexts of run interruption.
    negative: i32,
}

/// Orders of run lengths (T.87 section A.2.1, variable J).
const RUN_ORDERS: [u32; 32] = [
    0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 9, 10, 11, 12, 13, 14, 15,
];
/// Regular contexts; the two of run interruption come behind them.
const REGULAR: usize = 365;

struct Decoder<'a> {
    bits: Bits<'a>,
    contexts: [Statistics; REGULAR + 2],
    most: i32,
    near: i32,
    range: i32,
    range_bits: u32,
    limit: u32,
    thresholds: [i32; 3],
    reset: i32,
    run_index: usize,
}

impl<'a> Decoder<'a> {
    fn new(parameters: &Parameters, scan: &'a [u8]) -> Result<Self, StreamError> {
        let Parameters {
            precision,
            near,
            preset,
            ..
        } = *parameters;
        if !(2..=16).contains(&precision) {
            return Err(StreamError::Broken("its precision is not 2 to 16 bits"));
        }
        let [most, t1, t2, t3, reset] = preset.map(i32::from);
        let most = if most == 0 { (1 << precision) - 1 } else { most };
        if near > 255.min(most / 2) {
            return Err(StreamError::Broken("NEAR is larger than it may be"));
        }
        let range = (most + 2 * near) / (2 * near + 1) + 1;
        let bits_of = |values: i32| i32::BITS - (values - 1).max(1).leading_zeros();
        let sample_bits = bits_of(most + 1).max(2);
        let defaults = thresholds(most, near);
        let or_default = |value: i32, default: i32| if value == 0 { default } else { value };
        let fresh = Statistics {
            magnitude: ((range + 32) / 64).max(2),
            bias: 0,
            correction: 0,
            count: 1,
            negative: 0,
        };
        Ok(Self {
            bits: Bits {
                data: scan,
                at: 0,
                held: 0,
                count: 0,
                after_ff: false,
            },
            contexts: [fresh; REGULAR + 2],
            most,
            near,
            range,
            range_bits: bits_of(range),
            limit: 2 * (sample_bits + sample_bits.max(8)),
            thresholds: [
                or_default(t1, defaults[0]),
                or_default(t2, defaults[1]),
                or_default(t3, defaults[2]),
            ],
            reset: or_default(reset, 64),
            run_index: 0,
        })
    }

    fn image(mut self, rows: usize, columns: usize) -> Result<Vec<u16>, StreamError> {
        let mut image = Vec::with_capacity(rows * columns);
        // A sample more on both sides: what lies left and right of the line.
        let (mut above, mut line) = (vec![0i32; columns + 2], vec![0i32; columns + 2]);
        for _ in 0..rows {
            line[0] = above[1];
            above[columns + 1] = above[columns];
            self.line(&above, &mut line, columns)?;
            image.extend(
                line[1..=columns]
                    .iter()
                    .map(|sample| u16::try_from(*sample).unwrap_or_default()),
            );
            std::mem::swap(&mut above, &mut line);
        }
        Ok(image)
    }

    fn line(&mut self, above: &[i32], line: &mut [i32], columns: usize) -> Result<(), StreamError> {
        let mut x = 1;
        while x <= columns {
            let (a, b, c, d) = (line[x - 1], above[x], above[x - 1], above[x + 1]);
            let gradients = [d - b, b - c, c - a];
            if gradients.iter().all(|gradient| gradient.abs() <= self.near) {
                x = self.run(above, line, x, columns)?;
            } else {
                line[x] = self.regular(a, b, c, gradients)?;
                x += 1;
            }
        }
        Ok(())
    }

    /// T.87 section A.4 and A.5.
    fn regular(&mut self, a: i32, b: i32, c: i32, gradients: [i32; 3]) -> Result<i32, StreamError> {
        let mut context = gradients
            .iter()
            .fold(0, |context, gradient| context * 9 + self.quantized(*gradient));
        let sign = if context < 0 { -1 } else { 1 };
        context *= sign;
        let at = usize::try_from(context).unwrap_or_default().min(REGULAR - 1);
        let mut s = self.contexts[at];
        let predicted = if c >= a.max(b) {
            a.min(b)
        } else if c <= a.min(b) {
            a.max(b)
        } else {
            a + b - c
        };
        let predicted = (predicted + sign * s.correction).clamp(0, self.most);
        let order = order(s.count, s.magnitude)?;
        let mapped = self.golomb(order, self.limit)?;
        let half = mapped >> 1;
        let error = if self.near == 0 && order == 0 && 2 * s.bias <= -s.count {
            if mapped & 1 == 1 { half } else { -half - 1 }
        } else if mapped & 1 == 1 {
            -half - 1
        } else {
            half
        };
        let step = 2 * self.near + 1;
        s.bias += error * step;
        s.magnitude += error.abs();
        if s.count == self.reset {
            s.magnitude >>= 1;
            s.bias >>= 1;
            s.count >>= 1;
        }
        s.count += 1;
        if s.bias <= -s.count {
            s.bias = (s.bias + s.count).max(1 - s.count);
            s.correction = (s.correction - 1).max(-128);
        } else if s.bias > 0 {
            s.bias = (s.bias - s.count).min(0);
            s.correction = (s.correction + 1).min(127);
        }
        self.contexts[at] = s;
        Ok(self.sample(predicted, sign * error * step))
    }

    /// T.87 section A.7: a run of the sample before, and what ends it; the next place.
    fn run(
        &mut self,
        above: &[i32],
        line: &mut [i32],
        start: usize,
        columns: usize,
    ) -> Result<usize, StreamError> {
        let (value, mut x) = (line[start - 1], start);
        while self.bits.bit()? == 1 {
            let whole = 1usize << RUN_ORDERS[self.run_index];
            let count = whole.min(columns + 1 - x);
            line[x..x + count].fill(value);
            x += count;
            if count == whole {
                self.run_index = (self.run_index + 1).min(31);
            }
            if x > columns {
                return Ok(x);
            }
        }
        let order = RUN_ORDERS[self.run_index];
        let rest = usize::try_from(self.bits.take(order)?).unwrap_or(usize::MAX);
        if rest > columns - x {
            return Err(StreamError::Broken("a run is longer than its line"));
        }
        line[x..x + rest].fill(value);
        x += rest;
        line[x] = self.interruption(value, above[x], order)?;
        self.run_index = self.run_index.saturating_sub(1);
        Ok(x + 1)
    }

    /// The sample that ends a run (T.87 section A.7.2).
    fn interruption(&mut self, a: i32, b: i32, run_order: u32) -> Result<i32, StreamError> {
        let alike = (a - b).abs() <= self.near;
        let kind = i32::from(alike);
        let at = REGULAR + usize::from(alike);
        let mut s = self.contexts[at];
        let magnitude = s.magnitude + if alike { s.count >> 1 } else { 0 };
        let order = order(s.count, magnitude)?;
        let mapped = self.golomb(order, self.limit - run_order - 1)?;
        let sum = mapped + kind;
        let odd = sum & 1;
        let size = (sum + odd) / 2;
        let is_negative = (order != 0 || 2 * s.negative >= s.count) == (odd == 1);
        let error = if is_negative { -size } else { size };
        if error < 0 {
            s.negative += 1;
        }
        s.magnitude += (mapped + 1 - kind) >> 1;
        if s.count == self.reset {
            s.magnitude >>= 1;
            s.count >>= 1;
            s.negative >>= 1;
        }
        s.count += 1;
        self.contexts[at] = s;
        let sign = if !alike && a > b { -1 } else { 1 };
        let predicted = if alike { a } else { b };
        Ok(self.sample(predicted, sign * error * (2 * self.near + 1)))
    }

    /// Adds an error modulo the range (T.87 section A.4.5 backwards).
    fn sample(&self, predicted: i32, error: i32) -> i32 {
        let span = self.range * (2 * self.near + 1);
        let mut sample = predicted + error;
        if sample < -self.near {
            sample += span;
        } else if sample > self.most + self.near {
            sample -= span;
        }
        sample.clamp(0, self.most)
    }

    /// A limited-length Golomb code (T.87 section A.5.3).
    fn golomb(&mut self, order: u32, limit: u32) -> Result<i32, StreamError> {
        let escape = limit
            .checked_sub(self.range_bits + 1)
            .ok_or(StreamError::Broken("its parameters leave no room for a code"))?;
        let mut zeros = 0;
        while self.bits.bit()? == 0 {
            zeros += 1;
            if zeros > escape {
                return Err(StreamError::Broken("a code is longer than it may be"));
            }
        }
        let value = if zeros < escape {
            zeros << order | self.bits.take(order)?
        } else {
            self.bits.take(self.range_bits)? + 1
        };
        i32::try_from(value)
            .ok()
            .filter(|value| *value <= 1 << 18)
            .ok_or(StreamError::Broken("an error is larger than the range"))
    }

    fn quantized(&self, gradient: i32) -> i32 {
        let [t1, t2, t3] = self.thresholds;
        let size = match gradient.abs() {
            size if size <= self.near => 0,
            size if size < t1 => 1,
            size if size < t2 => 2,
            size if size < t3 => 3,
            _ => 4,
        };
        size * gradient.signum()
    }
}

/// The order of the Golomb code of a context.
fn order(count: i32, magnitude: i32) -> Result<u32, StreamError> {
    (0..=24)
        .find(|order| count << order >= magnitude)
        .ok_or(StreamError::Broken("its errors are larger than its range"))
}

/// Default thresholds (T.87 section C.2.4.1.1.1).
fn thresholds(most: i32, near: i32) -> [i32; 3] {
    let within = |value: i32, least: i32| {
        if value > most || value < least {
            least
        } else {
            value
        }
    };
    let wanted = if most >= 128 {
        let factor = (most.min(4095) + 128) / 256;
        [factor + 2, 4 * factor + 3, 17 * factor + 4]
    } else {
        let factor = 256 / (most + 1);
        [(3 / factor).max(2), (7 / factor).max(3), (21 / factor).max(4)]
    };
    let t1 = within(wanted[0] + 3 * near, near + 1);
    let t2 = within(wanted[1] + 5 * near, t1);
    [t1, t2, within(wanted[2] + 7 * near, t2)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of T.87 annex H.3: 4 by 4 samples of 8 bits.
    const EXAMPLE: &[u8] = &[
        0xFF, 0xD8, 0xFF, 0xF7, 0x00, 0x0B, 0x08, 0x00, 0x04, 0x00, 0x04, 0x01, 0x01, 0x11, 0x00, 0xFF, 0xDA,
        0x00, 0x08, 0x01, 0x01, 0x00, 0x00, 0x00, 0x00, 0xC0, 0x00, 0x00, 0x6C, 0x80, 0x20, 0x8E, 0x01, 0xC0,
        0x00, 0x00, 0x57, 0x40, 0x00, 0x00, 0x6E, 0xE6, 0x00, 0x00, 0x01, 0xBC, 0x18, 0x00, 0x00, 0x05, 0xD8,
        0x00, 0x00, 0x91, 0x60, 0xFF, 0xD9,
    ];

    #[test]
    fn decodes_the_example_of_the_standard() {
        let expected = [
            0, 0, 90, 74, 68, 50, 43, 205, 64, 145, 145, 145, 100, 145, 145, 145,
        ];
        assert_eq!(decode(EXAMPLE, (4, 4)).unwrap(), expected);
    }

    #[test]
    fn refuses_another_size_and_an_early_end() {
        assert_eq!(
            decode(EXAMPLE, (4, 5)),
            Err(StreamError::Size { rows: 4, columns: 4 })
        );
        for end in 0..EXAMPLE.len() - 4 {
            assert!(decode(&EXAMPLE[..end], (4, 4)).is_err(), "{end}");
        }
    }

    #[test]
    fn has_the_default_thresholds_of_the_standard() {
        assert_eq!(thresholds(255, 0), [3, 7, 21]);
        assert_eq!(thresholds(4095, 0), [18, 67, 276]);
        assert_eq!(thresholds(255, 3), [12, 22, 42]);
    }

    proptest! {
        #[test]
        fn never_panics(noise in prop::collection::vec(any::<u8>(), 0..200), precision in 2u8..17, near in 0u8..9) {
            let mut stream = EXAMPLE[..25].to_vec();
            stream[6] = precision;
            stream[22] = near;
            stream.extend(noise);
            let _ = decode(&stream, (4, 4));
        }
    }
}
