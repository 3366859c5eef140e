//! The frames of multi-frame CT → whether they are one stack at one time, or in which way they are not.
//!
//! Frames of one instance were put together by whoever wrote it: what sets them apart beside their place is a statement, and
//! picking some of them would be a guess.
//! Single-frame CT says less, and is split by what it says (`select`).
//!
//! Source: PS3.3 sections C.7.6.16.2.2 (Frame Content), C.7.6.17 (Multi-frame Dimension) and C.8.15.3.9 (CT Reconstruction).

use super::refusal;
use crate::{
    dicom::attribute::{Attributes, Frame},
    domain::finding::Refusal,
};
use std::collections::BTreeSet;

/// Refuses frames of several times, stacks, kernels or other dimensions.
pub(super) fn check(slices: &[(usize, &Attributes)]) -> Result<(), Refusal> {
    let frames: Vec<(&Attributes, &Frame)> = slices
        .iter()
        .filter_map(|(_, a)| Some((*a, a.frame.as_ref()?)))
        .collect();
    let several = |count: usize, code: &str, what: &str| match count {
        0 | 1 => Ok(()),
        _ => Err(refusal(
            code,
            format!(
                "The frames of the multi-frame CT {what} ({count}); expected one. Send each as a series of its own."
            ),
        )),
    };
    several(
        distinct(&frames, |(_, frame)| frame.temporal_position_index),
        "temporal_positions",
        "were taken at several points of time (TemporalPositionIndex)",
    )?;
    several(
        distinct(&frames, |(_, frame)| frame.cardiac_phase.as_deref()),
        "temporal_positions",
        "show several phases of the heart beat (NominalPercentageOfCardiacPhase)",
    )?;
    several(
        distinct(&frames, |(_, frame)| frame.stack_id.as_deref()),
        "mixed_stacks",
        "form several stacks (StackID)",
    )?;
    several(
        distinct(&frames, |(a, _)| a.convolution_kernel.as_deref()),
        "mixed_kernels",
        "were reconstructed with several kernels (ConvolutionKernel)",
    )?;
    several(
        distinct(&frames, |(_, frame)| frame.other_dimensions.as_slice()),
        "mixed_dimensions",
        "differ in a dimension that is neither place nor time (DimensionIndexValues)",
    )
}

fn distinct<'a, T: Ord>(
    frames: &[(&'a Attributes, &'a Frame)],
    of: impl Fn(&(&'a Attributes, &'a Frame)) -> T,
) -> usize {
    frames.iter().map(of).collect::<BTreeSet<_>>().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(change: impl Fn(&mut Attributes, &mut Frame)) -> Option<String> {
        let slices: Vec<Attributes> = (1..=2)
            .map(|number| {
                let mut frame = Frame {
                    number,
                    stack_id: Some("1".to_owned()),
                    ..Frame::default()
                };
                let mut a = Attributes::default();
                if number == 2 {
                    change(&mut a, &mut frame);
                }
                a.frame = Some(frame);
                a
            })
            .collect();
        let slices: Vec<_> = slices.iter().enumerate().collect();
        check(&slices).err().map(|refusal| refusal.code)
    }

    #[test]
    fn frames_of_one_stack_pass_and_whatever_sets_them_apart_is_named() {
        assert_eq!(code(|_, _| ()), None);
        assert_eq!(
            code(|_, frame| frame.temporal_position_index = Some(2)).as_deref(),
            Some("temporal_positions")
        );
        assert_eq!(
            code(|_, frame| frame.cardiac_phase = Some("75".to_owned())).as_deref(),
            Some("temporal_positions")
        );
        assert_eq!(
            code(|_, frame| frame.stack_id = Some("2".to_owned())).as_deref(),
            Some("mixed_stacks")
        );
        assert_eq!(
            code(|a, _| a.convolution_kernel = Some("B70f".to_owned())).as_deref(),
            Some("mixed_kernels")
        );
        assert_eq!(
            code(|_, frame| frame.other_dimensions = vec![2]).as_deref(),
            Some("mixed_dimensions")
        );
    }
}
