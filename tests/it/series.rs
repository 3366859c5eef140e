//! Small head CT series made in code, for tests: a ring of bone around tissue whose HU name the slice.

use dicom_core::{DataElement, PrimitiveValue, VR, dicom_value, value::Value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ictus::{
    dicom::instance::Instance,
    domain::plan::{Contrast, Trigger},
};

/// Rows and columns.
pub(crate) const SIZE: u16 = 64;
/// Between rows and between columns.
pub(crate) const SPACING_MM: f64 = 3.5;
pub(crate) const STUDY: &str = "1.2.3";

/// What the slices of a series have in common; `..Series::default()` fills the rest.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) uid: String,
    /// Along z, or along the normal where `walks_along_normal`.
    pub(crate) positions_mm: Vec<f64>,
    pub(crate) thickness_mm: f64,
    /// Rotation of the slices about the x axis; the origins still walk along z: gantry tilt.
    pub(crate) tilt_degrees: f64,
    /// Origins walk along the normal: an oblique stack without shear.
    pub(crate) walks_along_normal: bool,
    pub(crate) kernel: &'static str,
    pub(crate) transfer_syntax: &'static str,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            uid: "1.2.3.1".to_owned(),
            positions_mm: (0..12).map(|k| f64::from(k) * 5.0).collect(),
            thickness_mm: 5.0,
            tilt_degrees: 0.0,
            walks_along_normal: false,
            kernel: "STANDARD",
            transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN,
        }
    }
}

/// HU at the centre of slice `k`.
pub(crate) fn centre_hu(k: usize) -> f32 {
    20.0 + f32::from(u8::try_from(k).unwrap())
}

/// HU of one slice: air, a ring of bone, tissue.
pub(crate) fn plane_hu(k: usize) -> Vec<i16> {
    let at = |i: u16| (f64::from(i) - f64::from(SIZE) / 2.0) * SPACING_MM;
    let voxel = |row: u16, column: u16| match at(row).hypot(at(column)) {
        r if r < 10.0 => 20 + i16::try_from(k).unwrap(),
        r if r < 70.0 => 35,
        r if r < 80.0 => 900,
        _ => -1000,
    };
    (0..SIZE)
        .flat_map(|row| (0..SIZE).map(move |column| voxel(row, column)))
        .collect()
}

/// Words as they are stored.
pub(crate) fn words(values: impl IntoIterator<Item = i16>) -> PrimitiveValue {
    PrimitiveValue::U16(values.into_iter().map(i16::cast_unsigned).collect())
}

impl Series {
    /// ImagePositionPatient of slice `k`.
    pub(crate) fn origin_mm(&self, k: usize) -> [f64; 3] {
        let half = f64::from(SIZE) / 2.0 * SPACING_MM;
        let (sin, cos) = self.tilt_degrees.to_radians().sin_cos();
        let walk = if self.walks_along_normal {
            [0.0, sin, cos]
        } else {
            [0.0, 0.0, 1.0]
        };
        let z = self.positions_mm[k];
        [-half + walk[0] * z, -half + walk[1] * z, walk[2] * z]
    }

    /// The dataset of slice `k`.
    pub(crate) fn dataset(&self, k: usize) -> InMemDicomObject {
        let (sin, cos) = self.tilt_degrees.to_radians().sin_cos();
        let numbers =
            |numbers: &[f64]| PrimitiveValue::Strs(numbers.iter().map(|n| format!("{n:.7}")).collect());
        let text = |tag, vr, text: &str| DataElement::new(tag, vr, PrimitiveValue::from(text));
        let word = |tag, number: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(number));
        InMemDicomObject::from_element_iter([
            DataElement::new(
                tags::IMAGE_TYPE,
                VR::CS,
                dicom_value!(Strs, ["ORIGINAL", "PRIMARY", "AXIAL"]),
            ),
            text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
            text(tags::SOP_INSTANCE_UID, VR::UI, &format!("{}.{}", self.uid, k + 1)),
            text(tags::ACQUISITION_DATE, VR::DA, "20260102"),
            text(tags::ACQUISITION_TIME, VR::TM, "101500"),
            text(tags::MODALITY, VR::CS, "CT"),
            text(tags::MANUFACTURER, VR::LO, "Phantoms Ltd"),
            text(tags::PATIENT_NAME, VR::PN, "Doe^Jane"),
            text(tags::PATIENT_ID, VR::LO, "P1"),
            numbers_element(tags::SLICE_THICKNESS, numbers(&[self.thickness_mm])),
            text(tags::CONVOLUTION_KERNEL, VR::SH, self.kernel),
            text(tags::STUDY_INSTANCE_UID, VR::UI, STUDY),
            text(tags::SERIES_INSTANCE_UID, VR::UI, &self.uid),
            text(tags::INSTANCE_NUMBER, VR::IS, &(k + 1).to_string()),
            numbers_element(tags::IMAGE_POSITION_PATIENT, numbers(&self.origin_mm(k))),
            numbers_element(
                tags::IMAGE_ORIENTATION_PATIENT,
                numbers(&[1.0, 0.0, 0.0, 0.0, cos, -sin]),
            ),
            text(tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.2.3.99"),
            word(tags::SAMPLES_PER_PIXEL, 1),
            text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
            word(tags::ROWS, SIZE),
            word(tags::COLUMNS, SIZE),
            numbers_element(tags::PIXEL_SPACING, numbers(&[SPACING_MM, SPACING_MM])),
            word(tags::BITS_ALLOCATED, 16),
            word(tags::BITS_STORED, 16),
            word(tags::HIGH_BIT, 15),
            word(tags::PIXEL_REPRESENTATION, 1),
            numbers_element(tags::RESCALE_INTERCEPT, numbers(&[0.0])),
            numbers_element(tags::RESCALE_SLOPE, numbers(&[1.0])),
            DataElement::new(tags::PIXEL_DATA, VR::OW, words(plane_hu(k))),
        ])
    }

    /// Every slice, each passed through `edit` and then through Part 10 bytes.
    pub(crate) fn instances_with(&self, edit: impl Fn(usize, &mut InMemDicomObject)) -> Vec<Instance> {
        (0..self.positions_mm.len())
            .map(|k| {
                let mut dataset = self.dataset(k);
                edit(k, &mut dataset);
                Instance::from_bytes(&part10(dataset, self.transfer_syntax)).unwrap()
            })
            .collect()
    }

    /// Every slice.
    pub(crate) fn instances(&self) -> Vec<Instance> {
        self.instances_with(|_, _| {})
    }
}

fn numbers_element(tag: dicom_core::Tag, value: PrimitiveValue) -> DataElement<InMemDicomObject> {
    DataElement::new(tag, VR::DS, Value::Primitive(value))
}

/// The dataset as a Part 10 file.
pub(crate) fn part10(dataset: InMemDicomObject, transfer_syntax: &str) -> Vec<u8> {
    let object = dataset
        .with_meta(FileMetaTableBuilder::new().transfer_syntax(transfer_syntax))
        .unwrap();
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    bytes
}

/// Sets or replaces a text value.
pub(crate) fn set(dataset: &mut InMemDicomObject, tag: dicom_core::Tag, vr: VR, text: &str) {
    dataset.put(DataElement::new(tag, vr, PrimitiveValue::from(text)));
}

/// A trigger for head CT without contrast agent.
pub(crate) fn trigger() -> Trigger {
    Trigger {
        modality: "CT".to_owned(),
        contrast: Contrast::Without,
        thickness_mm: [0.4, 8.0],
        body_part: "HEAD".to_owned(),
        only_named: false,
        brain_hu: None,
        noise_hu: None,
    }
}
