//! The numbers that a host call answers with.

/// A status of ABI 0.2.1. Filters must take every one of them from every call: which ones a host gives where is
/// not fixed by the ABI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// No such thing.
    NotFound = 1,
    /// An argument that does not fit, or a thing asked for outside its phase.
    BadArgument = 2,
    /// The value cannot be written down, such as a map with a null in it.
    SerializationFailure = 3,
    /// The bytes cannot be read.
    ParseFailure = 4,
    /// Listed by the host alone.
    BadExpression = 5,
    /// A pointer outside the VM's memory.
    InvalidMemoryAccess = 6,
    /// Nothing in the queue.
    Empty = 7,
    /// Somebody else wrote in between.
    CasMismatch = 8,
    /// Listed by the host alone.
    ResultMismatch = 9,
    /// The host could not, for instance because no upstream host is healthy.
    InternalFailure = 10,
    /// Why a callout failed, as `proxy_get_status` tells it.
    BrokenConnection = 11,
    /// Not in this host.
    Unimplemented = 12,
}

/// What a host call answers.
pub(super) type Outcome = Result<(), Status>;

impl From<Status> for u32 {
    fn from(status: Status) -> Self {
        status as u32
    }
}
