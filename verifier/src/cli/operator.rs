//! `hostmark operator`: the people and schedulers that may ask the verifier. Their keys are made here and never travel.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use zeroize::Zeroizing;

use super::answer::Answer;
use super::client::Client;
use super::connect::Connection;
use super::failure::Failure;
use super::show::{Style, facts};
use super::{Outcome, key};
use crate::api::types::{AddOperator, Operator, OperatorCertificate};
use crate::auth::Role;

/// `hostmark operator …`
#[derive(Debug, Subcommand)]
pub(super) enum OperatorCommand {
    /// Add an operator: makes NAME.key and NAME.pem for them.
    Add {
        /// Unique name; a mail address is one.
        name: String,
        /// What they may do.
        #[arg(long, value_parser = role, value_name = "viewer|scheduler|provisioner|approver|auditor|admin")]
        role: Role,
        /// Where to write key and certificate.
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
        /// The operator's own certificate request (PKCS#10, PEM): no key is made here.
        #[arg(long, value_name = "FILE")]
        csr: Option<PathBuf>,
    },
    /// Remove an operator; every certificate of theirs ends at once.
    Remove {
        /// Their name.
        name: String,
    },
    /// List the operators.
    List,
}

fn role(text: &str) -> Result<Role, String> {
    let known = Role::from_name(text).filter(|role| *role != Role::Host);
    known.ok_or_else(|| "the roles are viewer, scheduler, provisioner, approver, auditor, admin".to_owned())
}

impl OperatorCommand {
    pub(super) fn run(self, connection: &Connection, style: Style) -> Outcome {
        let client = Client::new(connection)?;
        match self {
            Self::Add { name, role, dir, csr } => add(&client, &name, role, &dir, csr.as_deref()),
            Self::Remove { name } => {
                client.delete(&["v1", "operators", &name])?;
                Answer::new(&serde_json::json!({ "name": name, "done": "remove" }), format!("{name} is removed\n"))
            }
            Self::List => {
                let list: Vec<Operator> = client.get(&["v1", "operators"])?;
                let rows = list.iter().map(|one| {
                    vec![
                        one.name.as_str().into(),
                        one.role.name().into(),
                        one.added.as_str().into(),
                        one.added_by.as_str().into(),
                    ]
                });
                let text = style.table(&["name", "role", "added", "by"], rows);
                Answer::new(&list, text)
            }
        }
    }
}

fn add(client: &Client, name: &str, role: Role, dir: &Path, csr: Option<&Path>) -> Outcome {
    if name.contains('/') {
        return Err(Failure::unusable(format!("`{name}` is no operator's name")));
    }
    let failed = |error: rcgen::Error| Failure::unusable(format!("no certificate request could be made: {error}"));
    let (csr, secret) = match csr {
        Some(path) => (super::input::read_text(path, "a certificate request", super::input::SMALL_MAX)?, None),
        None => {
            let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(failed)?;
            let request = rcgen::CertificateParams::default().serialize_request(&pair).map_err(failed)?;
            let file = key::new_secret(dir.join(format!("{name}.key")))?;
            (request.pem().map_err(failed)?, Some((file, Zeroizing::new(pair.serialize_pem()))))
        }
    };
    let certificate = key::new_secret(dir.join(format!("{name}.pem")))?;
    let made: OperatorCertificate =
        client.post(&["v1", "operators"], &AddOperator { name: name.to_owned(), role, csr })?;
    let key_file = secret.map(|(file, pem)| file.keep(pem.as_bytes())).transpose()?;
    let cert_file = certificate.keep(made.certificate.as_bytes())?;
    let mut rows = vec![("operator", format!("{name}, {}", role.name()))];
    rows.extend(key_file.as_ref().map(|path| ("key", path.display().to_string())));
    rows.extend([("certificate", cert_file.display().to_string()), ("until", made.not_after.clone())]);
    let view = serde_json::json!({
        "name": name, "role": role, "certificate": cert_file, "key": key_file, "not_after": made.not_after,
    });
    Answer::new(&view, facts(rows))
}
