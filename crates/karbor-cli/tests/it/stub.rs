//! A service that answers from a script, and a terminal that remembers.

use std::{
    collections::HashMap,
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Parser;
use karbor_cli::{ClientCommand, Cloud, Exit, Globals, Pace, Surroundings, run_with};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

pub const PROVIDER: &str = "cf9d5f5c-5a2c-5d0e-9d63-6b6172626f72";
pub const PLAN: &str = "222202b5-3786-4959-b6ad-a6150f78f1e1";
pub const CHECKPOINT: &str = "d2c3ed73-dfbf-418d-b3b7-72cd438a64ea";
pub const OLDER: &str = "dab50f80-49be-4b87-acf1-8343f4abdb4a";
pub const RESTORE: &str = "38f8efd9-96da-4be8-855c-9fd75cb630ee";
pub const LOG: &str = "128be61f-4d13-42a5-a2c2-11a6dba0f409";

/// What was asked: method, path with query below the project, body, token.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    pub body: Value,
    pub token: Option<String>,
}

#[derive(Default)]
struct Script {
    answers: HashMap<String, Vec<(u16, String)>>,
    asked: Vec<Request>,
}

/// Answers from a script: of several answers to one question each is given once, the last for ever.
#[derive(Clone)]
pub struct Stub {
    pub url: String,
    script: Arc<Mutex<Script>>,
}

impl Stub {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stub = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            script: Arc::default(),
        };
        let script = Arc::clone(&stub.script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&script);
                tokio::spawn(async move { answer(stream, &script).await });
            }
        });
        stub
    }

    /// The next answer to `line`, e.g. `GET /plans`.
    pub fn on(self, line: &str, status: u16, body: Value) -> Self {
        self.on_text(line, status, &body.to_string())
    }

    pub fn on_text(self, line: &str, status: u16, body: &str) -> Self {
        let mut script = self.script.lock().unwrap();
        let answers = script.answers.entry(line.to_owned()).or_default();
        answers.push((status, body.to_owned()));
        drop(script);
        self
    }

    pub fn asked(&self) -> Vec<Request> {
        self.script.lock().unwrap().asked.clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.asked()
            .into_iter()
            .map(|request| request.line)
            .collect()
    }

    /// The body that was sent with `line`.
    pub fn body(&self, line: &str) -> Value {
        let asked = self.asked();
        let request = asked.iter().find(|request| request.line == line);
        request
            .unwrap_or_else(|| panic!("{line} was not asked"))
            .body
            .clone()
    }
}

async fn answer(mut stream: TcpStream, script: &Mutex<Script>) {
    let mut read = Vec::new();
    let (head, length) = loop {
        let mut block = [0; 4096];
        let count = stream.read(&mut block).await.unwrap_or(0);
        read.extend_from_slice(&block[..count]);
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&read[..at]).into_owned();
            read.drain(..at + 4);
            let length = header(&head, "content-length").map_or(0, |text| text.parse().unwrap());
            break (head, length);
        }
        if count == 0 {
            return;
        }
    };
    while read.len() < length {
        let mut block = [0; 4096];
        let count = stream.read(&mut block).await.unwrap();
        read.extend_from_slice(&block[..count]);
    }
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let line = format!("{method} {}", target.replacen("/v1/default", "", 1));
    let (status, body) = {
        let mut script = script.lock().unwrap();
        script.asked.push(Request {
            line: line.clone(),
            body: serde_json::from_slice(&read).unwrap_or_default(),
            token: header(&head, "x-auth-token"),
        });
        match script.answers.get_mut(&line) {
            Some(answers) if answers.len() > 1 => answers.remove(0),
            Some(answers) => answers[0].clone(),
            None => (
                500,
                format!("{{\"computeFault\": {{\"message\": \"no answer to {line}\"}}}}"),
            ),
        }
    };
    let response = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         x-openstack-request-id: req-1\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = stream.write_all(response.as_bytes()).await;
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

#[derive(Parser)]
#[command(name = "karbor", after_help = karbor_cli::EXIT_CODES)]
struct CommandLine {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: ClientCommand,
}

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a run left behind.
#[derive(Debug)]
pub struct Run {
    pub exit: Exit,
    pub out: String,
    pub err: String,
}

impl Run {
    /// All of it, for a snapshot.
    pub fn shown(&self, stub: &Stub) -> String {
        let err = self.err.replace(&stub.url, "http://stub");
        format!("{}{}exit {}", self.out, err, self.exit.code())
    }
}

/// Runs a command against the stub, with a token and without a terminal.
pub async fn run(stub: &Stub, arguments: &[&str]) -> Run {
    run_at(
        &["--endpoint", &stub.url, "--state-dir", "/nonexistent"],
        arguments,
        Some("sesame"),
    )
    .await
}

/// As [`run`], with a service that may be away for a while.
pub async fn run_patiently(stub: &Stub, arguments: &[&str]) -> Run {
    let place = ["--endpoint", &stub.url, "--state-dir", "/nonexistent"];
    run_for(&place, arguments, None, &[], Duration::from_secs(60)).await
}

pub async fn run_at(place: &[&str], arguments: &[&str], token: Option<&str>) -> Run {
    run_for(place, arguments, token, &[], Duration::ZERO).await
}

/// Runs a command with variables by which to log in at keystone.
pub async fn run_in_cloud(
    variables: &[(&str, &str)],
    place: &[&str],
    arguments: &[&str],
    token: Option<&str>,
) -> Run {
    run_for(place, arguments, token, variables, Duration::ZERO).await
}

async fn run_for(
    place: &[&str],
    arguments: &[&str],
    token: Option<&str>,
    variables: &[(&str, &str)],
    patience: Duration,
) -> Run {
    let line = ["karbor"].iter().chain(arguments).chain(place);
    let line = CommandLine::try_parse_from(line).unwrap_or_else(|error| panic!("{error}"));
    let (out, err) = (Memory::default(), Memory::default());
    let variables = variables.iter();
    let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let surroundings = Surroundings {
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        bars: false,
        fit: false,
        token: token.map(str::to_owned),
        cloud: Cloud::new(variables),
        pace: Pace {
            first: Duration::from_millis(1),
            slowest: Duration::from_millis(1),
            patience,
        },
    };
    let exit = run_with(line.command, &line.globals, surroundings).await;
    let text = |memory: Memory| String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
    Run {
        exit,
        out: text(out),
        err: text(err),
    }
}

/// Runs a command whose stdout nobody reads.
pub async fn run_into_closed_pipe(stub: &Stub, arguments: &[&str]) -> (Exit, String) {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let place = ["--endpoint", &stub.url, "--state-dir", "/nonexistent"];
    let line = CommandLine::parse_from(["karbor"].iter().chain(arguments).chain(&place));
    let err = Memory::default();
    let surroundings = Surroundings {
        out: Box::new(Closed),
        err: Box::new(err.clone()),
        bars: false,
        fit: false,
        token: None,
        cloud: Cloud::default(),
        pace: Pace::default(),
    };
    let exit = run_with(line.command, &line.globals, surroundings).await;
    let told = String::from_utf8(err.0.lock().unwrap().clone()).unwrap();
    (exit, told)
}

/// Is this command line refused before anything is asked?
pub fn refused(arguments: &[&str]) -> Option<String> {
    CommandLine::try_parse_from(["karbor"].iter().chain(arguments))
        .err()
        .map(|error| error.to_string())
}
