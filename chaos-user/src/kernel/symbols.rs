//! What the kernel's own list of symbols says of its functions.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader},
};

/// Where it is.
pub const KALLSYMS: &str = "/proc/kallsyms";

/// Which of these functions of system calls are there in name only: a call that the kernel was built without has a weak
/// symbol in its place, which fails with ENOSYS (`COND_SYSCALL`, arch/x86/include/asm/syscall_wrapper.h, 5.15 to 7.3).
pub fn unimplemented(functions: &[String]) -> io::Result<Vec<String>> {
    weak(BufReader::new(File::open(KALLSYMS)?), functions)
}

/// `0000000000000000 W __x64_sys_acct`.
fn weak(symbols: impl BufRead, functions: &[String]) -> io::Result<Vec<String>> {
    // Those of hooks are weak too since Linux 7, and do what they are for.
    let of_call = |function: &&str| function.contains("_sys_");
    let asked: HashSet<&str> = functions.iter().map(String::as_str).filter(of_call).collect();
    let mut weak = Vec::new();
    for line in symbols.lines() {
        let line = line?;
        let mut fields = line.split_ascii_whitespace().skip(1);
        if let (Some("W" | "w"), Some(name)) = (fields.next(), fields.next())
            && asked.contains(name)
        {
            weak.push(name.to_owned());
        }
    }
    Ok(weak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_was_left_out_is_found() {
        let symbols = "0000000000000000 T __x64_sys_openat\n0000000000000000 W __x64_sys_acct\n\
            0000000000000000 W __x64_sys_quotactl\n0000000000000000 W bpf_lsm_path_mkdir\n0000000000000000 t x\t[mod]\n";
        let asked = ["__x64_sys_openat", "__x64_sys_acct", "bpf_lsm_path_mkdir", "x"].map(str::to_owned);
        assert_eq!(weak(symbols.as_bytes(), &asked).unwrap(), ["__x64_sys_acct"]);
    }
}
