//! Functions of the kernel that programs call though no helper has their number. The kernel knows each by a number
//! of its own (BTF), which the compiler cannot know: the program calls a helper that does not exist, and the loader
//! puts the function in its place.

/// `bpf_task_from_pid`, since Linux 6.2.
pub const TASK_FROM_PID: u32 = 0x6b63_0001;
/// `bpf_task_release`.
pub const TASK_RELEASE: u32 = 0x6b63_0002;

/// All of them, by the number that stands for each.
pub const ALL: &[(u32, &str)] = &[(TASK_FROM_PID, "bpf_task_from_pid"), (TASK_RELEASE, "bpf_task_release")];

/// The function that a number stands for.
pub fn name(placeholder: u32) -> Option<&'static str> {
    ALL.iter().find(|(number, _)| *number == placeholder).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_helper_has_these_numbers() {
        assert_eq!(name(TASK_FROM_PID), Some("bpf_task_from_pid"));
        // `bpf_copy_from_user_task`.
        assert_eq!(name(191), None);
        assert!(ALL.iter().all(|(number, _)| *number > 1 << 16 && i32::try_from(*number).is_ok()));
    }
}
