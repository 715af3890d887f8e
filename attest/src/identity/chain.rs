//! The path from a TPM's certificate to a root that the operator put into one class's directory.
//!
//! RFC 5280 6 (path validation) and 6.3 (CRLs), by rustls-webpki over the received bytes. It establishes which class's root vouches for
//! a certificate, and that none of the bundle's CRLs revokes one of the path. It does **not** look at what the leaf may be used for
//! (its caller does), and an issuer without a CRL in the bundle revokes nothing.

use rustls_pki_types::{CertificateDer, UnixTime};
use time::OffsetDateTime;
use webpki::{
    EndEntityCert, Error, ExpirationPolicy, ExtendedKeyUsageValidator, KeyPurposeId, KeyPurposeIdIter,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::prelude::X509Certificate;

use super::class::{CRITICAL_POLICIES, POLICIES, TpmClass, TrustBundle, quirk_finding, unknown_critical};
use crate::finding::{Finding, Findings};

/// What kind of certificate a chain ends in: the ids of its checks, and what differs in judging it.
#[derive(Debug)]
pub(super) struct Subject {
    /// `the EK certificate`.
    pub(super) what: &'static str,
    /// `ek`: first part of every id.
    pub(super) prefix: &'static str,
    pub(super) chain: &'static str,
    pub(super) algorithm: &'static str,
    pub(super) critical: &'static str,
    pub(super) revoked: &'static str,
    pub(super) crl: &'static str,
    /// The key outlives its certificate, so that expiry is advice; otherwise an expired certificate is refused.
    pub(super) outlives: bool,
    /// The extended key usages that a certificate of the path may be constrained to, as DER contents: one of them suffices.
    pub(super) usages: &'static [&'static [u8]],
}

/// RFC 5280 4.2.1.12: a certificate without the extension is for every use, one with it for those that it names.
impl ExtendedKeyUsageValidator for Subject {
    fn validate(&self, iter: KeyPurposeIdIter<'_, '_>) -> Result<(), Error> {
        let mut unconstrained = true;
        for found in iter {
            unconstrained = false;
            let found = found?;
            if self.usages.iter().any(|usage| found == KeyPurposeId::new(usage)) {
                return Ok(());
            }
        }
        #[allow(deprecated, reason = "the variant with context can only be made by webpki")]
        if unconstrained { Ok(()) } else { Err(Error::RequiredEkuNotFound) }
    }
}

/// What a verified path was made of.
#[derive(Debug, Default)]
struct Path {
    /// Only by the quirk [`CRITICAL_POLICIES`].
    as_it_stands: bool,
    /// CRLs on the path that are out of date: the issuer, and when the next one was due.
    stale: Vec<(String, String)>,
}

/// The path to a root. Lower classes are asked first, so a root that stands in two classes gives the lower one.
pub(super) fn check_chain(
    subject: &Subject,
    exact: &[u8],
    leaf: &X509Certificate<'_>,
    intermediates: &[Vec<u8>],
    bundle: &TrustBundle,
    now: OffsetDateTime,
    findings: &mut Findings,
) -> TpmClass {
    let what = subject.what;
    let not_after = leaf.validity().not_after.to_datetime();
    let mut at = now;
    if subject.outlives && now > not_after {
        // A TPM outlives its certificate and cannot get another: TCG EK Credential Profile 2.5, 2.2.1.5. The chain is then judged at the
        // certificate's last second.
        at = not_after;
        findings.push(
            Finding::warning(format!("{}.expired", subject.prefix), format!("{what} has expired"))
                .expected("valid now")
                .found(format!("not after {not_after}"))
                .fix("none is needed: a TPM's key stays the same; plan the machine's replacement"),
        );
    }
    let mut outcome = Err(Error::UnknownIssuer);
    for class in TpmClass::CERTIFIED {
        match verify_path(subject, (exact, leaf), intermediates, bundle, class, at, now) {
            Ok(_) if bundle.revocations(class).any(|list| list.names(leaf)) => {
                outcome = Err(Error::CertRevoked);
                break;
            }
            Ok(path) => {
                if path.as_it_stands {
                    findings.push(quirk_finding(CRITICAL_POLICIES));
                }
                for (issuer, due) in path.stale {
                    findings.push(
                        Finding::warning(
                            format!("{}.crl-stale", subject.prefix),
                            format!("the CRL of `{issuer}` is out of date"),
                        )
                        .expected("a CRL that is valid now")
                        .found(due)
                        .fix(
                            "fetch the CRL again into the class's directory; until then later revocations are not seen",
                        ),
                    );
                }
                outcome = Ok(class);
                break;
            }
            // "Unknown issuer" says the least: keep what another class's roots said.
            Err(Error::UnknownIssuer) => {}
            // A revoked one stays so, whatever a higher class's directory lacks.
            Err(Error::CertRevoked) => {
                outcome = Err(Error::CertRevoked);
                break;
            }
            Err(error) => outcome = Err(error),
        }
    }
    let odd = || odd_extensions(leaf, intermediates, bundle);
    explain(subject, leaf, outcome.as_ref().err(), odd, findings);
    outcome.unwrap_or(TpmClass::Unverified)
}

/// One finding for each kind of failure.
fn explain(
    subject: &Subject,
    leaf: &X509Certificate<'_>,
    error: Option<&Error>,
    odd: impl FnOnce() -> (String, &'static str),
    findings: &mut Findings,
) {
    let what = subject.what;
    let critical = matches!(error, Some(Error::UnsupportedCriticalExtension));
    #[allow(deprecated, reason = "webpki may still return the variants without context")]
    let algorithm = matches!(
        error,
        Some(
            Error::UnsupportedSignatureAlgorithm
                | Error::UnsupportedSignatureAlgorithmContext(_)
                | Error::UnsupportedSignatureAlgorithmForPublicKey
                | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
        )
    );
    #[allow(deprecated, reason = "webpki may still return the variants without context")]
    let crl = matches!(
        error,
        Some(
            Error::InvalidCrlSignatureForPublicKey
                | Error::IssuerNotCrlSigner
                | Error::UnsupportedCrlSignatureAlgorithm
                | Error::UnsupportedCrlSignatureAlgorithmContext(_)
                | Error::UnsupportedCrlSignatureAlgorithmForPublicKey
                | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_)
        )
    );
    let revoked = matches!(error, Some(Error::CertRevoked));
    findings.check(subject.revoked, revoked, || {
        Finding::error("", format!("{what}, or a CA on its path, is revoked"))
            .expected("no entry in the CRLs of the class's directory")
            .found(format!("serial {}, issuer {}", leaf.raw_serial_as_string(), leaf.issuer()))
            .fix("the maker took its word back: take the machine out of service and ask its maker for the reason")
    });
    findings.check(subject.crl, crl, || {
        Finding::error("", "a CRL of the class's directory was not signed by the CA that it names")
            .expected("the CA's signature, and keyUsage cRLSign in its certificate")
            .found(error.map(ToString::to_string).unwrap_or_default())
            .fix("fetch the CRL again from the CA; without one, take the file out of the class's directory")
    });
    findings.check(subject.critical, critical, || {
        let (found, fix) = odd();
        Finding::error("", "a certificate of the chain has a critical extension that is not understood")
            .expected("only extensions that path validation knows")
            .found(found)
            .fix(fix)
    });
    findings.check(subject.algorithm, algorithm, || {
        Finding::error("", "a certificate of the chain is signed with an algorithm that is not accepted")
            .expected("RSA from 2048 bits or ECDSA, with SHA-256 or longer")
            .found(leaf.signature_algorithm.algorithm.to_id_string())
            .fix("TPM 1.2 certificates signed with SHA-1 cannot be used; use the machine's TPM 2.0")
    });
    let other = error.is_some() && !(critical || algorithm || crl || revoked);
    findings.check(subject.chain, other, || {
        Finding::error("", format!("{what} does not chain to a trusted root"))
            .expected("a root under trust/ek/<class>/ that signed it, directly or through intermediates")
            .found(format!("{}; issuer {}", error.map(ToString::to_string).unwrap_or_default(), leaf.issuer()))
            .fix("if the maker is to be trusted, put its root and intermediates into the class's directory")
    });
}

/// Whether the leaf chains to a root of the class.
fn verify_path(
    subject: &Subject,
    (leaf, parsed): (&[u8], &X509Certificate<'_>),
    intermediates: &[Vec<u8>],
    bundle: &TrustBundle,
    class: TpmClass,
    at: OffsetDateTime,
    now: OffsetDateTime,
) -> Result<Path, Error> {
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(
        u64::try_from(at.unix_timestamp()).unwrap_or_default(),
    ));
    let mut issuers = vec![parsed.issuer().as_raw()];
    let sent: Vec<_> =
        intermediates.iter().filter_map(|one| Some(x509_parser::parse_x509_certificate(one).ok()?.1)).collect();
    issuers.extend(sent.iter().map(|one| one.issuer().as_raw()));
    let above: Vec<_> = issuers.into_iter().map(|issuer| bundle.above(class, issuer)).collect();
    let leaf = CertificateDer::from(leaf);
    let leaf = EndEntityCert::try_from(&leaf)?;
    let mut between: Vec<CertificateDer<'_>> = Vec::new();
    for one in above.iter().flat_map(|above| &above.all) {
        if !between.iter().any(|known| known.as_ref() == one.as_ref()) {
            between.push(CertificateDer::from(one.as_ref()));
        }
    }
    between.extend(intermediates.iter().map(|one| CertificateDer::from(one.as_slice())));
    let lists: Vec<_> = bundle.revocations(class).collect();
    let crls: Vec<_> = lists.iter().map(|one| one.list()).collect();
    let attempt = |roots: &[&CertificateDer<'static>], as_it_stands: bool| {
        let anchors = roots.iter().map(|one| webpki::anchor_from_trusted_cert(one)).collect::<Result<Vec<_>, _>>()?;
        let revocation = RevocationOptionsBuilder::new(&crls).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Allow)
                // A stale list still revokes; that it is stale is told.
                .with_expiration_policy(ExpirationPolicy::Ignore)
                .build()
        });
        let path = leaf.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &between,
            at,
            // The leaf's own usage is checked apart, strictly; here an intermediate's constraint on usage is honoured.
            subject,
            revocation,
            None,
        )?;
        let issuers = std::iter::once(path.end_entity().issuer())
            .chain(path.intermediate_certificates().map(|one| one.issuer()))
            .collect::<Vec<_>>();
        let stale = issuers.into_iter().filter_map(|issuer| {
            let newest = lists.iter().find(|one| one.is_of(issuer))?;
            let over = newest.next_update.is_none_or(|next| next < now);
            let due = match newest.next_update {
                Some(next) => format!("issued {}, next due {next}", newest.this_update),
                None => format!("issued {}, and does not say when the next is due", newest.this_update),
            };
            (over || newest.this_update > now).then(|| (newest.issuer.clone(), due))
        });
        Ok(Path { as_it_stands, stale: stale.collect() })
    };
    let strict = attempt(&bundle.roots(class).collect::<Vec<_>>(), false);
    match strict {
        Err(Error::UnsupportedCriticalExtension | Error::UnknownIssuer) if bundle.tolerates(CRITICAL_POLICIES) => {
            let trusted: Vec<_> = above.iter().flat_map(|above| above.critical_policies.iter().copied()).collect();
            let revoked: Vec<_> = above.iter().flat_map(|above| above.revoked.iter().copied()).collect();
            if trusted.is_empty() && revoked.is_empty() {
                return strict;
            }
            match attempt(&trusted, true) {
                Err(_) if attempt(&revoked, true).is_ok() => Err(Error::CertRevoked),
                outcome => outcome,
            }
        }
        strict => strict,
    }
}

/// Which certificate has which critical extension that path validation does not know, and what to do about it.
fn odd_extensions(
    leaf: &X509Certificate<'_>,
    intermediates: &[Vec<u8>],
    bundle: &TrustBundle,
) -> (String, &'static str) {
    let sent: Vec<_> =
        intermediates.iter().filter_map(|one| Some(x509_parser::parse_x509_certificate(one).ok()?.1)).collect();
    let mut held: Vec<&CertificateDer<'_>> = Vec::new();
    for issuer in std::iter::once(leaf).chain(&sent).map(|one| one.issuer().as_raw()) {
        for class in TpmClass::CERTIFIED {
            for one in bundle.above(class, issuer).all {
                if !held.contains(&one) {
                    held.push(one);
                }
            }
        }
    }
    let held: Vec<_> =
        held.into_iter().filter_map(|one| Some(x509_parser::parse_x509_certificate(one).ok()?.1)).collect();
    let mut found = Vec::new();
    let (mut other, mut absent) = (false, false);
    let places = [("the leaf", std::slice::from_ref(leaf)), ("the sent", &sent), ("the trusted", &held)];
    for (place, list) in places {
        for one in list {
            let oids = unknown_critical(one);
            if oids.is_empty() {
                continue;
            }
            other |= place == "the leaf" || oids != [POLICIES];
            absent |= place == "the sent" && !held.iter().any(|known| known.as_ref() == one.as_ref());
            let named = oids
                .iter()
                .map(|oid| if oid == POLICIES { format!("{oid} (certificatePolicies)") } else { oid.clone() });
            let whose = if place == "the leaf" {
                place.to_owned()
            } else {
                format!("{place} intermediate `{}`", one.subject())
            };
            found.push(format!("{} in {whose}", named.collect::<Vec<_>>().join(", ")));
        }
    }
    let fix = match (other, absent) {
        _ if found.is_empty() => REPORT,
        (true, _) => REPORT,
        (false, false) => {
            "it is a known quirk of makers' intermediates: to allow it write ek_quirks = [\"critical-policies\"] into verifier.toml and start \
             the verifier again; `hostmark inspect ek-cert FILE --trust DIR --quirk critical-policies` shows its effect"
        }
        (false, true) => {
            "it is a known quirk of makers' intermediates: to allow it put that certificate into its class's directory (trust/ek/<class>/) and \
             write ek_quirks = [\"critical-policies\"] into verifier.toml, then start the verifier again"
        }
    };
    (found.join("; "), fix)
}

/// What no quirk allows.
const REPORT: &str = "no quirk allows it: report the certificate, so that its extension can be judged";
