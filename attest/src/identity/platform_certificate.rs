//! Platform certificates: what a maker says that a machine was made of when it left the factory.
//!
//! TCG Platform Certificate Profile 1.1 and 2.0, 3 (attribute certificates; 2.0 also as public-key certificates); RFC 5755 4 (attribute
//! certificates). Read and shown: manufacturer, model, version, serial number, the EK certificate that it speaks of, the number of
//! components. Its signature counts only under a chain that the reader brings ([`PlatformCertificate::check_chain`]). It does **not**
//! establish that the machine still has those components, and no verdict rests on it.

use serde::Serialize;
use time::{Date, Month, OffsetDateTime, Time};
use webpki::EndEntityCert;
use x509_parser::prelude::X509Certificate;

use super::certificate::{parse, rfc3339};
use super::der::{BIT_STRING, Element, GENERALIZED_TIME, INTEGER, OID, SEQUENCE, SET, oid};
use super::tpm_attributes::{directory_attributes, name_attributes};
use crate::bytes::{ParseError, Problem, Reader};
use crate::finding::{Finding, Findings, one_line};

/// Most components that are counted: large servers list below 500.
const COMPONENTS_MAX: usize = 10_000;
/// Longest chain that is followed upwards.
const CHAIN_MAX: usize = 8;
/// `[0]` and `[4]`, constructed.
const CONTEXT_0: u8 = 0xa0;
const CONTEXT_4: u8 = 0xa4;

/// Attribute types of the platform's name: profile 1.1 and 2.0, then 1.0.
const MANUFACTURER: [&str; 2] = ["2.23.133.5.1.1", "2.23.133.2.4"];
const MODEL: [&str; 2] = ["2.23.133.5.1.4", "2.23.133.2.5"];
const VERSION: [&str; 2] = ["2.23.133.5.1.5", "2.23.133.2.6"];
const SERIAL: [&str; 1] = ["2.23.133.5.1.6"];
/// tcg-at-platformConfiguration, its three versions below this arc.
const CONFIGURATION: &str = "2.23.133.5.1.7.";
/// tcg-at-tcgCredentialType.
const CREDENTIAL_TYPE: &str = "2.23.133.2.25";
/// tcg-kp-PlatformAttributeCertificate and tcg-kp-DeltaPlatformAttributeCertificate.
const KINDS: [(&str, &str); 4] =
    [("2.23.133.8.2", "platform"), ("2.23.133.8.4", "platform"), ("2.23.133.8.5", "delta"), ("2.23.133.8.6", "delta")];

/// The EK certificate that a platform certificate speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The EK certificate's issuer.
    pub issuer: String,
    /// Its serial number in hex.
    pub serial: String,
    /// The issuer's Name in DER.
    #[serde(skip)]
    issuer_der: Vec<u8>,
}

impl Holder {
    /// Whether this is the EK certificate that is meant. That says nothing of who signed either.
    #[must_use]
    pub fn is(&self, ek_certificate: &[u8]) -> bool {
        let strip = crate::tpm::key::without_leading_zeros;
        parse(ek_certificate).is_ok_and(|ek| {
            let serial = hex::decode(&self.serial).unwrap_or_default();
            ek.issuer().as_raw() == self.issuer_der && strip(ek.raw_serial()) == strip(&serial)
        })
    }
}

/// What a platform certificate says: the JSON of `hostmark inspect platform-cert`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlatformCertificate {
    /// `attribute` or `public-key`.
    pub form: &'static str,
    /// `platform`, `delta`, or None where it does not say.
    pub kind: Option<&'static str>,
    /// The platform's manufacturer.
    pub manufacturer: Option<String>,
    /// Its model.
    pub model: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Who issued the certificate.
    pub issuer: String,
    /// The certificate's own serial number in hex.
    pub certificate_serial: String,
    /// RFC 3339.
    pub not_before: String,
    /// RFC 3339.
    pub not_after: String,
    /// The EK certificate that it speaks of; None where it names its holder in another way.
    pub ek_certificate: Option<Holder>,
    /// How many components it lists, and the version of that list. None where it lists none.
    pub components: Option<Components>,
    #[serde(skip)]
    valid: (OffsetDateTime, OffsetDateTime),
    #[serde(skip)]
    signed: Signed,
}

/// The components of a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Components {
    /// How many.
    pub count: usize,
    /// 1, 2 or 3: the version of tcg-at-platformConfiguration.
    pub version: u8,
}

/// What the signature is over, and who is said to have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signed {
    issuer_der: Vec<u8>,
    message: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
}

impl PlatformCertificate {
    /// Reads a platform certificate in DER, as an attribute or a public-key certificate.
    ///
    /// # Errors
    /// Anything else, with its byte.
    pub fn parse(der: &[u8]) -> Result<Self, ParseError> {
        match parse(der) {
            Ok(certificate) => Self::of_public_key(der, &certificate),
            Err(_) => Self::of_attribute(der),
        }
    }

    /// RFC 5755 4.1.
    fn of_attribute(der: &[u8]) -> Result<Self, ParseError> {
        let mut outer = Reader::new(der);
        let mut fields = Element::expect(&mut outer, SEQUENCE, "the attribute certificate")?;
        if !outer.is_empty() {
            return Err(outer.error(Problem::Trailing { what: "the attribute certificate", left: outer.left() }));
        }
        let info = Element::next(&mut fields, "the certificate's information")?;
        if info.tag != SEQUENCE {
            return Err(malformed(&fields, "the certificate's information is no SEQUENCE"));
        }
        let algorithm = Element::expect(&mut fields, SEQUENCE, "the signature's algorithm")?.rest().to_vec();
        let signature = bits(&Element::expect(&mut fields, BIT_STRING, "the signature")?)?;

        let mut parts = info.contents;
        let version = Element::expect(&mut parts, INTEGER, "the version")?;
        if version.rest() != [1] {
            return Err(malformed(&version, "the attribute certificate's version is not 2"));
        }
        let holder = holder(Element::expect(&mut parts, SEQUENCE, "the holder")?)?;
        let issuer = issuer(&mut parts)?;
        let inner = Element::expect(&mut parts, SEQUENCE, "the signature's algorithm")?;
        if inner.rest() != algorithm {
            return Err(malformed(&inner, "the two statements of the signature's algorithm differ"));
        }
        let certificate_serial = hex::encode(Element::expect(&mut parts, INTEGER, "the serial number")?.rest());
        let mut validity = Element::expect(&mut parts, SEQUENCE, "the validity")?;
        let valid = (generalized_time(&mut validity)?, generalized_time(&mut validity)?);
        let attributes = Element::expect(&mut parts, SEQUENCE, "the attributes")?;
        let (kind, components) = attributes_of(attributes)?;
        let name = alternative_name(parts)?;
        let signed = Signed { issuer_der: issuer.0, message: info.whole.to_vec(), algorithm, signature };
        let mut read = Self {
            form: "attribute",
            kind,
            manufacturer: None,
            model: None,
            version: None,
            serial: None,
            issuer: issuer.1,
            certificate_serial,
            not_before: rfc3339(valid.0),
            not_after: rfc3339(valid.1),
            ek_certificate: holder,
            components,
            valid,
            signed,
        };
        read.name(name.as_deref().unwrap_or_default())?;
        Ok(read)
    }

    /// Profile 2.0 3.3; swtpm's CA issues such ones too.
    fn of_public_key(der: &[u8], certificate: &X509Certificate<'_>) -> Result<Self, ParseError> {
        let none = ParseError { at: 0, problem: Problem::Malformed { what: "not a platform certificate" } };
        let usage =
            certificate.extended_key_usage().ok().flatten().map(|usage| usage.value.other.clone()).unwrap_or_default();
        let kind = usage.iter().find_map(|one| kind_of(&one.to_id_string())).ok_or(none)?;
        let value =
            |oid: &str| certificate.extensions().iter().find(|one| one.oid.to_id_string() == oid).map(|one| one.value);
        let components = match value("2.5.29.9") {
            Some(list) => {
                let mut reader = Reader::new(list);
                attributes_of(Element::expect(&mut reader, SEQUENCE, "the attributes")?)?.1
            }
            None => None,
        };
        let mut outer = Reader::new(der);
        let mut fields = Element::expect(&mut outer, SEQUENCE, "the certificate")?;
        let message = Element::next(&mut fields, "the certificate's fields")?.whole.to_vec();
        let algorithm = Element::expect(&mut fields, SEQUENCE, "the signature's algorithm")?.rest().to_vec();
        let signature = bits(&Element::expect(&mut fields, BIT_STRING, "the signature")?)?;
        let valid = (certificate.validity().not_before.to_datetime(), certificate.validity().not_after.to_datetime());
        let mut read = Self {
            form: "public-key",
            kind: Some(kind),
            manufacturer: None,
            model: None,
            version: None,
            serial: None,
            issuer: one_line(&certificate.issuer().to_string()),
            certificate_serial: hex::encode(certificate.raw_serial()),
            not_before: rfc3339(valid.0),
            not_after: rfc3339(valid.1),
            ek_certificate: None,
            components,
            valid,
            signed: Signed { issuer_der: certificate.issuer().as_raw().to_vec(), message, algorithm, signature },
        };
        read.name(value("2.5.29.17").unwrap_or_default())?;
        Ok(read)
    }

    /// Takes the platform's names from a subjectAltName's value.
    fn name(&mut self, value: &[u8]) -> Result<(), ParseError> {
        if value.is_empty() {
            return Ok(());
        }
        for attribute in name_attributes(value)? {
            let kind = attribute.oid.as_str();
            let field = match () {
                () if MANUFACTURER.contains(&kind) => &mut self.manufacturer,
                () if MODEL.contains(&kind) => &mut self.model,
                () if VERSION.contains(&kind) => &mut self.version,
                () if SERIAL.contains(&kind) => &mut self.serial,
                () => continue,
            };
            *field = Some(one_line(&attribute.text));
        }
        Ok(())
    }

    /// Judges the signature under certificates that the reader brings (DER): one of them must be the issuer's, and its signatures must
    /// lead to a self-signed one among them. Whoever brings a root trusts it.
    ///
    /// Findings that refuse: `platform-certificate.signature`, `platform-certificate.chain`, `platform-certificate.validity`.
    #[must_use]
    pub fn check_chain(&self, chain: &[Vec<u8>], now: OffsetDateTime) -> Findings {
        let mut findings = Findings::new();
        let parsed: Vec<(X509Certificate<'_>, &[u8])> =
            chain.iter().filter_map(|der| Some((parse(der).ok()?, der.as_slice()))).collect();
        findings.check("platform-certificate.validity", now < self.valid.0 || now > self.valid.1, || {
            Finding::error("", "the platform certificate is not valid at this time")
                .expected(format!("{} to {}", self.not_before, self.not_after))
                .found(rfc3339(now))
                .fix("ask the machine's maker for its present platform certificate")
        });
        let issuer = parsed
            .iter()
            .find(|(one, der)| one.subject().as_raw() == self.signed.issuer_der && self.signed.verifies(der));
        findings.check("platform-certificate.signature", issuer.is_none(), || {
            Finding::error("", "no given certificate signed the platform certificate")
                .expected(format!("a certificate of {}", self.issuer))
                .found(format!("{} certificates, none with a key that verifies", parsed.len()))
                .fix("give the issuer's certificate and those above it with --chain")
        });
        let reaches = issuer.is_none_or(|(one, _)| reaches_root(one, &parsed, now));
        findings.check("platform-certificate.chain", !reaches, || {
            Finding::error("", "the issuer's certificate does not lead to a given root")
                .expected("valid CA certificates up to a self-signed one among those given")
                .found(&self.issuer)
                .fix("give every certificate of the chain with --chain, the root too")
        });
        findings
    }
}

impl Signed {
    fn verifies(&self, issuer: &[u8]) -> bool {
        verifies(issuer, &self.algorithm, &self.message, &self.signature)
    }
}

/// Whether the certificate's key verifies the signature, by an algorithm that path validation accepts too.
fn verifies(certificate: &[u8], algorithm: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let der = rustls_pki_types::CertificateDer::from(certificate);
    let Ok(key) = EndEntityCert::try_from(&der) else { return false };
    let known = webpki::ALL_VERIFICATION_ALGS.iter().filter(|one| one.signature_alg_id().as_ref() == algorithm);
    known.into_iter().any(|one| key.verify_signature(*one, message, signature).is_ok())
}

/// Follows issuers upwards to a self-signed certificate; every one above the first must be a CA, and all valid now.
fn reaches_root(from: &X509Certificate<'_>, given: &[(X509Certificate<'_>, &[u8])], now: OffsetDateTime) -> bool {
    let mut at = from;
    for _ in 0..CHAIN_MAX {
        let valid = at.validity();
        if now < valid.not_before.to_datetime() || now > valid.not_after.to_datetime() {
            return false;
        }
        let algorithm = &at.signature_algorithm;
        let Some(identifier) = webpki_identifier(algorithm) else { return false };
        let signed_by = |der: &[u8]| verifies(der, &identifier, at.tbs_certificate.as_ref(), &at.signature_value.data);
        let above = given
            .iter()
            .find(|(one, der)| one.subject().as_raw() == at.issuer().as_raw() && one.is_ca() && signed_by(der));
        match above {
            Some((one, _)) if one.subject().as_raw() == one.issuer().as_raw() => {
                let valid = one.validity();
                return now >= valid.not_before.to_datetime() && now <= valid.not_after.to_datetime();
            }
            Some((one, _)) => at = one,
            None => return false,
        }
    }
    false
}

/// The contents of an AlgorithmIdentifier in DER, as webpki names algorithms.
fn webpki_identifier(algorithm: &x509_parser::x509::AlgorithmIdentifier<'_>) -> Option<Vec<u8>> {
    let contents = algorithm.algorithm.as_bytes();
    let mut out = vec![OID, u8::try_from(contents.len()).ok()?];
    out.extend_from_slice(contents);
    if let Some(parameters) = &algorithm.parameters {
        match parameters.tag().0 {
            5 => out.extend_from_slice(&[5, 0]),
            // RSASSA-PSS: its parameters are not rebuilt here.
            _ => return None,
        }
    }
    Some(out)
}

/// Holder ::= SEQUENCE { baseCertificateID \[0\] IssuerSerial OPTIONAL, … }
fn holder(mut fields: Reader<'_>) -> Result<Option<Holder>, ParseError> {
    let Some(mut base) = Element::optional(&mut fields, CONTEXT_0, "the holder's certificate")? else {
        return Ok(None);
    };
    let names = Element::expect(&mut base, SEQUENCE, "the issuer of the holder's certificate")?;
    let serial = Element::expect(&mut base, INTEGER, "the serial number of the holder's certificate")?;
    let (issuer_der, issuer) = directory_name(names)?;
    Ok(Some(Holder { issuer, serial: hex::encode(serial.rest()), issuer_der }))
}

/// AttCertIssuer ::= CHOICE { v1Form GeneralNames, v2Form \[0\] V2Form }, the name in DER and for people.
fn issuer(parts: &mut Reader<'_>) -> Result<(Vec<u8>, String), ParseError> {
    if let Some(mut form) = Element::optional(parts, CONTEXT_0, "the issuer")? {
        return directory_name(Element::expect(&mut form, SEQUENCE, "the issuer's name")?);
    }
    directory_name(Element::expect(parts, SEQUENCE, "the issuer's name")?)
}

/// The first directoryName of a GeneralNames' contents.
fn directory_name(names: Reader<'_>) -> Result<(Vec<u8>, String), ParseError> {
    let at = names.clone();
    for name in Element::all(names, "a general name")? {
        if name.tag == CONTEXT_4 {
            let der = name.contents.rest().to_vec();
            let shown = match <x509_parser::x509::X509Name<'_> as x509_parser::prelude::FromDer<'_, _>>::from_der(&der)
            {
                Ok((_, name)) => name.to_string(),
                Err(_) => return Err(malformed(&name.contents, "the directory name cannot be read")),
            };
            // Its framing too, so that the text cannot hide anything.
            directory_attributes(name.contents)?;
            return Ok((der, one_line(&shown)));
        }
    }
    Err(malformed(&at, "a general name without a directory name"))
}

/// What the attributes say: the certificate's kind, and the components.
fn attributes_of(list: Reader<'_>) -> Result<(Option<&'static str>, Option<Components>), ParseError> {
    let (mut kind, mut components) = (None, None);
    for attribute in Element::all(list, "an attribute")? {
        let mut fields = attribute.contents;
        let name = oid(Element::expect(&mut fields, OID, "an attribute's type")?.rest());
        let mut values = Element::expect(&mut fields, SET, "an attribute's values")?;
        if name == CREDENTIAL_TYPE {
            let mut parts = Element::expect(&mut values, SEQUENCE, "the credential's type")?;
            kind = kind_of(&oid(Element::expect(&mut parts, OID, "the credential's type")?.rest()));
        } else if let Some(version) = name.strip_prefix(CONFIGURATION).and_then(|digit| digit.parse().ok()) {
            let mut parts = Element::expect(&mut values, SEQUENCE, "the platform's configuration")?;
            let Some(list) = Element::optional(&mut parts, CONTEXT_0, "the components")? else { continue };
            let at = list.clone();
            let count = Element::all(list, "a component")?.len();
            if count > COMPONENTS_MAX {
                return Err(malformed(&at, "more than 10,000 components"));
            }
            components = Some(Components { count, version });
        }
    }
    Ok((kind, components))
}

fn kind_of(oid: &str) -> Option<&'static str> {
    KINDS.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name)
}

/// The subjectAltName among the extensions that end an attribute certificate's information.
fn alternative_name(mut rest: Reader<'_>) -> Result<Option<Vec<u8>>, ParseError> {
    // issuerUniqueID, a BIT STRING, may come before.
    Element::optional(&mut rest, BIT_STRING, "the issuer's unique id")?;
    let Some(extensions) = Element::optional(&mut rest, SEQUENCE, "the extensions")? else { return Ok(None) };
    for extension in Element::all(extensions, "an extension")? {
        let mut fields = extension.contents;
        let name = oid(Element::expect(&mut fields, OID, "an extension's type")?.rest());
        Element::optional(&mut fields, super::der::BOOLEAN, "whether it is critical")?;
        let value = Element::expect(&mut fields, super::der::OCTET_STRING, "an extension's value")?;
        if name == "2.5.29.17" {
            return Ok(Some(value.rest().to_vec()));
        }
    }
    Ok(None)
}

/// A BIT STRING of whole bytes.
fn bits(contents: &Reader<'_>) -> Result<Vec<u8>, ParseError> {
    match contents.rest().split_first() {
        Some((0, bytes)) => Ok(bytes.to_vec()),
        _ => Err(malformed(contents, "the BIT STRING does not hold whole bytes")),
    }
}

/// `YYYYMMDDHHMMSSZ`, the one form that RFC 5755 allows.
fn generalized_time(reader: &mut Reader<'_>) -> Result<OffsetDateTime, ParseError> {
    let contents = Element::expect(reader, GENERALIZED_TIME, "a time")?;
    let bad = || malformed(&contents, "the time is not of the form YYYYMMDDHHMMSSZ");
    let digits = contents.rest().strip_suffix(b"Z").filter(|d| d.len() == 14 && d.iter().all(u8::is_ascii_digit));
    let digits = std::str::from_utf8(digits.ok_or_else(bad)?).map_err(|_| bad())?;
    let part = |from: usize, to: usize| digits.get(from..to).and_then(|text| text.parse::<u16>().ok()).ok_or_else(bad);
    let small = |from: usize, to: usize| part(from, to).and_then(|number| u8::try_from(number).map_err(|_| bad()));
    let month = Month::try_from(small(4, 6)?).map_err(|_| bad())?;
    let date = Date::from_calendar_date(part(0, 4)?.into(), month, small(6, 8)?).map_err(|_| bad())?;
    let time = Time::from_hms(small(8, 10)?, small(10, 12)?, small(12, 14)?).map_err(|_| bad())?;
    Ok(date.with_time(time).assume_utc())
}

fn malformed(at: &Reader<'_>, what: &'static str) -> ParseError {
    at.error(Problem::Malformed { what })
}
