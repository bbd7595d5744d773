//! A filter as people write them with the SDK. It holds the fake host honest: what works here works in Envoy, and
//! what makes the SDK panic in Envoy has to make it panic here.
//!
//! Words say what it does. The configuration holds words for the root: `refuse`, `tick=<ms>`, `callout` (each
//! request asks), `batch` (requests wait, and the root asks for all of them), `linger` (done only at a tick). A
//! request's `x-probe` header holds words for that stream, which [`Stream`] lists.

#![allow(unsafe_code, missing_docs, reason = "the SDK's macro exports the entry point")]

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel, MetricType, Status};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::<Root>::default());
}}

/// What the streams of a VM share with their root.
struct Shared {
    words: Vec<String>,
    waiting: Vec<u32>,
    queue: Option<u32>,
    denials: u32,
    start: Instant,
}

impl Default for Shared {
    fn default() -> Self {
        Self { words: Vec::new(), waiting: Vec::new(), queue: None, denials: 0, start: Instant::now() }
    }
}

impl Shared {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|held| held == word)
    }
}

#[derive(Default)]
struct Root {
    shared: Rc<RefCell<Shared>>,
}

impl Context for Root {
    fn on_http_call_response(&mut self, _token: u32, headers: usize, _body: usize, _trailers: usize) {
        log(&format!("the root got {headers} headers"));
        resume_all(&self.shared);
    }

    fn on_done(&mut self) -> bool {
        log("root done");
        !self.shared.borrow().has("linger")
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _size: usize) -> bool {
        let configuration = self.get_plugin_configuration().unwrap_or_default();
        let words = String::from_utf8_lossy(&configuration).split_whitespace().map(str::to_owned).collect();
        self.shared.borrow_mut().words = words;
        log(&format!("configured as {:?}", std::env::var("PROBE_NAME")));
        // a write that outlives the canary
        let _ = self.set_shared_data("configured", Some(&configuration), None);
        if let Ok(counter) = hostcalls::define_metric(MetricType::Counter, "probe_denials") {
            self.shared.borrow_mut().denials = counter;
        }
        let shared = self.shared.borrow();
        let period = shared.words.iter().find_map(|word| word.strip_prefix("tick=")?.parse().ok());
        if let Some(period) = period {
            self.set_tick_period(Duration::from_millis(period));
        }
        !shared.has("refuse")
    }

    fn on_tick(&mut self) {
        log("tick");
        let mut shared = self.shared.borrow_mut();
        if shared.has("batch") && shared.queue.is_none() {
            shared.queue = Some(self.register_shared_queue("bell"));
        }
        if shared.has("linger") {
            // NotFound while the root is not asked to be done
            let _ = hostcalls::done();
        }
    }

    fn on_queue_ready(&mut self, queue: u32) {
        let mut rings = 0;
        while let Ok(Some(_)) = self.dequeue_shared_queue(queue) {
            rings += 1;
        }
        // each ring wakes the root, and the first one hears them all
        if rings > 0 {
            ask(self);
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream { id, shared: self.shared.clone(), words: Vec::new() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// One request, with the words of its `x-probe` header:
///
/// - `pause`: waits; `release`: resumes all who wait; `deny-waiting`: replies to all who wait
/// - `deny`: replies 429
/// - `count`: adds one to the shared `count`, by compare-and-swap
/// - `early-body`, `keep-body`: pauses at the headers or the body until the body ends
/// - `count-nothing`: adds nothing to a counter; `clocks`, `chance`: logs them
/// - `cut`: resets itself; `deny-response`: replies 418 in the response's callback
/// - `late`: reads a request header in the response's callback, when there is none any more
/// - `resume-running`: resumes itself, though it is not paused
struct Stream {
    id: u32,
    shared: Rc<RefCell<Shared>>,
    words: Vec<String>,
}

impl Stream {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|held| held == word)
    }
}

impl Context for Stream {
    fn on_http_call_response(&mut self, _token: u32, headers: usize, body_size: usize, _trailers: usize) {
        // there is no map to read after a reset, which the SDK answers with a panic
        let status = if headers == 0 { None } else { self.get_http_call_response_header(":status") };
        let body = self.get_http_call_response_body(0, body_size).unwrap_or_default();
        log(&format!("{headers} headers, {status:?}, {}", text(&body)));
        if status.as_deref() == Some("200") {
            self.resume_http_request();
        } else {
            self.send_http_response(403, vec![], None);
        }
    }

    fn on_done(&mut self) -> bool {
        log(&format!("stream {} done", self.id));
        true
    }
}

impl HttpContext for Stream {
    fn on_http_request_headers(&mut self, _count: usize, _end: bool) -> Action {
        let headers = self.get_http_request_headers();
        let words = headers.iter().find(|(name, _)| name == "x-probe").map(|(_, words)| words.as_str());
        self.words = words.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let source = self.get_property(vec!["source", "address"]).unwrap_or_default();
        self.set_http_request_header("x-seen", Some(&format!("{} from {}", headers.len(), text(&source))));
        if self.has("count") {
            count(self);
        }
        if self.has("deny") {
            let denials = self.shared.borrow().denials;
            let _ = hostcalls::increment_metric(denials, 1);
            self.send_http_response(429, vec![("x-denied-by", "probe")], Some(b"too many"));
            return Action::Pause;
        }
        if self.has("count-nothing") {
            let counted = hostcalls::increment_metric(self.shared.borrow().denials, 0);
            log(&format!("{counted:?}"));
        }
        if self.has("clocks") {
            let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            log(&format!(
                "{} s since 1970, up {:?}",
                since_1970.as_secs(),
                self.shared.borrow().start.elapsed()
            ));
        }
        if self.has("chance") {
            log(&format!("{:x}", RandomState::new().build_hasher().finish()));
        }
        if self.has("cut") {
            self.reset_http_request();
        }
        if self.has("release") {
            resume_all(&self.shared);
        }
        if self.has("deny-waiting") {
            deny_all(&self.shared);
        }
        if self.has("resume-running") {
            self.resume_http_request();
        }
        self.wait()
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> Action {
        let body = self.get_http_request_body(0, size).unwrap_or_default();
        log(&format!("body {} {end}", text(&body)));
        let holds = self.has("keep-body") || self.has("early-body");
        if holds && !end { Action::Pause } else { Action::Continue }
    }

    fn on_http_response_headers(&mut self, _count: usize, _end: bool) -> Action {
        self.set_http_response_header("x-probed", Some("yes"));
        if self.has("deny-response") {
            self.send_http_response(418, vec![], None);
        }
        if self.has("late") {
            let host = self.get_http_request_header(":authority");
            log(&format!("{host:?}"));
        }
        Action::Continue
    }

    fn on_log(&mut self) {
        let path = self.get_http_request_header(":path");
        let code = self.get_property(vec!["response", "code"]).unwrap_or_default();
        log(&format!("stream {} log {path:?} {code:?}", self.id));
    }
}

impl Stream {
    fn wait(&self) -> Action {
        let mut shared = self.shared.borrow_mut();
        let batch = shared.has("batch");
        if let Some(bell) = shared.queue.filter(|_| batch) {
            let _ = self.enqueue_shared_queue(bell, Some(b"!"));
        }
        if batch || self.has("pause") {
            shared.waiting.push(self.id);
            return Action::Pause;
        }
        if shared.has("callout") {
            return if ask(self) { Action::Pause } else { Action::Continue };
        }
        if self.has("early-body") { Action::Pause } else { Action::Continue }
    }
}

fn ask(context: &dyn Context) -> bool {
    let headers = vec![(":method", "POST"), (":path", "/take"), (":authority", "shim")];
    let sent =
        context.dispatch_http_call("lanekeeper", headers, Some(b"?"), vec![], Duration::from_millis(20));
    if let Err(status) = &sent {
        log(&format!("not sent: {status:?}"));
    }
    sent.is_ok()
}

fn count(context: &dyn Context) {
    loop {
        let (value, cas) = context.get_shared_data("count");
        let count = value.as_deref().map_or(0, |value| text(value).parse::<u32>().unwrap_or_default()) + 1;
        match context.set_shared_data("count", Some(count.to_string().as_bytes()), cas) {
            Err(Status::CasMismatch) => log("lost a race"),
            _ => return,
        }
    }
}

fn resume_all(shared: &RefCell<Shared>) {
    for id in take_waiting(shared) {
        if hostcalls::set_effective_context(id).is_ok() {
            let _ = hostcalls::resume_http_request();
        }
    }
}

fn deny_all(shared: &RefCell<Shared>) {
    for id in take_waiting(shared) {
        if hostcalls::set_effective_context(id).is_ok() {
            let _ = hostcalls::send_http_response(429, vec![], None);
        }
    }
}

fn take_waiting(shared: &RefCell<Shared>) -> Vec<u32> {
    std::mem::take(&mut shared.borrow_mut().waiting)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn log(line: &str) {
    let _ = hostcalls::log(LogLevel::Info, line);
}
