//! C-FIND: an identifier with keys → an answer for each patient, study, series or instance that matches.
//!
//! What the index has columns for is matched by the query that QIDO-RS uses, every other attribute of the level by
//! [`matching`] on what that query found; so each key that is known on a level is matched.
//! Matches are read in pages and no database connection is held while an answer is sent, so that a peer that reads
//! slowly holds up nobody and nothing grows with the number of matches.
//! Every study that an answer shows is in the trail before the answer leaves.
//!
//! | status | when |
//! |---|---|
//! | FF00H | a match |
//! | FF01H | a match, and a key was neither matched nor answered: of a lower level, or in an item |
//! | FE00H | a C-CANCEL came |
//! | 0000H | that was all |
//! | A700H | the database is away |
//! | A900H | the identifier is none for this model: no level, or a key that cannot be one |
//! | C000H | the identifier cannot be read |
//!
//! Source: PS3.4 sections C.2, C.4.1 and C.6; PS3.7 section 9.1.2.

mod answer;
mod identifier;
pub(super) mod matching;

pub(super) use identifier::{Identifier, Root};

use super::service::Service;
use crate::{
    association::{
        AssociationError, Context,
        command::{Command, element, field, status},
    },
    db::{Db, error::DbError},
    dicom::{
        identifier::{read, write},
        level::Level,
    },
};
use answer::Match;
use dicom_object::InMemDicomObject;

/// Matches that are in memory at once.
const PAGE: i64 = 200;
/// The longest identifier: a list of thousands of UIDs.
const MAX_IDENTIFIER: usize = 1 << 20;

/// Why a query or retrieval is answered with a failure.
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) comment: String,
}

impl Refusal {
    pub(super) fn new(status: u16, comment: impl Into<String>) -> Self {
        let comment = comment.into();
        Self { status, comment }
    }
}

impl From<DbError> for Refusal {
    fn from(error: DbError) -> Self {
        tracing::error!(%error, "a query could not be answered");
        Self::new(status::OUT_OF_RESOURCES, "the database is away; ask again later")
    }
}

/// How a query came to its end.
enum End {
    All,
    Cancelled,
}

impl Service<'_> {
    /// Answers a C-FIND-RQ.
    pub(super) async fn c_find(
        &mut self,
        context: &Context,
        command: &Command,
    ) -> Result<(), AssociationError> {
        let response = match self.identifier(context, command).await? {
            Ok(identifier) => match self.find(context, command, identifier).await? {
                Ok(End::All) => Command::response_to(command, status::SUCCESS),
                Ok(End::Cancelled) => Command::response_to(command, status::CANCEL),
                Err(refusal) => refused(command, &refusal),
            },
            Err(refusal) => refused(command, &refusal),
        };
        self.association.link.send(context.id, &response, None).await
    }

    /// Reads the identifier of a query or retrieval.
    pub(super) async fn identifier(
        &mut self,
        context: &Context,
        command: &Command,
    ) -> Result<Result<Identifier, Refusal>, AssociationError> {
        if !command.has_dataset() {
            let why = "no identifier came";
            return Ok(Err(Refusal::new(status::UNABLE_TO_PROCESS, why)));
        }
        let bytes = self.association.link.whole_dataset(MAX_IDENTIFIER).await?;
        let class = command.text(element::AFFECTED_SOP_CLASS_UID);
        if class.as_deref() != Some(&context.abstract_syntax) {
            let why = "the SOP class is not the one of the presentation context";
            return Ok(Err(Refusal::new(status::SOP_CLASS_NOT_SUPPORTED, why)));
        }
        let Ok(dataset) = read(&bytes, &context.transfer_syntax) else {
            let why = "the identifier cannot be read";
            return Ok(Err(Refusal::new(status::UNABLE_TO_PROCESS, why)));
        };
        let parsed = Identifier::parse(dataset, Root::of(&context.abstract_syntax));
        Ok(parsed.map_err(|why| Refusal::new(status::IDENTIFIER_MISMATCH, why)))
    }

    async fn find(
        &mut self,
        context: &Context,
        command: &Command,
        mut identifier: Identifier,
    ) -> Result<Result<End, Refusal>, AssociationError> {
        let pending = if identifier.is_partly_supported {
            status::PENDING_WITHOUT_OPTIONAL_KEYS
        } else {
            status::PENDING
        };
        let title = self.provider.settings.title.clone();
        identifier.filter.limit = Some(PAGE);
        loop {
            let mut page = match page(&self.provider.db, &identifier).await {
                Ok(page) => page,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let is_last = page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX);
            page.retain(|found| identifier.fits(found));
            let mut studies: Vec<String> = page.iter().flat_map(|found| found.studies.clone()).collect();
            studies.sort_unstable();
            studies.dedup();
            let calling = &self.association.calling;
            if let Err(error) = self.provider.db.audit_reads(calling, studies).await {
                return Ok(Err(error.into()));
            }
            for found in page {
                if self.is_cancelled(command).await? {
                    return Ok(Ok(End::Cancelled));
                }
                let answer: InMemDicomObject = answer::answer(&identifier, &found, &title);
                let Ok(bytes) = write(answer, &context.transfer_syntax) else {
                    let why = "an answer cannot be written; this is a fault of ictus";
                    return Ok(Err(Refusal::new(status::PROCESSING_FAILURE, why)));
                };
                let response = Command::response_to(command, pending);
                let link = &mut self.association.link;
                link.send(context.id, &response, Some(&bytes)).await?;
            }
            if is_last {
                return Ok(Ok(End::All));
            }
            identifier.filter.offset += PAGE;
        }
    }

    /// Whether a C-CANCEL for this request is here; does not wait.
    pub(super) async fn is_cancelled(&mut self, command: &Command) -> Result<bool, AssociationError> {
        match self.association.link.poll().await? {
            None => Ok(false),
            Some(message) if message.command.field() == field::C_CANCEL => {
                let about = message.command.u16(element::MESSAGE_ID_BEING_RESPONDED_TO);
                Ok(about == Some(command.message_id()))
            }
            Some(_) => Err(AssociationError::Protocol(
                "a request came while another one was being answered".to_owned(),
            )),
        }
    }
}

/// The last response of a request that failed.
pub(super) fn refused(command: &Command, refusal: &Refusal) -> Command {
    Command::response_to(command, refusal.status).with_comment(&refusal.comment)
}

async fn page(db: &Db, identifier: &Identifier) -> Result<Vec<Match>, Refusal> {
    fn matches<T: Into<Match>>(found: Vec<T>) -> Vec<Match> {
        found.into_iter().map(Into::into).collect()
    }
    let filter = &identifier.filter;
    Ok(match identifier.level {
        Level::Patient => matches(db.find_patients(filter).await?),
        Level::Study => matches(db.find_studies(filter).await?),
        Level::Series => matches(db.find_series(filter).await?),
        Level::Image => matches(db.find_instances(filter).await?),
    })
}
