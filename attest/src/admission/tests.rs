//! Each condition of admission, alone.

use super::*;
use crate::jws::{KeySet, Signer as _, SoftwareKey};
use crate::result::{HostClaims, ResultClaims, SubmoduleClaims};

const POLICY: &str = r#"
requires_appraisal = "p"
tpm_class = ["hardware"]
max_age = "30s"
location = ["jp-east/*"]
[tiers]
boot = "affirming"
engine = "warning"
"#;
const POOL: &str = "label = \"internal@a\"\nmode = \"enforce\"\nlease = \"60s\"\nadmission = \"a\"\n";

fn result(change: impl FnOnce(&mut ResultClaims)) -> VerifiedResult {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &aws_lc_rs::rand::SystemRandom::new());
    let key = SoftwareKey::from_pkcs8(document.unwrap().as_ref()).unwrap();
    let one = |status| SubmoduleClaims {
        status,
        vector: BTreeMap::new(),
        policy: "p@1".into(),
        basis: BTreeMap::new(),
        findings: vec![Finding::warning("x.y", "why")],
    };
    let submods = [(Submodule::Boot, one(Tier::Affirming)), (Submodule::Engine, one(Tier::Warning))].into();
    let hostmark = HostClaims {
        tpm_class: TpmClass::Hardware,
        appraisal: "p".into(),
        appraisal_version: 1,
        sources: Vec::new(),
        tag_label: Some("internal@a".parse().unwrap()),
        tag_location: Some("jp-east/rack-7".into()),
        tag_serial: Some(1),
        boot: None,
    };
    let mut claims = ResultClaims::new("h".into(), 100, 200, submods, hostmark);
    change(&mut claims);
    let mut keys = KeySet::new();
    keys.insert(key.kid(), key.point());
    VerifiedResult::verify(&claims.sign(&key).unwrap(), &keys, "h", 150).unwrap()
}

fn unmet(clearance: &str, maintenance: bool, age_ms: u64, change: impl FnOnce(&mut ResultClaims)) -> Vec<String> {
    unmet_by(clearance, (maintenance, false), age_ms, change)
}

fn unmet_by(
    clearance: &str,
    (maintenance, tag_assigned): (bool, bool),
    age_ms: u64,
    change: impl FnOnce(&mut ResultClaims),
) -> Vec<String> {
    let levels = Levels::default();
    let pool = Pool::parse("pool", POOL, &levels).unwrap();
    let policy = AdmissionPolicy::parse("a", POLICY).unwrap();
    let clearance = clearance.parse().unwrap();
    let host = HostRecord { node: "n", clearance: &clearance, maintenance, tag_assigned };
    match admit(&pool, &policy, &levels, &host, &result(change), age_ms) {
        Ok(admission) => {
            let permit = admission.permit(1_000, 999_999, 7);
            assert_eq!(permit.not_after, 61_000, "never beyond the lease");
            Vec::new()
        }
        Err(refusal) => refusal.unmet.into_iter().map(|one| one.id).collect(),
    }
}

#[test]
fn each_condition_refuses_alone() {
    let good = "internal@a";
    assert_eq!(unmet(good, false, 0, |_| {}), Vec::<String>::new());
    assert_eq!(unmet("public@a", false, 0, |c| c.hostmark.tag_label = None), ["admission.label"]);
    assert_eq!(unmet("internal", false, 0, |c| c.hostmark.tag_label = None), ["admission.label"]);
    assert_eq!(unmet(good, true, 0, |_| {}), ["admission.maintenance"]);
    assert_eq!(unmet(good, false, 30_000, |_| {}), ["admission.age"]);
    assert_eq!(unmet(good, false, 0, |c| c.hostmark.appraisal = "q".into()), ["admission.appraisal"]);
    assert_eq!(unmet(good, false, 0, |c| c.hostmark.tpm_class = TpmClass::Simulated), ["admission.tpm-class"]);
    assert_eq!(unmet(good, false, 0, |c| c.hostmark.sources = vec!["root".into()]), ["admission.sources"]);
    assert_eq!(
        unmet(good, false, 0, |c| c.hostmark.tag_label = Some("public".parse().unwrap())),
        ["admission.tag-label"]
    );
    assert_eq!(unmet(good, false, 0, |c| c.hostmark.tag_location = Some("eu/1".into())), ["admission.location"]);
    assert_eq!(unmet(good, false, 0, |c| c.hostmark.tag_location = None), ["admission.location"]);
    let tier = |name, tier| move |c: &mut ResultClaims| c.submods.get_mut(&name).unwrap().status = tier;
    assert_eq!(unmet(good, false, 0, tier(Submodule::Boot, Tier::Warning)), ["admission.boot"]);
    assert_eq!(unmet(good, false, 0, tier(Submodule::Engine, Tier::None)), ["admission.engine"]);
    let bad = unmet(good, false, 0, tier(Submodule::Engine, Tier::Contraindicated));
    assert_eq!(bad, ["admission.engine", "admission.disproven"]);
    // A subsystem that the policy does not name still disproves.
    let other = |c: &mut ResultClaims| {
        let mut runtime = c.submods[&Submodule::Boot].clone();
        runtime.status = Tier::Contraindicated;
        c.submods.insert(Submodule::Runtime, runtime);
    };
    assert_eq!(unmet(good, false, 0, other), ["admission.disproven"]);
}

#[test]
fn a16_what_nobody_proved_meets_no_condition() {
    let levels = Levels::default();
    let pool = Pool::parse("pool", POOL, &levels).unwrap();
    let clearance = "internal@a".parse().unwrap();
    let host = HostRecord { node: "n", clearance: &clearance, maintenance: false, tag_assigned: false };
    let all: BTreeMap<Submodule, SubmoduleClaims> = {
        let some = result(|_| {}).claims().submods[&Submodule::Boot].clone();
        Submodule::ALL.iter().map(|one| (*one, some.clone())).collect()
    };
    let unmet = |more: &str, result: Option<&VerifiedResult>| -> Vec<String> {
        let policy = AdmissionPolicy::parse("a", &POLICY.replace("[tiers]\n", &format!("{more}\n[tiers]\n"))).unwrap();
        let list = explain(&pool, &policy, &levels, &host, result, 0);
        list.into_iter().filter(|one| !one.met).map(|one| one.id).collect()
    };
    let good = result(|claims| claims.submods = all.clone());
    assert_eq!(unmet("", Some(&good)), Vec::<String>::new(), "the honest twin");
    assert_eq!(unmet("", None), ["admission.result"]);
    for (table, refused) in [
        ("[profile]\nmin_level = \"none\"", None),
        ("[profile]\nmin_level = \"baseline\"", Some("admission.profile")),
        ("[tee]\nrequire = \"none\"", None),
        ("[tee]\nrequire = \"snp\"", Some("admission.tee")),
    ] {
        assert_eq!(unmet(table, Some(&good)), Vec::from_iter(refused), "{table}");
    }
    // Each subsystem that the policy names must have its tier.
    let (demands, _) = POLICY.split_once("[tiers]").unwrap();
    let tiers: String = Submodule::ALL.iter().map(|one| format!("{} = \"affirming\"\n", one.name())).collect();
    let policy = AdmissionPolicy::parse("a", &format!("{demands}[tiers]\n{tiers}")).unwrap();
    for submodule in Submodule::ALL {
        let poor = result(|claims| {
            claims.submods = all.clone();
            claims.submods.get_mut(&submodule).unwrap().status = Tier::None;
        });
        let refusal = |result| admit(&pool, &policy, &levels, &host, result, 0).err().map(|why| why.unmet);
        assert_eq!(refusal(&good), None);
        let ids: Vec<String> = refusal(&poor).unwrap().into_iter().map(|one| one.id).collect();
        assert_eq!(ids, [tier_id(submodule)]);
    }
}

#[test]
fn a22_a_tag_that_is_withheld_meets_no_condition() {
    let withheld = |c: &mut ResultClaims| c.hostmark.tag_label = None;
    for (assigned, withholds, expect) in
        [(true, false, &[][..]), (false, true, &[]), (true, true, &["admission.tag-label"])]
    {
        let change = |c: &mut ResultClaims| {
            if withholds {
                withheld(c)
            }
        };
        assert_eq!(unmet_by("internal@a", (false, assigned), 0, change), expect, "assigned {assigned}");
    }
}

#[test]
fn a12_simulated_never_stands_beside_another_class() {
    AdmissionPolicy::parse("a", POLICY).unwrap();
    for (from, to, refused) in [
        ("[\"hardware\"]", "[\"hardware\", \"simulated\"]", "admission.simulated"),
        ("[\"hardware\"]", "[\"unverified\", \"hardware\"]", "admission.simulated"),
        ("[\"hardware\"]", "[]", "admission.tpm-classes"),
        ("[\"hardware\"]", "[\"none\"]", "admission.tpm-classes"),
        ("boot = \"affirming\"", "boot = \"none\"", "admission.tiers"),
        ("boot = \"affirming\"", "", "admission.tiers"),
    ] {
        let parsed = AdmissionPolicy::parse("a", &POLICY.replace(from, to));
        assert!(matches!(parsed, Err(PolicyError::Invalid { id, .. }) if id == refused), "{to}: {parsed:?}");
    }
}
