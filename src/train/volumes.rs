//! Boxes around the circle of Willis of phantoms, as samples for detectors of closed arteries: with contrast agent of where the lumen ends, without of dense clots.
//!
//! Each sample is its own head, or with dense clots in turn a head and itself before; rendered on the network's grid where `analysis::preprocess::head_box` would lay it, give or take its error.
//! Truth: balls along the first of the clot, with the value of the artery's label. Nothing is mirrored.

use super::{
    TrainError,
    dataset::{Sample, Samples},
    phantom::{Head, Kind, Occlusion, Range, Site},
    training::Part,
};
use crate::{
    analysis::preprocess::{head_box::lay, normalize::normalize},
    domain::{
        geometry::{Vec3, add, norm, scale, sub},
        head_box::BoxTrace,
        plan::{Grid, Plan},
        volume::Geometry,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Share of heads with a closed artery.
const CLOSED: f64 = 0.65;
/// The arteries that the detectors are taught, in the order of their labels: that of dense clots only the first two, since phantoms without contrast agent have no other large one closed.
///
/// M2 was tried and not learned, and a label that is never found would promise what it does not hold.
pub const TAUGHT: [Site; 3] = [Site::IcaTerminus, Site::M1, Site::Basilar];
/// The arteries in which dense clots are taught.
pub const TAUGHT_DENSE: [Site; 2] = [Site::IcaTerminus, Site::M1];
/// Share of dense clots' closed arteries whose clot is as dense as blood: what follows from it is not what is asked for.
const UNSEEN: f64 = 0.15;
/// How often each is shown: the basilar artery is learned last.
const SHOWN: [Site; 4] = [Site::IcaTerminus, Site::M1, Site::Basilar, Site::Basilar];
/// Radius of the balls that mark where a lumen ends, mm.
pub const BALL_MM: f64 = 5.0;
/// How much of the clot is marked, mm.
pub const MARKED_MM: f64 = 10.0;
/// The centre of mass of the upper cavity of phantoms, in the head's own axes, mm.
pub const CAVITY_CENTRE_MM: Vec3 = [0.0, 4.0, 24.0];
/// Share of the noise of thin slices that a voxel of the box has, which is the mean of several of theirs.
const AVERAGED: std::ops::Range<f32> = 0.35..0.7;
/// By how much the box is laid beside it along each axis, at most, mm.
const ASIDE_MM: f64 = 11.0;

/// What is looked for in arteries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    /// With contrast agent: where a lumen ends.
    Closed,
    /// Without: where a clot is denser than blood.
    Dense,
}

impl Sought {
    /// What models with a question look for, if it is about arteries.
    #[must_use]
    pub fn of(question: &str) -> Option<Self> {
        match question {
            "occlusion" => Some(Self::Closed),
            "hyperdense_artery" => Some(Self::Dense),
            _ => None,
        }
    }

    /// The heads with a closed artery, and those with open ones.
    #[must_use]
    pub fn kinds(self) -> [Kind; 2] {
        match self {
            Self::Closed => [Kind::Occlusion, Kind::Cta],
            Self::Dense => [Kind::Infarct, Kind::Open],
        }
    }
}

/// Boxes of phantoms with open and closed arteries.
#[derive(Debug, Clone, Copy)]
pub struct ArteryBoxes {
    /// What is looked for in them.
    pub sought: Sought,
    /// Voxels of the piece of each box that is shown, around where the artery is closed or would be; else the whole box.
    pub piece: Option<[usize; 3]>,
}

impl Samples for ArteryBoxes {
    fn draw(&self, plan: &Plan, _part: Part, seed: u64, index: u64) -> Result<Sample, TrainError> {
        draw(*self, plan, seed, index)
    }

    fn shape(&self, plan: &Plan) -> Vec<usize> {
        self.piece
            .map_or_else(|| plan.configuration.patch_size.clone(), Vec::from)
    }

    fn name(&self) -> String {
        let boxes = match self.sought {
            Sought::Closed => "occlusion boxes, closed or before",
            Sought::Dense => "dense clot boxes in pairs, averaged",
        };
        match self.piece {
            None => boxes.into(),
            Some(piece) => format!("{boxes}, pieces of {piece:?}"),
        }
    }
}

/// A head with a closed artery that is taught, and the sample's: itself, or what it was before.
fn drawn_head(sought: Sought, rng: &mut ChaCha8Rng, index: u64) -> (Head, Head) {
    let (shown, is_closed): (&[Site], _) = match sought {
        Sought::Closed => (&SHOWN, rng.random_bool(CLOSED)),
        Sought::Dense => (&TAUGHT_DENSE, index.is_multiple_of(2)),
    };
    let wanted = shown[rng.random_range(0..shown.len())];
    let is_seen = !rng.random_bool(UNSEEN);
    let [closed, open] = sought.kinds();
    let struck = loop {
        let head = Head::new(rng.random(), closed, Range::Training);
        let seen = |dense: bool| dense == is_seen;
        if head
            .occlusion()
            .is_some_and(|occlusion| occlusion.site == wanted && occlusion.dense.is_none_or(seen))
        {
            break head.scanned_thin();
        }
    };
    let head = if is_closed {
        struck.clone()
    } else {
        Head::new(struck.seed(), open, Range::Training).scanned_thin()
    };
    match sought {
        Sought::Closed => (struck, head),
        // A few HU tell a clot from blood: noise must be what the box is shown, not what single slices have.
        Sought::Dense => (struck, head.averaged(rng.random_range(AVERAGED))),
    }
}

fn draw(boxes: ArteryBoxes, plan: &Plan, seed: u64, index: u64) -> Result<Sample, TrainError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(match boxes.sought {
        Sought::Closed => index,
        // A head with a clot, then the same head without, shown alike.
        Sought::Dense => index / 2,
    });
    let (struck, head) = drawn_head(boxes.sought, &mut rng, index);
    let mut trace = laid(plan, &head, ASIDE_MM, &mut rng)?;
    if let (Some(piece), Some(occlusion)) = (boxes.piece, struck.occlusion()) {
        cut(&mut trace, piece, occlusion.point_mm, &mut rng);
    }
    let (shape, grid) = (trace.shape, trace.geometry());
    let mut input = head.render(&grid).hu.data;
    let (gain, soft) = (rng.random_range(0.92..1.08), rng.random_range(0.0..0.22f32));
    input.iter_mut().for_each(|hu| *hu *= gain);
    soften(&mut input, shape, soft);
    let mut truth = vec![0; input.len()];
    if let Some(occlusion) = head
        .occlusion()
        .filter(|occlusion| occlusion.dense != Some(false))
    {
        mark(&occlusion, &grid, &mut truth);
    }
    normalize(&mut input, &plan.configuration.normalization_schemes[0], None);
    Ok(Sample {
        input,
        truth,
        structures: if plan.tells_arteries() {
            head.arteries(&grid).data
        } else {
            Vec::new()
        },
    })
}

/// Keeps a piece of a box, somewhere around a place, whole within the box.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "kept between 0 and a few dozen voxels"
)]
fn cut(trace: &mut BoxTrace, piece: [usize; 3], place_mm: Vec3, rng: &mut ChaCha8Rng) {
    for (axis, length) in piece.into_iter().enumerate() {
        // LPS x runs along columns, y along rows, z along slices.
        let (a, mm) = (2 - axis, trace.spacing_mm[axis]);
        let at = (place_mm[a] - trace.origin_mm[a]) / mm - length as f64 * rng.random_range(0.2..0.8);
        let first = at.round().clamp(0.0, (trace.shape[axis] - length) as f64) as usize;
        trace.origin_mm[a] += first as f64 * mm;
        trace.shape[axis] = length;
    }
}

/// The box of a plan where preprocessing would lay it around a head, give or take `aside_mm` along each axis; nothing is brought into it yet.
pub(super) fn laid(
    plan: &Plan,
    head: &Head,
    aside_mm: f64,
    rng: &mut ChaCha8Rng,
) -> Result<BoxTrace, TrainError> {
    let configuration = &plan.configuration;
    let (Grid::HeadBox { centre_mm }, &[depth, rows, columns], &[step, row_mm, column_mm]) = (
        &configuration.grid,
        configuration.patch_size.as_slice(),
        configuration.spacing.as_slice(),
    ) else {
        return Err(TrainError::Mismatch(format!(
            "{} is not a plan on a box of the head, which these samples are for",
            plan.id
        )));
    };
    let aside: Vec3 = std::array::from_fn(|_| rng.random_range(-aside_mm..aside_mm));
    Ok(lay(
        nowhere(),
        add(add(middle_mm(head), *centre_mm), aside),
        [depth, rows, columns],
        [step, row_mm, column_mm],
    ))
}

/// The centre of mass of the upper cavity of a phantom, LPS mm.
#[must_use]
pub fn middle_mm(head: &Head) -> Vec3 {
    let (origin, axes) = head.frame();
    (0..3).fold(origin, |sum, a| add(sum, scale(axes[a], CAVITY_CENTRE_MM[a])))
}

/// A source without slices, for a box that nothing is brought into.
fn nowhere() -> Geometry {
    Geometry {
        rows: 1,
        columns: 1,
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        pixel_spacing_mm: [1.0, 1.0],
        planes: Vec::new(),
    }
}

/// The value of an artery's label; 0 when it has none.
#[must_use]
pub fn value(site: Site) -> u8 {
    (1..)
        .zip(TAUGHT)
        .find(|(_, s)| *s == site)
        .map_or(0, |(value, _)| value)
}

/// Marks the first of a clot.
fn mark(occlusion: &Occlusion, grid: &Geometry, truth: &mut [u8]) {
    let marked: Vec<Vec3> = occlusion
        .clot_mm
        .iter()
        .copied()
        .filter(|p| norm(sub(*p, occlusion.point_mm)) <= MARKED_MM)
        .collect();
    let (len, columns) = (grid.slice_len(), grid.columns);
    for (v, truth) in truth.iter_mut().enumerate() {
        let p = grid.voxel_to_lps(v / len, (v % len / columns) as f64, (v % columns) as f64);
        if norm(sub(p, occlusion.point_mm)) < MARKED_MM + BALL_MM
            && marked.iter().any(|m| norm(sub(p, *m)) < BALL_MM)
        {
            *truth = value(occlusion.site);
        }
    }
}

/// Gives each voxel's neighbours along each axis in turn a share of it.
fn soften(data: &mut [f32], [depth, rows, columns]: [usize; 3], share: f32) {
    for (stride, count) in [(1, columns), (columns, rows), (rows * columns, depth)] {
        let before = data.to_vec();
        for (v, value) in data.iter_mut().enumerate() {
            let at = v / stride % count;
            let low = before[if at > 0 { v - stride } else { v }];
            let high = before[if at + 1 < count { v + stride } else { v }];
            *value = (1.0 - 2.0 * share) * before[v] + share * (low + high);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::recipe::{haemorrhage, hyperdense, occlusion};

    const CLOSED_BOXES: ArteryBoxes = ArteryBoxes {
        sought: Sought::Closed,
        piece: None,
    };

    #[test]
    fn the_same_index_gives_the_same_sample() {
        let plan = occlusion(1);
        let first = draw(CLOSED_BOXES, &plan, 5, 0).unwrap();
        assert_eq!(first, draw(CLOSED_BOXES, &plan, 5, 0).unwrap());
        assert_eq!(
            first.input.len(),
            plan.configuration.patch_size.iter().product::<usize>()
        );
        assert!(first.truth.iter().all(|t| usize::from(*t) <= TAUGHT.len()));
    }

    #[test]
    fn every_closed_artery_is_marked_with_its_sites_value() {
        let plan = occlusion(1);
        for seed in 0..40 {
            let head = Head::new(seed, Kind::Occlusion, Range::Training);
            let closed = head.occlusion().unwrap();
            if !TAUGHT.contains(&closed.site) {
                assert_eq!(value(closed.site), 0, "{seed}");
                continue;
            }
            let grid = lay(nowhere(), closed.point_mm, [20; 3], [1.75; 3]).geometry();
            let mut truth = vec![0; grid.len()];
            mark(&closed, &grid, &mut truth);
            let marked = truth.iter().filter(|t| **t > 0).count();
            assert!(marked > 60, "{seed}: {marked} {closed:?}");
            let label = &plan.labels[usize::from(value(closed.site)) - 1];
            assert!(
                label.value == value(closed.site) && label.name.starts_with(closed.site.name()),
                "{seed}"
            );
        }
    }

    #[test]
    fn a_piece_of_a_box_shows_a_dense_clot_and_then_the_same_head_before_it() {
        let plan = hyperdense(1);
        let boxes = ArteryBoxes {
            sought: Sought::Dense,
            piece: Some([24, 32, 72]),
        };
        let voxels: usize = boxes.shape(&plan).iter().product();
        assert_eq!(voxels, 24 * 32 * 72);
        let mut marked = 0;
        for pair in 0..8 {
            let [with, before] = [0, 1].map(|i| draw(boxes, &plan, 5, 2 * pair + i).unwrap());
            assert_eq!((with.input.len(), before.truth.len()), (voxels, voxels));
            assert!(before.truth.iter().all(|truth| *truth == 0), "{pair}");
            marked += usize::from(with.truth.iter().filter(|truth| **truth > 0).count() > 60);
            let apart = |at: &dyn Fn(u8) -> bool| {
                let both = with.input.iter().zip(&before.input).zip(&with.truth);
                let apart: Vec<f32> = both.filter(|(_, t)| at(**t)).map(|((a, b), _)| a - b).collect();
                apart.iter().sum::<f32>() / apart.len().max(1) as f32
            };
            if with.truth.iter().any(|truth| *truth > 0) {
                assert!(apart(&|t| t > 0) > apart(&|t| t == 0) + 0.02, "{pair}");
            }
        }
        assert!(marked >= 5, "{marked} of 8");
    }

    #[test]
    fn a_box_is_laid_where_training_lays_it_however_the_head_lies() {
        use crate::{analysis::preprocess::head_box, train::phantom::coarse};
        let plan = occlusion(1);
        for seed in 904..908 {
            let head = Head::new(seed, Kind::Occlusion, Range::Evaluation);
            let boxed = head_box::preprocess(&head.render(&coarse(60, 3.0)).hu, &plan).unwrap();
            let grid = boxed.trace.geometry();
            let laid = sub(grid.voxel_to_lps(31, 27.5, 31.5), [0.0, -8.0, -42.0]);
            let off = sub(laid, middle_mm(&head));
            assert!(off.iter().all(|mm| mm.abs() < 13.0), "{seed}: off by {off:?}");
            let clot = head.occlusion().unwrap().point_mm;
            let inside = sub(clot, grid.voxel_to_lps(0, 0.0, 0.0));
            let size = [112.0, 98.0, 112.0];
            assert!(
                (0..3).all(|a| inside[a] > 3.0 && inside[a] < size[a] - 4.0),
                "{seed}: {inside:?}"
            );
        }
    }

    #[test]
    fn refuses_a_plan_on_slices() {
        let error = draw(CLOSED_BOXES, &haemorrhage(1), 1, 0).unwrap_err();
        assert!(error.to_string().contains("box of the head"), "{error}");
    }
}
