//! What processor time is used, to the nanosecond, as the scheduler counts it. The times of `/proc/<pid>/stat` come in
//! hundredths of a second, which is a request in a hundred of a short round.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::Pid;

/// By all threads of a process that are there now. Those that have ended are not counted: the servers here keep theirs.
pub(crate) fn of_process(pid: u32) -> Result<Duration> {
    let threads = format!("/proc/{pid}/task");
    let threads = fs::read_dir(&threads).with_context(|| format!("cannot read {threads}"))?;
    threads.map(|thread| of_task(&thread?.path())).sum()
}

/// By one thread of this process.
pub(crate) fn of_thread(thread: Pid) -> Result<Duration> {
    of_task(Path::new(&format!("/proc/self/task/{thread}")))
}

fn of_task(task: &Path) -> Result<Duration> {
    let path = task.join("schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let nanoseconds = text.split_whitespace().next().context("an empty schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_uses_time_and_who_sleeps_does_not() {
        let (worker, sleeper) = (rustix::thread::gettid(), of_sleeper());
        let before = of_thread(worker).unwrap();
        while of_thread(worker).unwrap() < before + Duration::from_millis(5) {}
        assert!(of_process(std::process::id()).unwrap() >= Duration::from_millis(5));
        assert!(of_thread(sleeper).unwrap() < Duration::from_millis(5));
    }

    /// A thread that waits for as long as the test runs.
    fn of_sleeper() -> Pid {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            std::thread::park();
        });
        told.recv().unwrap()
    }
}
