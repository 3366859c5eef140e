//! What the scanner adds: blur, noise, offset, beam hardening between the petrous bones, streaks, the head holder.

use super::anatomy::stream;
use super::base::AIR;
use super::noise::{Draw, Field, Point, mix, sq, step};
use super::range::Ranges;

/// Parameters of one scanner and scan.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    pub(super) seed: u64,
    noise: f32,
    /// Correlation of the noise, Gaussian sigma in mm: the kernel.
    noise_mm: f32,
    /// Noise without its slow part.
    fine: bool,
    /// Gain of contrast between soft tissues.
    contrast: f32,
    /// Share of the image's detail that the kernel adds again.
    edge: f32,
    offset: f32,
    pub(super) blur_mm: f32,
    /// Dark bar between the petrous bones, HU.
    bar: f32,
    /// Stripes at the base, HU.
    stripes: f32,
    /// Slope of bar and stripes in the plane.
    slope: f32,
    /// Extra noise at the base, streaked along rows.
    starvation: f32,
    metal: f32,
    /// Movement during a slice, mm.
    motion: [f32; 2],
    /// At once, which doubles contours, instead of steadily.
    jerk: bool,
    /// HU of the head holder; none without.
    holder: Option<f32>,
    holder_y: f32,
    /// Slow shading over the field.
    shading: f32,
    field: Field,
}

impl Scanner {
    pub(super) fn draw(seed: u64, ranges: &Ranges) -> Self {
        let mut draw = Draw::new(seed, stream::SCANNER);
        let moving = draw.chance(0.08);
        Self {
            seed,
            noise: draw.within_log(ranges.noise_hu),
            noise_mm: draw.within([0.2, 1.0]),
            offset: draw.around(ranges.offset_hu),
            blur_mm: draw.within(ranges.blur_mm),
            bar: draw.within([0.0, 16.0]),
            stripes: draw.within([0.0, 9.0]),
            slope: draw.around(0.15),
            starvation: draw.within([0.0, 1.2]),
            metal: draw.within([20.0, 120.0]),
            motion: if moving {
                [draw.around(2.5), draw.around(2.5)]
            } else {
                [0.0; 2]
            },
            holder: draw.chance(0.85).then(|| draw.within([-250.0, 220.0])),
            holder_y: draw.within([10.0, 30.0]),
            shading: draw.within([0.0, 1.8]),
            field: draw.field(),
            fine: draw.chance(ranges.fine_noise),
            contrast: draw.within(ranges.contrast),
            edge: if draw.chance(0.35) {
                draw.within(ranges.edge)
            } else {
                0.0
            },
            jerk: moving && draw.chance(0.5),
        }
    }

    /// As thin slices with contrast agent have it: more noise, no movement within a slice.
    pub(super) fn thin(mut self, ranges: &Ranges) -> Self {
        let mut draw = Draw::new(self.seed, stream::SCANNER + 100);
        self.noise = draw.within_log(ranges.angio_noise_hu);
        self.motion = [0.0; 2];
        self
    }

    /// The same scanner with a share of its noise.
    pub(super) fn with_noise(mut self, share: f32) -> Self {
        self.noise *= share;
        self
    }

    /// Whether the head moved during slices.
    pub(super) fn moving(&self) -> bool {
        self.motion != [0.0; 2]
    }

    /// How far the head has moved at this share of the slice's acquisition, −0.5 to 0.5, in mm along rows and columns.
    pub(super) fn moved(&self, share: f32) -> [f32; 2] {
        let share = if self.jerk { 0.5 * share.signum() } else { share };
        [self.motion[0] * share, self.motion[1] * share]
    }

    /// Head holder and air at a point that is outside the head; `p` is LPS relative to the nominal centre.
    #[inline]
    pub(super) fn around_head(&self, p: Point) -> f32 {
        let Some(hu) = self.holder else { return AIR };
        if p[1] < -25.0 {
            return AIR;
        }
        let s = sq(p[0] / 101.0);
        let t = sq((p[1] - self.holder_y) / 92.0);
        let t = if p[1] > self.holder_y { t } else { 0.0 };
        let from = ((s * s + t * t + s * t).sqrt().sqrt() - 1.0).abs() * 95.0;
        mix(AIR, hu, step(2.0, 0.8, from))
    }

    /// HU added by beam hardening and metal at a point of the head; `p` is in head coordinates.
    #[inline]
    pub(super) fn artefact(&self, p: Point, metal: bool) -> f32 {
        let [x, y, z] = p;
        let mut sum = self.shading * self.field.at(p, 1.0 / 25.0);
        if z < 2.0 && z > -70.0 {
            let here = (-sq((z + 28.0) / 15.0)).exp();
            let across = (1.0 - sq(x / 62.0)).max(0.0);
            let line = y + self.slope * x;
            let bar = (-sq((line - 12.0) / 11.0)).exp();
            let stripes = self.field.at([0.02 * x, line, 0.4 * z], 1.0 / 3.0);
            sum += here * across * (self.stripes * stripes - self.bar * bar * (1.0 - sq(x / 45.0)).max(0.0));
        }
        if metal && z < -72.0 {
            let angle = (y + 60.0).atan2(x);
            sum +=
                self.metal * self.field.at([8.0 * angle, 0.3 * z, 0.0], 1.0) * (-sq((z + 95.0) / 14.0)).exp();
        }
        sum
    }

    /// Noise weight at a point of the head.
    #[inline]
    pub(super) fn noise_weight(&self, p: Point) -> f32 {
        1.0 + self.starvation * (-sq((p[2] + 32.0) / 22.0)).exp()
    }

    /// Blurs a slice, then adds weighted noise and the offset.
    pub(super) fn finish(
        &self,
        slice: usize,
        columns: usize,
        spacing_mm: [f32; 2],
        hu: &mut [f32],
        weight: &[f32],
    ) {
        blur(
            hu,
            columns,
            [self.blur_mm / spacing_mm[0], self.blur_mm / spacing_mm[1]],
        );
        self.sharpen(columns, spacing_mm, hu);
        let mut draw = Draw::new(self.seed, stream::PIXELS + slice as u64);
        let mut noise: Vec<f32> = (0..hu.len()).map(|_| draw.normal()).collect();
        let sigma = [self.noise_mm / spacing_mm[0], self.noise_mm / spacing_mm[1]];
        let mut kept = blur(&mut noise, columns, sigma);
        if self.fine {
            let mut slow = noise.clone();
            blur(&mut slow, columns, sigma.map(|s| 2.0 * s));
            noise.iter_mut().zip(&slow).for_each(|(n, s)| *n -= s);
            #[expect(clippy::cast_precision_loss, reason = "a slice has fewer than 2^24 pixels")]
            let pixels = noise.len() as f32;
            kept = (noise.iter().map(|n| sq(*n)).sum::<f32>() / pixels).sqrt();
        }
        let gain = self.noise / kept;
        for ((value, noise), weight) in hu.iter_mut().zip(&noise).zip(weight) {
            *value = (*value + self.offset + gain * noise * weight).max(AIR - 24.0);
        }
    }
}

impl Scanner {
    /// Enhances edges, with over- and undershoot beside bone, and stretches the contrast of soft tissues.
    fn sharpen(&self, columns: usize, spacing_mm: [f32; 2], hu: &mut [f32]) {
        /// Detail beyond this is cut, HU: kernels for the head hold back beside bone.
        const LARGEST: f32 = 50.0;
        /// Between grey and white matter, HU.
        const MIDDLE: f32 = 33.0;
        if self.edge > 0.0 {
            let mut smooth = hu.to_vec();
            blur(&mut smooth, columns, spacing_mm.map(|mm| 1.1 / mm));
            for (value, smooth) in hu.iter_mut().zip(&smooth) {
                *value += self.edge * (*value - smooth).clamp(-LARGEST, LARGEST);
            }
        }
        for value in hu {
            let from = *value - MIDDLE;
            if from.abs() < 100.0 {
                *value += (self.contrast - 1.0) * from * (2.0 - from.abs() / 50.0).min(1.0);
            }
        }
    }
}

/// Separable Gaussian of `sigma` pixels (rows, columns), edges held; returns the standard deviation that white noise of 1 keeps.
pub(super) fn blur(image: &mut [f32], columns: usize, sigma: [f32; 2]) -> f32 {
    let rows = image.len() / columns;
    let mut kept = 1.0;
    let taps = sigma.map(|sigma| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a handful of pixels"
        )]
        let radius = (2.6 * sigma).ceil().clamp(1.0, 8.0) as u8;
        let mut taps: Vec<f32> = (0..=radius)
            .map(|i| (-0.5 * sq(f32::from(i) / sigma)).exp())
            .collect();
        let sum = taps[0] + 2.0 * taps[1..].iter().sum::<f32>();
        taps.iter_mut().for_each(|t| *t /= sum);
        taps
    });
    for taps in &taps {
        kept *= (sq(taps[0]) + 2.0 * taps[1..].iter().map(|t| sq(*t)).sum::<f32>()).sqrt();
    }
    let mut line = vec![0.0; columns];
    for row in image.chunks_exact_mut(columns) {
        line.copy_from_slice(row);
        for (column, out) in row.iter_mut().enumerate() {
            let mut sum = taps[1][0] * line[column];
            for (i, tap) in taps[1].iter().enumerate().skip(1) {
                sum += tap * (line[column.saturating_sub(i)] + line[(column + i).min(columns - 1)]);
            }
            *out = sum;
        }
    }
    let before = image.to_vec();
    for (row, out) in image.chunks_exact_mut(columns).enumerate() {
        let source = |r: usize| &before[r * columns..(r + 1) * columns];
        for (value, centre) in out.iter_mut().zip(source(row)) {
            *value = taps[0][0] * centre;
        }
        for (i, tap) in taps[0].iter().enumerate().skip(1) {
            let (above, below) = (source(row.saturating_sub(i)), source((row + i).min(rows - 1)));
            for ((value, a), b) in out.iter_mut().zip(above).zip(below) {
                *value += tap * (a + b);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blur_keeps_a_flat_image_and_says_what_it_does_to_noise() {
        let mut flat = vec![7.0; 24 * 16];
        blur(&mut flat, 16, [0.8, 1.3]);
        assert!(flat.iter().all(|v| (v - 7.0).abs() < 1e-4));
        let mut draw = Draw::new(3, 0);
        let mut noise: Vec<f32> = (0..256 * 256).map(|_| draw.normal()).collect();
        let kept = blur(&mut noise, 256, [0.8, 1.3]);
        let measured = (noise.iter().map(|v| v * v).sum::<f32>() / 65_536.0).sqrt();
        assert!((measured / kept - 1.0).abs() < 0.03, "{measured} {kept}");
    }
}
