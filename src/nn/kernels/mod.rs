//! CPU convolutions on channel-blocked activations, `[N, C/16, D, H, W, 16]`, forward and backward; 2-D is depth 1.
//!
//! Direct convolution: an output tile of up to 12 voxels by 32 channels stays in registers while all taps and input channels pass by.
//! With three taps along rows and columns, and enough of channels and voxels, Winograd's filtering saves more than half of the products, and along depth as well two thirds ([`winograd`]).
//! There is no im2col: a job copies the rows that it needs once, with their zero border, into a window that fits the second-level cache ([`window`]).
//! The norm and activation of the layer before are done in that copy, and the sums that the norm behind wants are taken of each part of the output while it is in the cache ([`norm`]): between two convolutions nothing passes over memory.
//! [`geometry`] puts every kind (strided, dilated, transposed, gradient of the input) into one form, so that [`convolve`] has one loop for all that are done directly.
//! Each output value is summed by one job in one fixed order, so results do not depend on the number of threads.
//! What it does not do: groups.
//!
//! Source: the direct blocked scheme of Georganas et al., doi:10.1109/SC.2018.00069.

mod convolve;
mod geometry;
mod lanes;
mod memory;
pub(crate) mod norm;
mod tile;
mod transform;
mod weight_gradient;
mod window;
mod winograd;

pub(crate) use convolve::{Weight, convolve, convolve_with_totals};
pub(crate) use geometry::{Axis, Geometry, Window};
pub(crate) use memory::filled;
pub use memory::{KeepLarge, release};
pub(crate) use tile::Isa;
pub(crate) use weight_gradient::weight_gradient;
pub(crate) use window::Source;

use std::{cell::Cell, sync::OnceLock};

/// Channels of a block: one AVX-512 register of f32.
pub(crate) const BLOCK: usize = 16;

/// Number of blocks for a number of channels.
pub(crate) fn blocks(channels: usize) -> usize {
    channels.div_ceil(BLOCK)
}

/// The instruction set chosen once for this process.
pub(crate) fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(Isa::detect)
}

thread_local! {
    static BF16: Cell<bool> = const { Cell::new(false) };
}

/// Whether this machine multiplies bf16.
#[must_use]
pub fn has_bf16() -> bool {
    Isa::bf16().is_some()
}

/// Runs `run` with the blocked convolutions, and those on a GPU, that it starts on this thread multiplying bf16 and adding f32; in f32 where the machine cannot.
///
/// Activations between layers and norms stay f32.
/// With gradients both ways are so, forward and back; on a CPU the gradient of a weight stays f32.
/// bf16 has the range of f32, so that no loss need be scaled.
pub fn with_bf16<R>(run: impl FnOnce() -> R) -> R {
    /// Puts the former state back, on a panic too.
    struct Former(bool);
    impl Drop for Former {
        fn drop(&mut self) {
            BF16.set(self.0);
        }
    }
    let _former = Former(BF16.replace(true));
    run()
}

/// Whether this thread is inside [`with_bf16`].
#[cfg(feature = "cuda")]
pub(crate) fn wants_bf16() -> bool {
    BF16.get()
}

/// The instruction set for a convolution that this thread starts, in the precision that it asks for.
pub(crate) fn asked_isa() -> Isa {
    if BF16.get() {
        return Isa::bf16().unwrap_or_else(isa);
    }
    isa()
}

#[cfg(test)]
mod tests;
