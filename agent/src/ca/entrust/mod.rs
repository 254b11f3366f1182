//! Entrust, by the two ways there are: CA Gateway ([`gateway`]) and an adapter in front of the older administration
//! services ([`digital_id`]).

pub mod digital_id;
pub mod gateway;
