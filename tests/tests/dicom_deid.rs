//! `dicom-deid` with its secret from the stores: registered, fetched, refused like any key.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::sync::LazyLock;

use hydra_tests::desk::SharedGrid;
use hydra_xtask::dicom::{INVENTED, ct_slice};
use testgrid::GridOptions;

static GRID: LazyLock<SharedGrid> = LazyLock::new(|| SharedGrid::up(&GridOptions::default()));

#[test]
fn the_secret_is_a_registered_key() {
    let desk = GRID.desk("alice");
    desk.write("scan.dcm", ct_slice(&INVENTED, [1, 2, 3, 4]));
    let _ = desk.run("eds-key-register /eds/deid/one").exits(0);
    let _ = desk.run("eds-key-register /eds/deid/two").exits(0);
    let _ = desk
        .run("dicom-deid --secret-key /eds/deid/one scan.dcm a.dcm")
        .exits(0);
    let _ = desk
        .run("dicom-deid --secret-key /eds/deid/one scan.dcm b.dcm")
        .exits(0);
    let _ = desk
        .run("dicom-deid --secret-key /eds/deid/two scan.dcm c.dcm")
        .exits(0);
    let (a, b, c) = (desk.read("a.dcm"), desk.read("b.dcm"), desk.read("c.dcm"));
    assert!(a == b, "the same secret gives the same bytes");
    assert!(a != c, "another secret gives other UIDs");
    let text = String::from_utf8_lossy(&a).to_lowercase();
    for gone in ["feldmann", "kh-0047", "19610228", "nowhere"] {
        assert!(!text.contains(gone), "{gone}");
    }
    let _ = desk.run("dicom-deid check scan.dcm a.dcm").exits(0);
    // the key is a key: somebody else may not have it, and what is not there is not told from it
    let carol = GRID.desk("carol");
    carol.write("scan.dcm", ct_slice(&INVENTED, [1, 2, 3, 4]));
    for key_id in ["/eds/deid/one", "/eds/deid/none"] {
        let _ = carol
            .run(&format!("dicom-deid --secret-key {key_id} scan.dcm a.dcm"))
            .exits(77);
    }
    assert!(!carol.names().contains(&"a.dcm".to_owned()));
}
