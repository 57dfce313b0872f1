//! System calls that fail, lie, signal or take long: which ones are meant, what they may plausibly answer, and the ways
//! to meet them.
//!
//! A call is met at functions of the kernel or at hooks of its security modules. At a hook, several calls pass, and one
//! call may pass several hooks; `hook` says which hook answers for which call, so that each is judged once. What a
//! program at a hook must do: read the number of the call from `bpf_task_pt_regs`, and let everything by that is
//! not among [`Point::calls`](ladder::Point::calls). It thereby lets by the kernel's own calls, requests of
//! io_uring (the number is `io_uring_enter`'s, or none), and 32-bit programs, whose numbers mean other calls: those must
//! be told by the task, as 11 is `munmap` to one and `execve` to the other.

pub mod argument;
pub mod call;
pub mod class;
pub mod entries;
pub mod errors;
pub mod filter;
pub mod hook;
pub mod ladder;
pub mod name;
pub mod place;
pub mod plausible;
pub mod point;
pub mod set;
pub mod slow;

pub use argument::{Arguments, Uring};
pub use call::{CallFault, IoUring};
pub use class::Class;
pub use errors::Errors;
pub use filter::CallFilter;
pub use ladder::{Effect, Sockets, Way, ladder};
pub use name::{Arch, Syscall};
pub use set::SyscallSet;
pub use slow::Slow;
