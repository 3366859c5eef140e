//! A norm and its activation on a GPU, without gradients: two reads and one write of the tensor.

use super::cudnn::uninitialised;
use candle_core::{
    CudaDevice, CudaStorage, DType, Error, Layout, Result, Shape, backend::BackendStorage,
    cuda_backend::CudaDType,
};
use cudarc::{
    driver::{CudaFunction, CudaSlice, CudaView, DeviceRepr, LaunchConfig, PushKernelArg},
    nvrtc::compile_ptx,
};
use half::{bf16, f16};
use std::sync::OnceLock;

const SOURCE: &str = include_str!("norm.cu");
/// Threads of a block, as in the source.
const THREADS: u32 = 256;
/// Values of a group that one block looks at, so that a few large channels occupy the whole GPU: 128 KiB of f32, which its cache still holds at the second look.
const PIECE: usize = 1 << 15;
/// Values that one thread writes.
const EACH: usize = 8;
/// The most blocks along a grid's second axis.
const MOST_ROWS: usize = 65_535;

/// Mean and variance of the tensor's own groups, or none (`weight` and `bias` say it all).
pub(in crate::nn) struct Own {
    pub(in crate::nn) groups: usize,
    pub(in crate::nn) eps: f64,
}

/// A number type of the kernels.
trait Element: CudaDType + DeviceRepr {
    const NAME: &'static str;
}

impl Element for f32 {
    const NAME: &'static str = "f32";
}

impl Element for f16 {
    const NAME: &'static str = "f16";
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
}

/// x, weight, bias → y: x `[N, C, …]` of f32, f16 or bf16, the others f32 of C values, all contiguous.
///
/// `slope` is LeakyReLU's: 1 for none, 0 for ReLU.
pub(in crate::nn) fn forward(
    (x, xl): (&CudaStorage, &Layout),
    (weight, wl): (&CudaStorage, &Layout),
    (bias, bl): (&CudaStorage, &Layout),
    own: Option<Own>,
    slope: f32,
) -> Result<(CudaStorage, Shape)> {
    let job = Job {
        dims: xl.dims(),
        weight: view(weight, wl)?,
        bias: view(bias, bl)?,
        own,
        slope,
        device: x.device(),
    };
    let y = match x.dtype() {
        DType::F32 => job.run(&view::<f32>(x, xl)?),
        DType::F16 => job.run(&view::<f16>(x, xl)?),
        DType::BF16 => job.run(&view::<bf16>(x, xl)?),
        other => Err(refuse(format!(
            "a norm on a GPU takes f32, f16 or bf16, found {other:?}"
        ))),
    };
    Ok((y?, xl.shape().clone()))
}

struct Job<'a> {
    dims: &'a [usize],
    weight: CudaView<'a, f32>,
    bias: CudaView<'a, f32>,
    own: Option<Own>,
    slope: f32,
    device: &'a CudaDevice,
}

impl Job<'_> {
    #[expect(
        unsafe_code,
        reason = "kernels are handed addresses, and write memory that nobody cleared"
    )]
    fn run<T: Element>(&self, x: &CudaView<T>) -> Result<CudaStorage> {
        let (images, channels) = (self.dims[0], self.dims[1]);
        let voxels: usize = self.dims[2..].iter().product();
        let groups = self.own.as_ref().map_or(channels, |own| own.groups);
        let fits = groups > 0 && channels.is_multiple_of(groups);
        if !fits || self.weight.len() != channels || self.bias.len() != channels {
            return Err(refuse(format!(
                "a norm of {} channels in {groups} groups does not fit shape {:?}",
                self.weight.len(),
                self.dims
            )));
        }
        let mut y = uninitialised::<T>(self.device, x.len())?;
        if x.is_empty() {
            return Ok(CudaStorage::wrap_cuda_slice(y, self.device.clone()));
        }
        let (stream, load) = (self.device.cuda_stream(), |name: &str| kernel(self.device, name));
        let (rows, length) = (images * groups, channels / groups * voxels);
        let count = self.own.as_ref().map_or(0, |_| length.div_ceil(PIECE));
        // One more than is needed, so that there is an address when there are no pieces.
        let mut pieces = uninitialised::<f32>(self.device, 2 * (rows * count).max(1))?;
        let (long, piece) = (wide(length)?, wide(PIECE)?);
        if count > 0 {
            let kernel = load(&format!("moments_{}", T::NAME))?;
            let mut call = stream.launch_builder(&kernel);
            call.arg(x).arg(&mut pieces).arg(&long).arg(&piece);
            // SAFETY: the arguments are those of the source; block (r, p) reads piece p of row r, of which x has `rows`, and writes its two values, for which there is room.
            unsafe { call.launch(grid(rows, count)?) }.map_err(Error::wrap)?;
        }
        let mut lines = uninitialised::<f32>(self.device, 2 * images * channels)?;
        let eps = self.own.as_ref().map_or(0.0, |own| own.eps);
        let sizes = [int(rows)?, int(channels)?, int(groups)?, int(count)?];
        let kernel = load("lines")?;
        let mut call = stream.launch_builder(&kernel);
        call.arg(&pieces)
            .arg(&self.weight)
            .arg(&self.bias)
            .arg(&mut lines);
        call.arg(&sizes[0]).arg(&sizes[1]).arg(&sizes[2]);
        call.arg(&long).arg(&piece).arg(&sizes[3]).arg(&eps);
        let blocks = grid(rows.div_ceil(THREADS as usize), 1)?;
        // SAFETY: the arguments are those of the source; row r reads its `count` pieces, weight and bias at its channels, and writes the lines of these.
        unsafe { call.launch(blocks) }.map_err(Error::wrap)?;
        let kernel = load(&format!("apply_{}", T::NAME))?;
        let plane = wide(voxels)?;
        let mut call = stream.launch_builder(&kernel);
        call.arg(x).arg(&mut y).arg(&lines).arg(&plane).arg(&self.slope);
        let blocks = voxels.div_ceil(THREADS as usize * EACH).min(MOST_ROWS);
        // SAFETY: the arguments are those of the source; block (r, _) reads and writes plane r, of which x and y have images × channels, as there are lines.
        unsafe { call.launch(grid(images * channels, blocks)?) }.map_err(Error::wrap)?;
        Ok(CudaStorage::wrap_cuda_slice(y, self.device.clone()))
    }
}

/// The values of a contiguous tensor.
fn view<'a, T: CudaDType>(storage: &'a CudaStorage, layout: &Layout) -> Result<CudaView<'a, T>> {
    let slice: &CudaSlice<T> = storage.as_cuda_slice()?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(slice.slice(from..to)),
        None => Err(refuse("a norm on a GPU wants contiguous tensors".into())),
    }
}

/// A kernel of the source, which is compiled once a process and loaded once a device.
fn kernel(device: &CudaDevice, name: &str) -> Result<CudaFunction> {
    static COMPILED: OnceLock<std::result::Result<String, String>> = OnceLock::new();
    let compiled = COMPILED.get_or_init(|| match compile_ptx(SOURCE) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(error) => Err(error.to_string()),
    });
    match compiled {
        Ok(ptx) => Ok(device
            .get_or_load_custom_func(name, "ictus_norm", ptx)?
            .into_cuda_function()),
        Err(error) => Err(refuse(format!(
            "CUDA's run-time compiler does not take the kernels of this build ({error}); use --device cpu"
        ))),
    }
}

fn grid(first: usize, second: usize) -> Result<LaunchConfig> {
    let fits = |n: usize, most: usize| u32::try_from(n).ok().filter(|_| n <= most);
    match (fits(first, i32::MAX as usize), fits(second, MOST_ROWS)) {
        (Some(first), Some(second)) => Ok(LaunchConfig {
            grid_dim: (first, second, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: 0,
        }),
        _ => Err(refuse(format!(
            "a tensor of {first} × {second} pieces is more than a GPU takes at once; use smaller tiles"
        ))),
    }
}

fn wide(n: usize) -> Result<i64> {
    i64::try_from(n).map_err(Error::wrap)
}

fn int(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(Error::wrap)
}

fn refuse(what: String) -> Error {
    Error::Msg(what).bt()
}
