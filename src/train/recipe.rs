//! The plans of the models that `ictus train` makes from phantoms: small 2.5-D U-Nets for haemorrhage and its kinds and for infarcts on non-contrast CT, and small 3-D ones for haemorrhage and for closed arteries.

use super::{
    phantom::{Class, Site},
    volumes::{TAUGHT, TAUGHT_DENSE},
};
use crate::domain::{
    architecture::{Architecture, PlainConvUNet},
    artery::Artery,
    aspects::Region,
    code::{
        ARTERIAL_OCCLUSION, BASILAR_ARTERY, CAROTID_TERMINUS, CEREBRAL_HEMORRHAGE, Code, EPIDURAL_HEMORRHAGE,
        INFARCT, INTRAVENTRICULAR_HEMORRHAGE, MIDDLE_CEREBRAL_M1, MIDDLE_CEREBRAL_M2,
        MORPHOLOGICALLY_ABNORMAL_STRUCTURE, SUBARACHNOID_HEMORRHAGE, SUBDURAL_HEMORRHAGE, THROMBUS,
    },
    plan::{
        Activation, Configuration, Contrast, Ensemble, Golden, Grid, Label, Normalization, Plan, Precision,
        Provenance, SCHEMA, Structure, Trigger,
    },
};

/// Height of the slabs that the network sees, mm: the usual thick slice.
const SLAB_MM: f64 = 5.0;

/// Density of the brain from and to which the models are asked, HU: phantoms of the training ranges have 23 to 39 in the median, those of the evaluation ranges 21 to 41, a real head 31.
const BRAIN_HU: [f64; 2] = [12.0, 48.0];
/// Noise up to which the models for plain heads are asked, as slices of 5 mm have it, HU: they are judged up to 8, a real head has 3.
const PLAIN_NOISE_HU: f64 = 10.0;
/// The same for CT angiography: judged in slices of 0.8 to 1.5 mm with noise up to 20.
const ANGIO_NOISE_HU: f64 = 12.0;

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
        version: "0.4.0".into(),
        question: "haemorrhage".into(),
        configuration: Configuration {
            grid: Grid::SourceSlices {
                slab_mm: SLAB_MM,
                neighbours: 1,
                mirrored: false,
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
        structures: Vec::new(),
        keep_largest: Vec::new(),
        trigger: Trigger {
            modality: "CT".into(),
            contrast: Contrast::Without,
            thickness_mm: [0.4, 8.0],
            body_part: "HEAD".into(),
            only_named: false,
            brain_hu: Some(BRAIN_HU),
            noise_hu: Some(PLAIN_NOISE_HU),
        },
        stages: Vec::new(),
        mirror_axes: vec![],
        provenance: Provenance::SyntheticPhantoms,
        precision: Precision::F32,
        calibration: None,
        golden: Golden {
            tolerance: [("f32".to_owned(), 1e-4)].into(),
        },
    }
}

/// The plan for haemorrhage and its kinds that sees the whole head at once, with as many members as asked for.
#[must_use]
pub fn haemorrhage_3d(members: usize) -> Plan {
    let mut plan = haemorrhage(members);
    plan.id = "haemorrhage-3d-phantom".into();
    plan.version = "0.1.0".into();
    // Its answer stands beside the first model's and is never taken for it.
    plan.question = "haemorrhage_second_opinion".into();
    plan.trigger.only_named = true;
    for label in &mut plan.labels {
        label.flag_score = Some([0.3, 0.9]);
    }
    let configuration = &mut plan.configuration;
    // 160 × 216 × 192 mm: the cavity of the largest head, and where the spine begins.
    configuration.grid = Grid::HeadBox {
        centre_mm: [0.0, -4.0, -12.0],
    };
    configuration.channel_names = vec!["CT".into()];
    configuration.patch_size = vec![32, 144, 128];
    configuration.spacing = vec![SLAB_MM, 1.5, 1.5];
    configuration.normalization_schemes.truncate(1);
    // The network of the slices, inflated: slice by slice where a voxel is much higher than wide.
    if let Architecture::PlainConvUNet(network) = &mut configuration.architecture {
        network.input_channels = 1;
        for (s, kernel) in network.kernel_sizes.iter_mut().enumerate() {
            kernel.insert(0, if s < 2 { 1 } else { 3 });
        }
        let last = network.n_stages - 1;
        for (s, stride) in network.strides.iter_mut().enumerate() {
            stride.insert(0, if s < last { 1 } else { 2 });
        }
    }
    plan
}

/// The plan for fresh infarcts on non-contrast CT and the regions of ASPECTS, with as many members as asked for.
#[must_use]
pub fn infarct(members: usize) -> Plan {
    let mut plan = haemorrhage(members);
    plan.id = "infarct-phantom".into();
    plan.version = "0.2.0".into();
    plan.question = "infarct".into();
    // Not good enough to be asked of every head.
    plan.trigger.only_named = true;
    let names = ["slab below", "slice", "slab above", "slice mirrored"];
    // A few HU decide, and what the other side looks like: grey against white matter, not blood against bone.
    let scheme = Normalization::CTNormalization {
        lower_hu: -5.0,
        upper_hu: 75.0,
        mean_hu: 30.0,
        std_hu: 14.0,
    };
    let configuration = &mut plan.configuration;
    configuration.grid = Grid::SourceSlices {
        slab_mm: SLAB_MM,
        neighbours: 1,
        mirrored: true,
    };
    configuration.channel_names = names.map(String::from).into();
    configuration.normalization_schemes = vec![scheme; names.len()];
    if let Architecture::PlainConvUNet(network) = &mut configuration.architecture {
        network.input_channels = names.len();
        network.num_classes = 3 + Region::ALL.len();
    }
    plan.structures = Region::ALL
        .map(|region| structure(region.name(), region.code()))
        .into();
    plan.labels = vec![Label {
        value: 1,
        min_volume_ml: 3.0,
        threshold: 0.5,
        min_peak_score: 0.7,
        mean_hu: None,
        flag_score: Some([0.4, 0.8]),
        ..label(Class::Infarct)
    }];
    plan
}

/// The plan of the detector of closed arteries, with as many members as asked for.
///
/// Each label is a ball of [`super::volumes::BALL_MM`] around the beginning of a clot: what is looked for is where the lumen ends, and in which artery.
#[must_use]
pub fn occlusion(members: usize) -> Plan {
    let features_per_stage = vec![16, 32, 64, 96];
    let n_stages = features_per_stage.len();
    Plan {
        id: "occlusion-phantom".into(),
        version: "0.3.0".into(),
        question: "occlusion".into(),
        configuration: Configuration {
            // The circle of Willis lies below and in front of the middle of the cavity.
            grid: Grid::HeadBox {
                centre_mm: [0.0, -8.0, -42.0],
            },
            channel_names: vec!["CT angiography".into()],
            patch_size: vec![64, 56, 64],
            spacing: vec![1.75; 3],
            normalization_schemes: vec![Normalization::CTNormalization {
                lower_hu: -20.0,
                upper_hu: 450.0,
                mean_hu: 90.0,
                std_hu: 120.0,
            }],
            tile_step_size: 0.5,
            architecture: Architecture::PlainConvUNet(PlainConvUNet {
                input_channels: 1,
                n_stages,
                kernel_sizes: vec![vec![3, 3, 3]; n_stages],
                strides: (0..n_stages)
                    .map(|s| vec![if s == 0 { 1 } else { 2 }; 3])
                    .collect(),
                n_conv_per_stage: [1, 2, 2, 2].into(),
                n_conv_per_stage_decoder: vec![1; n_stages - 1],
                features_per_stage,
                num_classes: 2 + TAUGHT.len() + Artery::ALL.len(),
                conv_bias: true,
                deep_supervision: false,
            }),
        },
        labels: (1..)
            .zip(TAUGHT)
            .map(|(value, site)| closed(value, site))
            .collect(),
        structures: Artery::ALL
            .map(|artery| structure(artery.name(), artery.code()))
            .into(),
        trigger: Trigger {
            modality: "CT".into(),
            contrast: Contrast::With,
            thickness_mm: [0.2, 2.5],
            body_part: "HEAD".into(),
            only_named: false,
            brain_hu: Some(BRAIN_HU),
            noise_hu: Some(ANGIO_NOISE_HU),
        },
        ..haemorrhage(members)
    }
}

/// The plan of the detector of clots that are denser than blood without contrast agent, with as many members as asked for.
#[must_use]
pub fn hyperdense(members: usize) -> Plan {
    let mut plan = occlusion(members);
    plan.id = "hyperdense-phantom".into();
    plan.version = "0.1.0".into();
    plan.question = "hyperdense_artery".into();
    plan.structures.clear();
    let configuration = &mut plan.configuration;
    // The ICA's end and M1 lie closer together than all that is looked for with contrast agent, and a few HU in 3 mm need finer voxels.
    configuration.grid = Grid::HeadBox {
        centre_mm: [0.0, -16.0, -34.0],
    };
    configuration.patch_size = vec![56, 56, 72];
    configuration.spacing = vec![1.5; 3];
    configuration.channel_names = vec!["CT".into()];
    configuration.normalization_schemes = vec![Normalization::CTNormalization {
        lower_hu: -20.0,
        upper_hu: 120.0,
        mean_hu: 38.0,
        std_hu: 22.0,
    }];
    if let Architecture::PlainConvUNet(network) = &mut configuration.architecture {
        network.num_classes = 1 + TAUGHT_DENSE.len();
    }
    plan.labels = (1..)
        .zip(TAUGHT_DENSE)
        .map(|(value, site)| Label {
            name: format!("{}_hyperdense", site.name()),
            kind: THROMBUS,
            // Chosen on phantoms (the card says which): noise keeps a network that cross-entropy taught from being sure of any voxel.
            threshold: 0.2,
            min_peak_score: 0.25,
            flag_score: Some([0.2, 0.6]),
            ..closed(value, site)
        })
        .collect();
    plan.trigger.contrast = Contrast::Without;
    plan.trigger.noise_hu = Some(PLAIN_NOISE_HU);
    plan.trigger.only_named = true;
    plan
}

fn structure(name: &str, code: Code) -> Structure {
    Structure {
        name: name.into(),
        code,
    }
}

fn closed(value: u8, site: Site) -> Label {
    let artery = match site {
        Site::IcaTerminus => CAROTID_TERMINUS,
        Site::M1 => MIDDLE_CEREBRAL_M1,
        Site::M2 => MIDDLE_CEREBRAL_M2,
        Site::Basilar => BASILAR_ARTERY,
    };
    Label {
        value,
        name: format!("{}_occlusion", site.name()),
        category: MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        kind: ARTERIAL_OCCLUSION,
        // The basilar artery is one for both sides.
        side_aware: site != Site::Basilar,
        // A third of the ball that is taught.
        min_volume_ml: 0.15,
        threshold: 0.0,
        min_peak_score: 0.5,
        mean_hu: None,
        flag_score: Some([0.3, 0.6]),
        site: Some(artery),
    }
}

/// The name of a class's label.
#[must_use]
pub fn name(class: Class) -> String {
    match class {
        Class::Infarct | Class::Thrombus => class.name().into(),
        _ => format!("{}_haemorrhage", class.name()),
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
        name: name(class),
        category: MORPHOLOGICALLY_ABNORMAL_STRUCTURE,
        kind,
        side_aware: true,
        min_volume_ml: 1.0,
        // Chosen on phantoms (the card says which) for networks that cross-entropy taught: their scores are graded.
        threshold: 0.4,
        min_peak_score: 0.75,
        // Fresh blood has 50 to 100 HU, at its blurred edge less; a film of it along bone has the bone's blur in it.
        mean_hu: match class {
            Class::Subdural | Class::Epidural => None,
            _ => Some([25.0, 110.0]),
        },
        flag_score: Some([0.3, 0.94]),
        site: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plans_agree_with_themselves() {
        haemorrhage(5).check().unwrap();
        haemorrhage_3d(3).check().unwrap();
        occlusion(3).check().unwrap();
        infarct(3).check().unwrap();
        hyperdense(3).check().unwrap();
    }
}
