-- Schema version 3: phones, their policies and mail systems; what enrolment knows of phones; the compliance rule.

ALTER TABLE sources ADD COLUMN devices INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sources ADD COLUMN device_policies INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sources ADD COLUMN mail_organizations INTEGER NOT NULL DEFAULT 0;

-- One phone in one mailbox. Columns are what is searched, matched and judged; `record` is all of it.
CREATE TABLE devices (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  source INTEGER NOT NULL,
  key TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  device_id TEXT NOT NULL,
  owner TEXT NOT NULL,
  model TEXT,
  imei TEXT,
  state TEXT NOT NULL,
  policy TEXT,
  first_sync TEXT,
  record TEXT NOT NULL,
  -- lower case owner's name, for paging in a stable order
  sort TEXT NOT NULL,
  -- lower case names, addresses, model, ids and numbers, for searching
  search TEXT NOT NULL
);
CREATE INDEX devices_by_sort ON devices(tenant, sort, id);
CREATE INDEX devices_by_state ON devices(tenant, state, sort, id);
CREATE INDEX devices_by_policy ON devices(tenant, policy);
CREATE INDEX devices_by_key ON devices(tenant, key);

CREATE TABLE device_policies (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  source INTEGER NOT NULL,
  key TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  record TEXT NOT NULL,
  sort TEXT NOT NULL,
  search TEXT NOT NULL
);
CREATE INDEX device_policies_by_sort ON device_policies(tenant, sort, id);

CREATE TABLE mail_organizations (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  source INTEGER NOT NULL,
  key TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  record TEXT NOT NULL,
  sort TEXT NOT NULL,
  search TEXT NOT NULL
);
CREATE INDEX mail_organizations_by_sort ON mail_organizations(tenant, sort, id);

-- Phones that device management knows itself. Identifiers are kept as they were given; matching normalises them.
CREATE TABLE enrolled_devices (
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  id TEXT NOT NULL,
  owner TEXT NOT NULL,
  device_id TEXT,
  imei TEXT,
  serial TEXT,
  udid TEXT,
  model TEXT,
  compliant INTEGER NOT NULL,
  enrolled_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, id)
) WITHOUT ROWID;

CREATE TABLE compliance_rules (
  tenant TEXT PRIMARY KEY REFERENCES tenants(id) ON DELETE CASCADE,
  rule TEXT NOT NULL,
  changed_ms INTEGER NOT NULL,
  evaluated_ms INTEGER NOT NULL DEFAULT 0,
  -- blocks that the guard holds, and how many a person has let through
  held INTEGER NOT NULL DEFAULT 0,
  confirmed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- What the rule last found about a phone and what it ordered for it; by the phone's stable id, so that a phone that
-- leaves the upload and comes back is the same one.
CREATE TABLE compliance_findings (
  tenant TEXT NOT NULL REFERENCES tenants(id) ON DELETE CASCADE,
  device TEXT NOT NULL,
  -- compliant, not_compliant, not_enrolled or exempt
  finding TEXT NOT NULL,
  why TEXT NOT NULL,
  since_ms INTEGER NOT NULL,
  -- the verb the rule wants and when it is due; NULL when it wants nothing
  wants TEXT,
  due_ms INTEGER,
  -- the verb last ordered for this finding; without an action when nothing had to be done
  ordered TEXT,
  action TEXT,
  -- whether the phone is blocked by an order of the rule
  blocked INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant, device)
) WITHOUT ROWID;

-- What was ordered for a phone.
CREATE INDEX actions_by_device ON actions(tenant, json_extract(target, '$.key'), seq)
  WHERE json_extract(target, '$.key') IS NOT NULL;
