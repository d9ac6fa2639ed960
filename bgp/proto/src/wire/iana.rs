//! Code points of the IANA registries that Plainroute knows, each once.
