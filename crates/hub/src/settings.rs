//! Where the cache is, whom to ask and how: the environment variables of huggingface_hub.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// A token of the hub. It is shown to no one but the hub.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A token as it was written, without the line's end; an error does not repeat it.
    pub fn new(text: &str, from: &str) -> Result<Option<Token>> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::input(
                format!("the token in {from} holds characters that no token has"),
                "copy it again from https://huggingface.co/settings/tokens",
            ));
        }
        Ok(Some(Token(text.to_owned())))
    }

    /// The header that carries it.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// How long is waited for an answer, and how often is asked again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, an answer's head, or the next byte.
    pub silence: Duration,
    /// Attempts in a row that bring nothing.
    pub attempts: u32,
    /// The first pause; each is twice the one before.
    pub pause: Duration,
    /// The longest pause that a server may ask for.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            silence: Duration::from_secs(30),
            attempts: 5,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(300),
        }
    }
}

/// The settings of a [`crate::Hub`].
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cache's folder.
    pub cache: PathBuf,
    /// The hub's address, without a slash at its end.
    pub endpoint: String,
    /// Who asks.
    pub token: Option<Token>,
    /// Nothing is asked of any server.
    pub offline: bool,
    /// How long is waited.
    pub patience: Patience,
}

impl Settings {
    /// The settings of this process's environment.
    pub fn of_environment() -> Result<Settings> {
        Settings::of(&|name| std::env::var(name).ok())
    }

    /// The settings of an environment: `HF_HUB_CACHE`, `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`,
    /// `HF_HUB_OFFLINE`, and the older names that huggingface_hub still reads.
    pub fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Settings> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let user = set("HOME").map(PathBuf::from);
        let path = |text: String| match (text.strip_prefix("~/"), &user) {
            (Some(rest), Some(user)) => user.join(rest),
            _ => PathBuf::from(text),
        };
        let home = match (set("HF_HOME"), set("XDG_CACHE_HOME"), &user) {
            (Some(home), _, _) => path(home),
            (None, Some(cache), _) => path(cache).join("huggingface"),
            (None, None, Some(user)) => user.join(".cache/huggingface"),
            (None, None, None) => {
                return Err(Error::input(
                    "there is no place for the hub's cache: neither HF_HOME nor HOME is set",
                    "set HF_HOME to a folder",
                ));
            }
        };
        let cache = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"].iter().find_map(|name| set(name));
        let yes = |name: &str| {
            let value = set(name).map(|value| value.to_uppercase());
            value.is_some_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.as_str()))
        };
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
            return Err(Error::input(
                "HF_ENDPOINT is no address that begins with https:// or http://",
                "unset it to ask https://huggingface.co",
            ));
        }
        Ok(Settings {
            cache: cache.map_or_else(|| home.join("hub"), path),
            endpoint,
            token: if yes("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
                None
            } else {
                let file = set("HF_TOKEN_PATH").map_or_else(|| home.join("token"), path);
                token(&set, &file)?
            },
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
            patience: Patience::default(),
        })
    }
}

/// The token of the environment, or of the file that `hf auth login` writes.
fn token(set: &dyn Fn(&str) -> Option<String>, file: &Path) -> Result<Option<Token>> {
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(text) = set(name)
            && let Some(token) = Token::new(&text, name)?
        {
            return Ok(Some(token));
        }
    }
    match std::fs::read_to_string(file) {
        Ok(text) => Token::new(&text, &format!("'{}'", file.display())),
        Err(_) => Ok(None), // nobody is logged in
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Result<Settings> {
        Settings::of(&|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_cache_is_where_huggingface_hub_has_it() {
        let cache = |variables: &[(&str, &str)]| settings(variables).unwrap().cache;
        assert_eq!(cache(&[("HOME", "/u")]), Path::new("/u/.cache/huggingface/hub"));
        assert_eq!(
            cache(&[("HOME", "/u"), ("XDG_CACHE_HOME", "/x")]),
            Path::new("/x/huggingface/hub")
        );
        assert_eq!(cache(&[("HOME", "/u"), ("HF_HOME", "~/h")]), Path::new("/u/h/hub"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), Path::new("/c"));
        assert_eq!(cache(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/c")]), Path::new("/c"));
        assert!(settings(&[]).is_err());
    }

    #[test]
    fn a_token_is_found_and_never_shown() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().to_str().unwrap();
        assert!(settings(&[("HF_HOME", folder)]).unwrap().token.is_none());
        std::fs::write(home.path().join("token"), "hf_fromfile\n").unwrap();
        let header =
            |variables: &[(&str, &str)]| settings(variables).unwrap().token.unwrap().header();
        assert_eq!(header(&[("HF_HOME", folder)]), "Bearer hf_fromfile");
        assert_eq!(header(&[("HF_HOME", folder), ("HF_TOKEN", " hf_x ")]), "Bearer hf_x");
        let shown = format!("{:?}", settings(&[("HF_HOME", folder)]).unwrap());
        assert!(shown.contains("hidden") && !shown.contains("hf_"), "{shown}");
        let error = settings(&[("HF_HOME", folder), ("HF_TOKEN", "hf_\u{e9}secret")]).unwrap_err();
        assert!(!error.to_string().contains("secret"), "{error}");
        let silent = [("HF_HOME", folder), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert!(settings(&silent).unwrap().token.is_none());
    }

    #[test]
    fn offline_is_said_in_many_words() {
        for (value, offline) in
            [("1", true), ("yes", true), ("TRUE", true), ("0", false), ("", false)]
        {
            let found = settings(&[("HF_HOME", "/h"), ("HF_HUB_OFFLINE", value)]).unwrap();
            assert_eq!(found.offline, offline, "{value}");
        }
        assert!(settings(&[("HF_HOME", "/h"), ("HF_ENDPOINT", "ftp://x")]).is_err());
    }
}
