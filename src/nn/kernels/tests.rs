use super::{winograd::Form, *};
use proptest::prelude::*;

/// Random problems of a test, channels and kernel of each below, and voxels beyond the kernel below; Miri interprets, a thousand times as slowly.
const CASES: u32 = if cfg!(miri) { 3 } else { 48 };
const CHANNELS: usize = if cfg!(miri) { 19 } else { 40 };
const KERNEL: usize = if cfg!(miri) { 3 } else { 5 };
const MORE: usize = if cfg!(miri) { 3 } else { 9 };

/// A random problem: a convolution from `c_in` channels to `c_out`, per axis its own window.
#[derive(Debug, Clone)]
struct Case {
    batch: usize,
    channels: [usize; 2],
    windows: [Window; 3],
    wide: [usize; 3],
    narrow: [usize; 3],
}

impl Case {
    fn taps(&self) -> usize {
        self.windows.iter().map(|w| w.kernel).product()
    }
    fn down(&self) -> Geometry {
        Geometry {
            batch: self.batch,
            c_in: self.channels[0],
            c_out: self.channels[1],
            axes: [0, 1, 2].map(|a| Axis::convolution(self.wide[a], self.narrow[a], self.windows[a])),
        }
    }
    fn up(&self) -> Geometry {
        Geometry {
            batch: self.batch,
            c_in: self.channels[1],
            c_out: self.channels[0],
            axes: [0, 1, 2].map(|a| Axis::transposed(self.narrow[a], self.wide[a], self.windows[a])),
        }
    }
}

fn cases() -> impl Strategy<Value = Case> {
    let window = (1usize..KERNEL, 1usize..4, 0usize..3, 1usize..3, 0usize..MORE);
    (
        1usize..3,
        1usize..CHANNELS,
        1usize..CHANNELS,
        [window.clone(), window.clone(), window],
    )
        .prop_map(|(batch, c_in, c_out, axes)| {
            let windows = axes.map(|(kernel, stride, padding, dilation, _)| Window {
                kernel,
                stride,
                padding,
                dilation,
            });
            let wide = axes.map(|(kernel, _, _, dilation, more)| dilation * (kernel - 1) + 1 + more);
            Case {
                batch,
                channels: [c_in, c_out],
                wide,
                narrow: [0, 1, 2].map(|a| windows[a].output(wide[a]).unwrap()),
                windows,
            }
        })
}

fn index(channels: usize, axes: [usize; 3], n: usize, c: usize, at: [usize; 3]) -> usize {
    let [d, h, w] = axes;
    ((((n * blocks(channels) + c / BLOCK) * d + at[0]) * h + at[1]) * w + at[2]) * BLOCK + c % BLOCK
}

fn positions(axes: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..axes[0]).flat_map(move |a| (0..axes[1]).flat_map(move |b| (0..axes[2]).map(move |c| [a, b, c])))
}

/// Adds up every product of the definition: calls `visit(n, o, i, tap, narrow index, wide index)`.
fn visit(case: &Case, mut visit: impl FnMut(usize, usize, usize, usize, usize)) {
    let [c_in, c_out] = case.channels;
    let kernel = case.windows.map(|w| w.kernel);
    for n in 0..case.batch {
        for at in positions(case.narrow) {
            for (tap, k) in positions(kernel).enumerate() {
                let from: Vec<Option<usize>> = (0..3)
                    .map(|a| {
                        let w = case.windows[a];
                        (at[a] * w.stride + k[a] * w.dilation)
                            .checked_sub(w.padding)
                            .filter(|x| *x < case.wide[a])
                    })
                    .collect();
                let [Some(z), Some(y), Some(x)] = from[..] else {
                    continue;
                };
                for o in 0..c_out {
                    for i in 0..c_in {
                        visit(
                            o,
                            i,
                            tap,
                            index(c_out, case.narrow, n, o, at),
                            index(c_in, case.wide, n, i, [z, y, x]),
                        );
                    }
                }
            }
        }
    }
}

fn fill(len: usize, seed: usize) -> Vec<f32> {
    (0..len)
        .map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0)
        .collect()
}

/// Random values where a channel exists, what must never be read in the unused lanes.
fn activation(channels: usize, batch: usize, axes: [usize; 3], seed: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; batch * blocks(channels) * axes.iter().product::<usize>() * BLOCK];
    let mut next = fill(batch * channels * axes.iter().product::<usize>(), seed).into_iter();
    for n in 0..batch {
        for c in 0..channels {
            for at in positions(axes) {
                out[index(channels, axes, n, c, at)] = next.next().unwrap();
            }
        }
    }
    out
}

/// Over the channels that exist.
fn largest_difference(channels: usize, batch: usize, axes: [usize; 3], a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut worst = 0.0f64;
    for n in 0..batch {
        for c in 0..channels {
            for at in positions(axes) {
                let i = index(channels, axes, n, c, at);
                let difference = (f64::from(a[i]) - b[i]).abs();
                assert!(difference.is_finite(), "a value is not a number");
                worst = worst.max(difference);
            }
        }
    }
    worst
}

/// Two sources where the input has more than one block, to cover joined inputs too.
fn sources(x: &[f32], channels: usize, batch: usize) -> Vec<Source<'_>> {
    if blocks(channels) == 1 || batch > 1 {
        return vec![Source {
            values: x,
            blocks: blocks(channels),
            lines: None,
        }];
    }
    let (a, b) = x.split_at(x.len() / blocks(channels));
    vec![
        Source {
            values: a,
            blocks: 1,
            lines: None,
        },
        Source {
            values: b,
            blocks: blocks(channels) - 1,
            lines: None,
        },
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn every_instruction_set_agrees_with_the_definition(case in cases(), seed in 0usize..1000) {
        let [c_in, c_out] = case.channels;
        let x = activation(c_in, case.batch, case.wide, seed);
        let y = activation(c_out, case.batch, case.narrow, seed + 3);
        let w = fill(c_out * c_in * case.taps(), seed + 1);
        let bias = fill(c_out.max(c_in), seed + 2);
        let mut down = vec![0.0f64; y.len()];
        let mut up = vec![0.0f64; x.len()];
        let mut gradient = vec![0.0f64; w.len()];
        for n in 0..case.batch {
            for at in positions(case.narrow) {
                for o in 0..c_out { down[index(c_out, case.narrow, n, o, at)] = f64::from(bias[o]); }
            }
        }
        visit(&case, |o, i, tap, at_y, at_x| {
            let weight = (o * c_in + i) * case.taps() + tap;
            down[at_y] += f64::from(x[at_x]) * f64::from(w[weight]);
            up[at_x] += f64::from(y[at_y]) * f64::from(w[weight]);
            gradient[weight] += f64::from(y[at_y]) * f64::from(x[at_x]);
        });
        for isa in Isa::available() {
            let weight = Weight { values: &w, output: c_in * case.taps(), input: case.taps() };
            let got = convolve(&sources(&x, c_in, case.batch), weight, &bias[..c_out], &case.down(), isa);
            let worst = largest_difference(c_out, case.batch, case.narrow, &got, &down);
            prop_assert!(worst < 1e-3, "{isa:?}: {worst}");
            let weight = Weight { values: &w, output: case.taps(), input: c_in * case.taps() };
            let got = convolve(&sources(&y, c_out, case.batch), weight, &[], &case.up(), isa);
            let worst = largest_difference(c_in, case.batch, case.wide, &got, &up);
            prop_assert!(worst < 1e-3, "{isa:?}, back: {worst}");
            let got = weight_gradient(&x, &y, &case.down(), isa);
            for (got, expected) in got.iter().zip(&gradient) {
                prop_assert!((f64::from(*got) - expected).abs() < 1e-3, "{isa:?}, weight: {got} {expected}");
            }
        }
    }
}

/// The case with three taps along the axes that are filtered.
fn filtered_case(mut case: Case, padding: [usize; 3], form: Form) -> Case {
    for (a, padding) in (0..3).zip(padding).skip(usize::from(form == Form::Flat)) {
        let more = case.wide[a] - case.windows[a].dilation * (case.windows[a].kernel - 1) - 1;
        case.windows[a] = Window {
            kernel: 3,
            stride: 1,
            padding,
            dilation: 1,
        };
        case.wide[a] = 3 + more;
        case.narrow[a] = case.windows[a].output(case.wide[a]).unwrap();
    }
    case
}

/// Some norm and activation of each channel of each image.
fn lines(channels: usize, batch: usize, slope: f32) -> norm::Lines {
    let extent = norm::Extent {
        blocks: blocks(channels),
        channels,
        voxels: 1,
        groups: channels,
    };
    let each = fill(batch * blocks(channels) * 2 * BLOCK, 11);
    let moments = each
        .chunks(2 * BLOCK)
        .map(|pair| [0, 1].map(|i| std::array::from_fn(|c| pair[i * BLOCK + c])))
        .collect();
    norm::Lines::new(&moments, &fill(channels, 12), &fill(channels, 13), slope, extent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn norms_left_to_the_reader_and_sums_taken_by_the_writer_are_those_of_passes_of_their_own(case in cases(), seed in 0usize..1000) {
        let [c_in, c_out] = case.channels;
        let w = fill(c_out * c_in * case.taps(), seed + 1);
        let bias = fill(c_out, seed + 2);
        let lines = lines(c_in, case.batch, 0.1);
        let voxels = case.wide.iter().product();
        for isa in Isa::available().into_iter().chain(Isa::bf16()) {
            let x = activation(c_in, case.batch, case.wide, seed);
            let mut finished = x.clone();
            lines.apply(&mut finished, voxels, isa);
            let weight = Weight { values: &w, output: c_in * case.taps(), input: case.taps() };
            let source = |values, lines| [Source { values, blocks: blocks(c_in), lines }];
            let two_passes = convolve(&source(&finished, None), weight, &bias, &case.down(), isa);
            let (one_pass, totals) =
                convolve_with_totals(&source(&x, Some(&lines)), weight, &bias, &case.down(), isa);
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert!(bits(&one_pass) == bits(&two_passes), "{isa:?}");

            let plane = case.narrow.iter().product::<usize>() * BLOCK;
            for (image, total) in totals.iter().enumerate() {
                for c in 0..BLOCK {
                    let values = one_pass[image * plane..][..plane].chunks(BLOCK).map(|voxel| f64::from(voxel[c]));
                    let expected = values.fold([0.0, 0.0], |[s, q], v| [s + v, q + v * v]);
                    for (got, expected) in [total[0][c], total[1][c]].iter().zip(expected) {
                        prop_assert!((got - expected).abs() <= 1e-4 * (1.0 + expected.abs()), "{isa:?}: {got} {expected}");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn filtering_agrees_with_the_definition_on_every_instruction_set(case in cases(), padding in [0usize..4, 0..4, 0..4], form in prop_oneof![Just(Form::Flat), Just(Form::Deep)], seed in 0usize..1000) {
        let case = filtered_case(case, padding, form);
        let [c_in, c_out] = case.channels;
        let lines = lines(c_in, case.batch, 0.1);
        let w = fill(c_out * c_in * case.taps(), seed + 1);
        let mut bias = fill(blocks(c_out) * BLOCK, seed + 2);
        bias[c_out..].fill(0.0);
        for isa in Isa::available() {
            let x = activation(c_in, case.batch, case.wide, seed);
            let y = activation(c_out, case.batch, case.narrow, seed + 3);
            let mut finished = x.clone();
            lines.apply(&mut finished, case.wide.iter().product(), isa);
            let mut down = vec![0.0f64; y.len()];
            let mut up = vec![0.0f64; x.len()];
            for n in 0..case.batch {
                for at in positions(case.narrow) {
                    for o in 0..c_out { down[index(c_out, case.narrow, n, o, at)] = f64::from(bias[o]); }
                }
            }
            visit(&case, |o, i, tap, at_y, at_x| {
                let weight = f64::from(w[(o * c_in + i) * case.taps() + tap]);
                down[at_y] += f64::from(finished[at_x]) * weight;
                up[at_x] += f64::from(y[at_y]) * weight;
            });
            let weight = Weight { values: &w, output: c_in * case.taps(), input: case.taps() };
            let source = [Source { values: &x, blocks: blocks(c_in), lines: Some(&lines) }];
            prop_assert!(form.suits(&case.down(), isa));
            let (got, _) = convolve::filtered(&source, weight, &bias, &case.down(), (form, isa), |_, _| ());
            let worst = largest_difference(c_out, case.batch, case.narrow, &got, &down);
            prop_assert!(worst < 1e-3, "{isa:?}: {worst}");
            if form.suits(&case.up(), isa) {
                let weight = Weight { values: &w, output: case.taps(), input: c_in * case.taps() };
                let none = vec![0.0; blocks(c_in) * BLOCK];
                let source = sources(&y, c_out, case.batch);
                let (got, _) = convolve::filtered(&source, weight, &none, &case.up(), (form, isa), |_, _| ());
                let worst = largest_difference(c_in, case.batch, case.wide, &got, &up);
                prop_assert!(worst < 1e-3, "{isa:?}, back: {worst}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn filtering_bf16_is_exact_on_numbers_whose_frequencies_bf16_holds(case in cases(), padding in [0usize..4, 0..4, 0..4], form in prop_oneof![Just(Form::Flat), Just(Form::Deep)], seed in 0usize..1000) {
        let Some(isa) = Isa::bf16() else { return Ok(()) };
        let mut case = filtered_case(case, padding, form);
        case.channels[0] = case.channels[0].next_multiple_of(2);
        let [c_in, c_out] = case.channels;
        // Sums of eight of −3 to 3, and eighths of sums of 27 of −8, 0 and 8.
        let mut x = activation(c_in, case.batch, case.wide, seed);
        x.iter_mut().for_each(|v| *v = (*v * 3.4).trunc());
        let w: Vec<f32> = fill(c_out * c_in * case.taps(), seed + 1).iter().map(|v| (v * 1.9).trunc() * 8.0).collect();
        let weight = Weight { values: &w, output: c_in * case.taps(), input: case.taps() };
        let source = sources(&x, c_in, case.batch);
        let exact = convolve(&source, weight, &[], &case.down(), Isa::Portable);
        let exact: Vec<f64> = exact.into_iter().map(f64::from).collect();
        prop_assert!(form.suits(&case.down(), isa));
        let none = vec![0.0; blocks(c_out) * BLOCK];
        let (got, _) = convolve::filtered(&source, weight, &none, &case.down(), (form, isa), |_, _| ());
        let worst = largest_difference(c_out, case.batch, case.narrow, &got, &exact);
        prop_assert!(worst == 0.0, "{worst}");
    }

    #[test]
    fn bf16_is_exact_on_numbers_that_bf16_holds(case in cases(), seed in 0usize..1000) {
        // Every product of two such numbers is an f32: only the order of the sums differs.
        let Some(isa) = Isa::bf16() else { return Ok(()) };
        let [c_in, c_out] = case.channels;
        let round = |values: Vec<f32>| -> Vec<f32> {
            values.into_iter().map(|v| f32::from_bits(v.to_bits() & 0xffff_0000)).collect()
        };
        let x = round(activation(c_in, case.batch, case.wide, seed));
        let w = round(fill(c_out * c_in * case.taps(), seed + 1));
        let weight = Weight { values: &w, output: c_in * case.taps(), input: case.taps() };
        let source = sources(&x, c_in, case.batch);
        let exact = convolve(&source, weight, &[], &case.down(), Isa::Portable);
        let exact: Vec<f64> = exact.into_iter().map(f64::from).collect();
        let got = convolve(&source, weight, &[], &case.down(), isa);
        let worst = largest_difference(c_out, case.batch, case.narrow, &got, &exact);
        prop_assert!(worst < 1e-3, "{worst}");
    }
}

#[test]
fn an_activation_keeps_what_is_infinite_on_every_instruction_set() {
    let extent = norm::Extent {
        blocks: 1,
        channels: BLOCK,
        voxels: 1,
        groups: BLOCK,
    };
    let (one, zero) = ([1.0f32; BLOCK], [0.0f32; BLOCK]);
    let relu = norm::Lines::new(&vec![[zero, one]], &one, &zero, 0.0, extent);
    for isa in Isa::available() {
        let mut x = [f32::INFINITY; BLOCK];
        x[1] = f32::NAN;
        x[2] = -3.0;
        relu.apply(&mut x, 1, isa);
        assert_eq!((x[0], x[2], x[1].is_nan()), (f32::INFINITY, 0.0, true), "{isa:?}");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let window = |stride| Window {
        kernel: 3,
        stride,
        padding: 1,
        dilation: 1,
    };
    threads_agree(&Case {
        batch: 1,
        channels: [20, 33],
        windows: [window(2); 3],
        wide: if cfg!(miri) { [3, 5, 9] } else { [13, 30, 50] },
        narrow: if cfg!(miri) { [2, 3, 5] } else { [7, 15, 25] },
    });
    // These are filtered, the second along depth as well, and too large for Miri.
    if !cfg!(miri) {
        for (channels, wide) in [([32, 33], [6, 51, 99]), ([64, 66], [7, 31, 29])] {
            threads_agree(&Case {
                batch: 1,
                channels,
                windows: [window(1); 3],
                wide,
                narrow: wide,
            });
        }
    }
}

fn threads_agree(case: &Case) {
    let [c_in, c_out] = case.channels;
    let x = activation(c_in, 1, case.wide, 1);
    let w = fill(c_out * c_in * 27, 2);
    let y = activation(c_out, 1, case.narrow, 3);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let weight = Weight {
                values: &w,
                output: c_in * 27,
                input: 27,
            };
            let source = [Source {
                values: &x,
                blocks: blocks(c_in),
                lines: None,
            }];
            let (forward, totals) = convolve_with_totals(&source, weight, &[], &case.down(), isa());
            let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let gradient = bits(weight_gradient(&x, &y, &case.down(), isa()));
            (bits(forward), gradient, totals)
        })
    };
    let one = run(1);
    for threads in [2, 3, 7] {
        assert!(run(threads) == one, "{threads} threads give other bits than one");
    }
}
