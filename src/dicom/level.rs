//! Which attributes belong to a patient, a study or a series, so that they are the same for all that is below.
//!
//! Attributes that are in neither list belong to the instance.
//!
//! Source: PS3.3 sections C.7.1.1, C.7.1.3, C.7.2.1, C.7.2.2, C.7.3.1, C.7.4.1 and C.7.5.1; PS3.4 section C.6.

use dicom_core::Tag;

/// Levels of the query/retrieve model, the highest first (PS3.4 section C.6.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Patient; only in the patient root model.
    Patient,
    /// Study.
    Study,
    /// Series.
    Series,
    /// Composite object instance.
    Image,
}

/// Groups and elements of the study that are not in group 0010.
const STUDY: [(u16, u16); 22] = [
    (0x0008, 0x0020),
    (0x0008, 0x0030),
    (0x0008, 0x0050),
    (0x0008, 0x0051),
    (0x0008, 0x0090),
    (0x0008, 0x0096),
    (0x0008, 0x009C),
    (0x0008, 0x0201),
    (0x0008, 0x1030),
    (0x0008, 0x1032),
    (0x0008, 0x1048),
    (0x0008, 0x1049),
    (0x0008, 0x1060),
    (0x0008, 0x1062),
    (0x0008, 0x1080),
    (0x0008, 0x1110),
    (0x0012, 0x0062),
    (0x0012, 0x0063),
    (0x0012, 0x0064),
    (0x0020, 0x000D),
    (0x0020, 0x0010),
    (0x0032, 0x1032),
];
/// Of group 0010, what is said of the patient on the day of the study (PS3.3 section C.7.2.2).
const STUDY_OF_PATIENT: [u16; 13] = [
    0x1010, 0x1020, 0x1021, 0x1022, 0x1023, 0x1024, 0x1030, 0x2000, 0x2110, 0x2180, 0x21A0, 0x21B0, 0x21C0,
];
const SERIES: [(u16, u16); 31] = [
    (0x0008, 0x0021),
    (0x0008, 0x0031),
    (0x0008, 0x0060),
    (0x0008, 0x0068),
    (0x0008, 0x0070),
    (0x0008, 0x0080),
    (0x0008, 0x0081),
    (0x0008, 0x1010),
    (0x0008, 0x103E),
    (0x0008, 0x103F),
    (0x0008, 0x1040),
    (0x0008, 0x1050),
    (0x0008, 0x1070),
    (0x0008, 0x1090),
    (0x0008, 0x1111),
    (0x0018, 0x0015),
    (0x0018, 0x1000),
    (0x0018, 0x1020),
    (0x0018, 0x1030),
    (0x0018, 0x5100),
    (0x0020, 0x000E),
    (0x0020, 0x0011),
    (0x0020, 0x0052),
    (0x0020, 0x0060),
    (0x0020, 0x1040),
    (0x0040, 0x0244),
    (0x0040, 0x0245),
    (0x0040, 0x0253),
    (0x0040, 0x0254),
    (0x0040, 0x0275),
    (0x0040, 0x1001),
];

/// The level of an attribute: it is known from that level down.
#[must_use]
pub fn of(tag: Tag) -> Level {
    let pair = (tag.group(), tag.element());
    if STUDY.contains(&pair) || pair.0 == 0x0010 && STUDY_OF_PATIENT.contains(&pair.1) {
        Level::Study
    } else if SERIES.contains(&pair) {
        Level::Series
    } else if pair.0 == 0x0010 {
        Level::Patient
    } else {
        Level::Image
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_dictionary_std::tags;

    #[test]
    fn an_attribute_is_known_from_its_level_down() {
        assert_eq!(of(tags::PATIENT_BIRTH_DATE), Level::Patient);
        assert_eq!(of(tags::PATIENT_AGE), Level::Study);
        assert_eq!(of(tags::ACCESSION_NUMBER), Level::Study);
        assert_eq!(of(tags::BODY_PART_EXAMINED), Level::Series);
        assert_eq!(of(tags::ROWS), Level::Image);
        assert!(Level::Patient < Level::Study && Level::Series < Level::Image);
    }
}
