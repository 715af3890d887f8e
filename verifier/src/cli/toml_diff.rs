//! What differs between two TOML files, key by key: for people who review a change before they sign it.
//!
//! Lists of plain values are sets; a list of tables is told apart by `id` (rules) or by its window's times, else by position.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use toml::Value;

/// One key whose values differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    /// The key's path.
    pub(super) key: String,
    /// Values that only the first file has.
    pub(super) removed: Vec<String>,
    /// Values that only the second file has.
    pub(super) added: Vec<String>,
}

type Flat = BTreeMap<String, BTreeSet<String>>;

/// Every key whose values differ, by path.
pub(super) fn diff(before: &toml::Table, after: &toml::Table) -> Vec<Change> {
    let (before, after) = (flat(before), flat(after));
    let none = BTreeSet::new();
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changes = keys.into_iter().map(|key| {
        let (old, new) = (before.get(key).unwrap_or(&none), after.get(key).unwrap_or(&none));
        Change {
            key: key.clone(),
            removed: old.difference(new).cloned().collect(),
            added: new.difference(old).cloned().collect(),
        }
    });
    changes.filter(|change| !change.removed.is_empty() || !change.added.is_empty()).collect()
}

fn flat(table: &toml::Table) -> Flat {
    let mut out = Flat::new();
    for (key, value) in table {
        put(&mut out, quoted(key), value);
    }
    out
}

/// A key as TOML writes it in a dotted path.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { format!("{key:?}") }
}

fn put(out: &mut Flat, path: String, value: &Value) {
    match value {
        Value::Table(table) if table.is_empty() => {
            out.entry(path).or_default().insert("{}".to_owned());
        }
        Value::Table(table) => {
            for (key, value) in table {
                put(out, format!("{path}.{}", quoted(key)), value);
            }
        }
        Value::Array(list) if list.is_empty() => {
            out.entry(path).or_default().insert("[]".to_owned());
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                match value {
                    Value::Table(table) => put(out, format!("{path}[{}]", named(table, index)), value),
                    plain => {
                        out.entry(path.clone()).or_default().insert(plain_text(plain));
                    }
                }
            }
        }
        plain => {
            out.entry(path).or_default().insert(plain_text(plain));
        }
    }
}

fn named(table: &toml::Table, index: usize) -> String {
    let text = |key| table.get(key).and_then(Value::as_str);
    match (text("id"), text("from"), text("until")) {
        (Some(id), ..) => id.to_owned(),
        (None, None, None) => index.to_string(),
        (None, from, until) => format!("{}..{}", from.unwrap_or_default(), until.unwrap_or_default()),
    }
}

fn plain_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_its_key() {
        let rows: [(&str, &str, &[&str]); 6] = [
            ("a = [1, 2]", "a = [2, 1]", &[]),
            ("a = [1, 2]", "a = [2, 3]", &["a -1 +3"]),
            ("[t]\nk = true", "[t]\nk = false", &["t.k -true +false"]),
            (
                "[[rule]]\nid = \"x\"\nwant = \"on\"",
                "[[rule]]\nid = \"y\"\nwant = \"on\"",
                &["rule[x].id -x +", "rule[x].want -on +", "rule[y].id - +y", "rule[y].want - +on"],
            ),
            ("\"/usr/bin/a\" = \"1\"", "", &["\"/usr/bin/a\" -1 +"]),
            ("a = []", "", &["a -[] +"]),
        ];
        for (before, after, expect) in rows {
            let seen: Vec<String> = diff(&before.parse().unwrap(), &after.parse().unwrap())
                .into_iter()
                .map(|one| format!("{} -{} +{}", one.key, one.removed.join(","), one.added.join(",")))
                .collect();
            assert_eq!(seen, expect, "{before} | {after}");
        }
    }
}
