//! cuDNN on one thread: its handle, the algorithm that each shape takes, and the memory that they work in.

use super::convolution::{Direction, Pair};
use candle_core::{
    CudaDevice, Error, Result,
    cuda_backend::{CudaDType, DeviceId},
};
use cudarc::{
    cudnn::{
        ConvBackwardData, ConvBackwardFilter, ConvDescriptor, ConvForward, Cudnn, CudnnDataType, CudnnError,
        FilterDescriptor, TensorDescriptor,
        sys::{
            cudnnConvolutionBwdDataAlgo_t as Up, cudnnConvolutionBwdFilterAlgo_t as Weight,
            cudnnConvolutionFwdAlgo_t as Down, cudnnConvolutionMode_t, cudnnDataType_t, cudnnMathType_t,
            cudnnStatus_t, cudnnTensorFormat_t,
        },
    },
    driver::{CudaSlice, CudaView, DeviceRepr},
};
use half::{bf16, f16};
use std::{cell::RefCell, collections::HashMap, sync::Arc};

/// Bytes of working memory that an algorithm may take.
pub(super) const MOST_WORKSPACE: usize = 1 << 30;
/// Shapes whose algorithm is remembered; a network has some dozens.
const MOST_CHOICES: usize = 1024;

/// Implicit matrix products, the one with tables first; neither is ever random.
const DOWN: [Down; 2] = [
    Down::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
    Down::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
];
/// The second one adds in a random order, and takes dilations that the first one does not.
const UP: [Up; 2] = [
    Up::CUDNN_CONVOLUTION_BWD_DATA_ALGO_1,
    Up::CUDNN_CONVOLUTION_BWD_DATA_ALGO_0,
];
/// As [`UP`].
const WEIGHT: [Weight; 2] = [
    Weight::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1,
    Weight::CUDNN_CONVOLUTION_BWD_FILTER_ALGO_0,
];

/// A number type that cuDNN convolves, adding in f32.
pub(super) trait Element: CudaDType + DeviceRepr + CudnnDataType + Copy {
    const ONE: Self;
    const ZERO: Self;
    /// How its products may be made.
    const MATH: cudnnMathType_t;
}

impl Element for f32 {
    const ONE: Self = 1.0;
    const ZERO: Self = 0.0;
    // Not the default, which takes TF32 from Ampere on.
    const MATH: cudnnMathType_t = cudnnMathType_t::CUDNN_FMA_MATH;
}

impl Element for f16 {
    const ONE: Self = f16::ONE;
    const ZERO: Self = f16::ZERO;
    const MATH: cudnnMathType_t = cudnnMathType_t::CUDNN_TENSOR_OP_MATH;
}

impl Element for bf16 {
    const ONE: Self = bf16::ONE;
    const ZERO: Self = bf16::ZERO;
    const MATH: cudnnMathType_t = cudnnMathType_t::CUDNN_TENSOR_OP_MATH;
}

thread_local! {
    /// A handle may be used by one thread at a time, so each thread has its own; of one device, the last that it used.
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

struct Session {
    device: DeviceId,
    cudnn: Arc<Cudnn>,
    /// Which algorithm of its direction's list a shape takes.
    choices: HashMap<(Pair, Direction, cudnnDataType_t), usize>,
    workspace: Workspace,
}

/// Working memory of the calls so far; they follow each other on one stream, so one piece is enough.
#[derive(Default)]
struct Workspace(Option<CudaSlice<u8>>);

impl Workspace {
    /// At least `bytes`; none for 0.
    fn take(&mut self, bytes: usize, device: &CudaDevice) -> Result<Option<&mut CudaSlice<u8>>> {
        if bytes == 0 {
            return Ok(None);
        }
        if self.0.as_ref().is_none_or(|held| held.len() < bytes) {
            // The old one goes first, so that both need not fit.
            self.0 = None;
            self.0 = Some(uninitialised(device, bytes)?);
        }
        Ok(self.0.as_mut())
    }
}

/// Memory on the GPU that holds anything.
#[expect(unsafe_code, reason = "candle gives memory that nobody cleared only so")]
pub(super) fn uninitialised<T: DeviceRepr>(device: &CudaDevice, len: usize) -> Result<CudaSlice<T>> {
    // SAFETY: every caller hands it to a kernel that writes all of it before anything reads it, or reads only what it wrote.
    unsafe { device.alloc::<T>(len) }
}

/// What cuDNN is told of a convolution.
struct Descriptors<T> {
    wide: TensorDescriptor<T>,
    weight: FilterDescriptor<T>,
    narrow: TensorDescriptor<T>,
    window: ConvDescriptor<f32>,
}

impl<T: Element> Descriptors<T> {
    fn new(cudnn: &Arc<Cudnn>, pair: &Pair) -> std::result::Result<Self, CudnnError> {
        let mut window = cudnn.create_convnd::<f32>(
            &pair.padding,
            &pair.stride,
            &pair.dilation,
            cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
        )?;
        window.set_group_count(pair.groups)?;
        window.set_math_type(T::MATH)?;
        Ok(Self {
            wide: cudnn.create_nd_tensor(&pair.wide, &strides(&pair.wide))?,
            weight: cudnn.create_nd_filter(cudnnTensorFormat_t::CUDNN_TENSOR_NCHW, &pair.weight)?,
            narrow: cudnn.create_nd_tensor(&pair.narrow, &strides(&pair.narrow))?,
            window,
        })
    }
}

/// Of a contiguous tensor.
fn strides(dims: &[i32]) -> Vec<i32> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// Convolves in one direction: two contiguous tensors in the order of [`Direction`] → `len` values.
#[expect(
    unsafe_code,
    reason = "cuDNN is C: it is handed addresses and believes the sizes"
)]
pub(super) fn run<T: Element>(
    pair: &Pair,
    direction: Direction,
    a: &CudaView<T>,
    b: &CudaView<T>,
    len: usize,
    device: &CudaDevice,
) -> Result<CudaSlice<T>> {
    SESSION.with_borrow_mut(|session| {
        let Session {
            cudnn,
            choices,
            workspace,
            ..
        } = open(session, device)?;
        let told = Descriptors::<T>::new(cudnn, pair).map_err(|error| said(error, "describe", pair))?;
        let mut out = uninitialised::<T>(device, len)?;
        let scale = (T::ONE, T::ZERO);
        let key = (pair.clone(), direction, T::DATA_TYPE);
        let known = choices.get(&key).copied();
        let choice = match direction {
            Direction::Down => {
                check([a.len(), b.len(), len], pair)?;
                let op = ConvForward {
                    conv: &told.window,
                    x: &told.wide,
                    w: &told.weight,
                    y: &told.narrow,
                };
                let launch = |algorithm, bytes| {
                    let workspace = workspace.take(bytes, device)?;
                    // SAFETY: all three hold as many values as their descriptors say (checked), contiguous and on the session's device; the workspace is as large as was asked for.
                    Ok(unsafe { op.launch(algorithm, workspace, scale, a, b, &mut out) })
                };
                settle(pair, known, DOWN, |a| op.get_workspace_size(a), launch)?
            }
            Direction::Up => {
                check([len, b.len(), a.len()], pair)?;
                let op = ConvBackwardData {
                    conv: &told.window,
                    dx: &told.wide,
                    w: &told.weight,
                    dy: &told.narrow,
                };
                let launch = |algorithm, bytes| {
                    let workspace = workspace.take(bytes, device)?;
                    // SAFETY: as above.
                    Ok(unsafe { op.launch(algorithm, workspace, scale, &mut out, b, a) })
                };
                settle(pair, known, UP, |a| op.get_workspace_size(a), launch)?
            }
            Direction::Weight => {
                check([a.len(), len, b.len()], pair)?;
                let op = ConvBackwardFilter {
                    conv: &told.window,
                    x: &told.wide,
                    dw: &told.weight,
                    dy: &told.narrow,
                };
                let launch = |algorithm, bytes| {
                    let workspace = workspace.take(bytes, device)?;
                    // SAFETY: as above.
                    Ok(unsafe { op.launch(algorithm, workspace, scale, a, &mut out, b) })
                };
                settle(pair, known, WEIGHT, |a| op.get_workspace_size(a), launch)?
            }
        };
        if known.is_none() {
            if choices.len() >= MOST_CHOICES {
                choices.clear();
            }
            choices.insert(key, choice);
        }
        Ok(out)
    })
}

/// This thread's session on `device`.
fn open<'a>(session: &'a mut Option<Session>, device: &CudaDevice) -> Result<&'a mut Session> {
    if session.as_ref().is_none_or(|held| held.device != device.id()) {
        *session = None;
        let cudnn = Cudnn::new(device.cuda_stream()).map_err(|error| {
            Error::Msg(format!(
                "cuDNN does not start ({:?}); install cuDNN 9 for this CUDA, or use --device cpu",
                error.0
            ))
            .bt()
        })?;
        *session = Some(Session {
            device: device.id(),
            cudnn,
            choices: HashMap::new(),
            workspace: Workspace::default(),
        });
    }
    session
        .as_mut()
        .ok_or_else(|| Error::Msg("cuDNN was not started".into()).bt())
}

/// Wide side, weight and narrow side hold what is said of them.
fn check(found: [usize; 3], pair: &Pair) -> Result<()> {
    let said = [&pair.wide, &pair.weight, &pair.narrow].map(|dims| {
        dims.iter()
            .map(|n| usize::try_from(*n).unwrap_or_default())
            .product::<usize>()
    });
    if found == said {
        return Ok(());
    }
    Err(Error::Msg(format!(
        "a convolution of {:?} and {:?} to {:?} wants {said:?} values, found {found:?}",
        pair.wide, pair.weight, pair.narrow
    ))
    .bt())
}

/// Launches the known algorithm, or the first one that cuDNN takes within our memory; tells which one it was.
fn settle<A: Copy>(
    pair: &Pair,
    known: Option<usize>,
    algorithms: [A; 2],
    size: impl Fn(A) -> std::result::Result<usize, CudnnError>,
    mut launch: impl FnMut(A, usize) -> Result<std::result::Result<(), CudnnError>>,
) -> Result<usize> {
    let mut refusal = CudnnError(cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED);
    for (i, algorithm) in algorithms.into_iter().enumerate() {
        if known.is_some_and(|known| known != i) {
            continue;
        }
        match size(algorithm) {
            Ok(bytes) if bytes <= MOST_WORKSPACE => match launch(algorithm, bytes)? {
                Ok(()) => return Ok(i),
                Err(error) if is_unsupported(error) => refusal = error,
                Err(error) => return Err(said(error, "compute", pair)),
            },
            Ok(_) => {}
            Err(error) => refusal = error,
        }
    }
    Err(said(refusal, "compute", pair))
}

/// cuDNN 9 has a thousand codes for each kind of failure; those from 3000 on say that an algorithm does not take a shape, before anything ran.
fn is_unsupported(error: CudnnError) -> bool {
    error.0 as u32 / 1000 == cudnnStatus_t::CUDNN_STATUS_NOT_SUPPORTED as u32 / 1000
}

fn said(error: CudnnError, act: &str, pair: &Pair) -> Error {
    Error::Msg(format!(
        "cuDNN does not {act} a convolution of {:?} with a weight of {:?}, stride {:?}, padding {:?}, dilation {:?} and {} groups ({:?}); use --device cpu",
        pair.wide, pair.weight, pair.stride, pair.padding, pair.dilation, pair.groups, error.0
    ))
    .bt()
}
