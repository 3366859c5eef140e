//! The plan of the model that `ictus train` makes from phantoms: a small 2.5-D U-Net for haemorrhage and its kinds on non-contrast CT.

use super::phantom::Class;
use crate::domain::{
    architecture::{Architecture, PlainConvUNet},
    code::{
        CEREBRAL_HEMORRHAGE, EPIDURAL_HEMORRHAGE, INFARCT, INTRAVENTRICULAR_HEMORRHAGE,
        MORPHOLOGICALLY_ABNORMAL_STRUCTURE, SUBARACHNOID_HEMORRHAGE, SUBDURAL_HEMORRHAGE, THROMBUS,
    },
    plan::{
        Activation, Configuration, Contrast, Ensemble, Golden, Grid, Label, Normalization, Plan, Provenance,
        SCHEMA, Trigger,
    },
};

/// Height of the slabs that the network sees, mm: the usual thick slice.
const SLAB_MM: f64 = 5.0;

/// The plan, with as many members as asked for.
#[must_use]
pub fn haemorrhage(members: usize) -> Plan {
    let features_per_stage = vec![16, 32, 64, 128, 160];
    let n_stages = features_per_stage.len();
    let scheme = Normalization::CTNormalization {
        lower_hu: -40.0,
        upper_hu: 140.0,
        mean_hu: 35.0,
        std_hu: 35.0,
    };
    let names = ["slab below", "slice", "slab above"];
    Plan {
        schema: SCHEMA,
        id: "haemorrhage-phantom".into(),
        version: "0.3.0".into(),
        question: "haemorrhage".into(),
        configuration: Configuration {
            grid: Grid::SourceSlices {
                slab_mm: SLAB_MM,
                neighbours: 1,
            },
            channel_names: names.map(String::from).into(),
            // A head of 22 × 18 cm fits one tile.
            patch_size: vec![192, 160],
            spacing: vec![1.2, 1.2],
            normalization_schemes: vec![scheme; names.len()],
            tile_step_size: 0.5,
            architecture: Architecture::PlainConvUNet(PlainConvUNet {
                input_channels: names.len(),
                n_stages,
                kernel_sizes: vec![vec![3, 3]; n_stages],
                strides: (0..n_stages)
                    .map(|s| vec![if s == 0 { 1 } else { 2 }; 2])
                    .collect(),
                n_conv_per_stage: vec![2; n_stages],
                n_conv_per_stage_decoder: vec![1; n_stages - 1],
                features_per_stage,
                num_classes: 1 + Class::BLEEDS.len(),
                conv_bias: true,
                deep_supervision: false,
            }),
        },
        members,
        ensemble: Ensemble::MeanProbabilities,
        activation: Activation::Softmax,
        labels: Class::BLEEDS.map(label).into(),
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

fn label(class: Class) -> Label {
    let kind = match class {
        Class::Intraparenchymal => CEREBRAL_HEMORRHAGE,
        Class::Intraventricular => INTRAVENTRICULAR_HEMORRHAGE,
        Class::Subarachnoid => SUBARACHNOID_HEMORRHAGE,
        Class::Subdural => SUBDURAL_HEMORRHAGE,
        Class::Epidural => EPIDURAL_HEMORRHAGE,
        Class::Infarct => INFARCT,
        Class::Thrombus => THROMBUS,
    };
    Label {
        value: class as u8,
        name: format!("{}_haemorrhage", class.name()),
        category: MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        kind,
        side_aware: true,
        min_volume_ml: 1.0,
        threshold: 0.5,
        min_peak_score: 0.9,
        flag_score: Some([0.6, 0.95]),
        site: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_agrees_with_itself() {
        haemorrhage(5).check().unwrap();
    }
}
