//! A lesion goes where it is: through the shipped plan's grid and back, and into findings, on every kind of stack.

use ictus::{
    analysis::{postprocess, preprocess},
    domain::{finding::Side, geometry, prediction::Prediction, uid::Uid, volume::Volume},
    train::{
        phantom::{self, GeometryKind, Head, Kind, Range, Rendered},
        recipe::haemorrhage_2d,
    },
};

/// Stacks and seeds; tilted stacks lean either way by seed.
const STACKS: [(GeometryKind, u64); 7] = [
    (GeometryKind::Even, 11),
    (GeometryKind::Tilted, 12),
    (GeometryKind::Tilted, 13),
    (GeometryKind::Uneven, 14),
    (GeometryKind::Reversed, 15),
    (GeometryKind::Oblique, 16),
    (GeometryKind::Scanner, 17),
];

/// A phantom that bleeds at least 1 mL.
fn bleeding(kind: GeometryKind, seed: u64) -> Rendered {
    (0..20)
        .map(|attempt| {
            let seed = seed + 100 * attempt;
            Head::new(seed, Kind::Haemorrhage, Range::Evaluation).render(&phantom::geometry(
                kind,
                seed,
                Range::Evaluation,
            ))
        })
        .find(|r| r.lesions.iter().any(|l| l.volume_ml >= 1.0))
        .unwrap()
}

#[test]
fn the_truth_survives_the_way_through_the_plans_grid_on_every_stack() {
    let plan = haemorrhage_2d(1);
    for (kind, seed) in STACKS {
        let rendered = bleeding(kind, seed);
        let (_, trace) = preprocess::preprocess(&rendered.hu, &plan).unwrap();
        let len = rendered.truth.geometry.slice_len();
        let mask: Vec<f32> = rendered.truth.data.iter().map(|t| f32::from(*t)).collect();
        let there = trace.apply_all(&mask, 0.0);
        let (mut both, mut sum) = (0usize, 0usize);
        for (slice, image) in trace.slices.iter().zip(&there) {
            let back = trace.invert(image, 0.0);
            for (b, t) in back
                .iter()
                .zip(&rendered.truth.data[slice * len..(slice + 1) * len])
            {
                both += usize::from(*b >= 0.5 && *t != 0);
                sum += usize::from(*b >= 0.5) + usize::from(*t != 0);
            }
        }
        let dice = 2.0 * both as f64 / sum as f64;
        let [rows, columns] = trace.shape();
        println!(
            "{kind:?}: grid {} x {rows} x {columns} at 1.0 mm, Dice {dice:.4}",
            trace.slices.len()
        );
        assert!(dice >= 0.95, "{kind:?} {dice}");
    }
}

#[test]
fn findings_name_the_side_and_the_centre_of_the_truth_on_every_stack() {
    let plan = haemorrhage_2d(1);
    for (kind, seed) in STACKS {
        let rendered = bleeding(kind, seed);
        let (_, trace) = preprocess::preprocess(&rendered.hu, &plan).unwrap();
        let preprocess::brain::Intracranial { brain, cavity } =
            preprocess::brain::intracranial(&rendered.hu, &trace);
        let found = postprocess::find(
            &sure(&rendered),
            &brain,
            &cavity,
            &Uid::derive(&[b"series"]),
            &plan,
        )
        .unwrap();
        let mut compared = 0;
        for lesion in rendered.lesions.iter().filter(|l| l.volume_ml >= 1.0) {
            // Lesions that touch are one finding: only those that stand alone can be told apart.
            let Some(finding) = found
                .findings
                .iter()
                .find(|f| (f.volume_ml - lesion.volume_ml).abs() < 0.02 * lesion.volume_ml)
            else {
                continue;
            };
            compared += 1;
            let away = geometry::norm(geometry::sub(finding.center_mm, lesion.center_mm));
            assert!(away < 1.0, "{kind:?}: {away} mm");
            if matches!(lesion.side, Side::Left | Side::Right) {
                assert_eq!(finding.side, lesion.side, "{kind:?} at {:?}", lesion.center_mm);
            }
        }
        assert!(
            compared > 0 || found.findings.len() < rendered.lesions.len(),
            "{kind:?}: nothing could be compared"
        );
    }
}

/// A prediction that is the truth.
fn sure(rendered: &Rendered) -> Prediction {
    let geometry = &rendered.truth.geometry;
    let zeros = || Volume {
        geometry: geometry.clone(),
        data: vec![0.0f32; geometry.len()],
    };
    let score = rendered.truth.data.iter().map(|t| f32::from(*t)).collect();
    Prediction {
        labels: rendered.truth.clone(),
        score: Volume {
            geometry: geometry.clone(),
            data: score,
        },
        entropy: zeros(),
        mutual_information: zeros(),
        variance: zeros(),
        disagreement: 0.0,
    }
}
