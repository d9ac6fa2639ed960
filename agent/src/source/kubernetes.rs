//! The Kubernetes source: watches of the API server.
