//! A whole fabric in a directory, laid out as grids have it and as `tests/peers/make-grid-pki.sh` makes it with
//! OpenSSL: either can be given to `testgrid up --pki`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::voms::{VomsServer, carrying};
use super::{Authority, Issued, KeyKind, PkiError, ProxyOptions, pem};

/// The users of every fabric. dave's certificate is revoked; mallory's is by an authority that nobody trusts.
pub const USERS: &[&str] = &["alice", "bob", "carol", "dave", "admin", "mallory"];
/// The hosts of every fabric, besides more key stores where they are asked for.
pub const HOSTS: &[&str] = &[
    "keystore1",
    "keystore2",
    "keystore3",
    "keystore4",
    "keystore5",
    "catalog",
    "se",
];

/// The VOs of every fabric, with the hosts and ports of their (imaginary) servers.
pub const VOS: &[(&str, &str, u16)] = &[
    ("myvo", "voms.hydragrid.example", 15000),
    ("labvo", "voms.lab.hydragrid.example", 15001),
];
/// The proxies with groups and roles: name, user, VO, FQANs. All but the second VO's have `/myvo` first.
pub const MEMBERS: &[(&str, &str, &str, &[&str])] = &[
    (
        "alice",
        "alice",
        "myvo",
        &["/myvo", "/myvo/physicians", "/myvo/physicians/Role=radiologist"],
    ),
    ("alice-physician", "alice", "myvo", &["/myvo", "/myvo/physicians"]),
    ("bob", "bob", "myvo", &["/myvo", "/myvo/researchers"]),
    ("bob-labvo", "bob", "labvo", &["/labvo", "/labvo/physicians"]),
    ("dave", "dave", "myvo", &["/myvo", "/myvo/physicians"]),
    ("admin", "admin", "myvo", &["/myvo", "/myvo/Role=hydra-admin"]),
];

const BASE: &str = "/DC=org/DC=hydragrid";

/// What a fabric is to have.
#[derive(Debug, Clone, Default)]
pub struct PkiOptions {
    /// At least so many key stores; five are there anyway.
    pub stores: usize,
    /// The kind of all keys but those of proxies.
    pub key: KeyKind,
}

/// A fabric in a directory.
#[derive(Debug)]
pub struct Pki {
    directory: PathBuf,
    /// The names of `names.txt`: kind, name, DN.
    names: Vec<(String, String, String)>,
    /// Its trusted authority, where it was made by this process.
    authority: Option<Authority>,
}

impl Pki {
    /// Makes one in a directory that is empty or not there yet.
    ///
    /// # Errors
    /// [`PkiError`] where the directory has something in it or cannot be written.
    pub fn create(directory: &Path, options: &PkiOptions) -> Result<Self, PkiError> {
        make_directory(directory)?;
        let mut entries = fs::read_dir(directory).map_err(|source| file_error(directory, source))?;
        if entries.next().is_some() {
            return Err(PkiError::NotEmpty(directory.to_owned()));
        }
        let mut builder = Builder::new(directory, options)?;
        builder.hosts(options)?;
        let servers = builder.vos(options)?;
        builder.users(options, &servers)?;
        builder.trust()?;
        builder.finish()
    }

    /// Takes one that is there.
    ///
    /// # Errors
    /// [`PkiError`] where it has not what belongs to one.
    pub fn open(directory: &Path) -> Result<Self, PkiError> {
        let no_pki = |what: &str| PkiError::NoPki {
            path: directory.to_owned(),
            what: what.to_owned(),
        };
        let directory = fs::canonicalize(directory).map_err(|source| file_error(directory, source))?;
        let list = directory.join("names.txt");
        let list = fs::read_to_string(&list).map_err(|_| no_pki("there is no names.txt"))?;
        let mut names = Vec::new();
        for line in list.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split('\t').map(str::to_owned);
            match (fields.next(), fields.next(), fields.next()) {
                (Some(kind), Some(name), Some(dn)) => names.push((kind, name, dn)),
                _ => return Err(no_pki("a line of names.txt has not three fields")),
            }
        }
        let pki = Self {
            directory,
            names,
            authority: None,
        };
        for needed in [pki.certificates(), pki.host("keystore1").0, pki.proxy("alice-plain")] {
            if !needed.exists() {
                return Err(no_pki(&format!("there is no {}", needed.display())));
            }
        }
        Ok(pki)
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory of trust anchors, for `X509_CERT_DIR`.
    pub fn certificates(&self) -> PathBuf {
        self.directory.join("certificates")
    }

    /// The directory of VOMS servers, for `X509_VOMS_DIR`.
    pub fn vomsdir(&self) -> PathBuf {
        self.directory.join("vomsdir")
    }

    /// Certificate and key of a host.
    pub fn host(&self, name: &str) -> (PathBuf, PathBuf) {
        let directory = self.directory.join("hosts").join(name);
        (directory.join("hostcert.pem"), directory.join("hostkey.pem"))
    }

    /// Certificate and key of a user.
    pub fn user(&self, name: &str) -> (PathBuf, PathBuf) {
        let directory = self.directory.join("users").join(name);
        (directory.join("usercert.pem"), directory.join("userkey.pem"))
    }

    /// A credential file by its name without `.pem`, for example `alice-plain`.
    pub fn proxy(&self, name: &str) -> PathBuf {
        self.directory.join("proxies").join(format!("{name}.pem"))
    }

    /// The credential that a user works with: the proxy with groups and roles, where there is one, else the plain one.
    pub fn working_proxy(&self, user: &str) -> PathBuf {
        let member = self.proxy(user);
        if member.exists() {
            member
        } else {
            self.proxy(&format!("{user}-plain"))
        }
    }

    /// Whether alice and bob have proxies of the VO: a fabric made without VOMS has none.
    pub fn has_vo(&self) -> bool {
        ["alice", "bob"].iter().all(|user| self.proxy(user).exists())
    }

    /// The DN of a user.
    pub fn user_dn(&self, name: &str) -> Option<&str> {
        self.dn("user", name)
    }

    /// The DN of a host.
    pub fn host_dn(&self, name: &str) -> Option<&str> {
        self.dn("host", name)
    }

    fn dn(&self, kind: &str, name: &str) -> Option<&str> {
        let found = self.names.iter().find(|(k, n, _)| k == kind && n == name);
        found.map(|(_, _, dn)| dn.as_str())
    }

    /// How many key stores have a certificate.
    pub fn stores(&self) -> usize {
        (1..)
            .take_while(|n| self.host(&format!("keystore{n}")).0.exists())
            .count()
    }

    /// The trusted authority, where this process made the fabric.
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// The same, to revoke with; [`Self::write_crl`] then publishes the list.
    pub fn authority_mut(&mut self) -> Option<&mut Authority> {
        self.authority.as_mut()
    }

    /// Replaces the revocation list in the directory of trust anchors, in one step, by a new one.
    ///
    /// # Errors
    /// [`PkiError`] where this process did not make the fabric, or the list cannot be written.
    pub fn write_crl(&self) -> Result<(), PkiError> {
        let authority = self
            .authority
            .as_ref()
            .ok_or(PkiError::Crypto("sign without the authority's key"))?;
        let path = self.certificates().join("HydraTestCA.crl");
        let fresh = self.certificates().join("HydraTestCA.crl.new");
        write(&fresh, &pem("X509 CRL", &authority.crl()?), 0o644)?;
        fs::rename(&fresh, &path).map_err(|source| file_error(&path, source))
    }
}

fn file_error(path: &Path, source: std::io::Error) -> PkiError {
    PkiError::File {
        path: path.to_owned(),
        source,
    }
}

fn make_directory(path: &Path) -> Result<(), PkiError> {
    fs::create_dir_all(path).map_err(|source| file_error(path, source))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), PkiError> {
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    let mut options = fs::OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(mode).open(path);
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| file_error(path, source))
}

struct Builder {
    directory: PathBuf,
    trusted: Authority,
    untrusted: Authority,
    names: Vec<(String, String, String)>,
}

impl Builder {
    fn new(directory: &Path, options: &PkiOptions) -> Result<Self, PkiError> {
        let validity = super::Validity::lasting(std::time::Duration::from_secs(31 * 86_400));
        let trusted = Authority::with(&format!("{BASE}/CN=Hydra Test CA"), options.key, validity)?;
        let untrusted = Authority::with("/DC=org/DC=elsewhere/CN=Unknown CA", options.key, validity)?;
        let entry = |name: &str, dn: &str| ("ca".to_owned(), name.to_owned(), dn.to_owned());
        let names = vec![
            entry("trusted", trusted.name().slash()),
            entry("untrusted", untrusted.name().slash()),
        ];
        let directory = fs::canonicalize(directory).map_err(|source| file_error(directory, source))?;
        Ok(Self {
            directory,
            trusted,
            untrusted,
            names,
        })
    }

    fn hosts(&mut self, options: &PkiOptions) -> Result<(), PkiError> {
        let more = (6..=options.stores).map(|n| format!("keystore{n}"));
        for name in HOSTS.iter().map(|&name| name.to_owned()).chain(more) {
            let fqdn = format!("{name}.hydragrid.example");
            let dn = format!("{BASE}/OU=Hosts/CN={fqdn}");
            let host = self
                .trusted
                .host_with(&dn, &["localhost", &fqdn, "127.0.0.1", "::1"], options.key)?;
            let directory = self.directory.join("hosts").join(&name);
            write(&directory.join("hostcert.pem"), &host.certificate_pem(), 0o644)?;
            write(&directory.join("hostkey.pem"), &host.key().pem(), 0o600)?;
            self.names.push(("host".to_owned(), name, dn));
        }
        Ok(())
    }

    /// The servers of the VOs, with what vouches for each, and the file by which clients would find them.
    fn vos(&mut self, options: &PkiOptions) -> Result<Vec<VomsServer>, PkiError> {
        let mut servers = Vec::new();
        let mut contacts = String::new();
        for &(vo, host, port) in VOS {
            let dn = format!("{BASE}/OU=Hosts/CN={host}");
            let own = self.trusted.host_with(&dn, &[host], options.key)?;
            let directory = self.directory.join("voms").join(vo);
            write(&directory.join("hostcert.pem"), &own.certificate_pem(), 0o644)?;
            write(&directory.join("hostkey.pem"), &own.key().pem(), 0o600)?;
            let server = VomsServer::with(&self.trusted, vo, host, own);
            let lsc = self.directory.join("vomsdir").join(server.lsc_path());
            write(&lsc, &server.lsc(), 0o644)?;
            contacts.push_str(&format!("\"{vo}\" \"{host}\" \"{port}\" \"{dn}\" \"{vo}\"\n"));
            self.names.push(("voms".to_owned(), vo.to_owned(), dn));
            servers.push(server);
        }
        write(&self.directory.join("vomses"), &contacts, 0o644)?;
        Ok(servers)
    }

    fn users(&mut self, options: &PkiOptions, servers: &[VomsServer]) -> Result<(), PkiError> {
        for &name in USERS {
            let (dn, authority) = match name {
                "mallory" => ("/DC=org/DC=elsewhere/CN=mallory".to_owned(), &self.untrusted),
                _ => (format!("{BASE}/O=People/CN={name}"), &self.trusted),
            };
            let user = authority.user_with(&dn, options.key, super::Validity::usual())?;
            let directory = self.directory.join("users").join(name);
            write(&directory.join("usercert.pem"), &user.certificate_pem(), 0o644)?;
            write(&directory.join("userkey.pem"), &user.key().pem(), 0o600)?;
            self.credentials(name, &user)?;
            self.memberships(name, &user, servers)?;
            if name == "dave" {
                self.trusted.revoke(&user);
            }
            self.names.push(("user".to_owned(), name.to_owned(), dn));
        }
        Ok(())
    }

    fn credential(&self, name: &str, issued: &Issued) -> Result<(), PkiError> {
        let path = self.directory.join("proxies").join(format!("{name}.pem"));
        write(&path, &issued.credential_pem(), 0o600)
    }

    fn credentials(&self, name: &str, user: &Issued) -> Result<(), PkiError> {
        let write = |suffix: &str, issued: &Issued| self.credential(&format!("{name}-{suffix}"), issued);
        let plain = user.proxy(&ProxyOptions::default())?;
        write("eec", user)?;
        write("plain", &plain)?;
        if name == "alice" {
            write("limited", &user.proxy(&ProxyOptions::limited())?)?;
            write("plain-delegated", &plain.proxy(&ProxyOptions::default())?)?;
        }
        Ok(())
    }

    /// The proxies with groups and roles. What a VO says about a user is valid as long as the proxy that carries it.
    fn memberships(&self, name: &str, user: &Issued, servers: &[VomsServer]) -> Result<(), PkiError> {
        for (proxy, _, vo, fqans) in MEMBERS.iter().filter(|(_, of, _, _)| *of == name) {
            let Some(server) = servers.iter().find(|server| server.vo() == *vo) else {
                continue;
            };
            let mut template = server.template(user, fqans);
            template.validity = ProxyOptions::default().validity;
            let member = user.proxy(&carrying(&[server.sign(&template)?]))?;
            self.credential(proxy, &member)?;
            if *proxy == "alice" {
                self.credential("alice-delegated", &member.proxy(&ProxyOptions::default())?)?;
            }
        }
        Ok(())
    }

    /// The authorities, and the directory of trust anchors with readable names and links by hash.
    fn trust(&self) -> Result<(), PkiError> {
        for (name, authority) in [("trusted", &self.trusted), ("untrusted", &self.untrusted)] {
            let directory = self.directory.join("ca").join(name);
            write(&directory.join("ca.pem"), &authority.pem(), 0o644)?;
            write(&directory.join("ca.key"), &authority.key().pem(), 0o600)?;
            write(&directory.join("crl.pem"), &pem("X509 CRL", &authority.crl()?), 0o644)?;
        }
        let directory = self.directory.join("certificates");
        let dn = self.trusted.name().slash();
        let policy = format!(
            "# which subjects this authority may certify\n\
             access_id_CA      X509         '{dn}'\n\
             pos_rights        globus        CA:sign\n\
             cond_subjects     globus       '\"{BASE}/*\"'\n"
        );
        let namespaces = format!("# the same as namespaces\nTO Issuer \"{dn}\" \\\n  PERMIT Subject \"{BASE}/.*\"\n");
        let hash = self.trusted.name().hash();
        for (name, link, text) in [
            ("HydraTestCA.pem", "0", self.trusted.pem()),
            ("HydraTestCA.crl", "r0", pem("X509 CRL", &self.trusted.crl()?)),
            ("HydraTestCA.signing_policy", "signing_policy", policy),
            ("HydraTestCA.namespaces", "namespaces", namespaces),
        ] {
            write(&directory.join(name), &text, 0o644)?;
            let link = directory.join(format!("{hash}.{link}"));
            symlink(name, &link).map_err(|source| file_error(&link, source))?;
        }
        Ok(())
    }

    fn finish(self) -> Result<Pki, PkiError> {
        let mut list = "# subject names in slash form: kind, name, DN\n".to_owned();
        for (kind, name, dn) in &self.names {
            list.push_str(&format!("{kind}\t{name}\t{dn}\n"));
        }
        write(&self.directory.join("names.txt"), &list, 0o644)?;
        Ok(Pki {
            directory: self.directory,
            names: self.names,
            authority: Some(self.trusted),
        })
    }
}
