//! Phantoms with arteries: closed ones are dark behind the clot, sides are the patient's own, the same seed gives the same bytes.

use super::*;
use crate::domain::artery::Artery;
use crate::domain::geometry::{dot, norm, scale, sub};
use crate::domain::volume::{Geometry, SlicePlane};

fn head(seed: u64, kind: Kind) -> Head {
    Head::new(seed, kind, Range::Training)
}

/// A small box of 1 mm voxels around a point.
fn around(point: Vec3) -> Geometry {
    Geometry {
        rows: 25,
        columns: 25,
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        pixel_spacing_mm: [1.0, 1.0],
        planes: (0..25)
            .map(|k| SlicePlane {
                origin_mm: sub(point, [12.0, 12.0, 12.0 - f64::from(k)]),
                thickness_mm: 1.0,
            })
            .collect(),
    }
}

/// The rendered HU at voxels that `vessel_at` calls `content`, and how many those are.
fn mean_hu(head: &Head, grid: &Geometry, content: u8) -> (f64, usize) {
    let rendered = head.render(grid);
    let place = |v: usize| grid.voxel_to_lps(v / 625, (v / 25 % 25) as f64, (v % 25) as f64);
    let values: Vec<f64> = (0..grid.len())
        .filter(|v| head.vessel_at(place(*v)) == content)
        .map(|v| f64::from(rendered.hu.data[v]))
        .collect();
    (
        values.iter().sum::<f64>() / values.len().max(1) as f64,
        values.len(),
    )
}

#[test]
fn behind_a_clot_the_lumen_is_dark_that_was_bright_before() {
    let mut compared = 0;
    for seed in 0..12 {
        let closed = head(seed, Kind::Occlusion);
        let Some(occlusion) = closed.occlusion() else {
            panic!("{seed} has no closed artery")
        };
        let open = head(seed, Kind::Cta);
        let middle = occlusion.clot_mm[occlusion.clot_mm.len() / 2];
        assert_eq!(closed.vessel_at(middle), 2, "{seed}: {occlusion:?}");
        assert_eq!(open.vessel_at(middle), 1, "{seed}: {occlusion:?}");
        if occlusion.site == Site::M2 {
            continue;
        }
        // The same voxels, before and after.
        let grid = around(middle);
        let place = |v: usize| grid.voxel_to_lps(v / 625, (v / 25 % 25) as f64, (v % 25) as f64);
        let (before, after) = (open.render(&grid), closed.render(&grid));
        let clot: Vec<usize> = (0..grid.len())
            .filter(|v| closed.vessel_at(place(*v)) == 2 && open.vessel_at(place(*v)) == 1)
            .collect();
        let mean = |data: &[f32]| clot.iter().map(|v| f64::from(data[*v])).sum::<f64>() / clot.len() as f64;
        assert!(clot.len() > 20, "{seed}: {} voxels of clot", clot.len());
        assert!(
            mean(&before.hu.data) > mean(&after.hu.data) + 80.0,
            "{seed} {:?}",
            occlusion.site
        );
        compared += 1;
    }
    assert!(compared > 5, "{compared}");
}

#[test]
fn the_other_side_stays_bright_and_sides_are_the_patients_own() {
    let mut seen = [0, 0];
    for seed in 0..30 {
        let closed = head(seed, Kind::Occlusion);
        let Some(occlusion) = closed.occlusion().filter(|o| o.site == Site::M1) else {
            continue;
        };
        let (origin, [left, ..]) = closed.frame();
        let across = dot(sub(occlusion.point_mm, origin), left);
        let side = if across > 0.0 { Side::Left } else { Side::Right };
        assert!(
            occlusion.side == side && across.abs() > 8.0,
            "{seed}: {across} {occlusion:?}"
        );
        seen[usize::from(side == Side::Left)] += 1;
        // Mirrored in the head's own plane there is the other M1, open.
        let mirrored = sub(occlusion.point_mm, scale(left, 2.0 * across));
        let (bright, voxels) = mean_hu(&closed, &around(mirrored), 1);
        assert!(
            voxels > 30 && bright > 130.0,
            "{seed}: {voxels} voxels of {bright} HU"
        );
    }
    assert!(seen[0] > 1 && seen[1] > 1, "{seen:?}");
}

#[test]
fn every_site_occurs_and_truth_lies_where_its_artery_runs() {
    let mut sites = std::collections::HashSet::new();
    for seed in 0..40 {
        let closed = head(seed, Kind::Occlusion);
        let occlusion = closed.occlusion().unwrap();
        sites.insert(occlusion.site);
        let (origin, axes) = closed.frame();
        let from = sub(occlusion.point_mm, origin);
        let [x, y, z] = axes.map(|axis| dot(from, axis));
        let holds = match occlusion.site {
            Site::IcaTerminus => (6.0..20.0).contains(&x.abs()) && (-25.0..0.0).contains(&y),
            Site::M1 => (10.0..36.0).contains(&x.abs()) && (-20.0..0.0).contains(&z),
            Site::M2 => (24.0..44.0).contains(&x.abs()) && (-15.0..25.0).contains(&z),
            Site::Basilar => x.abs() < 9.0 && (-55.0..-5.0).contains(&z),
        };
        assert!(holds, "{seed}: {:?} at {x} {y} {z}", occlusion.site);
        assert_eq!(occlusion.side == Side::Midline, occlusion.site == Site::Basilar);
        assert!(
            occlusion
                .clot_mm
                .iter()
                .all(|p| norm(sub(*p, occlusion.point_mm)) < 45.0),
            "{seed}"
        );
    }
    assert_eq!(sites.len(), 4, "{sites:?}");
}

#[test]
fn the_same_seed_draws_the_same_vessels_on_any_number_of_threads() {
    let render = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let closed = head(4, Kind::Occlusion);
            closed.render(&around(closed.occlusion().unwrap().point_mm))
        })
    };
    assert!(render(1) == render(3));
}

#[test]
fn an_infarct_darkens_its_side_and_its_clot_is_denser_than_blood() {
    let mut dense = 0;
    for seed in 0..10 {
        let struck = head(seed, Kind::Infarct);
        let occlusion = struck.occlusion().unwrap();
        let grid = around(occlusion.clot_mm[occlusion.clot_mm.len() / 2]);
        let (clot, voxels) = mean_hu(&struck, &grid, 2);
        let (blood, _) = mean_hu(&struck, &grid, 1);
        if voxels > 15 && clot > blood + 4.0 {
            dense += 1;
        }
        let plane = super::tests::stack(GeometryKind::Even, seed, 96);
        let rendered = struck.render(&plane);
        let infarcts: Vec<&Lesion> = rendered
            .lesions
            .iter()
            .filter(|l| l.class == Class::Infarct)
            .collect();
        assert!(infarcts.len() <= 1, "{seed}");
        let Some(infarct) = infarcts.first() else { continue };
        assert!(
            matches!(infarct.side, Side::Left | Side::Right),
            "{seed}: {infarct:?}"
        );
        let mean = |class: u8| {
            let inside = rendered.truth.data.iter().zip(&rendered.hu.data);
            let values: Vec<f64> = inside
                .filter(|(t, _)| **t == class)
                .map(|(_, hu)| f64::from(*hu))
                .collect();
            values.iter().sum::<f64>() / values.len().max(1) as f64
        };
        assert!(mean(Class::Infarct as u8) < 45.0, "{seed}: {}", mean(6));
    }
    assert!(dense >= 2, "{dense}");
}

#[test]
fn the_tree_has_every_artery_by_its_name_and_is_gone_where_a_clot_lies() {
    for seed in 0..6 {
        let (closed, open) = (head(seed, Kind::Occlusion), head(seed, Kind::Cta));
        let tree = open.arteries(&coarse(60, 3.0));
        for artery in Artery::ALL {
            let voxels = tree.data.iter().filter(|v| **v == artery as u8 + 1).count();
            assert!(voxels > 2, "{seed}: {voxels} of {artery:?}");
        }
        let Some(occlusion) = closed.occlusion() else {
            panic!("{seed} has no closed artery")
        };
        let clot = &occlusion.clot_mm;
        let grid = around(clot[clot.len() / 2]);
        let middle = grid.len() / 2;
        assert!(open.arteries(&grid).data[middle] > 0, "{seed}");
        assert_eq!(closed.arteries(&grid).data[middle], 0, "{seed}");
    }
    assert!(
        head(1, Kind::Open)
            .arteries(&coarse(30, 6.0))
            .data
            .iter()
            .all(|v| *v == 0)
    );
}
