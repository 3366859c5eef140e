//! Asking a PACS: C-FIND for what it has, C-MOVE to our listener or C-GET to have it.
//!
//! Source: PS3.4 section C.4; PS3.7 annex D.3.3.4 (role selection).

use super::{FetchError, MOST_ANSWERS, Search, SeriesFound, StudyFound};
use crate::{
    association::{
        Association, AssociationError, Context, IMPLEMENTATION_CLASS_UID, Timeouts, Wire,
        command::{Command, element, field, status},
        requestor::{Peer, Proposal, request},
        syntax,
    },
    dicom::part10::Head,
    domain::uid::Uid,
    receive::{ReceiveError, Receiver, Session},
    scu::retrieve,
};
use bytes::Bytes;
use dicom_core::{DataElement, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use futures::{StreamExt, TryStreamExt, stream};
use std::net::{Ipv4Addr, SocketAddr};

/// What is taken by C-GET: images of a head and what is said about them.
const CLASSES: [&str; 15] = [
    uids::CT_IMAGE_STORAGE,
    uids::ENHANCED_CT_IMAGE_STORAGE,
    uids::LEGACY_CONVERTED_ENHANCED_CT_IMAGE_STORAGE,
    uids::MR_IMAGE_STORAGE,
    uids::ENHANCED_MR_IMAGE_STORAGE,
    uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
    uids::SEGMENTATION_STORAGE,
    uids::PARAMETRIC_MAP_STORAGE,
    uids::BASIC_TEXT_SR_STORAGE,
    uids::ENHANCED_SR_STORAGE,
    uids::COMPREHENSIVE_SR_STORAGE,
    uids::COMPREHENSIVE3_DSR_STORAGE,
    uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE,
    uids::GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE,
    uids::ENCAPSULATED_PDF_STORAGE,
];
/// In what it is taken: as it is stored there, as far as we can read it.
const SYNTAXES: [&str; 9] = [
    syntax::EXPLICIT,
    uids::JPEG_LOSSLESS_SV1,
    uids::JPEG_LOSSLESS,
    uids::JPEG2000_LOSSLESS,
    uids::JPEGLS_LOSSLESS,
    uids::RLE_LOSSLESS,
    uids::HTJ2K_LOSSLESS,
    uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    syntax::IMPLICIT,
];
/// The only message of an association.
const NUMBER: u16 = 1;

fn proposal(class: &str, syntaxes: &[&str], we_provide: bool) -> Proposal {
    Proposal {
        abstract_syntax: class.to_owned(),
        transfer_syntaxes: syntaxes.iter().map(|uid| (*uid).to_owned()).collect(),
        we_provide,
    }
}

/// An association for a service, and its context.
async fn call(
    peer: &Peer,
    title: &str,
    class: &str,
    more: Vec<Proposal>,
) -> Result<(Association<Wire>, Context), FetchError> {
    let mut proposals = vec![proposal(class, &[syntax::EXPLICIT, syntax::IMPLICIT], false)];
    proposals.extend(more);
    let mut association = request(peer, title, &proposals, Timeouts::default()).await?;
    let context = association
        .contexts
        .iter()
        .find(|context| context.abstract_syntax == class);
    let Some(context) = context.cloned() else {
        association.link.abort(None).await;
        return Err(FetchError::Answer(
            "does not provide the query or retrieval of the study root model".to_owned(),
        ));
    };
    Ok((association, context))
}

fn keys(level: &str, wanted: &[(Tag, VR, &str)]) -> InMemDicomObject {
    let mut keys = InMemDicomObject::new_empty();
    keys.put(DataElement::new(tags::QUERY_RETRIEVE_LEVEL, VR::CS, level));
    for (tag, vr, value) in wanted {
        keys.put(DataElement::new(*tag, *vr, *value));
    }
    keys
}

async fn find(peer: &Peer, title: &str, keys: InMemDicomObject) -> Result<Vec<InMemDicomObject>, FetchError> {
    let (mut association, context) = call(peer, title, syntax::STUDY_ROOT_FIND, Vec::new()).await?;
    let link = &mut association.link;
    let found = match retrieve::find(link, &context, NUMBER, keys, MOST_ANSWERS).await {
        Ok(found) => found,
        Err(error) => {
            link.abort(Some(&error)).await;
            return Err(error.into());
        }
    };
    // All is answered: how the peer ends the association changes nothing.
    let _ended = association.link.release().await;
    match found.status {
        status::SUCCESS | status::CANCEL => Ok(found.answers),
        code => Err(FetchError::Answer(format!(
            "answered {code:04X} to a C-FIND request"
        ))),
    }
}

fn text(answer: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = answer.get(tag)?.to_str().ok()?;
    let text = text.trim_matches([' ', '\0']);
    (!text.is_empty()).then(|| text.to_owned())
}

pub(super) async fn studies(
    peer: &Peer,
    title: &str,
    search: &Search,
) -> Result<Vec<StudyFound>, FetchError> {
    let dates = format!("{}-{}", search.from, search.to);
    let keys = keys(
        "STUDY",
        &[
            (tags::STUDY_INSTANCE_UID, VR::UI, ""),
            (tags::STUDY_DATE, VR::DA, &dates),
            (tags::PATIENT_ID, VR::LO, &search.patient_id),
            (tags::ISSUER_OF_PATIENT_ID, VR::LO, ""),
            (
                tags::MODALITIES_IN_STUDY,
                VR::CS,
                search.modality.as_deref().unwrap_or_default(),
            ),
        ],
    );
    let found = find(peer, title, keys).await?;
    Ok(found
        .iter()
        .map(|answer| StudyFound {
            study_instance_uid: text(answer, tags::STUDY_INSTANCE_UID).unwrap_or_default(),
            patient_id: text(answer, tags::PATIENT_ID).unwrap_or_default(),
            issuer_of_patient_id: text(answer, tags::ISSUER_OF_PATIENT_ID),
            study_date: text(answer, tags::STUDY_DATE),
        })
        .collect())
}

pub(super) async fn series(peer: &Peer, title: &str, study: &Uid) -> Result<Vec<SeriesFound>, FetchError> {
    let keys = keys(
        "SERIES",
        &[
            (tags::STUDY_INSTANCE_UID, VR::UI, study.as_str()),
            (tags::SERIES_INSTANCE_UID, VR::UI, ""),
            (tags::MODALITY, VR::CS, ""),
            (tags::BODY_PART_EXAMINED, VR::CS, ""),
            (tags::NUMBER_OF_SERIES_RELATED_INSTANCES, VR::IS, ""),
        ],
    );
    let found = find(peer, title, keys).await?;
    Ok(found
        .iter()
        .map(|answer| SeriesFound {
            series_instance_uid: text(answer, tags::SERIES_INSTANCE_UID).unwrap_or_default(),
            modality: text(answer, tags::MODALITY),
            body_part: text(answer, tags::BODY_PART_EXAMINED),
            instances: text(answer, tags::NUMBER_OF_SERIES_RELATED_INSTANCES)
                .and_then(|count| count.parse().ok()),
        })
        .collect())
}

fn wanted(study: &Uid, series: Option<&Uid>) -> InMemDicomObject {
    let study = (tags::STUDY_INSTANCE_UID, VR::UI, study.as_str());
    match series {
        None => keys("STUDY", &[study]),
        Some(series) => keys(
            "SERIES",
            &[study, (tags::SERIES_INSTANCE_UID, VR::UI, series.as_str())],
        ),
    }
}

/// Has a study or series sent to our listener; how many instances came.
pub(super) async fn move_here(
    peer: &Peer,
    title: &str,
    study: &Uid,
    series: Option<&Uid>,
) -> Result<u64, FetchError> {
    let (mut association, context) = call(peer, title, syntax::STUDY_ROOT_MOVE, Vec::new()).await?;
    let link = &mut association.link;
    let moved = match retrieve::move_to(link, &context, NUMBER, wanted(study, series), title).await {
        Ok(moved) => moved,
        Err(error) => {
            link.abort(Some(&error)).await;
            return Err(error.into());
        }
    };
    // All is answered: how the peer ends the association changes nothing.
    let _ended = association.link.release().await;
    judge(
        "C-MOVE",
        moved.status,
        u64::from(moved.completed) + u64::from(moved.warning),
    )
}

fn judge(service: &str, code: u16, came: u64) -> Result<u64, FetchError> {
    match code {
        status::SUCCESS => Ok(came),
        _ => Err(FetchError::Answer(format!(
            "answered {code:04X} to a {service} request; {came} instances came"
        ))),
    }
}

/// Gets a study or series on the association; how many instances came.
pub(super) async fn get(
    peer: &Peer,
    title: &str,
    receiver: &Receiver,
    study: &Uid,
    series: Option<&Uid>,
) -> Result<u64, FetchError> {
    let storage = CLASSES.map(|class| proposal(class, &SYNTAXES, true)).to_vec();
    let (mut association, context) = call(peer, title, syntax::STUDY_ROOT_GET, storage).await?;
    // The journal names who sent it: the peer by its title. Its address was the file's to say.
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, peer.port));
    let mut session = receiver.open(&peer.title, title, address);
    let got = take(
        &mut association,
        &context,
        receiver,
        &mut session,
        wanted(study, series),
    )
    .await;
    match &got {
        // All is answered: how the peer ends the association changes nothing.
        Ok(_) => drop(association.link.release().await),
        Err(_) => association.link.abort(None).await,
    }
    session.end(if got.is_ok() { "released" } else { "lost" }).await?;
    let (code, came) = got?;
    judge("C-GET", code, came)
}

async fn take(
    association: &mut Association<Wire>,
    context: &Context,
    receiver: &Receiver,
    session: &mut Session,
    keys: InMemDicomObject,
) -> Result<(u16, u64), FetchError> {
    let contexts = association.contexts.clone();
    let link = &mut association.link;
    retrieve::request(link, context, field::C_GET, NUMBER, keys, None).await?;
    let mut came = 0;
    loop {
        let broken = |what: &str| AssociationError::Protocol(what.to_owned());
        let message = link
            .next()
            .await?
            .ok_or_else(|| broken("it asked for the release before it answered"))?;
        let command = message.command;
        if command.field() == field::C_GET | field::RESPONSE {
            link.drain().await?;
            if !retrieve::is_pending(command.status()) {
                return Ok((command.status(), came));
            }
            continue;
        }
        let on = contexts.iter().find(|context| context.id == message.context);
        let (Some(on), field::C_STORE) = (on, command.field()) else {
            return Err(broken("it answered something else than the C-GET request").into());
        };
        let uid = |element| command.text(element).unwrap_or_default();
        let (class, instance) = (
            uid(element::AFFECTED_SOP_CLASS_UID),
            uid(element::AFFECTED_SOP_INSTANCE_UID),
        );
        let head = Head {
            sop_class_uid: &class,
            sop_instance_uid: &instance,
            transfer_syntax_uid: &on.transfer_syntax,
            implementation_class_uid: IMPLEMENTATION_CLASS_UID,
        };
        let head = stream::once(std::future::ready(Ok(Bytes::from(head.encode()))));
        let dataset = link.dataset().map_err(std::io::Error::other);
        let staged = receiver.stage(Box::pin(head.chain(dataset))).await;
        let code = match staged {
            Ok(staged) => match session.store(staged).await {
                Ok(Ok(stored)) => stored.warning.map_or(status::SUCCESS, |warning| warning.reason),
                Ok(Err(failed)) => failed.failure_reason,
                Err(error) => return Err(error.into()),
            },
            Err(error @ ReceiveError::Archive(_)) => return Err(error.into()),
            Err(_) => status::OUT_OF_RESOURCES,
        };
        if code == status::SUCCESS || code & 0xF000 == 0xB000 {
            came += 1;
        }
        link.drain().await?;
        let response = Command::response_to(&command, code);
        link.send(message.context, &response, None).await?;
    }
}
