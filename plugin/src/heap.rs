//! Memory in few sizes.
//!
//! A request takes and gives back some forty small pieces of memory. The standard library's allocator keeps what is
//! free in trees and joins neighbours, which was a fifth of a request's instructions. Here a small block that is given
//! back is kept for the next that needs one of its size; only what is larger, and blocks that none was kept for, come
//! from that allocator. Small blocks are never joined again, so each size takes as much as it once needed at the same
//! time, and no more.
#![allow(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

#[global_allocator]
static HEAP: Heap = Heap { free: [const { Cell::new(ptr::null_mut()) }; SIZES] };

/// Sizes are multiples of this, which is also the strictest alignment that a small block has.
const STEP: usize = 8;
/// The largest small block is one step smaller, in steps.
const SIZES: usize = 65;

struct Heap {
    /// The blocks that are free, by their size in steps; each holds the address of the next.
    free: [Cell<*mut u8>; SIZES],
}

// SAFETY: a module of the proxy has one thread
unsafe impl Sync for Heap {}

/// The size of a small block for this, in steps; none where it is no small one.
fn steps(layout: Layout) -> Option<usize> {
    let steps = layout.size().div_ceil(STEP);
    (steps < SIZES && layout.align() <= STEP).then_some(steps)
}

// SAFETY: a block is in one list while it is free, and in none while it is taken; its steps, which its layout gives,
// say in which
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(steps) = steps(layout) else {
            // SAFETY: as the caller promises
            return unsafe { System.alloc(layout) };
        };
        match self.free.get(steps) {
            Some(first) if !first.get().is_null() => {
                let block = first.get();
                // SAFETY: a free block is at least a step long, aligned to it, and begins with the next one's address
                first.set(unsafe { block.cast::<*mut u8>().read() });
                block
            }
            // SAFETY: at least one step, since nobody asks for no bytes
            _ => unsafe { System.alloc(Layout::from_size_align_unchecked(steps * STEP, STEP)) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match steps(layout).and_then(|steps| self.free.get(steps)) {
            Some(first) => {
                // SAFETY: the block is ours again, at least a step long and aligned to it
                unsafe { block.cast::<*mut u8>().write(first.get()) };
                first.set(block);
            }
            // SAFETY: what is not small came from there
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the alignment is that of a layout, and the caller promises that the size is none too large for it
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (steps(layout), steps(wanted)) {
            // SAFETY: both before and after it is not small
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (before, after) if before == after => block,
            // SAFETY: as the caller promises; both blocks are as long as what is copied
            _ => unsafe {
                let new = self.alloc(wanted);
                if !new.is_null() {
                    ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                new
            },
        }
    }
}
