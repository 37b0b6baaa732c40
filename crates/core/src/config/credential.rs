//! Where the caller's certificate lies: the order of the grid's own tools (`docs/src/credentials.md`).

use std::path::{Path, PathBuf};

use super::load::Surroundings;

/// The files of a credential, and what named them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFiles {
    /// A proxy, or certificate and key.
    pub kind: CredentialKind,
    /// What led there, for `eds-check`: a variable or a default place.
    pub origin: &'static str,
}

/// In which form a credential lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// Certificates and key in one file.
    Proxy(PathBuf),
    /// Certificate and key apart; the key may be encrypted.
    CertAndKey {
        /// The certificate.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// Why there is no credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FindError {
    /// A variable names a file that is not there.
    #[error("{variable} names `{}`, which is not there", path.display())]
    Missing {
        /// The variable.
        variable: &'static str,
        /// What it says.
        path: PathBuf,
    },
    /// Nothing anywhere.
    #[error("no credential found (looked at {})", looked_at.join(", "))]
    None {
        /// Where it was looked for.
        looked_at: Vec<String>,
    },
}

/// Finds the caller's credential: `X509_USER_PROXY`, the default place of proxies, `X509_USER_CERT` with
/// `X509_USER_KEY`, `~/.globus`.
///
/// # Errors
/// Where a variable names what is not there (another credential would be a surprise), or nothing is found.
pub fn find(around: &Surroundings) -> Result<CredentialFiles, FindError> {
    if let Some(path) = around.variable("X509_USER_PROXY").map(PathBuf::from) {
        let path = present(path, "X509_USER_PROXY")?;
        return Ok(CredentialFiles {
            kind: CredentialKind::Proxy(path),
            origin: "X509_USER_PROXY",
        });
    }
    let proxy = around.proxy_folder.join(format!("x509up_u{}", around.uid));
    if proxy.exists() {
        return Ok(CredentialFiles {
            kind: CredentialKind::Proxy(proxy),
            origin: "the default place of proxies",
        });
    }
    let globus = around.home().map(|home| home.join(".globus"));
    let in_globus = |name: &str| globus.as_deref().map(|folder| folder.join(name));
    let named = |variable| around.variable(variable).map(PathBuf::from);
    let (cert, key) = (named("X509_USER_CERT"), named("X509_USER_KEY"));
    if cert.is_some() || key.is_some() {
        let cert = cert.or_else(|| in_globus("usercert.pem")).unwrap_or_default();
        let key = key.or_else(|| in_globus("userkey.pem")).unwrap_or_default();
        let kind = CredentialKind::CertAndKey {
            cert: present(cert, "X509_USER_CERT")?,
            key: present(key, "X509_USER_KEY")?,
        };
        return Ok(CredentialFiles {
            kind,
            origin: "X509_USER_CERT and X509_USER_KEY",
        });
    }
    if let (Some(cert), Some(key)) = (in_globus("usercert.pem"), in_globus("userkey.pem"))
        && cert.exists()
        && key.exists()
    {
        let kind = CredentialKind::CertAndKey { cert, key };
        return Ok(CredentialFiles {
            kind,
            origin: "~/.globus",
        });
    }
    let mut looked_at = vec![
        "X509_USER_PROXY".to_owned(),
        proxy.display().to_string(),
        "X509_USER_CERT".to_owned(),
    ];
    looked_at.extend(in_globus("usercert.pem").map(|path| path.display().to_string()));
    Err(FindError::None { looked_at })
}

fn present(path: PathBuf, variable: &'static str) -> Result<PathBuf, FindError> {
    if Path::exists(&path) {
        Ok(path)
    } else {
        Err(FindError::Missing { variable, path })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::ffi::OsString;
    use std::fs;

    use super::*;

    #[test]
    fn the_order_is_the_grids_own() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut variables = HashMap::<String, OsString>::new();
        variables.insert("HOME".into(), folder.path().into());
        let found = |variables: &HashMap<String, OsString>| {
            let variables = variables.clone();
            let mut around = Surroundings::with_variables(move |name| variables.get(name).cloned());
            around.proxy_folder = folder.path().to_owned();
            around.uid = 1234;
            find(&around)
        };
        assert!(matches!(found(&variables), Err(FindError::None { looked_at }) if looked_at.len() == 4));

        fs::create_dir(at(".globus")).unwrap();
        fs::write(at(".globus/usercert.pem"), "").unwrap();
        assert!(found(&variables).is_err());
        fs::write(at(".globus/userkey.pem"), "").unwrap();
        assert_eq!(found(&variables).unwrap().origin, "~/.globus");

        variables.insert("X509_USER_CERT".into(), at("cert.pem").into());
        let missing = FindError::Missing {
            variable: "X509_USER_CERT",
            path: at("cert.pem"),
        };
        assert_eq!(found(&variables), Err(missing));
        fs::write(at("cert.pem"), "").unwrap();
        let kind = CredentialKind::CertAndKey {
            cert: at("cert.pem"),
            key: at(".globus/userkey.pem"),
        };
        assert_eq!(found(&variables).unwrap().kind, kind);

        fs::write(at("x509up_u1234"), "").unwrap();
        assert_eq!(
            found(&variables).unwrap().kind,
            CredentialKind::Proxy(at("x509up_u1234"))
        );

        variables.insert("X509_USER_PROXY".into(), at("proxy").into());
        assert!(matches!(
            found(&variables),
            Err(FindError::Missing {
                variable: "X509_USER_PROXY",
                ..
            })
        ));
        fs::write(at("proxy"), "").unwrap();
        assert_eq!(found(&variables).unwrap().kind, CredentialKind::Proxy(at("proxy")));
    }
}
