//! Links the peer without the library for unwinding: to load it would be a part of every start.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bin=peer=-static-libgcc");
}
