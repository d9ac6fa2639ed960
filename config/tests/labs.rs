//! What the labs hand to the agent is a valid config.
use std::{fs, path::PathBuf};

use plainroute_config::load;

#[test]
fn every_labs_manifests_load_together() {
    let labs = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../labs"));
    let mut manifests: Vec<_> =
        fs::read_dir(labs).unwrap().map(|lab| lab.unwrap().path().join("manifests")).collect();
    manifests.retain(|path| path.is_dir());
    assert!(!manifests.is_empty(), "there are labs");
    for path in manifests {
        let loaded = load(&[&path]).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(!loaded.objects.is_empty(), "{}", path.display());
    }
}
