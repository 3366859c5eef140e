//! One analysis: DICOM instances or a NIfTI volume → findings and DICOM results.
//!
//! Six stages in a row, plain data in, plain data out; only this file knows their order.

pub mod assemble;
pub mod encode;
pub mod infer;
pub mod postprocess;
pub mod preprocess;
pub mod uncertainty;
