//! C-MOVE and C-GET: the unique keys of an identifier → the stored instances, sent by C-STORE sub-operations.
//!
//! C-GET sends them on the same association, on the contexts whose SCP the peer is by role selection; C-MOVE on an
//! association to a destination that the server knows by its AE title.
//! An instance goes out as it is stored, or in Explicit or Implicit VR Little Endian where only that was accepted.
//! One file is in memory at a time; the read is in the trail before the first of them leaves.
//! The series that are made for display only are not given.
//!
//! | status | when |
//! |---|---|
//! | FF00H | after each sub-operation |
//! | 0000H | all were taken, or there was nothing |
//! | B000H | some were not taken, or with a warning |
//! | FE00H | a C-CANCEL came |
//! | A701H | more instances than one request may have |
//! | A702H | none could be sent: the destination is away or took none |
//! | A801H | the destination is not known |
//! | A900H | the identifier is none for this model, or lacks the unique key of its level |
//!
//! Source: PS3.4 sections C.4.2, C.4.3, C.5.2 and C.5.3; PS3.7 sections 9.1.3 and 9.1.4.

use super::{
    query::{Identifier, Refusal, refused},
    service::Service,
};
use crate::{
    archive::ArchiveError,
    association::{
        Association, AssociationError, Context, Wire,
        command::{Command, element, status},
        requestor::{MAX_CONTEXTS, Peer, Proposal, request},
    },
    db::{audit::Act, error::DbError, qido::StoredFile},
    dicom::{DicomError, coerce::coerce, identifier},
    scu::store,
};
use bytes::Bytes;
use dicom_core::{DataElement, PrimitiveValue, VR, value::C};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use serde_json::json;

/// Instances of one retrieval: a patient of fifty whole-body studies.
const MOST_INSTANCES: i64 = 100_000;

/// How far a retrieval has come.
#[derive(Debug, Default)]
struct Progress {
    total: usize,
    completed: usize,
    warning: usize,
    failed: Vec<String>,
    /// A C-CANCEL came.
    cancelled: bool,
    /// The number of the last C-STORE request.
    number: u16,
}

impl Progress {
    fn remaining(&self) -> usize {
        self.total - self.completed - self.warning - self.failed.len()
    }

    fn judge(&mut self, instance: &StoredFile, code: u16) {
        match code {
            status::SUCCESS => self.completed += 1,
            // A warning of coercion or of elements left out: it is stored.
            0x0001 | 0xB000..=0xBFFF => self.warning += 1,
            _ => self.failed.push(instance.sop_instance_uid.clone()),
        }
    }

    /// With the counts of PS3.7 section 9.3.3; the number remaining is there only while more follows.
    fn counted(&self, response: Command) -> Command {
        let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let is_over = !matches!(response.status(), status::PENDING | status::CANCEL);
        let response = if is_over {
            response
        } else {
            response.with_u16(element::REMAINING, count(self.remaining()))
        };
        response
            .with_u16(element::COMPLETED, count(self.completed))
            .with_u16(element::FAILED, count(self.failed.len()))
            .with_u16(element::WARNING, count(self.warning))
    }

    fn status(&self) -> u16 {
        if self.cancelled && self.remaining() > 0 {
            status::CANCEL
        } else if self.failed.is_empty() && self.warning == 0 {
            status::SUCCESS
        } else if self.completed + self.warning == 0 {
            status::CANNOT_PERFORM
        } else {
            status::SUB_OPERATIONS_FAILED
        }
    }
}

/// Why a stored file cannot be handed out.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the archive does not give it: {0}")]
    Archive(#[from] ArchiveError),
    #[error("whether its identity was corrected is not known: {0}")]
    Db(#[from] DbError),
    #[error("its identity cannot be corrected: {0}")]
    Coercion(#[from] DicomError),
    #[error("correcting its identity was interrupted")]
    Interrupted,
}

impl Service<'_> {
    /// Answers a C-GET-RQ.
    pub(super) async fn c_get(
        &mut self,
        context: &Context,
        command: &Command,
    ) -> Result<(), AssociationError> {
        let files = match self.wanted(context, command).await? {
            Ok(files) => files,
            Err(refusal) => return self.refuse_retrieval(context, command, &refusal).await,
        };
        let calling = self.association.calling.clone();
        if let Err(refusal) = self.audit_retrieval("C-GET", &calling, &files).await {
            return self.refuse_retrieval(context, command, &refusal).await;
        }
        let mut progress = Progress {
            total: files.len(),
            ..Progress::default()
        };
        for file in &files {
            let cancelled = self.is_cancelled(command).await?;
            progress.cancelled |= cancelled;
            if progress.cancelled {
                break;
            }
            let contexts = &self.association.contexts;
            let chosen = store::choose(contexts, &file.sop_class_uid, &file.transfer_syntax_uid).cloned();
            match (chosen.as_ref(), self.prepared(file, chosen.as_ref()).await) {
                (Some(chosen), Some(dataset)) => {
                    let request = store_request(file, &mut progress, None, &dataset);
                    let answer = store::c_store(&mut self.association.link, chosen, &request).await?;
                    progress.cancelled |= answer.cancelled;
                    progress.judge(file, answer.status);
                }
                _ => progress.failed.push(file.sop_instance_uid.clone()),
            }
            if progress.remaining() > 0 && !progress.cancelled {
                self.report(context, command, &progress, status::PENDING).await?;
            }
        }
        let code = progress.status();
        self.report(context, command, &progress, code).await
    }

    /// Answers a C-MOVE-RQ.
    pub(super) async fn c_move(
        &mut self,
        context: &Context,
        command: &Command,
    ) -> Result<(), AssociationError> {
        let wanted = self.wanted(context, command).await?;
        let title = command.text(element::MOVE_DESTINATION).unwrap_or_default();
        let peer = self.provider.settings.peer(&title).cloned();
        let (files, peer) = match (wanted, peer) {
            (Err(refusal), _) => return self.refuse_retrieval(context, command, &refusal).await,
            (_, None) => {
                let why = "the destination is in no file of this server; name it under `peers`";
                let refusal = Refusal::new(status::MOVE_DESTINATION_UNKNOWN, why);
                return self.refuse_retrieval(context, command, &refusal).await;
            }
            (Ok(files), Some(peer)) => (files, peer),
        };
        if let Err(refusal) = self.audit_retrieval("C-MOVE", &title, &files).await {
            return self.refuse_retrieval(context, command, &refusal).await;
        }
        let mut progress = Progress {
            total: files.len(),
            ..Progress::default()
        };
        for (proposals, files) in trips(&files) {
            if progress.cancelled {
                break;
            }
            self.trip(context, command, &peer, (&proposals, &files), &mut progress)
                .await?;
        }
        let code = progress.status();
        self.report(context, command, &progress, code).await
    }

    /// One association of a C-MOVE; what does not get there failed, and only the end of the asker's association is an error.
    async fn trip(
        &mut self,
        context: &Context,
        command: &Command,
        peer: &Peer,
        (proposals, files): (&[Proposal], &[&StoredFile]),
        progress: &mut Progress,
    ) -> Result<(), AssociationError> {
        let settings = &self.provider.settings;
        let mut to = match request(peer, &settings.title, proposals, settings.timeouts).await {
            Ok(association) => association,
            Err(error) => {
                tracing::warn!(%error, peer = peer.title, "the destination of a C-MOVE cannot be had");
                progress
                    .failed
                    .extend(files.iter().map(|file| file.sop_instance_uid.clone()));
                return Ok(());
            }
        };
        let mut is_lost = false;
        for file in files {
            match self.is_cancelled(command).await {
                Ok(cancelled) => progress.cancelled |= cancelled,
                Err(error) => {
                    to.link.abort(None).await;
                    return Err(error);
                }
            }
            if progress.cancelled {
                break;
            }
            if !is_lost && let Err(error) = self.hand_over(&mut to, command, file, progress).await {
                tracing::warn!(%error, peer = peer.title, "the association of a C-MOVE ended early");
                is_lost = true;
            }
            if is_lost {
                progress.failed.push(file.sop_instance_uid.clone());
                continue;
            }
            if progress.remaining() > 0 {
                let reported = self.report(context, command, progress, status::PENDING).await;
                if let Err(error) = reported {
                    to.link.abort(None).await;
                    return Err(error);
                }
            }
        }
        if is_lost {
            to.link.abort(None).await;
        } else {
            // All is answered: how the destination ends the association changes nothing.
            let _ended = to.link.release().await;
        }
        Ok(())
    }

    /// Sends one instance to a destination; an error is the end of the association to it.
    async fn hand_over(
        &mut self,
        to: &mut Association<Wire>,
        command: &Command,
        file: &StoredFile,
        progress: &mut Progress,
    ) -> Result<(), AssociationError> {
        let chosen = store::choose(&to.contexts, &file.sop_class_uid, &file.transfer_syntax_uid).cloned();
        match (chosen.as_ref(), self.prepared(file, chosen.as_ref()).await) {
            (Some(chosen), Some(dataset)) => {
                let originator = Some((self.association.calling.as_str(), command.message_id()));
                let request = store_request(file, progress, originator, &dataset);
                let answer = store::c_store(&mut to.link, chosen, &request).await?;
                progress.judge(file, answer.status);
            }
            _ => progress.failed.push(file.sop_instance_uid.clone()),
        }
        Ok(())
    }

    /// The files that an identifier names.
    async fn wanted(
        &mut self,
        context: &Context,
        command: &Command,
    ) -> Result<Result<Vec<StoredFile>, Refusal>, AssociationError> {
        let identifier = match self.identifier(context, command).await? {
            Ok(identifier) => identifier,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Err(refusal) = check(&identifier) {
            return Ok(Err(refusal));
        }
        let mut filter = identifier.filter;
        filter.limit = Some(MOST_INSTANCES + 1);
        let files = match self.provider.db.find_files(&filter).await {
            Ok(files) => files,
            Err(error) => return Ok(Err(error.into())),
        };
        if files.len() as u64 > MOST_INSTANCES.unsigned_abs() {
            let why = format!("more than {MOST_INSTANCES} instances; ask for fewer");
            return Ok(Err(Refusal::new(status::CANNOT_COUNT_MATCHES, why)));
        }
        Ok(Ok(files))
    }

    /// The dataset of a file in the form of a context; what cannot be had is logged and fails alone.
    async fn prepared(&self, file: &StoredFile, context: Option<&Context>) -> Option<bytes::Bytes> {
        let Some(context) = context else {
            tracing::warn!(
                sop_instance_uid = file.sop_instance_uid,
                "an instance is not sent: its SOP class was accepted in no form that it can be given in"
            );
            return None;
        };
        let read = match self.read(file).await {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, sop_instance_uid = file.sop_instance_uid, "an instance cannot be sent");
                return None;
            }
        };
        match store::in_form(read, &file.transfer_syntax_uid, context).await {
            Ok(dataset) => Some(dataset),
            Err(error) => {
                tracing::warn!(%error, sop_instance_uid = file.sop_instance_uid, "an instance cannot be sent");
                None
            }
        }
    }

    /// The file, with the corrected identity if there is one.
    async fn read(&self, file: &StoredFile) -> Result<Bytes, ReadError> {
        let read = self.provider.archive.read(&file.archive_key).await?;
        let Some(coercion) = self.provider.db.coercion(&file.study_instance_uid).await? else {
            return Ok(read);
        };
        let coerced = tokio::task::spawn_blocking(move || coerce(&read, &coercion)).await;
        Ok(Bytes::from(coerced.map_err(|_| ReadError::Interrupted)??))
    }

    async fn report(
        &mut self,
        context: &Context,
        command: &Command,
        progress: &Progress,
        code: u16,
    ) -> Result<(), AssociationError> {
        let response = progress.counted(Command::response_to(command, code));
        let link = &mut self.association.link;
        let list = if code == status::PENDING || progress.failed.is_empty() {
            None
        } else {
            failed_list(&progress.failed, &context.transfer_syntax)
        };
        link.send(context.id, &response, list.as_deref()).await
    }

    async fn refuse_retrieval(
        &mut self,
        context: &Context,
        command: &Command,
        refusal: &Refusal,
    ) -> Result<(), AssociationError> {
        let response = refused(command, refusal);
        self.association.link.send(context.id, &response, None).await
    }

    /// A row for each retrieval: who asked for which studies, and who gets them.
    async fn audit_retrieval(&self, service: &str, to: &str, files: &[StoredFile]) -> Result<(), Refusal> {
        if files.is_empty() {
            return Ok(());
        }
        let mut studies: Vec<String> = files.iter().map(|file| file.study_instance_uid.clone()).collect();
        studies.sort_unstable();
        studies.dedup();
        let act = Act {
            principal: &self.association.calling,
            act: "read",
            studies,
            detail: json!({ "service": service, "to": to, "instances": files.len() }),
        };
        Ok(self.provider.db.audit_act(&act).await?)
    }
}

/// A retrieval names what it wants by the unique key of its level, and narrows it by nothing but those above
/// (PS3.4 section C.4.2.2.1).
fn check(identifier: &Identifier) -> Result<(), Refusal> {
    if !identifier.has_unique_key {
        let why = "the unique key of the level has no value";
        return Err(Refusal::new(status::IDENTIFIER_MISMATCH, why));
    }
    let patient = identifier.filter.patient_id.as_deref().unwrap_or_default();
    if patient.contains(['*', '?']) {
        let why = "(0010,0020) must be one PatientID";
        return Err(Refusal::new(status::IDENTIFIER_MISMATCH, why));
    }
    Ok(())
}

fn store_request<'a>(
    file: &'a StoredFile,
    progress: &mut Progress,
    originator: Option<(&'a str, u16)>,
    dataset: &'a [u8],
) -> store::Request<'a> {
    // 0 is no message number.
    progress.number = progress.number.checked_add(1).unwrap_or(1);
    store::Request {
        sop_class_uid: &file.sop_class_uid,
        sop_instance_uid: &file.sop_instance_uid,
        number: progress.number,
        originator,
        dataset,
    }
}

/// Files in runs whose contexts fit on one association, in their order.
fn trips(files: &[StoredFile]) -> Vec<(Vec<Proposal>, Vec<&StoredFile>)> {
    let mut trips: Vec<(Vec<Proposal>, Vec<&StoredFile>)> = Vec::new();
    for file in files {
        let needed = store::proposals([(file.sop_class_uid.as_str(), file.transfer_syntax_uid.as_str())]);
        if let Some((proposals, run)) = trips.last_mut() {
            let new: Vec<_> = needed
                .iter()
                .filter(|one| !proposals.contains(one))
                .cloned()
                .collect();
            if proposals.len() + new.len() <= MAX_CONTEXTS {
                proposals.extend(new);
                run.push(file);
                continue;
            }
        }
        trips.push((needed, vec![file]));
    }
    trips
}

/// FailedSOPInstanceUIDList.
fn failed_list(failed: &[String], transfer_syntax: &str) -> Option<Vec<u8>> {
    let uids = PrimitiveValue::Strs(failed.iter().cloned().collect::<C<_>>());
    let list = InMemDicomObject::from_element_iter([DataElement::new(
        tags::FAILED_SOP_INSTANCE_UID_LIST,
        VR::UI,
        uids,
    )]);
    identifier::write(list, transfer_syntax).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(class: &str, transfer_syntax: &str) -> StoredFile {
        StoredFile {
            study_instance_uid: "1".to_owned(),
            series_instance_uid: "3".to_owned(),
            sop_instance_uid: "2".to_owned(),
            sop_class_uid: class.to_owned(),
            transfer_syntax_uid: transfer_syntax.to_owned(),
            archive_key: String::new(),
            rows: None,
            number_of_frames: None,
            original: false,
        }
    }

    #[test]
    fn instances_of_many_classes_take_several_associations() {
        let files: Vec<_> = (0..50)
            .map(|n| file(&format!("1.2.{n}"), "1.2.840.10008.1.2.5"))
            .collect();
        let trips = trips(&files);
        assert_eq!(
            trips.iter().map(|(_, run)| run.len()).collect::<Vec<_>>(),
            [42, 8]
        );
        assert!(trips.iter().all(|(proposals, _)| proposals.len() <= MAX_CONTEXTS));
    }

    #[test]
    fn the_last_status_says_how_it_went() {
        let one = file("1.2", "1.2.840.10008.1.2.1");
        let of = |codes: &[u16], total: usize, cancelled: bool| {
            let mut progress = Progress {
                total,
                cancelled,
                ..Progress::default()
            };
            for code in codes {
                progress.judge(&one, *code);
            }
            progress.status()
        };
        assert_eq!(of(&[], 0, false), status::SUCCESS);
        assert_eq!(of(&[0, 0], 2, false), status::SUCCESS);
        assert_eq!(of(&[0, 0xB007], 2, false), status::SUB_OPERATIONS_FAILED);
        assert_eq!(of(&[0, 0xA700], 2, false), status::SUB_OPERATIONS_FAILED);
        assert_eq!(of(&[0xA700, 0xC000], 2, false), status::CANNOT_PERFORM);
        assert_eq!(of(&[0], 2, true), status::CANCEL);
        assert_eq!(of(&[0, 0], 2, true), status::SUCCESS);
    }
}
