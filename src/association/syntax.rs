//! Which presentation contexts can be accepted: storage SOP classes, and the best of the transfer syntaxes proposed.
//!
//! Instances are stored as they are sent, so every transfer syntax whose dataset can be read is taken, decodable or not.
//! A sender that offers several in one context leaves the choice to us, and may compress or decompress to obey:
//! so nothing lossy is chosen where something else is offered.
//!
//! Source: PS3.4 annexes B.5 and GG.3; PS3.5 section 10 and annex A.

use dicom_encoding::{Codec, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

/// Verification (PS3.4 annex A).
pub const VERIFICATION: &str = "1.2.840.10008.1.1";
/// Storage Commitment Push Model (PS3.4 annex J.3).
pub const STORAGE_COMMITMENT: &str = "1.2.840.10008.1.20.1";
/// Storage Commitment Push Model SOP Instance, the only one (PS3.4 section J.3.5).
pub const STORAGE_COMMITMENT_INSTANCE: &str = "1.2.840.10008.1.20.1.1";
/// Patient Root Query/Retrieve – FIND (PS3.4 section C.6.1.1).
pub const PATIENT_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.1.1";
/// Patient Root Query/Retrieve – MOVE.
pub const PATIENT_ROOT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.1.2";
/// Patient Root Query/Retrieve – GET.
pub const PATIENT_ROOT_GET: &str = "1.2.840.10008.5.1.4.1.2.1.3";
/// Study Root Query/Retrieve – FIND (PS3.4 section C.6.2.1).
pub const STUDY_ROOT_FIND: &str = "1.2.840.10008.5.1.4.1.2.2.1";
/// Study Root Query/Retrieve – MOVE.
pub const STUDY_ROOT_MOVE: &str = "1.2.840.10008.5.1.4.1.2.2.2";
/// Study Root Query/Retrieve – GET.
pub const STUDY_ROOT_GET: &str = "1.2.840.10008.5.1.4.1.2.2.3";

/// Implicit VR Little Endian: what every peer can read.
pub const IMPLICIT: &str = "1.2.840.10008.1.2";
/// Explicit VR Little Endian.
pub const EXPLICIT: &str = "1.2.840.10008.1.2.1";
/// Explicit VR Big Endian (retired).
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
/// Deflated Explicit VR Little Endian.
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";

/// Where the standard keeps its storage SOP classes.
const STORAGE_ROOT: &str = "1.2.840.10008.5.1.4.1.1.";
/// Storage SOP classes elsewhere: hanging protocol, colour palette, implant templates, RT delivery instructions,
/// stored print and hardcopy (retired).
const STORAGE_ELSEWHERE: [&str; 11] = [
    "1.2.840.10008.5.1.4.38.1",
    "1.2.840.10008.5.1.4.39.1",
    "1.2.840.10008.5.1.4.43.1",
    "1.2.840.10008.5.1.4.44.1",
    "1.2.840.10008.5.1.4.45.1",
    "1.2.840.10008.5.1.4.34.1",
    "1.2.840.10008.5.1.4.34.7",
    "1.2.840.10008.5.1.4.34.10",
    "1.2.840.10008.5.1.1.27",
    "1.2.840.10008.5.1.1.29",
    "1.2.840.10008.5.1.1.30",
];
/// Everything of the standard's own is below this.
const STANDARD_ROOT: &str = "1.2.840.10008.";

/// Transfer syntaxes that lose nothing: JPEG Lossless, JPEG-LS, JPEG 2000, RLE, JPEG XL, HTJ2K, deflated frames.
const LOSSLESS: [&str; 14] = [
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.92",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.110",
    "1.2.840.10008.1.2.4.111",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.8.1",
    "1.2.840.10008.1.2.1.98",
    DEFLATED,
    BIG_ENDIAN,
];

/// Queries, in both models.
pub const FIND: [&str; 2] = [STUDY_ROOT_FIND, PATIENT_ROOT_FIND];
/// Retrieval to somebody, in both models.
pub const MOVE: [&str; 2] = [STUDY_ROOT_MOVE, PATIENT_ROOT_MOVE];
/// Retrieval on the same association, in both models.
pub const GET: [&str; 2] = [STUDY_ROOT_GET, PATIENT_ROOT_GET];

/// Whether a SOP class is one of storage: the standard's, and every private one, whose objects are kept all the same.
#[must_use]
pub fn is_storage(sop_class: &str) -> bool {
    let known = sop_class.starts_with(STORAGE_ROOT) || STORAGE_ELSEWHERE.contains(&sop_class);
    known || !sop_class.starts_with(STANDARD_ROOT)
}

/// The transfer syntax to accept for storage: Explicit VR Little Endian, else lossless ones, else Implicit, else lossy
/// ones, decodable before others and the peer's order within.
#[must_use]
pub fn choose_for_storage(proposed: &[String]) -> Option<&str> {
    let rank = |uid: &str| {
        let decodable = TransferSyntaxRegistry
            .get(uid)
            .is_some_and(|syntax| syntax.can_decode_all());
        match uid {
            EXPLICIT => 0,
            IMPLICIT => 2,
            _ => match (LOSSLESS.contains(&uid), decodable) {
                (true, true) => 1,
                (true, false) => 3,
                (false, true) => 4,
                (false, false) => 5,
            },
        }
    };
    proposed
        .iter()
        .map(String::as_str)
        .filter(|uid| is_storable(uid))
        .min_by_key(|uid| rank(uid))
}

/// The transfer syntax to accept for what we send, not receive: what everything can be brought into, before others.
#[must_use]
pub fn choose_for_retrieval(proposed: &[String]) -> Option<&str> {
    choose_for_messages(proposed).or_else(|| choose_for_storage(proposed))
}

/// The transfer syntax to accept for identifiers and other datasets without pixels.
#[must_use]
pub fn choose_for_messages(proposed: &[String]) -> Option<&str> {
    [EXPLICIT, IMPLICIT]
        .into_iter()
        .find(|wanted| proposed.iter().any(|uid| uid == wanted))
}

/// Whether a dataset in this transfer syntax can be read up to its pixels.
fn is_storable(uid: &str) -> bool {
    TransferSyntaxRegistry
        .get(uid)
        .is_some_and(|syntax| match syntax.codec() {
            Codec::Dataset(_) => uid == DEFLATED,
            _ => true,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(proposed: &[&str]) -> Option<String> {
        let proposed: Vec<String> = proposed.iter().map(|uid| (*uid).to_owned()).collect();
        choose_for_storage(&proposed).map(str::to_owned)
    }

    #[test]
    fn takes_every_storage_class_and_no_other() {
        for uid in [
            "1.2.840.10008.5.1.4.1.1.2",
            "1.2.840.10008.5.1.4.1.1.66.4",
            "1.2.840.10008.5.1.4.38.1",
            "1.3.46.670589.5.0.1",
        ] {
            assert!(is_storage(uid), "{uid}");
        }
        for uid in [
            VERIFICATION,
            STUDY_ROOT_FIND,
            STORAGE_COMMITMENT,
            "1.2.840.10008.5.1.4.31",
        ] {
            assert!(!is_storage(uid), "{uid}");
        }
    }

    #[test]
    fn never_chooses_lossy_where_something_else_is_offered() {
        const JPEG: &str = "1.2.840.10008.1.2.4.50";
        assert_eq!(chosen(&[JPEG, IMPLICIT]).as_deref(), Some(IMPLICIT));
        assert_eq!(chosen(&[IMPLICIT, EXPLICIT]).as_deref(), Some(EXPLICIT));
        assert_eq!(chosen(&[JPEG]).as_deref(), Some(JPEG));
        assert_eq!(
            chosen(&[IMPLICIT, "1.2.840.10008.1.2.4.90"]).as_deref(),
            Some("1.2.840.10008.1.2.4.90")
        );
    }

    #[test]
    fn sends_in_what_everything_can_be_brought_into() {
        let proposed = ["1.2.840.10008.1.2.4.90", IMPLICIT].map(str::to_owned);
        assert_eq!(choose_for_retrieval(&proposed), Some(IMPLICIT));
        assert_eq!(
            choose_for_retrieval(&proposed[..1]),
            Some("1.2.840.10008.1.2.4.90")
        );
    }

    #[test]
    fn takes_what_it_cannot_decode_and_not_what_it_cannot_read() {
        assert!(chosen(&["1.2.840.10008.1.2.4.100"]).is_some());
        assert!(chosen(&["1.2.840.10008.1.2.4.51"]).is_some());
        assert_eq!(chosen(&["1.2.840.10008.1.2.4.95"]), None);
        assert_eq!(chosen(&["1.2.3.4"]), None);
    }
}
