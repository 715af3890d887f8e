-- Version 2. Times ending in _unix_ms are wall clock (display, signed times); _boot_ms count only together with boot_id.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

CREATE TABLE certificates (
    serial TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    subject TEXT NOT NULL,               -- operator's name or host id
    fingerprint BLOB NOT NULL,           -- SHA-256 of the DER
    not_after_unix_ms INTEGER NOT NULL,
    issued_unix_ms INTEGER NOT NULL,
    revoked_unix_ms INTEGER
) STRICT;
CREATE INDEX certificates_subject ON certificates (role, subject);

CREATE TABLE operators (
    name TEXT PRIMARY KEY,
    role TEXT NOT NULL,
    added_unix_ms INTEGER NOT NULL,
    added_by TEXT NOT NULL,
    removed_unix_ms INTEGER
) STRICT;

CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,           -- SHA-256 of the token; the token itself is shown once and never kept
    ek_id TEXT,                          -- bound to one TPM, or to the two below
    min_class TEXT,
    expires_unix_ms INTEGER NOT NULL,
    node TEXT NOT NULL,
    scheduler TEXT NOT NULL,
    label TEXT NOT NULL,                 -- the label the host gets: the highest it may have by this token
    policy TEXT NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    revoked_unix_ms INTEGER,
    used_unix_ms INTEGER,
    used_by TEXT                         -- host id
) STRICT;

CREATE TABLE preregistrations (
    ek_id TEXT PRIMARY KEY,
    node TEXT NOT NULL,
    scheduler TEXT NOT NULL,
    label TEXT NOT NULL,
    policy TEXT NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    UNIQUE (scheduler, node)
) STRICT;

CREATE TABLE enrolments (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,                 -- challenged, pending, approved, superseded, refused
    host TEXT NOT NULL,                  -- the host id it will have, or the host it wants to be again
    rebinds INTEGER NOT NULL DEFAULT 0,  -- 1: would replace the TPM or AK of an existing host
    ek_id TEXT NOT NULL,
    ek_public BLOB NOT NULL,
    ek_certificate BLOB,
    ek_intermediates TEXT NOT NULL,      -- JSON list of base64 DER
    class TEXT NOT NULL,
    ak_public BLOB NOT NULL,
    ak_name BLOB NOT NULL,
    token_hash BLOB,
    secret_hash BLOB NOT NULL,
    nonce BLOB NOT NULL,
    boot_id TEXT NOT NULL,
    deadline_boot_ms INTEGER NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    tls_public BLOB,
    findings TEXT NOT NULL DEFAULT '[]'
) STRICT;
CREATE INDEX enrolments_host ON enrolments (host, state);

CREATE TABLE hosts (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,                 -- approved, retired
    node TEXT NOT NULL,
    scheduler TEXT NOT NULL,
    label TEXT NOT NULL,
    policy TEXT NOT NULL,                -- AppraisalPolicy by name
    class TEXT NOT NULL,                 -- at enrolment; derived again at each appraisal
    ek_id TEXT NOT NULL,
    ek_public BLOB NOT NULL,
    ek_certificate BLOB,
    ek_intermediates TEXT NOT NULL,
    ak_public BLOB NOT NULL,
    ak_name BLOB NOT NULL,
    approved_unix_ms INTEGER NOT NULL,
    approved_by TEXT NOT NULL,
    retired_unix_ms INTEGER,
    tag_nv BLOB,                         -- the signed tag that the host shall hold
    tag_serial INTEGER NOT NULL DEFAULT 0,
    maintenance_until_unix_ms INTEGER NOT NULL DEFAULT 0,
    kept_state INTEGER NOT NULL DEFAULT 0, -- 1: host_state has a row, which must not be missing
    generation INTEGER NOT NULL DEFAULT 1, -- counts changes that a permit or a running appraisal must notice
    seal BLOB NOT NULL DEFAULT x''         -- MAC over identity and assignment (enrol::enrolled)
) STRICT;
CREATE UNIQUE INDEX hosts_node ON hosts (scheduler, node) WHERE state = 'approved';
CREATE UNIQUE INDEX hosts_ek ON hosts (ek_id) WHERE state = 'approved';
CREATE UNIQUE INDEX hosts_ak ON hosts (ak_name) WHERE state = 'approved';

CREATE TABLE nonces (
    nonce BLOB PRIMARY KEY,
    host TEXT NOT NULL,
    purpose TEXT NOT NULL,               -- round, renewal
    boot_id TEXT NOT NULL,
    issued_boot_ms INTEGER NOT NULL,
    issued_unix_ms INTEGER NOT NULL,
    expires_boot_ms INTEGER NOT NULL,
    detail TEXT NOT NULL DEFAULT '{}',   -- what the challenge asked for
    used_unix_ms INTEGER
) STRICT;
CREATE INDEX nonces_unused ON nonces (host, issued_unix_ms) WHERE used_unix_ms IS NULL;

CREATE TABLE host_state (
    host TEXT PRIMARY KEY REFERENCES hosts (id),
    ak_name BLOB NOT NULL,
    sealed BLOB NOT NULL                 -- attest::state::RoundState: its seal binds host id and AK name
) STRICT;

CREATE TABLE results (
    host TEXT PRIMARY KEY REFERENCES hosts (id),
    state TEXT NOT NULL,                 -- proven, disproven (lapsed is a matter of time, never stored)
    result TEXT,                         -- EAR, compact JWS; none for evidence that is not genuine
    findings TEXT NOT NULL,              -- of evidence that is not genuine
    policy TEXT NOT NULL,
    policy_version INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    issued_boot_ms INTEGER NOT NULL,     -- of the nonce: every lease counts from here
    issued_unix_ms INTEGER NOT NULL,
    sequence INTEGER NOT NULL,           -- grows with each round
    seal BLOB NOT NULL                   -- MAC over host, state, result, times and sequence (store::rounds)
) STRICT;

CREATE TABLE pools (name TEXT PRIMARY KEY, toml TEXT NOT NULL, changed_unix_ms INTEGER NOT NULL, changed_by TEXT NOT NULL) STRICT;
CREATE TABLE admission_policies (name TEXT PRIMARY KEY, toml TEXT NOT NULL, changed_unix_ms INTEGER NOT NULL, changed_by TEXT NOT NULL) STRICT;

CREATE TABLE appraisal_policies (
    name TEXT NOT NULL, version INTEGER NOT NULL, toml TEXT NOT NULL, signature TEXT,
    published_unix_ms INTEGER NOT NULL, published_by TEXT NOT NULL, PRIMARY KEY (name, version)
) STRICT;
CREATE TABLE reference_bundles (
    name TEXT NOT NULL, version INTEGER NOT NULL, toml TEXT NOT NULL, signature TEXT,
    published_unix_ms INTEGER NOT NULL, published_by TEXT NOT NULL, PRIMARY KEY (name, version)
) STRICT;
-- The highest version ever published; older ones are refused.
CREATE TABLE version_floors (kind TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (kind, name)) STRICT;

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    unix_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    prev BLOB NOT NULL,
    hash BLOB NOT NULL
) STRICT;

-- What changed since a cache last looked, whoever changed it.
CREATE TABLE host_changes (host TEXT PRIMARY KEY, change INTEGER NOT NULL) STRICT;
CREATE UNIQUE INDEX host_changes_change ON host_changes (change);
CREATE TABLE rule_changes (change INTEGER NOT NULL) STRICT;
INSERT INTO rule_changes (change) VALUES (0);
CREATE TRIGGER hosts_insert AFTER INSERT ON hosts BEGIN
    INSERT OR REPLACE INTO host_changes VALUES (NEW.id, (SELECT coalesce(max(change), 0) + 1 FROM host_changes));
END;
CREATE TRIGGER hosts_update AFTER UPDATE ON hosts BEGIN
    INSERT OR REPLACE INTO host_changes VALUES (NEW.id, (SELECT coalesce(max(change), 0) + 1 FROM host_changes));
END;
CREATE TRIGGER hosts_delete AFTER DELETE ON hosts BEGIN
    INSERT OR REPLACE INTO host_changes VALUES (OLD.id, (SELECT coalesce(max(change), 0) + 1 FROM host_changes));
END;
CREATE TRIGGER results_insert AFTER INSERT ON results BEGIN
    INSERT OR REPLACE INTO host_changes VALUES (NEW.host, (SELECT coalesce(max(change), 0) + 1 FROM host_changes));
END;
CREATE TRIGGER results_update AFTER UPDATE ON results BEGIN
    INSERT OR REPLACE INTO host_changes VALUES (NEW.host, (SELECT coalesce(max(change), 0) + 1 FROM host_changes));
END;
CREATE TRIGGER results_delete AFTER DELETE ON results BEGIN
    INSERT OR REPLACE INTO host_changes VALUES (OLD.host, (SELECT coalesce(max(change), 0) + 1 FROM host_changes));
END;
CREATE TRIGGER pools_insert AFTER INSERT ON pools BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER pools_update AFTER UPDATE ON pools BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER pools_delete AFTER DELETE ON pools BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER admission_policies_insert AFTER INSERT ON admission_policies BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER admission_policies_update AFTER UPDATE ON admission_policies BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER admission_policies_delete AFTER DELETE ON admission_policies BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER appraisal_policies_insert AFTER INSERT ON appraisal_policies BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER appraisal_policies_update AFTER UPDATE ON appraisal_policies BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER appraisal_policies_delete AFTER DELETE ON appraisal_policies BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER reference_bundles_insert AFTER INSERT ON reference_bundles BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER reference_bundles_update AFTER UPDATE ON reference_bundles BEGIN UPDATE rule_changes SET change = change + 1; END;
CREATE TRIGGER reference_bundles_delete AFTER DELETE ON reference_bundles BEGIN UPDATE rule_changes SET change = change + 1; END;
