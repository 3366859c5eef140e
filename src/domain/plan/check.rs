//! Whether a plan agrees with itself.

use super::{Activation, Configuration, Grid, Normalization, Plan, PreviousStage};
use crate::domain::{architecture::Architecture, prediction::holds_structures};
use std::collections::BTreeSet;

impl Plan {
    /// Refuses a plan that contradicts itself, or asks for what its grid does not do.
    ///
    /// # Errors
    /// A sentence: what was found, what was expected.
    pub fn check(&self) -> Result<(), String> {
        let Configuration {
            patch_size,
            spacing,
            normalization_schemes,
            channel_names,
            tile_step_size,
            architecture,
            ..
        } = &self.configuration;
        let dims = patch_size.len();
        ensure(matches!(dims, 2 | 3) && spacing.len() == dims, || {
            format!(
                "patch_size has {dims} axes and spacing {}, expected 2 or 3 for both",
                spacing.len()
            )
        })?;
        ensure(architecture.spatial_dims() == dims, || {
            format!(
                "the network has {} spatial axes, patch_size {dims}",
                architecture.spatial_dims()
            )
        })?;
        ensure(spacing.iter().all(|mm| mm.is_finite() && *mm > 0.0), || {
            format!("spacing is {spacing:?}, expected millimetres above 0")
        })?;
        for (size, divisor) in patch_size.iter().zip(architecture.divisors()) {
            ensure(*size > 0 && size.is_multiple_of(divisor), || {
                format!(
                    "patch_size is {patch_size:?}, the network needs {size} to be a multiple of {divisor}"
                )
            })?;
        }
        ensure(*tile_step_size > 0.0 && *tile_step_size <= 1.0, || {
            format!("tile_step_size is {tile_step_size}, expected above 0 and at most 1")
        })?;
        let channels = normalization_schemes.len();
        let shown = self.configuration.previous_stage().map_or(0, |p| p.labels.len());
        ensure(channels + shown == architecture.input_channels(), || {
            format!(
                "found {channels} normalization_schemes and {shown} labels of a previous_stage for a network of {} input channels",
                architecture.input_channels()
            )
        })?;
        ensure(
            channel_names.is_empty() || channel_names.len() == channels,
            || {
                format!(
                    "found {} channel_names for {channels} channels",
                    channel_names.len()
                )
            },
        )?;
        ensure(self.members > 0, || "members is 0, expected at least 1".into())?;
        let unpadded = matches!(architecture, Architecture::DeepMedic(_));
        ensure(
            !unpadded || matches!(self.configuration.grid, Grid::Window { .. }),
            || "a DeepMedic answers for the middle of what it sees, which only the grid window takes".into(),
        )?;
        self.check_grid()?;
        self.check_labels()?;
        self.check_mirrors()?;
        self.check_stages()
    }

    fn check_stages(&self) -> Result<(), String> {
        let previous = self.configuration.previous_stage();
        ensure(previous.is_some() != self.stages.is_empty(), || {
            format!(
                "the plan has {} stages before its network, and its grid {} one",
                self.stages.len(),
                if previous.is_some() {
                    "wants"
                } else {
                    "does not want"
                }
            )
        })?;
        if let Some(PreviousStage { labels, resampling }) = previous {
            let values: BTreeSet<u8> = labels.iter().copied().collect();
            ensure(
                values.len() == labels.len() && !values.is_empty() && !values.contains(&0),
                || format!("labels of previous_stage are {labels:?}, expected values above 0, each once"),
            )?;
            ensure(resampling.order <= 1 && resampling.order_z == 0, || {
                format!(
                    "previous_stage is resampled with order {} and {}, this build has 0 and 1, and 0 along a coarse axis",
                    resampling.order, resampling.order_z
                )
            })?;
        }
        // Each stage checks those before it.
        match self
            .stages
            .len()
            .checked_sub(1)
            .and_then(|last| self.of_stage(last))
        {
            Some(before) => before.check().map_err(|what| format!("{}: {what}", before.id)),
            None => Ok(()),
        }
    }

    fn check_grid(&self) -> Result<(), String> {
        let schemes = &self.configuration.normalization_schemes;
        let channels = schemes.len();
        match &self.configuration.grid {
            // What only whole-volume plans do is refused here rather than left out in silence.
            Grid::SourceSlices {
                slab_mm,
                neighbours,
                mirrored,
            } => ensure(
                self.configuration.patch_size.len() == 2
                    && channels == 2 * neighbours + 1 + usize::from(*mirrored)
                    && (*neighbours == 0 || *slab_mm > 0.0)
                    && (0.0..=20.0).contains(slab_mm)
                    && self.activation == Activation::Softmax
                    && self.keep_largest.is_empty()
                    && self.mirror_axes.is_empty(),
                || {
                    "a plan on source_slices has two axes, a channel for the slice, one for each neighbouring slab (of 20 mm at most) and one for a mirrored slab, softmax, and neither mirror_axes nor keep_largest"
                        .into()
                },
            ),
            Grid::HeadBox { centre_mm } => ensure(
                self.configuration.patch_size.len() == 3
                    && channels == 1
                    && centre_mm.iter().all(|mm| mm.is_finite())
                    && self.activation == Activation::Softmax
                    && self.keep_largest.is_empty()
                    && self.mirror_axes.is_empty(),
                || {
                    "a plan on head_box has three axes, one channel, softmax, and neither mirror_axes nor keep_largest".into()
                },
            ),
            Grid::Oriented(chain) => {
                chain.check()?;
                ensure(
                    chain.tile(&self.configuration.patch_size).is_some()
                        && chain.spacing() == self.configuration.spacing
                        && schemes.iter().all(|s| *s == Normalization::NoNormalization)
                        && self.mirror_axes.is_empty(),
                    || {
                        "a plan on oriented has three axes (two with a slice_axis), the spacing of its chain, NoNormalization, and no mirror_axes"
                            .into()
                    },
                )?;
                let mut painted = chain.painted.clone();
                painted.sort_unstable();
                ensure(
                    painted.is_empty()
                        || self.activation == Activation::Sigmoid
                            && painted.iter().copied().eq(0..self.labels.len()),
                    || {
                        format!(
                            "painted is {:?}, expected each output from 0 to {} once, and the activation sigmoid",
                            chain.painted,
                            self.labels.len().saturating_sub(1)
                        )
                    },
                )
            }
            Grid::Window {
                window_hu: [low, high],
            } => ensure(
                channels == 1
                    && schemes[0] == Normalization::NoNormalization
                    && low.is_finite()
                    && high.is_finite()
                    && low < high
                    && self.mirror_axes.is_empty()
                    && self.activation == Activation::Softmax
                    && self.configuration.unpadded().is_some(),
                || {
                    "a plan on window has one channel, NoNormalization, HU from low to high, softmax, no mirror_axes, and a DeepMedic that takes its patch_size whole".into()
                },
            ),
            Grid::Volume {
                transpose_forward,
                use_mask_for_norm,
                ..
            } => {
                let mut axes = *transpose_forward;
                axes.sort_unstable();
                ensure(axes == [0, 1, 2], || {
                    format!("transpose_forward is {transpose_forward:?}, expected each of 0, 1, 2 once")
                })?;
                ensure(
                    use_mask_for_norm.is_empty() || use_mask_for_norm.len() == channels,
                    || {
                        format!(
                            "use_mask_for_norm has {} entries for {channels} channels",
                            use_mask_for_norm.len()
                        )
                    },
                )
            }
        }
    }

    fn check_labels(&self) -> Result<(), String> {
        ensure(!holds_structures(&self.question.to_ascii_uppercase()), || {
            "the question is \"structures\", which is the label of the anatomy that results show: name what is asked".into()
        })?;
        let values: BTreeSet<u8> = self.labels.iter().map(|l| l.value).collect();
        ensure(
            values.len() == self.labels.len() && !values.is_empty() && !values.contains(&0),
            || "labels need one entry or more, each with a value of its own above 0".into(),
        )?;
        let (labels, structures) = (self.label_channels(), self.structure_channels());
        let found = self.configuration.architecture.num_classes();
        ensure(found == labels + structures, || {
            format!(
                "the network has {found} outputs, the labels need {labels} and the structures {structures}"
            )
        })?;
        let names: BTreeSet<&str> = self.structures.iter().map(|s| s.name.as_str()).collect();
        ensure(
            names.len() == self.structures.len() && names.len() < usize::from(u8::MAX),
            || "structures need a name of their own each, and there are 254 of them at most".into(),
        )?;
        let is_told = matches!(
            self.configuration.grid,
            Grid::SourceSlices { .. } | Grid::HeadBox { .. }
        );
        ensure(self.structures.is_empty() || is_told, || {
            "the plan has structures, which this build tells on source_slices and head_box only".into()
        })?;
        let unknown = self.keep_largest.iter().flatten().find(|v| !values.contains(v));
        ensure(unknown.is_none(), || {
            format!("keep_largest names the value {unknown:?}, which no label has")
        })
    }

    fn check_mirrors(&self) -> Result<(), String> {
        let dims = self.configuration.patch_size.len();
        let axes: BTreeSet<usize> = self.mirror_axes.iter().copied().collect();
        ensure(
            axes.len() == self.mirror_axes.len() && axes.iter().all(|axis| *axis < dims),
            || {
                format!(
                    "mirror_axes is {:?}, expected some of the network's {dims} axes, each once",
                    self.mirror_axes
                )
            },
        )?;
        let Grid::Volume {
            transpose_forward, ..
        } = &self.configuration.grid
        else {
            return Ok(());
        };
        // The last axis of an axial stack runs from one side of the patient to the other; a 2-D network lacks the first.
        let across = transpose_forward
            .iter()
            .position(|source| *source == 2)
            .and_then(|axis| (axis + dims).checked_sub(3));
        let sided = self.labels.iter().find(|label| label.side_aware);
        match (sided, across) {
            (Some(label), Some(axis)) if axes.contains(&axis) => Err(format!(
                "mirror_axes has {axis}, which is left-right, and the label {} is side_aware",
                label.name
            )),
            _ => Ok(()),
        }
    }
}

fn ensure(holds: bool, sentence: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(sentence()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::plan::{Label, Resampling, Stage};

    fn shipped() -> Plan {
        serde_json::from_str(include_str!("../../../models/haemorrhage-phantom/plan.json")).unwrap()
    }

    fn on_volume() -> Plan {
        let mut plan = shipped();
        let resampling = Resampling {
            order: 1,
            order_z: 0,
            force_separate_z: None,
        };
        plan.configuration.grid = Grid::Volume {
            transpose_forward: [0, 1, 2],
            use_mask_for_norm: vec![false; plan.configuration.normalization_schemes.len()],
            resampling_data: resampling,
            resampling_probabilities: resampling,
            previous_stage: None,
        };
        plan
    }

    #[test]
    fn a_cascade_shows_each_network_what_the_one_before_it_said() {
        let mut plan = on_volume();
        let first = Stage {
            configuration: plan.configuration.clone(),
            members: 1,
            mirror_axes: Vec::new(),
        };
        plan.stages = vec![first];
        assert!(plan.check().unwrap_err().contains("does not want"));
        let order = |order| Resampling {
            order,
            order_z: 0,
            force_separate_z: None,
        };
        let show = |plan: &mut Plan, labels: Vec<u8>, resampling| {
            if let Grid::Volume { previous_stage, .. } = &mut plan.configuration.grid {
                *previous_stage = Some(PreviousStage { labels, resampling });
            }
        };
        show(&mut plan, vec![1], order(1));
        assert!(plan.check().unwrap_err().contains("1 labels of a previous_stage"));
        let Architecture::PlainConvUNet(network) = &mut plan.configuration.architecture else {
            panic!("the shipped network is plain");
        };
        network.input_channels += 1;
        plan.check().unwrap();
        assert_eq!(plan.of_stage(0).unwrap().id, format!("{}/stage_0", plan.id));
        show(&mut plan, vec![0], order(1));
        assert!(plan.check().unwrap_err().contains("above 0"));
        show(&mut plan, vec![1], order(3));
        assert!(plan.check().unwrap_err().contains("order 3"));
        show(&mut plan, vec![1], order(1));
        plan.stages[0].members = 0;
        assert!(plan.check().unwrap_err().contains("stage_0: members is 0"));
    }

    #[test]
    fn structures_have_outputs_of_their_own_and_a_grid_that_tells_them() {
        let mut plan = crate::train::recipe::infarct(1);
        plan.check().unwrap();
        assert!(plan.tells_aspects());
        assert_eq!((plan.label_channels(), plan.structure_channels()), (2, 11));
        plan.structures.pop();
        assert!(!plan.tells_aspects());
        let error = plan.check().unwrap_err();
        assert!(
            error.contains("13 outputs, the labels need 2 and the structures 10"),
            "{error}"
        );
        let mut plan = crate::train::recipe::occlusion(1);
        assert!(plan.tells_arteries() && !plan.tells_aspects());
        plan.check().unwrap();
        let told = plan.structures.clone();
        plan.question = "structures".into();
        assert!(plan.check().unwrap_err().contains("name what is asked"));
        let mut plan = on_volume();
        let Architecture::PlainConvUNet(network) = &mut plan.configuration.architecture else {
            panic!("the recipe is a plain U-Net");
        };
        network.num_classes += told.len() + 1;
        plan.structures = told;
        let error = plan.check().unwrap_err();
        assert!(error.contains("source_slices and head_box only"), "{error}");
    }

    #[test]
    fn the_shipped_plan_agrees_with_itself() {
        shipped().check().unwrap();
        on_volume().check().unwrap();
    }

    #[test]
    fn slabs_of_one_scan_are_channels_of_the_network_and_not_files() {
        let mut plan = crate::train::recipe::haemorrhage(1);
        assert_eq!(plan.configuration.normalization_schemes.len(), 3);
        assert_eq!(plan.configuration.scans(), 1);
        plan.configuration.grid = on_volume().configuration.grid;
        assert_eq!(plan.configuration.scans(), 3);
    }

    #[test]
    fn refuses_to_mirror_left_and_right_for_a_side_aware_label() {
        let mut plan = on_volume();
        plan.mirror_axes = vec![0];
        plan.check().unwrap();
        plan.mirror_axes = vec![0, 1];
        assert!(plan.check().unwrap_err().contains("left-right"));
        plan.labels.iter_mut().for_each(|label| label.side_aware = false);
        plan.check().unwrap();
        plan.mirror_axes = vec![2];
        assert!(plan.check().unwrap_err().contains("2 axes"));
    }

    #[test]
    fn refuses_what_its_grid_would_leave_out_and_what_contradicts_itself() {
        type Change = fn(&mut Plan);
        let changes: [(Change, &str); 7] = [
            (|p| p.mirror_axes = vec![0], "source_slices"),
            (|p| p.activation = Activation::Sigmoid, "source_slices"),
            (|p| p.configuration.patch_size[0] = 225, "multiple of 16"),
            (|p| p.configuration.spacing = vec![1.0, 0.0], "above 0"),
            (|p| p.labels[0].value = 0, "value of its own"),
            (
                |p| {
                    p.labels.push(Label {
                        value: 9,
                        ..p.labels[0].clone()
                    })
                },
                "6 outputs",
            ),
            (
                |p| p.configuration.normalization_schemes.clear(),
                "input channels",
            ),
        ];
        for (change, words) in changes {
            let mut plan = shipped();
            change(&mut plan);
            let error = plan.check().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
