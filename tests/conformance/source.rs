//! Source series, findings and maps made in code: what the encoders get when there is no patient.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "test input: sizes are a few hundred pixels"
)]

use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, FileMetaTableBuilder, InMemDicomObject};
use ictus::{
    analysis::encode::{EncodeInput, Maps, Stamp},
    dicom::{attribute::Attributes, instance::Instance},
    domain::{
        aspects::{Aspects, Extent, Region, SideReading},
        code,
        finding::{
            Answer, AnswerValue, DISCLAIMER, Finding, ModelRun, Refusal, Report, SeriesAspects,
            SeriesMidline, Side,
        },
        geometry::{Vec3, add, cross, scale},
        midsagittal::MidlineShift,
        plan::Plan,
        prediction::Prediction,
        uid::Uid,
        volume::{Geometry, SlicePlane, Volume},
    },
};
use std::collections::BTreeMap;

/// Everything that [`EncodeInput`] borrows.
pub(crate) struct Case {
    pub(crate) instances: Vec<Instance>,
    pub(crate) ct: Volume<f32>,
    pub(crate) prediction: Prediction,
    pub(crate) segments: Volume<u16>,
    pub(crate) brain: Volume<bool>,
    pub(crate) report: Report,
    pub(crate) plan: Plan,
    pub(crate) stamp: Stamp,
    pub(crate) maps: Maps,
}

impl Case {
    /// Encodes, with borrowed instances.
    pub(crate) fn encode(&self) -> Result<Vec<DefaultDicomObject>, ictus::analysis::encode::EncodeError> {
        let source: Vec<&Instance> = self.instances.iter().collect();
        ictus::analysis::encode::encode(&self.input(&source, &self.stamp))
    }

    /// What is encoded, under another stamp than its own.
    pub(crate) fn input<'a>(&'a self, source: &'a [&'a Instance], stamp: &'a Stamp) -> EncodeInput<'a> {
        EncodeInput {
            source,
            ct: Some(&self.ct),
            prediction: &self.prediction,
            segments: &self.segments,
            brain: &self.brain,
            report: &self.report,
            plan: &self.plan,
            stamp,
            maps: &self.maps,
            predecessor: None,
        }
    }
}

/// A stack of `slices` slices; `tilt_degrees` tilts the gantry about x, `steps_mm` repeat.
pub(crate) fn geometry(
    rows: usize,
    columns: usize,
    slices: usize,
    tilt_degrees: f64,
    steps_mm: &[f64],
) -> Geometry {
    let tilt = tilt_degrees.to_radians();
    let row_direction = [1.0, 0.0, 0.0];
    let column_direction: Vec3 = [0.0, tilt.cos(), -tilt.sin()];
    let corner = [-100.0, -110.0, -40.0];
    let mut z = 0.0;
    let planes = (0..slices)
        .map(|slice| {
            let step_mm = steps_mm[slice % steps_mm.len()];
            let plane = SlicePlane {
                origin_mm: add(corner, [0.0, 0.0, z]),
                thickness_mm: step_mm,
            };
            z += step_mm;
            plane
        })
        .collect();
    // A table moves along z whatever the gantry does: the origins are sheared against the tilted normal.
    assert!(cross(row_direction, column_direction)[2] > 0.0);
    Geometry {
        rows,
        columns,
        row_direction,
        column_direction,
        pixel_spacing_mm: [220.0 / rows as f64, 200.0 / columns as f64],
        planes,
    }
}

/// A head of air, skull, brain and lesions, one ellipsoid each: (centre, radii) in shares of the stack.
pub(crate) fn case(geometry: &Geometry, lesions: &[(Vec3, Vec3)]) -> Case {
    let (mut hu, mut brain, mut segments, mut entropy) = (vec![], vec![], vec![], vec![]);
    let slices = geometry.slices() as f64;
    for slice in 0..geometry.slices() {
        for row in 0..geometry.rows {
            for column in 0..geometry.columns {
                let at = [
                    (slice as f64 + 0.5) / slices,
                    (row as f64 + 0.5) / geometry.rows as f64,
                    (column as f64 + 0.5) / geometry.columns as f64,
                ];
                let within = |(center, radii): (Vec3, Vec3)| {
                    (0..3)
                        .map(|i| ((at[i] - center[i]) / radii[i]).powi(2))
                        .sum::<f64>()
                };
                let head = within(([0.5, 0.5, 0.5], [0.52, 0.44, 0.40]));
                let inside = within(([0.5, 0.5, 0.5], [0.42, 0.38, 0.34])) < 1.0;
                let lesion = lesions.iter().rposition(|lesion| within(*lesion) < 1.0);
                // Noise without a generator: the low bits of a product.
                let noise = (slice * 7919 + row * 104_729 + column * 1_299_709) % 97;
                let noise = noise as f32 / 97.0;
                hu.push(match (lesion, inside) {
                    (Some(_), _) => 65,
                    (None, true) => 30,
                    (None, false) if head < 1.0 => 900,
                    (None, false) => -1000,
                });
                brain.push(inside);
                segments.push(lesion.map_or(0, |lesion| u16::try_from(lesion + 1).unwrap()));
                let edge = lesions
                    .iter()
                    .map(|l| (within(*l) - 1.0).abs())
                    .fold(f64::MAX, f64::min);
                let near = (1.0 - edge).clamp(0.0, 1.0) as f32;
                entropy.push(if inside {
                    (near * 0.9 + noise * 0.02).min(1.0)
                } else {
                    0.0
                });
            }
        }
    }
    // Both ends of the range are there to be checked.
    let middle = geometry.slice_len() * (geometry.slices() / 2);
    entropy[middle] = 1.0;
    entropy[middle - 1] = 0.0;
    let plan = plan();
    let series = uid("source.series", 0);
    let findings = (0..lesions.len())
        .map(|lesion| finding(geometry, &segments, lesion, &series, &plan))
        .collect();
    let volume = |data: Vec<f32>| Volume {
        geometry: geometry.clone(),
        data,
    };
    let mutual_information = entropy.iter().map(|value| value * 0.4).collect();
    let variance = entropy.iter().map(|value| value * value * 0.25).collect();
    Case {
        instances: instances(geometry, &hu),
        ct: volume(hu.iter().map(|value| *value as f32).collect()),
        prediction: Prediction {
            labels: Volume {
                geometry: geometry.clone(),
                data: segments.iter().map(|s| u8::from(*s > 0)).collect(),
            },
            score: volume(segments.iter().map(|s| if *s > 0 { 0.9 } else { 0.01 }).collect()),
            entropy: volume(entropy),
            mutual_information: volume(mutual_information),
            variance: volume(variance),
            structures: None,
            disagreement: 0.12,
        },
        segments: Volume {
            geometry: geometry.clone(),
            data: segments,
        },
        brain: Volume {
            geometry: geometry.clone(),
            data: brain,
        },
        report: report(findings, &plan),
        plan,
        stamp: Stamp {
            analysis_key: [7; 32],
            created_at: time::macros::datetime!(2026-03-04 05:06:07.089 UTC),
        },
        maps: Maps::default(),
    }
}

fn finding(geometry: &Geometry, segments: &[u16], lesion: usize, series: &Uid, plan: &Plan) -> Finding {
    let segment = u16::try_from(lesion + 1).unwrap();
    let (mut volume_ml, mut center_mm, mut count) = (0.0, [0.0; 3], 0.0);
    for (index, _) in segments
        .iter()
        .enumerate()
        .filter(|(_, voxel)| **voxel == segment)
    {
        let (slice, rest) = (index / geometry.slice_len(), index % geometry.slice_len());
        let (row, column) = ((rest / geometry.columns) as f64, (rest % geometry.columns) as f64);
        volume_ml += geometry.voxel_volume_ml(slice);
        center_mm = add(center_mm, geometry.voxel_to_lps(slice, row, column));
        count += 1.0;
    }
    assert!(count > 0.0, "lesion {lesion} has no voxel on this grid");
    Finding {
        id: format!("haemorrhage-{segment}"),
        kind: "haemorrhage".into(),
        code: code::HEMORRHAGE,
        model: plan.id.clone(),
        series: series.clone(),
        segment,
        volume_ml,
        abc2_ml: None,
        volume_interval_ml: None,
        center_mm: scale(center_mm, 1.0 / count),
        bounding_box_mm: [[0.0; 3]; 2],
        side: if lesion.is_multiple_of(2) {
            Side::Left
        } else {
            Side::Unknown
        },
        site: None,
        score: 0.9,
        probability: None,
        uncertainty: 0.31,
        key_slice: 0,
    }
}

fn report(findings: Vec<Finding>, plan: &Plan) -> Report {
    Report {
        schema: ictus::domain::finding::SCHEMA,
        disclaimer: DISCLAIMER.into(),
        study_instance_uid: Some(uid("source.study", 0)),
        series: vec![],
        models: vec![ModelRun {
            id: plan.id.clone(),
            version: plan.version.clone(),
            weights_sha256: "0f".repeat(32),
            numeric_mode: "cpu-avx2-f32".into(),
            duration_ms: 1,
            calibration: None,
        }],
        answers: vec![Answer {
            question: plan.question.clone(),
            model: Some(plan.id.clone()),
            answer: if findings.is_empty() {
                AnswerValue::Absent
            } else {
                AnswerValue::Present
            },
            score: Some(if findings.is_empty() { 0.03 } else { 0.97 }),
            probability: None,
            uncertainty: Some(0.12),
            lane: None,
        }],
        findings,
        midline_shift: Some(SeriesMidline {
            series: uid("source.series", 0),
            shift: MidlineShift {
                left_mm: -4.2,
                interval_mm: [-6.4, -2.6],
            },
        }),
        aspects: Some(SeriesAspects {
            series: uid("source.series", 0),
            model: plan.id.clone(),
            aspects: Aspects {
                left: Some(aspects()),
                right: None,
            },
        }),
        refusals: vec![Refusal {
            code: "no_model".into(),
            text: "no model answers infarct: import one".into(),
        }],
        warnings: vec![Refusal {
            code: "uneven_spacing".into(),
            text: "steps from 4 to 7 mm".into(),
        }],
        timings: BTreeMap::new(),
    }
}

/// ASPECTS of 8, or 7 to 9: the insula and M5 are affected.
fn aspects() -> SideReading {
    let mut extents = [Extent {
        volume_ml: 10.0,
        affected_ml: [0.0; 3],
    }; 10];
    extents[Region::Insula as usize].affected_ml = [5.0; 3];
    extents[Region::M5 as usize].affected_ml = [0.0, 5.0, 5.0];
    extents[Region::M6 as usize].affected_ml = [0.0, 0.0, 5.0];
    SideReading::of(&extents).unwrap()
}

fn plan() -> Plan {
    serde_json::from_value(serde_json::json!({
        "schema": 1, "id": "phantom-bleed", "version": "1.0.0", "question": "haemorrhage",
        "configuration": {
            "patch_size": [256, 256], "spacing": [1.0, 1.0], "tile_step_size": 0.5,
            "normalization_schemes": [{"scheme": "CTNormalization",
                "lower_hu": -20.0, "upper_hu": 120.0, "mean_hu": 35.0, "std_hu": 20.0}],
            "architecture": {"network_class_name": "PlainConvUNet", "input_channels": 1, "n_stages": 2, "features_per_stage": [8, 16],
                "kernel_sizes": [[3, 3], [3, 3]], "strides": [[1, 1], [2, 2]],
                "n_conv_per_stage": [2, 2], "n_conv_per_stage_decoder": [2], "num_classes": 2}},
        "members": 3, "ensemble": "mean_probabilities",
        "labels": [{"value": 1, "name": "haemorrhage",
            "category": {"value": "49755003", "scheme": "SCT", "meaning": "Morphologically Abnormal Structure"},
            "type": {"value": "50960005", "scheme": "SCT", "meaning": "Hemorrhage"},
            "side_aware": true, "min_volume_ml": 0.1, "threshold": 0.5, "min_peak_score": 0.6,
            "flag_score": [0.4, 0.7]}],
        "trigger": {"modality": "CT", "contrast": "without", "thickness_mm": [0.4, 10.0], "body_part": "HEAD"},
        "mirror_axes": [], "calibration": null, "golden": {"tolerance": {"f32": 1e-4}}
    }))
    .unwrap()
}

/// A UID of this made-up source.
pub(crate) fn uid(what: &str, index: usize) -> Uid {
    Uid::derive(&[b"ictus test source", what.as_bytes(), &index.to_be_bytes()])
}

fn instances(geometry: &Geometry, hu: &[i16]) -> Vec<Instance> {
    let decimals = |values: &[f64]| {
        values
            .iter()
            .map(|v| format!("{v:.6}"))
            .collect::<Vec<_>>()
            .join("\\")
    };
    (0..geometry.slices())
        .map(|slice| {
            let instance_uid = uid("source.instance", slice);
            let mut object = InMemDicomObject::new_empty();
            let mut text = |tag, vr, value: &str| {
                object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
            };
            text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100");
            text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL");
            text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE);
            text(tags::SOP_INSTANCE_UID, VR::UI, instance_uid.as_str());
            text(tags::STUDY_DATE, VR::DA, "20260304");
            text(tags::SERIES_DATE, VR::DA, "20260304");
            text(tags::CONTENT_DATE, VR::DA, "20260304");
            text(tags::STUDY_TIME, VR::TM, "040000");
            text(tags::CONTENT_TIME, VR::TM, "040101");
            text(tags::ACCESSION_NUMBER, VR::SH, "A-1");
            text(tags::MODALITY, VR::CS, "CT");
            text(tags::MANUFACTURER, VR::LO, "Phantom works");
            text(tags::INSTITUTION_NAME, VR::LO, "Nowhere General");
            text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, "");
            text(tags::PATIENT_NAME, VR::PN, "Doe^Phantom");
            text(tags::PATIENT_ID, VR::LO, "PHANTOM-1");
            text(tags::PATIENT_BIRTH_DATE, VR::DA, "");
            text(tags::PATIENT_SEX, VR::CS, "O");
            text(tags::BODY_PART_EXAMINED, VR::CS, "HEAD");
            text(tags::KVP, VR::DS, "120");
            text(
                tags::SLICE_THICKNESS,
                VR::DS,
                &decimals(&[geometry.planes[slice].thickness_mm]),
            );
            text(tags::PATIENT_POSITION, VR::CS, "HFS");
            text(tags::STUDY_INSTANCE_UID, VR::UI, uid("source.study", 0).as_str());
            text(
                tags::SERIES_INSTANCE_UID,
                VR::UI,
                uid("source.series", 0).as_str(),
            );
            text(tags::STUDY_ID, VR::SH, "1");
            text(tags::SERIES_NUMBER, VR::IS, "2");
            text(tags::ACQUISITION_NUMBER, VR::IS, "1");
            text(tags::INSTANCE_NUMBER, VR::IS, &(slice + 1).to_string());
            text(
                tags::IMAGE_POSITION_PATIENT,
                VR::DS,
                &decimals(&geometry.planes[slice].origin_mm),
            );
            text(
                tags::IMAGE_ORIENTATION_PATIENT,
                VR::DS,
                &decimals(&[geometry.row_direction, geometry.column_direction].concat()),
            );
            text(
                tags::FRAME_OF_REFERENCE_UID,
                VR::UI,
                uid("source.frame", 0).as_str(),
            );
            text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, "");
            text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
            text(tags::PIXEL_SPACING, VR::DS, &decimals(&geometry.pixel_spacing_mm));
            text(tags::RESCALE_INTERCEPT, VR::DS, "0");
            text(tags::RESCALE_SLOPE, VR::DS, "1");
            text(tags::RESCALE_TYPE, VR::LO, "HU");
            for (tag, value) in [
                (tags::SAMPLES_PER_PIXEL, 1),
                (tags::ROWS, geometry.rows),
                (tags::COLUMNS, geometry.columns),
                (tags::BITS_ALLOCATED, 16),
                (tags::BITS_STORED, 16),
                (tags::HIGH_BIT, 15),
                (tags::PIXEL_REPRESENTATION, 1),
            ] {
                let value = PrimitiveValue::from(u16::try_from(value).unwrap());
                object.put(DataElement::new(tag, VR::US, value));
            }
            let len = geometry.slice_len();
            let pixels = hu[slice * len..(slice + 1) * len]
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<u8>>();
            object.put(DataElement::new(
                tags::PIXEL_DATA,
                VR::OW,
                PrimitiveValue::from(pixels),
            ));
            let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
            Instance {
                object: object.with_meta(meta).unwrap(),
                attributes: Attributes::default(),
            }
        })
        .collect()
}
