//! Programs that a manifest named and that were replaced before any round told of them.
//!
//! The host log holds a manifest's digest only, and the verifier reads the one manifest of each round: a program that was another one for
//! a moment between two rounds would stay unnamed. Establishes for the time of this process which contents those were; a hostd that was
//! restarted meanwhile does not know them.

use std::collections::BTreeSet;

use hostmark_attest::manifest::{EngineManifest, FileDigest, FileState};

/// Most pairs that are remembered: some hundred programs, in all the releases of a year without a reboot.
const KEPT_MAX: usize = 8192;

type Programs = BTreeSet<(String, FileDigest)>;

/// What rounds told of programs, and what they did not yet.
#[derive(Debug, Default)]
pub(super) struct Untold {
    waiting: Programs,
    sent: Programs,
    told: Programs,
}

impl Untold {
    /// Takes a new measurement. Gives the paths of which a content is gone that no round told.
    pub(super) fn measured(&mut self, manifest: &EngineManifest) -> BTreeSet<String> {
        let now = programs(manifest);
        let gone: Programs = self.waiting.difference(&now).cloned().collect();
        self.waiting = now.difference(&self.told).cloned().collect();
        gone.into_iter().map(|(path, _)| path).collect()
    }

    /// The last measurement goes to the verifier.
    pub(super) fn send(&mut self) {
        self.sent.clone_from(&self.waiting);
    }

    /// The verifier has judged what was sent.
    pub(super) fn answered(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        self.waiting.retain(|one| !sent.contains(one));
        if self.told.len().saturating_add(sent.len()) <= KEPT_MAX {
            self.told.extend(sent);
        }
    }
}

fn programs(manifest: &EngineManifest) -> Programs {
    let all = manifest.engines.values().flat_map(|engine| {
        let files = engine.binaries.iter().filter_map(|(path, state)| match state {
            FileState::File { sha256, .. } => Some((path.clone(), *sha256)),
            _ => None,
        });
        files.chain(engine.processes.iter().filter_map(|one| Some((one.exe.clone(), one.sha256?))))
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hostmark_attest::manifest::{EngineState, Mode};

    use super::*;

    fn with(digest: u8) -> EngineManifest {
        let file = FileState::File { sha256: FileDigest([digest; 32]), size: 1, mode: Mode(0o755), uid: 0, gid: 0 };
        let docker =
            EngineState { binaries: BTreeMap::from([("/usr/sbin/runc".to_owned(), file)]), ..EngineState::default() };
        EngineManifest { version: 1, root_is_default: true, engines: BTreeMap::from([("docker".to_owned(), docker)]) }
    }

    #[test]
    fn b18_a_program_between_two_rounds_is_not_forgotten() {
        // Digits are measurements, `!` is a round that the verifier answered, `?` one that it did not.
        for (story, expect) in [
            ("1!1!", 0),
            ("1!2!1!", 0),
            ("1!22!", 0),
            ("1!2!11!2!", 0),
            ("1!21!", 1),
            ("1!2?1!", 1),
            ("1!2?2!1!", 0),
            ("1!231!", 2),
            ("12!", 1),
        ] {
            let mut untold = Untold::default();
            let mut gone = 0usize;
            for step in story.chars() {
                match step {
                    '!' | '?' => {
                        untold.send();
                        if step == '!' {
                            untold.answered();
                        }
                    }
                    digit => {
                        let digest = digit.to_digit(10).and_then(|digit| u8::try_from(digit).ok()).unwrap();
                        gone = gone.saturating_add(untold.measured(&with(digest)).len());
                    }
                }
            }
            assert_eq!(gone, expect, "{story}");
        }
    }
}
