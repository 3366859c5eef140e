//! C-STORE: a dataset streams to the archive as it is sent; the answer leaves when it is committed.
//!
//! | status | when |
//! |---|---|
//! | 0000H | stored, or stored already |
//! | B000H | stored beside one with the same UID and pixels and other attributes |
//! | B007H | stored, and its series is quarantined |
//! | 0110H | a fault of ours |
//! | 0111H | this UID is stored with other pixels |
//! | 0117H | the command names no SOP instance |
//! | 0122H | the command's SOP class is not the context's |
//! | A700H | too large, or the disk or the database is full or away |
//! | A900H | the dataset is of another class or instance than the command says, or lacks an identifier |
//! | C000H | no dataset, or one that cannot be read |
//! | C122H | a transfer syntax that cannot be read |
//!
//! Source: PS3.4 table B.2-1; PS3.7 section 9.1.1 and annex C.

use super::service::Service;
use crate::{
    archive::ArchiveError,
    association::{
        AssociationError, Context, IMPLEMENTATION_CLASS_UID,
        command::{Command, element, status},
    },
    dicom::part10::Head,
    domain::{failure::FailureClass, uid::Uid},
    receive::{FailedInstance, ReceiveError, Staged},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

/// What an instance is answered.
struct Verdict {
    status: u16,
    comment: Option<String>,
}

impl Verdict {
    fn new(status: u16, comment: &str) -> Self {
        Self {
            status,
            comment: Some(comment.to_owned()),
        }
    }
}

impl Service<'_> {
    /// Answers a C-STORE-RQ.
    pub(super) async fn c_store(
        &mut self,
        context: &Context,
        command: &Command,
    ) -> Result<(), AssociationError> {
        let verdict = self.store(context, command).await?;
        self.association.link.drain().await?;
        // Warnings are stored; every other status but success is not.
        if verdict.status == status::SUCCESS || verdict.status & 0xF000 == 0xB000 {
            self.stored += 1;
        } else {
            self.failed += 1;
        }
        let mut response = Command::response_to(command, verdict.status);
        if let Some(comment) = &verdict.comment {
            response = response.with_comment(comment);
        }
        self.association.link.send(context.id, &response, None).await
    }

    async fn store(&mut self, context: &Context, command: &Command) -> Result<Verdict, AssociationError> {
        let (class, instance) = match identifiers(context, command) {
            Ok(identifiers) => identifiers,
            Err(verdict) => return Ok(self.refused(command, verdict).await),
        };
        let staged = match self.stage(context, &class, &instance).await? {
            Ok(staged) => staged,
            Err(verdict) => return Ok(self.refused(command, verdict).await),
        };
        Ok(match self.session.store(staged).await {
            Ok(Ok(stored)) => match stored.warning {
                Some(warning) => Verdict::new(warning.reason, &warning.text),
                None => Verdict {
                    status: status::SUCCESS,
                    comment: None,
                },
            },
            Ok(Err(failed)) => Verdict::new(failed.failure_reason, &failed.text),
            Err(error) => fault(&error),
        })
    }

    /// Writes the dataset to the staging area while it comes; a link that breaks leaves nothing there.
    async fn stage(
        &mut self,
        context: &Context,
        class: &Uid,
        instance: &Uid,
    ) -> Result<Result<Staged, Verdict>, AssociationError> {
        let head = Head {
            sop_class_uid: class.as_str(),
            sop_instance_uid: instance.as_str(),
            transfer_syntax_uid: &context.transfer_syntax,
            implementation_class_uid: IMPLEMENTATION_CLASS_UID,
        };
        let head = stream::once(std::future::ready(Ok(Bytes::from(head.encode()))));
        let mut broken = None;
        let staged = {
            let dataset = self.association.link.dataset().map_err(|error| {
                broken = Some(error);
                std::io::Error::other("the association ended")
            });
            let file = Box::pin(head.chain(dataset));
            self.provider.receiver.stage(file).await
        };
        match (staged, broken) {
            (_, Some(error)) => Err(error),
            (Ok(staged), None) => Ok(Ok(staged)),
            (Err(error), None) => Ok(Err(fault(&error))),
        }
    }

    /// Notes in the journal what was refused before it could be checked.
    async fn refused(&mut self, command: &Command, verdict: Verdict) -> Verdict {
        let failed = FailedInstance {
            sop_class_uid: command.uid(element::AFFECTED_SOP_CLASS_UID),
            sop_instance_uid: command.uid(element::AFFECTED_SOP_INSTANCE_UID),
            failure_reason: verdict.status,
            text: verdict.comment.clone().unwrap_or_default(),
        };
        if let Err(error) = self.session.refuse(&failed).await {
            tracing::error!(%error, "a refusal could not be written down");
        }
        verdict
    }
}

fn identifiers(context: &Context, command: &Command) -> Result<(Uid, Uid), Verdict> {
    if !command.has_dataset() {
        return Err(Verdict::new(status::UNABLE_TO_PROCESS, "no dataset came"));
    }
    let class = command
        .uid(element::AFFECTED_SOP_CLASS_UID)
        .filter(|class| class.as_str() == context.abstract_syntax)
        .ok_or_else(|| {
            Verdict::new(
                status::SOP_CLASS_NOT_SUPPORTED,
                "the SOP class is not the one of the presentation context",
            )
        })?;
    let instance = command
        .uid(element::AFFECTED_SOP_INSTANCE_UID)
        .ok_or_else(|| Verdict::new(status::INVALID_SOP_INSTANCE, "the SOP instance has no UID"))?;
    Ok((class, instance))
}

/// What a failure of ours means to the sender.
fn fault(error: &ReceiveError) -> Verdict {
    tracing::error!(%error, "an instance could not be stored");
    match error {
        ReceiveError::Archive(ArchiveError::TooLarge { limit }) => Verdict::new(
            status::OUT_OF_RESOURCES,
            &format!("an instance may have {limit} bytes at most"),
        ),
        ReceiveError::Full(_) => Verdict::new(status::OUT_OF_RESOURCES, &error.to_string()),
        error if error.class() == FailureClass::Transient => Verdict::new(
            status::OUT_OF_RESOURCES,
            "storage is full or away; send again later",
        ),
        _ => Verdict::new(status::PROCESSING_FAILURE, "a fault of ictus; see its log"),
    }
}
