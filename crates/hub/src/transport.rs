//! Requests to the hub: redirects followed by hand, so that the token goes to the hub's own origin alone, and patience
//! with servers that are busy, silent or cut off.

use std::thread;
use std::time::Duration;

use ureq::http::{HeaderMap, Uri};
use ureq::{Agent, Body};

use crate::error::{Error, Result};
use crate::fetch::Event;
use crate::repository::Repository;
use crate::settings::{Patience, Settings};

/// Hops of one request.
const MOST_REDIRECTS: usize = 6;

/// Why an attempt came to nothing.
pub(crate) struct Failure {
    /// What to say if it is the last.
    pub(crate) error: Error,
    /// Whether another attempt may do better.
    pub(crate) passing: bool,
    /// The pause that the server asks for.
    pub(crate) after: Option<Duration>,
}

impl Failure {
    pub(crate) fn last(error: Error) -> Failure {
        Failure { error, passing: false, after: None }
    }

    pub(crate) fn passing(error: Error) -> Failure {
        Failure { error, passing: true, after: None }
    }
}

/// An answer with a body: 200, 206, or 416.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Scheme, host and port.
#[derive(PartialEq)]
struct Origin(String, String, u16);

/// Asks the hub.
pub(crate) struct Transport<'a> {
    agent: Agent,
    settings: &'a Settings,
    home: Origin,
}

impl<'a> Transport<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Result<Transport<'a>> {
        let uri = settings.endpoint.parse::<Uri>().ok();
        let Some(home) = uri.as_ref().and_then(origin) else {
            return Err(Error::input(
                "HF_ENDPOINT is no address of a server",
                "unset it to ask https://huggingface.co",
            ));
        };
        // The machine's own certificates: behind a company's proxy no others are good.
        let tls = ureq::tls::TlsConfig::builder()
            .root_certs(ureq::tls::RootCerts::PlatformVerifier)
            .build();
        let silence = Some(settings.patience.silence);
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(silence)
            .timeout_connect(silence)
            .timeout_recv_response(silence)
            .timeout_per_read(silence)
            .user_agent(concat!("prospect/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls)
            .build()
            .new_agent();
        Ok(Transport { agent, settings, home })
    }

    pub(crate) fn patience(&self) -> Patience {
        self.settings.patience
    }

    /// One attempt to get an address of the hub, from byte `from` on.
    pub(crate) fn get(
        &self,
        repository: &Repository,
        url: &str,
        from: u64,
    ) -> std::result::Result<Answer, Failure> {
        let mut url = url.to_owned();
        for _ in 0..MOST_REDIRECTS {
            let Some((uri, at)) = url.parse::<Uri>().ok().and_then(|uri| {
                let origin = origin(&uri)?;
                Some((uri, origin))
            }) else {
                return Err(Failure::last(Error::machine(
                    format!("an address that '{repository}' is fetched from is none"),
                    "if HF_ENDPOINT is set, check that it is a hub",
                )));
            };
            let mut request = self.agent.get(uri.clone()).header("accept-encoding", "identity");
            if let Some(token) = self.settings.token.as_ref().filter(|_| at == self.home) {
                request = request.header("authorization", token.header());
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let answer = request.call().map_err(|error| unanswered(&uri, &error))?;
            let status = answer.status().as_u16();
            let (head, body) = answer.into_parts();
            let answer = Answer { status, headers: head.headers, body };
            match status {
                200 | 206 | 416 => return Ok(answer),
                301 | 302 | 303 | 307 | 308 => {
                    url = answer.header("location").and_then(|to| next(&uri, to)).ok_or_else(
                        || {
                            Failure::last(Error::machine(
                                format!(
                                    "{} redirects to no address that can be followed",
                                    shown(&uri)
                                ),
                                "if HF_ENDPOINT is set, check that it is a hub",
                            ))
                        },
                    )?;
                }
                _ => return Err(self.refused(repository, &uri, at == self.home, &answer)),
            }
        }
        Err(Failure::last(Error::machine(
            format!("'{repository}' is redirected more than {MOST_REDIRECTS} times"),
            "if HF_ENDPOINT is set, check that it is a hub",
        )))
    }

    /// What an answer that is none means.
    fn refused(&self, repository: &Repository, uri: &Uri, home: bool, answer: &Answer) -> Failure {
        let (code, place) = (answer.header("x-error-code"), shown(uri));
        let gated = code == Some("GatedRepo");
        let page = format!(
            "https://huggingface.co/{}",
            repository.to_string().split('@').next().unwrap_or("")
        );
        match answer.status {
            status @ (408 | 429 | 500..=599) => Failure {
                error: Error::unreachable(
                    format!(
                        "{place} answers {status}: it is {}",
                        if status == 429 { "asked too often" } else { "out of order" }
                    ),
                    "try again later; what came so far is kept and gone on with",
                ),
                passing: true,
                after: answer
                    .header("retry-after")
                    .and_then(|text| text.trim().parse().ok())
                    .map(Duration::from_secs),
            },
            // A signed address that has run out: the hub gives a new one.
            401 | 403 if !home => Failure::passing(Error::machine(
                format!("{place} answers {}", answer.status),
                "try again; the address that the hub gave may have run out",
            )),
            401 | 403 if gated => Failure::last(Error::input(
                format!("'{repository}' is gated: its owner asks for conditions to be accepted"),
                format!("accept them on {page}, then set HF_TOKEN to a token of that account"),
            )),
            401 if self.settings.token.is_none() => Failure::last(Error::input(
                format!("'{repository}' does not exist, or is private"),
                "check the name; for a private or gated one set HF_TOKEN, or log in with `hf auth login`",
            )),
            401 => Failure::last(Error::input(
                format!("'{repository}' does not exist, or the token is not one that may read it"),
                "check the name, and the token on https://huggingface.co/settings/tokens",
            )),
            403 => Failure::last(Error::input(
                format!("the hub refuses '{repository}' to this token"),
                format!("give the token the right to read it, or accept the conditions on {page}"),
            )),
            404 if code == Some("RevisionNotFound") => Failure::last(Error::input(
                format!("'{}' has no revision '{}'", repository.id, repository.revision),
                "a revision is a branch, a tag or a commit of 40 digits",
            )),
            404 => Failure::last(Error::input(
                format!("the hub has no '{repository}'"),
                "check the name; it has the form owner/name or owner/name@revision",
            )),
            status => Failure::last(Error::machine(
                format!("{place} answers {status}"),
                "if HF_ENDPOINT is set, check that it is a hub",
            )),
        }
    }
}

/// Counts attempts in a row that brought nothing.
pub(crate) struct Tries {
    patience: Patience,
    failed: u32,
}

impl Tries {
    pub(crate) fn new(patience: Patience) -> Tries {
        Tries { patience, failed: 0 }
    }

    /// Something came: the count begins anew.
    pub(crate) fn progressed(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next attempt, or gives up.
    pub(crate) fn wait(
        &mut self,
        failure: Failure,
        events: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        self.failed += 1;
        if !failure.passing || self.failed >= self.patience.attempts {
            return Err(failure.error);
        }
        let pause = failure.after.unwrap_or(self.patience.pause * (1 << (self.failed - 1).min(16)));
        let pause = pause.min(self.patience.longest_pause);
        events(Event::Pause { why: &failure.error.message, pause });
        thread::sleep(pause);
        Ok(())
    }
}

fn origin(uri: &Uri) -> Option<Origin> {
    let scheme = uri.scheme_str()?.to_lowercase();
    let port = match (uri.port_u16(), scheme.as_str()) {
        (Some(port), "http" | "https") => port,
        (None, "https") => 443,
        (None, "http") => 80,
        _ => return None,
    };
    Some(Origin(scheme, uri.host()?.to_lowercase(), port))
}

/// Where a redirect leads: another address, or another path of the same server. Never from https to http.
fn next(from: &Uri, to: &str) -> Option<String> {
    if to.starts_with('/') && !to.starts_with("//") {
        return Some(format!("{}://{}{to}", from.scheme_str()?, from.authority()?));
    }
    let uri: Uri = to.parse().ok()?;
    let Origin(scheme, ..) = origin(&uri)?;
    (scheme == "https" || from.scheme_str() == Some("http")).then(|| to.to_owned())
}

/// An address for messages: neither its query, which may be signed, nor a user.
fn shown(uri: &Uri) -> String {
    let port = uri.port_u16().map_or(String::new(), |port| format!(":{port}"));
    let (scheme, host) = (uri.scheme_str().unwrap_or("?"), uri.host().unwrap_or("?"));
    format!("{scheme}://{host}{port}{}", uri.path())
}

/// No answer at all.
fn unanswered(uri: &Uri, error: &ureq::Error) -> Failure {
    let why = match error {
        ureq::Error::Timeout(_) => "it is silent".to_owned(),
        ureq::Error::HostNotFound => "no such server is known".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::BadUri(_) => "it is no address".to_owned(),
        other => other.to_string(),
    };
    Failure::passing(Error::unreachable(
        format!("cannot reach {}: {why}", shown(uri)),
        "check the network (and HTTPS_PROXY, where one is needed); HF_HUB_OFFLINE=1 asks nobody and takes what is in the cache",
    ))
}

/// Percent-encodes what an address does not take as it is.
pub(crate) fn encoded(text: &str, keep: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-_.~".contains(c) || keep.contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
