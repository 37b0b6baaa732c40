//! The whole story of `cargo demo --story`, over real servers: Orthanc, three key stores, the catalogue, XRootD.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::path::Path;

use hydra_tests::program;
use hydra_xtask::demo_story;
use hydra_xtask::workspace::Workspace;

#[test]
fn peer_orthanc_and_xrootd_an_image_is_registered_found_got_identified_and_withdrawn() {
    let mdm = program("mdm");
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let workspace = Workspace::at(root, mdm.parent().unwrap());
    if let Err(error) = demo_story::tell(&workspace, false) {
        panic!("{error}");
    }
}
