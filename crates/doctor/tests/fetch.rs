//! `--fetch` against servers that behave and servers that do not. Each is a thread that speaks just enough HTTP.

use doctor::fetch::{Source, Wheel, fetch};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const LIBRARY: &str = "libcublasLt.so.13";

/// What a request asked for.
#[derive(Clone, Debug, Default)]
struct Asked {
    path: String,
    /// First byte of the Range header.
    from: Option<u64>,
    authorization: Option<String>,
}

/// A server that answers by a function of the request and its number.
struct Server {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Answer = dyn Fn(&Asked, usize, &mut TcpStream) + Send + Sync;

impl Server {
    fn new(answer: Box<Answer>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, number) = (asked.clone(), AtomicUsize::new(0));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let Some(request) = read(&mut stream) else { continue };
                log.lock().expect("the log").push(request.clone());
                answer(&request, number.fetch_add(1, Ordering::SeqCst), &mut stream);
            }
        });
        Server { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the log").clone()
    }
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_string();
    let mut asked = Asked { path, ..Asked::default() };
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        match name.to_lowercase().as_str() {
            "range" => {
                let from = value.strip_prefix("bytes=").and_then(|v| v.strip_suffix('-'));
                asked.from = from.and_then(|v| v.parse().ok());
            }
            "authorization" => asked.authorization = Some(value.to_string()),
            _ => {}
        }
    }
    Some(asked)
}

fn send(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    );
    // A client that hangs up is what some of these tests are about.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// The page of the project, in JSON or HTML, and the file with ranges.
fn good(json: bool, file: Vec<u8>) -> Box<Answer> {
    Box::new(move |asked, _, stream| serve(asked, json, &file, stream))
}

fn serve(asked: &Asked, json: bool, file: &[u8], stream: &mut TcpStream) {
    if asked.path.starts_with("/simple/") {
        let page = match json {
            true => {
                r#"{"files": [{"filename": "x-1.whl", "url": "../../files/x-1.whl"}]}"#.to_string()
            }
            false => "<html><a href=\"/files/x-1.whl#sha256=0\">x-1.whl</a></html>".to_string(),
        };
        return send(stream, "200 OK", "Content-Type: text/html\r\n", page.as_bytes());
    }
    match asked.from.map(|from| from as usize).filter(|from| *from <= file.len()) {
        Some(from) => {
            let range =
                format!("Content-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len());
            send(stream, "206 Partial Content", &range, &file[from..]);
        }
        None => send(stream, "200 OK", "", file),
    }
}

/// A ZIP archive: each file stored or deflated.
fn archive(files: &[(&str, &[u8], bool)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content, deflated) in files {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let packed = match deflated {
            true => {
                let mut encoder =
                    flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).expect("memory");
                encoder.finish().expect("memory")
            }
            false => content.to_vec(),
        };
        let at = out.len() as u32;
        let method: u16 = if *deflated { 8 } else { 0 };
        let mut common = Vec::new();
        common.extend([20u8, 0, 0, 0]);
        common.extend(method.to_le_bytes());
        common.extend([0u8; 4]);
        common.extend(crc.sum().to_le_bytes());
        common.extend((packed.len() as u32).to_le_bytes());
        common.extend((content.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0u8; 2]);
        out.extend(b"PK\x03\x04");
        out.extend(&common);
        out.extend(name.as_bytes());
        out.extend(&packed);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0u8; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([files.len() as u8, 0, files.len() as u8, 0]);
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend([0u8; 2]);
    out
}

/// A megabyte that does not repeat.
fn content() -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..1 << 20).map(next).collect()
}

fn wheel_bytes() -> Vec<u8> {
    archive(&[
        ("nvidia/cu13/lib/libcublas.so.13", b"another library", false),
        ("nvidia/cu13/lib/libcublasLt.so.13", &content(), true),
        ("nvidia_cublas-1.dist-info/License.txt", b"the license", false),
    ])
}

fn wheel(bytes: &[u8]) -> Wheel {
    Wheel {
        project: "x".into(),
        version: "1".into(),
        file: "x-1.whl".into(),
        sha256: Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect(),
        bytes: bytes.len() as u64,
        library: LIBRARY.into(),
        unpacked: 1 << 20,
    }
}

/// Fetches from a server into an empty folder; the error as text.
fn run(server: &Server, wheel: &Wheel) -> (tempfile::TempDir, Result<(), String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let result = again(server, wheel, &folder);
    (folder, result)
}

fn again(server: &Server, wheel: &Wheel, folder: &tempfile::TempDir) -> Result<(), String> {
    let source = Source::new(&format!("{}/simple/", server.address), "a test");
    let fetched = fetch(wheel, &folder.path().join("lib"), &source, &mut |_, _| true);
    fetched.map(|_| ()).map_err(|error| error.to_string())
}

fn library(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("lib").join(LIBRARY)
}

/// Nothing but what is to be resumed is left of a failure.
fn nothing_under_its_name(folder: &tempfile::TempDir) {
    let names: Vec<String> = fs::read_dir(folder.path().join("lib"))
        .map(|all| all.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    assert!(names.iter().all(|name| name.starts_with('.')), "{names:?}");
}

#[test]
fn the_library_and_its_license_come_out_of_the_wheel() {
    for json in [true, false] {
        let bytes = wheel_bytes();
        let server = Server::new(good(json, bytes.clone()));
        let (folder, result) = run(&server, &wheel(&bytes));
        result.expect("a good server");
        assert_eq!(fs::read(library(&folder)).expect("it is there"), content());
        let license = fs::read_to_string(folder.path().join("lib/LICENSE-x.txt"));
        assert_eq!(license.expect("it is there"), "the license");
        let names = fs::read_dir(folder.path().join("lib")).expect("a folder").count();
        assert_eq!(names, 2, "the wheel itself is gone");
        let before = server.asked().len();
        again(&server, &wheel(&bytes), &folder).expect("it is there already");
        assert_eq!(server.asked().len(), before, "nothing is asked of the network then");
    }
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let bytes = wheel_bytes();
    let file = bytes.clone();
    let server = Server::new(Box::new(move |asked, number, stream| {
        // Every answer ends 200,000 bytes on, though it announced all of it.
        if asked.path.starts_with("/simple/") || number > 40 {
            return serve(asked, true, &file, stream);
        }
        let from = asked.from.unwrap_or(0) as usize;
        let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{}\r\n\r\n",
            file.len() - from,
            file.len() - 1,
            file.len()
        );
        let part = &file[from..file.len().min(from + 200_000)];
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(part));
    }));
    let (folder, result) = run(&server, &wheel(&bytes));
    result.expect("it goes on");
    assert_eq!(fs::read(library(&folder)).expect("it is there"), content());
    let from: Vec<u64> = server.asked().iter().filter_map(|asked| asked.from).collect();
    assert!(from.len() >= 4 && from.is_sorted(), "{from:?}");
}

#[test]
fn what_was_stopped_goes_on_in_the_next_call() {
    let bytes = wheel_bytes();
    let server = Server::new(good(true, bytes.clone()));
    let folder = tempfile::tempdir().expect("a folder");
    let source = Source::new(&format!("{}/simple", server.address), "a test");
    let into = folder.path().join("lib");
    let stopped = fetch(&wheel(&bytes), &into, &source, &mut |have, _| have < 300_000);
    let text = stopped.expect_err("it was stopped").to_string();
    assert!(text.contains("goes on from there"), "{text}");
    nothing_under_its_name(&folder);
    again(&server, &wheel(&bytes), &folder).expect("it goes on");
    assert_eq!(fs::read(library(&folder)).expect("it is there"), content());
    let last = server.asked().last().and_then(|asked| asked.from);
    assert!(last.is_some_and(|from| from >= 300_000), "{last:?}");
}

#[test]
fn a_server_without_ranges_starts_anew() {
    let bytes = wheel_bytes();
    let file = bytes.clone();
    let server = Server::new(Box::new(move |asked, _, stream| {
        serve(&Asked { from: None, ..asked.clone() }, true, &file, stream);
    }));
    let folder = tempfile::tempdir().expect("a folder");
    let into = folder.path().join("lib");
    fs::create_dir_all(&into).expect("a folder");
    fs::write(into.join(".x-1.whl.part"), b"the start of something else").expect("a part");
    again(&server, &wheel(&bytes), &folder).expect("from the start");
    assert_eq!(fs::read(library(&folder)).expect("it is there"), content());
}

#[test]
fn what_is_not_the_pinned_file_never_gets_its_name() {
    let bytes = wheel_bytes();
    let other: Vec<u8> = bytes.iter().map(|b| b ^ 1).collect();
    let longer = [bytes.clone(), vec![0; 1000]].concat();
    let flipped = {
        let mut flipped = bytes.clone();
        flipped[5000] ^= 1;
        flipped
    };
    for (served, says) in [(other, "SHA-256"), (flipped, "SHA-256"), (longer, "more than the")] {
        let server = Server::new(good(true, served));
        let (folder, result) = run(&server, &wheel(&bytes));
        let text = result.expect_err("another file");
        assert!(text.contains(says) && text.contains("hint:"), "{text}");
        nothing_under_its_name(&folder);
        // And nothing of it is taken for the start of the right one.
        let right = Server::new(good(true, bytes.clone()));
        again(&right, &wheel(&bytes), &folder).expect("from a good server");
        assert_eq!(fs::read(library(&folder)).expect("it is there"), content());
    }
}

#[test]
fn refusals_and_dead_networks_say_what_to_do() {
    let bytes = wheel_bytes();
    let status = |status: &'static str| -> Box<Answer> {
        Box::new(move |_, _, stream| send(stream, status, "", b"no"))
    };
    let file_status = |status: &'static str| -> Box<Answer> {
        Box::new(move |asked, _, stream| match asked.path.starts_with("/simple/") {
            true => serve(asked, true, &[], stream),
            false => send(stream, status, "", b"no"),
        })
    };
    let garbage = |text: &'static [u8]| -> Box<Answer> {
        Box::new(move |_, _, stream| _ = stream.write_all(text))
    };
    for (answer, says) in [
        (status("404 Not Found"), "HTTP status 404"),
        (status("401 Unauthorized"), "HTTP status 401"),
        (status("200 OK"), "has no x-1.whl"),
        (file_status("403 Forbidden"), "HTTP status 403"),
        (file_status("503 Busy"), "HTTP status 503"),
        (garbage(b"SSH-2.0-OpenSSH\r\n\r\n"), "hint:"),
        (garbage(b""), "hint:"),
    ] {
        let server = Server::new(answer);
        let (folder, result) = run(&server, &wheel(&bytes));
        let text = result.expect_err("there is nothing to be had");
        assert!(text.contains(says), "no '{says}' in {text}");
        assert!(text.contains("UV_INDEX_URL") && text.contains("PROSPECT_CUBLASLT"), "{text}");
        nothing_under_its_name(&folder);
    }
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("an address"))
    };
    let server = Server { address: closed, asked: Arc::default() };
    let text = run(&server, &wheel(&bytes)).1.expect_err("nobody listens");
    assert!(text.contains("hint:") && text.contains("(a test)"), "{text}");
}

#[test]
fn a_password_goes_to_its_index_alone() {
    let bytes = wheel_bytes();
    let files = Server::new(good(true, bytes.clone()));
    let elsewhere = files.address.clone();
    let index = Server::new(Box::new(move |asked, _, stream| {
        assert!(asked.path.starts_with("/simple/"));
        let page = format!(
            "{{\"files\": [{{\"filename\": \"x-1.whl\", \"url\": \"{elsewhere}/files/x-1.whl\"}}]}}"
        );
        send(stream, "200 OK", "", page.as_bytes());
    }));
    let folder = tempfile::tempdir().expect("a folder");
    let url = index.address.replace("http://", "http://anna:secret@") + "/simple";
    let source = Source::new(&url, "a test");
    fetch(&wheel(&bytes), &folder.path().join("lib"), &source, &mut |_, _| true).expect("it comes");
    assert_eq!(index.asked()[0].authorization.as_deref(), Some("Basic YW5uYTpzZWNyZXQ="));
    assert!(files.asked().iter().all(|asked| asked.authorization.is_none()));
}

#[test]
fn archives_that_lie_are_refused_without_a_panic() {
    let good = wheel_bytes();
    let mut damaged: Vec<Vec<u8>> =
        vec![b"PK\x05\x06".to_vec(), vec![0; 100], good[..good.len() - 30].to_vec()];
    let directory = good.windows(4).position(|w| w == b"PK\x01\x02").expect("a directory");
    // Every byte of the directory and the end made large, one by one.
    for at in directory..good.len() {
        let mut one = good.clone();
        one[at] = 0xff;
        damaged.push(one);
    }
    for bytes in damaged.into_iter().step_by(7) {
        let folder = tempfile::tempdir().expect("a folder");
        let into = folder.path().join("lib");
        fs::create_dir_all(&into).expect("a folder");
        fs::write(into.join(".x-1.whl.part"), &bytes).expect("a part");
        let source = Source::new("http://127.0.0.1:1/simple", "a test");
        // The part is whole by length and hash, so it is unpacked as it is.
        let result = fetch(&wheel(&bytes), &into, &source, &mut |_, _| true);
        let whole = fs::read(into.join(LIBRARY)).ok();
        assert_eq!(result.is_ok(), whole.is_some());
        assert!(whole.is_none_or(|whole| whole == content()), "half a library got its name");
    }
}

#[test]
fn a_pipe_that_never_ends_is_no_download() {
    let bytes = wheel_bytes();
    let server = Server::new(Box::new(move |asked, _, stream| {
        if asked.path.starts_with("/simple/") {
            return serve(asked, true, &[], stream);
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunk = [b"10000\r\n".to_vec(), vec![7; 0x10000], b"\r\n".to_vec()].concat();
        while stream.write_all(&chunk).is_ok() {}
        let _ = stream.read(&mut [0]);
    }));
    let text = run(&server, &wheel(&bytes)).1.expect_err("it never ends");
    assert!(text.contains("more than the"), "{text}");
}
