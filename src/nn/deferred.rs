//! A blocked tensor whose norm and activation are left to the convolution that reads it.
//!
//! A convolution copies its input anyway ([`super::kernels`]); normalising there saves the pass over memory that a layer of its own takes.
//! Only without gradients: where they are wanted, and in any other layout, nothing is ever left.

use super::{
    blocked::Held,
    kernels::{self, norm::Lines},
    layout,
};
use candle_core::{CpuStorage, Error, InplaceOp1, Layout, Result, Tensor};

/// What a layer gives to the next.
#[derive(Debug)]
pub(super) struct Deferred {
    raw: Tensor,
    /// What is left to do; then nobody else holds `raw`, which is blocked and contiguous.
    lines: Option<Lines>,
}

impl From<Tensor> for Deferred {
    fn from(whole: Tensor) -> Self {
        Self {
            raw: whole,
            lines: None,
        }
    }
}

impl Deferred {
    /// `raw` is blocked, contiguous and held by nobody else.
    pub(super) fn new(raw: Tensor, lines: Lines) -> Self {
        Self {
            raw,
            lines: Some(lines),
        }
    }

    pub(super) fn raw(&self) -> &Tensor {
        &self.raw
    }

    pub(super) fn lines(&self) -> Option<&Lines> {
        self.lines.as_ref()
    }

    /// Does what is left, in place.
    pub(super) fn finish(self) -> Result<Tensor> {
        if let Some(lines) = &self.lines {
            self.raw.inplace_op1(&InPlace { lines })?;
        }
        Ok(self.raw)
    }

    /// The finished tensor beside this one.
    pub(super) fn finished(&self) -> Result<Tensor> {
        let Some(lines) = &self.lines else {
            return Ok(self.raw.clone());
        };
        let held = Held::new(&self.raw);
        let x = held.values()?;
        let mut y = vec![0.0f32; x.len()];
        lines.apply_to(x, &mut y, voxels(self.raw.dims()), kernels::isa());
        Tensor::from_vec(y, self.raw.shape(), self.raw.device())
    }

    /// Whether the blocked kernels can read this.
    pub(super) fn is_blocked(&self) -> bool {
        layout::is_blocked(&self.raw)
    }
}

/// Voxels of a blocked image.
fn voxels(dims: &[usize]) -> usize {
    dims[2..5].iter().product()
}

/// x → y in x's own buffer.
struct InPlace<'a> {
    lines: &'a Lines,
}

impl InplaceOp1 for InPlace<'_> {
    fn name(&self) -> &'static str {
        "blocked norm and activation, in place"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(all) = storage else {
            return Err(Error::Msg("a blocked layer wants f32".into()).bt());
        };
        let Some((from, to)) = layout.contiguous_offsets() else {
            return Err(Error::Msg("a blocked layer wants contiguous tensors".into()).bt());
        };
        let x = &mut all[from..to];
        self.lines.apply(x, voxels(layout.dims()), kernels::isa());
        Ok(())
    }
}
