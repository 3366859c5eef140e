//! A file that `torch.save` wrote → named tensors and plain values, without running any of it.
//!
//! Such a file is a zip with one pickle and one entry a storage; before torch 1.6 it was a row of both (`old`).
//! A pickle is a program: here it meets an interpreter that knows the instructions of data and a short list of names, and refuses the rest by name.
//! What it deliberately does not do: inflate (torch stores its entries plainly, so a small file cannot become a large one), TorchScript.
//! Source: Python's `pickletools` (instructions), PyTorch's `serialization.md` (layout), PKWARE's APPNOTE 6.3.10 (zip).

mod archive;
mod old;
mod pickle;

use archive::Archive;
use candle_core::{DType, Device, Tensor};
use old::Old;
pub use pickle::{Id, Object, TensorRef};
use std::{
    borrow::Cow,
    fs::{self, File},
    io::{Read, Seek},
    path::{Component, Path},
};

/// Why a checkpoint is not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be opened or read.
    #[error("{path} cannot be read")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a zip, or a damaged one.
    #[error("the checkpoint is not an intact zip archive: {0}")]
    Archive(String),
    /// A format that is known and not supported.
    #[error("the checkpoint is {found}; {wanted}")]
    Format {
        /// What it is.
        found: &'static str,
        /// What to do about it.
        wanted: &'static str,
    },
    /// The pickle asks for something that data has no need of.
    #[error(
        "the checkpoint asks for {0}, which plain weights have no use for; nothing was run, and it is refused"
    )]
    Forbidden(String),
    /// The pickle is damaged, or says something that is not understood.
    #[error("the checkpoint's pickle is not understood: {0}")]
    Pickle(String),
    /// A tensor does not fit its storage or has no numbers to use.
    #[error("tensor `{name}` of the checkpoint {what}")]
    Tensor {
        /// Its key.
        name: String,
        /// What is wrong with it.
        what: String,
    },
}

/// An opened checkpoint: its values are in memory, its tensors are read when asked for.
#[derive(Debug)]
pub struct Checkpoint {
    storages: Storages,
    objects: pickle::Objects,
}

/// Where the numbers are.
#[derive(Debug)]
enum Storages {
    Zip { archive: Archive<File>, prefix: String },
    Old(Old),
}

impl Storages {
    /// The bytes of one.
    fn read(&mut self, key: &str) -> Result<Cow<'_, [u8]>, CheckpointError> {
        match self {
            Self::Zip { archive, prefix } => Ok(archive.read(&format!("{prefix}data/{key}"))?.into()),
            Self::Old(old) => Ok(old.read(key)?.into()),
        }
    }
}

impl Checkpoint {
    /// Opens a file and reads its pickle.
    ///
    /// # Errors
    /// Says what the file is instead, what is damaged, or what it asks for that is not allowed.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let unread = |source| CheckpointError::Read {
            path: path.display().to_string(),
            source,
        };
        let mut file = File::open(path).map_err(unread)?;
        let mut head = Vec::new();
        let begun = (&mut file).take(old::MAGIC.len() as u64).read_to_end(&mut head);
        begun.and_then(|_| file.rewind()).map_err(unread)?;
        if head == old::MAGIC {
            let (old, objects) = Old::open(fs::read(path).map_err(unread)?)?;
            let storages = Storages::Old(old);
            return Ok(Self { storages, objects });
        }
        let mut archive = Archive::open(file)?;
        let pickles: Vec<String> = archive
            .names()
            .filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"))
            .map(str::to_owned)
            .collect();
        let [name] = pickles.as_slice() else {
            return Err(CheckpointError::Archive(format!(
                "it holds {} entries called data.pkl, a checkpoint of torch holds one",
                pickles.len()
            )));
        };
        let prefix = name.trim_end_matches("data.pkl").to_owned();
        if archive.names().any(|n| n == format!("{prefix}constants.pkl")) {
            return Err(CheckpointError::Format {
                found: "a TorchScript program",
                wanted: "save its state_dict with torch.save and import that",
            });
        }
        let order = format!("{prefix}byteorder");
        if archive.names().any(|n| n == order) && archive.read(&order)? != b"little" {
            return Err(CheckpointError::Format {
                found: "of a big-endian machine",
                wanted: "this build reads little-endian ones",
            });
        }
        let objects = pickle::read(&archive.read(name)?)?;
        Ok(Self {
            storages: Storages::Zip { archive, prefix },
            objects,
        })
    }

    /// What the whole file is: mostly a dictionary.
    #[must_use]
    pub fn root(&self) -> Id {
        self.objects.root()
    }

    /// A value.
    #[must_use]
    pub fn object(&self, id: Id) -> &Object {
        self.objects.get(id)
    }

    /// The entry of a dictionary under a text key; `None` where there is none, or `id` is no dictionary.
    #[must_use]
    pub fn entry(&self, id: Id, key: &str) -> Option<Id> {
        self.objects.entry(id, key)
    }

    /// The text keys and values of a dictionary, in its order.
    pub fn entries(&self, id: Id) -> impl Iterator<Item = (&str, Id)> {
        self.objects.entries(id)
    }

    /// A value without tensors as JSON.
    ///
    /// # Errors
    /// Says what JSON cannot hold, or that the value is nested beyond all reason.
    pub fn json(&self, id: Id) -> Result<serde_json::Value, CheckpointError> {
        self.objects.json(id)
    }

    /// Reads one tensor as f32; `name` is for the error.
    ///
    /// # Errors
    /// When the tensor lies outside its storage, holds integers, or any number that is not finite.
    pub fn tensor(&mut self, name: &str, tensor: &TensorRef) -> Result<Tensor, CheckpointError> {
        let wrong = |what: String| CheckpointError::Tensor {
            name: name.to_owned(),
            what,
        };
        let bytes = self.storages.read(&tensor.storage)?;
        let size = tensor.number.size();
        if bytes.len() as u64 != tensor.storage_len.saturating_mul(size as u64) {
            return Err(wrong(format!(
                "says its storage holds {} numbers of {size} bytes, the file holds {} bytes",
                tensor.storage_len,
                bytes.len()
            )));
        }
        let dtype = tensor.number.dtype().ok_or_else(|| {
            wrong(format!(
                "holds numbers of type {:?}, weights are floating-point",
                tensor.number
            ))
        })?;
        let mut values = Vec::new();
        for at in tensor.indices(bytes.len() / size).map_err(wrong)? {
            values.extend_from_slice(&bytes[at * size..(at + 1) * size]);
        }
        let read = || {
            let tensor = Tensor::from_raw_buffer(&values, dtype, &tensor.shape, &Device::Cpu)?;
            let tensor = tensor.to_dtype(DType::F32)?;
            let finite = tensor.flatten_all()?.to_vec1::<f32>()?;
            Ok((finite.iter().filter(|v| !v.is_finite()).count(), tensor))
        };
        let (bad, tensor) =
            read().map_err(|e: candle_core::Error| wrong(format!("is not understood: {e}")))?;
        if bad > 0 {
            return Err(wrong(format!(
                "holds {bad} of {} numbers that are not finite",
                tensor.elem_count()
            )));
        }
        Ok(tensor)
    }
}

impl Checkpoint {
    /// Reads one tensor of integers; `name` is for the error.
    ///
    /// # Errors
    /// When the tensor lies outside its storage, or holds anything but integers of 8 bytes from 0 on.
    pub fn integers(&mut self, name: &str, tensor: &TensorRef) -> Result<Vec<u32>, CheckpointError> {
        let wrong = |what: String| CheckpointError::Tensor {
            name: name.to_owned(),
            what,
        };
        let bytes = self.storages.read(&tensor.storage)?;
        if tensor.number != Number::Integer(8) {
            return Err(wrong(format!(
                "holds numbers of type {:?}, expected integers of 8 bytes",
                tensor.number
            )));
        }
        let places = tensor.indices(bytes.len() / 8).map_err(wrong)?;
        let number = |at: usize| {
            let bytes: [u8; 8] = bytes.get(at * 8..at * 8 + 8)?.try_into().ok()?;
            u32::try_from(i64::from_le_bytes(bytes)).ok()
        };
        let read: Option<Vec<u32>> = places.into_iter().map(number).collect();
        read.ok_or_else(|| wrong("holds a number below 0 or beyond all reason".into()))
    }
}

/// Unpacks those files of a zip whose names are wanted into a folder, and returns their names.
///
/// # Errors
/// When it is no intact zip, a name leads out of the folder, or more than `most` bytes would come out.
pub fn unpack(
    path: &Path,
    folder: &Path,
    wanted: impl Fn(&str) -> bool,
    most: u64,
) -> Result<Vec<String>, CheckpointError> {
    let unread = |path: &Path, source| CheckpointError::Read {
        path: path.display().to_string(),
        source,
    };
    let mut archive = Archive::open(File::open(path).map_err(|e| unread(path, e))?)?;
    let names: Vec<String> = archive
        .names()
        .filter(|name| !name.ends_with('/') && wanted(name))
        .map(str::to_owned)
        .collect();
    let mut left = most;
    for name in &names {
        let inside = |part: Component| matches!(part, Component::Normal(_));
        if !Path::new(name).components().all(inside) || name.contains('\\') {
            return Err(CheckpointError::Archive(format!(
                "the name {name:?} leads out of it"
            )));
        }
        let data = archive.inflate(name, left)?;
        left -= data.len() as u64;
        let to = folder.join(name);
        let made = to.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&to, data))
            .map_err(|e| unread(&to, e))?;
    }
    Ok(names)
}

/// Reads a pickle that stands alone and holds plain values: texts, numbers, lists, dictionaries, and names of the list as texts.
///
/// # Errors
/// As [`Checkpoint::open`], and for anything that is no plain value.
pub fn read_plain(path: &Path) -> Result<serde_json::Value, CheckpointError> {
    let bytes = fs::read(path).map_err(|source| CheckpointError::Read {
        path: path.display().to_string(),
        source,
    })?;
    let objects = pickle::read(&bytes)?;
    objects.json(objects.root())
}

/// The types of number that a storage may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// 64-bit floating point.
    F64,
    /// 32-bit floating point.
    F32,
    /// IEEE half precision.
    F16,
    /// Google's half precision.
    Bf16,
    /// An integer of so many bytes.
    Integer(usize),
}

impl Number {
    fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Integer(bytes) => bytes,
        }
    }

    /// `None` for integers.
    fn dtype(self) -> Option<DType> {
        match self {
            Self::F64 => Some(DType::F64),
            Self::F32 => Some(DType::F32),
            Self::F16 => Some(DType::F16),
            Self::Bf16 => Some(DType::BF16),
            Self::Integer(_) => None,
        }
    }
}
