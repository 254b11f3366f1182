-- Schema version 1. Times are Unix milliseconds. Every row carries its tenant, except members, whose source does.

CREATE TABLE tenants (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  created_ms INTEGER NOT NULL
) WITHOUT ROWID;

-- Only SCRAM verifiers (RFC 5802 3): the key itself is shown once and stored nowhere.
CREATE TABLE enrollment_keys (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  salt BLOB NOT NULL,
  iterations INTEGER NOT NULL,
  stored_key BLOB NOT NULL,
  server_key BLOB NOT NULL,
  created_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  used_ms INTEGER,
  used_by TEXT
) WITHOUT ROWID;
CREATE INDEX enrollment_keys_by_tenant ON enrollment_keys(tenant, created_ms);

CREATE TABLE agents (
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  instance TEXT NOT NULL,
  host TEXT NOT NULL,
  version TEXT NOT NULL DEFAULT '',
  os TEXT NOT NULL DEFAULT '',
  boot_id TEXT NOT NULL DEFAULT '',
  started_ms INTEGER NOT NULL DEFAULT 0,
  enrolled_ms INTEGER NOT NULL,
  last_seen_ms INTEGER NOT NULL DEFAULT 0,
  session_epoch INTEGER NOT NULL DEFAULT 0,
  modules TEXT NOT NULL DEFAULT '[]',
  health TEXT NOT NULL DEFAULT '{}',
  health_ms INTEGER NOT NULL DEFAULT 0,
  certificate_serial TEXT NOT NULL DEFAULT '',
  certificate_expires_ms INTEGER NOT NULL DEFAULT 0,
  revoked_ms INTEGER,
  PRIMARY KEY (tenant, instance)
) WITHOUT ROWID;

CREATE TABLE configs (
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  module TEXT NOT NULL,
  revision INTEGER NOT NULL,
  enabled INTEGER NOT NULL,
  settings TEXT NOT NULL,
  changed_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, module)
) WITHOUT ROWID;

CREATE TABLE applied_configs (
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  module TEXT NOT NULL,
  instance TEXT NOT NULL,
  revision INTEGER NOT NULL,
  running INTEGER NOT NULL,
  error TEXT,
  at_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, module, instance)
) WITHOUT ROWID;

CREATE TABLE actions (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id TEXT NOT NULL UNIQUE,
  module TEXT NOT NULL,
  action TEXT NOT NULL,
  target TEXT NOT NULL,
  params TEXT NOT NULL,
  idempotency_key TEXT,
  body_digest BLOB NOT NULL,
  status TEXT NOT NULL DEFAULT 'pending',
  accepted INTEGER NOT NULL DEFAULT 0,
  agent TEXT,
  fence INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  result TEXT,
  error TEXT,
  created_ms INTEGER NOT NULL,
  deadline_ms INTEGER NOT NULL,
  finished_ms INTEGER
);
CREATE UNIQUE INDEX actions_by_key ON actions(tenant, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX actions_by_tenant ON actions(tenant, seq);
CREATE INDEX actions_pending ON actions(deadline_ms) WHERE status = 'pending';

CREATE TABLE action_timeline (
  tenant TEXT NOT NULL,
  action TEXT NOT NULL REFERENCES actions(id) ON DELETE CASCADE,
  n INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  event TEXT NOT NULL,
  agent TEXT,
  detail TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (action, n)
) WITHOUT ROWID;

CREATE TABLE sources (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  source TEXT NOT NULL,
  epoch INTEGER NOT NULL DEFAULT 0,
  committed_ms INTEGER NOT NULL DEFAULT 0,
  -- rows it has in the table of that name, kept by whoever writes there
  users INTEGER NOT NULL DEFAULT 0,
  groups INTEGER NOT NULL DEFAULT 0,
  ous INTEGER NOT NULL DEFAULT 0,
  members INTEGER NOT NULL DEFAULT 0,
  progress TEXT,
  progress_agent TEXT,
  progress_ms INTEGER NOT NULL DEFAULT 0,
  UNIQUE (tenant, source)
);

-- Directory ids as small numbers: a membership is two of them, and may arrive before the objects it joins.
CREATE TABLE objects (
  id INTEGER PRIMARY KEY,
  source INTEGER NOT NULL REFERENCES sources(id) ON DELETE CASCADE,
  key TEXT NOT NULL,
  UNIQUE (source, key)
);

CREATE TABLE users (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  source INTEGER NOT NULL,
  key TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  login TEXT NOT NULL,
  dn TEXT NOT NULL,
  parent TEXT,
  enabled INTEGER NOT NULL,
  upn TEXT,
  display_name TEXT,
  given_name TEXT,
  surname TEXT,
  mail TEXT,
  attributes TEXT NOT NULL DEFAULT '{}',
  -- lower case, for paging in a stable order
  sort TEXT NOT NULL,
  -- lower case login, names, mail and upn, for searching
  search TEXT NOT NULL
);
CREATE INDEX users_by_sort ON users(tenant, sort, id);
CREATE INDEX users_by_unit ON users(tenant, parent);

CREATE TABLE groups (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  source INTEGER NOT NULL,
  key TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  name TEXT NOT NULL,
  dn TEXT NOT NULL,
  parent TEXT,
  description TEXT,
  mail TEXT,
  security INTEGER NOT NULL,
  sort TEXT NOT NULL,
  search TEXT NOT NULL
);
CREATE INDEX groups_by_sort ON groups(tenant, sort, id);

CREATE TABLE ous (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  source INTEGER NOT NULL,
  key TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  name TEXT NOT NULL,
  dn TEXT NOT NULL,
  parent TEXT,
  sort TEXT NOT NULL,
  search TEXT NOT NULL
);
CREATE INDEX ous_by_sort ON ous(tenant, sort, id);

-- Direct memberships as the directory has them: cycles are legal and harmless.
CREATE TABLE members (
  group_id INTEGER NOT NULL,
  member_id INTEGER NOT NULL,
  source INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  PRIMARY KEY (group_id, member_id)
) WITHOUT ROWID;
CREATE INDEX members_by_member ON members(member_id);

CREATE TABLE uploads (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id TEXT NOT NULL UNIQUE,
  source INTEGER NOT NULL REFERENCES sources(id) ON DELETE CASCADE,
  agent TEXT NOT NULL,
  mode TEXT NOT NULL,
  base_epoch INTEGER,
  epoch INTEGER NOT NULL,
  fence INTEGER NOT NULL,
  allow_mass_delete INTEGER NOT NULL DEFAULT 0,
  -- receiving, committed, refused or abandoned
  state TEXT NOT NULL DEFAULT 'receiving',
  batches INTEGER NOT NULL DEFAULT 0,
  records INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  upserts INTEGER NOT NULL DEFAULT 0,
  deletes INTEGER NOT NULL DEFAULT 0,
  detail TEXT NOT NULL DEFAULT '',
  started_ms INTEGER NOT NULL,
  finished_ms INTEGER
);
CREATE INDEX uploads_by_tenant ON uploads(tenant, seq);

CREATE TABLE upload_batches (
  upload TEXT NOT NULL REFERENCES uploads(id) ON DELETE CASCADE,
  n INTEGER NOT NULL,
  digest BLOB NOT NULL,
  records INTEGER NOT NULL,
  PRIMARY KEY (upload, n)
) WITHOUT ROWID;

CREATE TABLE leases (
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  resource TEXT NOT NULL,
  fence INTEGER NOT NULL,
  holder TEXT,
  boot_id TEXT NOT NULL DEFAULT '',
  expires_ms INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, resource)
) WITHOUT ROWID;

CREATE TABLE alerts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  -- '' when the cloud itself raised it
  agent TEXT NOT NULL,
  code TEXT NOT NULL,
  subject TEXT NOT NULL,
  severity TEXT NOT NULL,
  detail TEXT NOT NULL,
  remedy TEXT NOT NULL,
  times INTEGER NOT NULL DEFAULT 1,
  opened_ms INTEGER NOT NULL,
  last_ms INTEGER NOT NULL,
  closed_ms INTEGER,
  acked_ms INTEGER,
  acked_by TEXT
);
CREATE UNIQUE INDEX alerts_open ON alerts(tenant, agent, code, subject) WHERE closed_ms IS NULL;
CREATE INDEX alerts_by_tenant ON alerts(tenant, id);

CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL,
  kind TEXT NOT NULL,
  at_ms INTEGER NOT NULL,
  body TEXT NOT NULL
);
CREATE INDEX events_by_tenant ON events(tenant, seq);

-- Hash chain per tenant ('' for the cloud itself): hash = SHA-256 over the previous hash and every field of the row.
CREATE TABLE audit (
  tenant TEXT NOT NULL,
  n INTEGER NOT NULL,
  at_ms INTEGER NOT NULL,
  actor TEXT NOT NULL,
  what TEXT NOT NULL,
  body TEXT NOT NULL,
  prev BLOB NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (tenant, n)
) WITHOUT ROWID;

-- SHA-256 of each API token, PBKDF2 of each portal password.
CREATE TABLE api_tokens (
  hash BLOB PRIMARY KEY,
  name TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE portal_users (
  name TEXT PRIMARY KEY,
  salt BLOB NOT NULL,
  iterations INTEGER NOT NULL,
  hash BLOB NOT NULL
) WITHOUT ROWID;
