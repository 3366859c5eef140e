//! NIfTI-1 bytes ↔ a voxel array with its affine, and a [`Volume`] → NIfTI-1 bytes.
//!
//! Axes are as the file has them (`i` fastest), millimetres are RAS+; turning them into LPS planes is the reader's business.
//! One three-dimensional volume of real numbers a file, `.nii` or `.nii.gz`; scaling by `scl_slope` and `scl_inter` is applied.
//! NIfTI has one step between slices: of a stack with uneven steps the written affine runs through the first and the last slice, and `descrip` says so.
//!
//! Source: the NIfTI-1 header (nifti1.h, NIfTI Data Format Working Group, 2007).
#![expect(
    clippy::cast_possible_truncation,
    reason = "the header of NIfTI-1 has 32-bit floats and 16-bit sizes; values are kept in f32"
)]

use crate::domain::{
    failure::FailureClass,
    geometry::{Vec3, cross, dot, norm, scale, sub},
    phi::{Redacted, redact},
    volume::{Geometry, Volume},
};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use nifti::NiftiHeader;
use std::io::{Read, Write};

/// Largest volume that a compressed file may grow to.
const MAX_BYTES: u64 = 2 << 30;
/// Bytes of the header with its (empty) extension flag: where data starts in what we write.
const HEADER_BYTES: usize = 352;
/// `NIFTI_XFORM_SCANNER_ANAT`.
const SCANNER_ANAT: i16 = 1;
/// Steps that differ by less than this share are even.
const EVEN_SHARE: f64 = 1e-3;

/// Why bytes are not a volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NiftiError {
    /// The header or the compression cannot be read.
    #[error("not a NIfTI-1 file (.nii or .nii.gz)")]
    Read {
        /// What the reader said.
        #[source]
        source: Redacted,
    },
    /// The header asks for what is not supported.
    #[error("{found}; expected {expected}")]
    Unsupported {
        /// What the file has.
        found: String,
        /// What is supported.
        expected: &'static str,
    },
}

impl NiftiError {
    /// Always the input's fault.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Input
    }
}

/// A three-dimensional array and where it lies.
#[derive(Debug, Clone, PartialEq)]
pub struct NiftiImage {
    /// Voxels along `i`, `j`, `k`.
    pub shape: [usize; 3],
    /// The step of one voxel along `i`, `j`, `k` and the centre of voxel (0, 0, 0); RAS mm.
    pub steps_mm: [Vec3; 3],
    /// Centre of voxel (0, 0, 0), RAS mm.
    pub origin_mm: Vec3,
    /// Scaled values, `i` fastest.
    pub data: Vec<f32>,
}

/// Reads one volume.
///
/// # Errors
/// Refuses what is not NIfTI-1, is truncated, has more than three dimensions, or has no placement.
pub fn read(bytes: &[u8]) -> Result<NiftiImage, NiftiError> {
    let plain = inflate(bytes)?;
    let header =
        NiftiHeader::from_reader(plain.as_slice()).map_err(|e| NiftiError::Read { source: redact(&e) })?;
    let rank = usize::from(header.dim[0]);
    let extra = header.dim.iter().take(rank + 1).skip(4).any(|&n| n > 1);
    if !(3..=7).contains(&rank) || extra || header.dim[1..4].contains(&0) {
        return Err(unsupported(
            format!("dimensions {:?}", header.dim),
            "one volume of three dimensions",
        ));
    }
    let shape = [header.dim[1], header.dim[2], header.dim[3]].map(usize::from);
    let (steps_mm, origin_mm) = placement(&header)?;
    let data = values(&header, &plain, shape.iter().product())?;
    Ok(NiftiImage {
        shape,
        steps_mm,
        origin_mm,
        data,
    })
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>, NiftiError> {
    if !bytes.starts_with(&[0x1F, 0x8B]) {
        return Ok(bytes.to_vec());
    }
    let mut plain = Vec::new();
    GzDecoder::new(bytes)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut plain)
        .map_err(|e| NiftiError::Read { source: redact(&e) })?;
    if plain.len() as u64 > MAX_BYTES {
        return Err(unsupported(
            format!("more than {MAX_BYTES} bytes inflated"),
            "a volume of at most 2 GiB",
        ));
    }
    Ok(plain)
}

/// The sform, or else the qform; a file with neither has no place in the patient.
fn placement(header: &NiftiHeader) -> Result<([Vec3; 3], Vec3), NiftiError> {
    let rows = if header.sform_code > 0 {
        [header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from))
    } else if header.qform_code > 0 {
        qform(header)
    } else {
        return Err(unsupported(
            "neither sform nor qform".to_owned(),
            "a placement in the patient",
        ));
    };
    if !rows.iter().flatten().all(|value| value.is_finite()) {
        return Err(unsupported(
            "an affine that is not finite".to_owned(),
            "finite numbers",
        ));
    }
    let column = |c: usize| [rows[0][c], rows[1][c], rows[2][c]];
    Ok(([column(0), column(1), column(2)], column(3)))
}

/// Rotation by the quaternion (a, b, c, d), scaled by `pixdim`, `k` turned by `qfac`.
fn qform(header: &NiftiHeader) -> [[f64; 4]; 3] {
    let [b, c, d] = [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from);
    let a = (1.0 - b * b - c * c - d * d).max(0.0).sqrt();
    let qfac = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let [x, y, z] = [header.pixdim[1], header.pixdim[2], header.pixdim[3]].map(f64::from);
    let z = z * qfac;
    [
        [
            (a * a + b * b - c * c - d * d) * x,
            2.0 * (b * c - a * d) * y,
            2.0 * (b * d + a * c) * z,
            f64::from(header.quatern_x),
        ],
        [
            2.0 * (b * c + a * d) * x,
            (a * a + c * c - b * b - d * d) * y,
            2.0 * (c * d - a * b) * z,
            f64::from(header.quatern_y),
        ],
        [
            2.0 * (b * d - a * c) * x,
            2.0 * (c * d + a * b) * y,
            (a * a + d * d - b * b - c * c) * z,
            f64::from(header.quatern_z),
        ],
    ]
}

fn values(header: &NiftiHeader, plain: &[u8], count: usize) -> Result<Vec<f32>, NiftiError> {
    #[expect(clippy::cast_sign_loss, reason = "checked to be at least the header's size")]
    let start = if header.vox_offset >= 348.0 {
        header.vox_offset as usize
    } else {
        HEADER_BYTES
    };
    let bytes = plain.get(start..).unwrap_or(&[]);
    let is_little = header.endianness == byteordered_little();
    let slope = if header.scl_slope == 0.0 {
        1.0
    } else {
        f64::from(header.scl_slope)
    };
    let inter = if header.scl_slope == 0.0 {
        0.0
    } else {
        f64::from(header.scl_inter)
    };
    macro_rules! decode {
        ($kind:ty) => {{
            const WIDTH: usize = size_of::<$kind>();
            let bytes = bytes.get(..count * WIDTH).ok_or_else(|| {
                unsupported(
                    format!("{} bytes of values", bytes.len()),
                    "every voxel of the dimensions",
                )
            })?;
            let value = |b: &[u8]| {
                let mut word = [0; WIDTH];
                word.copy_from_slice(b);
                let raw = if is_little {
                    <$kind>::from_le_bytes(word)
                } else {
                    <$kind>::from_be_bytes(word)
                };
                (f64::from(raw) * slope + inter) as f32
            };
            Ok(bytes.chunks_exact(WIDTH).map(value).collect())
        }};
    }
    match header.datatype {
        2 => decode!(u8),
        4 => decode!(i16),
        8 => decode!(i32),
        16 => decode!(f32),
        64 => decode!(f64),
        256 => decode!(i8),
        512 => decode!(u16),
        768 => decode!(u32),
        other => Err(unsupported(
            format!("datatype {other}"),
            "integers of up to 32 bits or real floats",
        )),
    }
}

fn byteordered_little() -> nifti::Endianness {
    nifti::Endianness::Little
}

fn unsupported(found: String, expected: &'static str) -> NiftiError {
    NiftiError::Unsupported { found, expected }
}

/// A value that can be written.
pub trait NiftiValue: Copy {
    /// NIfTI datatype code.
    const DATATYPE: i16;
    /// Bits a voxel.
    const BITS: i16;
    /// Appends the value, little endian.
    fn append(self, bytes: &mut Vec<u8>);
}

impl NiftiValue for u8 {
    const DATATYPE: i16 = 2;
    const BITS: i16 = 8;
    fn append(self, bytes: &mut Vec<u8>) {
        bytes.push(self);
    }
}

impl NiftiValue for i16 {
    const DATATYPE: i16 = 4;
    const BITS: i16 = 16;
    fn append(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
}

impl NiftiValue for u16 {
    const DATATYPE: i16 = 512;
    const BITS: i16 = 16;
    fn append(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
}

impl NiftiValue for f32 {
    const DATATYPE: i16 = 16;
    const BITS: i16 = 32;
    fn append(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
}

/// Writes a volume as `.nii.gz`: `i` along rows of the slices, `j` along columns, `k` through the planes.
///
/// # Errors
/// Only what the compressor says, which writes to memory.
pub fn write<T: NiftiValue>(volume: &Volume<T>) -> std::io::Result<Vec<u8>> {
    let (steps, origin, is_even) = affine(&volume.geometry);
    write_with(
        volume,
        steps,
        origin,
        if is_even {
            "ictus"
        } else {
            "ictus; slice steps are uneven"
        },
    )
}

/// Whether one affine places every slice of a stack: even steps on one line.
#[must_use]
pub fn is_exact(geometry: &Geometry) -> bool {
    affine(geometry).2
}

/// Writes a volume on the grid of the file it came from: slices that were reversed on reading are turned back.
///
/// # Errors
/// Only what the compressor says, which writes to memory.
pub fn write_like<T: NiftiValue>(source: &NiftiImage, volume: &Volume<T>) -> std::io::Result<Vec<u8>> {
    if !source.is_reversed() {
        return write_with(volume, source.steps_mm, source.origin_mm, "ictus");
    }
    let reversed = (0..volume.geometry.slices())
        .rev()
        .flat_map(|k| volume.slice(k).iter().copied());
    let turned = Volume {
        geometry: volume.geometry.clone(),
        data: reversed.collect(),
    };
    write_with(&turned, source.steps_mm, source.origin_mm, "ictus")
}

impl NiftiImage {
    /// Whether `k` runs against `i × j` in LPS, so that a [`Volume`] has the slices in reverse.
    #[must_use]
    pub fn is_reversed(&self) -> bool {
        let [i, j, k] = self.steps_mm.map(|v| [-v[0], -v[1], v[2]]);
        dot(cross(i, j), k) < 0.0
    }
}

/// Voxel steps and origin in RAS mm, and whether the slices are even and on one line.
fn affine(geometry: &Geometry) -> ([Vec3; 3], Vec3, bool) {
    let ras = |v: Vec3| [-v[0], -v[1], v[2]];
    let first = geometry.planes[0];
    let gaps = f64::from(u32::try_from(geometry.slices()).unwrap_or(u32::MAX)) - 1.0;
    let last = geometry.planes[geometry.slices() - 1];
    let step = if gaps > 0.0 {
        scale(sub(last.origin_mm, first.origin_mm), 1.0 / gaps)
    } else {
        scale(geometry.normal(), first.thickness_mm)
    };
    let is_even = geometry
        .planes
        .windows(2)
        .all(|pair| norm(sub(sub(pair[1].origin_mm, pair[0].origin_mm), step)) <= EVEN_SHARE * norm(step));
    let row = scale(geometry.row_direction, geometry.pixel_spacing_mm[1]);
    let column = scale(geometry.column_direction, geometry.pixel_spacing_mm[0]);
    ([ras(row), ras(column), ras(step)], ras(first.origin_mm), is_even)
}

fn write_with<T: NiftiValue>(
    volume: &Volume<T>,
    steps: [Vec3; 3],
    origin: Vec3,
    description: &str,
) -> std::io::Result<Vec<u8>> {
    let geometry = &volume.geometry;
    let size = |n: usize| {
        i16::try_from(n).map_err(|_| std::io::Error::other("NIfTI-1 has at most 32767 voxels along an axis"))
    };
    let mut header = vec![0u8; HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348i32.to_le_bytes());
    let shape = [
        3,
        size(geometry.columns)?,
        size(geometry.rows)?,
        size(geometry.slices())?,
        1,
        1,
        1,
        1,
    ];
    for (index, n) in shape.iter().enumerate() {
        put(40 + 2 * index, &n.to_le_bytes());
    }
    put(70, &T::DATATYPE.to_le_bytes());
    put(72, &T::BITS.to_le_bytes());
    put(76, &1f32.to_le_bytes());
    for (index, step) in steps.iter().enumerate() {
        put(80 + 4 * index, &(norm(*step) as f32).to_le_bytes());
    }
    put(108, &352f32.to_le_bytes());
    put(112, &1f32.to_le_bytes());
    // Millimetres.
    put(123, &[2]);
    put(148, description.as_bytes());
    put(254, &SCANNER_ANAT.to_le_bytes());
    for row in 0..3 {
        let values = [steps[0][row], steps[1][row], steps[2][row], origin[row]];
        for (column, value) in values.iter().enumerate() {
            put(280 + 16 * row + 4 * column, &(*value as f32).to_le_bytes());
        }
    }
    put(344, b"n+1\0");
    let mut bytes = header;
    bytes.reserve(volume.data.len() * size_of::<T>());
    volume.data.iter().for_each(|value| value.append(&mut bytes));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&bytes)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::volume::SlicePlane;

    fn volume() -> Volume<f32> {
        let planes = [0.0, 4.0, 8.0].map(|z| SlicePlane {
            origin_mm: [-10.0, 5.0 + z / 4.0, z],
            thickness_mm: 4.0,
        });
        let geometry = Geometry {
            rows: 3,
            columns: 4,
            row_direction: [1.0, 0.0, 0.0],
            column_direction: [0.0, 1.0, 0.0],
            pixel_spacing_mm: [0.5, 0.25],
            planes: planes.to_vec(),
        };
        Volume {
            data: (0..36u8).map(f32::from).collect(),
            geometry,
        }
    }

    #[test]
    fn what_is_written_is_read_back_in_ras() {
        let image = read(&write(&volume()).unwrap()).unwrap();
        assert_eq!(image.shape, [4, 3, 3]);
        assert_eq!(
            image.steps_mm,
            [[-0.25, 0.0, 0.0], [0.0, -0.5, 0.0], [0.0, -1.0, 4.0]]
        );
        assert_eq!(image.origin_mm, [10.0, -5.0, 0.0]);
        assert_eq!(image.data, volume().data);
    }

    #[test]
    fn refuses_truncated_and_foreign_bytes() {
        let mut plain = Vec::new();
        GzDecoder::new(write(&volume()).unwrap().as_slice())
            .read_to_end(&mut plain)
            .unwrap();
        assert!(read(&plain).is_ok());
        assert!(
            read(&plain[..plain.len() - 1])
                .unwrap_err()
                .to_string()
                .contains("expected every voxel")
        );
        assert!(read(&[0; 400]).is_err());
        assert!(read(b"").is_err());
    }

    #[test]
    fn says_when_the_steps_are_uneven() {
        let mut uneven = volume();
        uneven.geometry.planes[1].origin_mm[2] = 5.0;
        assert!(affine(&volume().geometry).2);
        assert!(!affine(&uneven.geometry).2);
    }
}
