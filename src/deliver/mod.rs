//! The outbox → results and messages at their targets, at least once: STOW-RS, C-STORE and folders get instances; webhooks,
//! HL7 v2 and FHIR get words.
//!
//! What must hold: an analysis whose results were committed reaches each of its targets, whatever is killed on the way,
//! or stands in the list of those that were given up, with the reason in words.
//! Each target has a loop of its own, so that one that is down or slow holds no other up, and sends its most urgent
//! delivery first.
//! A delivery is claimed under a lease that is renewed while it is sent; several servers on one database share the work.
//! What a target took and what was given up is in the trail, in the transaction that notes it.
//! A notification goes ahead of everything else; one that nobody acknowledged in time goes to another target.
//! What a target does not take is replaced by the secondary capture, and the row of the delivery says so.
//! It decides neither what is filed (`db::filing` does, by the rules of the targets) nor what a result is: it sends the
//! results of analyses and readers' masks and nothing else, so that what others sent us, our own results coming back included, never leaves
//! this way.
//!
//! Source: PS3.18 section 10.5; PS3.4 annex B; PS3.7 annex C.

mod c_store;
mod commitment;
mod fhir;
mod folder;
mod hl7;
mod message;
mod profile;
mod stow;
pub mod target;
mod way;
mod webhook;

pub use profile::Profile;
pub use stow::install_cryptography;
pub use target::{Target, TargetError};
pub use way::Receiver;

use crate::{
    archive::{Archive, ArchiveError},
    db::{
        self, Db,
        audit::{self, Act},
        error::DbError,
        filing::{self, Acknowledged},
        outbox::{self, Attempt, Became, Claimed, Retried},
    },
    domain::{
        failure::FailureClass,
        phi::{Redacted, redact},
    },
};
use serde_json::json;
use std::{future::Future, sync::Arc, time::Duration};
use target::Way;
use tokio::sync::watch;
use uuid::Uuid;

/// Who acts in the audit trail.
const PRINCIPAL: &str = "ictus";
/// Why a quarantined study is not sent.
const QUARANTINED: &str =
    "identity_conflict: a series that the analysis looked at is quarantined; settle whose it is, then retry";

/// Why deliveries cannot be made at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeliverError {
    /// The database failed.
    #[error("the deliveries cannot be read or recorded")]
    Db(#[from] DbError),
    /// No HTTP client can be made.
    #[error("results cannot be sent over HTTP: this machine's certificates or sockets cannot be used")]
    Client(#[source] Redacted),
}

impl DeliverError {
    /// What is done about it.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Db(error) => error.class(),
            Self::Client(_) => FailureClass::Internal,
        }
    }
}

/// How fast things happen.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a delivery is this server's without a sign of life.
    pub lease: Duration,
    /// A server that sends says that it lives.
    pub renew: Duration,
    /// A loop without work looks for some.
    pub poll: Duration,
    /// Pause after a first attempt that failed; it doubles with each.
    pub first_delay: Duration,
    /// The longest pause.
    pub longest_delay: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            // The threshold of the queue of analyses, and room for several signs of life in it.
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(3),
            poll: Duration::from_secs(1),
            first_delay: Duration::from_secs(5),
            longest_delay: Duration::from_secs(30 * 60),
        }
    }
}

/// The service that delivers; clones share everything.
#[derive(Debug, Clone)]
pub struct Deliverer {
    db: Db,
    archive: Archive,
    targets: Arc<[Target]>,
    timing: Timing,
    client: reqwest::Client,
    server: Uuid,
}

/// What one look at the outbox led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Did {
    /// Nothing was due.
    Nothing,
    /// A delivery came to its end.
    Ended,
    /// An attempt failed; the next delivery may fare no better.
    Failed,
}

impl Deliverer {
    /// A deliverer to these targets that has not sent anything yet.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(db: Db, archive: Archive, targets: Vec<Target>, timing: Timing) -> Result<Self, DeliverError> {
        Ok(Self {
            db,
            archive,
            targets: targets.into(),
            timing,
            client: stow::client()?,
            server: Uuid::new_v4(),
        })
    }

    /// Makes the targets those for which analyses are filed from now on; a change is in the trail.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register(&self) -> Result<(), DeliverError> {
        let rules: Vec<_> = self.targets.iter().map(|target| target.rule.clone()).collect();
        let mut tx = self.db.begin().await?;
        let Some(before) = outbox::set_targets(&mut tx, &rules).await? else {
            return Ok(());
        };
        let targets: Vec<_> = self
            .targets
            .iter()
            .map(|target| {
                let mut rule = target.rule.to_json();
                rule["to"] = json!(target.way.to_string());
                rule
            })
            .collect();
        let before: Vec<_> = before.iter().map(|rule| rule.to_json()).collect();
        let act = Act {
            principal: PRINCIPAL,
            act: "configure",
            studies: Vec::new(),
            detail: json!({ "targets": targets, "before": before }),
        };
        audit::append(&mut tx, &act).await?;
        Ok(db::commit(tx).await?)
    }

    /// Delivers until `stop`; deliveries under way are finished.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) {
        let (stopping, stopped) = watch::channel(false);
        let loops: Vec<_> = (0..self.targets.len())
            .map(|index| {
                let (deliverer, stopped) = (self.clone(), stopped.clone());
                tokio::spawn(async move { deliverer.serve(index, stopped).await })
            })
            .collect();
        stop.await;
        // Without a target nobody listens.
        let _told = stopping.send(true);
        for one in loops {
            if one.await.is_err() {
                tracing::error!("the loop of a target ended early; this is a fault of ictus");
            }
        }
    }

    async fn serve(&self, index: usize, mut stopped: watch::Receiver<bool>) {
        let target = &self.targets[index];
        while !*stopped.borrow() {
            match self.once(target).await {
                Ok(Did::Ended) => continue,
                Ok(Did::Nothing | Did::Failed) => {}
                Err(error) => {
                    tracing::warn!(error = %redact(&error), peer = target.name(), "deliveries cannot be read or recorded; it is tried again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.timing.poll) => {}
                _ = stopped.changed() => {}
            }
        }
    }

    /// Makes one attempt at the delivery that is due, if one is.
    async fn once(&self, target: &Target) -> Result<Did, DeliverError> {
        let timing = &self.timing;
        self.look_after(target).await?;
        let claimed = self
            .db
            .claim_delivery(self.server, target.name(), timing.lease)
            .await?;
        let Some(claimed) = claimed else {
            return Ok(Did::Nothing);
        };
        let mut attempt = if claimed.attempt > claimed.max_attempts {
            given_up("the server ended each time that it sent this; look at its log, then retry")
        } else if claimed.quarantined {
            given_up(QUARANTINED)
        } else {
            tokio::select! {
                attempt = self.send(target, &claimed) => attempt,
                () = self.renew(&claimed) => return Ok(Did::Failed),
            }
        };
        attempt.is_final |= claimed.attempt >= claimed.max_attempts;
        attempt.delay = delay(timing, claimed.attempt);
        let first = attempt.postponed.iter().chain(&attempt.refused).next();
        if attempt.error.is_none() {
            attempt.error = first.map(|(_, why)| why.clone());
        }
        match self.record(target, &claimed, &attempt).await? {
            Became::Delivered => Ok(Did::Ended),
            Became::Superseded | Became::Lost => Ok(Did::Ended),
            Became::Degraded => {
                tracing::warn!(
                    peer = target.name(),
                    study_instance_uid = claimed.study_instance_uid,
                    error = attempt.error.as_deref().unwrap_or_default(),
                    "the target does not take all results; the secondary capture goes instead"
                );
                Ok(Did::Ended)
            }
            Became::Dead => {
                tracing::error!(
                    peer = target.name(),
                    attempts = claimed.attempt,
                    study_instance_uid = claimed.study_instance_uid,
                    error = attempt.error.as_deref().unwrap_or_default(),
                    "a delivery is given up; `ictus deliver retry` tries it again"
                );
                Ok(Did::Failed)
            }
            Became::Pending => {
                tracing::warn!(
                    peer = target.name(),
                    attempt = claimed.attempt,
                    study_instance_uid = claimed.study_instance_uid,
                    error = attempt.error.as_deref().unwrap_or_default(),
                    "a delivery will be tried again"
                );
                Ok(Did::Failed)
            }
        }
    }

    async fn send(&self, target: &Target, claimed: &Claimed) -> Attempt {
        if claimed.is_message {
            return self.tell(target, claimed).await;
        }
        let coercion = match self.db.coercion(&claimed.study_instance_uid).await {
            Ok(coercion) => coercion,
            Err(error) => return message::failed(redact(&error).to_string(), false),
        };
        let fitted = profile::fit(&target.profile, coercion, &self.archive, &claimed.instances).await;
        let profile::Fitted {
            files,
            instances,
            attempt: unfit,
        } = fitted;
        if unfit.error.is_some() || instances.is_empty() {
            return unfit;
        }
        let mut attempt = match &target.way {
            Way::Stow { studies, token } => {
                let to = (studies, token);
                stow::send(&self.client, target, to, &files, &instances).await
            }
            Way::CStore {
                peer,
                calling,
                commit,
            } => {
                let to = c_store::To {
                    peer,
                    calling,
                    commit: *commit,
                };
                let fitted = Claimed {
                    instances,
                    ..claimed.clone()
                };
                c_store::send(&to, &self.db, &files, &fitted).await
            }
            Way::Folder { path } => folder::send(path, &files, &instances).await,
            Way::Webhook { .. } | Way::Hl7(_) | Way::Fhir { .. } => {
                given_up("instances were filed for a target that takes messages only; file them for another")
            }
        };
        attempt.refused.extend(unfit.refused);
        attempt.unsupported.extend(unfit.unsupported);
        attempt
    }

    /// Sends a message.
    async fn tell(&self, target: &Target, claimed: &Claimed) -> Attempt {
        let letter = match self.db.letter(claimed.id).await {
            Ok(letter) => letter,
            Err(error) => return message::failed(redact(&error).to_string(), false),
        };
        match &target.way {
            Way::Webhook {
                url,
                secret,
                names_patient,
            } => webhook::send(&self.client, target, url, secret, *names_patient, letter).await,
            Way::Hl7(receiver) => hl7::send(receiver, letter).await,
            Way::Fhir { base, token } => fhir::send(&self.client, target, base, token, letter).await,
            Way::Folder { path } => folder::tell(path, letter).await,
            Way::Stow { .. } | Way::CStore { .. } => given_up(
                "a message was filed for a target that takes DICOM instances only; file it for another",
            ),
        }
    }

    /// Escalates what nobody acknowledged, and notes what a server that died left open; each with its row of the trail.
    async fn look_after(&self, target: &Target) -> Result<(), DeliverError> {
        let due = self.db.has_to_escalate(target.name()).await?;
        if !due && !self.db.has_abandoned(target.name()).await? {
            return Ok(());
        }
        let mut tx = self.db.begin().await?;
        for late in filing::escalate(&mut tx, target.name()).await? {
            tracing::warn!(
                peer = target.name(),
                study_instance_uid = late.study_instance_uid,
                "a notification was not acknowledged in time and goes to another target"
            );
            let detail = json!({
                "delivery": late.id, "analysis": late.analysis_id, "target": late.target,
                "escalate_to": late.escalate_to, "filed": late.is_filed,
            });
            let act = Act {
                principal: PRINCIPAL,
                act: "escalate",
                studies: vec![late.study_instance_uid],
                detail,
            };
            audit::append(&mut tx, &act).await?;
        }
        for lost in filing::abandoned(&mut tx, target.name()).await? {
            let detail = json!({
                "delivery": lost.id, "analysis": lost.analysis_id, "target": target.name(),
                "to": target.way.to_string(), "instances": lost.instances,
                "text": "the server ended while it sent this, and a later revision goes instead: \
                         what the target took of it is not known",
            });
            let act = Act {
                principal: PRINCIPAL,
                act: "deliver_unknown",
                studies: vec![lost.study_instance_uid],
                detail,
            };
            audit::append(&mut tx, &act).await?;
        }
        Ok(db::commit(tx).await?)
    }

    /// Renews the lease; comes back when the delivery is not ours any more.
    async fn renew(&self, claimed: &Claimed) {
        loop {
            tokio::time::sleep(self.timing.renew).await;
            match self
                .db
                .renew_delivery(claimed.id, self.server, self.timing.lease)
                .await
            {
                Ok(true) => {}
                Ok(false) => return,
                // Sending goes on: when the lease runs out, another server may send it, too.
                Err(error) => {
                    tracing::warn!(error = %redact(&error), "a lease could not be renewed; it is tried again");
                }
            }
        }
    }

    /// Notes an attempt, with its rows of the trail.
    async fn record(
        &self,
        target: &Target,
        claimed: &Claimed,
        attempt: &Attempt,
    ) -> Result<Became, DeliverError> {
        let mut tx = self.db.begin().await?;
        let became = outbox::finish(&mut tx, claimed.id, self.server, attempt).await?;
        let about = |act, detail| Act {
            principal: PRINCIPAL,
            act,
            studies: vec![claimed.study_instance_uid.clone()],
            detail,
        };
        if !attempt.delivered.is_empty() || attempt.message_taken {
            let instances: Vec<_> = claimed
                .instances
                .iter()
                .filter(|instance| attempt.delivered.contains(&instance.instance_id))
                .map(|instance| json!({ "role": instance.role, "sop_instance_uid": instance.sop_instance_uid }))
                .collect();
            let detail = json!({
                "delivery": claimed.id, "analysis": claimed.analysis, "subject": claimed.subject,
                "target": target.name(), "to": target.way.to_string(), "attempt": claimed.attempt,
                "complete": became == Became::Delivered, "instances": instances,
            });
            audit::append(&mut tx, &about("deliver", detail)).await?;
        }
        if became == Became::Degraded {
            let instances: Vec<_> = claimed
                .instances
                .iter()
                .filter(|instance| attempt.unsupported.contains(&instance.instance_id))
                .map(|instance| json!({ "role": instance.role, "sop_class_uid": instance.sop_class_uid }))
                .collect();
            let detail = json!({
                "delivery": claimed.id, "analysis": claimed.analysis, "target": target.name(),
                "not_taken": instances, "instead": "sc",
            });
            audit::append(&mut tx, &about("degrade", detail)).await?;
        }
        if became == Became::Dead {
            let detail = json!({
                "delivery": claimed.id, "analysis": claimed.analysis, "target": target.name(),
                "attempts": claimed.attempt, "text": attempt.error,
            });
            audit::append(&mut tx, &about("give_up", detail)).await?;
        }
        db::commit(tx).await?;
        Ok(became)
    }
}

/// Tries a delivery now, in somebody's name.
///
/// # Errors
/// When the database fails.
pub async fn retry(db: &Db, id: Uuid, principal: &str) -> Result<Retried, DeliverError> {
    let mut tx = db.begin().await?;
    let retried = outbox::retry(&mut tx, id).await?;
    if let Retried::Yes(target, analysis, study) = &retried {
        let act = Act {
            principal,
            act: "retry",
            studies: vec![study.clone()],
            detail: json!({ "delivery": id, "analysis": analysis, "target": target }),
        };
        audit::append(&mut tx, &act).await?;
        db::commit(tx).await?;
    }
    Ok(retried)
}

/// Takes note of a notification, in somebody's name.
///
/// # Errors
/// When the database fails.
pub async fn acknowledge(db: &Db, id: Uuid, principal: &str) -> Result<Acknowledged, DeliverError> {
    let mut tx = db.begin().await?;
    let done = filing::acknowledge(&mut tx, id, principal).await?;
    if let Acknowledged::Yes(target, analysis, study) = &done {
        let act = Act {
            principal,
            act: "acknowledge",
            studies: vec![study.clone()],
            detail: json!({ "delivery": id, "analysis": analysis, "target": target }),
        };
        audit::append(&mut tx, &act).await?;
        db::commit(tx).await?;
    }
    Ok(done)
}

fn given_up(why: &str) -> Attempt {
    Attempt {
        error: Some(why.to_owned()),
        is_final: true,
        ..Attempt::default()
    }
}

/// The pause after an attempt: doubled with each, and a quarter more or less, so that what failed together does not come
/// back together.
fn delay(timing: &Timing, attempt: i32) -> Duration {
    let doubled = timing
        .first_delay
        .saturating_mul(1 << attempt.saturating_sub(1).clamp(0, 20));
    let jitter = 0.75 + 0.5 * rand::random::<f64>();
    doubled.min(timing.longest_delay).mul_f64(jitter)
}

/// Whether a failure reason or status passes by itself: no resources, or a processing failure.
fn is_passing(code: u16) -> bool {
    matches!(code, 0x0110 | 0x0213 | 0xA700..=0xA7FF)
}

/// A failure reason or status in words. What the target itself says may name a patient and is not repeated.
///
/// Source: PS3.18 table I.2-2; PS3.4 table B.2-1; PS3.7 annex C.
fn meaning_of(code: u16) -> &'static str {
    match code {
        0x0000 => "without a reason",
        0x0110 => "processing failure",
        0x0111 => "it has another instance of this UID",
        0x0117 => "invalid SOP instance",
        0x0122 => "it does not support the SOP class",
        0x0124 => "not authorized",
        0x0211 => "it does not know the operation",
        0x0213 => "resource limitation",
        0xC122 => "it does not support the transfer syntax",
        0xA700..=0xA7FF => "out of resources",
        0xA900..=0xA9FF => "the dataset does not match the SOP class",
        0xC000..=0xCFFF => "it cannot understand the dataset",
        _ => "a reason that the standard does not list",
    }
}

/// A failed read in words, and whether it will fail again.
fn archive_failure(error: &ArchiveError) -> (String, bool) {
    let is_final = error.class() != FailureClass::Transient;
    (redact(error).to_string(), is_final)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let timing = Timing::default();
        for (attempt, seconds) in [(1, 5.0), (2, 10.0), (5, 80.0), (30, 1800.0), (i32::MAX, 1800.0)] {
            let pause = delay(&timing, attempt).as_secs_f64();
            assert!(
                (seconds * 0.75..=seconds * 1.25).contains(&pause),
                "{attempt}: {pause}"
            );
        }
    }
}
