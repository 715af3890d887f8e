//! What a control wants of its resource: predicates over observed values, with one canonical form each.
//!
//! Establishes for one observed value whether it satisfies, and for two predicates whether one is at least as strict as the other, where that
//! can be said. Values of textual resources (`yes`, `5`, `a b`) are compared as what is wanted; values of JSON and TOML by their type.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::LIST_MAX;
use super::version::at_least;
use crate::manifest::{FileDigest, Mode, Setting};

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Want {
    /// The predicate.
    pub is: Predicate,
    /// A resource that nobody states satisfies too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub or_absent: bool,
}

/// A predicate on one value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Predicate {
    /// Exactly this.
    Equals(Setting),
    /// One of these.
    OneOf(Vec<Setting>),
    /// None of these; what nobody states is none of them.
    NoneOf(Vec<Setting>),
    /// A number from here to there.
    Between {
        /// Not below.
        at_least: Option<i64>,
        /// Not above.
        at_most: Option<i64>,
    },
    /// Nothing is there.
    Absent,
    /// Something is there, whatever it is.
    Present,
    /// Nothing, an empty list or an empty text.
    Empty,
    /// A list or a text with something in it.
    NotEmpty,
    /// A list with nothing but these (an allow-list).
    SubsetOf(BTreeSet<String>),
    /// A list with all of these.
    SupersetOf(BTreeSet<String>),
    /// A list or a text, each entry of which begins with one of these.
    EachStartsWith(BTreeSet<String>),
    /// A list with at least one of these: names by which versions of a program know one thing.
    AnyOf(BTreeSet<String>),
    /// A list or a text, no entry of which contains one of these.
    NoneContains(BTreeSet<String>),
    /// A file's mode has no bit that this one has not (`mode & !allowed == 0`), and owner and group are among these.
    Access {
        /// The allowed bits.
        mode: Option<Mode>,
        /// Owners; empty: any.
        owner: BTreeSet<String>,
        /// Groups; empty: any.
        group: BTreeSet<String>,
    },
    /// The SHA-256 of the content is one of these.
    Digest(BTreeSet<FileDigest>),
    /// A package's version is at least this, by distribution (`debian-12`): os-release's ID and VERSION_ID.
    Floor(BTreeMap<String, String>),
}

enum Raw {
    Scalar(Setting),
    Table(Box<Table>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

/// Written out, so that what is wrong inside a table is said.
struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a value, \"absent\", \"present\", \"empty\", \"not-empty\", or a table with one predicate")
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Setting::Flag(flag)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Setting::Number(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Setting::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Raw, A::Error> {
        Err(A::Error::custom(
            "a list can mean many things: write { equals = […] }, { one_of = […] }, { subset_of = […] } or { superset_of = […] }",
        ))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Raw, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map)).map(|table| Raw::Table(Box::new(table)))
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Table {
    equals: Option<Setting>,
    one_of: Option<Vec<Setting>>,
    none_of: Option<Vec<Setting>>,
    at_least: Option<i64>,
    at_most: Option<i64>,
    subset_of: Option<BTreeSet<String>>,
    superset_of: Option<BTreeSet<String>>,
    each_starts_with: Option<BTreeSet<String>>,
    any_of: Option<BTreeSet<String>>,
    none_contains: Option<BTreeSet<String>>,
    mode: Option<Mode>,
    owner: Option<super::OneOrMany>,
    group: Option<super::OneOrMany>,
    digest: Option<BTreeSet<FileDigest>>,
    floor: Option<BTreeMap<String, String>>,
    or_absent: bool,
}

impl TryFrom<Raw> for Want {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let table = match raw {
            Raw::Scalar(value) => return Ok(Self { is: scalar(value), or_absent: false }),
            Raw::Table(table) => table,
        };
        let or_absent = table.or_absent;
        let mut given: Vec<Predicate> = Vec::new();
        given.extend(table.equals.map(Predicate::Equals));
        given.extend(table.one_of.map(Predicate::OneOf));
        given.extend(table.none_of.map(Predicate::NoneOf));
        if table.at_least.is_some() || table.at_most.is_some() {
            given.push(Predicate::Between { at_least: table.at_least, at_most: table.at_most });
        }
        given.extend(table.subset_of.map(Predicate::SubsetOf));
        given.extend(table.superset_of.map(Predicate::SupersetOf));
        given.extend(table.each_starts_with.map(Predicate::EachStartsWith));
        given.extend(table.any_of.map(Predicate::AnyOf));
        given.extend(table.none_contains.map(Predicate::NoneContains));
        if table.mode.is_some() || table.owner.is_some() || table.group.is_some() {
            let names = |list: Option<super::OneOrMany>| {
                list.map_or(Ok(BTreeSet::new()), |list| list.into_list().map(|list| list.into_iter().collect()))
            };
            let (owner, group) = (names(table.owner)?, names(table.group)?);
            given.push(Predicate::Access { mode: table.mode, owner, group });
        }
        given.extend(table.digest.map(Predicate::Digest));
        given.extend(table.floor.map(Predicate::Floor));
        let mut given = given.into_iter();
        match (given.next(), given.next()) {
            (Some(is), None) => is.sound().map(|is| Self { is, or_absent }),
            (None, _) => Err("`want` names no predicate".to_owned()),
            (Some(_), Some(_)) => Err("`want` has one predicate; make two controls of two".to_owned()),
        }
    }
}

fn scalar(value: Setting) -> Predicate {
    match &value {
        Setting::Text(word) => match word.as_str() {
            "absent" => Predicate::Absent,
            "present" => Predicate::Present,
            "empty" => Predicate::Empty,
            "not-empty" => Predicate::NotEmpty,
            _ => Predicate::Equals(value),
        },
        Setting::Flag(_) | Setting::Number(_) | Setting::List(_) => Predicate::Equals(value),
    }
}

impl Predicate {
    /// Something can satisfy it, and it is not larger than a profile may be.
    fn sound(self) -> Result<Self, String> {
        let count = match &self {
            Self::OneOf(list) | Self::NoneOf(list) => list.len(),
            Self::SubsetOf(set) => set.len().max(1),
            Self::SupersetOf(set) | Self::EachStartsWith(set) | Self::AnyOf(set) | Self::NoneContains(set) => set.len(),
            Self::Digest(set) => set.len(),
            Self::Floor(floors) => floors.len(),
            Self::Between { at_least: Some(low), at_most: Some(high) } if low > high => 0,
            _ => 1,
        };
        if count == 0 || count > LIST_MAX {
            return Err("nothing could satisfy this `want`, or it is too long".to_owned());
        }
        Ok(self)
    }
}

impl Want {
    /// Whether an observed value satisfies; None: nothing is there, and there is no default. `textual`: values are text that stands for others.
    ///
    /// [`Predicate::Floor`] needs a distribution: see [`Want::reaches_floor`]. Here it is satisfied by nothing.
    #[must_use]
    pub fn accepts(&self, found: Option<&Setting>, textual: bool) -> bool {
        let Some(found) = found else {
            return self.or_absent
                || matches!(
                    self.is,
                    Predicate::Absent
                        | Predicate::Empty
                        | Predicate::NoneOf(_)
                        | Predicate::EachStartsWith(_)
                        | Predicate::NoneContains(_)
                        | Predicate::SubsetOf(_)
                );
        };
        match &self.is {
            Predicate::Equals(wanted) => same(wanted, found, textual),
            Predicate::OneOf(wanted) => wanted.iter().any(|wanted| same(wanted, found, textual)),
            Predicate::NoneOf(refused) => !refused.iter().any(|refused| same(refused, found, textual)),
            Predicate::Between { at_least, at_most } => number(found, textual).is_some_and(|number| {
                at_least.is_none_or(|least| number >= least) && at_most.is_none_or(|most| number <= most)
            }),
            Predicate::Absent => false,
            Predicate::Present => true,
            Predicate::Empty => is_empty(found),
            Predicate::NotEmpty => !is_empty(found),
            Predicate::SubsetOf(allowed) => {
                list(found, textual).is_some_and(|list| list.iter().all(|one| allowed.contains(one)))
            }
            Predicate::SupersetOf(wanted) => {
                list(found, textual).is_some_and(|list| wanted.iter().all(|one| list.contains(one)))
            }
            Predicate::EachStartsWith(starts) => {
                let starts_well = |one: &String| starts.iter().any(|start| one.starts_with(start.as_str()));
                list(found, true).is_some_and(|list| list.iter().all(starts_well))
            }
            Predicate::AnyOf(wanted) => {
                list(found, textual).is_some_and(|list| list.iter().any(|one| wanted.contains(one)))
            }
            Predicate::NoneContains(refused) => match found {
                Setting::Text(text) => !refused.iter().any(|part| text.contains(part.as_str())),
                Setting::List(list) => !list.iter().any(|one| refused.iter().any(|part| one.contains(part.as_str()))),
                Setting::Flag(_) | Setting::Number(_) => false,
            },
            Predicate::Access { mode, owner, group } => access(found, *mode, owner, group),
            Predicate::Digest(wanted) => match found {
                Setting::Text(text) => {
                    wanted.iter().any(|digest| digest.to_string() == text.trim_start_matches("sha256:"))
                }
                _ => false,
            },
            Predicate::Floor(_) => false,
        }
    }

    /// Whether a package's version is at or above the floor of its distribution; None: no floor is known for that one.
    #[must_use]
    pub fn reaches_floor(&self, distribution: &str, version: &str) -> Option<bool> {
        let Predicate::Floor(floors) = &self.is else { return None };
        floors.get(distribution).map(|floor| at_least(version, floor))
    }

    /// Whether all that satisfies this satisfies `weaker` too; None where that cannot be said.
    #[must_use]
    pub fn tightens(&self, weaker: &Self, textual: bool) -> Option<bool> {
        if self.accepts(None, textual) && !weaker.accepts(None, textual) {
            return Some(false);
        }
        match (&self.is, &weaker.is) {
            (new, old) if new == old => Some(true),
            (Predicate::Equals(value), _) => Some(weaker.accepts(Some(value), textual)),
            (Predicate::OneOf(values), _) => Some(values.iter().all(|value| weaker.accepts(Some(value), textual))),
            (Predicate::Between { at_least, at_most }, Predicate::Between { at_least: low, at_most: high }) => {
                let above = low.is_none_or(|low| at_least.is_some_and(|least| least >= low));
                Some(above && high.is_none_or(|high| at_most.is_some_and(|most| most <= high)))
            }
            (Predicate::NoneOf(new), Predicate::NoneOf(old)) => Some(old.iter().all(|one| new.contains(one))),
            (Predicate::SubsetOf(new), Predicate::SubsetOf(old)) => Some(new.is_subset(old)),
            (Predicate::SupersetOf(new), Predicate::SupersetOf(old)) => Some(new.is_superset(old)),
            (Predicate::Digest(new), Predicate::Digest(old)) => Some(new.is_subset(old)),
            (Predicate::AnyOf(new), Predicate::AnyOf(old)) => Some(new.is_subset(old)),
            (Predicate::NoneContains(new), Predicate::NoneContains(old)) => Some(new.is_superset(old)),
            (
                Predicate::Access { mode, owner, group },
                Predicate::Access { mode: old_mode, owner: old_owner, group: old_group },
            ) => {
                let bits = old_mode.is_none_or(|old| mode.is_some_and(|new| new.0 & !old.0 == 0));
                let fewer = |new: &BTreeSet<String>, old: &BTreeSet<String>| {
                    old.is_empty() || (!new.is_empty() && new.is_subset(old))
                };
                Some(bits && fewer(owner, old_owner) && fewer(group, old_group))
            }
            (Predicate::Floor(new), Predicate::Floor(old)) => {
                Some(old.iter().all(|(name, old)| new.get(name).is_some_and(|new| at_least(new, old))))
            }
            (Predicate::EachStartsWith(new), Predicate::EachStartsWith(old)) => {
                let within = |start: &String| old.iter().any(|one| start.starts_with(one.as_str()));
                Some(new.iter().all(within))
            }
            // That nothing is there satisfies both: it was looked at above.
            (Predicate::Absent, _) => Some(true),
            (Predicate::Empty, Predicate::SubsetOf(_) | Predicate::EachStartsWith(_)) => Some(true),
            (Predicate::Empty, Predicate::NotEmpty | Predicate::SupersetOf(_)) => Some(false),
            (_, Predicate::Present) => Some(true),
            _ => None,
        }
    }

    /// The value that a change writes when the control names none: the wanted one, the first, the nearest bound.
    #[must_use]
    pub fn value_to_write(&self) -> Option<Setting> {
        match &self.is {
            Predicate::Equals(value) => Some(value.clone()),
            Predicate::OneOf(values) => values.first().cloned(),
            Predicate::Between { at_least: Some(bound), .. } | Predicate::Between { at_most: Some(bound), .. } => {
                Some(Setting::Number(*bound))
            }
            Predicate::SupersetOf(set) => Some(Setting::List(set.iter().cloned().collect())),
            _ => None,
        }
    }

    /// Whether what is to be written follows from the predicate alone, removal and permissions included.
    #[must_use]
    pub fn is_constructive(&self) -> bool {
        self.value_to_write().is_some()
            || matches!(self.is, Predicate::Absent | Predicate::Empty | Predicate::Access { .. })
    }
}

/// Equal, where text of a textual resource is read as what is wanted.
fn same(wanted: &Setting, found: &Setting, textual: bool) -> bool {
    match (wanted, found) {
        (Setting::Number(wanted), found) => number(found, textual) == Some(*wanted),
        (Setting::Flag(wanted), Setting::Text(text)) if textual => flag(text) == Some(*wanted),
        (Setting::Flag(wanted), Setting::Number(number)) if textual => flag(&number.to_string()) == Some(*wanted),
        (Setting::List(wanted), found) => list(found, textual).is_some_and(|found| {
            // Order means nothing in any list that a control compares as a whole.
            wanted.iter().collect::<BTreeSet<_>>() == found.iter().collect::<BTreeSet<_>>()
        }),
        (Setting::Text(wanted), Setting::Number(found)) if textual => *wanted == found.to_string(),
        (wanted, found) => wanted == found,
    }
}

fn number(found: &Setting, textual: bool) -> Option<i64> {
    match found {
        Setting::Number(number) => Some(*number),
        Setting::Text(text) if textual => text.trim().parse().ok(),
        _ => None,
    }
}

/// systemd.syntax(7)'s words for a switch.
fn flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Some(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Some(false),
        _ => None,
    }
}

fn is_empty(found: &Setting) -> bool {
    match found {
        Setting::Text(text) => text.trim().is_empty(),
        Setting::List(list) => list.is_empty(),
        Setting::Flag(_) | Setting::Number(_) => false,
    }
}

fn list(found: &Setting, textual: bool) -> Option<Vec<String>> {
    match found {
        Setting::List(list) => Some(list.clone()),
        Setting::Text(text) if textual => {
            let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
            Some(words.map(str::to_owned).collect())
        }
        _ => None,
    }
}

/// `MODE OWNER GROUP`, as files are observed; anything else is no file's.
fn access(found: &Setting, mode: Option<Mode>, owner: &BTreeSet<String>, group: &BTreeSet<String>) -> bool {
    let Setting::Text(text) = found else { return false };
    let mut words = text.split(' ');
    let (Some(bits), Some(by), Some(of), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return false;
    };
    let Ok(bits) = u16::from_str_radix(bits, 8) else { return false };
    mode.is_none_or(|allowed| bits & !allowed.0 == 0)
        && (owner.is_empty() || owner.contains(by))
        && (group.is_empty() || group.contains(of))
}

impl fmt::Display for Want {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |list: &[Setting]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let words = |set: &BTreeSet<String>| set.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        match &self.is {
            Predicate::Equals(value) => write!(out, "{value}")?,
            Predicate::OneOf(values) => write!(out, "one of {}", join(values))?,
            Predicate::NoneOf(values) => write!(out, "none of {}", join(values))?,
            Predicate::Between { at_least: Some(low), at_most: Some(high) } => write!(out, "{low} to {high}")?,
            Predicate::Between { at_least: Some(low), at_most: None } => write!(out, "at least {low}")?,
            Predicate::Between { at_most: Some(high), .. } => write!(out, "at most {high}")?,
            Predicate::Between { .. } => out.write_str("a number")?,
            Predicate::Absent => out.write_str("absent")?,
            Predicate::Present => out.write_str("present")?,
            Predicate::Empty => out.write_str("empty")?,
            Predicate::NotEmpty => out.write_str("not empty")?,
            Predicate::SubsetOf(set) => write!(out, "nothing but [{}]", words(set))?,
            Predicate::SupersetOf(set) => write!(out, "all of [{}]", words(set))?,
            Predicate::EachStartsWith(set) => write!(out, "each begins with {}", words(set))?,
            Predicate::AnyOf(set) => write!(out, "at least one of [{}]", words(set))?,
            Predicate::NoneContains(set) => write!(out, "none contains {}", words(set))?,
            Predicate::Access { mode, owner, group } => {
                let mut parts: Vec<String> = Vec::new();
                parts.extend(mode.map(|mode| format!("mode at most {mode}")));
                parts.extend((!owner.is_empty()).then(|| format!("owner {}", words(owner))));
                parts.extend((!group.is_empty()).then(|| format!("group {}", words(group))));
                out.write_str(&parts.join(", "))?;
            }
            Predicate::Digest(set) => {
                let all: Vec<String> = set.iter().map(|digest| format!("sha256:{digest}")).collect();
                out.write_str(&all.join(" or "))?;
            }
            Predicate::Floor(floors) => {
                let all: Vec<String> = floors.iter().map(|(name, floor)| format!("{floor} on {name}")).collect();
                write!(out, "at least {}", all.join(", "))?;
            }
        }
        if self.or_absent { out.write_str(" or absent") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        want: Want,
        #[serde(default)]
        found: Option<Setting>,
    }

    fn want(text: &str) -> Want {
        toml::from_str::<Holder>(&format!("want = {text}")).unwrap().want
    }

    #[test]
    fn each_predicate_accepts_what_it_says_and_nothing_else() {
        // want, found (TOML; empty: absent), textual, accepted
        let rows = [
            ("false", "false", false, true),
            ("false", "true", false, false),
            ("false", "'false'", false, false),
            ("false", "'no'", true, true),
            ("true", "'1'", true, true),
            ("true", "", false, false),
            ("2", "2", false, true),
            ("2", "'2'", true, true),
            ("2", "'2'", false, false),
            ("'info'", "'info'", false, true),
            ("'info'", "'debug'", false, false),
            ("'2'", "2", true, true),
            ("{ equals = 'absent' }", "'absent'", false, true),
            ("'absent'", "", false, true),
            ("'absent'", "'absent'", false, false),
            ("'present'", "''", false, true),
            ("'present'", "", false, false),
            ("'empty'", "", false, true),
            ("'empty'", "[]", false, true),
            ("'empty'", "['a']", false, false),
            ("'empty'", "0", false, false),
            ("'not-empty'", "['a']", false, true),
            ("'not-empty'", "' '", false, false),
            ("'not-empty'", "", false, false),
            ("{ one_of = [1, 2] }", "2", false, true),
            ("{ one_of = [1, 2] }", "3", false, false),
            ("{ one_of = [1, 2] }", "", false, false),
            ("{ one_of = [1, 2], or_absent = true }", "", false, true),
            ("{ none_of = ['json-file', 'none'] }", "'journald'", false, true),
            ("{ none_of = ['json-file', 'none'] }", "'none'", false, false),
            ("{ none_of = ['off'] }", "", true, true),
            ("{ at_least = 1 }", "1", false, true),
            ("{ at_least = 1 }", "0", false, false),
            ("{ at_least = 1 }", "'x'", true, false),
            ("{ at_least = 1, at_most = 2 }", "3", false, false),
            ("{ at_most = 5 }", "-1", false, true),
            ("{ subset_of = ['a', 'b'] }", "['a']", false, true),
            ("{ subset_of = ['a', 'b'] }", "['a', 'c']", false, false),
            ("{ subset_of = [] }", "[]", false, true),
            ("{ subset_of = [] }", "", false, true),
            ("{ subset_of = ['a', 'b'] }", "'a, b'", true, true),
            ("{ subset_of = ['a'] }", "'a'", false, false),
            ("{ superset_of = ['a'] }", "['b', 'a']", false, true),
            ("{ superset_of = ['a'] }", "['b']", false, false),
            ("{ superset_of = ['a'] }", "", false, false),
            ("{ each_starts_with = ['https://'] }", "", false, true),
            ("{ each_starts_with = ['https://'] }", "['https://r']", false, true),
            ("{ each_starts_with = ['https://'] }", "['https://r', 'http://r']", false, false),
            ("{ any_of = ['a', 'b'] }", "['c', 'b']", false, true),
            ("{ any_of = ['a', 'b'] }", "['c']", false, false),
            ("{ any_of = ['a', 'b'] }", "'a'", false, false),
            ("{ any_of = ['a', 'b'] }", "'c a'", true, true),
            ("{ any_of = ['a'] }", "", false, false),
            ("{ none_contains = ['@'] }", "", false, true),
            ("{ none_contains = ['@'] }", "'http://proxy:3128'", false, true),
            ("{ none_contains = ['@'] }", "'http://me:secret@proxy:3128'", false, false),
            ("{ none_contains = ['@', '#'] }", "['a', 'b#']", false, false),
            ("{ none_contains = ['@'] }", "5", false, false),
            ("{ equals = ['a', 'b'] }", "['b', 'a']", false, true),
            ("{ equals = ['a', 'b'] }", "['b']", false, false),
            ("{ mode = '0644', owner = 'root' }", "'0600 root root'", false, true),
            ("{ mode = '0644', owner = 'root' }", "'0606 root root'", false, false),
            ("{ mode = '0644', owner = 'root' }", "'4644 root root'", false, false),
            ("{ mode = '0644', owner = 'root' }", "'0644 app root'", false, false),
            ("{ group = ['root', 'docker'] }", "'0777 app docker'", false, true),
            ("{ group = ['root', 'docker'] }", "'0644 root users'", false, false),
            ("{ mode = '0644' }", "'not a file'", false, false),
        ];
        for (text, found, textual, accepted) in rows {
            let found = if found.is_empty() { String::new() } else { format!("found = {found}") };
            let holder: Holder = toml::from_str(&format!("want = {text}\n{found}")).unwrap();
            assert_eq!(holder.want.accepts(holder.found.as_ref(), textual), accepted, "{text} {found}");
        }
        let digest = format!("{{ digest = ['{}'] }}", "0a".repeat(32));
        assert!(want(&digest).accepts(Some(&Setting::Text(format!("sha256:{}", "0a".repeat(32)))), false));
        assert!(!want(&digest).accepts(Some(&Setting::Text(format!("sha256:{}", "0b".repeat(32)))), false));
        let floor = want("{ floor = { 'debian-12' = '1.1.5-2' } }");
        assert_eq!(floor.reaches_floor("debian-12", "1.1.5-2+deb12u1"), Some(true));
        assert_eq!(floor.reaches_floor("debian-12", "1.1.5-1"), Some(false));
        assert_eq!(floor.reaches_floor("fedora-40", "9"), None);
    }

    #[test]
    fn what_means_nothing_or_two_things_is_refused() {
        for (text, part) in [
            ("['a']", "a list can mean many things"),
            ("{ }", "names no predicate"),
            ("{ or_absent = true }", "names no predicate"),
            ("{ equals = 1, at_least = 1 }", "one predicate"),
            ("{ one_of = [] }", "nothing could satisfy"),
            ("{ superset_of = [] }", "nothing could satisfy"),
            ("{ any_of = [] }", "nothing could satisfy"),
            ("{ none_contains = [] }", "nothing could satisfy"),
            ("{ at_least = 2, at_most = 1 }", "nothing could satisfy"),
            ("{ like = 'x' }", "unknown field `like`"),
            ("{ mode = '644' }", "a mode is four octal digits"),
            ("1.5", "a value"),
        ] {
            let error = toml::from_str::<Holder>(&format!("want = {text}")).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_loosening_is_seen_where_two_can_be_compared() {
        for (new, old, expect) in [
            ("2", "{ at_least = 1 }", Some(true)),
            ("0", "{ at_least = 1 }", Some(false)),
            ("{ at_least = 2 }", "{ at_least = 1 }", Some(true)),
            ("{ at_least = 1 }", "{ at_least = 2 }", Some(false)),
            ("{ at_most = 2 }", "{ at_least = 1 }", Some(false)),
            ("{ one_of = [1] }", "{ one_of = [1, 2] }", Some(true)),
            ("{ one_of = [1, 3] }", "{ one_of = [1, 2] }", Some(false)),
            ("{ subset_of = ['a'] }", "{ subset_of = ['a', 'b'] }", Some(true)),
            ("{ subset_of = ['c'] }", "{ subset_of = ['a', 'b'] }", Some(false)),
            ("{ superset_of = ['a', 'b'] }", "{ superset_of = ['a'] }", Some(true)),
            ("{ superset_of = ['b'] }", "{ superset_of = ['a'] }", Some(false)),
            ("{ any_of = ['a'] }", "{ any_of = ['a', 'b'] }", Some(true)),
            ("{ any_of = ['c'] }", "{ any_of = ['a', 'b'] }", Some(false)),
            ("{ none_contains = ['a', 'b'] }", "{ none_contains = ['a'] }", Some(true)),
            ("{ none_contains = ['b'] }", "{ none_contains = ['a'] }", Some(false)),
            ("{ none_of = ['a', 'b'] }", "{ none_of = ['a'] }", Some(true)),
            ("{ none_of = ['b'] }", "{ none_of = ['a'] }", Some(false)),
            ("{ mode = '0600' }", "{ mode = '0644' }", Some(true)),
            ("{ mode = '0660' }", "{ mode = '0644' }", Some(false)),
            ("{ mode = '0600' }", "{ mode = '0644', owner = 'root' }", Some(false)),
            ("{ equals = false, or_absent = true }", "false", Some(false)),
            ("'absent'", "'empty'", Some(true)),
            ("'present'", "'empty'", None),
            ("'absent'", "'present'", Some(false)),
            ("'empty'", "{ subset_of = ['a'] }", Some(true)),
            ("'empty'", "'present'", Some(false)),
            ("{ each_starts_with = ['ab'] }", "{ each_starts_with = ['a', 'c'] }", Some(true)),
            ("{ each_starts_with = ['a'] }", "{ each_starts_with = ['ab'] }", Some(false)),
            ("{ superset_of = ['a'] }", "'present'", Some(true)),
            // What nobody states satisfies the new one, and did not satisfy the old one.
            ("{ none_of = ['b'] }", "'a'", Some(false)),
            ("{ each_starts_with = ['a'] }", "{ superset_of = ['a'] }", Some(false)),
            ("{ none_contains = ['b'] }", "{ any_of = ['a'] }", Some(false)),
            ("{ subset_of = ['a'] }", "'not-empty'", Some(false)),
            ("{ floor = { d = '2' } }", "{ floor = { d = '1' } }", Some(true)),
            ("{ floor = { d = '1' } }", "{ floor = { d = '2' } }", Some(false)),
        ] {
            assert_eq!(want(new).tightens(&want(old), false), expect, "{new} over {old}");
        }
    }
}
