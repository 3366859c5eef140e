//! What the integration tests stand on: a database of their own each, an archive in a folder, and CT slices made in code.
//!
//! `DATABASE_URL` names a cluster that the tests may do with as they like (`make test` starts one).
//! The first test makes a migrated template; each test clones it.

use bytes::Bytes;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR, value::C};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use futures::stream;
use ictus::{
    archive::Archive,
    db::Db,
    domain::{uid::Uid, volume::Geometry},
    receive::{Receiver, Staged, StoreOutcome},
};
use serde_json::Value;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tokio::sync::OnceCell;

/// Who sends in these tests.
pub(crate) const SENDER: &str = "test-modality";
/// Long enough that nothing of a test is analysed unless the test says so.
pub(crate) const NEVER: Duration = Duration::from_secs(3600);

/// One database, one archive, one receiver.
pub(crate) struct World {
    /// As the server uses it.
    pub(crate) db: Db,
    /// Files.
    pub(crate) archive: Archive,
    /// The service.
    pub(crate) receiver: Receiver,
    /// Where the archive is.
    pub(crate) folder: tempfile::TempDir,
    /// How to connect as the cluster's superuser.
    pub(crate) options: PgConnectOptions,
}

/// The program as it is run: cargo puts it above the folder of the tests.
///
/// # Panics
/// When it is not there, or older than the library that these tests were built with, as after `cargo test -p ictus-it`.
pub(crate) fn ictus() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().unwrap();
    let built = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
    let library = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("libictus-") && name.ends_with(".rlib")
        })
        .filter_map(|path| built(&path))
        .max();
    let program = folder.with_file_name("ictus");
    assert!(
        built(&program) >= library,
        "{} is older than its library or not there: run `cargo build` first",
        program.display()
    );
    program
}

/// A phantom, drawn with `heads` → what `ictus analyze` says of it with `further` arguments (`findings.json`), and its truth.
pub(crate) fn analysed(heads: &[&str], further: &[&str]) -> (Value, Value) {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(ictus()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
    };
    let (phantom, out) = (folder.path().join("phantom"), folder.path().join("out"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    run(&[["phantom", "--out", &text(&phantom)].as_slice(), heads].concat());
    let head = std::fs::read_dir(&phantom)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let ct = text(&head.join("ct"));
    run(&[["analyze", &ct, "--out", &text(&out)].as_slice(), further].concat());
    let json = |path: &Path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    (json(&out.join("findings.json")), json(&head.join("truth.json")))
}

/// The same stack with half as many rows and columns.
pub(crate) fn halved(whole: &Geometry) -> Geometry {
    let mut half = whole.clone();
    (half.rows, half.columns) = (whole.rows / 2, whole.columns / 2);
    half.pixel_spacing_mm = whole.pixel_spacing_mm.map(|mm| 2.0 * mm);
    for (slice, plane) in half.planes.iter_mut().enumerate() {
        plane.origin_mm = whole.voxel_to_lps(slice, 0.5, 0.5);
    }
    half
}

impl World {
    /// A world whose studies are analysed when a test says so.
    pub(crate) async fn new() -> Self {
        Self::with_quiet(NEVER).await
    }

    /// A world whose studies are analysed after so long a silence.
    pub(crate) async fn with_quiet(quiet: Duration) -> Self {
        let options = database().await;
        let db = Db::connect(options.clone()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::open(folder.path()).unwrap();
        let receiver = Receiver::new(db.clone(), archive.clone(), quiet);
        Self {
            db,
            archive,
            receiver,
            folder,
            options,
        }
    }

    /// Another connection, as the superuser: for looking behind the code and for tampering.
    pub(crate) async fn superuser(&self) -> PgConnection {
        PgConnection::connect_with(&self.options).await.unwrap()
    }

    /// One number from a query, as the superuser.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql)
            .fetch_one(&mut self.superuser().await)
            .await
            .unwrap()
    }

    /// A statement, as the superuser.
    pub(crate) async fn run(&self, sql: &'static str) {
        sqlx::query(sql)
            .execute(&mut self.superuser().await)
            .await
            .unwrap();
    }

    /// The kept files of the archive, by their names.
    pub(crate) async fn archive_files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let kept = self.folder.path().join("blake3");
        // Nothing was ever kept here.
        let mut folders: Vec<PathBuf> = kept.exists().then_some(kept).into_iter().collect();
        let mut files = BTreeMap::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    files.insert(path.clone(), std::fs::read(path).unwrap());
                }
            }
        }
        files
    }

    /// Stages one part.
    pub(crate) async fn stage(&self, part10: Vec<u8>) -> Staged {
        // In small pieces, as a network would bring it.
        let pieces: Vec<Result<Bytes, Infallible>> = part10
            .chunks(700)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        self.receiver.stage(stream::iter(pieces)).await.unwrap()
    }

    /// Sends one request.
    pub(crate) async fn send(&self, parts: Vec<Vec<u8>>) -> StoreOutcome {
        let mut staged = Vec::new();
        for part in parts {
            staged.push(self.stage(part).await);
        }
        self.receiver.store(staged, None, SENDER).await.unwrap()
    }
}

/// A new clone of the migrated template.
pub(crate) async fn database() -> PgConnectOptions {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let url = std::env::var("DATABASE_URL")
        .expect("the integration tests need DATABASE_URL: run them with `make test`");
    let server = PgConnectOptions::from_str(&url).unwrap();
    let template = TEMPLATE
        .get_or_init(|| async {
            let name = format!("ictus_template_{}", uuid::Uuid::new_v4().simple());
            create(&server, format!("CREATE DATABASE {name}")).await;
            let db = Db::connect(server.clone().database(&name)).await.unwrap();
            db.migrate().await.unwrap();
            db.close().await;
            name
        })
        .await;
    let name = format!("{template}_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    create(&server, format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
    server.database(&name)
}

async fn create(server: &PgConnectOptions, sql: String) {
    let mut connection = PgConnection::connect_with(server).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// A UID that no other name gives.
pub(crate) fn uid(name: &str) -> Uid {
    // Not Uid::derive: UIDs of that kind are taken for our own results.
    let digits: u128 = name.bytes().fold(7, |number, byte| {
        number.wrapping_mul(1_000_003).wrapping_add(u128::from(byte))
    });
    Uid::parse(&format!("1.2.826.0.1.3680043.8.498.{}", digits % 10_u128.pow(30))).unwrap()
}

/// An axial CT slice of 8 by 8 pixels; change what a test is about.
#[derive(Debug, Clone)]
pub(crate) struct Slice {
    pub(crate) study: Uid,
    pub(crate) series: Uid,
    pub(crate) sop: Uid,
    pub(crate) patient_id: String,
    pub(crate) patient_name: String,
    pub(crate) frame_of_reference: Uid,
    pub(crate) z_mm: f64,
    pub(crate) number: u32,
    pub(crate) pixel: u16,
    pub(crate) series_description: String,
    pub(crate) image_type: &'static str,
}

impl Slice {
    /// Slice `number`, 5 mm thick and 5 mm from the next, of one series of one study.
    pub(crate) fn new(study: &str, series: &str, number: u32) -> Self {
        Self {
            study: uid(study),
            series: uid(series),
            sop: uid(&format!("{series}/{number}")),
            patient_id: "P1".to_owned(),
            patient_name: "Phantom^One".to_owned(),
            frame_of_reference: uid(&format!("frame of {study}")),
            z_mm: f64::from(number) * 5.0,
            number,
            pixel: 1024,
            series_description: "Head 5 mm".to_owned(),
            image_type: "ORIGINAL\\PRIMARY\\AXIAL",
        }
    }

    /// A whole head: 30 slices over 145 mm.
    pub(crate) fn head(study: &str, series: &str) -> Vec<Vec<u8>> {
        (0..30)
            .map(|number| Self::new(study, series, number).bytes())
            .collect()
    }

    /// The dataset, for tests that spoil it.
    pub(crate) fn object(&self) -> InMemDicomObject {
        let text = |tag: Tag, vr: VR, value: &str| DataElement::new(tag, vr, value);
        let shorts = |tag: Tag, value: u16| DataElement::new(tag, VR::US, PrimitiveValue::from(value));
        InMemDicomObject::from_element_iter([
            text(tags::IMAGE_TYPE, VR::CS, self.image_type),
            text(tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE),
            text(tags::SOP_INSTANCE_UID, VR::UI, self.sop.as_str()),
            text(tags::STUDY_DATE, VR::DA, "20240131"),
            text(tags::STUDY_TIME, VR::TM, "101500"),
            text(tags::ACCESSION_NUMBER, VR::SH, "A100"),
            text(tags::MODALITY, VR::CS, "CT"),
            text(tags::SERIES_DESCRIPTION, VR::LO, &self.series_description),
            text(tags::PATIENT_NAME, VR::PN, &self.patient_name),
            text(tags::PATIENT_ID, VR::LO, &self.patient_id),
            text(tags::PATIENT_BIRTH_DATE, VR::DA, "19500102"),
            text(tags::PATIENT_SEX, VR::CS, "O"),
            text(tags::SLICE_THICKNESS, VR::DS, "5"),
            text(tags::STUDY_INSTANCE_UID, VR::UI, self.study.as_str()),
            text(tags::SERIES_INSTANCE_UID, VR::UI, self.series.as_str()),
            text(tags::STUDY_ID, VR::SH, "1"),
            text(tags::SERIES_NUMBER, VR::IS, "2"),
            text(tags::INSTANCE_NUMBER, VR::IS, &self.number.to_string()),
            text(
                tags::IMAGE_POSITION_PATIENT,
                VR::DS,
                &format!("-4\\-4\\{}", self.z_mm),
            ),
            text(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1\\0\\0\\0\\1\\0"),
            text(
                tags::FRAME_OF_REFERENCE_UID,
                VR::UI,
                self.frame_of_reference.as_str(),
            ),
            shorts(tags::SAMPLES_PER_PIXEL, 1),
            text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2"),
            shorts(tags::ROWS, 8),
            shorts(tags::COLUMNS, 8),
            text(tags::PIXEL_SPACING, VR::DS, "1\\1"),
            shorts(tags::BITS_ALLOCATED, 16),
            shorts(tags::BITS_STORED, 16),
            shorts(tags::HIGH_BIT, 15),
            shorts(tags::PIXEL_REPRESENTATION, 0),
            text(tags::RESCALE_INTERCEPT, VR::DS, "-1024"),
            text(tags::RESCALE_SLOPE, VR::DS, "1"),
            DataElement::new(
                tags::PIXEL_DATA,
                VR::OW,
                PrimitiveValue::U16(C::from_vec(vec![self.pixel; 64])),
            ),
        ])
    }

    /// The Part 10 file.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        part10(self.object())
    }
}

/// Any dataset as a Part 10 file, Explicit VR Little Endian.
pub(crate) fn part10(object: InMemDicomObject) -> Vec<u8> {
    let uid_of = |tag| {
        object
            .element(tag)
            .ok()
            .and_then(|element| element.to_str().ok().map(|text| text.into_owned()))
    };
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN)
        .media_storage_sop_class_uid(uid_of(tags::SOP_CLASS_UID).unwrap_or_default())
        .media_storage_sop_instance_uid(uid_of(tags::SOP_INSTANCE_UID).unwrap_or_default());
    let mut bytes = Vec::new();
    object.with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
    bytes
}
