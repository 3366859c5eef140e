//! PDUs and DIMSE messages on a stream, each with a deadline.
//!
//! A PDU must come within [`Timeouts::pdu`] of its first byte, and a message at no less than [`MIN_BYTES_PER_SECOND`]
//! after [`Timeouts::grace`], so that a trickle holds nobody up.
//! Waiting for the first byte of a message is cancel-safe; everything else runs to its end.

use super::{AssociationError, MAX_PDU, command::Command};
use bytes::{Buf, Bytes, BytesMut};
use dicom_ul::pdu::{AbortRQServiceProviderReason, AbortRQSource, Pdu, read_pdu, write_pdu};
use futures::{FutureExt, Stream, stream};
use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout, timeout_at},
};

/// Type and length before each PDU.
const HEAD: usize = 6;
/// The longest association request or answer: 128 contexts of 40 transfer syntaxes with UIDs of 64 characters.
const MAX_ASSOCIATE: u32 = 400 << 10;
/// The longest command set: a dozen short elements, with room for private ones.
const MAX_COMMAND: usize = 64 << 10;
/// A slower sender is taken for one that stalls on purpose: a modem of 1998 was faster.
const MIN_BYTES_PER_SECOND: u64 = 4096;
/// How long a closing connection waits for the other side, so that our last PDU is not lost to a reset.
const LINGER: Duration = Duration::from_secs(2);
/// The longest PDU that we send, whatever the peer takes: larger ones are no faster.
const MAX_SENT: usize = 1 << 17;
/// What a PDU and its only fragment need before the data.
const FRAGMENT_HEAD: usize = 6;

/// How long a peer is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the whole association request, TLS handshake included (PS3.8's ARTIM timer).
    pub establish: Duration,
    /// For the next message.
    pub idle: Duration,
    /// For the rest of a PDU, and for the next one within a message.
    pub pdu: Duration,
    /// For a PDU of ours to leave.
    pub write: Duration,
    /// From the start of a message until its least speed counts.
    pub grace: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            establish: Duration::from_secs(30),
            idle: Duration::from_secs(300),
            pdu: Duration::from_secs(30),
            write: Duration::from_secs(60),
            grace: Duration::from_secs(60),
        }
    }
}

/// A piece of a message (PS3.8 section 9.3.5.1).
#[derive(Debug, Clone)]
pub struct Fragment {
    /// Presentation context.
    pub context: u8,
    /// Of the command; else of the dataset.
    pub command: bool,
    /// The last of it.
    pub last: bool,
    /// Bytes.
    pub data: Bytes,
}

/// A command that came; its dataset, if it has one, is still to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Presentation context.
    pub context: u8,
    /// Command set.
    pub command: Command,
}

/// What a peer sent.
#[derive(Debug)]
enum Incoming {
    Data(Bytes),
    Other(Pdu),
}

/// A stream with PDUs on it.
#[derive(Debug)]
pub struct Link<S> {
    stream: S,
    incoming: BytesMut,
    fragments: VecDeque<Fragment>,
    peer_max_pdu: u32,
    timeouts: Timeouts,
    /// Context of the dataset that is being read.
    open_dataset: Option<u8>,
    message_began: Instant,
    message_bytes: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Link<S> {
    /// A link on which nothing was said yet.
    pub fn new(stream: S, timeouts: Timeouts) -> Self {
        Self {
            stream,
            incoming: BytesMut::new(),
            fragments: VecDeque::new(),
            peer_max_pdu: MAX_PDU,
            timeouts,
            open_dataset: None,
            message_began: Instant::now(),
            message_bytes: 0,
        }
    }

    /// What the peer takes at most in one P-DATA-TF; 0 is no limit.
    pub(super) fn set_peer_max_pdu(&mut self, bytes: u32) {
        self.peer_max_pdu = if bytes == 0 { u32::MAX } else { bytes };
    }

    /// Reads one PDU of the association's begin or end.
    pub(super) async fn receive_pdu(&mut self, doing: &'static str) -> Result<Pdu, AssociationError> {
        let within = self.timeouts.establish;
        match self.incoming_pdu(within, within, doing).await? {
            Incoming::Other(pdu) => Ok(pdu),
            Incoming::Data(_) => Err(AssociationError::Protocol(
                "data came outside of an association".to_owned(),
            )),
        }
    }

    /// Sends a PDU that is not P-DATA-TF.
    pub(super) async fn send_pdu(&mut self, pdu: &Pdu) -> Result<(), AssociationError> {
        let mut bytes = Vec::new();
        write_pdu(&mut bytes, pdu)
            .map_err(|_| AssociationError::Protocol("an AE title or UID cannot be written".to_owned()))?;
        self.write(&bytes).await
    }

    /// Waits for the next message; `None` when the peer asked for the release, which is answered.
    ///
    /// # Errors
    /// When the peer aborts, goes away, is too slow or breaks the protocol.
    pub async fn next(&mut self) -> Result<Option<Message>, AssociationError> {
        self.drain().await?;
        let within = self.timeouts.idle;
        self.next_within(within).await
    }

    async fn next_within(&mut self, first: Duration) -> Result<Option<Message>, AssociationError> {
        if self.fragments.is_empty() && !self.more_fragments(first, "for its next message").await? {
            self.release_answered().await?;
            return Ok(None);
        }
        self.message_began = Instant::now();
        self.message_bytes = 0;
        self.command().await.map(Some)
    }

    /// Puts a command together; its first fragment is here already.
    async fn command(&mut self) -> Result<Message, AssociationError> {
        let (mut bytes, mut context) = (Vec::new(), None);
        loop {
            let fragment = self.fragment().await?;
            if !fragment.command || *context.get_or_insert(fragment.context) != fragment.context {
                return Err(AssociationError::Protocol(
                    "a dataset or another context came where a command was expected".to_owned(),
                ));
            }
            bytes.extend_from_slice(&fragment.data);
            if bytes.len() > MAX_COMMAND {
                return Err(AssociationError::Protocol(format!(
                    "a command set is longer than {MAX_COMMAND} bytes"
                )));
            }
            if fragment.last {
                break;
            }
        }
        let command = Command::parse(&bytes)?;
        let context = context.unwrap_or_default();
        self.open_dataset = command.has_dataset().then_some(context);
        Ok(Message { context, command })
    }

    /// A message that is here already, such as a C-CANCEL; does not wait.
    ///
    /// # Errors
    /// As [`Link::next`].
    pub async fn poll(&mut self) -> Result<Option<Message>, AssociationError> {
        if self.fragments.is_empty() && self.incoming.is_empty() {
            self.incoming.reserve(HEAD);
            match self.stream.read_buf(&mut self.incoming).now_or_never() {
                None => return Ok(None),
                Some(read) => {
                    if read? == 0 {
                        return Err(AssociationError::Closed);
                    }
                }
            }
        }
        let within = self.timeouts.pdu;
        match self.next_within(within).await? {
            Some(message) => Ok(Some(message)),
            None => Err(AssociationError::Closed),
        }
    }

    /// The next fragment of the message under way.
    async fn fragment(&mut self) -> Result<Fragment, AssociationError> {
        loop {
            if let Some(fragment) = self.fragments.pop_front() {
                return Ok(fragment);
            }
            let within = self.timeouts.pdu;
            if !self
                .more_fragments(within, "for the next part of its message")
                .await?
            {
                return Err(AssociationError::Protocol(
                    "a release was asked for within a message".to_owned(),
                ));
            }
        }
    }

    /// Reads one P-DATA-TF; false when it is a release request instead.
    async fn more_fragments(
        &mut self,
        first: Duration,
        doing: &'static str,
    ) -> Result<bool, AssociationError> {
        match self.incoming_pdu(first, self.timeouts.pdu, doing).await? {
            Incoming::Data(bytes) => {
                self.check_speed(bytes.len())?;
                split(bytes, &mut self.fragments)?;
                Ok(true)
            }
            Incoming::Other(Pdu::ReleaseRQ) => Ok(false),
            Incoming::Other(Pdu::AbortRQ { .. }) => Err(AssociationError::Aborted),
            Incoming::Other(_) => Err(AssociationError::Protocol(
                "a PDU came that has no place inside an association".to_owned(),
            )),
        }
    }

    fn check_speed(&mut self, bytes: usize) -> Result<(), AssociationError> {
        self.message_bytes += bytes as u64;
        let due = self.timeouts.grace + Duration::from_secs(self.message_bytes / MIN_BYTES_PER_SECOND);
        if self.open_dataset.is_some() && self.message_began.elapsed() > due {
            return Err(AssociationError::Timeout {
                doing: "to send one message",
                seconds: due.as_secs(),
            });
        }
        Ok(())
    }

    /// The dataset of the message under way, piece by piece; an error of the link is its last item.
    pub fn dataset(&mut self) -> impl Stream<Item = Result<Bytes, AssociationError>> + Send + '_ {
        stream::unfold(self, |link| async move {
            let piece = link.dataset_piece().await.transpose()?;
            Some((piece, link))
        })
    }

    async fn dataset_piece(&mut self) -> Result<Option<Bytes>, AssociationError> {
        let Some(context) = self.open_dataset else {
            return Ok(None);
        };
        let fragment = match self.fragment().await {
            Ok(fragment) => fragment,
            Err(error) => {
                self.open_dataset = None;
                return Err(error);
            }
        };
        if fragment.command || fragment.context != context {
            self.open_dataset = None;
            return Err(AssociationError::Protocol(
                "a command or another context came where a dataset was expected".to_owned(),
            ));
        }
        if fragment.last {
            self.open_dataset = None;
        }
        Ok(Some(fragment.data))
    }

    /// The whole dataset of the message under way, for identifiers and the like.
    ///
    /// # Errors
    /// When it is longer than `limit` bytes, or as [`Link::next`].
    pub async fn whole_dataset(&mut self, limit: usize) -> Result<Vec<u8>, AssociationError> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.dataset_piece().await? {
            if bytes.len() + piece.len() > limit {
                return Err(AssociationError::Protocol(format!(
                    "a dataset is longer than the {limit} bytes that this message may have"
                )));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }

    /// Reads what is left of a dataset that nobody wants.
    ///
    /// # Errors
    /// As [`Link::next`].
    pub async fn drain(&mut self) -> Result<(), AssociationError> {
        while self.dataset_piece().await?.is_some() {}
        Ok(())
    }

    /// Sends a command and, if there is one, its dataset.
    ///
    /// # Errors
    /// When the peer takes it too slowly or is gone.
    pub async fn send(
        &mut self,
        context: u8,
        command: &Command,
        dataset: Option<&[u8]>,
    ) -> Result<(), AssociationError> {
        let command = if dataset.is_some() {
            command.clone().with_dataset().encode()
        } else {
            command.encode()
        };
        self.send_fragments(context, true, &command).await?;
        match dataset {
            Some(dataset) => self.send_fragments(context, false, dataset).await,
            None => Ok(()),
        }
    }

    async fn send_fragments(
        &mut self,
        context: u8,
        command: bool,
        bytes: &[u8],
    ) -> Result<(), AssociationError> {
        let room = (self.peer_max_pdu as usize)
            .min(MAX_SENT)
            .saturating_sub(FRAGMENT_HEAD)
            .max(1);
        let mut pieces: Vec<&[u8]> = bytes.chunks(room).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        let count = pieces.len();
        let mut out = Vec::with_capacity(HEAD + FRAGMENT_HEAD + room.min(bytes.len()));
        for (index, piece) in pieces.into_iter().enumerate() {
            let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
            let flags = u8::from(command) | u8::from(index + 1 == count) << 1;
            out.clear();
            out.extend_from_slice(&[4, 0]);
            out.extend_from_slice(&(length + 6).to_be_bytes());
            out.extend_from_slice(&(length + 2).to_be_bytes());
            out.extend_from_slice(&[context, flags]);
            out.extend_from_slice(piece);
            self.write(&out).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), AssociationError> {
        let within = self.timeouts.write;
        let written = timeout(within, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        });
        match written.await {
            Ok(done) => Ok(done?),
            Err(_) => Err(AssociationError::Timeout {
                doing: "to take what it was sent",
                seconds: within.as_secs(),
            }),
        }
    }

    /// Reads one PDU: its first byte within `first`, the rest of it within `rest`.
    async fn incoming_pdu(
        &mut self,
        first: Duration,
        rest: Duration,
        doing: &'static str,
    ) -> Result<Incoming, AssociationError> {
        let began = Instant::now();
        let mut deadline = began + if self.incoming.is_empty() { first } else { rest };
        loop {
            let wanted = match self.incoming.get(..HEAD) {
                Some(head) => {
                    let length = check_head(head)?;
                    if self.incoming.len() >= HEAD + length {
                        let pdu = self.incoming.split_to(HEAD + length).freeze();
                        return parse(pdu);
                    }
                    HEAD + length - self.incoming.len()
                }
                None => HEAD,
            };
            let was_empty = self.incoming.is_empty();
            self.incoming.reserve(wanted.max(4096));
            let read = timeout_at(deadline, self.stream.read_buf(&mut self.incoming)).await;
            match read {
                Ok(read) => {
                    if read? == 0 {
                        return Err(AssociationError::Closed);
                    }
                }
                Err(_) => {
                    return Err(AssociationError::Timeout {
                        doing,
                        seconds: deadline.duration_since(began).as_secs(),
                    });
                }
            }
            if was_empty {
                deadline = deadline.min(Instant::now() + rest);
            }
        }
    }

    /// Asks for the release and waits for the answer.
    ///
    /// # Errors
    /// When the peer does not answer; the association is over all the same.
    pub async fn release(mut self) -> Result<(), AssociationError> {
        self.send_pdu(&Pdu::ReleaseRQ).await?;
        let within = self.timeouts.pdu;
        loop {
            match self.incoming_pdu(within, within, "to answer a release").await? {
                Incoming::Other(Pdu::ReleaseRP) => break,
                // Both asked at once (PS3.8 section 9.2.3, collision): the requestor answers, too.
                Incoming::Other(Pdu::ReleaseRQ) => self.send_pdu(&Pdu::ReleaseRP).await?,
                Incoming::Other(Pdu::AbortRQ { .. }) => return Err(AssociationError::Aborted),
                Incoming::Other(_) | Incoming::Data(_) => {}
            }
        }
        self.linger().await;
        Ok(())
    }

    async fn release_answered(&mut self) -> Result<(), AssociationError> {
        self.send_pdu(&Pdu::ReleaseRP).await?;
        self.linger().await;
        Ok(())
    }

    /// Ends the association at once and says why, as far as PS3.8 has a word for it.
    pub async fn abort(&mut self, error: Option<&AssociationError>) {
        use AbortRQServiceProviderReason as Reason;
        let source = match error {
            Some(AssociationError::UnknownPdu(_)) => AbortRQSource::ServiceProvider(Reason::UnrecognizedPdu),
            Some(AssociationError::Protocol(_)) => {
                AbortRQSource::ServiceProvider(Reason::InvalidPduParameter)
            }
            Some(_) => AbortRQSource::ServiceProvider(Reason::ReasonNotSpecified),
            None => AbortRQSource::ServiceUser,
        };
        // The peer may be gone, which is what is wanted.
        let _gone = self.send_pdu(&Pdu::AbortRQ { source }).await;
        self.linger().await;
    }

    /// Says that nothing more comes, and reads what the peer still sends, for a short while.
    pub(super) async fn linger(&mut self) {
        let closing = async {
            self.stream.shutdown().await?;
            let mut rest = [0; 4096];
            while self.stream.read(&mut rest).await? > 0 {}
            std::io::Result::Ok(())
        };
        // However this ends, the connection is closed next.
        let _closed = timeout(LINGER, closing).await;
    }
}

/// The length of a PDU, if its type may have it.
fn check_head(head: &[u8]) -> Result<usize, AssociationError> {
    let length = u32::from_be_bytes([head[2], head[3], head[4], head[5]]);
    let (least, most) = match head[0] {
        1 | 2 => (68, MAX_ASSOCIATE),
        4 => (0, MAX_PDU),
        3 | 5..=7 => (4, 4),
        unknown => return Err(AssociationError::UnknownPdu(unknown)),
    };
    if (least..=most).contains(&length) {
        Ok(length as usize)
    } else {
        Err(AssociationError::Protocol(format!(
            "a PDU of type {} says that it has {length} bytes; {least} to {most} are allowed",
            head[0]
        )))
    }
}

fn parse(mut pdu: Bytes) -> Result<Incoming, AssociationError> {
    if pdu.first() == Some(&4) {
        pdu.advance(HEAD);
        return Ok(Incoming::Data(pdu));
    }
    // Bytes from outside go through foreign code: a panic there is a broken PDU.
    let read = catch_unwind(AssertUnwindSafe(|| read_pdu(pdu, MAX_PDU, false)));
    match read {
        Ok(Ok(Some(pdu))) => Ok(Incoming::Other(pdu)),
        _ => Err(AssociationError::Protocol(
            "a PDU is not laid out as PS3.8 section 9.3 says".to_owned(),
        )),
    }
}

/// Splits the body of a P-DATA-TF into its fragments.
fn split(mut body: Bytes, into: &mut VecDeque<Fragment>) -> Result<(), AssociationError> {
    let broken = || AssociationError::Protocol("a fragment is longer or shorter than its PDU".to_owned());
    if body.is_empty() {
        return Err(broken());
    }
    while !body.is_empty() {
        if body.len() < FRAGMENT_HEAD {
            return Err(broken());
        }
        let length = body.get_u32() as usize;
        if length < 2 || length > body.len() {
            return Err(broken());
        }
        let mut data = body.split_to(length);
        let (context, flags) = (data.get_u8(), data.get_u8());
        into.push_back(Fragment {
            context,
            command: flags & 1 != 0,
            last: flags & 2 != 0,
            data,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::association::command::{element, field};
    use tokio::io::duplex;

    fn link(timeouts: Timeouts) -> (Link<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = duplex(1 << 20);
        (Link::new(ours, timeouts), theirs)
    }

    #[tokio::test]
    async fn sends_in_pieces_that_the_peer_takes_and_reads_them_back() {
        let (ours, theirs) = duplex(1 << 20);
        let (mut sender, mut receiver) = (
            Link::new(ours, Timeouts::default()),
            Link::new(theirs, Timeouts::default()),
        );
        sender.set_peer_max_pdu(50);
        let dataset: Vec<u8> = (0..=255).collect();
        let command = Command::new(field::C_STORE).with_u16(element::MESSAGE_ID, 3);
        sender.send(5, &command, Some(&dataset)).await.unwrap();
        let message = receiver.next().await.unwrap().unwrap();
        assert_eq!((message.context, message.command.message_id()), (5, 3));
        assert_eq!(receiver.whole_dataset(256).await.unwrap(), dataset);
        sender.send(5, &command, Some(&dataset)).await.unwrap();
        receiver.next().await.unwrap();
        assert!(matches!(
            receiver.whole_dataset(255).await,
            Err(AssociationError::Protocol(_))
        ));
    }

    #[tokio::test]
    async fn refuses_a_length_before_it_is_read() {
        for (head, unknown) in [
            ([4, 0, 0xFF, 0xFF, 0xFF, 0xFF], false),
            ([1, 0, 0x7F, 0, 0, 0], false),
            ([7, 0, 0, 0, 0, 5], false),
            ([b'G', b'E', b'T', b' ', b'/', b' '], true),
        ] {
            let (mut link, mut peer) = link(Timeouts::default());
            peer.write_all(&head).await.unwrap();
            let error = link.next().await.unwrap_err();
            assert_eq!(
                matches!(error, AssociationError::UnknownPdu(_)),
                unknown,
                "{error}"
            );
            assert!(link.incoming.capacity() < 1 << 16);
        }
    }

    #[tokio::test]
    async fn refuses_fragments_that_lie() {
        for body in [
            &[0u8, 0, 0, 9, 1, 3][..],
            &[0, 0, 0, 1, 1, 3],
            &[0, 0, 0],
            &[0xFF, 0xFF, 0xFF, 0xFF, 1, 3],
        ] {
            let mut fragments = VecDeque::new();
            assert!(
                split(Bytes::copy_from_slice(body), &mut fragments).is_err(),
                "{body:?}"
            );
        }
    }

    #[tokio::test]
    async fn waits_no_longer_than_it_was_told() {
        let quick = Timeouts {
            idle: Duration::from_millis(50),
            pdu: Duration::from_millis(50),
            ..Timeouts::default()
        };
        let (mut idle, _peer) = link(quick);
        let ended = idle.next().await;
        assert!(
            matches!(ended, Err(AssociationError::Timeout { .. })),
            "{ended:?}"
        );
        let patient = Timeouts {
            idle: Duration::from_secs(3600),
            ..quick
        };
        let (mut stalled, mut peer) = link(patient);
        peer.write_all(&[4, 0, 0]).await.unwrap();
        let ended = stalled.next().await;
        assert!(
            matches!(ended, Err(AssociationError::Timeout { .. })),
            "{ended:?}"
        );
    }

    #[tokio::test]
    async fn a_trickle_ends_though_each_piece_comes_in_time() {
        let (mut link, mut peer) = link(Timeouts {
            grace: Duration::from_millis(100),
            ..Timeouts::default()
        });
        let trickle = tokio::spawn(async move {
            let command = Command::new(field::C_STORE).with_dataset().encode();
            let length = u32::try_from(command.len()).unwrap();
            let mut head = vec![4, 0];
            head.extend((length + 6).to_be_bytes());
            head.extend((length + 2).to_be_bytes());
            head.extend([1, 3]);
            head.extend(command);
            peer.write_all(&head).await.unwrap();
            while peer
                .write_all(&[4, 0, 0, 0, 0, 7, 0, 0, 0, 3, 1, 0, 9])
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        link.next().await.unwrap().unwrap();
        let ended = link.drain().await;
        assert!(
            matches!(ended, Err(AssociationError::Timeout { .. })),
            "{ended:?}"
        );
        drop(link);
        trickle.await.unwrap();
    }
}
