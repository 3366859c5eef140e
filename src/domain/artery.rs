//! The large arteries of the head by their names: what a tree of them is made of.

use super::code::{
    ANTERIOR_CEREBRAL_ARTERY, BASILAR_ARTERY, Code, INTERNAL_CAROTID_ARTERY, MIDDLE_CEREBRAL_M1,
    MIDDLE_CEREBRAL_M2, POSTERIOR_CEREBRAL_ARTERY, VERTEBRAL_ARTERY,
};

/// An artery; paired ones have one name for both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Artery {
    /// The internal carotid from below the skull base to its end.
    InternalCarotid,
    /// The middle cerebral before it divides.
    M1,
    /// The trunks of the middle cerebral over the insula.
    M2,
    /// The anterior cerebral, A1 and A2.
    AnteriorCerebral,
    /// The posterior cerebral, P1 and P2.
    PosteriorCerebral,
    /// The basilar.
    Basilar,
    /// The vertebral within reach of the skull.
    Vertebral,
}

impl Artery {
    /// Every artery.
    pub const ALL: [Self; 7] = [
        Self::InternalCarotid,
        Self::M1,
        Self::M2,
        Self::AnteriorCerebral,
        Self::PosteriorCerebral,
        Self::Basilar,
        Self::Vertebral,
    ];

    /// Its name in plans and results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InternalCarotid => "internal_carotid",
            Self::M1 => "m1",
            Self::M2 => "m2",
            Self::AnteriorCerebral => "anterior_cerebral",
            Self::PosteriorCerebral => "posterior_cerebral",
            Self::Basilar => "basilar",
            Self::Vertebral => "vertebral",
        }
    }

    /// As a coded concept.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::InternalCarotid => INTERNAL_CAROTID_ARTERY,
            Self::M1 => MIDDLE_CEREBRAL_M1,
            Self::M2 => MIDDLE_CEREBRAL_M2,
            Self::AnteriorCerebral => ANTERIOR_CEREBRAL_ARTERY,
            Self::PosteriorCerebral => POSTERIOR_CEREBRAL_ARTERY,
            Self::Basilar => BASILAR_ARTERY,
            Self::Vertebral => VERTEBRAL_ARTERY,
        }
    }
}
