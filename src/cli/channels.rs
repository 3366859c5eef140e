//! The files of a case with several channels, as nnU-Net names them: `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, …

use anyhow::{Context, bail};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files of a case with `count` channels; `input` is its first file, or a folder that holds them.
pub(crate) fn of(input: &Path, count: usize) -> anyhow::Result<Vec<PathBuf>> {
    if count == 1 && input.is_file() {
        return Ok(vec![input.to_owned()]);
    }
    let (folder, case) = if input.is_dir() {
        (input, None)
    } else {
        let name = name_of(input);
        let (case, _) = parse(&name).with_context(|| {
            format!("the model wants {count} channels: name the first file CASE_0000.nii.gz, found {name}")
        })?;
        let folder = input.parent().filter(|p| !p.as_os_str().is_empty());
        (folder.unwrap_or(Path::new(".")), Some(case.to_owned()))
    };
    let mut found: Vec<(String, usize, PathBuf)> = Vec::new();
    for path in listed(folder)? {
        if let Some((stem, number)) = parse(&name_of(&path)) {
            found.push((stem.to_owned(), number, path.clone()));
        }
    }
    found.retain(|(stem, ..)| case.as_ref().is_none_or(|case| case == stem));
    found.sort();
    let one_case = found.iter().all(|(stem, ..)| *stem == found[0].0);
    let complete = found.iter().map(|(_, number, _)| *number).eq(0..count);
    if !one_case || !complete {
        bail!(
            "the model wants {count} channels of one case, named CASE_0000.nii.gz, CASE_0001.nii.gz, …; found {} such files in {}",
            found.len(),
            folder.display()
        );
    }
    Ok(found.into_iter().map(|(_, _, path)| path).collect())
}

/// Whether a folder holds channels rather than DICOM files.
pub(crate) fn are_in(folder: &Path) -> anyhow::Result<bool> {
    Ok(listed(folder)?.iter().any(|path| parse(&name_of(path)).is_some()))
}

fn listed(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    read.map(|entry| Ok(entry?.path())).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Case and channel that a file's name says.
fn parse(name: &str) -> Option<(&str, usize)> {
    let stem = name
        .strip_suffix(".nii.gz")
        .or_else(|| name.strip_suffix(".nii"))?;
    let (case, digits) = stem.rsplit_once('_')?;
    let is_number = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| Some((case, digits.parse().ok()?))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_channels_of_one_case_in_order_and_nothing_less() {
        let folder = tempfile::tempdir().unwrap();
        for name in [
            "a_0001.nii.gz",
            "a_0000.nii.gz",
            "b_0000.nii",
            "notes.txt",
            "a_01.nii",
        ] {
            fs::write(folder.path().join(name), []).unwrap();
        }
        let at = |name: &str| folder.path().join(name);
        assert!(are_in(folder.path()).unwrap());
        assert_eq!(
            of(&at("a_0000.nii.gz"), 2).unwrap(),
            [at("a_0000.nii.gz"), at("a_0001.nii.gz")]
        );
        assert_eq!(of(&at("b_0000.nii"), 1).unwrap(), [at("b_0000.nii")]);
        assert!(of(&at("b_0000.nii"), 2).is_err());
        assert!(of(&at("a_0000.nii.gz"), 3).is_err());
        assert!(of(folder.path(), 2).is_err(), "two cases");
        assert!(of(&at("notes.txt"), 2).is_err());
    }
}
