//! Fresh infarcts: a territory and an age → tissue that has lost its grey–white difference, its density and its sulci.
//!
//! Hyperacute: grey matter fades into white, sulci close a little. Acute: below white matter. Subacute: a dark wedge to the surface.
//! Old infarcts are `brain`'s: they are scars, not findings.

use super::Site;
use super::brain::{Space, Tissue};
use super::noise::{Draw, Field, Point, ellipsoid, mix, step};

/// Where the blood is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Territory {
    MiddleSuperior,
    MiddleInferior,
    Lenticulostriate,
    Anterior,
    Posterior,
    Cerebellar,
    Borderzone,
}

/// One infarct.
#[derive(Debug, Clone)]
pub(super) struct Infarct {
    side: f32,
    centre: Point,
    radii: Point,
    /// HU below white matter that the tissue goes to.
    drop_hu: f32,
    /// Share of the way that it has gone.
    share: f32,
    /// Sulci narrower than noise of this height are closed.
    effacement: f32,
    below_tentorium: bool,
    noise: Field,
}

impl Infarct {
    /// An infarct of a territory that the site feeds, or of any.
    pub(super) fn draw(draw: &mut Draw, site: Option<(Site, f32)>) -> Self {
        use Territory as T;
        let side = match site {
            Some((Site::Basilar, _)) | None => draw.sign(),
            Some((_, side)) => side,
        };
        let choices: &[Territory] = match site {
            Some((Site::IcaTerminus | Site::M1, _)) => &[
                T::MiddleSuperior,
                T::MiddleInferior,
                T::Lenticulostriate,
                T::MiddleSuperior,
            ],
            Some((Site::M2, _)) => &[T::MiddleSuperior, T::MiddleInferior],
            Some((Site::Basilar, _)) => &[T::Posterior, T::Cerebellar],
            None => &[
                T::Anterior,
                T::Posterior,
                T::Cerebellar,
                T::Borderzone,
                T::Lenticulostriate,
            ],
        };
        let territory = choices[draw.count(0, choices.len() - 1)];
        let (centre, radii) = match territory {
            T::MiddleSuperior => ([46.0, -14.0, 26.0], [20.0, 30.0, 22.0]),
            T::MiddleInferior => ([48.0, 22.0, 6.0], [19.0, 28.0, 22.0]),
            T::Lenticulostriate => ([22.0, -6.0, 6.0], [10.0, 18.0, 13.0]),
            T::Anterior => ([8.0, -28.0, 42.0], [11.0, 36.0, 30.0]),
            T::Posterior => ([16.0, 62.0, 4.0], [18.0, 24.0, 17.0]),
            T::Cerebellar => ([24.0, 48.0, -36.0], [20.0, 22.0, 14.0]),
            T::Borderzone => ([28.0, 0.0, 50.0], [8.0, 34.0, 16.0]),
        };
        let size = draw.within([0.55, 1.15]);
        let jitter = Point::from(centre.map(|_| draw.around(4.0)));
        let (drop_hu, share, effacement) = match draw.count(0, 9) {
            0..=2 => (
                draw.within([0.0, 3.0]),
                draw.within([0.55, 0.9]),
                draw.within([-0.5, 1.0]),
            ),
            3..=6 => (
                draw.within([3.0, 11.0]),
                draw.within([0.8, 1.0]),
                draw.within([0.0, 2.0]),
            ),
            _ => (
                draw.within([7.0, 16.0]),
                draw.within([0.9, 1.0]),
                draw.within([-1.0, 1.5]),
            ),
        };
        Self {
            side,
            centre: [
                side * (centre[0] + jitter[0]),
                centre[1] + jitter[1],
                centre[2] + jitter[2],
            ],
            radii: radii.map(|r: f32| r * size * draw.within([0.85, 1.15])),
            drop_hu,
            share,
            effacement,
            below_tentorium: territory == T::Cerebellar,
            noise: draw.field(),
        }
    }

    /// The tissue at `p` as the infarct leaves it, when it reaches it.
    #[inline]
    pub(super) fn at(&self, p: Point, tissue: Tissue, white: f32) -> Option<Tissue> {
        if p[0] * self.side < 1.0 || (self.below_tentorium && p[2] > -12.0) {
            return None;
        }
        let f = ellipsoid(p, self.centre, self.radii);
        if f > 2.2 {
            return None;
        }
        let edge = f.sqrt() + 0.16 * self.noise.at(p, 0.09);
        let inside = step(1.06, 0.9, edge);
        if inside < 0.5 {
            return None;
        }
        let target = white - self.drop_hu;
        match tissue.space {
            Space::Parenchyma => Some(Tissue {
                hu: mix(tissue.hu, target, self.share * inside),
                space: Space::Parenchyma,
            }),
            Space::Subarachnoid if self.noise.at(p, 0.2) < self.effacement => Some(Tissue {
                hu: mix(target, tissue.hu, 0.2),
                space: Space::Parenchyma,
            }),
            _ => None,
        }
    }
}
