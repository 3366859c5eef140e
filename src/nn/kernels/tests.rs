use super::*;
use proptest::prelude::*;

/// The definition of a convolution, in f64.
fn reference(x: &[f32], w: &[f32], b: &[f32], s: &ConvShape) -> Vec<f32> {
    let (oh, ow) = (s.out_height(), s.out_width());
    let mut out = vec![0.0f32; s.out_len()];
    for n in 0..s.batch {
        for o in 0..s.c_out {
            for y in 0..oh {
                for xx in 0..ow {
                    let mut sum = f64::from(b[o]);
                    for i in 0..s.c_in {
                        for ky in 0..s.kernel[0] {
                            for kx in 0..s.kernel[1] {
                                let (iy, ix) = (y * s.stride + ky, xx * s.stride + kx);
                                if iy < s.padding
                                    || ix < s.padding
                                    || iy - s.padding >= s.height
                                    || ix - s.padding >= s.width
                                {
                                    continue;
                                }
                                let at =
                                    index(s.c_in, s.height, s.width, n, i, iy - s.padding, ix - s.padding);
                                sum += f64::from(x[at])
                                    * f64::from(w[((o * s.c_in + i) * s.kernel[0] + ky) * s.kernel[1] + kx]);
                            }
                        }
                    }
                    #[expect(clippy::cast_possible_truncation, reason = "compared in f32")]
                    {
                        out[index(s.c_out, oh, ow, n, o, y, xx)] = sum as f32;
                    }
                }
            }
        }
    }
    out
}

fn index(channels: usize, h: usize, w: usize, n: usize, c: usize, y: usize, x: usize) -> usize {
    (((n * blocks(channels) + c / BLOCK) * h + y) * w + x) * BLOCK + c % BLOCK
}

fn fill(len: usize, seed: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0)
        .collect()
}

/// Random values where a channel exists, zero in the unused lanes.
fn activation(channels: usize, n: usize, h: usize, w: usize, seed: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * blocks(channels) * h * w * BLOCK];
    let values = fill(n * channels * h * w, seed);
    let mut next = values.into_iter();
    for b in 0..n {
        for c in 0..channels {
            for y in 0..h {
                for x in 0..w {
                    out[index(channels, h, w, b, c, y, x)] = next.next().unwrap();
                }
            }
        }
    }
    out
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn shapes() -> impl Strategy<Value = ConvShape> {
    (
        1usize..3,
        1usize..40,
        1usize..40,
        3usize..20,
        3usize..20,
        0usize..2,
        1usize..3,
    )
        .prop_map(|(batch, c_in, c_out, height, width, three, stride)| ConvShape {
            batch,
            c_in,
            c_out,
            height,
            width,
            kernel: if three == 1 { [3, 3] } else { [1, 1] },
            stride,
            padding: three,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_instruction_set_agrees_with_the_definition(s in shapes(), seed in 0usize..1000) {
        let x = activation(s.c_in, s.batch, s.height, s.width, seed);
        let w = fill(s.c_out * s.c_in * s.taps(), seed + 1);
        let b = fill(s.c_out, seed + 2);
        let expected = reference(&x, &w, &b, &s);
        for isa in Isa::available() {
            let got = convolve(&x, &w, &b, &s, Direction::Forward, isa);
            prop_assert!(largest_difference(&got, &expected) < 1e-4, "{isa:?} {s:?}");
        }
    }

    #[test]
    fn weight_gradient_is_the_transpose_of_the_convolution(s in shapes(), seed in 0usize..1000) {
        // <conv(x, w), g> = <w, weight_gradient(x, g)> for every w.
        let x = activation(s.c_in, s.batch, s.height, s.width, seed);
        let w = fill(s.c_out * s.c_in * s.taps(), seed + 1);
        let g = activation(s.c_out, s.batch, s.out_height(), s.out_width(), seed + 2);
        let forward = convolve(&x, &w, &[], &s, Direction::Forward, Isa::Portable);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let expected = dot(&forward, &g);
        for isa in Isa::available() {
            let got = dot(&w, &weight_gradient(&x, &g, &s, isa));
            prop_assert!((got - expected).abs() < 1e-3 * expected.abs().max(10.0), "{isa:?} {s:?} {got} {expected}");
        }
    }
}
