//! systemd units as the manager would load them now: fragment, drop-ins in their order, and what remains of a few settings.
//!
//! systemd.unit(5), "Unit File Load Path" and the rules for `.d/` directories; systemd.service(5); systemd.exec(5).
//! Establishes which files define a unit and in which order. It asks no running manager, so a unit that was changed and
//! not reloaded shows its new state here and its old one in the daemon's arguments. Specifiers (`%E`) are not expanded, and
//! drop-ins under an alias name are not searched.

use std::collections::BTreeMap;

use hostmark_attest::manifest::{EngineState, LIST_MAX, UnitState};

use super::files::{Files, Found, bounded, join};

/// The load path of the system manager, strongest first. `/lib` and `/usr/lib` are one directory on merged-/usr systems.
const LOAD_PATH: [&str; 13] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

/// Measures a unit into `engine`. Units of which nothing exists are left out.
pub(crate) fn measure(files: &mut Files<'_>, name: &str, engine: &mut EngineState) {
    let mut unit = UnitState::default();
    let mut settings = Settings::default();
    for directory in LOAD_PATH {
        let path = join(directory, name);
        match files.read(&path, &mut engine.unit_files) {
            // A link that leads nowhere below this root still ends the search: it masks.
            Found::Missing if engine.unit_files.contains_key(&path) => {
                unit.fragment = Some(path);
                unit.masked = true;
                break;
            }
            Found::Missing => {}
            Found::File { path, content } => {
                unit.masked = content.as_ref().is_some_and(Vec::is_empty);
                settings.apply(&whole(files, &path, content));
                unit.fragment = Some(path);
                break;
            }
            Found::Directory { .. } | Found::Other => {
                unit.fragment = Some(path);
                unit.masked = true;
                break;
            }
        }
    }
    for path in drop_ins(files, name) {
        if let Found::File { path, content } = files.read(&path, &mut engine.unit_files) {
            settings.apply(&whole(files, &path, content));
            if unit.drop_ins.len() < LIST_MAX {
                unit.drop_ins.push(path);
            } else {
                settings.cut = true;
            }
        }
    }
    if settings.cut {
        files.unreadable(name, "it has more drop-ins or settings of one kind than are looked at");
    }
    if unit.fragment.is_none() && unit.drop_ins.is_empty() {
        return;
    }
    unit.exec_start = settings.exec_start;
    unit.environment = settings.environment;
    unit.environment_files = settings.environment_files;
    engine.units.insert(name.to_owned(), unit);
}

/// A file's text. One that is too large to be read says what nobody knows.
fn whole(files: &mut Files<'_>, path: &str, content: Option<Vec<u8>>) -> String {
    let Some(content) = content else {
        files.unreadable(path, "it is too large to be read");
        return String::new();
    };
    String::from_utf8_lossy(&content).into_owned()
}

/// Paths of the drop-ins in the order in which they apply: by file name, whatever the directory. For one file name the
/// unit's own directories win over its prefixes' and its type's, and then the load path's order. A link to /dev/null is
/// among them: it takes its name's place and has no content.
fn drop_ins(files: &mut Files<'_>, name: &str) -> Vec<String> {
    let mut by_name: BTreeMap<String, String> = BTreeMap::new();
    for owner in owners(name) {
        for directory in LOAD_PATH {
            let directory = format!("{directory}/{owner}.d");
            for file in files.list_all(&directory) {
                if file.ends_with(".conf") {
                    let path = join(&directory, &file);
                    by_name.entry(file).or_insert(path);
                }
            }
        }
    }
    by_name.into_values().collect()
}

/// `a-b.service`, `a-.service`, `service`: whose `.d` directories apply, strongest first.
fn owners(name: &str) -> Vec<String> {
    let Some((stem, kind)) = name.rsplit_once('.') else { return Vec::new() };
    let mut owners = vec![name.to_owned()];
    let dashes: Vec<usize> = stem.match_indices('-').map(|(at, _)| at).collect();
    for at in dashes.into_iter().rev() {
        if let Some(prefix) = stem.get(..=at).filter(|prefix| prefix.len() < stem.len()) {
            owners.push(format!("{prefix}.{kind}"));
        }
    }
    owners.push(kind.to_owned());
    owners
}

/// The list settings of `[Service]` that are followed. An empty assignment clears the list.
#[derive(Debug, Default, PartialEq, Eq)]
struct Settings {
    exec_start: Vec<String>,
    environment: Vec<String>,
    environment_files: Vec<String>,
    /// There were more.
    cut: bool,
}

impl Settings {
    fn apply(&mut self, text: &str) {
        let mut section = String::new();
        for line in logical_lines(text) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let list = match (section.as_str(), key.trim()) {
                ("Service", "ExecStart") => &mut self.exec_start,
                ("Service", "Environment") => &mut self.environment,
                ("Service", "EnvironmentFile") => &mut self.environment_files,
                _ => continue,
            };
            let value = value.trim();
            if value.is_empty() {
                list.clear();
            } else if list.len() < LIST_MAX {
                list.push(bounded(value));
            } else {
                self.cut = true;
            }
        }
    }
}

/// Lines with continuations joined by a space, comments and empty lines left out.
pub(crate) fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open: Option<String> = None;
    for raw in text.lines() {
        let trimmed = raw.trim();
        if trimmed.starts_with(['#', ';']) || (trimmed.is_empty() && open.is_none()) {
            continue;
        }
        let joined = match open.take() {
            Some(start) => format!("{start} {trimmed}"),
            None => trimmed.to_owned(),
        };
        match joined.strip_suffix('\\') {
            Some(start) => open = Some(start.trim_end().to_owned()),
            None => lines.push(joined),
        }
    }
    lines.extend(open);
    lines
}

/// Measures the environment files of a unit and returns the variables that it would pass on: `Environment=` first, then
/// the files in their order, as systemd.exec(5) has it.
pub(crate) fn environment(files: &mut Files<'_>, name: &str, engine: &mut EngineState) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let Some(unit) = engine.units.get(name).cloned() else { return variables };
    for assignment in unit.environment.iter().flat_map(|line| words(line)) {
        if let Some((key, value)) = assignment.split_once('=') {
            variables.insert(key.to_owned(), value.to_owned());
        }
    }
    for entry in &unit.environment_files {
        let path = entry.trim_start_matches('-');
        for path in glob(files, path) {
            match files.read(&path, &mut engine.environment_files) {
                Found::Missing if !entry.starts_with('-') => {
                    files.unreadable(&path, "the unit needs it, and it is absent")
                }
                found => {
                    for line in logical_lines(&found.text().unwrap_or_default()) {
                        if let Some((key, value)) = line.split_once('=') {
                            let value = words(value).join(" ");
                            variables.insert(key.trim().to_owned(), value);
                        }
                    }
                }
            }
        }
    }
    variables
}

/// The arguments that a unit's ExecStart would start its program with, variables expanded: `$NAME` alone into words,
/// `${NAME}` inside a word as it is.
pub(crate) fn arguments(unit: &UnitState, variables: &BTreeMap<String, String>) -> Vec<String> {
    let mut arguments = Vec::new();
    let line = unit.exec_start.last().map(String::as_str).unwrap_or_default();
    for word in words(line.trim_start_matches(['@', '-', ':', '+', '!'])) {
        match word.strip_prefix('$').filter(|name| !name.starts_with('{')) {
            Some(name) => arguments.extend(words(variables.get(name).map(String::as_str).unwrap_or_default())),
            None => {
                let mut word = word;
                for (name, value) in variables {
                    word = word.replace(&format!("${{{name}}}"), value);
                }
                arguments.push(word);
            }
        }
    }
    arguments
}

/// Splits at spaces outside quotes and removes the quotes.
pub(crate) fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote, mut inside) = (Vec::new(), String::new(), None, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                inside = true;
            }
            (open, '\\') if open != Some('\'') => {
                word.extend(chars.next());
                inside = true;
            }
            (None, c) if c.is_whitespace() => {
                if inside {
                    words.push(std::mem::take(&mut word));
                    inside = false;
                }
            }
            (_, c) => {
                word.push(c);
                inside = true;
            }
        }
    }
    if inside {
        words.push(word);
    }
    words
}

/// Paths that a pattern with `*` in its last component matches; the path itself when it has none.
pub(crate) fn glob(files: &mut Files<'_>, pattern: &str) -> Vec<String> {
    let Some((directory, last)) = pattern.rsplit_once('/') else { return vec![pattern.to_owned()] };
    if !last.contains(['*', '?', '[']) {
        return vec![pattern.to_owned()];
    }
    if directory.contains(['*', '?', '[']) || last.contains('[') {
        files.unreadable(pattern, "a pattern of this kind is not followed");
        return Vec::new();
    }
    files.list(directory).into_iter().filter(|name| matches(last, name)).map(|name| join(directory, &name)).collect()
}

/// Whether `*` and `?` make the pattern match the name. Time is bounded by the product of the lengths.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let mut reach = vec![false; name.len().saturating_add(1)];
    if let Some(first) = reach.first_mut() {
        *first = true;
    }
    for wanted in pattern {
        let mut next = vec![false; reach.len()];
        let mut any = false;
        for (at, slot) in next.iter_mut().enumerate() {
            let here = reach.get(at).copied().unwrap_or(false);
            let before = at.checked_sub(1);
            let came = before.and_then(|before| reach.get(before)).copied().unwrap_or(false);
            let same = before.and_then(|before| name.get(before)).is_some_and(|c| wanted == '?' || *c == wanted);
            *slot = if wanted == '*' {
                any |= here;
                any
            } else {
                came && same
            };
        }
        reach = next;
    }
    reach.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::super::files::DigestCache;
    use super::*;

    fn put(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn measured(root: &Path, name: &str) -> (EngineState, Vec<String>) {
        let mut cache = DigestCache::default();
        let mut files = Files::new(root, &mut cache);
        let mut engine = EngineState::default();
        measure(&mut files, name, &mut engine);
        let variables = environment(&mut files, name, &mut engine);
        let arguments = engine.units.get(name).map(|unit| arguments(unit, &variables)).unwrap_or_default();
        engine.unreadable = files.take_unreadable();
        (engine, arguments)
    }

    #[test]
    fn drop_ins_apply_by_file_name_and_the_stronger_directory_wins() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let start = |text: &str| format!("[Service]\nExecStart=\nExecStart={text}\n");
        put(root, "usr/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/bin/dockerd -H fd:// $OPTS\n");
        put(root, "usr/lib/systemd/system/docker.service.d/20-b.conf", &start("weak"));
        put(root, "etc/systemd/system/docker.service.d/20-b.conf", "[Service]\nEnvironmentFile=-/etc/default/docker\n");
        put(root, "run/systemd/system/docker.service.d/30-c.conf", "[Service]\nEnvironment=\"OPTS=--icc=false -D\"\n");
        put(root, "etc/systemd/system/service.d/10-all.conf", "[Service]\nEnvironment=ALL=1\n");
        put(root, "etc/systemd/system/service.d/30-c.conf", &start("masked by the unit's own 30-c"));
        put(root, "usr/lib/systemd/system/docker.service.d/40-d.conf", &start("masked"));
        symlink("/dev/null", root.join("etc/systemd/system/docker.service.d/40-d.conf")).unwrap();
        put(root, "etc/default/docker", "# comment\nOPTS=\"--debug --mtu 1400\"\n");

        let (engine, arguments) = measured(root, "docker.service");
        let unit = &engine.units["docker.service"];
        assert_eq!(unit.fragment.as_deref(), Some("/usr/lib/systemd/system/docker.service"));
        assert_eq!(
            unit.drop_ins,
            [
                "/etc/systemd/system/service.d/10-all.conf",
                "/etc/systemd/system/docker.service.d/20-b.conf",
                "/run/systemd/system/docker.service.d/30-c.conf",
            ]
        );
        assert_eq!(
            arguments,
            ["/usr/bin/dockerd", "-H", "fd://", "--debug", "--mtu", "1400"],
            "files beat Environment="
        );
        assert!(engine.environment_files.contains_key("/etc/default/docker"));
        assert!(engine.unreadable.is_empty());
    }

    #[test]
    fn a_stronger_fragment_hides_and_a_link_to_null_masks() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        put(root, "usr/lib/systemd/system/docker.service", "[Service]\nExecStart=/usr/bin/dockerd\n");
        put(root, "etc/systemd/system/docker.service", "[Service]\nExecStart=/opt/dockerd \\\n  -D\n");
        let (engine, arguments) = measured(root, "docker.service");
        assert_eq!(engine.units["docker.service"].fragment.as_deref(), Some("/etc/systemd/system/docker.service"));
        assert_eq!(arguments, ["/opt/dockerd", "-D"]);

        std::fs::remove_file(root.join("etc/systemd/system/docker.service")).unwrap();
        symlink("/dev/null", root.join("etc/systemd/system/docker.service")).unwrap();
        let (engine, _) = measured(root, "docker.service");
        assert!(engine.units["docker.service"].masked);
        assert!(engine.unit_files.contains_key("/etc/systemd/system/docker.service"));
        assert!(measured(root, "absent.service").0.units.is_empty());
    }

    #[test]
    fn an_environment_file_that_must_exist_and_does_not_is_named() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "lib/systemd/system/a.service", "[Service]\nExecStart=/a\nEnvironmentFile=/etc/needed\n");
        let (engine, _) = measured(dir.path(), "a.service");
        assert_eq!(engine.unreadable.first().unwrap().what, "/etc/needed");
    }

    #[test]
    fn prefixes_of_a_dashed_name_apply() {
        assert_eq!(owners("a-b-c.service"), ["a-b-c.service", "a-b-.service", "a-.service", "service"]);
        assert_eq!(words(r#"a "b c" 'd\e' f\ g"#), ["a", "b c", r"d\e", "f g"]);
        for (pattern, name, expect) in
            [("*.toml", "a.toml", true), ("*.toml", "a.tom", false), ("a*b?c", "aXXbYc", true), ("*", "", true)]
        {
            assert_eq!(matches(pattern, name), expect, "{pattern} {name}");
        }
    }
}
