//! Distinguished names (RFC 4514) and Active Directory's alternative forms.
