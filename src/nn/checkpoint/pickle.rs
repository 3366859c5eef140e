//! The interpreter: instructions of data only, names from a list, everything in one flat store.
//!
//! The store makes shared and even circular values harmless: nothing is expanded until a caller walks it.
//! Memory is bounded by the length of the pickle, for each instruction makes at most one value.

use super::{CheckpointError, Number};
use serde_json::Value;
use std::collections::HashMap;

/// A pickle of nnU-Net is some 60 kB, its plans and logs included.
const LONGEST: usize = 64 << 20;
/// Deepest nesting and most values of something that becomes JSON: plans have some 6 levels and thousands of values.
const DEEPEST: usize = 32;
const MOST_VALUES: usize = 1_000_000;
/// More axes than a weight has.
const MOST_AXES: usize = 8;
/// Longest text that is copied: names of storages, devices and encodings, and a numpy number as latin-1.
const LONGEST_WORD: usize = 64;

/// Where a value lies in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(usize);

/// A value.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Object {
    /// Python's `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A tuple or a list.
    List(Vec<Id>),
    /// A dictionary, in its order.
    Dict(Vec<(Id, Id)>),
    /// A tensor that was not read yet.
    Tensor(TensorRef),
    /// A storage that a tensor may be a part of.
    Storage(StorageRef),
    /// A name of the list.
    Name(&'static str),
    /// A type of numpy numbers: kind letter, bytes, whether big-endian.
    Dtype(char, usize, bool),
}

/// One storage: an entry of the zip, or of the old format's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageRef {
    key: String,
    number: Number,
    len: u64,
}

/// A tensor as the pickle describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRef {
    pub(super) storage: String,
    pub(super) storage_len: u64,
    pub(super) number: Number,
    pub(super) shape: Vec<usize>,
    stride: Vec<usize>,
    offset: usize,
}

impl TensorRef {
    /// Length of each axis.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Where its values lie in a storage of `len` numbers, in order.
    pub(super) fn indices(&self, len: usize) -> Result<Vec<usize>, String> {
        let count = self.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let Some(count) = count.filter(|count| *count <= len) else {
            return Err(format!(
                "has shape {:?}, more numbers than its storage's {len}",
                self.shape
            ));
        };
        if count == 0 {
            return Err(format!("has shape {:?} and so no numbers", self.shape));
        }
        let last = self
            .shape
            .iter()
            .zip(&self.stride)
            .try_fold(self.offset, |at, (d, s)| at.checked_add((d - 1).checked_mul(*s)?));
        if last.is_none_or(|last| last >= len) {
            return Err(format!(
                "of shape {:?}, stride {:?}, offset {} reaches beyond its storage of {len} numbers",
                self.shape, self.stride, self.offset
            ));
        }
        let mut at = vec![self.offset];
        for (d, s) in self.shape.iter().zip(&self.stride) {
            at = at
                .iter()
                .flat_map(|from| (0..*d).map(move |i| from + i * s))
                .collect();
        }
        Ok(at)
    }
}

/// All values of a pickle.
#[derive(Debug)]
pub(super) struct Objects {
    all: Vec<Object>,
    root: Id,
}

impl Objects {
    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn get(&self, id: Id) -> &Object {
        // Ids come from this store only; another store's reads as nothing.
        self.all.get(id.0).unwrap_or(&Object::None)
    }

    pub(super) fn entry(&self, id: Id, key: &str) -> Option<Id> {
        self.entries(id).filter(|(k, _)| *k == key).map(|(_, v)| v).last()
    }

    pub(super) fn entries(&self, id: Id) -> impl Iterator<Item = (&str, Id)> {
        let entries: &[(Id, Id)] = match self.get(id) {
            Object::Dict(entries) => entries,
            _ => &[],
        };
        entries.iter().filter_map(|(k, v)| match self.get(*k) {
            Object::Text(key) => Some((key.as_str(), *v)),
            _ => None,
        })
    }

    /// The keys of all storages, and the bytes of one of its numbers.
    pub(super) fn storages(&self) -> impl Iterator<Item = (&str, usize)> {
        self.all.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some((storage.key.as_str(), storage.number.size())),
            _ => None,
        })
    }

    /// A list of texts.
    pub(super) fn texts(&self, id: Id) -> Result<Vec<&str>, CheckpointError> {
        let Object::List(list) = self.get(id) else {
            return Err(wrong("a list of texts is something else"));
        };
        let text = |id: &Id| match self.get(*id) {
            Object::Text(text) => Ok(text.as_str()),
            _ => Err(wrong("a list of texts has something else in it")),
        };
        list.iter().map(text).collect()
    }

    pub(super) fn json(&self, id: Id) -> Result<Value, CheckpointError> {
        self.walk(id, 0, &mut 0)
    }

    fn walk(&self, id: Id, depth: usize, seen: &mut usize) -> Result<Value, CheckpointError> {
        *seen += 1;
        if depth > DEEPEST || *seen > MOST_VALUES {
            return Err(wrong(format!(
                "values are nested deeper than {DEEPEST} levels or number more than {MOST_VALUES}"
            )));
        }
        Ok(match self.get(id) {
            Object::None => Value::Null,
            Object::Bool(b) => (*b).into(),
            Object::Int(i) => (*i).into(),
            Object::Float(f) => (*f).into(),
            Object::Text(t) => {
                // A long text may stand in many places.
                *seen += t.len() / LONGEST_WORD;
                t.as_str().into()
            }
            Object::Name(name) => (*name).into(),
            Object::List(list) => Value::Array(
                list.iter()
                    .map(|v| self.walk(*v, depth + 1, seen))
                    .collect::<Result<_, _>>()?,
            ),
            Object::Dict(entries) => {
                let mut map = serde_json::Map::new();
                for (key, value) in entries {
                    let key = match self.get(*key) {
                        Object::Text(t) => t.clone(),
                        Object::Int(i) => i.to_string(),
                        other => return Err(wrong(format!("a dictionary has the key {other:?}"))),
                    };
                    map.insert(key, self.walk(*value, depth + 1, seen)?);
                }
                Value::Object(map)
            }
            other => return Err(wrong(format!("expected plain values, found {other:?}"))),
        })
    }
}

fn wrong(what: impl Into<String>) -> CheckpointError {
    CheckpointError::Pickle(what.into())
}

/// What a pickle may name, and nothing else.
const ALLOWED: &[&str] = &[
    "_codecs.encode",
    "collections.OrderedDict",
    // Only named, in nnU-Net's postprocessing.pkl; a call of it is refused like any other.
    "nnunetv2.postprocessing.remove_connected_components.remove_all_but_largest_component_from_segmentation",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray.scalar",
    "numpy.dtype",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_tensor_v2",
    "torch.BFloat16Storage",
    "torch.BoolStorage",
    "torch.ByteStorage",
    "torch.CharStorage",
    "torch.DoubleStorage",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.IntStorage",
    "torch.LongStorage",
    "torch.ShortStorage",
    "torch.Size",
    "torch.device",
];

fn storage_number(name: &str) -> Option<Number> {
    Some(match name {
        "torch.DoubleStorage" => Number::F64,
        "torch.FloatStorage" => Number::F32,
        "torch.HalfStorage" => Number::F16,
        "torch.BFloat16Storage" => Number::Bf16,
        "torch.LongStorage" => Number::Integer(8),
        "torch.IntStorage" => Number::Integer(4),
        "torch.ShortStorage" => Number::Integer(2),
        "torch.ByteStorage" | "torch.CharStorage" | "torch.BoolStorage" => Number::Integer(1),
        _ => return None,
    })
}

/// Runs the instructions of a pickle that stands alone.
pub(super) fn read(bytes: &[u8]) -> Result<Objects, CheckpointError> {
    if bytes.len() > LONGEST {
        return Err(wrong(format!(
            "it is {} bytes long, at most {LONGEST} are read",
            bytes.len()
        )));
    }
    Ok(read_first(bytes)?.0)
}

/// Runs the instructions of the first of several pickles; its values, and how many bytes it is long.
pub(super) fn read_first(bytes: &[u8]) -> Result<(Objects, usize), CheckpointError> {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let mut machine = Machine {
        bytes,
        at: 0,
        all: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let at = machine.at;
        let op = machine.byte()?;
        if op == b'.' {
            let root = machine.pop()?;
            let objects = Objects {
                all: machine.all,
                root,
            };
            return Ok((objects, machine.at));
        }
        machine.step(op).map_err(|e| match e {
            CheckpointError::Pickle(what) => wrong(format!("{what} (byte {at})")),
            other => other,
        })?;
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    all: Vec<Object>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl Machine<'_> {
    fn take(&mut self, count: usize) -> Result<&[u8], CheckpointError> {
        let to = self.at.checked_add(count).filter(|to| *to <= self.bytes.len());
        let to = to.ok_or_else(|| wrong("it ends in the middle of an instruction"))?;
        let part = &self.bytes[self.at..to];
        self.at = to;
        Ok(part)
    }

    fn byte(&mut self) -> Result<u8, CheckpointError> {
        Ok(self.take(1)?[0])
    }

    /// A little-endian number of `count` bytes, at most 8.
    fn number(&mut self, count: usize) -> Result<u64, CheckpointError> {
        let part = self.take(count)?;
        Ok(part.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b)))
    }

    fn len(&mut self, count: usize) -> Result<usize, CheckpointError> {
        usize::try_from(self.number(count)?).map_err(|_| wrong("a length is beyond this machine"))
    }

    fn text(&mut self, len: usize) -> Result<String, CheckpointError> {
        String::from_utf8(self.take(len)?.to_vec()).map_err(|_| wrong("a text is not UTF-8"))
    }

    fn line(&mut self) -> Result<String, CheckpointError> {
        let rest = &self.bytes[self.at..];
        let len = rest
            .iter()
            .position(|b| *b == b'\n')
            .ok_or_else(|| wrong("a name has no end"))?;
        let text = self.text(len)?;
        self.at += 1;
        Ok(text)
    }

    fn make(&mut self, object: Object) -> Id {
        self.all.push(object);
        Id(self.all.len() - 1)
    }

    fn push(&mut self, object: Object) {
        let id = self.make(object);
        self.stack.push(id);
    }

    /// Only what lies above the last mark.
    fn pop(&mut self) -> Result<Id, CheckpointError> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(wrong("an instruction takes more values than there are"));
        }
        self.stack.pop().ok_or_else(|| wrong("the stack is empty"))
    }

    fn top(&mut self) -> Result<Id, CheckpointError> {
        let id = self.pop()?;
        self.stack.push(id);
        Ok(id)
    }

    fn pop_marked(&mut self) -> Result<Vec<Id>, CheckpointError> {
        let mark = self.marks.pop().ok_or_else(|| wrong("a mark is missing"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>, CheckpointError> {
        let mut many = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        many.reverse();
        Ok(many)
    }

    fn object(&self, id: Id) -> &Object {
        self.all.get(id.0).unwrap_or(&Object::None)
    }

    fn step(&mut self, op: u8) -> Result<(), CheckpointError> {
        match op {
            // PROTO, FRAME
            0x80 => drop(self.byte()?),
            0x95 => drop(self.take(8)?),
            b'(' => self.marks.push(self.stack.len()),
            b'N' => self.push(Object::None),
            0x88 => self.push(Object::Bool(true)),
            0x89 => self.push(Object::Bool(false)),
            // BININT, BININT1, BININT2, LONG1
            b'J' => {
                let raw = u32::try_from(self.number(4)?).unwrap_or_default();
                self.push(Object::Int(i64::from(raw.cast_signed())));
            }
            b'K' => {
                let n = i64::from(self.byte()?);
                self.push(Object::Int(n));
            }
            b'M' => {
                let n = self.number(2)?.cast_signed();
                self.push(Object::Int(n));
            }
            0x8a => self.long()?,
            b'G' => {
                let raw = self.number(8)?.swap_bytes();
                self.push(Object::Float(f64::from_bits(raw)));
            }
            // BINUNICODE, SHORT_BINUNICODE, BINBYTES, SHORT_BINBYTES
            b'X' => {
                let len = self.len(4)?;
                let text = self.text(len)?;
                self.push(Object::Text(text));
            }
            0x8c => {
                let len = self.len(1)?;
                let text = self.text(len)?;
                self.push(Object::Text(text));
            }
            b'B' => {
                let len = self.len(4)?;
                let bytes = self.take(len)?.to_vec();
                self.push(Object::Bytes(bytes));
            }
            b'C' => {
                let len = self.len(1)?;
                let bytes = self.take(len)?.to_vec();
                self.push(Object::Bytes(bytes));
            }
            b')' | b']' => self.push(Object::List(Vec::new())),
            b'}' => self.push(Object::Dict(Vec::new())),
            b't' | b'l' => {
                let list = self.pop_marked()?;
                self.push(Object::List(list));
            }
            0x85..=0x87 => {
                let list = self.pop_many(usize::from(op - 0x84))?;
                self.push(Object::List(list));
            }
            b'a' => {
                let value = self.pop()?;
                self.append(vec![value])?;
            }
            b'e' => {
                let values = self.pop_marked()?;
                self.append(values)?;
            }
            b's' => {
                let pair = self.pop_many(2)?;
                self.set(&pair)?;
            }
            b'u' => {
                let pairs = self.pop_marked()?;
                self.set(&pairs)?;
            }
            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' | b'r' => {
                let key = self.number(if op == b'q' { 1 } else { 4 })?;
                let id = self.top()?;
                self.memo.insert(key, id);
            }
            0x94 => {
                let id = self.top()?;
                self.memo.insert(self.memo.len() as u64, id);
            }
            b'h' | b'j' => {
                let key = self.number(if op == b'h' { 1 } else { 4 })?;
                let id = *self
                    .memo
                    .get(&key)
                    .ok_or_else(|| wrong("it recalls a value that it never stored"))?;
                self.stack.push(id);
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(&format!("{module}.{name}"))?;
            }
            0x93 => {
                let pair = self.pop_many(2)?;
                let (Object::Text(module), Object::Text(name)) = (self.object(pair[0]), self.object(pair[1]))
                else {
                    return Err(wrong("a name is not a text"));
                };
                let whole = format!("{module}.{name}");
                self.name(&whole)?;
            }
            b'R' => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let made = self.call(callee, arguments)?;
                self.push(made);
            }
            b'b' => self.build()?,
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage);
            }
            // INST, OBJ, NEWOBJ, NEWOBJ_EX, EXT1..4: they make instances of classes.
            b'i' | b'o' | 0x81 | 0x92 | 0x82..=0x84 => {
                return Err(CheckpointError::Forbidden(format!(
                    "an instance of a class (instruction 0x{op:02x})"
                )));
            }
            _ => return Err(wrong(format!("instruction 0x{op:02x} is not one of plain data"))),
        }
        Ok(())
    }

    fn long(&mut self) -> Result<(), CheckpointError> {
        let len = self.len(1)?;
        if len > 8 {
            return Err(wrong(format!("an integer has {len} bytes, at most 8 are read")));
        }
        let raw = self.number(len)?;
        let unused = 64 - 8 * u32::try_from(len).unwrap_or(8);
        let value = if len == 0 {
            0
        } else {
            (raw << unused).cast_signed() >> unused
        };
        self.push(Object::Int(value));
        Ok(())
    }

    fn append(&mut self, values: Vec<Id>) -> Result<(), CheckpointError> {
        let id = self.top()?;
        match self.all.get_mut(id.0) {
            Some(Object::List(list)) => list.extend(values),
            _ => return Err(wrong("something is appended to what is no list")),
        }
        Ok(())
    }

    fn set(&mut self, pairs: &[Id]) -> Result<(), CheckpointError> {
        let id = self.top()?;
        match self.all.get_mut(id.0) {
            Some(Object::Dict(entries)) if pairs.len().is_multiple_of(2) => {
                entries.extend(pairs.chunks_exact(2).map(|p| (p[0], p[1])));
            }
            _ => return Err(wrong("keys are set on what is no dictionary")),
        }
        Ok(())
    }

    fn name(&mut self, whole: &str) -> Result<(), CheckpointError> {
        match ALLOWED.iter().find(|allowed| **allowed == whole) {
            Some(name) => self.push(Object::Name(name)),
            None => return Err(CheckpointError::Forbidden(format!("`{whole}`"))),
        }
        Ok(())
    }

    fn list(&self, id: Id) -> Result<&[Id], CheckpointError> {
        match self.object(id) {
            Object::List(list) => Ok(list),
            other => Err(wrong(format!("expected a tuple, found {other:?}"))),
        }
    }

    /// A tuple of sizes.
    fn sizes(&self, id: Id) -> Result<Vec<usize>, CheckpointError> {
        let list = self.list(id)?;
        if list.len() > MOST_AXES {
            return Err(wrong(format!(
                "a tensor has {} axes, at most {MOST_AXES} are read",
                list.len()
            )));
        }
        list.iter().map(|v| self.size(*v)).collect()
    }

    /// A short text.
    fn word(&self, id: Id) -> Result<&str, CheckpointError> {
        match self.object(id) {
            Object::Text(text) if text.len() <= LONGEST_WORD => Ok(text),
            Object::Text(text) => Err(wrong(format!(
                "expected a word, found a text of {} bytes",
                text.len()
            ))),
            other => Err(wrong(format!("expected a word, found {other:?}"))),
        }
    }

    fn size(&self, id: Id) -> Result<usize, CheckpointError> {
        match self.object(id) {
            Object::Int(n) => usize::try_from(*n).map_err(|_| wrong(format!("a size is {n}"))),
            other => Err(wrong(format!("expected a size, found {other:?}"))),
        }
    }

    /// What the names of the list make of their arguments.
    fn call(&self, callee: Id, arguments: Id) -> Result<Object, CheckpointError> {
        let Object::Name(name) = self.object(callee) else {
            return Err(CheckpointError::Forbidden(
                "a call of something that is not a name".into(),
            ));
        };
        let given = self.list(arguments)?;
        let strange = || {
            wrong(format!(
                "`{name}` is given {} arguments of other kinds",
                given.len()
            ))
        };
        match (*name, given) {
            ("collections.OrderedDict", []) => Ok(Object::Dict(Vec::new())),
            // What is copied is short: otherwise a few instructions that repeat themselves would fill the memory.
            ("torch.Size", [sizes]) if self.list(*sizes)?.len() <= MOST_AXES => {
                Ok(Object::List(self.list(*sizes)?.to_vec()))
            }
            ("torch.device", [kind, ..]) => Ok(Object::Text(self.word(*kind)?.to_owned())),
            ("torch._utils._rebuild_parameter", [data, ..]) => match self.object(*data) {
                Object::Tensor(tensor) => Ok(Object::Tensor(tensor.clone())),
                _ => Err(strange()),
            },
            ("torch._utils._rebuild_tensor_v2", [storage, offset, shape, stride, ..]) => {
                let Object::Storage(storage) = self.object(*storage) else {
                    return Err(strange());
                };
                let (shape, stride) = (self.sizes(*shape)?, self.sizes(*stride)?);
                if shape.len() != stride.len() {
                    return Err(wrong(format!(
                        "a tensor of shape {shape:?} has the stride {stride:?}"
                    )));
                }
                Ok(Object::Tensor(TensorRef {
                    storage: storage.key.clone(),
                    storage_len: storage.len,
                    number: storage.number,
                    shape,
                    stride,
                    offset: self.size(*offset)?,
                }))
            }
            ("_codecs.encode", [text, encoding]) if self.word(*encoding)? == "latin1" => self
                .word(*text)?
                .chars()
                .map(|c| u8::try_from(u32::from(c)).map_err(|_| strange()))
                .collect::<Result<_, _>>()
                .map(Object::Bytes),
            ("numpy.dtype", [code, ..]) => match self.object(*code) {
                Object::Text(code) => dtype(code).ok_or_else(|| wrong(format!("numpy's type {code:?}"))),
                _ => Err(strange()),
            },
            ("numpy.core.multiarray.scalar" | "numpy._core.multiarray.scalar", [kind, raw]) => {
                match (self.object(*kind), self.object(*raw)) {
                    (Object::Dtype(kind, size, false), Object::Bytes(raw)) if raw.len() == *size => {
                        scalar(*kind, raw).ok_or_else(strange)
                    }
                    _ => Err(strange()),
                }
            }
            _ => Err(strange()),
        }
    }

    /// State for something already made: attributes of a dictionary are dropped, a numpy type learns its byte order.
    fn build(&mut self) -> Result<(), CheckpointError> {
        let (state, id) = (self.pop()?, self.top()?);
        let big = match self.object(state) {
            Object::List(parts) => parts
                .get(1)
                .is_some_and(|order| *self.object(*order) == Object::Text(">".into())),
            _ => false,
        };
        match self.all.get_mut(id.0) {
            Some(Object::Dict(_)) => Ok(()),
            Some(Object::Dtype(_, _, order)) => {
                *order = big;
                Ok(())
            }
            _ => Err(wrong("state is given to what has none")),
        }
    }

    /// `('storage', type, key, device, count)`
    fn storage(&self, id: Id) -> Result<Object, CheckpointError> {
        let (tag, kind, key, count) = match *self.list(id)? {
            [tag, kind, key, _, count] => (tag, kind, key, count),
            // Before torch 1.6 with a sixth: of which other storage it is a part.
            [tag, kind, key, _, count, part] if self.object(part) == &Object::None => (tag, kind, key, count),
            [_, _, _, _, _, _] => {
                return Err(wrong(
                    "a storage is a part of another one; save the file again with a newer torch",
                ));
            }
            _ => return Err(wrong("a storage is described by another number of values")),
        };
        match (self.object(tag), self.object(kind), self.word(key)?) {
            (Object::Text(tag), Object::Name(kind), key) if tag == "storage" => {
                let number = storage_number(kind).ok_or_else(|| wrong(format!("`{kind}` is no storage")))?;
                Ok(Object::Storage(StorageRef {
                    key: key.to_owned(),
                    number,
                    len: self.size(count)? as u64,
                }))
            }
            _ => Err(wrong("a storage is described by values of other kinds")),
        }
    }
}

/// A numpy type code: `f4`, `i8`, `b1`.
fn dtype(code: &str) -> Option<Object> {
    let mut letters = code.chars();
    let kind = letters.next().filter(|k| "fiub".contains(*k))?;
    let size = letters
        .as_str()
        .parse()
        .ok()
        .filter(|s| [1, 2, 4, 8].contains(s))?;
    Some(Object::Dtype(kind, size, false))
}

/// A little-endian numpy scalar.
fn scalar(kind: char, raw: &[u8]) -> Option<Object> {
    let bits = raw.iter().rev().fold(0u64, |n, b| (n << 8) | u64::from(*b));
    let unused = 64 - 8 * u32::try_from(raw.len()).ok()?;
    Some(match (kind, raw.len()) {
        ('f', 4) => Object::Float(f64::from(f32::from_bits(u32::try_from(bits).ok()?))),
        ('f', 8) => Object::Float(f64::from_bits(bits)),
        ('b', _) => Object::Bool(bits != 0),
        ('i', _) => Object::Int((bits << unused).cast_signed() >> unused),
        ('u', _) => Object::Int(i64::try_from(bits).ok()?),
        _ => return None,
    })
}
