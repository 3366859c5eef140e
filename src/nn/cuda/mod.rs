//! The layers on an NVIDIA GPU: convolutions by cuDNN, norms with their activation by kernels of our own; the rest is candle's.
//!
//! Tensors are plain here, `[N, C, (D), H, W]`; nothing is blocked.
//! [`Conv`](super::conv::Conv), [`ConvTranspose`](super::conv::ConvTranspose) and [`Norm`](super::norm::Norm) call this module for a tensor on a GPU, and nothing else does.
//!
//! # Numbers
//! f32 is f32: TF32, which keeps 10 bits of each factor, is forbidden (`CUDNN_FMA_MATH`; candle forbids it to cuBLAS), because a GPU is held to the golden patches of the CPU.
//! f16 and bf16 multiply on tensor cores and add in f32.
//! Only algorithms that add up the products of the definition are used: Winograd's and Fourier's are faster for some shapes and round coarsely.
//! An answer's bits do not change from run to run on one GPU with one cuDNN: no algorithm that adds in a random order is used while another one is there (there is none for some dilated gradients, which only training needs).
//! They do differ between GPUs, and from the CPU's, by f32's rounding.
//!
//! # Memory
//! Weights stay on the GPU; a batch of tiles goes there, its logits come back, and sums over tiles are made on the CPU.
//! A layer's output is a new buffer, and what was read is let go when its last reader has run.
//! cuDNN's working memory is bounded by [`cudnn::MOST_WORKSPACE`] a thread and kept between calls.
//! When memory runs out the work is refused: smaller batches would be other shapes, other algorithms and so other bits.

pub(super) mod convolution;
mod cudnn;
pub(super) mod norm;

use super::conv::Conv;
use candle_core::{CudaDevice, Device, Error, Result, Tensor};
use cudarc::driver::{
    DriverError,
    result::{device::get_default_mem_pool, mem_pool},
    sys::CUmemPool_attribute,
};

/// Opens the first GPU and convolves once, so that a library that is not there is missed now.
///
/// All work goes to one stream, whichever thread asks: what one thread has begun is done before another one reads it.
///
/// # Errors
/// Says in words what is missing.
pub fn open() -> std::result::Result<Device, String> {
    let device = Device::new_cuda_with_stream(0)
        .map_err(|error| format!("no CUDA device answers ({})", first_line(&error)))?;
    if let Device::Cuda(device) = &device {
        // A GPU without memory pools has nothing to keep, and works.
        let _slower = keep_memory(device);
    }
    let probe = || -> Result<f32> {
        let ones = Tensor::ones((1, 1, 3, 3, 3), candle_core::DType::F32, &device)?;
        let conv = Conv {
            weight: ones.clone(),
            bias: None,
            stride: [1; 3],
            padding: [0; 3],
            dilation: [1; 3],
            groups: 1,
        };
        conv.forward(&ones)?.sum_all()?.to_scalar()
    };
    match probe() {
        Ok(27.0) => Ok(device),
        Ok(sum) => Err(format!(
            "the CUDA device adds 27 ones up to {sum}; it is not to be trusted"
        )),
        Err(error) => Err(format!(
            "the CUDA device does not convolve ({})",
            first_line(&error)
        )),
    }
}

/// Keeps up to a quarter of the GPU's memory for the next tile; the driver's default gives all of it back whenever an answer has come, and fetching it anew takes longer than a layer.
#[expect(unsafe_code, reason = "the driver's pools are reached by its own calls only")]
fn keep_memory(device: &CudaDevice) -> std::result::Result<(), DriverError> {
    const SHARE: u64 = 4;
    let stream = device.cuda_stream();
    let (_free, all) = stream.context().mem_get_info()?;
    let mut kept = all as u64 / SHARE;
    // SAFETY: the device is that of a living context, its pool lives as long as the process, and this attribute is an unsigned 64-bit number.
    unsafe {
        let pool = get_default_mem_pool(stream.context().cu_device())?;
        let value = std::ptr::from_mut(&mut kept).cast();
        mem_pool::set_attribute(
            pool,
            CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
            value,
        )
    }
}

/// The first generation with bf16 (Ampere).
pub(super) const BF16_SINCE: i32 = 8;

/// The generation of a GPU: 8 and 0 of `sm80`.
///
/// # Errors
/// The driver's.
pub(super) fn capability(device: &CudaDevice) -> Result<(i32, i32)> {
    device
        .cuda_stream()
        .context()
        .compute_capability()
        .map_err(Error::wrap)
}

/// An error without its backtrace.
fn first_line(error: &Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
