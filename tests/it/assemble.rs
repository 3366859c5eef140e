//! Assemble on series made in code: what is accepted, in which order, and what is refused with which code.

use crate::series::{SIZE, Series, centre_hu, part10, plane_hu, set, trigger, words};
use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value, value::PixelFragmentSequence};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use ictus::{
    analysis::assemble::{AssembleError, Assembled, Values, assemble, from_nifti},
    dicom::instance::Instance,
    domain::{failure::FailureClass, finding::Refusal, plan::Contrast},
};

fn centre(assembled: &Assembled, slice: usize) -> f32 {
    let middle = usize::from(SIZE) / 2;
    assembled.volume.slice(slice)[middle * usize::from(SIZE) + middle]
}

fn accepted(instances: &[Instance]) -> Assembled {
    assemble(instances, &trigger()).unwrap()
}

fn codes(refusals: &[Refusal]) -> Vec<&str> {
    refusals.iter().map(|r| r.code.as_str()).collect()
}

fn refused(instances: &[Instance]) -> Vec<String> {
    match assemble(instances, &trigger()).unwrap_err() {
        error @ AssembleError::Refused { .. } => {
            assert_eq!(error.class(), FailureClass::Input);
            let AssembleError::Refused { refusals, series } = error else {
                unreachable!()
            };
            assert!(
                series.iter().all(|s| !s.chosen && !s.reason.is_empty()),
                "{series:?}"
            );
            codes(&refusals).into_iter().map(str::to_owned).collect()
        }
        other => panic!("{other}"),
    }
}

/// The slices are where the series put them and hold the HU that name them.
fn assert_placed(assembled: &Assembled, series: &Series) {
    let slices = assembled.volume.geometry.slices();
    assert_eq!(slices, series.positions_mm.len());
    let positions = assembled.volume.geometry.positions_mm();
    assert!(positions.windows(2).all(|p| p[0] < p[1]), "{positions:?}");
    for (slice, plane) in assembled.volume.geometry.planes.iter().enumerate() {
        let k = assembled.instances[slice];
        let expected = series.origin_mm(k);
        let off = plane
            .origin_mm
            .iter()
            .zip(expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(
            off < 1e-6,
            "slice {slice}: {:?} is not {expected:?}",
            plane.origin_mm
        );
        assert_eq!(centre(assembled, slice), centre_hu(k));
        let hu: Vec<f32> = plane_hu(k).into_iter().map(f32::from).collect();
        assert_eq!(assembled.volume.slice(slice), hu);
    }
}

#[test]
fn an_even_series_becomes_hu_and_is_warned_of_only_as_no_whole_head() {
    let series = Series::default();
    let assembled = accepted(&series.instances());
    assert_placed(&assembled, &series);
    assert_eq!(codes(&assembled.warnings), ["partial_head"]);
    assert!(assembled.series[0].chosen);
    assert_eq!(assembled.series[0].origin, "received");
}

#[test]
fn the_order_is_along_the_normal_and_not_by_instance_number() {
    let series = Series {
        positions_mm: (0..12).map(|k| f64::from(-5 * k)).collect(),
        ..Series::default()
    };
    let assembled = accepted(&series.instances());
    assert_placed(&assembled, &series);
    assert_eq!(assembled.instances, (0..12).rev().collect::<Vec<_>>());
}

#[test]
fn gantry_tilt_is_kept_and_named_with_its_angle() {
    for tilt_degrees in [18.5, -18.5] {
        let series = Series {
            tilt_degrees,
            ..Series::default()
        };
        let assembled = accepted(&series.instances());
        assert_placed(&assembled, &series);
        assert!(codes(&assembled.warnings).contains(&"gantry_tilt"));
        let said = assembled
            .warnings
            .iter()
            .find(|w| w.code == "gantry_tilt")
            .unwrap();
        assert!(said.text.contains("18.5°"), "{}", said.text);
    }
}

#[test]
fn uneven_steps_are_kept_and_named() {
    let positions_mm = [0.0, 5.0, 10.0, 15.0, 16.2, 21.2, 28.2, 35.2, 42.2];
    let series = Series {
        positions_mm: positions_mm.to_vec(),
        ..Series::default()
    };
    let assembled = accepted(&series.instances());
    assert_placed(&assembled, &series);
    assert_eq!(
        codes(&assembled.warnings),
        ["overlap", "uneven_spacing", "partial_head"]
    );
}

#[test]
fn an_oblique_stack_is_placed_and_one_beyond_45_degrees_is_refused() {
    let oblique = |tilt_degrees| Series {
        tilt_degrees,
        walks_along_normal: true,
        ..Series::default()
    };
    let assembled = accepted(&oblique(30.0).instances());
    assert_placed(&assembled, &oblique(30.0));
    assert_eq!(codes(&assembled.warnings), ["partial_head"]);
    assert_eq!(refused(&oblique(60.0).instances()), ["not_axial"]);
}

#[test]
fn refuses_a_series_with_a_missing_slice() {
    let mut series = Series::default();
    series.positions_mm.remove(5);
    assert_eq!(refused(&series.instances()), ["missing_slice"]);
}

#[test]
fn refuses_the_same_position_twice() {
    let mut series = Series::default();
    series.positions_mm[6] = series.positions_mm[5];
    let mut instances = series.instances();
    instances.remove(0);
    assert!(refused(&instances).contains(&"duplicate_slice".to_owned()));
}

#[test]
fn a_repeated_acquisition_is_a_stack_of_its_own() {
    let mut series = Series::default();
    series.positions_mm.extend(series.positions_mm.clone());
    let instances = series.instances_with(|k, dataset| {
        set(
            dataset,
            tags::ACQUISITION_NUMBER,
            VR::IS,
            if k < 12 { "1" } else { "2" },
        );
        set(
            dataset,
            tags::ACQUISITION_TIME,
            VR::TM,
            if k < 12 { "101500" } else { "102000" },
        );
    });
    let assembled = accepted(&instances);
    assert_eq!(
        assembled.instances,
        (12..24).collect::<Vec<_>>(),
        "the latest acquisition"
    );
    assert_eq!(codes(&assembled.warnings), ["mixed_series", "partial_head"]);
}

#[test]
fn refuses_slices_that_are_nearly_but_not_parallel() {
    let straight = Series::default();
    let turned = Series {
        tilt_degrees: 3.0,
        ..Series::default()
    };
    let instances = straight.instances_with(|k, dataset| {
        if k % 2 == 1 {
            dataset.put(
                turned
                    .dataset(k)
                    .element(tags::IMAGE_ORIENTATION_PATIENT)
                    .unwrap()
                    .clone(),
            );
        }
    });
    assert_eq!(refused(&instances), ["mixed_orientation"]);
}

#[test]
fn a_coronal_reformat_within_the_series_is_set_aside() {
    let axial = Series::default();
    let coronal = Series {
        tilt_degrees: 90.0,
        walks_along_normal: true,
        ..Series::default()
    };
    let mut instances = axial.instances();
    instances.extend(coronal.instances_with(|k, dataset| {
        set(dataset, tags::SOP_INSTANCE_UID, VR::UI, &format!("1.2.3.1.9.{k}"));
    }));
    let assembled = accepted(&instances);
    assert_placed(&assembled, &axial);
    assert!(
        assembled.series[0].reason.contains("not_axial"),
        "{:?}",
        assembled.series
    );
}

#[test]
fn refuses_geometry_that_is_not_a_number() {
    let spacing = Series::default().instances_with(|_, dataset| {
        dataset.put(DataElement::new(
            tags::PIXEL_SPACING,
            VR::DS,
            dicom_value!(Strs, ["NaN", "NaN"]),
        ));
    });
    assert_eq!(refused(&spacing), ["spacing_unknown"]);
    let position = Series::default().instances_with(|_, dataset| {
        dataset.put(DataElement::new(
            tags::IMAGE_POSITION_PATIENT,
            VR::DS,
            dicom_value!(Strs, ["0", "0", "inf"]),
        ));
    });
    assert_eq!(refused(&position), ["position_unknown"]);
    let orientation = Series::default().instances_with(|_, dataset| {
        let skewed = dicom_value!(Strs, ["1", "0", "0", "0.5", "0.9", "0"]);
        dataset.put(DataElement::new(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, skewed));
    });
    assert_eq!(refused(&orientation), ["orientation_unknown"]);
}

#[test]
fn refuses_a_series_of_one_slice() {
    let series = Series {
        positions_mm: vec![0.0],
        ..Series::default()
    };
    assert_eq!(refused(&series.instances()), ["single_slice"]);
}

#[test]
fn says_of_each_other_image_why_it_was_not_chosen() {
    let series = |uid: &str| Series {
        uid: uid.to_owned(),
        positions_mm: vec![0.0, 5.0],
        ..Series::default()
    };
    let image_type = |dataset: &mut InMemDicomObject, values: &[&str]| {
        let values = PrimitiveValue::Strs(values.iter().map(|v| (*v).to_owned()).collect());
        dataset.put(DataElement::new(tags::IMAGE_TYPE, VR::CS, values));
    };
    let mut instances = Series::default().instances();
    instances.extend(
        series("1.2.3.2").instances_with(|_, d| image_type(d, &["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    );
    instances.extend(series("1.2.3.3").instances_with(|_, d| {
        image_type(d, &["DERIVED", "SECONDARY", "SCREEN SAVE"]);
        d.remove_element(tags::IMAGE_POSITION_PATIENT);
    }));
    instances.extend(series("1.2.3.4").instances_with(|_, d| {
        set(
            d,
            tags::SOP_CLASS_UID,
            VR::UI,
            uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
        );
    }));
    instances.extend(series("1.2.3.5").instances_with(|_, d| set(d, tags::MODALITY, VR::CS, "MR")));
    instances
        .extend(series("1.2.3.6").instances_with(|_, d| image_type(d, &["DERIVED", "SECONDARY", "MPR"])));
    instances.extend(series("1.2.3.7").instances_with(|_, d| set(d, tags::MANUFACTURER, VR::LO, "ictus")));
    instances.extend(series("1.2.3.8").instances_with(|_, d| set(d, tags::NUMBER_OF_FRAMES, VR::IS, "2")));
    let assembled = accepted(&instances);
    let reason = |uid: &str| {
        let choice = assembled.series.iter().find(|s| s.uid.as_str() == uid).unwrap();
        assert_eq!(choice.chosen, uid == "1.2.3.1");
        choice.reason.as_str()
    };
    for (uid, word) in [
        ("1.2.3.1", "best of the series that fit: 12 slices"),
        ("1.2.3.2", "scout"),
        ("1.2.3.3", "dose or protocol page"),
        ("1.2.3.4", "secondary capture"),
        ("1.2.3.5", "modality"),
        ("1.2.3.6", "derived"),
        ("1.2.3.7", "this software"),
        ("1.2.3.8", "multi-frame"),
    ] {
        assert!(reason(uid).contains(word), "{uid}: {}", reason(uid));
    }
    assert_eq!(
        assembled
            .series
            .iter()
            .find(|s| s.uid.as_str() == "1.2.3.7")
            .unwrap()
            .origin,
        "derived"
    );
}

#[test]
fn a_scout_within_the_series_does_not_spoil_it() {
    let series = Series::default();
    let mut instances = series.instances();
    instances.push(
        Series {
            positions_mm: vec![300.0],
            tilt_degrees: 90.0,
            ..Series::default()
        }
        .instances_with(|_, dataset| {
            set(dataset, tags::SOP_INSTANCE_UID, VR::UI, "1.2.3.1.77");
            let scout = dicom_value!(Strs, ["ORIGINAL", "PRIMARY", "LOCALIZER"]);
            dataset.put(DataElement::new(tags::IMAGE_TYPE, VR::CS, scout));
        })
        .remove(0),
    );
    let assembled = accepted(&instances);
    assert_placed(&assembled, &series);
    assert!(
        assembled.series[0].reason.contains("1 of 13 instances: a scout"),
        "{:?}",
        assembled.series
    );
}

#[test]
fn the_soft_kernel_comes_before_the_bone_kernel_and_bone_alone_is_named() {
    let bone = Series {
        uid: "1.2.3.0".to_owned(),
        kernel: "BONEPLUS",
        ..Series::default()
    };
    let mut both = bone.instances();
    both.extend(Series::default().instances());
    let assembled = accepted(&both);
    assert!(!assembled.series[0].chosen && assembled.series[0].reason.contains("softer kernel"));
    assert!(assembled.series[1].chosen);
    let warnings = accepted(&bone.instances()).warnings;
    assert_eq!(codes(&warnings), ["bone_kernel", "partial_head"]);
}

#[test]
fn the_larger_coverage_then_the_step_nearest_the_plan_is_preferred() {
    let thin = |uid: &str, count: u32| Series {
        uid: uid.to_owned(),
        positions_mm: (0..count).map(|k| f64::from(k) * 2.5).collect(),
        thickness_mm: 2.5,
        ..Series::default()
    };
    let mut instances = Series::default().instances();
    instances.extend(thin("1.2.3.2", 23).instances());
    instances.extend(thin("1.2.3.3", 13).instances());
    let mut trigger = trigger();
    trigger.thickness_mm = [2.0, 3.0];
    let assembled = assemble(&instances, &trigger).unwrap();
    let chosen: Vec<&str> = assembled
        .series
        .iter()
        .filter(|s| s.chosen)
        .map(|s| s.uid.as_str())
        .collect();
    assert_eq!(chosen, ["1.2.3.2"]);
    assert!(
        assembled.series[0].reason.contains("step_out_of_range"),
        "{:?}",
        assembled.series[0]
    );
    assert!(
        assembled.series[2].reason.contains("covers more"),
        "{:?}",
        assembled.series[2]
    );
}

#[test]
fn every_uncompressed_and_rle_syntax_gives_the_same_hu() {
    for transfer_syntax in [
        uids::IMPLICIT_VR_LITTLE_ENDIAN,
        uids::EXPLICIT_VR_LITTLE_ENDIAN,
        "1.2.840.10008.1.2.2",
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    ] {
        let series = Series {
            transfer_syntax,
            ..Series::default()
        };
        assert_placed(&accepted(&series.instances()), &series);
    }
    let series = Series {
        transfer_syntax: uids::RLE_LOSSLESS,
        ..Series::default()
    };
    let instances = series.instances_with(|k, dataset| {
        let fragment = rle(&plane_hu(k));
        let sequence = PixelFragmentSequence::new(Vec::new(), vec![fragment]);
        dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OB, sequence));
    });
    assert_placed(&accepted(&instances), &series);
}

/// RLE of 16-bit values (PS3.5 annex G): a segment of high bytes and one of low bytes, in literal runs.
fn rle(values: &[i16]) -> Vec<u8> {
    let segment = |byte: usize| {
        let bytes: Vec<u8> = values.iter().map(|v| v.to_be_bytes()[byte]).collect();
        let runs = bytes
            .chunks(128)
            .flat_map(|run| std::iter::once(u8::try_from(run.len() - 1).unwrap()).chain(run.iter().copied()));
        let mut segment: Vec<u8> = runs.collect();
        segment.resize(segment.len().next_multiple_of(2), 0);
        segment
    };
    let (high, low) = (segment(0), segment(1));
    let second = 64 + u32::try_from(high.len()).unwrap();
    let mut fragment: Vec<u8> = [2, 64, second].iter().flat_map(|n| n.to_le_bytes()).collect();
    fragment.resize(64, 0);
    [fragment, high, low].concat()
}

#[test]
fn a_syntax_that_cannot_be_decoded_is_refused_with_its_uid() {
    let series = Series {
        transfer_syntax: uids::MPEG2MPML,
        ..Series::default()
    };
    let instances = series.instances_with(|_, dataset| {
        let sequence = PixelFragmentSequence::new(Vec::new(), vec![vec![0xFF, 0xD8, 0xFF, 0xD9]]);
        dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OB, sequence));
    });
    assert_eq!(refused(&instances), ["pixels_unreadable"]);
    let said = assemble(&instances, &trigger()).unwrap_err().to_string();
    assert!(said.contains(uids::MPEG2MPML), "{said}");
}

#[test]
fn unsigned_stored_values_and_each_slices_own_rescale_are_honoured() {
    let series = Series::default();
    let instances = series.instances_with(|k, dataset| {
        let intercept = -1024 - i16::try_from(k).unwrap();
        let stored = plane_hu(k).into_iter().map(|hu| hu - intercept);
        dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OW, words(stored)));
        dataset.put(DataElement::new(
            tags::PIXEL_REPRESENTATION,
            VR::US,
            PrimitiveValue::from(0u16),
        ));
        dataset.put(DataElement::new(
            tags::BITS_STORED,
            VR::US,
            PrimitiveValue::from(12u16),
        ));
        dataset.put(DataElement::new(
            tags::HIGH_BIT,
            VR::US,
            PrimitiveValue::from(11u16),
        ));
        set(dataset, tags::RESCALE_INTERCEPT, VR::DS, &intercept.to_string());
        set(dataset, tags::RESCALE_TYPE, VR::LO, "HU");
    });
    assert_placed(&accepted(&instances), &series);
}

#[test]
fn padding_becomes_air_whatever_vr_it_was_written_with() {
    for value in [
        PrimitiveValue::from(-1500i16),
        PrimitiveValue::from((-1500i16).cast_unsigned()),
    ] {
        let vr = if matches!(value, PrimitiveValue::I16(_)) {
            VR::SS
        } else {
            VR::US
        };
        let instances = Series::default().instances_with(|k, dataset| {
            let mut hu = plane_hu(k);
            hu[..100].fill(-1500);
            hu[100..200].fill(-1400);
            dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OW, words(hu)));
            dataset.put(DataElement::new(tags::PIXEL_PADDING_VALUE, vr, value.clone()));
            if k > 0 {
                let limit = PrimitiveValue::from(-1400i16);
                dataset.put(DataElement::new(tags::PIXEL_PADDING_RANGE_LIMIT, VR::SS, limit));
            }
        });
        let assembled = accepted(&instances);
        assert_eq!(assembled.volume.slice(0)[99..101], [-1024.0, -1400.0]);
        assert_eq!(assembled.volume.slice(1)[99..101], [-1024.0, -1024.0]);
    }
}

#[test]
fn refuses_values_that_may_not_be_hu() {
    let refused_with = |edit: &dyn Fn(&mut InMemDicomObject)| {
        refused(&Series::default().instances_with(|k, dataset| {
            if k == 3 {
                edit(dataset);
            }
        }))
    };
    let unknown = ["hu_unknown"];
    assert_eq!(
        refused_with(&|d| assert!(d.remove_element(tags::RESCALE_SLOPE))),
        unknown
    );
    assert_eq!(
        refused_with(&|d| assert!(d.remove_element(tags::RESCALE_INTERCEPT))),
        unknown
    );
    assert_eq!(
        refused_with(&|d| set(d, tags::RESCALE_TYPE, VR::LO, "US")),
        unknown
    );
    assert_eq!(
        refused_with(&|d| set(d, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1")),
        unknown
    );
    assert_eq!(
        refused_with(&|d| {
            let table = vec![InMemDicomObject::new_empty()];
            d.put(DataElement::new(
                tags::MODALITY_LUT_SEQUENCE,
                VR::SQ,
                dicom_core::value::DataSetSequence::from(table),
            ));
        }),
        unknown
    );
    let shifted = Series::default().instances_with(|_, d| set(d, tags::RESCALE_INTERCEPT, VR::DS, "1024"));
    assert_eq!(refused(&shifted), unknown);
}

#[test]
fn two_patients_studies_or_frames_of_reference_are_an_identity_conflict() {
    let with = |tag, vr, text: &'static str| {
        refused(&Series::default().instances_with(|k, dataset| {
            if k == 7 {
                set(dataset, tag, vr, text);
            }
        }))
    };
    assert_eq!(with(tags::PATIENT_ID, VR::LO, "P2"), ["identity_conflict"]);
    assert_eq!(with(tags::PATIENT_ID, VR::LO, ""), ["identity_conflict"]);
    assert_eq!(
        with(tags::ISSUER_OF_PATIENT_ID, VR::LO, "elsewhere"),
        ["identity_conflict"]
    );
    assert_eq!(
        with(tags::STUDY_INSTANCE_UID, VR::UI, "1.2.4"),
        ["identity_conflict"]
    );
    assert_eq!(
        with(tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.2.3.98"),
        ["identity_conflict"]
    );
}

#[test]
fn a_series_without_any_patient_id_is_accepted() {
    let instances = Series::default().instances_with(|_, d| set(d, tags::PATIENT_ID, VR::LO, ""));
    assert_eq!(accepted(&instances).volume.geometry.slices(), 12);
}

#[test]
fn no_refusal_quotes_the_patient() {
    let instances = Series::default().instances_with(|k, dataset| {
        set(
            dataset,
            tags::PATIENT_ID,
            VR::LO,
            if k == 0 { "SECRET1" } else { "SECRET2" },
        );
        set(dataset, tags::PATIENT_NAME, VR::PN, "Secret^Name");
    });
    let error = assemble(&instances, &trigger()).unwrap_err();
    assert!(!format!("{error} {error:?}").to_lowercase().contains("secret"));
}

#[test]
fn contrast_agent_is_taken_from_the_header_and_from_the_pixels() {
    let agent =
        Series::default().instances_with(|_, d| set(d, tags::CONTRAST_BOLUS_AGENT, VR::LO, "Iohexol"));
    assert_eq!(refused(&agent), ["contrast"]);
    let none = Series::default().instances_with(|_, d| set(d, tags::CONTRAST_BOLUS_AGENT, VR::LO, "NONE"));
    accepted(&none);
    let bright = |agent: &'static str| {
        Series::default().instances_with(|k, dataset| {
            let mut hu = plane_hu(k);
            // Three vessels through every slice: crosses of pixels, of which the middle is bright all around.
            let width = usize::from(SIZE);
            for middle in [(28, 22), (28, 42), (40, 32)].map(|(row, column)| row * width + column) {
                for pixel in [middle, middle - 1, middle + 1, middle - width, middle + width] {
                    hu[pixel] = 230;
                }
            }
            dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OW, words(hu)));
            set(dataset, tags::CONTRAST_BOLUS_AGENT, VR::LO, agent);
        })
    };
    assert_eq!(refused(&bright("")), ["uncertain_phase"]);
    let mut angiography = trigger();
    angiography.contrast = Contrast::With;
    assert!(assemble(&bright("Iohexol"), &angiography).is_ok());
    assert!(assemble(&Series::default().instances(), &angiography).is_err());
}

#[test]
fn a_body_part_that_says_head_does_not_make_a_head() {
    let instances = Series::default().instances_with(|k, dataset| {
        let hu = plane_hu(k).into_iter().map(|hu| if hu == 900 { 50 } else { hu });
        dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OW, words(hu)));
        set(dataset, tags::BODY_PART_EXAMINED, VR::CS, "HEAD");
    });
    assert_eq!(refused(&instances), ["not_head"]);
}

#[test]
fn the_next_series_is_taken_when_the_pixels_of_the_best_contradict_its_header() {
    let mut instances = Series {
        uid: "1.2.3.0".to_owned(),
        ..Series::default()
    }
    .instances_with(|k, dataset| {
        let hu = plane_hu(k).into_iter().map(|hu| if hu == 900 { 50 } else { hu });
        dataset.put(DataElement::new(tags::PIXEL_DATA, VR::OW, words(hu)));
    });
    instances.extend(Series::default().instances());
    let assembled = accepted(&instances);
    assert!(
        assembled.series[0].reason.contains("not_head"),
        "{:?}",
        assembled.series
    );
    assert!(assembled.series[1].chosen);
}

#[test]
fn refuses_names_outside_their_declared_character_set() {
    let name_bytes = |bytes: &'static [u8], charset: &'static str| {
        let series = Series::default();
        let instances: Vec<Instance> = (0..12)
            .map(|k| {
                let mut dataset = series.dataset(k);
                set(&mut dataset, tags::SPECIFIC_CHARACTER_SET, VR::CS, charset);
                set(&mut dataset, tags::PATIENT_NAME, VR::PN, &"#".repeat(bytes.len()));
                let mut file = part10(dataset, uids::EXPLICIT_VR_LITTLE_ENDIAN);
                let at = file
                    .windows(bytes.len())
                    .position(|w| w.iter().all(|b| *b == b'#'))
                    .unwrap();
                file[at..at + bytes.len()].copy_from_slice(bytes);
                Instance::from_bytes(&file).unwrap()
            })
            .collect();
        assemble(&instances, &trigger())
            .map(|_| ())
            .map_err(|_| refused(&instances))
    };
    assert_eq!(name_bytes(b"M\xfcller", "ISO_IR 100"), Ok(()));
    assert_eq!(
        name_bytes(b"M\xfcller", "ISO_IR 192"),
        Err(vec!["charset".to_owned()])
    );
}

#[test]
fn no_instances_and_no_slices_are_refused_with_a_reason() {
    assert_eq!(refused(&[]), ["no_series"]);
    let instances = Series::default().instances_with(|_, d| set(d, tags::MODALITY, VR::CS, "MR"));
    assert_eq!(refused(&instances), ["no_series"]);
}

#[test]
fn a_volume_that_was_written_as_nifti_is_read_back_in_the_same_place() {
    for tilt_degrees in [0.0, 18.5] {
        let series = Series {
            tilt_degrees,
            ..Series::default()
        };
        let volume = accepted(&series.instances()).volume;
        let back = from_nifti(&ictus::nifti::write(&volume).unwrap(), Values::Hu).unwrap();
        assert_eq!(back.data, volume.data);
        for slice in [0, 11] {
            let (was, is) = (
                volume.geometry.voxel_to_lps(slice, 7.0, 9.0),
                back.geometry.voxel_to_lps(slice, 7.0, 9.0),
            );
            assert!(
                was.iter().zip(is).all(|(a, b)| (a - b).abs() < 1e-3),
                "{was:?} {is:?}"
            );
        }
    }
}

#[test]
fn a_nifti_volume_in_other_units_is_refused() {
    let mut volume = accepted(&Series::default().instances()).volume;
    volume.data.iter_mut().for_each(|hu| *hu = (*hu + 1000.0) / 10.0);
    match from_nifti(&ictus::nifti::write(&volume).unwrap(), Values::Hu).unwrap_err() {
        AssembleError::Refused { refusals, .. } => assert_eq!(codes(&refusals), ["hu_unknown"]),
        other => panic!("{other}"),
    }
}
