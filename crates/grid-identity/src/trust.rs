//! Whom to believe: authorities, their revocation lists and signing policies, and the verification of chains by them.
//!
//! A directory is laid out as grids and OpenSSL do it: `HASH.0` certificates, `HASH.r0` revocation lists,
//! `HASH.signing_policy`, `HASH.namespaces`. The hash is a way to find a file and proves nothing: which authority a
//! file belongs to is read in it. Files that change are read again without a restart, looked at now and then rather
//! than for each request. Only self-issued authorities end a path; others in the directory help to build it, so that
//! a revoked one below is noticed.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter,
    KeyUsage, RevocationOptionsBuilder, UnknownStatusPolicy,
};

use crate::certificate::Certificate;
use crate::chain::{self, ChainError, Identity, Method, OldProxies, Parts};
use crate::crl::{self, Crl};
use crate::signing_policy::{self, Rule};
use crate::voms::{Attributes, Voms};
use crate::{asn1, pem, time, tls};

/// What is asked of an authority besides its certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether a missing or expired revocation list refuses the chain.
    pub require_crl: bool,
    /// Whether a missing signing policy refuses the chain.
    pub require_signing_policy: bool,
    /// Which proxies from before RFC 3820 clients may present.
    pub old_proxies: OldProxies,
}

impl Policy {
    /// For servers: what cannot be checked is refused.
    pub fn server() -> Self {
        Self {
            require_crl: true,
            require_signing_policy: true,
            old_proxies: OldProxies::default(),
        }
    }

    /// The same, and accepts proxies from before RFC 3820 from clients.
    #[must_use]
    pub fn with_old_proxies(self, old_proxies: OldProxies) -> Self {
        Self { old_proxies, ..self }
    }

    /// For clients: what is there is checked; revocation lists must be there where `require_crl` says so.
    pub fn client(require_crl: bool) -> Self {
        Self {
            require_crl,
            require_signing_policy: false,
            old_proxies: OldProxies::default(),
        }
    }
}

/// Why trust anchors cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// The directory or file cannot be read.
    #[error("cannot read trust anchors from `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no usable authority.
    #[error("there is no certificate of an authority in `{}`", path.display())]
    Nothing {
        /// Where.
        path: PathBuf,
    },
}

/// A file among the trust anchors that is not used, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it, as a predicate or a sentence without a full stop.
    pub what: String,
}

#[derive(Debug, Clone)]
enum Source {
    Directory(PathBuf),
    File(PathBuf),
}

impl Source {
    fn path(&self) -> &Path {
        match self {
            Self::Directory(path) | Self::File(path) => path,
        }
    }
}

/// Trust anchors with all that belongs to them, read again when their files change.
pub struct TrustStore {
    source: Source,
    policy: Policy,
    interval: Duration,
    voms: Option<Voms>,
    loaded: RwLock<Arc<Loaded>>,
    watch: Mutex<Watch>,
}

struct Watch {
    looked: Instant,
    stamps: Vec<Stamp>,
}

/// What tells that a file is another than it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What was read, all of one moment.
struct Loaded {
    generation: u64,
    authorities: Vec<Certificate>,
    anchors: Vec<TrustAnchor<'static>>,
    intermediates: Vec<Certificate>,
    crls: Vec<Crl>,
    globus: Vec<Rule>,
    namespaces: Vec<Rule>,
    problems: Vec<Problem>,
}

/// A chain that verified, remembered to be checked again for each request on a connection that is kept.
pub struct VerifiedChain {
    chain: Vec<CertificateDer<'static>>,
    good: Mutex<Good>,
}

/// Whose a chain is, and from when to when and with which reading of the files that is known.
#[derive(Debug, Clone)]
struct Good {
    identity: Arc<Identity>,
    generation: Generation,
    from: i64,
    to: i64,
}

/// Which reading of the trust anchors and of the LSC files.
type Generation = (u64, u64);

impl VerifiedChain {
    /// Whose it is, as the last check found it.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&lock(&self.good).identity)
    }
}

impl std::fmt::Debug for VerifiedChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifiedChain")
            .field("identity", &self.identity())
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for TrustStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrustStore")
            .field("source", &self.source)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// What a chain is to be good for.
enum Purpose<'a> {
    Client,
    Server(&'a ServerName<'a>),
    /// Signing attribute certificates.
    Attributes,
}

/// Which purposes a certificate must have, where it names any.
struct Usage(Option<KeyUsage>);

impl ExtendedKeyUsageValidator for Usage {
    fn validate(&self, iter: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        // There is no purpose for VOMS servers: they have the certificates of hosts, for servers, clients or both.
        const HOSTS: [&[u8]; 3] = [
            &[0x2b, 6, 1, 5, 5, 7, 3, 1],
            &[0x2b, 6, 1, 5, 5, 7, 3, 2],
            &[0x55, 0x1d, 0x25, 0],
        ];
        let Some(usage) = self.0 else {
            let mut names_none = true;
            for purpose in iter {
                let purpose = purpose?;
                if HOSTS.iter().any(|known| KeyPurposeId::new(known) == purpose) {
                    return Ok(());
                }
                names_none = false;
            }
            return if names_none {
                Ok(())
            } else {
                Err(webpki::Error::EmptyEkuExtension)
            };
        };
        usage.validate(iter)
    }
}

impl TrustStore {
    /// How often files are looked at, unless told otherwise.
    pub const INTERVAL: Duration = Duration::from_secs(5);

    /// Reads a directory of hashed names, as `X509_CERT_DIR` names it.
    ///
    /// # Errors
    /// [`TrustError`] where it cannot be read or has no authority. Single files that cannot be used are told by
    /// [`Self::problems`].
    pub fn directory(path: impl Into<PathBuf>, policy: Policy) -> Result<Self, TrustError> {
        Self::open(Source::Directory(path.into()), policy)
    }

    /// Reads a PEM file of authorities and, perhaps, their revocation lists. It has no signing policies.
    ///
    /// # Errors
    /// [`TrustError`] where it cannot be read or has no authority.
    pub fn file(path: impl Into<PathBuf>, policy: Policy) -> Result<Self, TrustError> {
        Self::open(Source::File(path.into()), policy)
    }

    fn open(source: Source, policy: Policy) -> Result<Self, TrustError> {
        let stamps = stamps(&source)?;
        let loaded = load(&source, &stamps, 0);
        if loaded.authorities.is_empty() {
            return Err(TrustError::Nothing {
                path: source.path().to_owned(),
            });
        }
        Ok(Self {
            source,
            policy,
            interval: Self::INTERVAL,
            voms: None,
            loaded: RwLock::new(Arc::new(loaded)),
            watch: Mutex::new(Watch {
                looked: Instant::now(),
                stamps,
            }),
        })
    }

    /// Believes VOMS servers, too: clients get the groups and roles that their attribute certificates name. Without
    /// this they get none.
    #[must_use]
    pub fn with_voms(mut self, voms: Voms) -> Self {
        self.voms = Some(voms);
        self
    }

    /// Looks at the files at most once in `interval`.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The directory or file.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The DNs of the authorities that end a path.
    pub fn authorities(&self) -> Vec<String> {
        self.current()
            .authorities
            .iter()
            .map(|authority| authority.dn.clone())
            .collect()
    }

    /// Files that are not used, and why.
    pub fn problems(&self) -> Vec<Problem> {
        self.current().problems.clone()
    }

    /// Verifies a client's chain, the certificate presented first. An attribute certificate in it that does not verify
    /// gives no groups and roles, and [`Identity::voms_error`] says why.
    ///
    /// # Errors
    /// [`ChainError`], with a text for the log.
    pub fn verify_client(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Identity, ChainError> {
        self.verify_good(chain, now)
            .map(|good| Arc::unwrap_or_clone(good.identity))
    }

    /// As [`Self::verify_client`], but whose it is stays open: for the handshake, after which the chain is looked at
    /// again.
    pub(crate) fn check_client(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), ChainError> {
        let chain = chain::parse(chain)?;
        let parts = chain::cut(&chain, self.policy.old_proxies)?;
        self.verify_parts(&self.current(), &parts, &Purpose::Client, time::seconds(now))
            .map(|_| ())
    }

    /// As [`Self::verify_client`], and remembers what is needed for [`Self::recheck`].
    ///
    /// # Errors
    /// [`ChainError`], with a text for the log.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<VerifiedChain, ChainError> {
        let good = self.verify_good(chain, now)?;
        let chain = chain
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        Ok(VerifiedChain {
            chain,
            good: Mutex::new(good),
        })
    }

    /// Whether a chain that verified is still good, and whose it is now: groups and roles end before it does, or come
    /// back with an LSC file. For each request on a kept connection: costs nothing until a date passes or the trust
    /// anchors, revocation lists, policies or LSC files have changed; then the chain is verified anew.
    ///
    /// # Errors
    /// [`ChainError`] where it is good no longer.
    pub fn recheck(&self, verified: &VerifiedChain, now: SystemTime) -> Result<Arc<Identity>, ChainError> {
        let generation = self.generation(&self.current());
        let moment = time::seconds(now);
        {
            let known = lock(&verified.good);
            if known.generation == generation && (known.from..=known.to).contains(&moment) {
                return Ok(Arc::clone(&known.identity));
            }
        }
        let good = self.verify_good(&verified.chain, now)?;
        let identity = Arc::clone(&good.identity);
        *lock(&verified.good) = good;
        Ok(identity)
    }

    fn generation(&self, loaded: &Loaded) -> Generation {
        (loaded.generation, self.voms.as_ref().map_or(0, Voms::generation))
    }

    /// Verifies a server's chain and that it is the server of that name. Answers its DN.
    ///
    /// # Errors
    /// [`ChainError`], with a text for the log.
    pub fn verify_server(
        &self,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: SystemTime,
    ) -> Result<String, ChainError> {
        let chain = chain::parse(chain)?;
        let parts = chain::cut(&chain, OldProxies::default())?;
        if let Some(proxy) = parts.proxies.first() {
            return Err(ChainError::ProxyExtension {
                dn: proxy.dn.clone(),
                what: "cannot identify a server",
            });
        }
        let purpose = Purpose::Server(name);
        self.verify_parts(&self.current(), &parts, &purpose, time::seconds(now))?;
        Ok(parts.end_entity.dn.clone())
    }

    /// A client's chain, and then what its attribute certificates give.
    fn verify_good(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<Good, ChainError> {
        let loaded = self.current();
        // Before the files are read: what changes meanwhile is noticed at the next look.
        let generation = self.generation(&loaded);
        let now = time::seconds(now);
        let chain = chain::parse(chain)?;
        let parts = chain::cut(&chain, self.policy.old_proxies)?;
        let (limited, (from, to)) = self.verify_parts(&loaded, &parts, &Purpose::Client, now)?;
        let attributes = match &self.voms {
            Some(voms) => voms.attributes(&parts, now, &|signers| self.verify_signer(&loaded, signers, now)),
            None => Attributes::default(),
        };
        let dn = &parts.end_entity.dn;
        if let Some(error) = &attributes.error {
            tracing::warn!(dn, reason = error.in_full(), "attribute certificate refused");
        }
        let identity = Identity {
            dn: dn.clone(),
            fqans: attributes.fqans,
            voms_error: attributes.error,
            method: if parts.proxies.is_empty() {
                Method::Certificate
            } else {
                Method::Proxy
            },
            limited,
            not_after: time::moment(parts.window().1),
        };
        Ok(Good {
            identity: Arc::new(identity),
            generation,
            from: from.max(attributes.window.0),
            to: to.min(attributes.window.1),
        })
    }

    /// Answers whether a proxy of the chain is limited, and from when to when all of it is good.
    fn verify_parts(
        &self,
        loaded: &Loaded,
        parts: &Parts<'_>,
        purpose: &Purpose<'_>,
        now: i64,
    ) -> Result<(bool, (i64, i64)), ChainError> {
        let algorithms = tls::provider().signature_verification_algorithms;
        let limited = parts.check(now, &algorithms)?;
        let window = self.verify_path(loaded, parts, purpose, now, &algorithms)?;
        Ok((limited, window))
    }

    /// The certificates of a VOMS server, its own first: as strict as with everybody else.
    fn verify_signer(&self, loaded: &Loaded, signers: &[Certificate], now: i64) -> Result<(i64, i64), ChainError> {
        let parts = chain::cut(signers, OldProxies::default())?;
        if let Some(proxy) = parts.proxies.first() {
            return Err(ChainError::ProxyExtension {
                dn: proxy.dn.clone(),
                what: "cannot sign attributes",
            });
        }
        let (_, window) = self.verify_parts(loaded, &parts, &Purpose::Attributes, now)?;
        Ok(window)
    }

    /// From the end entity to an authority: webpki, then what it leaves out. Answers from when to when that holds.
    fn verify_path(
        &self,
        loaded: &Loaded,
        parts: &Parts<'_>,
        purpose: &Purpose<'_>,
        now: i64,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<(i64, i64), ChainError> {
        let refuse = |source| refusal(parts.end_entity, purpose, source);
        let end_entity = EndEntityCert::try_from(&parts.end_entity.der).map_err(refuse)?;
        let below = parts.rest.iter().chain(&loaded.intermediates);
        let intermediates: Vec<CertificateDer<'_>> = below
            .map(|certificate| CertificateDer::from(certificate.der.as_ref()))
            .collect();
        let lists: Vec<&CertRevocationList<'_>> = loaded.crls.iter().map(|crl| &crl.list).collect();
        let revocation = match RevocationOptionsBuilder::new(&lists) {
            Ok(builder) if self.policy.require_crl => Some(
                builder
                    .with_status_policy(UnknownStatusPolicy::Deny)
                    .with_expiration_policy(ExpirationPolicy::Enforce)
                    .build(),
            ),
            // An old list still says who was revoked then.
            Ok(builder) => Some(
                builder
                    .with_status_policy(UnknownStatusPolicy::Allow)
                    .with_expiration_policy(ExpirationPolicy::Ignore)
                    .build(),
            ),
            Err(_) if self.policy.require_crl => return Err(refuse(webpki::Error::UnknownRevocationStatus)),
            Err(_) => None,
        };
        let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now).unwrap_or(0)));
        let usage = Usage(match purpose {
            Purpose::Client => Some(KeyUsage::client_auth()),
            Purpose::Server(_) => Some(KeyUsage::server_auth()),
            Purpose::Attributes => None,
        });
        let path = end_entity
            .verify_for_usage(
                algorithms.all,
                &loaded.anchors,
                &intermediates,
                at,
                usage,
                revocation,
                None,
            )
            .map_err(refuse)?;
        if let Purpose::Server(name) = purpose {
            end_entity.verify_is_valid_for_subject_name(name).map_err(refuse)?;
        }

        let mut window = parts.window();
        let mut below = parts.end_entity.clone();
        self.check_link(loaded, &below, now, &mut window)?;
        for intermediate in path.intermediate_certificates() {
            let authority = Certificate::parse(&intermediate.der())
                .map_err(|source| ChainError::Malformed { position: 0, source })?;
            chain_authority(&authority, now)?;
            narrow(&mut window, &authority);
            self.check_link(loaded, &authority, now, &mut window)?;
            below = authority;
        }
        let anchor = loaded.valid_anchor(path.anchor(), &below, now)?;
        narrow(&mut window, anchor);
        Ok(window)
    }

    /// What the issuer of a certificate has to say besides its signature: its signing policy, and until when its
    /// revocation list is good.
    fn check_link(
        &self,
        loaded: &Loaded,
        certificate: &Certificate,
        now: i64,
        window: &mut (i64, i64),
    ) -> Result<(), ChainError> {
        loaded.check_signing_policy(certificate, self.policy.require_signing_policy)?;
        if let Some(crl) = loaded.crls.iter().find(|crl| crl.issuer == certificate.issuer) {
            if crl.this_update > now {
                tracing::warn!(issuer = crl.issuer_dn, "revocation list is of the future");
            }
            if let (true, Some(next)) = (self.policy.require_crl, crl.next_update) {
                window.1 = window.1.min(next);
            }
        }
        Ok(())
    }

    /// What was read last, after a look at the files if the last one is long ago.
    fn current(&self) -> Arc<Loaded> {
        // Whoever finds another looking takes what there is.
        if let Ok(mut watch) = self.watch.try_lock()
            && watch.looked.elapsed() >= self.interval
        {
            self.look(&mut watch);
        }
        Arc::clone(&self.loaded.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn look(&self, watch: &mut Watch) {
        watch.looked = Instant::now();
        match stamps(&self.source) {
            Ok(stamps) if stamps == watch.stamps => {}
            Ok(stamps) => {
                let generation = self.loaded.read().unwrap_or_else(PoisonError::into_inner).generation + 1;
                let loaded = load(&self.source, &stamps, generation);
                tracing::info!(path = %self.path().display(), authorities = loaded.authorities.len(), "read trust anchors again");
                *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
                watch.stamps = stamps;
            }
            // What was read stays in force; revocation lists run out by themselves.
            Err(error) => {
                tracing::warn!(path = %self.path().display(), error = %error, "cannot look at trust anchors");
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn narrow(window: &mut (i64, i64), certificate: &Certificate) {
    *window = (
        window.0.max(certificate.not_before),
        window.1.min(certificate.not_after),
    );
}

/// What webpki does not ask of an authority.
fn chain_authority(authority: &Certificate, now: i64) -> Result<(), ChainError> {
    chain::check_strength(authority)?;
    chain::check_dates(authority, now)?;
    if authority.may_certify() {
        Ok(())
    } else {
        Err(ChainError::NotAuthority {
            dn: authority.dn.clone(),
        })
    }
}

/// What webpki found, in our words.
fn refusal(end_entity: &Certificate, purpose: &Purpose<'_>, source: webpki::Error) -> ChainError {
    use webpki::Error as E;
    let dn = end_entity.dn.clone();
    let issuer = end_entity.issuer_dn.clone();
    let moment = |at: UnixTime| SystemTime::UNIX_EPOCH + Duration::from_secs(at.as_secs());
    match source {
        E::CertRevoked => ChainError::Revoked { dn },
        E::UnknownIssuer => ChainError::UnknownAuthority { dn, issuer },
        E::InvalidSignatureForPublicKey => ChainError::Signature { dn, issuer },
        E::UnknownRevocationStatus => ChainError::NoRevocationList { dn, issuer },
        E::CrlExpired { next_update, .. } => ChainError::RevocationListExpired {
            dn,
            issuer,
            since: moment(next_update),
        },
        source @ (E::InvalidCrlSignatureForPublicKey
        | E::IssuerNotCrlSigner
        | E::UnsupportedCrlSignatureAlgorithmContext(_)
        | E::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_)) => {
            ChainError::RevocationList { dn, issuer, source }
        }
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
            let purpose = match purpose {
                Purpose::Client => "clients",
                Purpose::Server(_) => "servers",
                Purpose::Attributes => "hosts",
            };
            ChainError::Purpose { dn, purpose }
        }
        E::CertNotValidForName(_) => match purpose {
            Purpose::Server(name) => ChainError::ServerName {
                dn,
                name: name.to_str().into_owned(),
            },
            Purpose::Client | Purpose::Attributes => ChainError::Certificate { dn, source },
        },
        source => ChainError::Certificate { dn, source },
    }
}

impl Loaded {
    /// The authority that ended a path, if its own certificate is valid now.
    fn valid_anchor(
        &self,
        anchor: &TrustAnchor<'_>,
        below: &Certificate,
        now: i64,
    ) -> Result<&Certificate, ChainError> {
        let same = |authority: &&Certificate| {
            let key = asn1::only(&authority.public_key, asn1::SEQUENCE);
            authority.subject == below.issuer
                && key.is_ok_and(|key| key.content == anchor.subject_public_key_info.as_ref())
        };
        // A renewed certificate of the same authority and key may lie beside the old one.
        let candidates: Vec<&Certificate> = self.authorities.iter().filter(same).collect();
        if let Some(valid) = candidates
            .iter()
            .find(|authority| chain::check_dates(authority, now).is_ok())
        {
            return Ok(valid);
        }
        match candidates.first() {
            Some(authority) => chain::check_dates(authority, now).map(|()| *authority),
            None => Err(ChainError::UnknownAuthority {
                dn: below.dn.clone(),
                issuer: below.issuer_dn.clone(),
            }),
        }
    }

    fn check_signing_policy(&self, certificate: &Certificate, required: bool) -> Result<(), ChainError> {
        let authority = &certificate.issuer_dn;
        let mut said = false;
        for rules in [&self.globus, &self.namespaces] {
            let mut own = rules.iter().filter(|rule| rule.authority == *authority).peekable();
            if own.peek().is_none() {
                continue;
            }
            said = true;
            if !own.any(|rule| rule.allows(&certificate.dn)) {
                return Err(ChainError::SigningPolicy {
                    authority: authority.clone(),
                    dn: certificate.dn.clone(),
                });
            }
        }
        if required && !said {
            return Err(ChainError::NoSigningPolicy {
                authority: authority.clone(),
            });
        }
        Ok(())
    }
}

/// What a file in a directory of hashed names is for, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Certificate,
    Crl,
    SigningPolicy,
    Namespaces,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        let (hash, extension) = name.split_once('.')?;
        if hash.len() != 8 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let number = |text: &str| !text.is_empty() && text.len() < 4 && text.bytes().all(|byte| byte.is_ascii_digit());
        match extension {
            "signing_policy" => Some(Self::SigningPolicy),
            "namespaces" => Some(Self::Namespaces),
            _ if number(extension) => Some(Self::Certificate),
            _ if extension.strip_prefix('r').is_some_and(number) => Some(Self::Crl),
            _ => None,
        }
    }

    fn most_bytes(self) -> u64 {
        match self {
            Self::Crl => 64 << 20,
            Self::Certificate | Self::SigningPolicy | Self::Namespaces => 1 << 20,
        }
    }
}

/// The files that count, in order of their names, with what tells whether they changed.
fn stamps(source: &Source) -> Result<Vec<Stamp>, TrustError> {
    let unreadable = |source_error| TrustError::Read {
        path: source.path().to_owned(),
        source: source_error,
    };
    let directory = match source {
        Source::File(path) => return Ok(vec![stamp(path.clone()).map_err(unreadable)?]),
        Source::Directory(path) => path,
    };
    let mut stamps = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().to_str().and_then(Kind::of).is_some() {
            // A link that leads nowhere is not there.
            stamps.extend(stamp(entry.path()));
        }
    }
    stamps.sort();
    Ok(stamps)
}

pub(crate) fn stamp(path: PathBuf) -> std::io::Result<Stamp> {
    let metadata = fs::metadata(&path)?;
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
        path,
    })
}

/// Gathers what files give.
#[derive(Default)]
struct Loader {
    certificates: Vec<(PathBuf, Certificate)>,
    crls: Vec<(PathBuf, Vec<u8>, Crl)>,
    globus: Vec<Rule>,
    namespaces: Vec<Rule>,
    problems: Vec<Problem>,
}

fn load(source: &Source, stamps: &[Stamp], generation: u64) -> Loaded {
    let mut loader = Loader::default();
    let mut seen: Vec<(u64, u64, Kind)> = Vec::new();
    for stamp in stamps {
        let kind = match source {
            Source::File(_) => None,
            Source::Directory(_) => stamp.path.file_name().and_then(|name| name.to_str()).and_then(Kind::of),
        };
        // The current and the old hash usually link to one file.
        let identity = (stamp.device, stamp.inode, kind.unwrap_or(Kind::Certificate));
        if seen.contains(&identity) {
            continue;
        }
        seen.push(identity);
        if let Err(what) = loader.read(&stamp.path, kind) {
            loader.problem(&stamp.path, what);
        }
    }
    loader.finish(generation)
}

fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl Loader {
    fn problem(&mut self, path: &Path, what: String) {
        tracing::warn!(path = %path.display(), problem = what, "trust anchor file is not used");
        self.problems.push(Problem {
            path: path.to_owned(),
            what,
        });
    }

    fn read(&mut self, path: &Path, kind: Option<Kind>) -> Result<(), String> {
        let most = kind.unwrap_or(Kind::Crl).most_bytes();
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(|error| error.to_string())?;
        file.take(most + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| error.to_string())?;
        if bytes.len() as u64 > most {
            return Err(format!("has more than {most} bytes"));
        }
        match kind {
            Some(Kind::SigningPolicy) => {
                self.globus
                    .extend(signing_policy::parse(&bytes).map_err(|error| with_cause(&error))?);
            }
            Some(Kind::Namespaces) => {
                self.namespaces
                    .extend(signing_policy::parse_namespaces(&bytes).map_err(|error| with_cause(&error))?);
            }
            Some(Kind::Certificate) => {
                // OpenSSL, too, takes one certificate of a hashed file.
                let der = ders(&bytes, is_certificate)?
                    .into_iter()
                    .next()
                    .ok_or("has no certificate")?;
                self.certificate(path, &der)?;
            }
            Some(Kind::Crl) => {
                let der = ders(&bytes, is_crl)?
                    .into_iter()
                    .next()
                    .ok_or("has no revocation list")?;
                self.crl(path, der)?;
            }
            None => {
                for der in ders(&bytes, is_certificate)? {
                    self.certificate(path, &der)?;
                }
                for der in ders(&bytes, is_crl)? {
                    self.crl(path, der)?;
                }
            }
        }
        Ok(())
    }

    fn certificate(&mut self, path: &Path, der: &[u8]) -> Result<(), String> {
        let certificate = Certificate::parse(der).map_err(|error| format!("certificate does not parse: {error}"))?;
        if !certificate.may_certify() {
            return Err(format!("`{}` is no authority", certificate.dn));
        }
        if !self.certificates.iter().any(|(_, other)| other.der == certificate.der) {
            self.certificates.push((path.to_owned(), certificate));
        }
        Ok(())
    }

    fn crl(&mut self, path: &Path, der: Vec<u8>) -> Result<(), String> {
        let crl = crl::parse(&der).map_err(|error| with_cause(&error))?;
        self.crls.push((path.to_owned(), der, crl));
        Ok(())
    }

    fn finish(mut self, generation: u64) -> Loaded {
        let (mut authorities, mut anchors, mut intermediates) = (Vec::new(), Vec::new(), Vec::new());
        for (path, certificate) in std::mem::take(&mut self.certificates) {
            if !certificate.is_self_issued() {
                intermediates.push(certificate);
                continue;
            }
            let anchor = webpki::anchor_from_trusted_cert(&certificate.der).map(|anchor| anchor.to_owned());
            match anchor {
                Ok(anchor) => {
                    anchors.push(anchor);
                    authorities.push(certificate);
                }
                Err(error) => self.problem(&path, format!("cannot be used as an authority: {error}")),
            }
        }
        let crls = choose_crls(std::mem::take(&mut self.crls), &authorities, &intermediates);
        Loaded {
            generation,
            authorities,
            anchors,
            intermediates,
            crls,
            globus: self.globus,
            namespaces: self.namespaces,
            problems: self.problems,
        }
    }
}

/// One list for each issuer, as webpki asks the first alone. Of several (an old one left behind, an authority with a
/// new key) the newest that an authority here did sign; a forged one only where there is no other, to be refused.
fn choose_crls(
    lists: Vec<(PathBuf, Vec<u8>, Crl)>,
    authorities: &[Certificate],
    intermediates: &[Certificate],
) -> Vec<Crl> {
    let algorithms = tls::provider().signature_verification_algorithms;
    let mut chosen: Vec<(Option<bool>, Vec<u8>, Crl)> = Vec::new();
    let genuine = |der: &[u8], crl: &Crl| {
        let mut issuers = authorities
            .iter()
            .chain(intermediates)
            .filter(|issuer| issuer.subject == crl.issuer);
        issuers.any(|issuer| crl::signed_by(der, issuer, &algorithms))
    };
    for (_, der, crl) in lists {
        let Some(held) = chosen.iter_mut().find(|(_, _, other)| other.issuer == crl.issuer) else {
            // Signatures of large lists take time: they are looked at here only where there is a choice.
            chosen.push((None, der, crl));
            continue;
        };
        let held_genuine = held.0.unwrap_or_else(|| genuine(&held.1, &held.2));
        let new_genuine = genuine(&der, &crl);
        if (new_genuine, crl.this_update) > (held_genuine, held.2.this_update) {
            *held = (Some(new_genuine), der, crl);
        } else {
            held.0 = Some(held_genuine);
        }
    }
    chosen.into_iter().map(|(_, _, crl)| crl).collect()
}

fn is_certificate(label: &str) -> bool {
    matches!(label, "CERTIFICATE" | "X509 CERTIFICATE")
}

fn is_crl(label: &str) -> bool {
    label == "X509 CRL"
}

/// The sections of a PEM file with such a label, or the whole file if it is DER.
fn ders(bytes: &[u8], wanted: fn(&str) -> bool) -> Result<Vec<Vec<u8>>, String> {
    if bytes.first() == Some(&asn1::SEQUENCE) {
        return Ok(vec![bytes.to_vec()]);
    }
    let sections = pem::sections(bytes).map_err(|error| error.to_string())?;
    Ok(sections
        .into_iter()
        .filter(|section| wanted(&section.label))
        .map(|section| section.der.to_vec())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashed_names_count() {
        for (name, kind) in [
            ("0a1b2c3d.0", Some(Kind::Certificate)),
            ("0A1B2C3D.12", Some(Kind::Certificate)),
            ("0a1b2c3d.r0", Some(Kind::Crl)),
            ("0a1b2c3d.signing_policy", Some(Kind::SigningPolicy)),
            ("0a1b2c3d.namespaces", Some(Kind::Namespaces)),
            ("HydraTestCA.pem", None),
            ("0a1b2c3d.pem", None),
            ("0a1b2c3.0", None),
            ("0a1b2c3d.r", None),
            ("0a1b2c3d.", None),
            ("0a1b2c3d.0~", None),
        ] {
            assert_eq!(Kind::of(name), kind, "{name}");
        }
    }
}
