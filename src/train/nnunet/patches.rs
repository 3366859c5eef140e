//! Cases → files on the network's grid, made once, and patches drawn from them.
//!
//! `OUT/preprocessed/CASE.safetensors` holds `data` (channels on the grid, f32), `labels` (u8) and, for each label, `places_K`: some of its voxels.
//! The grid is a whole volume's, a box of the head, or the source's slices as they lie, each with its neighbours as channels.
//! A file that is there and was made of the same case in the same way is kept, so that a run that was stopped goes on.
//! Of a file only the rows of a patch are read; the system's cache keeps what is read often.
//! A third of the patches are made to hold a labelled voxel, of each label that the case has with equal chance: nnU-Net's oversampling.
//!
//! Source: nnU-Net v2, `default_preprocessor.py` and `data_loader.py`.

use super::{
    fingerprint::{AT_ONCE, stamp},
    raw::RawDataset,
};
use crate::{
    analysis::preprocess::{
        self, AIR_HU, PreprocessError, Sliced,
        head_box::{self, Boxed},
        normalize::normalize,
    },
    domain::{
        plan::{Grid, Normalization, Plan},
        resample::{Method, resample},
        volume_trace::VolumeTrace,
    },
    train::{
        TrainError,
        augment::{Augmentation, CUTMIX, Warp, between, nearest},
        dataset::{Sample, Samples},
        labelled::{Case, Files, Region},
        loss::IGNORE,
        training::{Part, write},
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use safetensors::{Dtype, tensor::TensorView};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Voxels of a label that are remembered of a case.
const PLACES: usize = 2000;
/// Share of patches that must hold a labelled voxel.
const FORCED: f64 = 1.0 / 3.0;
/// Least share of the first sample in a mixture of two.
const LEAST_SHARE: f64 = 0.5;
/// Streams of chance beside those of the samples.
const MIXUP_STREAM: u64 = 1 << 63;

/// A case on the network's grid.
#[derive(Debug)]
struct Prepared {
    path: PathBuf,
    channels: usize,
    shape: [usize; 3],
    /// What lies outside the case.
    outside: f32,
    /// Where in the file the values and the labels begin.
    data_at: u64,
    labels_at: u64,
    /// Voxels of each label that the case has.
    places: Vec<Vec<u32>>,
    /// Voxels that somebody labelled, where not all are.
    labelled: Vec<u32>,
}

/// Patches of a prepared dataset, for every member those of the cases outside its fold.
#[derive(Debug)]
pub struct Patches {
    cases: Vec<Prepared>,
    folds: usize,
    augmentation: Augmentation,
    /// What overlaps, where something may.
    regions: Option<Overlapping>,
    key: String,
}

/// The fold of a case: neighbours in the list of names stay together, since they are often one patient.
#[must_use]
pub fn fold_of(case: usize, cases: usize, folds: usize) -> usize {
    case * folds / cases.max(1)
}

/// Brings every case to the plan's grid.
///
/// # Errors
/// The cases that cannot be read or brought there, or a file that cannot be written.
pub fn prepare(
    dataset: &RawDataset,
    plan: &Plan,
    out: &Path,
    folds: usize,
    augmentation: Augmentation,
    mut tell: impl FnMut(usize, usize),
) -> Result<Patches, TrainError> {
    let folder = out.join("preprocessed");
    fs::create_dir_all(&folder).map_err(|e| TrainError::file(&folder, e))?;
    let (mut cases, mut faults, mut all) = (Vec::new(), Vec::new(), Sha256::new());
    for group in dataset.cases.chunks(AT_ONCE) {
        let done: Vec<Result<(Prepared, String), TrainError>> = group
            .par_iter()
            .map(|case| -> Result<_, TrainError> {
                let path = folder.join(format!("{}.safetensors", case.name));
                let key = key(case, plan)?;
                if let Some(known) = Prepared::open(&path, &key)? {
                    return Ok((known, key));
                }
                let read = dataset
                    .read(case)
                    .map_err(|fault| TrainError::Dataset(vec![fault]))?;
                make(&read, plan, &path, &key)?;
                let made = Prepared::open(&path, &key)?;
                let made = made.ok_or_else(|| {
                    TrainError::Mismatch(format!("{} was written and cannot be read back", path.display()))
                })?;
                Ok((made, key))
            })
            .collect();
        for result in done {
            match result {
                Ok((case, key)) => {
                    all.update(key);
                    cases.push(case);
                }
                Err(TrainError::Dataset(more)) => faults.extend(more),
                Err(other) => return Err(other),
            }
        }
        tell(cases.len() + faults.len(), dataset.cases.len());
    }
    if !faults.is_empty() {
        return Err(TrainError::Dataset(faults));
    }
    Ok(Patches {
        cases,
        folds,
        augmentation,
        regions: dataset.overlap().then(|| Overlapping::of(&dataset.regions)),
        key: hex::encode(all.finalize()),
    })
}

/// Regions that may overlap.
#[derive(Debug)]
struct Overlapping {
    /// The values of each.
    values: Vec<Vec<u8>>,
    /// For each value of a label a bit for every region that holds it; a voxel that nobody labelled stays one.
    bits: [u8; 256],
}

impl Overlapping {
    fn of(regions: &[Region]) -> Self {
        let mut bits = [0; 256];
        for (bit, region) in regions.iter().enumerate() {
            for value in &region.values {
                bits[usize::from(*value)] |= 1 << bit;
            }
        }
        bits[usize::from(IGNORE)] = IGNORE;
        Self {
            values: regions.iter().map(|region| region.values.clone()).collect(),
            bits,
        }
    }
}

/// What a prepared file depends on.
fn key(case: &Files, plan: &Plan) -> Result<String, TrainError> {
    let configuration = &plan.configuration;
    let mut hash = Sha256::new();
    hash.update(stamp(case)?);
    let labels: Vec<&String> = plan.labels.iter().map(|label| &label.name).collect();
    hash.update(format!(
        "{:?} {:?} {:?} {labels:?}",
        configuration.grid, configuration.spacing, configuration.normalization_schemes,
    ));
    if let Grid::HeadBox { .. } = configuration.grid {
        hash.update(format!("{:?}", configuration.patch_size));
    }
    Ok(hex::encode(hash.finalize()))
}

/// A case on the network's grid.
pub(super) struct Laid {
    pub(super) channels: usize,
    pub(super) shape: [usize; 3],
    pub(super) data: Vec<f32>,
    pub(super) labels: Vec<u8>,
    /// What lies outside it.
    outside: f32,
}

pub(super) fn lay(case: &Case, plan: &Plan) -> Result<Laid, PreprocessError> {
    let (scans, labels) = (&case.scan.channels, &case.labels.data);
    match plan.configuration.grid {
        Grid::SourceSlices { .. } => {
            let Sliced { input, trace, .. } = preprocess::preprocess(&scans[0], plan)?;
            let [rows, columns] = input.shape;
            let image = rows * columns;
            // Slice by slice, there and channel by channel, here.
            let of_channel = |c: usize| {
                input
                    .slices
                    .iter()
                    .flat_map(move |s| &s[c * image..(c + 1) * image])
            };
            Ok(Laid {
                channels: input.channels,
                shape: [input.slices.len(), rows, columns],
                data: (0..input.channels).flat_map(of_channel).copied().collect(),
                labels: winners(labels, |own, outside| trace.apply_all(&own, outside).concat()),
                outside: input.outside,
            })
        }
        Grid::HeadBox { .. } => {
            let Boxed { input, trace, .. } = head_box::preprocess(&scans[0], plan)?;
            Ok(Laid {
                channels: input.channels,
                shape: input.shape,
                data: input.data,
                labels: winners(labels, |own, outside| trace.forth(&own, outside)),
                outside: air(&plan.configuration.normalization_schemes[0]),
            })
        }
        Grid::Volume { .. } | Grid::Oriented(_) | Grid::Window { .. } => {
            let (input, trace) = preprocess::volume::preprocess(scans, case.scan.turn, plan, None)?;
            Ok(Laid {
                channels: input.channels,
                shape: input.shape,
                data: input.data,
                labels: on_grid(labels, &trace),
                outside: 0.0,
            })
        }
    }
}

/// Air as a network sees it.
fn air(scheme: &Normalization) -> f32 {
    let mut air = [AIR_HU];
    normalize(&mut air, scheme, None);
    air[0]
}

fn make(case: &Case, plan: &Plan, path: &Path, key: &str) -> Result<(), TrainError> {
    let Laid {
        channels,
        shape: [a, b, c],
        data,
        labels,
        outside,
    } = lay(case, plan).map_err(|e| {
        TrainError::Dataset(vec![format!(
            "case {}: {e}",
            path.file_stem().unwrap_or_default().to_string_lossy()
        )])
    })?;
    let highest = labels.iter().filter(|label| **label != IGNORE).max();
    let classes = usize::from(highest.copied().unwrap_or_default()) + 1;
    let values: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
    let is_sparse = labels.contains(&IGNORE);
    let places: Vec<(String, Vec<u8>, usize)> = (0..classes)
        .map(|k| {
            let is_of = |v: &usize| match k {
                0 => is_sparse && labels[*v] != IGNORE,
                _ => usize::from(labels[*v]) == k,
            };
            let all: Vec<usize> = (0..labels.len()).filter(is_of).collect();
            let step = all.len().div_ceil(PLACES).max(1);
            let some: Vec<u32> = all
                .iter()
                .step_by(step)
                .filter_map(|v| u32::try_from(*v).ok())
                .collect();
            let bytes = some.iter().flat_map(|v| v.to_le_bytes()).collect();
            (format!("places_{k}"), bytes, some.len())
        })
        .collect();
    let bad = |e: safetensors::SafeTensorError| TrainError::Mismatch(format!("{}: {e}", path.display()));
    let mut tensors = vec![
        (
            "data".to_owned(),
            TensorView::new(Dtype::F32, vec![channels, a, b, c], &values).map_err(bad)?,
        ),
        (
            "labels".to_owned(),
            TensorView::new(Dtype::U8, vec![a, b, c], &labels).map_err(bad)?,
        ),
    ];
    for (name, bytes, count) in &places {
        let view = TensorView::new(Dtype::U32, vec![*count], bytes).map_err(bad)?;
        tensors.push((name.clone(), view));
    }
    let about = HashMap::from([
        ("key".to_owned(), key.to_owned()),
        ("outside".to_owned(), outside.to_string()),
    ]);
    let bytes = safetensors::serialize(tensors, Some(about)).map_err(bad)?;
    write(path, &bytes)
}

/// Labels on the network's grid: each resampled for itself, the greatest share wins.
fn on_grid(labels: &[u8], trace: &VolumeTrace) -> Vec<u8> {
    let cut = trace.cut(labels);
    let cropped = trace.cropped_shape();
    if cropped == trace.shape {
        return cut;
    }
    // As nnU-Net resamples segmentations: order 1, and the nearest plane along an axis that is treated apart.
    let method = Method {
        order: 1,
        apart: trace.method.apart.map(|(axis, _)| (axis, 0)),
    };
    winners(&cut, |own, _| resample(own, cropped, trace.shape, method))
}

/// The label with the greatest share of each voxel of another grid; outside the source is background.
fn winners(labels: &[u8], forth: impl Fn(Vec<f32>, f32) -> Vec<f32>) -> Vec<u8> {
    let (mut best, mut winner) = (Vec::new(), Vec::new());
    let mut there = [false; 256];
    there[0] = true;
    labels.iter().for_each(|label| there[usize::from(*label)] = true);
    for class in (0..=u8::MAX).filter(|class| there[usize::from(*class)]) {
        let own = labels.iter().map(|label| f32::from(u8::from(*label == class)));
        let shares = forth(own.collect(), f32::from(u8::from(class == 0)));
        best.resize(shares.len(), 0.0f32);
        winner.resize(shares.len(), 0u8);
        for ((best, winner), share) in best.iter_mut().zip(&mut winner).zip(shares) {
            if share > *best {
                (*best, *winner) = (share, class);
            }
        }
    }
    winner
}

impl Prepared {
    /// Opens a file; none when it is missing or was made of something else.
    fn open(path: &Path, key: &str) -> Result<Option<Self>, TrainError> {
        let failed = |e| TrainError::file(path, e);
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        // A safetensors file begins with the length of its header, which is JSON; tensors follow.
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(failed)?;
        let length = u64::from_le_bytes(length);
        let mut header = Vec::new();
        (&mut file)
            .take(length)
            .read_to_end(&mut header)
            .map_err(failed)?;
        let Ok(header) = serde_json::from_slice::<Value>(&header) else {
            return Ok(None);
        };
        if header["__metadata__"]["key"].as_str() != Some(key) {
            return Ok(None);
        }
        let about = &header["__metadata__"];
        let numbers = |name: &str, what: &str| -> Option<Vec<u64>> {
            header[name][what].as_array()?.iter().map(Value::as_u64).collect()
        };
        let known = || {
            let dims: Vec<usize> = numbers("data", "shape")?
                .into_iter()
                .map(|n| usize::try_from(n).ok())
                .collect::<Option<_>>()?;
            let &[channels, a, b, c] = dims.as_slice() else {
                return None;
            };
            let begin = |name: &str| Some(8 + length + numbers(name, "data_offsets")?.first()?);
            let mut places = Vec::new();
            for k in 0.. {
                let name = format!("places_{k}");
                let Some(count) = numbers(&name, "shape") else {
                    break;
                };
                let mut bytes = vec![0; 4 * usize::try_from(*count.first()?).ok()?];
                file.read_exact_at(&mut bytes, begin(&name)?).ok()?;
                let word = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                let found: Vec<u32> = bytes.chunks_exact(4).map(word).collect();
                places.push(found);
            }
            // Of 0 stands where somebody labelled.
            let labelled = (!places.is_empty()).then(|| places.remove(0))?;
            places.retain(|found| !found.is_empty());
            Some(Self {
                path: path.to_owned(),
                channels,
                shape: [a, b, c],
                outside: about["outside"].as_str()?.parse().ok()?,
                data_at: begin("data")?,
                labels_at: begin("labels")?,
                places,
                labelled,
            })
        };
        Ok(known())
    }

    /// A box of the case.
    fn region(&self, origin: [i64; 3], size: [usize; 3]) -> Result<(Vec<f32>, Vec<u8>), TrainError> {
        let file = File::open(&self.path).map_err(|e| TrainError::file(&self.path, e))?;
        let voxels: usize = size.iter().product();
        let (mut data, mut labels) = (vec![self.outside; self.channels * voxels], vec![0u8; voxels]);
        // What of each axis is inside: the first voxel of the box, the first of the case, how many.
        let inside = |a: usize| {
            let first = origin[a].max(0);
            let end = (origin[a] + signed(size[a])).min(signed(self.shape[a]));
            let count = usize::try_from(end - first).unwrap_or(0);
            let at = |n: i64| usize::try_from(n).unwrap_or(0);
            (at(first - origin[a]), at(first), count)
        };
        let [(tx, vx, nx), (ty, vy, ny), (tz, vz, nz)] = [0, 1, 2].map(inside);
        let width = self.shape[2];
        let mut rows = vec![0u8; 4 * ny * width];
        for x in 0..nx {
            let from = ((vx + x) * self.shape[1] + vy) * width;
            let to = |y: usize| (((tx + x) * size[1]) + ty + y) * size[2] + tz;
            for channel in 0..self.channels {
                let at = channel * self.shape.iter().product::<usize>() + from;
                file.read_exact_at(&mut rows, self.data_at + 4 * at as u64)
                    .map_err(|e| TrainError::file(&self.path, e))?;
                for y in 0..ny {
                    let row = &rows[4 * (y * width + vz)..][..4 * nz];
                    let target = &mut data[channel * voxels + to(y)..][..nz];
                    for (value, b) in target.iter_mut().zip(row.chunks_exact(4)) {
                        *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                    }
                }
            }
            let rows = &mut rows[..ny * width];
            file.read_exact_at(rows, self.labels_at + from as u64)
                .map_err(|e| TrainError::file(&self.path, e))?;
            for y in 0..ny {
                labels[to(y)..][..nz].copy_from_slice(&rows[y * width + vz..][..nz]);
            }
        }
        Ok((data, labels))
    }
}

fn signed(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The tile of a plan in three axes: a 2-D one is one voxel thick.
fn tile_of(plan: &Plan) -> Result<[usize; 3], TrainError> {
    match plan.configuration.patch_size.as_slice() {
        &[a, b, c] => Ok([a, b, c]),
        &[b, c] => Ok([1, b, c]),
        other => Err(TrainError::Mismatch(format!(
            "a tile of {other:?} voxels has neither two nor three axes"
        ))),
    }
}

impl Patches {
    fn one(&self, tile: [usize; 3], part: Part, rng: &mut ChaCha8Rng) -> Result<Sample, TrainError> {
        let held_out = match part {
            Part::Member(i) if self.folds > 1 => Some(i % self.folds),
            _ => None,
        };
        let count = self.cases.len();
        let seen: Vec<&Prepared> = self
            .cases
            .iter()
            .enumerate()
            .filter(|(i, _)| Some(fold_of(*i, count, self.folds)) != held_out)
            .map(|(_, case)| case)
            .collect();
        let case = seen[rng.random_range(0..seen.len())];
        let origin = origin(case, tile, rng);
        let warp = self.augmentation.spatial.then(|| Warp::draw(rng, tile)).flatten();
        let (mut input, mut truth) = match warp {
            None => case.region(origin, tile)?,
            Some(warp) => warped(case, origin, tile, &warp)?,
        };
        self.augmentation.apply(rng, &mut input, &mut truth, tile);
        Ok(Sample {
            input,
            truth,
            structures: Vec::new(),
        })
    }
}

/// Where a patch begins: anywhere, of a case that is labelled in part where it is; or so that a labelled voxel is in its middle as far as the case allows.
fn origin(case: &Prepared, tile: [usize; 3], rng: &mut ChaCha8Rng) -> [i64; 3] {
    let bounds = [0, 1, 2].map(|a| {
        let (tile, size) = (signed(tile[a]), signed(case.shape[a]));
        // A case that is smaller than the tile stands in its middle, as at prediction.
        let missing = (tile - size).max(0);
        (-(missing / 2), size - tile + missing - missing / 2)
    });
    let forced = rng.random_bool(FORCED) && !case.places.is_empty();
    let places = if forced {
        &case.places[rng.random_range(0..case.places.len())]
    } else if case.labelled.is_empty() {
        return bounds.map(|(low, high)| rng.random_range(low..=high));
    } else {
        &case.labelled
    };
    let voxel = places[rng.random_range(0..places.len())] as usize;
    let [_, rows, columns] = case.shape;
    let at = [voxel / (rows * columns), voxel / columns % rows, voxel % columns];
    std::array::from_fn(|a| (signed(at[a]) - signed(tile[a]) / 2).clamp(bounds[a].0, bounds[a].1))
}

/// The patch as the warp shows it: values between voxels, labels of the nearest.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "voxels of a region some times the size of a tile"
)]
fn warped(
    case: &Prepared,
    origin: [i64; 3],
    tile: [usize; 3],
    warp: &Warp,
) -> Result<(Vec<f32>, Vec<u8>), TrainError> {
    let reach = warp.reach(tile);
    let middle: [f64; 3] = std::array::from_fn(|a| origin[a] as f64 + (tile[a] - 1) as f64 / 2.0);
    let first: [i64; 3] = std::array::from_fn(|a| (middle[a] - reach[a]).floor() as i64);
    let size: [usize; 3] =
        std::array::from_fn(|a| ((middle[a] + reach[a]).ceil() as i64 - first[a] + 1) as usize);
    let (data, labels) = case.region(first, size)?;
    let centre: [f64; 3] = std::array::from_fn(|a| middle[a] - first[a] as f64);
    let places: Vec<[f64; 3]> = warp.places(tile, centre).collect();
    let region: usize = size.iter().product();
    let input = data
        .chunks_exact(region)
        .flat_map(|channel| places.iter().map(|at| between(channel, size, *at)))
        .collect();
    let truth = places.iter().map(|at| labels[nearest(size, *at)]).collect();
    Ok((input, truth))
}

/// Puts a box of another sample into this one, with its labels.
fn paste(sample: &mut Sample, other: &Sample, tile: [usize; 3], rng: &mut ChaCha8Rng) {
    let ranges = tile.map(|n| {
        let len = rng.random_range(n.div_ceil(4)..=n.div_ceil(2));
        let start = rng.random_range(0..=n - len);
        start..start + len
    });
    let voxels: usize = tile.iter().product();
    let channels = sample.input.len() / voxels;
    for x in ranges[0].clone() {
        for y in ranges[1].clone() {
            let row = (x * tile[1] + y) * tile[2];
            let row = row + ranges[2].start..row + ranges[2].end;
            sample.truth[row.clone()].copy_from_slice(&other.truth[row.clone()]);
            for c in 0..channels {
                let row = c * voxels + row.start..c * voxels + row.end;
                sample.input[row.clone()].copy_from_slice(&other.input[row]);
            }
        }
    }
}

impl Samples for Patches {
    fn draw(&self, plan: &Plan, part: Part, seed: u64, index: u64) -> Result<Sample, TrainError> {
        let tile = tile_of(plan)?;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(index);
        let mut sample = self.one(tile, part, &mut rng)?;
        if self.augmentation.cutmix && rng.random_bool(CUTMIX) {
            let other = self.one(tile, part, &mut rng)?;
            paste(&mut sample, &other, tile, &mut rng);
        }
        if let Some(regions) = &self.regions {
            for truth in &mut sample.truth {
                *truth = regions.bits[usize::from(*truth)];
            }
        }
        Ok(sample)
    }

    fn mixup(&self, seed: u64, step: usize) -> Option<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(MIXUP_STREAM + step as u64);
        let mixed = self.augmentation.mixup && rng.random_bool(0.5);
        mixed.then(|| rng.random_range(LEAST_SHARE..1.0))
    }

    fn name(&self) -> String {
        let regions = self.regions.as_ref();
        let regions = regions.map_or_else(String::new, |of| format!(", regions {:?}", of.values));
        format!(
            "{} cases {} in {} folds, {:?}{regions}",
            self.cases.len(),
            &self.key[..16],
            self.folds,
            self.augmentation
        )
    }
}
