//! Results → C-STORE requests on one association (SCU).
//!
//! The target says what it accepts; a class that it accepts in no form of ours is refused by name, and the other instances go out all the same.
//!
//! A target that is asked for storage commitment has an instance only when it has committed to it (see `commitment`).
//!
//! Source: PS3.4 annex B, table B.2-1; PS3.7 section 9.1.1; PS3.8 section 7.1.

use super::{archive_failure, commitment, meaning_of, profile::Files};
use crate::{
    association::{
        Association, AssociationError, Timeouts, Wire,
        command::status,
        requestor::{Peer, request},
    },
    db::{
        Db,
        outbox::{Attempt, Claimed, Outgoing},
    },
    domain::phi::redact,
    scu::store,
};

/// Refused: SOP class not supported (PS3.7 annex C.5.6).
const SOP_CLASS: u16 = 0x0122;

/// What a status of a C-STORE response means for us.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    Later,
    Refused,
}

/// Who gets results, and when they count as delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct To<'a> {
    pub(super) peer: &'a Peer,
    pub(super) calling: &'a str,
    /// Only when the target has committed to them.
    pub(super) commit: bool,
}

/// Sends what is left of a delivery.
pub(super) async fn send(to: &To<'_>, db: &Db, archive: &Files, claimed: &Claimed) -> Attempt {
    let mut attempt = Attempt::default();
    let left = if to.commit {
        match commitment::answered(db, claimed, &mut attempt).await {
            Ok(left) => left,
            Err(error) => {
                attempt.error = Some(error);
                return attempt;
            }
        }
    } else {
        claimed.instances.clone()
    };
    if left.is_empty() {
        return attempt;
    }
    // An analysis makes objects of five classes at most, so that an association has contexts for all.
    let mut proposals = store::proposals(left.iter().map(|instance| {
        (
            instance.sop_class_uid.as_str(),
            instance.transfer_syntax_uid.as_str(),
        )
    }));
    if to.commit {
        proposals.push(commitment::proposal());
    }
    match request(to.peer, to.calling, &proposals, Timeouts::default()).await {
        Ok(mut association) => {
            let mut sent = Attempt::default();
            let mut ended = send_all(&mut association, archive, &left, &mut sent).await;
            if to.commit && ended.is_ok() && !sent.delivered.is_empty() {
                let taken = std::mem::take(&mut sent.delivered);
                let taken: Vec<Outgoing> = left
                    .into_iter()
                    .filter(|instance| taken.contains(&instance.instance_id))
                    .collect();
                ended = commitment::ask(&mut association, db, claimed.id, &taken, &mut sent).await;
            } else if to.commit {
                // What nobody has committed to is sent again.
                sent.delivered.clear();
            }
            attempt.delivered.append(&mut sent.delivered);
            attempt.refused.append(&mut sent.refused);
            attempt.unsupported.append(&mut sent.unsupported);
            attempt.postponed.append(&mut sent.postponed);
            attempt.is_final |= sent.is_final;
            match ended {
                // Everything is answered: how the target ends the association changes nothing.
                Ok(()) => drop(association.link.release().await),
                Err(error) => attempt.error = Some(error),
            }
        }
        Err(error) => attempt.error = Some(words(&error)),
    }
    attempt
}

/// Sends one after the other; an error ends the association, and what was answered before it counts.
async fn send_all(
    association: &mut Association<Wire>,
    archive: &Files,
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
            Verdict::Refused => {
                if code == SOP_CLASS {
                    attempt.unsupported.push(instance.instance_id);
                }
                attempt.refused.push((instance.instance_id, why()));
            }
        }
    }
    Ok(())
}

fn judge(code: u16) -> Verdict {
    match code {
        status::SUCCESS | 0x0001 | 0xB000..=0xBFFF => Verdict::Taken,
        code if super::is_passing(code) => Verdict::Later,
        _ => Verdict::Refused,
    }
}

pub(super) fn words(error: &AssociationError) -> String {
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
