-- Direct TLS only; no rate limit, since the benchmark must meet the server and not its throttle.
daemonize = false
pidfile = "/run/prosody/prosody.pid"
modules_enabled = { "saslauth", "tls", "disco", "ping", "smacks", "roster" }
modules_disabled = { "s2s", "offline" }
c2s_ports = {}
c2s_direct_tls_ports = { 5223 }
s2s_ports = {}
interfaces = { "*" }
c2s_require_encryption = true
authentication = "internal_hashed"
-- The default is SHA-1; an account has verifiers of one kind only.
password_hash = "SHA-256"
storage = "internal"
smacks_hibernation_time = 300
log = { warn = "*console" }
ssl = { key = "/etc/prosody/tls/key.pem", certificate = "/etc/prosody/tls/cert.pem" }
c2s_direct_tls_ssl = { key = "/etc/prosody/tls/key.pem", certificate = "/etc/prosody/tls/cert.pem" }
VirtualHost "localhost"
