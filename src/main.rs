//! The `invar` binary.

mod wiping;

use std::process::ExitCode;

/// Returns memory after a burst and keeps small allocations small, which glibc's does not.
#[global_allocator]
static ALLOCATOR: wiping::Wiping<mimalloc::MiMalloc> = wiping::Wiping(mimalloc::MiMalloc);

fn main() -> ExitCode {
    invar::cli::main()
}
