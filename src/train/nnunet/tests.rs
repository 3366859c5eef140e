//! A small dataset of bright balls in heads of nothing: refused when it is wrong, learnt when it is right.

use super::{
    fingerprint::fingerprint,
    patches::{Laid, fold_of, lay, prepare},
    planning::{Budget, Choice, Family, Named, Shape, of_model, plan},
    raw::RawDataset,
    validation::validate,
};
use crate::{
    analysis::{
        self, Scan,
        assemble::{Values, from_nifti},
        infer::{Engine, bundle::Bundle},
    },
    domain::{
        architecture::Architecture,
        device::DeviceChoice,
        network::Unattended,
        plan::{Activation, Grid, Normalization, Plan, Precision, Provenance},
        uid::Uid,
        volume::{Geometry, SlicePlane, Volume},
        volume_trace::Turn,
    },
    nifti,
    train::{
        TrainError,
        augment::Augmentation,
        dataset::{HaemorrhageSlabs, Samples},
        labelled::Case,
        loss,
        phantom::{Head, Kind, Range, coarse},
        recipe,
        start::Start,
        training::{Config, Part, train},
    },
};
use candle_core::Device;
use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

const SIZE: [usize; 3] = [12, 40, 44];
const STEP_MM: [f64; 3] = [4.0, 3.0, 3.0];

fn grid(step_mm: f64) -> Geometry {
    let plane = |k: usize| SlicePlane {
        origin_mm: [-60.0, -60.0, step_mm * k as f64],
        thickness_mm: step_mm,
    };
    Geometry {
        rows: SIZE[1],
        columns: SIZE[2],
        row_direction: [1.0, 0.0, 0.0],
        column_direction: [0.0, 1.0, 0.0],
        pixel_spacing_mm: [STEP_MM[1], STEP_MM[2]],
        planes: (0..SIZE[0]).map(plane).collect(),
    }
}

/// A cylinder of brain in air with a ball of blood, elsewhere in each case; its labels.
fn case(number: usize) -> (Vec<f32>, Vec<u8>) {
    let centre = [
        20.0 + 2.0 * (number % 4) as f64,
        50.0 + 7.0 * (number % 3) as f64,
        55.0 + 9.0 * (number % 4) as f64,
    ];
    let voxels: usize = SIZE.iter().product();
    (0..voxels)
        .map(|i| {
            let at = [i / (SIZE[1] * SIZE[2]), i / SIZE[2] % SIZE[1], i % SIZE[2]];
            let mm: [f64; 3] = std::array::from_fn(|a| at[a] as f64 * STEP_MM[a]);
            let far = |p: [f64; 3]| (0..3).map(|a| (mm[a] - p[a]).powi(2)).sum::<f64>().sqrt();
            let noise = ((i * 7919 + number * 104_729) % 13) as f32 - 6.0;
            if far(centre) < 14.0 {
                (70.0 + noise, 1)
            } else if far([mm[0], 60.0, 66.0]) < 52.0 {
                (30.0 + noise, 0)
            } else {
                (-1000.0, 0)
            }
        })
        .unzip()
}

fn put<T: nifti::NiftiValue>(path: &Path, geometry: Geometry, data: Vec<T>) {
    fs::write(path, nifti::write(&Volume { geometry, data }).unwrap()).unwrap();
}

/// A dataset of so many cases in a folder.
fn dataset(folder: &Path, cases: usize) {
    for sub in ["imagesTr", "labelsTr"] {
        fs::create_dir_all(folder.join(sub)).unwrap();
    }
    describe(folder, r#"{"background": 0, "blood": 1}"#);
    for number in 0..cases {
        let (image, labels) = case(number);
        put(
            &folder.join(format!("imagesTr/head_{number}_0000.nii.gz")),
            grid(STEP_MM[0]),
            image,
        );
        put(
            &folder.join(format!("labelsTr/head_{number}.nii.gz")),
            grid(STEP_MM[0]),
            labels,
        );
    }
}

fn describe(folder: &Path, labels: &str) {
    let text = format!(r#"{{"channel_names": {{"0": "CT"}}, "numTraining": 4, "labels": {labels}}}"#);
    fs::write(folder.join("dataset.json"), text).unwrap();
}

/// What is blood, and its core, which is painted over it.
fn regions(folder: &Path, order: &str) {
    describe(
        folder,
        &format!(r#"{{"background": 0, "blood": [1, 2], "core": 2}}, "regions_class_order": {order}"#),
    );
}

fn choice(shape: Shape, family: Family, members: usize) -> Choice {
    Choice {
        named: named(members),
        shape,
        family,
        budget: Budget {
            flat: 100_000,
            full: 250_000,
            base_features: 8,
            most_features: [16, 16],
        },
        patch: None,
    }
}

fn named(members: usize) -> Named {
    Named {
        id: "balls".into(),
        members,
        codes: BTreeMap::new(),
        sideless: false,
    }
}

/// What checking the dataset says.
fn refusal(folder: &Path) -> String {
    let out = tempfile::tempdir().unwrap();
    let result = RawDataset::open(folder).and_then(|d| fingerprint(&d, out.path(), |_, _| {}));
    result.unwrap_err().to_string()
}

#[test]
fn what_is_wrong_with_a_dataset_is_said_with_the_cases_name() {
    type Spoil = fn(&Path);
    let labels = |folder: &Path, change: fn(&mut Vec<f32>)| {
        let mut values: Vec<f32> = case(1).1.into_iter().map(f32::from).collect();
        change(&mut values);
        put(&folder.join("labelsTr/head_1.nii.gz"), grid(STEP_MM[0]), values);
    };
    let spoils: [(Spoil, &[&str]); 13] = [
        (
            |f| fs::remove_file(f.join("labelsTr/head_1.nii.gz")).unwrap(),
            &["head_1", "labelsTr/head_1.nii.gz is missing"],
        ),
        (
            |f| fs::remove_file(f.join("imagesTr/head_1_0000.nii.gz")).unwrap(),
            &["head_1", "no image"],
        ),
        (
            |f| {
                let from = f.join("imagesTr/head_1_0000.nii.gz");
                fs::rename(from, f.join("imagesTr/head_1_0001.nii.gz")).unwrap();
            },
            &["head_1", "channels [1]"],
        ),
        (
            |f| put(&f.join("labelsTr/head_1.nii.gz"), grid(5.0), case(1).1),
            &["head_1", "another grid"],
        ),
        (
            |f| {
                put(
                    &f.join("labelsTr/head_1.nii.gz"),
                    grid(STEP_MM[0]),
                    vec![7u8; case(1).1.len()],
                )
            },
            &["head_1", "label 7", "0 to 1"],
        ),
        (
            |f| {
                put(
                    &f.join("labelsTr/head_1.nii.gz"),
                    grid(STEP_MM[0]),
                    vec![0.5f32; case(1).1.len()],
                )
            },
            &["head_1", "whole numbers"],
        ),
        (
            |f| {
                put(
                    &f.join("imagesTr/head_1_0000.nii.gz"),
                    grid(STEP_MM[0]),
                    vec![f32::NAN; case(1).1.len()],
                )
            },
            &["head_1", "not finite"],
        ),
        (
            |f| describe(f, r#"{"background": 0, "all": [1, 2], "core": 2}"#),
            &["names 2 regions", "regions_class_order is null"],
        ),
        (
            |f| describe(f, r#"{"background": 0, "all": [0, 1], "core": 1}"#),
            &["region \"all\" has the value 0"],
        ),
        (
            |f| regions(f, r#"[1, 2], "file_ending": ".dcm""#),
            &["file_ending \".dcm\" and regions"],
        ),
        (
            |f| regions(f, "[2, 1]"),
            &["has 2 for region \"blood\"", "that no later region has"],
        ),
        (
            |f| describe(f, r#"{"background": 0, "blood": 1, "clot": 2}"#),
            &["clot", "in no case"],
        ),
        (
            |f| {
                fs::remove_dir_all(f.join("imagesTr")).unwrap();
                fs::remove_dir_all(f.join("labelsTr")).unwrap();
                fs::create_dir(f.join("imagesTr")).unwrap();
                fs::create_dir(f.join("labelsTr")).unwrap();
            },
            &["no file CASE_0000"],
        ),
    ];
    for (spoil, words) in spoils {
        let folder = tempfile::tempdir().unwrap();
        dataset(folder.path(), 2);
        spoil(folder.path());
        let said = refusal(folder.path());
        for word in words {
            assert!(said.contains(word), "{word:?} not in {said:?}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path(), 2);
    labels(folder.path(), |values| values[3] = f32::NAN);
    assert!(refusal(folder.path()).contains("head_1.nii.gz"));
}

#[test]
fn the_plan_follows_the_cases_and_nnunets_rules() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dataset(folder.path(), 3);
    let raw = RawDataset::open(folder.path()).unwrap();
    let measured = fingerprint(&raw, out.path(), |_, _| {}).unwrap();
    assert_eq!(measured.cases[0].spacing_mm, STEP_MM);
    assert_eq!(measured.cases[0].shape, SIZE);
    // A second look reads no image.
    let mut looks = 0;
    assert_eq!(
        fingerprint(&raw, out.path(), |_, _| looks += 1).unwrap(),
        measured
    );
    assert_eq!(looks, 0);

    let mut large = choice(Shape::Full, Family::PlainConvUNet, 1);
    large.budget = Budget::GPU;
    let whole = plan(&raw, &measured, &large).unwrap();
    // The whole case fits; 12 and 40 are halved as long as 4 voxels stay.
    assert_eq!(whole.configuration.patch_size, [12, 40, 48]);
    assert_eq!(whole.configuration.spacing, STEP_MM);
    assert_eq!(whole.configuration.architecture.divisors(), [2, 8, 8]);
    assert_eq!(whole.provenance, Provenance::Dataset);
    let Normalization::CTNormalization {
        lower_hu,
        upper_hu,
        mean_hu,
        ..
    } = whole.configuration.normalization_schemes[0]
    else {
        panic!("CT is normalised as CT")
    };
    assert!(
        (63.0..66.0).contains(&lower_hu) && (74.0..77.0).contains(&upper_hu) && (mean_hu - 70.0).abs() < 1.0
    );

    let small = plan(
        &raw,
        &measured,
        &choice(Shape::Full, Family::ResidualEncoderUNet, 1),
    )
    .unwrap();
    let voxels = |plan: &Plan| plan.configuration.patch_size.iter().product::<usize>();
    assert!(voxels(&small) < voxels(&whole));
    assert!(matches!(
        small.configuration.architecture,
        Architecture::ResidualEncoderUNet(_)
    ));
    let mut own = choice(Shape::Flat, Family::PlainConvUNet, 1);
    own.patch = Some(vec![30, 30]);
    let flat = plan(&raw, &measured, &own).unwrap();
    assert_eq!(
        (flat.configuration.patch_size, flat.configuration.spacing),
        (vec![32, 32], vec![3.0, 3.0])
    );

    // Behind the encoder of photographs tiles are halved five times, in slices with slabs beside them too.
    let mut seen = choice(Shape::Slabs, Family::EfficientNetUNet, 1);
    let least = plan(&raw, &measured, &seen).unwrap();
    assert_eq!(least.configuration.patch_size, [64, 64]);
    seen.patch = Some(vec![64, 32]);
    let error = plan(&raw, &measured, &seen).unwrap_err().to_string();
    assert!(error.contains("at least 64 voxels"), "{error}");
    seen.patch = None;
    seen.budget = Budget::GPU;
    let slabs = plan(&raw, &measured, &seen).unwrap();
    let configuration = &slabs.configuration;
    assert_eq!(
        (&configuration.patch_size, &configuration.spacing),
        (&vec![64, 64], &vec![3.0, 3.0])
    );
    assert_eq!(configuration.architecture.input_channels(), 3);
    assert!(matches!(configuration.grid, Grid::SourceSlices { slab_mm, .. } if slab_mm == STEP_MM[0]));
    let solid = plan(&raw, &measured, &choice(Shape::Full, Family::EfficientNetUNet, 1));
    let error = solid.unwrap_err().to_string();
    assert!(error.contains("--configuration 2d or 2.5d"), "{error}");
}

/// Trains for a while, and judges every case by the member that did not see it.
fn learnt(shape: Shape, family: Family, steps: usize) -> (f64, tempfile::TempDir) {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dataset(folder.path(), 4);
    let raw = RawDataset::open(folder.path()).unwrap();
    let measured = fingerprint(&raw, out.path(), |_, _| {}).unwrap();
    let plan = plan(&raw, &measured, &choice(shape, family, 2)).unwrap();
    (judged(&raw, plan, None, steps, out.path()), out)
}

/// Trains two members on two folds, and judges them: the mean Dice of the ball.
fn judged(raw: &RawDataset, plan: Plan, from: Option<Start>, steps: usize, out: &Path) -> f64 {
    let patches = prepare(raw, &plan, out, 2, Augmentation::default(), |_, _| {}).unwrap();
    let config = Config {
        plan,
        samples: Arc::new(patches),
        out: out.into(),
        from,
        frozen_steps: 0,
        trunk_steps: 0,
        steps,
        batch: 2,
        seed: 1,
        learning_rate: 1e-2,
        weight_decay: 1e-2,
        checkpoint_every: 1000,
        loss: loss::Kind::default(),
        precision: Precision::F32,
        stop: Arc::default(),
    };
    train(&config, &Device::Cpu, |_| {}).unwrap();
    let judged = validate(raw, out, 2, None, DeviceChoice::Cpu, |_, _| {}).unwrap();
    assert_eq!(judged.cases.len(), 4);
    for (i, case) in judged.cases.iter().enumerate() {
        assert_eq!(case.member, fold_of(i, 4, 2));
    }
    judged.mean_dice["blood"].unwrap()
}

#[test]
fn regions_that_overlap_are_learnt_each_for_itself_and_painted_in_their_order() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dataset(folder.path(), 4);
    for number in 0..4 {
        // What of the ball has blood in the slices above and below and at its sides lies inside.
        let all = case(number).1;
        let image = SIZE[1] * SIZE[2];
        let near = |v: usize| [image, 2 * image, 2 * SIZE[2], 2].map(|step| [v - step, v + step]);
        let is_inside = |v: usize| all[v] == 1 && near(v).as_flattened().iter().all(|v| all[*v] == 1);
        let labels: Vec<u8> = (0..all.len()).map(|v| all[v] + u8::from(is_inside(v))).collect();
        let path = folder.path().join(format!("labelsTr/head_{number}.nii.gz"));
        put(&path, grid(STEP_MM[0]), labels);
    }
    regions(folder.path(), "[1, 2]");
    let raw = RawDataset::open(folder.path()).unwrap();
    let measured = fingerprint(&raw, out.path(), |_, _| {}).unwrap();
    let slabs = choice(Shape::Slabs, Family::PlainConvUNet, 2);
    let said = plan(&raw, &measured, &slabs).unwrap_err().to_string();
    assert!(
        said.contains("regions that overlap; give --configuration 2d"),
        "{said}"
    );
    let said = of_model(&recipe::haemorrhage(1), &raw, &named(1))
        .unwrap_err()
        .to_string();
    assert!(said.contains("names regions that overlap"), "{said}");

    let full = choice(Shape::Full, Family::PlainConvUNet, 2);
    let plan = plan(&raw, &measured, &full).unwrap();
    assert_eq!(plan.activation, Activation::Sigmoid);
    assert_eq!(plan.configuration.architecture.num_classes(), 2);
    assert_eq!(plan.labels.iter().map(|l| l.value).collect::<Vec<_>>(), [1, 2]);
    let name = |raw: &RawDataset| {
        let patches = prepare(raw, &plan, out.path(), 2, Augmentation::default(), |_, _| {});
        patches.unwrap().name()
    };
    // What regions are made of is what is learnt: of others a checkpoint is none.
    let mut other = raw.clone();
    other.regions[1].values = vec![1];
    assert_ne!(name(&raw), name(&other));
    let dice = judged(&raw, plan, None, 100, out.path());
    let text = fs::read(out.path().join("validation.json")).unwrap();
    let judged: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let core = judged["mean_dice"]["core"].as_f64().unwrap();
    assert!(dice > 0.7 && core > 0.5, "{dice} {core}");
}

/// The dataset, with images and labels that lean.
fn leaning_dataset(folder: &Path) -> RawDataset {
    dataset(folder, 4);
    for number in 0..4 {
        let (image, labels) = case(number);
        let at = |name: String| folder.join(name);
        put(
            &at(format!("imagesTr/head_{number}_0000.nii.gz")),
            leaning(),
            image,
        );
        put(&at(format!("labelsTr/head_{number}.nii.gz")), leaning(), labels);
    }
    assert!(refusal(folder).contains("sheared"));
    let mut raw = RawDataset::open(folder).unwrap();
    raw.as_they_lie = true;
    raw
}

/// A small model of the kind that is shipped, which has seen one slab of a phantom.
fn on_slices(out: &Path) -> Bundle {
    let mut plan = recipe::haemorrhage(1);
    plan.configuration.patch_size = vec![96, 96];
    let Architecture::PlainConvUNet(network) = &mut plan.configuration.architecture else {
        panic!("the recipe is a plain U-Net")
    };
    network.features_per_stage = vec![16; 5];
    let config = Config {
        plan,
        samples: Arc::new(HaemorrhageSlabs),
        out: out.into(),
        from: None,
        frozen_steps: 0,
        trunk_steps: 0,
        steps: 1,
        batch: 1,
        seed: 1,
        learning_rate: 1e-3,
        weight_decay: 1e-2,
        checkpoint_every: 1000,
        loss: loss::Kind::default(),
        precision: Precision::F32,
        stop: Arc::default(),
    };
    train(&config, &Device::Cpu, |_| {}).unwrap();
    Bundle::read(out).unwrap()
}

/// Each slice 0.6 mm further to the back than the one below.
fn leaning() -> Geometry {
    let mut grid = grid(STEP_MM[0]);
    for (k, plane) in grid.planes.iter_mut().enumerate() {
        plane.origin_mm[1] += 0.6 * k as f64;
    }
    grid
}

#[test]
fn a_model_that_takes_slices_as_they_lie_is_trained_further_on_stacks_that_lean() {
    let (folder, shipped, out) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let raw = leaning_dataset(folder.path());
    let base = on_slices(shipped.path());
    fingerprint(&raw, out.path(), |_, _| {}).unwrap();
    let plan = of_model(&base.plan, &raw, &named(2)).unwrap();
    assert_eq!(plan.configuration.grid, base.plan.configuration.grid);
    assert_eq!(plan.configuration.architecture.num_classes(), 2);
    assert_eq!(plan.labels[0].kind.scheme, "99ICTUS");
    let dice = judged(&raw, plan, Some(Start::Model(Arc::new(base))), 60, out.path());
    assert!(dice > 0.7, "{dice}");
}

#[test]
fn labels_that_a_model_knows_keep_its_codes_and_what_cannot_be_trained_further_is_said() {
    let folder = tempfile::tempdir().unwrap();
    dataset(folder.path(), 1);
    describe(
        folder.path(),
        r#"{"background": 0, "subdural_haemorrhage": 1, "scar": 2}"#,
    );
    let raw = RawDataset::open(folder.path()).unwrap();
    let base = recipe::haemorrhage(5);
    let plan = of_model(&base, &raw, &named(1)).unwrap();
    let known = base
        .labels
        .iter()
        .find(|l| l.name == "subdural_haemorrhage")
        .unwrap();
    assert_eq!((&plan.labels[0].kind, plan.labels[0].value), (&known.kind, 1));
    assert_eq!(plan.labels[1].kind.scheme, "99ICTUS");
    // Nobody has chosen when the new network flags.
    assert_eq!((plan.labels[0].flag_score, plan.members), (None, 1));

    let refused = |change: fn(&mut Plan)| {
        let mut model = base.clone();
        change(&mut model);
        of_model(&model, &raw, &named(1)).unwrap_err().to_string()
    };
    let said = refused(|model| model.activation = Activation::Sigmoid);
    assert!(said.contains("one label a voxel"), "{said}");
    let said = refused(|model| {
        model.configuration.grid = Grid::Window {
            window_hu: [0.0, 80.0],
        };
    });
    assert!(said.contains("BLAST-CT's rules"), "{said}");
    let text = r#"{"channel_names": {"0": "T1"}, "labels": {"background": 0, "scar": 1}}"#;
    fs::write(folder.path().join("dataset.json"), text).unwrap();
    let raw = RawDataset::open(folder.path()).unwrap();
    let said = of_model(&base, &raw, &named(1)).unwrap_err().to_string();
    assert!(said.contains("it wants CT, dataset.json names T1"), "{said}");
}

#[test]
fn a_bleed_has_its_volume_and_its_density_in_a_box_of_the_head_and_on_slices() {
    // A thin layer is less than half of the box's voxels that it runs through.
    let (rendered, truth_ml) = (12..)
        .map(|seed| Head::new(seed, Kind::Haemorrhage, Range::Training).render(&coarse(60, 3.0)))
        .map(|rendered| {
            let spacing = rendered.truth.geometry.pixel_spacing_mm;
            let bleeds = rendered.truth.data.iter().filter(|t| **t > 0).count();
            (rendered, bleeds as f64 * spacing[0] * spacing[1] * 3.0 / 1000.0)
        })
        .find(|(_, ml)| *ml > 30.0)
        .unwrap();
    let case = Case {
        scan: Scan {
            channels: vec![rendered.hu],
            turn: Turn::DICOM,
        },
        labels: rendered.truth,
        resampled: false,
    };
    for plan in [recipe::haemorrhage_3d(1), recipe::haemorrhage(1)] {
        let laid = lay(&case, &plan).ok().unwrap();
        let Laid {
            channels,
            shape,
            data,
            labels,
            ..
        } = laid;
        let voxels: usize = shape.iter().product();
        assert_eq!((data.len(), labels.len()), (channels * voxels, voxels));
        let step: f64 = plan.configuration.spacing.iter().product();
        let height = if shape.len() == plan.configuration.spacing.len() {
            1.0
        } else {
            3.0
        };
        let found_ml = labels.iter().filter(|l| **l > 0).count() as f64 * step * height / 1000.0;
        assert!(
            (found_ml - truth_ml).abs() < 0.15 * truth_ml,
            "{found_ml} of {truth_ml} mL"
        );
        // The middle channel shows what is labelled.
        let middle = &data[channels / 2 * voxels..][..voxels];
        let mean = |bleeds: bool| {
            let of = middle
                .iter()
                .zip(&labels)
                .filter(|(v, l)| (**l > 0) == bleeds && **v > -1.5);
            let values: Vec<f32> = of.map(|(v, _)| v.min(3.0)).collect();
            values.iter().sum::<f32>() / values.len() as f32
        };
        assert!(mean(true) > mean(false), "{} {}", mean(true), mean(false));
    }
}

#[test]
fn a_network_trained_on_whole_volumes_finds_the_ball_in_heads_that_it_did_not_see() {
    let (dice, out) = learnt(Shape::Full, Family::PlainConvUNet, 40);
    assert!(dice > 0.8, "{dice}");
    let text = fs::read_to_string(out.path().join("validation.json")).unwrap();
    assert!(text.contains("not trained on it"));
    // The whole model as a hospital runs it, on a head that nobody trained on.
    let folder = tempfile::tempdir().unwrap();
    let (image, truth) = case(6);
    put(&folder.path().join("new_0000.nii.gz"), grid(STEP_MM[0]), image);
    let bytes = fs::read(folder.path().join("new_0000.nii.gz")).unwrap();
    let scan = Scan {
        channels: vec![from_nifti(&bytes, Values::Hu).unwrap()],
        turn: Turn {
            slices: nifti::read(&bytes).unwrap().is_reversed(),
            rows: false,
            columns: false,
        },
    };
    let engine = Engine::start(&[Bundle::read(out.path()).unwrap()], DeviceChoice::Cpu).unwrap();
    let model = engine.model("balls").unwrap();
    let mut report = analysis::empty_report(None);
    let series = Uid::derive(&[b"ball"]);
    let look = analysis::look(scan, &engine, model, &series, &Unattended, &mut report).unwrap();
    let found = &look.prediction.labels.data;
    let count = |hit: &dyn Fn(usize) -> bool| (0..truth.len()).filter(|v| hit(*v)).count() as f64;
    let both = count(&|v| found[v] == 1 && truth[v] == 1);
    let dice = 2.0 * both / (count(&|v| found[v] == 1) + count(&|v| truth[v] == 1));
    assert!(dice > 0.8, "{dice}");
    assert!(report.disclaimer.contains("not validated"));
}

#[test]
fn a_network_trained_slice_by_slice_finds_it_too() {
    let (dice, _out) = learnt(Shape::Flat, Family::ResidualEncoderUNet, 60);
    assert!(dice > 0.8, "{dice}");
}

#[test]
fn a_network_of_slices_and_slabs_learns_it_from_stacks_that_lean() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let raw = leaning_dataset(folder.path());
    let measured = fingerprint(&raw, out.path(), |_, _| {}).unwrap();
    let plan = plan(&raw, &measured, &choice(Shape::Slabs, Family::PlainConvUNet, 2)).unwrap();
    let dice = judged(&raw, plan, None, 60, out.path());
    assert!(dice > 0.8, "{dice}");
}

#[test]
fn heads_that_are_labelled_in_part_are_learnt_from_and_judged_where_they_are() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dataset(folder.path(), 4);
    describe(folder.path(), r#"{"background": 0, "blood": 1, "ignore": 2}"#);
    let image = SIZE[1] * SIZE[2];
    for number in 0..4 {
        // Of the slices, every third.
        let mut labels = case(number).1;
        for (k, slice) in labels.chunks_mut(image).enumerate() {
            if k % 3 != 1 {
                slice.fill(2);
            }
        }
        let path = folder.path().join(format!("labelsTr/head_{number}.nii.gz"));
        put(&path, grid(STEP_MM[0]), labels);
    }
    let raw = RawDataset::open(folder.path()).unwrap();
    assert_eq!((raw.regions.len(), &*raw.regions[0].name), (1, "blood"));
    let measured = fingerprint(&raw, out.path(), |_, _| {}).unwrap();
    let mut choice = choice(Shape::Flat, Family::PlainConvUNet, 2);
    choice.patch = Some(vec![32, 32]);
    let plan = plan(&raw, &measured, &choice).unwrap();
    assert_eq!(plan.configuration.architecture.num_classes(), 2);
    let dice = judged(&raw, plan.clone(), None, 60, out.path());
    assert!(dice > 0.8, "{dice}");
    // Patches are drawn where somebody labelled.
    let patches = prepare(&raw, &plan, out.path(), 2, Augmentation::default(), |_, _| {}).unwrap();
    for index in 0..40 {
        let sample = patches.draw(&plan, Part::Trunk, 5, index).unwrap();
        assert!(sample.truth.iter().all(|label| *label < 2), "{index}");
    }
    let about = fs::read_to_string(out.path().join("validation.json")).unwrap();
    assert!(about.contains("Only labelled voxels count"));
    let path = folder.path().join("labelsTr/head_1.nii.gz");
    let mut spoilt = case(1).1;
    spoilt[0] = 255;
    put(&path, grid(STEP_MM[0]), spoilt);
    assert!(refusal(folder.path()).contains("found the label 255, dataset.json names `ignore` as 2"));
    put(&path, grid(STEP_MM[0]), vec![2u8; case(1).1.len()]);
    assert!(refusal(folder.path()).contains("case head_1: no voxel is labelled"));
    put(&path, grid(STEP_MM[0]), case(1).1);
    describe(folder.path(), r#"{"background": 0, "ignore": 1, "blood": 2}"#);
    assert!(refusal(folder.path()).contains("and `ignore` after them"));
    // What may stand for nothing does only where it is named.
    describe(folder.path(), r#"{"background": 0, "blood": 1}"#);
    assert!(refusal(folder.path()).contains("found the label 2"));
}

#[test]
fn patches_are_the_same_for_the_same_index_and_come_from_outside_a_members_fold() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dataset(folder.path(), 4);
    // Each case is a shade of its own.
    for number in 0..4u8 {
        let flat = vec![1.0 + f32::from(number) * 20.0; SIZE.iter().product()];
        let mut image = flat.clone();
        image[..flat.len() / 2].fill(-1000.0);
        let path = format!("imagesTr/head_{number}_0000.nii.gz");
        put(&folder.path().join(path), grid(STEP_MM[0]), image);
    }
    let raw = RawDataset::open(folder.path()).unwrap();
    let measured = fingerprint(&raw, out.path(), |_, _| {}).unwrap();
    let mut plan = plan(&raw, &measured, &choice(Shape::Flat, Family::PlainConvUNet, 2)).unwrap();
    plan.configuration.normalization_schemes[0] = Normalization::NoNormalization;
    let everything = Augmentation {
        spatial: true,
        intensity: true,
        one_scan: false,
        mirror: vec![0, 1],
        randomise: true,
        cutmix: true,
        mixup: true,
    };
    let prepared = |augmentation| prepare(&raw, &plan, out.path(), 2, augmentation, |_, _| {}).unwrap();
    let plain = prepared(Augmentation::default());
    for index in 0..40 {
        let highest = |part| {
            let sample = plain.draw(&plan, part, 5, index).unwrap();
            sample.input.iter().copied().fold(f32::MIN, f32::max)
        };
        let (first, second) = (highest(Part::Member(0)), highest(Part::Member(1)));
        assert!(
            first <= 0.0 || first > 30.0,
            "member 0 does not see cases 0 and 1: {first}"
        );
        assert!(second < 30.0, "member 1 does not see cases 2 and 3: {second}");
    }
    let all = prepared(everything);
    assert_ne!(all.name(), plain.name());
    for index in 0..20 {
        let draw = || all.draw(&plan, Part::Trunk, 5, index).unwrap();
        assert_eq!(draw(), draw());
        assert_eq!(
            draw().truth.len(),
            plan.configuration.patch_size.iter().product::<usize>()
        );
    }
    assert!((0..20).any(|step| all.mixup(5, step).is_some()));
    assert!((0..20).all(|step| plain.mixup(5, step).is_none()));
    // What was prepared for other labels is not taken for these.
    let mut renamed = plan.clone();
    renamed.labels[0].name = "clot".into();
    let other = prepare(&raw, &renamed, out.path(), 2, Augmentation::default(), |_, _| {}).unwrap();
    assert_ne!(other.name(), plain.name());
}

#[test]
fn a_stopped_training_says_so_and_ends_as_if_it_had_not_been() {
    let (folder, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dataset(folder.path(), 2);
    let raw = RawDataset::open(folder.path()).unwrap();
    let measured = fingerprint(&raw, out.path(), |_, _| {}).unwrap();
    let plan = plan(&raw, &measured, &choice(Shape::Flat, Family::PlainConvUNet, 1)).unwrap();
    let everything = Augmentation {
        spatial: true,
        intensity: true,
        one_scan: false,
        mirror: vec![1],
        randomise: false,
        cutmix: true,
        mixup: true,
    };
    let config = |out: &Path| Config {
        plan: plan.clone(),
        samples: Arc::new(prepare(&raw, &plan, out, 1, everything.clone(), |_, _| {}).unwrap()),
        out: out.into(),
        from: None,
        frozen_steps: 0,
        trunk_steps: 0,
        steps: 4,
        batch: 2,
        seed: 1,
        learning_rate: 1e-3,
        weight_decay: 1e-2,
        checkpoint_every: 1000,
        loss: loss::Kind::Focal,
        precision: Precision::F32,
        stop: Arc::default(),
    };
    let whole = tempfile::tempdir().unwrap();
    train(&config(whole.path()), &Device::Cpu, |_| {}).unwrap();
    let stopped = config(out.path());
    stopped.stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = train(&stopped, &Device::Cpu, |_| {}).unwrap_err();
    assert!(matches!(error, TrainError::Stopped { step: 1, .. }), "{error}");
    let mut steps = Vec::new();
    train(&config(out.path()), &Device::Cpu, |p| steps.push(p.done)).unwrap();
    assert_eq!(steps, [2, 3, 4]);
    let weights = |dir: &Path| fs::read(dir.join("weights.safetensors")).unwrap();
    assert_eq!(weights(whole.path()), weights(out.path()));
}
