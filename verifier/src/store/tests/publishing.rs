//! Published files: what was published once is never taken back by an older file.

use super::*;
use crate::rules::StoredFile;

#[test]
fn d11_the_version_of_a_published_file_only_grows() {
    for (kind, id) in [(SignedKind::Policy, "policy.version"), (SignedKind::References, "references.version")] {
        let desk = Desk::new();
        let publish = |name: &str, version: u64, toml: &str| {
            let file = StoredFile { name: name.into(), toml: toml.into(), signature: "s".into() };
            let outcome = desk.store.publish(&at(1), "operator:a", kind, &file, version, "key");
            outcome.map_or_else(|refusal| refusal.id().to_owned(), |()| "published".to_owned())
        };
        assert_eq!(publish("one", 2, "version = 2\n"), "published");
        assert_eq!(publish("one", 2, "version = 2\n"), "published", "the same file again changes nothing");
        assert_eq!(publish("one", 1, "version = 1\n"), id, "an older file");
        assert_eq!(publish("one", 2, "version = 2 # other\n"), id, "another file under the same version");
        assert_eq!(publish("other", 1, "version = 1\n"), "published", "each name counts for itself");
        assert_eq!(publish("one", 3, "version = 3\n"), "published");

        let rules = desk.store.rules().unwrap();
        let stored = if kind == SignedKind::Policy { rules.appraisal } else { rules.references };
        let texts: Vec<&str> = stored.iter().map(|file| file.toml.as_str()).collect();
        assert_eq!(texts, ["version = 3\n", "version = 1\n"], "the newest of each name is in force");
    }
}
