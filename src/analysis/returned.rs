//! A Segmentation that another tool made → the mask of a reader on the slices of an analysis, or a refusal.
//!
//! BINARY and LABELMAP, uncompressed or RLE, are understood; a fractional one has no edge that a reader drew.
//! A frame is laid where its own position says, and only on a slice of the analysis with the same rows, columns, orientation
//! and spacing: a mask in the wrong place is worse than no mask.
//! What a segment is, its code says; a segment of something else is left out, and a mask of nothing else is refused.
//!
//! Source: PS3.3 sections A.51 and C.8.20.

use super::{
    assemble::{Assembled, assemble},
    correction::{Corrected, CorrectionError, KNOWN, any_ct, code_of, plane_of},
    labelled::Which,
    postprocess,
};
use crate::{
    dicom::{instance::Instance, transcode},
    domain::{
        finding::{Region, Report},
        geometry::{Vec3, dot, norm, sub},
        phi::redact,
        volume::{Geometry, Volume},
    },
};
use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::InMemDicomObject;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Positions are written in micrometres at best, and tools round to a tenth.
const POSITION_TOLERANCE_MM: f64 = 0.1;
/// Directions and spacings that differ by less are the same.
const TOLERANCE: f64 = 1e-3;

/// What came back.
#[derive(Debug)]
pub struct Returned {
    /// What was drawn, as the analysis calls it.
    pub kind: String,
    /// Connected regions, largest first.
    pub regions: Vec<Region>,
    /// Digest of kind and mask.
    pub mask_sha256: [u8; 32],
    /// Whether it began with the machine's mask.
    pub edited: bool,
    /// ContentCreatorName, when there is one.
    pub creator: Option<String>,
}

/// Whether a SOP class is one that may come back.
#[must_use]
pub fn is_mask(sop_class_uid: &str) -> bool {
    [uids::SEGMENTATION_STORAGE, uids::LABEL_MAP_SEGMENTATION_STORAGE].contains(&sop_class_uid)
}

/// Reads a Segmentation of another tool on the images of an analysis.
///
/// # Errors
/// Says why it is not understood, or does not lie on the images.
pub fn read(
    part10: &[u8],
    instances: Vec<Instance>,
    corrected: &Corrected,
) -> Result<Returned, CorrectionError> {
    let wrong = |what: String| CorrectionError::Mask(what);
    let segmentation = Segmentation::open(part10)?;
    let object = segmentation.object();
    let (kind, segments, edited) = segments(object, corrected)?;
    let mut instances = instances;
    let series = corrected.series(&mut instances, |instance| segmentation.names(instance))?;
    let edited = edited && corrected.mask(&kind, &series).is_some();
    let Assembled { volume, .. } =
        assemble(&instances, &any_ct()).map_err(|error| CorrectionError::Source(redact(&error)))?;
    let mask = segmentation.mask(&segments, &volume.geometry)?;
    if !mask.data.contains(&true) {
        return Err(wrong(
            "nothing is drawn in it; say with a verdict that there is no finding".to_owned(),
        ));
    }
    let plane = plane_of(&volume);
    let (regions, _) = postprocess::regions(&mask, plane.as_ref())?;
    let mut hash = Sha256::new_with_prefix(b"returned ");
    hash.update(kind.as_bytes());
    hash.update([u8::from(edited)]);
    let bits: Vec<u8> = mask.data.iter().map(|inside| u8::from(*inside)).collect();
    hash.update(&bits);
    let creator =
        text(object, tags::CONTENT_CREATOR_NAME).map(|name| name.replace('^', " ").trim().to_owned());
    Ok(Returned {
        kind,
        regions,
        mask_sha256: hash.finalize().into(),
        edited,
        creator: creator.filter(|name| !name.is_empty()),
    })
}

/// The voxels of the segments that count, of a Segmentation on the images.
pub(super) fn on_grid(
    part10: &[u8],
    which: &Which,
    geometry: &Geometry,
) -> Result<Volume<bool>, CorrectionError> {
    let segmentation = Segmentation::open(part10)?;
    let object = segmentation.object();
    let numbers = |counts: &dyn Fn(&InMemDicomObject) -> bool| -> Vec<u32> {
        let segments = items(object, tags::SEGMENT_SEQUENCE)
            .iter()
            .filter(|segment| counts(segment));
        let numbers = segments.filter_map(|segment| number(segment, tags::SEGMENT_NUMBER));
        numbers.filter(|number| *number > 0).collect()
    };
    let segments = match which {
        Which::All => numbers(&|_| true),
        Which::Findings(ids) => {
            numbers(&|segment| text(segment, tags::TRACKING_ID).is_some_and(|id| ids.contains(&id)))
        }
        Which::LookedFor(report) => {
            let (report, masks) = (Report::clone(report), Vec::new());
            segments(object, &Corrected { report, masks })?.1
        }
    };
    segmentation.mask(&segments, geometry)
}

/// Whether it is a label map; else each segment has its own frames.
fn is_map(object: &InMemDicomObject) -> Result<bool, CorrectionError> {
    let form = text(object, tags::SEGMENTATION_TYPE).unwrap_or_default();
    let wrong = |what: &str| Err(CorrectionError::Mask(what.to_owned()));
    match form.as_str() {
        "BINARY" => Ok(false),
        "LABELMAP" => Ok(true),
        "FRACTIONAL" => wrong("it is FRACTIONAL, which has no edge; send it as BINARY or LABELMAP"),
        _ => wrong("its SegmentationType is neither BINARY nor LABELMAP; send it as one of these"),
    }
}

fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = object.get(tag)?.to_str().ok()?;
    let text = text.trim_matches([' ', '\0']).to_owned();
    (!text.is_empty()).then_some(text)
}

fn items(object: &InMemDicomObject, tag: Tag) -> &[InMemDicomObject] {
    object
        .get(tag)
        .and_then(|element| element.items())
        .unwrap_or_default()
}

fn number(object: &InMemDicomObject, tag: Tag) -> Option<u32> {
    object.get(tag)?.to_int().ok()
}

fn decimals<const N: usize>(object: &InMemDicomObject, tag: Tag) -> Option<[f64; N]> {
    object.get(tag)?.to_multi_float64().ok()?.try_into().ok()
}

/// Any bleed; the kinds of bleeds end with it.
const BLEED: &str = "haemorrhage";

/// The kind that the segments are of, their numbers, and whether a machine began them.
fn segments(
    object: &InMemDicomObject,
    corrected: &Corrected,
) -> Result<(String, Vec<u32>, bool), CorrectionError> {
    let mut kinds: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let (mut edited, mut strange) = (false, Vec::new());
    let names = corrected
        .report
        .findings
        .iter()
        .map(|finding| finding.kind.as_str());
    let names: Vec<&str> = names.chain(KNOWN.map(|(name, _)| name)).collect();
    for segment in items(object, tags::SEGMENT_SEQUENCE) {
        let (Some(number), Some(code)) = (
            number(segment, tags::SEGMENT_NUMBER),
            items(segment, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE).first(),
        ) else {
            continue;
        };
        let value = text(code, tags::CODE_VALUE).unwrap_or_default();
        let scheme = text(code, tags::CODING_SCHEME_DESIGNATOR).unwrap_or_default();
        let kind = names.iter().find(|name| {
            code_of(name, &corrected.report)
                .is_some_and(|code| *code.value == *value && *code.scheme == *scheme)
        });
        match kind {
            Some(kind) => {
                edited |= text(segment, tags::SEGMENT_ALGORITHM_TYPE).as_deref() != Some("MANUAL");
                kinds.entry((*kind).to_owned()).or_default().push(number);
            }
            None if number > 0 => strange.push(format!("{value} ({scheme})")),
            None => {}
        }
    }
    // Bleeds of several kinds are one mask of what bled, as a reader draws it.
    if kinds.len() > 1 && kinds.keys().all(|kind| kind.ends_with(BLEED)) {
        let numbers = kinds.into_values().flatten().collect();
        return Ok((BLEED.to_owned(), numbers, edited));
    }
    let mut kinds = kinds.into_iter();
    match (kinds.next(), kinds.next()) {
        (Some((kind, numbers)), None) => Ok((kind, numbers, edited)),
        (Some(_), Some(_)) => Err(CorrectionError::Mask(
            "it holds findings of several kinds; send one Segmentation a kind".to_owned(),
        )),
        (None, _) => Err(CorrectionError::Mask(format!(
            "its segments are coded {}; expected what the analysis looks for, such as 50960005 (SCT) for a haemorrhage",
            if strange.is_empty() {
                "as nothing".to_owned()
            } else {
                strange.join(", ")
            }
        ))),
    }
}

/// Rows, columns, orientation and spacing are those of the images.
fn check_grid(object: &InMemDicomObject, geometry: &Geometry) -> Result<(), CorrectionError> {
    let (rows, columns) = (
        number(object, tags::ROWS).unwrap_or_default(),
        number(object, tags::COLUMNS).unwrap_or_default(),
    );
    if rows as usize != geometry.rows || columns as usize != geometry.columns {
        return Err(CorrectionError::Mask(format!(
            "it has frames of {rows} × {columns} pixels, the images have {} × {}; draw it on the images themselves",
            geometry.rows, geometry.columns
        )));
    }
    Ok(())
}

/// A functional group of a frame, or of all.
fn group<'a>(
    object: &'a InMemDicomObject,
    frame: &'a InMemDicomObject,
    tag: Tag,
) -> Option<&'a InMemDicomObject> {
    let shared = items(object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
    items(frame, tag)
        .first()
        .or_else(|| shared.and_then(|shared| items(shared, tag).first()))
}

/// The slice on which a frame lies.
fn slice_of(
    object: &InMemDicomObject,
    frame: &InMemDicomObject,
    number: usize,
    geometry: &Geometry,
) -> Result<usize, CorrectionError> {
    let wrong = |what: &str| CorrectionError::Mask(format!("frame {number} {what}"));
    let orientation: [f64; 6] = group(object, frame, tags::PLANE_ORIENTATION_SEQUENCE)
        .and_then(|group| decimals(group, tags::IMAGE_ORIENTATION_PATIENT))
        .ok_or_else(|| wrong("has no ImageOrientationPatient"))?;
    let spacing: [f64; 2] = group(object, frame, tags::PIXEL_MEASURES_SEQUENCE)
        .and_then(|group| decimals(group, tags::PIXEL_SPACING))
        .ok_or_else(|| wrong("has no PixelSpacing"))?;
    let origin: Vec3 = group(object, frame, tags::PLANE_POSITION_SEQUENCE)
        .and_then(|group| decimals(group, tags::IMAGE_POSITION_PATIENT))
        .ok_or_else(|| wrong("has no ImagePositionPatient"))?;
    let [a, b, c, d, e, f] = orientation;
    let turned = dot([a, b, c], geometry.row_direction) < 1.0 - TOLERANCE
        || dot([d, e, f], geometry.column_direction) < 1.0 - TOLERANCE;
    if turned {
        return Err(wrong(
            "is oriented otherwise than the images; draw it on the images themselves",
        ));
    }
    if (0..2).any(|axis| (spacing[axis] - geometry.pixel_spacing_mm[axis]).abs() > TOLERANCE) {
        return Err(wrong(
            "has another PixelSpacing than the images; draw it on the images themselves",
        ));
    }
    geometry
        .planes
        .iter()
        .position(|plane| norm(sub(plane.origin_mm, origin)) <= POSITION_TOLERANCE_MM)
        .ok_or_else(|| {
            let [x, y, z] = origin;
            wrong(&format!(
                "lies at {x:.2}, {y:.2}, {z:.2} mm, where there is no image"
            ))
        })
}

/// A Segmentation: its file, and what it says.
pub(super) struct Segmentation<'a> {
    part10: &'a [u8],
    instance: Instance,
    /// Whether it is a label map; else each segment has its own frames.
    is_map: bool,
    /// The series that it says it lies on.
    series: Vec<String>,
}

impl<'a> Segmentation<'a> {
    pub(super) fn open(part10: &'a [u8]) -> Result<Self, CorrectionError> {
        let instance =
            Instance::from_bytes(part10).map_err(|error| CorrectionError::Source(redact(&error)))?;
        let series = items(&instance.object, tags::REFERENCED_SERIES_SEQUENCE).iter();
        Ok(Self {
            part10,
            is_map: is_map(&instance.object)?,
            series: series
                .filter_map(|item| text(item, tags::SERIES_INSTANCE_UID))
                .collect(),
            instance,
        })
    }

    fn object(&self) -> &InMemDicomObject {
        &self.instance.object
    }

    /// Whether it says that it lies on the series of an image.
    pub(super) fn names(&self, image: &Instance) -> bool {
        let uid = image.attributes.series_instance_uid.as_ref();
        uid.is_some_and(|uid| self.series.iter().any(|named| named == uid.as_str()))
    }

    /// The voxels of some segments.
    fn mask(&self, segments: &[u32], geometry: &Geometry) -> Result<Volume<bool>, CorrectionError> {
        let mut data = vec![false; geometry.len()];
        let counts = |number| segments.contains(&number);
        self.lay(counts, geometry, |voxel, _| data[voxel] = true)?;
        Ok(Volume {
            geometry: geometry.clone(),
            data,
        })
    }

    /// Puts the name's value of each segment into the voxels that it holds, by SegmentLabel.
    pub(super) fn put_values(
        &self,
        names: &BTreeMap<u8, String>,
        into: &mut Volume<u8>,
    ) -> Result<(), CorrectionError> {
        let (object, is_map) = (self.object(), self.is_map);
        let known = names.values().cloned().collect::<Vec<_>>().join(", ");
        let mut values: BTreeMap<u32, u8> = BTreeMap::new();
        for segment in items(object, tags::SEGMENT_SEQUENCE) {
            let number = number(segment, tags::SEGMENT_NUMBER).unwrap_or_default();
            // Of a label map that is the background.
            if is_map && number == 0 {
                continue;
            }
            let label = text(segment, tags::SEGMENT_LABEL).unwrap_or_default();
            let named = names
                .iter()
                .find(|(_, name)| name.to_lowercase() == label.to_lowercase());
            let (value, _) = named.ok_or_else(|| {
                CorrectionError::Mask(format!(
                    "segment {number} has the SegmentLabel {label:?}; expected one of {known}"
                ))
            })?;
            values.insert(number, *value);
        }
        let (mut twice, mut strange): (BTreeMap<(u8, u8), usize>, Option<u32>) = (BTreeMap::new(), None);
        let Volume { geometry, data } = into;
        let counts = |number: u32| !(is_map && number == 0);
        self.lay(counts, geometry, |voxel, number| {
            let Some(value) = values.get(&number) else {
                strange = Some(number);
                return;
            };
            let before = data[voxel];
            if before != 0 && before != *value {
                *twice.entry((before, *value)).or_default() += 1;
            }
            data[voxel] = *value;
        })?;
        if let Some(number) = strange {
            return Err(CorrectionError::Mask(format!(
                "voxels are of segment {number}, which SegmentSequence does not describe"
            )));
        }
        match twice.into_iter().next() {
            None => Ok(()),
            Some(((a, b), voxels)) => Err(CorrectionError::Mask(format!(
                "{voxels} voxels are both {} and {}; a voxel has one label",
                names[&a], names[&b]
            ))),
        }
    }

    /// Tells of every voxel of the images that a segment which counts holds, with the segment's number.
    fn lay(
        &self,
        counts: impl Fn(u32) -> bool,
        geometry: &Geometry,
        mut tell: impl FnMut(usize, u32),
    ) -> Result<(), CorrectionError> {
        let (object, is_map) = (self.object(), self.is_map);
        check_grid(object, geometry)?;
        let groups = items(object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
        let bits = number(object, tags::BITS_ALLOCATED).unwrap_or_default();
        if !matches!((is_map, bits), (false, 1 | 8) | (true, 8 | 16)) {
            return Err(CorrectionError::Mask(format!(
                "its pixels have {bits} bits; a BINARY one has 1 or 8, a LABELMAP 8 or 16"
            )));
        }
        let len = geometry.slice_len();
        for (at, frame) in groups.iter().enumerate() {
            let wanted = if is_map {
                None
            } else {
                let number = group(object, frame, tags::SEGMENT_IDENTIFICATION_SEQUENCE)
                    .and_then(|group| number(group, tags::REFERENCED_SEGMENT_NUMBER))
                    .unwrap_or_default();
                if !counts(number) {
                    continue;
                }
                Some(number)
            };
            let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
            let pixels = transcode::frames(self.part10, &[number])
                .map_err(|error| CorrectionError::Source(redact(&error)))?
                .pop()
                .unwrap_or_default();
            let value = |pixel: usize| -> u32 {
                let byte = |at: usize| u32::from(pixels.get(at).copied().unwrap_or_default());
                match bits {
                    1 => byte(pixel / 8) >> (pixel % 8) & 1,
                    8 => byte(pixel),
                    _ => byte(pixel * 2) | byte(pixel * 2 + 1) << 8,
                }
            };
            let holder = |pixel: usize| match wanted {
                Some(number) => (value(pixel) != 0).then_some(number),
                None => Some(value(pixel)).filter(|number| counts(*number)),
            };
            if !(0..len).any(|pixel| holder(pixel).is_some()) {
                continue;
            }
            // A frame that holds nothing may lie anywhere.
            let slice = slice_of(object, frame, at + 1, geometry)?;
            for pixel in 0..len {
                if let Some(number) = holder(pixel) {
                    tell(slice * len + pixel, number);
                }
            }
        }
        Ok(())
    }
}
