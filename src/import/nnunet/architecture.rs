//! The `architecture` of a configuration, or the flat keys of older plans → our [`Architecture`].

use super::{Fields, ImportError};
use crate::domain::architecture::{
    Architecture, PlainConvUNet as Plain, ResidualBlock, ResidualEncoderUNet as Residual,
};
use serde_json::{Value, json};

/// What the dataset decides about the network.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outside {
    pub(super) input_channels: usize,
    pub(super) num_classes: usize,
    pub(super) axes: usize,
}

/// Takes the architecture out of a configuration.
pub(super) fn read(c: &mut Fields, outside: Outside) -> Result<Architecture, ImportError> {
    if !c.has("architecture") {
        return read_old(c, outside);
    }
    let mut given = c.inner("architecture")?;
    given.ignore(&["_kw_requires_import"]);
    let class: String = given.take("network_class_name")?;
    let mut kwargs = given.inner("arch_kwargs")?;
    let family = match class.as_str() {
        "dynamic_network_architectures.architectures.unet.PlainConvUNet" => "PlainConvUNet",
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
        | "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet" => {
            "ResidualEncoderUNet"
        }
        _ => {
            return Err(ImportError::unsupported(
                given.place(),
                format!(
                    "network class `{class}`; this build has PlainConvUNet and ResidualEncoderUNet of dynamic_network_architectures"
                ),
            ));
        }
    };
    let n = outside.axes;
    kwargs.expect("conv_op", &[json!(format!("torch.nn.modules.conv.Conv{n}d"))])?;
    kwargs.expect(
        "norm_op",
        &[json!(format!("torch.nn.modules.instancenorm.InstanceNorm{n}d"))],
    )?;
    let mut norm = kwargs.inner("norm_op_kwargs")?;
    norm.expect("eps", &[json!(1e-5)])?;
    norm.expect("affine", &[json!(true)])?;
    norm.finish()?;
    kwargs.expect("dropout_op", &[Value::Null])?;
    kwargs.ignore(&["dropout_op_kwargs", "deep_supervision"]);
    kwargs.expect(
        "nonlin",
        &[
            json!("torch.nn.LeakyReLU"),
            json!("torch.nn.modules.activation.LeakyReLU"),
        ],
    )?;
    let mut nonlin = Fields::new(
        format!("{}, `nonlin_kwargs`", kwargs.place()),
        kwargs.maybe("nonlin_kwargs")?.unwrap_or_else(|| json!({})),
    )?;
    nonlin.ignore(&["inplace"]);
    nonlin.expect("negative_slope", &[Value::Null, json!(0.01)])?;
    nonlin.finish()?;
    kwargs.expect("nonlin_first", &[Value::Null, json!(false)])?;
    let conv_bias: bool = kwargs.maybe("conv_bias")?.unwrap_or(false);

    let n_stages: usize = kwargs.take("n_stages")?;
    let features_per_stage = kwargs.take("features_per_stage")?;
    let kernel_sizes = kwargs.take("kernel_sizes")?;
    let strides = kwargs.take("strides")?;
    let n_conv_per_stage_decoder = each(
        &mut kwargs,
        "n_conv_per_stage_decoder",
        n_stages.saturating_sub(1),
    )?;
    let architecture = if family == "PlainConvUNet" {
        Architecture::PlainConvUNet(Plain {
            input_channels: outside.input_channels,
            n_stages,
            features_per_stage,
            kernel_sizes,
            strides,
            n_conv_per_stage: each(&mut kwargs, "n_conv_per_stage", n_stages)?,
            n_conv_per_stage_decoder,
            num_classes: outside.num_classes,
            conv_bias,
            deep_supervision: true,
        })
    } else {
        kwargs.expect("block", &[Value::Null])?;
        kwargs.expect("bottleneck_channels", &[Value::Null])?;
        Architecture::ResidualEncoderUNet(Residual {
            input_channels: outside.input_channels,
            n_stages,
            features_per_stage,
            kernel_sizes,
            strides,
            n_blocks_per_stage: each(&mut kwargs, "n_blocks_per_stage", n_stages)?,
            n_conv_per_stage_decoder,
            num_classes: outside.num_classes,
            conv_bias,
            deep_supervision: true,
            block: ResidualBlock::BasicBlockD,
            bottleneck_channels: None,
            stem_channels: kwargs.maybe("stem_channels")?,
        })
    };
    kwargs.finish()?;
    given.finish()?;
    check_axes(c.place(), &architecture, n)?;
    Ok(architecture)
}

/// A number a stage, or one for all.
fn each(kwargs: &mut Fields, key: &str, stages: usize) -> Result<Vec<usize>, ImportError> {
    let value: Value = kwargs.take(key)?;
    let number = |v: &Value| v.as_u64().and_then(|n| usize::try_from(n).ok());
    let list = match &value {
        Value::Array(list) => list.iter().map(number).collect(),
        one => number(one).map(|n| vec![n; stages]),
    };
    list.ok_or_else(|| ImportError::damaged(kwargs.place(), format!("`{key}` is {value}, expected numbers")))
}

/// Plans of nnU-Net before 2.5: what `ConfigurationManager` makes of them.
fn read_old(c: &mut Fields, outside: Outside) -> Result<Architecture, ImportError> {
    let class: String = c.take("UNet_class_name")?;
    let encoder: Vec<usize> = c.take("n_conv_per_stage_encoder")?;
    let n_stages = encoder.len();
    let (base, most): (usize, usize) = (
        c.take("UNet_base_num_features")?,
        c.take("unet_max_num_features")?,
    );
    let features_per_stage = (0..n_stages)
        .map(|s| {
            let wide = u32::try_from(s).ok().and_then(|s| base.checked_shl(s));
            wide.unwrap_or(most).min(most)
        })
        .collect();
    let kernel_sizes = c.take("conv_kernel_sizes")?;
    let strides = c.take("pool_op_kernel_sizes")?;
    let n_conv_per_stage_decoder = c.take("n_conv_per_stage_decoder")?;
    c.ignore(&["num_pool_per_axis"]);
    let (input_channels, num_classes) = (outside.input_channels, outside.num_classes);
    let architecture = match class.as_str() {
        "PlainConvUNet" => Architecture::PlainConvUNet(Plain {
            input_channels,
            n_stages,
            features_per_stage,
            kernel_sizes,
            strides,
            n_conv_per_stage: encoder,
            n_conv_per_stage_decoder,
            num_classes,
            conv_bias: true,
            deep_supervision: true,
        }),
        "ResidualEncoderUNet" => Architecture::ResidualEncoderUNet(Residual {
            input_channels,
            n_stages,
            features_per_stage,
            kernel_sizes,
            strides,
            n_blocks_per_stage: encoder,
            n_conv_per_stage_decoder,
            num_classes,
            conv_bias: true,
            deep_supervision: true,
            block: ResidualBlock::BasicBlockD,
            bottleneck_channels: None,
            stem_channels: None,
        }),
        _ => {
            return Err(ImportError::unsupported(
                c.place(),
                format!("UNet_class_name `{class}`; this build knows PlainConvUNet and ResidualEncoderUNet"),
            ));
        }
    };
    check_axes(c.place(), &architecture, outside.axes)?;
    Ok(architecture)
}

fn check_axes(place: &str, architecture: &Architecture, axes: usize) -> Result<(), ImportError> {
    if architecture.spatial_dims() == axes {
        return Ok(());
    }
    Err(ImportError::damaged(
        place,
        format!(
            "patch_size has {axes} axes, kernel_sizes have {}",
            architecture.spatial_dims()
        ),
    ))
}
