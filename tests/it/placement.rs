//! A lesion goes where it is: through the shipped plan's grid and back, and into findings, on every kind of stack.

use crate::support;
use ictus::{
    analysis::{postprocess, preprocess},
    domain::{
        finding::{Finding, Side},
        geometry,
        midsagittal::MidsagittalPlane,
        prediction::Prediction,
        trace::SpatialTrace,
        uid::Uid,
        volume::Volume,
    },
    train::{
        phantom::{self, Class, GeometryKind, Head, Kind, Range, Rendered},
        recipe::{haemorrhage, infarct},
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
    let wanted = |rendered: &Rendered| {
        let has = |class| rendered.lesions.iter().any(|l| l.class == class);
        let large = rendered.lesions.iter().any(|l| l.volume_ml >= 1.0);
        let kinds = if film {
            has(FILM)
        } else {
            !has(FILM) && !has(Class::Subdural)
        };
        large && kinds
    };
    (0..40)
        .find_map(|attempt| {
            let seed = seed + 100 * attempt;
            let head = Head::new(seed, Kind::Haemorrhage, Range::Evaluation);
            let geometry = phantom::geometry(kind, seed, Range::Evaluation);
            // What the head holds is seen on a sixteenth of its pixels, too.
            let rough = head.render(&support::halved(&support::halved(&geometry)));
            wanted(&rough).then(|| head.render(&geometry)).filter(wanted)
        })
        .unwrap()
}

/// Dice of the truth with itself after the way through the plan's grid and back.
fn there_and_back(rendered: &Rendered, trace: &SpatialTrace) -> (f64, [usize; 3]) {
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
fn films_of_blood_in_the_sulci_lose_little_on_the_plans_grid() {
    // The last is the worst that was met.
    for (kind, seed) in [
        (GeometryKind::Even, 31),
        (GeometryKind::Oblique, 32),
        (GeometryKind::Oblique, 16),
    ] {
        let rendered = bleeding(kind, seed, true);
        let trace = preprocess::preprocess(&rendered.hu, &haemorrhage(1))
            .unwrap()
            .trace;
        let (dice, grid) = there_and_back(&rendered, &trace);
        println!("{kind:?} with films: grid {grid:?} in the plane, Dice {dice:.4}");
        assert!(dice >= 0.85, "{kind:?} {dice}");
    }
}

#[test]
fn solid_blood_survives_the_plans_grid_and_findings_name_its_side_and_centre_on_every_stack() {
    let plan = haemorrhage(1);
    let mut compared = 0;
    for (kind, seed) in STACKS {
        let rendered = bleeding(kind, seed, false);
        let preprocess::Sliced {
            trace, intracranial, ..
        } = preprocess::preprocess(&rendered.hu, &plan).unwrap();
        let (dice, grid) = there_and_back(&rendered, &trace);
        println!("{kind:?}: grid {grid:?} in the plane, Dice {dice:.4}");
        assert!(dice >= 0.95, "{kind:?} {dice}");
        let preprocess::brain::Intracranial { brain, cavity } = intracranial;
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
        let cavity = preprocess::preprocess(&rendered.hu, &plan)
            .unwrap()
            .intracranial
            .cavity;
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
        structures: None,
        disagreement: 0.0,
    }
}

/// A network that compares sides is shown the other side where it is, and as it was taught: there is the bleed of the other side.
#[test]
fn what_lies_on_the_other_side_is_shown_as_training_shows_it_on_every_stack() {
    let plan = infarct(1);
    let mut exact = 0;
    for (kind, seed) in STACKS {
        let head = Head::new(seed, Kind::Haemorrhage, Range::Evaluation);
        let geometry = phantom::geometry(kind, seed, Range::Evaluation);
        let rendered = head.render(&geometry);
        let preprocess::Sliced {
            input,
            trace,
            intracranial,
        } = preprocess::preprocess(&rendered.hu, &plan).unwrap();

        let (origin_mm, [left, back, up]) = head.frame();
        let plane = MidsagittalPlane::through(origin_mm, left);
        let found = MidsagittalPlane::estimate(&intracranial.brain, &rendered.hu).unwrap();
        let off = [[0.0, 0.0], [60.0, 0.0], [-60.0, 0.0], [0.0, 40.0]].map(|[behind, above]| {
            let along = geometry::add(geometry::scale(back, behind), geometry::scale(up, above));
            found.left_of_mm(geometry::add(origin_mm, along)).abs()
        });

        let columns = input.shape[1];
        let len = input.shape[0] * columns;
        let bled = |slice: usize, point| {
            let (row, column, away) = geometry.lps_to_voxel(slice, point);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "what is negative becomes 0, which is air"
            )]
            let (row, column) = (row.round() as usize, column.round() as usize);
            away.abs() < 0.3 * geometry.planes[slice].thickness_mm
                && row < geometry.rows
                && column < geometry.columns
                && rendered.truth.slice(slice)[row * geometry.columns + column] != 0
        };
        // The mirrored channel, the slice that training would mirror, and the slice itself, where blood lies on the other side only.
        let (mut sums, mut pixels) = ([0.0; 3], 0.0);
        for (i, slice) in trace.slices.iter().copied().enumerate() {
            let taught = trace.apply(&head.render_mirrored(&geometry, slice, &plane), -1024.0);
            for v in 0..len {
                let here = trace.point_mm(slice, (v / columns) as f64, (v % columns) as f64);
                let there = plane.mirror(here);
                if !bled(slice, here) && (0..geometry.slices()).any(|other| bled(other, there)) {
                    // The plan's normalisation.
                    let taught = (taught[v].clamp(-5.0, 75.0) - 30.0) / 14.0;
                    let shown = |channel: usize| input.slices[i][channel * len + v];
                    for (sum, value) in sums.iter_mut().zip([shown(3), taught, shown(1)]) {
                        *sum += f64::from(value) * 14.0 + 30.0;
                    }
                    pixels += 1.0;
                }
            }
        }
        let [mirrored, taught, own] = sums.map(|sum| sum / pixels);
        println!(
            "{kind:?}: the plane is off by {off:.1?} mm; of {pixels} pixels mirrored {mirrored:.1} HU, taught {taught:.1}, own {own:.1}"
        );
        assert!(pixels > 300.0, "{kind:?}: too little blood on one side");
        assert!(mirrored > own + 4.0, "{kind:?}: {mirrored} {own}");
        assert!(off.iter().all(|mm| *mm < 3.0), "{kind:?}: {off:.1?}");
        // Where the plane is found, the bleed is all there.
        if off.iter().all(|mm| *mm < 2.0) {
            exact += 1;
            assert!((mirrored - taught).abs() < 5.0, "{kind:?}: {mirrored} {taught}");
        }
    }
    assert!(
        exact >= 5,
        "the plane was found on {exact} of {} stacks",
        STACKS.len()
    );
}
