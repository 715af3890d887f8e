use super::*;
use crate::profile::{Layer, Level, Part, Profile, ProfileReport};

fn control(prove: &str, resource: &str, want: &str) -> Control {
    let text = format!(
        "id = 'docker.x'\ntitle = 't'\nrefs = []\nrole = 'operator'\nseverity = 'high'\nfix = 'evidence'\nresource = {resource}\nwant = {want}\nprove = '{prove}'"
    );
    toml::from_str(&text).unwrap_or_else(|error| panic!("{error}"))
}

fn icc(prove: &str) -> Control {
    control(prove, "{ json = '/etc/docker/daemon.json', key = 'icc', default = true }", "false")
}

fn says(by: SourceKind, source: &str, flag: bool) -> Stated {
    Stated::new(by, source, Observed::Value(Setting::Flag(flag)))
}

fn seen(effective: Stated, others: Vec<Stated>) -> Observation {
    Observation::Seen { effective, others }
}

#[test]
fn e1_a_file_that_is_shadowed_never_passes() {
    use SourceKind::{Argv, Default, File};
    let file = |flag| says(File, "/etc/docker/daemon.json", flag);
    let rows = [
        ("the honest file", seen(file(false), vec![]), Status::Pass, ""),
        ("the file alone", seen(file(true), vec![]), Status::Fail, "/etc/docker/daemon.json says true"),
        (
            "the daemon's arguments say otherwise",
            seen(says(Argv, "dockerd's arguments", true), vec![file(false)]),
            Status::Fail,
            "/etc/docker/daemon.json says false, but what holds is true (dockerd's arguments)",
        ),
        (
            "it holds only until the next start",
            seen(says(Argv, "dockerd's arguments", false), vec![file(true)]),
            Status::Fail,
            "not after the next start",
        ),
        ("nobody states it", seen(says(Default, "default", true), vec![]), Status::Fail, "default says true"),
        ("both agree", seen(says(Argv, "argv", false), vec![file(false)]), Status::Pass, ""),
    ];
    for (name, observation, status, reason) in rows {
        let outcome = judge(&icc("merged"), observation, None);
        assert_eq!(outcome.status, status, "{name}: {outcome:?}");
        assert!(outcome.reason.contains(reason), "{name}: {}", outcome.reason);
    }
}

#[test]
fn e2_only_what_the_control_accepts_as_proof_passes() {
    use SourceKind::{Api, File, Kernel};
    let good = |by| seen(says(by, "source", false), vec![]);
    let shown = |good, value: &str| Effect::Seen { good, value: Observed::Value(Setting::Text(value.to_owned())) };
    let canary = icc("canary:peer-unreachable");
    for (name, control, observation, effect, status) in [
        ("api is asked for and the file answers", &icc("api"), good(File), None, Status::Error),
        ("api answers", &icc("api"), good(Api), None, Status::Pass),
        ("the canary has not run", &canary, good(File), None, Status::Manual),
        ("the canary shows it", &canary, good(File), Some(shown(true, "timeout")), Status::Pass),
        ("the canary shows another", &canary, good(File), Some(shown(false, "connected")), Status::Fail),
        ("the canary fails", &canary, good(File), Some(Effect::Failed("no image".into())), Status::Error),
        (
            "a good canary does not mend a bad configuration",
            &canary,
            seen(says(Kernel, "x", true), vec![]),
            Some(shown(true, "timeout")),
            Status::Fail,
        ),
        ("nothing could be read", &icc("api"), Observation::Failed { reason: "why".into() }, None, Status::Error),
        (
            "not this host",
            &icc("api"),
            Observation::NotApplicable { reason: "why".into() },
            None,
            Status::NotApplicable,
        ),
    ] {
        let outcome = judge(control, observation, effect.as_ref());
        assert_eq!(outcome.status, status, "{name}: {outcome:?}");
        assert_eq!(outcome.reason.is_empty(), status == Status::Pass, "{name}: {outcome:?}");
    }
}

#[test]
fn what_is_out_of_sight_fails_by_its_files_or_is_left_to_people() {
    let control = control("kernel", "{ sysctl = 'kernel.kptr_restrict' }", "2");
    let file = |number| Stated::new(SourceKind::File, "/etc/sysctl.d/x.conf", Observed::Value(Setting::Number(number)));
    for (files, status) in [(vec![], Status::Manual), (vec![file(2)], Status::Manual), (vec![file(1)], Status::Fail)] {
        let outcome = judge(&control, Observation::OutOfSight { reason: "another root".into(), files }, None);
        assert_eq!(outcome.status, status);
        assert!(outcome.reason.contains("another root"));
    }
}

#[test]
fn each_of_several_counts_and_one_of_alternatives_is_enough() {
    let sysctl = control("kernel", "{ sysctl = ['a.b', 'a.c'] }", "0");
    let unit = control("kernel", "{ unit = ['a.service', 'b.service'], state = 'active' }", "'active'");
    let map = |pairs: &[(&str, Option<Setting>)]| -> BTreeMap<String, Option<Setting>> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    let text = |text: &str| Some(Setting::Text(text.to_owned()));
    let number = |number| Some(Setting::Number(number));
    for (control, value, status) in [
        (&sysctl, Observed::Each(map(&[("a.b", number(0)), ("a.c", number(0))])), Status::Pass),
        (&sysctl, Observed::Each(map(&[("a.b", number(0)), ("a.c", number(1))])), Status::Fail),
        (&sysctl, Observed::Each(map(&[("a.b", number(0)), ("a.c", None)])), Status::Fail),
        (&unit, Observed::Any(map(&[("a.service", None), ("b.service", text("active"))])), Status::Pass),
        (&unit, Observed::Any(map(&[("a.service", None), ("b.service", text("inactive"))])), Status::Fail),
        (&unit, Observed::Any(map(&[])), Status::Fail),
    ] {
        let shown = value.to_string();
        let outcome = judge(control, seen(Stated::new(SourceKind::Kernel, "kernel", value), vec![]), None);
        assert_eq!(outcome.status, status, "{shown}: {outcome:?}");
    }
    let package = control("packages", "{ package = ['runc'] }", "{ floor = { 'debian-12' = '1.1.5-2' } }");
    for (distribution, version, status) in [
        ("debian-12", "1.1.5-2", Status::Pass),
        ("debian-12", "1.1.5-1", Status::Fail),
        ("gentoo", "9", Status::Manual),
    ] {
        let value = Observed::Version {
            distribution: distribution.to_owned(),
            package: "runc".to_owned(),
            version: version.to_owned(),
        };
        let stated = Stated::new(SourceKind::Packages, "/var/lib/dpkg/status", value);
        assert_eq!(judge(&package, seen(stated, vec![]), None).status, status, "{distribution} {version}");
    }
}

#[test]
fn a_report_is_canonical_and_counts_what_it_holds() {
    let text = "[[control]]\nid = 'host.a'\ntitle = 't'\nrefs = []\nrole = 'operator'\nseverity = 'high'\nfix = 'automatic'\nresource = { sysctl = 'a.b' }\nwant = 1\nprove = 'kernel'\n";
    let profile =
        Profile::build(Level::Baseline, vec![Layer::parse(Part::Host, Level::Baseline, text).unwrap()]).unwrap();
    let outcome = |id: &str, value| {
        let stated = Stated::new(SourceKind::Kernel, "/proc/sys/a/b", Observed::Value(Setting::Number(value)));
        Outcome { control: id.to_owned(), ..judge(profile.control("host.a").unwrap(), seen(stated, vec![]), None) }
    };
    let report = ProfileReport::new(&profile, true, vec![outcome("host.b", 2), outcome("host.a", 1)]);
    assert_eq!((report.counts.pass, report.counts.fail), (1, 1));
    let bytes = report.to_canonical();
    assert_eq!(ProfileReport::parse(&bytes).unwrap(), report);
    let good = String::from_utf8(bytes).unwrap();
    for bad in [
        good.replacen("\"pass\":1", "\"pass\":2", 1),
        good.replacen("host.b", "host.a", 1),
        good.replacen("host.a", "host.c", 1),
        good.replacen(':', ": ", 1),
        good.replacen("\"version\":1", "\"version\":2", 1),
        good.replacen("\"counts\"", "\"score\":9,\"counts\"", 1),
        String::new(),
    ] {
        assert!(ProfileReport::parse(bad.as_bytes()).is_err(), "{bad:.80}");
    }
}
