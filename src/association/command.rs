//! DIMSE command sets: group 0000 bytes ↔ [`Command`].
//!
//! A command set is always Implicit VR Little Endian, whatever the presentation context says.
//! Unknown elements are kept and ignored; a length that does not fit the bytes is refused.
//!
//! Source: PS3.7 sections 6.3.1, 9.3, 10.3 and annex E.

use super::AssociationError;
use crate::domain::uid::Uid;
use std::collections::BTreeMap;

/// Element numbers of group 0000 (PS3.7 table E.1-1).
pub mod element {
    /// CommandGroupLength.
    pub const GROUP_LENGTH: u16 = 0x0000;
    /// AffectedSOPClassUID.
    pub const AFFECTED_SOP_CLASS_UID: u16 = 0x0002;
    /// RequestedSOPClassUID.
    pub const REQUESTED_SOP_CLASS_UID: u16 = 0x0003;
    /// CommandField.
    pub const COMMAND_FIELD: u16 = 0x0100;
    /// MessageID.
    pub const MESSAGE_ID: u16 = 0x0110;
    /// MessageIDBeingRespondedTo.
    pub const MESSAGE_ID_BEING_RESPONDED_TO: u16 = 0x0120;
    /// MoveDestination.
    pub const MOVE_DESTINATION: u16 = 0x0600;
    /// Priority.
    pub const PRIORITY: u16 = 0x0700;
    /// CommandDataSetType.
    pub const COMMAND_DATA_SET_TYPE: u16 = 0x0800;
    /// Status.
    pub const STATUS: u16 = 0x0900;
    /// ErrorComment.
    pub const ERROR_COMMENT: u16 = 0x0902;
    /// AffectedSOPInstanceUID.
    pub const AFFECTED_SOP_INSTANCE_UID: u16 = 0x1000;
    /// RequestedSOPInstanceUID.
    pub const REQUESTED_SOP_INSTANCE_UID: u16 = 0x1001;
    /// EventTypeID.
    pub const EVENT_TYPE_ID: u16 = 0x1002;
    /// ActionTypeID.
    pub const ACTION_TYPE_ID: u16 = 0x1008;
    /// NumberOfRemainingSuboperations.
    pub const REMAINING: u16 = 0x1020;
    /// NumberOfCompletedSuboperations.
    pub const COMPLETED: u16 = 0x1021;
    /// NumberOfFailedSuboperations.
    pub const FAILED: u16 = 0x1022;
    /// NumberOfWarningSuboperations.
    pub const WARNING: u16 = 0x1023;
    /// MoveOriginatorApplicationEntityTitle.
    pub const MOVE_ORIGINATOR: u16 = 0x1030;
    /// MoveOriginatorMessageID.
    pub const MOVE_ORIGINATOR_MESSAGE_ID: u16 = 0x1031;
}

/// Values of CommandField (PS3.7 table E.1-1).
pub mod field {
    /// C-STORE-RQ.
    pub const C_STORE: u16 = 0x0001;
    /// C-GET-RQ.
    pub const C_GET: u16 = 0x0010;
    /// C-FIND-RQ.
    pub const C_FIND: u16 = 0x0020;
    /// C-MOVE-RQ.
    pub const C_MOVE: u16 = 0x0021;
    /// C-ECHO-RQ.
    pub const C_ECHO: u16 = 0x0030;
    /// N-EVENT-REPORT-RQ.
    pub const N_EVENT_REPORT: u16 = 0x0100;
    /// N-ACTION-RQ.
    pub const N_ACTION: u16 = 0x0130;
    /// C-CANCEL-RQ; it has no response.
    pub const C_CANCEL: u16 = 0x0FFF;
    /// Set in the response to each request.
    pub const RESPONSE: u16 = 0x8000;
}

/// Values of Status (PS3.7 annex C; PS3.4 tables B.2-1, C.4-1, C.4-2 and C.4-3).
pub mod status {
    /// Success.
    pub const SUCCESS: u16 = 0x0000;
    /// Processing failure.
    pub const PROCESSING_FAILURE: u16 = 0x0110;
    /// Invalid argument value.
    pub const INVALID_ARGUMENT: u16 = 0x0115;
    /// Invalid SOP instance.
    pub const INVALID_SOP_INSTANCE: u16 = 0x0117;
    /// No such SOP class, or not the one of the presentation context.
    pub const SOP_CLASS_NOT_SUPPORTED: u16 = 0x0122;
    /// No such action type.
    pub const NO_SUCH_ACTION: u16 = 0x0123;
    /// Unrecognized operation.
    pub const UNRECOGNIZED_OPERATION: u16 = 0x0211;
    /// Mistyped argument.
    pub const MISTYPED_ARGUMENT: u16 = 0x0212;
    /// No such SOP instance.
    pub const NO_SUCH_INSTANCE: u16 = 0x0112;
    /// The SOP instance is of another class.
    pub const CLASS_INSTANCE_CONFLICT: u16 = 0x0119;
    /// No such event type.
    pub const NO_SUCH_EVENT: u16 = 0x0113;
    /// Refused: unable to count the matches.
    pub const CANNOT_COUNT_MATCHES: u16 = 0xA701;
    /// Refused: unable to perform sub-operations.
    pub const CANNOT_PERFORM: u16 = 0xA702;
    /// Refused: out of resources.
    pub const OUT_OF_RESOURCES: u16 = 0xA700;
    /// C-MOVE refused: move destination unknown.
    pub const MOVE_DESTINATION_UNKNOWN: u16 = 0xA801;
    /// The identifier does not match the SOP class.
    pub const IDENTIFIER_MISMATCH: u16 = 0xA900;
    /// Sub-operations complete, one or more failed.
    pub const SUB_OPERATIONS_FAILED: u16 = 0xB000;
    /// Unable to process, or cannot understand.
    pub const UNABLE_TO_PROCESS: u16 = 0xC000;
    /// Ended by a C-CANCEL.
    pub const CANCEL: u16 = 0xFE00;
    /// More follows.
    pub const PENDING: u16 = 0xFF00;
    /// More follows; an optional key was not matched.
    pub const PENDING_WITHOUT_OPTIONAL_KEYS: u16 = 0xFF01;
}

/// CommandDataSetType when no dataset follows (PS3.7 section 9.3.1.1).
const NO_DATA_SET: u16 = 0x0101;
/// CommandDataSetType when one follows: anything else.
const DATA_SET: u16 = 0x0001;
/// The longest ErrorComment: VR LO (PS3.5 table 6.2-1).
const COMMENT_CHARACTERS: usize = 64;

/// A command set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command(BTreeMap<u16, Vec<u8>>);

impl Command {
    /// A command of this kind without a dataset.
    #[must_use]
    pub fn new(command_field: u16) -> Self {
        Self::default()
            .with_u16(element::COMMAND_FIELD, command_field)
            .with_u16(element::COMMAND_DATA_SET_TYPE, NO_DATA_SET)
    }

    /// The response to a request: its field, message and SOP class and instance UIDs, and a status.
    #[must_use]
    pub fn response_to(request: &Self, status: u16) -> Self {
        let mut response = Self::new(request.field() | field::RESPONSE)
            .with_u16(element::MESSAGE_ID_BEING_RESPONDED_TO, request.message_id())
            .with_u16(element::STATUS, status);
        for (from, to) in [
            (element::AFFECTED_SOP_CLASS_UID, element::AFFECTED_SOP_CLASS_UID),
            (element::REQUESTED_SOP_CLASS_UID, element::AFFECTED_SOP_CLASS_UID),
            (
                element::AFFECTED_SOP_INSTANCE_UID,
                element::AFFECTED_SOP_INSTANCE_UID,
            ),
            (
                element::REQUESTED_SOP_INSTANCE_UID,
                element::AFFECTED_SOP_INSTANCE_UID,
            ),
            (element::ACTION_TYPE_ID, element::ACTION_TYPE_ID),
            (element::EVENT_TYPE_ID, element::EVENT_TYPE_ID),
        ] {
            if let Some(value) = request.0.get(&from) {
                response.0.insert(to, value.clone());
            }
        }
        response
    }

    /// With a number.
    #[must_use]
    pub fn with_u16(mut self, element: u16, value: u16) -> Self {
        self.0.insert(element, value.to_le_bytes().to_vec());
        self
    }

    /// With a UID, padded to even length with a NUL.
    #[must_use]
    pub fn with_uid(mut self, element: u16, uid: &str) -> Self {
        self.0.insert(element, padded(uid, 0));
        self
    }

    /// With an AE title or text, padded to even length with a space.
    #[must_use]
    pub fn with_text(mut self, element: u16, text: &str) -> Self {
        self.0.insert(element, padded(text, b' '));
        self
    }

    /// With an ErrorComment, cut to what the attribute holds; the text must be without patient data.
    #[must_use]
    pub fn with_comment(self, text: &str) -> Self {
        let ascii: String = text
            .chars()
            .map(|c| if c.is_ascii_graphic() && c != '\\' { c } else { ' ' })
            .take(COMMENT_CHARACTERS)
            .collect();
        self.with_text(element::ERROR_COMMENT, ascii.trim_end())
    }

    /// Saying that a dataset follows.
    #[must_use]
    pub fn with_dataset(self) -> Self {
        self.with_u16(element::COMMAND_DATA_SET_TYPE, DATA_SET)
    }

    /// CommandField; 0 when there is none.
    #[must_use]
    pub fn field(&self) -> u16 {
        self.u16(element::COMMAND_FIELD).unwrap_or_default()
    }

    /// MessageID; 0 when there is none.
    #[must_use]
    pub fn message_id(&self) -> u16 {
        self.u16(element::MESSAGE_ID).unwrap_or_default()
    }

    /// Status of a response; a processing failure when it has none.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.u16(element::STATUS).unwrap_or(status::PROCESSING_FAILURE)
    }

    /// Whether a dataset follows.
    #[must_use]
    pub fn has_dataset(&self) -> bool {
        self.u16(element::COMMAND_DATA_SET_TYPE)
            .is_some_and(|kind| kind != NO_DATA_SET)
    }

    /// A number.
    #[must_use]
    pub fn u16(&self, element: u16) -> Option<u16> {
        let bytes: [u8; 2] = self.0.get(&element)?.get(..2)?.try_into().ok()?;
        Some(u16::from_le_bytes(bytes))
    }

    /// A text without its padding.
    #[must_use]
    pub fn text(&self, element: u16) -> Option<String> {
        let text = String::from_utf8_lossy(self.0.get(&element)?);
        let text = text.trim_matches([' ', '\0']);
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// A UID; `None` too when it is not one.
    #[must_use]
    pub fn uid(&self, element: u16) -> Option<Uid> {
        Uid::parse(&self.text(element)?).ok()
    }

    /// Reads a command set.
    ///
    /// # Errors
    /// When an element ends behind the end, is of another group, or there is no CommandField.
    pub fn parse(bytes: &[u8]) -> Result<Self, AssociationError> {
        let broken = |problem: &str| AssociationError::Protocol(format!("a command set {problem}"));
        let (mut command, mut rest) = (Self::default(), bytes);
        while !rest.is_empty() {
            let Some((head, behind)) = rest.split_first_chunk::<8>() else {
                return Err(broken("ends inside the head of an element"));
            };
            let group = u16::from_le_bytes([head[0], head[1]]);
            let number = u16::from_le_bytes([head[2], head[3]]);
            let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            if group != 0 {
                return Err(broken("holds an element of another group than 0000"));
            }
            let Some(value) = usize::try_from(length)
                .ok()
                .and_then(|length| behind.get(..length))
            else {
                return Err(broken("has an element that is longer than the set"));
            };
            command.0.insert(number, value.to_vec());
            rest = &behind[value.len()..];
        }
        if command.u16(element::COMMAND_FIELD).is_none() {
            return Err(broken("has no CommandField"));
        }
        Ok(command)
    }

    /// The bytes, with the group length in front.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut elements = Vec::new();
        for (number, value) in self
            .0
            .iter()
            .filter(|(number, _)| **number != element::GROUP_LENGTH)
        {
            put(&mut elements, *number, value);
        }
        let mut out = Vec::with_capacity(elements.len() + 12);
        let length = u32::try_from(elements.len()).unwrap_or(u32::MAX);
        put(&mut out, element::GROUP_LENGTH, &length.to_le_bytes());
        out.extend_from_slice(&elements);
        out
    }
}

fn put(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(value);
}

fn padded(text: &str, with: u8) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    if bytes.len() % 2 == 1 {
        bytes.push(with);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A C-ECHO-RQ, byte for byte as PS3.7 section 6.3.1 and table 9.3-12 lay it out.
    const ECHO: &[u8] = b"\x00\x00\x00\x00\x04\x00\x00\x00\x38\x00\x00\x00\
        \x00\x00\x02\x00\x12\x00\x00\x001.2.840.10008.1.1\0\
        \x00\x00\x00\x01\x02\x00\x00\x00\x30\x00\
        \x00\x00\x10\x01\x02\x00\x00\x00\x07\x00\
        \x00\x00\x00\x08\x02\x00\x00\x00\x01\x01";

    #[test]
    fn reads_and_writes_an_echo() {
        let echo = Command::parse(ECHO).unwrap();
        assert_eq!((echo.field(), echo.message_id()), (field::C_ECHO, 7));
        assert!(!echo.has_dataset());
        assert_eq!(
            echo.uid(element::AFFECTED_SOP_CLASS_UID).unwrap().as_str(),
            "1.2.840.10008.1.1"
        );
        assert_eq!(echo.encode(), ECHO);
    }

    #[test]
    fn answers_with_what_was_asked() {
        let request = Command::new(field::N_ACTION)
            .with_u16(element::MESSAGE_ID, 9)
            .with_uid(element::REQUESTED_SOP_CLASS_UID, "1.2.3")
            .with_u16(element::ACTION_TYPE_ID, 1);
        let response = Command::response_to(&request, status::SUCCESS);
        assert_eq!(response.field(), 0x8130);
        assert_eq!(response.u16(element::MESSAGE_ID_BEING_RESPONDED_TO), Some(9));
        assert_eq!(
            response.text(element::AFFECTED_SOP_CLASS_UID).as_deref(),
            Some("1.2.3")
        );
        assert_eq!(response.u16(element::ACTION_TYPE_ID), Some(1));
        assert_eq!(response.u16(element::MESSAGE_ID), None);
    }

    #[test]
    fn cuts_a_comment_to_what_the_attribute_holds() {
        let long = Command::new(field::C_STORE).with_comment(&"é\\x".repeat(40));
        let comment = long.text(element::ERROR_COMMENT).unwrap();
        assert!(comment.len() <= COMMENT_CHARACTERS && comment.is_ascii() && !comment.contains('\\'));
    }

    #[test]
    fn refuses_lengths_and_groups_that_lie() {
        let mut long = ECHO.to_vec();
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Command::parse(&long).is_err());
        assert!(Command::parse(&ECHO[..ECHO.len() - 1]).is_err());
        assert!(Command::parse(b"\x08\x00\x00\x00\x00\x00\x00\x00").is_err());
        assert!(Command::parse(&[]).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::parse(&noise);
        }
    }
}
