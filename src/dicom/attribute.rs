//! The attributes that ictus reads of an instance, parsed once; PS3.6 keywords in snake case.
//!
//! An attribute that is absent, empty or unreadable is `None`; whether that is a fault is the reader's business.

use crate::domain::uid::Uid;

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
    /// (0010,0020) and (0010,0021): who this is, for identity checks only.
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
}
