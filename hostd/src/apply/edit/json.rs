//! Keys of a JSON text, set and removed where they stand: every other byte stays as its author wrote it.
//!
//! RFC 8259. Establishes that the new text, parsed, differs from the old one in that key alone. Does not establish that a program accepts it.

use std::ops::Range;

use serde_json::{Map, Value};

/// Where one member of an object stands.
struct Member {
    key: String,
    /// Of the whole member, from its key's quote to its value's end.
    whole: Range<usize>,
    value: Range<usize>,
}

/// The text with a key set, or removed for None. An empty text is an empty object.
///
/// # Errors
/// The text is no JSON object, a key stands twice in it, or the way to the key leads through something that is no object.
pub(crate) fn edit(text: &str, key: &[String], value: Option<&Value>) -> Result<String, String> {
    let text = if text.trim().is_empty() { "{}\n" } else { text };
    let old: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if !old.is_object() {
        return Err("it is not a JSON object".to_owned());
    }
    let new = edited(text, key, value)?;
    let mut wanted = old;
    change(&mut wanted, key, value);
    let got: Value = serde_json::from_str(&new).map_err(|error| error.to_string())?;
    if got != wanted {
        return Err("it is written in a way that this program cannot edit without touching more".to_owned());
    }
    Ok(new)
}

/// The same change on the parsed value.
fn change(at: &mut Value, key: &[String], value: Option<&Value>) {
    let (Some((first, rest)), Some(object)) = (key.split_first(), at.as_object_mut()) else { return };
    match (rest.is_empty(), value) {
        (true, Some(value)) => drop(object.insert(first.clone(), value.clone())),
        (true, None) => drop(object.remove(first)),
        (false, None) if !object.contains_key(first) => {}
        (false, _) => change(object.entry(first).or_insert_with(|| Value::Object(Map::new())), rest, value),
    }
}

fn edited(text: &str, key: &[String], value: Option<&Value>) -> Result<String, String> {
    let mut object = skip_space(text, 0)..text.trim_end().len();
    let mut rest = key;
    let mut depth = 1usize;
    while let Some((segment, below)) = rest.split_first() {
        let members = members(text, &object)?;
        let found = members.iter().position(|member| member.key == *segment);
        match (found.and_then(|at| members.get(at)), below.is_empty()) {
            (Some(member), false) => {
                object = member.value.clone();
                if !text.get(object.clone()).is_some_and(|text| text.starts_with('{')) {
                    return Err(format!("`{segment}` is not an object"));
                }
            }
            (Some(member), true) => {
                return Ok(match value {
                    Some(value) => splice(text, member.value.clone(), &value.to_string()),
                    None => without(text, &object, &members, found.unwrap_or_default()),
                });
            }
            (None, _) => {
                let Some(value) = value else { return Ok(text.to_owned()) };
                // What is below is written as one nested value.
                let nested = below
                    .iter()
                    .rev()
                    .fold(value.clone(), |value, segment| Value::Object(Map::from_iter([(segment.clone(), value)])));
                return Ok(with(text, &object, &members, segment, &nested, depth));
            }
        }
        rest = below;
        depth = depth.saturating_add(1);
    }
    Err("the key is empty".to_owned())
}

fn splice(text: &str, range: Range<usize>, new: &str) -> String {
    let (before, after) = (text.get(..range.start).unwrap_or_default(), text.get(range.end..).unwrap_or_default());
    format!("{before}{new}{after}")
}

/// A member more, written as the last one is.
fn with(text: &str, object: &Range<usize>, members: &[Member], key: &str, value: &Value, depth: usize) -> String {
    let member = format!("{}: {value}", Value::String(key.to_owned()));
    let Some((first, last)) = members.first().zip(members.last()) else {
        let (outer, inner) = ("  ".repeat(depth.saturating_sub(1)), "  ".repeat(depth));
        return splice(text, object.clone(), &format!("{{\n{inner}{member}\n{outer}}}"));
    };
    let before = text.get(object.start..first.whole.start).unwrap_or_default();
    let between = match before.rsplit_once('\n') {
        Some((_, indent)) => format!(",\n{indent}"),
        None => ", ".to_owned(),
    };
    splice(text, last.whole.end..last.whole.end, &format!("{between}{member}"))
}

/// A member less, and the comma that belonged to it.
fn without(text: &str, object: &Range<usize>, members: &[Member], at: usize) -> String {
    let Some(gone) = members.get(at) else { return text.to_owned() };
    if let Some(next) = members.get(at.saturating_add(1)) {
        return splice(text, gone.whole.start..next.whole.start, "");
    }
    match at.checked_sub(1).and_then(|before| members.get(before)) {
        Some(before) => splice(text, before.whole.end..gone.whole.end, ""),
        None => splice(text, object.clone(), "{}"),
    }
}

/// The members of an object of a valid text.
fn members(text: &str, object: &Range<usize>) -> Result<Vec<Member>, String> {
    let mut members: Vec<Member> = Vec::new();
    let mut at = skip_space(text, object.start.saturating_add(1));
    while at < object.end && byte(text, at) == Some(b'"') {
        let start = at;
        let end = skip_string(text, at);
        let key: String = text
            .get(start..end)
            .and_then(|quoted| serde_json::from_str(quoted).ok())
            .ok_or_else(|| "a key cannot be read".to_owned())?;
        if members.iter().any(|member| member.key == key) {
            return Err(format!("`{key}` stands in it twice: which of the two counts is for its author to say"));
        }
        // The colon.
        let from = skip_space(text, skip_space(text, end).saturating_add(1));
        let to = skip_value(text, from);
        members.push(Member { key, whole: start..to, value: from..to });
        at = skip_space(text, to);
        if byte(text, at) == Some(b',') {
            at = skip_space(text, at.saturating_add(1));
        }
    }
    Ok(members)
}

fn byte(text: &str, at: usize) -> Option<u8> {
    text.as_bytes().get(at).copied()
}

fn skip_space(text: &str, mut at: usize) -> usize {
    while byte(text, at).is_some_and(|byte| byte.is_ascii_whitespace()) {
        at = at.saturating_add(1);
    }
    at
}

/// From the opening quote to behind the closing one.
fn skip_string(text: &str, at: usize) -> usize {
    let mut at = at.saturating_add(1);
    while let Some(one) = byte(text, at) {
        at = at.saturating_add(if one == b'\\' { 2 } else { 1 });
        if one == b'"' {
            break;
        }
    }
    at
}

fn skip_value(text: &str, from: usize) -> usize {
    let (mut at, mut depth) = (from, 0usize);
    while let Some(one) = byte(text, at) {
        match one {
            b'"' => {
                at = skip_string(text, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth = depth.saturating_add(1),
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at.saturating_add(1);
                }
            }
            b',' if depth == 0 => return at,
            one if depth == 0 && one.is_ascii_whitespace() => return at,
            _ => {}
        }
        at = at.saturating_add(1);
    }
    at
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_key_changes_and_every_other_byte_stays() {
        let key = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
        let tab = "{\n\t\"a\" : [1, \"}\"],\n\n\t\"b\": {\"c\":1.50}\n}\n";
        for (text, at, value, expect) in [
            ("", "icc", Some(json!(false)), "{\n  \"icc\": false\n}\n"),
            ("{}", "a/b", Some(json!("x")), "{\n  \"a\": {\"b\":\"x\"}\n}"),
            (tab, "d", Some(json!(1)), "{\n\t\"a\" : [1, \"}\"],\n\n\t\"b\": {\"c\":1.50},\n\t\"d\": 1\n}\n"),
            (tab, "a", Some(json!(true)), "{\n\t\"a\" : true,\n\n\t\"b\": {\"c\":1.50}\n}\n"),
            (tab, "b/d", Some(json!(["x"])), "{\n\t\"a\" : [1, \"}\"],\n\n\t\"b\": {\"c\":1.50, \"d\": [\"x\"]}\n}\n"),
            (tab, "a", None, "{\n\t\"b\": {\"c\":1.50}\n}\n"),
            (tab, "b", None, "{\n\t\"a\" : [1, \"}\"]\n}\n"),
            (tab, "b/c", None, "{\n\t\"a\" : [1, \"}\"],\n\n\t\"b\": {}\n}\n"),
            (tab, "none", None, tab),
            ("{\"a\\\"b\":1}", "a\"b", Some(json!(2)), "{\"a\\\"b\":2}"),
        ] {
            assert_eq!(edit(text, &key(at), value.as_ref()).as_deref(), Ok(expect), "{text} {at}");
        }
        for (text, at, part) in [
            ("[1]", "a", "not a JSON object"),
            ("{\"a\":1,}", "a", "trailing comma"),
            ("{\"a\":1,\"a\":2}", "a", "twice"),
            ("{\"a\":1}", "a/b", "not an object"),
        ] {
            let error = edit(text, &key(at), Some(&json!(1))).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
