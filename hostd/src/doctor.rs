//! `hostd doctor`: what stands between this host and a good verdict, and what to do about it.
//!
//! Looks and changes nothing; judges nothing either: a check that passes here is no claim, the verifier decides from evidence.

use std::io;
use std::path::Path;
use std::time::Duration;

use hostmark_attest::tpm::public::Public;
use serde::Serialize;
use time::OffsetDateTime;

use crate::client::{Client, ClientError};
use crate::config::{Config, parse_pin};
use crate::provision::Provisioned;
use crate::tpm::{Auth, Facts, Tcti, Tpm, TpmError};

/// Signatures that the signing time is the median of.
const SIGNATURES: u32 = 9;
/// A host that renews a 60 s lease every 20 s should not spend its time signing.
const SLOW_SIGNATURE: Duration = Duration::from_secs(2);
/// More than firmware and loaders ever log; the verifier's limit is near it.
const LARGE_LOG: u64 = 16 << 20;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, with a consequence that `fix` names.
    Warning,
    /// In the way of provisioning or attesting.
    Failed,
    /// Could not be looked at, because of another check.
    Skipped,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Dotted, subject first.
    pub id: &'static str,
    /// How it went.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do, where something is to be done.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub fix: &'static str,
}

fn ok(id: &'static str, found: impl Into<String>) -> Check {
    Check { id, state: State::Ok, found: found.into(), fix: "" }
}

fn warning(id: &'static str, found: impl Into<String>, fix: &'static str) -> Check {
    Check { id, state: State::Warning, found: found.into(), fix }
}

fn failed(id: &'static str, found: impl Into<String>, fix: &'static str) -> Check {
    Check { id, state: State::Failed, found: found.into(), fix }
}

fn skipped(id: &'static str, why: &str) -> Check {
    Check { id, state: State::Skipped, found: why.to_owned(), fix: "" }
}

/// Runs every check.
pub async fn examine(config: &Config, auth: Auth) -> Vec<Check> {
    let mut checks = Vec::new();
    let tpm = check_tpm(config, auth, &mut checks);
    check_access(config, &mut checks);
    let host = Provisioned::load(&config.state_dir);
    check_keys(config, tpm.as_ref(), &mut checks);
    check_logs(config, &mut checks);
    check_kernel(&mut checks);
    let host = match host {
        Ok(host) => host,
        Err(error) => {
            checks.push(failed("host.provisioned", error.to_string(), "run hostd as root, or mend the file"));
            None
        }
    };
    check_verifier(config, host.as_ref(), &mut checks).await;
    checks
}

fn check_tpm(config: &Config, auth: Auth, checks: &mut Vec<Check>) -> Option<Tpm> {
    let opened = config.tcti().map_err(|error| error.to_string()).and_then(|tcti| {
        Tpm::open(&tcti, auth)
            .and_then(|tpm| Ok((tpm.facts()?, tpm)))
            .map_err(|error| explain_access(&tcti, &error).unwrap_or_else(|| error.to_string()))
    });
    let (facts, tpm) = match opened {
        Ok(opened) => opened,
        Err(problem) => {
            let fix = "enable the TPM 2.0 in the firmware's settings; run hostd as root or in group tss; for a software TPM, see that it runs";
            checks.push(failed("tpm.reachable", problem, fix));
            for id in ["tpm.kind", "tpm.bank", "tpm.lockout", "tpm.counters", "tpm.ek-certificate", "tpm.ek-id"] {
                checks.push(skipped(id, "no TPM"));
            }
            return None;
        }
    };
    checks.push(ok("tpm.reachable", &*facts.tcti));
    check_facts(&facts, checks);
    match tpm.ek(config.ek) {
        Ok(ek) => {
            let found = format!("{}, {} intermediates in NV", ek.kind, ek.intermediates.len());
            checks.push(ok("tpm.ek-certificate", found));
            let id = Public::parse(&ek.public).ok().and_then(|public| public.key().id());
            checks.push(match id {
                Some(id) => ok("tpm.ek-id", hex::encode(id)),
                None => {
                    failed("tpm.ek-id", "the EK is of no kind that a verifier knows", "choose another EK with `ek`")
                }
            });
        }
        Err(error) => {
            let fix = match error {
                TpmError::NoEkCertificate { .. } => {
                    "get the certificate from the TPM's maker and write it to NV; firmware TPMs often fetch theirs on first start"
                }
                _ => "see the TPM's message",
            };
            checks.push(failed("tpm.ek-certificate", error.to_string(), fix));
            checks.push(skipped("tpm.ek-id", "no EK"));
        }
    }
    Some(tpm)
}

fn explain_access(tcti: &Tcti, error: &TpmError) -> Option<String> {
    let (TpmError::Unreachable { source, .. }, Tcti::Device(path)) = (error, tcti) else { return None };
    match source.kind() {
        io::ErrorKind::NotFound => Some(format!("{} does not exist: the kernel found no TPM 2.0", path.display())),
        io::ErrorKind::PermissionDenied => Some(format!("{} belongs to root and group tss", path.display())),
        _ => None,
    }
}

/// Who may speak with the TPM beside root: they can extend PCR 13, which costs this host its trust until a reboot, and run into the lockout.
fn check_access(config: &Config, checks: &mut Vec<Check>) {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(Tcti::Device(device)) = config.tcti() else {
        checks.push(skipped("tpm.access", "no device of the kernel"));
        return;
    };
    // The resource manager and the bare device.
    let bare = device.to_string_lossy().replace("tpmrm", "tpm");
    for path in [device.as_path(), Path::new(&bare)] {
        let Ok(meta) = std::fs::metadata(path) else { continue };
        if let Some(who) = others(meta.mode(), meta.uid(), meta.gid()) {
            let fix = "nothing but hostd needs it: a udev rule with KERNEL==\"tpm*\", OWNER=\"root\", GROUP=\"root\", MODE=\"0600\"; or keep group tss empty";
            checks.push(warning(
                "tpm.access",
                format!("{}: {who} can extend PCR 13 and cause a lockout", path.display()),
                fix,
            ));
            return;
        }
    }
    checks.push(ok("tpm.access", "root alone"));
}

/// Whom a mode lets in beside root.
fn others(mode: u32, uid: u32, gid: u32) -> Option<String> {
    let owner = (uid != 0 && mode & 0o600 != 0).then(|| format!("user {uid}"));
    let group = (gid != 0 && mode & 0o060 != 0).then(|| format!("group {gid}"));
    let world = (mode & 0o006 != 0).then(|| "everybody".to_owned());
    let all: Vec<String> = [owner, group, world].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn check_facts(facts: &Facts, checks: &mut Vec<Check>) {
    let maker = format!("{} {}, firmware {}", facts.manufacturer, facts.vendor, facts.firmware);
    checks.push(if facts.looks_simulated() {
        warning("tpm.kind", maker, "a software TPM is class `simulated`: production pools refuse it")
    } else {
        ok("tpm.kind", maker)
    });
    let banks = facts.banks.join(", ");
    checks.push(if facts.banks.contains(&"sha256") {
        ok("tpm.bank", banks)
    } else {
        failed("tpm.bank", banks, "activate the SHA-256 PCR bank in the firmware's settings")
    });
    let (count, limit) = facts.lockout;
    let lockout = format!("{count} failed authorizations of {limit}");
    checks.push(if facts.in_lockout {
        warning(
            "tpm.lockout",
            lockout,
            "hostd's keys are exempt; reset with the lockout authorization (tpm2_dictionarylockout)",
        )
    } else {
        ok("tpm.lockout", lockout)
    });
    let time = facts.time;
    let counters = format!(
        "reset {}, restart {}, clock {} ms{}",
        time.reset_count,
        time.restart_count,
        time.clock_ms,
        if time.safe { "" } else { " (not safe: the last power-off was not in order)" }
    );
    checks.push(ok("tpm.counters", counters));
}

fn check_keys(config: &Config, tpm: Option<&Tpm>, checks: &mut Vec<Check>) {
    let Some(tpm) = tpm else {
        checks.push(skipped("tpm.keys", "no TPM"));
        checks.push(skipped("tpm.signing-time", "no TPM"));
        return;
    };
    match tpm.open_keys(&config.state_dir) {
        Ok(keys) => checks.push(ok("tpm.keys", format!("AK under the {} EK and TLS key load", keys.ek))),
        Err(TpmError::NoKeys) => {
            checks.push(skipped("tpm.keys", "not provisioned yet"));
            checks.push(skipped("tpm.signing-time", "not provisioned yet"));
            return;
        }
        Err(error) => {
            let fix = "if the TPM was cleared or exchanged: hostd deprovision, then provision again";
            checks.push(failed("tpm.keys", error.to_string(), fix));
            checks.push(skipped("tpm.signing-time", "no keys"));
            return;
        }
    }
    checks.push(match tpm.signing_time(SIGNATURES) {
        Ok(time) if time < SLOW_SIGNATURE => ok("tpm.signing-time", format!("median {} ms", time.as_millis())),
        Ok(time) => warning(
            "tpm.signing-time",
            format!("median {} ms", time.as_millis()),
            "a round takes three signatures: give this host's pools leases of minutes",
        ),
        Err(error) => failed("tpm.signing-time", error.to_string(), "see the TPM's message"),
    });
}

fn check_logs(config: &Config, checks: &mut Vec<Check>) {
    let source = &config.source;
    let securityfs = "mount securityfs and run hostd as root";
    checks.push(match read_size(&source.boot_log) {
        Ok(0) => failed("boot-log.readable", "it is empty", "boot in UEFI mode with the TPM enabled"),
        Ok(size) if size < LARGE_LOG => ok("boot-log.readable", format!("{size} bytes")),
        Ok(size) => warning("boot-log.readable", format!("{size} bytes"), "a verifier may refuse so long a log"),
        Err(error) => failed("boot-log.readable", show(&source.boot_log, &error), securityfs),
    });
    checks.push(match read_size(&source.userspace_log) {
        Ok(size) => ok("userspace-log.readable", format!("{size} bytes")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            ok("userspace-log.readable", "none: this systemd writes none")
        }
        Err(error) => {
            let fix = "run hostd as root; without the log PCR 11 and 15 do not replay";
            failed("userspace-log.readable", show(&source.userspace_log, &error), fix)
        }
    });
    match std::fs::read(&source.ima) {
        Ok(list) => {
            checks.push(ok("ima.readable", format!("{} bytes", list.len())));
            // boot_aggregate alone is below this size; any policy measures the init program at once.
            checks.push(if list.len() > 150 {
                ok("ima.policy", "measures")
            } else {
                warning(
                    "ima.policy",
                    "the list holds the boot aggregate only",
                    "load configs/ima/container-host.policy as /etc/ima/ima-policy; `runtime` stays `none` without it",
                )
            });
        }
        Err(error) => {
            let fix = "use a kernel with CONFIG_IMA and run hostd as root; `runtime` stays `none` without it";
            checks.push(warning("ima.readable", show(&source.ima, &error), fix));
            checks.push(skipped("ima.policy", "no IMA list"));
        }
    }
}

fn check_kernel(checks: &mut Vec<Check>) {
    let lockdown = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let chosen = lockdown.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    checks.push(match chosen {
        Some(mode @ ("integrity" | "confidentiality")) => ok("kernel.lockdown", mode),
        other => warning(
            "kernel.lockdown",
            other.unwrap_or("absent"),
            "boot with Secure Boot or lockdown=integrity: without it, what hostd reports is capped at `warning`",
        ),
    });
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    checks.push(if unified {
        ok("kernel.cgroups", "unified (v2)")
    } else {
        warning("kernel.cgroups", "legacy or hybrid", "crun and rootless engines need the unified hierarchy")
    });
}

async fn check_verifier(config: &Config, host: Option<&Provisioned>, checks: &mut Vec<Check>) {
    let client = match host {
        Some(host) => {
            let valid = host.not_after() > OffsetDateTime::now_utc();
            let found =
                format!("{} as {}, certificate until {}", host.verifier, host.identity.node, host.identity.not_after);
            checks.push(if valid {
                ok("host.provisioned", found)
            } else {
                warning(
                    "host.provisioned",
                    found,
                    "the certificate is over: hostd renews it by a quote at its next round",
                )
            });
            Client::anonymous(&host.verifier, &host.ca.0)
        }
        None => {
            checks.push(warning("host.provisioned", "no", "run hostd provision"));
            let (Some(verifier), Some(pin)) = (&config.verifier, &config.ca_pin) else {
                checks.push(skipped("verifier.reachable", "no verifier is configured"));
                return;
            };
            match parse_pin("ca_pin", pin) {
                Ok(pin) => Client::pinned(verifier, pin),
                Err(error) => {
                    checks.push(failed("verifier.reachable", error.to_string(), "mend ca_pin"));
                    return;
                }
            }
        }
    };
    let asked = match client {
        Ok(client) => client.get::<serde_json::Value>("/healthz").await.map(drop),
        Err(error) => Err(error),
    };
    checks.push(match asked {
        // Any answer of a server that showed the right CA will do.
        Ok(()) | Err(ClientError::Refused { .. } | ClientError::Unexpected { .. }) => ok("verifier.reachable", "yes"),
        Err(error) => failed("verifier.reachable", error.to_string(), "check the address, the network and the CA pin"),
    });
}

/// Size by reading: files of securityfs have no size of their own.
fn read_size(path: &Path) -> io::Result<u64> {
    io::copy(&mut std::fs::File::open(path)?, &mut io::sink())
}

fn show(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e15_whoever_may_use_the_tpm_is_named() {
        for (mode, uid, gid, expect) in [
            (0o020_600, 0, 0, None),
            (0o020_660, 0, 0, None),
            (0o020_660, 0, 113, Some("group 113")),
            (0o020_660, 111, 113, Some("user 111, group 113")),
            (0o020_600, 0, 113, None),
            (0o020_666, 0, 0, Some("everybody")),
        ] {
            assert_eq!(others(mode, uid, gid).as_deref(), expect, "{mode:o} {uid} {gid}");
        }
    }
}
