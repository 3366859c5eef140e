//! Which input voxels an output voxel reads, axis by axis, in one form for every kind of convolution.
//!
//! An axis of the output is walked in steps of `step` voxels; the voxels of one step are its *phases*.
//! Output `step · j + phase` reads the inputs `stride · j + offset` of the phase's taps.
//! A convolution has one phase and step 1; a transposed one (also the gradient of a convolution's input) has stride 1 and as many phases as its stride, each with the taps that fall on it.

use super::{BLOCK, blocks};

/// One tap of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tap {
    /// Relative to `stride · j`.
    pub(super) offset: isize,
    /// Index in the kernel.
    pub(super) index: usize,
}

/// One spatial axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Axis {
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) kernel: usize,
    /// Input voxels from one j to the next.
    pub(super) stride: usize,
    /// Output voxels from one j to the next.
    pub(super) step: usize,
    /// The taps of each phase.
    pub(super) phases: Vec<Vec<Tap>>,
}

/// What PyTorch calls the parameters of a convolution, along one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) dilation: usize,
}

impl Window {
    /// Size of a convolution's output; none if the window does not fit.
    pub(crate) fn output(&self, input: usize) -> Option<usize> {
        let span = self.dilation * (self.kernel - 1) + 1;
        Some((input + 2 * self.padding).checked_sub(span)? / self.stride + 1)
    }
}

#[expect(
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "sizes of axes are far below the limits of isize"
)]
impl Axis {
    /// The axis of a convolution with an output of `output` voxels.
    pub(crate) fn convolution(input: usize, output: usize, window: Window) -> Self {
        let taps = (0..window.kernel)
            .map(|index| Tap {
                offset: (index * window.dilation) as isize - window.padding as isize,
                index,
            })
            .collect();
        Self {
            input,
            output,
            kernel: window.kernel,
            stride: window.stride,
            step: 1,
            phases: vec![taps],
        }
    }

    /// The axis of the convolution that undoes [`Self::convolution`]: from its output back to its input.
    pub(crate) fn transposed(input: usize, output: usize, window: Window) -> Self {
        let step = window.stride as isize;
        let phases = (0..step)
            .map(|phase| {
                (0..window.kernel)
                    .filter_map(|index| {
                        let at = phase + window.padding as isize - (index * window.dilation) as isize;
                        (at.rem_euclid(step) == 0).then_some(Tap {
                            offset: at.div_euclid(step),
                            index,
                        })
                    })
                    .collect()
            })
            .collect();
        Self {
            input,
            output,
            kernel: window.kernel,
            stride: 1,
            step: window.stride,
            phases,
        }
    }

    /// Number of steps that cover the output.
    pub(super) fn steps(&self) -> usize {
        self.output.div_ceil(self.step)
    }

    /// Number of steps at which `phase` lies within the output.
    pub(super) fn steps_of(&self, phase: usize) -> usize {
        self.output.saturating_sub(phase).div_ceil(self.step)
    }

    /// The smallest and largest offset of all taps.
    pub(super) fn reach(&self) -> (isize, isize) {
        let offsets = || self.phases.iter().flatten().map(|tap| tap.offset);
        (offsets().min().unwrap_or(0), offsets().max().unwrap_or(0))
    }

    /// First input under the steps from `first` on, and how many inputs `count` steps reach over.
    pub(super) fn under(&self, first: usize, count: usize) -> (isize, usize) {
        let (low, high) = self.reach();
        (
            (first * self.stride) as isize + low,
            (count - 1) * self.stride + (high - low) as usize + 1,
        )
    }
}

/// A convolution: channels and axes (depth, rows, columns).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) axes: [Axis; 3],
}

impl Geometry {
    pub(super) fn in_voxels(&self) -> usize {
        self.axes.iter().map(|axis| axis.input).product()
    }
    pub(super) fn out_voxels(&self) -> usize {
        self.axes.iter().map(|axis| axis.output).product()
    }
    pub(crate) fn in_len(&self) -> usize {
        self.batch * blocks(self.c_in) * self.in_voxels() * BLOCK
    }
    pub(crate) fn out_len(&self) -> usize {
        self.batch * blocks(self.c_out) * self.out_voxels() * BLOCK
    }
    /// Taps of the whole kernel.
    pub(crate) fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.kernel).product()
    }
    /// The three phases of output phase `index`, and the number of all.
    pub(super) fn phases(&self) -> Vec<[usize; 3]> {
        let [z, y, x] = &self.axes;
        (0..z.step)
            .flat_map(|a| (0..y.step).flat_map(move |b| (0..x.step).map(move |c| [a, b, c])))
            .collect()
    }
    /// The taps of one output phase: their three offsets and their index in the weight.
    pub(super) fn taps_of(&self, phase: [usize; 3]) -> Vec<([isize; 3], usize)> {
        let [z, y, x] = &self.axes;
        let mut taps = Vec::new();
        for a in &z.phases[phase[0]] {
            for b in &y.phases[phase[1]] {
                for c in &x.phases[phase[2]] {
                    let index = (a.index * y.kernel + b.index) * x.kernel + c.index;
                    taps.push(([a.offset, b.offset, c.offset], index));
                }
            }
        }
        taps
    }
}
