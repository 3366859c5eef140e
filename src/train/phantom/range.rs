//! The ranges that heads, scanners and lesions are drawn from: one table for training, a wider one for evaluation.
//!
//! | parameter | training | evaluation |
//! |---|---|---|
//! | noise, HU (standard deviation at the centre) | 1.5–7 | 1–9 |
//! | offset of all HU | ±4 | ±6 |
//! | rotation about each axis, degrees | ±15 | ±18 |
//! | shift along each axis, mm | ±8 | ±12 |
//! | pixel spacing of DICOM series, mm | 0.40–0.52 | 0.35–0.55 |
//! | lesion volume wanted, mL | 0.3–90 | 0.2–120 |
//! | blood, HU | 50–82 | 45–88 |
//! | size of the head against the mean | 0.92–1.08 | 0.88–1.12 |
//! | atrophy, 0 none, 1 severe | 0–0.9 | 0–1 |
//! | brightening along the inner table, HU | 8–48 | 4–60 |
//! | brightening under the vertex, HU | 0–80 | 0–95 |
//! | blur of the image (Gaussian sigma), mm | 0.35–0.9 | 0.3–1.1 |
//! | blood in arteries with contrast agent, HU | 250–500 | 200–580 |
//! | venous blood between plain (0) and three quarters of arterial (1) | 0.1–0.9 | 0–1 |
//! | clot, HU | 52–80 | 45–85 |
//! | clot, mm | 7–25 | 5–30 |
//! | collaterals, 0 none, 1 full | 0.05–0.85 | 0–0.95 |
//! | noise of CT angiography, HU | 6–16 | 5–20 |
//! | gain of contrast between soft tissues | 0.85–1.2 | 0.8–1.3 |
//! | edge enhancement, share of the detail added again | 0–1 | 0–1.4 |
//! | chance of noise without its slow part | 0 | 0.25 |
//! | old subdural collections, HU | 12–36 | 8–42 |
//! | chance each of clip, dense tumour and missing bone flap | 0 | 0.06 |
//! | tilt of tilted stacks, degrees | ±18.5 | ±18.5 |
//!
//! Both tables were fixed before the weights that ship were trained, and have not been touched since.
//! Other numbers of the anatomy stand where they are used: they are the same for both.

/// Which table a phantom is drawn from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// What networks are trained on.
    Training,
    /// Wider than training: what they are judged on.
    Evaluation,
}

/// Lowest and highest value of each parameter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranges {
    pub(super) noise_hu: [f32; 2],
    pub(super) offset_hu: f32,
    pub(super) rotation_degrees: f32,
    pub(super) shift_mm: f32,
    pub(super) pixel_spacing_mm: [f32; 2],
    pub(super) lesion_ml: [f32; 2],
    pub(super) blood_hu: [f32; 2],
    pub(super) size: [f32; 2],
    pub(super) atrophy: [f32; 2],
    pub(super) brightening_hu: [f32; 2],
    pub(super) vertex_hu: [f32; 2],
    pub(super) blur_mm: [f32; 2],
    pub(super) artery_hu: [f32; 2],
    pub(super) venous: [f32; 2],
    pub(super) clot_hu: [f32; 2],
    pub(super) clot_mm: [f32; 2],
    pub(super) collaterals: [f32; 2],
    pub(super) angio_noise_hu: [f32; 2],
    pub(super) contrast: [f32; 2],
    pub(super) edge: [f32; 2],
    /// Chance of noise whose slow part is missing, as sharp kernels make it.
    pub(super) fine_noise: f32,
    pub(super) chronic_hu: [f32; 2],
    /// Chance of each thing that training never draws.
    pub(super) foreign: f32,
}

/// What networks are trained on.
pub(super) const TRAINING: Ranges = Ranges {
    noise_hu: [1.5, 7.0],
    offset_hu: 4.0,
    rotation_degrees: 15.0,
    shift_mm: 8.0,
    pixel_spacing_mm: [0.40, 0.52],
    lesion_ml: [0.3, 90.0],
    blood_hu: [50.0, 82.0],
    size: [0.92, 1.08],
    atrophy: [0.0, 0.9],
    brightening_hu: [8.0, 48.0],
    vertex_hu: [0.0, 80.0],
    blur_mm: [0.35, 0.9],
    artery_hu: [250.0, 500.0],
    venous: [0.1, 0.9],
    clot_hu: [52.0, 80.0],
    clot_mm: [7.0, 25.0],
    collaterals: [0.05, 0.85],
    angio_noise_hu: [6.0, 16.0],
    contrast: [0.85, 1.2],
    edge: [0.0, 1.0],
    fine_noise: 0.0,
    chronic_hu: [12.0, 36.0],
    foreign: 0.0,
};

/// What networks are judged on.
pub(super) const EVALUATION: Ranges = Ranges {
    noise_hu: [1.0, 9.0],
    offset_hu: 6.0,
    rotation_degrees: 18.0,
    shift_mm: 12.0,
    pixel_spacing_mm: [0.35, 0.55],
    lesion_ml: [0.2, 120.0],
    blood_hu: [45.0, 88.0],
    size: [0.88, 1.12],
    atrophy: [0.0, 1.0],
    brightening_hu: [4.0, 60.0],
    vertex_hu: [0.0, 95.0],
    blur_mm: [0.3, 1.1],
    artery_hu: [200.0, 580.0],
    venous: [0.0, 1.0],
    clot_hu: [45.0, 85.0],
    clot_mm: [5.0, 30.0],
    collaterals: [0.0, 0.95],
    angio_noise_hu: [5.0, 20.0],
    contrast: [0.8, 1.3],
    edge: [0.0, 1.4],
    fine_noise: 0.25,
    chronic_hu: [8.0, 42.0],
    foreign: 0.06,
};

impl Range {
    /// The table.
    pub(super) fn table(self) -> &'static Ranges {
        match self {
            Self::Training => &TRAINING,
            Self::Evaluation => &EVALUATION,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluation_is_at_least_as_wide_as_training_everywhere() {
        let holds = |wide: [f32; 2], narrow: [f32; 2]| wide[0] <= narrow[0] && wide[1] >= narrow[1];
        let (e, t) = (&EVALUATION, &TRAINING);
        for (wide, narrow) in [
            (e.noise_hu, t.noise_hu),
            (e.pixel_spacing_mm, t.pixel_spacing_mm),
            (e.lesion_ml, t.lesion_ml),
            (e.blood_hu, t.blood_hu),
            (e.size, t.size),
            (e.atrophy, t.atrophy),
            (e.brightening_hu, t.brightening_hu),
            (e.vertex_hu, t.vertex_hu),
            (e.blur_mm, t.blur_mm),
            (e.artery_hu, t.artery_hu),
            (e.venous, t.venous),
            (e.clot_hu, t.clot_hu),
            (e.clot_mm, t.clot_mm),
            (e.collaterals, t.collaterals),
            (e.angio_noise_hu, t.angio_noise_hu),
            (e.contrast, t.contrast),
            (e.edge, t.edge),
            (e.chronic_hu, t.chronic_hu),
        ] {
            assert!(holds(wide, narrow), "{wide:?} {narrow:?}");
        }
        assert!(
            e.offset_hu > t.offset_hu && e.rotation_degrees > t.rotation_degrees && e.shift_mm > t.shift_mm
        );
    }
}
