//! From voxels to the case: how much the members disagree.

/// 1 − mean pairwise Dice of the members' masks; pairs that both saw nothing agree.
#[must_use]
pub fn disagreement(overlap: &[[u64; 2]]) -> f64 {
    if overlap.is_empty() {
        return 0.0;
    }
    let dice = |[both, either]: &[u64; 2]| {
        if *either == 0 {
            1.0
        } else {
            2.0 * *both as f64 / *either as f64
        }
    };
    1.0 - overlap.iter().map(dice).sum::<f64>() / overlap.len() as f64
}

/// For each pair of members: voxels in both masks, and voxels in either, summed.
#[must_use]
pub fn overlaps(masks: &[Vec<bool>]) -> Vec<[u64; 2]> {
    let mut overlaps = Vec::new();
    for (a, one) in masks.iter().enumerate() {
        for other in &masks[a + 1..] {
            let both = one.iter().zip(other).filter(|(a, b)| **a && **b).count() as u64;
            let either = one.iter().chain(other).filter(|m| **m).count() as u64;
            overlaps.push([both, either]);
        }
    }
    overlaps
}

/// Counts a voxel for each pair of members: whether it is in both masks, and in how many.
pub fn add_voxel(in_mask: &[bool], overlap: &mut [[u64; 2]]) {
    let pairs = in_mask
        .iter()
        .enumerate()
        .flat_map(|(i, one)| in_mask[i + 1..].iter().map(move |other| (*one, *other)));
    for ([both, either], (one, other)) in overlap.iter_mut().zip(pairs) {
        *both += u64::from(one && other);
        *either += u64::from(one) + u64::from(other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_agree_have_no_disagreement() {
        assert_eq!(disagreement(&[[0, 0], [10, 20]]), 0.0);
        assert!((disagreement(&[[5, 20]]) - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_voxel_counts_for_each_pair_once_in_both_masks_and_in_either() {
        let mut overlap = [[0; 2]; 3];
        add_voxel(&[true, false, true], &mut overlap);
        add_voxel(&[false, false, true], &mut overlap);
        assert_eq!(overlap, [[0, 1], [1, 3], [0, 2]]);
    }
}
