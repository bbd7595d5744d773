//! Processes that take the time for another one, by `libfaketime`.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};

/// How far a clock is from the machine's, as in `+8h` or `-30m`.
pub type Shift = &'static str;

/// Has the program see the machine's clock moved by `shift`. How fast time passes, and the clock that timeouts go by,
/// stay as they are. Where the library is missing the loader only complains: ask the program for its time.
pub(crate) fn shift(command: &mut Command, shift: Shift) {
    preload(command).env("FAKETIME", shift);
}

/// The same by the shift that stands in a file, which may change at any time.
pub(crate) fn follow(command: &mut Command, file: &Path) {
    preload(command).env("FAKETIME_TIMESTAMP_FILE", file).env("FAKETIME_NO_CACHE", "1");
}

fn preload(command: &mut Command) -> &mut Command {
    // The allocator that Redis is linked with asks for the time while the library is not ready yet, and both wait for
    // each other; libc's own does not. `$LIB` is the loader's word for the folder of this architecture.
    command
        .env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1:libc.so.6")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

/// What the library leaves in shared memory when its process is killed; removed when dropped, which should be later.
#[derive(Debug)]
pub(crate) struct Leftovers(u32);

impl Leftovers {
    pub(crate) fn of(child: &Child) -> Self {
        Self(child.id())
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        for name in ["faketime_shm", "sem.faketime_sem"] {
            // a process that ended by itself has tidied up
            let _ = fs::remove_file(format!("/dev/shm/{name}_{}", self.0));
        }
    }
}
