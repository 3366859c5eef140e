//! A lesion goes where it is: through the shipped plan's grid and back, and into findings, on every kind of stack.

use ictus::{
    analysis::{postprocess, preprocess},
    domain::{
        finding::{Finding, Side},
        geometry,
        prediction::Prediction,
        uid::Uid,
        volume::Volume,
    },
    train::{
        phantom::{self, Class, GeometryKind, Head, Kind, Range, Rendered},
        recipe::haemorrhage,
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

/// Blood in the sulci lies in films of a millimetre or two, which a 1 mm grid cannot hold as well as solid blood.
const FILM: Class = Class::Subarachnoid;

/// A phantom with at least 1 mL of blood: with films in the sulci, or with neither those nor crescents, which may be as thin.
fn bleeding(kind: GeometryKind, seed: u64, film: bool) -> Rendered {
    (0..40)
        .map(|attempt| {
            let seed = seed + 100 * attempt;
            Head::new(seed, Kind::Haemorrhage, Range::Evaluation).render(&phantom::geometry(
                kind,
                seed,
                Range::Evaluation,
            ))
        })
        .find(|r| {
            let large = r.lesions.iter().any(|l| l.volume_ml >= 1.0);
            let has = |class| r.lesions.iter().any(|l| l.class == class);
            large
                && if film {
                    has(FILM)
                } else {
                    !has(FILM) && !has(Class::Subdural)
                }
        })
        .unwrap()
}

/// Dice of the truth with itself after the way through the plan's grid and back.
fn there_and_back(rendered: &Rendered) -> (f64, [usize; 3]) {
    let (_, trace) = preprocess::preprocess(&rendered.hu, &haemorrhage(1)).unwrap();
    let len = rendered.truth.geometry.slice_len();
    let mask: Vec<f32> = rendered
        .truth
        .data
        .iter()
        .map(|t| f32::from(u8::from(*t > 0)))
        .collect();
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
    let [rows, columns] = trace.shape();
    (
        2.0 * both as f64 / sum as f64,
        [trace.slices.len(), rows, columns],
    )
}

#[test]
fn solid_blood_survives_the_way_through_the_plans_grid_on_every_stack() {
    for (kind, seed) in STACKS {
        let (dice, grid) = there_and_back(&bleeding(kind, seed, false));
        println!("{kind:?}: grid {grid:?} in the plane, Dice {dice:.4}");
        assert!(dice >= 0.95, "{kind:?} {dice}");
    }
}

#[test]
fn films_of_blood_in_the_sulci_lose_little_on_the_plans_grid() {
    // The last is the worst that was met.
    for (kind, seed) in [
        (GeometryKind::Even, 31),
        (GeometryKind::Oblique, 32),
        (GeometryKind::Oblique, 16),
    ] {
        let (dice, grid) = there_and_back(&bleeding(kind, seed, true));
        println!("{kind:?} with films: grid {grid:?} in the plane, Dice {dice:.4}");
        assert!(dice >= 0.85, "{kind:?} {dice}");
    }
}

#[test]
fn findings_name_the_side_and_the_centre_of_the_truth_on_every_stack() {
    let plan = haemorrhage(1);
    let mut compared = 0;
    for (kind, seed) in STACKS {
        let rendered = bleeding(kind, seed, false);
        let (_, trace) = preprocess::preprocess(&rendered.hu, &plan).unwrap();
        let preprocess::brain::Intracranial { brain, cavity } =
            preprocess::brain::intracranial(&rendered.hu, &trace);
        let found = postprocess::find(
            &sure(&rendered),
            &rendered.hu,
            &brain,
            &cavity,
            &Uid::derive(&[b"series"]),
            &plan,
        )
        .unwrap();
        for lesion in rendered.lesions.iter().filter(|l| l.volume_ml >= 1.0) {
            let away = |f: &Finding| geometry::norm(geometry::sub(f.center_mm, lesion.center_mm));
            let nearest = found
                .findings
                .iter()
                .min_by(|a, b| away(a).total_cmp(&away(b)))
                .unwrap();
            // Lesions that touch are one finding: only those that stand alone can be told apart.
            if (nearest.volume_ml - lesion.volume_ml).abs() > 0.02 * lesion.volume_ml {
                continue;
            }
            compared += 1;
            assert!(away(nearest) < 1.0, "{kind:?}: {} mm", away(nearest));
            if matches!(lesion.side, Side::Left | Side::Right) {
                assert_eq!(nearest.side, lesion.side, "{kind:?} at {:?}", lesion.center_mm);
            }
        }
    }
    assert!(
        compared >= STACKS.len() - 2,
        "only {compared} lesions stood alone"
    );
}

/// What lies outside the cavity is no finding: no bleed may be left out because the skull is open on its slices.
#[test]
fn no_bleed_lies_outside_the_cavity() {
    let plan = haemorrhage(1);
    // The first was missed with 34 mL: ten of its slices are open.
    let missed = [(GeometryKind::Even, 3), (GeometryKind::Uneven, 800_016)];
    for (kind, seed) in missed.into_iter().chain(STACKS) {
        let rendered = Head::new(seed, Kind::Haemorrhage, Range::Evaluation).render(&phantom::geometry(
            kind,
            seed,
            Range::Evaluation,
        ));
        let (_, trace) = preprocess::preprocess(&rendered.hu, &plan).unwrap();
        let cavity = preprocess::brain::intracranial(&rendered.hu, &trace).cavity;
        let (mut blood, mut inside) = (0u32, 0u32);
        for voxel in (0..cavity.data.len()).filter(|v| rendered.truth.data[*v] != 0) {
            blood += 1;
            inside += u32::from(cavity.data[voxel]);
        }
        let share = f64::from(inside) / f64::from(blood.max(1));
        let kinds: Vec<&str> = rendered.lesions.iter().map(|l| l.class.name()).collect();
        println!("{kind:?} {seed}: {share:.4} of the blood lies in the cavity {kinds:?}");
        // The blurred edge of thick slices may lie beyond the table of the skull, which of a film is a larger share; a bleed may not.
        let film = rendered
            .lesions
            .iter()
            .any(|l| matches!(l.class, Class::Subarachnoid | Class::Subdural));
        let least = if film { 0.9 } else { 0.95 };
        assert!(share >= least, "{kind:?} {seed}: {share}");
    }
}

/// A prediction that is the truth.
fn sure(rendered: &Rendered) -> Prediction {
    let geometry = &rendered.truth.geometry;
    let zeros = || Volume {
        geometry: geometry.clone(),
        data: vec![0.0f32; geometry.len()],
    };
    let score = rendered
        .truth
        .data
        .iter()
        .map(|t| f32::from(u8::from(*t > 0)))
        .collect();
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
