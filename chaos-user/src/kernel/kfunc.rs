//! Puts functions of the kernel in the place of the helpers that stand for them (chaos-common/src/kfunc.rs).

use aya_obj::generated::{BPF_CALL, BPF_JMP, BPF_PSEUDO_KFUNC_CALL, bpf_insn};
use chaos_common::kfunc;

/// Does so in all of a program; `id` finds the function's number in the kernel's BTF. Offset 0 says that it is a
/// function of the kernel itself, not of a module (kernel/bpf/verifier.c, `add_kfunc_call`, 6.18).
pub(super) fn resolve<E>(
    instructions: &mut [bpf_insn],
    id: impl Fn(&str) -> Result<u32, E>,
) -> Result<(), E> {
    const HELPER: u8 = 0;
    for instruction in instructions {
        if u32::from(instruction.code) != BPF_JMP | BPF_CALL || instruction.src_reg() != HELPER {
            continue;
        }
        if let Some(name) = kfunc::name(instruction.imm as u32) {
            instruction.set_src_reg(BPF_PSEUDO_KFUNC_CALL as u8);
            instruction.imm = id(name)? as i32;
            instruction.off = 0;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(source: u8, number: u32) -> bpf_insn {
        bpf_insn {
            code: (BPF_JMP | BPF_CALL) as u8,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, source),
            off: 0,
            imm: number as i32,
        }
    }

    #[test]
    fn only_what_stands_for_a_function_is_replaced() {
        const COPY_FROM_USER_TASK: u32 = 191;
        let mut program =
            [call(0, COPY_FROM_USER_TASK), call(0, kfunc::TASK_RELEASE), call(1, kfunc::TASK_RELEASE)];
        let id = |name: &str| if name == "bpf_task_release" { Ok(7) } else { Err(()) };
        assert_eq!(resolve(&mut program, id), Ok(()));
        let shown = program.map(|instruction| (instruction.src_reg(), instruction.imm));
        assert_eq!(shown, [(0, 191), (2, 7), (1, kfunc::TASK_RELEASE as i32)]);
    }

    #[test]
    fn a_kernel_without_the_function_is_an_error() {
        assert_eq!(resolve(&mut [call(0, kfunc::TASK_FROM_PID)], |_| Err("missing")), Err("missing"));
    }
}
