//! ASPECTS: how much of a middle cerebral artery's territory shows early ischaemic change → 10 less the regions that do, a side at a time.
//!
//! Source: the regions and the score, Barber et al., doi:10.1016/S0140-6736(00)02237-6.

use super::{code::Code, finding::Side};
use serde::{Deserialize, Serialize};

/// A region of the score; each side has all ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Region {
    /// Caudate nucleus.
    Caudate,
    /// Lentiform nucleus.
    Lentiform,
    /// Internal capsule.
    InternalCapsule,
    /// Insular ribbon.
    Insula,
    /// Anterior cortex at the height of the basal ganglia.
    M1,
    /// Cortex lateral to the insula at that height.
    M2,
    /// Posterior cortex at that height.
    M3,
    /// Anterior cortex above the basal ganglia.
    M4,
    /// Lateral cortex above them.
    M5,
    /// Posterior cortex above them.
    M6,
}

impl Region {
    /// Every region, in the order in which readers list them.
    pub const ALL: [Self; 10] = [
        Self::Caudate,
        Self::Lentiform,
        Self::InternalCapsule,
        Self::Insula,
        Self::M1,
        Self::M2,
        Self::M3,
        Self::M4,
        Self::M5,
        Self::M6,
    ];

    /// Its name in plans and results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Caudate => "caudate",
            Self::Lentiform => "lentiform",
            Self::InternalCapsule => "internal_capsule",
            Self::Insula => "insula",
            Self::M1 => "m1",
            Self::M2 => "m2",
            Self::M3 => "m3",
            Self::M4 => "m4",
            Self::M5 => "m5",
            Self::M6 => "m6",
        }
    }

    /// How readers abbreviate it.
    #[must_use]
    pub fn letters(self) -> &'static str {
        match self {
            Self::Caudate => "C",
            Self::Lentiform => "L",
            Self::InternalCapsule => "IC",
            Self::Insula => "I",
            Self::M1 => "M1",
            Self::M2 => "M2",
            Self::M3 => "M3",
            Self::M4 => "M4",
            Self::M5 => "M5",
            Self::M6 => "M6",
        }
    }

    /// As a coded concept; private, since no standard codes for the cortical regions could be read in a source.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::Caudate => Code::new("aspects-c", "99ICTUS", "ASPECTS region C, caudate nucleus"),
            Self::Lentiform => Code::new("aspects-l", "99ICTUS", "ASPECTS region L, lentiform nucleus"),
            Self::InternalCapsule => {
                Code::new("aspects-ic", "99ICTUS", "ASPECTS region IC, internal capsule")
            }
            Self::Insula => Code::new("aspects-i", "99ICTUS", "ASPECTS region I, insular ribbon"),
            Self::M1 => Code::new("aspects-m1", "99ICTUS", "ASPECTS region M1"),
            Self::M2 => Code::new("aspects-m2", "99ICTUS", "ASPECTS region M2"),
            Self::M3 => Code::new("aspects-m3", "99ICTUS", "ASPECTS region M3"),
            Self::M4 => Code::new("aspects-m4", "99ICTUS", "ASPECTS region M4"),
            Self::M5 => Code::new("aspects-m5", "99ICTUS", "ASPECTS region M5"),
            Self::M6 => Code::new("aspects-m6", "99ICTUS", "ASPECTS region M6"),
        }
    }
}

/// What a reader must know of every score.
pub const LIMITS: &str = "ASPECTS counts what the model saw; 10 does not mean that there is no ischaemia.";
/// Share of a region that must be affected for it to count; our choice: readers take off a point for what they see, and no share is agreed on.
pub const AFFECTED_SHARE: f64 = 0.25;
/// Less than this of a region is not enough to say anything of it, mL.
pub const LEAST_ML: f64 = 0.4;

/// How much of a region is on the scan, and how much of that is affected.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Extent {
    /// All of it, mL.
    pub volume_ml: f64,
    /// What is affected by a strict count, by the one that makes the score, and by a lenient one, mL.
    pub affected_ml: [f64; 3],
}

/// What is said of one region.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RegionReading {
    /// Which.
    pub region: Region,
    /// How much of it was seen, mL.
    pub volume_ml: f64,
    /// Share of it that is affected.
    pub affected_share: f64,
    /// Whether that is enough to take a point off.
    pub affected: bool,
}

/// The score of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideReading {
    /// 10 less the affected regions.
    pub score: u8,
    /// The score by the lenient and by the strict count; the borders of the regions are not doubted in it.
    pub range: [u8; 2],
    /// The ten regions, in the order of [`Region::ALL`].
    pub regions: Vec<RegionReading>,
}

impl SideReading {
    /// The score of a side, from its ten regions in the order of [`Region::ALL`].
    ///
    /// # Errors
    /// The regions that are not on the scan: without all ten there is no score.
    pub fn of(extents: &[Extent; 10]) -> Result<Self, Vec<Region>> {
        let unseen: Vec<Region> = Region::ALL
            .into_iter()
            .zip(extents)
            .filter(|(_, extent)| extent.volume_ml < LEAST_ML)
            .map(|(region, _)| region)
            .collect();
        if !unseen.is_empty() {
            return Err(unseen);
        }
        let is_affected =
            |extent: &Extent, how: usize| extent.affected_ml[how] >= AFFECTED_SHARE * extent.volume_ml;
        let [most, score, least] = [0, 1, 2].map(|how| {
            extents
                .iter()
                .fold(10, |score, extent| score - u8::from(is_affected(extent, how)))
        });
        let regions = Region::ALL
            .into_iter()
            .zip(extents)
            .map(|(region, extent)| RegionReading {
                region,
                volume_ml: extent.volume_ml,
                affected_share: extent.affected_ml[1] / extent.volume_ml,
                affected: is_affected(extent, 1),
            })
            .collect();
        Ok(Self {
            score,
            range: [least, most],
            regions,
        })
    }
}

impl std::fmt::Display for SideReading {
    /// `8 (7 to 9): I, M5`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [least, most] = self.range;
        write!(f, "{} ({least} to {most})", self.score)?;
        let affected = self.regions.iter().filter(|reading| reading.affected);
        let letters: Vec<&str> = affected.map(|reading| reading.region.letters()).collect();
        if letters.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", letters.join(", "))
    }
}

/// The scores of a head.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Aspects {
    /// The patient's left; null where a region of it is not on the scan.
    pub left: Option<SideReading>,
    /// The patient's right; the same.
    pub right: Option<SideReading>,
}

impl Aspects {
    /// Both sides.
    #[must_use]
    pub fn sides(&self) -> [(Side, Option<&SideReading>); 2] {
        [
            (Side::Left, self.left.as_ref()),
            (Side::Right, self.right.as_ref()),
        ]
    }

    /// A line for each side: `ASPECTS left 8 (7 to 9): I, M5`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.sides().into_iter().map(|(side, reading)| {
            let said = reading.map_or_else(|| "not told".to_owned(), ToString::to_string);
            format!("ASPECTS {} {said}", side.name())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_goes_for_each_region_of_which_enough_is_affected_and_the_range_is_ordered() {
        let mut extents = [Extent {
            volume_ml: 4.0,
            affected_ml: [0.0, 0.0, 0.9],
        }; 10];
        extents[3].affected_ml = [0.5, 1.0, 2.0];
        extents[8].affected_ml = [2.0, 2.0, 3.0];
        let reading = SideReading::of(&extents).unwrap();
        assert_eq!((reading.score, reading.range), (8, [8, 9]));
        assert_eq!(reading.to_string(), "8 (8 to 9): I, M5");
        assert_eq!(reading.regions[3].affected_share, 0.25);
        let aspects = Aspects {
            left: Some(reading),
            right: None,
        };
        let lines: Vec<String> = aspects.lines().collect();
        assert_eq!(
            lines,
            ["ASPECTS left 8 (8 to 9): I, M5", "ASPECTS right not told"]
        );
        let whole = SideReading::of(
            &[Extent {
                volume_ml: 4.0,
                affected_ml: [0.0; 3],
            }; 10],
        )
        .unwrap();
        assert_eq!(whole.to_string(), "10 (10 to 10)");
    }

    #[test]
    fn a_side_of_which_a_region_is_not_on_the_scan_has_no_score() {
        let mut extents = [Extent {
            volume_ml: 4.0,
            affected_ml: [0.0; 3],
        }; 10];
        extents[7].volume_ml = 0.3;
        assert_eq!(SideReading::of(&extents), Err(vec![Region::M4]));
    }
}
