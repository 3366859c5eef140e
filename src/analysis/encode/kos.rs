//! The slices that show a finding → a Key Object Selection: where a reader who has a minute looks first.
//!
//! It selects source images, not results, so that a PACS that shows nothing else of ours still opens them.
//!
//! Source: PS3.3 section A.35.4; PS3.16 TID 2010, CID 7010.

use super::{
    EncodeError, EncodeInput, concept,
    content::{
        Contains, HasConceptModifier, HasObservationContext, code, picture, put_root, text, uid_reference,
    },
    context::{Context, Kind},
    element::Fill,
    sr::{series_item, study_item},
};
use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use std::borrow::Cow;

const KIND: Kind = Kind {
    name: Cow::Borrowed("kos"),
    sop_class_uid: uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE,
    transfer_syntax: uids::EXPLICIT_VR_LITTLE_ENDIAN,
    modality: "KO",
    series_number: 9005,
    shows: "key images",
};

/// Makes the selection.
pub(super) fn encode(
    context: &Context<'_>,
    input: &EncodeInput<'_>,
) -> Result<DefaultDicomObject, EncodeError> {
    let shown: Vec<usize> = (0..input.segments.geometry.slices())
        .filter(|slice| input.segments.slice(*slice).iter().any(|voxel| *voxel != 0))
        .collect();
    let mut dataset = context.dataset(&KIND)?;
    dataset.empty(tags::REFERENCED_PERFORMED_PROCEDURE_STEP_SEQUENCE, VR::SQ);
    let requests = context.referenced_requests()?;
    if !requests.is_empty() {
        dataset.sequence(tags::REFERENCED_REQUEST_SEQUENCE, requests);
    }
    dataset.sequence(
        tags::CURRENT_REQUESTED_PROCEDURE_EVIDENCE_SEQUENCE,
        vec![study_item(
            &context.study,
            vec![series_item(
                &context.series,
                context.instance_items(shown.iter().copied()),
            )],
        )],
    );
    let words = format!(
        "Images on which {} {} found {}. {}",
        input.plan.id, input.plan.version, input.plan.question, input.report.disclaimer
    );
    let mut content = vec![
        code(HasConceptModifier, &concept::LANGUAGE, &concept::ENGLISH),
        code(HasObservationContext, &concept::OBSERVER_TYPE, &concept::DEVICE),
        uid_reference(
            HasObservationContext,
            &concept::DEVICE_UID,
            &context.uid("device", 1),
        ),
        text(HasObservationContext, &concept::DEVICE_NAME, "ictus"),
        text(Contains, &concept::KEY_OBJECT_DESCRIPTION, words),
    ];
    content.extend(
        shown
            .into_iter()
            .map(|slice| picture(context.references[slice].item())),
    );
    put_root(&mut dataset, &concept::OF_INTEREST, "2010", content);
    context.object(dataset, &KIND)
}
