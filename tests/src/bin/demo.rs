//! `cargo xtask demo` in the end runs this.

use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;

use lanekeeper_tests::demo;

fn main() -> ExitCode {
    let progress = if stdout().is_terminal() { show } else { |_, _| {} };
    match demo::run(&mut stdout(), progress) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A line that the next one overwrites, redrawn now and then.
fn show(done: usize, of: usize) {
    if done == of {
        print!("\r\x1b[2K");
    } else if done.is_multiple_of(50) {
        print!("\r  {done} of {of} requests sent");
    }
    // a terminal that is gone is no reason to stop
    let _ = stdout().flush();
}
