//! Cases that readers judged → a dataset in nnU-Net's raw layout, to train on.
//!
//! One question, one label: what bled is 1, of whichever kind.
//! A case is *gold* when a reader drew its mask, confirmed the machine's, or said that there is nothing; it is *silver* when
//! nobody read it and the machine's mask stands alone, which happens only on request.
//! Whatever else readers said leaves no label, and the case is left out with the reason.
//! Tilted and uneven stacks are laid on an even grid, since the format has one affine; the provenance says so.
//! No patient data goes into the dataset: cases are called by a digest of their UID, and all of one patient's are in one fold.
//!
//! Source: nnU-Net's `dataset_format.md`; `analysis::preprocess::even`.

use super::ReviewError;
use crate::{
    analysis::labelled::{Labelled, Mask, Which, labelled},
    archive::Archive,
    db::{
        self, Db,
        audit::{self, Act},
        export::ExportRow,
        figures::Span,
        worklist::StudyAnalysis,
    },
    dicom::enhanced,
    domain::{failure::FailureClass, finding::Report, phi::redact, uid::Uid},
    nifti,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use time::OffsetDateTime;

/// Folds of `splits_final.json`, as nnU-Net has them.
const FOLDS: usize = 5;

/// What is exported, and where to.
#[derive(Debug, Clone)]
pub struct Options {
    /// The dataset's folder, `DatasetNNN_Name`.
    pub out: PathBuf,
    /// The dataset's name.
    pub name: String,
    /// The question whose label is exported.
    pub question: String,
    /// When verdicts were given or masks drawn.
    pub span: Span,
    /// Only answers of this model.
    pub model: Option<String>,
    /// Only what this account judged or drew.
    pub reader: Option<String>,
    /// Whether what nobody read is exported with the machine's mask.
    pub silver: bool,
    /// Whether UIDs stand in the provenance.
    pub identifiers: bool,
}

/// What became of the cases.
#[derive(Debug, Clone, Default)]
pub struct Exported {
    /// Cases with a reader's label.
    pub gold: usize,
    /// Cases with the machine's.
    pub silver: usize,
    /// Those of them that were there already.
    pub kept: usize,
    /// Cases on an even grid that is not the scanner's.
    pub resampled: usize,
    /// Reasons for leaving cases out, and of how many.
    pub left_out: BTreeMap<String, usize>,
    /// Whether there are enough patients for folds.
    pub folds: bool,
}

/// Where a label comes from: an entry of `provenance.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Provenance {
    case: String,
    /// `gold` or `silver`.
    label: String,
    /// In words.
    truth: String,
    question: String,
    readers: Vec<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    at: Option<OffsetDateTime>,
    analysis: String,
    correction: Option<i64>,
    /// The models with their versions.
    models: Vec<String>,
    resampled: bool,
    /// Digest of issuer and PatientID, or of the case where there is none.
    patient: String,
    study_instance_uid: Option<String>,
    series_instance_uid: Option<String>,
}

/// What the label of a case is made of.
struct Truth {
    gold: bool,
    words: &'static str,
    mask: Source,
}

enum Source {
    Nothing,
    /// The machine's mask, of these findings.
    Machine(Vec<String>),
    Reader,
}

/// Exports; `progress` is told how many cases are done, of how many.
///
/// A case that is there already with the same label is kept, so that the same command goes on where it stopped.
///
/// # Errors
/// When the folder cannot be written, or database or archive fail.
pub async fn export(
    db: &Db,
    archive: &Archive,
    principal: &str,
    options: &Options,
    mut progress: impl FnMut(usize, usize),
) -> Result<Exported, ReviewError> {
    let write = |error: std::io::Error| ReviewError::Folder(options.out.display().to_string(), error);
    for folder in ["imagesTr", "labelsTr"] {
        std::fs::create_dir_all(options.out.join(folder)).map_err(write)?;
    }
    let model = options.model.as_deref();
    let rows = db
        .export_rows(&options.question, options.span, model, options.reader.as_deref())
        .await?;
    let before = before(&options.out)?;
    let mut all: Vec<Provenance> = Vec::new();
    let mut studies = Vec::new();
    let mut exported = Exported::default();
    let total = rows.len();
    for (done, row) in rows.into_iter().enumerate() {
        progress(done, total);
        let study = row.study_instance_uid.clone();
        match one(db, archive, options, row, &before).await {
            Ok(Done { provenance, kept }) => {
                exported.kept += usize::from(kept);
                exported.resampled += usize::from(provenance.resampled);
                match provenance.label.as_str() {
                    "gold" => exported.gold += 1,
                    _ => exported.silver += 1,
                }
                all.push(provenance);
                studies.push(study);
                // After each new case, so that a run that is stopped goes on from here.
                if !kept {
                    let rest = before
                        .values()
                        .filter(|old| !all.iter().any(|new| new.case == old.case));
                    let so_far: Vec<&Provenance> = all.iter().chain(rest).collect();
                    save(&options.out, "provenance.json", &json!(so_far)).map_err(write)?;
                }
            }
            Err(Left::Out(reason)) => *exported.left_out.entry(reason).or_default() += 1,
            Err(Left::Failed(error)) => return Err(error),
        }
    }
    // What was exported once and has no label any more must not be trained on.
    for old in before
        .keys()
        .filter(|old| !all.iter().any(|new| new.case == **old))
    {
        for path in files(&options.out, old) {
            if path.exists() {
                std::fs::remove_file(&path).map_err(write)?;
            }
        }
    }
    save(&options.out, "provenance.json", &json!(all)).map_err(write)?;
    let dataset = json!({
        "name": options.name,
        "description": "Exported by ictus. For research, not for clinical use. provenance.json says whose label each case has.",
        "channel_names": { "0": "CT" },
        "labels": { "background": 0, (options.question.as_str()): 1 },
        "numTraining": all.len(),
        "file_ending": ".nii.gz",
    });
    save(&options.out, "dataset.json", &dataset).map_err(write)?;
    let splits = splits(&all);
    exported.folds = splits.is_some();
    match splits {
        Some(splits) => save(&options.out, "splits_final.json", &splits).map_err(write)?,
        None => drop(std::fs::remove_file(options.out.join("splits_final.json"))),
    }
    progress(total, total);
    let mut tx = db.begin().await?;
    let act = Act {
        principal,
        act: "export",
        studies,
        detail: json!({
            "question": options.question,
            "gold": exported.gold,
            "silver": exported.silver,
            "left_out": exported.left_out.values().sum::<usize>(),
            "identifiers": options.identifiers,
        }),
    };
    audit::append(&mut tx, &act).await?;
    db::commit(tx).await?;
    Ok(exported)
}

struct Done {
    provenance: Provenance,
    kept: bool,
}

enum Left {
    Out(String),
    Failed(ReviewError),
}

impl From<ReviewError> for Left {
    /// What is wrong with a case leaves it out; anything else ends the export.
    fn from(error: ReviewError) -> Self {
        match &error {
            ReviewError::Correction(inner) if inner.class() != FailureClass::Transient => {
                Self::Out(redact(inner).to_string())
            }
            _ => Self::Failed(error),
        }
    }
}

async fn one(
    db: &Db,
    archive: &Archive,
    options: &Options,
    row: ExportRow,
    before: &BTreeMap<String, Provenance>,
) -> Result<Done, Left> {
    let fault = |_| Left::Failed(ReviewError::Drawing);
    let analysis = db.study_analysis(row.analysis).await.map_err(ReviewError::from)?;
    let StudyAnalysis { report, objects, .. } = analysis.ok_or(ReviewError::NothingToJudge)?;
    let report: Report = serde_json::from_value(report).map_err(fault)?;
    let truth = truth(&row, &report, options).map_err(|reason| Left::Out(reason.to_owned()))?;
    let of = |role: &str| {
        objects
            .iter()
            .find(|object| object.role == role && object.question.as_deref() == Some(&options.question))
    };
    let drawn = &row.correction;
    let series = match truth.mask {
        Source::Reader => drawn.source_series.clone(),
        Source::Machine(_) => of("seg").and_then(|seg| seg.source_series.clone()),
        Source::Nothing => None,
    };
    let lies_on = || of("pm").or_else(|| of("seg"))?.source_series.clone();
    let series = series.or_else(lies_on);
    let series =
        series.ok_or_else(|| Left::Out("it is not known on which images the answer lies".to_owned()))?;
    let case = digest(&row.study_instance_uid);
    let mut provenance = Provenance {
        label: if truth.gold { "gold" } else { "silver" }.to_owned(),
        truth: truth.words.to_owned(),
        question: options.question.clone(),
        readers: match truth.mask {
            Source::Reader => drawn.drawn_by.iter().cloned().collect(),
            _ => row.readers.clone(),
        },
        at: match truth.mask {
            Source::Reader => drawn.drawn_at,
            _ => row.read_at,
        },
        analysis: row.analysis.to_string(),
        correction: matches!(truth.mask, Source::Reader)
            .then_some(drawn.correction)
            .flatten(),
        models: report
            .models
            .iter()
            .map(|model| format!("{} {}", model.id, model.version))
            .collect(),
        resampled: false,
        patient: row.patient.as_deref().map_or_else(|| case.clone(), digest),
        study_instance_uid: options.identifiers.then(|| row.study_instance_uid.clone()),
        series_instance_uid: options.identifiers.then(|| series.clone()),
        case,
    };
    let [image, label] = files(&options.out, &provenance.case);
    if let Some(old) = before.get(&provenance.case) {
        provenance.resampled = old.resampled;
        if *old == provenance && image.exists() && label.exists() {
            return Ok(Done {
                provenance,
                kept: true,
            });
        }
    }
    let mut masks = Vec::new();
    match &truth.mask {
        Source::Nothing => {}
        Source::Machine(findings) => {
            let seg = of("seg").ok_or_else(|| Left::Out("the machine’s mask is not there".to_owned()))?;
            let key = db
                .archive_key(&seg.sop_instance_uid)
                .await
                .map_err(ReviewError::from)?;
            let key = key.ok_or_else(|| Left::Out("the machine’s mask is not there".to_owned()))?;
            masks.push((key, Which::Findings(findings.clone())));
        }
        Source::Reader => {
            let which = match drawn.returned {
                Some(true) => Which::LookedFor(Box::new(report)),
                _ => Which::All,
            };
            masks.push((drawn.archive_key.clone().unwrap_or_default(), which));
        }
    }
    let mut loaded = Vec::new();
    for (key, which) in masks {
        let part10 = archive.read(&key).await.map_err(ReviewError::from)?.to_vec();
        loaded.push(Mask { part10, which });
    }
    let sources = db
        .recorded_instances(row.analysis)
        .await
        .map_err(ReviewError::from)?;
    let sources = sources
        .into_iter()
        .filter(|source| source.role == "source" && source.conflict.is_none());
    let files = archive
        .read_all(sources.map(|source| source.archive_key).collect())
        .await
        .map_err(ReviewError::from)?;
    let work = move || -> Result<bool, Left> {
        let instances = enhanced::read(&files).map_err(|error| ReviewError::Source(redact(&error)))?;
        let series = Uid::parse(&series).map_err(|_| ReviewError::Drawing)?;
        let Labelled {
            ct,
            labels,
            resampled,
        } = labelled(instances, &series, &loaded).map_err(ReviewError::from)?;
        let write = |path: &Path, bytes: std::io::Result<Vec<u8>>| {
            let name = path.display().to_string();
            bytes
                .and_then(|bytes| replace(path, &bytes))
                .map_err(|error| Left::Failed(ReviewError::Folder(name, error)))
        };
        write(&image, nifti::write(&ct))?;
        write(&label, nifti::write(&labels))?;
        Ok(resampled)
    };
    provenance.resampled = tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Left::Failed(ReviewError::Drawing))??;
    Ok(Done {
        provenance,
        kept: false,
    })
}

/// What the label is, or why there is none.
fn truth(row: &ExportRow, report: &Report, options: &Options) -> Result<Truth, &'static str> {
    let models: BTreeSet<_> = report
        .answers
        .iter()
        .filter(|answer| answer.question == options.question)
        .filter_map(|answer| answer.model.as_ref())
        .collect();
    let own = report
        .findings
        .iter()
        .filter(|finding| models.contains(&finding.model));
    let own: Vec<&str> = own.map(|finding| finding.id.as_str()).collect();
    let machine = |findings: Vec<String>| {
        if findings.is_empty() {
            Source::Nothing
        } else {
            Source::Machine(findings)
        }
    };
    let gold = |words, mask| {
        Ok(Truth {
            gold: true,
            words,
            mask,
        })
    };
    let outcome = row.outcome.as_deref();
    match outcome {
        Some("differ") => return Err("readers are not of one mind"),
        Some("unsure") => return Err("its reader is not sure"),
        _ => {}
    }
    if row.correction.correction.is_some() {
        return gold("drawn by a reader", Source::Reader);
    }
    let said = |id: &str| {
        let all = row.findings.0.iter();
        all.clone()
            .find(|(name, _)| name == id)
            .map(|(_, said)| said.as_str())
    };
    if own.iter().any(|id| matches!(said(id), Some("unsure" | "differ"))) {
        return Err("a finding was neither confirmed nor rejected");
    }
    let not_rejected = own.iter().filter(|id| said(id) != Some("reject"));
    let not_rejected: Vec<String> = not_rejected.map(|id| (*id).to_owned()).collect();
    match outcome {
        Some("accept") if own.is_empty() => gold("nothing there, said a reader too", Source::Nothing),
        Some("accept") => gold("the machine’s mask, confirmed", machine(not_rejected)),
        Some("reject") if own.is_empty() => Err("overruled, and nobody drew what is there"),
        Some("reject") if not_rejected.is_empty() => gold("nothing there, said a reader", Source::Nothing),
        Some("reject") => Err("overruled, though a finding was confirmed"),
        Some("missed") => Err("something was missed, and nobody drew it"),
        Some(_) => Err("its verdict is not known here"),
        None if options.silver => Ok(Truth {
            gold: false,
            words: "the machine’s mask, read by nobody",
            mask: machine(not_rejected),
        }),
        None => Err("nobody read it"),
    }
}

/// Image and label of a case.
fn files(out: &Path, case: &str) -> [PathBuf; 2] {
    [
        out.join("imagesTr").join(format!("{case}_0000.nii.gz")),
        out.join("labelsTr").join(format!("{case}.nii.gz")),
    ]
}

/// Twelve digits tell as many cases apart as a hospital has.
fn digest(text: &str) -> String {
    let hash = Sha256::new_with_prefix(b"ictus export ").chain_update(text);
    format!("ictus_{}", &hex::encode(hash.finalize())[..12])
}

/// The cases of an earlier run.
fn before(out: &Path) -> Result<BTreeMap<String, Provenance>, ReviewError> {
    let path = out.join("provenance.json");
    let Ok(bytes) = std::fs::read(&path) else {
        return Ok(BTreeMap::new());
    };
    let all: Vec<Provenance> = serde_json::from_slice(&bytes)
        .map_err(|error| ReviewError::Folder(path.display().to_string(), error.into()))?;
    Ok(all.into_iter().map(|one| (one.case.clone(), one)).collect())
}

/// Folds by patient, so that nobody is trained on and judged on; none with too few patients.
fn splits(all: &[Provenance]) -> Option<Value> {
    let patients: BTreeSet<&str> = all.iter().map(|one| one.patient.as_str()).collect();
    if patients.len() < FOLDS {
        return None;
    }
    // Digests are in no order of time or name, so that taking turns mixes well enough, and later runs move few.
    let fold: BTreeMap<&str, usize> = patients
        .iter()
        .enumerate()
        .map(|(at, patient)| (*patient, at % FOLDS))
        .collect();
    let folds = (0..FOLDS).map(|k| {
        let part = |val: bool| -> Vec<&str> {
            let cases = all.iter().filter(|one| (fold[one.patient.as_str()] == k) == val);
            cases.map(|one| one.case.as_str()).collect()
        };
        json!({ "train": part(false), "val": part(true) })
    });
    Some(folds.collect())
}

fn save(out: &Path, name: &str, value: &Value) -> std::io::Result<()> {
    replace(&out.join(name), &serde_json::to_vec_pretty(value)?)
}

/// Writes a file whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, bytes)?;
    std::fs::rename(&partial, path)
}
