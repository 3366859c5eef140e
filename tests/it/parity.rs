//! What the tests of imported models share: import, a scan from a file, and how far two answers lie apart.

use candle_core::{DType, Device, Tensor};
use ictus::{
    analysis::{
        self, Scan,
        assemble::Values,
        infer::{
            Engine,
            bundle::{Bundle, Model},
        },
        preprocess,
    },
    domain::{
        device::DeviceChoice,
        network::{Unattended, VolumeInput},
        uid::Uid,
        volume_trace::Turn,
    },
    import::{ImportError, Imported, Request, import},
    nifti,
};
use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// Voxels that may fall on the other side of a border between labels.
const OTHER_SHARE: f64 = 0.001;

pub(crate) fn request(path: PathBuf, out: &Path) -> Request {
    Request {
        path,
        id: None,
        out: out.to_owned(),
        checkpoint: None,
        painted: None,
    }
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_dtype(DType::F32).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// The largest difference.
pub(crate) fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Prints what a case's parity is, if somebody wants to see it.
pub(crate) fn show(parity: &str) {
    if std::env::var_os("ICTUS_SHOW_PARITY").is_some() {
        eprintln!("{parity}");
    }
}

/// Two label maps, all but equal: says how many voxels differ.
#[track_caller]
pub(crate) fn same_labels(found: &[f32], expected: &[f32]) -> usize {
    assert_eq!(found.len(), expected.len());
    let other = found.iter().zip(expected).filter(|(a, b)| a != b).count();
    let share = other as f64 / expected.len() as f64;
    assert!(share <= OTHER_SHARE, "{other} of {}", expected.len());
    other
}

/// An import that is refused with these words, and nothing written to `out`.
#[track_caller]
pub(crate) fn refused(out: &Path, result: Result<Imported, ImportError>, words: &[&str]) {
    let error = result.unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    if std::env::var_os("ICTUS_SHOW_REFUSALS").is_some() {
        eprintln!("{text}");
    }
    for word in words {
        assert!(text.contains(word), "{word} not in: {text}");
    }
    assert_eq!(fs::read_dir(out).map_or(0, Iterator::count), 0, "{text}");
}

/// An imported model, a file, and what the model's own package made of it.
pub(crate) struct Case {
    pub(crate) imported: Imported,
    pub(crate) bundle: Bundle,
    pub(crate) engine: Engine,
    pub(crate) expected: HashMap<String, Tensor>,
    image: Vec<u8>,
}

impl Case {
    pub(crate) fn new(request: &Request, image: &Path, expected: &Path) -> Self {
        let imported = import(request).unwrap();
        let bundle = Bundle::read(&imported.folder).unwrap();
        Self {
            engine: Engine::start(std::slice::from_ref(&bundle), DeviceChoice::Cpu).unwrap(),
            imported,
            bundle,
            expected: candle_core::safetensors::load_buffer(&fs::read(expected).unwrap(), &Device::Cpu)
                .unwrap(),
            image: fs::read(image).unwrap(),
        }
    }

    pub(crate) fn model(&self) -> &Model {
        self.engine.model(&self.imported.id).unwrap()
    }

    fn scan(&self) -> Scan {
        Scan {
            channels: vec![analysis::assemble::from_nifti(&self.image, Values::Any).unwrap()],
            turn: Turn {
                slices: nifti::read(&self.image).unwrap().is_reversed(),
                ..Turn::default()
            },
        }
    }

    /// What the network is given.
    pub(crate) fn input(&self) -> VolumeInput {
        let scan = self.scan();
        let plan = &self.bundle.plan;
        preprocess::volume::preprocess(&scan.channels, scan.turn, plan, None)
            .unwrap()
            .0
    }

    /// The label map in the order of the file, whose first axis runs fastest.
    pub(crate) fn labels(&self) -> Vec<f32> {
        let mut report = analysis::empty_report(None);
        let series = Uid::derive(&[b"series"]);
        let look = analysis::look(
            self.scan(),
            &self.engine,
            self.model(),
            &series,
            &Unattended,
            &mut report,
        )
        .unwrap();
        let source = nifti::read(&self.image).unwrap();
        let written = nifti::write_like(&source, &look.prediction.labels).unwrap();
        nifti::read(&written).unwrap().data
    }

    pub(crate) fn card(&self) -> String {
        fs::read_to_string(self.imported.folder.join("card.md")).unwrap()
    }
}
