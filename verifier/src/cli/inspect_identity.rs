//! `hostmark inspect ek-cert|ak|platform-cert`: what certificates and public areas say of a TPM and its machine.
//!
//! By themselves they prove nothing. With a trust directory or a chain that the reader brings, what would be proven is said too, and a
//! refusal is exit 1.

use std::path::{Path, PathBuf};

use clap::Args;
use hostmark_attest::bytes::ParseError;
use hostmark_attest::finding::{Finding, Findings};
use hostmark_attest::identity::ak::verify_ak;
use hostmark_attest::identity::certificate::{CERTIFICATE_FILE_MAX, CertificateFacts, read_certificate_file};
use hostmark_attest::identity::devid::{IdentityCertificate, read_identity};
use hostmark_attest::identity::ek::verify_ek_certificate;
use hostmark_attest::identity::ek_certificate::{EkCertificate, inspect_ek_certificate};
use hostmark_attest::identity::platform_certificate::PlatformCertificate;
use hostmark_attest::tools::{AkFile, read_ak};
use hostmark_attest::tpm::public::Public;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use time::OffsetDateTime;

use super::answer::Answer;
use super::failure::Failure;
use super::show::{Style, facts};
use super::{Outcome, input, when};
use crate::trust::Trust;

/// `… ek-cert FILE [--trust DIR]`
#[derive(Debug, Args)]
pub(super) struct EkCert {
    /// The certificate: PEM, DER, or the whole NV index; `-` is standard input.
    file: PathBuf,
    /// A trust directory (with ek/<class>/): say the class that its roots give, or why they refuse.
    #[arg(long, value_name = "DIR")]
    trust: Option<PathBuf>,
    /// Intermediates that the host would send, PEM or DER.
    #[arg(long, value_name = "FILE", requires = "trust")]
    chain: Vec<PathBuf>,
    /// Tolerate this quirk, as `ek_quirks` in verifier.toml does.
    #[arg(long, value_name = "ID", requires = "trust")]
    quirk: Vec<String>,
    /// Judge at this time (RFC 3339, or seconds since 1970). Without it, now.
    #[arg(long, value_name = "TIME", value_parser = when::parse, requires = "trust")]
    at: Option<OffsetDateTime>,
}

/// `… platform-cert FILE [--chain FILE…] [--ek FILE]`
#[derive(Debug, Args)]
pub(super) struct PlatformCert {
    /// The certificate, PEM or DER; `-` is standard input.
    file: PathBuf,
    /// Certificates that its signature must lead to, the root too: PEM or DER. Without them the signature is not looked at.
    #[arg(long, value_name = "FILE")]
    chain: Vec<PathBuf>,
    /// An EK certificate: say whether it is the one that is meant.
    #[arg(long, value_name = "FILE")]
    ek: Option<PathBuf>,
    /// Judge at this time (RFC 3339, or seconds since 1970). Without it, now.
    #[arg(long, value_name = "TIME", value_parser = when::parse, requires = "chain")]
    at: Option<OffsetDateTime>,
}

#[derive(Debug, Serialize)]
struct EkView {
    #[serde(flatten)]
    certificate: EkCertificate,
    /// With --trust: the class, or None where it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<Option<&'static str>>,
}

impl EkCert {
    pub(super) fn run(self, style: Style) -> Outcome {
        let file = read(&self.file)?;
        let mut certificate =
            inspect_ek_certificate(&file.1).map_err(|error| Failure::malformed(&name(&self.file), &error))?;
        let mut noted = file.2;
        let mut class = None;
        if let Some(dir) = &self.trust {
            is_trust_directory(dir)?;
            let trust = Trust::load(dir, &self.quirk).map_err(|error| Failure::unusable(error.to_string()))?;
            let chain = chain(&self.chain)?;
            let at = self.at.map_or_else(when::now, Ok)?;
            let (given, findings) = verify_ek_certificate(&file.1, &chain, &trust.ek, at);
            class = Some(findings.acceptable().then(|| given.name()));
            // What both say is said once.
            let said = std::mem::take(&mut certificate.findings);
            certificate.findings = findings;
            noted.append(without(said, &certificate.findings));
        }
        certificate.findings.append(noted);
        let view = EkView { certificate, class };
        let seen = &view.certificate;
        let mut rows = Vec::new();
        if let Some(class) = view.class {
            rows.push(("class", class.unwrap_or("refused").to_owned()));
        }
        let tpm = seen.tpm.as_ref();
        rows.extend([
            ("manufacturer", tpm.map_or_else(unstated, |tpm| tpm.manufacturer.to_string())),
            ("model", tpm.map_or_else(unstated, |tpm| tpm.model.clone())),
            ("version", tpm.map_or_else(unstated, |tpm| tpm.version.to_string())),
            ("specification", seen.specification.as_ref().map_or_else(unstated, ToString::to_string)),
        ]);
        rows.extend(common(&seen.facts));
        let text = facts(rows) + &findings(style, &seen.findings);
        let refused = view.class == Some(None);
        Ok(Answer::new(&view, text)?.refused_if(refused))
    }
}

/// Where a verifier takes an absent directory for one that trusts nobody, a person who names one means another.
fn is_trust_directory(dir: &Path) -> Result<(), Failure> {
    if dir.join("ek").is_dir() {
        return Ok(());
    }
    let shown = dir.display();
    if !dir.is_dir() {
        return Err(Failure::unusable(format!(
            "{shown} is no directory: --trust names the one that holds ek/<class>/, such as configs/trust"
        )));
    }
    let full = dir.canonicalize().map_err(|error| Failure::io(dir, &error))?;
    let above = full.ancestors().find(|one| one.file_name().is_some_and(|name| name == "ek")).and_then(Path::parent);
    Err(Failure::unusable(match above {
        Some(above) => {
            format!("{shown} lies inside a trust directory: give the one that holds ek/: --trust {}", above.display())
        }
        None => {
            format!("{shown} holds no ek/: --trust names the directory that holds ek/<class>/, such as configs/trust")
        }
    }))
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum AkView {
    Area(AreaView),
    Certificate(Box<IdentityCertificate>),
    Key { format: &'static str, key: String, key_id: Option<String>, findings: Findings },
}

/// A TPMT_PUBLIC.
#[derive(Debug, Serialize)]
struct AreaView {
    format: &'static str,
    key: String,
    key_id: Option<String>,
    name: String,
    name_alg: &'static str,
    attributes: Vec<String>,
    scheme: Option<String>,
    auth_policy: String,
    findings: Findings,
}

impl AreaView {
    fn of(format: &'static str, public: &Public) -> Self {
        let scheme = public.scheme().map(|scheme| {
            let word = match scheme.scheme {
                0x0014 => "RSASSA".to_owned(),
                0x0015 => "RSAES".to_owned(),
                0x0016 => "RSAPSS".to_owned(),
                0x0017 => "OAEP".to_owned(),
                0x0018 => "ECDSA".to_owned(),
                other => format!("{other:#06x}"),
            };
            scheme.hash.map_or_else(|| word.clone(), |hash| format!("{word} with {hash}"))
        });
        Self {
            format,
            key: public.key().kind(),
            key_id: public.key().id().map(hex::encode),
            name: hex::encode(public.name().as_bytes()),
            name_alg: public.name_alg().name(),
            attributes: public.attributes().to_string().split('|').map(str::to_owned).collect(),
            scheme,
            auth_policy: hex::encode(public.auth_policy()),
            findings: verify_ak(public).err().unwrap_or_default(),
        }
    }
}

/// `… ak FILE`: a public area, a public key, or an AK's certificate. What no round would accept is exit 1.
pub(super) fn ak(file: &Path, style: Style) -> Outcome {
    let bytes = input::read(file, "a public key or certificate", CERTIFICATE_FILE_MAX)?;
    let malformed = |error: &ParseError| Failure::malformed(&name(file), error);
    let view = match read_ak(&bytes) {
        Ok(AkFile { public: Some(public), .. }) => {
            let format = if public.as_bytes().len() == bytes.len() { "TPMT_PUBLIC" } else { "TPM2B_PUBLIC" };
            AkView::Area(AreaView::of(format, &public))
        }
        Ok(AkFile { key, .. }) => {
            let mut findings = Findings::new();
            findings.push(
                Finding::warning("ak.public-area", "the file holds a key alone: nothing says that a TPM keeps it")
                    .expected("TPM2B_PUBLIC or TPMT_PUBLIC, with attributes")
                    .found("a SubjectPublicKeyInfo")
                    .fix("use what tpm2_readpublic -f tss writes"),
            );
            AkView::Key { format: "public key", key: key.kind(), key_id: key.id().map(hex::encode), findings }
        }
        Err(error) => match read_certificate_file(&bytes) {
            Ok(certificate) => {
                let mut read = read_identity(&certificate.der).map_err(|error| malformed(&error))?;
                read.findings.append(certificate.findings);
                AkView::Certificate(Box::new(read))
            }
            // Certificates are told by their first bytes; everything else was meant as a key.
            Err(other) => {
                let certificate = bytes.starts_with(&[0x30]) || bytes.windows(12).any(|part| part == b" CERTIFICATE");
                return Err(malformed(if certificate { &other } else { &error }));
            }
        },
    };
    let text = match &view {
        AkView::Area(area) => {
            let key = area.key_id.clone().unwrap_or_default();
            facts([
                ("format", area.format.to_owned()),
                ("key", area.key.clone()),
                ("key id", key),
                ("name", area.name.clone()),
                ("attributes", area.attributes.join(", ")),
                ("scheme", area.scheme.clone().unwrap_or_else(|| "none: the caller chooses".to_owned())),
                ("authPolicy", if area.auth_policy.is_empty() { "none".to_owned() } else { area.auth_policy.clone() }),
            ]) + &findings(style, &area.findings)
        }
        AkView::Key { format, key, key_id, findings: found } => {
            let id = key_id.clone().unwrap_or_default();
            facts([("format", (*format).to_owned()), ("key", key.clone()), ("key id", id)]) + &findings(style, found)
        }
        AkView::Certificate(certificate) => {
            let mut rows = vec![("certificate of", certificate.kind.name().to_owned())];
            if let Some(module) = &certificate.hardware_module {
                let kind = if module.tpm20 { "a TPM 2.0" } else { module.hw_type.as_str() };
                rows.extend([("device", kind.to_owned()), ("device serial", module.hw_serial.clone())]);
            }
            if !certificate.verified_by_ca.is_empty() {
                rows.push(("its CA says", certificate.verified_by_ca.join(", ")));
            }
            rows.extend(common(&certificate.facts));
            facts(rows) + &findings(style, &certificate.findings)
        }
    };
    let found = match &view {
        AkView::Area(area) => &area.findings,
        AkView::Key { findings, .. } => findings,
        AkView::Certificate(certificate) => &certificate.findings,
    };
    Ok(Answer::new(&view, text)?.refused_if(!found.acceptable()))
}

#[derive(Debug, Serialize)]
struct PlatformView {
    #[serde(flatten)]
    certificate: PlatformCertificate,
    /// With --chain: whether the signature leads to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<bool>,
    /// With --ek: whether that is the EK certificate that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    ek_is_holder: Option<bool>,
    findings: Findings,
}

impl PlatformCert {
    pub(super) fn run(self, style: Style) -> Outcome {
        let (shown, der, mut noted) = read(&self.file)?;
        let certificate = PlatformCertificate::parse(&der).map_err(|error| Failure::malformed(&shown, &error))?;
        let mut verified = None;
        if !self.chain.is_empty() {
            let at = self.at.map_or_else(when::now, Ok)?;
            let findings = certificate.check_chain(&chain(&self.chain)?, at);
            verified = Some(findings.acceptable());
            noted.append(findings);
        }
        let mut ek_is_holder = None;
        if let Some(path) = &self.ek {
            let (_, ek, _) = read(path)?;
            let is = certificate.ek_certificate.as_ref().is_some_and(|holder| holder.is(&ek));
            ek_is_holder = Some(is);
            noted.check("platform-certificate.holder", !is, || {
                Finding::error("", "the platform certificate is for another TPM")
                    .expected(certificate.ek_certificate.as_ref().map_or_else(unstated, |holder| holder.serial.clone()))
                    .found(path.display())
                    .fix("look for the machine whose TPM has this EK certificate: a board or a TPM was exchanged")
            });
        }
        let refused = verified == Some(false) || ek_is_holder == Some(false);
        let view = PlatformView { certificate, verified, ek_is_holder, findings: noted };
        let seen = &view.certificate;
        let text_of = |one: &Option<String>| one.clone().unwrap_or_else(unstated);
        let mut rows = vec![
            (
                "form",
                format!(
                    "{} certificate{}",
                    seen.form,
                    seen.kind.map_or("", |kind| if kind == "delta" { ", delta" } else { "" })
                ),
            ),
            ("manufacturer", text_of(&seen.manufacturer)),
            ("model", text_of(&seen.model)),
            ("version", text_of(&seen.version)),
            ("serial", text_of(&seen.serial)),
            ("components", seen.components.map_or_else(unstated, |list| list.count.to_string())),
        ];
        if let Some(holder) = &seen.ek_certificate {
            rows.push(("EK certificate", format!("serial {}, issuer {}", holder.serial, holder.issuer)));
        }
        rows.extend([
            ("issuer", seen.issuer.clone()),
            ("valid", format!("{} to {}", seen.not_before, seen.not_after)),
            (
                "signature",
                match view.verified {
                    None => "not looked at: give the chain with --chain".to_owned(),
                    Some(true) => "verified".to_owned(),
                    Some(false) => "refused".to_owned(),
                },
            ),
        ]);
        let text = facts(rows) + &findings(style, &view.findings);
        Ok(Answer::new(&view, text)?.refused_if(refused))
    }
}

/// The file's name, its certificate, and what it was wrapped in.
fn read(file: &Path) -> Result<(String, Vec<u8>, Findings), Failure> {
    let bytes = input::read(file, "a certificate", CERTIFICATE_FILE_MAX)?;
    let shown = name(file);
    let read = read_certificate_file(&bytes).map_err(|error| Failure::malformed(&shown, &error))?;
    Ok((shown, read.der, read.findings))
}

/// Certificates of PEM bundles or DER files.
fn chain(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    let mut list = Vec::new();
    for file in files {
        let bytes = input::read(file, "a chain of certificates", input::SMALL_MAX)?;
        if bytes.first() == Some(&0x30) {
            list.push(bytes);
            continue;
        }
        let before = list.len();
        for one in CertificateDer::pem_slice_iter(&bytes) {
            let one = one.map_err(|_| Failure::unusable(format!("{}: the PEM cannot be read", file.display())))?;
            list.push(one.to_vec());
        }
        if list.len() == before {
            return Err(Failure::unusable(format!("{}: holds no certificate in PEM or DER", file.display())));
        }
    }
    Ok(list)
}

/// Those findings whose id the others do not have.
fn without(findings: Findings, others: &Findings) -> Findings {
    findings.into_vec().into_iter().filter(|one| !others.has(&one.id)).collect::<Vec<_>>().into()
}

fn common(certificate: &CertificateFacts) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("key", certificate.key.clone()),
        ("key id", certificate.key_id.clone().unwrap_or_default()),
        ("issuer", certificate.issuer.clone()),
        ("serial", certificate.serial.clone()),
        ("valid", format!("{} to {}", certificate.not_before, certificate.not_after)),
    ];
    if !certificate.subject.is_empty() {
        rows.insert(2, ("subject", certificate.subject.clone()));
    }
    if !certificate.crl.is_empty() {
        rows.push(("CRL", certificate.crl.join(", ")));
    }
    rows
}

fn unstated() -> String {
    "unstated".to_owned()
}

fn findings(style: Style, findings: &Findings) -> String {
    if findings.as_slice().is_empty() { String::new() } else { format!("\n{}", style.findings(findings.as_slice())) }
}

fn name(file: &Path) -> String {
    file.display().to_string()
}
