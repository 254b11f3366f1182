-- Schema version 4: profiles, requests and the inventory of devices' certificates; devices that speak for themselves.

-- SHA-256 of the token an enrolled device shows; NULL for one that never asked for a token.
ALTER TABLE enrolled_devices ADD COLUMN token_hash BLOB;
-- When it was wiped or reported lost: it gets no certificate until it is enrolled again.
ALTER TABLE enrolled_devices ADD COLUMN wiped_ms INTEGER;
-- The wipe in the mail system that was taken into account, so that the same one does not count again after a new enrolment.
ALTER TABLE enrolled_devices ADD COLUMN wipe_seen TEXT NOT NULL DEFAULT '';
CREATE UNIQUE INDEX enrolled_devices_by_token ON enrolled_devices(token_hash) WHERE token_hash IS NOT NULL;

CREATE TABLE certificate_profiles (
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id TEXT NOT NULL,
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  -- the version since which certificates look as they do now; older ones are replaced
  shape INTEGER NOT NULL,
  profile TEXT NOT NULL,
  -- whose devices get it; an empty list means everyone's
  users TEXT NOT NULL DEFAULT '[]',
  changed_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, id)
) WITHOUT ROWID;

-- One row for each certificate somebody wants. At most one is open for a device and profile.
CREATE TABLE certificate_requests (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id TEXT NOT NULL UNIQUE,
  device TEXT NOT NULL,
  owner TEXT NOT NULL,
  profile TEXT NOT NULL,
  version INTEGER NOT NULL,
  -- enrol, renew or replace
  reason TEXT NOT NULL,
  -- the certificate it takes the place of
  renews TEXT,
  stage TEXT NOT NULL,
  is_open INTEGER NOT NULL DEFAULT 1,
  -- counts the tries since the last one that worked
  attempt INTEGER NOT NULL,
  -- whether it came from the timetable, which the rate cap counts
  planned INTEGER NOT NULL DEFAULT 0,
  -- SHA-256 of the challenge that was handed out, never the challenge; '' where the authority asks for none
  challenge_sha256 TEXT,
  challenge_until_ms INTEGER,
  -- what the device handed in: its signing request, or the public key the identity is encrypted to
  csr BLOB,
  device_key BLOB,
  action TEXT,
  -- whether the end of the action has been taken into account
  settled INTEGER NOT NULL DEFAULT 0,
  certificate TEXT,
  -- encrypted for the device; forgotten when it has it
  identity BLOB,
  error TEXT,
  created_ms INTEGER NOT NULL,
  changed_ms INTEGER NOT NULL,
  ended_ms INTEGER
);
CREATE UNIQUE INDEX certificate_requests_open ON certificate_requests(tenant, device, profile) WHERE is_open = 1;
CREATE INDEX certificate_requests_by_tenant ON certificate_requests(tenant, seq);
CREATE INDEX certificate_requests_by_stage ON certificate_requests(tenant, stage, seq);
CREATE INDEX certificate_requests_by_device ON certificate_requests(tenant, device, profile, seq);
CREATE INDEX certificate_requests_unsettled ON certificate_requests(tenant, seq) WHERE settled = 0;
CREATE INDEX certificate_requests_by_action ON certificate_requests(action) WHERE action IS NOT NULL;
CREATE INDEX certificate_requests_planned ON certificate_requests(tenant, created_ms) WHERE planned = 1;

CREATE TABLE certificate_timeline (
  tenant TEXT NOT NULL,
  request TEXT NOT NULL REFERENCES certificate_requests(id) ON DELETE CASCADE,
  n INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  event TEXT NOT NULL,
  detail TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (request, n)
) WITHOUT ROWID;

CREATE TABLE certificates (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  sha256 TEXT NOT NULL,
  issuer TEXT NOT NULL,
  serial TEXT NOT NULL,
  subject TEXT NOT NULL,
  not_before_ms INTEGER NOT NULL,
  not_after_ms INTEGER NOT NULL,
  device TEXT NOT NULL,
  owner TEXT NOT NULL,
  profile TEXT NOT NULL,
  version INTEGER NOT NULL,
  authority TEXT NOT NULL,
  request TEXT NOT NULL,
  der BLOB NOT NULL,
  -- authorities from the issuer upwards, base64 of DER
  chain TEXT NOT NULL,
  -- issued, active (the device has it), superseded, or unused (nobody waits for it)
  status TEXT NOT NULL,
  installed_ms INTEGER,
  -- when renewal begins, and for which version of the profile that was worked out
  renew_at_ms INTEGER NOT NULL,
  timed_for INTEGER NOT NULL,
  replaced_by TEXT,
  revoke_reason TEXT,
  revoke_asked_ms INTEGER,
  revoke_action TEXT,
  revoke_tries INTEGER NOT NULL DEFAULT 0,
  -- when the next try is due; NULL when none is
  revoke_next_ms INTEGER,
  revoked_ms INTEGER,
  revoke_note TEXT NOT NULL DEFAULT '',
  -- lower case subject, owner, serial number and fingerprint, for searching
  search TEXT NOT NULL,
  UNIQUE (tenant, sha256)
);
CREATE INDEX certificates_by_end ON certificates(tenant, not_after_ms, seq);
CREATE INDEX certificates_by_device ON certificates(tenant, device, profile);
CREATE INDEX certificates_due ON certificates(tenant, renew_at_ms) WHERE status = 'active' AND revoke_reason IS NULL;
CREATE INDEX certificates_untimed ON certificates(tenant, profile, timed_for) WHERE status = 'active';
CREATE INDEX certificates_to_revoke ON certificates(tenant, revoke_next_ms) WHERE revoke_next_ms IS NOT NULL;
CREATE INDEX certificates_in_revocation ON certificates(tenant, revoke_action) WHERE revoke_action IS NOT NULL AND revoked_ms IS NULL;
CREATE INDEX certificates_valid ON certificates(tenant, device) WHERE revoke_reason IS NULL;
