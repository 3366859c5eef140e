//! The plan of the model that `ictus train` makes from phantoms: a small 2-D U-Net for haemorrhage on non-contrast CT.

use crate::domain::{
    architecture::{Architecture, PlainConvUNet},
    code::{HEMORRHAGE, MORPHOLOGICALLY_ABNORMAL_STRUCTURE},
    plan::{
        Activation, Configuration, Contrast, Ensemble, Golden, Grid, Label, Normalization, Plan, Provenance,
        SCHEMA, Trigger,
    },
};

/// The plan, with as many members as asked for.
#[must_use]
pub fn haemorrhage_2d(members: usize) -> Plan {
    let features_per_stage = vec![16, 32, 64, 96, 128];
    let n_stages = features_per_stage.len();
    Plan {
        schema: SCHEMA,
        id: "haemorrhage-2d-phantom".into(),
        version: "0.2.0".into(),
        question: "haemorrhage".into(),
        configuration: Configuration {
            grid: Grid::SourceSlices,
            channel_names: Vec::new(),
            // A head of 21 × 18 cm fits one tile; 2.6 GFLOP a tile and member.
            patch_size: vec![224, 192],
            spacing: vec![1.0, 1.0],
            normalization_schemes: vec![Normalization::CTNormalization {
                lower_hu: -40.0,
                upper_hu: 140.0,
                mean_hu: 35.0,
                std_hu: 35.0,
            }],
            tile_step_size: 0.5,
            architecture: Architecture::PlainConvUNet(PlainConvUNet {
                input_channels: 1,
                n_stages,
                kernel_sizes: vec![vec![3, 3]; n_stages],
                strides: (0..n_stages)
                    .map(|s| vec![if s == 0 { 1 } else { 2 }; 2])
                    .collect(),
                n_conv_per_stage: vec![2; n_stages],
                n_conv_per_stage_decoder: vec![1; n_stages - 1],
                features_per_stage,
                num_classes: 2,
                conv_bias: true,
                deep_supervision: false,
            }),
        },
        members,
        ensemble: Ensemble::MeanProbabilities,
        activation: Activation::Softmax,
        labels: vec![Label {
            value: 1,
            name: "haemorrhage".into(),
            category: MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
            kind: HEMORRHAGE,
            side_aware: true,
            min_volume_ml: 1.0,
            threshold: 0.5,
            min_peak_score: 0.9,
            // On phantoms of the evaluation ranges (seeds 800000 to 800029), not on patients.
            flag_score: Some([0.6, 0.95]),
        }],
        keep_largest: Vec::new(),
        trigger: Trigger {
            modality: "CT".into(),
            contrast: Contrast::Without,
            thickness_mm: [0.4, 8.0],
            body_part: "HEAD".into(),
        },
        mirror_axes: vec![],
        provenance: Provenance::SyntheticPhantoms,
        calibration: None,
        golden: Golden {
            tolerance: [("f32".to_owned(), 1e-4)].into(),
        },
    }
}
