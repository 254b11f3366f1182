//! Certificates and SCEP from outside: what strangers recorded is understood, what we write can be read, and what means
//! harm is refused.

mod cms;
mod corpus;
mod hostile;
mod pkix;
mod scep;
mod world;
