//! A grid of one store, clients of it, and the program itself.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use grid_identity::{Credential, Policy, TrustStore, tls};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde_json::{Value, json};
use testgrid::pki::Issued;
use testgrid::{Grid, GridOptions};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_hydra-keystore");
pub(crate) const R1: &str = "a478c320e060bd896e11e69db3929aa5";

/// Runs the program: exit code, standard output, standard error.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub(crate) fn grid(folder: &Path, settings: &str) -> Grid {
    let options = GridOptions {
        stores: 1,
        threshold: 1,
        commands: false,
        programs: Path::new(PROGRAM).parent().map(PathBuf::from),
        store_settings: settings.to_owned(),
        ..GridOptions::default()
    };
    Grid::up(&folder.join("grid"), &options).unwrap()
}

pub(crate) fn config(grid: &Grid) -> String {
    let path = grid.store_directory(1).join("hydra-keystore.toml");
    path.to_str().unwrap().to_owned()
}

fn tls_config(grid: &Grid, credential: &Path) -> ClientConfig {
    let credential = Credential::from_file(credential, None).unwrap();
    let trust = TrustStore::directory(grid.pki().unwrap().certificates(), Policy::client(false)).unwrap();
    tls::client_config(&credential, Arc::new(trust)).unwrap()
}

#[derive(Debug)]
struct Presents(Arc<CertifiedKey>);

impl rustls::client::ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A store and somebody who talks to it.
pub(crate) struct Client {
    http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) dn: String,
    pub(crate) store: String,
}

impl Client {
    pub(crate) async fn new(grid: &Grid, user: &str) -> Self {
        Self::with_proxy(grid, &grid.pki().unwrap().working_proxy(user)).await
    }

    pub(crate) async fn with_proxy(grid: &Grid, proxy: &Path) -> Self {
        let mut client = Self::over(grid, proxy);
        let who = client.get("/v1/whoami").await.unwrap();
        client.dn = who["dn"].as_str().unwrap().to_owned();
        client.store = who["store"].as_str().unwrap().to_owned();
        client
    }

    /// One that has not said a word yet, and may not get in.
    fn over(grid: &Grid, credential: &Path) -> Self {
        Self::of(grid, tls_config(grid, credential))
    }

    /// Presents whatever chain is given, also one that no credential of ours would be made of.
    pub(crate) fn presenting(grid: &Grid, good: &Path, issued: &Issued) -> Self {
        let chain = issued
            .chain()
            .iter()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let key = PrivateKeyDer::from_pem_slice(issued.key().pem().as_bytes()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let mut config = tls_config(grid, good);
        config.client_auth_cert_resolver = Arc::new(Presents(Arc::new(CertifiedKey::new(chain, key))));
        Self::of(grid, config)
    }

    fn of(grid: &Grid, config: ClientConfig) -> Self {
        let http = reqwest::Client::builder().tls_backend_preconfigured(config);
        Self {
            http: http.build().unwrap(),
            url: grid.urls().remove(0),
            dn: String::new(),
            store: String::new(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await.ok()?;
        answer.json().await.ok()
    }

    pub(crate) async fn post(&self, operation: &str, items: &Value) -> Option<Vec<Value>> {
        let request = self.http.post(format!("{}/v1/entries/{operation}", self.url));
        let request = request.header("content-type", "application/json");
        let answer = request.body(json!({ "items": items }).to_string()).send().await.ok()?;
        Some(answer.json::<Value>().await.ok()?["items"].as_array()?.clone())
    }

    /// The status of one item, or the last word of its problem.
    pub(crate) async fn said(&self, operation: &str, item: Value) -> String {
        let answer = self.post(operation, &json!([item])).await.unwrap().remove(0);
        let said = answer.get("status").or_else(|| answer["problem"].get("type")).unwrap();
        said.as_str().unwrap().replace("urn:hydra-eds:problem:", "!")
    }

    fn sharing(&self) -> Value {
        json!({ "generation": 1, "m": 1, "n": 1, "stores": [self.store], "check": "07".repeat(32) })
    }

    pub(crate) fn create(&self, key_id: &str) -> Value {
        json!({ "key_id": key_id, "registration_id": R1, "cipher": "eds-1", "key_bits": 256,
            "sharing": self.sharing(),
            "share": { "scheme": "gf256-1", "index": 1, "m": 1, "n": 1,
                "data": data_encoding::BASE64.encode(&[7; 64]) },
            "permissions": { "owner": self.dn, "group": "default-group", "user": "pdrwl-gs",
                "group_permissions": "--------", "other": "--------", "acl": [], "version": 1,
                "change_id": "00112233445566778899aabbccddeeff" } })
    }

    pub(crate) fn confirm(&self, key_id: &str) -> Value {
        json!({ "key_id": key_id, "registration_id": R1, "sharing": self.sharing() })
    }

    /// Creates and confirms.
    pub(crate) async fn register(&self, key_id: &str) {
        assert_eq!(self.said("create", self.create(key_id)).await, "ok");
        assert_eq!(self.said("confirm", self.confirm(key_id)).await, "ok");
    }
}

pub(crate) fn key(key_id: &str) -> Value {
    json!({ "key_id": key_id })
}

pub(crate) fn of(key_id: &str) -> Value {
    json!({ "key_id": key_id, "registration_id": R1 })
}
