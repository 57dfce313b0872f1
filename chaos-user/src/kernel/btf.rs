//! What this kernel says about its own types: where it keeps a socket's cgroup, and what its functions take.

use std::sync::OnceLock;

use btf_rs::{Btf, BtfType as _, FuncProto, Type};
use chaos_common::{
    steady::{SockLayout, SteadyLayout},
    syscall::CallLayout,
};

/// Where the kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The offsets that lead from a socket to its cgroup; read once, they do not change.
pub fn sock_layout() -> Result<SockLayout, String> {
    static LAYOUT: OnceLock<Result<SockLayout, String>> = OnceLock::new();
    LAYOUT.get_or_init(read_sock_layout).clone()
}

/// All types, read once and whole: reading them piece by piece from the file takes 60,000 seeks.
fn types() -> Result<&'static Btf, String> {
    static TYPES: OnceLock<Result<Btf, String>> = OnceLock::new();
    let read = || {
        let bytes = std::fs::read(VMLINUX).map_err(|error| format!("{VMLINUX}: {error}"))?;
        Btf::from_bytes(&bytes).map_err(|error| format!("{VMLINUX}: {error}"))
    };
    TYPES.get_or_init(read).as_ref().map_err(Clone::clone)
}

fn read_sock_layout() -> Result<SockLayout, String> {
    let btf = types()?;
    let in_data = offset(btf, "sock_cgroup_data", "cgroup")?;
    let (ancestors, are_ids) = match offset(btf, "cgroup", "ancestors") {
        Ok(ancestors) => (ancestors, 0),
        // Before 6.1: `u64 ancestor_ids[]`.
        Err(_) => (offset(btf, "cgroup", "ancestor_ids")?, 1),
    };
    Ok(SockLayout {
        sk_cgroup: offset(btf, "sock", "sk_cgrp_data")? + in_data,
        cgroup_level: offset(btf, "cgroup", "level")?,
        cgroup_ancestors: ancestors,
        ancestors_are_ids: are_ids,
        cgroup_kn: offset(btf, "cgroup", "kn")?,
        kn_id: offset(btf, "kernfs_node", "id")?,
        state: offset(btf, "sock_common", "skc_state")?,
        listener: offset(btf, "sock_common", "skc_listener")?,
    })
}

/// The offsets that lead from a thread to what its call is about; read once, they do not change.
pub fn call_layout() -> Result<CallLayout, String> {
    static LAYOUT: OnceLock<Result<CallLayout, String>> = OnceLock::new();
    LAYOUT.get_or_init(read_call_layout).clone()
}

fn read_call_layout() -> Result<CallLayout, String> {
    let btf = types()?;
    let name = offset(btf, "dentry", "d_name")?;
    let task_status = match offset(btf, "thread_info", "status") {
        Ok(status) => offset(btf, "task_struct", "thread_info")? + status,
        // Not on arm64, which says it in its registers.
        Err(_) => 0,
    };
    Ok(CallLayout {
        task_flags: offset(btf, "task_struct", "flags")?,
        task_status,
        task_files: offset(btf, "task_struct", "files")?,
        task_fs: offset(btf, "task_struct", "fs")?,
        files_fdt: offset(btf, "files_struct", "fdt")?,
        fdt_max: offset(btf, "fdtable", "max_fds")?,
        fdt_fd: offset(btf, "fdtable", "fd")?,
        fs_pwd: offset(btf, "fs_struct", "pwd")?,
        file_path: offset(btf, "file", "f_path")?,
        file_inode: offset(btf, "file", "f_inode")?,
        inode_mode: offset(btf, "inode", "i_mode")?,
        path_mnt: offset(btf, "path", "mnt")?,
        path_dentry: offset(btf, "path", "dentry")?,
        dentry_parent: offset(btf, "dentry", "d_parent")?,
        dentry_len: name + offset(btf, "qstr", "len")?,
        dentry_name: name + offset(btf, "qstr", "name")?,
        mnt_root: offset(btf, "vfsmount", "mnt_root")?,
        mount_mnt: offset(btf, "mount", "mnt")?,
        mount_parent: offset(btf, "mount", "mnt_parent")?,
        mount_mountpoint: offset(btf, "mount", "mnt_mountpoint")?,
    })
}

/// The offsets that steady-state programs need; read once, they do not change.
pub fn steady_layout() -> Result<SteadyLayout, String> {
    static LAYOUT: OnceLock<Result<SteadyLayout, String>> = OnceLock::new();
    LAYOUT.get_or_init(read_steady_layout).clone()
}

fn read_steady_layout() -> Result<SteadyLayout, String> {
    let btf = types()?;
    let css = offset(btf, "blkcg", "css")?;
    Ok(SteadyLayout {
        inode_flags: offset(btf, "inode", "i_flags")?,
        sk_protocol: offset(btf, "sock", "sk_protocol")?,
        tcp_srtt: offset(btf, "tcp_sock", "srtt_us")?,
        task_tid: offset(btf, "task_struct", "pid")?,
        task_exit_code: offset(btf, "task_struct", "exit_code")?,
        task_state: offset(btf, "task_struct", "__state")?,
        task_cgroups: offset(btf, "task_struct", "cgroups")?,
        css_set_cgroup: offset(btf, "css_set", "dfl_cgrp")?,
        request_bio: offset(btf, "request", "bio")?,
        request_flags: offset(btf, "request", "cmd_flags")?,
        bio_blkg: offset(btf, "bio", "bi_blkg")?,
        blkg_blkcg: offset(btf, "blkcg_gq", "blkcg")?,
        blkcg_cgroup: css + offset(btf, "cgroup_subsys_state", "cgroup")?,
        spare: 0,
    })
}

/// Which of these functions the kernel does not have.
pub fn lacking(functions: &[String]) -> Result<Vec<String>, String> {
    let btf = types()?;
    let lacks = |function: &&String| prototype(btf, function).is_err();
    Ok(functions.iter().filter(lacks).cloned().collect())
}

/// Whether `function` takes what `like` takes; the error says how they differ.
pub fn same_prototype(like: &str, function: &str) -> Result<(), String> {
    let btf = types()?;
    let (wanted, found) = (prototype(btf, like)?, prototype(btf, function)?);
    let parameters = |prototype: &FuncProto| -> Vec<Option<u32>> {
        // A type is there once (pahole deduplicates), so the same id means the same type.
        prototype.parameters.iter().map(|parameter| parameter.get_type_id()).collect()
    };
    if parameters(&wanted) != parameters(&found) {
        return Err(format!(
            "{function} does not take the arguments of {like}, for which the program was written"
        ));
    }
    Ok(())
}

fn prototype(btf: &Btf, function: &str) -> Result<FuncProto, String> {
    let missing = || format!("BTF has no function {function}");
    let types = btf.resolve_types_by_name(function).map_err(|_| missing())?;
    let of_function = types.into_iter().find_map(|candidate| match candidate {
        Type::Func(function) => match btf.resolve_chained_type(&function) {
            Ok(Type::FuncProto(prototype)) => Some(prototype),
            _ => None,
        },
        _ => None,
    });
    of_function.ok_or_else(missing)
}

/// Offset of a member in bytes, looking into anonymous structs and unions.
fn offset(btf: &Btf, structure: &str, member: &str) -> Result<u32, String> {
    let missing = || format!("BTF has no {structure}.{member}");
    let types = btf.resolve_types_by_name(structure).map_err(|_| missing())?;
    let found = types.into_iter().find_map(|candidate| member_offset(btf, candidate, member, 0));
    found.ok_or_else(missing)
}

fn member_offset(btf: &Btf, r#type: Type, wanted: &str, depth: u32) -> Option<u32> {
    const DEEPEST: u32 = 4;
    let (Type::Struct(structure) | Type::Union(structure)) = r#type else { return None };
    structure.members.iter().find_map(|member| {
        let name = btf.resolve_name(member).unwrap_or_default();
        if name == wanted {
            return Some(member.bit_offset() / 8);
        }
        if !name.is_empty() || depth == DEEPEST {
            return None;
        }
        let inner = btf.resolve_chained_type(member).ok()?;
        Some(member.bit_offset() / 8 + member_offset(btf, inner, wanted, depth + 1)?)
    })
}
