//! Names that people type: each has one strict grammar, and a refusal names the field (D6, D14, A18).

use hostmark_attest::check::violated;
use hostmark_attest::label::{Label, Levels};

use crate::refusal::{Outcome, Refusal};

/// Longest RFC 1123 subdomain.
const NODE_MAX: usize = 253;
/// Longest RFC 1123 label; also the longest of our own names.
const NAME_MAX: usize = 63;
/// Longest free text (a reason), in characters.
const TEXT_MAX: usize = 256;

fn is_rfc1123_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    !text.is_empty()
        && text.len() <= NAME_MAX
        && text.bytes().all(|b| inner(b) || b == b'-')
        && text.bytes().next().is_some_and(inner)
        && text.bytes().last().is_some_and(inner)
}

/// A node name: an RFC 1123 subdomain, lower case.
///
/// # Errors
/// 400 naming the field.
pub fn node(field: &str, text: &str) -> Outcome<()> {
    let good = text.len() <= NODE_MAX && text.split('.').all(is_rfc1123_label);
    if violated("request.node", !good) {
        return Err(Refusal::field(
            field,
            "a node name is an RFC 1123 name: lower-case letters, digits, '-' and '.', at most 253 bytes",
        ));
    }
    Ok(())
}

/// A name of ours: scheduler, policy, pool, operator.
///
/// # Errors
/// 400 naming the field.
pub fn name(field: &str, text: &str) -> Outcome<()> {
    if violated("request.name", !is_rfc1123_label(text)) {
        return Err(Refusal::field(field, "a name has lower-case letters, digits and '-', at most 63 bytes"));
    }
    Ok(())
}

/// An operator's name: as [`name`], also with '.', '_' and '@', so that a mail address is one.
///
/// # Errors
/// 400 naming the field.
pub fn operator(field: &str, text: &str) -> Outcome<()> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_' | b'@');
    let good = !text.is_empty()
        && text.len() <= NAME_MAX
        && text.bytes().all(allowed)
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if violated("request.operator", !good) {
        return Err(Refusal::field(
            field,
            "an operator's name has lower-case letters, digits and '-', '.', '_', '@', at most 63 bytes",
        ));
    }
    Ok(())
}

/// A UUID in its canonical form.
///
/// # Errors
/// 400 naming the field.
pub fn id(field: &str, text: &str) -> Outcome<()> {
    let good = uuid::Uuid::try_parse(text).is_ok_and(|uuid| uuid.hyphenated().to_string() == text);
    if violated("request.id", !good) {
        return Err(Refusal::field(field, "an id is a lower-case UUID"));
    }
    Ok(())
}

/// An EK id: 64 lower-case hex digits.
///
/// # Errors
/// 400 naming the field.
pub fn ek_id(field: &str, text: &str) -> Outcome<()> {
    let good = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if violated("request.ek-id", !good) {
        return Err(Refusal::field(field, "an EK id is SHA-256 in 64 lower-case hex digits; `hostd doctor` shows it"));
    }
    Ok(())
}

/// Free text: no control characters, at most 256 characters.
///
/// # Errors
/// 400 naming the field.
pub fn text(field: &str, text: &str) -> Outcome<()> {
    if violated("request.text", text.chars().count() > TEXT_MAX || text.chars().any(char::is_control)) {
        return Err(Refusal::field(field, "at most 256 characters, no control characters"));
    }
    Ok(())
}

/// A label whose level is configured.
///
/// # Errors
/// 400 naming the field.
pub fn label(field: &str, text: &str, levels: &Levels) -> Outcome<Label> {
    let parsed: Label = text.parse().map_err(|error| Refusal::field(field, error))?;
    levels.accept(&parsed).map_err(|error| Refusal::field(field, error))?;
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d6_names_have_one_grammar_each() {
        let long = "a".repeat(64);
        let megabytes = "a".repeat(10 << 20);
        let rows: [(&str, bool, bool); 12] = [
            ("node-1", true, true),
            ("node-1.example", true, false),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("a..b", false, false),
            ("A", false, false),
            ("a\nb", false, false),
            ("a\u{0}", false, false),
            ("ä", false, false),
            (&long, false, false),
            (&megabytes, false, false),
        ];
        for (text, is_node, is_name) in rows {
            let shown: String = text.chars().take(20).collect();
            assert_eq!(node("node", text).is_ok(), is_node, "{shown:?}");
            assert_eq!(name("name", text).is_ok(), is_name, "{shown:?}");
        }
        assert_eq!(node("node", "A").unwrap_err().id(), "request.node");
        assert_eq!(text("reason", "a\u{1b}[0m").unwrap_err().id(), "request.reason");
        assert!(operator("name", "ann@example.org").is_ok() && operator("name", "../x").is_err());
        assert_eq!(label("label", &megabytes, &Levels::default()).unwrap_err().id(), "request.label");
        assert!(ek_id("ek", &"0a".repeat(32)).is_ok() && ek_id("ek", &"0A".repeat(32)).is_err());
        assert!(
            id("id", "6f1c2f0e-2f57-4c3e-9a51-6f4f3f8b1a00").is_ok()
                && id("id", "6F1C2F0E-2f57-4c3e-9a51-6f4f3f8b1a00").is_err()
        );
    }
}
