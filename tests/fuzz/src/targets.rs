//! The table of targets.

mod certificates;
mod logs;
mod policies;
mod profiles;
mod rounds;

use serde::Serialize;

use crate::{made, signed, uki};

/// A parser under fuzzing.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is mutated.
    pub seeds: &'static [Seed],
    /// Runs the parser, and what reads its result next; a panic is the finding.
    pub run: fn(&[u8]),
}

/// Where a target's seeds come from.
#[derive(Debug, Clone, Copy)]
pub enum Seed {
    /// Every file of that name below a `testdata/` folder.
    Recorded(&'static str),
    /// Every file below `configs/` whose path contains this.
    Config(&'static str),
    /// This text.
    Text(&'static str),
    /// What our own writer makes.
    Made(fn() -> Vec<u8>),
}

/// The recorded EK certificates.
const EK_CERTIFICATES: [Seed; 2] = [Seed::Recorded("ekcert-rsa.der"), Seed::Recorded("ekcert-ecc384.der")];

/// Every target. A parser that reads foreign bytes and is missing here is a mistake: `parsers` holds which target reaches which.
pub const TARGETS: &[Target] = &[
    Target { name: "boot-log", seeds: &[Seed::Recorded("boot-log.bin")], run: logs::boot_log },
    Target {
        name: "ima-binary",
        seeds: &[Seed::Recorded("ima.bin"), Seed::Made(made::ima_templates)],
        run: logs::ima_binary,
    },
    Target {
        name: "ima-ascii",
        seeds: &[Seed::Recorded("ima.txt"), Seed::Made(made::ima_templates_ascii)],
        run: logs::ima_ascii,
    },
    Target { name: "cel-json", seeds: &[Seed::Made(made::host_log), Seed::Made(made::cel_json)], run: logs::cel_json },
    Target { name: "cel-cbor", seeds: &[Seed::Made(made::cel_cbor)], run: logs::cel_cbor },
    Target { name: "cel-tlv", seeds: &[Seed::Made(made::cel_tlv)], run: logs::cel_tlv },
    Target { name: "ccel", seeds: &[Seed::Recorded("boot-log.bin"), Seed::Made(made::ccel)], run: logs::ccel },
    Target { name: "host-log", seeds: &[Seed::Made(made::host_log)], run: logs::host_log },
    Target { name: "kernel-parameters", seeds: &[Seed::Recorded("cmdline")], run: logs::kernel_parameters },
    Target { name: "attest", seeds: &[Seed::Recorded("quote.msg")], run: rounds::attest },
    Target {
        name: "quote",
        seeds: &[
            Seed::Recorded("quote.msg"),
            Seed::Recorded("quote.sig"),
            Seed::Recorded("ak.pub"),
            Seed::Recorded("quote.pcrs"),
            Seed::Recorded("pcrs.quoted.txt"),
        ],
        run: rounds::quote,
    },
    Target { name: "public", seeds: &[Seed::Recorded("ak.pub"), Seed::Recorded("ek.pub")], run: rounds::public },
    Target { name: "signature", seeds: &[Seed::Recorded("quote.sig")], run: rounds::signature },
    Target { name: "name", seeds: &[Seed::Recorded("ak.name")], run: rounds::name },
    Target { name: "nv-public", seeds: &[Seed::Made(made::nv_public)], run: rounds::nv_public },
    Target { name: "evidence", seeds: &[Seed::Made(made::evidence)], run: rounds::evidence },
    Target { name: "manifest", seeds: &[Seed::Made(made::manifest)], run: rounds::manifest },
    Target { name: "inventory", seeds: &[Seed::Made(made::rounds::inventory)], run: rounds::inventory },
    Target { name: "tag", seeds: &[Seed::Made(made::tag)], run: rounds::provisioned_tag },
    Target { name: "enrolment", seeds: &[Seed::Made(made::enrolment)], run: rounds::enrolment },
    Target {
        name: "certification",
        seeds: &[Seed::Made(made::certificates::request), Seed::Recorded("quote.msg")],
        run: rounds::certification,
    },
    Target {
        name: "token",
        seeds: &[
            Seed::Made(made::token),
            Seed::Made(made::rounds::signed_permit),
            Seed::Made(made::rounds::policy_signature),
        ],
        run: rounds::token,
    },
    Target {
        name: "claims",
        seeds: &[Seed::Made(made::permit_payload), Seed::Made(made::rounds::result_payload)],
        run: rounds::claims,
    },
    Target { name: "round-state", seeds: &[Seed::Made(made::rounds::round_state)], run: rounds::round_state },
    Target { name: "stored-round", seeds: &[Seed::Made(made::rounds::stored_round)], run: rounds::stored_round },
    Target {
        name: "tools-files",
        seeds: &[
            Seed::Recorded("ak.pub"),
            Seed::Recorded("swtpm-localca-issuer-cert.pem"),
            Seed::Recorded("quote.pcrs"),
            Seed::Recorded("quote.msg"),
            Seed::Recorded("pcrs.quoted.txt"),
            Seed::Text("sha1:0,1+sha256:0,1,4,7"),
        ],
        run: rounds::tools_files,
    },
    Target {
        name: "ek-certificate",
        seeds: &[EK_CERTIFICATES[0], EK_CERTIFICATES[1], Seed::Made(made::certificates::ek)],
        run: certificates::ek,
    },
    Target {
        name: "certificate-parts",
        seeds: &[
            EK_CERTIFICATES[0],
            Seed::Recorded("swtpm-localca-rootca-cert.pem"),
            Seed::Made(made::certificates::tpm_attributes),
            Seed::Made(made::certificates::tpm_specification),
            Seed::Made(made::certificates::key),
        ],
        run: certificates::attributes,
    },
    Target {
        name: "identity-certificate",
        seeds: &[Seed::Made(made::certificates::iak), EK_CERTIFICATES[0]],
        run: certificates::identity,
    },
    Target {
        name: "platform-certificate",
        seeds: &[Seed::Made(made::certificates::platform), Seed::Made(made::certificates::platform_of_a_key)],
        run: certificates::platform,
    },
    Target { name: "crl", seeds: &[Seed::Made(made::certificates::crl)], run: certificates::trust_file },
    Target {
        name: "ca-bundle",
        seeds: &[
            Seed::Recorded("swtpm-localca-rootca-cert.pem"),
            Seed::Recorded("swtpm-localca-issuer-cert.pem"),
            EK_CERTIFICATES[0],
        ],
        run: certificates::trust_file,
    },
    Target { name: "ima-key", seeds: &EK_CERTIFICATES, run: certificates::ima_key },
    Target {
        name: "policy",
        seeds: &[Seed::Text(made::POLICY), Seed::Config("appraisal/"), Seed::Made(made::signers)],
        run: policies::policy,
    },
    Target {
        name: "profile",
        seeds: &[Seed::Config("profiles/"), Seed::Text("a.'b.c'.d"), Seed::Text(made::profiles::WAIVER)],
        run: profiles::profile,
    },
    Target { name: "profile-report", seeds: &[Seed::Made(made::profiles::profile_report)], run: profiles::report },
    Target { name: "admission", seeds: &[Seed::Config("admission/")], run: policies::admission },
    Target { name: "pool", seeds: &[Seed::Config("pools/")], run: policies::pool },
    Target { name: "references", seeds: &[Seed::Text(made::REFERENCES)], run: policies::references },
    Target {
        name: "label",
        seeds: &[Seed::Text("restricted:phi,pci@hospital-a"), Seed::Text("public")],
        run: policies::label,
    },
    Target { name: "keylime", seeds: &[Seed::Made(made::keylime)], run: policies::keylime },
    Target {
        name: "corim",
        seeds: &[Seed::Made(signed::corim), Seed::Made(signed::payload)],
        run: policies::signed_corim,
    },
    Target { name: "rebase", seeds: &[Seed::Made(made::rebased)], run: policies::rebased },
    Target {
        name: "capture",
        seeds: &[Seed::Recorded("boot-log.bin"), Seed::Recorded("ima.bin"), Seed::Made(made::manifest)],
        run: policies::captured,
    },
    Target {
        name: "kernel-image",
        seeds: &[Seed::Made(uki::uki), Seed::Made(uki::kernel)],
        run: policies::kernel_image,
    },
];

/// What people are shown holds no control character: a host's text must not move a terminal's cursor or begin a line.
fn shown_on_one_line(value: &impl Serialize) {
    fn look(value: &serde_json::Value) {
        match value {
            serde_json::Value::String(text) => assert!(!text.chars().any(char::is_control), "{text:?}"),
            serde_json::Value::Array(list) => list.iter().for_each(look),
            serde_json::Value::Object(fields) => {
                assert!(fields.keys().all(|name| !name.chars().any(char::is_control)), "{fields:?}");
                fields.values().for_each(look);
            }
            _ => {}
        }
    }
    if let Ok(value) = serde_json::to_value(value) {
        look(&value);
    }
}
