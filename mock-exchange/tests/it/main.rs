//! The mock from outside: front ends over real sockets, and what an administrator sees.

mod powershell;
