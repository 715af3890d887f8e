//! The part of YAML that configurations of daemons are written in: block mappings and sequences of scalars, one value a line.
//!
//! YAML 1.2.2, chapters 6–8; the kubelet's config.yaml as kubeadm writes it. What is left out (anchors, tags, folded texts, nested flow
//! collections, words that versions of YAML read differently) is an error with its line: half a file is no state to judge.

use serde_json::{Map, Value};

/// Deepest nesting: the kubelet's has four levels.
const DEPTH_MAX: usize = 16;

/// A line that is not empty, without its comment.
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

/// Reads one document.
///
/// # Errors
/// What is not understood, and in which line.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|error| error.to_string());
    }
    let mut lines = Vec::new();
    for (at, whole) in text.lines().enumerate() {
        let number = at.saturating_add(1);
        let text = without_comment(whole).trim_end();
        let bare = text.trim_start_matches(' ');
        if bare.is_empty() || (bare == "---" && lines.is_empty()) {
            continue;
        }
        if bare.starts_with('\t') || matches!(text, "---" | "...") || text.starts_with('%') {
            return Err(format!("line {number}: tabs, directives and further documents are not read"));
        }
        lines.push(Line { number, indent: text.len().saturating_sub(bare.len()), text: bare });
    }
    let mut reader = Reader { lines, at: 0 };
    let Some(indent) = reader.next().map(|line| line.indent) else { return Ok(Value::Null) };
    let value = reader.block(indent, 0)?;
    match reader.next() {
        None => Ok(value),
        Some(line) => Err(format!("line {}: its indentation fits nothing above", line.number)),
    }
}

/// A line up to a `#` that stands outside of quotes and after a space.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '#' && before.is_whitespace() => return line.get(..at).unwrap_or(line),
            None if matches!(c, '"' | '\'') && !before.is_alphanumeric() => quote = Some(c),
            None => {}
        }
        before = c;
    }
    line
}

struct Reader<'a> {
    lines: Vec<Line<'a>>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn next(&self) -> Option<&Line<'a>> {
        self.lines.get(self.at)
    }

    /// The next line when it is at this indentation.
    fn here(&self, indent: usize) -> Option<(usize, &'a str)> {
        self.next().filter(|line| line.indent == indent).map(|line| (line.number, line.text))
    }

    fn block(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        let number = self.next().map_or(0, |line| line.number);
        if depth > DEPTH_MAX {
            return Err(format!("line {number}: nested too deeply"));
        }
        match self.here(indent) {
            Some((_, text)) if is_entry(text) => self.sequence(indent, depth),
            Some(_) => self.mapping(indent, depth),
            None => Err(format!("line {number}: its indentation fits nothing above")),
        }
    }

    fn mapping(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        let mut map = Map::new();
        while let Some((number, text)) = self.here(indent) {
            if is_entry(text) {
                break;
            }
            let Some((key, value)) = pair(text) else { return Err(format!("line {number}: it is no `key: value`")) };
            let Value::String(key) = scalar(key, number)? else {
                return Err(format!("line {number}: its key is no text"));
            };
            self.at = self.at.saturating_add(1);
            let value = if value.is_empty() { self.below(indent, depth)? } else { scalar(value, number)? };
            if map.insert(key, value).is_some() {
                return Err(format!("line {number}: its key is written twice"));
            }
        }
        Ok(Value::Object(map))
    }

    fn sequence(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        let mut list = Vec::new();
        while let Some((number, text)) = self.here(indent) {
            let Some(rest) = text.strip_prefix('-').filter(|_| is_entry(text)) else { break };
            let entry = rest.trim_start_matches(' ');
            let deeper = indent.saturating_add(text.len().saturating_sub(entry.len()));
            if entry.is_empty() {
                self.at = self.at.saturating_add(1);
                list.push(self.below(indent, depth)?);
            } else if is_entry(entry) || pair(entry).is_some() {
                // The rest of the line is the first line of a block of its own.
                if let Some(line) = self.lines.get_mut(self.at) {
                    *line = Line { number, indent: deeper, text: entry };
                }
                list.push(self.block(deeper, depth.saturating_add(1))?);
            } else {
                self.at = self.at.saturating_add(1);
                list.push(scalar(entry, number)?);
            }
        }
        Ok(Value::Array(list))
    }

    /// What stands below a key or a dash that has nothing after it. A sequence may stand at the indentation of its key.
    fn below(&mut self, indent: usize, depth: usize) -> Result<Value, String> {
        match self.next() {
            Some(line) if line.indent > indent => {
                let indent = line.indent;
                self.block(indent, depth.saturating_add(1))
            }
            Some(line) if line.indent == indent && is_entry(line.text) && depth <= DEPTH_MAX => {
                self.sequence(indent, depth.saturating_add(1))
            }
            _ => Ok(Value::Null),
        }
    }
}

fn is_entry(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// Key and value of `key: value`; the key may stand in quotes.
fn pair(text: &str) -> Option<(&str, &str)> {
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let end = text.get(1..)?.find(quote)?.saturating_add(2);
        let (key, rest) = text.split_at_checked(end)?;
        let value = rest.strip_prefix(':')?;
        return (value.is_empty() || value.starts_with(' ')).then(|| (key, value.trim()));
    }
    if let Some((key, value)) = text.split_once(": ") {
        return Some((key, value.trim()));
    }
    text.strip_suffix(':').map(|key| (key, ""))
}

fn scalar(text: &str, number: usize) -> Result<Value, String> {
    let refuse = |what: &str| Err(format!("line {number}: {what}"));
    let first = text.chars().next().unwrap_or(' ');
    match first {
        '"' => {
            return serde_json::from_str::<String>(text)
                .map(Value::String)
                .or_else(|_| refuse("a text that is not read"));
        }
        '\'' => {
            let inside = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).filter(|_| text.len() > 1);
            let Some(inside) = inside.map(|inside| inside.replace("''", "\u{0}")) else {
                return refuse("an open quote");
            };
            if inside.contains('\'') {
                return refuse("a quote inside a text");
            }
            return Ok(Value::String(inside.replace('\u{0}', "'")));
        }
        '[' | '{' => return flow(text, number),
        '&' | '*' | '!' | '|' | '>' | '%' | '@' | '`' | ']' | '}' | ',' | '?' => {
            return refuse("anchors, tags, folded texts and the like are not read");
        }
        _ => {}
    }
    if text.contains(": ") || text.contains('\u{0}') {
        return refuse("a mapping inside a value");
    }
    Ok(match text {
        "null" | "Null" | "NULL" | "~" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if ["y", "n", "yes", "no", "on", "off"].contains(&text.to_ascii_lowercase().as_str()) => {
            return refuse("versions of YAML read this word differently: write true, false or quotes");
        }
        _ => match text.parse::<i64>() {
            // A leading zero is octal to some.
            Ok(whole) if whole.to_string() == text => Value::from(whole),
            _ => Value::String(text.to_owned()),
        },
    })
}

/// `[a, b]` of scalars, `{}`, and what is JSON.
fn flow(text: &str, number: usize) -> Result<Value, String> {
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let Some(inside) = inside.filter(|inside| !inside.contains(['[', ']', '{', '}', '"', '\''])) else {
        return Err(format!("line {number}: a collection that is not read"));
    };
    inside.split(',').map(|one| scalar(one.trim(), number)).collect::<Result<_, _>>().map(Value::Array)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_kubeadm_writes_is_read_and_anything_else_is_refused_with_its_line() {
        let kubelet = "---\napiVersion: kubelet.config.k8s.io/v1beta1 # v1\nauthentication:\n  anonymous:\n    enabled: false\n  x509:\n    clientCAFile: /etc/kubernetes/pki/ca.crt\nclusterDNS:\n- 10.96.0.10\nregisterWithTaints:\n  - effect: NoSchedule\n    key: 'a b'\n  - {}\nreadOnlyPort: 0\ncpuManagerReconcilePeriod: 0s\nfeatureGates: {}\ntlsCipherSuites: [A, B]\nurl: \"http://a#b\"\n";
        for (text, expect) in [
            (
                kubelet,
                Ok(json!({
                    "apiVersion": "kubelet.config.k8s.io/v1beta1",
                    "authentication": {"anonymous": {"enabled": false}, "x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}},
                    "clusterDNS": ["10.96.0.10"],
                    "registerWithTaints": [{"effect": "NoSchedule", "key": "a b"}, {}],
                    "readOnlyPort": 0, "cpuManagerReconcilePeriod": "0s", "featureGates": {},
                    "tlsCipherSuites": ["A", "B"], "url": "http://a#b",
                })),
            ),
            ("", Ok(Value::Null)),
            ("{\"a\": 1}", Ok(json!({"a": 1}))),
            ("a:\nb: x", Ok(json!({"a": null, "b": "x"}))),
            ("a: 'it''s'\n\"b c\": 010", Ok(json!({"a": "it's", "b c": "010"}))),
            ("a:\n  -\n    b: 1\n  - - 2", Ok(json!({"a": [{"b": 1}, [2]]}))),
            ("a: yes", Err("line 1: versions of YAML")),
            ("a: 1\na: 2", Err("line 2: its key is written twice")),
            ("a: &x 1", Err("line 1: anchors")),
            ("a: |\n  b", Err("line 1: anchors")),
            ("a:\n    b: 1\n  c: 2", Err("line 3: its indentation")),
            ("a: b\n  c", Err("line 2: its indentation")),
            ("a: b: c", Err("line 1: a mapping inside")),
            ("a: 1\n---\nb: 2", Err("line 2: tabs, directives")),
            ("a:\n\tb: 1", Err("line 2: tabs")),
            ("a", Err("line 1: it is no `key: value`")),
            ("a: {b: 1}", Err("line 1: a collection")),
            ("a: 'b", Err("line 1: an open quote")),
        ] {
            match (parse(text), expect) {
                (Ok(found), Ok(expect)) => assert_eq!(found, expect, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (found, expect) => panic!("{text}: {found:?}, expected {expect:?}"),
            }
        }
        let deep: String = (0..40).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        assert!(parse(&deep).unwrap_err().ends_with("nested too deeply"));
    }
}
