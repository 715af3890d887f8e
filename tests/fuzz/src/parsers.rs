//! Which target reaches which parser of the library, so that a new parser without a target is noticed.
//!
//! A parser is a public function that turns bytes or text into something else, by its name and its arguments. The test reads the
//! sources and holds them against the list, both ways.

/// A file below `attest/src`, a function of it, and the targets that call it, themselves or through another one.
pub type Row = (&'static str, &'static str, &'static [&'static str]);

/// Every parser.
pub const PARSERS: &[Row] = &[
    ("admission.rs", "parse", &["admission"]),
    ("boot_log/inspect.rs", "inspect", &["boot-log"]),
    ("boot_log/inspect.rs", "list_events", &["boot-log"]),
    ("boot_log/parse.rs", "parse", &["boot-log", "ccel"]),
    ("ccel.rs", "parse", &["ccel"]),
    ("cel/inspect.rs", "inspect", &["cel-json", "cel-cbor", "cel-tlv"]),
    ("cel/mod.rs", "parse", &["cel-json", "cel-cbor", "cel-tlv"]),
    ("cel/userspace.rs", "parse", &["cel-json"]),
    ("digest.rs", "from_hex", &["references", "keylime", "round-state"]),
    ("digest.rs", "from_name", &["tools-files", "references"]),
    ("evidence.rs", "parse", &["evidence"]),
    ("host_log/record.rs", "parse", &["host-log"]),
    ("identity/certificate.rs", "read_certificate_file", &["certificate-parts"]),
    ("identity/certify.rs", "verify_tls_key", &["certification"]),
    ("identity/class.rs", "add", &["crl", "ca-bundle"]),
    ("identity/class.rs", "from_name", &["admission"]),
    ("identity/devid.rs", "read_identity", &["identity-certificate"]),
    ("identity/devid.rs", "verify_identity", &["identity-certificate"]),
    ("identity/ek.rs", "verify_ek", &["ek-certificate", "public"]),
    ("identity/ek_certificate.rs", "inspect_ek_certificate", &["ek-certificate"]),
    ("identity/nv.rs", "parse", &["nv-public"]),
    ("identity/platform_certificate.rs", "is", &["platform-certificate"]),
    ("identity/platform_certificate.rs", "parse", &["platform-certificate"]),
    ("identity/roca.rs", "is_weak", &["certificate-parts"]),
    ("identity/tag.rs", "verify_provisioning", &["tag"]),
    ("identity/tpm_attributes.rs", "from_alternative_name", &["certificate-parts", "ek-certificate"]),
    ("identity/tpm_attributes.rs", "from_directory_attributes", &["certificate-parts", "ek-certificate"]),
    ("ima/inspect.rs", "inspect", &["ima-binary", "ima-ascii"]),
    ("ima/inspect.rs", "list_entries", &["ima-binary", "ima-ascii"]),
    ("ima/keys.rs", "from_pem", &["ima-key", "policy"]),
    ("ima/keys.rs", "from_spki", &["ima-key", "round-state"]),
    ("ima/keys.rs", "issued", &["ima-key"]),
    ("ima/parse.rs", "boundaries", &["ima-binary"]),
    ("ima/parse.rs", "parse", &["capture"]),
    ("ima/parse.rs", "parse_as", &["ima-binary", "ima-ascii"]),
    ("ima/signature.rs", "parse", &["ima-binary", "ima-ascii"]),
    ("jws.rs", "add_pem", &["profile"]),
    ("jws.rs", "from_pkcs8", &[OWN_KEYS]),
    ("jws.rs", "verify", &["token", "claims"]),
    ("jws.rs", "verify_detached", &["token", "stored-round"]),
    ("kernel_parameters.rs", "boots_with_tcb", &["kernel-parameters"]),
    ("kernel_parameters.rs", "of", &["kernel-parameters"]),
    ("kernel_parameters.rs", "parameters", &["kernel-parameters"]),
    ("kernel_parameters.rs", "reads_whole", &["kernel-parameters"]),
    ("kernel_parameters.rs", "resumes_from_disk", &["kernel-parameters"]),
    ("manifest.rs", "parse", &["manifest", "capture"]),
    ("permit.rs", "verify", &["token", "claims"]),
    ("policy/appraisal.rs", "parse", &["policy"]),
    ("policy/corim/cose.rs", "from_pem", &["corim"]),
    ("policy/corim/cose.rs", "from_spki", &["corim"]),
    ("policy/corim/mod.rs", "verify", &["corim"]),
    ("policy/import.rs", "keylime", &["keylime"]),
    ("policy/mod.rs", "parse_toml", &["policy", "references", "rebase"]),
    ("policy/mod.rs", "verify", &["token"]),
    ("policy/rebase.rs", "rebase", &["rebase"]),
    ("policy/references.rs", "parse", &["references", "keylime", "rebase"]),
    ("pool.rs", "parse", &["pool"]),
    ("predict/pe.rs", "parse", &["kernel-image"]),
    ("predict/uki.rs", "parse", &["kernel-image"]),
    ("profile/key.rs", "parse", &["profile"]),
    ("profile/layer.rs", "parse", &["profile"]),
    ("profile/report.rs", "parse", &["profile-report"]),
    ("profile/waiver.rs", "parse", &["profile", "profile-report"]),
    ("profile/waiver.rs", "verify", &["profile-report"]),
    ("quote.rs", "verify_quote", &["quote"]),
    ("result.rs", "verify", &["token", "claims"]),
    ("selection.rs", "from_text", &["tools-files"]),
    ("state.rs", "open", &["round-state"]),
    ("stored_round.rs", "verify", &["stored-round"]),
    ("tools.rs", "read_ak", &["tools-files"]),
    ("tools.rs", "read_pcr_values", &["tools-files"]),
    ("tools.rs", "read_serialized_pcrs", &["tools-files"]),
    ("tools.rs", "unwrap_attest", &["tools-files", "quote"]),
    ("tpm/attest.rs", "parse", &["attest", "certification"]),
    ("tpm/key.rs", "from_rsa_public_key", &["certificate-parts"]),
    ("tpm/key.rs", "from_spki", &["certificate-parts"]),
    ("tpm/name.rs", "parse", &["name", "tag"]),
    ("tpm/public.rs", "parse", &["public", "stored-round"]),
    ("tpm/public.rs", "parse_tpm2b", &["public"]),
    ("tpm/signature.rs", "parse", &["signature", "certification"]),
    ("tpm/signature.rs", "verify", &["signature"]),
    ("tpm/signed.rs", "verify_attest", &["quote", "certification"]),
    ("workload.rs", "parse", &["inventory"]),
    ("workload.rs", "sensitive", &["inventory"]),
];

/// In place of a target: reads only what its owner wrote.
const OWN_KEYS: &str = "(a file of the verifier's own keys)";

/// Functions that begin so take something apart, whatever they return.
#[cfg(test)]
const NAMES: [&str; 8] = ["parse", "read_", "inspect", "list_", "from_", "unwrap_", "open", "verify"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::{NAMES, OWN_KEYS, PARSERS};
    use crate::targets::TARGETS;

    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => sources(&path, found),
                false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
                false => {}
            }
        }
    }

    /// Public functions outside tests: name, arguments, whether it may say no.
    fn functions(text: &str) -> Vec<(String, String, bool)> {
        let product = text.split("#[cfg(test)]").next().unwrap_or_default();
        let starts = product.match_indices("pub fn ").map(|(at, word)| &product[at + word.len()..]);
        let signature = |rest: &str| {
            let end = rest.find('{').unwrap_or(rest.len());
            let (name, after) = rest[..end].split_once('(').unwrap();
            let (arguments, result) = after.rsplit_once("->").unwrap_or((after, ""));
            let fallible = ["Result<", "Option<"].iter().any(|kind| result.contains(kind));
            (name.split('<').next().unwrap_or(name).to_owned(), arguments.to_owned(), fallible)
        };
        starts.map(signature).collect()
    }

    #[test]
    fn every_parser_is_reached_by_a_target() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../attest/src");
        let mut files = Vec::new();
        sources(&root, &mut files);
        let (mut there, mut parsers) = (BTreeSet::new(), BTreeSet::new());
        for path in files {
            let file = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            for (name, arguments, fallible) in functions(&std::fs::read_to_string(&path).unwrap()) {
                let bytes = arguments.contains("[u8]");
                let reads = bytes || arguments.contains("&str") || arguments.contains("&'a str");
                let named = NAMES.iter().any(|start| name.starts_with(start));
                if reads && fallible && (named || bytes && !arguments.contains("self")) {
                    parsers.insert((file.clone(), name.clone()));
                }
                there.insert((file.clone(), name));
            }
        }
        assert!(parsers.len() > 50, "the sources are read");
        let listed: BTreeSet<(String, String)> =
            PARSERS.iter().map(|(file, name, _)| ((*file).to_owned(), (*name).to_owned())).collect();
        assert_eq!(listed.len(), PARSERS.len(), "each parser stands once");
        let mut missing: Vec<_> = parsers.difference(&listed).collect();
        missing.retain(|(file, name)| !NO_PARSERS.contains(&(file.as_str(), name.as_str())));
        assert!(missing.is_empty(), "parsers that no target reaches: {missing:?}");
        let gone: Vec<_> = listed.difference(&there).collect();
        assert!(gone.is_empty(), "listed, and not in the sources: {gone:?}");
        let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
        for (file, name, targets) in PARSERS {
            assert!(!targets.is_empty(), "{file}: {name}");
            assert!(targets.iter().all(|one| names.contains(one) || *one == OWN_KEYS), "{file}: {name}: {targets:?}");
        }
        let used: BTreeSet<&str> = PARSERS.iter().flat_map(|(_, _, targets)| targets.iter().copied()).collect();
        // These have no parser of their own: serde reads the first, `FromStr` the second.
        let unused: Vec<_> = names.difference(&used).filter(|one| !["enrolment", "label"].contains(one)).collect();
        assert!(unused.is_empty(), "targets without a parser: {unused:?}");
    }

    /// Take bytes and may say no, but take nothing apart: what they are given was parsed or is made here.
    const NO_PARSERS: [(&str, &str); 9] = [
        ("digest.rs", "new"),
        ("identity/certificate.rs", "of"),
        ("identity/credential.rs", "make_credential"),
        ("jws.rs", "sign"),
        ("jws.rs", "sign_detached"),
        ("selection.rs", "one"),
        ("stored_round.rs", "keep"),
        ("tpm/key.rs", "ec"),
        ("tpm/name.rs", "of"),
    ];
}
