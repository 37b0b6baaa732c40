-- What the agent beside a storage element knows. Nothing in it identifies a patient.
CREATE TABLE registry (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    upto INTEGER NOT NULL
) STRICT;
-- Registered instances, as the daemon told them.
CREATE TABLE entries (
    name TEXT PRIMARY KEY,
    size INTEGER,
    sha256 TEXT,
    registered_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- Files that were placed or found; whether they are there still, the file system says.
CREATE TABLE files (
    name TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    sha256 TEXT
) STRICT, WITHOUT ROWID;
-- What is wanted of the daemon, and what failed.
CREATE TABLE wants (
    name TEXT PRIMARY KEY,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    reason TEXT,
    since INTEGER NOT NULL,
    started_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL UNIQUE,
    owner TEXT,
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE request_files (
    number INTEGER NOT NULL REFERENCES requests (number) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    progress TEXT NOT NULL,
    reason TEXT,
    started_at INTEGER,
    finished_at INTEGER,
    lifetime_s INTEGER,
    keep_until INTEGER,
    PRIMARY KEY (number, position),
    UNIQUE (number, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX request_files_by_name ON request_files (name, progress);
