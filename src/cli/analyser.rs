//! The models of this build → what the worker analyses with, and what `/api/version` says of it.

use super::engine::EngineArgs;
use ictus::{
    analysis::{
        self,
        encode::{Maps, Predecessor},
        infer::Engine,
    },
    dicom::instance::Instance,
    domain::network::Control,
    http::api::version::{ModelVersion, Version},
    worker::{Analyser, Failure, Output, Request},
};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, sync::Arc};

/// What is computed beside the networks; another name whenever the same networks give other results.
const METHOD: &[u8] = b"midline shift";

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
struct Stages {
    engine: Engine,
    /// In the order of their names.
    also: Vec<String>,
    maps: Maps,
}

impl Analyser for Stages {
    fn model_digest(&self) -> Vec<u8> {
        let mut hash = Sha256::new();
        for model in self.engine.models() {
            hash.update(model.digest);
        }
        // Another numeric mode or method may answer otherwise: it is another analysis.
        hash.update(self.engine.numeric_mode());
        hash.update(METHOD);
        for id in &self.also {
            hash.update(format!("also {id}"));
        }
        hash.finalize().to_vec()
    }

    fn calibration_digest(&self) -> Vec<u8> {
        let digests: Vec<[u8; 32]> = self
            .engine
            .models()
            .filter_map(|m| m.calibration_digest)
            .collect();
        if digests.is_empty() {
            return Vec::new();
        }
        Sha256::digest(digests.concat()).to_vec()
    }

    fn analyse(
        &self,
        instances: &[Instance],
        request: &Request,
        control: &dyn Control,
    ) -> Result<Output, Failure> {
        let request = analysis::Request {
            models: Vec::new(),
            also: self.also.clone(),
            analysis_key: request.analysis_key,
            created_at: request.created_at,
            maps: self.maps.clone(),
            predecessor: request.previous_report.as_ref().map(|report| Predecessor {
                series_instance_uid: report.series_instance_uid.clone(),
                sop_instance_uid: report.sop_instance_uid.clone(),
            }),
        };
        let done = analysis::run(instances, &self.engine, &request, control).map_err(|error| Failure {
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
pub(crate) fn load(args: &EngineArgs, maps: Maps) -> anyhow::Result<Analysers> {
    let engine = args.start()?;
    let also: BTreeSet<String> = args.also().map(str::to_owned).collect();
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
        worker: Some(Arc::new(Stages {
            engine,
            also: also.into_iter().collect(),
            maps,
        })),
        version,
    })
}
