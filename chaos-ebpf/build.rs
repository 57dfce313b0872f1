//! Relinks when bpf-linker changes, and names the machines that the programs are written for.

fn main() {
    // aya-build says for which machine's kernel the programs are.
    println!("cargo:rustc-check-cfg=cfg(bpf_target_arch, values(\"x86_64\", \"aarch64\"))");
    if let Ok(linker) = which::which("bpf-linker") {
        println!("cargo:rerun-if-changed={}", linker.display());
    }
}
