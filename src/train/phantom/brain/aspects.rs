//! The ten regions of ASPECTS in a phantom: a point of the brain → the region that holds it.
//!
//! Nuclei, insula and internal capsule are where the brain has them; the cortex falls into sectors around the head's middle,
//! with the border to the anterior cerebral artery 28° from the front and to the posterior one 142° from it, below and above the top of the basal ganglia.
//! Narrow sulci belong to the cortex around them, so that an infarct that closes them changes no border.

use super::{Brain, INSULA_MM, Insula, Nucleus, Space};
use crate::{
    domain::aspects::Region,
    train::phantom::{
        noise::{Point, ellipsoid},
        skull::{Place, Skull},
    },
};

/// From where to where the regions reach, and between them the top of the basal ganglia, mm above the head's origin.
const LOWEST: f32 = -14.0;
const GANGLIA: f32 = 18.0;
const HIGHEST: f32 = 55.0;
/// Borders of the sectors, degrees from the front: below the top of the basal ganglia, and above.
const BELOW: [f32; 4] = [28.0, 62.0, 112.0, 142.0];
const ABOVE: [f32; 4] = [28.0, 66.0, 114.0, 145.0];

impl Brain {
    /// The region at a point of the cavity.
    pub(in crate::train::phantom) fn aspects(&self, p: Point, place: Place, skull: &Skull) -> Option<Region> {
        let [x, y, z] = p;
        if !(LOWEST..HIGHEST).contains(&z) {
            return None;
        }
        let inner = place.depth.min(0.85 * place.above);
        let tissue = self.plain(p, place, inner, skull);
        if !matches!(tissue.space, Space::Parenchyma | Space::Subarachnoid) {
            return None;
        }
        let (ax, left) = (x.abs(), usize::from(x > 0.0));
        let from_front = ax.atan2(-y).to_degrees();
        let radius = ax.hypot(y);
        let sector = |borders: [f32; 4]| (0..3).find(|s| (borders[*s]..borders[s + 1]).contains(&from_front));
        if z >= GANGLIA {
            return match sector(ABOVE)? {
                0 => (radius > 26.0 && ax > 14.0).then_some(Region::M4),
                1 => (ax > 22.0).then_some(Region::M5),
                _ => (radius > 26.0 && ax > 20.0).then_some(Region::M6),
            };
        }
        let slow = self.slow.at(p, 1.0 / 9.0);
        match self.nucleus([ax, y, z], slow, left) {
            Some(Nucleus::Caudate) => return Some(Region::Caudate),
            Some(Nucleus::Lentiform) => return Some(Region::Lentiform),
            Some(Nucleus::Thalamus) => return None,
            None => {}
        }
        let insula = Insula::beside(y, z, slow);
        if ax < insula.at && ax > insula.at - INSULA_MM && insula.ends * insula.tall > 0.5 {
            return Some(Region::Insula);
        }
        if ax < 24.5 && ellipsoid([ax, y, z], [19.5, -1.0, 3.0], [9.0, 24.0, 12.0]) < 1.0 {
            return Some(Region::InternalCapsule);
        }
        match sector(BELOW)? {
            0 => (radius > 40.0 && ax > 16.0).then_some(Region::M1),
            1 => (ax > insula.at.min(42.0)).then_some(Region::M2),
            _ => (radius > 46.0 && ax > 30.0).then_some(Region::M3),
        }
    }
}
