-- Schema 1 of the key store: docs/src/operating.md. Ids and check values are lower-case hex, permissions eight letters,
-- times seconds since 1970.
CREATE TABLE meta(
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Data keys, wrapped by the store key: docs/src/formats/share-at-rest.md.
CREATE TABLE data_keys(
    id INTEGER PRIMARY KEY CHECK (id BETWEEN 1 AND 4294967295),
    wrapped BLOB NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE entries(
    entry INTEGER PRIMARY KEY,
    key_id TEXT NOT NULL UNIQUE,
    last_component TEXT NOT NULL,
    registration_id TEXT NOT NULL,
    cipher TEXT NOT NULL,
    key_bits INTEGER NOT NULL,
    iv TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'stopped', 'confirmed')),
    restored INTEGER NOT NULL DEFAULT 0 CHECK (restored IN (0, 1)),
    owner TEXT NOT NULL,
    "group" TEXT NOT NULL,
    user_permissions TEXT NOT NULL CHECK (length(user_permissions) = 8),
    group_permissions TEXT NOT NULL CHECK (length(group_permissions) = 8),
    other_permissions TEXT NOT NULL CHECK (length(other_permissions) = 8),
    acl TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 1),
    change_id TEXT NOT NULL,
    placed_by TEXT NOT NULL,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL
) STRICT;
CREATE INDEX entries_by_last_component ON entries(last_component, key_id);
CREATE INDEX entries_by_owner ON entries(owner, key_id);
CREATE INDEX entries_by_placer ON entries(placed_by);

-- One row for each sharing; check_value is empty for imported keys; stores are separated by single blanks.
CREATE TABLE shares(
    entry INTEGER NOT NULL REFERENCES entries(entry) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    check_value TEXT NOT NULL,
    m INTEGER NOT NULL,
    n INTEGER NOT NULL,
    stores TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'confirmed')),
    scheme TEXT NOT NULL,
    share_index INTEGER NOT NULL,
    share BLOB NOT NULL,
    PRIMARY KEY (entry, generation, check_value)
) STRICT, WITHOUT ROWID;

-- For ever. record: the permission record of the removed entry as JSON, none where nothing was.
CREATE TABLE tombstones(
    key_id TEXT NOT NULL,
    registration_id TEXT NOT NULL,
    removed_by TEXT NOT NULL,
    removed_at INTEGER NOT NULL,
    record TEXT,
    PRIMARY KEY (key_id, registration_id)
) STRICT;
CREATE INDEX tombstones_by_remover ON tombstones(removed_by);

CREATE TABLE stop_marks(
    key_id TEXT NOT NULL,
    registration_id TEXT NOT NULL,
    placed_by TEXT NOT NULL,
    placed_at INTEGER NOT NULL,
    PRIMARY KEY (key_id, registration_id)
) STRICT;
CREATE INDEX stop_marks_by_placer ON stop_marks(placed_by);

-- Append only; hash: SHA-256 over the hash before and this line.
CREATE TABLE audit(
    sequence INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    dn TEXT NOT NULL,
    operation TEXT NOT NULL,
    key_id TEXT NOT NULL,
    outcome TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append only'); END;
CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append only'); END;
