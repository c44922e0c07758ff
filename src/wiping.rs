//! The allocator wipes what is freed, as soon as the process holds secrets. They wipe themselves ([`invar_syntax::Secret`]),
//! but libraries copy them: into a header that is written, a body that is parsed, a buffer that grows. What of these is
//! small, and all that holds secrets is, is overwritten when it is freed; larger blocks carry telemetry.
#![allow(unsafe_code, reason = "an allocator cannot be written without, and none wipes on a condition")]

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{Ordering, compiler_fence};

use invar_syntax::Secret;

/// Larger blocks are not wiped: no buffer of a secret's way is larger, but many of the telemetry's are.
const LARGEST: usize = 64 << 10;

/// Wipes what another allocator is given back.
pub(crate) struct Wiping<A>(pub(crate) A);

fn has_to_be_wiped(layout: Layout) -> bool {
    layout.size() <= LARGEST && Secret::were_held()
}

// SAFETY: every block comes from the inner allocator and goes back to it with the layout that it came with; before that it
// is written to only within that layout, when nobody else may use it any more.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Wiping<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract of this very method.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if has_to_be_wiped(layout) {
            // SAFETY: the caller gives up a block of that size, to which it alone could write.
            unsafe { block.write_bytes(0, layout.size()) };
            // The block is not read again, which is no reason not to write it.
            compiler_fence(Ordering::SeqCst);
        }
        // SAFETY: as above.
        unsafe { self.0.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !has_to_be_wiped(layout) {
            // SAFETY: as above.
            return unsafe { self.0.realloc(block, layout, size) };
        }
        // It might be moved, and what it leaves would stay as it is.
        // SAFETY: the caller promises that the new size with the old alignment makes a layout.
        let moved = unsafe { self.0.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !moved.is_null() {
            // SAFETY: both blocks are at least so long, and a new one overlaps none.
            unsafe { moved.copy_from_nonoverlapping(block, layout.size().min(size)) };
            // SAFETY: the caller gives up the old one.
            unsafe { self.dealloc(block, layout) };
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks into a block when it is given back, and does not free it.
    struct Looking(std::sync::atomic::AtomicUsize);

    // SAFETY: blocks are those of the system, and leak.
    unsafe impl GlobalAlloc for Looking {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: the same contract.
            unsafe { std::alloc::System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: the block is as long, and nobody else uses it.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            self.0.fetch_add(bytes.iter().filter(|byte| **byte != 0).count(), Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_freed_and_what_grows_is_wiped_once_there_are_secrets() {
        let _secret = Secret::new("any");
        let allocator = Wiping(Looking(0.into()));
        let left = || allocator.0.0.swap(0, Ordering::Relaxed);
        for (size, kept) in [(1, 0), (4096, 0), (LARGEST, 0), (LARGEST + 1, LARGEST + 1)] {
            let layout = Layout::from_size_align(size, 8).expect("it is small");
            // SAFETY: the block is as long as what is written, and given back once.
            unsafe {
                let block = allocator.alloc(layout);
                block.write_bytes(7, size);
                allocator.dealloc(block, layout);
            }
            assert_eq!(left(), kept, "{size}");
        }
        let layout = Layout::from_size_align(100, 8).expect("it is small");
        // SAFETY: as above; what is kept of it is read within its size.
        let kept = unsafe {
            let block = allocator.alloc(layout);
            block.write_bytes(7, 100);
            let grown = allocator.realloc(block, layout, 200);
            std::slice::from_raw_parts(grown, 100).iter().all(|byte| *byte == 7)
        };
        assert!(kept);
        assert_eq!(left(), 0);
    }
}
