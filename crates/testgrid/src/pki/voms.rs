//! Throw-away VOMS servers: they sign attribute certificates, good ones and any kind of nonsense.

use super::{Authority, Extension, Issued, Key, Name, PkiError, ProxyOptions, Validity};
use crate::der;

/// A VOMS server of one VO.
#[derive(Debug)]
pub struct VomsServer {
    vo: String,
    host: String,
    issuer: Name,
    own: Issued,
}

impl VomsServer {
    /// The server of `vo` at `host`, with a certificate of `authority`.
    ///
    /// # Errors
    /// [`PkiError`] where its key or name cannot be made.
    pub fn new(authority: &Authority, vo: &str, host: &str) -> Result<Self, PkiError> {
        let own = authority.host(&format!("/DC=org/DC=hydragrid/OU=Hosts/CN={host}"), &[host])?;
        Ok(Self::with(authority, vo, host, own))
    }

    /// The same with a certificate of its own kind.
    pub fn with(authority: &Authority, vo: &str, host: &str, own: Issued) -> Self {
        Self {
            vo: vo.to_owned(),
            host: host.to_owned(),
            issuer: authority.name().clone(),
            own,
        }
    }

    /// Its VO.
    pub fn vo(&self) -> &str {
        &self.vo
    }

    /// Its certificate and key.
    pub fn own(&self) -> &Issued {
        &self.own
    }

    /// The name of its LSC file, below the directory of VOs.
    pub fn lsc_path(&self) -> String {
        format!("{}/{}.lsc", self.vo, self.host)
    }

    /// The text of its LSC file.
    pub fn lsc(&self) -> String {
        format!("{}\n{}\n", self.own.dn(), self.issuer.slash())
    }

    /// What it says about `holder`, an end entity, before it signs.
    pub fn template(&self, holder: &Issued, fqans: &[&str]) -> AttributeTemplate {
        AttributeTemplate {
            holder: holder.name.clone(),
            holder_serial: holder.serial,
            issuer: self.own.name.clone(),
            validity: Validity::lasting(std::time::Duration::from_secs(12 * 3600)),
            uri: format!("{}://{}:15000", self.vo, self.host),
            fqans: fqans.iter().map(|fqan| fqan.as_bytes().to_vec()).collect(),
            signers: self.own.chain.clone(),
            extensions: vec![
                Extension::new("2.5.29.56", false, der::element(5, &[])),
                super::authority_key(&self.own.key),
            ],
            algorithm: None,
        }
    }

    /// Signs.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] where the key does not sign.
    pub fn sign(&self, template: &AttributeTemplate) -> Result<Vec<u8>, PkiError> {
        template.sign(&self.own.key)
    }

    /// A proxy of `holder` that has these groups and roles.
    ///
    /// # Errors
    /// [`PkiError`] where it cannot be signed.
    pub fn proxy(&self, holder: &Issued, fqans: &[&str]) -> Result<Issued, PkiError> {
        let signed = self.sign(&self.template(holder, fqans))?;
        holder.proxy(&carrying(&[signed]))
    }
}

/// A proxy with attribute certificates.
pub fn carrying(attributes: &[Vec<u8>]) -> ProxyOptions {
    carrying_raw(der::sequence(&[der::sequence(attributes)]))
}

/// A proxy with anything in the place of attribute certificates.
pub fn carrying_raw(value: Vec<u8>) -> ProxyOptions {
    ProxyOptions {
        extensions: vec![Extension::new("1.3.6.1.4.1.8005.100.100.5", false, value)],
        ..ProxyOptions::default()
    }
}

/// The extension that says for which hosts an attribute certificate is, as the standard has it or, with a SEQUENCE
/// around each, as VOMS writes it.
pub fn targets(hosts: &[&str], as_voms: bool) -> Extension {
    let target = |host: &&str| {
        let target = der::element(0xa0, &der::element(0x86, host.as_bytes()));
        if as_voms { der::sequence(&[target]) } else { target }
    };
    let targets: Vec<Vec<u8>> = hosts.iter().map(target).collect();
    Extension::new("2.5.29.55", true, der::sequence(&[der::sequence(&targets)]))
}

/// An attribute certificate before it is signed. Every field may be nonsense.
#[derive(Debug, Clone)]
pub struct AttributeTemplate {
    /// Its holder's name, or that of the holder's issuer.
    pub holder: Name,
    /// The serial number of the holder's certificate.
    pub holder_serial: u64,
    /// Who issues it.
    pub issuer: Name,
    /// From when to when it is valid.
    pub validity: Validity,
    /// VO, host and port.
    pub uri: String,
    /// Groups and roles.
    pub fqans: Vec<Vec<u8>>,
    /// The certificates of the server and those above; none: without that extension.
    pub signers: Vec<Vec<u8>>,
    /// More extensions.
    pub extensions: Vec<Extension>,
    /// Another signature algorithm than the key's, as the DER of its identifier.
    pub algorithm: Option<Vec<u8>>,
}

impl AttributeTemplate {
    /// Signs it.
    ///
    /// # Errors
    /// [`PkiError::Crypto`] where the key does not sign.
    pub fn sign(&self, key: &Key) -> Result<Vec<u8>, PkiError> {
        let algorithm = self.algorithm.clone().unwrap_or_else(|| key.algorithm());
        let directory = |name: &Name| der::sequence(&[der::element(0xa4, &name.der())]);
        let holder = [directory(&self.holder), der::number(self.holder_serial)].concat();
        let values: Vec<Vec<u8>> = self.fqans.iter().map(|fqan| der::octets(fqan)).collect();
        let membership = der::sequence(&[
            der::element(0xa0, &der::element(0x86, self.uri.as_bytes())),
            der::sequence(&values),
        ]);
        let mut extensions: Vec<Vec<u8>> = Vec::new();
        if !self.signers.is_empty() {
            let list = der::sequence(&[der::sequence(&self.signers)]);
            extensions.push(Extension::new("1.3.6.1.4.1.8005.100.100.10", false, list).der());
        }
        extensions.extend(self.extensions.iter().map(Extension::der));
        let signed = der::sequence(&[
            der::number(1),
            der::sequence(&[der::element(0xa0, &holder)]),
            der::element(0xa0, &directory(&self.issuer)),
            algorithm.clone(),
            der::number(1),
            der::sequence(&[
                der::generalized_time(self.validity.from),
                der::generalized_time(self.validity.to),
            ]),
            der::sequence(&[der::sequence(&[
                der::oid("1.3.6.1.4.1.8005.100.100.4"),
                der::set(&[membership]),
            ])]),
            der::sequence(&extensions),
        ]);
        let signature = key.sign(&signed)?;
        Ok(der::sequence(&[signed, algorithm, der::bits(&signature)]))
    }
}
