//! Where this kernel keeps a socket's cgroup, read from its own type information.

use std::sync::OnceLock;

use btf_rs::{Btf, Type};
use chaos_common::steady::SockLayout;

/// Where the kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// The offsets that `steady_retransmits` needs; read once, they do not change.
pub fn sock_layout() -> Result<SockLayout, String> {
    static LAYOUT: OnceLock<Result<SockLayout, String>> = OnceLock::new();
    LAYOUT.get_or_init(read_sock_layout).clone()
}

fn read_sock_layout() -> Result<SockLayout, String> {
    let btf = Btf::from_file(VMLINUX).map_err(|error| format!("{VMLINUX}: {error}"))?;
    let in_data = offset(&btf, "sock_cgroup_data", "cgroup")?;
    let (ancestors, are_ids) = match offset(&btf, "cgroup", "ancestors") {
        Ok(ancestors) => (ancestors, 0),
        // Before 6.1: `u64 ancestor_ids[]`.
        Err(_) => (offset(&btf, "cgroup", "ancestor_ids")?, 1),
    };
    Ok(SockLayout {
        sk_cgroup: offset(&btf, "sock", "sk_cgrp_data")? + in_data,
        cgroup_level: offset(&btf, "cgroup", "level")?,
        cgroup_ancestors: ancestors,
        ancestors_are_ids: are_ids,
        cgroup_kn: offset(&btf, "cgroup", "kn")?,
        kn_id: offset(&btf, "kernfs_node", "id")?,
    })
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
