//! A rendered head → a CT series as a scanner would store it.
//!
//! Patient, dates and UIDs come from the seed, never from the clock: the same phantom is the same bytes.
//! Outside the circular field of view there is the padding value, as some scanners do; the seed decides between signed and unsigned pixels.
//!
//! Source: PS3.3 A.3 (CT Image IOD), C.8.2.1 (CT Image module), C.7.6.2 (Image Plane), C.7.5.1.1.2 (Pixel Padding Value).

use super::anatomy::stream;
use super::noise::Draw;
use super::{GeometryKind, Head, PhantomError, Range, Rendered};
use crate::domain::geometry::dot;
use crate::domain::uid::Uid;
use crate::domain::volume::Geometry;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use rayon::prelude::*;
use std::path::Path;
use time::{Date, Duration, Month};

/// Says which software wrote the file: a UID of our own.
const IMPLEMENTATION: &[&[u8]] = &[b"ictus", b"implementation", b"phantom"];

/// How stored values code HU.
#[derive(Debug, Clone, Copy)]
struct Coding {
    signed: bool,
    bits_stored: u16,
    intercept: i32,
    padding: i32,
}

/// What is the same in every instance of a series.
struct Series {
    coding: Coding,
    common: Vec<DataElement<InMemDicomObject>>,
    tilt: Option<f64>,
    /// InstanceNumber and file name of each slice.
    order: Vec<(usize, String)>,
}

/// The UIDs of a phantom's study and series.
pub(super) fn series_uids(head: &Head, geometry: GeometryKind) -> [Uid; 3] {
    ["study", "series", "frame of reference"].map(|what| derive(head, geometry, what, 0))
}

fn derive(head: &Head, geometry: GeometryKind, what: &str, index: usize) -> Uid {
    let range = match head.range() {
        Range::Training => "training",
        Range::Evaluation => "evaluation",
    };
    Uid::derive(&[
        b"ictus phantom",
        &head.seed().to_be_bytes(),
        head.kind().name().as_bytes(),
        range.as_bytes(),
        geometry.name().as_bytes(),
        what.as_bytes(),
        &(index as u64).to_be_bytes(),
    ])
}

/// Writes a rendered stack as one CT series into the folder `out`; returns the SOP instance UIDs in the order of the slices.
///
/// `kind` is the kind of geometry that `rendered` was made with: it decides the order of InstanceNumber and the file names.
///
/// # Errors
/// When the stack is too large for DICOM or a file cannot be written.
pub fn write_dicom(
    head: &Head,
    rendered: &Rendered,
    kind: GeometryKind,
    out: &Path,
) -> Result<Vec<Uid>, PhantomError> {
    std::fs::create_dir_all(out).map_err(|source| PhantomError::Write {
        path: out.to_owned(),
        source,
    })?;
    let geometry = &rendered.hu.geometry;
    let series = Series::new(head, geometry, kind)?;
    (0..geometry.slices())
        .into_par_iter()
        .map(|slice| {
            let uid = derive(head, kind, "instance", slice);
            let path = out.join(&series.order[slice].1);
            let boxed = |source: Box<dyn std::error::Error + Send + Sync>| PhantomError::Dicom {
                path: path.clone(),
                source,
            };
            let meta = FileMetaTableBuilder::new()
                .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
                .media_storage_sop_class_uid(uids::CT_IMAGE_STORAGE)
                .media_storage_sop_instance_uid(uid.as_str())
                .implementation_class_uid(Uid::derive(IMPLEMENTATION).as_str())
                .implementation_version_name("ICTUS_PHANTOM");
            let object = series.instance(rendered, slice, &uid);
            let file = object.with_meta(meta).map_err(|e| boxed(Box::new(e)))?;
            file.write_to_file(&path).map_err(|e| boxed(Box::new(e)))?;
            Ok(uid)
        })
        .collect()
}

impl Series {
    fn new(head: &Head, geometry: &Geometry, kind: GeometryKind) -> Result<Self, PhantomError> {
        let too_large = PhantomError::TooLarge {
            slices: geometry.slices(),
            rows: geometry.rows,
            columns: geometry.columns,
        };
        let (Ok(rows), Ok(columns), Ok(_)) = (
            u16::try_from(geometry.rows),
            u16::try_from(geometry.columns),
            u16::try_from(geometry.slices()),
        ) else {
            return Err(too_large);
        };
        let mut draw = Draw::new(head.seed(), stream::SERIES);
        let coding = match draw.count(0, 3) {
            0 => Coding {
                signed: true,
                bits_stored: 16,
                intercept: 0,
                padding: -1500,
            },
            1 => Coding {
                signed: true,
                bits_stored: 16,
                intercept: 0,
                padding: -2000,
            },
            2 => Coding {
                signed: true,
                bits_stored: 16,
                intercept: -1024,
                padding: -2000,
            },
            _ => Coding {
                signed: false,
                bits_stored: 12,
                intercept: -1024,
                padding: 0,
            },
        };
        let tilt = gantry_tilt(geometry);
        let common = common(head, geometry, kind, rows, columns, coding, &mut draw);
        let order = order(kind, geometry.slices(), &mut draw);
        Ok(Self {
            coding,
            common,
            tilt,
            order,
        })
    }

    /// The dataset of one slice.
    fn instance(&self, rendered: &Rendered, slice: usize, uid: &Uid) -> InMemDicomObject {
        let geometry = &rendered.hu.geometry;
        let plane = geometry.planes[slice];
        let mut object = InMemDicomObject::from_element_iter(self.common.iter().cloned());
        let mut put = |element| {
            object.put(element);
        };
        put(text(tags::SOP_INSTANCE_UID, VR::UI, uid.as_str()));
        put(text(
            tags::INSTANCE_NUMBER,
            VR::IS,
            &self.order[slice].0.to_string(),
        ));
        put(text(
            tags::SLICE_THICKNESS,
            VR::DS,
            &decimal(plane.thickness_mm, 3),
        ));
        put(decimals(tags::IMAGE_POSITION_PATIENT, &plane.origin_mm, 6));
        put(text(
            tags::SLICE_LOCATION,
            VR::DS,
            &decimal(dot(plane.origin_mm, geometry.normal()), 3),
        ));
        if let Some(tilt) = self.tilt {
            put(text(tags::GANTRY_DETECTOR_TILT, VR::DS, &decimal(tilt, 3)));
        }
        let values = stored(rendered.hu.slice(slice), geometry, self.coding);
        put(DataElement::new(
            tags::PIXEL_DATA,
            VR::OW,
            PrimitiveValue::U16(values.into()),
        ));
        object
    }
}

/// HU → stored values as 16-bit words, the corners outside the circular field padded.
fn stored(hu: &[f32], geometry: &Geometry, coding: Coding) -> Vec<u16> {
    #[expect(clippy::cast_precision_loss, reason = "pixel indices of an image")]
    let centred = |at: usize, len: usize| (at as f64 + 0.5) / len as f64 - 0.5;
    // One above the padding, so that air at the lower end is not taken for it.
    let lowest = if coding.signed { -1499.0 } else { 1.0 };
    let highest = if coding.signed {
        3071.0 - f64::from(coding.intercept)
    } else {
        4095.0
    };
    hu.iter()
        .enumerate()
        .map(|(at, value)| {
            let (row, column) = (
                centred(at / geometry.columns, geometry.rows),
                centred(at % geometry.columns, geometry.columns),
            );
            let value = if row * row + column * column > 0.25 {
                coding.padding
            } else {
                #[expect(clippy::cast_possible_truncation, reason = "clamped to 16 bits")]
                let value = (f64::from(*value) - f64::from(coding.intercept))
                    .round()
                    .clamp(lowest, highest) as i32;
                value
            };
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the low 16 bits of a value in range are its two's complement"
            )]
            let word = value as u16;
            word
        })
        .collect()
}

/// The tilt of a stack whose rows lie along x, degrees; `None` for one that a gantry cannot make.
fn gantry_tilt(geometry: &Geometry) -> Option<f64> {
    let [x, _, _] = geometry.row_direction;
    ((x - 1.0).abs() < 1e-9).then(|| (-geometry.column_direction[2]).asin().to_degrees())
}

/// InstanceNumber and file name of each slice.
fn order(kind: GeometryKind, slices: usize, draw: &mut Draw) -> Vec<(usize, String)> {
    let mut names: Vec<usize> = (1..=slices).collect();
    if kind == GeometryKind::Reversed {
        // Fisher–Yates.
        for i in (1..slices).rev() {
            names.swap(i, draw.count(0, i));
        }
    }
    (0..slices)
        .map(|slice| {
            let number = if kind == GeometryKind::Reversed {
                slices - slice
            } else {
                slice + 1
            };
            (number, format!("{:04}.dcm", names[slice]))
        })
        .collect()
}

fn common(
    head: &Head,
    geometry: &Geometry,
    kind: GeometryKind,
    rows: u16,
    columns: u16,
    coding: Coding,
    draw: &mut Draw,
) -> Vec<DataElement<InMemDicomObject>> {
    let [study, series, frame] = series_uids(head, kind);
    let day = Date::from_calendar_date(2021, Month::January, 1).unwrap_or(Date::MIN);
    let study_day = day + Duration::days(draw.count(0, 1800).try_into().unwrap_or(0));
    let birth_day = study_day - Duration::days(draw.count(40 * 365, 90 * 365).try_into().unwrap_or(0));
    let date = |d: Date| format!("{:04}{:02}{:02}", d.year(), u8::from(d.month()), d.day());
    let time = format!(
        "{:02}{:02}{:02}",
        draw.count(0, 23),
        draw.count(0, 59),
        draw.count(0, 59)
    );
    let sex = if draw.chance(0.5) { "F" } else { "M" };
    let kernel = ["STANDARD", "SOFT", "H30s", "STD+"][draw.count(0, 3)];
    let kvp = ["100", "120", "130", "140"][draw.count(0, 3)];
    let number = format!("{:04}", head.seed());
    let diameter = geometry.pixel_spacing_mm[0] * f64::from(rows);
    let (row, column) = (geometry.row_direction, geometry.column_direction);
    let representation = u16::from(coding.signed);
    let padding = if coding.signed {
        DataElement::new(
            tags::PIXEL_PADDING_VALUE,
            VR::SS,
            PrimitiveValue::from(i16::try_from(coding.padding).unwrap_or(i16::MIN)),
        )
    } else {
        short(
            tags::PIXEL_PADDING_VALUE,
            u16::try_from(coding.padding).unwrap_or(0),
        )
    };
    let agent = head
        .kind()
        .contrast()
        .then(|| text(tags::CONTRAST_BOLUS_AGENT, VR::LO, "IODINE"));
    let mut elements = vec![
        text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192"),
        text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY\\AXIAL"),
        text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
        text(tags::STUDY_DATE, VR::DA, &date(study_day)),
        text(tags::SERIES_DATE, VR::DA, &date(study_day)),
        text(tags::ACQUISITION_DATE, VR::DA, &date(study_day)),
        text(tags::CONTENT_DATE, VR::DA, &date(study_day)),
        text(tags::STUDY_TIME, VR::TM, &time),
        text(tags::SERIES_TIME, VR::TM, &time),
        text(tags::ACQUISITION_TIME, VR::TM, &time),
        text(tags::CONTENT_TIME, VR::TM, &time),
        text(tags::ACCESSION_NUMBER, VR::SH, &format!("A{number}")),
        text(tags::MODALITY, VR::CS, "CT"),
        text(tags::MANUFACTURER, VR::LO, "ictus phantom"),
        text(tags::MANUFACTURER_MODEL_NAME, VR::LO, "phantom"),
        text(tags::DEVICE_SERIAL_NUMBER, VR::LO, "0"),
        text(tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION")),
        text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, ""),
        text(tags::STUDY_DESCRIPTION, VR::LO, "CT head, synthetic phantom"),
        text(
            tags::SERIES_DESCRIPTION,
            VR::LO,
            if head.kind().contrast() {
                "Head CT angiography, synthetic"
            } else {
                "Head without contrast, synthetic"
            },
        ),
        text(tags::PATIENT_NAME, VR::PN, &format!("PHANTOM^{number}")),
        text(tags::PATIENT_ID, VR::LO, &format!("PHANTOM-{number}")),
        text(tags::PATIENT_BIRTH_DATE, VR::DA, &date(birth_day)),
        text(tags::PATIENT_SEX, VR::CS, sex),
        text(tags::BODY_PART_EXAMINED, VR::CS, "HEAD"),
        text(tags::KVP, VR::DS, kvp),
        text(tags::RECONSTRUCTION_DIAMETER, VR::DS, &decimal(diameter, 3)),
        text(tags::CONVOLUTION_KERNEL, VR::SH, kernel),
        text(tags::PATIENT_POSITION, VR::CS, "HFS"),
        text(tags::STUDY_INSTANCE_UID, VR::UI, study.as_str()),
        text(tags::SERIES_INSTANCE_UID, VR::UI, series.as_str()),
        text(tags::STUDY_ID, VR::SH, &number),
        text(tags::SERIES_NUMBER, VR::IS, "2"),
        text(tags::ACQUISITION_NUMBER, VR::IS, "1"),
        text(tags::FRAME_OF_REFERENCE_UID, VR::UI, frame.as_str()),
        text(tags::POSITION_REFERENCE_INDICATOR, VR::LO, ""),
        decimals(tags::IMAGE_ORIENTATION_PATIENT, &[row, column].concat(), 10),
        decimals(tags::PIXEL_SPACING, &geometry.pixel_spacing_mm, 7),
        short(tags::SAMPLES_PER_PIXEL, 1),
        text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
        short(tags::ROWS, rows),
        short(tags::COLUMNS, columns),
        short(tags::BITS_ALLOCATED, 16),
        short(tags::BITS_STORED, coding.bits_stored),
        short(tags::HIGH_BIT, coding.bits_stored - 1),
        short(tags::PIXEL_REPRESENTATION, representation),
        padding,
        text(tags::WINDOW_CENTER, VR::DS, "40"),
        text(tags::WINDOW_WIDTH, VR::DS, "80"),
        text(tags::RESCALE_INTERCEPT, VR::DS, &coding.intercept.to_string()),
        text(tags::RESCALE_SLOPE, VR::DS, "1"),
        text(tags::RESCALE_TYPE, VR::LO, "HU"),
    ];
    elements.extend(agent);
    elements
}

fn text(tag: Tag, vr: VR, value: &str) -> DataElement<InMemDicomObject> {
    if value.is_empty() {
        return DataElement::empty(tag, vr);
    }
    let values: Vec<String> = value.split('\\').map(str::to_owned).collect();
    DataElement::new(tag, vr, PrimitiveValue::Strs(values.into()))
}

fn short(tag: Tag, value: u16) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::US, PrimitiveValue::from(value))
}

fn decimals(tag: Tag, values: &[f64], digits: usize) -> DataElement<InMemDicomObject> {
    let values: Vec<String> = values.iter().map(|v| decimal(*v, digits)).collect();
    DataElement::new(tag, VR::DS, PrimitiveValue::Strs(values.into()))
}

/// A decimal string without trailing zeros; at most 16 characters for the values written here.
fn decimal(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::phantom::{Kind, geometry};

    /// A small phantom: 64² pixels of 4 mm.
    fn small(seed: u64, kind: GeometryKind) -> (Head, Rendered) {
        let head = Head::new(seed, Kind::Haemorrhage, Range::Training);
        let mut g = geometry(kind, seed, Range::Training);
        g.rows = 64;
        g.columns = 64;
        g.pixel_spacing_mm = [4.0, 4.0];
        let rendered = head.render(&g);
        (head, rendered)
    }

    fn read(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                (
                    path.file_name().unwrap().to_string_lossy().into_owned(),
                    std::fs::read(path).unwrap(),
                )
            })
            .collect();
        files.sort();
        files
    }

    #[test]
    fn the_same_seed_writes_the_same_bytes_and_another_does_not() {
        let write = |seed| {
            let folder = tempfile::tempdir().unwrap();
            let (head, rendered) = small(seed, GeometryKind::Even);
            write_dicom(&head, &rendered, GeometryKind::Even, folder.path()).unwrap();
            read(folder.path())
        };
        let first = write(11);
        assert_eq!(first, write(11));
        assert_ne!(first, write(12));
    }

    #[test]
    fn stored_values_give_the_hu_back_and_the_corners_are_padding() {
        for seed in 0..8 {
            let folder = tempfile::tempdir().unwrap();
            let (head, rendered) = small(seed, GeometryKind::Tilted);
            let sops = write_dicom(&head, &rendered, GeometryKind::Tilted, folder.path()).unwrap();
            let file = dicom_object::open_file(folder.path().join("0010.dcm")).unwrap();
            let number = |tag| file.element(tag).unwrap().to_float64().unwrap();
            let intercept = number(tags::RESCALE_INTERCEPT);
            let signed = number(tags::PIXEL_REPRESENTATION) > 0.0;
            let words = file
                .element(tags::PIXEL_DATA)
                .unwrap()
                .to_multi_int::<u16>()
                .unwrap();
            let value = |word: u16| {
                if signed {
                    f64::from(word.cast_signed())
                } else {
                    f64::from(word)
                }
            };
            let slice = rendered.hu.slice(9);
            let middle = 32 * 64 + 20;
            assert!((value(words[middle]) + intercept - f64::from(slice[middle])).abs() <= 0.5);
            assert!((value(words[0]) - number(tags::PIXEL_PADDING_VALUE)).abs() < 0.5);
            assert!((number(tags::GANTRY_DETECTOR_TILT).abs() - 18.5).abs() < 1e-3);
            let uid = file
                .element(tags::SOP_INSTANCE_UID)
                .unwrap()
                .to_str()
                .unwrap()
                .into_owned();
            assert_eq!(uid, sops[9].as_str());
        }
    }

    #[test]
    fn a_reversed_series_counts_down_and_its_names_say_nothing() {
        let mut draw = Draw::new(1, 0);
        let order = order(GeometryKind::Reversed, 30, &mut draw);
        assert!(order.windows(2).all(|pair| pair[0].0 == pair[1].0 + 1));
        let names: Vec<&String> = order.iter().map(|(_, name)| name).collect();
        let mut sorted = names.clone();
        sorted.sort();
        assert_ne!(names, sorted);
        sorted.dedup();
        assert_eq!(sorted.len(), 30);
    }

    #[test]
    fn decimals_are_short_and_plain() {
        assert_eq!(decimal(-0.0000000001, 6), "0");
        assert_eq!(decimal(-0.317_304_656, 10), "-0.317304656");
        assert_eq!(decimal(5.0, 3), "5");
    }
}
