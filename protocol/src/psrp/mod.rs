//! PowerShell remoting (MS-PSRP): fragments, messages, and what they say. What carries the fragments is
//! [`crate::wsman`]'s business.

mod client;
mod fragment;
mod guid;
mod host;
mod message;
mod pipeline;
mod records;

pub use client::{PoolClient, PoolError, PoolEvent};
pub use fragment::{Defragmenter, FRAGMENT_HEADER_BYTES, FragmentError, Fragmenter};
pub use guid::Guid;
pub use message::{
    Capability, Destination, Envelope, HostCall, Kind, Message, MessageError, PipelineState, PoolState,
};
pub use pipeline::{Argument, Command, Pipeline};
pub use records::{error_record, error_value, informational_record, informational_text};
