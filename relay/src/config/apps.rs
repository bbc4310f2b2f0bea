//! The apps of a configuration file: names, keys, and the files that keys are in.

use std::fs;
use std::path::PathBuf;

use parlor_transport::id::AppId;
use parlor_transport::token::keys::{Algorithm, KeyId, VerifyingKey};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::auth::App;

/// `[[apps]]`: one app.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppSection {
    name: String,
    keys: Vec<KeySection>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeySection {
    kid: Option<String>,
    algorithm: String,
    secret: Option<Secret>,
    secret_file: Option<PathBuf>,
    public_key_file: Option<PathBuf>,
}

/// A text that is shown nowhere, not even where it is wrong.
#[derive(Clone)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Secret(text)),
            _ => Err(D::Error::custom("a secret is a text in quotes")),
        }
    }
}

impl AppSection {
    /// The app, its keys read.
    ///
    /// # Errors
    /// What is wrong, in words that name the app and the key.
    pub(super) fn load(&self) -> Result<App, String> {
        let id = AppId::new(&self.name).map_err(|error| error.to_string())?;
        let load = |(at, key): (usize, &KeySection)| {
            let name = key.kid.clone().unwrap_or_else(|| format!("number {}", at + 1));
            key.load().map_err(|why| format!("app {id:?}, key {name}: {why}"))
        };
        let keys = self.keys.iter().enumerate().map(load).collect::<Result<_, _>>()?;
        App::with_keys(id.clone(), keys).map_err(|error| error.to_string())
    }
}

impl KeySection {
    fn load(&self) -> Result<VerifyingKey, String> {
        let algorithm: Algorithm = self.algorithm.parse().map_err(text)?;
        let id = self.kid.as_deref().map(str::parse::<KeyId>).transpose().map_err(text)?;
        let key = match (algorithm, &self.secret, &self.secret_file, &self.public_key_file) {
            (Algorithm::Hs256, Some(Secret(secret)), None, None) => VerifyingKey::from_secret(secret),
            (Algorithm::Hs256, None, Some(path), None) => VerifyingKey::from_secret(read(path)?.trim_end()),
            (Algorithm::Hs256, ..) => {
                return Err("HS256 wants one of secret and secret_file, nothing else".to_owned());
            }
            (_, None, None, Some(path)) => {
                let key = VerifyingKey::from_public_pem(algorithm, &read(path)?);
                return Ok(key.map_err(|error| format!("{}: {error}", path.display()))?.named(id));
            }
            _ => return Err(format!("{algorithm} wants public_key_file and nothing else")),
        };
        Ok(key.map_err(text)?.named(id))
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn read(path: &PathBuf) -> Result<String, String> {
    fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}; check the path", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(keys: &str) -> Result<App, String> {
        let section = format!("name = \"shop\"\nkeys = [{keys}]\n");
        toml::from_str::<AppSection>(&section).map_err(|error| error.to_string())?.load()
    }

    #[test]
    fn keys_are_read_or_it_is_said_what_is_wrong_but_never_the_secret() {
        let secret = "0123456789abcdef0123456789abcdef";
        let app = load(&format!("{{ kid = \"1\", algorithm = \"HS256\", secret = \"{secret}\" }}")).unwrap();
        assert!(!app.is_open() && !format!("{app:?}").contains("0123"));
        for (keys, why) in [
            ("{ algorithm = \"HS256\" }", "key number 1: HS256 wants one of secret and secret_file"),
            ("{ algorithm = \"EdDSA\", secret = \"x\" }", "EdDSA wants public_key_file and nothing else"),
            ("{ algorithm = \"HS256\", secret = \"hunter2\" }", "the secret has 7 bytes; give 32"),
            ("{ algorithm = \"HS256\", secret = 123456789 }", "a secret is a text in quotes"),
            ("{ kid = \"a b\", algorithm = \"HS256\", secret = \"x\" }", "a key id (kid) has"),
            ("{ algorithm = \"none\", secret = \"x\" }", "choose HS256, EdDSA or ES256"),
            (
                "{ kid = \"7\", algorithm = \"ES256\", public_key_file = \"/nowhere.pem\" }",
                "key 7: cannot read /nowhere.pem",
            ),
            ("", "app \"shop\" has no keys"),
        ] {
            let error = load(keys).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let error = load("{ algorithm = \"HS256\", secret = \"hunter2\" }").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
