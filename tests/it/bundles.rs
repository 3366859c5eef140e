//! MONAI bundles against MONAI's own: `tests/golden/bundles`.

use crate::parity::{Case, request, same_labels, show, values, worst};
use ictus::{
    analysis::infer::{self, InferError},
    domain::network::Unattended,
    import::{Request, import},
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
/// What the malicious checkpoint would do if it were run.
const TRACE: &str = "/tmp/a-bundle-was-run";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../golden/bundles")
        .join(name)
}

fn agrees(name: &str) -> String {
    let out = tempfile::tempdir().unwrap();
    agrees_as(name, &request(golden(name), out.path()))
}

/// Imports a bundle and holds every step to MONAI's; says what its card says.
fn agrees_as(name: &str, request: &Request) -> String {
    let case = Case::new(
        request,
        &golden("image.nii.gz"),
        &golden(&format!("{name}.safetensors")),
    );
    let (input, expected) = (case.input(), &case.expected);
    assert_eq!(&expected["input"].dims()[2..], input.shape);
    let by_input = worst(&input.data, &values(&expected["input"]));
    let mut logits = Vec::new();
    infer::volume::infer(&case.engine, case.model(), &input, &Unattended, |member| {
        logits = member;
        Ok::<_, InferError>(())
    })
    .unwrap();
    let by_logit = worst(&logits, &values(&expected["logits"]));
    let theirs = expected["labels"]
        .permute((2, 1, 0))
        .unwrap()
        .contiguous()
        .unwrap();
    let other = same_labels(&case.labels(), &values(&theirs));
    show(&format!(
        "bundle {name}: input {by_input:.1e}, logits {by_logit:.1e}, {other} labels differ"
    ));
    assert!(by_input <= INPUT_TOLERANCE, "input differs by {by_input}");
    assert!(by_logit <= LOGIT_TOLERANCE, "logits differ by {by_logit}");
    let card = case.card();
    for words in ["not for clinical use", "bleed", "Invertd", "tests \\| none"] {
        assert!(card.contains(words), "{words} not in {card}");
    }
    card
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

#[test]
fn slices_of_a_cropped_volume_from_yaml_agree() {
    let card = agrees("slices");
    for words in ["CropForegroundd", "one by one along axis 2"] {
        assert!(card.contains(words), "{words} not in {card}");
    }
}

#[test]
fn slices_from_the_side_with_one_sigmoid_output_agree() {
    assert!(agrees("binary").contains("SpatialPadd"));
}

#[test]
fn outputs_that_overlap_agree_when_they_are_painted_in_an_order_that_was_given() {
    let out = tempfile::tempdir().unwrap();
    let ask = |painted: Option<Vec<usize>>| Request {
        painted,
        ..request(golden("regions"), out.path())
    };
    let refused = |painted, words| crate::parity::refused(out.path(), import(&ask(painted)), words);
    refused(None, &["3 outputs that may overlap", "--painted 0,1,2"]);
    refused(Some(vec![0, 1, 1]), &["[0, 1, 1]", "from 0 to 2 once"]);
    let card = agrees_as("regions", &ask(Some(vec![1, 0, 2])));
    assert!(
        card.contains("painted in the order oedema, bleed, core"),
        "{card}"
    );
    let softmax = Request {
        painted: Some(vec![0, 1]),
        ..request(golden("unet"), &out.path().join("other"))
    };
    crate::parity::refused(
        &out.path().join("other"),
        import(&softmax),
        &["cannot overlap", "leave it out"],
    );
}

#[test]
fn a_swin_unetr_agrees_whole() {
    let out = tempfile::tempdir().unwrap();
    agrees_as("swinunetr", &request(golden("swinunetr.zip"), out.path()));
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
            "configs/inference.yaml",
            "configs/metadata.json",
            "models/model.pt",
        ] {
            if !golden(case).join(file).is_file() {
                continue;
            }
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
        crate::parity::refused(&out, import(&request(self.path(), &out)), words);
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
}

#[test]
fn refuses_what_slices_crops_and_sigmoid_outputs_cannot_say() {
    type Change = fn(&mut Value);
    fn before(c: &mut Value, i: usize) -> &mut Value {
        &mut c["preprocessing"]["transforms"][i]
    }
    fn after(c: &mut Value, i: usize) -> &mut Value {
        &mut c["postprocessing"]["transforms"][i]
    }
    let changes: [(Change, &[&str]); 18] = [
        (
            |c| c["inferer"]["_target_"] = json!("SlidingWindowInferer"),
            &["one slice this way", "SliceInferer"],
        ),
        (
            |c| c["inferer"]["spatial_dim"] = json!(3),
            &["spatial_dim is 3, expected 0, 1 or 2"],
        ),
        (
            |c| c["inferer"]["roi_size"] = json!([8, 8, 8]),
            &["roi_size is [8, 8, 8]", "expected 2 sizes"],
        ),
        (
            |c| c["network_def"]["spatial_dims"] = json!(3),
            &["has 3 axes", "slice by slice goes one of two"],
        ),
        (|c| before(c, 5)["margin"] = json!(-1), &["`margin` is -1"]),
        (|c| before(c, 5)["margin"] = json!([1, 2]), &["`margin` is [1,2]"]),
        (
            |c| before(c, 5)["margin"] = json!(1_000_000_000),
            &["at most 4096 voxels"],
        ),
        (
            |c| before(c, 5)["k_divisible"] = json!([0, 4, 4]),
            &["CropForeground", "not what it should be"],
        ),
        (
            |c| before(c, 5)["select_fn"] = json!("$lambda x: x > 10"),
            &["$lambda", "none is evaluated"],
        ),
        (
            |c| before(c, 5)["source_key"] = json!("label"),
            &["`source_key` is \"label\""],
        ),
        (
            |c| before(c, 5)["channel_indices"] = json!([0]),
            &["`channel_indices`"],
        ),
        (
            |c| before(c, 6)["mode"] = json!("reflect"),
            &["`mode` is \"reflect\""],
        ),
        (
            |c| before(c, 6)["method"] = json!("start"),
            &["`method` is \"start\""],
        ),
        (
            |c| before(c, 6)["spatial_size"] = json!([8, "a", 8]),
            &["`spatial_size` is [8,\"a\",8]"],
        ),
        (
            |c| after(c, 2)["threshold"] = json!([0.4, 0.5]),
            &["expected one number"],
        ),
        (|c| after(c, 2)["argmax"] = json!(true), &["`argmax` is true"]),
        (
            |c| {
                c["postprocessing"]["transforms"]
                    .as_array_mut()
                    .unwrap()
                    .swap(0, 1)
            },
            &["what was cut away would come back as 0.5"],
        ),
        (|c| after(c, 0)["sigmoid"] = json!(false), &["`sigmoid` is false"]),
    ];
    for (change, words) in changes {
        let copied = Copied::new("binary");
        copied.edit(change);
        copied.refused(words);
    }
}

#[test]
fn refuses_a_configuration_in_yaml_that_is_hostile_or_damaged() {
    let copied = Copied::new("slices");
    let inference = copied.path().join("configs/inference.yaml");
    let good = fs::read_to_string(&inference).unwrap();
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..9 {
        let inner = vec![format!("*a{}", i - 1); 10].join(", ");
        bomb += &format!("a{i}: &a{i} [{inner}]\n");
    }
    for (text, words) in [
        (bomb + &good, &["more than 100000 values"][..]),
        (
            good.clone() + "hook: !!python/object/apply:os.system ['touch /tmp/a-bundle-was-run']\n",
            &["it has a tag"],
        ),
        (
            good.clone() + "inferer: {}\n",
            &["\"inferer\" stands there twice"],
        ),
        (
            good.replace("1.2", "1.2e0"),
            &["`pixdim` is not understood", "1.2e0"],
        ),
        (
            good.replace("a_min: -100", "a_min: -0100"),
            &["-0100", "differently"],
        ),
        (good[..good.len() / 2].to_owned() + "\n  - [", &["it is not YAML"]),
        (
            good.clone() + &"#".repeat(17 << 20),
            &["at most 16777216 are read"],
        ),
    ] {
        fs::write(&inference, text).unwrap();
        copied.refused(words);
    }
    assert!(!Path::new(TRACE).exists(), "a configuration was run");
    fs::write(&inference, &good).unwrap();
    fs::write(inference.with_extension("json"), "{}").unwrap();
    copied.refused(&["inference.json and inference.yaml", "one was expected"]);
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
