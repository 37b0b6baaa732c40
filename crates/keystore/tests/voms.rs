//! Groups and roles at a running store: they may create, and who presents bad ones is still known by DN.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grid_identity::{Credential, Policy, TrustStore, tls};
use serde_json::{Value, json};
use testgrid::pki::voms::VomsServer;
use testgrid::pki::{Issued, Pki, PkiOptions};
use testgrid::{Grid, GridOptions};

fn client(pki: &Pki, path: &Path, issued: &Issued) -> reqwest::Client {
    std::fs::write(path, issued.credential_pem()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let credential = Credential::from_file(path, None).unwrap();
    let trust = TrustStore::directory(pki.certificates(), Policy::client(false)).unwrap();
    let config = tls::client_config(&credential, Arc::new(trust)).unwrap();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(config);
    builder.build().unwrap()
}

async fn get(url: &str, client: &reqwest::Client, path: &str) -> Value {
    let answer = client.get(format!("{url}{path}")).send().await.unwrap();
    answer.json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_may_create_and_a_forged_one_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::create(&folder.path().join("pki"), &PkiOptions::default()).unwrap();
    let authority = pki.authority().unwrap();
    let server = VomsServer::new(authority, "labvo", "voms.lab.hydragrid.example").unwrap();
    let lsc = pki.vomsdir().join(server.lsc_path());
    std::fs::create_dir_all(lsc.parent().unwrap()).unwrap();
    std::fs::write(lsc, server.lsc()).unwrap();
    let options = GridOptions {
        stores: 1,
        threshold: 1,
        commands: false,
        pki: Some(pki.directory().to_owned()),
        programs: Path::new(env!("CARGO_BIN_EXE_hydra-keystore"))
            .parent()
            .map(PathBuf::from),
        store_settings: "[[create]]\nprefix = \"/labvo/\"\nprincipal = \"/labvo/Role=writer\"\n".to_owned(),
        ..GridOptions::default()
    };
    let grid = Grid::up(&folder.path().join("grid"), &options).unwrap();
    let url = grid.urls().remove(0);
    let dn = pki.user_dn("carol").unwrap();
    let carol = authority.user(dn).unwrap();
    let path = folder.path().join("proxy.pem");
    let writer = client(
        &pki,
        &path,
        &server.proxy(&carol, &["/labvo", "/labvo/Role=writer"]).unwrap(),
    );
    let mut forged = server.template(&carol, &["/labvo/Role=writer"]);
    forged.holder_serial += 1;
    let forged = server.sign(&forged).unwrap();
    let forger = client(
        &pki,
        &path,
        &carol.proxy(&testgrid::pki::voms::carrying(&[forged])).unwrap(),
    );

    let who = get(&url, &writer, "/v1/whoami").await;
    assert_eq!(who["fqans"], json!(["/labvo", "/labvo/Role=writer"]));
    assert_eq!(who.get("voms_error"), None);
    let seen = get(&url, &forger, "/v1/whoami").await;
    assert_eq!((&seen["dn"], &seen["fqans"]), (&json!(dn), &json!([])));
    assert!(
        seen["voms_error"].as_str().unwrap().contains("another certificate"),
        "{seen}"
    );

    let create = |key_id: &str| {
        json!({ "items": [{ "key_id": key_id, "registration_id": "a478c320e060bd896e11e69db3929aa5",
            "cipher": "eds-1", "key_bits": 256,
            "sharing": { "generation": 1, "m": 1, "n": 1, "stores": [who["store"]], "check": "07".repeat(32) },
            "share": { "scheme": "gf256-1", "index": 1, "m": 1, "n": 1, "data": data_encoding::BASE64.encode(&[7; 64]) },
            "permissions": { "owner": dn, "group": "/labvo", "user": "pdrwl-gs",
                "group_permissions": "--------", "other": "--------", "acl": [], "version": 1,
                "change_id": "00112233445566778899aabbccddeeff" } }] })
    };
    let post = async |client: &reqwest::Client, key_id: &str| -> Value {
        let request = client.post(format!("{url}/v1/entries/create"));
        let request = request.header("content-type", "application/json");
        let answer = request.body(create(key_id).to_string()).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["items"][0].clone()
    };
    assert!(post(&forger, "/labvo/a").await.get("problem").is_some());
    assert!(post(&writer, "/myvo/a").await.get("problem").is_some());
    assert_eq!(post(&writer, "/labvo/a").await["status"], "ok");
    let log = std::fs::read_to_string(grid.store_log(1)).unwrap();
    assert!(log.contains("attribute certificate refused"), "{log}");
    // In the audit log too, once for a connection, whatever else is asked on it.
    let config = grid.store_directory(1).join("hydra-keystore.toml");
    let lines = std::process::Command::new(env!("CARGO_BIN_EXE_hydra-keystore"))
        .args(["audit", "show"])
        .arg(config)
        .output()
        .unwrap();
    let lines = String::from_utf8(lines.stdout).unwrap();
    let refused = lines
        .lines()
        .filter(|line| line.contains("\"voms\""))
        .collect::<Vec<_>>();
    assert!(
        refused.len() == 1 && refused[0].contains("another certificate"),
        "{lines}"
    );
}
