//! Results → C-STORE requests on one association (SCU).
//!
//! Each SOP class is offered in the transfer syntax of its file, in Explicit and in Implicit VR Little Endian, a context
//! each, so that what the target accepts is unambiguous; the first of them that it accepts is used.
//! A class that it accepts in none of them is refused by name, and the other instances go out all the same.
//!
//! Source: PS3.4 annex B, table B.2-1; PS3.7 section 9.1.1; PS3.8 section 7.1.

use super::{archive_failure, meaning_of, profile::Files};
use crate::{
    association::{
        Association, AssociationError, Context, Timeouts, Wire,
        command::{Command, element, field, status},
        requestor::{MAX_CONTEXTS, Peer, Proposal, request},
        syntax,
    },
    db::outbox::{Attempt, Outgoing},
    dicom::{part10, transcode},
    domain::phi::redact,
};
use bytes::Bytes;

/// Priority MEDIUM (PS3.7 table 9.1-1).
const MEDIUM: u16 = 0;

/// Refused: SOP class not supported (PS3.7 annex C.5.6).
const SOP_CLASS: u16 = 0x0122;

/// What a status of a C-STORE response means for us.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    Later,
    Refused,
}

/// Sends what is left of a delivery.
pub(super) async fn send(peer: &Peer, calling: &str, archive: &Files, instances: &[Outgoing]) -> Attempt {
    let mut attempt = Attempt::default();
    match request(peer, calling, &proposals(instances), Timeouts::default()).await {
        Ok(association) => {
            if let Err(error) = send_all(association, archive, instances, &mut attempt).await {
                attempt.error = Some(error);
            }
        }
        Err(error) => attempt.error = Some(words(&error)),
    }
    attempt
}

/// The transfer syntaxes that an instance can be given in, as it is first.
fn forms(stored: &str) -> Vec<&str> {
    let mut forms = vec![stored];
    if transcode::is_decodable(stored) {
        for other in [syntax::EXPLICIT, syntax::IMPLICIT] {
            if other != stored {
                forms.push(other);
            }
        }
    }
    forms
}

fn proposals(instances: &[Outgoing]) -> Vec<Proposal> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for instance in instances {
        for form in forms(&instance.transfer_syntax_uid) {
            let pair = (instance.sop_class_uid.as_str(), form);
            if !wanted.contains(&pair) {
                wanted.push(pair);
            }
        }
    }
    // An analysis makes objects of five classes at most, so nothing is ever cut off.
    wanted.truncate(MAX_CONTEXTS);
    wanted
        .into_iter()
        .map(|(class, form)| Proposal {
            abstract_syntax: class.to_owned(),
            transfer_syntaxes: vec![form.to_owned()],
            we_provide: false,
        })
        .collect()
}

/// Sends one after the other; an error ends the association, and what was answered before it counts.
async fn send_all(
    mut association: Association<Wire>,
    archive: &Files,
    instances: &[Outgoing],
    attempt: &mut Attempt,
) -> Result<(), String> {
    for (index, instance) in instances.iter().enumerate() {
        let chosen = forms(&instance.transfer_syntax_uid).into_iter().find_map(|form| {
            association.contexts.iter().find(|context| {
                context.abstract_syntax == instance.sop_class_uid && context.transfer_syntax == form
            })
        });
        let Some(context) = chosen.cloned() else {
            let why = format!(
                "the target accepts SOP class {} neither as it is stored (transfer syntax {}) nor uncompressed",
                instance.sop_class_uid, instance.transfer_syntax_uid
            );
            attempt.refused.push((instance.instance_id, why));
            attempt.unsupported.push(instance.instance_id);
            continue;
        };
        let file = match archive.read(&instance.archive_key).await {
            Ok(file) => file,
            Err(error) => {
                let (why, is_final) = archive_failure(&error);
                attempt.is_final = is_final;
                association.link.abort(None).await;
                return Err(why);
            }
        };
        let dataset = match in_form(file, &instance.transfer_syntax_uid, &context).await {
            Ok(dataset) => dataset,
            Err(why) => {
                attempt.refused.push((instance.instance_id, why));
                continue;
            }
        };
        let number = u16::try_from(index % usize::from(u16::MAX)).unwrap_or_default() + 1;
        let answered = exchange(&mut association, &context, instance, number, &dataset).await;
        let code = match answered {
            Ok(code) => code,
            Err(error) => {
                association.link.abort(Some(&error)).await;
                return Err(words(&error));
            }
        };
        let why = || format!("the target answered {code:04X}: {}", meaning_of(code));
        match judge(code) {
            Verdict::Taken => attempt.delivered.push(instance.instance_id),
            Verdict::Later => attempt.postponed.push((instance.instance_id, why())),
            Verdict::Refused => {
                if code == SOP_CLASS {
                    attempt.unsupported.push(instance.instance_id);
                }
                attempt.refused.push((instance.instance_id, why()));
            }
        }
    }
    // Everything is answered: how the target ends the association changes nothing.
    let _ended = association.link.release().await;
    Ok(())
}

/// The dataset in the form of a context.
async fn in_form(file: Bytes, stored: &str, context: &Context) -> Result<Bytes, String> {
    let (same, explicit) = (
        context.transfer_syntax == stored,
        context.transfer_syntax == syntax::EXPLICIT,
    );
    let made = tokio::task::spawn_blocking(move || {
        let file = match (same, explicit) {
            (true, _) => file,
            (false, true) => transcode::to_explicit_vr_little_endian(&file)?.into(),
            (false, false) => transcode::to_implicit_vr_little_endian(&file)?.into(),
        };
        Ok::<_, transcode::TranscodeError>(part10::dataset(&file).map(|dataset| file.slice_ref(dataset)))
    })
    .await;
    match made {
        Ok(Ok(Ok(dataset))) => Ok(dataset),
        Ok(Ok(Err(error))) => Err(format!("the stored file cannot be sent: {}", redact(&error))),
        Ok(Err(error)) => Err(format!(
            "the stored file cannot be brought into a transfer syntax that the target accepts: {}",
            redact(&error)
        )),
        Err(_) => Err("preparing the file failed; this is a fault of ictus".to_owned()),
    }
}

async fn exchange(
    association: &mut Association<Wire>,
    context: &Context,
    instance: &Outgoing,
    number: u16,
    dataset: &[u8],
) -> Result<u16, AssociationError> {
    let command = Command::new(field::C_STORE)
        .with_u16(element::MESSAGE_ID, number)
        .with_u16(element::PRIORITY, MEDIUM)
        .with_uid(element::AFFECTED_SOP_CLASS_UID, &instance.sop_class_uid)
        .with_uid(element::AFFECTED_SOP_INSTANCE_UID, &instance.sop_instance_uid);
    association.link.send(context.id, &command, Some(dataset)).await?;
    let Some(answer) = association.link.next().await? else {
        return Err(AssociationError::Protocol(
            "it asked for the release before it answered".to_owned(),
        ));
    };
    let is_answer = answer.command.field() == field::C_STORE | field::RESPONSE
        && answer.command.u16(element::MESSAGE_ID_BEING_RESPONDED_TO) == Some(number);
    if !is_answer {
        return Err(AssociationError::Protocol(
            "it answered something else than the C-STORE request".to_owned(),
        ));
    }
    answer
        .command
        .u16(element::STATUS)
        .ok_or_else(|| AssociationError::Protocol("its answer has no status".to_owned()))
}

fn judge(code: u16) -> Verdict {
    match code {
        status::SUCCESS | 0x0001 | 0xB000..=0xBFFF => Verdict::Taken,
        code if super::is_passing(code) => Verdict::Later,
        _ => Verdict::Refused,
    }
}

fn words(error: &AssociationError) -> String {
    redact(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_taken_shortages_pass_and_failures_stay() {
        for (code, verdict) in [
            (0x0000, Verdict::Taken),
            (0xB000, Verdict::Taken),
            (0xB007, Verdict::Taken),
            (0xA700, Verdict::Later),
            (0xA7FE, Verdict::Later),
            (0x0110, Verdict::Later),
            (0xA900, Verdict::Refused),
            (0xC000, Verdict::Refused),
            (0x0122, Verdict::Refused),
            (0x0111, Verdict::Refused),
        ] {
            assert_eq!(judge(code), verdict, "{code:04X}");
        }
    }

    #[test]
    fn offers_what_can_be_made_of_a_file() {
        const RLE: &str = "1.2.840.10008.1.2.5";
        assert_eq!(forms(RLE), [RLE, syntax::EXPLICIT, syntax::IMPLICIT]);
        assert_eq!(forms(syntax::EXPLICIT), [syntax::EXPLICIT, syntax::IMPLICIT]);
        assert_eq!(forms("1.2.840.10008.1.2.4.100"), ["1.2.840.10008.1.2.4.100"]);
    }
}
