//! An Exchange organisation for tests and demos: one world of mailboxes, phones and policies behind PowerShell
//! remoting, Exchange Online's admin REST, ActiveSync and autodiscover.
//!
//! `world` is pure state with its rules; the front ends speak protocols and decide nothing.
