use std::os::unix::fs::{PermissionsExt as _, symlink};

use hostmark_attest::profile::{Control, Status};
use tempfile::TempDir;

use super::*;
use crate::engines::EnginesConfig;

/// Files of a host, by path.
type Tree = &'static [(&'static str, &'static str)];

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn control(resource: &str, want: &str, prove: &str, more: &str) -> Control {
    let text = format!(
        "id = 'host.x'\ntitle = 't'\nrefs = []\nrole = 'operator'\nseverity = 'high'\nfix = 'evidence'\nresource = {resource}\nwant = {want}\nprove = '{prove}'\n{more}"
    );
    toml::from_str(&text).unwrap_or_else(|error| panic!("{resource}: {error}"))
}

fn verdict(host: &Host, control: &Control) -> Outcome {
    judge(control, observe(host, control), None)
}

/// A host with Docker, as a directory.
fn docker() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(root, "usr/sbin/dockerd", "dockerd");
    put(root, "etc/docker/daemon.json", r#"{"icc": false, "log-opts": {"max-size": "10m"}}"#);
    put(root, "usr/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/sbin/dockerd -H fd://\n");
    dir
}

fn host(dir: &TempDir) -> Host {
    Host::new(EnginesConfig::of_root(dir.path()))
}

/// A host with the /proc and /sys that the test makes below `kernel`.
fn with_kernel(dir: &TempDir) -> Host {
    host(dir).with_kernel(dir.path().join("kernel"))
}

#[test]
fn e1_a_setting_that_is_shadowed_is_told_with_both_values() {
    let icc = control("{ json = '/etc/docker/daemon.json', key = 'icc', default = true }", "false", "merged", "");
    let dir = docker();
    let honest = verdict(&host(&dir), &icc);
    assert_eq!(honest.status, Status::Pass, "{honest:?}");

    put(
        dir.path(),
        "etc/systemd/system/docker.service.d/x.conf",
        "[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd --icc=true\n",
    );
    let shadowed = verdict(&host(&dir), &icc);
    assert_eq!(shadowed.status, Status::Fail);
    assert!(shadowed.reason.contains("the unit of docker"), "{}", shadowed.reason);
    let all: Vec<String> = shadowed.effective.iter().chain(&shadowed.others).map(ToString::to_string).collect();
    assert_eq!(all, ["the unit of docker says true", "/etc/docker/daemon.json says false"]);

    for (name, path, text, status) in [
        ("not JSON", "etc/docker/daemon.json", "{", Status::Error),
        ("nobody states it", "etc/docker/daemon.json", "{}", Status::Fail),
        ("an environment file", "etc/default/docker", "OPTS=--icc=true", Status::Fail),
    ] {
        let dir = docker();
        let unit = "[Service]\nEnvironmentFile=-/etc/default/docker\nExecStart=/usr/sbin/dockerd $OPTS\n";
        put(dir.path(), "usr/lib/systemd/system/docker.service", unit);
        put(dir.path(), path, text);
        assert_eq!(verdict(&host(&dir), &icc).status, status, "{name}");
    }
    let api = control("{ json = '/etc/docker/daemon.json', key = 'icc', default = true }", "false", "api", "");
    assert_eq!(verdict(&host(&docker()), &api).status, Status::Manual, "a directory has no engine to ask");
}

#[test]
fn a_sysctl_is_what_the_kernel_says_and_the_next_boot_keeps_it() {
    let one = control("{ sysctl = 'kernel.kptr_restrict' }", "2", "kernel", "");
    let two =
        control("{ sysctl = ['net.ipv4.conf.all.rp_filter', 'net.ipv4.conf.default.rp_filter'] }", "1", "kernel", "");
    let rows: [(&str, &Control, Tree, Status); 9] = [
        ("the kernel says so", &one, &[("kernel/proc/sys/kernel/kptr_restrict", "2\n")], Status::Pass),
        ("the kernel says otherwise", &one, &[("kernel/proc/sys/kernel/kptr_restrict", "1\n")], Status::Fail),
        ("the kernel has none", &one, &[("kernel/proc/sys/kernel/other", "1\n")], Status::NotApplicable),
        (
            "a file alone says so",
            &one,
            &[("kernel/proc/sys/kernel/kptr_restrict", "0"), ("etc/sysctl.d/x.conf", "kernel.kptr_restrict = 2")],
            Status::Fail,
        ),
        (
            "the next boot undoes it",
            &one,
            &[("kernel/proc/sys/kernel/kptr_restrict", "2"), ("usr/lib/sysctl.d/99-x.conf", "kernel/kptr_restrict=0")],
            Status::Fail,
        ),
        (
            "a later file mends it",
            &one,
            &[
                ("kernel/proc/sys/kernel/kptr_restrict", "2"),
                ("usr/lib/sysctl.d/50-x.conf", "kernel.kptr_restrict=0"),
                ("etc/sysctl.d/60-y.conf", "-kernel.kptr_restrict = 2"),
            ],
            Status::Pass,
        ),
        (
            "a stronger directory hides a file of the same name",
            &one,
            &[
                ("kernel/proc/sys/kernel/kptr_restrict", "2"),
                ("usr/lib/sysctl.d/99-x.conf", "kernel.kptr_restrict=0"),
                ("etc/sysctl.d/99-x.conf", "# nothing"),
            ],
            Status::Pass,
        ),
        (
            "each of several",
            &two,
            &[
                ("kernel/proc/sys/net/ipv4/conf/all/rp_filter", "1"),
                ("kernel/proc/sys/net/ipv4/conf/default/rp_filter", "0"),
            ],
            Status::Fail,
        ),
        (
            "a pattern sets the rest",
            &two,
            &[
                ("kernel/proc/sys/net/ipv4/conf/all/rp_filter", "1"),
                ("kernel/proc/sys/net/ipv4/conf/default/rp_filter", "1"),
                ("etc/sysctl.d/x.conf", "net.ipv4.conf.*.rp_filter = 0\nnet.ipv4.conf.all.rp_filter = 1"),
            ],
            Status::Fail,
        ),
    ];
    for (name, control, files, status) in rows {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            put(dir.path(), path, text);
        }
        let outcome = verdict(&with_kernel(&dir), control);
        assert_eq!(outcome.status, status, "{name}: {outcome:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(verdict(&host(&dir), &one).status, Status::Manual, "a directory has no kernel");
    put(dir.path(), "etc/sysctl.d/x.conf", "kernel.kptr_restrict=0");
    assert_eq!(verdict(&host(&dir), &one).status, Status::Fail, "but its files can be wrong");

    let machine = Host::new(EnginesConfig { enabled: Vec::new(), ..EnginesConfig::default() });
    let real = verdict(&machine, &control("{ sysctl = 'kernel.pid_max' }", "{ at_least = 1 }", "kernel", ""));
    let said: i64 = std::fs::read_to_string("/proc/sys/kernel/pid_max").unwrap().trim().parse().unwrap();
    assert!(real.effective.unwrap().to_string().ends_with(&format!("says {said}")));
    assert_eq!(real.status, Status::Pass);
}

#[test]
fn each_kind_of_resource_is_read_as_its_own_manual_says() {
    let rows: &[(&str, &str, &str, Tree, Status)] = &[
        // json and toml that are read at each use
        (
            "{ json = '/etc/p.json', key = 'a.b' }",
            "'x'",
            "file",
            &[("etc/p.json", r#"{"a": {"b": "x"}}"#)],
            Status::Pass,
        ),
        ("{ json = '/etc/p.json', key = 'a.b' }", "'x'", "file", &[("etc/p.json", "{")], Status::Error),
        (
            "{ json = '/etc/p.json', key = 'a' }",
            "{ subset_of = ['b'] }",
            "file",
            &[("etc/p.json", r#"{"a": {"b": 1}}"#)],
            Status::Pass,
        ),
        ("{ json = '/etc/p.json', key = 'a' }", "'absent'", "file", &[], Status::Pass),
        (
            "{ toml = '/etc/containers/registries.conf', key = 'short-name-mode' }",
            "'enforcing'",
            "file",
            &[
                ("etc/containers/registries.conf", "short-name-mode = 'enforcing'"),
                ("etc/containers/registries.conf.d/x.conf", "short-name-mode = 'disabled'"),
            ],
            Status::Fail,
        ),
        (
            "{ toml = '/etc/containers/registries.conf', key = 'short-name-mode' }",
            "'enforcing'",
            "file",
            &[
                ("etc/containers/registries.conf", "short-name-mode = 'disabled'"),
                ("etc/containers/registries.conf.d/x.conf", "short-name-mode = 'enforcing'"),
            ],
            Status::Pass,
        ),
        (
            "{ toml = '/etc/containers/registries.conf', key = 'registry' }",
            "{ none_contains = ['\"insecure\":true'] }",
            "file",
            &[
                ("etc/containers/registries.conf", "[[registry]]\nlocation = 'a'\ninsecure = true\n"),
                ("etc/containers/registries.conf.d/x.conf", "[[registry]]\nlocation = 'b'\n"),
            ],
            Status::Fail,
        ),
        (
            "{ toml = '/etc/containers/registries.conf', key = 'registry' }",
            "{ none_contains = ['\"insecure\":true'] }",
            "file",
            &[
                ("etc/containers/registries.conf", "[[registry]]\nlocation = 'a'\ninsecure = true\n"),
                ("etc/containers/registries.conf.d/x.conf", "[[registry]]\nprefix = 'a'\nlocation = 'b'\n"),
            ],
            Status::Pass,
        ),
        (
            "{ json = '/var/lib/kubelet/config.yaml', key = 'authentication.anonymous.enabled' }",
            "false",
            "file",
            &[("var/lib/kubelet/config.yaml", "authentication:\n  anonymous:\n    enabled: true\n")],
            Status::Fail,
        ),
        (
            "{ json = '/var/lib/kubelet/config.yaml', key = 'readOnlyPort', default = 0 }",
            "0",
            "file",
            &[("var/lib/kubelet/config.yaml", "readOnlyPort: &port 0\n")],
            Status::Error,
        ),
        // daemons that read their file once, under arguments that go over it
        (
            "{ json = '/var/lib/kubelet/config.yaml', key = 'readOnlyPort', default = 0 }",
            "0",
            "file",
            &[("var/lib/kubelet/config.yaml", "readOnlyPort: 0\n")],
            Status::Manual,
        ),
        (
            "{ toml = '/etc/crio/crio.conf', key = 'a' }",
            "1",
            "file",
            &[("etc/crio/crio.conf", "a = 1\n")],
            Status::Manual,
        ),
        (
            "{ toml = '/etc/crio/crio.conf', key = 'a' }",
            "1",
            "file",
            &[("etc/crio/crio.conf", "a = 2\n")],
            Status::Fail,
        ),
        // ini
        ("{ ini = '/etc/a.conf', key = 'n' }", "{ at_least = 5 }", "file", &[("etc/a.conf", "n = 6\n")], Status::Pass),
        (
            "{ ini = '/etc/a.conf', key = 'n' }",
            "{ at_least = 5 }",
            "file",
            &[("etc/a.conf", "n = 6\nn = 4\n")],
            Status::Fail,
        ),
        ("{ ini = '/etc/a.conf', key = 'n', default = 'x' }", "'x'", "file", &[], Status::Pass),
        // units
        (
            "{ unit = 'a.service', section = 'Service', key = 'Delegate' }",
            "true",
            "merged",
            &[
                ("usr/lib/systemd/system/a.service", "[Service]\nDelegate=no\n"),
                ("etc/systemd/system/a.service.d/x.conf", "[Service]\nDelegate=yes\n"),
            ],
            Status::Pass,
        ),
        (
            "{ unit = 'a.service', section = 'Service', key = 'Delegate' }",
            "true",
            "merged",
            &[
                ("usr/lib/systemd/system/a.service", "[Service]\nDelegate=yes\n"),
                ("run/systemd/system/a.service.d/x.conf", "[Service]\nDelegate=\n"),
            ],
            Status::Fail,
        ),
        ("{ unit = 'a.service', section = 'Service', key = 'Delegate' }", "true", "merged", &[], Status::NotApplicable),
        (
            "{ unit = 'a.socket', state = 'enabled' }",
            "{ one_of = ['disabled', 'masked'], or_absent = true }",
            "merged",
            &[
                ("usr/lib/systemd/system/a.socket", "[Socket]\n"),
                ("etc/systemd/system/sockets.target.wants/a.socket", ""),
            ],
            Status::Fail,
        ),
        (
            "{ unit = 'a.socket', state = 'enabled' }",
            "{ one_of = ['disabled', 'masked'], or_absent = true }",
            "merged",
            &[("usr/lib/systemd/system/a.socket", "[Socket]\n")],
            Status::Pass,
        ),
        (
            "{ unit = ['a.service', 'b.service'], state = 'active' }",
            "'active'",
            "kernel",
            &[("kernel/run/systemd/system/x", ""), ("kernel/sys/fs/cgroup/system.slice/b.service/cgroup.procs", "7\n")],
            Status::Pass,
        ),
        (
            "{ unit = ['a.service', 'b.service'], state = 'active' }",
            "'active'",
            "kernel",
            &[("kernel/run/systemd/system/x", ""), ("kernel/sys/fs/cgroup/system.slice/b.service/cgroup.procs", "")],
            Status::Fail,
        ),
        ("{ unit = 'a.service', state = 'active' }", "'active'", "kernel", &[("kernel/proc/x", "")], Status::Manual),
        // modules
        ("{ module = 'udf' }", "'absent'", "kernel", &[("kernel/proc/modules", "udf 1 0 - Live 0x0\n")], Status::Fail),
        (
            "{ module = 'udf' }",
            "'absent'",
            "kernel",
            &[
                ("kernel/proc/sys/kernel/osrelease", "6.1\n"),
                ("lib/modules/6.1/modules.dep", "kernel/fs/udf/udf.ko: kernel/x.ko\n"),
                ("etc/modprobe.d/x.conf", "blacklist udf\n"),
            ],
            Status::Fail,
        ),
        (
            "{ module = 'udf' }",
            "'absent'",
            "kernel",
            &[
                ("kernel/proc/sys/kernel/osrelease", "6.1\n"),
                ("lib/modules/6.1/modules.dep", "kernel/fs/udf/udf.ko: kernel/x.ko\n"),
                ("etc/modprobe.d/x.conf", "install udf /bin/false\n"),
            ],
            Status::Pass,
        ),
        // command line
        (
            "{ cmdline = 'lockdown' }",
            "{ one_of = ['integrity'] }",
            "kernel",
            &[("kernel/proc/cmdline", "a lockdown=none lockdown=integrity\n")],
            Status::Pass,
        ),
        (
            "{ cmdline = 'mitigations' }",
            "{ none_of = ['off'] }",
            "kernel",
            &[("kernel/proc/cmdline", "mitigations=off\n")],
            Status::Fail,
        ),
        ("{ cmdline = 'audit' }", "1", "kernel", &[("kernel/proc/cmdline", "audit=1 -- audit=0\n")], Status::Pass),
        // mounts
        (
            "{ mount = '/tmp' }",
            "{ superset_of = ['nodev', 'nosuid'] }",
            "kernel",
            &[("tmp/x", ""), ("kernel/proc/1/mountinfo", "1 0 0:1 / /tmp rw,nosuid,nodev shared:1 - tmpfs tmpfs rw\n")],
            Status::Pass,
        ),
        (
            "{ mount = '/tmp' }",
            "{ superset_of = ['nodev', 'nosuid'] }",
            "kernel",
            &[("tmp/x", ""), ("kernel/proc/1/mountinfo", "1 0 0:1 / / rw,nosuid,nodev - ext4 /dev/a rw\n")],
            Status::Fail,
        ),
        // groups, subordinate ids
        (
            "{ group = 'docker' }",
            "{ subset_of = ['ops'] }",
            "file",
            &[("etc/group", "docker:x:7:ops\n"), ("etc/passwd", "sly:x:9:7::/:/bin/sh\n")],
            Status::Fail,
        ),
        ("{ group = 'docker' }", "{ subset_of = ['ops'] }", "file", &[("etc/group", "docker:x:7:ops\n")], Status::Pass),
        (
            "{ group = 'docker' }",
            "{ subset_of = ['ops'] }",
            "file",
            &[("etc/group", "docker:x:7:ops\nother:x:7:mallory\n")],
            Status::Fail,
        ),
        (
            "{ group = 'docker' }",
            "{ subset_of = ['ops'] }",
            "file",
            &[("etc/group", "root:x:0:\n")],
            Status::NotApplicable,
        ),
        (
            "{ subid = '/etc/subuid' }",
            "{ at_least = 65536 }",
            "file",
            &[("etc/subuid", "a:1:65536\nb:9:65536\n")],
            Status::Fail,
        ),
        // packages
        (
            "{ package = ['docker-ce', 'docker.io'] }",
            "{ floor = { debian-12 = '20.10.24-1' } }",
            "packages",
            &[
                ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
                ("var/lib/dpkg/status", "Package: docker.io\nStatus: install ok installed\nVersion: 20.10.5-1\n\n"),
            ],
            Status::Fail,
        ),
        (
            "{ package = ['docker-ce', 'docker.io'] }",
            "{ floor = { debian-12 = '20.10.24-1' } }",
            "packages",
            &[
                ("etc/os-release", "ID=arch\n"),
                ("var/lib/dpkg/status", "Package: docker.io\nStatus: install ok installed\nVersion: 99\n\n"),
            ],
            Status::Manual,
        ),
        ("{ package = 'x' }", "'present'", "packages", &[("var/lib/dpkg/status", "Package: y\n")], Status::Fail),
        ("{ package = 'x' }", "'present'", "packages", &[], Status::Manual),
        // engines
        ("{ engine = 'docker', setting = 'swarm.state' }", "'inactive'", "api", &[], Status::Manual),
        // containers
        ("{ container = 'privileged' }", "false", "inventory", &[], Status::Manual),
    ];
    for (resource, want, prove, files, status) in rows {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in *files {
            put(dir.path(), path, text);
        }
        let live = files.iter().any(|(path, _)| path.starts_with("kernel/"));
        let host = if live { with_kernel(&dir) } else { host(&dir) };
        let outcome = verdict(&host, &control(resource, want, prove, ""));
        assert_eq!(outcome.status, *status, "{resource} {want} {files:?}: {outcome:?}");
    }
}

#[test]
fn who_may_write_a_file_or_a_directory_above_is_seen_through_links() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(root, "srv/real/daemon.json", "{}");
    put(root, "etc/other", "x");
    symlink("/srv/real", root.join("etc/docker")).unwrap();
    let chmod =
        |path: &str, mode| std::fs::set_permissions(root.join(path), std::fs::Permissions::from_mode(mode)).unwrap();
    let mine = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(root).unwrap()) == 0;
    if !mine {
        println!("skipped: files of root are made by root only");
        return;
    }
    let access = |paths: &str| {
        control(&format!("{{ file = {paths}, parents = true }}"), "{ mode = '0644', owner = 'root' }", "file", "")
    };
    chmod("", 0o755);
    let json = access("'/etc/docker/daemon.json'");
    for (name, path, mode, status) in [
        ("honest", "srv/real/daemon.json", 0o644, Status::Pass),
        ("others write the file", "srv/real/daemon.json", 0o606, Status::Fail),
        ("honest again", "srv/real/daemon.json", 0o600, Status::Pass),
        ("the group writes the directory it leads to", "srv/real", 0o775, Status::Fail),
        ("but not with the sticky bit", "srv/real", 0o1777, Status::Pass),
        ("the directory that holds the link", "etc", 0o777, Status::Fail),
    ] {
        chmod(path, mode);
        let outcome = verdict(&host(&dir), &json);
        assert_eq!(outcome.status, status, "{name}: {outcome:?}");
    }
    assert_eq!(verdict(&host(&dir), &access("'/etc/none/*.conf'")).status, Status::NotApplicable);
    chmod("etc", 0o755);
    assert_eq!(verdict(&host(&dir), &access("['/etc/oth*', '/srv/**']")).status, Status::Fail, "/srv/real is 1777");
    let digest = hostmark_attest::digest::sha256(&[b"x"]);
    for (digest, status) in [(hex::encode(digest), Status::Pass), ("00".repeat(32), Status::Fail)] {
        let control = control("{ file = '/etc/other' }", &format!("{{ digest = ['{digest}'] }}"), "file", "");
        assert_eq!(verdict(&host(&dir), &control).status, status);
    }
}

#[test]
fn a_control_that_does_not_concern_this_host_says_why() {
    let dir = docker();
    put(dir.path(), "etc/there", "");
    for (when, reason) in [
        ("engine = 'docker'", None),
        ("engine = 'containerd'", Some("containerd is not installed")),
        ("engine = 'crio'", Some("crio is not installed")),
        ("swarm = false", None),
        ("swarm = true", Some("no swarm is active")),
        ("rootless = true", Some("no engine runs without root")),
        ("kubernetes = true", Some("no kubelet is installed")),
        ("efi = true", Some("it did not boot from EFI")),
        ("unit = 'docker.service'", None),
        ("unit = 'x.service'", Some("there is no unit x.service")),
        ("package = 'x'", Some("the package x is not installed")),
        ("file = '/etc/there'", None),
        ("file = '/etc/gone'", Some("there is no /etc/gone")),
        ("no_file = '/etc/there'", Some("there is a /etc/there")),
    ] {
        let control = control("{ file = '/etc/there' }", "'present'", "file", &format!("when = {{ {when} }}"));
        let outcome = verdict(&host(&dir), &control);
        match reason {
            None => assert_eq!(outcome.status, Status::Pass, "{when}: {outcome:?}"),
            Some(reason) => assert_eq!((outcome.status, outcome.reason.as_str()), (Status::NotApplicable, reason)),
        }
    }
}

#[test]
fn the_shipped_profiles_plan_what_is_wrong_and_nothing_twice() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/profiles");
    let profile = load(&shipped, Level::Hardened, &[Part::Docker].into()).unwrap();
    let dir = docker();
    put(dir.path(), "etc/docker/daemon.json", r#"{"debug": true, "insecure-registries": ["r:5000"]}"#);
    let report = examine(&host(&dir), &profile);
    let told = plan(&profile, &report);
    let one =
        |id: &str| told.changes.iter().find(|change| change.control == id).unwrap_or_else(|| panic!("{id}: {told:?}"));
    assert_eq!(one("docker.debug").to, "false");
    assert!(one("docker.debug").from.starts_with("true"), "{:?}", one("docker.debug"));
    assert_eq!(one("docker.insecure-registries").to, "removed");
    assert!(one("docker.icc").activate.iter().any(|step| step.name() == "engine-restart"));
    assert_eq!(serde_json::to_vec(&report).unwrap(), serde_json::to_vec(&examine(&host(&dir), &profile)).unwrap());
    assert!(matches!(
        load(Path::new("/nonexistent"), Level::Baseline, &BTreeSet::new()),
        Err(LoadError::Nothing { .. })
    ));
}

#[test]
fn e1_containerd_with_another_file_is_judged_by_that_file() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    put(root, "usr/bin/containerd", "containerd");
    put(
        root,
        "usr/lib/systemd/system/containerd.service",
        "[Service]\nExecStart=/usr/bin/containerd --config /opt/x.toml\n",
    );
    let tcp = control(
        "{ toml = '/etc/containerd/config.toml', key = 'grpc.tcp_address', default = '' }",
        "'empty'",
        "merged",
        "",
    );
    for (text, status) in [
        ("version = 2\n[grpc]\ntcp_address = ''\n", Status::Pass),
        ("version = 2\n[grpc]\ntcp_address = '0.0.0.0:1'\n", Status::Fail),
        ("version = 2\n", Status::Pass),
    ] {
        put(root, "opt/x.toml", text);
        let outcome = verdict(&host(&dir), &tcp);
        assert_eq!(outcome.status, status, "{text}: {outcome:?}");
    }
    let cri = control(
        "{ toml = '/etc/containerd/config.toml', key = \"plugins.'io.containerd.grpc.v1.cri'.disable_apparmor\", default = false }",
        "false",
        "merged",
        "",
    );
    put(root, "opt/x.toml", "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\ndisable_apparmor = true\n");
    assert_eq!(verdict(&host(&dir), &cri).status, Status::Fail, "by its name of version 3");
}

#[test]
fn e1_what_was_cut_is_judged_by_nobody() {
    let want = "{ none_contains = ['\"insecure\":true'] }";
    let control = control("{ toml = '/etc/containers/registries.conf', key = 'registry' }", want, "file", "");
    let mirrors =
        |count: usize| (0..count).map(|one| format!("[[registry.mirror]]\nlocation = 'mirror-{one}.example'\n"));
    for (count, status) in [(3, Status::Fail), (200, Status::Error)] {
        let dir = tempfile::tempdir().unwrap();
        let tables: String = mirrors(count).collect();
        let text = format!("[[registry]]\nlocation = 'a'\ninsecure = true\n{tables}");
        put(dir.path(), "etc/containers/registries.conf", &text);
        let outcome = verdict(&host(&dir), &control);
        assert_eq!(outcome.status, status, "{outcome:?}");
        assert_eq!(outcome.reason.contains("more than is kept"), status == Status::Error, "{outcome:?}");
    }
}

#[test]
fn what_cannot_be_looked_at_is_not_absent() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("etc")).unwrap();
    let absent = control("{ file = '/etc/loop/x' }", "'absent'", "file", "");
    assert_eq!(verdict(&host(&dir), &absent).status, Status::Pass, "the honest twin");
    symlink("loop", dir.path().join("etc/loop")).unwrap();
    for control in [absent, control("{ file = '/etc/passwd' }", "'present'", "file", "when = { file = '/etc/loop' }")] {
        let outcome = verdict(&host(&dir), &control);
        assert_eq!(outcome.status, Status::Error, "{outcome:?}");
        assert!(outcome.reason.contains("too many links"), "{}", outcome.reason);
    }
}

#[test]
fn a_level_without_the_one_below_and_a_part_without_a_file_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[absent]]\nrow = 7\nreason = 'x'\n";
    put(dir.path(), "docker/hardened.toml", text);
    let level = Level::Hardened;
    let error = load(dir.path(), level, &BTreeSet::new()).unwrap_err().to_string();
    assert!(error.contains("docker/baseline.toml is not there"), "{error}");
    put(dir.path(), "docker/baseline.toml", text);
    assert!(load(dir.path(), level, &BTreeSet::new()).is_ok(), "the honest twin");
    let error = load(dir.path(), level, &[Part::Docker, Part::Host].into()).unwrap_err().to_string();
    assert!(error.contains("no profile there for host"), "{error}");
}
