//! The attributes that ictus reads of an instance, parsed once; PS3.6 keywords in snake case.
//!
//! An attribute that is absent, empty or unreadable is `None`; whether that is a fault is the reader's business.

use crate::domain::uid::Uid;
use dicom_core::{Tag, value::Value};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;

/// Header values of one instance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attributes {
    /// (0020,000D)
    pub study_instance_uid: Option<Uid>,
    /// (0020,000E)
    pub series_instance_uid: Option<Uid>,
    /// (0008,0018)
    pub sop_instance_uid: Option<Uid>,
    /// (0008,0016)
    pub sop_class_uid: Option<Uid>,
    /// (0020,0052)
    pub frame_of_reference_uid: Option<Uid>,
    /// (0008,0060)
    pub modality: Option<String>,
    /// (0008,0008)
    pub image_type: Vec<String>,
    /// (0008,0070)
    pub manufacturer: Option<String>,
    /// (0010,0020): who this is, for identity checks only.
    pub patient_id: Option<String>,
    /// (0010,0021)
    pub issuer_of_patient_id: Option<String>,
    /// (0028,0010)
    pub rows: Option<u16>,
    /// (0028,0011)
    pub columns: Option<u16>,
    /// (0028,0008)
    pub number_of_frames: Option<u32>,
    /// (0020,0032) LPS mm; `None` too when a value is not finite.
    pub image_position_patient: Option<[f64; 3]>,
    /// (0020,0037)
    pub image_orientation_patient: Option<[f64; 6]>,
    /// (0028,0030) mm between rows, between columns.
    pub pixel_spacing: Option<[f64; 2]>,
    /// (0018,0050) mm
    pub slice_thickness: Option<f64>,
    /// (0018,1120) degrees
    pub gantry_detector_tilt: Option<f64>,
    /// (0028,1053)
    pub rescale_slope: Option<f64>,
    /// (0028,1052)
    pub rescale_intercept: Option<f64>,
    /// (0028,1054)
    pub rescale_type: Option<String>,
    /// (0028,0004)
    pub photometric_interpretation: Option<String>,
    /// (0028,0120) as a signed number by PixelRepresentation.
    pub pixel_padding_value: Option<i32>,
    /// (0028,0121)
    pub pixel_padding_range_limit: Option<i32>,
    /// Whether a Modality LUT Sequence (0028,3000) is there.
    pub has_modality_lut: bool,
    /// (0018,1210)
    pub convolution_kernel: Option<String>,
    /// (0018,0010)
    pub contrast_bolus_agent: Option<String>,
    /// (0018,0015)
    pub body_part_examined: Option<String>,
    /// (0020,0012)
    pub acquisition_number: Option<i32>,
    /// (0020,0013)
    pub instance_number: Option<i32>,
    /// (0020,0011)
    pub series_number: Option<i32>,
    /// (0008,103E)
    pub series_description: Option<String>,
    /// (0008,0022) + (0008,0032), as written, for ordering only.
    pub acquisition_date_time: Option<String>,
    /// Which frame of its instance this is, of a slice out of a multi-frame CT.
    pub frame: Option<Frame>,
    /// Why the frames of a multi-frame CT cannot be told apart.
    pub frames_problem: Option<&'static str>,
    /// Elements of the main dataset whose text (theirs or within them) is not in the declared character set.
    pub undecodable_text: Vec<Tag>,
}

/// One frame among those of its instance.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    /// From 1.
    pub number: u32,
    /// (0020,9056): which group of frames it belongs to.
    pub stack_id: Option<String>,
    /// (0020,9128): the point of time, from 1.
    pub temporal_position_index: Option<u32>,
    /// (0020,9241): per cent of the heart beat, as written.
    pub cardiac_phase: Option<String>,
    /// Its indices in the dimensions that count something other than place and time.
    pub other_dimensions: Vec<u32>,
}

impl Attributes {
    /// Reads the attributes of a dataset; never fails.
    #[must_use]
    pub fn parse(object: &InMemDicomObject) -> Self {
        let o = Reader(object);
        Self {
            study_instance_uid: o.uid(tags::STUDY_INSTANCE_UID),
            series_instance_uid: o.uid(tags::SERIES_INSTANCE_UID),
            sop_instance_uid: o.uid(tags::SOP_INSTANCE_UID),
            sop_class_uid: o.uid(tags::SOP_CLASS_UID),
            frame_of_reference_uid: o.uid(tags::FRAME_OF_REFERENCE_UID),
            modality: o.text(tags::MODALITY),
            image_type: o.texts(tags::IMAGE_TYPE),
            manufacturer: o.text(tags::MANUFACTURER),
            patient_id: o.text(tags::PATIENT_ID),
            issuer_of_patient_id: o.text(tags::ISSUER_OF_PATIENT_ID),
            rows: o.integer(tags::ROWS).and_then(|n| u16::try_from(n).ok()),
            columns: o.integer(tags::COLUMNS).and_then(|n| u16::try_from(n).ok()),
            number_of_frames: o
                .integer(tags::NUMBER_OF_FRAMES)
                .and_then(|n| u32::try_from(n).ok()),
            image_position_patient: o.numbers(tags::IMAGE_POSITION_PATIENT),
            image_orientation_patient: o.numbers(tags::IMAGE_ORIENTATION_PATIENT),
            pixel_spacing: o.numbers(tags::PIXEL_SPACING),
            slice_thickness: o.number(tags::SLICE_THICKNESS),
            gantry_detector_tilt: o.number(tags::GANTRY_DETECTOR_TILT),
            rescale_slope: o.number(tags::RESCALE_SLOPE),
            rescale_intercept: o.number(tags::RESCALE_INTERCEPT),
            rescale_type: o.text(tags::RESCALE_TYPE),
            photometric_interpretation: o.text(tags::PHOTOMETRIC_INTERPRETATION),
            pixel_padding_value: o.stored_value(tags::PIXEL_PADDING_VALUE),
            pixel_padding_range_limit: o.stored_value(tags::PIXEL_PADDING_RANGE_LIMIT),
            has_modality_lut: object.get(tags::MODALITY_LUT_SEQUENCE).is_some(),
            convolution_kernel: o.text(tags::CONVOLUTION_KERNEL),
            contrast_bolus_agent: o.text(tags::CONTRAST_BOLUS_AGENT),
            body_part_examined: o.text(tags::BODY_PART_EXAMINED),
            acquisition_number: o
                .integer(tags::ACQUISITION_NUMBER)
                .and_then(|n| i32::try_from(n).ok()),
            instance_number: o
                .integer(tags::INSTANCE_NUMBER)
                .and_then(|n| i32::try_from(n).ok()),
            series_number: o.integer(tags::SERIES_NUMBER).and_then(|n| i32::try_from(n).ok()),
            series_description: o.text(tags::SERIES_DESCRIPTION),
            acquisition_date_time: o.date_time(),
            frame: None,
            frames_problem: None,
            undecodable_text: Vec::new(),
        }
    }

    /// Which frame of its instance this is, as references count; nothing of an instance of one frame.
    #[must_use]
    pub fn frame_number(&self) -> Option<u32> {
        self.frame.as_ref().map(|frame| frame.number)
    }

    /// Whether a text that identifies the patient, the study or the order, and which results copy, could not be decoded.
    #[must_use]
    pub fn has_undecodable_identity(&self) -> bool {
        self.undecodable_text
            .iter()
            .any(|tag| tag.0 == 0x0010 || IDENTITY_TEXT.contains(tag))
    }
}

/// Text outside the patient group that results copy from their source.
const IDENTITY_TEXT: [Tag; 7] = [
    tags::ACCESSION_NUMBER,
    tags::ISSUER_OF_ACCESSION_NUMBER_SEQUENCE,
    tags::REFERRING_PHYSICIAN_NAME,
    tags::STUDY_DESCRIPTION,
    tags::STUDY_ID,
    tags::REQUEST_ATTRIBUTES_SEQUENCE,
    tags::DEIDENTIFICATION_METHOD,
];

struct Reader<'a>(&'a InMemDicomObject);

impl Reader<'_> {
    fn value(&self, tag: Tag) -> Option<&dicom_core::PrimitiveValue> {
        match self.0.get(tag)?.value() {
            Value::Primitive(value) => Some(value),
            _ => None,
        }
    }

    fn texts(&self, tag: Tag) -> Vec<String> {
        let Some(value) = self.value(tag) else {
            return Vec::new();
        };
        value
            .to_multi_str()
            .iter()
            .map(|text| trimmed(text).to_owned())
            .collect()
    }

    fn text(&self, tag: Tag) -> Option<String> {
        let text = self.value(tag)?.to_str();
        Some(trimmed(&text).to_owned()).filter(|text| !text.is_empty())
    }

    fn uid(&self, tag: Tag) -> Option<Uid> {
        Uid::parse(&self.text(tag)?).ok()
    }

    fn integer(&self, tag: Tag) -> Option<i64> {
        self.value(tag)?.to_int().ok()
    }

    fn number(&self, tag: Tag) -> Option<f64> {
        self.numbers::<1>(tag).map(|[number]| number)
    }

    /// All of N finite numbers, or none.
    fn numbers<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        let numbers = self.value(tag)?.to_multi_float64().ok()?;
        let numbers: [f64; N] = numbers.try_into().ok()?;
        numbers.iter().all(|number| number.is_finite()).then_some(numbers)
    }

    /// A value of VR US or SS, by PixelRepresentation and BitsAllocated and not by the VR that was written.
    fn stored_value(&self, tag: Tag) -> Option<i32> {
        let written = self.integer(tag)?;
        let signed = self.integer(tags::PIXEL_REPRESENTATION) == Some(1);
        let bits = self.integer(tags::BITS_ALLOCATED).unwrap_or(16);
        let value = match (signed, bits) {
            (true, 16) if written > i64::from(i16::MAX) => written - 0x1_0000,
            (true, 8) if written > i64::from(i8::MAX) => written - 0x100,
            (false, 16) if written < 0 => written + 0x1_0000,
            _ => written,
        };
        i32::try_from(value).ok()
    }

    fn date_time(&self) -> Option<String> {
        if let Some(text) = self.text(tags::ACQUISITION_DATE_TIME) {
            return Some(text);
        }
        let date = self
            .text(tags::ACQUISITION_DATE)
            .or_else(|| self.text(tags::SERIES_DATE))?;
        let time = self
            .text(tags::ACQUISITION_TIME)
            .or_else(|| self.text(tags::SERIES_TIME));
        Some(date + &time.unwrap_or_default())
    }
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\0'])
}
