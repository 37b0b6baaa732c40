//! The other names of our programs, the original's among them, told apart by `argv[0]`. A test compares them with the
//! programs' own.

/// A name, and the program that answers to it.
pub const ALIASES: &[(&str, &str)] = &[
    ("glite-ssss-split-passwd", "ssss-split"),
    ("glite-ssss-split-key", "ssss-split"),
    ("glite-ssss-generate-key", "ssss-split"),
    ("glite-ssss-join-passwd", "ssss-join"),
    ("glite-ssss-join-key", "ssss-join"),
    ("glite-eds-key-register", "eds-key-register"),
    ("glite-eds-key-unregister", "eds-key-unregister"),
    ("glite-eds-put", "eds-put"),
    ("glite-eds-rm", "eds-rm"),
    ("glite-eds-encrypt", "eds-encrypt"),
    ("glite-eds-get", "eds-get"),
    ("glite-eds-decrypt", "eds-decrypt"),
    ("glite-eds-getacl", "eds-getacl"),
    ("glite-eds-setacl", "eds-setacl"),
    ("glite-eds-chmod", "eds-chmod"),
    ("lcg-cp", "mdm"),
    ("lcg-cr", "mdm"),
    ("lcg-del", "mdm"),
    ("lcg-gt", "mdm"),
    ("lcg-la", "mdm"),
    ("lcg-lg", "mdm"),
    ("lcg-lr", "mdm"),
    ("lcg-rep", "mdm"),
    ("mdcli", "mdm"),
    ("mdm-find", "mdm"),
    ("mdm-get", "mdm"),
    ("mdm-getacl", "mdm"),
    ("mdm-ls", "mdm"),
    ("mdm-mkdir", "mdm"),
    ("mdm-register", "mdm"),
    ("mdm-rm", "mdm"),
    ("mdm-schema", "mdm"),
    ("mdm-set", "mdm"),
    ("mdm-setacl", "mdm"),
    ("mdm-show", "mdm"),
    ("mdm-withdraw", "mdm"),
];

/// Packages whose programs are one program by several names: each of them does what it is called by.
pub const ONE_PROGRAM: &[&str] = &["hydra-eds-eds", "hydra-eds-ssss"];
