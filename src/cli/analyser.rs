//! The models of this build → what the worker analyses with, and what `/api/version` says of it.

use ictus::{
    analysis::{
        self,
        encode::{MapFormat, Predecessor},
        infer::Engine,
    },
    dicom::instance::Instance,
    domain::{device::DeviceChoice, network::Control},
    http::api::version::{ModelVersion, Version},
    worker::{Analyser, Failure, Output, Request},
};
use sha2::{Digest, Sha256};
use std::{path::Path, sync::Arc};

/// What a process analyses with.
pub(crate) struct Analysers {
    /// Nothing when the process only serves.
    pub(crate) worker: Option<Arc<dyn Analyser>>,
    /// Build and models.
    pub(crate) version: Version,
}

impl Analysers {
    /// For a process that only serves.
    pub(crate) fn none() -> Self {
        Self {
            worker: None,
            version: Version::new(Vec::new(), None),
        }
    }
}

/// The six stages with their models.
struct Stages(Engine);

impl Analyser for Stages {
    fn model_digest(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        for model in self.0.models() {
            hash.update(model.digest);
        }
        // Another numeric mode may answer otherwise: it is another analysis.
        hash.update(self.0.numeric_mode());
        hash.finalize().to_vec()
    }

    fn calibration_digest(&self) -> Vec<u8> {
        // No model has a calibration yet.
        Vec::new()
    }

    fn analyse(
        &self,
        instances: &[Instance],
        request: &Request,
        control: &dyn Control,
    ) -> Result<Output, Failure> {
        let request = analysis::Request {
            models: Vec::new(),
            analysis_key: request.analysis_key,
            created_at: request.created_at,
            map_format: MapFormat::default(),
            predecessor: request.previous_report.as_ref().map(|report| Predecessor {
                series_instance_uid: report.series_instance_uid.clone(),
                sop_instance_uid: report.sop_instance_uid.clone(),
            }),
        };
        let done = analysis::run(instances, &self.0, &request, control).map_err(|error| Failure {
            class: error.class(),
            code: error.code().to_owned(),
            text: error.to_string(),
        })?;
        Ok(Output {
            report: done.report,
            objects: done.objects,
        })
    }
}

/// Loads the models and holds each to its golden patch.
pub(crate) fn load(device: DeviceChoice, models: Option<&Path>) -> anyhow::Result<Analysers> {
    let engine = Engine::start(&super::models::bundles(models)?, device)?;
    let models = engine.models().map(|m| ModelVersion {
        id: m.plan.id.clone(),
        version: m.plan.version.clone(),
        weights_sha256: m.weights_sha256.clone(),
    });
    let version = Version::new(models.collect(), Some(engine.numeric_mode().to_owned()));
    if version.models.is_empty() {
        tracing::warn!("there is no model: studies are stored and shown, and nothing is analysed");
        return Ok(Analysers {
            worker: None,
            version,
        });
    }
    Ok(Analysers {
        worker: Some(Arc::new(Stages(engine))),
        version,
    })
}
