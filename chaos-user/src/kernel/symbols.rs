//! What the kernel's own list of symbols says of its functions.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader},
};

/// Where it is.
pub const KALLSYMS: &str = "/proc/kallsyms";

/// How an address is written, `%px` of 64 bits.
const ADDRESS_DIGITS: usize = 16;

/// Which of these functions of system calls are there in name only: a call that the kernel was built without has a weak
/// symbol in its place, which fails with ENOSYS (`COND_SYSCALL`, arch/x86/include/asm/syscall_wrapper.h, 5.15 to 7.3).
pub fn unimplemented(functions: &[String]) -> io::Result<Vec<String>> {
    weak(BufReader::new(File::open(KALLSYMS)?), functions)
}

/// `0000000000000000 W __x64_sys_acct`.
///
/// There are some 200,000 of them, hence one buffer for all lines, which are looked into only if they are of weak symbols.
fn weak(mut symbols: impl BufRead, functions: &[String]) -> io::Result<Vec<String>> {
    // Those of hooks are weak too since Linux 7, and do what they are for.
    let of_call = |function: &&str| function.contains("_sys_");
    let asked: HashSet<&str> = functions.iter().map(String::as_str).filter(of_call).collect();
    let (mut weak, mut line) = (Vec::new(), Vec::new());
    while !asked.is_empty() && symbols.read_until(b'\n', &mut line)? != 0 {
        if matches!(line.get(ADDRESS_DIGITS..ADDRESS_DIGITS + 3), Some(b" W " | b" w ")) {
            let name = line[ADDRESS_DIGITS + 3..].split(u8::is_ascii_whitespace).next().unwrap_or_default();
            weak.extend(asked.get(String::from_utf8_lossy(name).as_ref()).map(ToString::to_string));
        }
        line.clear();
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
