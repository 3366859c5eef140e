//! The coded concepts that only the results speak.
//!
//! DICOM has no codes for ensemble scores or predictive entropy: those are private, under `99ICTUS`, with meanings that a reader understands without a dictionary.
//!
//! Source: PS3.16 annex D (DCM) and the templates named beside each code.

use crate::domain::code::Code;

/// The scheme of the private codes.
pub(super) const SCHEME: &str = "99ICTUS";
/// What Coding Scheme Identification Sequence says of it.
pub(super) const SCHEME_NAME: &str = "Private codes of ictus for scores and uncertainty";

/// Declares coded concepts, one a line.
macro_rules! concepts {
    ($($name:ident = $value:literal, $scheme:expr, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub(super) const $name: Code = Code::new($value, $scheme, $meaning);)*
    };
}

concepts! {
    // Purposes and derivations (CID 7005, 7162, 7202, 7203)
    ACQUISITION_EQUIPMENT = "109101", "DCM", "Acquisition Equipment";
    PROCESSING_EQUIPMENT = "109102", "DCM", "Processing Equipment";
    ARTIFICIAL_INTELLIGENCE = "123110", "DCM", "Artificial Intelligence";
    SOURCE_IMAGE = "121322", "DCM", "Source image for image processing operation";
    SEGMENTATION = "113076", "DCM", "Segmentation";
    // Parametric map (CID 7180 leaves quantities to the writer)
    QUANTITY = "246205007", "SCT", "Quantity";
    ENTROPY = "entropy", SCHEME, "Normalized predictive entropy, 0 to 1";
    SCORE = "score", SCHEME, "Mean foreground score of an ensemble, 0 to 1, not calibrated";
    MUTUAL_INFORMATION = "mutual-info", SCHEME, "Normalized mutual information of label and member, 0 to 1";
    VARIANCE = "variance", SCHEME, "Variance of the members' foreground score";
    ENTROPY_DERIVATION = "ensemble-entropy", SCHEME, "Predictive entropy of an ensemble of networks";
    SCORE_DERIVATION = "ensemble-score", SCHEME, "Mean score of an ensemble of networks";
    SPREAD_DERIVATION = "ensemble-spread", SCHEME, "Disagreement of the members of an ensemble of networks";
    // Units
    NO_UNITS = "1", "UCUM", "no units";
    MILLILITRE = "ml", "UCUM", "milliliter";
    MILLIMETRE = "mm", "UCUM", "millimeter";
    // TID 1204, 1001, 1500
    REPORT = "126000", "DCM", "Imaging Measurement Report";
    LANGUAGE = "121049", "DCM", "Language of Content Item and Descendants";
    ENGLISH = "en", "RFC5646", "English";
    OBSERVER_TYPE = "121005", "DCM", "Observer Type";
    DEVICE = "121007", "DCM", "Device";
    DEVICE_UID = "121012", "DCM", "Device Observer UID";
    DEVICE_NAME = "121013", "DCM", "Device Observer Name";
    DEVICE_MANUFACTURER = "121014", "DCM", "Device Observer Manufacturer";
    DEVICE_MODEL = "121015", "DCM", "Device Observer Model Name";
    PROCEDURE_REPORTED = "121058", "DCM", "Procedure reported";
    COMPUTED_TOMOGRAPHY = "77477000", "SCT", "Computed tomography";
    IMAGING_MEASUREMENTS = "126010", "DCM", "Imaging Measurements";
    QUALITATIVE_EVALUATIONS = "C0034375", "UMLS", "Qualitative Evaluations";
    COMMENT = "121106", "DCM", "Comment";
    // TID 1411, 1419, 1501, 4019, 4108
    MEASUREMENT_GROUP = "125007", "DCM", "Measurement Group";
    TRACKING_IDENTIFIER = "112039", "DCM", "Tracking Identifier";
    TRACKING_UID = "112040", "DCM", "Tracking Unique Identifier";
    FINDING_CATEGORY = "276214006", "SCT", "Finding category";
    FINDING = "121071", "DCM", "Finding";
    FINDING_SITE = "363698007", "SCT", "Finding Site";
    LATERALITY = "272741003", "SCT", "Laterality";
    BILATERAL = "51440002", "SCT", "Right and left";
    ALGORITHM_NAME = "111001", "DCM", "Algorithm Name";
    ALGORITHM_VERSION = "111003", "DCM", "Algorithm Version";
    ALGORITHM_PARAMETERS = "111002", "DCM", "Algorithm Parameters";
    VOLUME = "118565006", "SCT", "Volume";
    REFERENCED_SEGMENT = "121191", "DCM", "Referenced Segment";
    SOURCE_SERIES = "121232", "DCM", "Source Series for Segmentation";
    SOURCE_OF_MEASUREMENT = "121112", "DCM", "Source of Measurement";
    // TID 2010, CID 7010
    OF_INTEREST = "113000", "DCM", "Of Interest";
    KEY_OBJECT_DESCRIPTION = "113012", "DCM", "Key Object Description";
    // Label maps (CID 7150 leaves the background to the writer)
    BACKGROUND = "125040", "DCM", "Background";
    // Ours
    MEAN_SCORE = "mean-score", SCHEME, "Mean ensemble score, 0 to 1, not calibrated";
    MEAN_ENTROPY = "mean-entropy", SCHEME, "Mean normalized predictive entropy, 0 to 1";
    CASE_SCORE = "case-score", SCHEME, "Case score, 0 to 1, not calibrated";
    CASE_DISAGREEMENT = "disagreement", SCHEME, "Disagreement of the ensemble, 0 to 1";
    PROBABILITY = "probability", SCHEME, "Calibrated probability, 0 to 1";
    ABC2 = "abc-2", SCHEME, "Volume estimated as ABC/2";
    VOLUME_LOWER = "volume-lower", SCHEME, "Lower end of the volume interval";
    VOLUME_UPPER = "volume-upper", SCHEME, "Upper end of the volume interval";
    MIDLINE_SHIFT = "midline-shift", SCHEME, "Midline shift, positive towards the patient's left";
    MIDLINE_LOWER = "midline-lower", SCHEME, "Lower end of the midline shift's interval";
    MIDLINE_UPPER = "midline-upper", SCHEME, "Upper end of the midline shift's interval";
    ASPECTS = "aspects", SCHEME, "ASPECTS of this side, 0 to 10";
    ASPECTS_LOWER = "aspects-lower", SCHEME, "ASPECTS when voxels count from a score of 0.15";
    ASPECTS_UPPER = "aspects-upper", SCHEME, "ASPECTS when voxels count from a score of 0.5";
    AFFECTED_REGION = "affected-region", SCHEME, "Affected region of ASPECTS";
    FLAGGED = "flagged", SCHEME, "flagged";
    NOT_FLAGGED = "not-flagged", SCHEME, "not flagged";
    UNCERTAIN = "uncertain", SCHEME, "uncertain";
    NOT_EVALUATED = "not-evaluated", SCHEME, "not evaluated";
    LIMITS = "limits", SCHEME, "Limits of use";
    ABSENCE = "absence", SCHEME, "What not flagged means";
    REFUSAL = "refusal", SCHEME, "Not done, and why";
    WARNING = "warning", SCHEME, "Warning about the input";
}

/// The name of a clinical question: its answer stands beside it.
///
/// A Code Value has 16 characters, so that a long question is cut; its meaning is not.
pub(super) fn question(question: &str) -> Code {
    Code {
        value: format!("q-{question}")
            .chars()
            .take(16)
            .collect::<String>()
            .into(),
        scheme: SCHEME.into(),
        meaning: format!("Answer for {question}")
            .chars()
            .take(64)
            .collect::<String>()
            .into(),
    }
}
