//! What is noted of a thread at one place, to be found at another.

use aya_ebpf::maps::LruHashMap;

/// Notes it, over what was noted before, which costs less than an entry that is made anew each time. `false` without room
/// for it.
#[inline(always)]
pub fn of_thread<V>(map: &LruHashMap<u32, V>, tid: u32, value: V) -> bool {
    match map.get_ptr_mut(tid) {
        Some(noted) => {
            // SAFETY: in bounds of the map value; a thread is in one place at a time.
            unsafe { *noted = value };
            true
        }
        None => map.insert(tid, value, 0).is_ok(),
    }
}
