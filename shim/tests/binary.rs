//! The program itself: what it prints, how it ends, and what it says when it cannot start.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A running shim, killed in the end if it has not ended by then.
struct Running(Child);

impl Running {
    /// Starts one in front of its embedded store; returns it and the line it printed.
    fn start(listen: &str) -> (Self, String) {
        let child = Command::new(env!("CARGO_BIN_EXE_lanekeeper-shim"))
            .args(["--listen", listen, "--store", "memory"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self::of(child)
    }

    /// One that was started; returns it and the line it printed.
    fn of(child: Child) -> (Self, String) {
        let mut running = Self(child);
        let mut line = String::new();
        BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (running, line)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn prints_where_it_listens_answers_there_and_ends_when_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut running, line) = Running::start("127.0.0.1:0");
        let address = line.strip_prefix("listening on http://").unwrap().strip_suffix('\n').unwrap();
        let mut connection = TcpStream::connect(address).unwrap();
        connection.write_all(b"GET /readyz HTTP/1.1\r\nhost: shim\r\n\r\n").unwrap();
        let mut status = [0; 15];
        connection.read_exact(&mut status).unwrap();
        assert_eq!(&status, b"HTTP/1.1 200 OK");
        kill_process(Pid::from_child(&running.0), signal).unwrap();
        assert!(running.0.wait().unwrap().success());
    }
}

#[test]
fn removes_its_socket_when_told_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let address = format!("unix:{}", folder.path().join("shim.sock").display());
    let (mut running, line) = Running::start(&address);
    assert_eq!(line, format!("listening on {address}\n"));
    kill_process(Pid::from_child(&running.0), Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn says_that_its_address_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let shim = Command::new(env!("CARGO_BIN_EXE_lanekeeper-shim"))
        .args(["--listen", &address, "--store", "memory"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(shim.stderr).unwrap();
    assert!(
        !shim.status.success() && stderr.contains(&format!("cannot listen on http://{address}")),
        "{stderr}"
    );
}

#[test]
fn does_not_start_with_a_policy_that_has_errors_and_says_them_all() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, "version: 2\nresponses: {rejected_status: 200}\n").unwrap();
    let shim = Command::new(env!("CARGO_BIN_EXE_lanekeeper-shim"))
        .args(["--listen", "127.0.0.1:0", "--store", "memory", "--policy"])
        .arg(&policy)
        .output()
        .unwrap();
    let stderr = String::from_utf8(shim.stderr).unwrap();
    assert!(!shim.status.success() && shim.stdout.is_empty());
    for path in ["policy.yaml: version: 2: ", "policy.yaml: responses.rejected_status: 200: "] {
        assert!(stderr.contains(path), "{stderr}");
    }
}

#[test]
fn starts_with_a_policy_that_has_a_slip_and_logs_it() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&policy, "version: 1\nresilience: {account.get: {}}\n").unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_lanekeeper-shim"))
        .args(["--listen", "127.0.0.1:0", "--store", "memory", "--policy"])
        .arg(&policy)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut running, line) = Running::of(child);
    assert!(line.starts_with("listening on "), "{line}");
    kill_process(Pid::from_child(&running.0), Signal::TERM).unwrap();
    assert!(running.0.wait().unwrap().success());
    let mut log = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    let warning = "policy.yaml: resilience[\"account.get\"]: {}: guards nothing: `commands` does not name `account.get`";
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains(warning)), "{log}");
}

#[test]
fn says_what_is_wrong_with_its_arguments() {
    let cases: [(&[&str], &str); 6] = [
        (&[], "--store <STORE>"),
        (&["--store", "disk"], "--store is `memory` or an address that begins with redis://"),
        (&["--store", "redis://"], "--store: not a Redis address"),
        (&["--store", "memory", "--listen", "7400"], "write 127.0.0.1:7400"),
        (&["--store", "memory", "--store-timeout", "15"], "--store-timeout"),
        (&["--store", "memory", "--token-env", "NO_SUCH_TOKEN"], "NO_SUCH_TOKEN holds no token"),
    ];
    for (arguments, text) in cases {
        let shim = Command::new(env!("CARGO_BIN_EXE_lanekeeper-shim"))
            .args(["--listen", "127.0.0.1:0"].iter().filter(|_| !arguments.contains(&"--listen")))
            .args(arguments)
            .env_remove("LANEKEEPER_STORE")
            .output()
            .unwrap();
        let stderr = String::from_utf8(shim.stderr).unwrap();
        assert!(!shim.status.success() && stderr.contains(text), "{arguments:?}: {stderr}");
        assert!(shim.stdout.is_empty());
    }
}
