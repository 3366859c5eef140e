//! A recorded analysis → the same analysis again, and whether it says the same to the last bit.
//!
//! The trail says what was made (a SHA-256 a result) and of what (the identity); archive and index only lend the bytes, and each is held to its digest.
//! So a replay shows three things at once: nobody changed the images, nobody changed the results, and the machine still answers as it did then.
//! It stores nothing but its own row in the trail.
//! It refuses where it could not mean anything: with other models, by another method or on another numeric mode, whose last bits may differ.

use super::{Analyser, PreviousReport, Request, identity};
use crate::{
    archive::{Archive, ArchiveError},
    db::{Db, audit::Act, error::DbError, removal::Removal},
    dicom::{enhanced, instance::Instance},
    domain::{
        failure::FailureClass,
        network::Control,
        phi::{Redacted, redact},
        uid::Uid,
    },
};
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use uuid::Uuid;

/// Why an analysis cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The database failed.
    #[error("the record of the analysis cannot be read")]
    Db(#[from] DbError),
    /// The archive failed, or no longer holds what it was given.
    #[error("the archive does not hold what was analysed")]
    Archive(#[from] ArchiveError),
    /// No analysis of that name.
    #[error("no analysis is called {0}; `ictus audit export` names them in its `analyse` rows")]
    Unknown(Uuid),
    /// It has no results.
    #[error("analysis {analysis} is {state}; only a complete one has results to be compared")]
    Incomplete {
        /// Which.
        analysis: Uuid,
        /// Its state.
        state: String,
    },
    /// What it was made of is gone.
    #[error(
        "{what} was removed at {at} by {by} ({reason}): its bytes are gone, so the analysis cannot be run again; \
         the trail says what it was"
    )]
    Removed {
        /// The analysis, or an instance.
        what: String,
        /// When.
        at: String,
        /// By whom.
        by: String,
        /// Reason code.
        reason: String,
    },
    /// Its row in the trail is missing or does not say what it should.
    #[error("the trail has no readable row that says what analysis {0} made")]
    NoTrail(Uuid),
    /// An instance is not what was stored.
    #[error("instance {sop_instance_uid} in the archive is not the one that is on record")]
    Changed {
        /// Which.
        sop_instance_uid: String,
    },
    /// An instance cannot be read.
    #[error("an archived instance cannot be read")]
    Unreadable(#[source] Redacted),
    /// Other models, another calibration, or another kind of processor.
    #[error(
        "the analysis was made with {recorded}; what runs here is not that, and its last bits may differ: \
         replay it with the same version, models, --also and numeric mode"
    )]
    OtherModels {
        /// Models and numeric modes by the trail.
        recorded: String,
    },
    /// The instances on record do not make the identity in the trail.
    #[error(
        "the instances on record do not make the identity in row {0} of the trail: an instance was added, taken away or quarantined since"
    )]
    OtherInstances(i64),
    /// The analysis failed this time.
    #[error("the analysis failed when it was run again: {0}")]
    Failed(#[from] super::Failure),
}

impl ReplayError {
    /// What the caller does about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Db(error) => error.class(),
            Self::Archive(error) => error.class(),
            Self::Failed(failure) => failure.class,
            _ => FailureClass::Input,
        }
    }
}

fn removed(what: String, removal: Removal) -> ReplayError {
    let Removal { by, at, reason } = removal;
    ReplayError::Removed { what, at, by, reason }
}

/// What the trail says of an analysis.
#[derive(Debug, Deserialize)]
struct Detail {
    identity: String,
    models: Vec<ModelDetail>,
    results: Vec<ResultDetail>,
}

#[derive(Debug, Deserialize)]
struct ModelDetail {
    id: String,
    version: String,
    numeric_mode: String,
}

#[derive(Debug, Deserialize)]
struct ResultDetail {
    role: String,
    sop_instance_uid: String,
    sha256: String,
}

/// A complete analysis with all that it was made of.
#[derive(Debug)]
pub struct Recorded {
    analysis: Uuid,
    study: Uid,
    identity: [u8; 32],
    created_at: OffsetDateTime,
    model_digest: Vec<u8>,
    calibration_digest: Vec<u8>,
    seq: i64,
    detail: Detail,
    sources: Vec<Instance>,
    results: Vec<Instance>,
}

/// What came of one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same bytes, tag for tag.
    Identical,
    /// Made again, with other content.
    Differs,
    /// In the trail, and not made again.
    NotMade,
    /// Made now, and not in the trail.
    NotRecorded,
}

/// A result then and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// What it is to its analysis, as `seg`; empty for what is not in the trail.
    pub role: String,
    /// SOPInstanceUID.
    pub sop_instance_uid: String,
    /// Whether it is the same.
    pub verdict: Verdict,
}

/// A replay and what it showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The analysis.
    pub analysis: Uuid,
    /// Its study.
    pub study: Uid,
    /// Source instances, each held to its digest.
    pub sources: usize,
    /// Results then and now.
    pub results: Vec<Compared>,
}

impl Recorded {
    /// Reads an analysis, its images and its results, and holds each to its digest.
    ///
    /// # Errors
    /// When there is none, or something is not what is on record.
    pub async fn read(db: &Db, archive: &Archive, analysis: Uuid) -> Result<Self, ReplayError> {
        let row = db
            .recorded_analysis(analysis)
            .await?
            .ok_or(ReplayError::Unknown(analysis))?;
        if let Some(removal) = row.removal {
            return Err(removed(format!("what analysis {analysis} looked at"), removal.0));
        }
        if row.state != "complete" {
            let state = row.state;
            return Err(ReplayError::Incomplete { analysis, state });
        }
        let trail = db
            .audit_of_analysis(analysis)
            .await?
            .ok_or(ReplayError::NoTrail(analysis))?;
        let detail: Detail =
            serde_json::from_str(&trail.detail).map_err(|_| ReplayError::NoTrail(analysis))?;
        let study = Uid::parse(&row.study_instance_uid).map_err(|_| ReplayError::NoTrail(analysis))?;
        let instances = db.recorded_instances(analysis).await?;
        let usable: Vec<_> = instances
            .iter()
            .filter(|i| i.role != "source" || i.conflict.is_none())
            .collect();
        let gone = usable.iter().find_map(|i| Some((*i, i.removal.clone()?)));
        if let Some((instance, removal)) = gone {
            return Err(removed(
                format!("instance {}", instance.sop_instance_uid),
                removal.0,
            ));
        }
        let keys = usable.iter().map(|i| i.archive_key.clone()).collect();
        let (mut sources, mut results, mut digests) = (Vec::new(), Vec::new(), Vec::new());
        for (record, file) in usable.iter().zip(archive.read_all(keys).await?) {
            let instance =
                Instance::from_bytes(&file).map_err(|error| ReplayError::Unreadable(redact(&error)))?;
            // For a result the trail has the last word, for an image the identity below.
            let expected = match detail
                .results
                .iter()
                .find(|r| r.sop_instance_uid == record.sop_instance_uid)
            {
                Some(result) => result.sha256.clone(),
                None => hex::encode(&record.digest),
            };
            if !instance.has_digest(&expected) {
                return Err(ReplayError::Changed {
                    sop_instance_uid: record.sop_instance_uid.clone(),
                });
            }
            if record.role == "source" {
                digests.push(record.digest.as_slice());
                sources.extend(enhanced::slices(instance));
            } else {
                results.push(instance);
            }
        }
        let identity = identity(&study, digests, &row.model_digest, &row.calibration_digest);
        if hex::encode(identity) != detail.identity {
            return Err(ReplayError::OtherInstances(trail.seq));
        }
        Ok(Self {
            analysis,
            study,
            identity,
            created_at: row.created_at,
            model_digest: row.model_digest.clone(),
            calibration_digest: row.calibration_digest.clone(),
            seq: trail.seq,
            detail,
            sources,
            results,
        })
    }

    /// The results as they are stored.
    #[must_use]
    pub fn results(&self) -> &[Instance] {
        &self.results
    }

    /// The row of the trail that says what was made.
    #[must_use]
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// Runs the analysis again and compares; blocks.
    ///
    /// # Errors
    /// When the analyser is another, or fails.
    pub fn replay(&self, analyser: &dyn Analyser, control: &dyn Control) -> Result<Replay, ReplayError> {
        if analyser.model_digest() != self.model_digest
            || analyser.calibration_digest() != self.calibration_digest
        {
            let models = self.detail.models.iter();
            let named = models.map(|m| format!("{} {} on {}", m.id, m.version, m.numeric_mode));
            return Err(ReplayError::OtherModels {
                recorded: named.collect::<Vec<_>>().join(", "),
            });
        }
        let request = Request {
            analysis_key: self.identity,
            created_at: self.created_at,
            previous_report: self.results.iter().find_map(predecessor),
        };
        let output = analyser.analyse(&self.sources, &request, control)?;
        let mut made = BTreeMap::new();
        for object in output.objects {
            let instance =
                Instance::from_object(object).map_err(|error| ReplayError::Unreadable(redact(&error)))?;
            let uid = instance.attributes.sop_instance_uid.as_ref();
            made.insert(uid.map(Uid::to_string).unwrap_or_default(), instance);
        }
        let mut results: Vec<_> = self
            .detail
            .results
            .iter()
            .map(|recorded| Compared {
                role: recorded.role.clone(),
                sop_instance_uid: recorded.sop_instance_uid.clone(),
                verdict: match made.remove(&recorded.sop_instance_uid) {
                    Some(made) if made.has_digest(&recorded.sha256) => Verdict::Identical,
                    Some(_) => Verdict::Differs,
                    None => Verdict::NotMade,
                },
            })
            .collect();
        results.extend(made.into_keys().map(|sop_instance_uid| Compared {
            role: String::new(),
            sop_instance_uid,
            verdict: Verdict::NotRecorded,
        }));
        Ok(Replay {
            analysis: self.analysis,
            study: self.study.clone(),
            sources: self.sources.len(),
            results,
        })
    }
}

impl Replay {
    /// Results that are the same.
    #[must_use]
    pub fn identical(&self) -> usize {
        let same = |r: &&Compared| r.verdict == Verdict::Identical;
        self.results.iter().filter(same).count()
    }

    /// Whether every result is the same and none is missing or new.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.results.is_empty() && self.identical() == self.results.len()
    }

    /// Writes what was shown into the trail.
    ///
    /// # Errors
    /// When it cannot be recorded.
    pub async fn record(&self, db: &Db, principal: &str) -> Result<(), ReplayError> {
        let detail = json!({
            "analysis": self.analysis,
            "sources": self.sources,
            "results": self.results.len(),
            "identical": self.identical(),
        });
        let act = Act {
            principal,
            act: "replay",
            studies: vec![self.study.to_string()],
            detail,
        };
        Ok(db.audit_act(&act).await?)
    }
}

/// The report that a report says it replaces.
fn predecessor(result: &Instance) -> Option<PreviousReport> {
    let first = |object: &InMemDicomObject, tag: Tag| object.get(tag)?.items()?.first().cloned();
    let uid = |object: &InMemDicomObject, tag: Tag| Uid::parse(&object.get(tag)?.to_str().ok()?).ok();
    let study = first(&result.object, tags::PREDECESSOR_DOCUMENTS_SEQUENCE)?;
    let series = first(&study, tags::REFERENCED_SERIES_SEQUENCE)?;
    let report = first(&series, tags::REFERENCED_SOP_SEQUENCE)?;
    Some(PreviousReport {
        series_instance_uid: uid(&series, tags::SERIES_INSTANCE_UID)?,
        sop_instance_uid: uid(&report, tags::REFERENCED_SOP_INSTANCE_UID)?,
    })
}
