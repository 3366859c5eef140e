//! A stack's slices → slabs of one height around each slice, below it and above it: what a "2.5-D" network sees.
//!
//! A slab is the mean of the slices whose middle lies within half its height of its own; where slices are thicker than the slab, the next slice stands for it, and beyond the end of the stack the last slab that there is.
//! Slices thinner than the slab are averaged, so that thin and thick series look alike: as a scanner would have reconstructed them.
//! Slices stay where they are in their planes: under a tilted gantry a neighbour is displaced by the tangent of the tilt times the distance, 1.7 mm for 18.5° and 5 mm, which training shows to the network too.

use crate::domain::volume::Geometry;

/// For each entry of `slices` and each channel, from the feet to the head, which entries of `slices` are averaged.
pub(super) fn recipes(
    geometry: &Geometry,
    slices: &[usize],
    slab_mm: f64,
    neighbours: usize,
) -> Vec<Vec<Vec<usize>>> {
    let up = if geometry.normal()[2] < 0.0 { -1.0 } else { 1.0 };
    let positions = geometry.positions_mm();
    let heights: Vec<f64> = slices.iter().map(|s| up * positions[*s]).collect();
    (0..slices.len())
        .map(|centre| around(&heights, centre, slab_mm, neighbours))
        .collect()
}

fn around(heights: &[f64], centre: usize, slab_mm: f64, neighbours: usize) -> Vec<Vec<usize>> {
    let within = |middle: f64| -> Vec<usize> {
        (0..heights.len())
            .filter(|i| (heights[*i] - middle).abs() < slab_mm / 2.0)
            .collect()
    };
    let mut own = within(heights[centre]);
    if own.is_empty() {
        own.push(centre);
    }
    let side = |sign: f64| {
        let mut slabs: Vec<Vec<usize>> = Vec::with_capacity(neighbours);
        for n in 1..=neighbours {
            let mut slab = within(heights[centre] + sign * slab_mm * n as f64);
            let last = slabs.last().unwrap_or(&own);
            slab.retain(|i| *i != centre && !last.contains(i));
            if slab.is_empty() {
                // The nearest slice beyond what is there already, or, at the end of the stack, that once more.
                let reach = last
                    .iter()
                    .map(|i| sign * heights[*i])
                    .fold(f64::NEG_INFINITY, f64::max);
                let next = (0..heights.len())
                    .filter(|i| sign * heights[*i] > reach)
                    .min_by(|a, b| (sign * heights[*a]).total_cmp(&(sign * heights[*b])));
                slab = next.map_or_else(|| last.clone(), |i| vec![i]);
            }
            slabs.push(slab);
        }
        slabs
    };
    let mut channels = side(-1.0);
    channels.reverse();
    let above = side(1.0);
    channels.push(own);
    channels.extend(above);
    channels
}

/// The mean of some images.
pub(super) fn mean(images: &[Vec<f32>], members: &[usize]) -> Vec<f32> {
    let mut sum = images[members[0]].clone();
    for member in &members[1..] {
        for (sum, value) in sum.iter_mut().zip(&images[*member]) {
            *sum += value;
        }
    }
    if members.len() > 1 {
        let share = 1.0 / members.len() as f32;
        sum.iter_mut().for_each(|value| *value *= share);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thick_slices_have_the_next_slices_beside_them_and_the_last_one_itself() {
        let heights = [0.0, 7.0, 14.0];
        assert_eq!(around(&heights, 1, 5.0, 1), [vec![0], vec![1], vec![2]]);
        assert_eq!(around(&heights, 0, 5.0, 1), [vec![0], vec![0], vec![1]]);
        assert_eq!(around(&heights, 2, 5.0, 1), [vec![1], vec![2], vec![2]]);
    }

    #[test]
    fn thin_slices_are_averaged_over_the_slab_and_none_is_in_two_neighbouring_slabs() {
        let heights: Vec<f64> = (0..20).map(f64::from).collect();
        let channels = around(&heights, 10, 5.0, 1);
        assert_eq!(channels[1], [8, 9, 10, 11, 12]);
        assert_eq!(channels[0], [3, 4, 5, 6, 7]);
        assert_eq!(channels[2], [13, 14, 15, 16, 17]);
    }

    #[test]
    fn slices_that_run_downwards_are_told_from_the_feet_all_the_same() {
        let heights = [10.0, 5.0, 0.0];
        assert_eq!(around(&heights, 1, 5.0, 1), [vec![2], vec![1], vec![0]]);
    }

    #[test]
    fn without_slab_and_neighbours_a_slice_is_itself() {
        assert_eq!(around(&[0.0, 1.0], 1, 0.0, 0), [vec![1]]);
    }

    #[test]
    fn a_slab_is_the_mean_of_its_slices() {
        let images = [vec![0.0, 3.0], vec![2.0, 5.0]];
        assert_eq!(mean(&images, &[0, 1]), [1.0, 4.0]);
        assert_eq!(mean(&images, &[1]), [2.0, 5.0]);
    }
}
