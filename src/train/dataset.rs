//! A seed and a step → one training batch; and phantom slabs as samples, as the network will see real ones.
//!
//! Each slab sample is its own head: three slabs at a random height, or, more often, one that shows a lesion; the middle one is what the network answers for.
//! The same (seed, index) gives the same sample, which is what makes training resumable to the step.
//! Nothing is mirrored left–right.

use super::{
    TrainError,
    phantom::{Class, Head, Kind, Range, training_slabs},
    training::Part,
};
use crate::{
    analysis::preprocess::{AIR_HU, normalize::normalize},
    domain::{
        geometry::{Vec3, add, norm, scale},
        midsagittal::MidsagittalPlane,
        plan::{Grid, Plan},
        volume::Geometry,
    },
};
use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Heads that bleed, among others; each kind of bleed is taught as often, since subarachnoid blood is the hardest to see and epidural the rarest.
pub(super) const BLEEDING: Mix = Mix {
    struck: Kind::Haemorrhage,
    share: 0.5,
    taught: &Class::BLEEDS,
    spared: &[Kind::Normal],
};
/// Heads with an infarct, among others; a third of the infarcts can hardly be seen, and a network that meets mostly heads with one guesses.
const INFARCTED: Mix = Mix {
    struck: Kind::Infarct,
    share: 0.4,
    taught: &[Class::Infarct],
    spared: &[Kind::Open, Kind::Normal, Kind::Haemorrhage],
};
/// Share of the samples of a head with a lesion that are made to show it.
const AT_THE_LESION: f64 = 0.85;
/// Share of samples whose stack ends here, below or above.
const END_OF_STACK: f64 = 0.06;
/// Share of mirrored slabs that are missing, as where no plane is found.
const WITHOUT_MIRROR: f64 = 0.05;
/// How far the mirror may stand from the head's own, mm and radians: its estimate from a scan is within 2 mm at 60 mm from the middle on nine of ten stacks.
const MIRROR_OFF: (f64, f64) = (1.5, 0.04);
/// Share of samples that are shaded, by how many waves, of which height at most, HU, and with how many turns over the slab along each axis.
const SHADED: f64 = 0.5;
const WAVES: usize = 2;
const WAVE_HU: f32 = 4.0;
const WAVE_TURNS: f32 = 2.0;
/// Millimetres of a rendered slab along both axes.
const FIELD_MM: f64 = 250.0;

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `[C, ...]`, normalised.
    pub input: Vec<f32>,
    /// The class of each voxel; of regions that overlap, a bit for each that it lies in.
    pub truth: Vec<u8>,
    /// The structure of each voxel; empty where the plan has none.
    pub structures: Vec<u8>,
}

/// Where samples come from.
pub trait Samples: std::fmt::Debug + Send + Sync {
    /// The sample of an index in the stream of a seed, for a part of the training: the same for the same four, whatever was drawn before.
    ///
    /// # Errors
    /// What stands in the way, as files that cannot be read.
    fn draw(&self, plan: &Plan, part: Part, seed: u64, index: u64) -> Result<Sample, TrainError>;

    /// Voxels of a sample along each axis: the network's patch, unless samples are pieces of it.
    fn shape(&self, plan: &Plan) -> Vec<usize> {
        plan.configuration.patch_size.clone()
    }

    /// The share that each sample of a step's batch keeps, if the rest is to come from its neighbour in the batch.
    fn mixup(&self, _seed: u64, _step: usize) -> Option<f64> {
        None
    }

    /// What the samples are: a checkpoint of other samples is refused.
    fn name(&self) -> String;
}

/// Slabs of phantoms with and without bleeds.
#[derive(Debug, Clone, Copy)]
pub struct HaemorrhageSlabs;

impl Samples for HaemorrhageSlabs {
    fn draw(&self, plan: &Plan, _part: Part, seed: u64, index: u64) -> Result<Sample, TrainError> {
        Ok(slabs(plan, &BLEEDING, seed, index))
    }

    fn name(&self) -> String {
        format!("haemorrhage slabs, {} with one, shaded", BLEEDING.share)
    }
}

/// Slabs of phantoms with a fresh infarct, and of those without one: with open arteries, with none drawn, and with a bleed.
#[derive(Debug, Clone, Copy)]
pub struct InfarctSlabs;

impl Samples for InfarctSlabs {
    fn draw(&self, plan: &Plan, _part: Part, seed: u64, index: u64) -> Result<Sample, TrainError> {
        Ok(slabs(plan, &INFARCTED, seed, index))
    }

    fn name(&self) -> String {
        format!("infarct slabs, {} with one, shaded", INFARCTED.share)
    }
}

/// Which heads are drawn.
pub(super) struct Mix {
    /// What has the lesion that is taught.
    struck: Kind,
    /// Their share.
    pub(super) share: f64,
    /// Classes of lesions of which a struck head has one; each is wanted as often.
    taught: &'static [Class],
    /// The others.
    spared: &'static [Kind],
}

impl Mix {
    /// A head, and the lesion that it was drawn for.
    pub(super) fn head(&self, rng: &mut ChaCha8Rng) -> (Head, Option<Class>) {
        let (kind, wanted) = if rng.random_bool(self.share) {
            (
                self.struck,
                Some(self.taught[rng.random_range(0..self.taught.len())]),
            )
        } else {
            (self.spared[rng.random_range(0..self.spared.len())], None)
        };
        loop {
            let head = Head::new(rng.random(), kind, Range::Training);
            if wanted.is_none_or(|class| head.classes().contains(&class)) {
                return (head, wanted);
            }
        }
    }
}

/// One batch.
#[derive(Debug)]
pub struct Batch {
    /// `[N, C, ...]`, normalised.
    pub input: Tensor,
    /// The class of each of the `N × ...` voxels.
    pub truth: Vec<u8>,
    /// The structure of each, where the plan has some.
    pub structures: Vec<u8>,
    /// The classes of what was mixed in, and the share that the first truth has.
    pub mixed: Option<(Vec<u8>, f64)>,
}

/// Which batch.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// The part of the training.
    pub part: Part,
    /// Its seed.
    pub seed: u64,
    /// The step, counted from 0.
    pub step: usize,
    /// Samples.
    pub size: usize,
}

/// Draws the batch of a step.
///
/// # Errors
/// What a sample or candle says.
#[expect(clippy::cast_possible_truncation, reason = "input is f32")]
pub fn batch(samples: &dyn Samples, plan: &Plan, which: Draw, device: &Device) -> Result<Batch, TrainError> {
    let Draw {
        part,
        seed,
        step,
        size,
    } = which;
    let drawn = (0..size)
        .into_par_iter()
        .map(|i| samples.draw(plan, part, seed, (step * size + i) as u64))
        .collect::<Result<Vec<Sample>, TrainError>>()?;
    let mut dims = vec![size, plan.configuration.normalization_schemes.len()];
    dims.extend(samples.shape(plan));
    let mut input: Vec<f32> = drawn.iter().flat_map(|s| &s.input).copied().collect();
    let truth: Vec<u8> = drawn.iter().flat_map(|s| &s.truth).copied().collect();
    let structures: Vec<u8> = drawn.iter().flat_map(|s| &s.structures).copied().collect();
    let mut mixed = None;
    if let Some(share) = samples.mixup(seed, step).filter(|_| size > 1) {
        // The neighbour's, the last one's being the first.
        let (mut values, mut classes) = (input.clone(), truth.clone());
        values.rotate_left(input.len() / size);
        classes.rotate_left(truth.len() / size);
        for (value, other) in input.iter_mut().zip(values) {
            *value = *value * share as f32 + other * (1.0 - share) as f32;
        }
        mixed = Some((classes, share));
    }
    Ok(Batch {
        input: Tensor::from_vec(input, dims, device)?,
        truth,
        structures,
        mixed,
    })
}

/// The plan's value for a class of the truth: its own label's, or that of the only label there is.
fn value(plan: &Plan, class: u8) -> u8 {
    let infarct = class == Class::Infarct as u8;
    match plan.labels.as_slice() {
        // A clot in an artery is neither bleed nor infarct, and neither of these is the other.
        _ if class == Class::Thrombus as u8 => 0,
        [only] if class > 0 && infarct == (only.name == Class::Infarct.name()) => only.value,
        [_] => 0,
        _ => class,
    }
}

/// Pixels of a rendered slice along both axes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a few hundred pixels"
)]
pub(super) fn matrix(spacing_mm: f64) -> usize {
    (FIELD_MM / spacing_mm) as usize
}

fn slabs(plan: &Plan, mix: &Mix, seed: u64, index: u64) -> Sample {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(index);
    let (head, wanted) = mix.head(&mut rng);
    let spacing_mm = plan.configuration.spacing[0];
    let (slab_mm, neighbours, mirrored) = match plan.configuration.grid {
        Grid::SourceSlices {
            slab_mm,
            neighbours,
            mirrored,
        } => (slab_mm, neighbours, mirrored),
        Grid::Volume { .. } | Grid::HeadBox { .. } | Grid::Oriented(_) | Grid::Window { .. } => {
            (0.0, 0, false)
        }
    };
    let matrix = matrix(spacing_mm);
    let (here, lay) = (rng.random(), rng.random());
    let through = rng
        .random_bool(AT_THE_LESION)
        .then(|| head.point_in_a_lesion(wanted, here))
        .flatten();
    let geometry = training_slabs(
        lay,
        Range::Training,
        through,
        matrix,
        spacing_mm,
        slab_mm.max(3.0),
    );
    let rendered = head.render(&geometry);
    let change = Intensity::draw(&mut rng, matrix, matrix);
    let mut slabs: Vec<Vec<f32>> = (0..3)
        .map(|s| change.apply(rendered.hu.slice(s).to_vec(), false))
        .collect();
    let end = rng
        .random_bool(END_OF_STACK)
        .then(|| if rng.random_bool(0.5) { 0 } else { 2 });
    let mut channels: Vec<usize> = match (neighbours, end) {
        (0, _) => [1].into(),
        (_, None) => [0, 1, 2].into(),
        (_, Some(0)) => [1, 1, 2].into(),
        (_, Some(_)) => [0, 1, 1].into(),
    };
    if mirrored {
        channels.push(slabs.len());
        slabs.push(if rng.random_bool(WITHOUT_MIRROR) {
            vec![AIR_HU; matrix * matrix]
        } else {
            change.apply(head.render_mirrored(&geometry, 1, &mirror(&head, &mut rng)), true)
        });
    }
    let (rows, columns) = (plan.configuration.patch_size[0], plan.configuration.patch_size[1]);
    // The head's box is centred in the tile at inference; a little off here.
    let (top, left) = origin(&slabs[1], matrix, [rows, columns], &mut rng);
    let mut image = vec![AIR_HU; channels.len() * rows * columns];
    let mut mask = vec![0u8; rows * columns];
    let truth = rendered.truth.slice(1);
    let mut structures = vec![0u8; if plan.tells_aspects() { rows * columns } else { 0 }];
    let regions = plan.tells_aspects().then(|| {
        let middle = Geometry {
            planes: vec![geometry.planes[1]],
            ..geometry.clone()
        };
        head.aspects(&middle)
    });
    for r in 0..rows {
        for c in 0..columns {
            let Some((y, x)) = pixel(top, r, matrix).zip(pixel(left, c, matrix)) else {
                continue;
            };
            mask[r * columns + c] = value(plan, truth[y * matrix + x]);
            if let Some(regions) = &regions {
                structures[r * columns + c] = regions.data[y * matrix + x];
            }
            for (k, slab) in channels.iter().enumerate() {
                image[(k * rows + r) * columns + c] = slabs[*slab][y * matrix + x];
            }
        }
    }
    normalize(&mut image, &plan.configuration.normalization_schemes[0], None);
    Sample {
        input: image,
        truth: mask,
        structures,
    }
}

/// The head's midsagittal plane, about as it would be found.
fn mirror(head: &Head, rng: &mut ChaCha8Rng) -> MidsagittalPlane {
    let (origin_mm, [left, back, vertex]) = head.frame();
    let unit = |v: Vec3| scale(v, 1.0 / norm(v));
    let (off_mm, off) = MIRROR_OFF;
    let mut turned = |axis, reach: f64| scale(unit(axis), rng.random_range(-reach..reach));
    let shift = turned(left, off_mm);
    let lean = add(turned(back, off), turned(vertex, off));
    MidsagittalPlane::through(add(origin_mm, shift), add(unit(left), lean))
}

/// The rendered pixel under tile pixel `i`, if any.
fn pixel(origin: i64, i: usize, matrix: usize) -> Option<usize> {
    usize::try_from(origin + i64::try_from(i).ok()?)
        .ok()
        .filter(|p| *p < matrix)
}

/// Where the tile starts so that the head is about in its middle.
#[expect(clippy::cast_possible_wrap, reason = "pixels of a small image")]
fn origin(hu: &[f32], matrix: usize, tile: [usize; 2], rng: &mut ChaCha8Rng) -> (i64, i64) {
    let inside = |i: usize| hu[i] > -300.0;
    let rows: Vec<usize> = (0..matrix)
        .filter(|r| (0..matrix).any(|c| inside(r * matrix + c)))
        .collect();
    let columns: Vec<usize> = (0..matrix)
        .filter(|c| (0..matrix).any(|r| inside(r * matrix + c)))
        .collect();
    let mut start = |found: &[usize], tile: usize| {
        let (low, high) = (
            found.first().copied().unwrap_or(0),
            found.last().copied().unwrap_or(matrix - 1),
        );
        i64::midpoint(low as i64, high as i64) - tile as i64 / 2 + rng.random_range(-12..=12)
    };
    (start(&rows, tile[0]), start(&columns, tile[1]))
}

/// Small changes of gain, offset, shading and sharpness beyond those of the phantom's scanner, the same for all slabs of a sample.
pub(super) struct Intensity {
    gain: f32,
    /// HU of each pixel: an offset, and in half of the samples a slow wave over the head, as scatter, bone and metal leave it.
    offset: Vec<f32>,
    /// Share of each of the four neighbours; negative sharpens.
    soft: f32,
    columns: usize,
}

impl Intensity {
    pub(super) fn draw(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Self {
        let gain = rng.random_range(0.92..1.08);
        let offset = rng.random_range(-4.0..4.0);
        let soft = match rng.random_range(0..4) {
            0 => rng.random_range(0.05..0.18),
            1 => rng.random_range(-0.12..0.0),
            _ => 0.0,
        };
        let mut field = vec![offset; rows * columns];
        for _ in 0..if rng.random_bool(SHADED) { WAVES } else { 0 } {
            let height = rng.random_range(0.0..WAVE_HU);
            let [down, across, phase] = [WAVE_TURNS, WAVE_TURNS, 1.0]
                .map(|turns| std::f32::consts::TAU * rng.random_range(-turns..turns));
            let (row, column) = (1.0 / rows as f32, 1.0 / columns as f32);
            for (i, value) in field.iter_mut().enumerate() {
                let (r, c) = ((i / columns) as f32 * row, (i % columns) as f32 * column);
                *value += height * (down * r + across * c + phase).sin();
            }
        }
        Self {
            gain,
            offset: field,
            soft,
            columns,
        }
    }

    /// Changes a slab; one that shows the other half of the head has that half's shading, about.
    pub(super) fn apply(&self, mut hu: Vec<f32>, mirrored: bool) -> Vec<f32> {
        let columns = self.columns;
        for (i, value) in hu.iter_mut().enumerate() {
            let column = if mirrored {
                columns - 1 - i % columns
            } else {
                i % columns
            };
            let offset = self.offset[i - i % columns + column];
            *value = (*value - 30.0) * self.gain + 30.0 + offset;
        }
        if self.soft == 0.0 {
            return hu;
        }
        let before = hu.clone();
        for r in 1..hu.len() / columns - 1 {
            for c in 1..columns - 1 {
                let i = r * columns + c;
                let around = before[i - 1] + before[i + 1] + before[i - columns] + before[i + columns];
                hu[i] = before[i] * (1.0 - 4.0 * self.soft) + self.soft * around;
            }
        }
        hu
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::recipe::haemorrhage;

    #[test]
    fn the_same_step_gives_the_same_batch_and_another_step_another() {
        let plan = haemorrhage(1);
        let draw = |step| {
            let which = Draw {
                part: Part::Trunk,
                seed: 7,
                step,
                size: 2,
            };
            let b = batch(&HaemorrhageSlabs, &plan, which, &Device::Cpu).unwrap();
            (b.input.flatten_all().unwrap().to_vec1::<f32>().unwrap(), b.truth)
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn slabs_of_infarcts_show_the_regions_of_aspects_and_those_of_bleeds_none() {
        let plan = crate::train::recipe::infarct(1);
        let drawn: Vec<Sample> = (0..24)
            .into_par_iter()
            .map(|i| slabs(&plan, &INFARCTED, 3, i))
            .collect();
        assert!(
            drawn
                .iter()
                .all(|sample| sample.structures.len() == sample.truth.len())
        );
        for region in 1..=10 {
            assert!(
                drawn.iter().any(|sample| sample.structures.contains(&region)),
                "region {region}"
            );
        }
        // An infarct lies in regions or outside of them, and takes no region away.
        let both = |sample: &Sample| {
            sample
                .truth
                .iter()
                .zip(&sample.structures)
                .any(|(t, s)| *t > 0 && *s > 0)
        };
        assert!(drawn.iter().any(both));
        assert!(slabs(&haemorrhage(1), &BLEEDING, 3, 0).structures.is_empty());
    }

    #[test]
    fn samples_of_bleeding_heads_mostly_show_the_bleed_and_every_kind_occurs() {
        let plan = haemorrhage(1);
        let truths: Vec<Vec<u8>> = (0..96)
            .into_par_iter()
            .map(|i| slabs(&plan, &BLEEDING, 3, i).truth)
            .collect();
        let showing = truths.iter().filter(|t| t.iter().any(|v| *v > 0)).count();
        assert!((35..75).contains(&showing), "{showing} of 96");
        for class in 1..=5 {
            assert!(truths.iter().any(|t| t.contains(&class)), "class {class}");
        }
    }
}
