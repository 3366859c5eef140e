//! Results → C-STORE requests on one association (SCU).
//!
//! A class that it accepts in none of them is refused by name, and the other instances go out all the same.
//!
//! Source: PS3.4 annex B, table B.2-1; PS3.7 section 9.1.1; PS3.8 section 7.1.

use super::{archive_failure, meaning_of};
use crate::{
    archive::Archive,
    association::{
        Association, AssociationError, Timeouts, Wire,
        command::status,
        requestor::{Peer, request},
    },
    db::outbox::{Attempt, Outgoing},
    domain::phi::redact,
    scu::store,
};

/// What a status of a C-STORE response means for us.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    Later,
    Refused,
}

/// Sends what is left of a delivery.
pub(super) async fn send(peer: &Peer, calling: &str, archive: &Archive, instances: &[Outgoing]) -> Attempt {
    let mut attempt = Attempt::default();
    // An analysis makes objects of five classes at most, so that an association has contexts for all.
    let proposals = store::proposals(instances.iter().map(|instance| {
        (
            instance.sop_class_uid.as_str(),
            instance.transfer_syntax_uid.as_str(),
        )
    }));
    match request(peer, calling, &proposals, Timeouts::default()).await {
        Ok(association) => {
            if let Err(error) = send_all(association, archive, instances, &mut attempt).await {
                attempt.error = Some(error);
            }
        }
        Err(error) => attempt.error = Some(words(&error)),
    }
    attempt
}

/// Sends one after the other; an error ends the association, and what was answered before it counts.
async fn send_all(
    mut association: Association<Wire>,
    archive: &Archive,
    instances: &[Outgoing],
    attempt: &mut Attempt,
) -> Result<(), String> {
    for (index, instance) in instances.iter().enumerate() {
        let chosen = store::choose(
            &association.contexts,
            &instance.sop_class_uid,
            &instance.transfer_syntax_uid,
        );
        let Some(context) = chosen.cloned() else {
            let why = format!(
                "the target accepts SOP class {} neither as it is stored (transfer syntax {}) nor uncompressed",
                instance.sop_class_uid, instance.transfer_syntax_uid
            );
            attempt.refused.push((instance.instance_id, why));
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
        let dataset = match store::in_form(file, &instance.transfer_syntax_uid, &context).await {
            Ok(dataset) => dataset,
            Err(error) => {
                attempt.refused.push((instance.instance_id, error.to_string()));
                continue;
            }
        };
        let number = u16::try_from(index % usize::from(u16::MAX)).unwrap_or_default() + 1;
        let request = store::Request {
            sop_class_uid: &instance.sop_class_uid,
            sop_instance_uid: &instance.sop_instance_uid,
            number,
            originator: None,
            dataset: &dataset,
        };
        let answered = store::c_store(&mut association.link, &context, &request).await;
        let code = match answered {
            Ok(answer) => answer.status,
            Err(error) => {
                association.link.abort(Some(&error)).await;
                return Err(words(&error));
            }
        };
        let why = || format!("the target answered {code:04X}: {}", meaning_of(code));
        match judge(code) {
            Verdict::Taken => attempt.delivered.push(instance.instance_id),
            Verdict::Later => attempt.postponed.push((instance.instance_id, why())),
            Verdict::Refused => attempt.refused.push((instance.instance_id, why())),
        }
    }
    // Everything is answered: how the target ends the association changes nothing.
    let _ended = association.link.release().await;
    Ok(())
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
}
