//! What the configurations of all servers have: certificates and trust, creation rules, administrators, the monitor's
//! address. Faults are told all at once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grid_identity::chain::OldProxies;
use grid_identity::{Policy, TrustStore, Voms, tls};
use hydra_core::permissions::Caller;
use serde::Deserialize;

use crate::principal;

/// The host's certificate, and whom it trusts.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// PEM, the host's first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// Hashed certificates, revocation lists and signing policies.
    pub ca_dir: Option<PathBuf>,
    /// All of them in one file.
    pub ca_file: Option<PathBuf>,
    /// LSC files, which say whose VOMS servers to believe for which VO.
    pub voms_dir: Option<PathBuf>,
    /// Accept the first Globus proxies (`CN=proxy`), which nothing but their name marks.
    pub legacy_proxies: bool,
    /// Accept proxies after the drafts of RFC 3820.
    pub draft_proxies: bool,
}

impl Tls {
    /// Where LSC files are looked for.
    pub fn voms_dir(&self) -> &Path {
        self.voms_dir
            .as_deref()
            .unwrap_or(Path::new(grid_identity::Voms::DIRECTORY))
    }

    /// With paths that start from `folder`; what is missing is told to `faults`.
    #[must_use]
    pub fn checked(self, faults: &mut Vec<String>, folder: &Path) -> Self {
        let tls = self;
        let join = |path: PathBuf| folder.join(path);
        if tls.ca_dir.is_some() == tls.ca_file.is_some() {
            faults.push("give one of `tls.ca_dir` and `tls.ca_file`".into());
        }
        let tls = Tls {
            certificate: join(tls.certificate),
            key: join(tls.key),
            ca_dir: tls.ca_dir.map(join),
            ca_file: tls.ca_file.map(join),
            voms_dir: tls.voms_dir.map(join),
            ..tls
        };
        let files = [
            ("tls.certificate", Some(&tls.certificate)),
            ("tls.key", Some(&tls.key)),
            ("tls.ca_file", tls.ca_file.as_ref()),
        ];
        for (name, path) in files {
            if path.is_some_and(|path| !path.is_file()) {
                let path = path.map(|path| path.display().to_string()).unwrap_or_default();
                faults.push(format!("`{name}`: no file `{path}`"));
            }
        }
        for (name, folder) in [("tls.ca_dir", &tls.ca_dir), ("tls.voms_dir", &tls.voms_dir)] {
            if let Some(folder) = folder.as_ref().filter(|folder| !folder.is_dir()) {
                faults.push(format!("`{name}`: no folder `{}`", folder.display()));
            }
        }
        tls
    }

    /// Opens the trust anchors, with the VOMS servers that are believed.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn trust(&self) -> Result<Arc<TrustStore>, TlsError> {
        let policy = Policy::server().with_old_proxies(OldProxies {
            legacy: self.legacy_proxies,
            draft: self.draft_proxies,
        });
        let opened = match (&self.ca_dir, &self.ca_file) {
            (Some(folder), _) => TrustStore::directory(folder, policy),
            (None, file) => TrustStore::file(file.clone().unwrap_or_default(), policy),
        };
        let trust = opened?;
        let hosts = tls::host_names(&self.certificate)?;
        let voms = Voms::directory(self.voms_dir()).for_hosts(hosts);
        Ok(Arc::new(trust.with_voms(voms)))
    }

    /// What the listener presents, and whom it asks for a certificate.
    ///
    /// # Errors
    /// [`TlsError`]
    pub fn server_config(&self, trust: Arc<TrustStore>) -> Result<rustls::ServerConfig, TlsError> {
        let mut server = tls::server_config(&self.certificate, &self.key, trust)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(server)
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The trust anchors.
    #[error(transparent)]
    Trust(#[from] grid_identity::trust::TrustError),
    /// The host's certificate.
    #[error(transparent)]
    Host(#[from] tls::TlsError),
}

/// Who may create under a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CreationRule {
    /// `""` matches everything.
    pub prefix: String,
    /// A DN or an FQAN.
    pub principal: String,
}

impl CreationRule {
    /// Reads `PREFIX=PRINCIPAL`, as an option gives it. A DN has `=` in it, a principal begins with a slash: the first
    /// `=/` parts the two.
    pub fn of_option(text: &str) -> Option<(String, String)> {
        let (prefix, principal) = text.split_once("=/").filter(|(_, principal)| !principal.is_empty())?;
        Some((prefix.to_owned(), format!("/{principal}")))
    }

    /// With the principal in the one form that is compared.
    #[must_use]
    pub fn canonical(self) -> Self {
        let principal = principal::canonical(&self.principal);
        Self { principal, ..self }
    }
}

/// Liveness, readiness and metrics.
#[derive(Debug, Clone, Deserialize)]
pub struct Monitor {
    /// Where; without TLS, so on loopback or a network of its own.
    pub listen: String,
}

/// Where monitoring asks.
pub fn monitor(faults: &mut Vec<String>, given: Option<Monitor>) -> Option<SocketAddr> {
    given.and_then(|monitor| {
        required(faults, "monitor.listen", Some(monitor.listen), |text| {
            text.parse::<SocketAddr>().ok()
        })
    })
}

/// Creation rules in the form that is compared.
pub fn creation_rules(faults: &mut Vec<String>, given: Vec<CreationRule>) -> Vec<CreationRule> {
    for (number, rule) in given.iter().enumerate() {
        if !is_principal(&rule.principal) {
            faults.push(format!(
                "create rule {}: `{}` is no DN or FQAN",
                number + 1,
                rule.principal
            ));
        }
    }
    given.into_iter().map(CreationRule::canonical).collect()
}

/// Administrators in the form that is compared.
pub fn administrators(faults: &mut Vec<String>, given: &[String]) -> Vec<String> {
    for principal in given.iter().filter(|principal| !is_principal(principal)) {
        faults.push(format!("administrators: `{principal}` is no DN or FQAN"));
    }
    given.iter().map(|text| principal::canonical(text)).collect()
}

/// The caller behind a verified identity.
pub fn caller(administrators: &[String], identity: &grid_identity::Identity) -> Caller {
    let mut caller = Caller {
        dn: identity.dn.clone(),
        fqans: identity.fqans.clone(),
        administrator: false,
    };
    caller.administrator = administrators.iter().any(|principal| caller.is(principal));
    caller
}

/// Whether a text is a DN or an FQAN: both begin with a slash; neither is empty or has control characters.
pub fn is_principal(text: &str) -> bool {
    text.len() > 1 && text.starts_with('/') && !text.chars().any(char::is_control)
}

/// Reads a setting that must be there.
pub fn required<T>(
    faults: &mut Vec<String>,
    name: &str,
    given: Option<String>,
    read: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    let Some(text) = given else {
        faults.push(format!("`{name}` is missing"));
        return None;
    };
    let value = read(&text);
    if value.is_none() {
        faults.push(format!("`{name}`: `{text}` is not valid"));
    }
    value
}
