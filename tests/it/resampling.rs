//! Resampling against nnU-Net's own: `tests/golden/resample`.

use crate::parity::values;
use candle_core::Device;
use ictus::domain::resample::{Method, axis_apart, resample};
use serde::Deserialize;
use std::path::Path;

/// Largest absolute difference from scipy in double precision; values reach about 4.
const TOLERANCE: f32 = 1e-6;

#[derive(Deserialize)]
struct Case {
    name: String,
    shape: [usize; 3],
    new: [usize; 3],
    spacing: [f64; 3],
    new_spacing: [f64; 3],
    order: u8,
    order_z: u8,
    force_separate_z: Option<bool>,
}

#[test]
fn resamples_as_nnunet_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/resample");
    let cases: Vec<Case> =
        serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    let arrays = candle_core::safetensors::load(folder.join("arrays.safetensors"), &Device::Cpu).unwrap();
    assert!(cases.len() >= 12);
    for case in cases {
        let method = Method {
            order: case.order,
            apart: axis_apart(case.force_separate_z, case.spacing, case.new_spacing)
                .map(|axis| (axis, case.order_z)),
        };
        let expected = values(&arrays[&format!("{}.out", case.name)]);
        let found = resample(
            values(&arrays[&format!("{}.in", case.name)]),
            case.shape,
            case.new,
            method,
        );
        assert_eq!(found.len(), expected.len());
        let worst = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        println!("{}: {method:?}, at most {worst:e}", case.name);
        assert!(worst <= TOLERANCE, "{} {worst}", case.name);
    }
}
