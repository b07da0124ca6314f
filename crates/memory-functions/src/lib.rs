//! `memcpy`, `memmove`, `memset`, `memcmp` and `bcmp` of LLVM's libc, for a program that is linked with musl on x86_64.
//!
//! musl's own copy and compare there by instructions that take 25 to 50 ns before the first byte, and a review makes
//! hundreds of such calls. LLVM's are written for short and long texts alike, ask nothing of the processor that any
//! x86_64 has not, and depend on nothing, not even on each other.
//!
//! A program has them by naming this crate (`use memory_functions as _;`). For any other target that does nothing: there
//! the libc's own are as good. All of the work is the build script's, which says where LLVM's libc is looked for.
