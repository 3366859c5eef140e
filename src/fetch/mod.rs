//! Studies that arrive → their priors and missing series, fetched by rule from a PACS or an archive.
//!
//! What comes goes through the same door as everything else (`receive`) and is judged there: a result of ours that comes
//! back with a prior is recognised by its UID and neither analysed nor sent on.
//! A prior is stored to be looked at: it is not analysed unless its rule says so, and no rule is for it, so that priors
//! of priors are never asked for.
//! A study of which only the latest images are here, the others having been evicted, cannot be analysed: a rule for missing
//! series gets the others.
//! What is asked for is noted before it is, and a rule asks for so much an hour and no more.
//! A rule works on one study at a time, and a source that is away holds up its own rule only.
//!
//! Source: PS3.4 annex C; PS3.18 sections 10.4 and 10.6; IHE RAD TF-2 4.16 (priors by rule).

mod dimse;
mod rule;
mod web;

pub use rule::{Rule, RuleError, Source, What, parse};

use crate::{
    db::{
        Db,
        audit::Act,
        fetch::{Asked, Claimed, Trigger},
        qido::Filter,
    },
    domain::{
        failure::FailureClass,
        phi::{Redacted, redact},
        uid::Uid,
    },
    receive::Receiver,
};
use serde_json::json;
use std::{future::Future, sync::Arc, time::Duration};
use time::{Date, macros::format_description};
use tokio::sync::watch;

/// Who acts in the audit trail.
const PRINCIPAL: &str = "ictus";
/// Answers to a search that are looked at.
const MOST_ANSWERS: usize = 500;

/// Why something could not be fetched now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The database.
    #[error("what is to be fetched cannot be read or noted")]
    Db(#[from] crate::db::error::DbError),
    /// The archive or the database, with an instance in hand.
    #[error("what came could not be stored")]
    Receive(#[from] crate::receive::ReceiveError),
    /// The association.
    #[error("the source could not be asked")]
    Association(#[from] crate::association::AssociationError),
    /// HTTP.
    #[error("the source could not be asked over HTTP")]
    Http(#[source] Redacted),
    /// It answered something that cannot be used.
    #[error("the source {0}")]
    Answer(String),
}

impl FetchError {
    /// What is done about it: everything is tried again.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        FailureClass::Transient
    }
}

/// How fast things happen.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// New studies are looked for.
    pub poll: Duration,
    /// Nothing has come for a study for so long before its missing series are asked for.
    pub settled: Duration,
    /// How long a rule waits that has asked for all it may in an hour.
    pub pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(2),
            settled: Duration::from_secs(30),
            pause: Duration::from_secs(60),
        }
    }
}

/// The service that fetches; clones share everything.
#[derive(Debug, Clone)]
pub struct Fetcher {
    db: Db,
    receiver: Receiver,
    /// Our application entity title.
    title: String,
    rules: Arc<[Rule]>,
    timing: Timing,
    client: reqwest::Client,
}

/// A study that a source has.
#[derive(Debug, Clone, Default)]
struct StudyFound {
    study_instance_uid: String,
    patient_id: String,
    issuer_of_patient_id: Option<String>,
    study_date: Option<String>,
}

/// A series that a source has.
#[derive(Debug, Clone, Default)]
struct SeriesFound {
    series_instance_uid: String,
    modality: Option<String>,
    body_part: Option<String>,
    instances: Option<i64>,
}

/// What priors are searched by.
#[derive(Debug, Clone)]
struct Search {
    patient_id: String,
    modality: Option<String>,
    /// First and last StudyDate.
    from: String,
    to: String,
}

impl Fetcher {
    /// A fetcher that has not asked for anything yet.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(
        db: Db,
        receiver: Receiver,
        title: &str,
        rules: Vec<Rule>,
        timing: Timing,
    ) -> Result<Self, FetchError> {
        Ok(Self {
            db,
            receiver,
            title: title.to_owned(),
            rules: rules.into(),
            timing,
            client: web::client()?,
        })
    }

    /// Fetches until `stop`; what is under way is finished.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) {
        let (stopping, stopped) = watch::channel(false);
        let loops: Vec<_> = (0..self.rules.len())
            .map(|index| {
                let (fetcher, stopped) = (self.clone(), stopped.clone());
                tokio::spawn(async move { fetcher.serve(index, stopped).await })
            })
            .collect();
        stop.await;
        // Without a rule nobody listens.
        let _told = stopping.send(true);
        for one in loops {
            if one.await.is_err() {
                tracing::error!("the loop of a rule for fetching ended early; this is a fault of ictus");
            }
        }
    }

    async fn serve(&self, index: usize, mut stopped: watch::Receiver<bool>) {
        let rule = &self.rules[index];
        let mut is_known = false;
        while !*stopped.borrow() {
            let did = async {
                if !is_known {
                    self.db.know_fetch_rule(&rule.name).await?;
                    is_known = true;
                }
                self.once(rule).await
            };
            match did.await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %redact(&error), "a rule for fetching cannot be followed; it is tried again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.timing.poll) => {}
                _ = stopped.changed() => {}
            }
        }
    }

    /// Works on one study; false when none is due.
    async fn once(&self, rule: &Rule) -> Result<bool, FetchError> {
        let trigger = Trigger {
            rule: &rule.name,
            modality: rule.when_modality.as_deref(),
            body_part: rule.when_body_part.as_deref(),
            settled: match rule.what {
                What::Priors => Duration::ZERO,
                What::Missing => self.timing.settled,
            },
        };
        self.db.file_fetches(&trigger).await?;
        if rule.what == What::Missing {
            self.db.file_restores(&trigger).await?;
        }
        let Some(claimed) = self.db.claim_fetch(&rule.name).await? else {
            return Ok(false);
        };
        let fetched = match rule.what {
            What::Priors => self.priors(rule, &claimed).await,
            What::Missing => self.missing(rule, &claimed).await,
        };
        match fetched {
            Ok(true) => self.db.end_fetch(claimed.id, None).await?,
            Ok(false) => self.db.postpone_fetch(claimed.id, self.timing.pause).await?,
            Err(error) => {
                let why = redact(&error).to_string();
                tracing::warn!(
                    study_instance_uid = claimed.study_instance_uid,
                    error = why,
                    "something could not be fetched; it is tried again later"
                );
                self.db.end_fetch(claimed.id, Some(&why)).await?;
            }
        }
        Ok(true)
    }

    /// Fetches the earlier studies of a patient; false when the rule must wait.
    async fn priors(&self, rule: &Rule, claimed: &Claimed) -> Result<bool, FetchError> {
        let Some(search) = search(rule, claimed) else {
            return Ok(true);
        };
        let mut found: Vec<StudyFound> = self
            .studies(rule, &search)
            .await?
            .into_iter()
            .filter(|study| is_prior(study, claimed, &search))
            .collect();
        found.sort_by(|a, b| b.study_date.cmp(&a.study_date));
        let mut taken = 0;
        for study in found {
            if taken >= rule.most {
                break;
            }
            let Ok(uid) = Uid::parse(&study.study_instance_uid) else {
                continue;
            };
            if !self.has_wanted_series(rule, &uid).await? {
                continue;
            }
            taken += 1;
            if self.is_here(&uid).await? {
                continue;
            }
            if !self.retrieve(rule, claimed, &uid, None).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Fetches the series of a study that did not come, or whose files were evicted; false when the rule must wait.
    async fn missing(&self, rule: &Rule, claimed: &Claimed) -> Result<bool, FetchError> {
        let Ok(study) = Uid::parse(&claimed.study_instance_uid) else {
            return Ok(true);
        };
        let here = self.db.find_series(&Filter::exactly(&study, None, None)).await?;
        let evicted = self.db.evicted_series(&study).await?;
        for series in self.series(rule, &study).await? {
            let is_here = here.iter().any(|row| {
                row.series_instance_uid == series.series_instance_uid
                    && !evicted.contains(&row.series_instance_uid)
                    && series.instances.is_none_or(|count| row.instance_count >= count)
            });
            let Ok(uid) = Uid::parse(&series.series_instance_uid) else {
                continue;
            };
            if is_wanted(rule, &series)
                && !is_here
                && !self.retrieve(rule, claimed, &study, Some(&uid)).await?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a study has a series that the rule wants: not every source matches by what it was asked.
    async fn has_wanted_series(&self, rule: &Rule, study: &Uid) -> Result<bool, FetchError> {
        if rule.modality.is_none() && rule.body_part.is_none() {
            return Ok(true);
        }
        let series = self.series(rule, study).await?;
        Ok(series.iter().any(|series| is_wanted(rule, series)))
    }

    async fn is_here(&self, study: &Uid) -> Result<bool, FetchError> {
        let filter = Filter {
            limit: Some(1),
            ..Filter::exactly(study, None, None)
        };
        Ok(!self.db.find_series(&filter).await?.is_empty())
    }

    async fn studies(&self, rule: &Rule, search: &Search) -> Result<Vec<StudyFound>, FetchError> {
        match &rule.source {
            Source::Move(peer) | Source::Get(peer) => dimse::studies(peer, &self.title, search).await,
            Source::Web { base, token_file } => {
                web::studies(&self.client, (base, token_file.as_deref()), search).await
            }
        }
    }

    async fn series(&self, rule: &Rule, study: &Uid) -> Result<Vec<SeriesFound>, FetchError> {
        match &rule.source {
            Source::Move(peer) | Source::Get(peer) => dimse::series(peer, &self.title, study).await,
            Source::Web { base, token_file } => {
                web::series(&self.client, (base, token_file.as_deref()), study).await
            }
        }
    }

    /// Asks for a study or a series, if the rule may now.
    async fn retrieve(
        &self,
        rule: &Rule,
        claimed: &Claimed,
        study: &Uid,
        series: Option<&Uid>,
    ) -> Result<bool, FetchError> {
        let hour = Duration::from_secs(3600);
        if self.db.fetched_within(&rule.name, hour).await? >= rule.per_hour {
            return Ok(false);
        }
        let asked = Asked {
            rule: &rule.name,
            study: study.as_str(),
            series: series.map(Uid::as_str),
            analyse: rule.analyse,
        };
        self.db.note_fetched(&asked).await?;
        let instances = match &rule.source {
            Source::Move(peer) => dimse::move_here(peer, &self.title, study, series).await?,
            Source::Get(peer) => dimse::get(peer, &self.title, &self.receiver, study, series).await?,
            Source::Web { base, token_file } => {
                let from = (base, token_file.as_deref());
                web::get(&self.client, from, &self.receiver, study, series).await?
            }
        };
        let act = Act {
            principal: PRINCIPAL,
            act: "fetch",
            studies: vec![claimed.study_instance_uid.clone(), study.to_string()],
            detail: json!({
                "rule": rule.name, "for": claimed.study_instance_uid, "series_instance_uid": series,
                "instances": instances,
            }),
        };
        self.db.audit_act(&act).await?;
        Ok(true)
    }
}

/// Whether a series is what a rule wants; what the source does not say of it is taken to fit.
fn is_wanted(rule: &Rule, series: &SeriesFound) -> bool {
    let fits = |wanted: &Option<String>, found: &Option<String>| match (wanted, found) {
        (Some(wanted), Some(found)) => found.eq_ignore_ascii_case(wanted),
        _ => true,
    };
    fits(&rule.modality, &series.modality) && fits(&rule.body_part, &series.body_part)
}

/// What to search by; `None` when the study says too little, or its PatientID is no literal one.
fn search(rule: &Rule, claimed: &Claimed) -> Option<Search> {
    let day = format_description!("[year][month][day]");
    let to = Date::parse(claimed.study_date.as_deref()?, day).ok()?;
    let days = i64::try_from(rule.within_days).ok()?;
    let from = to.checked_sub(time::Duration::days(days))?;
    // A key that has a wildcard or a list in it would find other patients.
    let is_literal = !claimed.patient_id.contains(['*', '?', '\\']);
    is_literal.then_some(Search {
        patient_id: claimed.patient_id.clone(),
        modality: rule.modality.clone(),
        from: from.format(day).ok()?,
        to: to.format(day).ok()?,
    })
}

/// Whether a source's study is a prior of the same patient: sources are not trusted to match as they were asked.
fn is_prior(study: &StudyFound, claimed: &Claimed, search: &Search) -> bool {
    let same_issuer = match (&study.issuer_of_patient_id, &claimed.issuer_of_patient_id) {
        (Some(theirs), Some(ours)) => theirs == ours,
        _ => true,
    };
    let in_time = study
        .study_date
        .as_ref()
        .is_some_and(|date| (&search.from..=&search.to).contains(&date));
    study.patient_id == claimed.patient_id
        && same_issuer
        && in_time
        && study.study_instance_uid != claimed.study_instance_uid
}
