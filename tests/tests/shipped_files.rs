//! The files in configs/ that daemons and the system load: each parses, and says what the programs do.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hostmark_hostd::config::Config as HostdConfig;
use hostmark_verifier::config::Config as VerifierConfig;

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs")
}

fn read(path: &str) -> String {
    let path = configs().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn hostd_toml_states_the_defaults() {
    let shipped = HostdConfig::parse("hostd.toml", &read("hostd.toml")).unwrap();
    assert!(shipped.unusual_sources().is_empty());
    let expect =
        HostdConfig { verifier: shipped.verifier.clone(), ca_pin: shipped.ca_pin.clone(), ..HostdConfig::default() };
    assert!(shipped.verifier.is_some() && shipped.ca_pin.is_some());
    assert_eq!(shipped, expect);
}

#[test]
fn verifier_toml_states_the_defaults() {
    let shipped = VerifierConfig::parse(Path::new("verifier.toml"), &read("verifier.toml")).unwrap();
    assert_eq!(format!("{shipped:?}"), format!("{:?}", VerifierConfig::default()));
    let policy = configs().join(format!("appraisal/{}.toml", shipped.default_policy));
    assert!(policy.is_file(), "default_policy names a shipped policy");
}

/// Where Linux shows what QEMU was given with `-fw_cfg name=opt/org.hostmark.provision`.
const FW_CFG_ITEM: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/org.hostmark.provision/raw";

/// A unit's directives, as (section, key, value).
fn directives(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            name.strip_suffix(']').expect("a section ends with ]").clone_into(&mut section);
        } else {
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("neither section nor directive: {line}"));
            found.push((section.clone(), key.to_owned(), value.to_owned()));
        }
    }
    found
}

#[test]
fn units_start_what_exists_with_the_directories_it_uses_and_no_more_rights() {
    let hostd = HostdConfig::default();
    let verifier = VerifierConfig::default();
    // unit, its command, state directory, capabilities, restart
    let hostd_toml = hostmark_hostd::config::DEFAULT_PATH;
    let rows = [
        (
            "hostmark-hostd.service",
            format!("hostd run --config {hostd_toml} --await-provisioning"),
            hostd.state_dir.as_path(),
            "CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_SYS_PTRACE",
            "always",
        ),
        (
            "hostmark-provision.service",
            format!("hostd provision --config {hostd_toml} --input {FW_CFG_ITEM}"),
            hostd.state_dir.as_path(),
            "CAP_DAC_OVERRIDE",
            "on-failure",
        ),
        (
            "hostmark-verifier.service",
            "verifier serve --config /etc/hostmark/verifier.toml".to_owned(),
            verifier.state_dir.as_path(),
            "",
            "always",
        ),
    ];
    let shipped: BTreeSet<String> = std::fs::read_dir(configs().join("units"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(shipped, rows.iter().map(|row| row.0.to_owned()).collect());

    for (unit, command, state, capabilities, restart) in rows {
        let directives = directives(&read(&format!("units/{unit}")));
        let service = |key: &str| {
            let mut values = directives
                .iter()
                .filter(|(section, name, _)| section == "Service" && name == key)
                .map(|(_, _, v)| v.as_str());
            values.next().unwrap_or_else(|| panic!("{unit}: no {key}"))
        };
        assert_eq!(service("ExecStart"), format!("/usr/bin/{command}"), "{unit}");
        assert_eq!(Path::new("/var/lib").join(service("StateDirectory")), state, "{unit}");
        assert_eq!(service("StateDirectoryMode"), "0700", "{unit}");
        assert_eq!(service("CapabilityBoundingSet"), capabilities, "{unit}");
        for (key, value) in [
            ("NoNewPrivileges", "yes"),
            ("ProtectSystem", "strict"),
            ("MemoryDenyWriteExecute", "yes"),
            ("RestrictAddressFamilies", "AF_UNIX AF_INET AF_INET6"),
            ("UnsetEnvironment", "LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT"),
            ("LimitCORE", "0"),
            ("Restart", restart),
        ] {
            assert_eq!(service(key), value, "{unit}: {key}");
        }
        assert!(
            directives.iter().all(|(section, ..)| ["Unit", "Service", "Install"].contains(&section.as_str())),
            "{unit}"
        );
    }

    // Provisioning is over, well or not, before the daemon starts; where nothing is given, nothing is tried.
    let provision = directives(&read("units/hostmark-provision.service"));
    for (section, key, value) in [
        ("Unit", "ConditionPathExists", FW_CFG_ITEM),
        ("Unit", "Before", "hostmark-hostd.service"),
        ("Service", "Type", "oneshot"),
        ("Service", "RemainAfterExit", "yes"),
        ("Service", "RestartPreventExitStatus", "2"),
    ] {
        assert!(provision.contains(&(section.to_owned(), key.to_owned(), value.to_owned())), "{key}");
    }
    for key in ["Wants", "After"] {
        let needs = |unit: &str| provision.iter().any(|(_, name, value)| name == key && value.contains(unit));
        assert!(needs("network-online.target") && needs("modprobe@qemu_fw_cfg.service"), "{key}");
    }

    // The host log and the socket outlast the daemon, or PCR 13 could not be explained after a restart.
    let text = read("units/hostmark-hostd.service");
    assert!(text.contains("\nRuntimeDirectoryPreserve=yes\n"));
    assert_eq!(hostd.source.run_dir, Path::new("/run/hostmark"));
    assert!(text.contains("\nRuntimeDirectory=hostmark\n"));
}

/// The grammar of Documentation/ABI/testing/ima_policy, as far as the shipped policies use it.
fn check_ima_rule(line: &str) {
    let mut words = line.split_ascii_whitespace();
    let action = words.next().unwrap();
    assert!(["measure", "dont_measure"].contains(&action), "{line}");
    let mut functions = 0;
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or_else(|| panic!("{line}: {word}"));
        match key {
            "func" => {
                functions += 1;
                let known = [
                    "BPRM_CHECK",
                    "MMAP_CHECK",
                    "MODULE_CHECK",
                    "FIRMWARE_CHECK",
                    "KEXEC_KERNEL_CHECK",
                    "KEXEC_INITRAMFS_CHECK",
                    "KEXEC_CMDLINE",
                    "POLICY_CHECK",
                    "FILE_CHECK",
                ];
                assert!(known.contains(&value), "{line}");
            }
            "mask" => assert!(["MAY_EXEC", "MAY_READ"].contains(&value), "{line}"),
            "fsmagic" => assert!(u32::from_str_radix(value.trim_start_matches("0x"), 16).is_ok(), "{line}"),
            _ => panic!("{line}: {key}"),
        }
    }
    assert_eq!(functions, 1, "{line}: a rule without a function would hold for every one");
}

#[test]
fn the_ima_policy_measures_what_the_appraisal_policies_rely_on() {
    let text = read("ima/container-host.policy");
    let rules: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    rules.iter().for_each(|rule| check_ima_rule(rule));
    for function in ["BPRM_CHECK", "MMAP_CHECK", "MODULE_CHECK", "FIRMWARE_CHECK", "KEXEC_KERNEL_CHECK", "POLICY_CHECK"]
    {
        assert!(rules.iter().any(|rule| rule.starts_with(&format!("measure func={function}"))), "{function}");
    }
    // Overlay file systems alone are left out, and for programs alone; the first rule that fits decides.
    for rule in rules.iter().filter(|rule| rule.starts_with("dont_measure")) {
        assert!(rule.contains("fsmagic=0x794c7630") && (rule.contains("BPRM") || rule.contains("MMAP")), "{rule}");
    }
    for entry in std::fs::read_dir(configs().join("appraisal")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.starts_with("policy = ")) {
            let name = line.trim_start_matches("policy = ").trim_matches('"');
            assert!(configs().join(format!("ima/{name}.policy")).is_file(), "{line}");
        }
    }
}
