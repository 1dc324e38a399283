//! A Python package index: PyPI or a mirror of it, asked for one file's address by the simple API, in JSON (PEP 691) or
//! HTML (PEP 503).

use super::Wheel;
use crate::error::{Error, Result};
use std::time::Duration;

/// A page is read no further; NVIDIA's are under 100 KB.
const LARGEST_PAGE: u64 = 16 << 20;

/// An index, and what its user is let in with.
#[derive(Clone)]
pub struct Source {
    /// Its address without a name and password.
    url: String,
    /// The value of the Authorization header, sent to the index's own host alone.
    authorization: Option<String>,
    /// Where the address was written.
    named_by: &'static str,
    agent: ureq::Agent,
}

/// The names under which uv and pip know an index, the first that is set counts.
const VARIABLES: [&str; 3] = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"];

impl Source {
    /// The index that uv's and pip's environment variables name, else PyPI.
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<String>) -> Source {
        let named = VARIABLES
            .iter()
            .find_map(|name| Some((variable(name).filter(|url| !url.is_empty())?, *name)));
        let (url, named_by) = named.unwrap_or(("https://pypi.org/simple".into(), "PyPI"));
        // uv allows a name before the address: `mirror=https://...`.
        let url = match url.split_once("=http") {
            Some((name, rest)) if !name.contains('/') => format!("http{rest}"),
            _ => url,
        };
        Source::new(&url, named_by)
    }

    /// An index at an address; `named_by` says where it was written.
    pub fn new(url: &str, named_by: &'static str) -> Source {
        let url = url.trim().trim_end_matches('/');
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match host.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, host),
        };
        let authorization = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            format!("Basic {}", base64(&format!("{}:{}", decoded(name), decoded(password))))
        });
        // The machine's own certificates: behind a company's proxy no others are good.
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::PlatformVerifier)
            .build();
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            // A request that stalls ends here; the next goes on where it stopped.
            .timeout_recv_body(Some(Duration::from_secs(120)))
            .http_status_as_error(false)
            .tls_config(tls)
            .build()
            .new_agent();
        let slash = if path.is_empty() { "" } else { "/" };
        Source { url: format!("{scheme}://{host}{slash}{path}"), authorization, named_by, agent }
    }

    /// The index's address, without a password.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Asks for a part of a file, or all of it.
    pub(super) fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
    ) -> std::result::Result<ureq::http::Response<ureq::Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) =
            self.authorization.as_ref().filter(|_| origin(url) == origin(&self.url))
        {
            request = request.header("Authorization", authorization);
        }
        request.call()
    }

    /// An error about the network, with what to do without one.
    pub(super) fn unreachable(&self, url: &str, why: &str, wheel: &Wheel) -> Error {
        let shown = url.split(['?', '#']).next().unwrap_or(url);
        Error::machine(
            format!("{shown}: {why}"),
            format!(
                "the index is {} ({}); UV_INDEX_URL names a mirror. Without a network, put {} of the wheel {} where the loader finds it, or set PROSPECT_CUBLASLT to it; what was loaded so far is kept",
                self.url, self.named_by, wheel.library, wheel.file
            ),
        )
    }

    /// Where the index keeps the wheel's file.
    pub(super) fn address(&self, wheel: &Wheel) -> Result<String> {
        let page = format!("{}/{}/", self.url, wheel.project);
        let accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5, */*;q=0.1";
        let mut answer = self
            .get(&page, &[("Accept", accept)])
            .map_err(|error| self.unreachable(&page, &error.to_string(), wheel))?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(self.unreachable(&page, &format!("HTTP status {status}"), wheel));
        }
        let text = answer
            .body_mut()
            .with_config()
            .limit(LARGEST_PAGE)
            .read_to_string()
            .map_err(|error| self.unreachable(&page, &error.to_string(), wheel))?;
        let link = in_json(&text, &wheel.file).or_else(|| in_html(&text, &wheel.file));
        let link =
            link.ok_or_else(|| self.unreachable(&page, &format!("has no {}", wheel.file), wheel))?;
        Ok(joined(&page, link.split('#').next().unwrap_or_default()))
    }
}

fn in_json(page: &str, file: &str) -> Option<String> {
    let page: serde_json::Value = serde_json::from_str(page).ok()?;
    let files = page.get("files")?.as_array()?;
    let ours = files.iter().find(|f| f.get("filename").and_then(|n| n.as_str()) == Some(file))?;
    Some(ours.get("url")?.as_str()?.to_string())
}

/// `<a href="../../packages/x/name.whl#sha256=...">`
fn in_html(page: &str, file: &str) -> Option<String> {
    page.split("href=").skip(1).find_map(|rest| {
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let link = rest[1..].split(quote).next()?.replace("&amp;", "&");
        let name = link.split(['#', '?']).next()?.rsplit('/').next()?;
        (decoded(name) == file).then_some(link)
    })
}

/// Scheme and host.
fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    url[start..].find('/').map_or(url, |at| &url[..start + at])
}

/// A link as it is meant on a page (RFC 3986, as far as indexes use it).
fn joined(page: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_string();
    }
    if let Some(rest) = link.strip_prefix("//") {
        let scheme = page.split("://").next().unwrap_or("https");
        return format!("{scheme}://{rest}");
    }
    let origin = origin(page);
    if link.starts_with('/') {
        return format!("{origin}{link}");
    }
    let folder = page[origin.len()..].rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "." | "" => {}
            ".." => _ = parts.pop(),
            name => parts.push(name),
        }
    }
    format!("{origin}/{}", parts.join("/"))
}

/// Percent signs decoded; what is not UTF-8 then is left out.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// RFC 4648, section 4.
fn base64(text: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { letter as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_joined_to_their_page() {
        let page = "https://host:8/root/simple/nvidia-cublas/";
        for (link, whole) in [
            ("https://files/x.whl", "https://files/x.whl"),
            ("//files/x.whl", "https://files/x.whl"),
            ("/packages/x.whl", "https://host:8/packages/x.whl"),
            ("../../packages/x.whl", "https://host:8/root/packages/x.whl"),
            ("x.whl", "https://host:8/root/simple/nvidia-cublas/x.whl"),
        ] {
            assert_eq!(joined(page, link), whole);
        }
    }

    #[test]
    fn a_password_is_sent_and_never_shown() {
        let source = Source::new("https://anna:s%3Acret@mirror.example/simple/", "PIP_INDEX_URL");
        assert_eq!(source.url(), "https://mirror.example/simple");
        assert_eq!(source.authorization.as_deref(), Some("Basic YW5uYTpzOmNyZXQ="));
        assert_eq!((base64("a"), base64("ab")), ("YQ==".into(), "YWI=".into()));
    }

    #[test]
    fn the_first_variable_that_is_set_names_the_index() {
        let source = |set: &'static [(&str, &str)]| {
            let find =
                |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, url)| url.to_string());
            Source::from_environment(&find).url().to_string()
        };
        assert_eq!(source(&[]), "https://pypi.org/simple");
        assert_eq!(source(&[("PIP_INDEX_URL", "http://a/x/")]), "http://a/x");
        assert_eq!(
            source(&[("UV_DEFAULT_INDEX", "mine=https://b/simple"), ("PIP_INDEX_URL", "http://a")]),
            "https://b/simple"
        );
    }

    #[test]
    fn a_page_of_html_gives_the_link_too() {
        let page =
            "<a href='../x-1.whl#sha256=1'>x</a> <a data-y href=\"p/a%2Bb.whl?v=1&amp;w=2#z\">";
        assert_eq!(in_html(page, "a+b.whl").as_deref(), Some("p/a%2Bb.whl?v=1&w=2#z"));
        assert_eq!(in_html(page, "x-1.whl").as_deref(), Some("../x-1.whl#sha256=1"));
        assert_eq!(in_html("href=", "x"), None);
    }
}
