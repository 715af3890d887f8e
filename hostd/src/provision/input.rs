//! What a machine is given to provision itself with: the verifier, its pin, a join token, in one file.
//!
//! SURFACE, `hostd provision --input`. A virtual machine finds it as a fw_cfg item of its QEMU, an installer writes it to a file; either
//! way an image needs no address of its own. It establishes nothing: whom hostd speaks to is decided by the pin, whom the verifier admits
//! by the token. The token is wiped here after its use; the copies in the TOML reader and in the HTTP body are freed unwiped.

use std::fmt;

use hostmark_attest::digest::sha256;
use hostmark_attest::policy::parse_toml;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::{ProvisionError, Provisioned, Request};
use crate::config::{Config, ConfigError, parse_pin};

/// What one call of `hostd provision` is asked for. No `Debug` shows the token.
pub struct Input {
    /// The verifier's address.
    pub verifier: String,
    /// SHA-256 of its CA certificate.
    pub ca_pin: [u8; 32],
    /// A join token; a pre-registered TPM needs none.
    pub token: Option<Zeroizing<String>>,
}

impl fmt::Debug for Input {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        out.debug_struct("Input").field("verifier", &self.verifier).field("token", &token).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    verifier: String,
    ca_pin: String,
    #[serde(default, deserialize_with = "secret")]
    token: Option<Zeroizing<String>>,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Zeroizing<String>>, D::Error> {
    String::deserialize(from).map(|text| Some(Zeroizing::new(text)))
}

impl Input {
    /// Parses the text of a file called `file`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with line and column; [`ConfigError::Value`].
    pub fn parse(file: &str, text: &str) -> Result<Self, ConfigError> {
        let read: File = parse_toml(file, text)?;
        let ca_pin = parse_pin("ca_pin", &read.ca_pin)?;
        if read.token.as_ref().is_some_and(|token| token.trim().is_empty()) {
            let problem = "it is empty; leave the key out where no join token is needed".to_owned();
            return Err(ConfigError::Value { key: "token", problem });
        }
        let token = read.token.map(|token| Zeroizing::new(token.trim().to_owned()));
        Ok(Self { verifier: read.verifier, ca_pin, token })
    }

    /// Holds the input against hostd.toml: where both name a verifier, it is the same.
    ///
    /// # Errors
    /// [`ConfigError::Value`] with both names.
    pub fn check_against(&self, config: &Config) -> Result<(), ConfigError> {
        if let Some(named) = &config.verifier
            && !same_address(named, &self.verifier)
        {
            let problem = format!(
                "hostd.toml names {named}, the input {}; take the verifier out of hostd.toml, or correct one of them",
                self.verifier
            );
            return Err(ConfigError::Value { key: "verifier", problem });
        }
        if let Some(named) = &config.ca_pin
            && parse_pin("ca_pin", named)? != self.ca_pin
        {
            let problem = format!(
                "hostd.toml pins {named}, the input {}; take the pin out of hostd.toml, or correct one of them",
                hex::encode(self.ca_pin)
            );
            return Err(ConfigError::Value { key: "ca_pin", problem });
        }
        Ok(())
    }
}

impl Provisioned {
    /// The digest by which the verifier's CA was recognised.
    #[must_use]
    pub fn ca_pin(&self) -> [u8; 32] {
        sha256(&[&self.ca.0])
    }

    /// Holds what is kept against what is asked for: a host changes its verifier by an order of its own only.
    ///
    /// # Errors
    /// [`ProvisionError::OtherVerifier`].
    pub fn check(&self, request: &Request<'_>) -> Result<(), ProvisionError> {
        if same_address(&self.verifier, request.verifier) && self.ca_pin() == request.ca_pin {
            return Ok(());
        }
        Err(ProvisionError::OtherVerifier {
            found: self.verifier.clone(),
            pin: hex::encode(self.ca_pin()),
            asked: format!("{} (CA {})", request.verifier, hex::encode(request.ca_pin)),
        })
    }
}

/// `https://v:1` and `https://v:1/` are one place.
pub(super) fn same_address(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "hmt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    fn pin(digits: &str) -> String {
        digits.repeat(32)
    }

    #[test]
    fn an_input_is_read_strictly_and_tells_no_token() {
        let good = format!("verifier = \"https://v:1\"\nca_pin = \"{}\"\ntoken = \"{TOKEN}\"\n", pin("ab"));
        let input = Input::parse("input", &good).unwrap();
        assert_eq!((input.verifier.as_str(), input.ca_pin), ("https://v:1", [0xAB; 32]));
        assert_eq!(input.token.as_ref().map(|token| token.as_str()), Some(TOKEN));
        assert!(!format!("{input:?}").contains(TOKEN));
        let without = good.lines().take(2).collect::<Vec<_>>().join("\n");
        assert!(Input::parse("input", &without).unwrap().token.is_none());

        let rows = [
            (good.replace("token", "tokens"), "input: line 3, column 1"),
            (good.replace("verifier", "url"), "input: line 1, column 1"),
            (good.lines().skip(1).collect::<Vec<_>>().join("\n"), "missing field `verifier`"),
            (good.replace("ab", "a"), "64 hex digits"),
            (good.replace(TOKEN, " "), "token: it is empty"),
            (good.replace(&format!("\"{TOKEN}\""), TOKEN), "input: line 3"),
            (good.replace(&format!("\"{TOKEN}\""), &format!("[\"{TOKEN}\"]")), "input: line 3"),
            (good.replace(&format!("\"{TOKEN}\""), &format!("\"{TOKEN}")), "input: line 3"),
            (format!("{good}\0\0"), "input: line 4"),
        ];
        for (text, expect) in rows {
            let error = Input::parse("input", &text).unwrap_err().to_string();
            assert!(error.contains(expect), "{expect}: {error}");
            assert!(!error.contains(TOKEN), "{error}");
        }
    }

    #[test]
    fn hostd_toml_may_repeat_the_input_and_not_contradict_it() {
        let input = Input::parse("input", &format!("verifier = \"https://v:1\"\nca_pin = \"{}\"", pin("ab"))).unwrap();
        let rows = [
            (None, None, ""),
            (Some("https://v:1/"), Some(pin("AB")), ""),
            (Some("https://w:1"), None, "hostd.toml names https://w:1, the input https://v:1;"),
            (None, Some(pin("cd")), "hostd.toml pins cd"),
        ];
        for (verifier, ca_pin, expect) in rows {
            let config = Config { verifier: verifier.map(str::to_owned), ca_pin, ..Config::default() };
            let told = input.check_against(&config).map_or_else(|error| error.to_string(), |()| String::new());
            assert!(if expect.is_empty() { told.is_empty() } else { told.contains(expect) }, "{expect}: {told}");
        }
    }
}
