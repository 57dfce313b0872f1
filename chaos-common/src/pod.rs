//! Types that may cross the boundary: plain integers in a layout without holes.

/// A type whose every bit pattern is valid and whose layout is the same on both sides.
///
/// # Safety
/// Implementors are `repr(C)` (or primitive), have no padding, and accept every bit pattern. Use
/// [`pod!`](crate::pod!), which checks all three at compile time.
pub unsafe trait Pod: Copy + 'static {}

macro_rules! primitive {
    ($($t:ty),*) => { $(
        // SAFETY: integers have no padding and accept every bit pattern.
        unsafe impl Pod for $t {}
    )* };
}
primitive!(u8, u16, u32, u64, i8, i16, i32, i64);

// SAFETY: an array has the layout of its elements side by side (Rust reference, "Array layout").
unsafe impl<T: Pod, const N: usize> Pod for [T; N] {}

/// Declares a struct that crosses the boundary.
///
/// It becomes `repr(C)` and [`Pod`]. A field that is not [`Pod`] (a `bool`, an `Option`, an enum, a
/// reference) does not compile:
///
/// ```compile_fail
/// chaos_common::pod! { pub struct Bad { pub on: bool } }
/// ```
/// ```compile_fail
/// chaos_common::pod! { pub struct Bad { pub maybe: Option<u32> } }
/// ```
///
/// and neither does a layout with a hole, whose bytes would be uninitialised memory to the kernel:
///
/// ```compile_fail
/// chaos_common::pod! { pub struct Bad { pub small: u32, pub large: u64 } }
/// ```
/// ```
/// chaos_common::pod! { pub struct Good { pub small: u32, pub spare: u32, pub large: u64 } }
/// assert_eq!(size_of::<Good>(), 16);
/// ```
#[macro_export]
macro_rules! pod {
    ($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty),* $(,)?
    }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $type),* }

        const _: () = {
            const fn plain<T: $crate::Pod>() {}
            $(plain::<$type>();)*
            assert!(
                ::core::mem::size_of::<$name>() == 0 $(+ ::core::mem::size_of::<$type>())*,
                "this struct has padding: reorder its fields or name the spare bytes"
            );
        };

        // SAFETY: repr(C), every field is Pod, and the sizes above leave no padding.
        unsafe impl $crate::Pod for $name {}
    };
}
