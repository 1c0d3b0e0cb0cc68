//! Starts the program; everything it can do is in `cli`.

use std::process::ExitCode;

/// Mail is many small buffers of many sizes: mimalloc gives them back and does not grow.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weir::cli::main()
}
