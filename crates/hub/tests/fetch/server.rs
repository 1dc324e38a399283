//! A hub on this machine that misbehaves as told: plain sockets, one request to a connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha2::Digest;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Path and query.
    pub(crate) path: String,
    /// The first byte of `range`.
    pub(crate) from: Option<usize>,
    /// The header `authorization`.
    pub(crate) authorization: Option<String>,
    /// How often this path was asked for before.
    pub(crate) before: usize,
}

/// What is answered.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Bytes of the body that are sent before the connection ends.
    pub(crate) sent: usize,
    /// Waits so long before each of ten parts of the body.
    pub(crate) slow: Duration,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Reply {
        let body = body.into();
        let sent = body.len();
        Reply { status, headers: Vec::new(), body, sent, slow: Duration::ZERO }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        self.headers.push((name, value.into()));
        self
    }

    /// The rest of `body` that a request asks for.
    pub(crate) fn part(request: &Request, body: &[u8]) -> Reply {
        match request.from {
            None => Reply::new(200, body),
            Some(from) if from >= body.len() => Reply::new(416, ""),
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
                Reply::new(206, &body[from..]).with("content-range", range)
            }
        }
    }
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

/// A running server; its thread ends with the process.
pub(crate) struct Server {
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer): (_, Arc<Answer>) = (asked.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Server { address, asked }
    }

    /// All requests so far.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &Answer) -> Option<()> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    for line in lines {
        let line = line.ok()?;
        match line.split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let from = headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let request = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|asked| asked.path == path).count();
        let authorization = headers.get("authorization").cloned();
        let request = Request { path, from, authorization, before };
        log.push(request.clone());
        request
    };
    let reply = answer(&request);
    let mut stream = stream;
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| *name == "content-length") {
        head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    let body = &reply.body[..reply.sent.min(reply.body.len())];
    for part in body.chunks((body.len() / 10).max(1)) {
        thread::sleep(reply.slow);
        stream.write_all(part).ok()?;
    }
    stream.flush().ok()
}

/// A file of a repository.
pub(crate) struct Blob {
    pub(crate) path: &'static str,
    pub(crate) body: Vec<u8>,
    /// Large files have a sha256, small ones git's hash.
    pub(crate) large: bool,
}

impl Blob {
    pub(crate) fn small(path: &'static str, body: &str) -> Blob {
        Blob { path, body: body.into(), large: false }
    }

    pub(crate) fn large(path: &'static str, bytes: usize) -> Blob {
        Blob { path, body: (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect(), large: true }
    }

    pub(crate) fn hash(&self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        if self.large {
            hex(&sha2::Sha256::digest(&self.body))
        } else {
            let mut sha1 = sha1::Sha1::new();
            sha1.update(format!("blob {}\0", self.body.len()));
            sha1.update(&self.body);
            hex(&sha1.finalize())
        }
    }
}

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The hub's list of a commit.
pub(crate) fn listing(blobs: &[Blob]) -> String {
    let siblings: Vec<serde_json::Value> = blobs
        .iter()
        .map(|blob| {
            let (size, hash) = (blob.body.len(), blob.hash());
            match blob.large {
                true => serde_json::json!({"rfilename": blob.path, "size": size, "blobId": "0".repeat(40),
                    "lfs": {"sha256": hash, "size": size, "pointerSize": 134}}),
                false => serde_json::json!({"rfilename": blob.path, "size": size, "blobId": hash}),
            }
        })
        .collect();
    serde_json::json!({"id": "a/b", "sha": COMMIT, "siblings": siblings}).to_string()
}

/// What a well-behaved hub answers about `a/b`.
pub(crate) fn well(request: &Request, blobs: &[Blob]) -> Reply {
    let path = request.path.split('?').next().unwrap();
    for prefix in ["/api/models/a/b/revision/", "/api/datasets/a/b/revision/"] {
        if path.starts_with(prefix) {
            return Reply::new(200, listing(blobs));
        }
    }
    let file = path.split_once(&format!("/resolve/{COMMIT}/")).map(|(_, file)| file);
    match blobs.iter().find(|blob| Some(blob.path) == file) {
        Some(blob) => Reply::part(request, &blob.body),
        None => Reply::new(404, "").with("x-error-code", "EntryNotFound"),
    }
}
