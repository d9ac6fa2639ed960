//! x

pub mod kubelab;
