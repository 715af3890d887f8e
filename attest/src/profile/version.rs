//! Comparing versions as Debian's package manager does.
//!
//! Debian Policy §5.6.12 (`[epoch:]upstream[-revision]`, `~` sorts before everything). Establishes the order of two versions of one
//! distribution. Does not establish that a version lacks a flaw: distributions mend old versions, which is why floors are per distribution.

use std::cmp::Ordering;

/// Whether `found` is `floor` or newer.
#[must_use]
pub fn at_least(found: &str, floor: &str) -> bool {
    compare(found, floor) != Ordering::Less
}

fn compare(left: &str, right: &str) -> Ordering {
    let (left, right) = (split(left), split(right));
    left.0.cmp(&right.0).then_with(|| part(left.1, right.1)).then_with(|| part(left.2, right.2))
}

/// Epoch, upstream version, revision. No revision is as good as revision 0.
fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, "0"));
    (epoch, upstream, revision)
}

/// Alternately what is no digit, by character, and what is, by number.
fn part(mut left: &str, mut right: &str) -> Ordering {
    while !left.is_empty() || !right.is_empty() {
        let (left_text, left_rest) = take(left, false);
        let (right_text, right_rest) = take(right, false);
        let order = text(left_text, right_text);
        if order != Ordering::Equal {
            return order;
        }
        let (left_number, left_rest) = take(left_rest, true);
        let (right_number, right_rest) = take(right_rest, true);
        let (left_number, right_number) = (left_number.trim_start_matches('0'), right_number.trim_start_matches('0'));
        let order = left_number.len().cmp(&right_number.len()).then_with(|| left_number.cmp(right_number));
        if order != Ordering::Equal {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
    Ordering::Equal
}

fn take(version: &str, digits: bool) -> (&str, &str) {
    let end = version.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(version.len());
    version.split_at_checked(end).unwrap_or((version, ""))
}

/// `~` before the end, the end before letters, letters before all else.
fn text(left: &str, right: &str) -> Ordering {
    let weigh = |c: Option<char>| match c {
        Some('~') => (0, 0),
        None => (1, 0),
        Some(c) if c.is_ascii_alphabetic() => (2, u32::from(c)),
        Some(c) => (3, u32::from(c)),
    };
    let (mut left, mut right) = (left.chars(), right.chars());
    loop {
        let (one, other) = (left.next(), right.next());
        let order = weigh(one).cmp(&weigh(other));
        if order != Ordering::Equal || (one.is_none() && other.is_none()) {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_stand_in_dpkgs_order() {
        for (left, right, expect) in [
            ("20.10.24+dfsg1-1+b3", "20.10.24+dfsg1-1", Ordering::Greater),
            ("1.1.5+ds1-1+deb12u1", "1.1.5+ds1-1", Ordering::Greater),
            ("1.1.5~rc.1-1", "1.1.5-1", Ordering::Less),
            ("5:26.1.0-1~debian.12~bookworm", "20.10.24+dfsg1-1", Ordering::Greater),
            ("1.6.20~ds1-1+b1", "1.6.20~ds1-1+b1", Ordering::Equal),
            ("1.10", "1.9", Ordering::Greater),
            ("1.0", "1.0-0", Ordering::Equal),
            ("1.01", "1.1", Ordering::Equal),
            ("1.0a", "1.0+", Ordering::Less),
            ("", "0", Ordering::Equal),
            ("x", "", Ordering::Greater),
        ] {
            assert_eq!(compare(left, right), expect, "{left} {right}");
            assert_eq!(compare(right, left), expect.reverse(), "{right} {left}");
        }
    }
}
