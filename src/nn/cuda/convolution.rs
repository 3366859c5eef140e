//! Convolution and transposed convolution as one candle operator with three directions, each the gradient of another.
//!
//! A convolution takes a *wide* side to a *narrow* one; its gradient, which is the transposed convolution, goes back.
//! The weight is `[C narrow, C wide / groups, taps]` in all of them.

use super::{
    super::{
        blocked::tracks,
        conv::{Conv, ConvTranspose},
        kernels, layout, norm,
    },
    cudnn::{self, Element},
};
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, DType, Error, Layout, Result, Shape, Tensor, backend::BackendStorage,
};
use half::{bf16, f16};

/// The two sides of a convolution and what lies between them, as cuDNN counts: two or three axes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    /// `[N, C, …]`
    pub(super) wide: Vec<i32>,
    pub(super) weight: Vec<i32>,
    /// `[N, C, …]`
    pub(super) narrow: Vec<i32>,
    pub(super) stride: Vec<i32>,
    pub(super) padding: Vec<i32>,
    pub(super) dilation: Vec<i32>,
    pub(super) groups: i32,
}

/// Which of the three is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// wide, weight → narrow: the convolution.
    Down,
    /// narrow, weight → wide: the transposed convolution, and the gradient of the wide side.
    Up,
    /// wide, narrow → weight: the gradient of the weight.
    Weight,
}

/// A convolution in one direction.
#[derive(Debug, Clone)]
struct Convolution {
    pair: Pair,
    direction: Direction,
}

/// Convolves a tensor of rank 4 or 5 on a GPU.
pub(in crate::nn) fn convolve(x: &Tensor, conv: &Conv) -> Result<Tensor> {
    let (dims, kernel) = (x.dims(), &conv.weight.dims()[2..]);
    let channels = conv.weight.dim(1)? * conv.groups;
    if dims[1] != channels {
        return Err(refuse(format!(
            "the weight wants {channels} channels, found shape {dims:?}"
        )));
    }
    if !conv.weight.dim(0)?.is_multiple_of(conv.groups) {
        return Err(refuse(format!(
            "{} output channels do not divide into {} groups",
            conv.weight.dim(0)?,
            conv.groups
        )));
    }
    let first = 3 - kernel.len();
    let mut narrow = vec![dims[0], conv.weight.dim(0)?];
    for (a, (taps, size)) in kernel.iter().zip(&dims[2..]).enumerate() {
        let span = conv.dilation[first + a] * (taps - 1) + 1;
        let padded = size + 2 * conv.padding[first + a];
        if padded < span {
            return Err(refuse(format!(
                "shape {dims:?} is smaller than the kernel {kernel:?}"
            )));
        }
        narrow.push((padded - span) / conv.stride[first + a] + 1);
    }
    let pair = Pair {
        wide: counts(dims)?,
        weight: counts(conv.weight.dims())?,
        narrow: counts(&narrow)?,
        stride: counts(&conv.stride[first..])?,
        padding: counts(&conv.padding[first..])?,
        dilation: counts(&conv.dilation[first..])?,
        groups: count(conv.groups)?,
    };
    let direction = Direction::Down;
    add_bias(
        &run(x, &conv.weight, Convolution { pair, direction })?,
        conv.bias.as_ref(),
    )
}

/// Convolves transposed a tensor of rank 4 or 5 on a GPU.
pub(in crate::nn) fn convolve_transposed(x: &Tensor, conv: &ConvTranspose) -> Result<Tensor> {
    let (dims, kernel) = (x.dims(), &conv.weight.dims()[2..]);
    if dims[1] != conv.weight.dim(0)? {
        return Err(refuse(format!(
            "the weight wants {} channels, found shape {dims:?}",
            conv.weight.dim(0)?
        )));
    }
    let first = 3 - kernel.len();
    let mut wide = vec![dims[0], conv.weight.dim(1)?];
    for (a, (taps, size)) in kernel.iter().zip(&dims[2..]).enumerate() {
        let (stride, cut) = (conv.stride[first + a], 2 * conv.padding[first + a]);
        let more = conv.output_padding[first + a];
        if more >= stride.max(1) {
            return Err(refuse(format!(
                "an output padding of {more} is not below its stride of {stride}"
            )));
        }
        let whole = size.saturating_sub(1) * stride + taps + more;
        let left = whole.checked_sub(cut).filter(|left| *left > 0);
        wide.push(left.ok_or_else(|| refuse(format!("a padding of {:?} leaves nothing", conv.padding)))?);
    }
    let pair = Pair {
        wide: counts(&wide)?,
        weight: counts(conv.weight.dims())?,
        narrow: counts(dims)?,
        stride: counts(&conv.stride[first..])?,
        padding: counts(&conv.padding[first..])?,
        dilation: vec![1; kernel.len()],
        groups: 1,
    };
    let direction = Direction::Up;
    add_bias(
        &run(x, &conv.weight, Convolution { pair, direction })?,
        conv.bias.as_ref(),
    )
}

/// Runs in bf16 if that was asked for; then what goes in and comes out is f32 all the same, and so are the gradients of both, which are convolved in bf16 too.
fn run(x: &Tensor, weight: &Tensor, convolution: Convolution) -> Result<Tensor> {
    if x.elem_count() == 0 {
        return Tensor::zeros(convolution.shape()?, x.dtype(), x.device());
    }
    if kernels::wants_bf16() && x.dtype() == DType::F32 {
        let (x, weight) = (x.to_dtype(DType::BF16)?, weight.to_dtype(DType::BF16)?);
        return ready(&x)?
            .apply_op2(&ready(&weight)?, convolution)?
            .to_dtype(DType::F32);
    }
    ready(x)?.apply_op2(&ready(weight)?, convolution)
}

/// Contiguous, and at the beginning of its buffer: cuDNN's vector loads want aligned memory.
fn ready(x: &Tensor) -> Result<Tensor> {
    if x.is_contiguous() && x.layout().start_offset() == 0 {
        return Ok(x.clone());
    }
    x.force_contiguous()
}

fn add_bias(y: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    match bias {
        None => Ok(y.clone()),
        Some(bias) if !tracks(&[y, bias]) => norm::shift(y, bias),
        Some(bias) => y.broadcast_add(&layout::per_channel(&bias.to_dtype(y.dtype())?, y)?),
    }
}

impl Convolution {
    /// The same sides, another direction.
    fn to(&self, direction: Direction) -> Self {
        Self {
            pair: self.pair.clone(),
            direction,
        }
    }

    /// Of the output.
    fn shape(&self) -> Result<Shape> {
        let dims: std::result::Result<Vec<usize>, _> = match self.direction {
            Direction::Down => &self.pair.narrow,
            Direction::Up => &self.pair.wide,
            Direction::Weight => &self.pair.weight,
        }
        .iter()
        .map(|n| usize::try_from(*n))
        .collect();
        Ok(Shape::from(dims.map_err(Error::wrap)?))
    }

    fn run<T: Element>(
        &self,
        (a, al): (&CudaStorage, &Layout),
        (b, bl): (&CudaStorage, &Layout),
    ) -> Result<CudaStorage> {
        let (Some(of_a), Some(of_b)) = (al.contiguous_offsets(), bl.contiguous_offsets()) else {
            return Err(refuse("a convolution on a GPU wants contiguous tensors".into()));
        };
        let out = cudnn::run::<T>(
            &self.pair,
            self.direction,
            &a.as_cuda_slice::<T>()?.slice(of_a.0..of_a.1),
            &b.as_cuda_slice::<T>()?.slice(of_b.0..of_b.1),
            self.shape()?.elem_count(),
            a.device(),
        )?;
        Ok(CudaStorage::wrap_cuda_slice(out, a.device().clone()))
    }
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "convolution on a GPU"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Err(refuse("this convolution is for tensors on a GPU".into()))
    }

    fn cuda_fwd(
        &self,
        a: &CudaStorage,
        al: &Layout,
        b: &CudaStorage,
        bl: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (a, b) = ((a, al), (b, bl));
        let out = match a.0.dtype() {
            DType::F32 => self.run::<f32>(a, b),
            DType::F16 => self.run::<f16>(a, b),
            DType::BF16 => self.run::<bf16>(a, b),
            other => Err(refuse(format!(
                "a convolution takes f32, f16 or bf16, found {other:?}"
            ))),
        };
        Ok((out?, self.shape()?))
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (back, wide_first) = match self.direction {
            Direction::Down => (Direction::Up, true),
            Direction::Up => (Direction::Down, false),
            Direction::Weight => return Err(Error::BackwardNotSupported { op: self.name() }),
        };
        let grad = ready(grad)?;
        let of_a = a
            .track_op()
            .then(|| grad.apply_op2_no_bwd(&ready(b)?, &self.to(back)))
            .transpose()?;
        let of_weight = |wide: &Tensor, narrow: &Tensor| {
            ready(wide)?.apply_op2_no_bwd(&ready(narrow)?, &self.to(Direction::Weight))
        };
        let of_b = b
            .track_op()
            .then(|| {
                if wide_first {
                    of_weight(a, &grad)
                } else {
                    of_weight(&grad, a)
                }
            })
            .transpose()?;
        Ok((of_a, of_b))
    }
}

/// An error in words.
fn refuse(what: String) -> Error {
    Error::Msg(what).bt()
}

fn count(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| refuse(format!("a size of {n} is more than cuDNN takes")))
}

/// Sizes as cuDNN takes them: a tensor has fewer than 2³¹ values.
fn counts(sizes: &[usize]) -> Result<Vec<i32>> {
    let values = sizes
        .iter()
        .try_fold(1usize, |all, n| all.checked_mul((*n).max(1)));
    if values.is_none_or(|n| i32::try_from(n).is_err()) {
        return Err(refuse(format!(
            "shape {sizes:?} has more values than cuDNN takes (2³¹ − 1); use smaller tiles or batches"
        )));
    }
    sizes.iter().map(|n| count(*n)).collect()
}
