//! Every limit of the wire, with the reason for its value.

use std::time::Duration;

/// Largest first-level element before authentication, in bytes. RFC 6120 §13.12 obliges servers to take 10,000.
pub const ELEMENT_PRE_AUTH_MAX_BYTES: usize = 10_000;

/// Largest first-level element after authentication, in bytes; advertised by XEP-0478. The same as Prosody's default.
pub const ELEMENT_MAX_BYTES: usize = 262_144;

/// How deep elements may be inside each other, the first-level element being one. Stanzas of ours need two, a data form
/// in an ad-hoc command (XEP-0004, XEP-0050) six; the tree of an element is taken down by recursion.
pub const ELEMENT_DEPTH_MAX: u32 = 64;

/// Largest JSON body of an action or request, in bytes: leaves room for escaping within [`ELEMENT_MAX_BYTES`]. What is
/// bigger travels over HTTP.
pub const BODY_MAX_BYTES: usize = 65_536;

/// Seconds without a byte from the agent after which the cloud may end the stream; advertised by XEP-0478.
pub const IDLE_SECS: u32 = 150;

/// Silence after which the agent asks whether the peer is alive. Below the shortest idle cut seen on proxies (60 s).
pub const PING_AFTER: Duration = Duration::from_secs(45);

/// The shortest silence an agent asks after, however soon its links are cut: below that a ping a link becomes a load.
pub const KEEPALIVE_MIN: Duration = Duration::from_secs(10);

/// How long an answer to that question may take before the link counts as dead.
pub const PONG_WITHIN: Duration = Duration::from_secs(15);

/// How long the login (stream header to bind) may take.
pub const LOGIN_WITHIN: Duration = Duration::from_secs(10);

/// Stanzas sent but not acknowledged before the sender stops taking new ones (XEP-0198 back-pressure).
pub const UNACKED_MAX: usize = 1_000;

/// Acknowledgement is asked for after this many unacknowledged stanzas ...
pub const ACK_EVERY: usize = 10;

/// ... or after this long, whichever comes first.
pub const ACK_WITHIN: Duration = Duration::from_secs(1);

/// How long a cut session can be resumed, in seconds.
pub const RESUME_SECS: u32 = 300;

/// First reconnect delay bound; the n-th is drawn from `0..=min(cap, base * 2^n)`.
pub const BACKOFF_BASE: Duration = Duration::from_secs(1);

/// Upper bound of a reconnect delay.
pub const BACKOFF_CAP: Duration = Duration::from_secs(300);

/// The first attempt after a session was cut comes within this: most cuts are short, and attempts that meet a cloud
/// that is gone are refused by its machine, after which [`BACKOFF_BASE`] counts.
pub const HASTE_WITHIN: Duration = Duration::from_millis(250);

/// So many such attempts may follow each other ...
pub const HASTE_MAX: u32 = 10;

/// ... and then one in this time, so that a link that is cut all the time costs the cloud a login a second at most.
pub const HASTE_EVERY: Duration = Duration::from_secs(1);

/// While this machine has no network, attempts cost nobody anything and come this often ...
pub const NO_NETWORK_RETRY_WITHIN: Duration = Duration::from_millis(500);

/// ... until the session has been gone for so long; then the back-off holds.
pub const NO_NETWORK_RETRY_FOR: Duration = Duration::from_secs(60);

/// A session that lived this long resets the back-off.
pub const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(60);

/// How long an iq may wait for its result.
pub const IQ_WITHIN: Duration = Duration::from_secs(30);

/// The cloud's deadline for a password check, from the API call to the verdict.
pub const AUTHENTICATE_WITHIN: Duration = Duration::from_secs(4);

/// Records in one upload batch. Each batch costs both ends a turn and the cloud a commit, so the short ones (memberships,
/// 130 bytes) nearly fill [`BATCH_MAX_BYTES`] too.
pub const BATCH_RECORDS_MAX: usize = 8_000;

/// Uncompressed bytes of one upload batch. Records are counted whole, so a batch ends before the limit.
pub const BATCH_MAX_BYTES: usize = 1 << 20;

/// Largest single record, in bytes of JSON.
pub const RECORD_MAX_BYTES: usize = 256 * 1024;

/// Uncompressed bytes of a batch that the cloud decodes before it calls it a bomb.
pub const BATCH_DECODED_MAX_BYTES: usize = 8 << 20;

/// Highest believable ratio of uncompressed to compressed bytes.
pub const BATCH_RATIO_MAX: usize = 100;

/// Batches of one agent in flight at once: one is packed, one travels, one is stored, one waits.
pub const UPLOAD_CREDITS: u32 = 4;

/// How long a lease lives without renewal.
pub const LEASE_TTL: Duration = Duration::from_secs(60);

/// How often the holder renews.
pub const LEASE_RENEW_EVERY: Duration = Duration::from_secs(15);

/// The holder stops acting this long before the lease ends by its own clock.
pub const LEASE_MARGIN: Duration = Duration::from_secs(10);

/// Longest name, DN or user name accepted from a person, in bytes.
pub const USERNAME_MAX_BYTES: usize = 1_024;

/// Longest password accepted, in bytes. Active Directory's own limit is 256 characters.
pub const PASSWORD_MAX_BYTES: usize = 1_024;

/// Largest ActiveSync body in bytes: what Exchange takes by default (`maxRequestLength` of its ActiveSync site, 10 MiB).
pub const WBXML_MAX_BYTES: usize = 10 * 1024 * 1024;

/// How deep WBXML elements may be inside each other. ActiveSync's deepest (a recurrence in an exception in an
/// appointment in a Sync response) is eleven; the tree is taken down by recursion.
pub const WBXML_DEPTH_MAX: usize = 32;

/// Elements and pieces of text in one WBXML document: 512 items in a Sync response (the largest window) of 100 elements,
/// each with its text, fit. At forty bytes each this is 5 MB.
pub const WBXML_NODES_MAX: usize = 131_072;

/// Longest ActiveSync query in bytes; the longest parameters of MS-ASHTTP 2.2.1.1.1 together stay below 1 KiB.
pub const ACTIVESYNC_QUERY_MAX_BYTES: usize = 4096;

/// Largest SOAP answer taken, in bytes. Servers are asked for [`WSMAN_ENVELOPE_BYTES`] and may exceed that a little.
pub const SOAP_MAX_BYTES: usize = 2 << 20;

/// How deep elements of a SOAP message may be inside each other. The deepest of ours has eight levels.
pub const XML_DEPTH_MAX: usize = 64;

/// Elements and attributes of a SOAP message together: the biggest of ours has a stream element with two attributes for
/// each fragment of an envelope, and a fragment of a device object has a kilobyte.
pub const XML_PARTS_MAX: usize = 20_000;

/// Attributes of one element of a SOAP message, declarations of namespaces among them.
pub const XML_ATTRIBUTES_MAX: usize = 64;

/// Largest CLIXML value, in bytes, everything counted as often as it is referred to. Device objects have a few
/// kilobytes; `SerializationData` and mailbox logs can have megabytes.
pub const CLIXML_MAX_BYTES: usize = 16 << 20;

/// How deep CLIXML objects may be inside each other. Exchange's serialiser stops far earlier.
pub const CLIXML_DEPTH_MAX: usize = 64;

/// Values in one CLIXML value, everything counted as often as it is referred to. A device object has about fifty.
pub const CLIXML_VALUES_MAX: usize = 250_000;

/// Property names one reader keeps to share them among objects. An Exchange object type has up to a few hundred.
pub const CLIXML_NAMES_MAX: usize = 4_096;

/// Lists of type names one reader keeps to share them among objects.
pub const CLIXML_TYPES_MAX: usize = 512;

/// Longest name or list of type names that is kept to be shared, in bytes.
pub const CLIXML_SHARED_MAX_BYTES: usize = 4_096;

/// Largest blob of one PSRP fragment, in bytes. Windows cuts at 32 KiB; one envelope cannot carry more than this.
pub const PSRP_FRAGMENT_MAX_BYTES: usize = 1 << 20;

/// Largest PSRP message, in bytes: header, byte order mark and value.
pub const PSRP_MESSAGE_MAX_BYTES: usize = CLIXML_MAX_BYTES + 64;

/// Messages of one stream whose fragments may be interleaved. Windows does not interleave in practice.
pub const PSRP_OPEN_MESSAGES_MAX: usize = 16;

/// Messages a stream remembers as complete, to refuse their fragments when they come again.
pub const PSRP_RECENT_MESSAGES: usize = 64;

/// Questions of one pipeline to the client's host that are answered, always by a refusal; more than one comes only from a
/// server that does not take no for an answer.
pub const PIPELINE_QUESTIONS_MAX: usize = 16;

/// Errors and warnings of one pipeline that are kept: a scan over every mailbox can leave one each. Of what comes after
/// only is kept that there was more.
pub const PIPELINE_RECORDS_MAX: usize = 10_000;

/// Bytes of the errors and warnings of one pipeline that are kept.
pub const PIPELINE_RECORDS_MAX_BYTES: usize = 2 << 20;

/// Longest text in an error or warning that is kept, in bytes.
pub const PIPELINE_RECORD_MAX_BYTES: usize = 16_384;

/// Largest WSMan envelope until both sides know each other (the default of WinRM, MS-WSMV 2.2.4.5).
pub const WSMAN_ENVELOPE_FIRST_BYTES: usize = 153_600;

/// Largest WSMan envelope with servers that speak PSRP 2.2 or newer.
pub const WSMAN_ENVELOPE_BYTES: usize = 512_000;

/// How long a server may hold a request before it answers that there is nothing, in seconds. Below the minute after
/// which proxies cut silent connections.
pub const WSMAN_OPERATION_TIMEOUT_SECS: u32 = 20;

/// Bytes of one document of a web service that issues certificates. A certificate with its chain is 10 kB of base64, a
/// page of a search 100 certificates.
pub const ENROL_DOCUMENT_MAX_BYTES: usize = 1 << 20;

/// Repetitions of one element in such a document: templates of a forest, certificates of a page, fields of a profile.
pub const ENROL_PARTS_MAX: usize = 1_000;

/// Largest certificate, request, message or bag of certificates, in bytes. SCEP requests have 2 to 4 KB, answers with a
/// chain up to 10; a CRL above it is fetched over HTTP.
pub const BER_MAX_BYTES: usize = 256 * 1024;

/// How deep BER elements may be inside each other. A name within a certificate within a SCEP message has about 20.
pub const BER_DEPTH_MAX: usize = 32;

/// Attributes in one distinguished name. Directories of eight levels exist.
pub const NAME_ATTRIBUTES_MAX: usize = 64;

/// Extensions in one certificate or request. Public ones have up to 15.
pub const EXTENSIONS_MAX: usize = 64;

/// Alternative names in one certificate or request. Public authorities stop at 100.
pub const ALTERNATIVE_NAMES_MAX: usize = 128;

/// Attributes in one signing request. Windows sends five.
pub const CSR_ATTRIBUTES_MAX: usize = 32;

/// Longest challenge password in bytes. RFC 2985 section 5.4.1 says 255 characters; Intune's sealed ones have some 2,000.
pub const CHALLENGE_MAX_BYTES: usize = 4096;

/// Certificates in one SignedData. The longest chains have six, of the authority and its successor each.
pub const CMS_CERTIFICATES_MAX: usize = 32;

/// CRLs in one SignedData.
pub const CMS_CRLS_MAX: usize = 8;

/// Signers of one SignedData. SCEP has one (RFC 8894 section 3).
pub const CMS_SIGNERS_MAX: usize = 4;

/// Signed attributes of one signer. SCEP has seven at most.
pub const CMS_ATTRIBUTES_MAX: usize = 32;

/// Recipients in one EnvelopedData that are read.
pub const CMS_RECIPIENTS_MAX: usize = 16;

/// Recipients whose key is tried where none says that it is ours: each costs a private-key operation.
pub const CMS_RECIPIENTS_TRIED_MAX: usize = 4;

/// Longest SCEP transactionID in bytes. Clients send up to 78 characters.
pub const SCEP_TRANSACTION_MAX_BYTES: usize = 256;

/// Longest SCEP nonce taken, in bytes. RFC 8894 section 3.2.1.5 says 16; some old programs send 20.
pub const SCEP_NONCE_MAX_BYTES: usize = 64;

/// Longest text of GetCACaps that is read, in bytes. The longest known has 100.
pub const SCEP_CAPS_MAX_BYTES: usize = 4096;

/// Longest SCEP message in the query of a GET, in bytes of base64: certmonger sends 3.6 KB, HTTP servers stop at 16.
pub const SCEP_QUERY_MAX_BYTES: usize = 16 * 1024;
