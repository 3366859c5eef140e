//! The flags that every command with networks shares: which models, on which device, which maps.

use anyhow::bail;
use ictus::{
    analysis::{
        encode::{MapFormat, Maps, Quantity},
        infer::Engine,
    },
    domain::device::DeviceChoice,
};
use std::path::PathBuf;

/// Which models run, and where.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EngineArgs {
    /// Where the networks run: auto, cpu or cuda.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Folder of further models; the shipped ones are in the binary.
    #[arg(long, env = "ICTUS_MODELS", value_name = "DIR")]
    models_dir: Option<PathBuf>,
    /// Ask this model too of every study that has a series for it, though its plan says that it runs only when named; several with commas between them.
    #[arg(long, env = "ICTUS_ALSO", value_name = "MODEL", value_delimiter = ',')]
    also: Vec<String>,
}

impl EngineArgs {
    /// Loads the models and holds each to its golden patch.
    pub(crate) fn start(&self) -> anyhow::Result<Engine> {
        let bundles = super::models::bundles(self.models_dir.as_deref())?;
        if let Some(unknown) = self.also().find(|id| bundles.iter().all(|b| b.plan.id != *id)) {
            bail!("--also {unknown}: no model is called so; `ictus model list` names those that are there");
        }
        Ok(Engine::start(&bundles, self.device)?)
    }

    /// The models that are asked too, though their plans wait to be named.
    pub(crate) fn also(&self) -> impl Iterator<Item = &str> {
        self.also.iter().map(|id| id.trim()).filter(|id| !id.is_empty())
    }
}

/// Which Parametric Maps are written, and how.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MapArgs {
    /// Write further maps beside the entropy's, several with commas between them.
    #[arg(long = "maps", value_delimiter = ',', value_name = "QUANTITY")]
    further: Vec<MapQuantity>,
    /// How the values of the maps are stored.
    #[arg(long, value_name = "FORMAT", default_value = "float32")]
    map_format: MapValues,
    /// The same as `--map-format float32`, which is the default.
    #[arg(long, hide = true, conflicts_with = "map_format")]
    float_maps: bool,
    /// Write the masks as a label map too (SOP class 1.2.840.10008.5.1.4.1.1.66.7).
    #[arg(long)]
    labelmap: bool,
}

impl MapArgs {
    /// What the encoder is told.
    pub(crate) fn maps(&self) -> Maps {
        Maps {
            further: self.further.iter().map(|quantity| quantity.quantity()).collect(),
            format: match self.map_format {
                MapValues::Float32 => MapFormat::Float32,
                MapValues::Uint16 => MapFormat::Unsigned16,
            },
            labelmap: self.labelmap,
            structures: true,
            summary: true,
            key_objects: true,
        }
    }
}

/// A format as it is called on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum MapValues {
    /// 32-bit float: what OHIF and dcmqi read.
    Float32,
    /// 16-bit with a real-world value mapping, RLE: what every image toolkit unpacks.
    Uint16,
}

/// A quantity as it is called on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum MapQuantity {
    /// Mean foreground score, not calibrated.
    Score,
    /// Mutual information of label and member: what the members disagree about.
    MutualInformation,
    /// Variance of the members' scores.
    Variance,
}

impl MapQuantity {
    fn quantity(self) -> Quantity {
        match self {
            Self::Score => Quantity::Score,
            Self::MutualInformation => Quantity::MutualInformation,
            Self::Variance => Quantity::Variance,
        }
    }
}
