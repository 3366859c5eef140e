//! The veins of a head: tubes from the surface and the depth to the dural sinuses.

use super::brain::unit;
use super::noise::{Draw, Field, mix};
use super::skull::Skull;
use super::vessels::{Node, path};

/// Deep and surface veins; the dural sinuses are the brain's own.
pub(super) fn veins(draw: &mut Draw, skull: &Skull, noise: &Field) -> Vec<Vec<Node>> {
    let mut veins = Vec::new();
    let galen = [0.0, 33.0, 6.0, 2.2];
    veins.push(path(
        &[galen, [0.0, 36.0, 9.0, 2.2], [0.0, 33.0, 12.0, 1.8]],
        0.3,
        noise,
    ));
    for side in [-1.0f32, 1.0] {
        let r = draw.within([0.7, 1.3]);
        // Internal cerebral and basal veins.
        veins.push(path(
            &[
                [side * 4.0, -8.0, 10.0, 0.8 * r],
                [side * 2.5, 10.0, 12.0, r],
                galen,
            ],
            0.4,
            noise,
        ));
        veins.push(path(
            &[
                [side * 17.0, -10.0, -8.0, 0.6 * r],
                [side * 18.0, 6.0, -8.0, 0.8 * r],
                [side * 15.0, 22.0, 0.0, r],
                galen,
            ],
            0.6,
            noise,
        ));
        // The superficial vein of the fissure drains to the sphenoid ridge: it looks like an M2 and is none.
        if draw.chance(0.8) {
            let r = draw.within([0.6, 1.5]);
            veins.push(path(
                &[
                    [side * 52.0, 14.0, 8.0, 0.7 * r],
                    [side * 50.0, -4.0, 1.0, r],
                    [side * 44.0, -18.0, -7.0, r],
                    [side * 30.0, -20.0, -12.0, r],
                    [side * 15.0, -12.0, skull.sella() - 2.0, r],
                ],
                0.8,
                noise,
            ));
        }
        // Cavernous sinus.
        veins.push(path(
            &[
                [side * 12.5, -16.0, skull.sella() - 3.0, 3.0],
                [side * 13.0, 0.0, skull.sella() - 5.0, 3.6],
            ],
            0.0,
            noise,
        ));
        // Surface veins to the sagittal sinus.
        for _ in 0..draw.count(3, 6) {
            let along = draw.within([-0.9, 0.8]);
            let mut controls = Vec::new();
            for (i, across) in (0u8..).zip([0.9f32, 0.55, 0.25, 0.06]) {
                let p = skull.on_table(unit([side * across, along + 0.1 * f32::from(i), 0.75]), 3.0);
                controls.push([p[0], p[1], p[2], mix(0.6, 1.3, f32::from(i) / 3.0)]);
            }
            veins.push(path(&controls, 1.2, noise));
        }
    }
    veins
}
