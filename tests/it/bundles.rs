//! MONAI bundles against MONAI's own: `tests/golden/bundles`.

use candle_core::{DType, Device, Tensor};
use ictus::{
    analysis::{
        self, Scan,
        assemble::Values,
        infer::{self, Engine, InferError, bundle::Bundle},
        preprocess,
    },
    domain::{device::DeviceChoice, network::Unattended, uid::Uid, volume_trace::Turn},
    import::{Request, import},
    nifti,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Largest difference of the network's input, which reaches 10.
const INPUT_TOLERANCE: f32 = 1e-5;
/// Largest difference of logits on the network's grid, which reach 13.
const LOGIT_TOLERANCE: f32 = 1e-4;
/// Voxels that may fall on the other side of a border between labels.
const OTHER_SHARE: f64 = 0.001;
/// What the malicious checkpoint would do if it were run.
const TRACE: &str = "/tmp/a-bundle-was-run";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/bundles")
        .join(name)
}

fn request(path: PathBuf, out: &Path) -> Request {
    Request {
        path,
        id: None,
        out: out.to_owned(),
        checkpoint: None,
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_dtype(DType::F32).unwrap();
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn agrees(case: &str) {
    let out = tempfile::tempdir().unwrap();
    let imported = import(&request(golden(case), out.path())).unwrap();
    let bundle = Bundle::read(&imported.folder).unwrap();
    let engine = Engine::start(std::slice::from_ref(&bundle), DeviceChoice::Cpu).unwrap();
    let model = engine.model(&imported.id).unwrap();
    let bytes = fs::read(golden("image.nii.gz")).unwrap();
    let source = nifti::read(&bytes).unwrap();
    let scan = || Scan {
        channels: vec![analysis::assemble::from_nifti(&bytes, Values::Any).unwrap()],
        turn: Turn {
            slices: source.is_reversed(),
            ..Turn::default()
        },
    };
    let expected = fs::read(golden(&format!("{case}.safetensors"))).unwrap();
    let expected = candle_core::safetensors::load_buffer(&expected, &Device::Cpu).unwrap();

    let given = scan();
    let (input, _) = preprocess::volume::preprocess(&given.channels, given.turn, &bundle.plan, None).unwrap();
    assert_eq!(&expected["input"].dims()[2..], input.shape);
    let by_input = worst(&input.data, &values(&expected["input"]));
    let mut logits = Vec::new();
    infer::volume::infer(&engine, model, &input, &Unattended, |member| {
        logits = member;
        Ok::<_, InferError>(())
    })
    .unwrap();
    let by_logit = worst(&logits, &values(&expected["logits"]));
    let mut report = analysis::empty_report(None);
    let series = Uid::derive(&[b"series"]);
    let look = analysis::look(scan(), &engine, model, &series, &Unattended, &mut report).unwrap();
    // On the grid of the file, whose first axis runs fastest.
    let written = nifti::write_like(&source, &look.prediction.labels).unwrap();
    let found = nifti::read(&written).unwrap();
    let theirs = expected["labels"]
        .permute((2, 1, 0))
        .unwrap()
        .contiguous()
        .unwrap();
    let theirs = values(&theirs);
    let other = found.data.iter().zip(&theirs).filter(|(a, b)| a != b).count();
    if std::env::var_os("ICTUS_SHOW_PARITY").is_some() {
        eprintln!(
            "bundle {case}: input {by_input:.1e}, logits {by_logit:.1e}, {other} of {} labels",
            theirs.len()
        );
    }
    assert!(by_input <= INPUT_TOLERANCE, "input differs by {by_input}");
    assert!(by_logit <= LOGIT_TOLERANCE, "logits differ by {by_logit}");
    assert!(
        (other as f64) <= OTHER_SHARE * theirs.len() as f64,
        "{other} of {}",
        theirs.len()
    );
    let card = fs::read_to_string(imported.folder.join("card.md")).unwrap();
    for words in ["not for clinical use", "bleed", "Invertd", "tests \\| none"] {
        assert!(card.contains(words), "{words} not in {card}");
    }
}

#[test]
fn a_unet_of_probabilities_on_an_even_grid_agrees() {
    agrees("unet");
}

#[test]
fn a_dynunet_of_logits_turned_to_other_codes_agrees() {
    agrees("dynunet");
}

#[test]
fn a_segresnet_along_the_axes_of_the_file_agrees() {
    agrees("segresnet");
}

/// A copy of a good bundle that a test may spoil.
struct Copied {
    dir: TempDir,
}

impl Copied {
    fn new(case: &str) -> Self {
        let copied = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        for file in [
            "configs/inference.json",
            "configs/metadata.json",
            "models/model.pt",
        ] {
            let to = copied.path().join(file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(golden(case).join(file), to).unwrap();
        }
        copied
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("bundle")
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path().join("configs/inference.json");
        let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut value);
        fs::write(path, value.to_string()).unwrap();
    }

    /// Refused with these words, and nothing written.
    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let out = self.dir.path().join("models");
        let error = import(&request(self.path(), &out)).unwrap_err();
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
}

#[test]
fn refuses_what_a_bundle_asks_for_and_this_build_does_not_do() {
    type Change = fn(&mut Value);
    fn before(c: &mut Value, i: usize) -> &mut Value {
        &mut c["preprocessing"]["transforms"][i]
    }
    fn after(c: &mut Value, i: usize) -> &mut Value {
        &mut c["postprocessing"]["transforms"][i]
    }
    let changes: [(Change, &[&str]); 24] = [
        (|c| before(c, 2)["axcodes"] = json!("RAX"), &["axcodes", "RAX"]),
        (|c| before(c, 3)["mode"] = json!(3), &["`mode` is 3"]),
        (
            |c| before(c, 3)["diagonal"] = json!(true),
            &["`diagonal` is true"],
        ),
        (
            |c| before(c, 3)["pixdim"] = json!([1.0, -1.0, 1.0]),
            &["millimetres above 0"],
        ),
        (
            |c| before(c, 3)["pixdim"] = json!("$[1.0] * 3"),
            &["$[1.0] * 3", "none is evaluated"],
        ),
        (|c| before(c, 4)["a_max"] = json!(-200), &["from low to high"]),
        (
            |c| before(c, 4)["_target_"] = json!("ScaleIntensityRangePercentilesd"),
            &["ScaleIntensityRangePercentilesd"],
        ),
        (
            |c| before(c, 4)["_target_"] = json!("scripts.Mine"),
            &["scripts.Mine", "not MONAI's"],
        ),
        (|c| before(c, 4)["relative"] = json!(true), &["relative"]),
        (
            |c| before(c, 0)["keys"] = json!(["image", "label"]),
            &["`keys`", "one image"],
        ),
        (
            |c| before(c, 3)["_disabled_"] = json!(true),
            &["without Spacingd"],
        ),
        (|c| before(c, 3)["_disabled_"] = json!("$1 > 2"), &["_disabled_"]),
        (|c| after(c, 0)["sigmoid"] = json!(true), &["`sigmoid` is true"]),
        (
            |c| after(c, 1)["nearest_interp"] = json!(true),
            &["`nearest_interp` is true"],
        ),
        (
            |c| after(c, 1)["transform"] = json!("@other"),
            &["undoes something else"],
        ),
        (|c| after(c, 2)["threshold"] = json!(0.5), &["`threshold` is 0.5"]),
        (
            |c| after(c, 2)["_target_"] = json!("KeepLargestConnectedComponentd"),
            &["KeepLargestConnectedComponentd"],
        ),
        (
            |c| c["inferer"]["_target_"] = json!("SimpleInferer"),
            &["SimpleInferer"],
        ),
        (
            |c| c["inferer"]["padding_mode"] = json!("reflect"),
            &["`padding_mode` is \"reflect\""],
        ),
        (|c| c["inferer"]["overlap"] = json!(1.5), &["overlap is [1.5"]),
        (
            |c| c["inferer"]["roi_size"] = json!([16, 16, 6]),
            &["no multiple of [4, 4, 4]"],
        ),
        (
            |c| c["network_def"]["_target_"] = json!("monai.networks.nets.UNETR"),
            &["the network `UNETR`"],
        ),
        (
            |c| c["network_def"]["act"] = json!("swish"),
            &["arguments are not understood", "SWISH"],
        ),
        (
            |c| c["network_def"]["channels"] = json!([4, 8, 16]),
            &["its tensors do not fit"],
        ),
    ];
    for (change, words) in changes {
        let copied = Copied::new("unet");
        copied.edit(change);
        copied.refused(words);
    }
    let copied = Copied::new("unet");
    let inference = copied.path().join("configs/inference.json");
    fs::rename(&inference, inference.with_extension("yaml")).unwrap();
    copied.refused(&["inference.yaml is YAML", "write it as inference.json"]);
}

#[test]
fn refuses_bad_weights_of_a_bundle_and_says_what_is_wrong() {
    for (file, words) in [
        (
            "malicious.pt",
            &["asks for `posix.system`", "nothing was run"][..],
        ),
        ("whole.pt", &["asks for `monai.", "nothing was run"]),
        (
            "nan.pt",
            &[
                "model.0.conv.unit0.conv.weight",
                "1 of 108 numbers that are not finite",
            ],
        ),
        ("shape.pt", &["[4, 2, 3, 3, 3]", "wanted [4, 1, 3, 3, 3]"]),
        ("missing.pt", &["`model.0.conv.unit0.conv.weight` is missing"]),
        ("extra.pt", &["`attention.weight` has no place"]),
        ("optimiser.pt", &["`epoch` is no tensor"]),
    ] {
        let copied = Copied::new("unet");
        fs::copy(golden("bad").join(file), copied.path().join("models/model.pt")).unwrap();
        copied.refused(words);
    }
    assert!(!Path::new(TRACE).exists(), "a checkpoint was run");
    let copied = Copied::new("unet");
    let weights = copied.path().join("models/model.pt");
    let whole = fs::read(&weights).unwrap();
    fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    copied.refused(&["not an intact zip archive"]);
    fs::rename(&weights, copied.path().join("models/model.ts")).unwrap();
    copied.refused(&["no models/model.pt", "TorchScript"]);
}

/// A zip of these entries, each deflated.
fn zip(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        packer.write_all(data).unwrap();
        let packed = packer.finish().unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let at = u32::try_from(file.len()).unwrap();
        let mut fields = vec![20, 0, 0, 0, 8, 0, 0, 0, 0, 0];
        fields.extend(crc.sum().to_le_bytes());
        for len in [packed.len(), data.len()] {
            fields.extend(u32::try_from(len).unwrap().to_le_bytes());
        }
        fields.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        fields.extend([0, 0]);
        file.extend(b"PK\x03\x04");
        file.extend(&fields);
        file.extend(name.as_bytes());
        file.extend(packed);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&fields);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (count, at) = (
        u16::try_from(entries.len()).unwrap(),
        u32::try_from(file.len()).unwrap(),
    );
    let len = u32::try_from(directory.len()).unwrap();
    file.extend(directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    file.extend([len.to_le_bytes(), at.to_le_bytes()].concat());
    file.extend([0, 0]);
    file
}

#[test]
fn a_zipped_bundle_is_unpacked_and_nothing_leads_out_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("models");
    let path = dir.path().join("bundle.zip");
    let file = |name: &str| fs::read(golden("unet").join(name)).unwrap();
    let mut entries = vec![
        ("tiny/configs/inference.json", file("configs/inference.json")),
        ("tiny/configs/metadata.json", file("configs/metadata.json")),
        ("tiny/models/model.pt", file("models/model.pt")),
        ("tiny/docs/README.md", b"prose".to_vec()),
    ];
    fs::write(&path, zip(&entries)).unwrap();
    let imported = import(&request(path.clone(), &out)).unwrap();
    assert_eq!(imported.id, "tiny-unet");
    let left: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(left, ["tiny-unet"]);
    fs::remove_dir_all(&out).unwrap();

    let refusal = |entries: &[(&str, Vec<u8>)]| {
        fs::write(&path, zip(entries)).unwrap();
        let error = import(&request(path.clone(), &out)).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", source.unwrap_or_default())
    };
    assert!(refusal(&entries[2..]).contains("0 MONAI bundles"));
    entries[2].0 = "../models/model.pt";
    assert!(refusal(&entries).contains("leads out of it"));
    assert!(!dir.path().join("model.pt").exists());
    assert_eq!(fs::read_dir(&out).map_or(0, Iterator::count), 0);
}
