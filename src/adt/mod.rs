//! EDGE: HL7 v2 ADT messages over MLLP → corrections of identity, each acknowledged.
//!
//! What must hold: a message is answered AA only after its correction is committed; AE says that it should come again or be
//! corrected, AR that it never will be understood.
//! A08 and A31 correct who a patient is, A40 makes one patient's studies another's; other ADT events are of no concern here
//! and are answered AA, since a hospital sends all of them to everybody.
//! Nobody can sign in over MLLP: beyond loopback only named addresses may connect.
//! No answer and no log line repeats a value of the message.
//!
//! Source: HL7 v2.5.1 chapters 2 and 3; IHE ITI-10 and RAD-12.

use crate::{
    db::Db,
    domain::phi::redact,
    hl7::{Hl7Error, Message, Segment, acknowledge, charset, mllp},
    identity::{self, IdentityError, PatientId, Person},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use time::{OffsetDateTime, macros::format_description};
use tokio::{
    io::BufReader,
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use uuid::Uuid;

/// Connections at once: an interface engine holds one or two.
const CONNECTIONS: usize = 32;
/// A connection that says nothing for so long is closed; an engine opens another one.
const SILENCE: Duration = Duration::from_secs(30 * 60);

/// Who may connect.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Addresses that may connect beside this machine's own.
    pub allowed: Vec<IpAddr>,
}

/// Why nobody is listened to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdtError {
    /// Anybody could correct anybody.
    #[error(
        "--hl7 {0} would let everybody who reaches it correct identities; name the senders with --hl7-allow, or listen on 127.0.0.1"
    )]
    Open(SocketAddr),
}

impl Settings {
    /// Whether these settings are safe for an address.
    ///
    /// # Errors
    /// When everybody could connect.
    pub fn check(&self, listen: SocketAddr) -> Result<(), AdtError> {
        if listen.ip().is_loopback() || !self.allowed.is_empty() {
            Ok(())
        } else {
            Err(AdtError::Open(listen))
        }
    }
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    code: &'static str,
    text: Option<String>,
}

/// Listens until it is stopped; messages under way are answered.
pub async fn run(db: Db, listener: TcpListener, settings: Settings, mut stopped: watch::Receiver<bool>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    while !*stopped.borrow() {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => continue,
        };
        let Ok((stream, peer)) = accepted else {
            // No descriptor is left, for one: it is no use to ask again at once.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let ip = peer.ip().to_canonical();
        if !ip.is_loopback() && !settings.allowed.contains(&ip) {
            tracing::warn!(peer = %ip, "a connection for HL7 messages is refused: --hl7-allow does not name its address");
            continue;
        }
        let Ok(permit) = free.clone().try_acquire_owned() else {
            tracing::warn!(peer = %ip, "a connection for HL7 messages is refused: there are too many");
            continue;
        };
        let (db, mut stopped) = (db.clone(), stopped.clone());
        tokio::spawn(async move {
            let talking = talk(&db, stream, ip);
            tokio::select! {
                ended = talking => if let Err(error) = ended {
                    tracing::warn!(%error, peer = %ip, "a connection for HL7 messages ended early");
                },
                _ = stopped.wait_for(|stop| *stop) => {}
            }
            drop(permit);
        });
    }
}

async fn talk(db: &Db, mut stream: TcpStream, peer: IpAddr) -> Result<(), Hl7Error> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    loop {
        let Ok(read) = tokio::time::timeout(SILENCE, mllp::read(&mut reader)).await else {
            return Ok(());
        };
        let Some(bytes) = read? else {
            return Ok(());
        };
        // A message that cannot even be parsed has nobody to be answered to but the connection.
        let message = match charset::decode(&bytes) {
            Ok(text) => Message::parse(&text)?,
            Err(error) => {
                // Its header is ASCII: that much is enough to answer it.
                let message = Message::parse(&String::from_utf8_lossy(&bytes))?;
                let refused = Answer {
                    code: "AE",
                    text: Some(error.to_string()),
                };
                answer(&mut writer, &message, &refused).await?;
                continue;
            }
        };
        let said = take(db, &message, peer).await;
        answer(&mut writer, &message, &said).await?;
    }
}

async fn answer(
    writer: &mut (impl tokio::io::AsyncWrite + Unpin),
    message: &Message,
    said: &Answer,
) -> Result<(), Hl7Error> {
    let format = format_description!("[year][month][day][hour][minute][second]+0000");
    let at = OffsetDateTime::now_utc().format(format).unwrap_or_default();
    let id: String = Uuid::new_v4().simple().to_string().chars().take(20).collect();
    let text = acknowledge(message, said.code, said.text.as_deref(), &at, &id);
    mllp::write(writer, text.as_bytes()).await
}

/// Does what a message asks for.
async fn take(db: &Db, message: &Message, peer: IpAddr) -> Answer {
    let (kind, event) = message.kind();
    if kind != "ADT" {
        return Answer {
            code: "AR",
            text: Some("only ADT messages are taken here".to_owned()),
        };
    }
    let event = match event.as_str() {
        "A08" | "A31" => "A08",
        "A40" => "A40",
        _ => {
            return Answer {
                code: "AA",
                text: None,
            };
        }
    };
    match correct(db, message, event, &format!("hl7 {peer}")).await {
        Ok(studies) => {
            if studies > 0 {
                tracing::info!(peer = %peer, "an HL7 message corrected the identity of a patient");
            }
            Answer {
                code: "AA",
                text: None,
            }
        }
        Err(Wrong::Message(error)) => Answer {
            code: "AE",
            text: Some(error.to_string()),
        },
        Err(Wrong::Identity(error)) => {
            tracing::warn!(error = %redact(&error), "an HL7 message could not be followed");
            Answer {
                code: "AE",
                text: Some(error.to_string()),
            }
        }
    }
}

/// Why a message was not followed.
#[derive(Debug)]
enum Wrong {
    Message(Hl7Error),
    Identity(IdentityError),
}

impl From<Hl7Error> for Wrong {
    fn from(error: Hl7Error) -> Self {
        Self::Message(error)
    }
}

impl From<IdentityError> for Wrong {
    fn from(error: IdentityError) -> Self {
        Self::Identity(error)
    }
}

async fn correct(db: &Db, message: &Message, event: &str, principal: &str) -> Result<usize, Wrong> {
    let mut count = 0;
    let merges: Vec<Segment<'_>> = message.segments_of("MRG").collect();
    let patients: Vec<Segment<'_>> = message.segments_of("PID").collect();
    if patients.is_empty() {
        return Err(Hl7Error::NoSegment("PID").into());
    }
    for (at, pid) in patients.iter().enumerate() {
        let ids = ids(pid, 3);
        let to = ids.first().cloned().ok_or(Hl7Error::Empty("PID-3"))?;
        let person = person(pid);
        let (from, own): (Vec<PatientId>, _) = if event == "A40" {
            // A message may hold several pairs, each PID followed by its MRG.
            let mrg = merges.get(at).ok_or(Hl7Error::NoSegment("MRG"))?;
            (self::ids(mrg, 1), false)
        } else {
            (ids, true)
        };
        if from.is_empty() {
            return Err(Hl7Error::Empty("MRG-1").into());
        }
        for old in from {
            // A08 leaves an ID as it is: of several in PID-3 the study has one.
            let to = if own { old.clone() } else { to.clone() };
            let done = identity::correct(db, principal, event, &old, &to, &person).await?;
            count += done.studies.len();
        }
    }
    Ok(count)
}

/// The IDs of a field of the type CX: number and assigning authority.
fn ids(segment: &Segment<'_>, field: usize) -> Vec<PatientId> {
    segment
        .repetitions(field)
        .filter_map(|one| {
            Some(PatientId {
                id: segment.component(one, 1)?,
                issuer: segment.component(one, 4),
            })
        })
        .collect()
}

/// Name, birth date and sex; what is empty stays, HL7's null empties.
fn person(pid: &Segment<'_>) -> Person {
    let value = |field: usize, text: Option<String>| match text {
        Some(text) => Some(text),
        None => pid.is_null(field).then(String::new),
    };
    let name = pid.text(5, 1).map(|family| {
        let part = |component| pid.text(5, component).unwrap_or_default().replace('^', " ");
        // XPN has the suffix before the prefix, PN the other way round.
        let parts = [family.replace('^', " "), part(2), part(3), part(5), part(4)];
        parts.join("^").trim_end_matches('^').to_owned()
    });
    let date = pid
        .text(7, 1)
        .and_then(|date| date.get(..8).map(str::to_owned))
        .filter(|date| date.bytes().all(|byte| byte.is_ascii_digit()));
    let sex = pid.text(8, 1).and_then(|sex| match sex.as_str() {
        "M" | "F" | "O" => Some(sex),
        "A" | "N" => Some("O".to_owned()),
        _ => None,
    });
    Person {
        name: value(5, name),
        birth_date: value(7, date),
        sex: value(8, sex),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_read_as_dicom_writes_one() {
        let message = Message::parse(
            "MSH|^~\\&|A|B|C|D|1||ADT^A08|1|P|2.5\rPID|1||P7^^^HOSP^MR~X||Doe^Jane^M^Jr^Dr||195001021200|A\r",
        )
        .unwrap();
        let pid = message.segment("PID").unwrap();
        assert_eq!(
            person(&pid),
            Person {
                name: Some("Doe^Jane^M^Dr^Jr".to_owned()),
                birth_date: Some("19500102".to_owned()),
                sex: Some("O".to_owned()),
            }
        );
        let ids = ids(&pid, 3);
        assert_eq!(
            (ids[0].id.as_str(), ids[0].issuer.as_deref()),
            ("P7", Some("HOSP"))
        );
        assert_eq!((ids[1].id.as_str(), ids[1].issuer.as_deref()), ("X", None));
        let message = Message::parse("MSH|^~\\&|A|B|C|D|1||ADT^A08|1|P|2.5\rPID|1||P7||\"\"||\r").unwrap();
        let emptied = person(&message.segment("PID").unwrap());
        assert_eq!((emptied.name.as_deref(), emptied.birth_date), (Some(""), None));
    }

    #[test]
    fn beyond_loopback_only_named_senders_may_connect() {
        let open = Settings::default();
        assert!(open.check("127.0.0.1:2575".parse().unwrap()).is_ok());
        assert!(open.check("0.0.0.0:2575".parse().unwrap()).is_err());
        let named = Settings {
            allowed: vec!["10.0.0.7".parse().unwrap()],
        };
        assert!(named.check("0.0.0.0:2575".parse().unwrap()).is_ok());
    }
}
