//! Groups and subordinate ids, from the files of the root.
//!
//! group(5), passwd(5), subuid(5). Users of a directory service are not seen here.

use hostmark_attest::manifest::Setting;
use hostmark_attest::profile::{Observation, Observed, SourceKind, Stated};

use super::{Result, not_applicable};
use crate::profile::host::Host;
use crate::profile::root::Text;

pub(super) fn group(host: &Host, name: &str) -> Result {
    for path in ["/etc/group", "/etc/passwd"] {
        if let Text::Unreadable(why) = host.root.text(path) {
            return Err(why);
        }
    }
    let groups = host.root.accounts("/etc/group");
    let ids: Vec<&String> = groups
        .iter()
        .filter(|group| group.first().is_some_and(|one| one == name))
        .filter_map(|group| group.get(2))
        .collect();
    if ids.is_empty() {
        return Ok(not_applicable(format!("there is no group {name}")));
    }
    let same = |id: Option<&String>| id.is_some_and(|id| ids.contains(&id));
    // The kernel knows numbers only: a line of another name with the same one lets its members in.
    let mut members: Vec<String> = Vec::new();
    for group in groups.iter().filter(|group| same(group.get(2))) {
        let listed = group.get(3).map(String::as_str).unwrap_or_default().split(',');
        members.extend(listed.map(str::trim).filter(|member| !member.is_empty()).map(str::to_owned));
    }
    let users = host.root.accounts("/etc/passwd");
    members.extend(users.iter().filter(|user| same(user.get(3))).filter_map(|user| user.first().cloned()));
    members.sort();
    members.dedup();
    let effective =
        Stated::new(SourceKind::File, "/etc/group and /etc/passwd", Observed::Value(Setting::List(members)));
    Ok(Observation::Seen { effective, others: Vec::new() })
}

pub(super) fn subid(host: &Host, path: &str) -> Result {
    let text = match host.root.text(path) {
        Text::Read(text) => text,
        Text::Missing => return Ok(not_applicable(format!("there is no {path}"))),
        Text::Unreadable(why) => return Err(why),
    };
    let Some(smallest) = smallest(&text) else { return Ok(not_applicable("it grants no range")) };
    let effective = Stated::new(SourceKind::File, path, Observed::Value(Setting::Number(smallest)));
    Ok(Observation::Seen { effective, others: Vec::new() })
}

/// The size of the smallest range; 0 when two overlap or a line is none; None when there is no line.
fn smallest(text: &str) -> Option<i64> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut fields = line.split(':').skip(1).map(str::parse::<u32>);
        let (Some(Ok(start)), Some(Ok(count)), None) = (fields.next(), fields.next(), fields.next()) else {
            return Some(0);
        };
        ranges.push((i64::from(start), i64::from(start).saturating_add(i64::from(count))));
    }
    ranges.sort_unstable();
    let overlap = ranges.iter().zip(ranges.iter().skip(1)).any(|((_, end), (start, _))| start < end);
    let smallest = ranges.iter().map(|(start, end)| end.saturating_sub(*start)).min()?;
    Some(if overlap { 0 } else { smallest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_are_as_small_as_none() {
        for (text, expect) in [
            ("", None),
            ("a:100000:65536\nb:165536:65536\n", Some(65536)),
            ("a:100000:65536\nb:165535:65536\n", Some(0)),
            ("b:300000:1000\n# c\na:100000:65536", Some(1000)),
            ("a:x:1", Some(0)),
            ("a:1", Some(0)),
        ] {
            assert_eq!(smallest(text), expect, "{text}");
        }
    }
}
