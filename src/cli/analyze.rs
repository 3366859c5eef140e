//! `ictus analyze`: a folder of DICOM files, or one NIfTI volume → results in a folder, without a server.

use super::engine::{EngineArgs, MapArgs};
use anyhow::{Context, bail};
use dicom_dictionary_std::uids;
use dicom_object::DefaultDicomObject;
use ictus::{
    analysis::{self, Analysis, Look, Request, Scan, assemble::Values, infer::Engine},
    dicom::{enhanced, instance::Instance},
    domain::{
        aspects::LIMITS,
        finding::{AnswerValue, Refusal, Report},
        network::Control,
        prediction::holds_structures,
        uid::Uid,
        volume_trace::Turn,
    },
    nifti,
};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};
use time::OffsetDateTime;

/// Exit code when nothing could be analysed; findings.json says why.
const NOTHING_ANALYSED: u8 = 3;

/// Analyse a folder of DICOM files or one NIfTI volume. For research, not for clinical use.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A folder with the DICOM files of one study; or, with --model, one .nii or .nii.gz volume, the first channel of a case as nnU-Net names it, or a folder of its channels.
    input: PathBuf,
    /// Where the results go: SEG, Parametric Maps, SR, findings.json and key slices.
    #[arg(long)]
    out: PathBuf,
    /// Run this model whatever its trigger says of contrast and thickness; may be repeated.
    #[arg(long = "model", value_name = "ID")]
    models: Vec<String>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    maps: MapArgs,
}

/// A progress bar as the reins of an analysis.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let bar = ProgressBar::new(0);
        bar.set_style(ProgressStyle::with_template(
            "{bar:40} {pos}/{len} tiles {elapsed}",
        )?);
        Ok(Self(bar))
    }

    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Control for Bar {
    fn cancelled(&self) -> bool {
        false
    }
    fn progress(&self, done: usize, total: usize) {
        self.0.set_length(total as u64);
        self.0.set_position(done as u64);
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if !args.input.exists() {
        bail!(
            "{} is not there; name a folder of DICOM files or a NIfTI volume",
            args.input.display()
        );
    }
    let engine = args.engine.start()?;
    fs::create_dir_all(&args.out).with_context(|| format!("cannot make {}", args.out.display()))?;
    let bar = Bar::new()?;
    let (mut report, looks) = if args.input.is_dir() && !super::channels::are_in(&args.input)? {
        dicom(args, &engine, &bar)?
    } else {
        volume(args, &engine, &bar)?
    };
    bar.finish();
    for look in &looks {
        super::key_slices::write(look, &args.out)?;
    }
    report
        .timings
        .insert("total".into(), report.timings.values().sum());
    fs::write(
        args.out.join("findings.json"),
        serde_json::to_vec_pretty(&report)?,
    )?;
    super::say(&summary(&report))?;
    // A model without an operating point answers nothing, and has looked all the same.
    let nothing = report.models.is_empty();
    Ok(if nothing {
        ExitCode::from(NOTHING_ANALYSED)
    } else {
        ExitCode::SUCCESS
    })
}

fn dicom(args: &Args, engine: &Engine, bar: &Bar) -> anyhow::Result<(Report, Vec<Look>)> {
    let mut files = Vec::new();
    collect(&args.input, &mut files)?;
    let read: Vec<Result<Instance, String>> = files
        .par_iter()
        .map(|path| {
            let bytes = fs::read(path).map_err(|e| format!("{e}"))?;
            Instance::from_bytes(&bytes).map_err(|e| e.to_string())
        })
        .collect();
    let (mut instances, mut unread) = (Vec::new(), Vec::new());
    for (path, result) in files.iter().zip(read) {
        match result {
            Ok(instance) => instances.extend(enhanced::slices(instance)),
            Err(why) => {
                let name = path
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                unread.push(Refusal {
                    code: "unreadable".into(),
                    text: format!("file {name}: {why}"),
                });
            }
        }
    }
    if instances.is_empty() {
        let mut report = analysis::empty_report(None);
        let text = format!(
            "none of the {} files in the folder is a DICOM instance that can be read",
            files.len()
        );
        report.refusals.push(Refusal {
            code: "no_instances".into(),
            text,
        });
        report.refusals.extend(unread);
        return Ok((report, Vec::new()));
    }
    let request = Request {
        models: args.models.clone(),
        also: args.engine.also().map(str::to_owned).collect(),
        analysis_key: key(&instances, engine),
        created_at: OffsetDateTime::now_utc(),
        maps: args.maps.maps(),
        predecessor: None,
    };
    let Analysis {
        mut report,
        objects,
        looks,
    } = analysis::run(&instances, engine, &request, bar)?;
    report.warnings.extend(unread);
    for object in &objects {
        let name = file_name(object)?;
        let uid = object
            .meta()
            .media_storage_sop_instance_uid()
            .trim_end_matches('\0')
            .to_owned();
        let short = &uid[uid.len().saturating_sub(8)..];
        object.write_to_file(args.out.join(format!("{name}-{short}.dcm")))?;
    }
    Ok((report, looks))
}

/// What a result's file is called, before its number: one SEG of findings, one of structures and one report a model, a map a quantity, a picture a slice.
fn file_name(object: &DefaultDicomObject) -> anyhow::Result<String> {
    let text = |keyword: &str| -> anyhow::Result<String> {
        Ok(object.element_by_name(keyword)?.to_str()?.trim().to_owned())
    };
    let name = match object.meta().media_storage_sop_class_uid().trim_end_matches('\0') {
        uids::LABEL_MAP_SEGMENTATION_STORAGE => "labelmap".to_owned(),
        uids::SECONDARY_CAPTURE_IMAGE_STORAGE => format!("sc-{:0>3}", text("InstanceNumber")?),
        uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE => "kos".to_owned(),
        uids::PARAMETRIC_MAP_STORAGE => format!("pm-{}", text("ContentLabel")?),
        uids::SEGMENTATION_STORAGE if text("ContentLabel").is_ok_and(|label| holds_structures(&label)) => {
            "structures".to_owned()
        }
        _ => text("Modality")?,
    };
    Ok(name.to_lowercase())
}

/// SHA-256 over the sorted instances, the models and their calibrations: the same input gives the same UIDs.
fn key(instances: &[Instance], engine: &Engine) -> [u8; 32] {
    let mut digests: Vec<[u8; 32]> = instances.par_iter().map(Instance::digest).collect();
    digests.sort_unstable();
    let mut hash = Sha256::new();
    for digest in &digests {
        hash.update(digest);
    }
    for model in engine.models() {
        hash.update(model.digest);
        hash.update(model.calibration_digest.unwrap_or_default());
    }
    hash.update(engine.numeric_mode());
    hash.finalize().into()
}

fn volume(args: &Args, engine: &Engine, bar: &Bar) -> anyhow::Result<(Report, Vec<Look>)> {
    let [id] = args.models.as_slice() else {
        bail!(
            "a NIfTI volume says nothing of modality or contrast: name one model with --model (see `ictus model list`)"
        );
    };
    let model = engine.model(id)?;
    let configuration = &model.plan.configuration;
    let mut files = Vec::new();
    for path in super::channels::of(&args.input, configuration.scans())? {
        files.push(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    let values = if configuration.is_ct() {
        Values::Hu
    } else {
        Values::Any
    };
    let read = files
        .iter()
        .map(|bytes| analysis::assemble::from_nifti(bytes, values));
    let channels = read.collect::<Result<Vec<_>, _>>()?;
    // On the grid of the file that came in, so that both lie on each other in every viewer.
    let source = nifti::read(&files[0])?;
    let scan = Scan {
        channels,
        turn: Turn {
            slices: source.is_reversed(),
            rows: false,
            columns: false,
        },
    };
    let mut report = analysis::empty_report(None);
    let mut hash = Sha256::new();
    files.iter().for_each(|bytes| hash.update(bytes));
    let series = Uid::derive(&[&hash.finalize()]);
    let look = analysis::look(scan, engine, model, &series, bar, &mut report)?;
    let write = |name: &str, bytes: Vec<u8>| fs::write(args.out.join(name), bytes);
    write(
        "labels.nii.gz",
        nifti::write_like(&source, &look.prediction.labels)?,
    )?;
    write(
        "probabilities.nii.gz",
        nifti::write_like(&source, &look.prediction.score)?,
    )?;
    write(
        "entropy.nii.gz",
        nifti::write_like(&source, &look.prediction.entropy)?,
    )?;
    if let Some(structures) = &look.prediction.structures {
        write("structures.nii.gz", nifti::write_like(&source, structures)?)?;
    }
    Ok((report, vec![look]))
}

/// All files below a folder, sorted.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let read = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut entries = read.map(|e| Ok(e?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// What a person reads in the terminal.
pub(crate) fn summary(report: &Report) -> String {
    let mut lines = Vec::new();
    for answer in &report.answers {
        let word = match answer.answer {
            AnswerValue::Present => "flagged",
            AnswerValue::Absent => "not flagged",
            AnswerValue::Uncertain => "uncertain",
            AnswerValue::NotEvaluated => "not evaluated",
        };
        let number = |v: Option<f64>| v.map_or("–".into(), |v| format!("{v:.2}"));
        let probability = answer
            .probability
            .map_or("not calibrated".into(), |p| format!("probability {p:.2}"));
        lines.push(format!(
            "{}: {word} (score {}, {probability}; disagreement of members {})",
            answer.question,
            number(answer.score),
            number(answer.uncertainty)
        ));
        if let Some(calibration) = answer
            .model
            .as_deref()
            .and_then(|model| report.calibration_of(model))
        {
            lines.push(format!("  calibrated on {calibration}"));
        }
    }
    for f in &report.findings {
        let side = format!("{:?}", f.side).to_lowercase();
        let [x, y, z] = f.center_mm;
        let abc2 = f
            .abc2_ml
            .map_or(String::new(), |ml| format!(" (ABC/2 {ml:.1} mL)"));
        let interval = f.volume_interval_ml.map_or(String::new(), |[low, high]| {
            format!(" ({low:.1} to {high:.1} mL)")
        });
        let probability = f
            .probability
            .map_or(String::new(), |p| format!(", probability {p:.2}"));
        lines.push(format!(
            "  {}: {:.1} mL{interval}{abc2}, side {side}, centre {x:.0} {y:.0} {z:.0} mm LPS, score {:.2}{probability}, uncertainty {:.2}",
            f.id, f.volume_ml, f.score, f.uncertainty
        ));
    }
    if let Some(midline) = &report.midline_shift {
        lines.push(format!("  midline shift: {}", midline.shift));
    } else if !report.models.is_empty() {
        lines.push("  midline shift: not measured".to_owned());
    }
    if let Some(told) = &report.aspects {
        lines.extend(told.aspects.lines().map(|line| format!("  {line}")));
        lines.push(format!("  {LIMITS}"));
    }
    for r in &report.refusals {
        lines.push(format!("  refused ({}): {}", r.code, r.text));
    }
    for w in &report.warnings {
        lines.push(format!("  warning ({}): {}", w.code, w.text));
    }
    lines.push(report.disclaimer.clone());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use dicom_core::{DataElement, VR};
    use dicom_dictionary_std::tags;
    use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

    #[test]
    fn every_kind_of_result_has_a_name() {
        for (class, attribute, value, name) in [
            (uids::SEGMENTATION_STORAGE, tags::MODALITY, "SEG", "seg"),
            (
                uids::SEGMENTATION_STORAGE,
                tags::CONTENT_LABEL,
                "STRUCTURES",
                "structures",
            ),
            (uids::COMPREHENSIVE3_DSR_STORAGE, tags::MODALITY, "SR", "sr"),
            (
                uids::PARAMETRIC_MAP_STORAGE,
                tags::CONTENT_LABEL,
                "ENTROPY",
                "pm-entropy",
            ),
            (
                uids::LABEL_MAP_SEGMENTATION_STORAGE,
                tags::MODALITY,
                "SEG",
                "labelmap",
            ),
            (
                uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
                tags::INSTANCE_NUMBER,
                "7",
                "sc-007",
            ),
            (
                uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE,
                tags::MODALITY,
                "KO",
                "kos",
            ),
        ] {
            let vr = if attribute == tags::INSTANCE_NUMBER {
                VR::IS
            } else {
                VR::CS
            };
            let object = InMemDicomObject::from_element_iter([DataElement::new(attribute, vr, value)])
                .with_meta(
                    FileMetaTableBuilder::new()
                        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
                        .media_storage_sop_class_uid(class)
                        .media_storage_sop_instance_uid("1.2"),
                )
                .unwrap();
            assert_eq!(file_name(&object).unwrap(), name);
        }
    }
}
