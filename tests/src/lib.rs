//! What the suites that need a real kernel, real routers or a real API server are built of.
//!
//! [`netns`] makes network namespaces and runs things in them; [`routers`] starts the routers that the suites talk to;
//! [`kubelab`] starts a Kubernetes API server, [`kubenode`] a node with a real kubelet; [`lab`] realises a containerlab
//! topology; [`agent`] finds the agent; [`scratch`] has directories. Everything made here is removed when its value is dropped, also when a test panics.

pub mod agent;
#[cfg(feature = "kubelab")]
pub mod kubelab;
#[cfg(feature = "kubelab")]
pub mod kubenode;
#[cfg(feature = "lab")]
pub mod lab;
pub mod netns;
pub mod routers;
pub mod scratch;
