//! Network layers.
