//! How the program is linked, where it is the image's.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |part: &str| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    // The places that a static program relocates when it starts, as a bitmap in place of 24 bytes each: of the image's
    // limit of 20 MB that is over half a MB. Debian's linker can do it on this architecture; musl can read it.
    if (target("ARCH"), target("ENV")) == ("x86_64".to_owned(), "musl".to_owned()) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
