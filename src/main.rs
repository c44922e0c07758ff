//! The `invar` binary.

use std::process::ExitCode;

/// Returns memory after a burst and keeps small allocations small, which glibc's does not.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    invar::cli::main()
}
