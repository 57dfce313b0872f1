//! Copies of packets.

/// How many copies can be made of one packet; bounds a loop.
pub const MAX_COPIES: u32 = 8;

crate::pod! {
    /// How a packet is duplicated.
    pub struct Duplication {
        /// How many copies are sent besides the packet itself, from 1 to [`MAX_COPIES`].
        pub copies: u32,
        /// Unused.
        pub spare: u32,
    }
}

impl Duplication {
    /// No copies.
    pub const NONE: Self = Self { copies: 0, spare: 0 };
}
